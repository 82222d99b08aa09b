//! Start-up: watches, sessions, reconciles, health and metrics, until it is told to stop.

mod controller;
mod health;
mod metrics;
mod tenants;
mod watches;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::runtime::events::Reporter;
use kube::{Client, Config};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::FIELD_MANAGER;
use crate::graph::Endpoints;
use crate::tenant::{Directory, Timings};
use crate::vpptoken::Context;
use crate::vpptoken::desk::Desk;
use crate::vpptoken::events::Events;
use metrics::Metrics;

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
    /// Times that the rules speak of.
    pub timings: Timings,
}

impl Settings {
    /// Where a cloud is reached, unless it was said otherwise.
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
    /// The port is taken, most often.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A part of the operator ended, which none does by itself.
    #[error("a part of the operator ended unexpectedly: {0}")]
    Ended(String),
}

/// A watch is renewed by its client before this; anything slower is a dead connection.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// There is no default: a request on a dead connection would hang for ever.
const REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Reconciles that read or write Kubernetes at a time.
const WORKING: usize = 64;

/// Runs until `stop` says so.
///
/// # Errors
/// When it can't start.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<(), StartError> {
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
    let metrics = Arc::new(Metrics::default());
    let (ready, is_ready) = watch::channel(false);

    let scopes = watches::Scope::of(&settings.watch_namespaces);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace,
        watching = %watches::Scope::names(&scopes),
        health = %format!("http://{address}/healthz"),
        "vpptoken-operator starts"
    );
    let mut tasks = JoinSet::new();
    let (caches, tenants, sources) = watches::start(&watching, &scopes, &namespace, &mut tasks);
    tasks.spawn(health::serve(listener, is_ready.clone(), Arc::clone(&metrics), caches.clone()));

    let desk = Desk::default();
    let directory = Arc::new(Directory::default());
    let queue = controller::Queue::new(&scopes);
    let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: std::env::var("HOSTNAME").ok() };
    let context = Arc::new(Context {
        client: client.clone(),
        caches: caches.clone(),
        directory: Arc::clone(&directory),
        tenant_wanted: Arc::clone(&sources.tenants_changed),
        desk: desk.clone(),
        timings: settings.timings,
        events: Events::new(client.clone(), reporter),
        wake: queue.wake(),
        working: Semaphore::new(WORKING),
    });
    tasks.spawn(controller::wake_on_changes(
        Arc::clone(&context),
        sources.secrets_changed.subscribe(),
        sources.namespaces_changed.subscribe(),
    ));
    let keeper = tenants::Keeper::new(settings, namespace, client, Arc::clone(&context), tenants, Arc::clone(&metrics));

    let (read, mut tokens_read) = watch::channel(0);
    let all_read = async {
        // Not by the caches' own signal: it wakes one waiter, and the reconciles wait for it.
        let _ = tokens_read.wait_for(|read| *read == scopes.len()).await;
        join_all(caches.secrets.iter().map(|store| store.wait_until_ready())).await;
        let _ = caches.namespaces.wait_until_ready().await;
        keeper.wait_until_ready().await;
    };
    let mut stopped = stop.clone();
    let shared = controller::Shared {
        context: Arc::clone(&context),
        tenants_changed: Arc::clone(&sources.tenants_changed),
        metrics: Arc::clone(&metrics),
        read,
        all_read: is_ready.clone(),
        stop: stop.clone(),
    };
    let mut controllers = JoinSet::new();
    for ((scope, store), events) in scopes.iter().zip(&caches.tokens).zip(sources.tokens) {
        let feed = controller::Feed { store: store.clone(), events, wakes: queue.receiver(scope) };
        controllers.spawn(controller::run(feed, shared.clone()));
    }
    tokio::select! {
        () = all_read => {}
        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
    }
    tracing::info!("all caches are read; reconciling");
    let _ = ready.send(true);
    tasks.spawn(keeper.run(Arc::clone(&sources.tenants_changed)));

    // The controllers end when they are told to stop and their last reconcile is done; the other parts never do.
    tokio::select! {
        ended = async {
            while let Some(ended) = controllers.join_next().await {
                if ended.is_err() || !*stop.borrow() {
                    return Err(StartError::Ended("the controller of a namespace".into()));
                }
            }
            Ok(())
        } => ended,
        Some(ended) = tasks.join_next() => {
            let what = match ended {
                Ok(name) => name.to_owned(),
                Err(_) => "a task failed".to_owned(),
            };
            Err(StartError::Ended(what))
        }
    }
}
