//! One reconcile: observe, plan, act, report. One step and one status write at a time. A step at Graph is a task of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::runtime::controller::Action;
use tracing::Instrument;

use super::act::{self, Permit};
use super::at_graph::{Ended, GraphTask, StepResult};
use super::context::{Context, live, uid};
use super::error::Error;
use super::observe;
use super::observed::{DecidedOn, LiveReads, Observed};
use super::outcome::Outcome;
use super::plan::{self, PermitKind, Plan, Step};
use super::report;
use crate::api::{NamespacedName, VppToken};
use crate::tenant::Session;

/// A decision, and what it was made on.
struct Decision {
    object: Arc<VppToken>,
    live: Option<LiveReads>,
    observed: Observed,
    plan: Plan,
}

/// Brings one VppToken one step nearer to what it asks for. It never waits for a permit: when none is free, it ends, and the
/// VppToken is triggered when one is reserved for it. Nor does it wait for Graph: a step there is a task of its own, which
/// triggers the VppToken when it has ended; the reconcile after that reports what came of it.
///
/// # Errors
/// When Kubernetes can't be read or written.
pub(crate) async fn reconcile(object: Arc<VppToken>, context: Arc<Context>) -> Result<Action, Error> {
    let object = context.newest(object);
    let (uid, name) = (uid(&object)?.to_owned(), NamespacedName::of(&*object));
    match context.local_state.graph_tasks(|tasks, _| tasks.take(&name, &uid)) {
        Some(GraphTask::UnderWay) => return Ok(Action::await_change()),
        Some(GraphTask::Ended(ended, was_triggered)) => {
            let action = report_ended(&context, object, *ended).await?;
            return Ok(if was_triggered { Action::requeue(Duration::ZERO) } else { action });
        }
        None => {}
    }
    let decision = decide(&context, object, None).await?;
    let permit = match request_permit(&context, &decision) {
        Requested::Nothing => None,
        Requested::Permit(permit) => Some(permit),
        Requested::Ticket => return report_queued(&context, decision).await,
    };
    let Some(decision) = decide_on_live_reads(&context, decision).await? else {
        return Ok(Action::await_change());
    };
    let decision = match report_first(&context, decision).await? {
        Ok(decision) => decision,
        Err(action) => return Ok(action),
    };
    if decision.plan.step.as_ref().is_some_and(Step::is_at_graph) {
        return ask_graph(&context, decision, permit);
    }
    let Decision { object, observed, plan, .. } = *decision;
    let result = take_step(&context, &object, &observed.decided_on(), plan.step, permit).await?;
    report_result(&context, object, observed, result).await
}

/// A VppToken that waits for a permit is reconciled after this at the latest, even if nothing triggers it.
const QUEUED_REQUEUE: Duration = Duration::from_secs(60);

async fn decide(context: &Context, object: Arc<VppToken>, live: Option<LiveReads>) -> Result<Box<Decision>, Error> {
    let observed = observe::observe(context, &object, live.as_ref()).await?;
    let plan = plan::plan(&observed);
    Ok(Box::new(Decision { object, live, observed, plan }))
}

/// The same decision, if it is one that must not be made on caches, on what it depends on as the API server has it now; none when
/// the object was deleted.
async fn decide_on_live_reads(context: &Context, mut decision: Box<Decision>) -> Result<Option<Box<Decision>>, Error> {
    let mut read = LiveNeeds::default();
    loop {
        // What is there now may lead to another step than the caches did.
        let needed = read.and(LiveNeeds::of(&decision));
        if needed == read {
            return Ok(Some(decision));
        }
        read = needed;
        let Decision { object, .. } = *decision;
        let reads = observe::read_live(context, &object, needed.access_of_its_own, needed.secret);
        let (object, reads) = if needed.object {
            let (object, reads) = futures::try_join!(live(context, &object), reads)?;
            let Some(object) = object else { return Ok(None) };
            (object, reads)
        } else {
            let reads = reads.await?;
            (object, reads)
        };
        decision = decide(context, object, Some(reads)).await?;
    }
}

