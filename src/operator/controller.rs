//! Feeds the reconcile loop: which VppToken is to be looked at when.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::ResourceExt;
use kube::runtime::controller::{self, Action, ReconcileReason, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use tokio::sync::{Notify, broadcast, mpsc, watch};

use super::metrics::Metrics;
use super::watches::Scope;
use crate::api::conditions::{ConditionType, find};
use crate::api::{Reason, SYNC_REQUESTED_AT, VppToken};
use crate::vpptoken::{self, Context, Error, Wake};

/// No limit here: a reconcile that waits for leave to write to one tenant must not keep those of another from beginning.
/// [`Context::working`] limits what looks and reports.
const CONCURRENCY: u16 = 0;
/// How long reconciles in progress may take to end when the operator is told to stop.
const GRACE: Duration = Duration::from_secs(20);

type Name = (String, String);

/// Requests for reconciles from elsewhere than the watch of the VppTokens, one line per scope.
pub(super) struct Queue {
    lines: Vec<(Scope, mpsc::UnboundedSender<Name>)>,
    receivers: Mutex<HashMap<Scope, mpsc::UnboundedReceiver<Name>>>,
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

    pub(super) fn wake(&self) -> Wake {
        let lines = self.lines.clone();
        Arc::new(move |namespace, name| {
            for (_, line) in lines.iter().filter(|(scope, _)| scope.holds(namespace)) {
                // A closed line means that the operator stops.
                let _ = line.send((namespace.to_owned(), name.to_owned()));
            }
        })
    }

    /// The end of a scope's line: once.
    pub(super) fn receiver(&self, scope: &Scope) -> Option<mpsc::UnboundedReceiver<Name>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).remove(scope)
    }
}

/// What of a VppToken's metadata a reconcile goes by. Its own status writes don't count: they would undo every delay.
#[derive(PartialEq, Eq)]
struct Version {
    uid: Option<String>,
    generation: Option<i64>,
    sync_request: Option<String>,
    deleting: bool,
    finalizers: Vec<String>,
}

impl Version {
    fn of(object: &VppToken) -> Self {
        Self {
            uid: object.uid(),
            generation: object.metadata.generation,
            sync_request: object.annotations().get(SYNC_REQUESTED_AT).cloned(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            finalizers: object.finalizers().to_vec(),
        }
    }
}

/// What the reconciles of one scope are fed from.
pub(super) struct Feed {
    /// The cache, which `events` fills.
    pub(super) store: Store<VppToken>,
    /// The watch of the VppTokens.
    pub(super) events: BoxStream<'static, Event<VppToken>>,
    /// Requests from elsewhere.
    pub(super) wakes: Option<mpsc::UnboundedReceiver<Name>>,
}

/// What the reconciles of all scopes share.
#[derive(Clone)]
pub(super) struct Shared {
    /// What they work with.
    pub(super) context: Arc<Context>,
    /// Told of every VppToken that came, changed or went.
    pub(super) tenants_changed: Arc<Notify>,
    /// Where they are counted.
    pub(super) metrics: Arc<Metrics>,
    /// How many of the caches of VppTokens are read.
    pub(super) read: watch::Sender<usize>,
    /// Whether all caches are read.
    pub(super) all_read: watch::Receiver<bool>,
    /// Whether the operator was told to stop.
    pub(super) stop: watch::Receiver<bool>,
}

/// Runs the reconciles of one scope until told to stop.
pub(super) async fn run(feed: Feed, shared: Shared) {
    let Feed { store, events, wakes } = feed;
    let Shared { context, tenants_changed, metrics, read, all_read, stop } = shared;
    let Some(wakes) = wakes else { return };
    let wakes = stream::unfold(wakes, |mut wakes| async move {
        let (namespace, name) = wakes.recv().await?;
        Some((ObjectRef::new(&name).within(&namespace), wakes))
    });
    let changes = changed_objects(events, Arc::clone(&context), tenants_changed, read);
    let mut stopped = stop.clone();
    let requests = stream::select(changes, wakes).map(|reference| Ok::<_, Infallible>(request(reference))).take_until(
        Box::pin(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }),
    );
    let reconcile = {
        let metrics = Arc::clone(&metrics);
        move |object: Arc<VppToken>, context: Arc<Context>| {
            let metrics = Arc::clone(&metrics);
            let mut all_read = all_read.clone();
            async move {
                // A cache that is not read yet would look like things that are not there.
                if all_read.wait_for(|all_read| *all_read).await.is_err() {
                    return Ok(Action::await_change());
                }
                let began = Instant::now();
                // A panic in one reconcile would end them all.
                let outcome = AssertUnwindSafe(vpptoken::reconcile(object, context)).catch_unwind().await;
                let outcome = outcome.unwrap_or(Err(Error::Panicked));
                metrics.reconciled(outcome.is_ok(), began.elapsed());
                outcome
            }
            .boxed()
        }
    };
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let results = applier(reconcile, try_again, context, store, requests, config).for_each(|result| async move {
        match result {
            Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
            Err(error) => tracing::warn!(%error, "a reconcile failed; it is tried again"),
        }
    });
    let mut stopped = stop;
    let told_and_grace_over = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = results => {}
        () = told_and_grace_over => tracing::warn!("stopping although reconciles are still in progress"),
    }
}

