//! A tenant's session: lists its tokens once per poll, and sends the writes of its VppTokens through the limiter.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, future};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::entries::Field;
use super::rate_limiter::{AppKey, WritePermit, WriteRateLimiter, WriteRateLimiters};
use super::snapshot::Snapshot;
use super::{Merged, Timings};
use crate::api::NamespacedName;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::graph::{Credential, Entity, ErrorKind, GraphClient, GraphError, TokenPatch, TokenPost};

/// While a sync runs, lists come after such delays.
const SYNCING_POLL: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
/// A sync that runs longer than this is stuck.
pub(crate) const MAX_SYNC_DURATION: SignedDuration = SignedDuration::from_hours(1);
/// Requests for single tokens at a time. With the one list and the writes that have permits, a session has 16 requests under way
/// at most.
const MAX_CONCURRENT_GETS: usize = 3;
/// After a list, the next one that only VppTokens wait for begins after so many times as long as that one took, so that creates
/// that come close together share a list.
const WANTED_LIST_PAUSE: u32 = 9;
/// But after so long at the latest.
const MAX_WANTED_LIST_PAUSE: Duration = Duration::from_secs(5);
/// A list that failed is tried again after such delays.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// The settings of a tenant object that a session uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionSettings {
    /// How often to list.
    pub poll_interval: Duration,
    /// The durations that the rules use.
    pub timings: Timings,
}

/// Why the tenant can't be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Since when.
    pub since: Timestamp,
    /// The last failure.
    pub error: GraphError,
}

/// What a reconcile sees of a session.
#[derive(Clone, Debug)]
pub(crate) struct TenantView {
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
pub(crate) struct Change {
    /// Tokens that are new, changed or deleted.
    pub ids: BTreeSet<String>,
    /// A problem began, ended, or became another one: that concerns every VppToken of the tenant.
    pub problem: bool,
}

/// Called after every list, and for tokens that were asked for after it.
pub(crate) type OnChange = Box<dyn Fn(Change) + Send + Sync>;
/// Called for a VppToken that a permit is reserved for.
pub(crate) type OnReserved = Arc<dyn Fn(NamespacedName) + Send + Sync>;

/// Whom a session notifies.
pub(crate) struct Callbacks {
    /// Of what has changed in Graph.
    pub on_change: OnChange,
    /// Of permits.
    pub on_reserved: OnReserved,
}

struct State {
    snapshot: Arc<Snapshot>,
    problem: Option<Problem>,
    wanted_after: Option<Timestamp>,
    /// Before this, no list begins only because it is wanted.
    next_wanted: Option<Instant>,
    next_regular: Option<Instant>,
    not_before: Option<Instant>,
    failures: u32,
    syncing_lists: u32,
    /// Tokens that lists lack, and that were not asked for yet.
    to_confirm: Vec<String>,
    limiter: Arc<WriteRateLimiter>,
    settings: SessionSettings,
}

/// A live session with one tenant.
pub(crate) struct Session {
    name: String,
    client: GraphClient,
    state: Mutex<State>,
    notify: Notify,
    opened: Timestamp,
    clock: Clock,
    callbacks: Callbacks,
    limiters: Arc<WriteRateLimiters>,
    app_key: AppKey,
    /// Another limiter is used now.
    limiter_changed: Notify,
    /// There are tokens to confirm.
    confirm_wanted: Notify,
    gets: Semaphore,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Session {
    /// A session that has not listed yet; [`Session::run`] runs it. Logs contain `name`. `app_key` names the app
    /// registration (Graph host, tenant, client) whose limiter is shared once its credentials were accepted.
    pub(crate) fn new(
        name: String,
        client: GraphClient,
        settings: SessionSettings,
        limiters: Arc<WriteRateLimiters>,
        app_key: AppKey,
        clock: Clock,
        callbacks: Callbacks,
    ) -> Self {
        let state = State {
            snapshot: Arc::default(),
            problem: None,
            wanted_after: None,
            next_wanted: None,
            next_regular: None,
            not_before: None,
            failures: 0,
            syncing_lists: 0,
            to_confirm: Vec::new(),
            limiter: limiters.unshared(),
            settings,
        };
        Self {
            name,
            client,
            state: Mutex::new(state),
            notify: Notify::new(),
            opened: clock.now(),
            clock,
            callbacks,
            limiters,
            app_key,
            limiter_changed: Notify::new(),
            confirm_wanted: Notify::new(),
            gets: Semaphore::new(MAX_CONCURRENT_GETS),
        }
    }

    /// Since when there is this session.
    pub(crate) fn opened(&self) -> Timestamp {
        self.opened
    }

    /// What a reconcile sees.
    pub(crate) fn view(&self) -> TenantView {
        let state = self.state();
        TenantView {
            snapshot: Arc::clone(&state.snapshot),
            problem: state.problem.clone(),
            poll_interval: SignedDuration::try_from(state.settings.poll_interval).unwrap_or(SignedDuration::MAX),
            opened: self.opened,
            paused_until: state.limiter.paused_until(),
        }
    }

    /// Uses other settings from now on.
    pub(crate) fn set_settings(&self, settings: SessionSettings) {
        let mut state = self.state();
        if state.settings != settings {
            state.settings = settings;
            state.next_regular = None;
            drop(state);
            self.notify.notify_one();
        }
    }

    /// Uses another credential from now on, and tries it at once.
    pub(crate) fn set_credential(&self, credential: Credential) {
        self.client.set_credential(credential);
        let mut state = self.state();
        state.not_before = None;
        state.next_regular = None;
        drop(state);
        self.notify.notify_one();
    }

    /// Asks for a list that begins after a time. False when there has been one.
    pub(crate) fn want_list_after(&self, time: Timestamp) -> bool {
        let mut state = self.state();
        if state.snapshot.last_list().is_some_and(|began| began > time) {
            return false;
        }
        state.wanted_after = Some(state.wanted_after.map_or(time, |already| already.max(time)));
        drop(state);
        self.notify.notify_one();
        true
    }

    /// Lists, asks for the tokens that lists lack, and reserves permits, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        future::join3(self.list_for_ever(), self.confirm_for_ever(), self.reserve_for_ever()).await;
    }

