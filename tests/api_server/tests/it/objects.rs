//! Creating and changing objects: schemas, versions, patches.

use serde_json::{Value, json};

use crate::world::*;

#[test]
fn a_new_object_gets_what_the_server_gives() {
    let server = server();
    let mut body = widget("w", json!({ "unknown": 1, "ports": [{ "name": "a" }], "free": { "kept": { "x": 1 } } }));
    body["status"] = json!({ "phase": "ignored" });
    body["metadata"]["uid"] = "mine".into();
    let (code, object) = post(&server, &format!("{WIDGETS}?fieldManager=me"), &body);
    assert_eq!(code, 201);
    let spec = json!({ "size": 3, "ports": [{ "name": "a", "protocol": "TCP" }], "free": { "kept": { "x": 1 } } });
    assert_eq!((&object["spec"], &object["status"]), (&spec, &json!({ "observedGeneration": -1 })));
    let meta = &object["metadata"];
    assert_ne!(meta["uid"], "mine");
    assert_eq!((&meta["generation"], &meta["namespace"]), (&json!(1), &json!("devices")));
    assert_eq!(meta["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(
        owned(&object, "me"),
        json!({ "f:spec": {
            ".": {}, "f:size": {}, "f:ports": { ".": {}, "k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:protocol": {} } },
            "f:free": { ".": {}, "f:kept": { ".": {}, "f:x": {} } },
        } })
    );
    assert_eq!(get(&server, &format!("{WIDGETS}/w")), (200, object));
}

#[test]
fn what_breaks_the_schema_is_invalid() {
    let server = server();
    let cases = [
        (json!({ "size": 0 }), "spec.size"),
        (json!({ "size": 10 }), "spec.size"),
        (json!({ "size": "3" }), "spec.size"),
        (json!({ "size": 1.5 }), "spec.size"),
        (json!({ "color": "blue" }), "spec.color"),
        (json!({ "code": "a" }), "spec.code"),
        (json!({ "code": "abcde" }), "spec.code"),
        (json!({ "code": "AB" }), "spec.code"),
        (json!({ "tags": ["a", "b", "c", "d"] }), "spec.tags"),
        (json!({ "tags": ["a", "a"] }), "spec.tags[1]"),
        (json!({ "ports": [{ "name": "a" }, { "name": "a", "port": 1 }] }), "spec.ports[1]"),
        (json!({ "ports": [{ "port": 1 }] }), "spec.ports[0].name"),
        (json!({ "labels": { "a": "1", "b": "2", "c": "3" } }), "spec.labels"),
        (json!({ "labels": { "a": 1 } }), "spec.labels.a"),
        (json!({ "either": true }), "spec.either"),
        (json!({ "nested": { "may": "x" } }), "spec.nested.must"),
    ];
    for (spec, field) in cases {
        let (code, status) = post(&server, WIDGETS, &widget("w", spec.clone()));
        assert_eq!((code, &status["reason"], &status["kind"]), (422, &json!("Invalid"), &json!("Status")), "{spec}");
        assert_eq!(status["details"]["causes"][0]["field"], field, "{spec}");
    }
    for spec in [json!({ "either": 1 }), json!({ "either": "1" }), json!({ "maybe": null }), json!({ "color": null })] {
        let (code, object) = post(&server, WIDGETS, &widget("w", spec.clone()));
        assert_eq!(code, 201, "{spec}");
        assert_eq!(object["spec"].as_object().unwrap().contains_key("maybe"), spec.get("maybe").is_some());
        server.delete("widgets", "devices", "w");
    }
}

