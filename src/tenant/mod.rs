//! A live session per tenant: its access, its snapshot of all tokens, and the rate limiter of its writes. Uses Graph
//! and the API types, and sends nothing to Kubernetes.

pub mod rate_limiter;
pub mod registry;
pub mod session;
pub mod snapshot;
pub mod turns;
pub mod write_queue;

use jiff::SignedDuration;

pub use rate_limiter::{IntentPermit, WritePermit, WriteRateLimiter, WriteRateLimiters};
pub use registry::{Access, Lookup, Tenant, TenantKey, TenantRegistry, Unusable};
pub use session::{Callbacks, Change, Problem, Session, SessionSettings, TenantView};
pub use snapshot::{Entry, Field, Merged, Snapshot, Written};
pub use write_queue::{Limits, Priority};

/// The durations that the rules use. They are settings so that tests need not wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How long after a write Graph may still show the old value.
    pub settling: SignedDuration,
    /// How long to look for the result of a create whose answer was lost.
    pub unknown_outcome: SignedDuration,
    /// How long a token has to be missing in Graph before it counts as vanished.
    pub vanished_after: SignedDuration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            settling: SignedDuration::from_secs(60),
            unknown_outcome: SignedDuration::from_mins(15),
            vanished_after: SignedDuration::from_mins(15),
        }
    }
}
