//! Server-side apply: who owns what, and what follows from it.

use serde_json::{Value, json};

use crate::world::*;

fn applied(manager: &str, spec: Value) -> impl Fn(&api_server::ApiServer) -> (u16, Value) {
    let (uri, body) = (format!("{WIDGETS}/w?fieldManager={manager}"), widget("w", spec));
    move |server| apply(server, &uri, &body)
}

#[test]
fn apply_creates_what_is_not_there_and_owns_what_it_says() {
    let server = server();
    let (code, object) = applied("one", json!({ "color": "red", "tags": ["a"], "free": { "x": { "y": 1 } } }))(&server);
    assert_eq!(code, 201);
    assert_eq!(object["spec"]["size"], 3, "defaults are filled in");
    assert_eq!(object["status"]["observedGeneration"], -1);
    assert_eq!(
        owned(&object, "one"),
        json!({ "f:spec": { "f:color": {}, "f:tags": { "v:\"a\"": {} }, "f:free": { "f:x": { ".": {}, "f:y": {} } } } })
    );
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["time"]), (&json!("Apply"), &json!("2026-01-01T00:00:00Z")));
}

#[test]
fn two_managers_conflict_over_a_value_and_not_over_agreeing() {
    let server = server();
    applied("one", json!({ "color": "red" }))(&server);
    let (code, status) = applied("two", json!({ "color": "green" }))(&server);
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.color");
    assert_eq!(status["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let (code, object) = applied("two", json!({ "color": "red" }))(&server);
    assert_eq!(code, 200);
    assert_eq!(owned(&object, "one"), owned(&object, "two"));
}

#[test]
fn force_takes_a_field_from_its_owner() {
    let server = server();
    applied("one", json!({ "color": "red", "code": "abc" }))(&server);
    let (code, object) =
        apply(&server, &format!("{WIDGETS}/w?fieldManager=two&force=true"), &widget("w", json!({ "color": "green" })));
    assert_eq!((code, &object["spec"]["color"]), (200, &json!("green")));
    assert_eq!(owned(&object, "one"), json!({ "f:spec": { "f:code": {} } }));
}

#[test]
fn what_is_applied_no_more_goes_unless_somebody_else_owns_it() {
    let server = server();
    applied("one", json!({ "color": "red", "code": "abc", "nested": { "must": "x", "may": "y" } }))(&server);
    applied("two", json!({ "code": "abc", "nested": { "must": "x" } }))(&server);
    let (_, object) = applied("one", json!({ "size": 4 }))(&server);
    assert_eq!(object["spec"], json!({ "size": 4, "code": "abc", "nested": { "must": "x" } }));
    assert_eq!(owned(&object, "one"), json!({ "f:spec": { "f:size": {} } }));
}

#[test]
fn an_object_whose_last_field_goes_breaks_the_schema() {
    let server = server();
    apply(&server, &format!("{WIDGETS}/w?fieldManager=one"), &widget("w", json!({ "nested": { "must": "x" } })));
    let mut nothing = widget("w", json!({}));
    nothing["spec"]["nested"] = json!({});
    let (code, status) = apply(&server, &format!("{WIDGETS}/w?fieldManager=one"), &nothing);
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (422, &json!("spec.nested")));
}

#[test]
fn elements_of_maps_and_sets_are_owned_one_by_one() {
    let server = server();
    applied("one", json!({ "ports": [{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }], "tags": ["x", "y"] }))(
        &server,
    );
    applied("two", json!({ "ports": [{ "name": "c", "port": 3 }], "tags": ["z"] }))(&server);
    let (_, object) = applied("one", json!({ "ports": [{ "name": "b", "port": 5 }], "tags": ["y"] }))(&server);
    assert_eq!(
        object["spec"]["ports"],
        json!([{ "name": "b", "port": 5, "protocol": "TCP" }, { "name": "c", "port": 3, "protocol": "TCP" }])
    );
    assert_eq!(object["spec"]["tags"], json!(["y", "z"]));
    assert_eq!(
        owned(&object, "one")["f:spec"]["f:ports"],
        json!({ "k:{\"name\":\"b\"}": { ".": {}, "f:name": {}, "f:port": {} } })
    );
}

#[test]
fn atomic_lists_are_owned_whole() {
    let server = server();
    applied("one", json!({ "order": ["a", "b"] }))(&server);
    let (code, _) = applied("two", json!({ "order": ["c"] }))(&server);
    assert_eq!(code, 409);
    let (_, object) = applied("one", json!({ "order": ["b"] }))(&server);
    assert_eq!(object["spec"]["order"], json!(["b"]));
    assert_eq!(owned(&object, "one"), json!({ "f:spec": { "f:order": {} } }));
}

#[test]
fn an_update_takes_over_what_it_changes() {
    let server = server();
    applied("one", json!({ "color": "red", "code": "abc" }))(&server);
    let (code, object) = merge(
        &server,
        &format!("{WIDGETS}/w?fieldManager=editor"),
        &json!({ "spec": { "color": "green", "code": null } }),
    );
    assert_eq!(code, 200);
    assert_eq!(owned(&object, "one"), Value::Null, "nothing is left");
    assert_eq!(owned(&object, "editor"), json!({ "f:spec": { "f:color": {} } }));
    let (code, _) = applied("one", json!({ "color": "red" }))(&server);
    assert_eq!(code, 409);
}

#[test]
fn the_status_is_applied_through_its_subresource_only() {
    let server = server();
    let status = |phase: &str, conditions: Value| {
        let mut body = widget("w", json!({ "color": "green" }));
        body["status"] = json!({ "phase": phase, "conditions": conditions });
        body["metadata"]["labels"] = json!({ "ignored": "yes" });
        body
    };
    let uri = format!("{WIDGETS}/w/status?fieldManager=operator&force=true");
    assert_eq!(apply(&server, &uri, &status("a", json!([]))).0, 404);
    let created = applied("one", json!({ "color": "red" }))(&server).1;
    let ready = json!([{ "type": "Ready", "status": "True" }, { "type": "Synced", "status": "False" }]);
    let (code, object) = apply(&server, &uri, &status("a", ready));
    assert_eq!((code, &object["spec"]["color"], &object["metadata"]["labels"]), (200, &json!("red"), &Value::Null));
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(object["status"]["observedGeneration"], -1, "a default stays where nobody applies the field");
    assert_eq!(
        owned(&object, "operator"),
        json!({ "f:status": { "f:phase": {}, "f:conditions": {
            "k:{\"type\":\"Ready\"}": { ".": {}, "f:type": {}, "f:status": {} },
            "k:{\"type\":\"Synced\"}": { ".": {}, "f:type": {}, "f:status": {} },
        } } })
    );
    let (_, object) = apply(&server, &uri, &status("b", json!([{ "type": "Ready", "status": "True" }])));
    assert_eq!(object["status"]["conditions"], json!([{ "type": "Ready", "status": "True" }]));
    // A write to the object leaves the status as it is.
    let mut body = status("c", json!([]));
    body["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
    let (code, object) = put(&server, &format!("{WIDGETS}/w"), &body);
    assert_eq!((code, &object["status"]["phase"]), (200, &json!("b")));
    assert_eq!((&object["spec"]["color"], &object["metadata"]["generation"]), (&json!("green"), &json!(2)));
    assert!(version(&created) < version(&object));
}

#[test]
fn the_same_again_changes_nothing() {
    let server = server();
    let new = applied("one", json!({ "color": "red" }))(&server).1;
    let first = applied("one", json!({ "color": "red" }))(&server).1;
    assert!(version(&new) < version(&first), "the default of the status is stored with the first write");
    assert_eq!(first["metadata"]["generation"], 1);
    let again = applied("one", json!({ "color": "red" }))(&server).1;
    assert_eq!(first, again);
    assert!(server.writes().last().unwrap().is_noop);
    let merged = merge(&server, &format!("{WIDGETS}/w"), &json!({ "spec": { "color": "red" } })).1;
    assert_eq!(first, merged);
}

#[test]
fn a_version_in_what_is_applied_has_to_be_the_current_one() {
    let server = server();
    let old = applied("one", json!({ "color": "red" }))(&server).1;
    applied("one", json!({ "color": "green" }))(&server);
    let mut body = widget("w", json!({ "size": 2 }));
    body["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    let (code, status) = apply(&server, &format!("{WIDGETS}/w?fieldManager=two"), &body);
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    let (code, _) = apply(&server, &format!("{WIDGETS}/w/status?fieldManager=two"), &body);
    assert_eq!(code, 409);
}

#[test]
fn what_can_not_be_applied_is_refused() {
    let server = server();
    let uri = format!("{WIDGETS}/w?fieldManager=one");
    let cases = [
        (format!("{WIDGETS}/w"), widget("w", json!({})), 422),
        (uri.clone(), widget("other", json!({})), 400),
        (uri.clone(), widget("w", json!({ "unknown": 1 })), 500),
        (uri.clone(), widget("w", json!({ "tags": ["a", "a"] })), 500),
        (uri.clone(), widget("w", json!({ "color": "blue" })), 422),
        (uri.clone(), json!({ "metadata": { "name": "w" } }), 400),
        (uri, json!({ "apiVersion": "example.io/v2", "kind": "Widget", "metadata": { "name": "w" } }), 400),
    ];
    for (uri, body, expected) in cases {
        assert_eq!(apply(&server, &uri, &body).0, expected, "{body}");
    }
}
