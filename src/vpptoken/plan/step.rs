//! The steps that can be taken.

use std::collections::BTreeMap;

use crate::api::{PendingCreate, Uploaded};
use crate::tenant::{Field, Priority};
use crate::vpptoken::world::StepKind;

/// One step towards what the manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put our finalizer on the object, before there is anything to delete.
    AddFinalizer,
    /// Take our finalizer off.
    RemoveFinalizer {
        /// Why, when a person should know.
        warning: Option<String>,
    },
    /// Announce a create in the status.
    Announce(PendingCreate),
    /// Forget an announced create that was not sent.
    Withdraw,
    /// Create the token that was announced.
    Create,
    /// Take over a token that matches exactly, or that an announced create made.
    Adopt {
        /// Its id.
        id: String,
        /// What counts as uploaded to it.
        uploaded: Uploaded,
    },
    /// Take over the token that the manifest names by its id.
    Bind {
        /// Its id.
        id: String,
    },
    /// Note that Graph has the file already.
    Note(Uploaded),
    /// Upload a new file onto the token.
    Upload {
        /// The token.
        id: String,
    },
    /// Change settings. Not together with an upload: if Graph refuses one of the two, the other still arrives.
    Update {
        /// The token.
        id: String,
        /// What to set, and what Graph had.
        fields: BTreeMap<Field, Wanted>,
    },
    /// Say that a sync which was asked for is not started.
    DeclineSync {
        /// The request.
        request: String,
        /// What of the manifest forbids it.
        because: &'static str,
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
    /// Ask for a token that lists lack.
    Confirm {
        /// Its id.
        id: String,
    },
    /// Delete the token in Graph.
    Delete {
        /// Its id.
        id: String,
    },
}

impl Step {
    /// The kind, of those that can fail each for itself.
    pub fn kind(&self) -> Option<StepKind> {
        Some(match self {
            Self::Create => StepKind::Create,
            Self::Upload { .. } => StepKind::Upload,
            Self::Update { .. } => StepKind::Update,
            Self::Sync { .. } => StepKind::Sync,
            Self::Delete { .. } => StepKind::Delete,
            Self::Confirm { .. } => StepKind::Confirm,
            _ => return None,
        })
    }

    /// How urgent it is; none when it changes nothing in Graph.
    pub fn priority(&self) -> Option<Priority> {
        match self {
            Self::Create | Self::Upload { .. } | Self::Update { .. } | Self::Delete { .. } => Some(Priority::Person),
            Self::Sync { priority, .. } => Some(*priority),
            _ => None,
        }
    }
}

/// A value to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What Graph has, in text.
    pub found: Option<String>,
    /// What the manifest asks for, in text.
    pub wanted: String,
}
