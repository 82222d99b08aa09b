//! Counts what the operator logs of its permits to write: nobody outside sees in which states the rate limiter was.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// The states, as the operator calls them in its log.
pub const PERMIT_STATES: [&str; 6] = ["queued", "reserved", "passed on", "expired", "returned", "served"];

/// The field that names the state.
const STATE: &str = "permit";
/// The field that says what the permit is for, and those that are counted.
const KIND: (&str, &str) = ("kind", "write");

thread_local! {
    static COUNTS: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// Begins to count, in all threads: each history runs on one.
pub fn begin() {
    // A second call changes nothing.
    let _ = tracing::subscriber::set_global_default(Counter);
}

/// What this thread has counted since the last call.
pub fn take() -> BTreeMap<&'static str, usize> {
    COUNTS.take()
}

struct Counter;

impl Subscriber for Counter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.fields().field(STATE).is_some()
    }

    fn event(&self, event: &Event<'_>) {
        let mut permit = Permit::default();
        event.record(&mut permit);
        if let Some(state) = permit.state.filter(|_| permit.is_write) {
            COUNTS.with_borrow_mut(|counts| *counts.entry(state).or_default() += 1);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Permit {
    is_write: bool,
    state: Option<&'static str>,
}

impl Visit for Permit {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == STATE {
            self.state = PERMIT_STATES.into_iter().find(|state| *state == value);
        }
        self.is_write |= (field.name(), value) == KIND;
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
