//! Delays that double with every failure in a row.

use std::time::Duration;

/// Delays that begin with one and double up to another. [`Backoff::new`] refuses what would make no sense, when it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// The delay after the first failure, and the longest.
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        assert!(!first.is_zero(), "without a first delay nothing is delayed");
        assert!(first.as_nanos() <= max.as_nanos(), "the longest delay is not shorter than the first");
        Self { first, max }
    }

    /// The delay after so many failures in a row: none after none.
    pub(crate) fn delay(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let delays: Vec<u64> = (0..=8).map(|failures| backoff.delay(failures).as_secs()).collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.delay(u32::MAX).as_secs(), 60);
    }
}
