//! Server-side apply: who owns what, and what follows from it.

use serde_json::{Value, json};

use super::super::steps::{Group, Request, Step, apply, delete, get, merge, put};
use super::{TENANTS, TOKENS, WIDGETS, token, widget, with};

pub(super) fn groups() -> Vec<Group> {
    vec![
        Group { name: "applying", steps: applying() },
        Group { name: "applying lists and maps", steps: lists() },
        Group { name: "applying the status", steps: status() },
        Group { name: "what can't be applied", steps: refused() },
        Group { name: "many managers", steps: many() },
    ]
}

fn by(manager: &str, name: &str, spec: Value) -> Request {
    apply(format!("{WIDGETS}/{name}?fieldManager={manager}"), widget(name, spec))
}

fn by_force(manager: &str, name: &str, spec: Value) -> Request {
    apply(format!("{WIDGETS}/{name}?fieldManager={manager}&force=true"), widget(name, spec))
}

fn applying() -> Vec<Step> {
    let stale = |manager: &str, changes: Value| {
        let metadata = json!({ "resourceVersion": "$(applied/metadata/resourceVersion)" });
        apply(format!("{WIDGETS}/a?fieldManager={manager}"), with(widget("a", changes), metadata))
    };
    vec![
        by("one", "dry", json!({ "color": "red" })).refused(201).into(),
        delete(format!("{WIDGETS}/dry")).into(),
        by("one", "a", json!({ "color": "red", "code": "abc", "nested": { "must": "x", "may": "y" } }))
            .refused(201)
            .remembered("applied")
            .into(),
        by("one", "a", json!({ "color": "red", "code": "abc", "nested": { "must": "x", "may": "y" } })).into(),
        by("two", "a", json!({ "color": "green" })).refused(409).into(),
        by("two", "a", json!({ "color": "green", "code": "xyz" })).refused(409).into(),
        by("two", "a", json!({ "color": "red" })).into(),
        by("three", "a", json!({ "color": "green" })).refused(409).into(),
        by("one", "a", json!({ "code": "abc" })).into(),
        by("two", "a", json!({})).into(),
        by_force("two", "a", json!({ "code": "xyz" })).into(),
        by("one", "a", json!({ "size": 5 })).into(),
        stale("one", json!({ "size": 6 })).refused(409).into(),
        stale("three", json!({ "size": 5 })).refused(409).into(),
        merge(format!("{WIDGETS}/a?fieldManager=editor"), json!({ "spec": { "size": 7, "code": null } })).into(),
        by("one", "a", json!({ "size": 5 })).refused(409).into(),
        by_force("one", "a", json!({ "size": 5 })).into(),
        // What loses its last field is null, which the schema does not take.
        by("one", "a", json!({})).refused(422).into(),
        by("one", "a", json!({ "maybe": "x" })).into(),
        get(format!("{WIDGETS}/a")).remembered("a").into(),
        put(format!("{WIDGETS}/a"), "a", json!({ "metadata": { "managedFields": [{}] } })).into(),
        by("late", "a", json!({ "color": "red" })).into(),
        apply(format!("{WIDGETS}/a?fieldManager=late&dryRun=All"), widget("a", json!({ "color": "green" }))).into(),
        apply(
            format!("{TENANTS}/contoso?fieldManager=gitops"),
            json!({
                "apiVersion": "vpptoken.io/v1alpha1", "kind": "GraphTenant",
                "metadata": { "name": "contoso", "labels": { "team": "x" } }, "spec": { "pollInterval": "5m" },
            }),
        )
        .into(),
    ]
}

fn lists() -> Vec<Step> {
    vec![
        by(
            "one",
            "l",
            json!({ "ports": [{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }], "tags": ["x", "y"] }),
        )
        .refused(201)
        .into(),
        by("two", "l", json!({ "ports": [{ "name": "c", "port": 3 }], "tags": ["z"] })).into(),
        by("two", "l", json!({ "ports": [{ "name": "a", "port": 9 }] })).refused(409).into(),
        by("one", "l", json!({ "ports": [{ "name": "b", "port": 5 }], "tags": ["y"] })).into(),
        by("two", "l", json!({ "ports": [{ "name": "b" }, { "name": "c", "port": 3 }], "tags": ["z", "y"] })).into(),
        by("one", "l", json!({ "order": ["a", "b"], "free": { "x": { "y": 1 } }, "labels": { "k": "v" } })).into(),
        by("two", "l", json!({ "order": ["c"] })).refused(409).into(),
        by("two", "l", json!({ "free": { "x": { "z": [1, 2] } }, "labels": { "l": "w" } })).into(),
        by("one", "l", json!({ "order": ["b"] })).into(),
        by("two", "l", json!({ "maybe": null, "either": 1 })).into(),
        by("two", "l", json!({ "either": "1", "ports": [] })).into(),
        apply(
            format!("{WIDGETS}/l?fieldManager=three"),
            with(widget("l", json!({})), json!({ "finalizers": ["example.io/x"], "labels": { "a": "b" } })),
        )
        .into(),
        apply(
            format!("{WIDGETS}/l?fieldManager=three"),
            with(widget("l", json!({})), json!({ "labels": { "a": "c" } })),
        )
        .into(),
    ]
}

