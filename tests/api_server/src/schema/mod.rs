//! Structural schemas: what a kind's objects look like, compiled once from OpenAPI v3. Rules in CEL
//! (`x-kubernetes-validations`) are not evaluated.

mod check;
mod defaults;
mod path;
mod prune;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::{Value, json};

pub(crate) use check::check;
pub(crate) use defaults::{Nulls, fill};
pub(crate) use path::Path;
pub(crate) use prune::prune;

/// The type that a schema asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

/// How the elements of a list belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// One node of a compiled schema.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) kind: Type,
    pub(crate) nullable: bool,
    pub(crate) properties: BTreeMap<String, Schema>,
    /// Values under names that are no properties.
    pub(crate) additional: Option<Box<Schema>>,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) preserves_unknown: bool,
    pub(crate) is_embedded: bool,
    pub(crate) default: Option<Value>,
    pub(crate) list: ListType,
    pub(crate) is_atomic_map: bool,
    /// Whether anything below has a default.
    pub(crate) has_defaults: bool,
    rules: Rules,
}

/// What is checked, and nothing else.
#[derive(Debug, Default)]
struct Rules {
    required: Vec<String>,
    enumeration: Vec<Value>,
    pattern: Option<Regex>,
    format: Option<String>,
    length: (Option<u64>, Option<u64>),
    items: (Option<u64>, Option<u64>),
    properties: (Option<u64>, Option<u64>),
    minimum: Option<(f64, bool)>,
    maximum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    unique_items: bool,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

/// Anything at all: the value of a field that a schema preserves without knowing it.
pub(crate) static ANY: LazyLock<Schema> = LazyLock::new(|| {
    let mut any = Schema::empty();
    any.preserves_unknown = true;
    any
});

/// The metadata of every object.
pub(crate) static METADATA: LazyLock<Schema> = LazyLock::new(|| {
    let strings = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let text = json!({ "type": "string" });
    Schema::compile(&json!({ "type": "object", "properties": {
        "name": text, "generateName": text, "namespace": text, "uid": text, "resourceVersion": text, "selfLink": text,
        "generation": { "type": "integer" }, "creationTimestamp": text, "deletionTimestamp": text,
        "deletionGracePeriodSeconds": { "type": "integer" }, "labels": strings, "annotations": strings,
        "finalizers": { "type": "array", "items": text, "x-kubernetes-list-type": "set" },
        "ownerReferences": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
            "items": { "type": "object", "x-kubernetes-map-type": "atomic", "properties": {
                "apiVersion": text, "kind": text, "name": text, "uid": text,
                "controller": { "type": "boolean" }, "blockOwnerDeletion": { "type": "boolean" },
            } },
        },
        "managedFields": {
            "type": "array", "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        },
    } }))
    .unwrap_or_else(|_| Schema::empty())
});

impl Schema {
    fn empty() -> Self {
        Self {
            kind: Type::Any,
            nullable: false,
            properties: BTreeMap::new(),
            additional: None,
            items: None,
            preserves_unknown: false,
            is_embedded: false,
            default: None,
            list: ListType::Atomic,
            is_atomic_map: false,
            has_defaults: false,
            rules: Rules::default(),
        }
    }

