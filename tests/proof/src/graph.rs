//! The operator's way to Microsoft: the emulator, called in process, with the faults of the history between them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graph_emulator::{AnswerBody, Closed};
use http::{Request, Response};
use jiff::SignedDuration;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use vpptoken_operator::operator::{GraphError, Received, Transport};

use crate::fault::{CallKind, Fault};
use crate::judge::Sent;
use crate::process::Process;
use crate::world::{Begun, TENANT, World, file};

/// What a 429 asks to wait, in seconds.
pub const RETRY_AFTER: u16 = 7;
/// Each way takes so long.
const LATENCY: Duration = Duration::from_millis(20);

/// The way of one process.
pub fn transport(world: &World, process: &Arc<Process>) -> Transport {
    let (world, process) = (world.clone(), Arc::clone(process));
    Transport::in_process(
        world.builder.clone(),
        Arc::new(move |request| {
            let (world, process) = (world.clone(), Arc::clone(&process));
            Box::pin(async move { send(world, process, request).await })
        }),
    )
}

async fn send(world: World, process: Arc<Process>, request: reqwest::Request) -> Result<Received, GraphError> {
    if !process.is_alive() {
        return std::future::pending().await;
    }
    let (kind, key, id) = target(&world, &request);
    let sent = Sent { by: process.number, at: world.now() };
    let Begun { number, fault, delay } = world.begin(&process, kind, key.clone());
    world.judge().graph_call(&world, process.number, &key, id.as_deref());
    if kind == CallKind::GraphWrite {
        world.judge().write_sent(&world, process.number);
    }
    let request = convert(request);
    tokio::time::sleep(LATENCY + delay).await;
    let is_down = world.is_graph_down().then_some(Fault::NotConnected);
    match is_down.or(fault) {
        Some(Fault::NotConnected) => return Err(GraphError::not_connected()),
        Some(Fault::LostBefore) => return Err(GraphError::connection_broken()),
        Some(Fault::Throttled) => {
            world.judge().throttled(process.number, world.now());
            return Ok(refusal(429, Some(RETRY_AFTER)));
        }
        Some(Fault::Failed) => return Ok(refusal(500, None)),
        Some(Fault::Unavailable) => return Ok(refusal(503, None)),
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Late) => {
            later(&world, sent, request, id, Duration::from_secs(45));
            return std::future::pending().await;
        }
        Some(Fault::KillLate) => {
            later(&world, sent, request, id, Duration::from_secs(4));
            world.kill(&process);
            return std::future::pending().await;
        }
        Some(Fault::KillBefore) => {
            world.kill(&process);
            return std::future::pending().await;
        }
        Some(Fault::Overlap) => world.replace(Arc::clone(&process)),
        Some(Fault::ClockBack) => world.step_wall_clock(SignedDuration::from_hours(-1)),
        Some(Fault::ClockGlitch) => world.step_wall_clock_for_a_minute(SignedDuration::from_hours(48)),
        Some(Fault::ClockDip) => world.step_wall_clock_for_a_minute(SignedDuration::from_hours(-1)),
        Some(Fault::GraphOutage) => {
            world.outage(true);
            return Err(GraphError::not_connected());
        }
        Some(Fault::Hidden) => world.hide_all(Duration::from_secs(120)),
        Some(Fault::PortalRenews) => {
            if let Some(entity) = world.graph.entities(TENANT).first() {
                let location = world.judge().location(entity).unwrap_or_else(|| "portal".into());
                let newer = file(&location, 700);
                world.judge().file_seen(&newer);
                world.renew_in_portal(&entity.id, &newer);
            }
        }
        Some(Fault::PortalCreates) => world.create_twin_in_portal(),
        Some(Fault::PortalEdits) => {
            if let Some(entity) = world.graph.entities(TENANT).first() {
                world.edit_in_portal(&entity.id, "us");
            }
        }
        _ => {}
    }
    if !process.is_alive() {
        return std::future::pending().await;
    }
    let answer = world.graph.call(request).await;
    world.judge().graph_answered(&world, sent);
    if fault == Some(Fault::KillAfter) {
        world.kill(&process);
        return std::future::pending().await;
    }
    tokio::time::sleep(LATENCY).await;
    if !process.is_alive() {
        return std::future::pending().await;
    }
    let received = received(answer);
    if let (true, Some(id), Ok(answer)) = (key.starts_with("GET"), &id, &received)
        && answer.status == StatusCode::NOT_FOUND
    {
        world.judge().not_found(id);
    }
    world.answered(number, received.as_ref().map_or_else(|_| "closed".into(), |all| all.status.as_u16().to_string()));
    match fault {
        Some(Fault::LostAfter) => Err(GraphError::connection_broken()),
        Some(Fault::UnavailableAfter) => Ok(refusal(503, None)),
        Some(Fault::HalfBody) => {
            received.map(|received| Received { body: Err(GraphError::connection_broken()), ..received })
        }
        _ => received,
    }
}

