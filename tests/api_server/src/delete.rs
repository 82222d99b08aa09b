//! Deletions: at once, or marked and waiting for finalizers.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::{Answer, json_response};
use crate::failure::Failure;
use crate::journal::Verb;
use crate::metadata;
use crate::read::{self, Page};
use crate::request::Call;
use crate::resource::{Resource, Role};
use crate::selector::Selector;
use crate::state::{State, Stored};
use crate::write::{record, seconds};

/// Namespaces that can't be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Answers DELETE of one object.
pub(crate) fn one(state: &mut State, call: &Call, now: Timestamp) -> Result<Answer, Failure> {
    let resource = &call.resource;
    let options = options(call)?;
    if resource.role == Role::Namespace && IMMORTAL.contains(&call.name()) {
        return Err(Failure::forbidden(resource, call.name(), "this namespace may not be deleted", Value::Null));
    }
    let not_found = || Failure::not_found(resource, call.name());
    let existing = Arc::clone(state.get(resource, &call.key()).ok_or_else(not_found)?);
    check_preconditions(resource, &existing, &options)?;
    let left = delete(state, call, Verb::Delete, &existing, now);
    match left {
        Some(left) => Ok(read::object(200, &left, call.shape())),
        // Service accounts are returned as they were, at the version of their deletion.
        None if resource.plural == "serviceaccounts" => {
            Ok(read::object(200, &existing.at(state.revision), call.shape()))
        }
        None => {
            let mut details = json!({ "name": call.name(), "kind": resource.plural, "uid": existing.text("uid") });
            if !resource.group.is_empty() {
                details["group"] = resource.group.clone().into();
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(Answer::Once(json_response(200, status.to_string().into())))
        }
    }
}

/// Answers DELETE of all objects, or of those that are selected.
pub(crate) fn many(state: &mut State, call: &Call, now: Timestamp) -> Result<Answer, Failure> {
    let resource = &call.resource;
    if resource.role == Role::Namespace || (resource.is_namespaced && call.namespace.is_empty()) {
        return Err(Failure::method_not_allowed(resource, "deletecollection"));
    }
    let options = options(call)?;
    let selector = Selector::parse(call.query.get("labelSelector"), call.query.get("fieldSelector"))?;
    let table = state.tables.get(&resource.qualified());
    let all = table.into_iter().flat_map(|table| table.within(&call.namespace));
    let found: Vec<Arc<Stored>> =
        all.map(|(_, object)| Arc::clone(object)).filter(|object| selector.matches(&object.value)).collect();
    for existing in &found {
        check_preconditions(resource, existing, &options)?;
        delete(state, call, Verb::DeleteCollection, existing, now);
    }
    let page = Page { revision: state.revision, next: None, remaining: None };
    Ok(Answer::Once(json_response(200, page.json(call, found.iter()).into())))
}

/// The options of a deletion, which are in its body.
fn options(call: &Call) -> Result<Value, Failure> {
    if call.body.is_empty() { Ok(json!({})) } else { crate::decode::json(&call.body) }
}

fn check_preconditions(resource: &Resource, existing: &Stored, options: &Value) -> Result<(), Failure> {
    let name = existing.text("name");
    for (field, shown) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        if let Some(wanted) = options["preconditions"][field].as_str()
            && wanted != existing.text(field)
        {
            let why = format!(
                "the {shown} in the precondition ({wanted}) does not match the {shown} in record ({}). The object might \
                 have been {}",
                existing.text(field),
                if field == "uid" { "deleted and then recreated" } else { "modified" }
            );
            return Err(Failure::precondition(resource, name, &why));
        }
    }
    Ok(())
}

/// Deletes an object, or marks it. Returns what is left of it.
pub(crate) fn delete(
    state: &mut State,
    call: &Call,
    verb: Verb,
    existing: &Arc<Stored>,
    now: Timestamp,
) -> Option<Arc<Stored>> {
    let resource = &call.resource;
    let key = resource.key(existing.text("namespace"), existing.text("name"));
    let left = match resource.role {
        Role::Namespace | Role::Definition if existing.is_being_deleted() => Some((*existing.value).clone()),
        Role::Namespace => Some(terminating_namespace(existing, now)),
        Role::Definition => Some(crate::definitions::marked(existing, now)),
        _ if metadata::texts(&existing.metadata()["finalizers"]).is_empty() => None,
        _ => Some(marked(existing, now)),
    };
    if call.is_dry_run() {
        return left.map(|_| Arc::clone(existing));
    }
    match left {
        None => {
            remove(state, resource, &key, now);
            record(state, call, verb, Some(existing), None, false, now);
            None
        }
        Some(value) if value == *existing.value => {
            record(state, call, verb, Some(existing), Some(existing), true, now);
            Some(Arc::clone(existing))
        }
        Some(value) => {
            let stored = state.put(resource, key, value, existing.managers.clone(), now);
            record(state, call, verb, Some(existing), Some(&stored), false, now);
            Some(stored)
        }
    }
}

/// Removes an object, with what follows from it.
pub(crate) fn remove(state: &mut State, resource: &Resource, key: &str, now: Timestamp) {
    let gone = state.remove(resource, key, now);
    if let (Role::Definition, Some(gone)) = (resource.role, gone) {
        let spec = &gone.value["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        state.stop_serving(&crate::resource::qualified(&text(&spec["group"]), &text(&spec["names"]["plural"])));
    }
}

/// An object that waits for its finalizers.
fn marked(existing: &Stored, now: Timestamp) -> Value {
    let mut value = (*existing.value).clone();
    let meta = metadata::object(&mut value);
    if !existing.is_being_deleted() {
        if let Some(generation) = meta.get("generation").and_then(Value::as_i64).filter(|generation| *generation > 0) {
            meta.insert("generation".into(), (generation + 1).into());
        }
        meta.insert("deletionTimestamp".into(), seconds(now).to_string().into());
    }
    meta.insert("deletionGracePeriodSeconds".into(), 0.into());
    value
}

fn terminating_namespace(existing: &Stored, now: Timestamp) -> Value {
    let mut value = (*existing.value).clone();
    metadata::object(&mut value).insert("deletionTimestamp".into(), seconds(now).to_string().into());
    value["status"]["phase"] = "Terminating".into();
    value
}
