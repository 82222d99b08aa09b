//! The emulator in one's hand: starts and stops it, looks into it, and does what a person in the portal would do.

use crate::collection::Now;
use crate::entity::{Entity, NewEntity};
use crate::entra::{App, Permission};
use crate::faults::{Fault, FaultStatus};
use crate::log::{Operation, RequestRecord};
use crate::secret::Secret;
use crate::server::Server;
use crate::settings::Settings;
use crate::state::{Shared, View};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A running emulator. Dropping it stops it.
pub struct Emulator {
    server: Arc<Server>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.stop();
    }
}

impl Emulator {
    /// Starts listening; requests are served by the tokio runtime of the caller.
    ///
    /// # Errors
    /// The address can't be listened on.
    #[expect(clippy::unused_async, reason = "async makes sure that there is a runtime")]
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Ok(Self { server: Server::start(Arc::new(Shared::new(settings)))? })
    }

    /// The base URL, without a slash at the end, of both login and Graph.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The emulator's time, which `clock_offset_seconds` moves.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared().read(|state| state.now().wall)
    }

    // Apps.

    /// Registers an app, and its tenant, with all permissions; one with the same id is replaced.
    pub fn add_app(&self, tenant: &str, client_id: &str, secret: impl Into<Secret>) {
        self.shared().write(|state| state.directory.add_app(tenant, client_id, secret.into()));
    }

    /// Gives an app another secret, not expired; says whether there is such an app. Access tokens stay good.
    pub fn set_secret(&self, tenant: &str, client_id: &str, secret: impl Into<Secret>) -> bool {
        self.change_app(tenant, client_id, |app| {
            app.secret = secret.into();
            app.secret_expired = false;
        })
    }

    /// Lets an app's secret expire, or not; says whether there is such an app.
    pub fn set_secret_expired(&self, tenant: &str, client_id: &str, expired: bool) -> bool {
        self.change_app(tenant, client_id, |app| app.secret_expired = expired)
    }

    /// Gives an app a permission; says whether there is such an app. Access tokens keep what they were issued with.
    pub fn set_permission(&self, tenant: &str, client_id: &str, permission: Permission) -> bool {
        self.change_app(tenant, client_id, |app| app.permission = permission)
    }

    /// Makes all access tokens unknown: the next call with one is answered with 401.
    pub fn revoke_access_tokens(&self) {
        self.shared().write(|state| state.directory.revoke_all());
    }

    // Switches.

    /// The settings in use.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.shared().read(|state| state.settings.clone())
    }

    /// Changes settings; requests and timers that begin from now on go by them.
    pub fn settings_mut(&self, change: impl FnOnce(&mut Settings)) {
        self.shared().write(|state| change(&mut state.settings));
    }

    /// Forgets the requests counted for throttling.
    pub fn clear_throttle(&self) {
        self.shared().write(|state| state.limiter.clear());
    }

    // The collection, as a person in the portal sees and changes it.

    /// A tenant's entities, in order of creation.
    #[must_use]
    pub fn entities(&self, tenant: &str) -> Vec<Entity> {
        self.shared().read(|state| View::of(state).entities(tenant))
    }

    /// One entity.
    #[must_use]
    pub fn entity(&self, tenant: &str, id: &str) -> Option<Entity> {
        self.shared().read(|state| View::of(state).entity(tenant, id))
    }

    /// Adds an entity.
    pub fn create_by_hand(&self, tenant: &str, new: NewEntity) -> Entity {
        self.shared().write(|state| {
            let now = state.now();
            let (collection, settings) = state.collection(tenant);
            collection.create_by_hand(new, now, settings)
        })
    }

    /// Changes an entity; says whether it is there. A changed `state` stays until [`Self::force_state`] with `None`
    /// (or a renewal that cures it), a changed expiry ends its lag, and a sync in progress ends when its status
    /// changes. `last_modified_date_time` moves, unless it is set.
    pub fn edit(&self, tenant: &str, id: &str, edit: impl FnOnce(&mut Entity)) -> bool {
        self.shared().write(|state| {
            let now = state.now();
            let (collection, settings) = state.collection(tenant);
            collection.edit(id, edit, now, settings)
        })
    }

    /// Removes an entity; says whether it was there.
    pub fn remove(&self, tenant: &str, id: &str) -> bool {
        self.shared().write(|state| state.collection(tenant).0.remove(id))
    }

    /// Forces a state, any text; `None` lets the emulator work it out again. Says whether the entity is there.
    pub fn force_state(&self, tenant: &str, id: &str, forced: Option<&str>) -> bool {
        self.shared().write(|state| {
            let now: Now = state.now();
            state.collection(tenant).0.force_state(id, forced.map(str::to_owned), now)
        })
    }

    /// Lets the syncs of an entity fail, or not; says whether it is there.
    pub fn set_sync_failure(&self, tenant: &str, id: &str, fails: bool) -> bool {
        self.edit(tenant, id, |entity| entity.sync_fails = fails)
    }

    /// Begins a sync, as Intune does by itself twice a day; says whether one began or was in progress.
    pub fn sync_by_hand(&self, tenant: &str, id: &str) -> bool {
        self.shared().write(|state| {
            let now = state.now();
            let (collection, settings) = state.collection(tenant);
            collection.sync(id, now, settings).is_some_and(|result| result.is_ok())
        })
    }

    // The log.

    /// The requests seen since they were cleared, oldest first. Calls of the admin API are not among them.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared().read(|state| state.log.records().cloned().collect())
    }

    /// How many requests of a kind have arrived; every page of a list is one.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.shared().read(|state| state.log.count(operation))
    }

    /// All counters that are not zero.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<Operation, usize> {
        self.shared().read(|state| state.log.counters().clone())
    }

    /// How many writes to Graph have arrived, whatever became of them.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.shared().read(|state| View::of(state).writes())
    }

    /// Forgets records and counters. Sequence numbers go on.
    pub fn clear_requests(&self) {
        self.shared().write(|state| state.log.clear());
    }

    // Faults.

    /// Puts a fault in place. It stays until it is used up or removed; dropping the handle does not remove it.
    pub fn inject(&self, fault: Fault) -> FaultHandle {
        let number = self.shared().write(|state| state.faults.inject(fault));
        FaultHandle { shared: Arc::clone(self.shared()), number }
    }

    /// The faults in place.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultStatus> {
        self.shared().read(|state| state.faults.status())
    }

    /// Removes all faults and lets go what they hold.
    pub fn clear_faults(&self) {
        self.shared().write(|state| {
            for status in state.faults.status() {
                state.faults.remove(status.number);
            }
        });
    }

    /// Closes all connections and refuses new ones, keeping the port. Requests on their way still have their effect.
    ///
    /// # Errors
    /// The port was taken by someone else meanwhile.
    pub async fn down(&self) -> io::Result<()> {
        self.server.down().await
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// The port was taken by someone else meanwhile.
    pub async fn up(&self) -> io::Result<()> {
        self.server.up().await
    }

    /// Stops, and waits until nothing runs any more.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }

    // Waiting.

    /// Waits until something is true of what the emulator has seen; says whether that happened in time. It looks again
    /// whenever something changes, and never in between.
    #[must_use = "false means that it did not happen in time"]
    pub async fn wait_for(&self, condition: impl FnMut(&View<'_>) -> bool, longest: Duration) -> bool {
        wait_for(self.shared(), condition, longest).await
    }

    fn shared(&self) -> &Arc<Shared> {
        self.server.shared()
    }

    fn change_app(&self, tenant: &str, client_id: &str, change: impl FnOnce(&mut App)) -> bool {
        self.shared().write(|state| state.directory.app_mut(tenant, client_id).map(change).is_some())
    }
}

/// A fault that was injected. Clones are the same fault.
#[derive(Clone)]
pub struct FaultHandle {
    shared: Arc<Shared>,
    number: u64,
}

impl fmt::Debug for FaultHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultHandle({})", self.number)
    }
}

