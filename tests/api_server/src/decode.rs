//! Objects as they are sent: read, completed, and cut to what their kind has.

use serde_json::{Map, Value};

use crate::failure::{Failure, FieldError};
use crate::fields::Managers;
use crate::request::Call;
use crate::resource::{Resource, Role};
use crate::schema::{self, METADATA, Nulls, Path};
use crate::{metadata, patch, roles, write};

/// An object that was sent, and the managed fields that were sent with it.
pub(crate) struct Decoded {
    pub(crate) value: Value,
    pub(crate) managers: Option<Managers>,
}

/// How unknown fields are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    Lenient,
    Strict,
}

impl Strictness {
    pub(crate) fn of(call: &Call) -> Self {
        if call.query.get("fieldValidation") == Some("Strict") { Self::Strict } else { Self::Lenient }
    }
}

/// # Errors
/// 400 for what is no JSON.
pub(crate) fn json(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::bad_request(format!("error decoding request body: {error}")))
}

/// Reads an object of a kind.
///
/// # Errors
/// 400 for another version, for invalid metadata, and, if requested, for unknown fields; 422 for another kind.
pub(crate) fn object(resource: &Resource, value: Value, strictness: Strictness) -> Result<Decoded, Failure> {
    read(resource, value, strictness, Nulls::Missing)
}

/// Reads the result of an apply. A field that lost all of its parts is null there, and stays null.
///
/// # Errors
/// As `object`.
pub(crate) fn merged(resource: &Resource, value: Value) -> Result<Decoded, Failure> {
    read(resource, value, Strictness::Lenient, Nulls::Kept)
}

fn read(resource: &Resource, mut value: Value, strictness: Strictness, nulls: Nulls) -> Result<Decoded, Failure> {
    let Some(object) = value.as_object_mut() else {
        return Err(Failure::bad_request("the body of the request is no object"));
    };
    check_kind(resource, object)?;
    let meta = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Some(meta) = meta.as_object_mut() else { return Err(Failure::bad_request("metadata is no object")) };
    let managers = match meta.remove("managedFields") {
        // An empty list, or one empty entry, removes all managers.
        Some(Value::Array(entries)) if entries.iter().all(|entry| entry.as_object().is_some_and(Map::is_empty)) => {
            Some(Managers::default())
        }
        Some(sent) => Managers::from_json(&sent).filter(|managers| !managers.0.is_empty()),
        None => None,
    };
    let mut unknown = Vec::new();
    schema::prune(&resource.schema, &mut value, Path::Root, &mut unknown);
    if strictness == Strictness::Strict && !unknown.is_empty() {
        let messages: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        return Err(Failure::bad_request(format!("strict decoding error: {}", messages.join(", "))));
    }
    schema::fill(&resource.schema, &mut value, nulls);
    let meta = metadata::object(&mut value);
    metadata::normalise(meta);
    let mut errors: Vec<FieldError> = Vec::new();
    schema::check(&METADATA, &value["metadata"], Path::Field(&Path::Root, "metadata"), &mut errors);
    if resource.role != Role::Custom {
        // Go reads its types completely, or not at all.
        schema::check(&resource.schema, &value, Path::Root, &mut errors);
    }
    if let Some(error) = errors.first() {
        return Err(Failure::bad_request(format!("cannot convert {}: {}", error.path, error.message)));
    }
    roles::decoded(resource, &mut value)?;
    Ok(Decoded { value, managers })
}

fn check_kind(resource: &Resource, object: &mut Map<String, Value>) -> Result<(), Failure> {
    let (api_version, is_custom) = (resource.api_version(), resource.role == Role::Custom);
    let expected = [("kind", resource.kind.as_str()), ("apiVersion", api_version.as_str())];
    for (field, expected) in expected {
        match object.get(field).and_then(Value::as_str).unwrap_or_default() {
            "" if is_custom => {
                let shown = if field == "kind" { "Kind" } else { "apiVersion" };
                return Err(Failure::bad_request(format!("Object '{shown}' is missing in the body of the request")));
            }
            "" => {
                object.insert(field.to_owned(), expected.into());
            }
            sent if sent != expected && field == "kind" && is_custom => {
                let errors = [FieldError::invalid("kind", format!("\"{sent}\": must be {expected}"))];
                let name = object.get("metadata").and_then(|meta| meta["name"].as_str()).unwrap_or_default();
                return Err(Failure::invalid_kind(&resource.group, sent, name, &errors));
            }
            sent if sent != expected => {
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(Failure::bad_request(format!(
                    "the {what} in the data ({sent}) does not match the expected {what} ({expected})"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets the namespace and name that the request names.
///
/// # Errors
/// 400 when the object itself has others.
pub(crate) fn place(resource: &Resource, value: &mut Value, namespace: &str) -> Result<(), Failure> {
    let meta = metadata::object(value);
    let sent = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !sent.is_empty() && sent != namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(why));
    }
    if resource.is_namespaced {
        meta.insert("namespace".into(), namespace.into());
    }
    Ok(())
}

/// # Errors
/// 400 when an object is not the one that the request names.
pub(crate) fn check_name(value: &Value, call: &Call) -> Result<(), Failure> {
    let meta = &value["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    if name != call.name() {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name()
        )));
    }
    let namespace = meta["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != call.namespace {
        return Err(Failure::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            call.namespace
        )));
    }
    Ok(())
}

/// Reads what is applied: JSON, which is YAML too.
///
/// # Errors
/// 400 for what is no object of the kind, 422 without a manager, 500 for what does not fit the schema.
pub(crate) fn applied(call: &Call) -> Result<Value, Failure> {
    let resource = &call.resource;
    if call.query.get("fieldManager").is_none() {
        let errors = [FieldError::required("fieldManager", "is required for apply patch")];
        return Err(Failure::invalid_kind("meta.k8s.io", "PatchOptions", "", &errors));
    }
    let mut config = json(&call.body)?;
    let Some(object) = config.as_object_mut() else {
        return Err(Failure::bad_request(format!("error decoding YAML: {} needs an object", patch::APPLY)));
    };
    let text = |object: &Map<String, Value>, field: &str| {
        object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (api_version, kind) = (text(object, "apiVersion"), text(object, "kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err(Failure::bad_request("Object 'Kind' is missing in the applied configuration"));
    }
    if api_version != resource.api_version() {
        return Err(Failure::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {api_version}, expected: {}",
            resource.api_version()
        )));
    }
    if kind != resource.kind {
        return Err(Failure::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            resource.kind
        )));
    }
    if object.get("metadata").is_some_and(|meta| !meta["managedFields"].is_null()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|_, value| !value.is_null());
    }
    write::check_applied(resource, &config)?;
    Ok(config)
}