/// The request arrives although nobody waits for its answer any more.
fn later(world: &World, sent: Sent, request: Request<Bytes>, id: Option<String>, wait: Duration) {
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        let id = id.unwrap_or_default();
        let was_synced = world.judge().is_synced(&id);
        let _ = world.graph.call(request).await;
        world.judge().late_effect(&world, sent, &id, was_synced);
    });
}

fn refusal(code: u16, retry_after: Option<u16>) -> Received {
    let mut headers = HeaderMap::new();
    if let Some(wait) = retry_after {
        headers.insert("retry-after", http::HeaderValue::from(wait));
    }
    let body = br#"{"error":{"code":"Fault","message":"a fault"}}"#.to_vec();
    Received { status: StatusCode::from_u16(code).unwrap_or_default(), headers, body: Ok(body) }
}

fn convert(request: reqwest::Request) -> Request<Bytes> {
    let body = request.body().and_then(reqwest::Body::as_bytes).map(Bytes::copy_from_slice).unwrap_or_default();
    let mut converted = Request::new(body);
    *converted.method_mut() = request.method().clone();
    *converted.uri_mut() = request.url().as_str().parse().unwrap_or_default();
    *converted.headers_mut() = request.headers().clone();
    converted
}

fn received(answer: Result<Response<AnswerBody>, Closed>) -> Result<Received, GraphError> {
    let (parts, body) = answer.map_err(|_| GraphError::connection_broken())?.into_parts();
    let body = body.into_bytes().map(|bytes| bytes.to_vec()).map_err(|_| GraphError::connection_broken());
    Ok(Received { status: parts.status, headers: parts.headers, body })
}

/// What a request is for: its kind, its name in histories, and the id in Graph.
fn target(world: &World, request: &reqwest::Request) -> (CallKind, String, Option<String>) {
    let path = request.url().path();
    if path.ends_with("/token") {
        return (CallKind::GraphRead, "POST token".into(), None);
    }
    let mut rest = path.split("/vppTokens").nth(1).unwrap_or_default().split('/').filter(|part| !part.is_empty());
    let (id, action) = (rest.next().map(str::to_owned), rest.next());
    let (kind, verb) = match (request.method().as_str(), &id, action) {
        ("GET", None, _) => (CallKind::GraphRead, "LIST"),
        ("GET", ..) => (CallKind::GraphRead, "GET"),
        (_, _, Some(_)) => (CallKind::GraphWrite, "SYNC"),
        ("POST", ..) => (CallKind::GraphWrite, "POST"),
        ("DELETE", ..) => (CallKind::GraphWrite, "DELETE"),
        _ => (CallKind::GraphWrite, "PATCH"),
    };
    let who = id.as_deref().map(|id| {
        let entity = world.graph.entity(TENANT, id);
        entity.and_then(|entity| entity.apple_id).unwrap_or_else(|| id.to_owned())
    });
    let key = who.map_or_else(|| format!("{verb} vppTokens"), |who| format!("{verb} vppTokens/{who}"));
    (kind, key, id)
}
