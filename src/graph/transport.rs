//! Carries one HTTP request to Microsoft and brings back the whole answer: over the network, or in process for a simulation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::error::{ErrorKind, GraphError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole request may take, its answer included; there is no default in the HTTP client.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer whose head arrived. If its body broke off, the body is that error.
#[derive(Debug)]
pub struct Received {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Result<Vec<u8>, GraphError>,
}

impl Received {
    /// The text of a header, if it is there and is text.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }
}

/// Answers a request in process. An error means that there was no answer; its kind says whether the request can have arrived.
pub(crate) type Exchange =
    Arc<dyn Fn(reqwest::Request) -> BoxFuture<'static, Result<Received, GraphError>> + Send + Sync>;

/// The connection to Microsoft. Clones share it.
#[derive(Clone)]
pub struct Transport(Arc<Kind>);

enum Kind {
    Network(Mutex<reqwest::Client>),
    InProcess { builder: reqwest::Client, exchange: Exchange },
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &*self.0 {
            Kind::Network(_) => "Transport::network",
            Kind::InProcess { .. } => "Transport::in_process",
        })
    }
}

impl Transport {
    /// Over the network.
    ///
    /// # Errors
    /// When the HTTP client can't be built, for example without any root certificate on the machine.
    pub fn network() -> Result<Self, GraphError> {
        Ok(Self(Arc::new(Kind::Network(Mutex::new(http_client()?)))))
    }

    /// Without a network: each request is answered by `exchange`, within the same time limit. `builder` only makes requests.
    pub fn in_process(builder: reqwest::Client, exchange: Exchange) -> Self {
        Self(Arc::new(Kind::InProcess { builder, exchange }))
    }

    /// Begins a request.
    pub(super) fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        match &*self.0 {
            Kind::Network(client) => client.lock().unwrap_or_else(PoisonError::into_inner).request(method, url),
            Kind::InProcess { builder, .. } => builder.request(method, url),
        }
    }

    /// Sends a request and waits for the whole answer.
    pub(super) async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Received, GraphError> {
        let received = match &*self.0 {
            Kind::Network(_) => {
                let response = request.send().await.map_err(|error| GraphError::of_transport(&error))?;
                let (status, headers) = (response.status(), response.headers().clone());
                let body = response.bytes().await.map_err(|error| GraphError::of_transport(&error));
                Received { status, headers, body: body.map(|bytes| bytes.to_vec()) }
            }
            Kind::InProcess { exchange, .. } => {
                let request = request.build().map_err(|error| GraphError::of_transport(&error))?;
                let answered = tokio::time::timeout(REQUEST_TIMEOUT, exchange(request)).await;
                answered.map_err(|_| GraphError::timed_out())??
            }
        };
        if received.status == StatusCode::SERVICE_UNAVAILABLE {
            self.reconnect();
        }
        Ok(received)
    }

    /// Microsoft's advice: after a 503, retry on a new connection.
    fn reconnect(&self) {
        if let Kind::Network(client) = &*self.0
            && let Ok(fresh) = http_client()
        {
            *client.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }
}

fn http_client() -> Result<reqwest::Client, GraphError> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("vpptoken-operator/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| GraphError::new(ErrorKind::Unreachable, format!("the HTTP client can't be built: {error}")))
}
