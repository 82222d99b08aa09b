//! How many writes may be sent: Graph's limit for Intune enrolment resources, in order of urgency.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Microsoft documents 100 writes in any 20 s per app and tenant; some are left for others.
const MAX_WRITES: usize = 90;
const WINDOW: Duration = Duration::from_secs(20);
/// After this wait a write is as urgent as any other, so that none starves.
const PROMOTE_AFTER: Duration = Duration::from_secs(60);
/// Microsoft: without `Retry-After`, wait 3 s, doubling to 180 s.
const THROTTLED_WAIT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(180));

/// How urgent a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// A person waits for it: a new object, a renewal, a requested sync, a deletion.
    Interactive,
    /// A scheduled sync.
    Scheduled,
}

/// The writes of one app registration in one tenant.
#[derive(Debug, Default)]
pub struct WriteRateLimiter {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Writes in flight: they may arrive at any moment.
    in_flight: usize,
    /// When writes were answered. They arrived before that, so Graph's window for them has ended when ours has.
    answered: VecDeque<Instant>,
    /// By the clock that is measured with, and by the one that is shown.
    paused_until: Option<(Instant, Timestamp)>,
    /// How many pauses in a row Graph asked for: each makes the next one longer.
    throttled: u32,
    waiting: Vec<Waiting>,
    next_number: u64,
}

impl State {
    fn is_after_pause(&self, began: Instant) -> bool {
        self.paused_until.is_none_or(|(until, _)| began >= until)
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    priority: Priority,
    number: u64,
    since: Instant,
}

impl Waiting {
    fn rank(&self, now: Instant) -> (Priority, u64) {
        let priority =
            if now.duration_since(self.since) >= PROMOTE_AFTER { Priority::Interactive } else { self.priority };
        (priority, self.number)
    }
}

impl WriteRateLimiter {
    /// Waits until a write may be sent. Drop the permit when the write was answered: the write counts against the limit
    /// until a window after that, because Graph counts from its arrival, which may be at any time before the answer.
    pub async fn acquire(self: &Arc<Self>, priority: Priority) -> WritePermit {
        let place = self.queue(priority);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.try_admit(place.number) {
                Admission::Now => return WritePermit { limiter: Arc::clone(self), is_used: false },
                Admission::At(time) => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(time) => {}
                        () = changed => {}
                    }
                }
                Admission::AfterOthers => {
                    // Ranks change with time, so check again even without a notification.
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(PROMOTE_AFTER / 4) => {}
                        () = changed => {}
                    }
                }
            }
        }
    }

    /// Graph asked to wait: nothing is sent until then. `now` is the time that the end of the pause is shown by.
    pub fn pause(&self, wait: Duration, now: Timestamp) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        if state.paused_until.is_none_or(|(already, _)| already < until) {
            let shown = now.saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
            state.paused_until = Some((until, shown.unwrap_or(Timestamp::MAX)));
        }
    }

    /// Graph throttled a request that was sent at `began`, and may have asked for a wait. A request that was sent
    /// before the last pause was over belongs to the same burst, and changes nothing.
    pub fn record_throttled(&self, began: Instant, asked: Option<Duration>, now: Timestamp) {
        let mut state = self.state();
        if state.throttled == 0 || state.is_after_pause(began) {
            state.throttled = state.throttled.saturating_add(1);
        }
        let (first, most) = THROTTLED_WAIT;
        let doubled = first.saturating_mul(2u32.saturating_pow(state.throttled.saturating_sub(1).min(20)));
        drop(state);
        self.pause(asked.filter(|asked| !asked.is_zero()).unwrap_or(doubled.min(most)), now);
    }

    /// Graph carried out a request that was sent at `began`: if that was after the last pause, the next one is short
    /// again.
    pub fn record_success(&self, began: Instant) {
        let mut state = self.state();
        if state.is_after_pause(began) {
            state.throttled = 0;
        }
    }

    /// How long nothing is sent because Graph asked to wait.
    pub fn paused(&self) -> Option<Duration> {
        let paused = self.state().paused_until.and_then(|(until, _)| until.checked_duration_since(Instant::now()));
        paused.filter(|wait| !wait.is_zero())
    }

    /// Until when that is; the same time at every call.
    pub fn paused_until(&self) -> Option<Timestamp> {
        let state = self.state();
        state.paused_until.filter(|(until, _)| *until > Instant::now()).map(|(_, shown)| shown)
    }

    fn queue(&self, priority: Priority) -> Place<'_> {
        let mut state = self.state();
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.push(Waiting { priority, number, since: Instant::now() });
        Place { limiter: self, number }
    }

    fn try_admit(&self, number: u64) -> Admission {
        let now = Instant::now();
        let mut state = self.state();
        let first = state.waiting.iter().min_by_key(|waiting| waiting.rank(now)).map(|waiting| waiting.number);
        if first != Some(number) {
            return Admission::AfterOthers;
        }
        if let Some((until, _)) = state.paused_until.filter(|(until, _)| *until > now) {
            return Admission::At(until);
        }
        while state.answered.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            state.answered.pop_front();
        }
        if state.in_flight + state.answered.len() < MAX_WRITES {
            state.in_flight += 1;
            return Admission::Now;
        }
        state.answered.front().map_or(Admission::AfterOthers, |oldest| Admission::At(*oldest + WINDOW))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit to send one write. Drop it when the write was answered; dropping an unused one costs nothing.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct WritePermit {
    limiter: Arc<WriteRateLimiter>,
    is_used: bool,
}

