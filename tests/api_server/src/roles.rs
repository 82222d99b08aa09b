//! Rules of kinds that are not in their schema: Namespaces, Secrets, Events, definitions, and custom resources.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, FieldError};
use crate::metadata;
use crate::resource::{Resource, Role};
use crate::state::{State, Stored};

/// Brings an object into the form that is stored.
///
/// # Errors
/// 400 for what can't be read.
pub(crate) fn decoded(resource: &Resource, value: &mut Value) -> Result<(), Failure> {
    match resource.role {
        Role::Secret => secret(value),
        Role::Definition => {
            crate::definitions::complete(value);
            Ok(())
        }
        Role::Namespace => {
            if let Some(name) = value["metadata"]["name"].as_str().map(str::to_owned) {
                let labels = metadata::object(value).entry("labels").or_insert_with(|| json!({}));
                labels["kubernetes.io/metadata.name"] = name.into();
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn secret(value: &mut Value) -> Result<(), Failure> {
    let Some(object) = value.as_object_mut() else { return Ok(()) };
    if let Some(Value::Object(texts)) = object.remove("stringData") {
        let data = object.entry("data").or_insert_with(|| json!({}));
        for (key, text) in texts {
            let bytes = ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
            data[key] = serde_json::to_value(bytes).unwrap_or_default();
        }
    }
    for data in object.get("data").and_then(Value::as_object).into_iter().flat_map(Map::values) {
        if serde_json::from_value::<ByteString>(data.clone()).is_err() {
            return Err(Failure::bad_request(
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data",
            ));
        }
    }
    if object.get("data").and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove("data");
    }
    if object.get("type").and_then(Value::as_str).is_none_or(str::is_empty) {
        object.insert("type".into(), "Opaque".into());
    }
    Ok(())
}

/// Sets what a new object can't choose.
pub(crate) fn prepare_create(resource: &Resource, value: &mut Value, now: Timestamp) {
    let Some(object) = value.as_object_mut() else { return };
    match resource.role {
        Role::Custom if resource.has_status => {
            object.remove("status");
        }
        Role::Namespace => {
            object.insert("status".into(), json!({ "phase": "Active" }));
            let spec = object.entry("spec").or_insert_with(|| json!({}));
            let mut finalizers = spec["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.contains(&Value::from("kubernetes")) {
                finalizers.push("kubernetes".into());
            }
            spec["finalizers"] = finalizers.into();
        }
        Role::Definition => crate::definitions::prepare(object, now),
        Role::Event => prepare_event(resource, object),
        _ => {}
    }
}

/// Fills in the fields that Go writes even if they are empty.
fn prepare_event(resource: &Resource, object: &mut Map<String, Value>) {
    let empty = if resource.group.is_empty() {
        json!({
            "source": {}, "firstTimestamp": null, "lastTimestamp": null, "eventTime": null, "reportingComponent": "",
            "reportingInstance": "",
        })
    } else {
        json!({ "deprecatedSource": {}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null })
    };
    for (field, value) in empty.as_object().into_iter().flatten() {
        object.entry(field).or_insert_with(|| value.clone());
    }
}

/// Keeps what a write to the object can't change, and counts its generation.
pub(crate) fn prepare_update(resource: &Resource, new: &mut Value, old: &Value) {
    let Some(object) = new.as_object_mut() else { return };
    if resource.has_status {
        metadata::keep(object, old, "status");
    }
    match resource.role {
        Role::Namespace => metadata::keep(object, old, "spec"),
        Role::Event => prepare_event(resource, object),
        _ => {}
    }
    let rest = |object: &Map<String, Value>| -> Vec<(String, Value)> {
        let is_rest = |(name, _): &(&String, &Value)| *name != "metadata";
        object.iter().filter(is_rest).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    if resource.has_generation() && old.as_object().is_some_and(|old| rest(old) != rest(object)) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        metadata::object(new).insert("generation".into(), generation.into());
    }
}

/// Keeps everything but the status.
pub(crate) fn prepare_status_update(resource: &Resource, new: &mut Value, old: &Value) {
    let Some(object) = new.as_object_mut() else { return };
    if resource.role == Role::Namespace {
        metadata::keep(object, old, "spec");
        return;
    }
    let status = object.remove("status");
    if let Some(old) = old.as_object() {
        object.clone_from(old);
    }
    match status {
        Some(status) => object.insert("status".into(), status),
        None => object.remove("status"),
    };
}

/// What is wrong with an object beyond its schema.
pub(crate) fn check(resource: &Resource, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match resource.role {
        Role::Secret => check_secret(value, &mut errors),
        Role::Event if !resource.group.is_empty() => check_event(value, &mut errors),
        Role::Definition => {
            let spec = &value["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
            if value["metadata"]["name"] != name.as_str() {
                errors.push(FieldError::invalid("metadata.name", "must be spec.names.plural+\".\"+spec.group"));
            }
            if let Err(error) = crate::resource::definition(value) {
                errors.push(FieldError::invalid("spec", error));
            }
        }
        _ => {}
    }
    errors
}

fn check_secret(value: &Value, errors: &mut Vec<FieldError>) {
    let data = value["data"].as_object();
    let is_key = |key: &str| {
        !key.is_empty()
            && key.len() <= 253
            && !matches!(key, "." | "..")
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let mut size = 0;
    for (key, text) in data.into_iter().flatten() {
        size += text.as_str().map_or(0, str::len) / 4 * 3;
        if !is_key(key) {
            errors.push(FieldError::invalid(format!("data[{key}]"), format!("\"{key}\": is no key of a Secret")));
        }
    }
    if size > 1024 * 1024 {
        let message = "Too long: may not be more than 1048576 bytes".into();
        errors.push(FieldError { path: "data".into(), reason: "FieldValueTooLong", message });
    }
    if value["type"] == "kubernetes.io/tls" {
        for key in ["tls.crt", "tls.key"].into_iter().filter(|key| data.is_none_or(|data| !data.contains_key(*key))) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
}

fn check_event(value: &Value, errors: &mut Vec<FieldError>) {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    if !value["eventTime"].is_string() {
        errors.push(FieldError::required("eventTime", ""));
    }
    for (field, most) in [("reportingController", 253), ("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        if text(field).is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if text(field).len() > most {
            errors.push(FieldError::invalid(field, format!("can have at most {most} characters")));
        }
    }
    if !matches!(text("type"), "Normal" | "Warning") {
        errors.push(FieldError::invalid("type", format!("\"{}\": has invalid value", text("type"))));
    }
    if text("note").len() > 1024 {
        errors.push(FieldError::invalid("message", "can have at most 1024 characters"));
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
    let about = value["regarding"]["namespace"].as_str().unwrap_or_default();
    if about.is_empty() && !matches!(namespace, "default" | "kube-system") {
        errors.push(FieldError::invalid("involvedObject.namespace", "does not match event.namespace"));
    }
}

/// What a write changes that its kind does not allow.
pub(crate) fn check_update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fixed = |field: &str| {
        if new[field] != old[field] {
            errors.push(FieldError::invalid(field, "field is immutable"));
        }
    };
    match resource.role {
        Role::Secret => {
            fixed("type");
            if old["immutable"] == true {
                fixed("immutable");
                if new["data"] != old["data"] {
                    errors.push(FieldError::forbidden("data", "field is immutable when `immutable` is set"));
                }
            }
        }
        Role::Event if !resource.group.is_empty() => {
            let parts =
                ["regarding", "related", "reason", "action", "note", "type", "eventTime", "reportingController"];
            parts.into_iter().for_each(&mut fixed);
        }
        Role::Plain => fixed("roleRef"),
        _ => {}
    }
    errors
}

/// Whether a namespace may still have objects: the finalizer that waits for them is still there.
pub(crate) fn has_content(namespace: &Value) -> bool {
    !metadata::texts(&namespace["spec"]["finalizers"]).is_empty()
}

/// What follows from a new version of an object.
pub(crate) fn stored(state: &mut State, resource: &Resource, stored: &Arc<Stored>) {
    if resource.role == Role::Definition
        && let Ok(defined) = crate::resource::definition(&stored.value)
    {
        state.serve(Arc::new(defined));
    }
}
