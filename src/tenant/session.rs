//! A tenant's session: lists its tokens once per poll, and sends the writes of its VppTokens through the budget.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::{Budget, Budgets, Priority, Sent};
use super::clock;
use super::snapshot::{Field, Snapshot};
use super::{Merged, Timings};
use crate::graph::{Credential, Entity, ErrorKind, GraphClient, GraphError, NewToken, TokenPatch};

/// While a sync runs, lists come after 2, 4, 8, … seconds, but never further apart than this.
const SLOWEST_WHILE_SYNCING: Duration = Duration::from_secs(30);
/// A sync that runs longer than this is stuck.
pub const LONGEST_SYNC: SignedDuration = SignedDuration::from_hours(1);
/// A list that failed is tried again after 1, 2, 4, … seconds, but never later than this.
const SLOWEST_RETRY: Duration = Duration::from_secs(60);
/// Microsoft: without `Retry-After`, wait 3 s, doubling to 180 s.
const THROTTLED_WAIT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(180));

/// What of a tenant object a session goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// How often to list.
    pub poll_interval: Duration,
    /// The times that the rules speak of.
    pub timings: Timings,
}

/// Why the tenant can't be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Since when.
    pub since: Timestamp,
    /// The last failure.
    pub error: GraphError,
}

/// What a reconcile sees of a session.
#[derive(Clone, Debug)]
pub struct TenantView {
    /// The tokens.
    pub snapshot: Arc<Snapshot>,
    /// Why they can't be listed now.
    pub problem: Option<Problem>,
    /// How often they are listed.
    pub poll_interval: SignedDuration,
    /// Since when there is this session.
    pub opened: Timestamp,
    /// Until when nothing is sent, because Graph asked to wait.
    pub paused_until: Option<Timestamp>,
}

/// Something that reconciles may wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Tokens that are new, changed or gone.
    pub ids: BTreeSet<String>,
    /// A problem came, went, or became another one: that concerns every VppToken of the tenant.
    pub problem: bool,
}

/// Is told after every list.
pub type OnChange = Box<dyn Fn(Change) + Send + Sync>;

struct State {
    snapshot: Arc<Snapshot>,
    problem: Option<Problem>,
    wanted_after: Option<Timestamp>,
    next_regular: Option<Instant>,
    not_before: Option<Instant>,
    failures: u32,
    throttled: u32,
    syncing_lists: u32,
    budget: Arc<Budget>,
    settings: SessionSettings,
}

