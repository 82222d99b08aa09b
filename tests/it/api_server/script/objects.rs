//! Creating objects and changing them: defaults, schemas, versions, patches.

use serde_json::{Value, json};

use super::super::steps::{Group, JSON_PATCH, MERGE, STRATEGIC, Step, delete, get, merge, patch, post, put, put_new};
use super::{
    ALL_TOKENS, BINDINGS, CORE_EVENTS, EVENTS, SECRETS, TENANTS, TOKENS, WIDGETS, secret, token, widget, with,
};

pub(super) fn groups() -> Vec<Group> {
    vec![
        Group { name: "creating", steps: creating() },
        Group { name: "schemas", steps: schemas() },
        Group { name: "CEL rules", steps: rules() },
        Group { name: "replacing", steps: replacing() },
        Group { name: "the status", steps: status() },
        Group { name: "patching", steps: patching() },
        Group { name: "secrets", steps: secrets() },
        Group { name: "events", steps: events() },
        Group { name: "accounts and roles", steps: accounts() },
    ]
}

fn creating() -> Vec<Step> {
    let berlin = || token("berlin", json!({}));
    let mut with_status = with(token("berlin", json!({ "unknown": 1 })), json!({ "uid": "mine", "generation": 7 }));
    with_status["status"] = json!({ "observedGeneration": 5 });
    let in_place = |namespace: &str| with(berlin(), json!({ "namespace": namespace }));
    let mut other_kind = widget("x", json!({}));
    other_kind["kind"] = "Gadget".into();
    let mut other_version = berlin();
    other_version["apiVersion"] = "vpptoken.io/v1".into();
    vec![
        get(format!("{TOKENS}/berlin")).refused(404).into(),
        post(format!("{TOKENS}?dryRun=All"), berlin()).into(),
        get(format!("{TOKENS}/berlin")).refused(404).into(),
        post(format!("{TOKENS}?fieldManager=admin"), with_status).remembered("berlin").into(),
        get(format!("{TOKENS}/berlin")).into(),
        get(format!("{TOKENS}/berlin/status")).into(),
        post(TOKENS, berlin()).refused(409).into(),
        post(TOKENS.replace("alike", "nowhere"), berlin()).refused(404).into(),
        post(TOKENS, in_place("nowhere")).refused(400).into(),
        post(WIDGETS, other_kind).refused(422).into(),
        post(TOKENS, other_version).refused(400).into(),
        post(TOKENS, json!({ "metadata": { "name": "x" } })).refused(400).into(),
        post(TOKENS, Value::Null).text("{").refused(400).into(),
        post(TOKENS, token("", json!({}))).refused(422).into(),
        post(TOKENS, token("Not_a_name", json!({}))).refused(422).into(),
        post(TOKENS, with(token("x", json!({})), json!({ "labels": { "a": "not a label" } }))).refused(422).into(),
        post(TOKENS, with(token("x", json!({})), json!({ "finalizers": ["Not/a/finalizer"] }))).refused(422).into(),
        post(TOKENS, with(berlin(), json!({ "name": "x", "resourceVersion": "1" }))).refused(500).into(),
        post(TOKENS, with(token("", json!({})), json!({ "generateName": "generated-" }))).into(),
        post(format!("{TOKENS}?fieldValidation=Strict"), token("x", json!({ "unknown": 1 }))).refused(400).into(),
        post(format!("{TOKENS}?fieldValidation=Strict"), token("strict", json!({}))).into(),
        put_new(TOKENS, berlin()).refused(400).into(),
        delete(ALL_TOKENS).refused(404).into(),
        post(format!("{SECRETS}/berlin"), secret("berlin", "x")).refused(405).into(),
        put_new(SECRETS, secret("berlin", "x")).refused(405).into(),
        get("/apis/vpptoken.io/v2/vpptokens").refused(404).into(),
        get("/api/v1/namespaces/alike/gadgets").refused(404).into(),
        get("/apis/vpptoken.io/v1alpha1/namespaces/alike/gadgets").refused(404).into(),
    ]
}

