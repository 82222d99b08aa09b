//! The watches and the caches that they fill. Secrets are watched as metadata only, and of that only the version is kept:
//! the annotation `last-applied-configuration` has the plain text.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Request;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::client::Body;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::{Api, Client, Resource};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

use super::watch_state::{Kind, Watch, Watches};
use crate::api::{ClusterGraphTenant, GraphTenant, NamespacedName, VppToken};
use crate::vpptoken::caches::{Caches, SecretVersions, TokenCache, VersionsByNamespace, secret_version, strip};
use crate::vpptoken::stripped::Stripped;

/// Objects of one page of a list: a page is in memory as a whole, in text and parsed.
const PAGE_SIZE: u32 = 100;

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

    pub(super) fn contains(&self, namespace: &str) -> bool {
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

/// Changes in the caches.
pub(super) struct Sources {
    /// Events of the VppTokens, one stream per scope; the stream fills the cache, so it has to be read.
    pub(super) tokens: Vec<BoxStream<'static, Event<VppToken>>>,
    /// Notified when something changed that the sessions depend on.
    pub(super) tenants_changed: Arc<Notify>,
    /// Secrets that changed: namespace and name.
    pub(super) secrets_changed: broadcast::Sender<NamespacedName>,
    /// Namespaces that changed.
    pub(super) namespaces_changed: broadcast::Sender<Arc<str>>,
}

/// Starts all watches. Those of the VppTokens only run while their stream is read.
pub(super) fn start(
    client: &Client,
    scopes: &[Scope],
    namespace: &str,
    watches: &Watches,
    tasks: &mut JoinSet<&'static str>,
) -> (Caches, TenantCaches, Sources) {
    let tenants_changed = Arc::new(Notify::new());
    let (secrets_changed, _) = broadcast::channel(4096);
    let (namespaces_changed, _) = broadcast::channel(1024);
    let config = || watcher::Config::default().page_size(PAGE_SIZE);
    let everywhere = Scope(None);

    let mut secret_scopes = scopes.to_vec();
    if !scopes.iter().any(|scope| scope.contains(namespace)) {
        secret_scopes.push(Scope(Some(namespace.to_owned())));
    }
    let secrets = secret_scopes
        .iter()
        .map(|scope| {
            let versions = SecretVersions::default();
            let watch = watches.add(Kind::Secrets, scope);
            let api = scope.api::<PartialObjectMeta<Secret>>(&observed(client, &watch));
            let changed = secrets_changed.clone();
            let changed = move |secret| {
                // Without a receiver nothing is lost: the caches are read at the next reconcile.
                let _ = changed.send(secret);
            };
            let mut recorder = SecretRecorder { versions: versions.clone(), listed: HashMap::new(), changed };
            let events = retried(watch, watcher::watcher(api, config()), move |events| {
                events.inspect_ok(move |event| recorder.record(event))
            });
            tasks.spawn(events.for_each(|_| std::future::ready(())).map(|()| "the watch of the Secrets"));
            versions
        })
        .collect();

    let (namespaces, writer) = kube::runtime::reflector::store();
    let watch = watches.add(Kind::Namespaces, &everywhere);
    let events = watcher::watcher(Api::<PartialObjectMeta<Namespace>>::all(observed(client, &watch)), config());
    let changed = namespaces_changed.clone();
    tasks.spawn(follow("the watch of the namespaces", watch, events, writer, move |namespace| {
        let _ = changed.send(namespace.name);
    }));

    let graph = scopes
        .iter()
        .map(|scope| {
            let (store, writer) = kube::runtime::reflector::store();
            let watch = watches.add(Kind::GraphTenants, scope);
            let events = watcher::watcher(scope.api::<GraphTenant>(&observed(client, &watch)), config());
            let tenants = Arc::clone(&tenants_changed);
            tasks.spawn(follow("the watch of the GraphTenants", watch, events, writer, move |_| tenants.notify_one()));
            store
        })
        .collect();
    let (cluster, writer) = kube::runtime::reflector::store();
    let watch = watches.add(Kind::ClusterGraphTenants, &everywhere);
    let events = watcher::watcher(Api::<ClusterGraphTenant>::all(observed(client, &watch)), config());
    let tenants = Arc::clone(&tenants_changed);
    tasks.spawn(follow("the watch of the ClusterGraphTenants", watch, events, writer, move |_| {
        tenants.notify_one();
    }));

    let mut stores = Vec::new();
    let mut tokens = Vec::new();
    for scope in scopes {
        let (store, writer) = kube::runtime::reflector::store();
        let watch = watches.add(Kind::VppTokens, scope);
        let events = watcher::watcher(scope.api::<Stripped>(&observed(client, &watch)), config());
        stores.push(TokenCache::new(scope.0.clone(), store));
        tokens.push(cached(watch, events.map_ok(Stripped::event), writer).boxed());
    }
    (
        Caches { tokens: stores, secrets, namespaces },
        TenantCaches { graph, cluster },
        Sources { tokens, tenants_changed, secrets_changed, namespaces_changed },
    )
}

/// A client that reports the state of a watch from its answers: a watch that works again after a failure brings no
/// event while nothing changes.
fn observed(client: &Client, watch: &Watch) -> Client {
    let (way, watch) = (client.clone(), watch.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (way, watch) = (way.clone(), watch.clone());
        async move {
            let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
            let response = way.send(request).await?;
            if is_watch && response.status().is_success() {
                watch.worked();
            }
            Ok::<_, kube::Error>(response)
        }
    });
    Client::new(service, client.default_namespace())
}

