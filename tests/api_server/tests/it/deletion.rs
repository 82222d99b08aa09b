//! Deletions, finalizers, and the ends of namespaces and definitions.

use api_server::Options;
use serde_json::{Value, json};

use crate::world::*;

fn finalized(name: &str) -> Value {
    let mut body = widget(name, json!({}));
    body["metadata"]["finalizers"] = json!(["example.io/guard"]);
    body
}

#[test]
fn without_finalizers_an_object_is_deleted_at_once() {
    let server = server();
    let uid = post(&server, WIDGETS, &widget("w", json!({}))).1["metadata"]["uid"].clone();
    let (code, status) = delete(&server, &format!("{WIDGETS}/w"), &Value::Null);
    assert_eq!((code, &status["status"], &status["details"]["uid"]), (200, &json!("Success"), &uid));
    assert_eq!(status["details"]["kind"], "widgets");
    let (code, status) = delete(&server, &format!("{WIDGETS}/w"), &Value::Null);
    assert_eq!((code, &status["reason"]), (404, &json!("NotFound")));
    let again = post(&server, WIDGETS, &widget("w", json!({}))).1;
    assert_ne!(again["metadata"]["uid"], uid);
}

#[test]
fn with_a_finalizer_it_is_marked_and_waits() {
    let server = server();
    post(&server, WIDGETS, &finalized("w"));
    let uri = format!("{WIDGETS}/w");
    let (code, marked) = delete(&server, &uri, &json!({ "propagationPolicy": "Background" }));
    let meta = &marked["metadata"];
    assert_eq!((code, &meta["deletionTimestamp"]), (200, &json!("2026-01-01T00:00:00Z")));
    assert_eq!((&meta["deletionGracePeriodSeconds"], &meta["generation"]), (&json!(0), &json!(2)));
    assert_eq!(delete(&server, &uri, &Value::Null).1, marked, "again changes nothing");
    let (code, status) = post(&server, WIDGETS, &widget("w", json!({})));
    assert_eq!(code, 409);
    assert!(status["message"].as_str().unwrap().starts_with("object is being deleted"));
    let more = json!({ "metadata": { "finalizers": ["example.io/guard", "example.io/other"] } });
    assert_eq!(merge(&server, &uri, &more).0, 422);
    let undo = json!({ "metadata": { "deletionTimestamp": null } });
    assert_eq!(merge(&server, &uri, &undo).1["metadata"]["deletionTimestamp"], meta["deletionTimestamp"]);
    assert_eq!(merge(&server, &uri, &json!({ "spec": { "size": 5 } })).1["spec"]["size"], 5);
    assert_eq!(merge(&server, &uri, &json!({ "metadata": { "finalizers": null } })).0, 200);
    assert_eq!(get(&server, &uri).0, 404);
}

#[test]
fn preconditions_name_what_is_meant() {
    let server = server();
    let object = post(&server, WIDGETS, &widget("w", json!({}))).1;
    let uri = format!("{WIDGETS}/w");
    for (wrong, right) in [("uid", "uid"), ("resourceVersion", "resourceVersion")] {
        let (code, status) = delete(&server, &uri, &json!({ "preconditions": { wrong: "1" } }));
        assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
        let dry = json!({ "preconditions": { right: object["metadata"][right] } });
        assert_eq!(delete(&server, &format!("{uri}?dryRun=All"), &dry).0, 200);
    }
    let both = json!({ "preconditions": {
        "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"] } });
    assert_eq!(delete(&server, &uri, &both).0, 200);
}

#[test]
fn a_collection_is_deleted_by_selection() {
    let server = server();
    for name in ["a", "b", "c"] {
        post(&server, WIDGETS, &widget(name, json!({})));
    }
    post(&server, WIDGETS, &finalized("d"));
    assert_eq!(delete(&server, &format!("{WIDGETS}?fieldSelector=metadata.name=a"), &Value::Null).0, 200);
    assert_eq!(server.objects("widgets").len(), 3);
    delete(&server, WIDGETS, &Value::Null);
    let left = server.objects("widgets");
    assert_eq!((left.len(), &left[0]["metadata"]["name"]), (1, &json!("d")));
}

fn all_steps(server: &api_server::ApiServer) -> Vec<Vec<String>> {
    let kinds = ["secrets", "widgets"];
    let mut seen = Vec::new();
    while server.step_controllers() {
        let left = kinds.iter().filter(|kind| !server.objects(kind).is_empty());
        seen.push(left.map(|kind| (*kind).to_owned()).collect());
    }
    seen
}