fn request(reference: ObjectRef<VppToken>) -> ReconcileRequest<VppToken> {
    ReconcileRequest { obj_ref: reference, reason: ReconcileReason::ObjectUpdated }
}

/// Kubernetes could not be read or written: again after 0.5, 1, 2, … up to 30 s.
#[allow(clippy::needless_pass_by_value)] // the signature is kube's
fn try_again(object: Arc<VppToken>, _error: &Error, context: Arc<Context>) -> Action {
    let failures = object.uid().and_then(|uid| {
        context.desk.change(&uid, |page| {
            page.kubernetes_failures = page.kubernetes_failures.saturating_add(1);
            page.kubernetes_failures
        })
    });
    let failures = failures.unwrap_or(1);
    let wait = Duration::from_millis(250).saturating_mul(2u32.saturating_pow(failures.min(10)));
    Action::requeue(wait.min(Duration::from_secs(30)))
}

/// The VppTokens whose manifest changed. Those that went are forgotten, and whoever waited for them is woken.
fn changed_objects(
    events: BoxStream<'static, Event<VppToken>>,
    context: Arc<Context>,
    tenants_changed: Arc<Notify>,
    read: watch::Sender<usize>,
) -> impl Stream<Item = ObjectRef<VppToken>> {
    let mut seen: HashMap<Name, Version> = HashMap::new();
    let mut listed: Vec<Name> = Vec::new();
    let mut is_read = false;
    events.filter_map(move |event| {
        let is_listed = matches!(event, Event::InitApply(_));
        let changed = match event {
            Event::Apply(object) | Event::InitApply(object) => {
                tenants_changed.notify_one();
                if let Some(uid) = object.uid() {
                    context.desk.open(&uid);
                }
                let name = (object.namespace().unwrap_or_default(), object.name_any());
                let version = Version::of(&object);
                let is_new = seen.get(&name) != Some(&version);
                seen.insert(name.clone(), version);
                if is_listed && is_new {
                    // The cache has it only when the list is complete.
                    listed.push(name);
                }
                (is_new && !is_listed).then(|| ObjectRef::from_obj(&object))
            }
            Event::Delete(object) => {
                tenants_changed.notify_one();
                seen.remove(&(object.namespace().unwrap_or_default(), object.name_any()));
                let waited = object.uid().map(|uid| context.desk.forget(&uid)).unwrap_or_default();
                wake(&context, waited);
                wake_rivals(&context);
                None
            }
            Event::InitDone => {
                if !std::mem::replace(&mut is_read, true) {
                    read.send_modify(|read| *read += 1);
                }
                let uids: BTreeSet<String> = context.caches.all_tokens().filter_map(|object| object.uid()).collect();
                seen.retain(|_, version| version.uid.as_ref().is_some_and(|uid| uids.contains(uid)));
                wake(&context, context.desk.keep_only(&uids));
                // The list of another scope may have come between: what is there is remembered.
                uids.iter().for_each(|uid| context.desk.open(uid));
                wake(&context, std::mem::take(&mut listed));
                wake_rivals(&context);
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

fn wake(context: &Context, names: Vec<Name>) {
    for (namespace, name) in names {
        (context.wake)(&namespace, &name);
    }
}

/// A VppToken went: its token may now be had by one that was held because of it.
fn wake_rivals(context: &Context) {
    for object in context.caches.all_tokens() {
        // Whatever else holds one without a token may be said before that.
        let is_held = object.status.as_ref().is_none_or(|status| {
            status.token_id.is_none()
                || find(&status.conditions, ConditionType::Ready)
                    .is_some_and(|ready| ready.reason == Reason::ClaimedByAnother.as_str())
        });
        if is_held {
            (context.wake)(&object.namespace().unwrap_or_default(), &object.name_any());
        }
    }
}

/// Wakes the VppTokens whose Secret or namespace changed, for ever.
pub(super) async fn wake_on_changes(
    context: Arc<Context>,
    mut secrets: broadcast::Receiver<(String, String)>,
    mut namespaces: broadcast::Receiver<String>,
) -> &'static str {
    loop {
        let concerned: BTreeSet<(String, String)> = tokio::select! {
            changed = secrets.recv() => {
                // So many changed that some were missed: look at all.
                let changed = changed.ok();
                names(&context, |object| changed.as_ref().is_none_or(|(namespace, name)| {
                    object.metadata.namespace.as_ref() == Some(namespace)
                        && object.spec.token_secret_ref.as_ref().is_some_and(|reference| reference.name == *name)
                }))
            }
            changed = namespaces.recv() => {
                let changed = changed.ok();
                names(&context, |object| {
                    changed.as_ref().is_none_or(|namespace| object.metadata.namespace.as_ref() == Some(namespace))
                })
            }
        };
        for (namespace, name) in concerned {
            (context.wake)(&namespace, &name);
        }
    }
}

fn names(context: &Context, concerns: impl Fn(&VppToken) -> bool) -> BTreeSet<(String, String)> {
    let objects = context.caches.all_tokens().filter(|object| concerns(object));
    objects.map(|object| (object.namespace().unwrap_or_default(), object.name_any())).collect()
}
