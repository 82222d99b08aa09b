//! The permits to write of one app registration in one tenant, shared by the sessions that use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::write_queue::{Priority, WriteQueue};
use crate::api::VppToken;

/// The writes of one app registration in one tenant.
#[derive(Debug, Default)]
pub struct WriteRateLimiter {
    queue: Mutex<WriteQueue>,
    changed: Notify,
}

impl WriteRateLimiter {
    /// A permit to send one write, if one is free. If not, the VppToken is triggered when one is reserved for it: it has to ask
    /// again within [`RESERVATION`](super::write_queue::RESERVATION).
    pub fn request(
        self: &Arc<Self>,
        uid: &str,
        object: &ObjectRef<VppToken>,
        priority: Priority,
    ) -> Option<WritePermit> {
        let given = self.queue().request(uid, object, priority, Instant::now());
        self.changed.notify_waiters();
        given.map(|priority| WritePermit { limiter: Arc::clone(self), uid: uid.to_owned(), priority, was_sent: false })
    }

    /// A VppToken has nothing to write at present.
    pub fn record_unwanted(&self, uid: &str) {
        self.queue().record_unwanted(uid, Instant::now());
        self.changed.notify_waiters();
    }

    /// A VppToken was deleted, or belongs to another tenant.
    pub fn withdraw(&self, uid: &str) {
        self.queue().withdraw(uid);
        self.changed.notify_waiters();
    }

    /// Reserves permits as they become free, and calls `trigger` for the VppTokens that they are for. It may run several times
    /// for one limiter.
    pub async fn run(&self, trigger: &(dyn Fn(&ObjectRef<VppToken>) + Send + Sync)) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (objects, next) = {
                let (mut queue, now) = (self.queue(), Instant::now());
                (queue.reserve(now), queue.next_change(now))
            };
            objects.iter().for_each(trigger);
            let Some(next) = next else {
                changed.await;
                continue;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {}
                () = changed => {}
            }
        }
    }

    /// Graph asked to wait: nothing is sent until then. `now` is the time that the end of the pause is shown by.
    pub fn pause(&self, wait: Duration, now: Timestamp) {
        let shown = now.saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
        self.queue().pause(Instant::now() + wait, shown.unwrap_or(Timestamp::MAX));
        self.changed.notify_waiters();
    }

    /// Graph throttled a request that was sent at `began`, and may have asked for a wait. A request that was sent
    /// before the last pause was over belongs to the same burst, and changes nothing.
    pub fn record_throttled(&self, began: Instant, asked: Option<Duration>, now: Timestamp) {
        let wait = self.queue().record_throttled(began);
        self.pause(asked.filter(|asked| !asked.is_zero()).unwrap_or(wait), now);
    }

    /// Graph carried out a request that was sent at `began`: if that was after the last pause, the next one is short
    /// again.
    pub fn record_success(&self, began: Instant) {
        self.queue().record_success(began);
    }

    /// How long nothing is sent because Graph asked to wait.
    pub fn paused(&self) -> Option<Duration> {
        let now = Instant::now();
        self.queue().paused_until(now).map(|(until, _)| until.duration_since(now))
    }

    /// Until when that is; the same time at every call.
    pub fn paused_until(&self) -> Option<Timestamp> {
        self.queue().paused_until(Instant::now()).map(|(_, shown)| shown)
    }

    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit to send one write. Drop it when the write was answered: the write counts against the limit until a window after
/// that, because Graph counts from its arrival, which may be at any time before the answer. Dropping an unused one costs nothing.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct WritePermit {
    limiter: Arc<WriteRateLimiter>,
    uid: String,
    priority: Priority,
    was_sent: bool,
}

impl WritePermit {
    /// The write is sent now.
    pub fn mark_sent(&mut self) {
        self.was_sent = true;
        self.limiter.queue().record_sent(&self.uid);
    }
}

impl Drop for WritePermit {
    fn drop(&mut self) {
        self.limiter.queue().record_returned(&self.uid, self.priority, self.was_sent, Instant::now());
        self.limiter.changed.notify_waiters();
    }
}

/// The limiters that tenant objects share once their own credentials were accepted: Graph counts per app and tenant.
#[derive(Debug, Default)]
pub struct WriteRateLimiters {
    by_app: Mutex<HashMap<(String, String, String), Arc<WriteRateLimiter>>>,
}

impl WriteRateLimiters {
    /// The limiter of an app registration in a tenant, at one Graph host.
    pub fn of(&self, graph: &str, tenant_id: &str, client_id: &str) -> Arc<WriteRateLimiter> {
        let key = (graph.to_owned(), tenant_id.to_lowercase(), client_id.to_lowercase());
        Arc::clone(self.by_app.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::write_queue::WINDOW;
    use super::*;

    fn object(n: usize) -> ObjectRef<VppToken> {
        ObjectRef::new(&n.to_string()).within("devices")
    }

    /// VppTokens that write as soon as they may. Returns when each write was sent.
    async fn write_all(limiter: &Arc<WriteRateLimiter>, tokens: usize, answered_after: Duration) -> Vec<Instant> {
        let (sender, mut triggered) = tokio::sync::mpsc::unbounded_channel();
        let running = Arc::clone(limiter);
        let triggers = sender.clone();
        let run = tokio::spawn(async move {
            let trigger = move |object: &ObjectRef<VppToken>| triggers.send(object.name.clone()).unwrap();
            running.run(&trigger).await;
        });
        for n in 0..tokens {
            sender.send(n.to_string()).unwrap();
        }
        let mut sent = Vec::new();
        while sent.len() < tokens {
            let name = triggered.recv().await.unwrap();
            if let Some(mut permit) = limiter.request(&name, &object(name.parse().unwrap()), Priority::Interactive) {
                permit.mark_sent();
                sent.push(Instant::now());
                tokio::spawn(async move {
                    tokio::time::sleep(answered_after).await;
                    drop(permit);
                });
            }
        }
        run.abort();
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_is_not_used_costs_nothing() {
        let limiter = Arc::new(WriteRateLimiter::default());
        for n in 0..300 {
            assert!(limiter.request(&n.to_string(), &object(n), Priority::Interactive).is_some());
            limiter.record_unwanted(&n.to_string());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_write_as_soon_as_the_window_allows() {
        let limiter = Arc::new(WriteRateLimiter::default());
        let began = Instant::now();
        let sent = write_all(&limiter, 270, Duration::from_millis(100)).await;
        for (n, time) in sent.iter().enumerate() {
            let in_window = sent[n..].iter().filter(|later| **later < *time + WINDOW).count();
            assert!(in_window <= 90, "{in_window} writes from {time:?}");
        }
        assert!(began.elapsed() < WINDOW * 2 + Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_delays_every_write() {
        let limiter = Arc::new(WriteRateLimiter::default());
        limiter.pause(Duration::from_secs(7), Timestamp::UNIX_EPOCH);
        let began = Instant::now();
        write_all(&limiter, 1, Duration::ZERO).await;
        assert_eq!(began.elapsed(), Duration::from_secs(7));
    }
}
