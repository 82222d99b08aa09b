//! The one source of time: timers go by tokio's clock, which tests can pause, and the wall clock is a given start plus
//! what has passed on it.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// An emulator's clock. The wall clock and the timers never drift apart, so in a runtime whose time is paused
/// (`tokio::time::pause`) the wall shows exactly the start plus the virtual time that has passed.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    wall: Timestamp,
}

impl Clock {
    /// Starts at the machine's wall clock.
    #[must_use]
    pub fn machine() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// Starts now, and shows this. Call it inside the runtime whose time it is to follow.
    #[must_use]
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { started: Instant::now(), wall }
    }

    /// The time, with the wall clock moved by so many seconds.
    pub(crate) fn now(&self, offset_seconds: i64) -> Now {
        let instant = Instant::now();
        let elapsed = SignedDuration::try_from(instant - self.started).unwrap_or_default();
        let offset = SignedDuration::from_secs(offset_seconds);
        let wall = self.wall.checked_add(elapsed).and_then(|wall| wall.checked_add(offset));
        Now { wall: wall.unwrap_or(self.wall), instant }
    }
}

/// A moment: on the emulated wall clock, and on the clock that timers use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) instant: Instant,
}

impl Now {
    /// When this much time has passed. A time too far away to be represented never comes.
    pub(crate) fn after(&self, duration: Duration) -> Instant {
        const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        self.instant + duration.min(FAR)
    }

    /// The moment at which an earlier instant was.
    pub(crate) fn back_to(&self, instant: Instant) -> Self {
        let ago = SignedDuration::try_from(self.instant.saturating_duration_since(instant)).unwrap_or_default();
        Self { wall: self.wall.checked_sub(ago).unwrap_or(self.wall), instant: instant.min(self.instant) }
    }

    /// The moment so long ago.
    pub(crate) fn back_by(&self, duration: Duration) -> Self {
        self.instant.checked_sub(duration).map_or(*self, |instant| self.back_to(instant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wall_is_exactly_its_start_plus_virtual_time() {
        let start: Timestamp = "2027-01-22T17:32:07Z".parse().unwrap();
        let clock = Clock::starting_at(start);
        tokio::time::advance(Duration::from_millis(90_500)).await;
        let now = clock.now(3600);
        assert_eq!(now.wall.to_string(), "2027-01-22T18:33:37.5Z");
        assert_eq!(now.back_by(Duration::from_millis(90_500)).wall, clock.now(3600).back_to(clock.started).wall);
        assert_eq!(now.back_to(clock.started).wall.to_string(), "2027-01-22T18:32:07Z");
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_overflows_nothing() {
        let now = Clock::machine().now(0);
        assert!(now.after(Duration::MAX) > now.after(Duration::from_secs(1)));
    }
}
