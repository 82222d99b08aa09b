//! The reconcile loop: observe, plan, act, report. One step and one status write at a time.

pub mod act;
pub mod claims;
pub mod creates;
pub mod events;
pub mod local_state;
pub mod observe;
pub mod observed;
pub mod outcome;
pub mod plan;
pub mod references;
pub mod report;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::VppToken;
use crate::clock::{Clock, Random};
use crate::tenant::{Session, TenantKey, TenantRegistry, Timings};
use act::{Permit, StepResult};
use creates::Name;
use events::Events;
use local_state::LocalState;
use observe::LiveReads;
use observed::Observed;
use plan::{PermitKind, Plan, Step};

/// What could not be read from or written to Kubernetes. Failures of Graph are not errors here but part of what is
/// observed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The object has no UID or namespace, which no object from an API server lacks.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// The reconcile panicked. The panic's own message is not shown, because it may quote a secret.
    #[error("a fault of the operator: the reconcile of this object panicked")]
    Panicked,
}

/// The VppTokens of one watched namespace, or of all.
#[derive(Clone)]
pub struct TokenCache {
    namespace: Option<String>,
    store: Store<VppToken>,
    is_read: Arc<AtomicBool>,
}

impl TokenCache {
    /// A cache that was not read yet. Without a namespace it is for all of them.
    pub fn new(namespace: Option<String>, store: Store<VppToken>) -> Self {
        Self { namespace, store, is_read: Arc::default() }
    }

    /// The objects.
    pub fn store(&self) -> &Store<VppToken> {
        &self.store
    }

    /// Whether it has had a complete list.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::SeqCst)
    }

    /// It has a complete list.
    pub fn set_read(&self) {
        self.is_read.store(true, Ordering::SeqCst);
    }
}

/// The caches that reconciles read. A namespace that is watched by itself has caches of its own.
#[derive(Clone)]
pub struct Caches {
    /// All VppTokens that this operator manages.
    pub tokens: Vec<TokenCache>,
    /// The versions of the Secrets.
    pub secrets: Vec<SecretVersions>,
    /// Metadata of the namespaces.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl Caches {
    /// All VppTokens.
    pub fn all_tokens(&self) -> impl Iterator<Item = Arc<VppToken>> + '_ {
        self.tokens.iter().flat_map(|cache| cache.store.state())
    }

    /// Whether this process has never read the VppTokens of a watched namespace that exists: their tokens and their
    /// creates are not known.
    pub fn has_unread_namespace(&self) -> bool {
        let is_there = |namespace: &String| self.namespaces.get(&ObjectRef::new(namespace)).is_some();
        self.unread().any(|cache| cache.namespace.as_ref().is_none_or(is_there))
    }

    /// Whether this process has never read the VppTokens of a namespace that is watched by itself.
    pub fn is_unread(&self, namespace: &str) -> bool {
        self.unread().any(|cache| cache.namespace.as_deref() == Some(namespace))
    }

    fn unread(&self) -> impl Iterator<Item = &TokenCache> {
        self.tokens.iter().filter(|cache| !cache.is_read())
    }

    /// The version of a Secret, if it is there.
    pub fn secret_version(&self, namespace: &str, name: &str) -> Option<String> {
        self.secrets.iter().find_map(|versions| versions.get(namespace, name))
    }
}

/// Names of Secrets, and their versions, in each namespace.
pub type VersionsByNamespace = HashMap<String, HashMap<String, String>>;

/// The versions of the Secrets of a watched namespace, or of all: a cluster may have many that are none of ours, so that
/// nothing else of them is kept. Clones are the same one.
#[derive(Clone, Default)]
pub struct SecretVersions(Arc<RwLock<VersionsByNamespace>>);

impl SecretVersions {
    /// The version of a Secret, if it is there: it differs from that of any other content, also of a Secret that was deleted.
    pub fn get(&self, namespace: &str, name: &str) -> Option<String> {
        let versions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        versions.get(namespace)?.get(name).cloned()
    }