#[test]
fn names_and_places_have_to_fit() {
    let server = server();
    let named = |name: &str| widget(name, json!({}));
    assert_eq!(post(&server, WIDGETS, &named("Not_a_name")).0, 422);
    assert_eq!(post(&server, WIDGETS, &named("")).0, 422);
    assert_eq!(post(&server, WIDGETS, &named("w")).0, 201);
    let (code, status) = post(&server, WIDGETS, &named("w"));
    assert_eq!((code, &status["reason"]), (409, &json!("AlreadyExists")));
    let (code, status) = post(&server, &WIDGETS.replace("devices", "nowhere"), &named("w"));
    assert_eq!((code, &status["message"]), (404, &json!("namespaces \"nowhere\" not found")));
    let mut elsewhere = named("x");
    elsewhere["metadata"]["namespace"] = "other".into();
    assert_eq!(post(&server, WIDGETS, &elsewhere).0, 400);
    let mut other_kind = named("x");
    other_kind["kind"] = "Gadget".into();
    let (code, status) = post(&server, WIDGETS, &other_kind);
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (422, &json!("kind")));
    assert_eq!(get(&server, &WIDGETS.replace("widgets", "gadgets")).0, 404);
    let mut generated = named("");
    generated["metadata"] = json!({ "generateName": "w-" });
    let (first, second) = (post(&server, WIDGETS, &generated).1, post(&server, WIDGETS, &generated).1);
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("w-"));
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[test]
fn unknown_fields_are_refused_when_so_wished() {
    let server = server();
    let (code, status) =
        post(&server, &format!("{WIDGETS}?fieldValidation=Strict"), &widget("w", json!({ "unknown": 1 })));
    assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")));
    assert!(status["message"].as_str().unwrap().contains("spec.unknown"));
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = server();
    assert_eq!(post(&server, &format!("{WIDGETS}?dryRun=All"), &widget("w", json!({}))).0, 201);
    assert_eq!(get(&server, &format!("{WIDGETS}/w")).0, 404);
    post(&server, WIDGETS, &widget("w", json!({})));
    let uri = format!("{WIDGETS}/w?dryRun=All");
    assert_eq!(merge(&server, &uri, &json!({ "spec": { "size": 5 } })).1["spec"]["size"], 5);
    assert_eq!(delete(&server, &uri, &Value::Null).0, 200);
    assert_eq!(get(&server, &format!("{WIDGETS}/w")).1["spec"]["size"], 3);
}

#[test]
fn a_replacement_names_the_version_that_it_replaces() {
    let server = server();
    let (_, first) = post(&server, WIDGETS, &widget("w", json!({})));
    let uri = format!("{WIDGETS}/w");
    assert_eq!(put(&server, &uri, &widget("w", json!({}))).0, 422, "custom resources have to");
    let mut next = first.clone();
    next["spec"]["size"] = 4.into();
    let (code, second) = put(&server, &uri, &next);
    assert_eq!((code, &second["metadata"]["generation"]), (200, &json!(2)));
    let (code, status) = put(&server, &uri, &next);
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    let mut another = second.clone();
    another["metadata"]["uid"] = "another".into();
    assert_eq!(put(&server, &uri, &another).0, 409);
    let mut renamed = second.clone();
    renamed["metadata"]["name"] = "x".into();
    assert_eq!(put(&server, &uri, &renamed).0, 400);
    assert_eq!(put(&server, &format!("{WIDGETS}/x"), &renamed).0, 404);
    let (code, same) = put(&server, &uri, &second);
    assert_eq!((code, &same), (200, &second));
    let mut labelled = second.clone();
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    let labelled = put(&server, &uri, &labelled).1;
    assert_eq!((&labelled["metadata"]["generation"], version(&labelled) > version(&second)), (&json!(2), true));
}

#[test]
fn a_merge_patch_removes_with_null_and_can_name_a_version() {
    let server = server();
    let first = post(&server, WIDGETS, &widget("w", json!({ "color": "red", "labels": { "a": "1", "b": "2" } }))).1;
    let uri = format!("{WIDGETS}/w");
    let patch = json!({ "metadata": { "resourceVersion": first["metadata"]["resourceVersion"] },
        "spec": { "color": null, "labels": { "a": null, "b": "3" }, "unknown": 1 } });
    let (code, object) = merge(&server, &uri, &patch);
    assert_eq!((code, &object["spec"]), (200, &json!({ "size": 3, "labels": { "b": "3" } })));
    assert_eq!(merge(&server, &uri, &patch).0, 409);
    assert_eq!(merge(&server, &uri, &json!({ "metadata": { "uid": "x" } })).0, 422);
    assert_eq!(merge(&server, &uri, &json!({ "metadata": { "name": "x" } })).0, 400);
    assert_eq!(merge(&server, &format!("{WIDGETS}/x"), &patch).0, 404);
    let status =
        merge(&server, &format!("{uri}/status"), &json!({ "status": { "phase": "a" }, "spec": { "size": 9 } })).1;
    assert_eq!((&status["status"]["phase"], &status["spec"]["size"]), (&json!("a"), &json!(3)));
    assert_eq!(status["metadata"]["managedFields"][1]["subresource"], "status");
}

