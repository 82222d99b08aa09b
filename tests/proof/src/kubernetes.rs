//! The operator's way to Kubernetes: kube's own client, with the read timeouts and the retry layer that it has in a cluster,
//! over the API server in memory, with the faults of the history between them. No connection is made, so none takes time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api_server::{Answer, EventType, WatchStream};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use jiff::SignedDuration;
use kube::Client;
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use serde_json::{Value, json};
use tower::retry::RetryLayer;
use tower::{Layer, Service};

use crate::fault::{CallKind, Fault};
use crate::process::Process;
use crate::world::{Begun, SYSTEM, World, path};

/// A request, and an answer that the API server made, takes so long on its way.
const LATENCY: Duration = Duration::from_millis(2);
/// The user that the operator is.
pub const USER: &str = "system:serviceaccount:vpptoken-system:vpptoken-operator";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client of one process.
pub fn client(world: &World, process: &Arc<Process>, read_timeout: Duration) -> Client {
    let way = Way { world: world.clone(), process: Arc::clone(process), read_timeout };
    Client::new(RetryLayer::new(RetryPolicy::server_retry()).layer(way), SYSTEM)
}

#[derive(Clone)]
struct Way {
    world: World,
    process: Arc<Process>,
    read_timeout: Duration,
}

impl Service<Request<Body>> for Way {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let way = self.clone();
        Box::pin(async move { way.send(request).await })
    }
}

impl Way {
    async fn send(self, request: Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        let request = Request::from_parts(parts, body);
        let call = Target::of(&request);
        if !self.process.is_alive() {
            return std::future::pending().await;
        }
        let Begun { number, fault, delay } = self.world.begin(&self.process, call.kind, call.key());
        tokio::time::sleep(LATENCY + delay).await;
        match fault {
            Some(Fault::LostBefore) => {
                self.world.answered(number, "the connection broke");
                return Err("the connection broke".into());
            }
            Some(Fault::Hang) => {
                tokio::time::sleep(self.read_timeout).await;
                self.world.answered(number, "no answer in time");
                return Err("no answer in time".into());
            }
            Some(Fault::Throttled) => return Ok(self.refuse(number, 429, "TooManyRequests")),
            Some(Fault::Failed) => return Ok(self.refuse(number, 500, "InternalError")),
            Some(Fault::Unavailable) => return Ok(self.refuse(number, 503, "ServiceUnavailable")),
            Some(Fault::KillBefore) => {
                self.world.kill(&self.process);
                return std::future::pending().await;
            }
            Some(Fault::KillLate) => {
                self.later(request, Duration::from_secs(4));
                self.world.kill(&self.process);
                return std::future::pending().await;
            }
            Some(Fault::Late) => {
                self.later(request, self.read_timeout + Duration::from_secs(15));
                tokio::time::sleep(self.read_timeout).await;
                self.world.answered(number, "no answer in time");
                return Err("no answer in time".into());
            }
            Some(fault) => self.interfere(fault, &call),
            None => {}
        }
        if !self.process.is_alive() {
            return std::future::pending().await;
        }
        if self.world.is_forbidden(&call.plural, &call.namespace) {
            return Ok(self.refuse(number, 403, "Forbidden"));
        }
        if self.world.is_api_server_down() {
            self.world.answered(number, "no connection");
            return Err("no connection".into());
        }
        let answer = self.world.api.call(request, USER);
        self.world.judge().kube_call(&self.world);
        if call.kind == CallKind::KubeRead
            && matches!(&answer, Answer::Once(response) if response.status().is_success())
        {
            self.world.judge().read(&self.world, self.process.number, &call.key());
        }
        match answer {
            Answer::Watch(stream) => {
                self.world.answered(number, "200, a stream");
                let events = deliver(stream, fault, Arc::clone(&self.process), self.read_timeout);
                let mut response = Response::new(AnswerBody(events));
                response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
                Ok(response)
            }
            Answer::Once(response) => {
                if fault == Some(Fault::KillAfter) {
                    self.world.kill(&self.process);
                    return std::future::pending().await;
                }
                tokio::time::sleep(LATENCY).await;
                if !self.process.is_alive() {
                    return std::future::pending().await;
                }
                if fault == Some(Fault::UnavailableAfter) {
                    return Ok(self.refuse(number, 504, "Timeout"));
                }
                self.world.answered(number, response.status().as_u16().to_string());
                match fault {
                    Some(Fault::LostAfter) => Err("the connection broke".into()),
                    Some(Fault::HalfBody) => Ok(response.map(|body| {
                        let half = body.slice(..body.len() / 2);
                        AnswerBody(stream::iter([Ok(half), Err("the connection broke".into())]).boxed())
                    })),
                    _ => Ok(response.map(|body| AnswerBody(stream::iter([Ok(body)]).boxed()))),
                }
            }
        }
    }