    /// A Secret has a version now, or was deleted.
    pub fn set(&self, namespace: &str, name: &str, version: Option<String>) {
        let mut versions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => {
                versions.entry(namespace.to_owned()).or_default().insert(name.to_owned(), version);
            }
            None => {
                if let Some(of_namespace) = versions.get_mut(namespace) {
                    of_namespace.remove(name);
                    if of_namespace.is_empty() {
                        versions.remove(namespace);
                    }
                }
            }
        }
    }

    /// Replaces all of them, and returns namespace and name of those that were added, changed or deleted.
    pub fn replace(&self, now: VersionsByNamespace) -> BTreeSet<(String, String)> {
        let mut versions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut differing = BTreeSet::new();
        for (one, other) in [(&*versions, &now), (&now, &*versions)] {
            for (namespace, of_namespace) in one {
                let other = other.get(namespace);
                let is_new = |name: &String, version| other.and_then(|other| other.get(name)) != Some(version);
                let new = of_namespace.iter().filter(|(name, version)| is_new(name, version));
                differing.extend(new.map(|(name, _)| (namespace.clone(), name.clone())));
            }
        }
        *versions = now;
        differing
    }
}

/// The version of a Secret: it differs from that of any other content, also of a Secret that was deleted.
pub fn secret_version(metadata: &ObjectMeta) -> String {
    let [uid, version] = [&metadata.uid, &metadata.resource_version].map(|text| text.as_deref().unwrap_or_default());
    format!("{uid}/{version}")
}

/// Triggers a reconcile of the VppToken with a namespace and a name.
pub type Trigger = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Everything that a reconcile works with.
pub struct Context {
    /// The time.
    pub clock: Clock,
    /// Jitter.
    pub random: Random,
    /// Kubernetes.
    pub client: Client,
    /// The caches.
    pub caches: Caches,
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
    /// How many reconciles work at a time, those that are at Graph apart.
    pub workers: Arc<Semaphore>,
}

impl Context {
    /// An object as this process has written it, or read it past the cache: see [`LocalState::apply_newest`].
    fn apply_newest(&self, object: &VppToken) {
        if self.local_state.apply_newest(object) {
            self.tenant_wanted.notify_one();
        }
    }

    /// Triggers the reconciles of several VppTokens.
    pub fn trigger_all(&self, names: impl IntoIterator<Item = Name>) {
        for (namespace, name) in names {
            (self.trigger)(&namespace, &name);
        }
    }

    fn api(&self, object: &VppToken) -> Result<Api<VppToken>, Error> {
        Ok(Api::namespaced(self.client.clone(), namespace(object)?))
    }
}

fn namespace(object: &VppToken) -> Result<&str, Error> {
    object.metadata.namespace.as_deref().ok_or(Error::Incomplete("namespace"))
}

fn uid(object: &VppToken) -> Result<&str, Error> {
    object.metadata.uid.as_deref().ok_or(Error::Incomplete("UID"))
}

/// A decision, and what it was made on.
struct Decision {
    object: VppToken,
    observed: Observed,
    plan: Plan,
}

/// Brings one VppToken one step nearer to what it asks for. It never waits for a permit: when none is free, it ends, and the
/// VppToken is triggered when one is reserved for it. The worker slot is given up while Graph is asked.
///
/// # Errors
/// When Kubernetes can't be read or written.
pub async fn reconcile(
    object: Arc<VppToken>,
    context: Arc<Context>,
    slot: OwnedSemaphorePermit,
) -> Result<Action, Error> {
    let object = context.local_state.newest(object);
    let decision = decide(&context, Arc::unwrap_or_clone(object), None).await?;
    let permit = match request_permit(&context, &decision) {
        Requested::Nothing => None,
        Requested::Permit(permit) => Some(permit),
        Requested::Ticket => return report_queued(&context, decision).await,
    };
    let Some(decision) = decide_on_live_reads(&context, decision).await? else { return Ok(Action::await_change()) };
    let decision = match report_first(&context, decision).await? {
        Ok(decision) => decision,
        Err(action) => return Ok(action),
    };
    let mut slot = Some(slot);
    slot.take_if(|_| decision.plan.step.as_ref().is_some_and(Step::is_at_graph));
    let decision = confirm_upload(&context, decision).await?;
    let result = carry_out(&context, &decision, permit).await?;
    let _slot = match slot {
        Some(slot) => Some(slot),
        None => Arc::clone(&context.workers).acquire_owned().await.ok(),
    };
    report_result(&context, decision, result).await
}

