//! Pruning: fields that a schema does not know are removed.

use serde_json::Value;

use super::{Path, Schema};

/// Removes unknown fields, and adds their paths to a list.
pub(crate) fn prune(schema: &Schema, value: &mut Value, path: Path, removed: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| {
                let path = Path::Field(&path, name);
                match schema.field(name) {
                    Some((field, _)) => {
                        prune(field, value, path, removed);
                        true
                    }
                    None => {
                        removed.push(path.to_string());
                        false
                    }
                }
            });
        }
        Value::Array(items) => {
            if let Some(element) = &schema.items {
                for (n, item) in items.iter_mut().enumerate() {
                    prune(element, item, Path::Index(&path, n), removed);
                }
            }
        }
        _ => {}
    }
}
