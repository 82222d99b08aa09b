//! Watches: the log of a resource, from a version on, for as long as somebody listens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::failure::{Failure, FieldError};
use crate::read;
use crate::request::Call;
use crate::resource::Resource;
use crate::selector::Selector;
use crate::server::Shared;
use crate::state::{Entry, Shape, State, Stored, Table};

/// How often bookmarks come.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before the end the last one comes.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch that names no end has one.
const DEFAULT_LENGTH: Duration = Duration::from_secs(30 * 60);
/// No watch is longer, whatever it asks for.
const MAX_LENGTH: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The type of a watch's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// An object was added.
    Added,
    /// An object changed.
    Modified,
    /// An object was deleted.
    Deleted,
    /// Nothing happened up to a version.
    Bookmark,
    /// The watch can't go on.
    Error,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// Its type.
    pub event_type: EventType,
    /// The line as the client gets it, with its end.
    pub line: Bytes,
    /// The version that it brings its reader to.
    pub revision: u64,
    /// When the change was made.
    pub at: Timestamp,
    /// Namespace of the object; empty where there is none.
    pub namespace: String,
    /// Name of the object; empty for bookmarks and errors.
    pub name: String,
}

/// The events of a watch, in order. Its owner decides when the client gets them; dropping it ends the watch.
pub struct WatchStream {
    shared: Shared,
    resource: Arc<Resource>,
    table: u64,
    changed: Arc<Notify>,
    namespace: String,
    selector: Selector,
    shape: Shape,
    position: u64,
    pending: VecDeque<WatchEvent>,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    is_over: bool,
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream")
            .field("kind", &self.resource.kind)
            .field("namespace", &self.namespace)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Begins a watch.
pub(crate) fn start(
    state: &State,
    shared: &Shared,
    call: &Call,
    now: Timestamp,
    lagging: Option<u64>,
) -> Result<WatchStream, Failure> {
    let query = &call.query;
    let wants_initial = query.get("sendInitialEvents").map(|value| value == "true");
    let errors = wrong_options(call, wants_initial);
    if !errors.is_empty() {
        return Err(Failure::invalid_kind("meta.k8s.io", "ListOptions", "", &errors));
    }
    let selector = Selector::parse(query.get("labelSelector"), query.get("fieldSelector"))?;
    let Some(table) = state.tables.get(&call.resource.qualified()) else {
        return Err(Failure::not_found(&call.resource, ""));
    };
    let version = query.version()?;
    let lagging = lagging.filter(|_| version == Some(0));
    let version = version.unwrap_or(0);
    let length =
        query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map_or(DEFAULT_LENGTH, Duration::from_secs);
    let length = length.min(MAX_LENGTH);
    let deadline = Instant::now() + length;
    let has_bookmarks = query.flag("allowWatchBookmarks");
    let mut stream = WatchStream {
        shared: shared.clone(),
        resource: Arc::clone(&call.resource),
        table: table.id,
        changed: Arc::clone(&table.changed),
        namespace: call.namespace.clone(),
        selector,
        shape: call.shape(),
        position: version,
        pending: VecDeque::new(),
        deadline,
        bookmark_at: has_bookmarks.then(|| next_bookmark(deadline)),
        is_over: false,
    };
    if version == 0 || wants_initial == Some(true) {
        stream.position = lagging.map_or(state.revision, |at| read::readable(state, at));
        if wants_initial != Some(false) {
            stream.begin_with(table, now);
        }
        if wants_initial == Some(true) && has_bookmarks {
            let annotations = json!({ "k8s.io/initial-events-end": "true" });
            let bookmark = stream.bookmark(stream.position, Some(annotations), now);
            stream.pending.push_back(bookmark);
        }
    } else if version < state.compacted {
        stream.fail(&format!("too old resource version: {version} ({})", state.compacted), state.revision, now);
    }
    Ok(stream)
}

fn wrong_options(call: &Call, wants_initial: Option<bool>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let matching = call.query.get("resourceVersionMatch");
    let is_wrong = matching != Some("NotOlderThan");
    let forbidden = |why: &str| FieldError::forbidden("resourceVersionMatch", why);
    match wants_initial {
        None if matching.is_some() => {
            errors.push(forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
        }
        Some(_) if is_wrong => {
            errors.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        _ => {}
    }
    if let Some(matching) = matching.filter(|_| is_wrong) {
        errors.push(FieldError::not_supported("resourceVersionMatch", matching, "\"NotOlderThan\""));
    }
    errors
}

fn next_bookmark(deadline: Instant) -> Instant {
    let next = Instant::now() + BOOKMARK_EVERY;
    deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > Instant::now()).map_or(next, |last| next.min(last))
}

impl WatchStream {
    /// The kind that is watched.
    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// The plural of the kind that is watched.
    pub fn plural(&self) -> &str {
        &self.resource.plural
    }

    /// The next event, when there is one; none when the watch has ended. Dropped before it is ready, it loses nothing.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let changed = Arc::clone(&self.changed);
            let changed = changed.notified();
            self.look();
            if !self.pending.is_empty() || self.is_over {
                continue;
            }
            let until = self.bookmark_at.map_or(self.deadline, |bookmark_at| bookmark_at.min(self.deadline));
            if timeout_at(until, changed).await.is_err() {
                self.wake_at(until);
            }
        }
    }