/// A VppToken that waits for a permit is reconciled after this at the latest, even if nothing triggers it.
const QUEUED_REQUEUE: Duration = Duration::from_secs(60);

async fn decide(context: &Context, object: VppToken, live: Option<LiveReads>) -> Result<Decision, Error> {
    let observed = observe::observe(context, &object, live).await?;
    let plan = plan::plan(&observed);
    Ok(Decision { object, observed, plan })
}

/// The same decision on what the API server has now, if it is one that must not be made on caches; none when the object was
/// deleted.
async fn decide_on_live_reads(context: &Context, decision: Decision) -> Result<Option<Decision>, Error> {
    if !decision.plan.step.as_ref().is_some_and(Step::needs_live_reads) {
        return Ok(Some(decision));
    }
    let reads = observe::read_live(context, &decision.object);
    let (object, reads) = futures::try_join!(live(context, &decision.object), reads)?;
    match object {
        Some(object) => decide(context, object, Some(reads)).await.map(Some),
        None => Ok(None),
    }
}

/// What became of asking for a permit.
enum Requested {
    /// Nothing is to be written.
    Nothing,
    /// A permit is there.
    Permit(Permit),
    /// There is none yet.
    Ticket,
}

fn request_permit(context: &Context, Decision { object, plan, .. }: &Decision) -> Requested {
    let Some(uid) = object.metadata.uid.as_deref() else { return Requested::Nothing };
    let limiter = session(context, object).map(|session| session.limiter());
    let is_known = context.local_state.set_limiter(uid, limiter.as_ref());
    let Some(limiter) = limiter.filter(|_| is_known) else { return Requested::Nothing };
    let reference = ObjectRef::from_obj(object);
    let permit = match plan.step.as_ref().and_then(Step::needed_permit) {
        None => {
            limiter.record_unwanted(uid);
            return Requested::Nothing;
        }
        Some(PermitKind::Intent) if context.local_state.has_intent_permit(uid) => Some(Permit::Intent(None)),
        Some(PermitKind::Intent) => limiter.request_intent(uid, &reference).map(|permit| Permit::Intent(Some(permit))),
        Some(PermitKind::Write(priority)) => limiter.request(uid, &reference, priority).map(Permit::Write),
    };
    if !context.local_state.is_known(uid) {
        // It was deleted meanwhile, and nobody else would withdraw its ticket.
        limiter.withdraw(uid);
    }
    permit.map_or(Requested::Ticket, Requested::Permit)
}

/// The status shows what the object waits for.
async fn report_queued(context: &Context, mut decision: Decision) -> Result<Action, Error> {
    if decision.plan.is_first_try(&decision.observed)
        && let Err(action) = write_planned_status(context, &mut decision).await?
    {
        return Ok(action);
    }
    Ok(Action::requeue(QUEUED_REQUEUE))
}

/// Reports a step that has to be reported before it is taken. If the object changed meanwhile, the step is not taken.
async fn report_first(context: &Context, mut decision: Decision) -> Result<Result<Decision, Action>, Error> {
    if decision.plan.is_reported_first(&decision.observed)
        && let Err(action) = write_planned_status(context, &mut decision).await?
    {
        return Ok(Err(action));
    }
    Ok(Ok(decision))
}

/// What to do instead when the object changed meanwhile, or was deleted.
async fn write_planned_status(context: &Context, decision: &mut Decision) -> Result<Result<(), Action>, Error> {
    if report::write_planned_status(context, &mut decision.object, &decision.plan).await? {
        return Ok(Ok(()));
    }
    Ok(Err(match live(context, &decision.object).await? {
        Some(_) => Action::requeue(Duration::ZERO),
        None => Action::await_change(),
    }))
}

/// What Graph has now decides whether a file is uploaded: it is asked with the permit in hand, so that the upload follows at
/// once.
async fn confirm_upload(context: &Context, mut decision: Decision) -> Result<Decision, Error> {
    if let Some(step @ Step::ConfirmUpload { .. }) = &decision.plan.step {
        act::act(context, &decision.object, &decision.observed, step, None).await?;
        decision.plan = report::plan_again(context, &decision.object, &mut decision.observed, &None);
    }
    Ok(decision)
}

