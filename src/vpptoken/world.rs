//! The one value that a decision is made from. Plain data: no clients, no clock, nothing secret.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::api::{AllowedOperation, Reason, VppTokenSpec, VppTokenStatus, VppTokenTenant};
use crate::graph::{ErrorKind, GraphError};
use crate::tenant::{Field, TenantView, Timings};

/// All that a decision needs.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
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
    /// What other VppTokens have to do with the same tenant.
    pub others: Others,
    /// What this process remembers.
    pub memory: Memory,
    /// The CustomResourceDefinition is being deleted, which marks every object for deletion.
    pub crd_terminating: bool,
    /// Times that the rules speak of.
    pub timings: Timings,
}

/// The object, apart from what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
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
    /// The value of the annotation that asks for a sync.
    pub sync_request: Option<String>,
}

/// What a token file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// SHA-256, in hexadecimal, of the exact string to send.
    pub sha256: String,
    /// When it expires.
    pub expiration: Timestamp,
    /// The organization that it names.
    pub organization_name: String,
}

/// Why there is no token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileProblem {
    /// The manifest names none, as under `managementPolicy: Observe`.
    NotNamed,
    /// No such Secret.
    SecretNotFound,
    /// Kubernetes refuses to show it.
    NotReadable,
    /// The Secret lacks the key.
    KeyNotFound,
    /// What is there is not a token file; says where and what was expected, not what is there.
    Malformed(String),
}

/// The tenant behind `tenantRef`.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // there is one per reconcile
pub enum TenantState {
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
pub struct KnownTenant {
    /// Which one.
    pub identity: VppTokenTenant,
    /// What VppTokens may do.
    pub allowed: BTreeSet<Permission>,
    /// Its tokens.
    pub view: TenantView,
}

/// What VppTokens may do, in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
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

/// What other VppTokens have to do with the same tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Tokens that another VppToken has: when that one was created, and its UID.
    pub claimed: BTreeMap<String, (Timestamp, String)>,
    /// Digests of the files that other VppTokens uploaded, and the tokens that have them.
    pub files: BTreeMap<String, String>,
    /// Another VppToken with the same Apple ID is creating, and goes first.
    pub creating: bool,
}

/// What this process remembers of an object, beyond its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// A create that was announced in the status and not sent: by this process, which therefore knows.
    pub unsent_create: Option<UnsentCreate>,
    /// The last failure of each kind of step.
    pub failures: BTreeMap<StepKind, Failure>,
    /// How often a value was sent without Graph keeping it.
    pub tries: BTreeMap<Field, (String, u32)>,
}

/// An announced create that was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsentCreate {
    /// When it was announced: of two processes that announce the same file, each sends only what it announced itself.
    pub since: Timestamp,
    /// A list has to begin after this before it is sent.
    pub list_after: Timestamp,
}

/// Kinds of steps that can fail each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
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
pub struct Failure {
    /// What it means.
    pub kind: ErrorKind,
    /// What a person reads: without ids that change with every try.
    pub message: String,
    /// When it first failed so.
    pub since: Timestamp,
    /// When the last try began.
    pub began: Timestamp,
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

/// What a step is tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Of the object.
    pub generation: i64,
    /// Of the token file, if there is one.
    pub sha256: Option<String>,
    /// The annotation.
    pub sync_request: Option<String>,
}

impl Inputs {
    /// Whether a kind of step would be tried with the same: a request for a sync concerns only syncs.
    pub fn is_same_for(&self, kind: StepKind, other: &Self) -> bool {
        (self.generation, &self.sha256) == (other.generation, &other.sha256)
            && (kind != StepKind::Sync || self.sync_request == other.sync_request)
    }
}

impl Memory {
    /// Values were sent, and Graph accepted them.
    pub fn tried(&mut self, written: Vec<(Field, String)>) {
        for (field, value) in written {
            let tries = self.tries.entry(field).or_insert_with(|| (value.clone(), 0));
            *tries = if tries.0 == value { (value, tries.1.saturating_add(1)) } else { (value, 1) };
        }
    }

    /// A step failed: it waits out a delay that grows until it succeeds or its inputs change. `jitter` is from 0 to 1.
    pub fn failed(
        &mut self,
        kind: StepKind,
        error: &GraphError,
        inputs: Inputs,
        began: Timestamp,
        now: Timestamp,
        jitter: f64,
    ) {
        let before = self.failures.get(&kind);
        let before = before.filter(|before| before.inputs.is_same_for(kind, &inputs));
        let count = before.map_or(1, |before| before.count.saturating_add(1));
        let before = before.filter(|before| before.kind.is_about_access() == error.kind.is_about_access());
        let failure = Failure {
            kind: error.kind,
            message: error.told(),
            since: before.map_or(now, |before| before.since),
            began,
            at: now,
            count,
            not_before: now.saturating_add(delay(error, count, jitter)).unwrap_or(Timestamp::MAX),
            maybe_executed: error.maybe_executed(),
            inputs,
        };
        self.failures.insert(kind, failure);
    }
}

/// How long a failed step waits: what Graph asks for, or a time that doubles, with jitter so that many objects that failed
/// together do not come back together.
fn delay(error: &GraphError, count: u32, jitter: f64) -> SignedDuration {
    let (first, most) = match error.kind {
        ErrorKind::Refused | ErrorKind::NotFound => (60.0, 3600.0),
        ErrorKind::Credentials | ErrorKind::Forbidden | ErrorKind::Unauthorized => (5.0, 300.0),
        _ => (1.0, 300.0),
    };
    let doubled: f64 = first * 2f64.powi(i32::try_from(count.saturating_sub(1).min(20)).unwrap_or(20));
    let asked = error.retry_after.map_or(0.0, |wait| wait.as_secs_f64());
    SignedDuration::try_from_secs_f64((doubled.min(most) * (0.8 + 0.4 * jitter)).max(asked))
        .unwrap_or(SignedDuration::from_secs(300))
}

impl Observed {
    /// What a step would be tried with now.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            generation: self.object.generation,
            sha256: self.file.as_ref().ok().map(|file| file.sha256.clone()),
            sync_request: self.object.sync_request.clone(),
        }
    }

    /// The create that was announced and not sent, if it is the one that the status tells of.
    pub fn unsent_create(&self) -> Option<&UnsentCreate> {
        let pending = self.status.pending_create.as_ref()?;
        self.memory.unsent_create.as_ref().filter(|unsent| unsent.since == pending.since)
    }

    /// The failure that still holds back a kind of step.
    pub fn failure(&self, kind: StepKind) -> Option<&Failure> {
        self.memory.failures.get(&kind).filter(|failure| failure.inputs.is_same_for(kind, &self.inputs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_grows_with_jitter_up_to_its_limit() {
        let error = GraphError::new(ErrorKind::OutcomeUnknown, "x");
        for (count, low, high) in [(1, 0.8, 1.2), (2, 1.6, 2.4), (5, 12.8, 19.2), (50, 240.0, 360.0)] {
            for jitter in [0.0, 0.5, 1.0] {
                let waited = delay(&error, count, jitter).as_secs_f64();
                assert!((low..=high).contains(&waited), "{count}: {waited}");
            }
        }
        let asked = GraphError { retry_after: Some(std::time::Duration::from_secs(7)), ..error };
        assert!(delay(&asked, 1, 0.0).as_secs_f64() >= 7.0);
    }
}