/// One mistake each, and the objects that are just allowed.
fn schemas() -> Vec<Step> {
    let refused = [
        json!({ "size": 0 }),
        json!({ "size": 10 }),
        json!({ "size": "3" }),
        json!({ "color": "blue" }),
        json!({ "code": "a" }),
        json!({ "code": "abcde" }),
        json!({ "code": "AB" }),
        json!({ "tags": ["a", "b", "c", "d"] }),
        json!({ "tags": ["a", "a"] }),
        json!({ "ports": [{ "name": "a" }, { "name": "a", "port": 1 }] }),
        json!({ "ports": [{ "port": 1 }] }),
        json!({ "labels": { "a": "1", "b": "2", "c": "3" } }),
        json!({ "labels": { "a": 1 } }),
        json!({ "either": true }),
        json!({ "nested": { "may": "x" } }),
        json!({ "order": "a" }),
    ];
    let taken = [
        json!({ "either": "1", "maybe": null, "color": null }),
        json!({ "free": { "any": [{ "thing": null }] }, "ports": [{ "name": "a" }], "nested": { "must": "" } }),
    ];
    let dry = format!("{WIDGETS}?dryRun=All");
    let refused = refused.into_iter().map(|spec| post(dry.as_str(), widget("w", spec)).refused(422).into());
    let taken = taken.into_iter().map(|spec| post(dry.as_str(), widget("w", spec)).into());
    let of_tokens =
        [json!({ "deletionPolicy": "Forget" }), json!({ "tokenSecretRef": {} }), json!({ "organizationName": "" })];
    let of_tokens = of_tokens.map(|spec| post(format!("{TOKENS}?dryRun=All"), token("x", spec)).refused(422).into());
    let without_spec = json!({ "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": "x" } });
    let mut steps: Vec<Step> = refused.chain(taken).chain(of_tokens).collect();
    steps.push(post(TOKENS, without_spec).refused(422).into());
    steps
}

/// CEL rules are not evaluated in memory, as the top of its `lib.rs` says: the requests are dry runs, so that nothing is
/// stored there.
fn rules() -> Vec<Step> {
    const WHY: &str = "CEL rules are not evaluated";
    let refused = [
        (json!({ "appleId": "no address" }), "spec.appleId"),
        (json!({ "countryOrRegion": "deu" }), "spec.countryOrRegion"),
        (json!({ "sync": { "schedule": "0 6 * * *", "interval": "6h" } }), "spec.sync"),
        (json!({ "tokenSecretRef": null }), "spec"),
    ];
    let refused = refused.map(|(spec, field)| {
        let request = post(format!("{TOKENS}?dryRun=All"), token("x", spec)).refused(422);
        request.known(201, field, WHY).into()
    });
    let mut steps = Vec::from(refused);
    let tenant = json!({
        "apiVersion": "vpptoken.io/v1alpha1", "kind": "GraphTenant", "metadata": { "name": "contoso" },
        "spec": {
            "tenantId": "8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11", "clientId": "1b6f0b6e-4f0a-4e0d-8c56-b1a5f7f2d9c3",
            "credentials": { "clientSecretRef": { "name": "graph" } },
        },
    });
    let moved = json!({ "spec": { "tenantId": "00000000-0c1d-4f6a-9b57-1f0c5f2f7c11" } });
    steps.extend([
        post(TENANTS, tenant).into(),
        merge(format!("{TENANTS}/contoso?dryRun=All"), moved).refused(422).known(200, "spec.tenantId", WHY).into(),
    ]);
    steps
}

fn replacing() -> Vec<Step> {
    let berlin = format!("{TOKENS}/berlin");
    let spec = |country: &str| json!({ "spec": { "countryOrRegion": country } });
    vec![
        put_new(&berlin, token("berlin", json!({}))).refused(422).into(),
        // The default of the status is stored with the first write, even if it changes nothing.
        put(&berlin, "berlin", json!({})).remembered("berlin").into(),
        put(&berlin, "berlin", json!({})).into(),
        put(format!("{berlin}?dryRun=All"), "berlin", spec("us")).into(),
        put(format!("{berlin}?fieldManager=one"), "berlin", spec("de")).remembered("second").into(),
        put(&berlin, "berlin", spec("fr")).refused(409).into(),
        put(&berlin, "second", json!({ "metadata": { "labels": { "a": "b" } } })).remembered("third").into(),
        put(&berlin, "third", json!({ "status": { "observedGeneration": 9 } })).into(),
        put(&berlin, "third", json!({ "metadata": { "uid": "00000000-0000-0000-0000-000000000000" } }))
            .refused(409)
            .into(),
        put(&berlin, "third", json!({ "metadata": { "name": "rome" } })).refused(400).into(),
        put(&berlin, "third", json!({ "metadata": { "namespace": "rome" } })).refused(400).into(),
        put(&berlin, "third", json!({ "metadata": { "resourceVersion": "x" } })).refused(500).into(),
        put(&berlin, "third", json!({ "metadata": { "generation": 99, "creationTimestamp": null } })).into(),
        put(format!("{TOKENS}/rome"), "third", json!({ "metadata": { "name": "rome" } })).refused(404).into(),
        put(&berlin, "third", json!({ "spec": { "unknown": 1 } })).into(),
        put(format!("{berlin}?fieldValidation=Strict"), "third", json!({ "spec": { "unknown": 1 } }))
            .refused(400)
            .into(),
        put(&berlin, "third", json!({ "spec": { "deletionPolicy": null } })).into(),
        put(&berlin, "third", json!({ "metadata": { "managedFields": [{}] } })).remembered("nobody's").into(),
        get(&berlin).into(),
    ]
}