/// What is read past the caches before a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LiveNeeds {
    /// What its tenant object and namespace allow.
    access: bool,
    /// The same, and not shared with those who asked before.
    access_of_its_own: bool,
    object: bool,
    secret: bool,
}

impl LiveNeeds {
    fn of(Decision { plan, observed, .. }: &Decision) -> Self {
        let needs = |needs: fn(&Step) -> bool| plan.step.as_ref().is_some_and(needs);
        let access = needs(Step::needs_live_reads);
        // The intent of the last try may be in the status, although its write was not answered.
        let tries_again = access && observed.attempts.unsent_intent.is_some();
        Self {
            access,
            access_of_its_own: needs(Step::needs_reads_of_its_own),
            object: needs(Step::needs_live_object) || tries_again,
            secret: needs(Step::needs_live_secret),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            access: self.access || other.access,
            access_of_its_own: self.access_of_its_own || other.access_of_its_own,
            object: self.object || other.object,
            secret: self.secret || other.secret,
        }
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
    let name = NamespacedName::of(&**object);
    let permit = match plan.step.as_ref().and_then(Step::needed_permit) {
        None => {
            limiter.record_unwanted(uid);
            return Requested::Nothing;
        }
        Some(PermitKind::Intent) if context.local_state.has_intent_permit(uid) => Some(Permit::Intent(None)),
        Some(PermitKind::Intent) => limiter.request_intent(uid, &name).map(|permit| Permit::Intent(Some(permit))),
        Some(PermitKind::Write(priority)) => limiter.request(uid, &name, priority).map(Permit::Write),
    };
    if !context.local_state.is_known(uid) {
        // It was deleted meanwhile, and nobody else would withdraw its ticket.
        limiter.withdraw(uid);
    }
    permit.map_or(Requested::Ticket, Requested::Permit)
}

/// The status shows what the object waits for.
async fn report_queued(context: &Context, mut decision: Box<Decision>) -> Result<Action, Error> {
    if decision.plan.is_first_try(&decision.observed)
        && let Err(action) = write_planned_status(context, &mut decision).await?
    {
        return Ok(action);
    }
    Ok(Action::requeue(QUEUED_REQUEUE))
}

/// Reports a step that has to be reported before it is taken. If the object changed meanwhile, the step is not taken.
async fn report_first(context: &Context, mut decision: Box<Decision>) -> Result<Result<Box<Decision>, Action>, Error> {
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

/// What a step at Graph uses of its decision.
struct GraphStep {
    object: Arc<VppToken>,
    live: Option<LiveReads>,
    decided_on: DecidedOn,
    step: Option<Step>,
}

impl GraphStep {
    /// Drops everything else.
    fn of(context: &Context, Decision { object, live, observed, plan }: Decision) -> Self {
        Self { object: context.shared(object), live, decided_on: observed.decided_on(), step: plan.step }
    }
}

/// Begins a step for which Graph is asked, as a task. Very many may be under way, so that each keeps what its step uses.
fn ask_graph(context: &Arc<Context>, decision: Box<Decision>, permit: Option<Permit>) -> Result<Action, Error> {
    let (uid, name) = (uid(&decision.object)?.to_owned(), NamespacedName::of(&*decision.object));
    context.local_state.graph_tasks(|tasks, _| tasks.begin(name.clone(), uid));
    let tasks = context.graph_tasks.clone();
    let context = Arc::clone(context);
    let task = async move {
        // Nobody else would see that it has ended.
        let asked = AssertUnwindSafe(take_graph_step(&context, decision, permit)).catch_unwind();
        let ended = tokio::select! {
            biased;
            () = context.ended.cancelled() => return,
            asked = asked => asked.unwrap_or(Ended { live: None, result: Err(Error::Panicked) }),
        };
        context.local_state.graph_tasks(|tasks, is_known| tasks.end(&name, ended, is_known));
        (context.trigger)(name);
    };
    tasks.spawn(task.in_current_span());
    Ok(Action::await_change())
}

/// Before an upload, the whole decision is kept while Graph is asked for the token: the permits bound how many are.
async fn take_graph_step(context: &Context, decision: Box<Decision>, permit: Option<Permit>) -> Ended {
    let decision = match confirm_upload(context, decision).await {
        Ok(decision) => decision,
        Err(error) => return Ended { live: None, result: Err(error) },
    };
    let GraphStep { object, live, decided_on, step } = GraphStep::of(context, *decision);
    Ended { live, result: take_step(context, &object, &decided_on, step, permit).await }
}

/// Reports a step at Graph that has ended, on what is observed now. If that fails, it is tried again.
async fn report_ended(context: &Context, object: Arc<VppToken>, ended: Ended) -> Result<Action, Error> {
    let result = ended.result.clone()?;
    let (uid, name) = (uid(&object)?.to_owned(), NamespacedName::of(&*object));
    let reported = async {
        let observed = observe::observe(context, &object, ended.live.as_ref()).await?;
        report_result(context, object, observed, result).await
    };
    let reported = reported.await;
    if reported.is_err() {
        context.local_state.graph_tasks(|tasks, is_known| {
            if is_known(&uid) {
                tasks.put_back(name, uid, ended);
            }
        });
    }
    reported
}

/// What Graph has now decides whether a file is uploaded: it is asked with the permit in hand, so that the upload follows at
/// once.
async fn confirm_upload(context: &Context, mut decision: Box<Decision>) -> Result<Box<Decision>, Error> {
    if let Some(step @ Step::ConfirmUpload { .. }) = &decision.plan.step {
        act::act(context, &decision.object, &decision.observed.decided_on(), step, None).await?;
        decision.plan = report::plan_again(context, &decision.object, &mut decision.observed, &None);
    }
    Ok(decision)
}

/// What a step came to is remembered until a status has it.
async fn take_step(
    context: &Context,
    object: &VppToken,
    decided_on: &DecidedOn,
    step: Option<Step>,
    permit: Option<Permit>,
) -> Result<StepResult, Error> {
    let Some(step) = step else { return Ok(StepResult::default()) };
    let result = act::act(context, object, decided_on, &step, permit).await?;
    if let Some(outcome) = result.outcome.clone().filter(Outcome::must_persist) {
        context.local_state.change(uid(object)?, |state| state.unrecorded.push(outcome));
    }
    Ok(result)
}

async fn report_result(
    context: &Context,
    object: Arc<VppToken>,
    observed: Observed,
    result: StepResult,
) -> Result<Action, Error> {
    let reference = Arc::clone(&object);
    let Some(plan) = report::report(context, object, observed, result).await? else {
        return Ok(Action::await_change());
    };
    if report::want_list(context, &reference, &plan) {
        return Ok(Action::requeue(Duration::ZERO));
    }
    Ok(Action::requeue(plan.requeue_after().unsigned_abs()))
}

/// The session with the object's tenant.
fn session(context: &Context, object: &VppToken) -> Option<Arc<Session>> {
    context.registry.tenant_of(object)?.session.clone().ok()
}

#[cfg(test)]
mod tests {
    use api_server::{ApiServer, Definitions};
    use jiff::Timestamp;
    use kube::runtime::events::Reporter;
    use kube::runtime::reflector;
    use kube::{Api, Client, ResourceExt};
    use serde_json::json;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::super::caches::Caches;
    use super::super::context::LiveAccess;
    use super::super::events::Events;
    use super::super::local_state::{LocalState, ObjectState};
    use super::super::observed::UnsentIntent;
    use super::super::plan::Write;
    use super::*;
    use crate::api::{Cloud, GraphApi, PendingCreate, VppTokenStatus, VppTokenTenant};
    use crate::clock::{Clock, Random};
    use crate::tenant::{Priority, Timings};

    /// Kubernetes with one VppToken, for which a finalizer is due.
    struct World {
        kubernetes: ApiServer,
        tokens: Api<VppToken>,
        context: Arc<Context>,
        /// As the cache has it.
        cached: Arc<VppToken>,
    }

    impl World {
        async fn new() -> Self {
            let definitions = crate::api::crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
            let definitions = Definitions::new(definitions).unwrap();
            let kubernetes = ApiServer::new(Arc::new(Timestamp::now), &definitions, api_server::Options::default());
            kubernetes.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "devices" } }));
            // With this policy the finalizer is due, which is reported before it is written.
            kubernetes.apply(&json!({
                "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
                "metadata": { "name": "berlin", "namespace": "devices" },
                "spec": {
                    "tokenSecretRef": { "name": "berlin" }, "appleId": "vpp@contoso.example",
                    "deletionPolicy": "Delete",
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
                live_access: LiveAccess::default(),
                registry: Arc::default(),
                tenant_wanted: Arc::default(),
                local_state: LocalState::default(),
                timings: Timings::default(),
                events: Events::new(client, Reporter { controller: "test".into(), instance: None }),
                trigger: Arc::new(|_| {}),
                graph_tasks: TaskTracker::new(),
                ended: CancellationToken::new(),
            });
            context.local_state.apply_listed(&cached);
            Self { kubernetes, tokens, context, cached }
        }

        /// The object changes, and the cache does not show it.
        fn change(&self) {
            let change = json!({ "metadata": { "labels": { "a": "b" } } });
            self.kubernetes.merge("VppToken", "devices", "berlin", &change);
        }

        async fn reconcile(&self) -> Action {
            reconcile(Arc::clone(&self.cached), Arc::clone(&self.context)).await.unwrap()
        }

        /// Reports a step that had this outcome, on the object that the cache has.
        async fn report(&self, outcome: Outcome) -> Option<Plan> {
            let observed = observe::observe(&self.context, &self.cached, None).await.unwrap();
            let result = StepResult { outcome: Some(outcome), ..StepResult::default() };
            let is_remembered = |outcome: &Outcome| outcome.must_persist();
            let unrecorded = result.outcome.clone().filter(is_remembered);
            let uid = self.cached.metadata.uid.as_deref().unwrap();
            self.context.local_state.change(uid, |state| state.unrecorded.extend(unrecorded));
            report::report(&self.context, Arc::clone(&self.cached), observed, result).await.unwrap()
        }

        fn state(&self) -> ObjectState {
            self.context.local_state.object_state(self.cached.metadata.uid.as_deref().unwrap())
        }

        async fn status(&self) -> VppTokenStatus {
            self.tokens.get("berlin").await.unwrap().status.unwrap_or_default()
        }
    }

