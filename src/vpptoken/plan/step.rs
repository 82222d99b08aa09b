//! The steps that can be taken.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::{PendingCreate, Uploaded};
use crate::graph::TokenSettings;
use crate::tenant::{Field, Priority};
use crate::vpptoken::observed::{FileFacts, StepKind};

/// One step towards what the manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Put our finalizer on the object, before there is anything to delete.
    AddFinalizer,
    /// Take our finalizer off.
    RemoveFinalizer {
        /// Why, when a person should know.
        warning: Option<String>,
    },
    /// Record the intent of a create in the status.
    RecordIntent(PendingCreate),
    /// Abandon an intent whose create was not sent, or not carried out.
    AbandonIntent {
        /// When it was recorded.
        since: Timestamp,
    },
    /// Take over a token that matches exactly, or that is the result of a recorded intent.
    Adopt {
        /// Its id.
        id: String,
        /// What counts as uploaded to it.
        uploaded: Uploaded,
        /// Whether a create of this VppToken, whose answer was lost, has made it.
        is_own_create: bool,
    },
    /// Take over the token that the manifest names by its id.
    Bind {
        /// Its id.
        id: String,
    },
    /// Note that Graph has the file already.
    Note(Uploaded),
    /// Read the token that a file is about to be uploaded onto: what Graph has now decides whether it may be.
    ConfirmUpload {
        /// The token.
        id: String,
    },
    /// Answer a request for a sync that is not started, because the token is only observed.
    DeclineSync {
        /// The request.
        request: String,
    },
    /// Answer a request for an upload that is not done, because the token is only observed.
    DeclineUpload {
        /// The request.
        request: String,
    },
    /// Read a token that lists lack.
    Confirm {
        /// Its id.
        id: String,
    },
    /// Write to Graph.
    Write(Write),
}

/// A write to Graph, with all that it sends but the token file: that is read when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Create the token of the recorded intent.
    Create(Box<NewToken>),
    /// Upload a file onto the token.
    Upload {
        /// The token.
        id: String,
        /// The file that it is decided for. If the Secret has another one by now, none is sent.
        file: FileFacts,
        /// The request that this answers.
        request: Option<String>,
    },
    /// Change settings. Not together with an upload: if Graph refuses one of the two, the other still arrives.
    Update {
        /// The token.
        id: String,
        /// What to set, and what Graph had.
        changes: BTreeMap<Field, Wanted>,
        /// What to set, as it is sent.
        settings: TokenSettings,
    },
    /// Start a sync.
    Sync {
        /// The token.
        id: String,
        /// How urgent.
        priority: Priority,
        /// The request that this answers.
        request: Option<String>,
    },
    /// Delete the token.
    Delete {
        /// Its id.
        id: String,
    },
}

/// A token to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewToken {
    /// Its intent.
    pub pending: PendingCreate,
    /// The file that it is decided for. If the Secret has another one by now, none is sent.
    pub file: FileFacts,
    /// Its settings, as they are sent.
    pub settings: TokenSettings,
    /// The settings that the manifest names, in text.
    pub named: Vec<(Field, String)>,
    /// The request for an upload that this answers.
    pub request: Option<String>,
}

impl Step {
    /// The kind, for steps whose failures are independent of each other.
    pub(crate) fn kind(&self) -> Option<StepKind> {
        match self {
            Self::Write(write) => Some(write.kind()),
            Self::Confirm { .. } | Self::ConfirmUpload { .. } => Some(StepKind::Confirm),
            Self::AddFinalizer
            | Self::RemoveFinalizer { .. }
            | Self::RecordIntent(_)
            | Self::AbandonIntent { .. }
            | Self::Adopt { .. }
            | Self::Bind { .. }
            | Self::Note(_)
            | Self::DeclineSync { .. }
            | Self::DeclineUpload { .. } => None,
        }
    }

