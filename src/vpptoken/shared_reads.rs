//! Reads past the caches that several reconciles ask for at the same time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

impl<V: Clone> SharedReads<V> {
    /// Reads an object, unless somebody else does that from now on.
    pub(crate) async fn get<F: Future<Output = V>>(&self, name: &str, read: impl FnOnce() -> F) -> V {
        let reads = self.reads_of(name);
        let begun = reads.begun.load(Ordering::SeqCst);
        let mut last = reads.last.lock().await;
        let found = last.as_ref().filter(|found| found.number > begun).map(|found| found.value.clone());
        let value = match found {
            Some(value) => value,
            None => {
                let number = reads.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let value = read().await;
                *last = Some(Found { number, value: value.clone() });
                value
            }
        };
        drop(last);
        self.release(name, reads);
        value
    }

    fn reads_of(&self, name: &str) -> Arc<Reads<V>> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Reads { begun: AtomicU64::new(0), last: tokio::sync::Mutex::new(None) });
        Arc::clone(objects.entry(name.to_owned()).or_insert_with(new))
    }

    /// Nothing is kept of an object that nobody asks for.
    fn release(&self, name: &str, reads: Arc<Reads<V>>) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        drop(reads);
        if objects.get(name).is_some_and(|reads| Arc::strong_count(reads) == 1) {
            objects.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    async fn a_read_that_is_cancelled_is_done_by_the_next_one() {
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
