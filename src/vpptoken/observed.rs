//! The one value that a decision is made from. Plain data: no clients, no clock, nothing secret.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::claims::OthersClaims;
use crate::api::{AllowedOperation, Reason, TokenEncoding, Uploaded, VppTokenSpec, VppTokenStatus, VppTokenTenant};
use crate::graph::ErrorKind;
use crate::tenant::{Access, Field, TenantView, Timings};
use crate::token_file::sha256_hex;

/// All that a decision needs.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// The time that delays are measured by, and that orders what this process does; see [`crate::clock::Clock::now`].
    pub now: Timestamp,
    /// The wall clock's time, for what is shown and for what comes from outside.
    pub wall: Timestamp,
    /// When the live reads that a write depends on began; none when caches were read, which no write to Graph may
    /// depend on.
    pub live_since: Option<Timestamp>,
    /// The object, apart from what it asks for.
    pub object: Object,
    /// What it asks for.
    pub spec: VppTokenSpec,
    /// What is remembered in its status.
    pub status: VppTokenStatus,
    /// The token file in the Secret.
    pub file: Result<FileFacts, FileProblem>,
    /// The tenant.
    pub tenant: TenantState,
    /// The other VppTokens of the same tenant.
    pub others: Others,
    /// What this process remembers.
    pub attempts: Attempts,
    /// The CustomResourceDefinition is being deleted, which marks every object for deletion.
    pub crd_terminating: bool,
    /// The durations that the rules use.
    pub timings: Timings,
}

/// The object, apart from what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// When it was created.
    pub created: Timestamp,
    /// Since when it is being deleted.
    pub deleting: Option<Timestamp>,
    /// Whether its namespace is being deleted.
    pub namespace_deleting: bool,
    /// Whether our finalizer is on it.
    pub has_finalizer: bool,
    /// The value of the annotation that asks for a sync, as [`bounded_request`] has it.
    pub sync_request: Option<String>,
    /// The value of the annotation that asks for an upload, likewise.
    pub upload_request: Option<String>,
}

/// A request may be an annotation of any length, and is copied into the status when it is answered: a long one is
/// replaced by its digest.
pub(crate) fn bounded_request(text: &str) -> String {
    const MAX_CHARACTERS: usize = 256;
    if text.chars().count() <= MAX_CHARACTERS {
        return text.to_owned();
    }
    format!("sha256:{}", sha256_hex(text.as_bytes()))
}

/// What a token file contains, apart from the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileFacts {
    /// SHA-256, in hexadecimal, of the exact string to send.
    pub sha256: String,
    /// When it expires.
    pub expiration: Timestamp,
    /// The organization that it names.
    pub organization_name: String,
    /// The encoding of the string that `sha256` is of.
    pub encoding: TokenEncoding,
    /// The version of the Secret that holds it.
    pub secret_version: String,
}

impl FileFacts {
    /// What counts as uploaded when this file is on a token.
    pub(crate) fn as_uploaded(&self, time: Timestamp, shown: bool) -> Uploaded {
        Uploaded {
            sha256: self.sha256.clone(),
            expiration_date_time: self.expiration,
            organization_name: self.organization_name.clone(),
            time,
            encoding: Some(self.encoding),
            secret_version: Some(self.secret_version.clone()),
            shown,
        }
    }

    /// The file of a version of a Secret, as far as a status knows it.
    pub(crate) fn of_uploaded(uploaded: &Uploaded, secret_version: &str, encoding: TokenEncoding) -> Option<Self> {
        let is_known =
            uploaded.encoding == Some(encoding) && uploaded.secret_version.as_deref() == Some(secret_version);
        is_known.then(|| Self {
            sha256: uploaded.sha256.clone(),
            expiration: uploaded.expiration_date_time,
            organization_name: uploaded.organization_name.clone(),
            encoding,
            secret_version: secret_version.to_owned(),
        })
    }
}

/// Why there is no token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileProblem {
    /// The manifest names none, as under `managementPolicy: Observe`.
    NotNamed,
    /// No such Secret.
    SecretNotFound,
    /// Kubernetes refuses to show it.
    NotReadable,
    /// The Secret lacks the key.
    KeyNotFound,
    /// It is not a token file; the text has the position and what was expected there, never the content.
    Malformed(String),
}