    fn pending() -> PendingCreate {
        PendingCreate {
            sha256: "digest".into(),
            since: Timestamp::UNIX_EPOCH,
            apple_id: "vpp@contoso.example".into(),
            organization_name: "Contoso".into(),
            expiration_date_time: Timestamp::UNIX_EPOCH,
            known_ids: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_status_that_conflicts_is_written_on_the_live_object_at_the_next_try() {
        let world = World::new().await;
        world.change();
        assert_eq!(world.reconcile().await, Action::requeue(Duration::ZERO));
        assert_eq!(world.tokens.get("berlin").await.unwrap().finalizers(), [""; 0]);
        world.reconcile().await;
        assert_eq!(world.tokens.get("berlin").await.unwrap().finalizers(), [crate::api::FINALIZER]);
    }

    #[tokio::test]
    async fn what_was_done_in_graph_is_recorded_though_the_object_has_changed() {
        let world = World::new().await;
        world.change();
        let at = Timestamp::UNIX_EPOCH;
        let plan = world.report(Outcome::Synced { at, uploaded: None, request: Some("now".into()) }).await.unwrap();
        assert_eq!(plan.status.last_handled_sync_request.as_deref(), Some("now"));
        assert_eq!(world.status().await.last_handled_sync_request.as_deref(), Some("now"));
        assert!(world.state().unrecorded.is_empty());
    }

    #[tokio::test]
    async fn an_intent_counts_only_on_the_status_that_it_was_decided_on() {
        for has_changed in [false, true] {
            let world = World::new().await;
            if has_changed {
                world.change();
            }
            let uid = world.cached.metadata.uid.clone().unwrap();
            act::remember_intent(&world.context, &uid, &pending(), false);
            let tenant = VppTokenTenant { cloud: Cloud::Global, tenant_id: "tenant".into(), api: GraphApi::V1 };
            let plan = world.report(Outcome::IntentRecorded(pending(), tenant)).await.unwrap();
            assert_eq!(world.status().await.pending_create.is_some(), !has_changed);
            assert_eq!(world.state().attempts.unsent_intent.is_some(), !has_changed);
            if has_changed {
                let next = (plan.step, plan.requeue_after, plan.list_after);
                assert_eq!(next, (None, Some(jiff::SignedDuration::ZERO), None), "it is decided again at once");
            }
        }
    }

    #[tokio::test]
    async fn an_intent_that_the_status_may_have_already_is_looked_for_there_before_it_is_recorded_again() {
        let world = World::new().await;
        let observed = observe::observe(&world.context, &world.cached, None).await.unwrap();
        let unsent = UnsentIntent { since: Timestamp::MIN, list_after: Timestamp::MIN, is_recorded: false };
        for unsent_intent in [None, Some(unsent)] {
            let mut observed = observed.clone();
            observed.attempts.unsent_intent = unsent_intent.clone();
            let plan = Plan { step: Some(Step::RecordIntent(pending())), ..plan::plan(&observed) };
            let decision = Decision { object: Arc::clone(&world.cached), live: None, observed, plan };
            let needed = LiveNeeds { access: true, object: unsent_intent.is_some(), ..LiveNeeds::default() };
            assert_eq!(LiveNeeds::of(&decision), needed);
        }
    }

    #[tokio::test]
    async fn before_a_deletion_nothing_is_read_that_others_have_read() {
        let world = World::new().await;
        let observed = observe::observe(&world.context, &world.cached, None).await.unwrap();
        let delete = Write::Delete { id: "token".into() };
        let sync = Write::Sync { id: "token".into(), priority: Priority::Scheduled, request: None };
        for (write, of_its_own) in [(delete, true), (sync, false)] {
            let plan = Plan { step: Some(Step::Write(write)), ..plan::plan(&observed) };
            let decision = Decision { object: Arc::clone(&world.cached), live: None, observed: observed.clone(), plan };
            let needed = LiveNeeds::of(&decision);
            assert!(needed.access && needed.object);
            assert_eq!(needed.access_of_its_own, of_its_own);
        }
    }

    #[tokio::test]
    async fn an_intent_whose_write_was_not_answered_counts_from_when_it_is_seen() {
        let world = World::new().await;
        let uid = world.cached.metadata.uid.clone().unwrap();
        act::remember_intent(&world.context, &uid, &pending(), false);
        let unsent = || world.state().attempts.unsent_intent.unwrap();
        let before = unsent();
        observe::observe(&world.context, &world.cached, None).await.unwrap();
        assert_eq!(unsent(), before, "it is not there");
        // Its write had its effect.
        let mut shown = VppToken::clone(&world.cached);
        shown.status.get_or_insert_default().pending_create = Some(Box::new(pending()));
        let observed = observe::observe(&world.context, &shown, None).await.unwrap();
        let after = unsent();
        assert!(after.is_recorded && after.list_after > before.list_after);
        assert_eq!(observed.attempts.unsent_intent, Some(after.clone()));
        observe::observe(&world.context, &shown, None).await.unwrap();
        assert_eq!(unsent(), after, "from when it was first seen");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_an_object_that_was_deleted_meanwhile() {
        let world = World::new().await;
        world.kubernetes.delete("VppToken", "devices", "berlin");
        let at = Timestamp::UNIX_EPOCH;
        assert!(world.report(Outcome::Synced { at, uploaded: None, request: None }).await.is_none());
        assert!(!world.context.local_state.is_known(world.cached.metadata.uid.as_deref().unwrap()));
    }

    #[tokio::test]
    async fn a_finalizer_for_an_object_that_was_deleted_meanwhile_is_no_failure() {
        let world = World::new().await;
        let observed = observe::observe(&world.context, &world.cached, None).await.unwrap();
        let decided_on = observed.decided_on();
        let add = || act::act(&world.context, &world.cached, &decided_on, &Step::AddFinalizer, None);
        assert!(add().await.unwrap().object_changed);
        assert!(add().await.is_err(), "the object has changed");
        world.kubernetes.merge("VppToken", "devices", "berlin", &json!({ "metadata": { "finalizers": [] } }));
        world.kubernetes.delete("VppToken", "devices", "berlin");
        assert!(add().await.unwrap().object_changed);
    }
}