impl WritePermit {
    /// The write is sent now.
    pub fn mark_sent(&mut self) {
        self.is_used = true;
    }
}

impl Drop for WritePermit {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        if self.is_used {
            state.answered.push_back(Instant::now());
        }
        drop(state);
        self.limiter.changed.notify_waiters();
    }
}

enum Admission {
    Now,
    At(Instant),
    AfterOthers,
}

/// A place in the queue. Dropping it, also by giving up the wait, frees it.
struct Place<'a> {
    limiter: &'a WriteRateLimiter,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.limiter.state().waiting.retain(|waiting| waiting.number != self.number);
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
    use super::*;

    async fn send(limiter: &Arc<WriteRateLimiter>, priority: Priority) {
        limiter.acquire(priority).await.mark_sent();
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_is_not_used_costs_nothing() {
        let limiter = Arc::new(WriteRateLimiter::default());
        let began = Instant::now();
        for _ in 0..MAX_WRITES * 3 {
            drop(limiter.acquire(Priority::Interactive).await);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_holds_more_than_the_limit() {
        let limiter = Arc::new(WriteRateLimiter::default());
        let began = Instant::now();
        let mut sent = Vec::new();
        for _ in 0..MAX_WRITES * 3 {
            send(&limiter, Priority::Interactive).await;
            sent.push(began.elapsed());
        }
        for (n, time) in sent.iter().enumerate() {
            let in_window = sent[n..].iter().filter(|later| **later < *time + WINDOW).count();
            assert!(in_window <= MAX_WRITES, "{in_window} writes from {time:?}");
        }
        assert!(sent[MAX_WRITES - 1] < Duration::from_millis(50), "{:?}", sent[MAX_WRITES - 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_counts_until_a_window_after_its_answer() {
        let limiter = Arc::new(WriteRateLimiter::default());
        let began = Instant::now();
        let mut in_flight = Vec::new();
        for _ in 0..MAX_WRITES {
            let mut sent = limiter.acquire(Priority::Interactive).await;
            sent.mark_sent();
            in_flight.push(sent);
        }
        // They may arrive as late as this.
        let slow = Duration::from_secs(7);
        tokio::spawn(async move {
            tokio::time::sleep(slow).await;
            drop(in_flight);
        });
        send(&limiter, Priority::Interactive).await;
        assert!(began.elapsed() >= slow + WINDOW, "{:?}", began.elapsed());
        assert!(began.elapsed() < slow + WINDOW * 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_comes_before_a_schedule_that_waited_longer() {
        let limiter = Arc::new(WriteRateLimiter::default());
        for _ in 0..MAX_WRITES {
            send(&limiter, Priority::Scheduled).await;
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for priority in [Priority::Scheduled, Priority::Interactive] {
            let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                send(&limiter, priority).await;
                order.lock().unwrap().push(priority);
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [Priority::Interactive, Priority::Scheduled]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_is_sent_although_people_never_stop() {
        let limiter = Arc::new(WriteRateLimiter::default());
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let people: Vec<_> = (0..MAX_WRITES * 3)
            .map(|_| {
                let (limiter, stop) = (Arc::clone(&limiter), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        send(&limiter, Priority::Interactive).await;
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        send(&limiter, Priority::Scheduled).await;
        assert!(began.elapsed() <= PROMOTE_AFTER * 2, "{:?}", began.elapsed());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for task in people {
            task.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_delays_every_write() {
        let limiter = Arc::new(WriteRateLimiter::default());
        limiter.pause(Duration::from_secs(7), Timestamp::UNIX_EPOCH);
        let began = Instant::now();
        send(&limiter, Priority::Interactive).await;
        assert!(began.elapsed() >= Duration::from_secs(7));
    }
}
