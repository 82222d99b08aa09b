//! How many writes may be sent: Graph's limit for Intune enrolment resources, in order of urgency.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock;

/// Microsoft documents 100 writes in any 20 s per app and tenant; some are left for others.
const MOST: usize = 90;
const WINDOW: Duration = Duration::from_secs(20);
/// Whoever waited this long is as urgent as anyone, so that nothing starves.
const PATIENCE: Duration = Duration::from_secs(60);

/// How urgent a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// A person waits for it: a new object, a renewal, a requested sync, a deletion.
    Person,
    /// A scheduled sync.
    Schedule,
}

/// The writes of one app registration in one tenant.
#[derive(Debug, Default)]
pub struct Budget {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Writes that are on their way: they may arrive at any moment.
    on_their_way: usize,
    /// When writes were answered. They arrived before that, so they have left Graph's window when they leave ours.
    answered: VecDeque<Instant>,
    /// By the clock that counts, and by the one that is shown.
    paused_until: Option<(Instant, Timestamp)>,
    waiting: Vec<Waiting>,
    next_number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    priority: Priority,
    number: u64,
    since: Instant,
}

impl Waiting {
    fn rank(&self, now: Instant) -> (Priority, u64) {
        let priority = if now.duration_since(self.since) >= PATIENCE { Priority::Person } else { self.priority };
        (priority, self.number)
    }
}

impl Budget {
    /// Waits until a write may be sent. It counts from now until a window after what is returned was dropped, which is to
    /// happen when the write was answered: Graph counts when it arrives, and on a slow way that may be any time between.
    pub async fn acquire(self: &Arc<Self>, priority: Priority) -> Sent {
        let place = self.queue(priority);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.try_send(place.number) {
                Turn::Now => return Sent { budget: Arc::clone(self), is_used: false },
                Turn::At(time) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(time) => {}
                        () = changed => {}
                    }
                }
                Turn::AfterOthers => {
                    // Rank changes with time, so look again even if nobody says so.
                    tokio::select! {
                        () = tokio::time::sleep(PATIENCE / 4) => {}
                        () = changed => {}
                    }
                }
            }
        }
    }

    /// Graph asked to wait: nothing is sent until then.
    pub fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        if state.paused_until.is_none_or(|(already, _)| already < until) {
            let shown = clock::now().saturating_add(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
            state.paused_until = Some((until, shown.unwrap_or(Timestamp::MAX)));
        }
    }

    /// How long nothing is sent because Graph asked to wait.
    pub fn paused(&self) -> Option<Duration> {
        self.state().paused_until.and_then(|(until, _)| until.checked_duration_since(Instant::now()))
    }

    /// Until when that is; the same time at every look.
    pub fn paused_until(&self) -> Option<Timestamp> {
        let state = self.state();
        state.paused_until.filter(|(until, _)| *until > Instant::now()).map(|(_, shown)| shown)
    }

    fn queue(&self, priority: Priority) -> Place<'_> {
        let mut state = self.state();
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.push(Waiting { priority, number, since: Instant::now() });
        Place { budget: self, number }
    }

    fn try_send(&self, number: u64) -> Turn {
        let now = Instant::now();
        let mut state = self.state();
        let first = state.waiting.iter().min_by_key(|waiting| waiting.rank(now)).map(|waiting| waiting.number);
        if first != Some(number) {
            return Turn::AfterOthers;
        }
        if let Some((until, _)) = state.paused_until.filter(|(until, _)| *until > now) {
            return Turn::At(until);
        }
        while state.answered.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            state.answered.pop_front();
        }
        if state.on_their_way + state.answered.len() < MOST {
            state.on_their_way += 1;
            return Turn::Now;
        }
        state.answered.front().map_or(Turn::AfterOthers, |oldest| Turn::At(*oldest + WINDOW))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leave to send one write. Dropped when the write was answered, or without having been used, which costs nothing.
#[derive(Debug)]
#[must_use = "leave that is dropped is given back"]
pub struct Sent {
    budget: Arc<Budget>,
    is_used: bool,
}

