//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::Metrics;
use crate::vpptoken::Caches;

#[derive(Clone)]
struct Health {
    is_ready: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    caches: Caches,
}

pub(super) async fn serve(
    listener: TcpListener,
    is_ready: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    caches: Caches,
) -> &'static str {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(Health { is_ready, metrics, caches });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "health and metrics can't be served any more");
    }
    "the health server"
}

async fn ready(State(health): State<Health>) -> Response {
    if *health.is_ready.borrow() {
        "ok\n".into_response()
    } else {
        let why = "the caches are not read yet: is the API server there, are the CRDs installed, may the ServiceAccount read?\n";
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

async fn show_metrics(State(health): State<Health>) -> Response {
    match health.metrics.encode(&health.caches) {
        Ok(text) => {
            let type_ = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, type_)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