/// A PUT or a patch of the status changes the status only, and one of the object everything else.
fn status() -> Vec<Step> {
    let (berlin, status) = (format!("{TOKENS}/berlin"), format!("{TOKENS}/berlin/status"));
    let observed = |generation: i64| json!({ "status": { "observedGeneration": generation } });
    let both = json!({ "spec": { "countryOrRegion": "it" }, "status": { "observedGeneration": 2, "state": "valid" },
        "metadata": { "labels": { "ignored": "yes" } } });
    let ready = json!({ "type": "Ready", "status": "True", "reason": "UpToDate", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    vec![
        put(format!("{status}?fieldManager=operator"), "nobody's", both).remembered("observed").into(),
        put(&status, "nobody's", observed(3)).refused(409).into(),
        put(&status, "observed", observed(2)).into(),
        put(&status, "observed", json!({ "status": { "observedGeneration": "2" } })).refused(422).into(),
        put(&status, "observed", json!({ "status": { "conditions": [{ "type": "Ready" }] } })).refused(422).into(),
        put_new(&status, token("berlin", json!({}))).refused(422).into(),
        merge(&status, json!({ "status": { "conditions": [ready] }, "spec": { "suspend": true } })).into(),
        merge(
            &status,
            json!({ "metadata": { "resourceVersion": "$(observed/metadata/resourceVersion)" },
            "status": { "state": "expired" } }),
        )
        .refused(409)
        .into(),
        merge(&status, json!({ "status": null })).remembered("emptied").into(),
        put(&berlin, "emptied", json!({ "status": observed(4)["status"], "spec": { "suspend": true } })).into(),
        merge(format!("{TOKENS}/rome/status"), observed(1)).refused(404).into(),
        get(format!("{SECRETS}/berlin-vpp/status")).refused(404).into(),
    ]
}

fn patching() -> Vec<Step> {
    let w = format!("{WIDGETS}/w");
    let json_patch = |operations: Value| patch(JSON_PATCH, w.as_str(), operations);
    let first = json!({ "color": "red", "labels": { "a": "1", "b": "2" }, "order": ["a", "b"] });
    let changes = json!({ "metadata": { "resourceVersion": "$(w/metadata/resourceVersion)" },
        "spec": { "color": null, "labels": { "a": null, "b": "3" }, "unknown": 1 } });
    vec![
        post(WIDGETS, widget("w", first)).agent("kubectl/v1.36 (linux)").remembered("w").into(),
        merge(format!("{w}?fieldManager=editor"), changes.clone()).into(),
        merge(&w, changes).refused(409).into(),
        merge(&w, json!({})).into(),
        merge(&w, json!({ "spec": { "labels": { "b": "3" } } })).into(),
        merge(&w, json!({ "metadata": { "uid": "x" } })).refused(422).into(),
        merge(&w, json!({ "metadata": { "name": "x" } })).refused(400).into(),
        merge(&w, json!({ "spec": { "size": 0 } })).refused(422).into(),
        merge(&w, json!({ "spec": null })).into(),
        merge(format!("{w}?fieldValidation=Strict"), json!({ "spec": { "unknown": 1 } })).refused(422).into(),
        merge(format!("{w}?force=true"), json!({})).refused(422).into(),
        merge(format!("{WIDGETS}/x"), json!({})).refused(404).into(),
        merge(&w, json!([])).refused(400).into(),
        merge(&w, json!({ "spec": { "order": ["a", "b"], "size": 4 } })).into(),
        json_patch(json!([
            { "op": "test", "path": "/spec/order/0", "value": "a" },
            { "op": "add", "path": "/spec/order/-", "value": "c" },
            { "op": "remove", "path": "/spec/order/0" },
            { "op": "replace", "path": "/spec/size", "value": 5 },
            { "op": "add", "path": "/metadata/labels", "value": { "example.io/x": "1" } },
            { "op": "copy", "from": "/spec/order/0", "path": "/spec/maybe" },
            { "op": "move", "from": "/metadata/labels/example.io~1x", "path": "/metadata/labels/y" },
        ]))
        .into(),
        json_patch(json!([{ "op": "add", "path": "/spec/order/1", "value": "x" }])).into(),
        json_patch(json!([{ "op": "test", "path": "/spec/size", "value": 6 }])).refused(422).into(),
        json_patch(json!([{ "op": "remove", "path": "/spec/code" }])).refused(422).into(),
        json_patch(json!([{ "op": "replace", "path": "/spec/code", "value": "ab" }])).into(),
        json_patch(json!({ "op": "remove" })).refused(400).into(),
        patch(STRATEGIC, &w, json!({})).refused(415).into(),
        patch("application/json", &w, json!({})).refused(415).into(),
        patch(MERGE, &w, json!({ "metadata": { "annotations": { "vpptoken.io/sync-requested-at": "now" } } })).into(),
    ]
}

fn secrets() -> Vec<Step> {
    let s = format!("{SECRETS}/berlin-vpp");
    let strategic = json!({ "metadata": { "finalizers": ["example.io/a"], "labels": { "x": "y" } } });
    vec![
        post(SECRETS, secret("berlin-vpp", "abc")).remembered("secret").into(),
        put_new(&s, secret("berlin-vpp", "abcd")).into(),
        put(&s, "secret", json!({ "data": { "token": "YQ==" } })).refused(409).into(),
        merge(&s, json!({ "data": { "token": "!" } })).refused(422).into(),
        merge(&s, json!({ "data": { "a/b": "YQ==" } })).refused(422).into(),
        merge(&s, json!({ "type": "other" })).refused(422).into(),
        merge(&s, json!({ "stringData": { "clientSecret": "x" } })).into(),
        patch(STRATEGIC, &s, strategic).into(),
        patch(STRATEGIC, &s, json!({ "metadata": { "finalizers": ["example.io/b"] } })).into(),
        patch(
            STRATEGIC,
            &s,
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["example.io/a", "example.io/b"] } }),
        )
        .into(),
        merge(&s, json!({ "immutable": true })).into(),
        merge(&s, json!({ "data": { "token": "YQ==" } })).refused(422).into(),
        post(SECRETS, json!({ "metadata": { "name": "odd" }, "data": { "token": "!" } })).refused(400).into(),
        post(SECRETS, json!({ "metadata": { "name": "bare" } })).into(),
        get(&s).into(),
    ]
}