    /// What it needs before it is taken, if anything: it changes something in Graph, or is about to.
    pub(crate) fn needed_permit(&self) -> Option<PermitKind> {
        match self {
            Self::Write(write) => Some(PermitKind::Write(write.priority())),
            Self::ConfirmUpload { .. } => Some(PermitKind::Write(Priority::Interactive)),
            Self::RecordIntent(_) => Some(PermitKind::Intent),
            Self::AddFinalizer
            | Self::RemoveFinalizer { .. }
            | Self::AbandonIntent { .. }
            | Self::Adopt { .. }
            | Self::Bind { .. }
            | Self::Note(_)
            | Self::DeclineSync { .. }
            | Self::DeclineUpload { .. }
            | Self::Confirm { .. } => None,
        }
    }

    /// Whether Graph is asked for something.
    pub(crate) fn is_at_graph(&self) -> bool {
        self.writes() || matches!(self, Self::Confirm { .. })
    }

    /// Whether it writes to Graph, or is about to.
    pub(crate) fn writes(&self) -> bool {
        matches!(self.needed_permit(), Some(PermitKind::Write(_)))
    }

    /// Whether it is decided on live reads: it writes to Graph, announces that, or takes a token over.
    pub(crate) fn needs_live_reads(&self) -> bool {
        match self {
            Self::Write(_)
            | Self::ConfirmUpload { .. }
            | Self::RecordIntent(_)
            | Self::Adopt { .. }
            | Self::Bind { .. } => true,
            Self::AddFinalizer
            | Self::RemoveFinalizer { .. }
            | Self::AbandonIntent { .. }
            | Self::Note(_)
            | Self::DeclineSync { .. }
            | Self::DeclineUpload { .. }
            | Self::Confirm { .. } => false,
        }
    }

    /// Whether what its tenant object and namespace allow is read anew for this step, and not shared with those who asked before:
    /// a token that was deleted does not come back.
    pub(crate) fn needs_reads_of_its_own(&self) -> bool {
        match self {
            Self::Write(Write::Delete { .. }) => true,
            Self::Write(Write::Create(_) | Write::Upload { .. } | Write::Update { .. } | Write::Sync { .. })
            | Self::AddFinalizer
            | Self::RemoveFinalizer { .. }
            | Self::RecordIntent(_)
            | Self::AbandonIntent { .. }
            | Self::Adopt { .. }
            | Self::Bind { .. }
            | Self::Note(_)
            | Self::ConfirmUpload { .. }
            | Self::DeclineSync { .. }
            | Self::DeclineUpload { .. }
            | Self::Confirm { .. } => false,
        }
    }

    /// Whether the object is read live, too. An intent is written into the status of the very version that it was decided on,
    /// or not at all.
    pub(crate) fn needs_live_object(&self) -> bool {
        self.needs_live_reads() && !matches!(self, Self::RecordIntent(_))
    }

    /// Whether the Secret is read live, too: a token is taken over because of its file. A file that is sent is read then.
    pub(crate) fn needs_live_secret(&self) -> bool {
        match self {
            Self::Adopt { is_own_create, .. } => !is_own_create,
            Self::AddFinalizer
            | Self::RemoveFinalizer { .. }
            | Self::RecordIntent(_)
            | Self::AbandonIntent { .. }
            | Self::Bind { .. }
            | Self::Note(_)
            | Self::ConfirmUpload { .. }
            | Self::DeclineSync { .. }
            | Self::DeclineUpload { .. }
            | Self::Confirm { .. }
            | Self::Write(_) => false,
        }
    }
}

impl Write {
    /// How urgent it is.
    pub(crate) fn priority(&self) -> Priority {
        match self {
            Self::Sync { priority, .. } => *priority,
            Self::Create(_) | Self::Upload { .. } | Self::Update { .. } | Self::Delete { .. } => Priority::Interactive,
        }
    }

    /// The kind, whose failures are independent of those of the others.
    pub(crate) fn kind(&self) -> StepKind {
        match self {
            Self::Create(_) => StepKind::Create,
            Self::Upload { .. } => StepKind::Upload,
            Self::Update { .. } => StepKind::Update,
            Self::Sync { .. } => StepKind::Sync,
            Self::Delete { .. } => StepKind::Delete,
        }
    }
}

/// What a step needs before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PermitKind {
    /// A permit to record the intent of a create.
    Intent,
    /// A permit to send a write.
    Write(Priority),
}

/// A value to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What Graph has, in text.
    pub found: Option<String>,
    /// What the manifest asks for, in text.
    pub wanted: String,
}
