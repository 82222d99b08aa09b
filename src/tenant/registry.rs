//! Which tenant objects are in use, the session of each, and who may use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use super::Session;
use crate::api::{
    AllowedNamespaces, AllowedNamespacesFrom, AllowedOperation, ClusterGraphTenantSpec, NamespacedName, Reason,
    TenantKind, TenantRef, TokenEncoding, VppToken, VppTokenTenant,
};

/// A tenant object. Clones share its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TenantKey {
    /// Its kind.
    pub kind: TenantKind,
    /// Its namespace: none for a ClusterGraphTenant.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

impl TenantKey {
    /// The one that a VppToken refers to; none of a VppToken without a namespace, which no API server has.
    pub(crate) fn of_token(object: &VppToken) -> Option<Self> {
        Some(Self::of(&object.spec.tenant_ref, object.metadata.namespace.as_deref()?))
    }

    /// The object that a reference from a namespace leads to.
    pub(crate) fn of(reference: &TenantRef, namespace: &str) -> Self {
        Self {
            kind: reference.kind,
            namespace: (reference.kind == TenantKind::GraphTenant).then(|| namespace.into()),
            name: reference.name.as_str().into(),
        }
    }
}

impl std::fmt::Display for TenantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Who may use a tenant object, and for what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Access {
    namespaces: AllowedNamespaces,
    /// What VppTokens may do.
    pub operations: Vec<AllowedOperation>,
}

impl Access {
    /// A namespaced GraphTenant holds its own credentials: its namespace may do everything.
    pub(crate) fn own() -> Self {
        let namespaces = AllowedNamespaces { from: AllowedNamespacesFrom::All, names: None, selector: None };
        Self { namespaces, operations: AllowedOperation::ALL.to_vec() }
    }

    /// What a ClusterGraphTenant allows.
    pub(crate) fn of(spec: &ClusterGraphTenantSpec) -> Self {
        Self { namespaces: spec.allowed_namespaces.clone(), operations: spec.allowed_operations.clone() }
    }

    /// Whether a namespace with these labels may use it. A selector that can't be read allows nobody.
    pub(crate) fn allows(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        match self.namespaces.from {
            AllowedNamespacesFrom::All => true,
            AllowedNamespacesFrom::Names => self.namespaces.names.iter().flatten().any(|name| name == namespace),
            AllowedNamespacesFrom::Selector => {
                self.namespaces.selector.clone().is_some_and(|selector| selects(selector, labels))
            }
        }
    }
}

fn selects(selector: LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector).is_ok_and(|selector| selector.matches(labels))
}

/// A tenant object in use.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    /// The object was deleted. What is known of it, and the credentials that are still in memory, are used for the
    /// deletion of VppTokens and for nothing else.
    pub is_deleted: bool,
    /// Who may use it.
    pub access: Access,
    /// Which tenant it stands for.
    pub identity: VppTokenTenant,
    /// How the token file is sent.
    pub encoding: TokenEncoding,
    /// The session, or why there is none.
    pub session: Result<Arc<Session>, Unusable>,
}

/// Why a tenant object can't be used yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// The reason.
    pub reason: Reason,
    /// A sentence.
    pub message: String,
}

/// What is known of a tenant object.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    /// Nothing yet.
    NotRead,
    /// It does not exist.
    NotFound,
    /// It is in use.
    Found(Arc<Tenant>),
}

impl Lookup {
    /// The tenant object, if it is in use.
    pub(crate) fn found(self) -> Option<Arc<Tenant>> {
        match self {
            Self::Found(tenant) => Some(tenant),
            Self::NotRead | Self::NotFound => None,
        }
    }
}

/// The tenant objects in use. `None` stands for one that is in use and does not exist.
#[derive(Debug, Default)]
pub(crate) struct TenantRegistry {
    tenants: Mutex<HashMap<TenantKey, Option<Arc<Tenant>>>>,
    secrets: Mutex<BTreeSet<NamespacedName>>,
}

impl TenantRegistry {
    /// Looks a tenant object up.
    pub(crate) fn find(&self, key: &TenantKey) -> Lookup {
        match self.tenants().get(key) {
            None => Lookup::NotRead,
            Some(None) => Lookup::NotFound,
            Some(Some(tenant)) => Lookup::Found(Arc::clone(tenant)),
        }
    }

    /// The tenant object that a VppToken refers to, if it is in use.
    pub(crate) fn tenant_of(&self, object: &VppToken) -> Option<Arc<Tenant>> {
        self.find(&TenantKey::of_token(object)?).found()
    }

    /// Enters what is known of a tenant object: none if it does not exist.
    pub(crate) fn set(&self, key: TenantKey, tenant: Option<Tenant>) {
        self.tenants().insert(key, tenant.map(Arc::new));
    }

    /// The Secrets that hold the credentials.
    pub(crate) fn set_secrets(&self, secrets: BTreeSet<NamespacedName>) {
        *self.secrets.lock().unwrap_or_else(PoisonError::into_inner) = secrets;
    }

    /// Whether a Secret holds credentials.
    pub(crate) fn uses_secret(&self, secret: &NamespacedName) -> bool {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).contains(secret)
    }

    /// Removes the tenant objects that are not in use any more, and returns them.
    pub(crate) fn keep_only(&self, used: &BTreeSet<TenantKey>) -> Vec<TenantKey> {
        let mut tenants = self.tenants();
        let unused: Vec<TenantKey> = tenants.keys().filter(|key| !used.contains(key)).cloned().collect();
        for key in &unused {
            tenants.remove(key);
        }
        unused
    }

    fn tenants(&self) -> std::sync::MutexGuard<'_, HashMap<TenantKey, Option<Arc<Tenant>>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(namespaces: serde_json::Value) -> Access {
        Access { namespaces: serde_json::from_value(namespaces).unwrap(), operations: Vec::new() }
    }

    #[test]
    fn only_allowed_namespaces_get_in() {
        let labels = BTreeMap::from([("team".to_owned(), "devices".to_owned())]);
        for (namespaces, allowed) in [
            (serde_json::json!({"from": "All"}), true),
            (serde_json::json!({"from": "Names", "names": ["devices"]}), true),
            (serde_json::json!({"from": "Names", "names": ["other"]}), false),
            (serde_json::json!({"from": "Names"}), false),
            (serde_json::json!({"from": "Selector", "selector": {"matchLabels": {"team": "devices"}}}), true),
            (serde_json::json!({"from": "Selector", "selector": {"matchLabels": {"team": "other"}}}), false),
            (
                serde_json::json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "team", "operator": "Bad"}]}}),
                false,
            ),
            (serde_json::json!({"from": "Selector"}), false),
        ] {
            assert_eq!(access(namespaces.clone()).allows("devices", &labels), allowed, "{namespaces}");
        }
    }
}