/// Events as the operator's recorder writes them.
fn events() -> Vec<Step> {
    let event = |changes: Value| {
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "berlin.1", "namespace": "alike" },
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "vpptoken-operator",
            "reportingInstance": "vpptoken-operator-0", "action": "Syncing", "reason": "SyncStarted",
            "regarding": { "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "name": "berlin", "namespace": "alike",
                "uid": "$(berlin/metadata/uid)" },
            "note": "A sync was started", "type": "Normal",
        });
        event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        event
    };
    let core = json!({
        "metadata": { "name": "berlin.2" }, "reason": "SyncStarted", "message": "A sync was started", "type": "Normal",
        "involvedObject": { "kind": "VppToken", "name": "berlin", "namespace": "alike" },
    });
    let again = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z" } });
    let long = "x".repeat(1025);
    vec![
        post(format!("{EVENTS}?fieldManager=operator"), event(json!({}))).into(),
        post(EVENTS, event(json!({}))).refused(409).into(),
        merge(format!("{EVENTS}/berlin.1?fieldManager=operator"), event(again)).into(),
        merge(format!("{EVENTS}/berlin.1"), json!({ "reason": "Other" })).refused(422).into(),
        merge(format!("{EVENTS}/gone"), json!({ "series": null })).refused(404).into(),
        post(EVENTS, event(json!({ "metadata": { "name": "long" }, "note": long }))).refused(422).into(),
        post(EVENTS, event(json!({ "metadata": { "name": "other" }, "type": "Odd" }))).refused(422).into(),
        post(EVENTS, event(json!({ "metadata": { "name": "silent" }, "action": null }))).refused(422).into(),
        post(
            EVENTS,
            event(json!({ "metadata": { "name": "elsewhere" }, "regarding": { "kind": "Node", "name": "x" } })),
        )
        .refused(422)
        .into(),
        get(format!("{EVENTS}/berlin.1")).into(),
        post(CORE_EVENTS, core).into(),
        get(format!("{CORE_EVENTS}/berlin.2")).into(),
    ]
}

/// What people change to give the operator its rights, or take them.
fn accounts() -> Vec<Step> {
    let (accounts, bindings) = ("/api/v1/namespaces/alike/serviceaccounts", BINDINGS);
    let reader = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "robot" },
        "roleRef": reader, "subjects": [{ "kind": "ServiceAccount", "name": "robot", "namespace": "alike" }],
    });
    vec![
        post(accounts, json!({ "metadata": { "name": "robot" } })).into(),
        merge(format!("{accounts}/robot"), json!({ "automountServiceAccountToken": false })).into(),
        get(format!("{accounts}/robot")).into(),
        delete(format!("{accounts}/robot")).into(),
        get(format!("{accounts}/robot")).refused(404).into(),
        post(bindings, binding).into(),
        merge(format!("{bindings}/robot"), json!({ "roleRef": { "name": "edit" } })).refused(422).into(),
        merge(format!("{bindings}/robot"), json!({ "metadata": { "labels": { "a": "b" } } })).into(),
        get(bindings).into(),
        delete(format!("{bindings}/robot")).into(),
    ]
}
