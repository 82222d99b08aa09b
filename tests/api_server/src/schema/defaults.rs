//! Defaults of a schema: what is missing is filled in.

use serde_json::Value;

use super::{Schema, Type};

/// What happens to a null where none is allowed and there is no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// It is removed.
    Missing,
    /// It stays, and violates the schema.
    Kept,
}

/// Fills in the defaults below a value. A null where none is allowed counts as missing.
pub(crate) fn fill(schema: &Schema, value: &mut Value, nulls: Nulls) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| {
                let is_refused = |(field, _): (&Schema, bool)| {
                    !field.nullable && field.kind != Type::Any && (nulls == Nulls::Missing || field.default.is_some())
                };
                !value.is_null() || !schema.field(name).is_some_and(is_refused)
            });
            if schema.has_defaults {
                for (name, property) in &schema.properties {
                    if let Some(default) = &property.default
                        && !object.contains_key(name)
                    {
                        object.insert(name.clone(), default.clone());
                    }
                }
            }
            for (name, value) in object.iter_mut() {
                if let Some((field, _)) = schema.field(name) {
                    fill(field, value, nulls);
                }
            }
        }
        Value::Array(items) => {
            if let Some(element) = &schema.items {
                for item in items {
                    fill(element, item, nulls);
                }
            }
        }
        _ => {}
    }
}
