//! The permits to write of one app registration in one tenant, shared by the sessions that use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::write_queue::{Limits, Priority, WriteQueue};
use crate::api::{EntraTenant, NamespacedName};

/// The writes of one app registration in one tenant.
#[derive(Debug)]
pub(crate) struct WriteRateLimiter {
    writes: Mutex<WriteQueue>,
    /// Intents of creates: as many are recorded at a time as a window has writes, so that `knownIds` stay short-lived.
    intents: Mutex<WriteQueue>,
    changed: Notify,
}

impl WriteRateLimiter {
    /// One with these limits.
    pub(crate) fn new(limits: Limits) -> Self {
        let intents = Limits { writes: usize::MAX, scheduled: usize::MAX, at_a_time: limits.writes };
        let queue = |kind, limits| Mutex::new(WriteQueue::new(kind, limits));
        Self { writes: queue("write", limits), intents: queue("intent", intents), changed: Notify::new() }
    }

    /// A permit to send one write, if one is free. If not, the VppToken is triggered when one is reserved for it: it has to ask
    /// again within [`RESERVATION`](super::write_queue::RESERVATION).
    pub(crate) fn request(
        self: &Arc<Self>,
        uid: &str,
        object: &NamespacedName,
        priority: Priority,
    ) -> Option<WritePermit> {
        let given = locked(&self.writes).request(uid, object, priority, Instant::now());
        self.changed.notify_waiters();
        given.map(|priority| WritePermit { limiter: Arc::clone(self), uid: uid.to_owned(), priority, was_sent: false })
    }

    /// The same for a permit to record the intent of a create. It is kept until the create has ended.
    pub(crate) fn request_intent(self: &Arc<Self>, uid: &str, object: &NamespacedName) -> Option<IntentPermit> {
        let given = locked(&self.intents).request(uid, object, Priority::Interactive, Instant::now());
        self.changed.notify_waiters();
        given.map(|_| IntentPermit { limiter: Arc::clone(self), uid: uid.to_owned() })
    }

    /// A VppToken has nothing to write at present.
    pub(crate) fn record_unwanted(&self, uid: &str) {
        if self.paused().is_some() {
            // Nobody has anything to write now.
            return;
        }
        for queue in [&self.writes, &self.intents] {
            locked(queue).record_unwanted(uid, Instant::now());
        }
        self.changed.notify_waiters();
    }

    /// The reconcile of a VppToken ended before it could ask for what is reserved for it.
    pub(crate) fn release(&self, uid: &str) {
        for queue in [&self.writes, &self.intents] {
            locked(queue).release(uid);
        }
        self.changed.notify_waiters();
    }

    /// A VppToken was deleted, or belongs to another tenant.
    pub(crate) fn withdraw(&self, uid: &str) {
        for queue in [&self.writes, &self.intents] {
            locked(queue).withdraw(uid);
        }
        self.changed.notify_waiters();
    }

    /// Reserves permits as they become free, and calls `trigger` for the VppTokens that they are for. It may run several times
    /// for one limiter.
    pub(crate) async fn run(&self, trigger: &(dyn Fn(NamespacedName) + Send + Sync)) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let mut next: Option<Instant> = None;
            for queue in [&self.writes, &self.intents] {
                let (objects, change) = {
                    let (mut queue, now) = (locked(queue), Instant::now());
                    (queue.reserve(now), queue.next_change(now))
                };
                objects.into_iter().for_each(trigger);
                next = next.into_iter().chain(change).min();
            }
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
    pub(crate) fn pause(&self, wait: Duration, now: Timestamp) {
        let shown = now.saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
        locked(&self.writes).pause(Instant::now() + wait, shown.unwrap_or(Timestamp::MAX));
        self.changed.notify_waiters();
    }

    /// Graph throttled a request that was sent at `began`, and may have asked for a wait. A request that was sent
    /// before the last pause was over belongs to the same burst, and changes nothing.
    pub(crate) fn record_throttled(&self, began: Instant, asked: Option<Duration>, now: Timestamp) {
        let wait = locked(&self.writes).record_throttled(began);
        self.pause(asked.filter(|asked| !asked.is_zero()).unwrap_or(wait), now);
    }

    /// Graph carried out a request that was sent at `began`: if that was after the last pause, the next one is short
    /// again.
    pub(crate) fn record_success(&self, began: Instant) {
        locked(&self.writes).record_success(began);
    }

    /// How long nothing is sent because Graph asked to wait.
    pub(crate) fn paused(&self) -> Option<Duration> {
        let now = Instant::now();
        locked(&self.writes).paused_until(now).map(|(until, _)| until.duration_since(now))
    }

    /// Until when that is; the same time at every call.
    pub(crate) fn paused_until(&self) -> Option<Timestamp> {
        locked(&self.writes).paused_until(Instant::now()).map(|(_, shown)| shown)
    }
}

fn locked(queue: &Mutex<WriteQueue>) -> MutexGuard<'_, WriteQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A permit to send one write. Drop it when the write was answered: the write counts against the limit until a window after
/// that, because Graph counts from its arrival, which may be at any time before the answer. Dropping an unused one costs
/// at most a turn of the schedules.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub(crate) struct WritePermit {
    limiter: Arc<WriteRateLimiter>,
    uid: String,
    priority: Priority,
    was_sent: bool,
}

