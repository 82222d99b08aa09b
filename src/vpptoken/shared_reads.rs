//! Reads past the caches that several reconciles ask for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// Whoever asks gets what a read has found that began after that; or shortly before, if it has found what is known already, so that
/// very many reconciles cost few reads. An older read never contradicts what has been seen since.
#[derive(Debug)]
pub(crate) struct SharedReads<V> {
    objects: Mutex<HashMap<String, Arc<LastRead<V>>>>,
}

/// The last read of one object; whoever reads holds the lock.
type LastRead<V> = tokio::sync::Mutex<Option<Found<V>>>;

/// What a read has found.
#[derive(Debug)]
struct Found<V> {
    /// When the read began.
    began: Timestamp,
    value: V,
}

impl<V> Default for SharedReads<V> {
    fn default() -> Self {
        Self { objects: Mutex::default() }
    }
}

/// Whoever waits longer than this for the reads of others reads by itself: one read that hangs must not hold up all.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// A read confirms what is known for so long: as long as an answer of the API server may take on its way.
const MAX_AGE: SignedDuration = SignedDuration::from_secs(1);

impl<V: Clone> SharedReads<V> {
    /// What an object is like now. An older read serves if `is_known` says so of what it has found.
    pub(crate) async fn get<F: Future<Output = V>>(
        &self,
        name: &str,
        clock: &Clock,
        is_known: impl Fn(&V) -> bool,
        read: impl FnOnce() -> F,
    ) -> V {
        let asked = clock.now();
        let last = self.last_read(name, asked);
        let Ok(mut last) = tokio::time::timeout(MAX_WAIT, last.lock()).await else {
            return read().await;
        };
        let serves = |found: &&Found<V>| {
            let age = asked.duration_since(found.began);
            age <= SignedDuration::ZERO || age <= MAX_AGE && is_known(&found.value)
        };
        if let Some(found) = last.as_ref().filter(serves) {
            return found.value.clone();
        }
        let began = clock.now();
        let value = read().await;
        *last = Some(Found { began, value: value.clone() });
        value
    }

    /// The last read of an object. Those that nobody will use any more are dropped.
    fn last_read(&self, name: &str, now: Timestamp) -> Arc<LastRead<V>> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|other, last| {
            let is_recent = |found: &Option<Found<V>>| {
                found.as_ref().is_some_and(|found| now.duration_since(found.began) <= MAX_AGE)
            };
            other == name || Arc::strong_count(last) > 1 || last.try_lock().is_ok_and(|found| is_recent(&found))
        });
        Arc::clone(objects.entry(name.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::{Instant, sleep};

    use super::*;

    /// A clock that runs with the paused one of a test.
    fn clock() -> Clock {
        let began = Instant::now();
        Clock::new(move || began.elapsed(), || Timestamp::UNIX_EPOCH)
    }

    /// Asks after so many milliseconds, each time: every read takes a second, and finds when it began, which is known to all or
    /// to nobody. Returns how many reads there were.
    async fn ask(reads: &SharedReads<Instant>, clock: &Clock, is_known: bool, after: impl Iterator<Item = u64>) -> u64 {
        let count = AtomicU64::new(0);
        let ask = |after: u64| {
            let count = &count;
            async move {
                sleep(Duration::from_millis(after)).await;
                let asked = Instant::now();
                let began = reads.get(
                    "x",
                    clock,
                    |_| is_known,
                    || async {
                        count.fetch_add(1, Ordering::SeqCst);
                        let began = Instant::now();
                        sleep(Duration::from_secs(1)).await;
                        began
                    },
                );
                let max_age = if is_known { MAX_AGE.unsigned_abs() } else { Duration::ZERO };
                assert!(began.await + max_age >= asked, "{after}");
            }
        };
        futures::future::join_all(after.map(ask)).await;
        count.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_wants_to_know_what_is_true_now_gets_a_read_that_begins_later_and_many_share_it() {
        let (reads, clock) = (SharedReads::default(), clock());
        let count = ask(&reads, &clock, false, (0..100).map(|n| n * 7)).await;
        assert_eq!(count, 2, "the first, and one for all who came meanwhile");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(ask(&reads, &clock, false, [0].into_iter()).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_serves_for_a_second_as_long_as_it_found_what_is_known() {
        let (reads, clock) = (SharedReads::default(), clock());
        // The reads begin at 0, 1.01, and 2.02 seconds.
        assert_eq!(ask(&reads, &clock, true, (0..300).map(|n| n * 10)).await, 3);
        sleep(Duration::from_secs(5)).await;
        reads.last_read("y", clock.now());
        assert_eq!(reads.objects.lock().unwrap().keys().collect::<Vec<_>>(), ["y"], "nothing else is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn what_contradicts_the_news_is_read_anew() {
        let (reads, clock) = (SharedReads::<&str>::default(), clock());
        let ask = |known: &'static str, is: &'static str| {
            let (reads, clock) = (&reads, &clock);
            async move { reads.get("x", clock, |found| *found == known, || async { is }).await }
        };
        assert_eq!(ask("allowed", "refused").await, "refused");
        // The watch has shown a change since then.
        assert_eq!(ask("allowed", "allowed").await, "allowed");
        assert_eq!(ask("allowed", "refused").await, "allowed", "the read of a moment ago");
        sleep(MAX_AGE.unsigned_abs() + Duration::from_millis(1)).await;
        assert_eq!(ask("allowed", "refused").await, "refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_or_is_cancelled_holds_up_nobody_for_long() {
        let (reads, clock) = (SharedReads::<u32>::default(), clock());
        let hangs =
            tokio::time::timeout(Duration::from_secs(10), reads.get("x", &clock, |_| true, std::future::pending));
        let other = async {
            sleep(Duration::from_millis(500)).await;
            let asked = Instant::now();
            let found = reads.get("x", &clock, |_| true, || async { 7 }).await;
            (found, asked.elapsed())
        };
        let (hung, found) = futures::join!(hangs, other);
        assert!(hung.is_err());
        assert_eq!(found, (7, MAX_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_read_that_is_cancelled_the_next_one_reads() {
        let (reads, clock) = (SharedReads::<u32>::default(), clock());
        let hangs =
            tokio::time::timeout(Duration::from_secs(1), reads.get("x", &clock, |_| true, std::future::pending));
        let other = async {
            sleep(Duration::from_millis(500)).await;
            reads.get("x", &clock, |_| true, || async { 7 }).await
        };
        let (hung, found) = futures::join!(hangs, other);
        assert!(hung.is_err());
        assert_eq!(found, 7);
    }
}
