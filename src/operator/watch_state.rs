//! The state of the watches, for the probes, the metrics and the start. A watch that fails is logged once, not at each
//! try.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kube::runtime::watcher;
use tokio::sync::watch;

use super::metrics::Metrics;
use super::watches::Scope;
use crate::clock::Clock;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    VppTokens,
    Secrets,
    Namespaces,
    GraphTenants,
    ClusterGraphTenants,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::VppTokens => "VppTokens",
            Self::Secrets => "Secrets",
            Self::Namespaces => "Namespaces",
            Self::GraphTenants => "GraphTenants",
            Self::ClusterGraphTenants => "ClusterGraphTenants",
        }
    }
}

/// The state of one watch.
#[derive(Clone, Debug)]
pub(super) struct WatchState {
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    /// Its cache has had a complete list.
    pub(super) is_read: bool,
    /// Since when it fails at each try.
    pub(super) failing_since: Option<Timestamp>,
    /// The API server answered that it may not be read, or does not exist: another try may take long to succeed.
    pub(super) is_refused: bool,
}

impl WatchState {
    /// Whether its cache is up to date.
    pub(super) fn is_up(&self) -> bool {
        self.is_read && self.failing_since.is_none()
    }
}

/// All watches. Clones are the same ones.
#[derive(Clone)]
pub(super) struct Watches {
    states: Arc<watch::Sender<Vec<WatchState>>>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Watches {
    pub(super) fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { states: Arc::new(watch::Sender::new(Vec::new())), metrics, clock }
    }

    /// Adds a watch, which was not tried yet.
    pub(super) fn add(&self, kind: Kind, scope: &Scope) -> Watch {
        let mut number = 0;
        self.states.send_modify(|states| {
            number = states.len();
            let scope = scope.clone();
            states.push(WatchState { kind, scope, is_read: false, failing_since: None, is_refused: false });
        });
        Watch { watches: self.clone(), kind, scope: scope.clone(), number, logged: Arc::default() }
    }

    /// Their states now, and from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Vec<WatchState>> {
        self.states.subscribe()
    }

    /// Whether the cache of a kind that holds a namespace was read. Cluster-wide kinds are in no namespace.
    pub(super) fn is_read(&self, kind: Kind, namespace: &str) -> bool {
        is_read(&self.states.borrow(), kind, namespace)
    }

    /// Whether a namespace may not be read, or does not exist.
    pub(super) fn is_refused(&self, kind: Kind, namespace: &str) -> bool {
        self.states
            .borrow()
            .iter()
            .any(|state| state.kind == kind && state.scope.contains(namespace) && state.is_refused)
    }
}

/// Whether the cache of a kind that holds a namespace was read.
pub(super) fn is_read(states: &[WatchState], kind: Kind, namespace: &str) -> bool {
    states.iter().any(|state| state.kind == kind && state.scope.contains(namespace) && state.is_read)
}

/// One watch, which reports its state.
#[derive(Clone)]
pub(super) struct Watch {
    watches: Watches,
    kind: Kind,
    scope: Scope,
    number: usize,
    /// The failure that was logged last.
    logged: Arc<Mutex<Option<String>>>,
}

impl Watch {
    /// Its cache has a complete list.
    pub(super) fn read(&self) {
        self.change(|state| !std::mem::replace(&mut state.is_read, true));
        self.worked();
    }

    /// The API server sent what it was asked for.
    pub(super) fn worked(&self) {
        self.change(|state| {
            let failed = state.failing_since.take().is_some();
            std::mem::take(&mut state.is_refused) || failed
        });
        if self.logged().take().is_some() {
            tracing::info!(watch = self.kind.as_str(), namespace = self.namespace(), "a watch works again");
        }
    }

    /// A try failed.
    pub(super) fn failed(&self, error: &watcher::Error) {
        self.watches.metrics.watch_failed(self.kind, &self.scope);
        let (is_refused, now) = (is_refusal(error), self.watches.clock.now());
        self.change(|state| {
            let is_news = state.failing_since.is_none() || state.is_refused != is_refused;
            state.failing_since.get_or_insert(now);
            state.is_refused = is_refused;
            is_news
        });
        let (watch, namespace, text) = (self.kind.as_str(), self.namespace(), error.to_string());
        if self.logged().replace(text.clone()).as_ref() == Some(&text) {
            tracing::debug!(watch, namespace, error = text, "a watch still fails");
        } else {
            tracing::warn!(watch, namespace, error = text, "a watch failed; it is tried again");
        }
    }

    fn namespace(&self) -> &str {
        self.scope.0.as_deref().unwrap_or_default()
    }

    fn logged(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes its state; `change` returns whether that is new.
    fn change(&self, change: impl FnOnce(&mut WatchState) -> bool) {
        self.watches.states.send_if_modified(|states| states.get_mut(self.number).is_some_and(change));
    }
}

/// Whether the API server understood the request and refused it.
fn is_refusal(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn error(code: u16) -> watcher::Error {
        watcher::Error::InitialListFailed(kube::Error::Api(Status { code, ..Status::default() }.boxed()))
    }

    #[test]
    fn a_watch_fails_until_it_works_and_that_is_logged_once() {
        let watches = Watches::new(Arc::default(), Clock::system());
        let watch = watches.add(Kind::Secrets, &Scope(Some("a".into())));
        let mut states = watches.subscribe();
        let state = |states: &watch::Receiver<Vec<WatchState>>| states.borrow()[0].clone();
        assert!(!state(&states).is_up(), "not tried yet");
        watch.failed(&error(403));
        let first = state(&states).failing_since;
        assert!(first.is_some() && states.has_changed().unwrap());
        assert!(watches.is_refused(Kind::Secrets, "a") && !watches.is_refused(Kind::Secrets, "b"));
        states.mark_unchanged();
        watch.failed(&error(403));
        assert!(state(&states).failing_since == first && !states.has_changed().unwrap());
        watch.failed(&error(500));
        assert!(state(&states).failing_since == first && !watches.is_refused(Kind::Secrets, "a"));
        assert!(!watches.is_read(Kind::Secrets, "a"));
        watch.read();
        assert!(state(&states).is_up() && watches.is_read(Kind::Secrets, "a"));
        watch.failed(&error(410));
        assert!(!state(&states).is_up() && watches.is_read(Kind::Secrets, "a"), "what it read is still there");
        watch.worked();
        assert!(state(&states).is_up());
    }
}
