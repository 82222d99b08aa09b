//! The managers of an object's fields: `metadata.managedFields`, kept by every write.

use jiff::Timestamp;
use serde_json::Value;

use super::set::{FieldSet, write_json};
use super::typed::{self, Comparison};
use crate::schema::Schema;

/// Fields of an object that nobody owns.
const UNOWNED: [&str; 9] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];

/// At most this many managers that update are kept.
const MAX_UPDATERS: usize = 10;

/// How fields came to their manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// Who writes: what distinguishes one entry of `managedFields` from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

impl Writer {
    /// Whether both are one entry; who applies is the same in all versions.
    fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) writer: Writer,
    /// In whole seconds.
    pub(crate) time: Option<Timestamp>,
    pub(crate) fields: FieldSet,
}

/// All of them, in the order that Kubernetes writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Managers(pub(crate) Vec<Manager>);

/// A write: by whom, to objects of which schema, when, and without which fields.
pub(crate) struct Writing<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) writer: Writer,
    pub(crate) reset: &'static [&'static str],
    /// In whole seconds.
    pub(crate) now: Timestamp,
}

/// The result of a write by apply.
pub(crate) struct Applied {
    pub(crate) object: Value,
    pub(crate) managers: Managers,
}

/// Fields that an apply would take from others, each with whose it is.
pub(crate) struct Conflicts(pub(crate) Vec<(String, String)>);

impl Managers {
    /// The managers after a write in any other way than apply.
    pub(crate) fn updated(&self, writing: &Writing, old: &Value, new: &Value) -> Self {
        let Writing { schema, writer, reset, now } = writing;
        let now = *now;
        let comparison = typed::compare(schema, old, new).without(reset);
        let mut managers = self.clone();
        let changed = comparison.changed();
        managers.give_up(&changed, &comparison.removed, None);
        let mut own = changed;
        strip(&mut own);
        if !own.is_empty() {
            match managers.0.iter_mut().find(|manager| manager.writer.is(writer)) {
                Some(manager) => {
                    manager.fields.add(&own);
                    manager.time = Some(now);
                }
                None => managers.0.push(Manager { writer: writer.clone(), time: Some(now), fields: own }),
            }
        }
        managers.merge_oldest();
        managers.sorted()
    }

    /// Applies a configuration.
    ///
    /// # Errors
    /// The fields that others own with other values, unless they are taken by force.
    pub(crate) fn applied(
        &self,
        writing: &Writing,
        live: &Value,
        config: &Value,
        force: bool,
    ) -> Result<Applied, Conflicts> {
        let Writing { schema, writer, reset, now } = writing;
        let mut managers = self.clone();
        let merged = typed::merge(schema, live, config);
        let mut fields = typed::fields(schema, config);
        fields.remove_trees(reset);
        let at = managers.0.iter().position(|manager| manager.writer.is(writer));
        let (last, time) = at.map(|at| managers.0.remove(at)).map(|last| (last.fields, last.time)).unwrap_or_default();
        managers.0.push(Manager { writer: writer.clone(), time, fields });
        let object = managers.pruned(schema, merged, &last);
        let comparison = typed::compare(schema, live, &object).without(reset);
        let conflicts = managers.conflicts(writer, &comparison);
        if !force && !conflicts.is_empty() {
            return Err(Conflicts(conflicts));
        }
        managers.give_up(&comparison.changed(), &comparison.removed, Some(writer));
        if let Some(manager) = managers.0.iter_mut().find(|manager| manager.writer.is(writer)) {
            strip(&mut manager.fields);
            if object != *live {
                manager.time = Some(*now);
            }
        }
        managers.0.retain(|manager| !manager.fields.is_empty());
        Ok(Applied { object, managers: managers.sorted() })
    }

    /// Removes what an applier applied last time, does not apply any more, and nobody else owns.
    fn pruned(&self, schema: &Schema, merged: Value, last: &FieldSet) -> Value {
        let mut owned = FieldSet::default();
        for manager in &self.0 {
            owned.add(&manager.fields);
        }
        if last.is_within(&owned) {
            return merged;
        }
        let last = typed::with_named_fields(schema, last);
        let owned = typed::with_named_fields(schema, &owned);
        let all = typed::with_named_fields(schema, &typed::fields(schema, &merged));
        let fields_of = |value: &Value| typed::with_named_fields(schema, &typed::fields(schema, value));
        let mut unowned = all.clone();
        unowned.subtract(&fields_of(&typed::remove(schema, &merged, &last)));
        unowned.subtract(&owned);
        let without_unowned = typed::remove(schema, &merged, &unowned);
        let mut gone = all;
        gone.subtract(&fields_of(&without_unowned));
        typed::remove(schema, &merged, &gone.intersection(&last))
    }