/// Fills a cache for ever, and sends the namespace and name of every object that was added, changed or deleted. Those
/// of a list are sent when the list is complete: only then does the cache have them.
async fn follow<K>(
    name: &'static str,
    watch: Watch,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    writer: Writer<K>,
    changed: impl Fn(NamespacedName) + Send,
) -> &'static str
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let events = events.modify(|object| strip(object.meta_mut()));
    let mut events = std::pin::pin!(cached(watch, events, writer));
    let mut known = BTreeSet::new();
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match &event {
            Event::Apply(object) => {
                known.insert(NamespacedName::of(object));
                changed(NamespacedName::of(object));
            }
            Event::Delete(object) => {
                known.remove(&NamespacedName::of(object));
                changed(NamespacedName::of(object));
            }
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(NamespacedName::of(object));
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                before.union(&known).cloned().for_each(&changed);
            }
        }
    }
    name
}

/// Keeps the versions of Secrets, and sends the namespace and name of every one that was added, changed or deleted.
struct SecretRecorder<F> {
    versions: SecretVersions,
    /// Those of a list that is not complete yet.
    listed: VersionsByNamespace,
    changed: F,
}

impl<F: Fn(NamespacedName)> SecretRecorder<F> {
    fn record(&mut self, event: &Event<PartialObjectMeta<Secret>>) {
        match event {
            Event::Apply(object) => self.set(object, Some(secret_version(object.meta()))),
            Event::Delete(object) => self.set(object, None),
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                let NamespacedName { namespace, name } = NamespacedName::of(object);
                self.listed.entry(namespace).or_default().insert(name, secret_version(object.meta()));
            }
            Event::InitDone => {
                self.versions.replace(std::mem::take(&mut self.listed)).into_iter().for_each(&self.changed);
            }
        }
    }

    fn set(&self, object: &PartialObjectMeta<Secret>, version: Option<String>) {
        let name = NamespacedName::of(object);
        self.versions.set(&name.namespace, &name.name, version);
        (self.changed)(name);
    }
}

/// After an outage, no watch is later than this.
const MAX_WATCH_DELAY: Duration = Duration::from_secs(8);

