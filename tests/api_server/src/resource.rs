//! The resources that are served: those of Kubernetes itself, and those of CustomResourceDefinitions.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::schema::Schema;
use crate::state::State;

/// What a resource is to the server, beside its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Namespace,
    Secret,
    Event,
    Definition,
    Custom,
    /// Nothing but its schema.
    Plain,
}

/// One resource in the one version that is served.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) is_namespaced: bool,
    pub(crate) has_status: bool,
    pub(crate) role: Role,
    pub(crate) schema: Schema,
}

impl Resource {
    /// The name in messages, and the key of the resource: `vpptokens.vpptoken.io`.
    pub(crate) fn qualified(&self) -> String {
        qualified(&self.group, &self.plural)
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The key that an object is kept under, in the order of etcd.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        if self.is_namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// Whether a write may omit the version.
    pub(crate) fn allows_unconditional_update(&self) -> bool {
        !matches!(self.role, Role::Custom | Role::Definition)
    }

    pub(crate) fn has_generation(&self) -> bool {
        matches!(self.role, Role::Custom | Role::Definition)
    }

    /// Fields that a write to the object, or to its status, can't own.
    pub(crate) fn reset_fields(&self, is_status: bool) -> &'static [&'static str] {
        match (is_status, self.has_status, self.role) {
            (true, _, Role::Namespace) => &["f:spec"],
            (true, _, _) => &["f:metadata", "f:spec"],
            (false, true, _) => &["f:status"],
            (false, false, _) => &[],
        }
    }
}

pub(crate) fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// CustomResourceDefinitions, compiled once and shared by as many servers as there are.
#[derive(Clone, Debug, Default)]
pub struct Definitions(Arc<Compiled>);

#[derive(Debug, Default)]
struct Compiled {
    definitions: Vec<(Value, Arc<Resource>)>,
    /// How a server begins, and when the last one did: servers that begin at the same moment begin with a copy.
    beginning: Mutex<Option<(Timestamp, State)>>,
}

impl Definitions {
    /// Compiles the manifests of CustomResourceDefinitions. Of their versions, the one that is stored is served.
    ///
    /// # Errors
    /// When a manifest is invalid, with what is wrong with it.
    pub fn new(manifests: Vec<Value>) -> Result<Self, String> {
        let compiled = manifests.into_iter().map(|manifest| {
            let resource = definition(&manifest)?;
            Ok((manifest, Arc::new(resource)))
        });
        let definitions = compiled.collect::<Result<_, String>>()?;
        Ok(Self(Arc::new(Compiled { definitions, beginning: Mutex::default() })))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&Value, &Arc<Resource>)> {
        self.0.definitions.iter().map(|(manifest, resource)| (manifest, resource))
    }

    /// How a server begins now, if another one began at this moment before.
    pub(crate) fn beginning(&self, now: Timestamp) -> Option<State> {
        let beginning = self.0.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        beginning.as_ref().filter(|(at, _)| *at == now).map(|(_, state)| state.fork())
    }

    pub(crate) fn remember(&self, now: Timestamp, state: &State) {
        *self.0.beginning.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, state.fork()));
    }
}

/// The resource that a CustomResourceDefinition defines.
pub(crate) fn definition(manifest: &Value) -> Result<Resource, String> {
    let spec = &manifest["spec"];
    let text = |value: &Value, name: &str| value.as_str().map(str::to_owned).ok_or(format!("{name} is missing"));
    let kind = text(&spec["names"]["kind"], "spec.names.kind")?;
    let version = spec["versions"].as_array().into_iter().flatten().find(|version| version["storage"] == true);
    let version = version.ok_or("no version is stored")?;
    let schema = &version["schema"]["openAPIV3Schema"];
    let schema = Schema::compile(schema).map_err(|error| format!("{kind}: {error}"))?;
    Ok(Resource {
        group: text(&spec["group"], "spec.group")?,
        version: text(&version["name"], "spec.versions[].name")?,
        plural: text(&spec["names"]["plural"], "spec.names.plural")?,
        singular: spec["names"]["singular"].as_str().map_or_else(|| kind.to_lowercase(), str::to_owned),
        list_kind: spec["names"]["listKind"].as_str().map_or_else(|| format!("{kind}List"), str::to_owned),
        is_namespaced: spec["scope"] == "Namespaced",
        has_status: version["subresources"]["status"].is_object(),
        role: Role::Custom,
        schema: schema.complete(),
        kind,
    })
}

