//! `/healthz`, `/readyz` and `/metrics`, on a thread of their own: they answer also while the runtime is stuck.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::watch_state::{Kind, WatchState};
use crate::clock::Clock;
use crate::vpptoken::caches::Caches;

/// How often the runtime signals that it works.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// A runtime without a signal for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Without any watch of VppTokens for this long, the operator is of no use.
const BLIND_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// When the runtime last signalled that it works.
#[derive(Clone)]
pub(super) struct Heartbeat(Arc<Mutex<Instant>>);

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Beats as long as the runtime works.
    pub(super) async fn run(self) -> &'static str {
        loop {
            *self.last() = Instant::now();
            tokio::time::sleep(BEAT_INTERVAL).await;
        }
    }

    fn age(&self) -> Duration {
        self.last().elapsed()
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a restart would help, if it would. A restart does not help against a failure of one namespace, of one tenant, or
/// of Graph. A vital task that ended is not checked here: the process ends with it.
fn healthy(heartbeat_age: Duration) -> Result<(), String> {
    if heartbeat_age < STUCK_AFTER {
        return Ok(());
    }
    Err(format!("the runtime has been stuck for {} s", heartbeat_age.as_secs()))
}

/// Why the operator can't do its work, if so: never because of one namespace of several, one tenant, or Graph.
fn ready(has_started: bool, is_stopping: bool, watches: &[WatchState], now: Timestamp) -> Result<(), &'static str> {
    if is_stopping {
        return Err("it is stopping");
    }
    let mut tokens = watches.iter().filter(|watch| watch.kind == Kind::VppTokens);
    if !has_started || !tokens.clone().any(|watch| watch.is_read) {
        return Err(
            "the caches are not read yet: is the API server there, are the CRDs installed, may the ServiceAccount \
                    read?",
        );
    }
    let is_blind = |since: Timestamp| now.duration_since(since) >= BLIND_AFTER;
    if tokens.all(|watch| watch.failing_since.is_some_and(is_blind)) {
        return Err(
            "no VppTokens could be watched for 5 minutes: is the API server there, may the ServiceAccount read?",
        );
    }
    Ok(())
}

/// What the answers are made from.
#[derive(Clone)]
pub(super) struct ProbeState {
    pub(super) heartbeat: Heartbeat,
    pub(super) has_started: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
    pub(super) watches: watch::Receiver<Vec<WatchState>>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) caches: Caches,
}

/// Serves on a thread of its own until what is returned is dropped. One of the tasks ends if it can't.
pub(super) fn serve(
    listener: TcpListener,
    state: impl FnOnce(Heartbeat) -> ProbeState,
    tasks: &mut JoinSet<&'static str>,
) -> Result<oneshot::Sender<()>, std::io::Error> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heartbeat = Heartbeat::new();
    let state = state(heartbeat.clone());
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    std::thread::Builder::new().name("health".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped => {}
                Err(error) = answer(listener, state) => {
                    tracing::error!(%error, "health and metrics can't be served any more");
                }
            }
        });
        drop(end);
    })?;
    tasks.spawn(heartbeat.run());
    tasks.spawn(async {
        let _ = ended.await;
        "the health server"
    });
    Ok(stop)
}

async fn answer(listener: std::net::TcpListener, state: ProbeState) -> Result<(), std::io::Error> {
    let router = Router::new()
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
        .route("/metrics", get(show_metrics))
        .with_state(state);
    axum::serve(TcpListener::from_std(listener)?, router).await
}

async fn show_health(State(state): State<ProbeState>) -> Response {
    probe(healthy(state.heartbeat.age()))
}

async fn show_readiness(State(state): State<ProbeState>) -> Response {
    let (has_started, is_stopping) = (*state.has_started.borrow(), state.stop.is_cancelled());
    probe(ready(has_started, is_stopping, &state.watches.borrow(), state.clock.now()))
}

fn probe(outcome: Result<(), impl std::fmt::Display>) -> Response {
    match outcome {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn show_metrics(State(state): State<ProbeState>) -> Response {
    let text = state.metrics.encode(&state.caches, &state.watches.borrow());
    match text {
        Ok(text) => {
            let type_ = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, type_)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::watches::Scope;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn watch(kind: Kind, namespace: &str) -> WatchState {
        let scope = Scope(Some(namespace.into()));
        WatchState { kind, scope, is_read: true, failing_since: None, is_refused: false }
    }

    fn failing(minutes: i64, watch: WatchState) -> WatchState {
        WatchState { failing_since: Some(NOW - SignedDuration::from_mins(minutes)), ..watch }
    }

    fn unread(watch: WatchState) -> WatchState {
        WatchState { is_read: false, is_refused: true, ..failing(60, watch) }
    }

    #[test]
    fn only_a_runtime_that_is_stuck_is_not_healthy() {
        for (seconds, is_healthy) in [(0, true), (5, true), (59, true), (60, false), (3600, false)] {
            assert_eq!(healthy(Duration::from_secs(seconds)).is_ok(), is_healthy, "{seconds}");
        }
    }

    #[test]
    fn ready_from_the_first_lists_to_the_stop_while_any_vpp_tokens_can_be_watched() {
        let (a, b) = (watch(Kind::VppTokens, "a"), watch(Kind::VppTokens, "b"));
        let others = || vec![unread(watch(Kind::Secrets, "a")), unread(watch(Kind::GraphTenants, "b"))];
        for (what, has_started, is_stopping, tokens, is_ready) in [
            ("all is well", true, false, vec![a.clone(), b.clone()], true),
            ("before the start", false, false, vec![a.clone()], false),
            ("while stopping", true, true, vec![a.clone()], false),
            ("nothing was ever read", true, false, vec![unread(a.clone()), unread(b.clone())], false),
            ("one namespace was never read", true, false, vec![a.clone(), unread(b.clone())], true),
            ("one namespace fails", true, false, vec![a.clone(), failing(60, b.clone())], true),
            ("all fail for a moment", true, false, vec![failing(4, a.clone()), failing(4, b.clone())], true),
            ("one for long, one for a moment", true, false, vec![failing(60, a.clone()), failing(4, b.clone())], true),
            ("all fail for long", true, false, vec![failing(5, a.clone()), failing(60, b.clone())], false),
            ("one is all there is", true, false, vec![failing(5, a)], false),
        ] {
            let watches: Vec<WatchState> = tokens.into_iter().chain(others()).collect();
            assert_eq!(ready(has_started, is_stopping, &watches, NOW).is_ok(), is_ready, "{what}");
        }
    }
}