impl FaultHandle {
    /// Names the fault in records and in the admin API.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many requests it has hit. A hold counts a request once it waits: after the effect, if it holds after the
    /// effect.
    #[must_use]
    pub fn hits(&self) -> u32 {
        self.shared.read(|state| state.faults.hits(self.number))
    }

    /// How many requests wait at it now.
    #[must_use]
    pub fn holding(&self) -> u32 {
        self.shared.read(|state| state.faults.holding(self.number))
    }

    /// Waits until it has hit at least once; says whether it did in time.
    #[must_use = "false means that it was not hit in time"]
    pub async fn wait_hit(&self, longest: Duration) -> bool {
        self.wait_hits(1, longest).await
    }

    /// Waits until it has hit so many requests; says whether it did in time.
    #[must_use = "false means that it was not hit in time"]
    pub async fn wait_hits(&self, hits: u32, longest: Duration) -> bool {
        let number = self.number;
        wait_for(&self.shared, move |view| view.hits(number) >= hits, longest).await
    }

    /// Lets go the requests that it holds now; later ones are held again.
    pub fn release(&self) {
        self.shared.write(|state| state.faults.release(self.number));
    }

    /// Takes it away and lets go what it holds.
    pub fn remove(&self) {
        self.shared.write(|state| state.faults.remove(self.number));
    }
}

async fn wait_for(shared: &Shared, mut condition: impl FnMut(&View<'_>) -> bool, longest: Duration) -> bool {
    let mut changes = shared.subscribe();
    let waiting = async {
        loop {
            changes.mark_unchanged();
            if shared.read(|state| condition(&View::of(state))) {
                return true;
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    };
    timeout(longest, waiting).await.unwrap_or(false)
}
