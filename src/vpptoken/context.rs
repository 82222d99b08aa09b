//! What all reconciles work with.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caches::Caches;
use super::error::Error;
use super::events::Events;
use super::local_state::LocalState;
use super::shared_reads::SharedReads;
use super::stripped::Stripped;
use crate::api::{EntraTenant, NamespacedName, VppToken};
use crate::clock::{Clock, Random};
use crate::tenant::{Access, TenantKey, TenantRegistry, Timings};

/// Triggers the reconcile of a VppToken.
pub(crate) type Trigger = Arc<dyn Fn(NamespacedName) + Send + Sync>;

/// Reads of what decides whether VppTokens may use a ClusterGraphTenant. Many reconciles ask for the same one.
#[derive(Debug, Default)]
pub(crate) struct LiveAccess {
    /// Whom ClusterGraphTenants allow what; none of one that does not exist.
    pub(crate) tenants: SharedReads<Result<Option<Access>, Error>>,
    /// The labels of namespaces; none of one that does not exist.
    pub(crate) namespaces: SharedReads<Result<Option<BTreeMap<String, String>>, Error>>,
}

/// Everything that a reconcile works with.
pub(crate) struct Context {
    /// The time.
    pub clock: Clock,
    /// Jitter.
    pub random: Random,
    /// Kubernetes.
    pub client: Client,
    /// The caches.
    pub caches: Caches,
    /// Reads of ClusterGraphTenants and namespaces past the caches.
    pub live_access: LiveAccess,
    /// The tenants in use.
    pub registry: Arc<TenantRegistry>,
    /// Notified when a VppToken refers to a tenant object that was not looked up yet, or uses one in another way than before.
    pub tenant_wanted: Arc<tokio::sync::Notify>,
    /// What the process remembers.
    pub local_state: LocalState,
    /// The durations that the rules use.
    pub timings: Timings,
    /// Writes events.
    pub events: Events,
    /// Triggers other reconciles.
    pub trigger: Trigger,
    /// The tasks of the steps at Graph: a reconcile does not wait for them.
    pub graph_tasks: TaskTracker,
    /// Cancelled when the operator has ended: its tasks end then.
    pub ended: CancellationToken,
}

impl Context {
    /// An object as this process has written it, or read it past the cache: see [`LocalState::apply_newest`].
    pub(super) fn apply_newest(&self, object: &Arc<VppToken>) {
        if self.local_state.apply_newest(object) {
            self.tenant_wanted.notify_one();
        }
    }

    /// The newest state of an object that this process knows: the cache may be behind what was written.
    pub(crate) fn newest(&self, object: Arc<VppToken>) -> Arc<VppToken> {
        let cached = self.caches.token(&object).filter(|cached| cached.metadata.uid == object.metadata.uid);
        self.local_state.newest(cached.unwrap_or(object))
    }

    /// The cache's copy of an object, if it has this version.
    pub(super) fn shared(&self, object: Arc<VppToken>) -> Arc<VppToken> {
        let cached = self.newest(Arc::clone(&object));
        if cached.metadata.resource_version == object.metadata.resource_version { cached } else { object }
    }

    /// Whether a tenant object leads to a tenant.
    pub(crate) fn leads_to(&self, key: &TenantKey, tenant: &EntraTenant) -> bool {
        self.registry.find(key).found().is_some_and(|found| found.identity.entra_tenant() == *tenant)
    }

    /// Triggers the reconciles of several VppTokens.
    pub(crate) fn trigger_all(&self, names: impl IntoIterator<Item = NamespacedName>) {
        names.into_iter().for_each(&*self.trigger);
    }

    /// The VppTokens of an object's namespace.
    ///
    /// # Errors
    /// When the object has none.
    pub(super) fn api(&self, object: &VppToken) -> Result<Api<Stripped>, Error> {
        Ok(Api::namespaced(self.client.clone(), namespace(object)?))
    }
}

/// The namespace.
///
/// # Errors
/// When it has none, which no VppToken of an API server lacks.
pub(super) fn namespace(object: &VppToken) -> Result<&str, Error> {
    object.metadata.namespace.as_deref().ok_or(Error::Incomplete("namespace"))
}

/// The UID.
///
/// # Errors
/// Likewise.
pub(super) fn uid(object: &VppToken) -> Result<&str, Error> {
    object.metadata.uid.as_deref().ok_or(Error::Incomplete("UID"))
}

/// The object as it is now; none when it was deleted, also when another object has its name. The next reconcile must not begin
/// with a cache that is behind it.
///
/// # Errors
/// When Kubernetes can't be read.
pub(super) async fn live(context: &Context, object: &VppToken) -> Result<Option<Arc<VppToken>>, Error> {
    let live = context.api(object)?.get_opt(&object.name_any()).await?;
    let live = live.map(|Stripped(live)| Arc::new(live)).filter(|live| live.metadata.uid == object.metadata.uid);
    if let Some(live) = &live {
        context.apply_newest(live);
    }
    Ok(live)
}