    /// The request arrives although nobody waits for its answer any more.
    fn later(&self, request: Request<Vec<u8>>, wait: Duration) {
        let world = self.world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            world.api.call(request, USER);
            world.judge().kube_call(&world);
        });
    }

    fn refuse(&self, number: usize, code: u16, reason: &str) -> Response<AnswerBody> {
        self.world.answered(number, code.to_string());
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
            "message": "a fault",
        });
        let body = Bytes::from(status.to_string());
        let mut response = Response::new(AnswerBody(stream::iter([Ok(body)]).boxed()));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        if matches!(code, 429 | 503 | 504) {
            // As an API server that sheds load; without it kube's client waits a random time that has no seed.
            response.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
        }
        response
    }

    /// What else may happen just before a request arrives.
    fn interfere(&self, fault: Fault, call: &Target) {
        let world = &self.world;
        match fault {
            Fault::Overlap => world.replace(Arc::clone(&self.process)),
            Fault::ClockBack => world.step_wall_clock(SignedDuration::from_hours(-1)),
            Fault::ClockGlitch => world.step_wall_clock_for_a_minute(SignedDuration::from_hours(48)),
            Fault::ClockDip => world.step_wall_clock_for_a_minute(SignedDuration::from_hours(-1)),
            Fault::KubeOutage => world.outage(false),
            Fault::PortalCreates => world.create_twin_in_portal(),
            Fault::Remade if call.plural == "vpptokens" && !call.name.is_empty() => remake(world, call),
            Fault::Suspends if call.plural == "vpptokens" && !call.name.is_empty() => suspend(world, call),
            Fault::Touched if call.plural == "vpptokens" => {
                let patch =
                    json!({ "metadata": { "annotations": { "example.com/note": world.call_count().to_string() } } });
                world.patch("VppToken", &call.namespace, &call.name, &patch);
            }
            Fault::Restored if call.plural == "vpptokens" => restore(world, "VppToken", &call.namespace, &call.name),
            Fault::Restored if call.plural == "clustergraphtenants" => {
                restore(world, "ClusterGraphTenant", "", &call.name);
            }
            _ => {}
        }
    }
}

/// A person deletes a VppToken and applies its manifest again, unless a finalizer keeps it.
fn remake(world: &World, call: &Target) {
    let Some(object) = world.api.value("VppToken", &call.namespace, &call.name) else { return };
    if object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty()) {
        return;
    }
    world.delete("VppToken", &call.namespace, &call.name);
    world.apply(&json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "spec": object["spec"],
        "metadata": { "name": call.name, "namespace": call.namespace, "annotations": object["metadata"]["annotations"] },
    }));
}

/// A person suspends a VppToken for five minutes, unless it is suspended, or an observer, by its manifest.
fn suspend(world: &World, call: &Target) {
    let Some(object) = world.api.value("VppToken", &call.namespace, &call.name) else { return };
    let spec = &object["spec"];
    if spec["suspend"] == true || spec["managementPolicy"] == "Observe" {
        return;
    }
    let (namespace, name, set) =
        (call.namespace.clone(), call.name.clone(), |is: bool| json!({ "spec": { "suspend": is } }));
    world.patch("VppToken", &namespace, &name, &set(true));
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(300)).await;
        if world.api.value("VppToken", &namespace, &name).is_some() {
            world.patch("VppToken", &namespace, &name, &set(false));
        }
    });
}