/// A live session with one tenant.
pub struct Session {
    client: GraphClient,
    state: Mutex<State>,
    poke: Notify,
    opened: Timestamp,
    on_change: OnChange,
    budgets: Arc<Budgets>,
    budget_key: (String, String, String),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Session {
    /// A session that has not listed yet; [`Session::run`] is its life. `budget_key` names the app registration (Graph
    /// host, tenant, client) whose budget is shared once its credentials were accepted.
    pub fn new(
        client: GraphClient,
        settings: SessionSettings,
        budgets: Arc<Budgets>,
        budget_key: (String, String, String),
        on_change: OnChange,
    ) -> Self {
        let state = State {
            snapshot: Arc::default(),
            problem: None,
            wanted_after: None,
            next_regular: None,
            not_before: None,
            failures: 0,
            throttled: 0,
            syncing_lists: 0,
            budget: Arc::default(),
            settings,
        };
        Self {
            client,
            state: Mutex::new(state),
            poke: Notify::new(),
            opened: clock::now(),
            on_change,
            budgets,
            budget_key,
        }
    }

    /// What a reconcile sees.
    pub fn view(&self) -> TenantView {
        let state = self.state();
        TenantView {
            snapshot: Arc::clone(&state.snapshot),
            problem: state.problem.clone(),
            poll_interval: SignedDuration::try_from(state.settings.poll_interval).unwrap_or(SignedDuration::MAX),
            opened: self.opened,
            paused_until: state.budget.paused_until(),
        }
    }

    /// Goes by other settings from now on.
    pub fn set_settings(&self, settings: SessionSettings) {
        let mut state = self.state();
        if state.settings != settings {
            state.settings = settings;
            state.next_regular = None;
            drop(state);
            self.poke.notify_one();
        }
    }

    /// Uses another credential from now on, and tries it at once.
    pub fn set_credential(&self, credential: Credential) {
        self.client.set_credential(credential);
        let mut state = self.state();
        state.not_before = None;
        state.next_regular = None;
        drop(state);
        self.poke.notify_one();
    }

    /// Asks for a list that begins after a time. False when there has been one.
    pub fn want_list_after(&self, time: Timestamp) -> bool {
        let mut state = self.state();
        if state.snapshot.last_list().is_some_and(|began| began > time) {
            return false;
        }
        state.wanted_after = Some(state.wanted_after.map_or(time, |already| already.max(time)));
        drop(state);
        self.poke.notify_one();
        true
    }

    /// Lists for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let poked = self.poke.notified();
            match self.next_list() {
                at if at <= Instant::now() => {
                    let change = self.list().await;
                    (self.on_change)(change);
                }
                at => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = poked => {}
                    }
                }
            }
        }
    }

    fn next_list(&self) -> Instant {
        let now = Instant::now();
        let state = self.state();
        let wanted = match state.wanted_after {
            Some(time) if state.snapshot.last_list().is_none_or(|began| began <= time) => Some(now),
            _ => None,
        };
        let due = wanted.or(state.next_regular).unwrap_or(now);
        let paused = state.budget.paused().map(|wait| now + wait);
        due.max(state.not_before.unwrap_or(due)).max(paused.unwrap_or(due))
    }

    async fn list(&self) -> Change {
        let started = Instant::now();
        let began = clock::now();
        match self.client.list().await {
            Ok(entities) => {
                let (merged, problem) = self.merge(began, entities, started);
                let mut ids = merged.changed;
                for id in merged.doubtful {
                    if self.confirm(&id).await.is_ok() {
                        ids.insert(id);
                    }
                }
                Change { ids, problem }
            }
            Err(error) => Change { ids: BTreeSet::new(), problem: self.failed(error, started) },
        }
    }

    fn merge(&self, began: Timestamp, entities: Vec<Entity>, started: Instant) -> (Merged, bool) {
        let mut state = self.state();
        let settling = state.settings.timings.settling;
        let merged = Arc::make_mut(&mut state.snapshot).merge(began, clock::now(), entities, settling);
        if state.failures > 0 || state.next_regular.is_none() {
            let (graph, tenant_id, client_id) = &self.budget_key;
            state.budget = self.budgets.of(graph, tenant_id, client_id);
        }
        state.failures = 0;
        state.throttled = 0;
        state.not_before = None;
        if state.wanted_after.is_some_and(|time| began > time) {
            state.wanted_after = None;
        }
        let mut wait = state.settings.poll_interval;
        // One that runs for longer is stuck: it is no reason to hurry.
        let an_hour_ago = began.saturating_sub(LONGEST_SYNC).unwrap_or(Timestamp::MIN);
        if state.snapshot.is_syncing_since(an_hour_ago) {
            state.syncing_lists += 1;
            wait = wait.min(doubling(Duration::from_secs(1), state.syncing_lists, SLOWEST_WHILE_SYNCING));
        } else {
            state.syncing_lists = 0;
        }
        state.next_regular = Some(started + wait);
        (merged, state.problem.take().is_some())
    }

    fn failed(&self, error: GraphError, started: Instant) -> bool {
        tracing::warn!(%error, "the tenant's tokens can't be listed");
        if matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Unauthorized) {
            self.client.forget_access_token();
        }
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        self.slow_down(&mut state, &error);
        let own = doubling(Duration::from_millis(500), state.failures, SLOWEST_RETRY);
        let wait = own.max(error.retry_after.unwrap_or_default());
        state.not_before = Some(Instant::now() + wait);
        let poll_interval = state.settings.poll_interval;
        state.next_regular.get_or_insert(started + poll_interval);
        // A failed list is still wanted: as soon as it may be tried again.
        state.wanted_after = Some(
            state.wanted_after.unwrap_or(Timestamp::MIN).max(state.snapshot.last_list().unwrap_or(Timestamp::MIN)),
        );
        let is_same =
            |before: ErrorKind| before == error.kind || before.is_about_access() && error.kind.is_about_access();
        let before = state.problem.as_ref().filter(|problem| is_same(problem.error.kind));
        let since = before.map_or_else(clock::now, |problem| problem.since);
        let is_new = before
            .is_none_or(|problem| (&problem.error.code, &problem.error.sentence) != (&error.code, &error.sentence));
        state.problem = Some(Problem { since, error });
        is_new
    }

    /// Asks for a token that lists lack: the snapshot then has it, or knows that it is gone.
    ///
    /// # Errors
    /// When the request fails for another reason than that the token is not there.
    pub async fn confirm(&self, id: &str) -> Result<(), GraphError> {
        let began = clock::now();
        match self.client.get(id).await {
            Ok(entity) => Arc::make_mut(&mut self.state().snapshot).found(entity, began, clock::now()),
            Err(error) if error.kind == ErrorKind::NotFound => {
                Arc::make_mut(&mut self.state().snapshot).missing(id, began, clock::now());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits for the leave to send one write. What the write rests on is to be read after that.
    pub async fn leave(&self, priority: Priority) -> Sent {
        let budget = Arc::clone(&self.state().budget);
        budget.acquire(priority).await
    }

    /// Creates a token. Not idempotent.
    ///
    /// # Errors
    /// When the request fails; see [`GraphError::maybe_executed`].
    pub async fn create(
        &self,
        mut leave: Sent,
        token: &NewToken,
        written: &[(Field, String)],
    ) -> Result<Entity, GraphError> {
        leave.use_up();
        let outcome = self.noted(self.client.create(token).await);
        if let Ok(entity) = &outcome {
            Arc::make_mut(&mut self.state().snapshot).created(entity.clone(), written, clock::now());
        }
        outcome
    }

    /// Changes a token.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn update(
        &self,
        mut leave: Sent,
        id: &str,
        patch: &TokenPatch,
        written: &[(Field, String)],
    ) -> Result<(), GraphError> {
        leave.use_up();
        let write = InFlight::begin(self, id);
        let outcome = self.noted(self.client.update(id, patch).await);
        self.write_ended(write, outcome, written)
    }

    /// Starts a sync.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn sync(&self, mut leave: Sent, id: &str) -> Result<(), GraphError> {
        leave.use_up();
        let write = InFlight::begin(self, id);
        let outcome = self.noted(self.client.sync(id).await);
        let outcome = self.write_ended(write, outcome, &[]);
        if outcome.is_ok() {
            let mut state = self.state();
            state.syncing_lists = 1;
            let soon = Instant::now() + Duration::from_secs(2).min(state.settings.poll_interval);
            state.next_regular = Some(state.next_regular.map_or(soon, |already| already.min(soon)));
            drop(state);
            self.poke.notify_one();
        }
        outcome
    }

    /// Deletes a token.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn delete(&self, mut leave: Sent, id: &str) -> Result<(), GraphError> {
        leave.use_up();
        let write = InFlight::begin(self, id);
        let outcome = self.noted(self.client.delete(id).await);
        write.ended(None, &[]);
        if outcome.is_ok() {
            Arc::make_mut(&mut self.state().snapshot).gone(id, clock::now());
        }
        outcome
    }

    /// Graph may answer a write with the token, or with nothing: then the next list tells.
    fn write_ended(
        &self,
        write: InFlight<'_>,
        outcome: Result<Option<Entity>, GraphError>,
        written: &[(Field, String)],
    ) -> Result<(), GraphError> {
        let accepted = if outcome.is_ok() { written } else { &[] };
        write.ended(outcome.as_ref().ok().and_then(Option::as_ref), accepted);
        if matches!(outcome, Ok(None)) {
            self.want_list_after(clock::now());
        }
        outcome.map(|_| ())
    }

    /// What a write's outcome means for the next ones.
    fn noted<T>(&self, outcome: Result<T, GraphError>) -> Result<T, GraphError> {
        if let Err(error) = &outcome
            && error.kind == ErrorKind::Forbidden
        {
            // Roles are inside the access token: a permission that is granted later needs a new one.
            self.client.forget_access_token();
        }
        let mut state = self.state();
        match &outcome {
            Ok(_) => state.throttled = 0,
            Err(error) => self.slow_down(&mut state, error),
        }
        drop(state);
        outcome
    }

    /// `Retry-After` is for the whole tenant, not for the one request.
    fn slow_down(&self, state: &mut State, error: &GraphError) {
        if error.kind == ErrorKind::Throttled {
            state.throttled = state.throttled.saturating_add(1);
            let (first, most) = THROTTLED_WAIT;
            let own = doubling(first / 2, state.throttled, most);
            let wait = error.retry_after.filter(|asked| !asked.is_zero()).unwrap_or(own);
            state.budget.pause(wait);
        } else if let Some(wait) = error.retry_after {
            state.budget.pause(wait);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write on its way: lists that began meanwhile don't touch its entry, also when the write is given up half-way.
struct InFlight<'a> {
    session: &'a Session,
    id: &'a str,
    open: bool,
}

impl<'a> InFlight<'a> {
    fn begin(session: &'a Session, id: &'a str) -> Self {
        Arc::make_mut(&mut session.state().snapshot).write_begins(id);
        Self { session, id, open: true }
    }

    fn ended(mut self, answer: Option<&Entity>, written: &[(Field, String)]) {
        self.open = false;
        self.end(answer, written);
    }

    fn end(&self, answer: Option<&Entity>, written: &[(Field, String)]) {
        let mut state = self.session.state();
        Arc::make_mut(&mut state.snapshot).write_ended(self.id, answer.cloned(), written, clock::now());
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.open {
            self.end(None, &[]);
        }
    }
}

/// `first` doubled `times` times, `most` at most.
fn doubling(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times.min(20))).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_double_up_to_a_limit() {
        let most = Duration::from_secs(60);
        let waits: Vec<u64> = (1..=8).map(|n| doubling(Duration::from_millis(500), n, most).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(doubling(Duration::from_secs(1), u32::MAX, most), most);
    }
}
