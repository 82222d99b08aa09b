//! A live session per tenant: its access, its snapshot of all tokens, and the rate limiter of its writes. Uses Graph
//! and the API types, and sends nothing to Kubernetes.

mod entries;
pub(crate) mod rate_limiter;
pub(crate) mod registry;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod turns;
pub(crate) mod write_queue;

use jiff::SignedDuration;

pub(crate) use entries::{Entry, Field};
pub(crate) use rate_limiter::{AppKey, IntentPermit, WritePermit, WriteRateLimiter, WriteRateLimiters};
pub(crate) use registry::{Access, Lookup, Tenant, TenantKey, TenantRegistry, Unusable};
pub(crate) use session::{Callbacks, Change, Problem, Session, SessionSettings, TenantView};
pub(crate) use snapshot::Merged;
#[cfg(test)]
pub(crate) use snapshot::Snapshot;
pub use write_queue::Limits;
pub(crate) use write_queue::Priority;

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
