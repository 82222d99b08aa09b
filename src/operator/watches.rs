//! The watches and the caches that they fill. Secrets are watched as metadata only, stripped of annotations and managed
//! fields: `last-applied-configuration` has the plain text.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

use crate::api::{ClusterGraphTenant, GraphTenant, VppToken};
use crate::vpptoken::Caches;

/// A namespace that is watched, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope(pub(super) Option<String>);

impl Scope {
    pub(super) fn of(namespaces: &[String]) -> Vec<Self> {
        let mut names: Vec<String> = namespaces.iter().map(|name| name.trim().to_owned()).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names.dedup();
        if names.is_empty() { vec![Self(None)] } else { names.into_iter().map(|name| Self(Some(name))).collect() }
    }

    pub(super) fn names(scopes: &[Self]) -> String {
        let names: Vec<&str> = scopes.iter().map(|scope| scope.0.as_deref().unwrap_or("all namespaces")).collect();
        names.join(", ")
    }

    pub(super) fn holds(&self, namespace: &str) -> bool {
        self.0.as_deref().is_none_or(|own| own == namespace)
    }

    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

/// The tenant objects.
#[derive(Clone)]
pub(super) struct TenantCaches {
    pub(super) graph: Vec<Store<GraphTenant>>,
    pub(super) cluster: Store<ClusterGraphTenant>,
}

/// What happens in the caches.
pub(super) struct Sources {
    /// Events of the VppTokens, one stream per scope; the stream fills the cache, so it has to be read.
    pub(super) tokens: Vec<BoxStream<'static, Event<VppToken>>>,
    /// Something changed that the sessions go by.
    pub(super) tenants_changed: Arc<Notify>,
    /// Secrets that changed: namespace and name.
    pub(super) secrets_changed: broadcast::Sender<(String, String)>,
    /// Namespaces that changed.
    pub(super) namespaces_changed: broadcast::Sender<String>,
}

/// Starts all watches. Those of the VppTokens only run while their stream is read.
pub(super) fn start(
    client: &Client,
    scopes: &[Scope],
    namespace: &str,
    tasks: &mut JoinSet<&'static str>,
) -> (Caches, TenantCaches, Sources) {
    let tenants_changed = Arc::new(Notify::new());
    let (secrets_changed, _) = broadcast::channel(4096);
    let (namespaces_changed, _) = broadcast::channel(1024);

    let mut secret_scopes = scopes.to_vec();
    if !scopes.iter().any(|scope| scope.holds(namespace)) {
        secret_scopes.push(Scope(Some(namespace.to_owned())));
    }
    let secrets = secret_scopes
        .iter()
        .map(|scope| {
            let (store, writer) = kube::runtime::reflector::store();
            let events = watcher::watcher(scope.api::<PartialObjectMeta<Secret>>(client), watcher::Config::default());
            let (changed, tenants) = (secrets_changed.clone(), Arc::clone(&tenants_changed));
            tasks.spawn(follow("the watch of the Secrets", events, writer, move |secret| {
                // Nobody listening is no fault: the caches are read at the next look.
                let _ = changed.send(secret);
                tenants.notify_one();
            }));
            store
        })
        .collect();

    let (namespaces, writer) = kube::runtime::reflector::store();
    let events = watcher::watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), watcher::Config::default());
    let changed = namespaces_changed.clone();
    tasks.spawn(follow("the watch of the namespaces", events, writer, move |(_, namespace)| {
        let _ = changed.send(namespace);
    }));

    let graph = scopes
        .iter()
        .map(|scope| {
            let (store, writer) = kube::runtime::reflector::store();
            let events = watcher::watcher(scope.api::<GraphTenant>(client), watcher::Config::default());
            let tenants = Arc::clone(&tenants_changed);
            tasks.spawn(follow("the watch of the GraphTenants", events, writer, move |_| tenants.notify_one()));
            store
        })
        .collect();
    let (cluster, writer) = kube::runtime::reflector::store();
    let events = watcher::watcher(Api::<ClusterGraphTenant>::all(client.clone()), watcher::Config::default());
    let tenants = Arc::clone(&tenants_changed);
    tasks.spawn(follow("the watch of the ClusterGraphTenants", events, writer, move |_| {
        tenants.notify_one();
    }));

    let mut stores = Vec::new();
    let mut tokens = Vec::new();
    for scope in scopes {
        let (store, writer) = kube::runtime::reflector::store();
        let events = watcher::watcher(scope.api::<VppToken>(client), watcher::Config::default());
        stores.push(store);
        tokens.push(cached("VppTokens", events, writer).boxed());
    }
    (
        Caches { tokens: stores, secrets, namespaces },
        TenantCaches { graph, cluster },
        Sources { tokens, tenants_changed, secrets_changed, namespaces_changed },
    )
}

fn names(meta: &ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Fills a cache for ever, and tells the namespace and name of every object that came, changed or went. What a list brings is
/// told when the list is complete: only then does the cache have it.
async fn follow<K>(
    name: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    writer: Writer<K>,
    changed: impl Fn((String, String)) + Send,
) -> &'static str
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let mut events = std::pin::pin!(cached(name, events, writer));
    let mut known = BTreeSet::new();
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match &event {
            Event::Apply(object) => {
                known.insert(names(object.meta()));
                changed(names(object.meta()));
            }
            Event::Delete(object) => {
                known.remove(&names(object.meta()));
                changed(names(object.meta()));
            }
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(names(object.meta()));
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                before.union(&known).cloned().for_each(&changed);
            }
        }
    }
    name
}

/// Retries a watch with growing delays, strips what is not needed, and fills a cache.
fn cached<K>(
    name: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    writer: Writer<K>,
) -> impl Stream<Item = Event<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let strip = |object: &mut K| {
        let is_secret = <K as Resource>::kind(&()) == "Secret";
        let meta = object.meta_mut();
        meta.managed_fields = None;
        if is_secret {
            meta.annotations = None;
        }
    };
    events.default_backoff().modify(strip).reflect(writer).filter_map(move |event| {
        let event =
            event.inspect_err(|error| tracing::warn!(watch = name, %error, "a watch failed; it is tried again")).ok();
        std::future::ready(event)
    })
}
