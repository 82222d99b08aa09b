//! Runs the reconcile loop: which VppToken is reconciled when.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::ResourceExt;
use kube::runtime::controller::{self, Action, ReconcileReason, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::watch_state::{Kind, WatchState, is_read};
use super::watches::Scope;
use crate::api::{EntraTenant, NamespacedName, SYNC_REQUESTED_AT, UPLOAD_REQUESTED_AT, VppToken};
use crate::backoff::Backoff;
use crate::tenant::TenantKey;
use crate::vpptoken::caches::TokenCache;
use crate::vpptoken::context::{Context, Trigger};
use crate::vpptoken::error::Error;
use crate::vpptoken::reconcile::reconcile;
use crate::vpptoken::references::References;

/// A reconcile that could not read or write Kubernetes is retried after such delays.
const KUBERNETES_RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// How long reconciles, and steps at Graph, may take to end when the operator is stopped.
const GRACE_PERIOD: Duration = Duration::from_secs(20);

/// Triggers from elsewhere than the watch of the VppTokens, one queue per scope.
pub(super) struct Queue {
    lines: Vec<(Scope, mpsc::UnboundedSender<NamespacedName>)>,
    receivers: Mutex<HashMap<Scope, mpsc::UnboundedReceiver<NamespacedName>>>,
}

impl Queue {
    pub(super) fn new(scopes: &[Scope]) -> Self {
        let mut lines = Vec::new();
        let mut receivers = HashMap::new();
        for scope in scopes {
            let (sender, receiver) = mpsc::unbounded_channel();
            lines.push((scope.clone(), sender));
            receivers.insert(scope.clone(), receiver);
        }
        Self { lines, receivers: Mutex::new(receivers) }
    }

    pub(super) fn trigger(&self) -> Trigger {
        let lines = self.lines.clone();
        Arc::new(move |token: NamespacedName| {
            for (_, line) in lines.iter().filter(|(scope, _)| scope.contains(&token.namespace)) {
                // A closed queue means that the operator stops.
                let _ = line.send(token.clone());
            }
        })
    }

    /// The receiving end of a scope's queue: once.
    pub(super) fn receiver(&self, scope: &Scope) -> Option<mpsc::UnboundedReceiver<NamespacedName>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).remove(scope)
    }
}

/// A digest of what triggers a reconcile of a VppToken when it changes. Our own status writes don't: they would end every
/// delay.
fn triggering_version(object: &VppToken) -> u64 {
    let mut hasher = DefaultHasher::new();
    let annotation = |name| object.annotations().get(name);
    (&object.metadata.uid, object.metadata.generation, object.metadata.deletion_timestamp.is_some()).hash(&mut hasher);
    (annotation(SYNC_REQUESTED_AT), annotation(UPLOAD_REQUESTED_AT), object.finalizers()).hash(&mut hasher);
    hasher.finish()
}

/// What the reconciles of one scope are fed from.
pub(super) struct Feed {
    /// The namespace, or all of them.
    pub(super) scope: Scope,
    /// The cache, which `events` fills.
    pub(super) cache: TokenCache,
    /// The watch of the VppTokens.
    pub(super) events: BoxStream<'static, Event<VppToken>>,
    /// Triggers from elsewhere.
    pub(super) triggers: Option<mpsc::UnboundedReceiver<NamespacedName>>,
    /// How many reconciles work at a time.
    pub(super) workers: u16,
}

/// What the reconciles of all scopes share.
#[derive(Clone)]
pub(super) struct Shared {
    /// What they work with.
    pub(super) context: Arc<Context>,
    /// Notified when VppTokens use tenant objects otherwise than before.
    pub(super) tenants_changed: Arc<Notify>,
    /// Where they are counted.
    pub(super) metrics: Arc<Metrics>,
    /// Whether the operator has started: what all reconciles need is read.
    pub(super) has_started: watch::Receiver<bool>,
    /// How the watches fare.
    pub(super) watches: watch::Receiver<Vec<WatchState>>,
    /// Cancelled when the operator is to stop.
    pub(super) stop: CancellationToken,
}

