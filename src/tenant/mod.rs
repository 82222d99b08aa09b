//! A live session per tenant: its access, its snapshot of all tokens, and the budget that its writes go through.
//! Knows Graph and what users write, but sends nothing to Kubernetes.

pub mod budget;
pub mod clock;
pub mod directory;
pub mod session;
pub mod snapshot;

use jiff::SignedDuration;

pub use budget::{Budget, Budgets, Priority, Sent};
pub use directory::{Access, Directory, Tenant, TenantKey, Unusable};
pub use session::{Change, OnChange, Problem, Session, SessionSettings, TenantView};
pub use snapshot::{Entry, Field, Merged, Snapshot, Written};

/// Times that the rules speak of. They are settings so that tests need not wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How long after a write Graph may still show the old value.
    pub settling: SignedDuration,
    /// How long to look for the result of a create whose answer was lost.
    pub unknown_outcome: SignedDuration,
}

impl Default for Timings {
    fn default() -> Self {
        Self { settling: SignedDuration::from_secs(60), unknown_outcome: SignedDuration::from_mins(15) }
    }
}
