//! A handle of a fault that was injected.

use crate::state::Shared;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A fault that was injected. Clones are the same fault.
#[derive(Clone)]
pub struct FaultHandle {
    shared: Arc<Shared>,
    number: u64,
}

impl fmt::Debug for FaultHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultHandle({})", self.number)
    }
}

impl FaultHandle {
    pub(crate) fn new(shared: Arc<Shared>, number: u64) -> Self {
        Self { shared, number }
    }

    /// Names the fault in records and in the admin API.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many requests it has hit. A hold counts a request once it waits: after the effect, if it holds after the
    /// effect.
    #[must_use]
    pub fn hits(&self) -> u32 {
        self.shared.read(|state| state.faults.hits(self.number))
    }

    /// How many requests wait at it now.
    #[must_use]
    pub fn holding(&self) -> u32 {
        self.shared.read(|state| state.faults.holding(self.number))
    }

    /// Waits until it has hit at least once; returns whether it did in time.
    #[must_use = "false means that it was not hit in time"]
    pub async fn wait_hit(&self, longest: Duration) -> bool {
        self.wait_hits(1, longest).await
    }

    /// Waits until it has hit so many requests; returns whether it did in time.
    #[must_use = "false means that it was not hit in time"]
    pub async fn wait_hits(&self, hits: u32, longest: Duration) -> bool {
        let number = self.number;
        self.shared.wait_for(move |view| view.hits(number) >= hits, longest).await
    }

    /// Releases the requests that it holds now; later ones are held again.
    pub fn release(&self) {
        self.shared.write(|state| state.faults.release(self.number));
    }

    /// Removes it and releases the requests that it holds.
    pub fn remove(&self) {
        self.shared.write(|state| state.faults.remove(self.number));
    }
}
