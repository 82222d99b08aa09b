//! Reads past the caches that several reconciles ask for at the same time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Whoever asks gets what a read has found that began after that. Those who ask while one is under way share the next one, so
/// that very many reconciles cost few reads.
#[derive(Debug)]
pub(crate) struct SharedReads<V> {
    objects: Mutex<HashMap<String, Arc<Reads<V>>>>,
}

/// The reads of one object.
#[derive(Debug)]
struct Reads<V> {
    begun: AtomicU64,
    last: tokio::sync::Mutex<Option<Found<V>>>,
}

/// What the last read has found.
#[derive(Debug)]
struct Found<V> {
    /// The reads are counted as they begin.
    number: u64,
    value: V,
}

impl<V> Default for SharedReads<V> {
    fn default() -> Self {
        Self { objects: Mutex::default() }
    }
}

/// Whoever waits longer than this for the reads of others reads by itself: one read that hangs must not hold up all.
const MAX_WAIT: Duration = Duration::from_secs(2);

impl<V: Clone> SharedReads<V> {
    /// Reads an object, unless somebody else does that from now on.
    pub(crate) async fn get<F: Future<Output = V>>(&self, name: &str, read: impl FnOnce() -> F) -> V {
        let user = self.user(name);
        let begun = user.reads.begun.load(Ordering::SeqCst);
        let Ok(mut last) = tokio::time::timeout(MAX_WAIT, user.reads.last.lock()).await else {
            return read().await;
        };
        if let Some(found) = last.as_ref().filter(|found| found.number > begun) {
            return found.value.clone();
        }
        let number = user.reads.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let value = read().await;
        *last = Some(Found { number, value: value.clone() });
        value
    }

    fn user<'a>(&'a self, name: &'a str) -> User<'a, V> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Reads { begun: AtomicU64::new(0), last: tokio::sync::Mutex::new(None) });
        let reads = Arc::clone(objects.entry(name.to_owned()).or_insert_with(new));
        User { shared: self, name, reads }
    }
}

/// Somebody who asks for an object, until the answer.
struct User<'a, V> {
    shared: &'a SharedReads<V>,
    name: &'a str,
    reads: Arc<Reads<V>>,
}

impl<V> Drop for User<'_, V> {
    /// Nothing is kept of an object that nobody asks for any more.
    fn drop(&mut self) {
        let mut objects = self.shared.objects.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one.
        if Arc::strong_count(&self.reads) == 2 {
            objects.remove(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_gets_a_read_that_began_later_and_many_share_it() {
        let reads: SharedReads<Instant> = SharedReads::default();
        let count = AtomicU64::new(0);
        // A read that takes a second, and finds when it began.
        let ask = |after: u64| {
            let (reads, count) = (&reads, &count);
            async move {
                sleep(Duration::from_millis(after)).await;
                let asked = Instant::now();
                let began = reads.get("x", || async {
                    count.fetch_add(1, Ordering::SeqCst);
                    let began = Instant::now();
                    sleep(Duration::from_secs(1)).await;
                    began
                });
                let began = began.await;
                assert!(began >= asked, "{after}");
            }
        };
        futures::future::join_all((0..100).map(|n| ask(n * 7))).await;
        assert_eq!(count.load(Ordering::SeqCst), 2, "the first, and one for all who came meanwhile");
        assert!(reads.objects.lock().unwrap().is_empty());
        ask(0).await;
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_or_is_cancelled_holds_up_nobody_for_long() {
        let reads: SharedReads<u32> = SharedReads::default();
        let hangs = tokio::time::timeout(Duration::from_secs(10), reads.get("x", std::future::pending));
        let other = async {
            sleep(Duration::from_millis(500)).await;
            let asked = Instant::now();
            let found = reads.get("x", || async { 7 }).await;
            (found, asked.elapsed())
        };
        let (hung, found) = futures::join!(hangs, other);
        assert!(hung.is_err());
        assert_eq!(found, (7, MAX_WAIT));
        assert!(reads.objects.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_read_that_is_cancelled_the_next_one_reads() {
        let reads: SharedReads<u32> = SharedReads::default();
        let hangs = tokio::time::timeout(Duration::from_secs(1), reads.get("x", std::future::pending));
        let other = async {
            sleep(Duration::from_millis(500)).await;
            reads.get("x", || async { 7 }).await
        };
        let (hung, found) = futures::join!(hangs, other);
        assert!(hung.is_err());
        assert_eq!(found, 7);
    }
}