impl WritePermit {
    /// The write is sent now.
    pub(crate) fn mark_sent(&mut self) {
        self.was_sent = true;
        locked(&self.limiter.writes).record_sent(&self.uid);
    }
}

impl Drop for WritePermit {
    fn drop(&mut self) {
        locked(&self.limiter.writes).record_returned(&self.uid, self.priority, self.was_sent, Instant::now());
        self.limiter.changed.notify_waiters();
    }
}

/// A permit to record the intent of a create. Drop it when the create has ended, or is not sent.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub(crate) struct IntentPermit {
    limiter: Arc<WriteRateLimiter>,
    uid: String,
}

impl Drop for IntentPermit {
    fn drop(&mut self) {
        // No window: another intent may be recorded at once.
        locked(&self.limiter.intents).record_returned(&self.uid, Priority::Interactive, false, Instant::now());
        self.limiter.changed.notify_waiters();
    }
}

/// An app registration in a tenant, at one Graph host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AppKey {
    graph: String,
    tenant: EntraTenant,
    client_id: String,
}

impl AppKey {
    /// By the host, the tenant, and the client id in any case.
    pub(crate) fn new(graph: &str, tenant: EntraTenant, client_id: &str) -> Self {
        Self { graph: graph.to_owned(), tenant, client_id: client_id.to_lowercase() }
    }
}

/// The limiters that tenant objects share once their own credentials were accepted: Graph counts per app and tenant.
#[derive(Debug, Default)]
pub(crate) struct WriteRateLimiters {
    limits: Limits,
    by_app: Mutex<HashMap<AppKey, Arc<WriteRateLimiter>>>,
}

impl WriteRateLimiters {
    /// None yet; all will have these limits.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, by_app: Mutex::default() }
    }

    /// A limiter that is shared with nobody.
    pub(crate) fn unshared(&self) -> Arc<WriteRateLimiter> {
        Arc::new(WriteRateLimiter::new(self.limits))
    }

    /// The limiter of an app registration.
    pub(crate) fn of(&self, app: &AppKey) -> Arc<WriteRateLimiter> {
        let mut by_app = self.by_app.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_app.entry(app.clone()).or_insert_with(|| self.unshared()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::write_queue::WINDOW;
    use super::*;

    fn object(n: usize) -> NamespacedName {
        NamespacedName::new("devices", n.to_string())
    }

    /// VppTokens that write as soon as they may. Returns when each write was sent.
    async fn write_all(limiter: &Arc<WriteRateLimiter>, tokens: usize, answered_after: Duration) -> Vec<Instant> {
        let (sender, mut triggered) = tokio::sync::mpsc::unbounded_channel();
        let running = Arc::clone(limiter);
        let triggers = sender.clone();
        let run = tokio::spawn(async move {
            let trigger = move |object: NamespacedName| triggers.send(object.name.to_string()).unwrap();
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
        let limiter = Arc::new(WriteRateLimiter::new(Limits::default()));
        for n in 0..300 {
            assert!(limiter.request(&n.to_string(), &object(n), Priority::Interactive).is_some());
            limiter.record_unwanted(&n.to_string());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_not_wanted_any_more_goes_to_the_next_one_at_once() {
        let end: [fn(&WriteRateLimiter, &str); 3] =
            [WriteRateLimiter::record_unwanted, WriteRateLimiter::release, WriteRateLimiter::withdraw];
        for (n, end) in end.into_iter().enumerate() {
            for kind in ["write", "intent"] {
                let limits = if kind == "write" {
                    Limits { at_a_time: 1, ..Limits::default() }
                } else {
                    Limits { writes: 1, ..Limits::default() }
                };
                let limiter = Arc::new(WriteRateLimiter::new(limits));
                let (sender, mut triggered) = tokio::sync::mpsc::unbounded_channel();
                let running = Arc::clone(&limiter);
                let run = tokio::spawn(async move {
                    running.run(&|object: NamespacedName| sender.send(object.name.to_string()).unwrap()).await;
                });
                let request = |n: usize| -> Option<Box<dyn Send>> {
                    let (uid, object) = (n.to_string(), object(n));
                    match kind {
                        "write" => Some(Box::new(limiter.request(&uid, &object, Priority::Interactive)?)),
                        _ => Some(Box::new(limiter.request_intent(&uid, &object)?)),
                    }
                };
                let held = request(0).unwrap();
                assert!(request(1).is_none() && request(2).is_none());
                drop(held);
                assert_eq!(triggered.recv().await.as_deref(), Some("1"));
                let began = Instant::now();
                end(&limiter, "1");
                assert_eq!(triggered.recv().await.as_deref(), Some("2"), "{n} {kind}");
                assert_eq!(began.elapsed(), Duration::ZERO, "{n} {kind}");
                run.abort();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_write_as_soon_as_the_window_allows() {
        let limiter = Arc::new(WriteRateLimiter::new(Limits::default()));
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
        let limiter = Arc::new(WriteRateLimiter::new(Limits::default()));
        limiter.pause(Duration::from_secs(7), Timestamp::UNIX_EPOCH);
        let began = Instant::now();
        write_all(&limiter, 1, Duration::ZERO).await;
        assert_eq!(began.elapsed(), Duration::from_secs(7));
    }
}