/// As the operator writes a VppToken's status.
fn status() -> Vec<Step> {
    let path = |manager: &str| format!("{TOKENS}/berlin/status?fieldManager={manager}&force=true");
    let condition = |kind: &str, status: &str| {
        json!({ "type": kind, "status": status, "reason": "UpToDate", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    let written = |status: Value| {
        let mut object = json!({ "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
            "metadata": { "name": "berlin" } });
        object["status"] = status;
        object
    };
    let (ready, synced) = (condition("Ready", "True"), condition("Synced", "False"));
    let current = json!({ "resourceVersion": "$(now/metadata/resourceVersion)" });
    let mut with_spec = with(token("berlin", json!({ "suspend": false })), json!({ "labels": { "ignored": "yes" } }));
    with_spec["status"] = json!({ "state": "valid", "observedGeneration": 2, "conditions": [ready, synced] });
    vec![
        apply(
            path("vpptoken-operator").replace("berlin", "rome"),
            json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": "rome" }, "status": {} }),
        )
        .refused(404)
        .into(),
        apply(path("vpptoken-operator"), with_spec).remembered("now").into(),
        apply(
            path("vpptoken-operator"),
            with(written(json!({ "state": "valid", "conditions": [ready] })), current.clone()),
        )
        .into(),
        apply(path("vpptoken-operator"), with(written(json!({ "state": "expired" })), current)).refused(409).into(),
        apply(path("vpptoken-operator"), written(json!({ "state": "valid", "conditions": [ready] }))).into(),
        apply(path("other"), written(json!({ "conditions": [synced] }))).into(),
        merge(
            format!("{TOKENS}/berlin/status?fieldManager=vpptoken-operator"),
            json!({ "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
                "metadata": { "name": "berlin", "resourceVersion": "$(now/metadata/resourceVersion)" },
                "status": { "state": "expired" } }),
        )
        .refused(409)
        .into(),
        merge(
            format!("{TOKENS}/berlin/status?fieldManager=vpptoken-operator"),
            json!({ "status": { "state": "expired", "conditions": [ready] } }),
        )
        .into(),
        apply(path("vpptoken-operator"), written(json!({ "state": "expired" }))).into(),
        apply(path("vpptoken-operator"), written(json!({ "state": 1 }))).refused(500).into(),
        apply(path("vpptoken-operator"), written(json!({ "conditions": [{ "type": "Ready" }] }))).refused(422).into(),
        get(format!("{TOKENS}/berlin")).into(),
    ]
}

fn refused() -> Vec<Step> {
    let of = |name: &str| format!("{WIDGETS}/{name}?fieldManager=one");
    let mut other_version = widget("a", json!({}));
    other_version["apiVersion"] = "example.io/v2".into();
    let mut other_kind = widget("a", json!({}));
    other_kind["kind"] = "Gadget".into();
    vec![
        apply(format!("{WIDGETS}/a"), widget("a", json!({}))).refused(422).into(),
        apply(of("a"), widget("other", json!({}))).refused(400).into(),
        apply(of("a"), widget("a", json!({ "unknown": 1 }))).refused(500).into(),
        apply(of("a"), widget("a", json!({ "tags": ["a", "a"] }))).refused(500).into(),
        apply(of("a"), widget("a", json!({ "code": "A" }))).refused(422).into(),
        apply(of("a"), json!({ "metadata": { "name": "a" } })).refused(400).into(),
        apply(of("a"), other_version).refused(400).into(),
        apply(of("a"), other_kind).refused(400).into(),
        apply(of("a"), with(widget("a", json!({})), json!({ "managedFields": [{}] }))).refused(400).into(),
        apply(of("new"), with(widget("new", json!({})), json!({ "uid": "$(applied/metadata/uid)" })))
            .refused(409)
            .into(),
        apply(of("a"), with(widget("a", json!({})), json!({ "uid": "00000000-0000-0000-0000-000000000000" })))
            .refused(422)
            .into(),
        apply(of("new"), with(widget("new", json!({})), json!({ "resourceVersion": "1" }))).refused(201).into(),
        apply(of("a").replace("alike", "nowhere"), widget("a", json!({}))).refused(404).into(),
    ]
}

/// More than ten that update: the oldest of them become one.
fn many() -> Vec<Step> {
    let annotated = |n: usize| {
        let path = format!("{WIDGETS}/l?fieldManager=updater-{n:02}");
        merge(path, json!({ "metadata": { "annotations": { format!("example.io/{n}"): "x" } } })).into()
    };
    (0..12).map(annotated).collect()
}
