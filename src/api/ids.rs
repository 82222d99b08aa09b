//! Ids that people write in any case, as they are compared.

use std::sync::Arc;

use super::{Cloud, VppTokenTenant};

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
        assert_eq!(AppleId::new(" VPP@contoso.example"), AppleId::new("vpp@Contoso.example"));
        assert_ne!(AppleId::new("vpp@contoso.example"), AppleId::new("vpp2@contoso.example"));
    }
}
