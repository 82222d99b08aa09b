//! Time and randomness, passed in: whatever decides or waits uses these, so that a test can run the operator in virtual
//! time and replay it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// Where a clock reads from.
trait Source: Send + Sync {
    /// Time since some fixed point, which also runs while the machine sleeps and which nobody can set.
    fn elapsed(&self) -> Duration;
    /// The wall clock, which people and NTP set.
    fn wall(&self) -> Timestamp;
}

/// Tells the time. Clones are the same clock.
///
/// Delays and the order of things go by [`Clock::now`], which a step of the wall clock does not touch. [`Clock::wall`] is for
/// what is shown, and for times that come from outside: the expiry of a token, a schedule.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn Source>,
    /// What [`Clock::now`] shows when `source` shows no elapsed time, in microseconds.
    origin: i64,
    last: Arc<AtomicI64>,
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").field("now", &self.peek()).finish()
    }
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::of(Arc::new(System))
    }

    /// A clock that is read from these: the elapsed time since a fixed point, and the wall clock.
    pub fn new(
        elapsed: impl Fn() -> Duration + Send + Sync + 'static,
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self::of(Arc::new(Read { elapsed, wall }))
    }

    fn of(source: Arc<dyn Source>) -> Self {
        let origin = source.wall().as_microsecond().saturating_sub(micros(source.elapsed()));
        Self { source, origin, last: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// The time by which delays are measured: what the wall clock showed when this clock was made, plus the time since then.
    /// Every call returns a later time than the one before.
    pub fn now(&self) -> Timestamp {
        let read = self.origin.saturating_add(micros(self.source.elapsed()));
        let next = |last: i64| Some(read.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).unwrap_or(read);
        Timestamp::from_microsecond(read.max(last.saturating_add(1))).unwrap_or(Timestamp::MAX)
    }

    /// The wall clock, in microseconds. It may go back.
    pub fn wall(&self) -> Timestamp {
        let wall = self.source.wall();
        Timestamp::from_microsecond(wall.as_microsecond()).unwrap_or(wall)
    }

    /// Converts a time of [`Clock::now`] to a time of the wall clock, by their present difference.
    pub fn wall_at(&self, time: Timestamp) -> Timestamp {
        let ahead = time.duration_since(self.peek());
        self.wall().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    fn peek(&self) -> Timestamp {
        let read = self.origin.saturating_add(micros(self.source.elapsed()));
        Timestamp::from_microsecond(read).unwrap_or(Timestamp::MAX)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

struct System;

impl Source for System {
    fn elapsed(&self) -> Duration {
        // On Linux the monotonic clock stops while the machine sleeps; elsewhere it does not.
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(id);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}

struct Read<E, W> {
    elapsed: E,
    wall: W,
}

impl<E: Fn() -> Duration + Send + Sync, W: Fn() -> Timestamp + Send + Sync> Source for Read<E, W> {
    fn elapsed(&self) -> Duration {
        (self.elapsed)()
    }

    fn wall(&self) -> Timestamp {
        (self.wall)()
    }
}

/// Random numbers for jitter and request ids, nothing secret. Clones draw from the same sequence.
#[derive(Clone, Debug)]
pub struct Random(Arc<Generator>);

#[derive(Debug)]
enum Generator {
    /// The operating system's.
    System,
    /// A sequence that a seed determines.
    Seeded(Mutex<u64>),
}

impl Random {
    /// From the operating system.
    pub fn system() -> Self {
        Self(Arc::new(Generator::System))
    }

    /// A sequence that the seed determines.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Generator::Seeded(Mutex::new(seed))))
    }

    /// A number from 0 to 1.
    pub fn fraction(&self) -> f64 {
        let bits = (self.uuid().as_u128() & u128::from(u16::MAX)) as u16;
        f64::from(bits) / f64::from(u16::MAX)
    }

    /// A GUID.
    pub fn uuid(&self) -> uuid::Uuid {
        match &*self.0 {
            Generator::System => uuid::Uuid::new_v4(),
            Generator::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let bits = (u128::from(split_mix(&mut state)) << 64) | u128::from(split_mix(&mut state));
                uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
            }
        }
    }
}

/// SplitMix64, a small generator of well mixed numbers.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn every_time_is_later_than_the_one_before() {
        let clock = Clock::system();
        let times: Vec<_> = (0..1000).map(|_| clock.now()).collect();
        assert!(times.is_sorted_by(|one, other| one < other));
    }

    #[test]
    fn a_step_of_the_wall_clock_does_not_touch_delays() {
        let (elapsed, wall) = (Arc::new(AtomicU64::new(7)), Arc::new(AtomicI64::new(1_700_000_000)));
        let read = (Arc::clone(&elapsed), Arc::clone(&wall));
        let clock = Clock::new(
            move || Duration::from_secs(read.0.load(Ordering::SeqCst)),
            move || Timestamp::from_second(read.1.load(Ordering::SeqCst)).unwrap(),
        );
        let began = clock.now();
        for step in [-3600, 86_400 * 365] {
            wall.fetch_add(step, Ordering::SeqCst);
            elapsed.fetch_add(10, Ordering::SeqCst);
        }
        assert_eq!(clock.now().duration_since(began).as_secs(), 20);
        assert_eq!(clock.wall().as_second(), 1_700_000_000 - 3600 + 86_400 * 365);
        assert_eq!(clock.wall_at(began).as_second(), clock.wall().as_second() - 20);
    }

    #[test]
    fn a_seed_determines_what_is_drawn() {
        let draw = |seed| {
            let random = Random::seeded(seed);
            (random.uuid(), random.fraction().to_bits(), random.uuid())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(Random::system().uuid(), Random::system().uuid());
        assert!((0..100).all(|_| (0.0..=1.0).contains(&Random::system().fraction())));
    }
}
