//! Calls in process: the same answers as over the network, the same again with the same seed, and what happens to calls
//! that are not answered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use axum::body::{Bytes, HttpBody as _};
use axum::http::{HeaderMap, Method, Request};
use graph_emulator::{
    Action, BodyKind, Clock, Closed, Emulation, Emulator, Fault, Operation, Outcome, Random, Settings, TokenFile, When,
};
use serde_json::{Value, json};
use std::pin::Pin;
use std::time::Duration;
use support::in_process::{COLLECTION, InProcess, start, token_request};
use support::{APP, SECRET, TENANT, expiry};

/// What a test compares of an answer.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    request_id: Option<String>,
    retry_after: Option<String>,
    body: Value,
}

impl Seen {
    fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let mut body = serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body)));
        without_times(&mut body);
        Self { status, request_id: header("request-id"), retry_after: header("retry-after"), body }
    }
}

/// Over the network time passes while calls are in flight.
fn without_times(value: &mut Value) {
    const TIMES: [&str; 5] = ["lastModifiedDateTime", "lastSyncDateTime", "date", "timestamp", "error_description"];
    match value {
        Value::Object(object) => {
            object.retain(|name, _| !TIMES.contains(&name.as_str()));
            object.values_mut().for_each(without_times);
        }
        Value::Array(values) => values.iter_mut().for_each(without_times),
        _ => {}
    }
}

/// How the script's calls reach an emulation: in process or over the network.
enum Road {
    InProcess,
    Network(reqwest::Client),
}

/// A client of an emulation.
struct Traveller {
    emulation: Emulation,
    road: Road,
    host: String,
    bearer: String,
    seen: Vec<Seen>,
}

