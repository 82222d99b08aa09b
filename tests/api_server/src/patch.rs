//! Patches other than apply: JSON merge patch, JSON patch, and the strategic merge patch of what is simple.

use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::resource::{Resource, Role};

/// The content type of server-side apply.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Merge,
    Json,
    Strategic,
}

impl Kind {
    /// # Errors
    /// 415 for what the resource does not take; custom resources take no strategic merge patch.
    pub(crate) fn of(resource: &Resource, content_type: &str) -> Result<Self, Failure> {
        let is_custom = resource.role == Role::Custom;
        match content_type {
            MERGE => Ok(Self::Merge),
            JSON => Ok(Self::Json),
            STRATEGIC if !is_custom => Ok(Self::Strategic),
            _ if is_custom => Err(Failure::unsupported_media_type(&[JSON, MERGE, APPLY].join(", "))),
            _ => Err(Failure::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY].join(", "))),
        }
    }

    /// # Errors
    /// 400 for what is no patch, 422 for one that does not fit the object.
    pub(crate) fn apply(self, value: &mut Value, patch: &Value) -> Result<(), Failure> {
        match self {
            Self::Json => json_patch(value, patch),
            Self::Merge | Self::Strategic if !patch.is_object() => {
                Err(Failure::bad_request("the patch is no JSON object"))
            }
            Self::Merge => {
                merge(value, patch);
                Ok(())
            }
            Self::Strategic => {
                strategic(value, patch, "");
                Ok(())
            }
        }
    }
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// As a merge patch, but that finalizers are joined, conditions go by type and owners by UID, and `$patch` is obeyed.
fn strategic(target: &mut Value, patch: &Value, field: &str) {
    match patch {
        Value::Object(patch) => {
            if patch.get("$patch").is_some_and(|how| how == "replace") || !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Some(target) = target.as_object_mut() else { return };
            for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
                if value.is_null() {
                    target.remove(key);
                } else {
                    strategic(target.entry(key).or_insert(Value::Null), value, key);
                }
            }
            for (key, gone) in patch.iter() {
                if let (Some(key), Some(gone)) = (key.strip_prefix("$deleteFromPrimitiveList/"), gone.as_array())
                    && let Some(items) = target.get_mut(key).and_then(Value::as_array_mut)
                {
                    items.retain(|item| !gone.contains(item));
                }
            }
        }
        Value::Array(items) => {
            let key = match field {
                "finalizers" => None,
                "conditions" => Some("type"),
                "ownerReferences" => Some("uid"),
                _ => {
                    *target = patch.clone();
                    return;
                }
            };
            let mut merged = target.as_array().cloned().unwrap_or_default();
            for item in items {
                let is_same = |other: &Value| key.map_or(other == item, |key| other[key] == item[key]);
                let at = merged.iter().position(is_same);
                match at.and_then(|at| merged.get_mut(at)) {
                    Some(_) if item["$patch"] == "delete" => merged.retain(|other| !is_same(other)),
                    Some(found) => strategic(found, item, ""),
                    None if key.is_none() => merged.insert(0, item.clone()),
                    None => merged.push(item.clone()),
                }
            }
            *target = Value::Array(merged);
        }
        other => *target = other.clone(),
    }
}

/// RFC 6902.
fn json_patch(value: &mut Value, patch: &Value) -> Result<(), Failure> {
    let Some(operations) = patch.as_array() else { return Err(Failure::bad_request("a JSON patch is a list")) };
    for operation in operations {
        let text = |field: &str| operation[field].as_str();
        let (Some(op), Some(path)) = (text("op"), text("path")) else {
            return Err(Failure::bad_request("an operation of a JSON patch has op and path"));
        };
        let done = match op {
            "add" => operation.get("value").and_then(|new| add(value, path, new.clone())),
            "replace" => operation.get("value").and_then(|new| replace(value, path, new.clone())),
            "remove" => remove(value, path).map(drop),
            "move" => text("from").and_then(|from| remove(value, from)).and_then(|moved| add(value, path, moved)),
            "copy" => text("from").and_then(|from| value.pointer(from).cloned()).and_then(|it| add(value, path, it)),
            "test" => (value.pointer(path).unwrap_or(&Value::Null) == &operation["value"]).then_some(()),
            _ => return Err(Failure::bad_request(format!("unknown operation {op}"))),
        };
        if done.is_none() {
            return Err(Failure::unprocessable(format!(
                "the server rejected our request due to an error in our request: {op} of {path} can't be done"
            )));
        }
    }
    Ok(())
}

fn parent<'a>(value: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((value.pointer_mut(parent)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(value: &mut Value, path: &str, new: Value) -> Option<()> {
    if path.is_empty() {
        *value = new;
        return Some(());
    }
    let (parent, last) = parent(value, path)?;
    match parent {
        Value::Object(object) => {
            object.insert(last, new);
        }
        Value::Array(items) => {
            let at = if last == "-" { items.len() } else { last.parse().ok()? };
            (at <= items.len()).then(|| items.insert(at, new))?;
        }
        _ => return None,
    }
    Some(())
}

/// A field that is not there is replaced too.
fn replace(value: &mut Value, path: &str, new: Value) -> Option<()> {
    if let Some(found) = value.pointer_mut(path) {
        *found = new;
        return Some(());
    }
    let (parent, last) = parent(value, path)?;
    parent.as_object_mut()?.insert(last, new);
    Some(())
}

fn remove(value: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = parent(value, path)?;
    match parent {
        Value::Object(object) => object.remove(&last),
        Value::Array(items) => {
            let at: usize = last.parse().ok()?;
            (at < items.len()).then(|| items.remove(at))
        }
        _ => None,
    }
}
