//! The VppToken resource: one Apple VPP token in one Intune tenant.
//! Names and enum values of what mirrors Graph are Graph's own (`microsoft.graph.vppToken`).
#![allow(unreachable_pub)] // what the derive generates
#![allow(clippy::duplicated_attributes)] // each printer column has a type and a path: the lint takes them for one attribute

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cloud, GraphApi, TokenEncoding, TokenId, rules};

/// One Apple VPP token (a location token of Apple Business Manager or Apple School Manager) in one Intune tenant.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "vpptoken.io",
    version = "v1alpha1",
    kind = "VppToken",
    plural = "vpptokens",
    singular = "vpptoken",
    shortname = "vpp",
    category = "intune",
    namespaced,
    status = "VppTokenStatus",
    derive = "PartialEq",
    doc = "One Apple VPP token (a location token of Apple Business Manager or Apple School Manager) in one Intune tenant.",
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "What Graph says of the token"
    ),
    printcolumn(
        name = "Sync",
        type_ = "string",
        json_path = ".status.lastSyncStatus",
        description = "Graph's result of the last sync"
    ),
    printcolumn(
        name = "Last Sync",
        type_ = "date",
        json_path = ".status.lastSyncDateTime",
        description = "When the last sync ended"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.expirationDateTime",
        description = "When the token that Graph has expires"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether Graph has what this manifest asks for"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Why it is ready or not",
        priority = 1
    ),
    printcolumn(
        name = "Organization",
        type_ = "string",
        json_path = ".status.organizationName",
        description = "The organization that the token belongs to",
        priority = 1
    ),
    printcolumn(
        name = "Apple ID",
        type_ = "string",
        json_path = ".status.appleId",
        description = "The Managed Apple ID in Graph",
        priority = 1
    ),
    printcolumn(
        name = "Tenant",
        type_ = "string",
        json_path = ".status.tenant.tenantId",
        description = "The Entra tenant",
        priority = 1
    ),
    printcolumn(
        name = "Token ID",
        type_ = "string",
        json_path = ".status.tokenId",
        description = "The id in Graph",
        priority = 1
    ),
    printcolumn(
        name = "Next Sync",
        type_ = "string",
        json_path = ".status.nextSyncTime",
        description = "When the schedule is due next",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.tokenId) || (has(self.tokenId) && self.tokenId == oldSelf.tokenId)")
        .message("tokenId can be set once and not changed or removed afterwards; to bind another Graph token, create another VppToken"),
    validation = Rule::new("self.managementPolicy == 'Observe' || has(self.tokenSecretRef)")
        .message("tokenSecretRef is required: name the Secret that holds the token file, for example tokenSecretRef: {name: berlin-vpp} (only managementPolicy: Observe needs none)"),
    validation = Rule::new("self.managementPolicy == 'Observe' || has(self.appleId)")
        .message("appleId is required: write the Managed Apple ID that downloaded the token file, for example vpp@contoso.example (only managementPolicy: Observe needs none)"),
    validation = Rule::new("self.managementPolicy != 'Observe' || has(self.tokenId)")
        .message("managementPolicy: Observe needs tokenId: write the id of the token in Graph that is to be watched"),
    validation = rules::without_effect_under_observe(
        "has(self.tokenSecretRef) || has(self.organizationName) || has(self.distinctFrom)",
        "no token file is uploaded",
        "leave out tokenSecretRef, organizationName and distinctFrom",
    ),
    validation = rules::without_effect_under_observe(
        "has(self.appleId) || has(self.vppTokenAccountType) || has(self.countryOrRegion) || has(self.automaticallyUpdateApps) || has(self.displayName) || has(self.roleScopeTagIds) || has(self.dataSharingConsentGranted) || has(self.claimTokenManagementFromExternalMdm)",
        "no setting is written",
        "leave out appleId, vppTokenAccountType, countryOrRegion, automaticallyUpdateApps, displayName, roleScopeTagIds, dataSharingConsentGranted and claimTokenManagementFromExternalMdm",
    ),
    validation = rules::without_effect_under_observe("has(self.sync)", "nothing is synced", "leave out sync"),
    validation = rules::without_effect_under_observe(
        "self.deletionPolicy == 'Delete'",
        "nothing is deleted in Graph",
        "leave out deletionPolicy, or write Retain",
    ),
    validation = rules::without_effect_under_observe(
        "self.suspend",
        "there is nothing to suspend",
        "leave out suspend, or write false",
    ),
    validation = rules::distinct_from_others(),
)]
pub struct VppTokenSpec {
    /// The Secret, in the same namespace, that holds the token file as Apple hands it out. Required unless
    /// `managementPolicy` is `Observe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<TokenSecretRef>,

    /// The tenant object that says how to reach Graph. Can't be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("tenantRef can't be changed; to move a token to another tenant, delete this VppToken and create it with the other tenantRef"))]
    pub tenant_ref: TenantRef,

