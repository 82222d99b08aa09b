//! What users write and read: the custom resources, their conditions and their reasons. Uses no other module and does
//! no I/O.

pub mod conditions;
mod crds;
mod ids;
mod names;
mod rules;
pub mod status_patch;
mod tenant;
mod vpp_token;

pub use conditions::{ConditionType, Reason};
pub use crds::{crds, crds_as_files};
pub use ids::TokenId;
pub(crate) use ids::{AppleId, EntraTenant};
pub(crate) use names::NamespacedName;
pub use tenant::{
    AllowedNamespaces, AllowedNamespacesFrom, AllowedOperation, ClientSecretRef, Cloud, ClusterGraphTenant,
    ClusterGraphTenantSpec, Credentials, GraphApi, GraphTenant, GraphTenantSpec, TenantConnection, TenantStatus,
    TokenEncoding,
};
pub use vpp_token::{
    AccountType, ClaimedByAnother, DeletionPolicy, ManagementPolicy, PendingCreate, SyncSpec, TenantKind, TenantRef,
    TokenSecretRef, Uploaded, VppToken, VppTokenSpec, VppTokenStatus, VppTokenTenant,
};

/// API group of every resource of this operator.
pub const GROUP: &str = "vpptoken.io";

/// Annotation on a VppToken that asks for one sync now: any value that differs from `status.lastHandledSyncRequest`.
pub const SYNC_REQUESTED_AT: &str = "vpptoken.io/sync-requested-at";

/// Annotation on a VppToken that asks for its file to be uploaded again: any value that differs from
/// `status.lastHandledUploadRequest`.
pub const UPLOAD_REQUESTED_AT: &str = "vpptoken.io/upload-requested-at";

/// Finalizer on a VppToken whose deletion also deletes the token in Graph (`deletionPolicy: Delete`).
pub const FINALIZER: &str = "vpptoken.io/graph-token";

/// Field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "vpptoken-operator";
