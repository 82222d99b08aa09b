//! The reconcile loop: observe, plan, act, report. One step and one status write at a time.

pub mod act;
pub mod desk;
pub mod events;
pub mod facts;
pub mod observe;
pub mod plan;
pub mod report;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;

use crate::api::VppToken;
use crate::tenant::{Directory, Priority, Sent, TenantKey, Timings};
use desk::Desk;
use events::Events;
use plan::{Plan, Step};

/// What could not be read from or written to Kubernetes. Graph's failures are not errors here but part of what is observed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no, or could not be reached.
    #[error("Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The object has no UID or namespace, which no object from an API server lacks.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// The reconcile panicked; the panic's own message is not shown, since nobody checked what is in it.
    #[error("a fault of the operator: the reconcile of this object panicked")]
    Panicked,
}

/// The caches that reconciles read. A namespace that is watched by itself has caches of its own.
#[derive(Clone)]
pub struct Caches {
    /// All VppTokens that this operator looks after.
    pub tokens: Vec<Store<VppToken>>,
    /// Metadata of the Secrets, without annotations.
    pub secrets: Vec<Store<PartialObjectMeta<Secret>>>,
    /// Metadata of the namespaces.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl Caches {
    /// All VppTokens.
    pub fn all_tokens(&self) -> impl Iterator<Item = Arc<VppToken>> + '_ {
        self.tokens.iter().flat_map(Store::state)
    }

    /// The version of a Secret, if it is there.
    pub fn secret_version(&self, namespace: &str, name: &str) -> Option<String> {
        let reference = ObjectRef::new(name).within(namespace);
        let secret = self.secrets.iter().find_map(|store| store.get(&reference))?;
        Some(format!("{}/{}", secret.uid().unwrap_or_default(), secret.resource_version().unwrap_or_default()))
    }
}

/// Asks for a reconcile of the VppToken with a namespace and a name.
pub type Wake = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Everything that a reconcile works with.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// The caches.
    pub caches: Caches,
    /// The tenants in use.
    pub directory: Arc<Directory>,
    /// Tells that a VppToken refers to a tenant object that nobody has looked for yet.
    pub tenant_wanted: Arc<tokio::sync::Notify>,
    /// What the process remembers.
    pub desk: Desk,
    /// Times that the rules speak of.
    pub timings: Timings,
    /// Writes events.
    pub events: Events,
    /// Asks for other reconciles.
    pub wake: Wake,
    /// How many reconciles look or report at a time. Waiting for leave to write to Graph, and writing there, do not count.
    pub working: Semaphore,
}

impl Context {
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

/// Brings one VppToken one step nearer to what it asks for.
///
/// # Errors
/// When Kubernetes can't be read or written.
pub async fn reconcile(object: Arc<VppToken>, context: Arc<Context>) -> Result<Action, Error> {
    let mut object = Arc::unwrap_or_clone(object);
    let working = context.working.acquire().await;
    if is_older_than_our_write(&context, &object) {
        match live(&context, &object).await? {
            Some(live) => object = live,
            None => return Ok(Action::await_change()),
        }
    }
    let mut observed = observe::observe(&context, &object, observe::From::Caches).await?;
    let mut plan = plan::plan(&observed);
    drop(working);
    let mut leave = None;
    if let Some(priority) = plan.step.as_ref().and_then(Step::priority) {
        // This may take long, and others work meanwhile. What the write rests on is read after it, and not from a cache.
        let mut waiting = Box::pin(leave_to_write(&context, &object, priority));
        let mut given = tokio::time::timeout(SHORT_WAIT, &mut waiting).await;
        if given.is_err() {
            if plan.is_first_try(&observed) {
                // A person should not have to guess what it waits for.
                report::say(&context, &mut object.clone(), &plan).await?;
            }
            given = tokio::time::timeout(LONGEST_WAIT, &mut waiting).await;
        }
        drop(waiting);
        match given {
            Ok(given) => leave = given,
            Err(_) => {
                // Say so, and see what has changed meanwhile.
                let Some(plan) = report::report(&context, object, observed, act::Acted::default()).await? else {
                    return Ok(Action::await_change());
                };
                return Ok(next_look(&plan));
            }
        }
        let _working = context.working.acquire().await;
        match live(&context, &object).await? {
            Some(live) => object = live,
            None => return Ok(Action::await_change()),
        }
        observed = observe::observe(&context, &object, observe::From::Live).await?;
        plan = plan::plan(&observed);
    }
    if plan.is_told_first(&observed) {
        let _working = context.working.acquire().await;
        if !report::say(&context, &mut object, &plan).await? {
            return Ok(Action::requeue(Duration::ZERO));
        }
    }
    let acted = match &plan.step {
        Some(step) => act::act(&context, &object, &observed, step, leave).await?,
        None => act::Acted::default(),
    };
    let _working = context.working.acquire().await;
    let reference = object.clone();
    let Some(plan) = report::report(&context, object, observed, acted).await? else {
        return Ok(Action::await_change());
    };
    if report::want_list(&context, &reference, &plan) {
        return Ok(Action::requeue(Duration::ZERO));
    }
    Ok(next_look(&plan))
}

/// Longer than this nobody waits for leave without a word in the status.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// Longer than this no reconcile waits for leave without looking again. It is longer than the time after which a waiting
/// write counts as urgent.
const LONGEST_WAIT: Duration = Duration::from_secs(90);

/// Waits for the leave to send one write to the object's tenant.
async fn leave_to_write(context: &Context, object: &VppToken, priority: Priority) -> Option<Sent> {
    let tenant = tenant_key(object).and_then(|key| context.directory.find(&key))??;
    Some(tenant.session.ok()?.leave(priority).await)
}

/// The object as it is now; none when it is gone, also when another one has its name.
async fn live(context: &Context, object: &VppToken) -> Result<Option<VppToken>, Error> {
    let live = context.api(object)?.get_opt(&object.name_any()).await?;
    Ok(live.filter(|live| live.metadata.uid == object.metadata.uid))
}

/// Whether a cache does not know yet what this process wrote last. Resource versions of one kind can be compared as numbers;
/// one that is no number is taken for older, which costs one read.
fn is_older_than_our_write(context: &Context, object: &VppToken) -> bool {
    let Some(written) = object.uid().and_then(|uid| context.desk.page(&uid).version) else { return false };
    let number = |version: Option<String>| version.and_then(|version| version.parse::<u64>().ok());
    match (number(object.resource_version()), number(Some(written))) {
        (Some(cached), Some(written)) => cached < written,
        _ => true,
    }
}

fn next_look(plan: &Plan) -> Action {
    Action::requeue(plan.next_look().unsigned_abs())
}

/// The tenant object that a VppToken refers to.
pub fn tenant_key(object: &VppToken) -> Option<TenantKey> {
    Some(TenantKey::of(&object.spec.tenant_ref, object.metadata.namespace.as_deref()?))
}
