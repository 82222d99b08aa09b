//! All histories of a life with one fault, and as many with two as there is time for; several threads at once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fault::{CallKind, Fault, Faults};
use crate::history::{History, Outcome};
use crate::life::Life;
use crate::world::Climate;

/// What all histories together came to.
#[derive(Default)]
pub struct Tally {
    /// Histories that were run.
    pub histories: usize,
    /// Calls in them.
    pub calls: usize,
    /// Virtual time in them.
    pub elapsed: Duration,
    /// Histories whose every fault struck.
    pub struck: usize,
    /// Kinds of faults that struck, and how often.
    pub faults: BTreeMap<Fault, usize>,
    /// Reasons that were written, and how often.
    pub reasons: BTreeMap<String, usize>,
    /// Steps that were taken, and how often.
    pub steps: BTreeMap<&'static str, usize>,
    /// States that permits were in, and how often.
    pub permits: BTreeMap<&'static str, usize>,
    /// Histories that broke a rule.
    pub broken: Vec<(History, String)>,
}

impl Tally {
    fn add(&mut self, history: &History, outcome: &Outcome) {
        self.histories += 1;
        self.calls += outcome.calls.len();
        self.elapsed += outcome.elapsed;
        self.struck += usize::from(outcome.struck.len() == history.faults.0.len());
        for fault in outcome.struck.values() {
            *self.faults.entry(*fault).or_default() += 1;
        }
        for (reason, count) in &outcome.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        for (step, count) in &outcome.steps {
            *self.steps.entry(step).or_default() += count;
        }
        for (state, count) in &outcome.permits {
            *self.permits.entry(state).or_default() += count;
        }
        if let Some(broken) = &outcome.broken {
            self.broken.push((history.explicit(outcome), broken.clone()));
        }
    }

    /// Takes over another one.
    pub fn merge(&mut self, other: Self) {
        self.histories += other.histories;
        self.calls += other.calls;
        self.elapsed += other.elapsed;
        self.struck += other.struck;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        for (step, count) in other.steps {
            *self.steps.entry(step).or_default() += count;
        }
        for (state, count) in other.permits {
            *self.permits.entry(state).or_default() += count;
        }
        self.broken.extend(other.broken);
    }
}

/// Runs histories on so many threads, until they are all run or the time is over.
pub fn run_all(histories: &[History], threads: usize, limit: Duration) -> Tally {
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    let deadline = Instant::now() + limit;
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut own = Tally::default();
                while Instant::now() < deadline {
                    let Some(history) = histories.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    own.add(history, &history.run());
                }
                tally.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A life without a fault.
pub fn kind(life: Life, climate: Climate) -> History {
    History { life, climate, faults: Faults::default(), one_in: None, seed: 7 }
}

/// All histories with one fault more than a history has, at every call that the life makes after its last one. Of the watches
/// of a kind, the first three stand for all: a watch that is renewed in quiet is like the one before.
pub fn one_more(base: &History, outcome: &Outcome) -> Vec<History> {
    let last = outcome.calls.iter().rposition(|call| call.fault.is_some());
    let later = outcome.calls.iter().take(outcome.calls_of_life).skip(last.map_or(0, |last| last + 1));
    let later = later.filter(|call| call.kind != CallKind::Watch || call.address.nth < 3);
    let mut histories = Vec::new();
    for call in later {
        let faults = Fault::ALL.into_iter().filter(|fault| fault.strikes(call.kind) && fault.strikes_in_lives());
        for fault in faults {
            histories.push(base.with(base.faults.and(call.address.clone(), fault)));
        }
    }
    histories
}

/// At most so many of a list, evenly spread over it, from an offset on.
pub fn share<T: Clone>(all: &[T], most: usize, offset: usize) -> Vec<T> {
    if all.len() <= most {
        return all.to_vec();
    }
    (0..most).map(|n| all[(n * all.len() / most + offset) % all.len()].clone()).collect()
}
