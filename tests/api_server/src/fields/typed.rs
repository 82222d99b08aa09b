//! Values with their schema: which fields they have, how two of them differ, how one is merged into another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::FieldSet;
use crate::schema::{ListType, Path, Schema, Type};

/// How a value is owned: as one, or by its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// A scalar, or something atomic.
    Leaf,
    Fields,
    Elements,
}

fn whole(schema: &Schema, value: &Value) -> Whole {
    match (schema.kind, value) {
        (Type::Object | Type::Any, Value::Object(_)) if !schema.is_atomic_map => Whole::Fields,
        (Type::Array, Value::Array(_)) if schema.list != ListType::Atomic => Whole::Elements,
        _ => Whole::Leaf,
    }
}

/// The same of two values that stand in the same place; what is missing or null takes the other's form.
fn whole_of_both(schema: &Schema, left: Option<&Value>, right: Option<&Value>) -> Whole {
    let form = |value: Option<&Value>| value.filter(|value| !value.is_null()).map(|value| whole(schema, value));
    match (form(left), form(right)) {
        (Some(left), Some(right)) if left == right => left,
        (Some(_), Some(_)) | (None, None) => Whole::Leaf,
        (Some(one), None) | (None, Some(one)) => one,
    }
}

fn field_step(name: &str) -> String {
    format!("f:{name}")
}

/// The step to an element of a set or a map; none for what has no keys.
pub(crate) fn element_of(schema: &Schema, item: &Value) -> Option<String> {
    match &schema.list {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map(keys) => {
            let object = item.as_object()?;
            let default = |key: &String| schema.element().field(key).and_then(|(field, _)| field.default.clone());
            let keys: Map<String, Value> = keys
                .iter()
                .filter_map(|key| Some((key.clone(), object.get(key).cloned().or_else(|| default(key))?)))
                .collect();
            Some(format!("k:{}", Value::Object(keys)))
        }
    }
}

fn fields_of(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What does not fit the schema in an applied configuration: unknown fields, other types, duplicate elements.
pub(crate) fn misfit(schema: &Schema, value: &Value, path: Path) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let fits = match schema.kind {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer | Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || value.is_number(),
        Type::Any => true,
    };
    if !fits {
        return Some(format!(".{path}: expected another type, got {value}"));
    }
    match value {
        Value::Object(object) => object.iter().find_map(|(name, value)| {
            let path = Path::Field(&path, name);
            match schema.field(name) {
                Some((field, _)) => misfit(field, value, path),
                None => Some(format!(".{path}: field not declared in schema")),
            }
        }),
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            items.iter().enumerate().find_map(|(n, item)| {
                let element = element_of(schema, item);
                if schema.list != ListType::Atomic
                    && element.as_ref().is_none_or(|element| !seen.insert(element.clone()))
                {
                    return Some(format!(".{path}: duplicate entries for key [{}]", element.unwrap_or_default()));
                }
                misfit(schema.element(), item, Path::Index(&path, n))
            })
        }
        _ => None,
    }
}

/// All fields that a value has.
pub(crate) fn fields(schema: &Schema, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(schema, value, &mut Vec::new(), &mut set);
    set
}

fn collect(schema: &Schema, value: &Value, path: &mut Vec<String>, set: &mut FieldSet) {
    match (whole(schema, value), value) {
        (Whole::Fields, Value::Object(object)) => {
            for (name, value) in object {
                let Some((field, is_named)) = schema.field(name) else { continue };
                path.push(field_step(name));
                collect(field, value, path, set);
                if value.is_null() || value.as_object().is_some_and(Map::is_empty) || !is_named {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Whole::Elements, Value::Array(items)) => {
            for item in items {
                let Some(step) = element_of(schema, item) else { continue };
                path.push(step);
                collect(schema.element(), item, path, set);
                set.insert(path);
                path.pop();
            }
        }
        // A list that is owned by its elements and has none has no owner.
        _ if value.is_null() && schema.kind == Type::Array && schema.list != ListType::Atomic => {}
        _ => set.insert(path),
    }
}

/// How a value differs from what it was.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

impl Comparison {
    /// Leaves out fields with everything below them.
    pub(crate) fn without(mut self, steps: &[&str]) -> Self {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.remove_trees(steps);
        }
        self
    }

    /// What is new or another value.
    pub(crate) fn changed(&self) -> FieldSet {
        let mut changed = self.added.clone();
        changed.add(&self.modified);
        changed
    }
}

/// Compares two values of a schema.
pub(crate) fn compare(schema: &Schema, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    compare_at(schema, Some(old), Some(new), &mut Vec::new(), &mut comparison);
    comparison
}

fn compare_at(
    schema: &Schema,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    comparison: &mut Comparison,
) {
    if old == new {
        return;
    }
    let is_empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(object)) => object.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        _ => false,
    };
    let form = whole_of_both(schema, old, new);
    let is_leaf = form == Whole::Leaf || (is_empty(old) && is_empty(new));
    if !is_leaf && form == Whole::Fields {
        let (old, new) = (fields_of(old), fields_of(new));
        let names: BTreeSet<&String> = old.into_iter().chain(new).flat_map(Map::keys).collect();
        for name in names {
            let field = schema.field(name).map_or(&*crate::schema::ANY, |(field, _)| field);
            let old = old.and_then(|old| old.get(name));
            let new = new.and_then(|new| new.get(name));
            if old == new {
                continue;
            }
            path.push(field_step(name));
            compare_at(field, old, new, path, comparison);
            path.pop();
        }
    } else if !is_leaf {
        let keyed = |value| -> BTreeMap<String, &Value> {
            let items: &[Value] = items_of(value);
            items.iter().filter_map(|item| Some((element_of(schema, item)?, item))).collect()
        };
        let (old, new) = (keyed(old), keyed(new));
        let steps: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for step in steps {
            path.push(step.clone());
            compare_at(schema.element(), old.get(step).copied(), new.get(step).copied(), path, comparison);
            path.pop();
        }
    }
    match (old, new) {
        (None, Some(_)) => comparison.added.insert(path),
        (Some(_), None) => comparison.removed.insert(path),
        _ if is_leaf => comparison.modified.insert(path),
        _ => {}
    }
}

