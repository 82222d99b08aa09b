//! The one value that a decision is made from. Plain data: no clients, no clock, nothing secret.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::{AllowedOperation, Reason, VppTokenSpec, VppTokenStatus, VppTokenTenant};
use crate::graph::ErrorKind;
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
    /// Of what is to be sent.
    pub sha256: String,
    /// A list has to begin after this before it is sent.
    pub list_after: Timestamp,
}

/// Kinds of steps that can fail each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
    /// Creating.
    Create,
    /// Changing or renewing.
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

impl Observed {
    /// What a step would be tried with now.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            generation: self.object.generation,
            sha256: self.file.as_ref().ok().map(|file| file.sha256.clone()),
            sync_request: self.object.sync_request.clone(),
        }
    }

    /// The failure that still holds back a kind of step.
    pub fn failure(&self, kind: StepKind) -> Option<&Failure> {
        self.memory.failures.get(&kind).filter(|failure| failure.inputs == self.inputs())
    }
}
