//! The tenant objects as the caches have them, whichever kind.

use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;

use crate::api::{TenantConnection, TenantKind, TenantStatus};
use crate::operator::watches::TenantCaches;
use crate::tenant::{Access, TenantKey};

/// What a session needs of a tenant object.
#[derive(Clone)]
pub(super) struct TenantObject {
    pub(super) connection: TenantConnection,
    pub(super) access: Access,
    pub(super) metadata: ObjectMeta,
    pub(super) status: TenantStatus,
}

impl TenantObject {
    pub(super) fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }
}

/// All of them.
pub(super) fn all(caches: &TenantCaches) -> Vec<TenantKey> {
    let key = |kind, namespace: Option<String>, name: String| {
        let (namespace, name) = (namespace.map(Into::into), name.into());
        TenantKey { kind, namespace, name }
    };
    let cluster = caches.cluster.state().into_iter().map(|it| key(TenantKind::ClusterGraphTenant, None, it.name_any()));
    let graph = caches.graph.iter().flat_map(|store| store.state());
    cluster.chain(graph.map(|it| key(TenantKind::GraphTenant, it.namespace(), it.name_any()))).collect()
}

/// Looks a tenant object up.
pub(super) fn find(caches: &TenantCaches, key: &TenantKey) -> Option<TenantObject> {
    match key.kind {
        TenantKind::ClusterGraphTenant => {
            let object = caches.cluster.get(&ObjectRef::new(&key.name))?;
            Some(TenantObject {
                connection: object.spec.connection.clone(),
                access: Access::of(&object.spec),
                metadata: object.metadata.clone(),
                status: object.status.clone().unwrap_or_default(),
            })
        }
        TenantKind::GraphTenant => {
            let reference = ObjectRef::new(&key.name).within(key.namespace.as_deref()?);
            let object = caches.graph.iter().find_map(|store| store.get(&reference))?;
            Some(TenantObject {
                connection: object.spec.connection.clone(),
                access: Access::own(),
                metadata: object.metadata.clone(),
                status: object.status.clone().unwrap_or_default(),
            })
        }
    }
}
