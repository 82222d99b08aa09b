//! How one request is processed: recorded, hit by a fault or not, carried out, answered. It runs as a task of its own,
//! so that a client that closes the connection does not undo its request, as with any real service.

use crate::body::AnswerBody;
use crate::errors::{Failure, RequestIds, half};
use crate::faults::{Action, Strike, When};
use crate::graph::{self, Answer, Call, Payload};
use crate::log::{Operation, Outcome, RequestRecord};
use crate::route::Route;
use crate::secret::sha256;
use crate::settings::BodyKind;
use crate::state::Shared;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Form;
use axum::extract::FromRequest as _;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::time::sleep;

const LARGEST_BODY: usize = 4 << 20;

/// The connection was closed without an answer. The request may still have had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was closed without an answer")
    }
}

impl std::error::Error for Closed {}

/// A recorded request in flight.
pub(crate) struct Journey {
    shared: Arc<Shared>,
    sequence: u64,
    route: Route,
    parts: Parts,
    ids: RequestIds,
    base_url: String,
}

impl Journey {
    /// Records a request whose head has arrived.
    pub(crate) fn begin(shared: &Arc<Shared>, parts: Parts, address: &str) -> Self {
        let route = Route::of(&parts.method, &parts.uri);
        let header = |name| text(&parts.headers, name);
        let client_request_id = header("client-request-id");
        let scheme = parts.uri.scheme_str().unwrap_or("http");
        let authority = header(HOST.as_str()).or_else(|| parts.uri.authority().map(ToString::to_string));
        let base_url = format!("{scheme}://{}", authority.as_deref().unwrap_or(address));
        let authorization = header(AUTHORIZATION.as_str());
        let (sequence, request_id) = shared.write(|state| {
            let request_id = state.random.guid();
            let grant = state.directory.peek(authorization.as_deref());
            let record = RequestRecord {
                sequence: 0,
                operation: route.operation,
                method: parts.method.to_string(),
                path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
                tenant: route.tenant.clone().or_else(|| grant.map(|grant| grant.tenant.clone())),
                client_id: grant.map(|grant| grant.client_id.clone()),
                id: route.id.clone(),
                page: route.page.as_ref().map(|page| page.number),
                properties: Vec::new(),
                token_sha256: None,
                user_agent: header(USER_AGENT.as_str()),
                client_request_id: client_request_id.clone(),
                request_id: request_id.clone(),
                began: state.now().wall,
                carried_out: None,
                ended: None,
                outcome: Outcome::Pending,
                fault: None,
            };
            (state.log.begin(record, state.settings.log_capacity), request_id)
        });
        let ids = RequestIds { request_id, client_request_id };
        Self { shared: Arc::clone(shared), sequence, route, parts, ids, base_url }
    }

    /// Watches the connection: if it ends before the answer is sent, the record shows that.
    pub(crate) fn watch(&self) -> Watch {
        Watch { shared: Arc::clone(&self.shared), sequence: self.sequence, answered: false }
    }

    /// Processes the request to its end.
    pub(crate) async fn run(self, body: Body) -> Result<Response<AnswerBody>, Closed> {
        let result = self.answer(body).await.map(|mut response| {
            self.stamp(&mut response);
            response
        });
        let outcome = match &result {
            Ok(response) if response.body().is_broken() => Outcome::Cut,
            Ok(response) => Outcome::Answered(response.status().as_u16()),
            Err(Closed) => Outcome::Cut,
        };
        self.shared.write(|state| {
            let at = state.now().wall;
            state.log.end(self.sequence, outcome, at);
        });
        result
    }

    async fn answer(&self, body: Body) -> Result<Response<AnswerBody>, Closed> {
        let Ok(bytes) = to_bytes(body, LARGEST_BODY).await else {
            return Err(Closed);
        };
        let payload = self.read(bytes).await;
        let strike = self.strike(&payload);
        let (number, action) = strike.map_or((0, None), |strike| (strike.number, Some(strike.action)));
        match action.clone() {
            Some(Action::Delay { when: When::Before, duration }) => sleep(duration).await,
            Some(Action::Status { when: When::Before, code, retry_after, body }) => {
                return Ok(self.status(code, retry_after, body));
            }
            Some(Action::Cut { when: When::Before }) => return Err(Closed),
            Some(Action::Hold { when: When::Before }) => self.hold(number).await,
            _ => {}
        }
        let response = self.carry_out(&payload);
        match action {
            Some(Action::Delay { when: When::After, duration }) => sleep(duration).await,
            Some(Action::Status { when: When::After, code, body, .. }) if code < 400 => {
                return Ok(reshape(response, code, body));
            }
            Some(Action::Status { when: When::After, code, retry_after, body }) => {
                return Ok(self.status(code, retry_after, body));
            }
            Some(Action::Cut { when: When::After }) => return Err(Closed),
            Some(Action::CutAnswer) => return cut_in_body(response),
            Some(Action::Hold { when: When::After }) => self.hold(number).await,
            _ => {}
        }
        Ok(response)
    }

