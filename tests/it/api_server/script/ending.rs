//! Deletions: of objects with and without finalizers, of namespaces, of definitions.

use serde_json::{Value, json};

use super::super::steps::{Group, Step, apply, delete, delete_with, get, merge, post, put};
use super::{DEFINITIONS, NAMESPACES, SECRETS, TOKENS, WIDGETS, secret, token, widget, with};

const FINALIZER: &str = "vpptoken.io/finalizer";

pub(super) fn objects() -> Vec<Group> {
    vec![
        Group { name: "deleting", steps: deleting() },
        Group { name: "finalizers", steps: finalizers() },
        Group { name: "deleting many", steps: many() },
    ]
}

pub(super) fn containers() -> Vec<Group> {
    vec![
        Group { name: "ending namespaces", steps: namespaces() },
        Group { name: "ending definitions", steps: definitions() },
    ]
}

fn preconditions(field: &str, value: &str) -> Value {
    json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { field: value } })
}

fn deleting() -> Vec<Step> {
    let gone = format!("{WIDGETS}/gone");
    vec![
        delete(&gone).refused(404).into(),
        post(WIDGETS, widget("gone", json!({}))).remembered("gone").into(),
        delete_with(&gone, preconditions("uid", "00000000-0000-0000-0000-000000000000")).refused(409).into(),
        delete_with(&gone, preconditions("resourceVersion", "1")).refused(409).into(),
        delete(format!("{gone}?dryRun=All")).into(),
        get(&gone).into(),
        delete_with(&gone, preconditions("uid", "$(gone/metadata/uid)")).into(),
        get(&gone).refused(404).into(),
        put(&gone, "gone", json!({})).refused(404).into(),
        post(WIDGETS, widget("gone", json!({}))).into(),
        put(&gone, "gone", json!({})).refused(409).into(),
        merge(&gone, json!({ "metadata": { "resourceVersion": "$(gone/metadata/resourceVersion)" } }))
            .refused(409)
            .into(),
        delete_with(&gone, json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" }))
            .into(),
        post(SECRETS, secret("gone", "x")).into(),
        delete_with(format!("{SECRETS}/gone"), preconditions("resourceVersion", "1")).refused(409).into(),
        delete(format!("{SECRETS}/gone")).into(),
        delete(format!("{SECRETS}/gone")).refused(404).into(),
        delete(format!("{NAMESPACES}/default")).refused(403).into(),
    ]
}

/// As the operator guards a VppToken.
fn finalizers() -> Vec<Step> {
    let rome = format!("{TOKENS}/rome");
    let set = |finalizers: Value| json!({ "metadata": { "finalizers": finalizers } });
    let by_operator = |finalizers: Value| {
        let object =
            json!({ "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": "rome" } });
        apply(format!("{rome}?fieldManager=finalizers"), with(object, json!({ "finalizers": finalizers })))
    };
    vec![
        post(TOKENS, token("rome", json!({}))).into(),
        merge(&rome, json!({ "metadata": { "resourceVersion": "1", "finalizers": [FINALIZER] } })).refused(409).into(),
        merge(&rome, set(json!([FINALIZER]))).into(),
        by_operator(json!([FINALIZER, "example.io/second"])).into(),
        delete(&rome).remembered("marked").into(),
        get(&rome).into(),
        delete(&rome).into(),
        delete_with(&rome, preconditions("uid", "00000000-0000-0000-0000-000000000000")).refused(409).into(),
        post(TOKENS, token("rome", json!({}))).refused(409).into(),
        merge(&rome, json!({ "spec": { "suspend": true } })).into(),
        merge(format!("{rome}/status"), json!({ "status": { "state": "valid" } })).into(),
        merge(&rome, set(json!([FINALIZER, "example.io/second", "example.io/third"]))).refused(422).into(),
        merge(&rome, json!({ "metadata": { "deletionTimestamp": null, "deletionGracePeriodSeconds": null } })).into(),
        put(&rome, "marked", json!({ "metadata": { "deletionTimestamp": null } })).refused(409).into(),
        merge(&rome, set(json!([FINALIZER]))).into(),
        by_operator(json!([])).into(),
        merge(format!("{rome}?dryRun=All"), set(json!([]))).into(),
        merge(&rome, set(json!([]))).into(),
        get(&rome).refused(404).into(),
        merge(&rome, set(json!([]))).refused(404).into(),
        // Marked, emptied, and gone at once.
        post(TOKENS, with(token("rome", json!({})), json!({ "finalizers": [FINALIZER] }))).into(),
        delete(&rome).remembered("marked").into(),
        put(&rome, "marked", set(json!([]))).into(),
        get(&rome).refused(404).into(),
        // A finalizer that goes while nothing is deleted takes nothing with it.
        post(TOKENS, with(token("rome", json!({})), json!({ "finalizers": [FINALIZER] }))).into(),
        merge(&rome, set(Value::Null)).into(),
        get(&rome).into(),
    ]
}