    /// The Managed Apple ID that downloaded the token file. Required unless `managementPolicy` is `Observe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 320))]
    #[x_kube(validation = Rule::new(r"self.matches(r'^[^@\s\pZ\pC]+@[^@\s\pZ\pC]+$')").message("appleId must be the Managed Apple ID that downloaded the token, written like an e-mail address, for example vpp@contoso.example"))]
    pub apple_id: Option<String>,

    /// Graph's `vppTokenAccountType`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpp_token_account_type: Option<AccountType>,

    /// Country of the App Store that the apps come from, as two letters (ISO 3166-1). Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z]{2}$')").message("countryOrRegion must be a two-letter country code, for example de or US"))]
    pub country_or_region: Option<String>,

    /// Whether Intune updates the apps of this token by itself. Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatically_update_apps: Option<bool>,

    /// The token's name in Intune. Graph's beta API only. Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::trimmed("displayName", "Berlin"))]
    pub display_name: Option<String>,

    /// Scope tags of Intune's role-based access control, by id; their order does not matter. Graph's beta API only. Left out:
    /// not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::scope_tags())]
    pub role_scope_tag_ids: Option<Vec<String>>,

    /// Consent to share data with Apple, which Intune's own page requires. Graph's beta API only. Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sharing_consent_granted: Option<bool>,

    /// Take control of the token from another device management system. Graph's beta API only. Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_token_management_from_external_mdm: Option<bool>,

    /// The organization that the token file must name. A file that names another one is not uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::trimmed("organizationName", "Contoso"))]
    pub organization_name: Option<String>,

    /// When to sync licences. Left out: after each upload and on request (Intune syncs about twice a day by itself).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncSpec>,

    /// Ids of tokens in Graph that are known to be other locations: they are left out when Graph is searched for a token that
    /// may be this one. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 36)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rules::guids_of_tokens(),
        validation = rules::unique_ids(),
    )]
    pub distinct_from: Vec<TokenId>,

    /// What happens to the token in Intune when this object is deleted: `Retain` leaves Intune alone; `Delete` deletes it
    /// there too, and its apps, assignments and licences go with it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// `Manage` keeps Graph as this manifest asks for; `Observe` (needs `tokenId`) only reads: status and metrics of a token
    /// that people manage by hand. Under `Observe` nothing is written or deleted in Graph, and only `tokenId` and `tenantRef` can
    /// be given.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// While true, nothing is written to Graph; what Graph has is still shown in the status. A VppToken that is deleted
    /// meanwhile leaves its token in Graph.
    #[serde(default)]
    pub suspend: bool,

    /// Bind to exactly this token in Graph, by its id. Can be set once, then not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    #[x_kube(validation = rules::guid("tokenId must be the GUID of a vppToken in Graph, for example 5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10"))]
    pub token_id: Option<TokenId>,
}

impl VppTokenSpec {
    /// Whether the token is only observed.
    pub fn only_observes(&self) -> bool {
        self.management_policy == ManagementPolicy::Observe
    }
}

/// A key of a Secret in the namespace of the VppToken.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TokenSecretRef {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::secret_name("berlin-vpp"))]
    pub name: String,
    /// Key that holds the token file.
    #[serde(default = "default_token_key")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::secret_key("token"))]
    pub key: String,
}

fn default_token_key() -> String {
    "token".into()
}

/// Which tenant object to use.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct TenantRef {
    /// `ClusterGraphTenant`, or `GraphTenant` of the same namespace.
    #[serde(default)]
    pub kind: TenantKind,
    /// Name of the tenant object.
    #[serde(default = "default_tenant_name")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::tenant_name())]
    pub name: String,
}

impl Default for TenantRef {
    fn default() -> Self {
        Self { kind: TenantKind::default(), name: default_tenant_name() }
    }
}

fn default_tenant_name() -> String {
    "default".into()
}

/// The two kinds of tenant object.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TenantKind {
    /// Cluster-scoped, shared by the namespaces that it allows.
    #[default]
    ClusterGraphTenant,
    /// Namespaced, for the VppTokens of its own namespace.
    GraphTenant,
}

impl std::fmt::Display for TenantKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ClusterGraphTenant => "ClusterGraphTenant",
            Self::GraphTenant => "GraphTenant",
        })
    }
}

/// Apple Business Manager or Apple School Manager. Left out: `business` when creating, and not managed afterwards.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum AccountType {
    /// Apple Business Manager.
    Business,
    /// Apple School Manager.
    Education,
}

impl AccountType {
    /// The value as Graph writes it.
    pub fn as_graph(self) -> &'static str {
        match self {
            Self::Business => "business",
            Self::Education => "education",
        }
    }
}

