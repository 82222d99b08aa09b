//! A process of the operator: caches that lag, a session with the tenant, a memory, and reconciles in progress. All of it is
//! lost when the process dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use vpptoken_operator::graph::Entity;
use vpptoken_operator::tenant::{Field, Problem, Snapshot, TenantView};
use vpptoken_operator::vpptoken::desk::Desk;
use vpptoken_operator::vpptoken::facts::Done;
use vpptoken_operator::vpptoken::plan::{Plan, Step};
use vpptoken_operator::vpptoken::world::{FileFacts, FileProblem, Observed, Others, Permission, TenantState};

use crate::api::Object;
use crate::graph::Outcome;
use crate::print::{Print, Shown};
use crate::universe::POLL;

/// The memory of a process: a copy of the process has a copy of the memory.
#[derive(Debug, Default)]
pub(crate) struct Memory(pub(crate) Desk);

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self(self.0.fork())
    }
}

impl Hash for Memory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Shown(&self.0).hash(state);
    }
}

/// What the session waits for.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Call {
    /// A list: when it began, and what Graph showed.
    List { began: Timestamp, taken: Option<Shown<Vec<(Entity, u32, bool)>>> },
    /// One token that a list lacked: when that began, and what Graph said.
    Confirm { id: String, began: Timestamp, outcome: Option<Box<Shown<Outcome>>> },
}

/// The session with the tenant, as `tenant::session` keeps it.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Session {
    pub(crate) snapshot: Print<Arc<Snapshot>>,
    pub(crate) problem: Shown<Option<Problem>>,
    pub(crate) wanted_after: Option<Timestamp>,
    pub(crate) next_regular: Option<Timestamp>,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) paused_until: Option<Timestamp>,
    pub(crate) failures: u32,
    pub(crate) throttled: u32,
    pub(crate) syncing_lists: u32,
    pub(crate) opened: Timestamp,
    pub(crate) call: Option<Call>,
    pub(crate) doubtful: VecDeque<String>,
    pub(crate) changed: BTreeSet<String>,
    pub(crate) problem_changed: bool,
    /// The version of each token that the process was shown: for the rules only.
    pub(crate) seen: BTreeMap<String, u32>,
    /// When the last write to each token was answered: lists that began before do not count. For the rules only.
    pub(crate) wrote: BTreeMap<String, Timestamp>,
    /// Values that Graph accepted, and when. For the rules only.
    pub(crate) accepted: BTreeMap<(String, Field), (String, Timestamp)>,
    /// The file that was last uploaded for a VppToken onto a token, and the requests for a sync that were answered. For the
    /// rules only.
    pub(crate) uploaded: BTreeMap<(String, String), u8>,
    pub(crate) synced: BTreeSet<(String, String)>,
    /// Tokens that the process was told are gone. For the rules only.
    pub(crate) gone: BTreeSet<String>,
}

impl Session {
    fn new(now: Timestamp) -> Self {
        Self {
            snapshot: Print::new(Arc::default()),
            problem: Shown(None),
            wanted_after: None,
            next_regular: None,
            not_before: None,
            paused_until: None,
            failures: 0,
            throttled: 0,
            syncing_lists: 0,
            opened: now,
            call: None,
            doubtful: VecDeque::new(),
            changed: BTreeSet::new(),
            problem_changed: false,
            seen: BTreeMap::new(),
            wrote: BTreeMap::new(),
            accepted: BTreeMap::new(),
            uploaded: BTreeMap::new(),
            synced: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    pub(crate) fn view(&self, now: Timestamp) -> TenantView {
        TenantView {
            snapshot: Arc::clone(&self.snapshot),
            problem: self.problem.0.clone(),
            poll_interval: POLL,
            opened: self.opened,
            paused_until: self.paused_until.filter(|until| *until > now),
        }
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Arc::clone(&self.snapshot);
        change(Arc::make_mut(&mut snapshot));
        self.snapshot = Print::new(snapshot);
    }

    /// Asks for a list that begins after a time. False when there has been one.
    pub(crate) fn want_list_after(&mut self, time: Timestamp) -> bool {
        if self.snapshot.last_list().is_some_and(|began| began > time) {
            return false;
        }
        self.wanted_after = Some(self.wanted_after.map_or(time, |already| already.max(time)));
        true
    }

    /// When the next list begins.
    pub(crate) fn next_list(&self, now: Timestamp) -> Timestamp {
        let wanted = self.wanted_after.filter(|time| self.snapshot.last_list().is_none_or(|began| began <= *time));
        let due = wanted.map(|_| now).or(self.next_regular).unwrap_or(now);
        let paused = self.paused_until.filter(|until| *until > now);
        due.max(self.not_before.unwrap_or(due)).max(paused.unwrap_or(due))
    }
}

/// How fresh the reads have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum From {
    Caches,
    Live,
}

/// What a reconcile does next. Whatever stands here is one call to the API server or to Graph, or a wait.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Stage {
    /// The cache is older than our own write: the object is read.
    Fresh,
    /// The Secret is read.
    ReadSecret(From),
    /// The ClusterGraphTenant is read.
    ReadTenant,
    /// The definition is read.
    ReadDefinition(From),
    /// Leave to write is waited for, since a time; what is planned is said if it takes long.
    Leave(Timestamp, Shown<Option<Box<Plan>>>),
    /// What is planned is written into the status before it is done: while leave is waited for, or right before the step.
    Say(Shown<Box<Plan>>, Shown<Option<Step>>),
    /// The object is read before a write.
    Live,
    /// The finalizer is written.
    Finalizer(bool),
    /// The Secret is read for the request.
    ReadFile,
    /// The answer of Graph is waited for.
    Asking,
    /// The status is written.
    Write(Shown<Box<Plan>>),
    /// After a conflict the object is read.
    Reread,
}

