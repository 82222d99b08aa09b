//! The script: requests of the operator and of the people around it, right and wrong ones.

mod applying;
mod ending;
mod objects;
mod reading;
mod watching;

use serde_json::{Value, json};

use super::steps::{Group, Step, get, post};

const NAMESPACES: &str = "/api/v1/namespaces";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SECRETS: &str = "/api/v1/namespaces/alike/secrets";
const TOKENS: &str = "/apis/vpptoken.io/v1alpha1/namespaces/alike/vpptokens";
const ALL_TOKENS: &str = "/apis/vpptoken.io/v1alpha1/vpptokens";
const TENANTS: &str = "/apis/vpptoken.io/v1alpha1/namespaces/alike/graphtenants";
const WIDGETS: &str = "/apis/example.io/v1/namespaces/alike/widgets";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/alike/rolebindings";
const CORE_EVENTS: &str = "/api/v1/namespaces/alike/events";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/alike/events";

/// All of it, in order.
pub(super) fn groups() -> Vec<Group> {
    let mut groups = vec![Group { name: "beginning", steps: beginning() }];
    groups.extend(objects::groups());
    groups.extend(applying::groups());
    groups.extend(reading::groups());
    groups.extend(ending::objects());
    groups.extend(watching::groups());
    groups.extend(ending::containers());
    groups.extend(watching::compacted());
    groups
}

/// A namespace, and a definition with features of schemas that the operator's own definitions do not use.
fn beginning() -> Vec<Step> {
    vec![
        get("/api/v1/namespaces/alike").refused(404).into(),
        get(WIDGETS).refused(404).into(),
        post(NAMESPACES, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "alike" } })).into(),
        post(NAMESPACES, json!({ "metadata": { "name": "Alike" } })).refused(422).into(),
        post(DEFINITIONS, definition()).into(),
        post(DEFINITIONS, definition()).refused(409).into(),
        get(format!("{DEFINITIONS}/widgets.example.io")).until("/status/conditions/1/status", "True").into(),
        get(format!("{WIDGETS}?limit=1")).until("/kind", "WidgetList").into(),
    ]
}

fn definition() -> Value {
    let text = json!({ "type": "string" });
    let conditions = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": { "type": "object", "required": ["type"], "properties": { "type": text, "status": text } } });
    let ports = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": { "type": "object", "required": ["name"], "properties": {
            "name": text, "port": { "type": "integer" }, "protocol": { "type": "string", "default": "TCP" },
        } } });
    let spec = json!({ "type": "object", "properties": {
        "size": { "type": "integer", "minimum": 1, "maximum": 9, "default": 3 },
        "color": { "type": "string", "enum": ["red", "green"] },
        "code": { "type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 4 },
        "tags": { "type": "array", "maxItems": 3, "items": text, "x-kubernetes-list-type": "set" },
        "order": { "type": "array", "items": text },
        "ports": ports,
        "labels": { "type": "object", "additionalProperties": text, "maxProperties": 2 },
        "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        "either": { "x-kubernetes-int-or-string": true },
        "maybe": { "type": "string", "nullable": true },
        "nested": { "type": "object", "required": ["must"], "properties": { "must": text, "may": text } },
    } });
    let status = json!({ "type": "object", "default": { "observedGeneration": -1 }, "properties": {
        "observedGeneration": { "type": "integer" }, "phase": text, "conditions": conditions,
    } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.io" },
        "spec": {
            "group": "example.io", "scope": "Namespaced", "names": { "kind": "Widget", "plural": "widgets" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec, "status": status } } },
            }],
        },
    })
}

fn token(name: &str, changes: Value) -> Value {
    let mut spec = json!({ "tokenSecretRef": { "name": "berlin-vpp" }, "appleId": "vpp.berlin@contoso.example" });
    spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({ "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": name }, "spec": spec })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.io/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec })
}

fn secret(name: &str, text: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "token": text } })
}

/// An object with more metadata.
fn with(mut object: Value, metadata: Value) -> Value {
    object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    object
}