/// When to sync: a cron schedule or an interval.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.schedule) != has(self.interval)").message("sync needs exactly one of schedule (for example \"0 6,18 * * *\") and interval (for example 6h)"),
    validation = Rule::new("!has(self.timeZone) || has(self.schedule)").message("timeZone belongs to a schedule; an interval has none, so leave timeZone out"),
)]
pub struct SyncSpec {
    /// Five-field cron expression: minute, hour, day of month, month, day of week. Two runs are at least 15 minutes apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(
        validation = rules::five_fields(),
        validation = rules::cron_field(0),
        validation = rules::cron_field(1),
        validation = rules::cron_field(2),
        validation = rules::cron_field(3),
        validation = rules::cron_field(4),
        validation = rules::forward_ranges(),
        validation = rules::minutes_apart(),
    )]
    pub schedule: Option<String>,
    /// IANA time zone of the schedule. Left out: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_+/-]*$')").message("timeZone must be an IANA time zone name, for example Europe/Berlin"))]
    pub time_zone: Option<String>,
    /// Time between two syncs, at least 15 minutes; objects are spread evenly over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && size(self) > 0 && duration(self) >= duration('15m') && duration(self) <= duration('8760h')").message("interval must be a duration from 15m to 8760h, for example 6h or 1h30m"))]
    pub interval: Option<String>,
}

/// What happens to the token in Intune when the VppToken is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Intune is left alone.
    #[default]
    Retain,
    /// The token is deleted there too; its apps, assignments and licences go with it.
    Delete,
}

/// Whether the token is kept as the manifest asks for, or only observed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagementPolicy {
    /// Kept as the manifest asks for.
    #[default]
    Manage,
    /// Only observed: people manage it by hand.
    Observe,
}

/// What the operator knows of the token. Everything under Graph's names is mirrored from Graph.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VppTokenStatus {
    /// The generation that this status describes; -1 until the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The tenant that `tokenId` lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<VppTokenTenant>,
    /// The id in Graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// Graph's `state`: `unknown`, `valid`, `expired`, `invalid`, `assignedToExternalMDM`, or whatever else Graph says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Graph's `lastSyncStatus`: `none`, `inProgress`, `completed`, `failed`, or whatever else Graph says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_status: Option<String>,
    /// When Graph ended the last sync; absent when it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_date_time: Option<Timestamp>,
    /// When the token that Graph has expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_date_time: Option<Timestamp>,
    /// The organization as Graph has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_name: Option<String>,
    /// `business` or `education`, as Graph has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpp_token_account_type: Option<String>,
    /// The Managed Apple ID as Graph has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apple_id: Option<String>,
    /// The country as Graph has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country_or_region: Option<String>,
    /// Whether Intune updates the apps by itself, as Graph has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatically_update_apps: Option<bool>,
    /// The token's name in Intune (beta).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The location at Apple (beta).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location_name: Option<String>,
    /// Scope tags, sorted (beta).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_scope_tag_ids: Option<Vec<String>>,
    /// Consent to share data with Apple (beta).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sharing_consent_granted: Option<bool>,
    /// Whether control of the token is taken from another device management system (beta).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_token_management_from_external_mdm: Option<bool>,
    /// When Graph last changed the entity; also moves with every sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified_date_time: Option<Timestamp>,
    /// What this operator last uploaded, or found already uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<Uploaded>,
    /// A create whose intent is recorded, and whose outcome is not recorded yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_create: Option<Box<PendingCreate>>,
    /// The token that the file was found to belong to, and that another VppToken has; until this one has a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by_another: Option<Box<ClaimedByAnother>>,
    /// When the schedule is due next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_time: Option<Timestamp>,
    /// Since when the sync that Graph shows as running has been seen to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_running_since: Option<Timestamp>,
    /// When this operator last started a sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_trigger_time: Option<Timestamp>,
    /// The last value of the annotation `vpptoken.io/sync-requested-at` that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_sync_request: Option<String>,
    /// The last value of the annotation `vpptoken.io/upload-requested-at` that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_upload_request: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`, `TokenValid` and `Synced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where a Graph token lives.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VppTokenTenant {
    /// The Microsoft cloud.
    pub cloud: Cloud,
    /// The Entra tenant.
    pub tenant_id: String,
    /// The Graph API that was used.
    pub api: GraphApi,
}

/// What was last uploaded.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Uploaded {
    /// SHA-256, in hexadecimal, of the exact string that was sent.
    pub sha256: String,
    /// Expiry that the file names.
    pub expiration_date_time: Timestamp,
    /// Organization that the file names.
    pub organization_name: String,
    /// When it was uploaded; of one that was found already uploaded, its last sync, or else when it was found.
    pub time: Timestamp,
    /// The encoding of the string that `sha256` is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<TokenEncoding>,
    /// The version of the Secret that held it last: UID, resource version and key. It need not be read again after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,
    /// Graph has shown this expiry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shown: bool,
}

/// A token that another VppToken has. What the Secret holds later is taken for a file of the same location.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedByAnother {
    /// The id in Graph.
    pub token_id: String,
    /// The Secret with the file that belongs to it.
    pub token_secret_ref: TokenSecretRef,
}

/// The intent of a create, recorded before the create is sent.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingCreate {
    /// SHA-256, in hexadecimal, of the exact string to be sent.
    pub sha256: String,
    /// When it was recorded.
    pub since: Timestamp,
    /// The Apple ID that the token is created with.
    pub apple_id: String,
    /// The organization that the file names.
    pub organization_name: String,
    /// When the file expires.
    pub expiration_date_time: Timestamp,
    /// Ids of similar tokens that Graph had before, which are therefore not the created one.
    pub known_ids: Vec<String>,
}
