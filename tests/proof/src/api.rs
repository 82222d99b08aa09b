//! The API server: objects with resource versions, generations, finalizers and a status of their own.

use std::collections::BTreeSet;

use jiff::Timestamp;
use vpptoken_operator::api::{VppTokenSpec, VppTokenStatus};
use vpptoken_operator::vpptoken::world::{FileProblem, Permission};

use crate::print::{Print, Shown};
use crate::universe::{FileNumber, LONGEST_PAUSE, file};

/// A VppToken.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Object {
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) generation: i64,
    pub(crate) created: Timestamp,
    pub(crate) deleting: Option<Timestamp>,
    pub(crate) has_finalizer: bool,
    pub(crate) sync_request: Option<u32>,
    pub(crate) spec: Print<VppTokenSpec>,
    pub(crate) status: Option<Print<VppTokenStatus>>,
}

impl Object {
    pub(crate) fn status(&self) -> Option<VppTokenStatus> {
        self.status.as_deref().cloned()
    }

    pub(crate) fn token_id(&self) -> Option<&str> {
        self.status.as_ref()?.token_id.as_deref()
    }
}

/// What is in a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    File(FileNumber),
    Malformed,
    NoKey,
}

/// A Secret: each has a version that never comes again.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Secret {
    pub(crate) version: u32,
    pub(crate) content: Option<Content>,
}

impl Secret {
    pub(crate) fn seen(&self) -> Option<u32> {
        self.content.is_some().then_some(self.version)
    }

    pub(crate) fn file(&self) -> Result<FileNumber, FileProblem> {
        match self.content {
            None => Err(FileProblem::SecretNotFound),
            Some(Content::NoKey) => Err(FileProblem::KeyNotFound),
            Some(Content::Malformed) => Err(FileProblem::Malformed("byte 1 is no base64".into())),
            Some(Content::File(number)) => Ok(number),
        }
    }

    pub(crate) fn facts(&self) -> Result<vpptoken_operator::vpptoken::world::FileFacts, FileProblem> {
        self.file().map(|number| file(number).facts())
    }
}

/// The definition of the VppTokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Definition {
    There,
    Terminating,
    Gone,
}

/// A change that an operator sends.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Change {
    Status(Print<VppTokenStatus>),
    Finalizer(bool),
}

/// A change whose sender heard nothing of it, and that may still arrive.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Late {
    pub(crate) slot: usize,
    pub(crate) version: u64,
    pub(crate) change: Change,
    pub(crate) until: Timestamp,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    To(u64),
    Conflict,
    NotFound,
}

/// The API server.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Api {
    pub(crate) objects: Vec<Option<Print<Object>>>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) allowed: Shown<BTreeSet<Permission>>,
    pub(crate) definition: Definition,
    /// The namespace is being deleted: until nothing is in it.
    pub(crate) namespace_deleting: bool,
    pub(crate) late: Vec<Late>,
    pub(crate) version: u64,
    pub(crate) next_uid: u32,
    /// What happened to objects and is to be told to whoever watches.
    pub(crate) events: Vec<(usize, Option<Print<Object>>)>,
}

impl Api {
    pub(crate) fn get(&self, slot: usize) -> Option<&Print<Object>> {
        self.objects.get(slot)?.as_ref()
    }

    pub(crate) fn of_uid(&self, uid: &str) -> Option<&Print<Object>> {
        self.objects.iter().flatten().find(|object| object.uid == uid)
    }

    /// Stores an object in its next version; one that is being deleted and has no finalizer goes.
    pub(crate) fn store(&mut self, slot: usize, mut object: Object) -> u64 {
        self.version += 1;
        object.version = self.version;
        let stored = (object.deleting.is_none() || object.has_finalizer).then(|| Print::new(object));
        self.events.push((slot, stored.clone()));
        self.objects[slot] = stored;
        if self.definition == Definition::Terminating && self.objects.iter().all(Option::is_none) {
            self.definition = Definition::Gone;
        }
        // A namespace that is empty goes; whoever wants one again creates it.
        self.namespace_deleting &= self.objects.iter().any(Option::is_some);
        self.version
    }

    /// A change by an operator, on the version that it knows.
    pub(crate) fn apply(&mut self, slot: usize, version: u64, change: &Change) -> Changed {
        let Some(object) = self.get(slot).cloned() else { return Changed::NotFound };
        if object.version != version {
            return Changed::Conflict;
        }
        let mut next = Object::clone(&object);
        match change {
            Change::Status(status) => {
                if object.status.as_deref() == Some(&**status) {
                    return Changed::To(version);
                }
                next.status = Some(status.clone());
            }
            Change::Finalizer(there) => {
                if object.has_finalizer == *there {
                    return Changed::To(version);
                }
                if *there && object.deleting.is_some() {
                    // The API server forbids it.
                    return Changed::Conflict;
                }
                next.has_finalizer = *there;
            }
        }
        Changed::To(self.store(slot, next))
    }

    pub(crate) fn send_late(&mut self, slot: usize, version: u64, change: Change, now: Timestamp) {
        self.late.push(Late { slot, version, change, until: now + LONGEST_PAUSE });
    }

    pub(crate) fn passed(&mut self, now: Timestamp) {
        self.late.retain(|late| late.until > now);
    }
}
