//! Start-up: watches, sessions, reconciles, health and metrics, until the operator is stopped.

mod controller;
mod health;
mod metrics;
mod tenants;
#[cfg(test)]
mod tests;
mod watch_state;
mod watches;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::Reporter;
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::FIELD_MANAGER;
use crate::clock::{Clock, Random};
use crate::graph::Endpoints;
use crate::tenant::TenantRegistry;
use crate::vpptoken::context::{Context, LiveAccess};
use crate::vpptoken::events::Events;
use crate::vpptoken::local_state::LocalState;
use metrics::Metrics;
use watch_state::{Kind, WatchState, Watches};

pub use crate::graph::{GraphError, Received, Transport};
pub use crate::tenant::{Limits, Timings};

/// How the operator is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the Secrets of ClusterGraphTenants live. Left out: the namespace of the Kubernetes configuration.
    pub namespace: Option<String>,
    /// The namespaces whose VppTokens are looked after. Empty: all.
    pub watch_namespaces: Vec<String>,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// Another Graph than the cloud's.
    pub graph_endpoint: Option<String>,
    /// Another login host than the cloud's.
    pub login_endpoint: Option<String>,
    /// The durations that the rules use.
    pub timings: Timings,
    /// How much is sent to Graph.
    pub limits: Limits,
}

impl Settings {
    /// Where a cloud is reached, unless the settings name other hosts.
    fn endpoints(&self, cloud: crate::api::Cloud) -> Endpoints {
        let of_cloud = Endpoints::of(cloud);
        let other = |url: &Option<String>| url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        Endpoints {
            login: other(&self.login_endpoint).unwrap_or(of_cloud.login),
            graph: other(&self.graph_endpoint).unwrap_or(of_cloud.graph),
        }
    }
}