    /// The next event, when there is one already.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        if self.pending.is_empty() && !self.is_over {
            self.look();
        }
        self.pending.pop_front()
    }

    fn wake_at(&mut self, until: Instant) {
        if until >= self.deadline {
            self.is_over = true;
            return;
        }
        self.look();
        if !self.pending.is_empty() || self.is_over {
            return;
        }
        let shared = self.shared.clone();
        let now = shared.now();
        let state = shared.lock();
        self.position = self.position.max(state.revision);
        let bookmark = self.bookmark(self.position, None, now);
        self.pending.push_back(bookmark);
        self.bookmark_at = Some(next_bookmark(self.deadline)).filter(|at| *at < self.deadline);
    }

    /// Reads the next entries of the log.
    fn look(&mut self) {
        let shared = self.shared.clone();
        let now = shared.now();
        let state = shared.lock();
        let table = state.tables.get(&self.resource.qualified()).filter(|table| table.id == self.table);
        let Some(table) = table else {
            self.is_over = true;
            return;
        };
        if table.dropped > self.position {
            self.fail(&format!("too old resource version: {} ({})", self.position, table.dropped), state.revision, now);
            return;
        }
        for entry in table.after(self.position) {
            if let Some(event) = self.event_of(entry) {
                self.pending.push_back(event);
            }
        }
        self.position = self.position.max(state.revision);
    }

    /// The event of a change for a selection.
    fn event_of(&self, entry: &Entry) -> Option<WatchEvent> {
        if !self.namespace.is_empty() && entry.new.text("namespace") != self.namespace {
            return None;
        }
        let was = entry.old.as_ref().filter(|old| self.selector.matches(&old.value));
        let is = !entry.is_deletion && self.selector.matches(&entry.new.value);
        match (was, is) {
            (None, false) => None,
            (None, true) => Some(self.event(EventType::Added, &entry.new, entry.at)),
            (Some(_), true) => Some(self.event(EventType::Modified, &entry.new, entry.at)),
            (Some(_), false) if entry.is_deletion => Some(self.event(EventType::Deleted, &entry.new, entry.at)),
            // It left the selection: shown as it was, at the version that removed it.
            (Some(old), false) => Some(self.event(EventType::Deleted, &old.at(entry.revision), entry.at)),
        }
    }

    /// Everything that exists.
    fn begin_with(&mut self, table: &Table, now: Timestamp) {
        for object in table.at(self.position, &self.namespace).values() {
            if self.selector.matches(&object.value) {
                let event = self.event(EventType::Added, object, now);
                self.pending.push_back(event);
            }
        }
    }

    fn event(&self, event_type: EventType, object: &Stored, at: Timestamp) -> WatchEvent {
        WatchEvent {
            event_type,
            line: line(event_type, &object.json(self.shape)),
            revision: object.revision,
            at,
            namespace: object.text("namespace").to_owned(),
            name: object.text("name").to_owned(),
        }
    }

    fn bookmark(&self, revision: u64, annotations: Option<Value>, at: Timestamp) -> WatchEvent {
        let (api_version, kind) = match self.shape {
            Shape::Partial => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
            _ => (self.resource.api_version(), self.resource.kind.as_str()),
        };
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata }).to_string();
        let line = line(EventType::Bookmark, object.as_bytes());
        let (namespace, name) = (String::new(), String::new());
        WatchEvent { event_type: EventType::Bookmark, line, revision, at, namespace, name }
    }

    fn fail(&mut self, why: &str, revision: u64, at: Timestamp) {
        let status = Failure::expired(why).status().to_string();
        let line = line(EventType::Error, status.as_bytes());
        let (namespace, name) = (String::new(), String::new());
        self.pending.push_back(WatchEvent { event_type: EventType::Error, line, revision, at, namespace, name });
        self.is_over = true;
    }
}

fn line(event_type: EventType, object: &[u8]) -> Bytes {
    let event_type: &[u8] = match event_type {
        EventType::Added => b"ADDED",
        EventType::Modified => b"MODIFIED",
        EventType::Deleted => b"DELETED",
        EventType::Bookmark => b"BOOKMARK",
        EventType::Error => b"ERROR",
    };
    [b"{\"type\":\"", event_type, b"\",\"object\":", object, b"}\n"].concat().into()
}
