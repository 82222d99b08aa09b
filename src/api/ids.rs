//! Ids that people write in any case, as they are compared.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cloud, VppTokenTenant};

/// The id of a `vppToken` in Graph: a GUID, in capitals or not.
// As a manifest names it: ids that Graph itself has shown are compared as they are.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
#[schemars(inline)]
pub struct TokenId(String);

impl TokenId {
    /// As the manifest has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this id of Graph.
    pub fn matches(&self, id: &str) -> bool {
        self.0.eq_ignore_ascii_case(id)
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for TokenId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

/// A tenant of Entra ID in a cloud, however many tenant objects stand for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntraTenant(Cloud, Arc<str>);

impl EntraTenant {
    /// By its id.
    pub(crate) fn new(cloud: Cloud, tenant_id: &str) -> Self {
        Self(cloud, tenant_id.to_lowercase().into())
    }
}

impl VppTokenTenant {
    /// The tenant, apart from how it is reached.
    pub(crate) fn entra_tenant(&self) -> EntraTenant {
        EntraTenant::new(self.cloud, &self.tenant_id)
    }
}

/// An Apple ID, apart from its case and from white space around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AppleId(Arc<str>);

impl AppleId {
    /// As a manifest or Graph has it.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.trim().to_lowercase().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter_and_the_cloud_does() {
        let tenant = |cloud, id| EntraTenant::new(cloud, id);
        assert_eq!(tenant(Cloud::Global, "8D3F"), tenant(Cloud::Global, "8d3f"));
        assert_ne!(tenant(Cloud::Global, "8d3f"), tenant(Cloud::China, "8d3f"));
        assert_ne!(tenant(Cloud::Global, "8d3f"), tenant(Cloud::Global, "8d3e"));
        assert!(TokenId::from("5F9A").matches("5f9a") && !TokenId::from("5F9A").matches("5f9b"));
        assert_eq!(AppleId::new(" VPP@contoso.example"), AppleId::new("vpp@Contoso.example"));
        assert_ne!(AppleId::new("vpp@contoso.example"), AppleId::new("vpp2@contoso.example"));
    }
}
