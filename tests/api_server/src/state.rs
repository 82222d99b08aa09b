//! The state of the server: objects, their versions, and the log that watches and older reads come from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::Notify;

use crate::fields::{Managers, write_json};
use crate::journal::{Verb, Write};
use crate::resource::Resource;

/// One version of an object. Its value has no managed fields; those are beside it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) value: Arc<Value>,
    pub(crate) managers: Managers,
    pub(crate) revision: u64,
    /// It was stored without a status, and has one only because reading it fills in the default: whoever writes it next,
    /// stores something new, even if it reads the same.
    pub(crate) is_completed_on_read: bool,
    full: OnceLock<Bytes>,
    item: OnceLock<Bytes>,
    partial: OnceLock<Bytes>,
}

/// How much of an object an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Full,
    /// An item of a list, whose kind is that of the list.
    Item,
    /// PartialObjectMetadata.
    Partial,
}

impl Stored {
    pub(crate) fn new(value: Arc<Value>, managers: Managers, revision: u64) -> Self {
        let (full, item, partial) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { value, managers, revision, is_completed_on_read: false, full, item, partial }
    }

    /// The same at another version, as a deletion shows it.
    pub(crate) fn at(&self, revision: u64) -> Self {
        let mut value = (*self.value).clone();
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        Self::new(Arc::new(value), self.managers.clone(), revision)
    }

    pub(crate) fn metadata(&self) -> &Value {
        &self.value["metadata"]
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.value["metadata"][field].as_str().unwrap_or_default()
    }

    pub(crate) fn is_being_deleted(&self) -> bool {
        self.value["metadata"]["deletionTimestamp"].is_string()
    }

    /// The object as everybody reads it, managed fields included.
    pub(crate) fn object(&self) -> Value {
        serde_json::from_slice(&self.json(Shape::Full)).unwrap_or_default()
    }

    /// As JSON, made once.
    pub(crate) fn json(&self, shape: Shape) -> Bytes {
        let cached = match shape {
            Shape::Full => &self.full,
            Shape::Item => &self.item,
            Shape::Partial => &self.partial,
        };
        cached.get_or_init(|| self.write(shape).into()).clone()
    }

    fn write(&self, shape: Shape) -> Vec<u8> {
        let mut out = b"{".to_vec();
        if shape == Shape::Partial {
            out.extend_from_slice(br#""apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","#);
        }
        for (name, value) in self.value.as_object().into_iter().flatten() {
            if name == "metadata" {
                out.extend_from_slice(b"\"metadata\":{");
                write_fields(value, &mut out);
                if !self.managers.0.is_empty() {
                    out.extend_from_slice(b",\"managedFields\":");
                    self.managers.write(&mut out);
                }
                out.push(b'}');
            } else if shape == Shape::Partial
                || (shape == Shape::Item && matches!(name.as_str(), "apiVersion" | "kind"))
            {
                continue;
            } else {
                write_field(name, value, &mut out);
            }
            out.push(b',');
        }
        out.pop();
        out.push(b'}');
        out
    }
}

fn write_field(name: &str, value: &Value, out: &mut Vec<u8>) {
    write_json(name, out);
    out.push(b':');
    // Writing into memory can't fail.
    let _ = serde_json::to_writer(out, value);
}

fn write_fields(object: &Value, out: &mut Vec<u8>) {
    for (n, (name, value)) in object.as_object().into_iter().flatten().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_field(name, value, out);
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    pub(crate) at: Timestamp,
    pub(crate) key: String,
    pub(crate) old: Option<Arc<Stored>>,
    /// What it became; of a deletion, the last state at the deletion's version.
    pub(crate) new: Arc<Stored>,
    pub(crate) is_deletion: bool,
}

/// All objects of one resource.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) resource: Arc<Resource>,
    pub(crate) objects: BTreeMap<String, Arc<Stored>>,
    pub(crate) log: VecDeque<Entry>,
    pub(crate) changed: Arc<Notify>,
    /// Distinguishes a table from a later one of the same name.
    pub(crate) id: u64,
    /// The newest revision that was dropped from the log.
    pub(crate) dropped: u64,
}

