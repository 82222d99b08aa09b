//! Everything the emulator remembers, behind one lock that is never held over an await, and the signal that something
//! changed.

use crate::collection::{Collection, Now};
use crate::entity::Entity;
use crate::entra::{Directory, key};
use crate::faults::Faults;
use crate::log::{Log, Operation, RequestRecord};
use crate::settings::Settings;
use crate::throttle::Limiter;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

/// The emulator's memory.
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) directory: Directory,
    pub(crate) collections: BTreeMap<String, Collection>,
    pub(crate) limiter: Limiter,
    pub(crate) log: Log,
    pub(crate) faults: Faults,
    started: Instant,
    started_wall: Timestamp,
}

impl State {
    /// The time. It never goes back, unless the offset in the settings does.
    pub(crate) fn now(&self) -> Now {
        let instant = Instant::now();
        let elapsed = SignedDuration::try_from(instant - self.started).unwrap_or_default();
        let offset = SignedDuration::from_secs(self.settings.clock_offset_seconds);
        let wall = self.started_wall.checked_add(elapsed).and_then(|wall| wall.checked_add(offset));
        Now { wall: wall.unwrap_or(self.started_wall), instant }
    }

    /// A tenant's collection, which begins empty.
    pub(crate) fn collection(&mut self, tenant: &str) -> (&mut Collection, &Settings) {
        (self.collections.entry(key(tenant)).or_default(), &self.settings)
    }

    /// Lets time do what is due; says whether that changed anything.
    fn advance(&mut self) -> bool {
        let now = self.now();
        let mut changed = false;
        for collection in self.collections.values_mut() {
            changed |= collection.advance(now, &self.settings);
        }
        changed
    }
}

/// What [`crate::Emulator::wait_for`] looks at.
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

    /// How many requests a fault has hit.
    pub(crate) fn hits(&self, fault: u64) -> u32 {
        self.state.faults.hits(fault)
    }
}

/// The memory, shared by all tasks.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    rearm: Notify,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        let state = State {
            settings,
            directory: Directory::default(),
            collections: BTreeMap::new(),
            limiter: Limiter::default(),
            log: Log::default(),
            faults: Faults::default(),
            started: Instant::now(),
            started_wall: Timestamp::now(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), rearm: Notify::new() }
    }

    /// Looks at the memory as of now.
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

    /// Changes the memory as of now, and tells who waits.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.advance();
        let done = change(&mut state);
        drop(state);
        self.signal();
        done
    }

    /// Learns of changes from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Ends syncs and lags when they are due, so that who waits learns of it. Runs for ever.
    pub(crate) async fn keep_time(&self) {
        loop {
            let rearm = self.rearm.notified();
            let (moved, next) = self.tick();
            if moved {
                self.changed.send_replace(());
            }
            match next {
                Some(at) => {
                    tokio::select! {
                        () = sleep_until(at.into()) => { self.changed.send_replace(()); }
                        () = rearm => {}
                    }
                }
                None => rearm.await,
            }
        }
    }

    /// Lets time do what is due; says whether that changed anything, and when there is more to do.
    fn tick(&self) -> (bool, Option<Instant>) {
        let mut state = self.lock();
        let moved = state.advance();
        let now = state.now();
        let next = state.collections.values().filter_map(|collection| collection.next_change(now)).min();
        (moved, next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        self.changed.send_replace(());
        self.rearm.notify_one();
    }
}