#[test]
fn a_json_patch_is_done_whole_or_not_at_all() {
    let server = server();
    post(&server, WIDGETS, &widget("w", json!({ "order": ["a", "b"] })));
    let patch = |body: Value| {
        let answer = ask(&server, "PATCH", &format!("{WIDGETS}/w"), "application/json-patch+json", &body);
        (answer.status().as_u16(), answer.json())
    };
    let (code, object) = patch(json!([
        { "op": "test", "path": "/spec/order/0", "value": "a" },
        { "op": "add", "path": "/spec/order/-", "value": "c" },
        { "op": "remove", "path": "/spec/order/0" },
        { "op": "replace", "path": "/spec/size", "value": 5 },
        { "op": "add", "path": "/metadata/labels", "value": { "example.io/x": "1" } },
        { "op": "copy", "from": "/spec/order/0", "path": "/spec/code" },
        { "op": "move", "from": "/metadata/labels/example.io~1x", "path": "/metadata/labels/y" },
    ]));
    assert_eq!(code, 422, "b is too short a code");
    assert_eq!(object["details"]["causes"][0]["field"], "spec.code");
    let (code, object) = patch(json!([{ "op": "add", "path": "/spec/order/1", "value": "x" }]));
    assert_eq!((code, &object["spec"]["order"]), (200, &json!(["a", "x", "b"])));
    let failing = json!([
        { "op": "replace", "path": "/spec/size", "value": 5 },
        { "op": "test", "path": "/spec/size", "value": 6 },
    ]);
    assert_eq!(patch(failing).0, 422);
    assert_eq!(get(&server, &format!("{WIDGETS}/w")).1["spec"]["size"], 3);
    let answer = ask(&server, "PATCH", &format!("{WIDGETS}/w"), "application/strategic-merge-patch+json", &json!({}));
    assert_eq!(answer.status(), 415);
}

#[test]
fn secrets_hold_base64_and_are_checked() {
    let server = server();
    let (code, object) = post(&server, SECRETS, &secret("s"));
    assert_eq!((code, &object["data"], &object["type"]), (201, &json!({ "token": "YWJj" }), &json!("Opaque")));
    assert_eq!(object.get("stringData"), None);
    let uri = format!("{SECRETS}/s");
    let mut body = secret("s");
    body["stringData"]["token"] = "abcd".into();
    let (code, object) = put(&server, &uri, &body);
    assert_eq!((code, &object["data"]["token"]), (200, &json!("YWJjZA==")), "no version is asked for");
    let (code, status) = merge(&server, &uri, &json!({ "data": { "token": "!" } }));
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (422, &json!("patch")));
    assert_eq!(merge(&server, &uri, &json!({ "data": { "a/b": "YQ==" } })).0, 422);
    assert_eq!(merge(&server, &uri, &json!({ "type": "other" })).0, 422);
    assert_eq!(merge(&server, &uri, &json!({ "immutable": true })).0, 200);
    assert_eq!(merge(&server, &uri, &json!({ "data": { "token": "YQ==" } })).0, 422);
    let strategic = json!({ "metadata": { "finalizers": ["example.io/a"], "labels": { "x": "y" } } });
    let answer = ask(&server, "PATCH", &uri, "application/strategic-merge-patch+json", &strategic);
    assert_eq!((answer.status().as_u16(), &answer.json()["metadata"]["labels"]["x"]), (200, &json!("y")));
}

#[test]
fn the_operator_s_own_objects_fit_their_definitions() {
    let server = server();
    let object = json!({
        "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": "berlin" },
        "spec": { "tokenSecretRef": { "name": "berlin-vpp" }, "appleId": "vpp.berlin@contoso.example" },
    });
    let (code, object) = post(&server, VPPTOKENS, &object);
    assert_eq!(code, 201, "{object}");
    assert_eq!(object["spec"]["tokenSecretRef"]["key"], "token");
    assert_eq!(object["spec"]["tenantRef"], json!({ "kind": "ClusterGraphTenant", "name": "default" }));
    assert_eq!(object["status"], json!({ "observedGeneration": -1 }));
    assert_eq!(server.objects("VppToken").len(), 1);
}

#[test]
fn every_write_is_in_the_log() {
    let server = server();
    let before = server.writes().len();
    post(&server, &format!("{WIDGETS}?fieldManager=me"), &widget("w", json!({})));
    merge(&server, &format!("{WIDGETS}/w/status?fieldManager=me"), &json!({ "status": { "phase": "a" } }));
    delete(&server, &format!("{WIDGETS}/w"), &Value::Null);
    let writes = server.writes_from(before);
    let logged: Vec<_> =
        writes.iter().map(|it| (it.verb, it.subresource.as_str(), it.old.is_some(), it.new.is_some())).collect();
    use api_server::Verb::*;
    assert_eq!(logged, [(Create, "", false, true), (Patch, "status", true, true), (Delete, "", true, false)]);
    assert!(writes.iter().all(|it| it.user == "test" && it.kind == "Widget" && it.name == "w" && !it.is_noop));
    assert_eq!(writes[1].new.as_ref().unwrap()["status"]["phase"], "a");
    assert_eq!(writes[2].revision, server.revision());
}