#[test]
fn a_namespace_is_deleted_after_its_objects() {
    for (first, then) in [("secrets", "widgets"), ("widgets.example.io", "secrets")] {
        let server = server_with(Options { deletion_order: vec![first.into()], ..Options::default() });
        post(&server, SECRETS, &secret("s"));
        post(&server, WIDGETS, &widget("w", json!({})));
        let (code, namespace) = delete(&server, "/api/v1/namespaces/devices", &Value::Null);
        assert_eq!((code, &namespace["status"]["phase"]), (200, &json!("Terminating")));
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
        let (code, status) = post(&server, SECRETS, &secret("t"));
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
        assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
        assert_eq!(all_steps(&server), [vec![then.to_owned()], vec![], vec![]]);
        assert_eq!(get(&server, "/api/v1/namespaces/devices").0, 404);
    }
}

#[test]
fn a_namespace_waits_for_finalizers_inside() {
    let server = server();
    post(&server, WIDGETS, &finalized("w"));
    delete(&server, "/api/v1/namespaces/devices", &Value::Null);
    all_steps(&server);
    assert!(server.get("Widget", "devices", "w").unwrap()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(get(&server, "/api/v1/namespaces/devices").0, 200);
    server.merge("widgets", "devices", "w", &json!({ "metadata": { "finalizers": [] } }));
    all_steps(&server);
    assert_eq!(get(&server, "/api/v1/namespaces/devices").0, 404);
    assert_eq!(delete(&server, "/api/v1/namespaces/default", &Value::Null).0, 403);
}

#[test]
fn a_namespace_waits_for_its_own_finalizers_after_its_objects() {
    let server = server();
    let finalizers = json!({ "metadata": { "finalizers": ["example.io/guard"] } });
    server.merge("namespaces", "", "devices", &finalizers);
    server.delete("namespaces", "", "devices");
    all_steps(&server);
    let namespace = server.get("Namespace", "", "devices").unwrap();
    assert_eq!((&namespace["spec"], &namespace["status"]["phase"]), (&json!({}), &json!("Terminating")));
    server.merge("namespaces", "", "devices", &json!({ "metadata": { "finalizers": null } }));
    assert_eq!(server.get("Namespace", "", "devices"), None);
}

const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[test]
fn a_definition_takes_its_objects_with_it() {
    let server = server();
    post(&server, WIDGETS, &finalized("w"));
    post(&server, WIDGETS, &widget("v", json!({})));
    let uri = format!("{DEFINITION}/widgets.example.io");
    let (code, marked) = delete(&server, &uri, &Value::Null);
    assert_eq!(code, 200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let conditions = marked["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|it| it["type"] == "Terminating" && it["status"] == "True"));
    assert_eq!(post(&server, WIDGETS, &widget("x", json!({}))).0, 403);
    assert_eq!(apply(&server, &format!("{WIDGETS}/x?fieldManager=a"), &widget("x", json!({}))).0, 403);
    all_steps(&server);
    assert!(server.get("Widget", "devices", "w").unwrap()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(get(&server, &format!("{WIDGETS}/v")).0, 404);
    merge(&server, &format!("{WIDGETS}/w"), &json!({ "metadata": { "finalizers": null } }));
    all_steps(&server);
    assert_eq!(get(&server, &uri).0, 404);
    let answer = ask(&server, "GET", WIDGETS, "", &Value::Null);
    assert_eq!((answer.status().as_u16(), answer.json()), (404, Value::Null), "no Status, as where there is no page");
    assert_eq!(post(&server, DEFINITION, &widgets()).0, 201);
    assert_eq!(post(&server, WIDGETS, &widget("w", json!({}))).0, 201);
}

#[test]
fn a_newer_definition_changes_what_is_served_and_keeps_the_objects() {
    let server = server();
    post(&server, WIDGETS, &widget("w", json!({ "unknown": 1 })));
    let mut newer = widgets();
    newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["unknown"] =
        json!({ "type": "integer" });
    let (code, definition) =
        apply(&server, &format!("{DEFINITION}/widgets.example.io?fieldManager=helm&force=true"), &newer);
    assert_eq!((code, &definition["metadata"]["generation"]), (200, &json!(2)));
    assert_eq!(definition["status"]["conditions"].as_array().unwrap().len(), 2);
    let object = merge(&server, &format!("{WIDGETS}/w"), &json!({ "spec": { "unknown": 2 } })).1;
    assert_eq!(object["spec"], json!({ "size": 3, "unknown": 2 }));
}
