//! The tenant resources: how to reach one Intune tenant through Graph.
//! GraphTenant serves its own namespace, ClusterGraphTenant the namespaces that it allows.
#![allow(unreachable_pub)] // what the derive generates
#![allow(clippy::duplicated_attributes)] // each printer column has a type and a path: the lint takes them for one attribute

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// How to reach one Intune tenant, for the VppTokens of the same namespace.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "vpptoken.io",
    version = "v1alpha1",
    kind = "GraphTenant",
    plural = "graphtenants",
    category = "intune",
    namespaced,
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "How to reach one Intune tenant through Microsoft Graph, for the VppTokens of the same namespace.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantId"),
    printcolumn(name = "Cloud", type_ = "string", json_path = ".spec.cloud", priority = 1),
    printcolumn(
        name = "Tokens",
        type_ = "integer",
        json_path = ".status.tokens",
        description = "Tokens that Graph has"
    ),
    printcolumn(
        name = "Unmanaged",
        type_ = "integer",
        json_path = ".status.unmanagedTokens",
        description = "Tokens that no VppToken claims"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct GraphTenantSpec {
    /// How to reach the tenant.
    #[serde(flatten)]
    pub connection: TenantConnection,
}

/// How to reach one Intune tenant, for the VppTokens of the namespaces that it allows.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "vpptoken.io",
    version = "v1alpha1",
    kind = "ClusterGraphTenant",
    plural = "clustergraphtenants",
    category = "intune",
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "How to reach one Intune tenant through Microsoft Graph, for the VppTokens of the namespaces that it allows. Its Secrets live in the operator's namespace.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantId"),
    printcolumn(name = "Cloud", type_ = "string", json_path = ".spec.cloud", priority = 1),
    printcolumn(
        name = "Tokens",
        type_ = "integer",
        json_path = ".status.tokens",
        description = "Tokens that Graph has"
    ),
    printcolumn(
        name = "Unmanaged",
        type_ = "integer",
        json_path = ".status.unmanagedTokens",
        description = "Tokens that no VppToken claims"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterGraphTenantSpec {
    /// How to reach the tenant.
    #[serde(flatten)]
    pub connection: TenantConnection,
    /// The namespaces whose VppTokens may use this tenant.
    pub allowed_namespaces: AllowedNamespaces,
    /// What VppTokens may do with this tenant's tokens, besides changing those that they own: `Create`, `Adopt` (take over
    /// an unclaimed token that matches the file exactly), `Bind` (take over by `tokenId`), `Delete`.
    #[serde(default = "default_operations")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_operations: Vec<AllowedOperation>,
}

fn default_operations() -> Vec<AllowedOperation> {
    vec![AllowedOperation::Create, AllowedOperation::Adopt]
}

/// What both kinds of tenant object share: where the tenant is and how to sign in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TenantConnection {
    /// The Entra tenant. Can't be changed.
    #[schemars(length(max = 36))]
    #[x_kube(
        validation = rules::guid("tenantId must be the GUID of the Entra tenant (Directory ID), for example 8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11"),
        validation = Rule::new("self == oldSelf").message("tenantId can't be changed; create another tenant object for another tenant"),
    )]
    pub tenant_id: String,
    /// The app registration that the operator signs in as.
    #[schemars(length(max = 36))]
    #[x_kube(validation = rules::guid("clientId must be the GUID of the app registration (Application ID), for example 1b6f0b6e-4f0a-4e0d-8c56-b1a5f7f2d9c3"))]
    pub client_id: String,
    /// The Microsoft cloud that the tenant lives in.
    #[serde(default)]
    pub cloud: Cloud,
    /// The Graph API to use. Some settings of a VppToken exist only in `Beta`, which Microsoft may change at any time.
    #[serde(default)]
    pub api: GraphApi,
    /// How to sign in.
    pub credentials: Credentials,
    /// How the token file is written into Graph's `token`: the file's text as it is, or encoded in base64 once more.
    #[serde(default)]
    pub token_encoding: TokenEncoding,
    /// How often the tenant's tokens are listed.
    #[serde(default = "default_poll_interval")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && size(self) > 0 && duration(self) >= duration('5s') && duration(self) <= duration('24h')").message("pollInterval must be a duration from 5s to 24h, for example 5m"))]
    pub poll_interval: String,
}

fn default_poll_interval() -> String {
    "5m".into()
}

/// A Microsoft cloud.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cloud {
    /// The worldwide cloud, and GCC.
    #[default]
    Global,
    /// US Government L4 (GCC High).
    USGovernment,
    /// US Government L5 (DoD).
    USGovernmentDoD,
    /// Operated by 21Vianet.
    China,
}

/// A Graph API that has tokens.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GraphApi {
    /// `v1.0`.
    #[default]
    V1,
    /// `beta`.
    Beta,
}

/// How to sign in to Entra ID.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// A client secret of the app registration. The Secret lives in the namespace of the GraphTenant, or in the
    /// operator's namespace for a ClusterGraphTenant.
    pub client_secret_ref: ClientSecretRef,
}

/// A key of a Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClientSecretRef {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::secret_name("graph"))]
    pub name: String,
    /// Key that holds the client secret.
    #[serde(default = "default_client_secret_key")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::secret_key("clientSecret"))]
    pub key: String,
}

fn default_client_secret_key() -> String {
    "clientSecret".into()
}

/// How the token file is written into Graph's `token`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenEncoding {
    /// The file's text as it is.
    #[default]
    AsIs,
    /// The file's text, encoded in base64 once more.
    Base64,
}

/// The namespaces that may use a ClusterGraphTenant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.from == 'Names' ? has(self.names) && size(self.names) > 0 : !has(self.names)").message("names goes with from: Names, and from: Names needs at least one name"),
    validation = Rule::new("self.from == 'Selector' ? has(self.selector) : !has(self.selector)").message("selector goes with from: Selector, and from: Selector needs one"),
)]
pub struct AllowedNamespaces {
    /// `All`, `Names` (with `names`) or `Selector` (with `selector`).
    pub from: AllowedNamespacesFrom,
    /// The names, with `from: Names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::namespace_names())]
    pub names: Option<Vec<String>>,
    /// A selector on the labels of the namespaces, with `from: Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::namespace_selector")]
    pub selector: Option<LabelSelector>,
}

/// How the allowed namespaces are named.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedNamespacesFrom {
    /// Every namespace.
    All,
    /// Those in `names`.
    Names,
    /// Those that `selector` selects.
    Selector,
}

/// Something that VppTokens may be allowed to do through a ClusterGraphTenant.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllowedOperation {
    /// Create a token in Graph.
    Create,
    /// Take over an unclaimed token that matches the file exactly.
    Adopt,
    /// Take over a token by its id.
    Bind,
    /// Delete a token in Graph.
    Delete,
}

impl AllowedOperation {
    /// Every operation: what a GraphTenant, which holds its own credentials, allows.
    pub const ALL: [Self; 4] = [Self::Create, Self::Adopt, Self::Bind, Self::Delete];
}

/// What the operator knows of the tenant, once a VppToken uses it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation that this status describes; -1 until the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many tokens Graph has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<i64>,
    /// How many of them no VppToken claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged_tokens: Option<i64>,
    /// `Ready`: whether the operator can list the tenant's tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
