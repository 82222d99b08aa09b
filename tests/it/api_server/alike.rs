//! How two answers are compared. What can't be the same on both sides is replaced, here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// In the message of an additional cause, when an object whose kind has CEL rules is invalid.
const RULES_LEFT_OUT: &str = "some validation rules were not checked because the object was invalid";

/// The UIDs in the answers of one side, and the versions of each object, in the order of their first appearance. The
/// first UID is compared as `uid 1` on both sides, and so on: what is equal on one side has to be equal on the other.
#[derive(Default)]
pub(super) struct Labels {
    uids: Vec<String>,
    versions: BTreeMap<String, Vec<String>>,
}

impl Labels {
    fn of(known: &mut Vec<String>, what: &str, text: &str) -> Value {
        let at = known.iter().position(|one| one == text).unwrap_or_else(|| {
            known.push(text.to_owned());
            known.len() - 1
        });
        json!(format!("{what} {}", at + 1))
    }

    /// The form of an answer that is compared.
    pub(super) fn comparable(&mut self, mut answer: Value) -> Value {
        match (answer["kind"].as_str().unwrap_or_default(), answer.get("items").is_some()) {
            ("Status", _) => self.status(&mut answer),
            (_, true) => self.list(&mut answer),
            _ if answer.is_object() => self.object(&mut answer),
            // A path that no resource is at is answered with text.
            _ => {}
        }
        answer
    }

    /// The form of events that is compared. How often bookmarks come is up to the server.
    pub(super) fn comparable_events(&mut self, events: Vec<Value>) -> Value {
        let mut events: Vec<Value> = events.into_iter().map(|event| self.comparable_event(event)).collect();
        events.dedup_by(|later, earlier| later["type"] == "BOOKMARK" && later == earlier);
        events.into()
    }

    fn comparable_event(&mut self, mut event: Value) -> Value {
        let object = event["object"].take();
        event["object"] = match event["type"].as_str() {
            // The version of a bookmark is that of the whole store, which other clients change too.
            Some("BOOKMARK") => {
                let meta = &object["metadata"];
                assert!(meta["resourceVersion"].as_str().is_some_and(|version| version.parse::<u64>().is_ok()));
                json!({ "kind": object["kind"], "apiVersion": object["apiVersion"], "annotations": meta["annotations"] })
            }
            _ => self.comparable(object),
        };
        event
    }

    fn list(&mut self, list: &mut Value) {
        let meta = list["metadata"].as_object_mut().unwrap();
        // The version of a list is that of the whole store.
        replace(meta, "resourceVersion", |version| version.parse::<u64>().is_ok());
        // Opaque to everybody but the server.
        replace(meta, "continue", |token| !token.is_empty());
        for item in list["items"].as_array_mut().into_iter().flatten() {
            self.object(item);
        }
    }

    fn object(&mut self, object: &mut Value) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if matches!(kind.as_str(), "Namespace" | "CustomResourceDefinition") {
            // Controllers write both at times of their own. In memory, a definition is served at once.
            object["metadata"]["resourceVersion"] = Value::Null;
            object.as_object_mut().unwrap().remove("status");
            object["metadata"].as_object_mut().unwrap().remove("managedFields");
        }
        let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if let Some(text) = meta.get("resourceVersion").and_then(Value::as_str).map(str::to_owned) {
            let uid = meta.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned();
            let version = Self::of(self.versions.entry(uid).or_default(), "version", &text);
            meta.insert("resourceVersion".into(), version);
        }
        for field in ["creationTimestamp", "deletionTimestamp"] {
            replace(meta, field, is_time);
        }
        if let Some(prefix) = meta.get("generateName").and_then(Value::as_str).map(str::to_owned) {
            replace(meta, "name", |name| name.strip_prefix(&prefix).is_some_and(|suffix| suffix.len() == 5));
        }
        if let Some(entries) = meta.get_mut("managedFields").and_then(Value::as_array_mut) {
            for entry in entries.iter_mut() {
                replace(entry.as_object_mut().unwrap(), "time", is_time);
            }
            // They are sorted by time in whole seconds, and a second does not end at the same request on both sides.
            let key = |entry: &Value| {
                ["operation", "manager", "subresource", "apiVersion"].map(|field| entry[field].to_string())
            };
            entries.sort_by_key(key);
        }
        self.uids_in(object);
    }

    fn uids_in(&mut self, value: &mut Value) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    match value.as_str().map(str::to_owned) {
                        Some(uid) if name == "uid" => *value = Self::of(&mut self.uids, "uid", &uid),
                        _ => self.uids_in(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.uids_in(item)),
            _ => {}
        }
    }

    fn status(&mut self, status: &mut Value) {
        let meta = status["metadata"].as_object_mut().unwrap();
        replace(meta, "continue", |token| !token.is_empty());
        if let Some(causes) = status.pointer_mut("/details/causes").and_then(Value::as_array_mut) {
            // The server in memory never evaluates CEL rules, so it does not report that it skipped them.
            causes.retain(|cause| !cause["message"].as_str().is_some_and(|message| message.contains(RULES_LEFT_OUT)));
            for cause in causes.iter_mut() {
                // The manager that an apply conflicts with is in the message only, for updates with the time of the write.
                let message = cause["message"].as_str().unwrap_or_default().split(" at ").next().map(str::to_owned);
                let is_conflict = cause["reason"] == "FieldManagerConflict";
                cause["message"] = json!(message.filter(|_| is_conflict));
            }
            // Several errors come in the order of a Go map, and kube-apiserver reports some of them twice.
            causes.sort_by_key(Value::to_string);
            causes.dedup();
        }
        // Clients act on codes, reasons and causes; messages are for people.
        status.as_object_mut().unwrap().remove("message");
        self.uids_in(status);
    }
}

fn is_time(text: &str) -> bool {
    text.parse::<Timestamp>().is_ok()
}

/// Replaces a text that is well-formed.
fn replace(object: &mut Map<String, Value>, field: &str, is_right: impl Fn(&str) -> bool) {
    if let Some(value) = object.get_mut(field)
        && value.as_str().is_some_and(is_right)
    {
        *value = json!(format!("<{field}>"));
    }
}

/// Where two answers differ: path, and both values.
pub(super) fn differences(real: &Value, in_memory: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(Some(real), Some(in_memory), "", &mut found);
    found
}

fn compare(real: Option<&Value>, in_memory: Option<&Value>, path: &str, found: &mut Vec<String>) {
    match (real, in_memory) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                compare(one.get(name), other.get(name), &format!("{path}/{name}"), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for n in 0..one.len().max(other.len()) {
                compare(one.get(n), other.get(n), &format!("{path}/{n}"), found);
            }
        }
        _ if real == in_memory => {}
        _ => {
            let [real, in_memory] = [real, in_memory].map(|value| value.map_or("nothing".into(), Value::to_string));
            found.push(format!("{path}: real {real}, in memory {in_memory}"));
        }
    }
}
