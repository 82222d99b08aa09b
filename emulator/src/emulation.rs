//! The emulator without a listener: takes requests in process, lets its owner look into it, and does what a person in the
//! portal would do.

use crate::body::AnswerBody;
use crate::clock::Clock;
use crate::effects::{By, Effect};
use crate::entity::{Entity, NewEntity};
use crate::entra::{App, Permission};
use crate::fault_handle::FaultHandle;
use crate::faults::{Fault, FaultStatus};
use crate::log::{Operation, RequestRecord};
use crate::pipeline::{Closed, Journey};
use crate::random::Random;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::state::{Shared, View};
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{Request, Response};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What `@odata.nextLink` names if a request in process names no host.
const NO_HOST: &str = "localhost";

/// Entra and Graph, emulated, without a listener. [`Emulator`](crate::Emulator) is one that listens.
///
/// Clones are the same emulation. It runs nothing by itself: time passes when it is called or read, and what is due by
/// then (the end of a sync) has happened at its own moment.
#[derive(Clone)]
pub struct Emulation {
    shared: Arc<Shared>,
    /// Requests in flight.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Emulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulation").finish_non_exhaustive()
    }
}

impl Emulation {
    /// A new one: no apps, no entities. With a clock in paused time and a seed, equal calls get equal answers, to the
    /// byte.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock, random: Random) -> Self {
        let shared = Arc::new(Shared::new(settings, clock, random));
        Self { shared, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Answers one request, in the same way as one over the network: recorded, hit by a fault or not, carried out,
    /// answered. The URL may be absolute, or a path and query; a body without a `Content-Length` gets one, as from any
    /// HTTP client.
    ///
    /// The request is carried out by a task of its own, which this spawns on the tokio runtime of the caller. Dropping
    /// the future closes the connection: the request still has its effect, and its record has
    /// [`Lost`](crate::Outcome::Lost).
    ///
    /// # Errors
    /// The connection was closed without an answer, because of a fault or because the emulator is stopping.
    pub async fn call(&self, request: Request<impl Into<Bytes>>) -> Result<Response<AnswerBody>, Closed> {
        let (mut parts, body) = request.into_parts();
        let body = body.into();
        let headers = &mut parts.headers;
        if !body.is_empty() && !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        self.exchange(parts, Body::from(body), NO_HOST).await
    }

    /// Carries out a request whose head has arrived, as a task of its own, and waits for the answer.
    pub(crate) async fn exchange(
        &self,
        parts: Parts,
        body: Body,
        address: &str,
    ) -> Result<Response<AnswerBody>, Closed> {
        let journey = Journey::begin(&self.shared, parts, address);
        let watch = journey.watch();
        let stop = self.stop.clone();
        let task = self.tasks.spawn(async move { stop.run_until_cancelled(journey.run(body)).await });
        let result = task.await;
        watch.done();
        match result {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(Closed),
        }
    }

    /// Runs a task that ends with the emulation.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// Ends everything, and so do its children.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits until no request is in flight any more.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The emulator's time, which `clock_offset_seconds` moves.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.read(|state| state.now().wall)
    }

    // Apps.

    /// Registers an app, and its tenant, with all permissions; one with the same id is replaced.
    pub fn add_app(&self, tenant: &str, client_id: &str, secret: impl Into<Secret>) {
        self.shared.write(|state| state.directory.add_app(tenant, client_id, secret.into()));
    }

    /// Gives an app another secret, not expired; returns whether there is such an app. Access tokens stay good.
    pub fn set_secret(&self, tenant: &str, client_id: &str, secret: impl Into<Secret>) -> bool {
        self.change_app(tenant, client_id, |app| {
            app.secret = secret.into();
            app.secret_expired = false;
        })
    }

    /// Lets an app's secret expire, or not; returns whether there is such an app.
    pub fn set_secret_expired(&self, tenant: &str, client_id: &str, expired: bool) -> bool {
        self.change_app(tenant, client_id, |app| app.secret_expired = expired)
    }

    /// Gives an app a permission; returns whether there is such an app. Access tokens keep what they were issued with.
    pub fn set_permission(&self, tenant: &str, client_id: &str, permission: Permission) -> bool {
        self.change_app(tenant, client_id, |app| app.permission = permission)
    }

    /// Makes all access tokens unknown: the next call with one is answered with 401.
    pub fn revoke_access_tokens(&self) {
        self.shared.write(|state| state.directory.revoke_all());
    }

    // Switches.