    async fn list_for_ever(&self) {
        loop {
            let notified = self.notify.notified();
            match self.next_list() {
                at if at <= Instant::now() => self.list().await,
                at => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at) => {}
                        () = notified => {}
                    }
                }
            }
        }
    }

    /// No list waits for these requests.
    async fn confirm_for_ever(&self) {
        let (mut asked, mut to_ask, mut under_way) = (FuturesUnordered::new(), BTreeSet::new(), BTreeSet::new());
        loop {
            let wanted = self.confirm_wanted.notified();
            let more = std::mem::take(&mut self.state().to_confirm);
            to_ask.extend(more.into_iter().filter(|id| !under_way.contains(id)));
            // No more than may be sent: a person's request for a token waits for one of them, not for all.
            while asked.len() < MAX_CONCURRENT_GETS
                && let Some(id) = to_ask.pop_first()
            {
                under_way.insert(id.clone());
                asked.push(async move { (self.confirm(&id).await, id) });
            }
            tokio::select! {
                biased;
                Some((outcome, id)) = asked.next() => {
                    under_way.remove(&id);
                    if outcome.is_ok() {
                        (self.callbacks.on_change)(Change { ids: BTreeSet::from([id]), problem: false });
                    }
                }
                () = wanted => {}
            }
        }
    }

    async fn reserve_for_ever(&self) {
        loop {
            let changed = self.limiter_changed.notified();
            let limiter = self.limiter();
            tokio::select! {
                biased;
                () = changed => {}
                () = limiter.run(&*self.callbacks.on_reserved) => {}
            }
        }
    }

    fn next_list(&self) -> Instant {
        let now = Instant::now();
        let state = self.state();
        let wanted = match state.wanted_after {
            Some(time) if state.snapshot.last_list().is_none_or(|began| began <= time) => {
                Some(state.next_wanted.unwrap_or(now))
            }
            _ => None,
        };
        let due = state.next_regular.map_or(now, |regular| wanted.map_or(regular, |wanted| wanted.min(regular)));
        let paused = state.limiter.paused().map(|wait| now + wait);
        due.max(state.not_before.unwrap_or(due)).max(paused.unwrap_or(due))
    }

    /// What the list tells is passed on before single tokens are asked for.
    async fn list(&self) {
        let started = Instant::now();
        let began = self.clock.now();
        let (change, to_confirm) = match self.client.list().await {
            Ok(entities) => {
                let (merged, problem) = self.merge(began, entities, started);
                (Change { ids: merged.changed, problem }, merged.to_confirm)
            }
            Err(error) => {
                let problem = self.record_list_failure(error, started);
                (Change { ids: BTreeSet::new(), problem }, Vec::new())
            }
        };
        (self.callbacks.on_change)(change);
        if !to_confirm.is_empty() {
            self.state().to_confirm.extend(to_confirm);
            self.confirm_wanted.notify_one();
        }
    }

    fn merge(&self, began: Timestamp, entities: Vec<Entity>, started: Instant) -> (Merged, bool) {
        let mut state = self.state();
        let settling = state.settings.timings.settling;
        let merged = Arc::make_mut(&mut state.snapshot).merge(began, self.clock.now(), entities, settling);
        // Its credentials were accepted.
        let limiter = self.limiters.of(&self.app_key);
        if !Arc::ptr_eq(&limiter, &state.limiter) {
            state.limiter = limiter;
            self.limiter_changed.notify_one();
        }
        state.failures = 0;
        state.limiter.record_success(started);
        state.not_before = None;
        let mut wait = state.settings.poll_interval;
        // A sync that runs for longer is stuck, and no reason to list more often.
        let an_hour_ago = began.saturating_sub(MAX_SYNC_DURATION).unwrap_or(Timestamp::MIN);
        if state.snapshot.is_syncing_since(an_hour_ago) {
            state.syncing_lists += 1;
            wait = wait.min(SYNCING_POLL.delay(state.syncing_lists));
        } else {
            state.syncing_lists = 0;
        }
        state.next_regular = Some(started + wait);
        state.next_wanted = Some(Instant::now() + (started.elapsed() * WANTED_LIST_PAUSE).min(MAX_WANTED_LIST_PAUSE));
        (merged, state.problem.take().is_some())
    }

    fn record_list_failure(&self, error: GraphError, started: Instant) -> bool {
        if matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Unauthorized) {
            self.client.forget_access_token();
        }
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        self.slow_down(&state, &error, started);
        let wait = RETRY.delay(state.failures).max(error.retry_after.unwrap_or_default());
        state.not_before = Some(Instant::now() + wait);
        // A failed list is still wanted: as soon as it may be tried again.
        state.wanted_after = Some(
            state.wanted_after.unwrap_or(Timestamp::MIN).max(state.snapshot.last_list().unwrap_or(Timestamp::MIN)),
        );
        let is_same =
            |before: ErrorKind| before == error.kind || before.is_about_access() && error.kind.is_about_access();
        let before = state.problem.take().filter(|problem| is_same(problem.error.kind));
        let is_new = before.as_ref().is_none_or(|before| is_new_problem(&before.error, &error));
        if is_new {
            tracing::warn!(tenant = self.name, %error, "the tenant's tokens can't be listed; it is tried again");
        } else {
            tracing::debug!(tenant = self.name, %error, "the tenant's tokens still can't be listed");
        }
        state.problem = Some(match before {
            Some(before) if !is_new => before,
            before => Problem { since: before.map_or_else(|| self.clock.now(), |before| before.since), error },
        });
        is_new
    }

    /// Asks for a token by its id: the snapshot then has it, or knows that it was missing. Nothing is sent while Graph asked to
    /// wait.
    ///
    /// # Errors
    /// When the request fails for another reason than that the token is not there.
    pub(crate) async fn confirm(&self, id: &str) -> Result<(), GraphError> {
        let _get = self.gets.acquire().await;
        self.get(id).await
    }

    /// The same before a write, whose permit is there: the permits bound these requests.
    ///
    /// # Errors
    /// As [`Session::confirm`].
    pub(crate) async fn confirm_before_write(&self, id: &str) -> Result<(), GraphError> {
        self.get(id).await
    }

    async fn get(&self, id: &str) -> Result<(), GraphError> {
        if let Some(wait) = self.state().limiter.paused() {
            let error = GraphError::new(ErrorKind::Throttled, "Graph asked to wait");
            return Err(GraphError { retry_after: Some(wait), ..error });
        }
        let (started, began) = (Instant::now(), self.clock.now());
        match self.record_result(self.client.get(id).await, started) {
            Ok(entity) => Arc::make_mut(&mut self.state().snapshot).record_found(entity, began, self.clock.now()),
            Err(error) if error.kind == ErrorKind::NotFound => {
                let mut state = self.state();
                let vanished_after = state.settings.timings.vanished_after;
                let snapshot = Arc::make_mut(&mut state.snapshot);
                snapshot.record_missing(id, began, self.clock.now(), vanished_after);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The limiter of its writes.
    pub(crate) fn limiter(&self) -> Arc<WriteRateLimiter> {
        Arc::clone(&self.state().limiter)
    }

    /// Creates a token. Not idempotent.
    ///
    /// # Errors
    /// When the request fails; see [`GraphError::maybe_executed`].
    pub(crate) async fn create(
        &self,
        mut permit: WritePermit,
        token: &TokenPost,
        written: &[(Field, String)],
    ) -> Result<Entity, GraphError> {
        permit.mark_sent();
        let started = Instant::now();
        let outcome = self.record_result(self.client.create(token).await, started);
        if let Ok(entity) = &outcome {
            Arc::make_mut(&mut self.state().snapshot).record_created(entity.clone(), written, self.clock.now());
        }
        outcome
    }

    /// Changes a token.
    ///
    /// # Errors
    /// When the request fails.
    pub(crate) async fn update(
        &self,
        mut permit: WritePermit,
        id: &str,
        patch: &TokenPatch,
        written: &[(Field, String)],
    ) -> Result<(), GraphError> {
        permit.mark_sent();
        let started = Instant::now();
        let write = InFlight::begin(self, id);
        let outcome = self.record_result(self.client.update(id, patch).await, started);
        self.finish_write(write, outcome, written)
    }

    /// Starts a sync.
    ///
    /// # Errors
    /// When the request fails.
    pub(crate) async fn sync(&self, mut permit: WritePermit, id: &str) -> Result<(), GraphError> {
        permit.mark_sent();
        let started = Instant::now();
        let write = InFlight::begin(self, id);
        let outcome = self.record_result(self.client.sync(id).await, started);
        let outcome = self.finish_write(write, outcome, &[]);
        if outcome.is_ok() {
            let mut state = self.state();
            state.syncing_lists = 1;
            let soon = Instant::now() + Duration::from_secs(2).min(state.settings.poll_interval);
            state.next_regular = Some(state.next_regular.map_or(soon, |already| already.min(soon)));
            drop(state);
            self.notify.notify_one();
        }
        outcome
    }

    /// Deletes a token.
    ///
    /// # Errors
    /// When the request fails.
    pub(crate) async fn delete(&self, mut permit: WritePermit, id: &str) -> Result<(), GraphError> {
        permit.mark_sent();
        let started = Instant::now();
        let write = InFlight::begin(self, id);
        let outcome = self.record_result(self.client.delete(id).await, started);
        write.ended(None, &[]);
        if outcome.is_ok() {
            Arc::make_mut(&mut self.state().snapshot).record_deleted(id, self.clock.now());
        }
        outcome
    }

    /// Graph may answer a write with the token, or with nothing: then the next list shows it.
    fn finish_write(
        &self,
        write: InFlight<'_>,
        outcome: Result<Option<Entity>, GraphError>,
        written: &[(Field, String)],
    ) -> Result<(), GraphError> {
        let accepted = if outcome.is_ok() { written } else { &[] };
        write.ended(outcome.as_ref().ok().and_then(Option::as_ref), accepted);
        if matches!(outcome, Ok(None)) {
            self.want_list_after(self.clock.now());
        }
        outcome.map(|_| ())
    }

    /// Applies the outcome of a request that was sent at `started` to the limiter and the access token.
    fn record_result<T>(&self, outcome: Result<T, GraphError>, started: Instant) -> Result<T, GraphError> {
        if let Err(error) = &outcome
            && error.kind == ErrorKind::Forbidden
        {
            // The access token contains the roles: a permission that is granted later needs a new one.
            self.client.forget_access_token();
        }
        let state = self.state();
        match &outcome {
            Ok(_) => state.limiter.record_success(started),
            Err(error) => self.slow_down(&state, error, started),
        }
        drop(state);
        outcome
    }

    /// `Retry-After` is for the whole tenant, not for the one request.
    fn slow_down(&self, state: &State, error: &GraphError, started: Instant) {
        if error.kind == ErrorKind::Throttled {
            state.limiter.record_throttled(started, error.retry_after, self.clock.now());
        } else if let Some(wait) = error.retry_after {
            state.limiter.pause(wait, self.clock.now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write in flight: lists that began meanwhile don't touch its entry, also when the write is cancelled.
struct InFlight<'a> {
    session: &'a Session,
    id: &'a str,
    open: bool,
}

impl<'a> InFlight<'a> {
    fn begin(session: &'a Session, id: &'a str) -> Self {
        Arc::make_mut(&mut session.state().snapshot).record_write_started(id);
        Self { session, id, open: true }
    }

    fn ended(mut self, answer: Option<&Entity>, written: &[(Field, String)]) {
        self.open = false;
        self.end(answer, written);
    }

    fn end(&self, answer: Option<&Entity>, written: &[(Field, String)]) {
        let mut state = self.session.state();
        let now = self.session.clock.now();
        Arc::make_mut(&mut state.snapshot).record_write_ended(self.id, answer.cloned(), written, now);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.open {
            self.end(None, &[]);
        }
    }
}

/// Whether a failure differs from the one before for a person. Entra's sentence for a code may contain the time.
fn is_new_problem(before: &GraphError, now: &GraphError) -> bool {
    let is_same_refusal = before.kind == ErrorKind::Credentials && before.code.is_some();
    before.code != now.code || (before.sentence != now.sentence && !is_same_refusal)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::OnceLock;

    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderValue};
    use secrecy::SecretString;
    use serde_json::json;

    use super::super::write_queue::{Limits, Priority};
    use super::*;
    use crate::api::{Cloud, EntraTenant, GraphApi};
    use crate::clock::Random;
    use crate::graph::{AppRegistration, Endpoints, Received, Transport};

    /// A status and `Retry-After`.
    type Answer = (u16, Option<&'static str>);

    /// Graph, scripted: the answers to come, and the paths that were asked for. Signing in succeeds.
    /// When there is no answer left, a list is empty and anything else is 404.
    #[derive(Clone, Default)]
    struct Graph {
        answers: Arc<Mutex<VecDeque<Answer>>>,
        requests: Arc<Mutex<Vec<String>>>,
        /// The tokens that lists have.
        tokens: Arc<Mutex<Vec<serde_json::Value>>>,
        /// Lists, and requests for single tokens, take so much longer.
        delays: Arc<Mutex<(Duration, Duration)>>,
    }

    impl Graph {
        fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
            self.answers.lock().unwrap().extend(answers);
        }

        fn answer(&self, request: &reqwest::Request) -> Received {
            let mut headers = HeaderMap::new();
            let path = request.url().path().to_owned();
            if path.ends_with("/oauth2/v2.0/token") {
                self.requests.lock().unwrap().push("signs in".into());
                let body = br#"{"access_token":"access","expires_in":3599}"#.to_vec();
                return Received { status: StatusCode::OK, headers, body: Ok(body) };
            }
            let is_list = path.ends_with("vppTokens");
            let missing = if is_list { 200 } else { 404 };
            self.requests.lock().unwrap().push(format!("{} {path}", request.method()));
            let (status, wait) = self.answers.lock().unwrap().pop_front().unwrap_or((missing, None));
            if let Some(wait) = wait {
                headers.insert("Retry-After", HeaderValue::from_static(wait));
            }
            let body = if status == 200 {
                json!({ "id": "a", "value": *self.tokens.lock().unwrap() }).to_string()
            } else {
                String::new()
            };
            Received { status: StatusCode::from_u16(status).unwrap(), headers, body: Ok(body.into_bytes()) }
        }

        fn asked(&self, what: &str) -> usize {
            self.requests.lock().unwrap().iter().filter(|request| request.contains(what)).count()
        }
    }

    fn session(graph: &Graph) -> Session {
        let callbacks = Callbacks { on_change: Box::new(|_| {}), on_reserved: Arc::new(|_| {}) };
        session_with(graph, Arc::default(), callbacks)
    }

    /// Each request takes 20 ms.
    fn session_with(graph: &Graph, limiters: Arc<WriteRateLimiters>, callbacks: Callbacks) -> Session {
        static BUILDER: OnceLock<reqwest::Client> = OnceLock::new();
        let builder = BUILDER.get_or_init(|| {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            reqwest::Client::new()
        });
        let answering = graph.clone();
        let transport = Transport::in_process(
            builder.clone(),
            Arc::new(move |request| {
                let graph = answering.clone();
                Box::pin(async move {
                    let (of_lists, of_gets) = *graph.delays.lock().unwrap();
                    let longer = match request.url().path() {
                        path if path.ends_with("vppTokens") => of_lists,
                        path if path.contains("vppTokens/") && request.method() == "GET" => of_gets,
                        _ => Duration::ZERO,
                    };
                    tokio::time::sleep(Duration::from_millis(20) + longer).await;
                    Ok(graph.answer(&request))
                })
            }),
        );
        let app = AppRegistration {
            endpoints: Endpoints { login: "https://login.example".into(), graph: "https://graph.example".into() },
            api: GraphApi::V1,
            tenant_id: "tenant".into(),
            client_id: "client".into(),
        };
        let credential = Credential::ClientSecret(SecretString::from("secret"));
        let client = GraphClient::new(app, credential, transport, Random::seeded(1), Arc::new(|_, _, _| {}));
        let settings = SessionSettings { poll_interval: Duration::from_secs(300), timings: Timings::default() };
        let tenant = EntraTenant::new(Cloud::Global, "tenant");
        let app_key = AppKey::new("https://graph.example", tenant, "client");
        let clock = Clock::system();
        Session::new("test".into(), client, settings, limiters, app_key, clock, callbacks)
    }

    /// Sends so many syncs at once, and returns for how long nothing is sent after that.
    async fn sync_at_once(session: &Session, times: usize) -> Duration {
        let limiter = session.limiter();
        tokio::time::sleep(limiter.paused().unwrap_or_default()).await;
        let mut permits = Vec::new();
        for n in 0..times {
            let object = NamespacedName::new("devices", "berlin");
            permits.push(limiter.request(&n.to_string(), &object, Priority::Interactive).unwrap());
        }
        let sent = permits.into_iter().map(|permit| session.sync(permit, "a"));
        futures::future::join_all(sent).await;
        let paused = session.state().limiter.paused();
        paused.unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_requests_of_one_burst_double_the_wait_once() {
        let graph = Graph::default();
        let session = session(&graph);
        for seconds in [3, 6, 12] {
            graph.answers([(429, None); 7]);
            assert_eq!(sync_at_once(&session, 7).await.as_secs_f64().round() as u64, seconds);
        }
        graph.answers([(200, None)]);
        assert_eq!(sync_at_once(&session, 1).await, Duration::ZERO);
        graph.answers([(200, None), (429, None), (429, None), (200, None)]);
        assert_eq!(sync_at_once(&session, 4).await.as_secs_f64().round() as u64, 3, "a success ends the doubling");
        graph.answers([(429, None)]);
        let waited = sync_at_once(&session, 1).await.as_secs_f64().round() as u64;
        assert_eq!(waited, 6, "a success of the same burst does not");
    }

    #[tokio::test(start_paused = true)]
    async fn asking_for_one_token_honours_a_pause_and_begins_one() {
        let graph = Graph::default();
        let session = session(&graph);
        graph.answers([(429, Some("30"))]);
        assert_eq!(session.confirm("a").await.unwrap_err().kind, ErrorKind::Throttled);
        assert_eq!(session.state().limiter.paused().map(|wait| wait.as_secs_f64().round() as u64), Some(30));
        let until = session.view().paused_until.unwrap().duration_since(session.clock.now());
        assert_eq!(until.as_secs_f64().round() as u64, 30);
        let error = session.confirm("a").await.unwrap_err();
        assert_eq!((error.kind, graph.asked("GET")), (ErrorKind::Throttled, 1), "nothing is sent during the pause");
        assert!(error.retry_after.is_some_and(|wait| wait > Duration::from_secs(29)), "{error:?}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(session.confirm("a").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_refusal_in_other_words_is_the_same_problem() {
        let graph = Graph::default();
        let session = session(&graph);
        let refused = |sentence: &str, code: &str| GraphError {
            code: Some(code.into()),
            ..GraphError::new(ErrorKind::Credentials, sentence)
        };
        let first = refused("the time is 10:00", "AADSTS1");
        assert!(session.record_list_failure(first.clone(), Instant::now()));
        assert!(!session.record_list_failure(refused("the time is 10:01", "AADSTS1"), Instant::now()));
        assert_eq!(session.view().problem.unwrap().error, first, "what is said stays the same");
        let other = refused("the time is 10:02", "AADSTS2");
        assert!(session.record_list_failure(other.clone(), Instant::now()));
        assert_eq!(session.view().problem.unwrap().error, other);
    }

    #[test]
    fn a_problem_is_new_when_a_person_would_read_something_new() {
        let error = |kind, code: Option<&str>, sentence: &str| GraphError {
            code: code.map(str::to_owned),
            ..GraphError::new(kind, sentence)
        };
        use ErrorKind::{Credentials, Unavailable};
        for (before, now, is_new) in [
            (error(Unavailable, None, "a"), error(Unavailable, None, "a"), false),
            (error(Unavailable, None, "a"), error(Unavailable, None, "b"), true),
            (error(Unavailable, Some("1"), "a"), error(Unavailable, Some("2"), "a"), true),
            (error(Unavailable, Some("1"), "a"), error(Unavailable, Some("1"), "b"), true),
            (error(Credentials, Some("1"), "a"), error(Credentials, Some("1"), "b"), false),
            (error(Credentials, None, "a"), error(Credentials, None, "b"), true),
        ] {
            assert_eq!(is_new_problem(&before, &now), is_new, "{before:?} {now:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_listed_while_graph_asked_to_wait() {
        let graph = Graph::default();
        let session = Arc::new(session(&graph));
        graph.answers([(429, Some("30"))]);
        let running = tokio::spawn(Arc::clone(&session).run());
        tokio::time::sleep(Duration::from_secs(29)).await;
        session.want_list_after(session.clock.now());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(graph.asked("GET"), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(graph.asked("GET"), 2);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_problem_of_one_kind_lasts_its_beginning_stays() {
        let session = session(&Graph::default());
        let fail = |kind| session.record_list_failure(GraphError::new(kind, format!("{kind:?}")), Instant::now());
        let since = || session.view().problem.unwrap().since;
        assert!(fail(ErrorKind::Credentials));
        let began = since();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(fail(ErrorKind::Forbidden), "another sentence");
        assert_eq!(since(), began, "both are about access");
        assert!(fail(ErrorKind::Unavailable));
        assert_ne!(since(), began);
        let began = since();
        assert!(!fail(ErrorKind::Unavailable));
        assert_eq!(since(), began);
        assert!(fail(ErrorKind::Credentials));
        assert_ne!(since(), began);
    }

    fn permit(session: &Session) -> WritePermit {
        session.limiter().request("uid", &NamespacedName::new("devices", "berlin"), Priority::Interactive).unwrap()
    }

    /// When lists were asked for, in whole seconds since now, until so many have been.
    async fn lists(graph: &Graph, count: usize) -> Vec<u64> {
        let (began, mut seen, mut times) = (Instant::now(), graph.asked("GET"), Vec::new());
        while times.len() < count {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(began.elapsed() < Duration::from_secs(3600), "{times:?}");
            let asked = graph.asked("GET");
            times.extend((seen..asked).map(|_| began.elapsed().as_secs_f64().round() as u64));
            seen = asked;
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_sync_runs_lists_come_more_often_and_after_our_own_soon() {
        let graph = Graph::default();
        *graph.tokens.lock().unwrap() = vec![json!({ "id": "a", "lastSyncStatus": "inProgress" })];
        let session = Arc::new(session(&graph));
        let running = tokio::spawn(Arc::clone(&session).run());
        assert_eq!(lists(&graph, 6).await, [0, 2, 6, 14, 30, 60]);
        *graph.tokens.lock().unwrap() = vec![json!({ "id": "a", "lastSyncStatus": "completed" })];
        assert_eq!(lists(&graph, 2).await, [30, 330]);
        graph.answers([(200, None)]);
        session.sync(permit(&session), "a").await.unwrap();
        assert_eq!(lists(&graph, 2).await, [2, 302]);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn lists_that_are_wanted_one_after_the_other_are_one_list() {
        let graph = Graph::default();
        let session = Arc::new(session(&graph));
        let running = tokio::spawn(Arc::clone(&session).run());
        tokio::time::sleep(Duration::from_secs(10)).await;
        let before = graph.asked("GET");
        session.want_list_after(session.clock.now());
        tokio::time::sleep(Duration::from_millis(21)).await;
        assert_eq!(graph.asked("GET"), before + 1, "one is not made to wait");
        // A list takes 20 ms.
        for _ in 0..100 {
            session.want_list_after(session.clock.now());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = graph.asked("GET") - before - 1;
        assert!((4..=6).contains(&asked), "{asked} lists in a second");
        let last = session.clock.now();
        tokio::time::sleep(Duration::from_millis(221)).await;
        assert!(session.view().snapshot.last_list() >= Some(last - SignedDuration::from_millis(10)));
        // Lists that take long do not make anybody wait for as long again.
        graph.delays.lock().unwrap().0 = Duration::from_secs(10);
        session.want_list_after(session.clock.now());
        tokio::time::sleep(Duration::from_secs(11)).await;
        let before = graph.asked("GET");
        session.want_list_after(session.clock.now());
        tokio::time::sleep(Duration::from_millis(14_500)).await;
        assert_eq!(graph.asked("GET"), before + 1);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn no_list_waits_for_the_answer_about_a_token_that_lists_lack() {
        let graph = Graph::default();
        *graph.tokens.lock().unwrap() = vec![json!({ "id": "a" })];
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        let on_change: OnChange = Box::new(move |change| tells.lock().unwrap().push(change));
        let session = session_with(&graph, Arc::default(), Callbacks { on_change, on_reserved: Arc::new(|_| {}) });
        session.set_settings(SessionSettings { poll_interval: Duration::from_secs(1), timings: Timings::default() });
        let session = Arc::new(session);
        let running = tokio::spawn(Arc::clone(&session).run());
        tokio::time::sleep(Duration::from_millis(500)).await;
        graph.tokens.lock().unwrap().clear();
        graph.delays.lock().unwrap().1 = Duration::from_secs(10);
        // The second list without it comes after 2 s.
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!((graph.asked("vppTokens/a"), graph.asked("GET")), (0, 9), "it is being asked for");
        assert!(session.view().snapshot.missing_since("a").is_none());
        told.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(graph.asked("vppTokens/a"), 1, "and not a second time meanwhile");
        assert!(session.view().snapshot.missing_since("a").is_some());
        let of_it = told.lock().unwrap().iter().filter(|change: &&Change| change.ids.contains("a")).count();
        assert_eq!(of_it, 1);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn another_interval_holds_at_once() {
        let graph = Graph::default();
        let session = Arc::new(session(&graph));
        let running = tokio::spawn(Arc::clone(&session).run());
        assert_eq!(lists(&graph, 2).await, [0, 300]);
        let settings = SessionSettings { poll_interval: Duration::from_secs(60), timings: Timings::default() };
        session.set_settings(settings.clone());
        session.set_settings(settings);
        assert_eq!(lists(&graph, 3).await, [0, 60, 120]);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_began_at_the_wanted_time_is_not_later() {
        let session = session(&Graph::default());
        session.list().await;
        let began = session.view().snapshot.last_list().unwrap();
        let moment = SignedDuration::from_micros(1);
        assert!(!session.want_list_after(began - moment));
        assert!(session.want_list_after(began));
        assert!(session.want_list_after(began + moment));
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_of_one_app_registration_share_their_limiter_once_they_are_let_in() {
        let (graph, limiters) = (Graph::default(), Arc::new(WriteRateLimiters::default()));
        let one = || {
            let callbacks = Callbacks { on_change: Box::new(|_| {}), on_reserved: Arc::new(|_| {}) };
            session_with(&graph, Arc::clone(&limiters), callbacks)
        };
        let (first, second) = (one(), one());
        first.list().await;
        graph.answers([(403, None)]);
        second.list().await;
        assert!(!Arc::ptr_eq(&first.limiter(), &second.limiter()), "anyone could name an app registration");
        second.list().await;
        assert!(Arc::ptr_eq(&first.limiter(), &second.limiter()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_a_permit_is_reserved_for_is_called() {
        let (graph, called) = (Graph::default(), Arc::new(Mutex::new(Vec::new())));
        let calls = Arc::clone(&called);
        let on_reserved = Arc::new(move |object: NamespacedName| calls.lock().unwrap().push(object.name.to_string()));
        let limiters = Arc::new(WriteRateLimiters::new(Limits { at_a_time: 1, ..Limits::default() }));
        let session = session_with(&graph, limiters, Callbacks { on_change: Box::new(|_| {}), on_reserved });
        let session = Arc::new(session);
        let running = tokio::spawn(Arc::clone(&session).run());
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The limiter that came with the first list.
        let held = permit(&session);
        assert!(
            session
                .limiter()
                .request("other", &NamespacedName::new("devices", "munich"), Priority::Interactive)
                .is_none()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(called.lock().unwrap().is_empty());
        drop(held);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*called.lock().unwrap(), ["munich"]);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_cancelled_does_not_hide_its_token_from_lists_for_ever() {
        let graph = Graph::default();
        *graph.tokens.lock().unwrap() = vec![json!({ "id": "a", "countryOrRegion": "de" })];
        let session = session(&graph);
        session.list().await;
        let sync = session.sync(permit(&session), "a");
        assert!(tokio::time::timeout(Duration::from_millis(5), sync).await.is_err(), "it is cancelled");
        *graph.tokens.lock().unwrap() = vec![json!({ "id": "a", "countryOrRegion": "fr" })];
        session.list().await;
        let view = session.view();
        assert_eq!(view.snapshot.entry("a").unwrap().entity.country_or_region.as_deref(), Some("fr"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_ends_while_a_token_is_written_does_not_change_it() {
        let graph = Graph::default();
        *graph.tokens.lock().unwrap() = vec![json!({ "id": "a", "countryOrRegion": "de" })];
        let session = session(&graph);
        session.list().await;
        *graph.tokens.lock().unwrap() = vec![json!({ "id": "a", "countryOrRegion": "fr" })];
        graph.answers([(200, None), (200, None)]);
        let country = || {
            let view = session.view();
            view.snapshot.entry("a").unwrap().entity.country_or_region.clone()
        };
        let write = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            session.sync(permit(&session), "a").await.unwrap();
        };
        let look = async {
            tokio::time::sleep(Duration::from_millis(25)).await;
            assert_eq!((graph.asked("vppTokens"), graph.asked("syncLicenses")), (2, 0), "the write is under way");
            assert_eq!(country().as_deref(), Some("de"));
        };
        future::join3(session.list(), write, look).await;
        session.list().await;
        assert_eq!(country().as_deref(), Some("fr"));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_missing_permission_a_new_access_token_is_asked_for() {
        let graph = Graph::default();
        let session = session(&graph);
        for (answer, signed_in) in [(200, 1), (200, 1), (403, 1), (200, 2), (404, 2), (200, 2)] {
            graph.answers([(answer, None)]);
            let _ = session.sync(permit(&session), "a").await;
            assert_eq!(graph.asked("signs in"), signed_in, "{answer}");
        }
    }
}