impl Sent {
    /// The write is sent now.
    pub fn use_up(&mut self) {
        self.is_used = true;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.on_their_way = state.on_their_way.saturating_sub(1);
        if self.is_used {
            state.answered.push_back(Instant::now());
        }
        drop(state);
        self.budget.changed.notify_waiters();
    }
}

enum Turn {
    Now,
    At(Instant),
    AfterOthers,
}

/// A place in the queue, left when dropped: also by whoever gives up waiting.
struct Place<'a> {
    budget: &'a Budget,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.budget.state().waiting.retain(|waiting| waiting.number != self.number);
        self.budget.changed.notify_waiters();
    }
}

/// The budgets that tenant objects share once their own credentials were accepted: Graph counts per app and tenant.
#[derive(Debug, Default)]
pub struct Budgets {
    by_app: Mutex<HashMap<(String, String, String), Arc<Budget>>>,
}

impl Budgets {
    /// The budget of an app registration in a tenant, at one Graph host.
    pub fn of(&self, graph: &str, tenant_id: &str, client_id: &str) -> Arc<Budget> {
        let key = (graph.to_owned(), tenant_id.to_lowercase(), client_id.to_lowercase());
        Arc::clone(self.by_app.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn send(budget: &Arc<Budget>, priority: Priority) {
        budget.acquire(priority).await.use_up();
    }

    #[tokio::test(start_paused = true)]
    async fn leave_that_is_not_used_costs_nothing() {
        let budget = Arc::new(Budget::default());
        let began = Instant::now();
        for _ in 0..MOST * 3 {
            drop(budget.acquire(Priority::Person).await);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_holds_more_than_the_limit() {
        let budget = Arc::new(Budget::default());
        let began = Instant::now();
        let mut sent = Vec::new();
        for _ in 0..MOST * 3 {
            send(&budget, Priority::Person).await;
            sent.push(began.elapsed());
        }
        for (n, time) in sent.iter().enumerate() {
            let in_window = sent[n..].iter().filter(|later| **later < *time + WINDOW).count();
            assert!(in_window <= MOST, "{in_window} writes from {time:?}");
        }
        assert!(sent[MOST - 1] < Duration::from_millis(50), "{:?}", sent[MOST - 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_counts_until_a_window_after_its_answer() {
        let budget = Arc::new(Budget::default());
        let began = Instant::now();
        let mut on_their_way = Vec::new();
        for _ in 0..MOST {
            let mut sent = budget.acquire(Priority::Person).await;
            sent.use_up();
            on_their_way.push(sent);
        }
        // They may arrive as late as this.
        let slow = Duration::from_secs(7);
        tokio::spawn(async move {
            tokio::time::sleep(slow).await;
            drop(on_their_way);
        });
        send(&budget, Priority::Person).await;
        assert!(began.elapsed() >= slow + WINDOW, "{:?}", began.elapsed());
        assert!(began.elapsed() < slow + WINDOW * 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_comes_before_a_schedule_that_waited_longer() {
        let budget = Arc::new(Budget::default());
        for _ in 0..MOST {
            send(&budget, Priority::Schedule).await;
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for priority in [Priority::Schedule, Priority::Person] {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                send(&budget, priority).await;
                order.lock().unwrap().push(priority);
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [Priority::Person, Priority::Schedule]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_is_sent_although_people_never_stop() {
        let budget = Arc::new(Budget::default());
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let people: Vec<_> = (0..MOST * 3)
            .map(|_| {
                let (budget, stop) = (Arc::clone(&budget), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        send(&budget, Priority::Person).await;
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        send(&budget, Priority::Schedule).await;
        assert!(began.elapsed() <= PATIENCE * 2, "{:?}", began.elapsed());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for task in people {
            task.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody() {
        let budget = Arc::new(Budget::default());
        budget.pause(Duration::from_secs(7));
        let began = Instant::now();
        send(&budget, Priority::Person).await;
        assert!(began.elapsed() >= Duration::from_secs(7));
    }
}
