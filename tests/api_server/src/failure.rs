//! Refusals as Kubernetes writes them: a Status object with a code and a reason.

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::answer::{Answer, json_response};
use crate::resource::{BUILT_IN, Resource, Role};

/// A request that is not carried out, and why.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<Told>);

#[derive(Clone, Debug)]
struct Told {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    metadata: Option<Value>,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) path: String,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), reason: "FieldValueInvalid", message: format!("Invalid value: {}", message.into()) }
    }

    pub(crate) fn required(path: impl Into<String>, message: impl AsRef<str>) -> Self {
        let message = message.as_ref();
        let rest = if message.is_empty() { String::new() } else { format!(": {message}") };
        Self { path: path.into(), reason: "FieldValueRequired", message: format!("Required value{rest}") }
    }

    pub(crate) fn not_supported(path: impl Into<String>, value: &str, supported: &str) -> Self {
        let message = format!("Unsupported value: \"{value}\": supported values: {supported}");
        Self { path: path.into(), reason: "FieldValueNotSupported", message }
    }

    pub(crate) fn forbidden(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {}", message.into()) }
    }
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Told { code, reason, message: message.into(), details: None, metadata: None }))
    }

    fn about(mut self, resource: &Resource, name: &str, more: Value) -> Self {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !resource.group.is_empty() {
            details.insert("group".into(), resource.group.clone().into());
        }
        details.insert("kind".into(), resource.plural.clone().into());
        if let Value::Object(more) = more {
            details.extend(more);
        }
        self.0.details = Some(Value::Object(details));
        self
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::new(404, "NotFound", message).about(resource, name, Value::Null)
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str, is_being_deleted: bool) -> Self {
        let prefix = if is_being_deleted { "object is being deleted: " } else { "" };
        let message = format!("{prefix}{} \"{name}\" already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message).about(resource, name, Value::Null)
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, name, Value::Null)
    }

    /// Another object, or another version of it, than the one that was to be deleted: named by its kind.
    pub(crate) fn precondition(resource: &Resource, name: &str, why: &str) -> Self {
        let whose = crate::resource::qualified(&resource.group, &resource.kind);
        let message = format!("Operation cannot be fulfilled on {whose} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(resource, name, json!({ "kind": resource.kind }))
    }

    /// Another version than the intended one.
    pub(crate) fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Fields that other managers own: who, and which.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, field)| {
                let message = format!("conflict with {manager}");
                json!({ "reason": "FieldManagerConflict", "message": message, "field": field })
            })
            .collect();
        let messages: Vec<String> =
            conflicts.iter().map(|(manager, field)| format!("conflict with {manager}: {field}")).collect();
        let plural = if conflicts.len() == 1 { "" } else { "s" };
        let message = format!("Apply failed with {} conflict{plural}: {}", conflicts.len(), messages.join("\n"));
        let mut failure = Self::new(409, "Conflict", message);
        failure.0.details = Some(json!({ "causes": causes }));
        failure
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        // Events are checked as what they are stored as: events of core/v1.
        let group = if resource.role == Role::Event { "" } else { &resource.group };
        Self::invalid_kind(group, &resource.kind, name, errors)
    }

    /// As the registry reports a version that is missing: with the resource where the kind should be.
    pub(crate) fn invalid_kind(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let messages: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        let message = if let [one] = messages.as_slice() { one.clone() } else { format!("[{}]", messages.join(", ")) };
        let whose = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({ "reason": error.reason, "message": error.message, "field": error.path }))
            .collect();
        let mut failure = Self::new(422, "Invalid", format!("{whose} \"{name}\" is invalid: {message}"));
        let mut details = json!({ "kind": kind, "causes": causes });
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        failure.0.details = Some(details);
        failure
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// A patch that can't be carried out.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        let mut failure = Self::new(422, "Invalid", message);
        failure.0.details = Some(json!({}));
        failure
    }

    /// The same failure when not the request itself could not be read, but the object that its patch made.
    pub(crate) fn of_patch(self) -> Self {
        if self.0.code != 400 {
            return self;
        }
        let error = FieldError::invalid("patch", self.0.message);
        let mut failure = Self::new(422, "Invalid", format!(" \"\" is invalid: {}: {}", error.path, error.message));
        let cause = json!({ "reason": error.reason, "message": error.message, "field": error.path });
        failure.0.details = Some(json!({ "causes": [cause] }));
        failure
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str, causes: Value) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
        let more = if causes.is_null() { Value::Null } else { json!({ "causes": causes }) };
        Self::new(403, "Forbidden", message).about(resource, name, more)
    }

    pub(crate) fn method_not_allowed(resource: &Resource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", resource.qualified());
        let mut failure = Self::new(405, "MethodNotAllowed", message);
        if resource.role != Role::Custom {
            failure.0.details = Some(json!({}));
            return failure;
        }
        failure.about(resource, "", Value::Null)
    }

    pub(crate) fn unsupported_media_type(supported: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {supported}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// An expired list that can be continued inconsistently.
    pub(crate) fn expired_continue(token: &str) -> Self {
        let mut failure = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        );
        failure.0.metadata = Some(json!({ "continue": token }));
        failure
    }

    /// A version that the server has not reached.
    pub(crate) fn too_large_version(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        failure.0.details = Some(json!({ "causes": [cause], "retryAfterSeconds": 1 }));
        failure
    }

    /// An error that the server gives no reason, such as a typed value that does not fit its schema.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// The Status object.
    pub(crate) fn status(&self) -> Value {
        let failure = &self.0;
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": failure.metadata.clone().unwrap_or_else(|| json!({})),
            "status": "Failure", "message": failure.message, "code": failure.code,
        });
        if !failure.reason.is_empty() {
            status["reason"] = failure.reason.into();
        }
        if let Some(details) = &failure.details {
            status["details"] = details.clone();
        }
        status
    }

    pub(crate) fn answer(&self) -> Answer {
        Answer::Once(json_response(self.0.code, self.status().to_string().into()))
    }
}

/// The answer to a path that no resource is at; the groups of Kubernetes itself say it as a Status.
pub(crate) fn nothing_at(parts: &Parts) -> Answer {
    let segments: Vec<&str> = parts.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let (group, version) = match segments.as_slice() {
        ["api", version, ..] => ("", version),
        ["apis", group, version, ..] => (*group, version),
        _ => return page_not_found(),
    };
    if !BUILT_IN.iter().any(|resource| resource.group == group && resource.version == *version) {
        return page_not_found();
    }
    let mut failure = Failure::new(404, "NotFound", "the server could not find the requested resource");
    failure.0.details = Some(json!({}));
    failure.answer()
}

/// The answer to a path that nothing at all is at.
pub(crate) fn page_not_found() -> Answer {
    let mut response = Response::new(Bytes::from_static(b"404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    Answer::Once(response)
}