/// Merges what is applied into what there is.
pub(crate) fn merge(schema: &Schema, live: &Value, applied: &Value) -> Value {
    match whole_of_both(schema, Some(live), Some(applied)) {
        Whole::Leaf => applied.clone(),
        Whole::Fields => {
            let mut merged = live.as_object().cloned().unwrap_or_default();
            for (name, value) in applied.as_object().into_iter().flatten() {
                let field = schema.field(name).map_or(&*crate::schema::ANY, |(field, _)| field);
                match merged.get_mut(name) {
                    Some(live) => *live = merge(field, live, value),
                    None => {
                        merged.insert(name.clone(), value.clone());
                    }
                }
            }
            Value::Object(merged)
        }
        Whole::Elements => Value::Array(merge_elements(schema, items_of(Some(live)), items_of(Some(applied)))),
    }
}

/// Both lists keep their order, as far as they agree.
fn merge_elements(schema: &Schema, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let keyed = |items: &[Value]| -> Vec<String> {
        items.iter().map(|item| element_of(schema, item).unwrap_or_default()).collect()
    };
    let (live_steps, applied_steps) = (keyed(live), keyed(applied));
    let live_at: BTreeMap<&String, usize> = live_steps.iter().enumerate().map(|(n, step)| (step, n)).collect();
    let is_applied: BTreeSet<&String> = applied_steps.iter().collect();
    let mut shared = applied_steps.iter().filter(|step| live_at.contains_key(step)).peekable();
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let mut done: BTreeSet<&String> = BTreeSet::new();
    let (mut l, mut a) = (0, 0);
    while l < live.len() || a < applied.len() {
        if l < live.len() {
            let step = &live_steps[l];
            if !is_applied.contains(step) {
                merged.push(live[l].clone());
                l += 1;
                continue;
            }
            // It comes in the order of what is applied.
            let is_next = shared.peek().is_some_and(|next| *next == step);
            if done.contains(step) || (a < applied.len() && !is_next) {
                l += 1;
                continue;
            }
        }
        if a < applied.len() {
            let step = &applied_steps[a];
            let item = match live_at.get(step) {
                Some(n) => merge(schema.element(), &live[*n], &applied[a]),
                None => applied[a].clone(),
            };
            merged.push(item);
            done.insert(step);
            if shared.peek().is_some_and(|next| *next == step) {
                shared.next();
            }
            a += 1;
        }
    }
    merged
}

/// Removes fields and elements, with everything below them. A value that has lost all of its parts is null.
pub(crate) fn remove(schema: &Schema, value: &Value, set: &FieldSet) -> Value {
    match (whole(schema, value), value) {
        (Whole::Fields, Value::Object(object)) if !object.is_empty() => {
            let mut kept = Map::new();
            for (name, value) in object {
                let step = field_step(name);
                if set.has(&step) {
                    continue;
                }
                let field = schema.field(name).map_or(&*crate::schema::ANY, |(field, _)| field);
                let value = set.below(&step).map_or_else(|| value.clone(), |below| remove(field, value, below));
                kept.insert(name.clone(), value);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (Whole::Elements, Value::Array(items)) if !items.is_empty() => {
            let mut kept = Vec::new();
            for item in items {
                let Some(step) = element_of(schema, item) else { continue };
                if set.has(&step) {
                    continue;
                }
                kept.push(set.below(&step).map_or_else(|| item.clone(), |below| remove(schema.element(), item, below)));
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        _ => value.clone(),
    }
}

/// Whoever owns something below a field that the schema names owns the field.
pub(crate) fn with_named_fields(schema: &Schema, set: &FieldSet) -> FieldSet {
    let mut ensured = set.clone();
    ensure(schema, &mut ensured);
    ensured
}

fn ensure(schema: &Schema, set: &mut FieldSet) {
    let steps: Vec<String> = set.steps().filter(|(_, has_below)| *has_below).map(|(step, _)| step.to_owned()).collect();
    for step in steps {
        let below = match step.strip_prefix("f:") {
            Some(name) => match schema.field(name) {
                Some((field, is_named)) => {
                    if is_named {
                        set.mark(&step);
                    }
                    field
                }
                None => &*crate::schema::ANY,
            },
            None => schema.element(),
        };
        if let Some(set) = set.below_mut(&step) {
            ensure(below, set);
        }
    }
}