/// Why the operator can't run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a kubeconfig nor a pod's ServiceAccount.
    #[error("no way to Kubernetes: {0}. Set KUBECONFIG, or run in a pod with a ServiceAccount")]
    Config(#[from] kube::config::InferConfigError),
    /// The client can't be made of it.
    #[error("the Kubernetes configuration can't be used: {0}")]
    Client(#[from] kube::Error),
    /// The HTTP client for Microsoft can't be made.
    #[error("{0}")]
    Transport(#[from] crate::graph::GraphError),
    /// The port is taken, most often.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The health server can't be started.
    #[error("health and metrics can't be served: {0}")]
    Serve(#[from] std::io::Error),
    /// A part of the operator ended, which is a fault.
    #[error("a part of the operator ended unexpectedly: {0}")]
    Ended(String),
}

/// A watch is renewed by its client before this; anything slower is a dead connection.
pub const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// There is no default: a request on a dead connection would hang for ever.
pub const REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Once everything that all reconciles need is read, other namespaces are waited for no longer than this; one that is
/// refused is not waited for.
const MAX_START_DELAY: Duration = Duration::from_secs(30);

/// Reconciles at a time, in all watched namespaces. Steps at Graph are not among them: the sessions bound these.
const WORKERS: u16 = 16;
/// Reconciles at a time in one of many watched namespaces: one that hangs must not hold up its namespace.
const MIN_WORKERS: u16 = 4;

/// What the operator needs of the world around it: what a simulation replaces, and nothing else.
#[derive(Clone)]
pub struct Environment {
    /// Kubernetes, for requests.
    pub client: Client,
    /// Kubernetes, for watches, whose answers take longer.
    pub watching: Client,
    /// Microsoft.
    pub transport: Transport,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
}

/// Runs until `stop` is cancelled.
///
/// # Errors
/// When it can't start.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), StartError> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(Duration::from_secs(30));
    config.read_timeout = Some(REQUEST_READ_TIMEOUT);
    let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config.clone())?;
    config.read_timeout = Some(WATCH_READ_TIMEOUT);
    let watching = Client::try_from(config)?;

    let listener = tokio::net::TcpListener::bind(settings.listen)
        .await
        .map_err(|error| StartError::Listen { address: settings.listen, error })?;
    let address = listener.local_addr().map_err(|error| StartError::Listen { address: settings.listen, error })?;
    tracing::info!(health = %format!("http://{address}/healthz"), "listening");
    let transport = Transport::network()?;
    let environment = Environment { client, watching, transport, clock: Clock::system(), random: Random::system() };
    run_with(settings, namespace, environment, Some(listener), stop).await
}

/// Runs with the given connections; health and metrics are served if there is a listener. `namespace` holds the Secrets
/// of ClusterGraphTenants.
///
/// # Errors
/// When a part of it ends.
pub async fn run_with(
    settings: Settings,
    namespace: String,
    environment: Environment,
    listener: Option<tokio::net::TcpListener>,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let Environment { client, watching, transport, clock, random } = environment;
    let metrics = Arc::new(Metrics::default());
    let watches = Watches::new(Arc::clone(&metrics), clock.clone());
    let (started, has_started) = watch::channel(false);

    let scopes = watches::Scope::of(&settings.watch_namespaces);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace,
        watching = %watches::Scope::names(&scopes),
        "vpptoken-operator starts"
    );
    let mut tasks = JoinSet::new();
    let (caches, tenants, sources) = watches::start(&watching, &scopes, &namespace, &watches, &mut tasks);
    let probe_state = |heartbeat| health::ProbeState {
        heartbeat,
        has_started: has_started.clone(),
        stop: stop.clone(),
        watches: watches.subscribe(),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        caches: caches.clone(),
    };
    // Serves until it is dropped.
    let _server = listener.map(|listener| health::serve(listener, probe_state, &mut tasks)).transpose()?;

    let ended = CancellationToken::new();
    let _guard = ended.clone().drop_guard();
    let local_state = LocalState::default();
    let registry = Arc::new(TenantRegistry::default());
    let queue = controller::Queue::new(&scopes);
    let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: std::env::var("HOSTNAME").ok() };
    let context = Arc::new(Context {
        clock,
        random,
        client: client.clone(),
        caches: caches.clone(),
        live_access: LiveAccess::default(),
        registry: Arc::clone(&registry),
        tenant_wanted: Arc::clone(&sources.tenants_changed),
        local_state: local_state.clone(),
        timings: settings.timings,
        events: Events::new(client.clone(), reporter),
        trigger: queue.trigger(),
        graph_tasks: TaskTracker::new(),
        ended: ended.clone(),
    });
    tasks.spawn(controller::trigger_on_changes(
        Arc::clone(&context),
        sources.secrets_changed.subscribe(),
        sources.namespaces_changed.subscribe(),
        Arc::clone(&sources.tenants_changed),
    ));
    let session_manager = tenants::SessionManager::new(
        settings,
        namespace,
        transport,
        Arc::clone(&context),
        tenants,
        watches.clone(),
        Arc::clone(&metrics),
    );

    let shared = controller::Shared {
        context: Arc::clone(&context),
        tenants_changed: Arc::clone(&sources.tenants_changed),
        metrics: Arc::clone(&metrics),
        has_started,
        watches: watches.subscribe(),
        stop: stop.clone(),
    };
    let mut controllers = JoinSet::new();
    for ((scope, cache), events) in scopes.iter().zip(&caches.tokens).zip(sources.tokens) {
        let feed = controller::Feed {
            scope: scope.clone(),
            cache: cache.clone(),
            events,
            triggers: queue.receiver(scope),
            workers: u16::try_from(scopes.len()).map_or(0, |scopes| WORKERS / scopes.max(1)).max(MIN_WORKERS),
        };
        controllers.spawn(controller::run(feed, shared.clone()));
    }
    tokio::select! {
        biased;
        () = can_start(watches.subscribe()) => {}
        () = stop.cancelled() => return Ok(()),
        Some(ended) = tasks.join_next() => return Err(ended_unexpectedly(ended)),
    }
    tracing::info!("the caches are read; reconciling");
    let _ = started.send(true);
    tasks.spawn(session_manager.run(Arc::clone(&sources.tenants_changed)));

    // After a stop, the controllers end with their last reconcile; the other parts never end.
    tokio::select! {
        biased;
        ended = async {
            while let Some(ended) = controllers.join_next().await {
                if ended.is_err() || !stop.is_cancelled() {
                    return Err(StartError::Ended("the controller of a namespace".into()));
                }
            }
            Ok(())
        } => ended,
        Some(ended) = tasks.join_next() => Err(ended_unexpectedly(ended)),
    }
}

/// Resolves when everything that all reconciles need is read, and each namespace is read, refused, or has been tried
/// for long enough.
async fn can_start(mut watches: watch::Receiver<Vec<WatchState>>) {
    let needed_by_all = |states: &Vec<WatchState>| {
        let mut needed =
            states.iter().filter(|state| matches!(state.kind, Kind::Namespaces | Kind::ClusterGraphTenants));
        needed.all(|state| state.is_read)
    };
    // The senders live as long as the operator.
    let _ = watches.wait_for(needed_by_all).await;
    let tried = |states: &Vec<WatchState>| states.iter().all(|state| state.is_read || state.is_refused);
    let _ = tokio::time::timeout(MAX_START_DELAY, watches.wait_for(tried)).await;
}

fn ended_unexpectedly(ended: Result<&'static str, tokio::task::JoinError>) -> StartError {
    StartError::Ended(ended.map_or_else(|_| "a task failed".to_owned(), str::to_owned))
}
