//! Conditions and their reasons: every cause that a person can see has one, with the same name for ever.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition types of a VppToken (`Ready` also of the tenants).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// Graph has what the manifest asks for, and the token is valid.
    Ready,
    /// The operator is at work, or waits for something that it expects to come by itself (kstatus).
    Reconciling,
    /// A person is needed (kstatus).
    Stalled,
    /// The state of the token itself in Graph.
    TokenValid,
    /// How the last sync ended.
    Synced,
}

impl ConditionType {
    /// Every type.
    pub const ALL: [Self; 5] = [Self::Ready, Self::Reconciling, Self::Stalled, Self::TokenValid, Self::Synced];

    /// The type as Kubernetes shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::TokenValid => "TokenValid",
            Self::Synced => "Synced",
        }
    }
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known.
    Unknown,
}

impl ConditionStatus {
    /// The status as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Declares the reasons once: variant, and the sentence that documents it.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why a condition is as it is. Names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason as Kubernetes shows it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What it means and what to do, as in the documentation.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

reasons! {
    /// Graph has what the manifest asks for, and the token is valid.
    UpToDate,
    /// The Secret with the token file, or with the client secret of the tenant, is not there yet. Create it.
    SecretNotFound,
    /// The Secret is there, but not the key that the manifest names.
    SecretKeyNotFound,
    /// Kubernetes refuses to show the Secret to the operator. Its ServiceAccount needs the right to get Secrets there.
    SecretNotReadable,
    /// The tenant object that `tenantRef` names is not there yet. Create it.
    TenantNotFound,
    /// The tenant's tokens have not been listed yet.
    TenantNotRead,
    /// The ClusterGraphTenant does not allow this namespace. Ask its administrator, or use a GraphTenant of your own.
    NamespaceNotAllowed,
    /// The ClusterGraphTenant does not allow what is needed here. Ask its administrator. Nothing is created until then.
    OperationNotAllowed,
    /// The tenant object now stands for another Entra tenant than the one that holds the token. Delete the VppToken and create
    /// it again to use the other tenant.
    TenantChanged,
    /// The token is being created in Graph, or taken over.
    Creating,
    /// A create was sent and its answer never came; Graph is being searched for its result.
    CreateOutcomeUnknown,
    /// Another VppToken with the same Apple ID, or with a file of the same organization and expiry, is being created; such
    /// creates go one after the other.
    WaitingForCreate,
    /// The operator can't read one of the namespaces that it watches, so it does not know which tokens the VppTokens there have.
    /// Nothing is created, taken over or deleted in Graph until it can; renewals, settings and syncs go on. Its log and the
    /// metric `vpptoken_watch_up` name the namespace: restore its rights there, or stop watching it.
    NamespaceNotRead,
    /// A new token file is being uploaded onto the same token in Graph.
    Uploading,
    /// Settings are being written to Graph, or the token that `tokenId` names is being taken over.
    Updating,
    /// Graph has taken a write and does not show it yet.
    Settling,
    /// The finalizer for `deletionPolicy` is being written.
    Finalizing,
    /// Graph does not say whether the token is valid, or says it in a word that this version does not know. `TokenValid` has
    /// Graph's own word.
    StateUnknown,
    /// Graph or the way to it fails; it is tried again by itself.
    GraphUnavailable,
    /// Graph asked to wait.
    Throttled,
    /// Graph's tokens could not be listed for more than three poll intervals.
    SnapshotStale,
    /// Entra ID refuses the credentials of the tenant object. The message has the AADSTS code.
    CredentialsRefused,
    /// The app registration lacks a permission in Graph.
    PermissionMissing,
    /// The Secret's key does not hold a token file as Apple hands it out. Download it again.
    TokenFileMalformed,
    /// The token file in the Secret has expired. Download a new one from Apple.
    TokenFileExpired,
    /// The token file in the Secret expires before the one that Graph has.
    TokenFileOlder,
    /// The token file names another organization than the manifest, or than the token in Graph.
    OrganizationMismatch,
    /// Graph has several unclaimed tokens that match the file exactly. Remove all but one, set `tokenId` to the right
    /// one, or list those of other locations in `distinctFrom`.
    AmbiguousMatch,
    /// Graph has an unclaimed token that may be of the same location: with an older file, or with another Apple ID because
    /// `appleId` is mistyped. Correct `appleId`, set `tokenId` to take the token over, or list it in `distinctFrom` when it is
    /// of another location.
    SimilarTokenExists,
    /// Another VppToken has this token in Graph. Delete one of the two; if the file is of another location, list the token in
    /// `distinctFrom`.
    ClaimedByAnother,
    /// The VppToken has another token than the one that `tokenId` names. Create another VppToken for that one.
    AlreadyBound,
    /// The token that `tokenId` names is not in this tenant. `tokenId` can't be changed: delete the VppToken and create it again.
    TokenNotFound,
    /// Graph's lists lack the token, or one that may be of the same location: it is being looked for, or, once that is certain,
    /// created again.
    Vanished,
    /// Most of the tenant's tokens seem gone at once; that looks like a fault, so nothing is created. If they were deleted on
    /// purpose, delete their VppTokens and create them again.
    ManyVanished,
    /// The schedule or the interval can't be read, or it fires more often than every 15 minutes. Nothing is created until it is
    /// corrected.
    ScheduleInvalid,
    /// The schedule never fires. Nothing is created until it is corrected.
    ScheduleNeverFires,
    /// Graph refuses the request. The message has Graph's own sentence.
    GraphRefused,
    /// The manifest names a setting that only Graph's beta API has, and the tenant object says `api: V1`. Leave it out, or have
    /// `api: Beta` set there. Nothing is created until then.
    SettingUnknownToApi,
    /// Graph accepts a setting and does not keep it.
    SettingNotAccepted,
    /// `suspend: true` keeps something that is due from being written to Graph. Set it to false to go on.
    Suspended,
    /// The VppToken is being deleted.
    Deleting,
    /// The token is valid.
    Valid,
    /// The token expires within 30 days. Renew it at Apple and replace the Secret.
    ExpiringSoon,
    /// The token in Graph has expired. Download a new file from Apple and replace the Secret.
    Expired,
    /// Apple does not accept the token any more: revoked, or its Managed Apple ID was changed or disabled.
    Invalid,
    /// The token is used by another device management system. Remove it there first.
    AssignedToExternalMDM,
    /// Two tokens of one location are in Intune; neither syncs until one is removed.
    DuplicateLocation,
    /// Graph says nothing that this operator understands.
    Unknown,
    /// A renewed file was uploaded and Graph still shows the expiry of the old one.
    RenewalNotShownYet,
    /// A renewed file was uploaded, and a day later Graph still shows a token that expires earlier. Upload the file in
    /// Intune, or put one into the Secret that is newer still.
    RenewalNotKept,
    /// The token in Intune expires later than the file in the Secret: someone renewed it there. Put the newer file into the
    /// Secret.
    NewerTokenInIntune,
    /// Intune had the file and now has a token that expires earlier: someone replaced it there. Put a newer file into the
    /// Secret, or have the Secret's file uploaded again with the annotation `vpptoken.io/upload-requested-at`.
    ReplacedInIntune,
    /// The last sync completed.
    SyncCompleted,
    /// A sync is running.
    SyncInProgress,
    /// A sync has been running for more than an hour.
    SyncStuck,
    /// The last sync failed.
    SyncFailed,
    /// There was no sync yet.
    NeverSynced,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition without its times: what the operator reports now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// Which condition.
    pub type_: ConditionType,
    /// Its status.
    pub status: ConditionStatus,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person.
    pub message: String,
}

/// Merges updates into conditions: one whose status did not change keeps its transition time.
pub fn merge(
    before: &[Condition],
    condition_updates: &[ConditionUpdate],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    condition_updates
        .iter()
        .map(|update| {
            let kept = before
                .iter()
                .find(|old| old.type_ == update.type_.as_str() && old.status == update.status.as_str())
                .map(|old| old.last_transition_time.clone());
            Condition {
                type_: update.type_.as_str().into(),
                status: update.status.as_str().into(),
                reason: update.reason.as_str().into(),
                message: update.message.clone(),
                observed_generation: Some(generation),
                last_transition_time: kept.unwrap_or(Time(now)),
            }
        })
        .collect()
}

/// Whether a condition is of a type that this operator writes; those of others are left alone.
pub fn is_ours(condition: &Condition) -> bool {
    ConditionType::ALL.iter().any(|type_| condition.type_ == type_.as_str())
}

/// The condition of one type, if it is there.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}
