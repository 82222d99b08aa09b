//! An emulation in process, and a client that is signed in to it. In paused time, so that only a test makes it pass.

use super::{APP, SECRET, TENANT, body, file, good_form};
use axum::body::Bytes;
use axum::http::{Method, Request, Response, Uri};
use graph_emulator::{AnswerBody, Clock, Closed, Emulation, Random, Settings};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The emulator's wall clock when a test begins.
pub(crate) const START: &str = "2026-01-01T00:00:00Z";
pub(crate) const COLLECTION: &str = "https://graph.example/v1.0/deviceAppManagement/vppTokens";

pub(crate) fn start() -> Timestamp {
    START.parse().unwrap()
}

/// An emulation, and a client that is signed in.
pub(crate) struct InProcess {
    pub emulation: Emulation,
    pub token: String,
}

impl InProcess {
    pub(crate) async fn new() -> Self {
        Self::with(1, |_| {}).await
    }

    pub(crate) async fn with(seed: u64, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let emulation = Emulation::new(settings, Clock::starting_at(start()), Random::seeded(seed));
        emulation.add_app(TENANT, APP, SECRET);
        let answer = emulation.call(token_request(SECRET)).await.unwrap();
        let token = json(&answer)["access_token"].as_str().unwrap().to_owned();
        emulation.clear_requests();
        Self { emulation, token }
    }

    /// A request of the client.
    pub(crate) fn request(&self, method: Method, url: &str, body: &Value) -> Request<Bytes> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        Request::builder()
            .method(method)
            .uri(url.parse::<Uri>().unwrap())
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-length", body.len())
            .body(body)
            .unwrap()
    }

    /// A request for an entity.
    pub(crate) fn on(&self, method: Method, id: &str, body: &Value) -> Request<Bytes> {
        self.request(method, &format!("{COLLECTION}/{id}"), body)
    }

    /// A create.
    pub(crate) fn creating(&self, apple_id: &str) -> Request<Bytes> {
        self.request(Method::POST, COLLECTION, &body(&file(), apple_id))
    }

    pub(crate) async fn call(&self, request: Request<Bytes>) -> Result<Response<AnswerBody>, Closed> {
        self.emulation.call(request).await
    }

    /// Creates an entity and returns its id.
    pub(crate) async fn created(&self, apple_id: &str) -> String {
        let answer = self.call(self.creating(apple_id)).await.unwrap();
        assert_eq!(answer.status(), 201);
        json(&answer)["id"].as_str().unwrap().to_owned()
    }

    /// Status and body of a call for an entity.
    pub(crate) async fn ask(&self, method: Method, id: &str, body: &Value) -> (u16, Value) {
        let answer = self.call(self.on(method, id, body)).await.unwrap();
        (answer.status().as_u16(), json(&answer))
    }

    pub(crate) async fn get(&self, id: &str) -> (u16, Value) {
        self.ask(Method::GET, id, &Value::Null).await
    }

    pub(crate) async fn patch(&self, id: &str, body: &Value) -> (u16, Value) {
        self.ask(Method::PATCH, id, body).await
    }

    pub(crate) async fn delete(&self, id: &str) -> u16 {
        self.ask(Method::DELETE, id, &Value::Null).await.0
    }

    pub(crate) async fn sync(&self, id: &str) -> (u16, Value) {
        self.ask(Method::POST, &format!("{id}/syncLicenses"), &Value::Null).await
    }

    /// The entities of a list.
    pub(crate) async fn list(&self) -> Vec<Value> {
        let answer = self.call(self.request(Method::GET, COLLECTION, &Value::Null)).await.unwrap();
        json(&answer)["value"].as_array().unwrap().clone()
    }
}

pub(crate) fn token_request(secret: &str) -> Request<Bytes> {
    let form: Vec<String> = good_form()
        .into_iter()
        .map(|(name, value)| format!("{name}={}", if name == "client_secret" { secret } else { value }))
        .collect();
    Request::post(format!("https://login.example/{TENANT}/oauth2/v2.0/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from(form.join("&")))
        .unwrap()
}

/// The body of an answer; null if it has none.
pub(crate) fn json(answer: &Response<AnswerBody>) -> Value {
    let bytes = answer.body().bytes();
    if bytes.is_empty() { json!(null) } else { serde_json::from_slice(bytes).unwrap() }
}