    /// Waits at a fault's gate.
    async fn hold(&self, fault: u64) {
        if let Some(place) = self.shared.write(|state| state.faults.arrive(fault)) {
            place.wait().await;
            self.shared.write(|state| state.faults.depart(fault));
        }
    }

    async fn read(&self, bytes: Bytes) -> Payload {
        if bytes.is_empty() {
            return Payload::Empty;
        }
        if self.route.operation == Operation::Token {
            let content_type = self.parts.headers.get(CONTENT_TYPE).cloned();
            let mut request = Request::post("/").body(Body::from(bytes)).unwrap_or_default();
            request.headers_mut().extend(content_type.map(|value| (CONTENT_TYPE, value)));
            return match Form::<BTreeMap<String, String>>::from_request(request, &()).await {
                Ok(Form(form)) => Payload::Form(form.into_iter().map(|(name, value)| (name, value.into())).collect()),
                Err(_) => Payload::Unreadable,
            };
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Payload::Object(object),
            _ => Payload::Unreadable,
        }
    }

    /// Completes the record with what the body names, and asks which fault hits the request.
    fn strike(&self, payload: &Payload) -> Option<Strike> {
        let properties: Vec<String> = match payload {
            Payload::Form(form) => form.keys().cloned().collect(),
            Payload::Object(object) => object.keys().cloned().collect(),
            Payload::Empty | Payload::Unreadable => Vec::new(),
        };
        let digest = match payload {
            Payload::Object(object) => object.get("token").and_then(Value::as_str).map(sha256),
            _ => None,
        };
        let client_id = match payload {
            Payload::Form(form) => form.get("client_id").map(|id| id.expose().to_owned()),
            _ => None,
        };
        self.shared.write(|state| {
            let mut tenant = None;
            state.log.note(self.sequence, |record| {
                record.properties = properties;
                record.token_sha256 = digest;
                record.client_id = client_id.or(record.client_id.take());
                tenant.clone_from(&record.tenant);
            });
            let strike = state.faults.strike(self.route.operation, tenant.as_deref(), self.route.id.as_deref());
            if let Some(strike) = &strike {
                state.log.note(self.sequence, |record| record.fault = Some(strike.number));
            }
            strike
        })
    }

    fn carry_out(&self, payload: &Payload) -> Response<AnswerBody> {
        let call = Call {
            sequence: self.sequence,
            route: &self.route,
            headers: &self.parts.headers,
            payload,
            ids: &self.ids,
            base_url: &self.base_url,
        };
        self.shared.write(|state| {
            let Answer { response, created } = graph::answer(state, &call);
            let at = state.now().wall;
            state.log.note(self.sequence, |record| {
                record.carried_out = Some(at);
                record.id = created.or(record.id.take());
            });
            response
        })
    }

    fn status(&self, code: u16, retry_after: Option<String>, body: BodyKind) -> Response<AnswerBody> {
        let at = self.shared.read(|state| state.now().wall);
        Failure::with_status(code).retry_after(retry_after).respond(body, &self.ids, at)
    }

    fn stamp(&self, response: &mut Response<AnswerBody>) {
        let ids = &self.ids;
        let echoed = ids.client_request_id.as_ref().unwrap_or(&ids.request_id);
        for (name, value) in [("request-id", &ids.request_id), ("client-request-id", echoed)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// Another status, and the body in another shape.
fn reshape(response: Response<AnswerBody>, code: u16, body: BodyKind) -> Response<AnswerBody> {
    let (mut parts, whole) = response.into_parts();
    parts.status = StatusCode::from_u16(code).unwrap_or(parts.status);
    parts.headers.remove(RETRY_AFTER);
    let body = match body {
        BodyKind::Json => whole,
        BodyKind::Empty => AnswerBody::whole(Bytes::new()),
        BodyKind::CutOff => AnswerBody::whole(half(&String::from_utf8_lossy(whole.bytes()))),
        BodyKind::Html => {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            AnswerBody::whole("<!DOCTYPE HTML>\r\n<HTML><BODY><h2>Something else</h2></BODY></HTML>\r\n")
        }
    };
    Response::from_parts(parts, body)
}

/// The head says how long the body is; half of it comes, then the connection breaks.
fn cut_in_body(response: Response<AnswerBody>) -> Result<Response<AnswerBody>, Closed> {
    let (mut parts, whole) = response.into_parts();
    let whole = whole.bytes();
    // Without a body the head is all there is, and that is cut too.
    if whole.len() < 2 {
        return Err(Closed);
    }
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    Ok(Response::from_parts(parts, AnswerBody::half_of(whole)))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// See [`Journey::watch`].
pub(crate) struct Watch {
    shared: Arc<Shared>,
    sequence: u64,
    answered: bool,
}

impl Watch {
    /// The answer is there.
    pub(crate) fn done(mut self) {
        self.answered = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.write(|state| {
                let at = state.now().wall;
                state.log.end(self.sequence, Outcome::Lost, at);
            });
        }
    }
}