async fn carry_out(context: &Context, decision: &Decision, permit: Option<Permit>) -> Result<StepResult, Error> {
    match &decision.plan.step {
        Some(step) => act::act(context, &decision.object, &decision.observed, step, permit).await,
        None => Ok(StepResult::default()),
    }
}

async fn report_result(context: &Context, decision: Decision, result: StepResult) -> Result<Action, Error> {
    let reference = decision.object.clone();
    let Some(plan) = report::report(context, decision.object, decision.observed, result).await? else {
        return Ok(Action::await_change());
    };
    if report::want_list(context, &reference, &plan) {
        return Ok(Action::requeue(Duration::ZERO));
    }
    Ok(Action::requeue(plan.requeue_after().unsigned_abs()))
}

/// The session with the object's tenant.
fn session(context: &Context, object: &VppToken) -> Option<Arc<Session>> {
    let tenant = context.registry.find(&tenant_key(object)?)??;
    tenant.session.ok()
}

/// The object as it is now; none when it was deleted, also when another object has its name. The next reconcile must not begin
/// with a cache that is behind it.
async fn live(context: &Context, object: &VppToken) -> Result<Option<VppToken>, Error> {
    let live = context.api(object)?.get_opt(&object.name_any()).await?;
    let live = live.filter(|live| live.metadata.uid == object.metadata.uid);
    if let Some(live) = &live {
        context.apply_newest(live);
    }
    Ok(live)
}

/// The tenant object that a VppToken refers to.
pub fn tenant_key(object: &VppToken) -> Option<TenantKey> {
    Some(TenantKey::of(&object.spec.tenant_ref, object.metadata.namespace.as_deref()?))
}

#[cfg(test)]
mod tests {
    use api_server::{ApiServer, Definitions};
    use jiff::Timestamp;
    use kube::runtime::events::Reporter;
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_status_that_conflicts_is_written_on_the_live_object_at_the_next_try() {
        let definitions = crate::api::crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let definitions = Definitions::new(definitions).unwrap();
        let kubernetes = ApiServer::new(Arc::new(Timestamp::now), &definitions, api_server::Options::default());
        kubernetes.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "devices" } }));
        // With this policy the finalizer is due, which is reported before it is written.
        kubernetes.apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
            "metadata": { "name": "berlin", "namespace": "devices" },
            "spec": {
                "tokenSecretRef": { "name": "berlin" }, "appleId": "vpp@contoso.example", "deletionPolicy": "Delete",
            },
        }));
        let client = Client::new(kubernetes.service("operator"), "devices");
        let tokens: Api<VppToken> = Api::namespaced(client.clone(), "devices");
        let cached = Arc::new(tokens.get("berlin").await.unwrap());
        let (store, _) = reflector::store();
        let context = Arc::new(Context {
            clock: Clock::system(),
            random: Random::seeded(1),
            client: client.clone(),
            caches: Caches { tokens: Vec::new(), secrets: Vec::new(), namespaces: store },
            registry: Arc::default(),
            tenant_wanted: Arc::default(),
            local_state: LocalState::default(),
            timings: Timings::default(),
            events: Events::new(client, Reporter { controller: "test".into(), instance: None }),
            trigger: Arc::new(|_, _| {}),
            workers: Arc::new(Semaphore::new(1)),
        });
        context.local_state.apply_listed(&cached);
        // The object changes, and the cache does not show it.
        kubernetes.merge("VppToken", "devices", "berlin", &json!({ "metadata": { "labels": { "a": "b" } } }));
        let slot = || async { Arc::clone(&context.workers).acquire_owned().await.unwrap() };
        let action = reconcile(Arc::clone(&cached), Arc::clone(&context), slot().await).await.unwrap();
        assert_eq!(action, Action::requeue(Duration::ZERO));
        assert_eq!(tokens.get("berlin").await.unwrap().finalizers(), [""; 0]);
        reconcile(cached, Arc::clone(&context), slot().await).await.unwrap();
        assert_eq!(tokens.get("berlin").await.unwrap().finalizers(), [crate::api::FINALIZER]);
    }
}