/// The tenant behind `tenantRef`.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // there is one per reconcile
pub(crate) enum TenantState {
    /// No such object.
    NotFound,
    /// A ClusterGraphTenant that does not allow the namespace.
    NamespaceNotAllowed,
    /// It can't be used yet.
    Unusable {
        /// Why.
        reason: Reason,
        /// A sentence.
        message: String,
    },
    /// It can be used.
    Known(KnownTenant),
}

/// A tenant that can be used.
#[derive(Clone, Debug)]
pub(crate) struct KnownTenant {
    /// Which one.
    pub identity: VppTokenTenant,
    /// What VppTokens may do.
    pub allowed: BTreeSet<Permission>,
    /// Its tokens.
    pub view: TenantView,
}

/// What VppTokens may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// Create a token.
    Create,
    /// Take over an exact match.
    Adopt,
    /// Take over by id.
    Bind,
    /// Delete a token.
    Delete,
}

impl From<AllowedOperation> for Permission {
    fn from(operation: AllowedOperation) -> Self {
        match operation {
            AllowedOperation::Create => Self::Create,
            AllowedOperation::Adopt => Self::Adopt,
            AllowedOperation::Bind => Self::Bind,
            AllowedOperation::Delete => Self::Delete,
        }
    }
}

/// The other VppTokens of the same tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// The tokens that they have, and the files that they uploaded.
    pub claims: OthersClaims,
    /// Another VppToken is creating with the same Apple ID, or with a file of the same organization and expiry, and goes first.
    pub creating: bool,
    /// This process has never read one of the watched namespaces: what else is claimed, or being created, is not known.
    pub unread: bool,
}

/// What this process remembers of an object, beyond its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// The intent that this process recorded in the status, and whose create it has not sent.
    pub unsent_intent: Option<UnsentIntent>,
    /// The last failure of each kind of step.
    pub failures: BTreeMap<StepKind, Failure>,
    /// How often a value was sent without Graph keeping it.
    pub tries: BTreeMap<Field, (String, u32)>,
}

/// A recorded intent whose create was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnsentIntent {
    /// When it was recorded: of two processes that record an intent for the same file, each sends only its own.
    pub since: Timestamp,
    /// A list has to begin after this before it is sent.
    pub list_after: Timestamp,
    /// Whether the status has it for certain, as others may read it. Until then its write may have had its effect without an answer.
    pub is_recorded: bool,
}

/// Kinds of steps whose failures are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StepKind {
    /// Creating.
    Create,
    /// Uploading a new file onto a token.
    Upload,
    /// Changing settings.
    Update,
    /// Syncing.
    Sync,
    /// Deleting.
    Delete,
    /// Asking for one token.
    Confirm,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What it means.
    pub kind: ErrorKind,
    /// What a person reads: without ids that change with every try.
    pub message: String,
    /// When it first failed so.
    pub since: Timestamp,
    /// When the last try began.
    pub began: Timestamp,
    /// The same by the wall clock.
    pub began_wall: Timestamp,
    /// When the token's last sync had ended then, by Graph's clock; only of a sync that failed.
    pub last_sync: Option<Timestamp>,
    /// When it last failed.
    pub at: Timestamp,
    /// How often in a row.
    pub count: u32,
    /// When it may be tried again.
    pub not_before: Timestamp,
    /// Whether it may have been carried out all the same.
    pub maybe_executed: bool,
    /// What it was tried with: when that changes, it is tried again at once.
    pub inputs: Inputs,
}

/// The beginning of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TryStart {
    /// When it began.
    pub began: Timestamp,
    /// The same by the wall clock.
    pub began_wall: Timestamp,
    /// Of a sync: when the token's last sync had ended, by Graph's clock.
    pub last_sync: Option<Timestamp>,
}

/// What decides whether a VppToken may use its tenant, read past the caches.
#[derive(Clone, Debug)]
pub(crate) struct LiveReads {
    /// When the reads began.
    pub since: Timestamp,
    /// Of a ClusterGraphTenant; a GraphTenant allows its own namespace everything.
    pub cluster: Option<LiveCluster>,
    /// Of the Secret, if it was read.
    pub secret: Option<LiveSecret>,
}

/// What a ClusterGraphTenant and the namespace are now, or were a moment ago, if the caches say the same.
#[derive(Clone, Debug)]
pub(crate) struct LiveCluster {
    /// Whom it allows what; none when it does not exist.
    pub access: Option<Access>,
    /// The labels of the namespace.
    pub labels: BTreeMap<String, String>,
}

