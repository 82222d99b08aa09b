//! The time, never going back within the process: what is compared to tell what came first must not depend on a clock that
//! somebody sets.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

static LAST: AtomicI64 = AtomicI64::new(i64::MIN);

/// The wall clock's time, in microseconds, but always later than any time that was returned before.
pub fn now() -> Timestamp {
    let wall = Timestamp::now().as_microsecond();
    let later = |last: i64| Some(wall.max(last.saturating_add(1)));
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later).unwrap_or(wall);
    Timestamp::from_microsecond(wall.max(last.saturating_add(1))).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_time_is_later_than_the_one_before() {
        let times: Vec<_> = (0..1000).map(|_| super::now()).collect();
        assert!(times.is_sorted_by(|one, other| one < other));
    }
}
