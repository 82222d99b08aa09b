//! Metadata of objects: what is allowed in it, and what a write can't change.

use serde_json::{Map, Value};

use crate::failure::FieldError;
use crate::resource::{Resource, Role};

/// The metadata, to be changed.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    let meta = &mut value["metadata"];
    if !meta.is_object() {
        *meta = Value::Object(Map::new());
    }
    match meta {
        Value::Object(meta) => meta,
        _ => unreachable!("it was just made an object"),
    }
}

/// Drops what Kubernetes does not write: nulls, empty texts, maps and lists.
pub(crate) fn normalise(meta: &mut Map<String, Value>) {
    meta.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(object) => !object.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    });
}

/// Keeps a field as it was.
pub(crate) fn keep(meta: &mut Map<String, Value>, old: &Value, field: &str) {
    match old.get(field) {
        Some(old) => meta.insert(field.to_owned(), old.clone()),
        None => meta.remove(field),
    };
}

/// What is wrong with an object's metadata.
pub(crate) fn check(resource: &Resource, value: &Value) -> Vec<FieldError> {
    let meta = &value["metadata"];
    let mut errors = Vec::new();
    match meta["name"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        name if !is_name(resource, name) => errors.push(FieldError::invalid(
            "metadata.name",
            format!("\"{name}\": a lowercase RFC 1123 name must consist of lower case letters, digits, '-' and '.'"),
        )),
        _ => {}
    }
    for (key, value) in meta["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            errors.push(FieldError::invalid("metadata.labels", format!("\"{key}\": is no label key")));
        }
        let value = value.as_str().unwrap_or_default();
        if !(value.is_empty() || is_part(value)) {
            errors.push(FieldError::invalid("metadata.labels", format!("\"{value}\": is no label value")));
        }
    }
    let mut size = 0;
    for (key, value) in meta["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        if !is_qualified(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", format!("\"{key}\": is no annotation key")));
        }
    }
    if size > 256 * 1024 {
        let message = "Too long: may not be more than 262144 bytes".into();
        errors.push(FieldError { path: "metadata.annotations".into(), reason: "FieldValueTooLong", message });
    }
    for finalizer in texts(&meta["finalizers"]) {
        if !is_qualified(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", format!("\"{finalizer}\": is no finalizer name")));
        }
    }
    errors
}

/// What a write changes that it can't.
pub(crate) fn check_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let mut errors = Vec::new();
    for field in ["uid", "name", "namespace", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new[field] != old[field] {
            let path = format!("metadata.{field}");
            errors.push(FieldError::invalid(path, format!("{}: field is immutable", new[field])));
        }
    }
    if old["deletionTimestamp"].is_string() {
        let before = texts(&old["finalizers"]);
        let added: Vec<&str> = texts(&new["finalizers"]).into_iter().filter(|name| !before.contains(name)).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(FieldError::forbidden("metadata.finalizers", why));
        }
    }
    errors
}

pub(crate) fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn is_name(resource: &Resource, name: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    match resource.role {
        Role::Namespace => name.len() <= 63 && is_label(name),
        // The names of roles and their bindings are path segments.
        Role::Plain if resource.group == "rbac.authorization.k8s.io" => !name.contains(['/', '%']),
        _ => name.len() <= 253 && name.split('.').all(is_label),
    }
}

/// A name, or a name after a domain and a slash.
fn is_qualified(name: &str) -> bool {
    let (domain, name) = name.split_once('/').map_or((None, name), |(domain, name)| (Some(domain), name));
    let is_domain = |domain: &str| {
        !domain.is_empty()
            && domain.len() <= 253
            && domain.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
    };
    domain.is_none_or(is_domain) && is_part(name)
}

fn is_part(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
}