/// A backup tool puts back the status of two writes ago.
pub fn restore(world: &World, kind: &str, namespace: &str, name: &str) {
    let older: Vec<Value> = world
        .api
        .writes()
        .iter()
        .filter(|write| write.kind == kind && (&*write.namespace, &*write.name) == (namespace, name))
        .filter_map(|write| write.new.as_ref().map(|new| new["status"].clone()))
        .collect();
    let status = older.iter().rev().nth(2).or_else(|| older.first()).cloned();
    let Some(object) = world.api.value(kind, namespace, name) else { return };
    let mut object = Value::clone(&object);
    object["status"] = status.unwrap_or_default();
    let path = format!("{}/status?fieldManager=backup", path(kind, namespace, name));
    world.judge().restored();
    world.request("PUT", &path, "application/json", &object);
}

/// What a request is for.
pub struct Target {
    kind: CallKind,
    verb: &'static str,
    plural: String,
    namespace: String,
    name: String,
    subresource: String,
}

impl Target {
    fn of(request: &Request<Vec<u8>>) -> Self {
        let segments: Vec<&str> = request.uri().path().split('/').filter(|part| !part.is_empty()).collect();
        let rest = if segments.first() == Some(&"api") { segments.get(2..) } else { segments.get(3..) };
        let rest = rest.unwrap_or_default();
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |n: usize| rest.get(n).copied().unwrap_or_default().to_owned();
        let (plural, mut name, subresource) = (part(0), part(1), part(2));
        if plural == "events" {
            name = String::new();
        }
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let (verb, kind) = match request.method().as_str() {
            "GET" if is_watch => ("WATCH", CallKind::Watch),
            "GET" if name.is_empty() => ("LIST", CallKind::KubeRead),
            "GET" => ("GET", CallKind::KubeRead),
            "POST" => ("POST", CallKind::KubeWrite),
            "PUT" => ("PUT", CallKind::KubeWrite),
            "DELETE" => ("DELETE", CallKind::KubeWrite),
            _ => ("PATCH", CallKind::KubeWrite),
        };
        Self { kind, verb, plural, namespace: namespace.to_owned(), name, subresource }
    }

    fn key(&self) -> String {
        let parts = [&self.plural, &self.namespace, &self.name, &self.subresource];
        let parts: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        format!("{} {}", self.verb, parts.join("/"))
    }
}

/// The body of an answer, as it arrives.
pub struct AnswerBody(BoxStream<'static, Result<Bytes, BoxError>>);

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_next_unpin(cx).map(|next| next.map(|data| data.map(Frame::data)))
    }
}

struct Delivery {
    stream: WatchStream,
    fault: Option<Fault>,
    process: Arc<Process>,
    first: VecDeque<Bytes>,
    is_over: bool,
    read_timeout: Duration,
}

/// The events of a watch, as the faults let them through.
fn deliver(
    stream: WatchStream,
    fault: Option<Fault>,
    process: Arc<Process>,
    read_timeout: Duration,
) -> BoxStream<'static, Result<Bytes, BoxError>> {
    let first = match fault {
        Some(Fault::WatchGone) => VecDeque::from([Bytes::from(format!(
            "{}\n",
            json!({ "type": "ERROR", "object": {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
                "reason": "Expired", "message": "too old resource version",
            } })
        ))]),
        _ => VecDeque::new(),
    };
    let delivery = Delivery { stream, fault, process, first, is_over: fault == Some(Fault::WatchGone), read_timeout };
    stream::unfold(delivery, |mut delivery| async move {
        let next = delivery.next().await;
        next.map(|next| (next, delivery))
    })
    .boxed()
}

impl Delivery {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        if let Some(line) = self.first.pop_front() {
            return Some(Ok(line));
        }
        if self.is_over {
            return None;
        }
        if self.fault == Some(Fault::WatchSilent) {
            tokio::time::sleep(self.read_timeout).await;
            self.is_over = true;
            return Some(Err("no answer in time".into()));
        }
        let read = tokio::time::timeout(self.read_timeout, self.stream.next()).await;
        if !self.process.is_alive() {
            return std::future::pending().await;
        }
        match read {
            Err(_) => {
                self.is_over = true;
                Some(Err("no answer in time".into()))
            }
            Ok(None) => None,
            Ok(Some(event)) => {
                match self.fault {
                    Some(Fault::WatchBroken) if event.event_type != EventType::Bookmark => {
                        self.is_over = true;
                        return Some(Err("the connection broke".into()));
                    }
                    Some(Fault::WatchLate) => tokio::time::sleep(Duration::from_secs(20)).await,
                    _ => tokio::time::sleep(LATENCY).await,
                }
                Some(Ok(event.line))
            }
        }
    }
}