/// What is observed so far.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Look {
    pub(crate) file: Shown<Option<Result<FileFacts, FileProblem>>>,
    pub(crate) others: Shown<Option<Others>>,
    pub(crate) tenant: Shown<Option<TenantState>>,
    pub(crate) definition_terminating: bool,
}

/// What was true at some moment since a reconcile got leave to write: the rules judge its request by that, because it reads
/// after it. Nobody in the world sees this.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Witness {
    /// Its VppToken was there, was not being deleted, and allowed writes to Graph.
    pub(crate) may_write: bool,
    /// Everything said that the token is to be deleted.
    pub(crate) may_delete: bool,
    /// Its status named no token that Graph had.
    pub(crate) had_none: bool,
    /// The tokens that its status named.
    pub(crate) tokens: BTreeSet<String>,
    /// The files in the Secret.
    pub(crate) files: BTreeSet<u8>,
    /// The organizations that the manifest asked for.
    pub(crate) organizations: BTreeSet<Option<String>>,
    /// What the tenant allowed.
    pub(crate) allowed: Shown<BTreeSet<Permission>>,
    /// Other VppTokens and their tokens, as the process knew them then.
    pub(crate) claims: BTreeSet<(String, String)>,
}

/// A reconcile in progress.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Reconcile {
    pub(crate) uid: String,
    pub(crate) object: Print<Object>,
    pub(crate) stage: Stage,
    /// When this stage began.
    pub(crate) since: Timestamp,
    pub(crate) look: Look,
    pub(crate) observed: Option<Print<Observed>>,
    pub(crate) step: Shown<Option<Step>>,
    /// The version of the token that was known when that was decided: for the rules only.
    pub(crate) seen: Option<u32>,
    pub(crate) has_leave: bool,
    /// When the request to Graph began.
    pub(crate) began: Option<Timestamp>,
    pub(crate) done: Shown<Option<Done>>,
    pub(crate) conflicts: usize,
    pub(crate) witness: Witness,
}

/// A process.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Process {
    pub(crate) is_alive: bool,
    /// The VppTokens as this process knows them.
    pub(crate) cache: Vec<Option<Print<Object>>>,
    /// What it will be told of them.
    pub(crate) events: Vec<VecDeque<Option<Print<Object>>>>,
    /// The versions of the Secrets that it knows.
    pub(crate) secrets: Vec<Option<u32>>,
    /// What the tenant allows, as it knows it.
    pub(crate) allowed: Shown<BTreeSet<Permission>>,
    pub(crate) session: Session,
    pub(crate) memory: Memory,
    /// When each VppToken is to be looked at.
    pub(crate) due: Vec<Option<Timestamp>>,
    pub(crate) running: Vec<Option<Box<Reconcile>>>,
}

impl Process {
    pub(crate) fn dead(slots: usize, now: Timestamp) -> Self {
        Self {
            is_alive: false,
            cache: vec![None; slots],
            events: vec![VecDeque::new(); slots],
            secrets: vec![None; slots],
            allowed: Shown::default(),
            session: Session::new(now),
            memory: Memory::default(),
            due: vec![None; slots],
            running: vec![None; slots],
        }
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.memory.0
    }

    pub(crate) fn wake_at(&mut self, slot: usize, time: Timestamp) {
        self.due[slot] = Some(self.due[slot].map_or(time, |already| already.min(time)));
    }

    pub(crate) fn wake_in(&mut self, slot: usize, now: Timestamp, wait: SignedDuration) {
        self.wake_at(slot, now.saturating_add(wait).unwrap_or(Timestamp::MAX));
    }
}