/// Runs the reconciles of one scope until the operator is stopped.
pub(super) async fn run(feed: Feed, shared: Shared) {
    let Feed { scope, cache, events, triggers, workers } = feed;
    let Shared { context, tenants_changed, metrics, has_started, watches, stop } = shared;
    let store = cache.store().clone();
    let Some(triggers) = triggers else { return };
    let triggers = triggers_until_stop(triggers, Arc::clone(&context), stop.clone());
    let changes = changed_objects(scope.clone(), events, cache, Arc::clone(&context), tenants_changed);
    let changes = changes.take_until(Box::pin(stop.clone().cancelled_owned()));
    let requests = stream::select(changes, triggers).map(|reference| Ok::<_, Infallible>(request(reference)));
    let reconcile = {
        let (metrics, stop) = (Arc::clone(&metrics), stop.clone());
        move |object: Arc<VppToken>, context: Arc<Context>| {
            let (metrics, stop) = (Arc::clone(&metrics), stop.clone());
            let (mut has_started, mut watches) = (has_started.clone(), watches.clone());
            let namespace = scope.0.clone().unwrap_or_default();
            async move {
                // In a cache that is not read yet, objects would seem not to exist. Only the Secrets of the own
                // namespace are waited for: a namespace that can't be read stops no other.
                let secrets = |states: &Vec<WatchState>| is_read(states, Kind::Secrets, &namespace);
                if has_started.wait_for(|it| *it).await.is_err() || watches.wait_for(secrets).await.is_err() {
                    return Ok(Action::await_change());
                }
                if stop.is_cancelled() && !has_result(&context, &NamespacedName::of(&*object)) {
                    return Ok(Action::await_change());
                }
                reconcile_counted(object, context, &metrics).await
            }
            .boxed()
        }
    };
    let config = controller::Config::default().concurrency(workers);
    let results = applier(reconcile, error_policy, Arc::clone(&context), store.clone(), requests, config).for_each(
        |result| async move {
            match result {
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(%error, "a reconcile failed; it is tried again"),
            }
        },
    );
    let grace_period_over = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE_PERIOD).await;
    };
    tokio::select! {
        biased;
        () = async {
            results.await;
            report_rest(&context, &store, &metrics).await;
        } => {}
        () = grace_period_over => tracing::warn!("stopping although reconciles or requests to Graph are still in progress"),
    }
}

/// A panic in one reconcile would end them all.
async fn reconcile_counted(object: Arc<VppToken>, context: Arc<Context>, metrics: &Metrics) -> Result<Action, Error> {
    let began = Instant::now();
    let outcome = AssertUnwindSafe(reconcile(object, context)).catch_unwind().await;
    let outcome = outcome.unwrap_or(Err(Error::Panicked));
    metrics.reconciled(outcome.is_ok(), began.elapsed());
    outcome
}

/// Whether the result of a step at Graph is to be reported, which is done also when the operator stops.
fn has_result(context: &Context, name: &NamespacedName) -> bool {
    context.local_state.graph_tasks(|tasks, _| tasks.has_result(name))
}