/// The Secret as it is now.
#[derive(Clone, Debug)]
pub(crate) struct LiveSecret {
    pub name: String,
    pub version: Result<String, FileProblem>,
}

/// What a step was decided on, as far as its result is recorded with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DecidedOn {
    /// The tenant that the step was decided for, if it is known.
    pub tenant: Option<VppTokenTenant>,
    /// When the file was uploaded that the status has.
    pub uploaded: Option<Timestamp>,
    /// What it is tried with.
    pub inputs: Inputs,
}

/// What a step is tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// Of the object.
    pub generation: i64,
    /// Of the token file, if there is one.
    pub sha256: Option<String>,
    /// The annotation that asks for a sync.
    pub sync_request: Option<String>,
    /// The annotation that asks for an upload.
    pub upload_request: Option<String>,
}

impl Inputs {
    /// Whether a kind of step has the same inputs: a request for a sync concerns only syncs, and so on.
    pub(crate) fn is_same_for(&self, kind: StepKind, other: &Self) -> bool {
        (self.generation, &self.sha256) == (other.generation, &other.sha256)
            && (kind != StepKind::Sync || self.sync_request == other.sync_request)
            && (kind != StepKind::Upload || self.upload_request == other.upload_request)
    }
}

impl Attempts {
    /// Values were sent, and Graph accepted them.
    pub(crate) fn record_sent(&mut self, written: Vec<(Field, String)>) {
        for (field, value) in written {
            let tries = self.tries.entry(field).or_insert_with(|| (value.clone(), 0));
            *tries = if tries.0 == value { (value, tries.1.saturating_add(1)) } else { (value, 1) };
        }
    }
}

impl Observed {
    /// The tenant, if it can be used.
    pub(crate) fn known_tenant(&self) -> Option<&KnownTenant> {
        match &self.tenant {
            TenantState::Known(tenant) => Some(tenant),
            TenantState::NotFound | TenantState::NamespaceNotAllowed | TenantState::Unusable { .. } => None,
        }
    }

    /// What a step that is decided now is decided on.
    pub(crate) fn decided_on(&self) -> DecidedOn {
        let tenant = self.known_tenant().map(|known| known.identity.clone());
        let uploaded = self.status.uploaded.as_ref().map(|uploaded| uploaded.time);
        DecidedOn { tenant, uploaded, inputs: self.inputs() }
    }

    /// What a step would be tried with now.
    pub(crate) fn inputs(&self) -> Inputs {
        Inputs {
            generation: self.object.generation,
            sha256: self.file.as_ref().ok().map(|file| file.sha256.clone()),
            sync_request: self.object.sync_request.clone(),
            upload_request: self.object.upload_request.clone(),
        }
    }

    /// Converts a time of the wall clock to a time of [`Observed::now`], by their present difference.
    pub(crate) fn at_wall(&self, time: Timestamp) -> Timestamp {
        self.now.saturating_add(time.duration_since(self.wall)).unwrap_or(Timestamp::MAX)
    }

    /// Converts a time of [`Observed::now`] to a time of the wall clock.
    pub(crate) fn wall_at(&self, time: Timestamp) -> Timestamp {
        self.wall.saturating_add(time.duration_since(self.now)).unwrap_or(Timestamp::MAX)
    }

    /// The intent that was not sent, if it is the one in the status.
    pub(crate) fn unsent_intent(&self) -> Option<&UnsentIntent> {
        let pending = self.status.pending_create.as_ref()?;
        self.attempts.unsent_intent.as_ref().filter(|unsent| unsent.since == pending.since)
    }

    /// The failure that still holds back a kind of step.
    pub(crate) fn failure(&self, kind: StepKind) -> Option<&Failure> {
        self.attempts.failures.get(&kind).filter(|failure| failure.inputs.is_same_for(kind, &self.inputs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_request_is_replaced_by_its_digest() {
        let long = "é".repeat(256);
        assert_eq!((bounded_request("now"), bounded_request(&long)), ("now".into(), long.clone()));
        let digests = ["a", "b"].map(|end| bounded_request(&format!("{long}{end}")));
        assert_ne!(digests[0], digests[1]);
        assert!(digests.iter().all(|it| it.starts_with("sha256:") && it.len() == 71), "{digests:?}");
    }
}
