//! The steps of a script: requests, and watches that are opened and read.
//!
//! `$(first/metadata/uid)` in a path or in a string of a body is replaced by the value at that place of the answer that is
//! remembered as `first`. Each side remembers its own answers, so it gets its own UIDs and versions.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// GET, POST, …
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// Empty where there is no body.
    pub content_type: &'static str,
    /// What is sent.
    pub body: Body,
    /// The media type of the answer.
    pub accept: &'static str,
    /// The user agent, which is the field manager where the query names none.
    pub agent: &'static str,
    /// The answer is remembered under this name.
    pub name: Option<&'static str>,
    /// The status that the script expects of both.
    pub code: u16,
    /// A known difference of the server in memory.
    pub known: Option<Known>,
    /// Repeated until the answer has this value at this JSON pointer.
    pub until: Option<(&'static str, Value)>,
}

/// An error of the real server that the server in memory does not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The status in memory.
    pub code: u16,
    /// The field that the real server refuses.
    pub field: &'static str,
    /// The reason.
    pub why: &'static str,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// None.
    Nothing,
    /// JSON.
    Json(Value),
    /// A remembered answer, changed by a JSON merge patch.
    Remembered(&'static str, Value),
    /// Text that is no JSON.
    Text(&'static str),
}

/// One step of a script.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A request that is answered as a whole.
    Ask(Request),
    /// Opens a watch, under a name.
    Watch(&'static str, Request),
    /// Reads a watch up to an event of this type about the object of this name, and closes it.
    Read(&'static str, &'static str, &'static str),
    /// Reads a watch up to its end.
    ReadAll(&'static str),
    /// Drops all versions but the current ones.
    Compact,
}

/// Steps that belong together.
pub(super) struct Group {
    /// What they are about.
    pub name: &'static str,
    /// In their order.
    pub steps: Vec<Step>,
}

/// The remembered answers of a side.
pub(super) type Memory = BTreeMap<&'static str, Value>;

pub(super) const JSON: &str = "application/json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

fn request(method: &'static str, path: impl Into<String>, content_type: &'static str, body: Body) -> Request {
    let code = if method == "POST" { 201 } else { 200 };
    let (path, accept, agent) = (path.into(), JSON, "alike/1.0");
    Request { method, path, content_type, body, accept, agent, name: None, code, known: None, until: None }
}

pub(super) fn get(path: impl Into<String>) -> Request {
    request("GET", path, "", Body::Nothing)
}

pub(super) fn post(path: impl Into<String>, body: Value) -> Request {
    request("POST", path, JSON, Body::Json(body))
}

/// Sends a remembered answer back, changed by a JSON merge patch.
pub(super) fn put(path: impl Into<String>, of: &'static str, changes: Value) -> Request {
    request("PUT", path, JSON, Body::Remembered(of, changes))
}

/// Sends an object as it is written here.
pub(super) fn put_new(path: impl Into<String>, body: Value) -> Request {
    request("PUT", path, JSON, Body::Json(body))
}

pub(super) fn patch(content_type: &'static str, path: impl Into<String>, body: Value) -> Request {
    request("PATCH", path, content_type, Body::Json(body))
}

pub(super) fn merge(path: impl Into<String>, body: Value) -> Request {
    patch(MERGE, path, body)
}

/// Server-side apply; the path says by whom.
pub(super) fn apply(path: impl Into<String>, body: Value) -> Request {
    patch(APPLY, path, body)
}

pub(super) fn delete(path: impl Into<String>) -> Request {
    request("DELETE", path, "", Body::Nothing)
}

pub(super) fn delete_with(path: impl Into<String>, options: Value) -> Request {
    request("DELETE", path, JSON, Body::Json(options))
}

impl Request {
    /// Remembers the answer.
    pub(super) fn remembered(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Expects another status than success.
    pub(super) fn refused(mut self, code: u16) -> Self {
        self.code = code;
        self
    }

    /// The server in memory is known to accept this field.
    pub(super) fn known(mut self, code: u16, field: &'static str, why: &'static str) -> Self {
        self.known = Some(Known { code, field, why });
        self
    }

    /// Asks for metadata only.
    pub(super) fn partial(mut self, kind: &'static str) -> Self {
        self.accept = kind;
        self
    }

    pub(super) fn agent(mut self, agent: &'static str) -> Self {
        self.agent = agent;
        self
    }

    /// Sends something that is no JSON.
    pub(super) fn text(mut self, text: &'static str) -> Self {
        self.body = Body::Text(text);
        self
    }

    /// Asks again until the answer has this at a JSON pointer, and the status that is expected.
    pub(super) fn until(mut self, pointer: &'static str, value: impl Into<Value>) -> Self {
        self.until = Some((pointer, value.into()));
        self
    }

    /// The path, the query and the body for a side.
    pub(super) fn filled(&self, memory: &Memory) -> (String, Vec<u8>) {
        let body = match &self.body {
            Body::Nothing => Vec::new(),
            Body::Text(text) => text.as_bytes().to_vec(),
            Body::Json(body) => filled_value(body, memory).to_string().into_bytes(),
            Body::Remembered(name, changes) => {
                let mut value = memory.get(name).unwrap_or_else(|| panic!("nothing is remembered as {name}")).clone();
                merged(&mut value, &filled_value(changes, memory));
                value.to_string().into_bytes()
            }
        };
        (filled_text(&self.path, memory), body)
    }
}

impl From<Request> for Step {
    fn from(request: Request) -> Self {
        Self::Ask(request)
    }
}

fn filled_value(value: &Value, memory: &Memory) -> Value {
    match value {
        Value::String(text) => filled_text(text, memory).into(),
        Value::Array(items) => items.iter().map(|item| filled_value(item, memory)).collect(),
        Value::Object(object) => {
            object.iter().map(|(name, value)| (name.clone(), filled_value(value, memory))).collect()
        }
        other => other.clone(),
    }
}

fn filled_text(text: &str, memory: &Memory) -> String {
    let mut parts = text.split("$(");
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let (place, rest) = part.split_once(')').unwrap();
        let (name, pointer) = place.split_once('/').unwrap();
        let found = memory.get(name).and_then(|answer| answer.pointer(&format!("/{pointer}"))).and_then(Value::as_str);
        // An answer without it has been reported as a difference already.
        filled += found.unwrap_or("nothing");
        filled += rest;
    }
    filled
}

/// RFC 7386.
fn merged(target: &mut Value, changes: &Value) {
    let Some(changes) = changes.as_object() else {
        *target = changes.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merged(&mut target[name], change);
        }
    }
}