impl Table {
    /// The objects of a namespace, or of all of them.
    pub(crate) fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a String, &'a Arc<Stored>)> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let from = prefix.clone();
        self.objects.range(from..).take_while(move |(key, _)| key.starts_with(&prefix))
    }

    /// The objects of a namespace, or of all of them, as they were at a revision that is not compacted.
    pub(crate) fn at(&self, revision: u64, namespace: &str) -> BTreeMap<String, Arc<Stored>> {
        let mut objects: BTreeMap<String, Arc<Stored>> =
            self.within(namespace).map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        for entry in self.log.iter().rev().take_while(|entry| entry.revision > revision) {
            if !namespace.is_empty() && !entry.key.starts_with(&format!("{namespace}/")) {
                continue;
            }
            match &entry.old {
                Some(old) => objects.insert(entry.key.clone(), Arc::clone(old)),
                None => objects.remove(&entry.key),
            };
        }
        objects
    }

    /// The changes after a revision.
    pub(crate) fn after(&self, revision: u64) -> impl Iterator<Item = &Entry> {
        let first = self.log.partition_point(|entry| entry.revision <= revision);
        self.log.range(first..)
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) revision: u64,
    /// Older revisions can't be read any more.
    pub(crate) compacted: u64,
    pub(crate) tables: BTreeMap<String, Table>,
    pub(crate) writes: Vec<Arc<Write>>,
    pub(crate) changed: Arc<Notify>,
    made: u64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            tables: BTreeMap::new(),
            writes: Vec::new(),
            changed: Arc::new(Notify::new()),
            made: 0,
        }
    }

    /// An independent copy of this state.
    pub(crate) fn fork(&self) -> Self {
        let table = |table: &Table| Table {
            resource: Arc::clone(&table.resource),
            objects: table.objects.clone(),
            log: table.log.clone(),
            changed: Arc::new(Notify::new()),
            ..*table
        };
        Self {
            tables: self.tables.iter().map(|(name, old)| (name.clone(), table(old))).collect(),
            writes: self.writes.clone(),
            changed: Arc::new(Notify::new()),
            ..*self
        }
    }

    /// Serves a resource; one that is served already keeps its objects.
    pub(crate) fn serve(&mut self, resource: Arc<Resource>) {
        if let Some(table) = self.tables.get_mut(&resource.qualified()) {
            table.resource = resource;
            return;
        }
        let id = self.next_number();
        let (objects, log, changed) = (BTreeMap::new(), VecDeque::new(), Arc::new(Notify::new()));
        self.tables.insert(resource.qualified(), Table { resource, objects, log, changed, id, dropped: 0 });
    }

    /// A number that was not used before.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    pub(crate) fn next_uid(&mut self) -> String {
        let number = self.next_number();
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    pub(crate) fn get(&self, resource: &Resource, key: &str) -> Option<&Arc<Stored>> {
        self.tables.get(&resource.qualified())?.objects.get(key)
    }

    /// The table of a kind: by plural and group, by plural, or by kind.
    pub(crate) fn find(&self, kind: &str) -> Option<&Table> {
        let by = |is: fn(&Resource) -> &str| self.tables.values().find(|table| is(&table.resource) == kind);
        let exact = self.tables.get(kind);
        exact.or_else(|| by(|resource| &resource.plural)).or_else(|| by(|resource| &resource.kind))
    }

    /// Stores an object under the next version, and returns it.
    pub(crate) fn put(
        &mut self,
        resource: &Resource,
        key: String,
        value: Value,
        managers: Managers,
        now: Timestamp,
    ) -> Arc<Stored> {
        self.store(resource, key, value, managers, false, now)
    }

    /// The same, of an object that may be complete only because reading it fills in the default of its status.
    pub(crate) fn store(
        &mut self,
        resource: &Resource,
        key: String,
        mut value: Value,
        managers: Managers,
        is_completed_on_read: bool,
        now: Timestamp,
    ) -> Arc<Stored> {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let new = Stored::new(Arc::new(value), managers, self.revision);
        let new = Arc::new(Stored { is_completed_on_read, ..new });
        if let Some(table) = self.tables.get_mut(&resource.qualified()) {
            let old = table.objects.insert(key.clone(), Arc::clone(&new));
            let (revision, at) = (self.revision, now);
            table.log.push_back(Entry { revision, at, key, old, new: Arc::clone(&new), is_deletion: false });
            table.changed.notify_waiters();
        }
        self.changed.notify_waiters();
        new
    }

    /// Removes an object, and returns it as it was.
    pub(crate) fn remove(&mut self, resource: &Resource, key: &str, now: Timestamp) -> Option<Arc<Stored>> {
        let table = self.tables.get_mut(&resource.qualified())?;
        let old = table.objects.remove(key)?;
        self.revision += 1;
        let (revision, at, new) = (self.revision, now, Arc::new(old.at(self.revision)));
        let entry = Entry { revision, at, key: key.to_owned(), old: Some(Arc::clone(&old)), new, is_deletion: true };
        table.log.push_back(entry);
        table.changed.notify_waiters();
        self.changed.notify_waiters();
        Some(old)
    }

    /// Writes into the log of writes: by whom, as which manager, how, and to which subresource.
    pub(crate) fn note(
        &mut self,
        resource: &Resource,
        (user, manager, verb, subresource): (String, String, Verb, String),
        old: Option<&Arc<Stored>>,
        new: Option<&Arc<Stored>>,
        is_noop: bool,
        at: Timestamp,
    ) {
        let of = new.or(old);
        let text = |field: &str| of.map(|object| object.text(field).to_owned()).unwrap_or_default();
        let (namespace, name, revision) = (text("namespace"), text("name"), self.revision);
        let value = |object: &Arc<Stored>| Arc::clone(&object.value);
        let (kind, old, new) = (resource.kind.clone(), old.map(value), new.map(value));
        let write = Write { at, user, manager, verb, kind, namespace, name, subresource, old, new, revision, is_noop };
        self.writes.push(Arc::new(write));
    }

    /// Stops serving a resource; its watches end.
    pub(crate) fn stop_serving(&mut self, qualified: &str) {
        if let Some(table) = self.tables.remove(qualified) {
            table.changed.notify_waiters();
        }
        self.changed.notify_waiters();
    }

    /// Forgets what was before a revision.
    pub(crate) fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        for table in self.tables.values_mut() {
            let kept = table.log.partition_point(|entry| entry.revision <= self.compacted);
            if let Some(last) = kept.checked_sub(1).and_then(|last| table.log.get(last)) {
                table.dropped = last.revision;
            }
            table.log.drain(..kept);
        }
    }

    /// Forgets what is older than this.
    pub(crate) fn compact_older(&mut self, than: SignedDuration, now: Timestamp) {
        let Ok(before) = now.checked_sub(than) else { return };
        let is_old = |table: &Table| table.log.front().is_some_and(|entry| entry.at <= before);
        if !self.tables.values().any(is_old) {
            return;
        }
        let newest_old =
            |table: &Table| table.log.iter().take_while(|entry| entry.at <= before).last().map(|entry| entry.revision);
        if let Some(revision) = self.tables.values().filter_map(newest_old).max() {
            self.compact(revision);
        }
    }
}