/// The resources of Kubernetes itself, as far as the operator uses them.
pub(crate) static BUILT_IN: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "object", "additionalProperties": text });
    let reference = json!({ "type": "object", "x-kubernetes-map-type": "atomic", "properties": {
        "apiVersion": text, "kind": text, "name": text, "namespace": text, "uid": text, "resourceVersion": text,
        "fieldPath": text,
    } });
    let conditions = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": { "type": "object", "properties": {
            "type": text, "status": text, "reason": text, "message": text, "lastTransitionTime": text,
            "observedGeneration": { "type": "integer" },
        } },
    });
    let namespace = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": { "finalizers": { "type": "array", "items": text } } },
        "status": { "type": "object", "properties": { "phase": text, "conditions": conditions } },
    } });
    let secret = json!({ "type": "object", "properties": {
        "data": texts, "stringData": texts, "type": text, "immutable": { "type": "boolean" },
    } });
    let account = json!({ "type": "object", "properties": {
        "automountServiceAccountToken": { "type": "boolean" },
        "imagePullSecrets": { "type": "array", "items": { "type": "object", "properties": { "name": text } } },
        "secrets": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": reference,
        },
    } });
    let role_binding = json!({ "type": "object", "properties": {
        "roleRef": { "type": "object", "x-kubernetes-map-type": "atomic",
            "properties": { "apiGroup": text, "kind": text, "name": text } },
        "subjects": { "type": "array", "items": { "type": "object",
            "properties": { "apiGroup": text, "kind": text, "name": text, "namespace": text } } },
    } });
    let time = json!({ "type": "string", "format": "date-time", "nullable": true });
    let count = json!({ "type": "integer", "format": "int32" });
    let series = json!({ "type": "object", "properties": { "count": count, "lastObservedTime": time } });
    let source = json!({ "type": "object", "properties": { "component": text, "host": text } });
    let event = json!({ "type": "object", "properties": {
        "eventTime": time, "series": series, "reportingController": text, "reportingInstance": text, "action": text,
        "reason": text, "regarding": reference, "related": reference, "note": text, "type": text,
        "deprecatedSource": source, "deprecatedFirstTimestamp": time, "deprecatedLastTimestamp": time,
        "deprecatedCount": count,
    } });
    let core_event = json!({ "type": "object", "properties": {
        "involvedObject": reference, "reason": text, "message": text, "source": source, "firstTimestamp": time,
        "lastTimestamp": time, "count": count, "type": text, "eventTime": time, "series": series, "action": text,
        "related": reference, "reportingComponent": text, "reportingInstance": text,
    } });
    let definition = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "conditions": conditions,
        } },
    } });
    let rows = [
        ("", "v1", "namespaces", "Namespace", false, true, Role::Namespace, namespace),
        ("", "v1", "secrets", "Secret", true, false, Role::Secret, secret),
        ("", "v1", "serviceaccounts", "ServiceAccount", true, false, Role::Plain, account),
        ("", "v1", "events", "Event", true, false, Role::Event, core_event),
        ("events.k8s.io", "v1", "events", "Event", true, false, Role::Event, event),
        ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true, false, Role::Plain, role_binding),
        (
            DEFINITIONS_GROUP,
            "v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            false,
            true,
            Role::Definition,
            definition,
        ),
    ];
    let resources =
        rows.into_iter().filter_map(|(group, version, plural, kind, is_namespaced, has_status, role, schema)| {
            Some(Arc::new(Resource {
                group: group.into(),
                version: version.into(),
                plural: plural.into(),
                singular: kind.to_lowercase(),
                kind: kind.into(),
                list_kind: format!("{kind}List"),
                is_namespaced,
                has_status,
                role,
                schema: Schema::compile(&schema).ok()?.complete(),
            }))
        });
    resources.collect()
});

/// The group of CustomResourceDefinitions.
pub(crate) const DEFINITIONS_GROUP: &str = "apiextensions.k8s.io";
/// The resource of CustomResourceDefinitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
