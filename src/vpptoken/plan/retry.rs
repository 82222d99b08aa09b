//! When a step that failed is tried again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::backoff::Backoff;
use crate::graph::{ErrorKind, GraphError};
use crate::vpptoken::observed::{Attempts, Failure, Inputs, StepKind, TryStart};

/// What Graph refuses, it refuses again, until someone changes something.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(3600));
/// Credentials and permissions are corrected within minutes.
const ACCESS: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
/// What may pass by itself.
const TRANSIENT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

impl Attempts {
    /// A step failed: it is delayed, each time for longer, until it succeeds or its inputs change. `jitter` is from 0
    /// to 1.
    pub(crate) fn record_failure(
        &mut self,
        kind: StepKind,
        error: &GraphError,
        inputs: Inputs,
        start: TryStart,
        now: Timestamp,
        jitter: f64,
    ) {
        let before = self.failures.get(&kind);
        let before = before.filter(|before| before.inputs.is_same_for(kind, &inputs));
        let count = before.map_or(1, |before| before.count.saturating_add(1));
        let before = before.filter(|before| before.kind.is_about_access() == error.kind.is_about_access());
        let failure = Failure {
            kind: error.kind,
            message: error.summary(),
            since: before.map_or(now, |before| before.since),
            began: start.began,
            began_wall: start.began_wall,
            last_sync: start.last_sync,
            at: now,
            count,
            not_before: now.saturating_add(delay(error, count, jitter)).unwrap_or(Timestamp::MAX),
            // Reading a token changes nothing.
            maybe_executed: kind != StepKind::Confirm && error.maybe_executed(),
            inputs,
        };
        self.failures.insert(kind, failure);
    }
}

/// How long a failed step waits: what Graph asks for, or a time that doubles, with jitter so that objects that failed
/// together are not retried together.
fn delay(error: &GraphError, count: u32, jitter: f64) -> SignedDuration {
    let backoff = match error.kind {
        ErrorKind::Refused | ErrorKind::NotFound => REFUSED,
        ErrorKind::Credentials | ErrorKind::Forbidden | ErrorKind::Unauthorized => ACCESS,
        ErrorKind::Unreachable
        | ErrorKind::OutcomeUnknown
        | ErrorKind::Throttled
        | ErrorKind::Unavailable
        | ErrorKind::Conflict => TRANSIENT,
    };
    let own = backoff.delay(count).mul_f64(0.8 + 0.4 * jitter);
    SignedDuration::try_from(own.max(error.retry_after.unwrap_or_default())).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_that_failed_has_changed_nothing() {
        let failed = |kind| {
            let inputs = Inputs { generation: 1, sha256: None, sync_request: None, upload_request: None };
            let (mut attempts, at) = (Attempts::default(), Timestamp::UNIX_EPOCH);
            let error = GraphError::new(ErrorKind::Unavailable, "x");
            let start = TryStart { began: at, began_wall: at, last_sync: None };
            attempts.record_failure(kind, &error, inputs, start, at, 0.0);
            attempts.failures[&kind].maybe_executed
        };
        assert!(!failed(StepKind::Confirm) && failed(StepKind::Upload));
    }

    #[test]
    fn a_delay_grows_with_jitter_up_to_its_limit() {
        let error = GraphError::new(ErrorKind::OutcomeUnknown, "x");
        for (count, low, high) in [(1, 0.8, 1.2), (2, 1.6, 2.4), (5, 12.8, 19.2), (50, 240.0, 360.0)] {
            for jitter in [0.0, 0.5, 1.0] {
                let waited = delay(&error, count, jitter).as_secs_f64();
                assert!((low..=high).contains(&waited), "{count}: {waited}");
            }
        }
        let asked = GraphError { retry_after: Some(std::time::Duration::from_secs(7)), ..error };
        assert!(delay(&asked, 1, 0.0).as_secs_f64() >= 7.0);
    }
}