    fn conflicts(&self, writer: &Writer, comparison: &Comparison) -> Vec<(String, String)> {
        let changed = comparison.changed();
        let mut conflicts = Vec::new();
        for manager in self.0.iter().filter(|manager| !manager.writer.is(writer)) {
            let name = match (&manager.writer.operation, manager.writer.subresource.as_str()) {
                (Operation::Apply, "") => format!("\"{}\"", manager.writer.name),
                (Operation::Apply, sub) => format!("\"{}\" with subresource \"{sub}\"", manager.writer.name),
                (Operation::Update, "") => {
                    format!("\"{}\" using {}", manager.writer.name, manager.writer.api_version)
                }
                (Operation::Update, sub) => format!(
                    "\"{}\" with subresource \"{sub}\" using {}",
                    manager.writer.name, manager.writer.api_version
                ),
            };
            let paths = manager.fields.intersection(&changed).paths();
            conflicts.extend(paths.into_iter().map(|path| (name.clone(), path)));
        }
        conflicts
    }

    /// Other managers lose what was changed or removed.
    fn give_up(&mut self, changed: &FieldSet, removed: &FieldSet, except: Option<&Writer>) {
        self.0.retain_mut(|manager| {
            if except.is_some_and(|writer| manager.writer.is(writer)) {
                return true;
            }
            manager.fields.subtract(changed);
            manager.fields.subtract(removed);
            !manager.fields.is_empty()
        });
    }

    /// Too many that update: the oldest become one.
    fn merge_oldest(&mut self) {
        let mut updaters = self.0.iter().filter(|manager| manager.writer.operation == Operation::Update).count();
        while updaters > MAX_UPDATERS {
            let is_old = |manager: &Manager| manager.writer.operation == Operation::Update;
            let oldest = self
                .0
                .iter()
                .enumerate()
                .filter(|(_, manager)| is_old(manager) && manager.writer.name != ANCIENT)
                .min_by(|(_, a), (_, b)| (a.time, &a.writer.name).cmp(&(b.time, &b.writer.name)))
                .map(|(at, _)| at);
            let Some(oldest) = oldest.map(|at| self.0.remove(at)) else { return };
            let ancient = Writer { name: ANCIENT.into(), subresource: String::new(), ..oldest.writer };
            match self.0.iter_mut().find(|manager| manager.writer.is(&ancient)) {
                Some(manager) => {
                    manager.fields.add(&oldest.fields);
                    manager.time = manager.time.max(oldest.time);
                    updaters -= 1;
                }
                None => self.0.push(Manager { writer: ancient, ..oldest }),
            }
        }
    }

    fn sorted(mut self) -> Self {
        let key = |manager: &Manager| {
            let writer = &manager.writer;
            let time = manager.time.map_or(0, Timestamp::as_second);
            (writer.operation, time, writer.name.clone(), writer.api_version.clone(), writer.subresource.clone())
        };
        self.0.sort_by_key(key);
        self
    }

    /// The same except for the times.
    pub(crate) fn is_same_but_for_times(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(one, other)| one.writer == other.writer && one.fields == other.fields)
    }

    /// Writes `managedFields`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (n, Manager { writer, time, fields }) in self.0.iter().enumerate() {
            let operation = if writer.operation == Operation::Apply { "Apply" } else { "Update" };
            let time = time.map(|time| time.to_string()).unwrap_or_default();
            let texts = [
                ("manager", writer.name.as_str()),
                ("operation", operation),
                ("apiVersion", writer.api_version.as_str()),
                ("time", time.as_str()),
                ("subresource", writer.subresource.as_str()),
                ("fieldsType", "FieldsV1"),
            ];
            out.extend_from_slice(if n == 0 { b"{" } else { b",{" });
            for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
                write_json(name, out);
                out.push(b':');
                write_json(text, out);
                out.push(b',');
            }
            out.extend_from_slice(b"\"fieldsV1\":");
            fields.write(out);
            out.push(b'}');
        }
        out.push(b']');
    }

    /// Reads what somebody sent; none when it is not well formed.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let entries = value.as_array()?.iter().map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let operation = match entry["operation"].as_str()? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            if entry["fieldsType"] != "FieldsV1" || entry["apiVersion"].as_str().is_none_or(str::is_empty) {
                return None;
            }
            let (name, api_version, subresource) = (text("manager"), text("apiVersion"), text("subresource"));
            Some(Manager {
                writer: Writer { name, operation, api_version, subresource },
                time: entry["time"].as_str().and_then(|time| time.parse().ok()),
                fields: FieldSet::from_json(&entry["fieldsV1"]),
            })
        });
        entries.collect::<Option<Vec<_>>>().map(Self)
    }
}

/// Who all others become that updated long ago.
const ANCIENT: &str = "ancient-changes";

/// Takes away what nobody owns.
fn strip(fields: &mut FieldSet) {
    let mut unowned = FieldSet::default();
    for step in ["f:apiVersion", "f:kind", "f:metadata"] {
        unowned.insert(&[step.to_owned()]);
    }
    for step in UNOWNED {
        unowned.insert(&["f:metadata".to_owned(), step.to_owned()]);
    }
    fields.subtract(&unowned);
}