/// kube's delays for watches, reset by what was really read: to begin a list is an event of the watch, too, so that a list
/// that is refused for ever would be tried every second.
#[derive(Default)]
struct WatchBackoff {
    delays: DefaultBackoff,
    has_read: Arc<AtomicBool>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.has_read.swap(false, Ordering::SeqCst) {
            self.delays.reset();
        }
        self.delays.next().map(|delay| delay.min(MAX_WATCH_DELAY))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

/// Retries a watch, and fills a cache.
fn cached<K>(
    watch: Watch,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    writer: Writer<K>,
) -> impl Stream<Item = Event<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    retried(watch, events, move |events| events.reflect(writer))
}

/// Retries a watch with growing delays, and reports its state. `keep` stores what the events bring: it has to be there when the
/// watch counts as read.
fn retried<K, E, S>(
    watch: Watch,
    events: E,
    keep: impl FnOnce(StreamBackoff<E, WatchBackoff>) -> S,
) -> impl Stream<Item = Event<K>> + Send + 'static
where
    K: Send + 'static,
    E: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    let backoff = WatchBackoff::default();
    let has_read = Arc::clone(&backoff.has_read);
    keep(events.backoff(backoff)).filter_map(move |event| {
        match &event {
            Err(error) => watch.failed(error),
            Ok(Event::InitDone) => {
                has_read.store(true, Ordering::SeqCst);
                watch.read();
            }
            Ok(Event::Apply(_) | Event::Delete(_)) => {
                has_read.store(true, Ordering::SeqCst);
                watch.worked();
            }
            // The list is still to come, and may be cut off.
            Ok(Event::Init | Event::InitApply(_)) => {}
        }
        std::future::ready(event.ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_secrets_tells_of_those_whose_version_is_new() {
        let secret = |name: &str, uid: &str| {
            let metadata = serde_json::json!({ "namespace": "ns", "name": name, "uid": uid, "resourceVersion": "1" });
            serde_json::from_value::<PartialObjectMeta<Secret>>(serde_json::json!({ "metadata": metadata })).unwrap()
        };
        let told = std::cell::RefCell::new(Vec::new());
        let changed = |secret: NamespacedName| told.borrow_mut().push(secret.name.to_string());
        let versions = SecretVersions::default();
        let mut recorder = SecretRecorder { versions: versions.clone(), listed: HashMap::new(), changed };
        let mut list = |all: &[(&str, &str)], is_whole: bool| {
            recorder.record(&Event::Init);
            all.iter().for_each(|(name, uid)| recorder.record(&Event::InitApply(secret(name, uid))));
            if is_whole {
                recorder.record(&Event::InitDone);
            }
            std::mem::take(&mut *told.borrow_mut())
        };
        assert_eq!(list(&[("a", "1"), ("b", "1")], true), ["a", "b"]);
        assert_eq!(list(&[("c", "1")], false), [""; 0], "it was cut off");
        assert_eq!(list(&[("a", "1"), ("b", "1")], true), [""; 0], "as before");
        assert_eq!(list(&[("a", "2"), ("d", "1")], true), ["a", "b", "d"], "made anew, deleted, added");
        let version = |name: &str| versions.get("ns", name);
        assert_eq!((version("a").as_deref(), version("b"), version("c")), (Some("2/1"), None, None));
    }

    #[test]
    fn the_delays_of_a_watch_grow_until_it_has_read_something() {
        let mut backoff = WatchBackoff::default();
        let mut delays: Vec<Duration> = (0..8)
            .map(|_| {
                // As a list that begins.
                backoff.reset();
                backoff.next().unwrap()
            })
            .collect();
        assert_eq!(delays[7], MAX_WATCH_DELAY, "{delays:?}");
        backoff.has_read.store(true, Ordering::SeqCst);
        delays.push(backoff.next().unwrap());
        assert!(delays[8] < Duration::from_secs(3), "{delays:?}");
    }
}
