//! Everything the emulator remembers, behind one lock that is never held over an await, and the signal that something
//! changed.

use crate::clock::{Clock, Now};
use crate::collection::Collection;
use crate::effects::{Effect, Effects};
use crate::entity::Entity;
use crate::entra::{Directory, key};
use crate::faults::Faults;
use crate::log::{Log, Operation, RequestRecord};
use crate::random::Random;
use crate::settings::Settings;
use crate::throttle::Limiter;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// The emulator's memory.
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) directory: Directory,
    pub(crate) collections: BTreeMap<String, Collection>,
    pub(crate) limiter: Limiter,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    pub(crate) effects: Effects,
    pub(crate) random: Random,
    clock: Clock,
}

impl State {
    /// The time. It never goes back, unless the offset in the settings does.
    pub(crate) fn now(&self) -> Now {
        self.clock.now(self.settings.clock_offset_seconds)
    }

    /// A tenant's collection, which begins empty.
    pub(crate) fn collection(&mut self, tenant: &str) -> (&mut Collection, &Settings) {
        (self.collections.entry(key(tenant)).or_default(), &self.settings)
    }

    /// Applies what is due by now; returns whether that changed anything.
    fn advance(&mut self) -> bool {
        let now = self.now();
        let mut changed = false;
        for collection in self.collections.values_mut() {
            changed |= collection.advance(now, &self.settings);
        }
        changed
    }

    /// When time next changes something.
    fn next_change(&self) -> Option<Instant> {
        let now = self.now();
        self.collections.values().filter_map(|collection| collection.next_change(now)).min()
    }
}

/// A look into an emulator, see [`Emulation::look`](crate::Emulation::look) and
/// [`Emulation::wait_for`](crate::Emulation::wait_for).
pub struct View<'a> {
    state: &'a State,
}

impl<'a> View<'a> {
    pub(crate) fn of(state: &'a State) -> Self {
        Self { state }
    }

    /// A tenant's entities, in order of creation.
    #[must_use]
    pub fn entities(&self, tenant: &str) -> Vec<Entity> {
        let collection = self.state.collections.get(&key(tenant));
        collection.map(|collection| collection.all(self.state.now(), &self.state.settings)).unwrap_or_default()
    }

    /// One entity.
    #[must_use]
    pub fn entity(&self, tenant: &str, id: &str) -> Option<Entity> {
        self.state.collections.get(&key(tenant))?.get(id, self.state.now(), &self.state.settings)
    }

    /// The records of requests, oldest first.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = &'a RequestRecord> + use<'a> {
        self.state.log.records()
    }

    /// How many requests of a kind have arrived.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.state.log.count(operation)
    }

    /// How many writes to Graph have arrived.
    #[must_use]
    pub fn writes(&self) -> usize {
        let writes = [Operation::Create, Operation::Update, Operation::Delete, Operation::SyncLicenses];
        writes.into_iter().map(|operation| self.count(operation)).sum()
    }

    /// What was done to the collections, oldest first.
    pub fn effects(&self) -> impl DoubleEndedIterator<Item = &'a Effect> + ExactSizeIterator + use<'a> {
        self.state.effects.all()
    }

    /// How many requests a fault has hit.
    pub(crate) fn hits(&self, fault: u64) -> u32 {
        self.state.faults.hits(fault)
    }
}

/// The memory, shared by all tasks.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new(settings: Settings, clock: Clock, random: Random) -> Self {
        let state = State {
            settings,
            directory: Directory::default(),
            collections: BTreeMap::new(),
            limiter: Limiter::default(),
            log: Log::default(),
            faults: Faults::default(),
            effects: Effects::default(),
            random,
            clock,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Reads the memory as of now.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let mut state = self.lock();
        let moved = state.advance();
        let seen = look(&state);
        drop(state);
        if moved {
            self.signal();
        }
        seen
    }

    /// Changes the memory as of now, and notifies those that wait.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.advance();
        let done = change(&mut state);
        drop(state);
        self.signal();
        done
    }

    /// Waits until something is true; returns whether that happened in time. It is checked whenever something changes,
    /// also by the passing of time, and never in between.
    pub(crate) async fn wait_for(&self, mut condition: impl FnMut(&View<'_>) -> bool, longest: Duration) -> bool {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                let (holds, next) = self.read(|state| (condition(&View::of(state)), state.next_change()));
                if holds {
                    return true;
                }
                let changed = match next {
                    // A time limit has passed: that is a change, too.
                    Some(at) => timeout_at(at, changes.changed()).await.unwrap_or(Ok(())),
                    None => changes.changed().await,
                };
                if changed.is_err() {
                    return false;
                }
            }
        };
        timeout(longest, waiting).await.unwrap_or(false)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Notifies those that wait. A new waiter subscribes before it reads the memory, so nobody misses a change.
    fn signal(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_replace(());
        }
    }
}
