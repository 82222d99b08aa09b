//! A server with the operator's definitions and one for tests, and requests to it.

use std::sync::{Arc, LazyLock};

use api_server::{Answer, ApiServer, Clock, Definitions, Options};
use http::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) const VPPTOKENS: &str = "/apis/vpptoken.io/v1alpha1/namespaces/devices/vpptokens";
pub(crate) const WIDGETS: &str = "/apis/example.io/v1/namespaces/devices/widgets";
pub(crate) const SECRETS: &str = "/api/v1/namespaces/devices/secrets";

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let files = ["vpptokens", "graphtenants", "clustergraphtenants"].map(|plural| {
        let path = format!("{}/../../crds/vpptoken.io_{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
        serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    });
    Definitions::new(files.into_iter().chain([widgets()]).collect()).unwrap()
});

/// A definition with a bit of everything.
pub(crate) fn widgets() -> Value {
    serde_yaml_ng::from_str(include_str!("widgets.yaml")).unwrap()
}

/// Virtual time where there is a runtime, and one moment where there is none.
pub(crate) fn clock() -> Clock {
    let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let start = tokio::runtime::Handle::try_current().ok().map(|_| Instant::now());
    Arc::new(move || {
        let passed = start.map(|start| Instant::now() - start).unwrap_or_default();
        epoch + SignedDuration::try_from(passed).unwrap()
    })
}

pub(crate) fn server() -> ApiServer {
    server_with(Options::default())
}

pub(crate) fn server_with(options: Options) -> ApiServer {
    let server = ApiServer::new(clock(), &DEFINITIONS, options);
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "devices" } });
    assert_eq!(server.create(&namespace).status(), 201);
    server
}

pub(crate) fn ask(server: &ApiServer, method: &str, uri: &str, content_type: &str, body: &Value) -> Answer {
    server.call(request(method, uri, content_type, body), "test")
}

pub(crate) fn request(method: &str, uri: &str, content_type: &str, body: &Value) -> Request<Vec<u8>> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Request::builder().method(method).uri(uri).header("content-type", content_type).body(body).unwrap()
}

pub(crate) fn get(server: &ApiServer, uri: &str) -> (u16, Value) {
    message(&ask(server, "GET", uri, "", &Value::Null))
}

pub(crate) fn post(server: &ApiServer, uri: &str, body: &Value) -> (u16, Value) {
    message(&ask(server, "POST", uri, "application/json", body))
}

pub(crate) fn put(server: &ApiServer, uri: &str, body: &Value) -> (u16, Value) {
    message(&ask(server, "PUT", uri, "application/json", body))
}

pub(crate) fn merge(server: &ApiServer, uri: &str, body: &Value) -> (u16, Value) {
    message(&ask(server, "PATCH", uri, "application/merge-patch+json", body))
}

/// Server-side apply; the query has the field manager.
pub(crate) fn apply(server: &ApiServer, uri: &str, body: &Value) -> (u16, Value) {
    message(&ask(server, "PATCH", uri, "application/apply-patch+yaml", body))
}

pub(crate) fn delete(server: &ApiServer, uri: &str, options: &Value) -> (u16, Value) {
    message(&ask(server, "DELETE", uri, "application/json", options))
}

fn message(answer: &Answer) -> (u16, Value) {
    (answer.status().as_u16(), answer.json())
}

pub(crate) fn widget(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.io/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec })
}

pub(crate) fn secret(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "token": "abc" } })
}

/// The fields of one manager, as `fieldsV1` has them.
pub(crate) fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .find(|entry| entry["manager"] == manager)
        .map(|mut entry| entry["fieldsV1"].take())
        .unwrap_or_default()
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