    /// The settings in use.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.shared.read(|state| state.settings.clone())
    }

    /// Changes settings; requests and timers that begin from now on use them.
    pub fn settings_mut(&self, change: impl FnOnce(&mut Settings)) {
        self.shared.write(|state| change(&mut state.settings));
    }

    /// Forgets the requests counted for throttling.
    pub fn clear_throttle(&self) {
        self.shared.write(|state| state.limiter.clear());
    }

    // The collection, as a person in the portal sees and changes it.

    /// A tenant's entities, in order of creation.
    #[must_use]
    pub fn entities(&self, tenant: &str) -> Vec<Entity> {
        self.look(|view| view.entities(tenant))
    }

    /// One entity.
    #[must_use]
    pub fn entity(&self, tenant: &str, id: &str) -> Option<Entity> {
        self.look(|view| view.entity(tenant, id))
    }

    /// Adds an entity.
    pub fn create_by_hand(&self, tenant: &str, new: NewEntity) -> Entity {
        self.shared.write(|state| state.create_by_hand(tenant, new))
    }

    /// Changes an entity; returns whether it is there. A changed `state` stays until [`Self::force_state`] with `None`
    /// (or a renewal that cures it), a changed expiry ends its lag, and a sync in progress ends when its status
    /// changes. `last_modified_date_time` moves, unless it is set.
    pub fn edit(&self, tenant: &str, id: &str, edit: impl FnOnce(&mut Entity)) -> bool {
        self.shared.write(|state| state.edit(tenant, id, edit))
    }

    /// Removes an entity; returns whether it was there.
    pub fn remove(&self, tenant: &str, id: &str) -> bool {
        self.shared.write(|state| state.remove(tenant, id, By::Hand))
    }

    /// Forces a state, any text; `None` lets the emulator work it out again. Returns whether the entity is there.
    pub fn force_state(&self, tenant: &str, id: &str, forced: Option<&str>) -> bool {
        self.shared.write(|state| state.force_state(tenant, id, forced.map(str::to_owned)))
    }

    /// Lets the syncs of an entity fail, or not; returns whether it is there.
    pub fn set_sync_failure(&self, tenant: &str, id: &str, fails: bool) -> bool {
        self.edit(tenant, id, |entity| entity.sync_fails = fails)
    }

    /// Begins a sync, as Intune does by itself twice a day; returns whether one began or was in progress.
    pub fn sync_by_hand(&self, tenant: &str, id: &str) -> bool {
        self.shared.write(|state| state.sync(tenant, id, By::Hand)).is_some_and(|result| result.is_ok())
    }

    /// Hides an entity from all requests for a while, as if Graph had lost it: answers are 404, and lists don't show it.
    /// The duration is not scaled. Returns whether the entity is there. Methods by hand go on showing it.
    pub fn hide(&self, tenant: &str, id: &str, duration: Duration) -> bool {
        self.shared.write(|state| {
            let now = state.now();
            state.collection(tenant).0.hide(id, duration, now)
        })
    }

    // What happened.

    /// Reads it without copying it. The emulation is locked meanwhile: `look` must not call it.
    pub fn look<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        self.shared.read(|state| look(&View::of(state)))
    }

    /// What was done to the collections, by requests and by hand, oldest first; as many as `log_capacity` says.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.look(|view| view.effects().cloned().collect())
    }

    /// The requests seen since they were cleared, oldest first. Calls of the admin API are not among them.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.read(|state| state.log.records().cloned().collect())
    }

    /// How many requests of a kind have arrived; every page of a list is one.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.shared.read(|state| state.log.count(operation))
    }

    /// All counters that are not zero.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<Operation, usize> {
        self.shared.read(|state| state.log.counters().clone())
    }

    /// How many writes to Graph have arrived, whatever became of them.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.look(|view| view.writes())
    }

    /// Forgets records and counters. Sequence numbers go on.
    pub fn clear_requests(&self) {
        self.shared.write(|state| state.log.clear());
    }

    // Faults.

    /// Puts a fault in place. It stays until it is used up or removed; dropping the handle does not remove it.
    pub fn inject(&self, fault: Fault) -> FaultHandle {
        let number = self.shared.write(|state| state.faults.inject(fault));
        FaultHandle::new(Arc::clone(&self.shared), number)
    }

    /// The faults in place.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultStatus> {
        self.shared.read(|state| state.faults.status())
    }

    /// Removes all faults and releases the requests that they hold.
    pub fn clear_faults(&self) {
        self.shared.write(|state| {
            for status in state.faults.status() {
                state.faults.remove(status.number);
            }
        });
    }

    /// Waits until something is true of what the emulator has seen; returns whether that happened in time. It is
    /// checked whenever something changes, and never in between.
    #[must_use = "false means that it did not happen in time"]
    pub async fn wait_for(&self, condition: impl FnMut(&View<'_>) -> bool, longest: Duration) -> bool {
        self.shared.wait_for(condition, longest).await
    }

    fn change_app(&self, tenant: &str, client_id: &str, change: impl FnOnce(&mut App)) -> bool {
        self.shared.write(|state| state.directory.app_mut(tenant, client_id).map(change).is_some())
    }
}