impl Traveller {
    async fn go(&mut self, method: Method, path: &str, content_type: &str, body: String) -> Value {
        let url = format!("{}{path}", self.host);
        let headers = [
            ("content-type", content_type),
            ("authorization", &self.bearer),
            ("content-length", &body.len().to_string()),
            ("client-request-id", "a-client-request-id"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let seen = match &self.road {
            Road::InProcess => {
                let mut request = Request::builder().method(method).uri(url);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let (parts, body) =
                    self.emulation.call(request.body(Bytes::from(body)).unwrap()).await.unwrap().into_parts();
                Seen::new(parts.status.as_u16(), &parts.headers, &body.into_bytes().unwrap())
            }
            Road::Network(client) => {
                let mut request = client.request(method, url).body(body);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let answer = request.send().await.unwrap();
                let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
                Seen::new(status, &headers, &answer.bytes().await.unwrap())
            }
        };
        let body = seen.body.clone();
        self.seen.push(seen);
        body
    }

    async fn graph(&mut self, method: Method, path: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.go(method, path, "application/json", body).await
    }

    async fn sign_in(&mut self, secret: &str) -> Value {
        let body = String::from_utf8(token_request(secret).into_body().to_vec()).unwrap();
        let path = format!("/{TENANT}/oauth2/v2.0/token");
        self.go(Method::POST, &path, "application/x-www-form-urlencoded", body).await
    }

    async fn follow_the_script(&mut self) {
        let v1 = "/v1.0/deviceAppManagement/vppTokens";
        let beta = "/beta/deviceAppManagement/vppTokens";
        let file = TokenFile::with_inner("Contoso", expiry(), "inner");
        let create = |apple_id: &str| json!({"token": file.text(), "appleId": apple_id});

        self.graph(Method::GET, v1, Value::Null).await;
        self.sign_in("wrong").await;
        let token = self.sign_in(SECRET).await["access_token"].as_str().unwrap().to_owned();
        self.bearer = format!("Bearer {token}");
        let first = self.graph(Method::POST, v1, create("a@b.example")).await["id"].as_str().unwrap().to_owned();
        self.graph(Method::POST, beta, create("b@b.example")).await;
        self.graph(Method::POST, v1, json!({"token": "no file"})).await;
        let page = self.graph(Method::GET, v1, Value::Null).await;
        let next = page["@odata.nextLink"].as_str().unwrap().strip_prefix(&self.host).unwrap().to_owned();
        self.graph(Method::GET, &next, Value::Null).await;
        let entity = format!("{v1}/{first}");
        self.graph(Method::GET, &entity, Value::Null).await;
        self.graph(Method::PATCH, &entity, json!({"countryOrRegion": "de"})).await;
        self.graph(Method::PATCH, &entity, json!({"displayName": "beta only"})).await;
        self.graph(Method::POST, &format!("{entity}/syncLicenses"), Value::Null).await;
        let fault =
            Action::Status { when: When::After, code: 503, retry_after: Some("7".into()), body: BodyKind::Json };
        self.emulation.inject(Fault::new(fault).on(Operation::Delete).once());
        self.graph(Method::DELETE, &entity, Value::Null).await;
        self.graph(Method::DELETE, &entity, Value::Null).await;
        self.graph(Method::GET, "/v1.0/users", Value::Null).await;
    }
}

fn emulation(seed: u64) -> Emulation {
    let settings = Settings { page_size: 1, ..Settings::default() };
    let emulation = Emulation::new(settings, Clock::starting_at(start()), Random::seeded(seed));
    emulation.add_app(TENANT, APP, SECRET);
    emulation
}

#[tokio::test]
async fn a_call_in_process_is_answered_and_recorded_as_one_over_the_network() {
    let listening = Emulator::listen(emulation(7)).await.unwrap();
    let host = listening.url();
    let traveller =
        |emulation, road| Traveller { emulation, road, host: host.clone(), bearer: String::new(), seen: Vec::new() };
    let mut near = traveller(emulation(7), Road::InProcess);
    let mut far = traveller((*listening).clone(), Road::Network(reqwest::Client::new()));
    near.follow_the_script().await;
    far.follow_the_script().await;
    assert_eq!(near.seen, far.seen);
    let statuses: Vec<u16> = near.seen.iter().map(|seen| seen.status).collect();
    assert_eq!(statuses, [401, 401, 200, 201, 201, 400, 200, 200, 200, 200, 400, 200, 503, 404, 400]);

    let records = |traveller: &Traveller| {
        let mut records = traveller.emulation.requests();
        for record in &mut records {
            (record.began, record.ended, record.user_agent) = (start(), None, None);
            record.carried_out = record.carried_out.map(|_| start());
        }
        records
    };
    assert_eq!(records(&near), records(&far));
    let effects = |traveller: &Traveller| -> Vec<_> {
        let effects = traveller.emulation.effects();
        effects.into_iter().map(|effect| (effect.sequence, effect.operation, effect.id, effect.by)).collect()
    };
    assert_eq!(effects(&near), effects(&far));
    assert_eq!(effects(&near).len(), 5);
}

/// Everything that a run of calls shows, as text.
async fn run(seed: u64) -> String {
    let world = InProcess::with(seed, |settings| settings.list_lag = Duration::from_secs(20)).await;
    let mut shown = String::new();
    let file = TokenFile::with_inner("Contoso", expiry(), "inner");
    let body = json!({"token": file.text(), "appleId": "a@b.example"});
    let mut calls = vec![token_request(SECRET), token_request("wrong")];
    calls.extend((0..3).map(|_| world.request(Method::POST, COLLECTION, &body)));
    calls.push(world.on(Method::GET, "unknown", &Value::Null));
    for request in calls {
        tokio::time::sleep(Duration::from_secs(7)).await;
        let (parts, body) = world.call(request).await.unwrap().into_parts();
        shown += &format!("{parts:?} {:?}\n", body.bytes());
    }
    for entity in world.list().await {
        shown += &format!("{entity} {:?}\n", world.sync(entity["id"].as_str().unwrap()).await);
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (requests, effects) = (world.emulation.requests(), world.emulation.effects());
    shown + &format!("{requests:?} {effects:?} {:?}", world.emulation.entities(TENANT))
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_and_calls_give_the_same_answers_to_the_byte() {
    let (first, second, other) = (run(7).await, run(7).await, run(8).await);
    assert!(first.contains("access_token") && first.contains("AADSTS7000215") && first.contains("inProgress"));
    assert_eq!(first, second);
    assert_ne!(first, other);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_client_hangs_up_still_has_its_effect() {
    let world = InProcess::new().await;
    let delay = Action::Delay { when: When::Before, duration: Duration::from_secs(30) };
    let fault = world.emulation.inject(Fault::new(delay).on(Operation::Create).once());
    let call = world.call(world.creating("a@b.example"));
    assert!(tokio::time::timeout(Duration::from_secs(10), call).await.is_err());
    assert_eq!(fault.hits(), 1);
    assert_eq!(world.emulation.requests()[0].outcome, Outcome::Lost);
    assert!(world.emulation.entities(TENANT).is_empty());
    let arrived = |view: &graph_emulator::View<'_>| view.entities(TENANT).len() == 1;
    assert!(!world.emulation.wait_for(arrived, Duration::from_secs(19)).await);
    assert!(world.emulation.wait_for(arrived, Duration::from_secs(2)).await);
    assert_eq!(world.emulation.requests()[0].outcome, Outcome::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_gives_no_answer_and_one_cut_in_the_body_half_of_it() {
    let world = InProcess::new().await;
    for when in [When::Before, When::After] {
        world.emulation.inject(Fault::new(Action::Cut { when }).on(Operation::Create).once());
        assert_eq!(world.call(world.creating("a@b.example")).await.unwrap_err(), Closed);
    }
    assert_eq!(world.emulation.entities(TENANT).len(), 1);

    world.emulation.inject(Fault::new(Action::CutAnswer).on(Operation::Get).once());
    let id = &world.emulation.entities(TENANT)[0].id;
    let get = || world.on(Method::GET, id, &Value::Null);
    let broken = world.call(get()).await.unwrap();
    let whole = world.call(get()).await.unwrap().into_body().into_bytes().unwrap();
    assert_eq!(broken.headers()["content-length"], whole.len().to_string());
    let mut body = broken.into_body();
    assert_eq!((body.is_broken(), body.bytes().as_ref()), (true, &whole[..whole.len() / 2]));
    let first = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), whole[..whole.len() / 2]);
    assert!(std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.unwrap().is_err());
    assert!(body.into_bytes().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_held_answer_is_as_of_its_effect_and_comes_when_it_is_released() {
    let world = InProcess::new().await;
    let hold = world.emulation.inject(Fault::new(Action::Hold { when: When::After }).on(Operation::List).once());
    let list = async {
        let answer = world.list().await;
        assert!(answer.is_empty(), "{answer:?}");
    };
    let meanwhile = async {
        assert!(hold.wait_hit(Duration::from_secs(1)).await);
        world.created("a@b.example").await;
        hold.release();
    };
    tokio::join!(list, meanwhile);
    assert_eq!(world.list().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_length_is_refused_in_process_too() {
    let world = InProcess::new().await;
    let id = world.created("a@b.example").await;
    let mut request = world.on(Method::POST, &format!("{id}/syncLicenses"), &Value::Null);
    request.headers_mut().remove("content-length");
    assert_eq!(world.call(request).await.unwrap().status(), 411);
    let mut request = world.on(Method::PATCH, &id, &json!({"countryOrRegion": "de"}));
    request.headers_mut().remove("content-length");
    assert_eq!(world.call(request).await.unwrap().status(), 200, "HTTP clients add the length of a body they know");
}