    /// Compiles a schema.
    ///
    /// # Errors
    /// When something is no schema, with its position.
    pub(crate) fn compile(source: &Value) -> Result<Self, String> {
        let flag = |name: &str| source[name].as_bool().unwrap_or(false);
        let mut schema = Self::empty();
        schema.kind = if flag("x-kubernetes-int-or-string") {
            Type::IntOrString
        } else {
            match source["type"].as_str() {
                None => Type::Any,
                Some("object") => Type::Object,
                Some("array") => Type::Array,
                Some("string") => Type::String,
                Some("integer") => Type::Integer,
                Some("number") => Type::Number,
                Some("boolean") => Type::Boolean,
                Some(other) => return Err(format!("unknown type {other}")),
            }
        };
        schema.nullable = flag("nullable");
        schema.preserves_unknown = flag("x-kubernetes-preserve-unknown-fields");
        schema.is_embedded = flag("x-kubernetes-embedded-resource");
        schema.default = source.get("default").cloned();
        schema.is_atomic_map = source["x-kubernetes-map-type"] == "atomic";
        schema.list = match source["x-kubernetes-list-type"].as_str() {
            None | Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(texts(&source["x-kubernetes-list-map-keys"])),
            Some(other) => return Err(format!("unknown list type {other}")),
        };
        if let Some(properties) = source["properties"].as_object() {
            for (name, property) in properties {
                let property = Self::compile(property).map_err(|error| format!("{name}: {error}"))?;
                schema.properties.insert(name.clone(), property);
            }
        }
        match &source["additionalProperties"] {
            Value::Bool(true) => schema.preserves_unknown = true,
            additional @ Value::Object(_) => schema.additional = Some(Box::new(Self::compile(additional)?)),
            _ => {}
        }
        if source["items"].is_object() {
            schema.items = Some(Box::new(Self::compile(&source["items"])?));
        }
        schema.rules = Rules::compile(source)?;
        schema.has_defaults = schema.default.is_some()
            || schema.properties.values().any(|property| property.has_defaults)
            || schema.additional.as_ref().is_some_and(|additional| additional.has_defaults)
            || schema.items.as_ref().is_some_and(|items| items.has_defaults);
        Ok(schema)
    }

    /// Adds to a kind's schema what all objects have.
    pub(crate) fn complete(mut self) -> Self {
        self.kind = Type::Object;
        let text = || Self { kind: Type::String, ..Self::empty() };
        self.properties.insert("apiVersion".into(), text());
        self.properties.insert("kind".into(), text());
        // Looked up by its name: the metadata of all kinds is one schema.
        self.properties.remove("metadata");
        self.is_embedded = true;
        self
    }

    /// The schema of a field, and whether the schema names it; none for an unknown field.
    pub(crate) fn field(&self, name: &str) -> Option<(&Self, bool)> {
        if self.is_embedded {
            match name {
                "metadata" => return Some((&METADATA, true)),
                "apiVersion" | "kind" => return Some((self.properties.get(name).unwrap_or(&ANY), true)),
                _ => {}
            }
        }
        if let Some(property) = self.properties.get(name) {
            return Some((property, true));
        }
        if let Some(additional) = &self.additional {
            return Some((additional, false));
        }
        // Without a type and without properties, there is nothing that could be unknown.
        (self.preserves_unknown || (self.kind == Type::Any && self.properties.is_empty())).then(|| (&*ANY, false))
    }

    /// The schema of a list's elements.
    pub(crate) fn element(&self) -> &Self {
        self.items.as_deref().unwrap_or(&ANY)
    }
}

impl Rules {
    fn compile(source: &Value) -> Result<Self, String> {
        let number = |name: &str| source[name].as_u64();
        let bound = |name: &str, exclusive: &str| {
            source[name].as_f64().map(|bound| (bound, source[exclusive].as_bool().unwrap_or(false)))
        };
        let schemas = |name: &str| -> Result<Vec<Schema>, String> {
            source[name].as_array().into_iter().flatten().map(Schema::compile).collect()
        };
        let pattern = source["pattern"].as_str().map(Regex::new).transpose().map_err(|error| error.to_string())?;
        let not = source.get("not").map(Schema::compile).transpose()?.map(Box::new);
        Ok(Self {
            required: texts(&source["required"]),
            enumeration: source["enum"].as_array().cloned().unwrap_or_default(),
            pattern,
            format: source["format"].as_str().map(str::to_owned),
            length: (number("minLength"), number("maxLength")),
            items: (number("minItems"), number("maxItems")),
            properties: (number("minProperties"), number("maxProperties")),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: source["multipleOf"].as_f64(),
            unique_items: source["uniqueItems"].as_bool().unwrap_or(false),
            all_of: schemas("allOf")?,
            any_of: schemas("anyOf")?,
            one_of: schemas("oneOf")?,
            not,
        })
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
