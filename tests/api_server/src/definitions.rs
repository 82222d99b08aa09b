//! CustomResourceDefinitions: accepted at once, and deleted only after all of their objects.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::fields::Managers;
use crate::metadata;
use crate::resource::{DEFINITIONS, Resource, Role};
use crate::state::{State, Stored};
use crate::write::seconds;

/// What a definition waits for, while it is being deleted.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Stores a definition that was there before the server began, and serves its resource.
pub(crate) fn install(state: &mut State, manifest: &Value, defined: Arc<Resource>, now: Timestamp) {
    let name = defined.qualified();
    state.serve(defined);
    let Some(definitions) = state.tables.get(DEFINITIONS).map(|table| Arc::clone(&table.resource)) else { return };
    let mut value = manifest.clone();
    complete(&mut value);
    let uid = state.next_uid();
    let meta = metadata::object(&mut value);
    meta.insert("uid".into(), uid.into());
    meta.insert("generation".into(), 1.into());
    meta.insert("creationTimestamp".into(), seconds(now).to_string().into());
    if let Some(object) = value.as_object_mut() {
        prepare(object, now);
    }
    state.put(&definitions, name, value, Managers::default(), now);
}

/// Fills in the defaults of a definition's spec.
pub(crate) fn complete(value: &mut Value) {
    let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.entry("conversion").or_insert_with(|| json!({ "strategy": "None" }));
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
}

/// Sets the conditions of a new definition: its names are accepted and its resource is served.
pub(crate) fn prepare(object: &mut Map<String, Value>, now: Timestamp) {
    let Some(spec) = object.get("spec").and_then(Value::as_object) else { return };
    let accepted = spec.get("names").cloned().unwrap_or_default();
    let is_stored = |version: &&Value| version["storage"] == true;
    let versions = spec.get("versions").and_then(Value::as_array).into_iter().flatten();
    let stored: Vec<Value> = versions.filter(is_stored).map(|version| version["name"].clone()).collect();
    let condition = |name: &str, reason: &str, message: &str| {
        json!({
            "type": name, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": seconds(now).to_string(),
        })
    };
    let status = json!({
        "acceptedNames": accepted,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": stored,
    });
    object.insert("status".into(), status);
}

/// A definition that is being deleted.
pub(crate) fn marked(existing: &Stored, now: Timestamp) -> Value {
    let mut value = (*existing.value).clone();
    let meta = metadata::object(&mut value);
    meta.insert("deletionTimestamp".into(), seconds(now).to_string().into());
    let mut finalizers = meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !finalizers.contains(&Value::from(FINALIZER)) {
        finalizers.push(FINALIZER.into());
    }
    meta.insert("finalizers".into(), finalizers.into());
    let terminating = json!({
        "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will be initiated soon",
        "lastTransitionTime": seconds(now).to_string(),
    });
    let mut conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "Terminating");
    conditions.push(terminating);
    value["status"]["conditions"] = conditions.into();
    value
}

/// Whether the definition of a resource is being deleted.
pub(crate) fn is_terminating(state: &State, resource: &Resource) -> bool {
    resource.role == Role::Custom
        && state
            .tables
            .get(DEFINITIONS)
            .and_then(|table| table.objects.get(&resource.qualified()))
            .is_some_and(|definition| definition.is_being_deleted())
}
