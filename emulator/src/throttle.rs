//! Request limits: how many requests were let through in the sliding window, and how long the next one has to wait.

use crate::settings::{RetryAfter, Settings, Throttle};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    tenant: String,
    /// `None` counts all apps of the tenant.
    app: Option<String>,
    writes: bool,
}

/// When requests were let through.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    passed: HashMap<Scope, VecDeque<Instant>>,
}

impl Limiter {
    /// Lets a request through and counts it, or returns how long it has to wait. A refused request is not counted.
    pub(crate) fn pass(
        &mut self,
        tenant: &str,
        app: &str,
        write: bool,
        now: Instant,
        settings: &Settings,
    ) -> Result<(), Duration> {
        let Some(throttle) = &settings.throttle else {
            return Ok(());
        };
        let window = settings.scaled(throttle.window);
        let scopes = scopes(tenant, app, write, throttle);
        let mut wait = Duration::ZERO;
        for (scope, limit) in &scopes {
            let passed = self.passed.entry(scope.clone()).or_default();
            while passed.front().is_some_and(|at| *at + window <= now) {
                passed.pop_front();
            }
            if passed.len() >= *limit {
                // The next one fits once all but `limit - 1` of them have left the window.
                let leaves = passed.len().checked_sub((*limit).max(1)).and_then(|index| passed.get(index));
                let leaves = leaves.map_or(window, |at| (*at + window).saturating_duration_since(now));
                wait = wait.max(leaves.max(Duration::from_millis(1)));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        for (scope, _) in scopes {
            self.passed.entry(scope).or_default().push_back(now);
        }
        Ok(())
    }

    /// Forgets all requests.
    pub(crate) fn clear(&mut self) {
        self.passed.clear();
    }
}

fn scopes(tenant: &str, app: &str, write: bool, throttle: &Throttle) -> Vec<(Scope, usize)> {
    let scope = |app: Option<&str>, writes| Scope { tenant: tenant.to_owned(), app: app.map(str::to_owned), writes };
    let mut scopes =
        vec![(scope(Some(app), false), throttle.requests_per_app), (scope(None, false), throttle.requests_per_tenant)];
    if write {
        scopes.push((scope(Some(app), true), throttle.writes_per_app));
        scopes.push((scope(None, true), throttle.writes_per_tenant));
    }
    scopes
}

/// The `Retry-After` for a wait.
pub(crate) fn header(wait: Duration, style: RetryAfter) -> Option<String> {
    match style {
        RetryAfter::WholeSeconds => Some(format!("{:.0}", wait.as_secs_f64().ceil())),
        // Rounded up to the millisecond: a client that comes back then is let through.
        RetryAfter::Fractional => Some(format!("{:.3}", (wait.as_secs_f64() * 1000.0).ceil() / 1000.0)),
        RetryAfter::Absent => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hundred_and_first_write_waits_for_the_first_to_leave_the_window() {
        let (mut limiter, settings, start) = (Limiter::default(), Settings::default(), Instant::now());
        for write in 0..100 {
            assert_eq!(limiter.pass("t", "a", true, start + Duration::from_millis(write), &settings), Ok(()));
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(limiter.pass("t", "a", true, later, &settings), Err(Duration::from_secs(19)));
        assert_eq!(limiter.pass("t", "a", false, later, &settings), Ok(()), "reads have their own limit");
        assert_eq!(limiter.pass("t", "b", true, later, &settings), Ok(()), "so has another app");
        assert_eq!(limiter.pass("t", "a", true, start + Duration::from_secs(20), &settings), Ok(()));
    }

    #[test]
    fn apps_of_one_tenant_share_the_limit_of_the_tenant() {
        let (mut limiter, settings, now) = (Limiter::default(), Settings::default(), Instant::now());
        for write in 0..200 {
            let app = if write % 2 == 0 { "a" } else { "b" };
            assert_eq!(limiter.pass("t", app, true, now, &settings), Ok(()));
        }
        assert!(limiter.pass("t", "c", true, now, &settings).is_err());
        assert!(limiter.pass("u", "c", true, now, &settings).is_ok());
    }

    #[test]
    fn a_wait_is_told_in_the_style_asked_for() {
        let wait = Duration::from_micros(2_127_600);
        assert_eq!(header(wait, RetryAfter::WholeSeconds).as_deref(), Some("3"));
        assert_eq!(header(wait, RetryAfter::Fractional).as_deref(), Some("2.128"));
        assert_eq!(header(wait, RetryAfter::Absent), None);
    }
}