fn many() -> Vec<Step> {
    let many = |name: &str, more: Value| post(WIDGETS, with(widget(name, json!({})), more)).into();
    vec![
        many("m-1", json!({ "labels": { "many": "yes" } })),
        many("m-2", json!({ "labels": { "many": "yes" }, "finalizers": ["example.io/x"] })),
        delete(format!("{WIDGETS}?labelSelector=many%3Dyes")).into(),
        get(format!("{WIDGETS}?labelSelector=many%3Dyes")).into(),
        merge(format!("{WIDGETS}/m-2"), json!({ "metadata": { "finalizers": null } })).into(),
        get(format!("{WIDGETS}?labelSelector=many%3Dyes")).into(),
        delete(NAMESPACES).refused(405).into(),
    ]
}

/// A namespace that waits for a finalizer of an object in it.
fn namespaces() -> Vec<Step> {
    let ending = format!("{NAMESPACES}/ending");
    let (tokens, secrets) = (TOKENS.replace("alike", "ending"), SECRETS.replace("alike", "ending"));
    let guarded = with(token("guarded", json!({})), json!({ "finalizers": [FINALIZER] }));
    vec![
        post(NAMESPACES, json!({ "metadata": { "name": "ending", "labels": { "a": "b" } } })).into(),
        merge(&ending, json!({ "metadata": { "annotations": { "a": "b" } } })).into(),
        post(tokens.as_str(), guarded).into(),
        post(secrets.as_str(), secret("s", "x")).into(),
        delete(&ending).into(),
        get(&ending).until("/status/phase", "Terminating").into(),
        post(tokens.as_str(), token("late", json!({}))).refused(403).into(),
        post(secrets.as_str(), secret("late", "x")).refused(403).into(),
        apply(format!("{tokens}/late?fieldManager=one"), token("late", json!({}))).refused(403).into(),
        get(format!("{secrets}/s")).refused(404).until("/code", 404).into(),
        get(format!("{tokens}/guarded")).until("/metadata/deletionGracePeriodSeconds", 0).into(),
        merge(format!("{tokens}/guarded"), json!({ "spec": { "suspend": true } })).into(),
        post(NAMESPACES, json!({ "metadata": { "name": "ending" } })).refused(409).into(),
        merge(format!("{tokens}/guarded"), json!({ "metadata": { "finalizers": null } })).into(),
        get(format!("{tokens}/guarded")).refused(404).into(),
        get(&ending).refused(404).until("/code", 404).into(),
        post(tokens.as_str(), token("late", json!({}))).refused(404).into(),
        get(tokens).into(),
    ]
}

/// A definition that waits for a finalizer of an object of its kind.
fn definitions() -> Vec<Step> {
    let widgets = format!("{DEFINITIONS}/widgets.example.io");
    vec![
        post(WIDGETS, with(widget("guarded", json!({})), json!({ "finalizers": ["example.io/x"] }))).into(),
        delete(format!("{WIDGETS}/l")).into(),
        merge(format!("{WIDGETS}/l"), json!({ "metadata": { "finalizers": null } })).refused(404).into(),
        delete(&widgets).into(),
        get(format!("{WIDGETS}/w")).refused(404).until("/code", 404).into(),
        get(format!("{WIDGETS}/guarded")).until("/metadata/deletionGracePeriodSeconds", 0).into(),
        get(&widgets).into(),
        post(WIDGETS, widget("late", json!({}))).refused(403).into(),
        apply(format!("{WIDGETS}/late?fieldManager=one"), widget("late", json!({}))).refused(403).into(),
        merge(format!("{WIDGETS}/guarded"), json!({ "spec": { "size": 4 } })).into(),
        merge(format!("{WIDGETS}/guarded"), json!({ "metadata": { "finalizers": null } })).into(),
        get(&widgets).refused(404).until("/code", 404).into(),
        get(WIDGETS).refused(404).until("", "404 page not found\n").into(),
    ]
}
