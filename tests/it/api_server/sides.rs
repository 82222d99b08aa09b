//! The two servers behind one interface: the real one over the network, the one in memory by a call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_server::{Answer, ApiServer, Definitions, Options, WatchStream};
use axum::http;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::steps::{Memory, Request};
use crate::support::{LIMIT, Plane};

/// Between two requests that wait for something.
const POLL: Duration = Duration::from_millis(50);

/// The status of a server that wants to be asked later.
const TOO_MANY_REQUESTS: u16 = 429;

/// The answer to a request.
pub(super) enum Answered {
    /// A status and a body; text where it is no JSON.
    Once(u16, Value),
    /// A watch that goes on.
    Watch(Events),
}

/// A server, with its remembered answers and open watches.
pub(super) struct Side {
    server: Server,
    pub memory: Memory,
    pub watches: BTreeMap<&'static str, Events>,
}

enum Server {
    Real(Plane, Client),
    InMemory(ApiServer),
}

impl Side {
    /// The real API server. Its client does not retry.
    pub(super) async fn real(plane: Plane) -> Self {
        let _ = plane.client().await; // installs the TLS provider
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        Self::with(Server::Real(plane, client))
    }

    /// The server in memory, with the CRDs that the control plane has.
    pub(super) fn in_memory() -> Self {
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/vpptoken-operator/crds");
        let manifests = std::fs::read_dir(crds).unwrap().map(|file| {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            serde_yaml_ng::from_str(&text).unwrap()
        });
        let definitions = Definitions::new(manifests.collect()).unwrap();
        let options = Options { history: None, ..Options::default() };
        Self::with(Server::InMemory(ApiServer::new(Arc::new(Timestamp::now), &definitions, options)))
    }

    fn with(server: Server) -> Self {
        Self { server, memory: Memory::new(), watches: BTreeMap::new() }
    }

    /// Sends a request, repeatedly if the script waits for something in its answer.
    pub(super) async fn ask(&mut self, request: &Request) -> Answered {
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            if let (Server::InMemory(server), Some(_)) = (&self.server, &request.until) {
                while server.step_controllers() {}
            }
            let answered = self.send(request).await;
            let Answered::Once(code, body) = &answered else { return answered };
            let is_it = request.until.as_ref().is_none_or(|(pointer, wanted)| {
                *code == request.code && body.pointer(pointer).unwrap_or(&Value::Null) == wanted
            });
            // A server whose caches are not filled yet wants to be asked later.
            let is_it = is_it && *code != TOO_MANY_REQUESTS;
            if is_it || tokio::time::Instant::now() > end {
                if let Some(name) = request.name {
                    self.memory.insert(name, body.clone());
                }
                return answered;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn send(&self, request: &Request) -> Answered {
        let (path, body) = request.filled(&self.memory);
        let mut prepared = http::Request::builder()
            .method(request.method)
            .uri(path)
            .header("accept", request.accept)
            .header("user-agent", request.agent);
        if !request.content_type.is_empty() {
            prepared = prepared.header("content-type", request.content_type);
        }
        match &self.server {
            Server::Real(_, client) => {
                let sent = client.send(prepared.body(body.into()).unwrap());
                let response = tokio::time::timeout(LIMIT, sent).await.expect("no answer").unwrap();
                let (parts, body) = response.into_parts();
                let chunks = axum::body::Body::new(body).into_data_stream();
                let mut chunks = chunks.map(|chunk| chunk.map(|chunk| chunk.to_vec()).unwrap_or_default()).boxed();
                let is_watch = request.path.contains("s?watch=");
                if is_watch && parts.status.is_success() {
                    return Answered::Watch(Events { source: Source::Real(chunks), rest: Vec::new() });
                }
                let mut body = Vec::new();
                while let Some(chunk) = tokio::time::timeout(LIMIT, chunks.next()).await.expect("no end") {
                    body.extend(chunk);
                }
                Answered::Once(parts.status.as_u16(), read(&body))
            }
            Server::InMemory(server) => match server.call(prepared.body(body).unwrap(), "admin") {
                Answer::Once(response) => Answered::Once(response.status().as_u16(), read(response.body())),
                Answer::Watch(watch) => {
                    Answered::Watch(Events { source: Source::InMemory(Box::new(watch)), rest: Vec::new() })
                }
            },
        }
    }

    /// Drops all versions but the current ones. The real API server serves watches from a cache of its own, which only a
    /// restart empties.
    pub(super) async fn compact(&self) {
        match &self.server {
            Server::Real(plane, _) => {
                plane.stop_api_server().await;
                plane.compact().await;
                plane.start_api_server().await;
            }
            Server::InMemory(server) => server.compact(),
        }
    }
}

fn read(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body)))
}

/// The events of a watch.
pub(super) struct Events {
    source: Source,
    rest: Vec<u8>,
}

enum Source {
    Real(BoxStream<'static, Vec<u8>>),
    InMemory(Box<WatchStream>),
}

impl Events {
    /// The next event; none when the watch has ended, or when none comes.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(read(&line));
            }
            let more = async {
                match &mut self.source {
                    Source::Real(chunks) => chunks.next().await,
                    Source::InMemory(watch) => watch.next().await.map(|event| event.line.to_vec()),
                }
            };
            self.rest.extend(tokio::time::timeout(LIMIT, more).await.ok().flatten()?);
        }
    }
}