/// Triggers from elsewhere. When the operator stops, those whose step at Graph has ended follow, until none is under way.
fn triggers_until_stop(
    mut triggers: mpsc::UnboundedReceiver<NamespacedName>,
    context: Arc<Context>,
    stop: CancellationToken,
) -> impl Stream<Item = ObjectRef<VppToken>> {
    let tasks = context.graph_tasks.clone();
    let is_stopping = stop.clone();
    let mut tasks_ended = Box::pin(async move {
        stop.cancelled().await;
        tasks.close();
        tasks.wait().await;
    });
    let mut is_over = false;
    stream::poll_fn(move |cx| {
        loop {
            match triggers.poll_recv(cx) {
                Poll::Ready(Some(name)) if is_stopping.is_cancelled() && !has_result(&context, &name) => {}
                Poll::Ready(Some(name)) => return Poll::Ready(Some(reference(&name))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if is_over => return Poll::Ready(None),
                Poll::Pending => match tasks_ended.as_mut().poll(cx) {
                    // What the last one has triggered is there now.
                    Poll::Ready(()) => is_over = true,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    })
}

/// What the end of the stream of requests has kept from being reported.
async fn report_rest(context: &Arc<Context>, store: &Store<VppToken>, metrics: &Metrics) {
    let has_result = |object: &Arc<VppToken>| has_result(context, &NamespacedName::of(&**object));
    for object in store.state().into_iter().filter(has_result) {
        if let Err(error) = reconcile_counted(object, Arc::clone(context), metrics).await {
            tracing::warn!(%error, "what was done before the stop could not be reported");
        }
    }
}

/// Without what an object's own reference has: very many are scheduled.
fn reference(name: &NamespacedName) -> ObjectRef<VppToken> {
    ObjectRef::new(&name.name).within(&name.namespace)
}

fn request(reference: ObjectRef<VppToken>) -> ReconcileRequest<VppToken> {
    ReconcileRequest { obj_ref: reference, reason: ReconcileReason::ObjectUpdated }
}

/// Kubernetes could not be read or written.
#[allow(clippy::needless_pass_by_value)] // the signature is kube's
fn error_policy(object: Arc<VppToken>, _error: &Error, context: Arc<Context>) -> Action {
    let failures = object.uid().and_then(|uid| {
        context.local_state.release_reservation(&uid);
        context.local_state.change(&uid, |state| {
            state.kubernetes_failures = state.kubernetes_failures.saturating_add(1);
            state.kubernetes_failures
        })
    });
    Action::requeue(KUBERNETES_RETRY.delay(failures.unwrap_or(1)))
}

/// The VppTokens whose manifest changed. Deleted ones are forgotten, and those that waited for them are triggered.
fn changed_objects(
    scope: Scope,
    events: BoxStream<'static, Event<VppToken>>,
    cache: TokenCache,
    context: Arc<Context>,
    tenants_changed: Arc<Notify>,
) -> impl Stream<Item = ObjectRef<VppToken>> {
    let mut seen: HashMap<NamespacedName, u64> = HashMap::new();
    let mut listed: Vec<NamespacedName> = Vec::new();
    events.filter_map(move |event| {
        let is_listed = matches!(event, Event::InitApply(_));
        let changed = match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let is_used_otherwise = if is_listed {
                    context.local_state.apply_listed(&object)
                } else {
                    context.local_state.apply_if_newer(&object)
                };
                if is_used_otherwise {
                    tenants_changed.notify_one();
                }
                let name = NamespacedName::of(&object);
                let version = triggering_version(&object);
                let is_new = seen.insert(name.clone(), version) != Some(version);
                if is_listed && is_new {
                    // The cache has it only when the list is complete.
                    listed.push(name);
                    return std::future::ready(None);
                }
                is_new.then(|| reference(&name))
            }
            Event::Delete(object) => {
                seen.remove(&NamespacedName::of(&object));
                let waited = object.uid().map(|uid| context.local_state.forget(&uid)).unwrap_or_default();
                tenants_changed.notify_one();
                context.trigger_all(waited);
                trigger_blocked(&context, tenant_of(&context, &object).as_ref());
                None
            }
            Event::InitDone => {
                let cached: Vec<Arc<VppToken>> = context.caches.all_tokens().collect();
                context.local_state.record_shown(&cached);
                let uids: BTreeSet<String> = cached.iter().filter_map(|object| object.uid()).collect();
                let names: BTreeSet<NamespacedName> =
                    cached.iter().map(|object| NamespacedName::of(&**object)).collect();
                seen.retain(|name, _| names.contains(name));
                context.trigger_all(context.local_state.keep_only(&uids, |namespace| scope.contains(namespace)));
                // Not before: what it has would seem to be nobody's.
                cache.set_read();
                context.trigger_all(std::mem::take(&mut listed));
                trigger_blocked(&context, None);
                tenants_changed.notify_one();
                None
            }
            Event::Init => {
                listed.clear();
                None
            }
        };
        std::future::ready(changed)
    })
}

/// The tenant that a VppToken's token is in, as far as that is known.
fn tenant_of(context: &Context, object: &VppToken) -> Option<EntraTenant> {
    let shown = object.status.as_ref().and_then(|status| status.tenant.as_ref());
    let shown = shown.map(|tenant| tenant.entra_tenant());
    shown.or_else(|| Some(context.registry.tenant_of(object)?.identity.entra_tenant()))
}

/// A VppToken of a tenant was deleted, or of any: one that is blocked because of its token may now have it.
fn trigger_blocked(context: &Context, tenant: Option<&EntraTenant>) {
    let leads_there = |key: &TenantKey| tenant.is_none_or(|tenant| context.leads_to(key, tenant));
    context.trigger_all(context.local_state.references(|references| references.awaiting_deletion(leads_there)));
}

/// Triggers the VppTokens whose Secret or namespace changed, and notifies `tenants_changed` if a tenant object uses the Secret,
/// for ever.
pub(super) async fn trigger_on_changes(
    context: Arc<Context>,
    mut secrets: broadcast::Receiver<NamespacedName>,
    mut namespaces: broadcast::Receiver<Arc<str>>,
    tenants_changed: Arc<Notify>,
) -> &'static str {
    loop {
        // When so many changes came that some were missed, all are triggered.
        let concerned = tokio::select! {
            biased;
            changed = secrets.recv() => match changed {
                Ok(secret) => {
                    if context.registry.uses_secret(&secret) {
                        tenants_changed.notify_one();
                    }
                    context.local_state.references(|references| references.of_secret(&secret))
                }
                Err(_) => {
                    tenants_changed.notify_one();
                    context.local_state.references(References::all)
                }
            },
            changed = namespaces.recv() => {
                let changed = changed.ok();
                if changed.as_ref().is_none_or(|namespace| context.caches.is_unread(namespace)) {
                    // The namespace may have been deleted: those that waited because of it go on.
                    trigger_blocked(&context, None);
                }
                context.local_state.references(|references| match &changed {
                    Some(namespace) => references.of_namespace(namespace),
                    None => references.all(),
                })
            }
        };
        context.trigger_all(concerned);
    }
}
