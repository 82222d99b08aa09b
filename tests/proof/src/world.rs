//! The whole world, and everything that can happen in it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use vpptoken_operator::api::conditions::{ConditionType, find};
use vpptoken_operator::api::{Reason, VppTokenSpec};
use vpptoken_operator::graph::{Entity, ErrorKind};
use vpptoken_operator::tenant::Problem;
use vpptoken_operator::tenant::session::LONGEST_SYNC;
use vpptoken_operator::vpptoken::world::Permission;

use crate::api::{Api, Definition, Object, Secret};
use crate::graph::{Graph, Mood, Operation, failure};
use crate::people::Deed;
use crate::print::{Print, Shown};
use crate::process::{Call, Process, Stage};
use crate::rules::{Broken, NEVER_OLDER};
use crate::universe::{
    DEADLINE, LONGEST_PAUSE, LONGEST_WAIT_FOR_LEAVE, LONGEST_WAY, POLL, SECOND, SHORT_WAIT_FOR_LEAVE, beginning,
    timings,
};

/// How a call to the API server goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is carried out and answered.
    Fine,
    /// It never arrives.
    LostBefore,
    /// It is carried out, and the answer is lost.
    LostAfter,
    /// It is given up, and arrives later.
    Late,
}

/// How Graph deals with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Treatment {
    /// It is carried out, unless Graph does not want it.
    Fine,
    /// 503 instead.
    Unavailable,
    /// 503 although it is carried out.
    UnavailableAfter,
    /// 429 instead.
    Throttled,
    /// 409 instead.
    Conflict,
}

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process starts.
    Start(usize),
    /// A process dies.
    Crash(usize),
    /// A process is told the next thing about a VppToken.
    Deliver(usize, usize),
    /// A process is told about a Secret.
    DeliverSecret(usize, usize),
    /// A process is told about the tenant object.
    DeliverTenant(usize),
    /// The watches of a process begin anew, and what came between is not told.
    Relist(usize),
    /// A reconcile begins or makes its next call.
    Run(usize, usize, Fate),
    /// A request of a reconcile takes effect.
    Effect(usize, usize, Treatment),
    /// Its answer arrives.
    Answer(usize, usize),
    /// Its answer never arrives.
    LoseAnswer(usize, usize),
    /// A request that nobody waits for takes effect.
    Orphan(usize),
    /// A change to the API server that nobody waits for takes effect.
    LateChange(usize),
    /// A list or a look at one token begins.
    ListBegins(usize),
    /// What it shows is fixed: what is, or one of the states that were.
    ListTaken(usize, usize),
    /// Its answer arrives.
    ListAnswered(usize),
    /// It fails.
    ListFails(usize),
    /// Graph's mood changes.
    Mood(u8),
    /// Graph's habits change: whether a renewal shows late, and whether a sync hangs.
    Habits(bool, bool),
    /// A person does something.
    Person(Deed),
    /// Time passes, in milliseconds.
    Tick(i64),
    /// For so many seconds everything goes well, and everything happens as soon as it can.
    Calm(i64),
}

pub(crate) const MOODS: [Mood; 6] =
    [Mood::Fine, Mood::Unreachable, Mood::Throttling, Mood::Unavailable, Mood::Forbidden, Mood::Credentials];

/// The world.
#[derive(Clone, Debug, Hash)]
pub struct World {
    pub(crate) now: Timestamp,
    /// Time moves a little with every look at the clock, and every call is a step of its own. Otherwise time moves only when
    /// it is said to, and reads that follow each other are one step.
    pub(crate) is_fine: bool,
    pub(crate) api: Api,
    pub(crate) graph: Graph,
    pub(crate) processes: Vec<Process>,
    pub(crate) broken: Option<Broken>,
    /// How often a value that Graph does not keep was sent for each VppToken, since anything else happened to it.
    pub(crate) not_kept: Vec<u32>,
    /// What was written to Graph since everything must stay as it is.
    pub(crate) is_watched: bool,
    pub(crate) written: Vec<(String, Operation)>,
    /// The manifests, as people have them.
    pub(crate) manifests: Vec<Option<Print<VppTokenSpec>>>,
    /// How often what happened.
    pub(crate) tally: Tally,
}

/// Counts what happened; no part of the state.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub(crate) Option<BTreeMap<&'static str, u64>>);

impl std::hash::Hash for Tally {
    fn hash<H: std::hash::Hasher>(&self, _state: &mut H) {}
}

impl World {
    /// A world with some VppTokens and processes, none of which runs yet.
    pub(crate) fn new(slots: usize, processes: usize, is_fine: bool) -> Self {
        let now = beginning();
        let all = [Permission::Create, Permission::Adopt, Permission::Bind, Permission::Delete];
        Self {
            now,
            is_fine,
            api: Api {
                objects: vec![None; slots],
                secrets: vec![Secret { version: 0, content: None }; slots],
                allowed: Shown(BTreeSet::from(all)),
                definition: Definition::There,
                namespace_deleting: false,
                late: Vec::new(),
                version: 0,
                next_uid: 1,
                events: Vec::new(),
            },
            graph: Graph::new(),
            processes: vec![Process::dead(slots, now); processes],
            broken: None,
            not_kept: vec![0; slots],
            is_watched: false,
            written: Vec::new(),
            manifests: vec![None; slots],
            tally: Tally::default(),
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.api.objects.len()
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        if let Some(tally) = &mut self.tally.0 {
            *tally.entry(what).or_default() += 1;
        }
    }

    pub(crate) fn breaks(&mut self, rule: &'static str, what: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some(Broken { rule, what: what.into() });
        }
    }

    /// A look at the clock, which never shows the same time twice.
    pub(crate) fn clock(&mut self) -> Timestamp {
        if self.is_fine {
            self.now += SignedDuration::from_micros(1);
        }
        self.now
    }

    /// A new VppToken.
    pub(crate) fn create(&mut self, slot: usize, spec: VppTokenSpec) {
        self.manifests[slot] = Some(Print::new(spec.clone()));
        self.not_kept[slot] = 0;
        let uid = format!("uid-{}", self.api.next_uid);
        self.api.next_uid += 1;
        // Whole seconds, as the API server writes them.
        let created = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        let status = serde_json::from_value(serde_json::json!({ "observedGeneration": -1 })).ok();
        let object = Object {
            uid,
            version: 0,
            generation: 1,
            created,
            deleting: None,
            has_finalizer: false,
            sync_request: None,
            spec: Print::new(spec),
            status: status.map(Print::new),
        };
        self.api.store(slot, object);
    }

    /// Whether something can happen now. What can't is passed over.
    pub(crate) fn is_possible(&self, action: &Action) -> bool {
        let process = |p: usize| self.processes.get(p).filter(|process| process.is_alive);
        match action {
            Action::Start(p) => self.processes.get(*p).is_some_and(|process| !process.is_alive),
            Action::Crash(p) | Action::Relist(p) => process(*p).is_some(),
            Action::Deliver(p, slot) => {
                process(*p).and_then(|process| process.events.get(*slot)).is_some_and(|events| !events.is_empty())
            }
            Action::DeliverSecret(p, slot) => process(*p).is_some_and(|process| {
                self.api.secrets.get(*slot).is_some_and(|secret| secret.seen() != process.secrets[*slot])
            }),
            Action::DeliverTenant(p) => process(*p).is_some_and(|process| process.allowed != self.api.allowed),
            Action::Run(p, slot, fate) => process(*p).is_some_and(|process| self.can_run(process, *slot, *fate)),
            Action::Effect(p, slot, treatment) => self.request(*p, *slot).is_some_and(|request| {
                request.outcome.is_none() && (*treatment == Treatment::Fine || self.graph.mood == Mood::Fine)
            }),
            Action::Answer(p, slot) => self.request(*p, *slot).is_some_and(|request| request.outcome.is_some()),
            Action::LoseAnswer(p, slot) => self.request(*p, *slot).is_some(),
            Action::Orphan(n) => self.orphan(*n).is_some(),
            Action::LateChange(n) => *n < self.api.late.len(),
            Action::ListBegins(p) => process(*p).is_some_and(|process| {
                process.session.call.is_none()
                    && (!process.session.doubtful.is_empty() || process.session.next_list(self.now) <= self.now)
            }),
            Action::ListTaken(p, older) => process(*p).is_some_and(|process| match &process.session.call {
                Some(Call::List { taken: None, .. }) => *older <= self.graph.older_states(),
                Some(Call::Confirm { outcome: None, .. }) => *older == 0,
                _ => false,
            }),
            Action::ListAnswered(p) => process(*p).is_some_and(|process| {
                matches!(
                    process.session.call,
                    Some(Call::List { taken: Some(_), .. } | Call::Confirm { outcome: Some(_), .. })
                )
            }),
            Action::ListFails(p) => process(*p).is_some_and(|process| process.session.call.is_some()),
            Action::Mood(mood) => MOODS.get(usize::from(*mood)).is_some_and(|mood| *mood != self.graph.mood),
            Action::Habits(is_slow, hangs) => self.graph.habits() != (*is_slow, *hangs),
            Action::Person(deed) => self.can_do(deed),
            Action::Tick(_) => self.latest_now() > self.now,
            Action::Calm(_) => self.processes.iter().any(|process| process.is_alive),
        }
    }

    fn can_run(&self, process: &Process, slot: usize, fate: Fate) -> bool {
        match process.running.get(slot) {
            None => false,
            Some(None) => fate == Fate::Fine && process.due[slot].is_some_and(|due| due <= self.now),
            Some(Some(reconcile)) => match &reconcile.stage {
                Stage::Asking => false,
                Stage::Leave(since, plan) => {
                    let longest = if plan.is_some() { SHORT_WAIT_FOR_LEAVE } else { LONGEST_WAIT_FOR_LEAVE };
                    fate == Fate::Fine
                        && (process.session.paused_until.is_none_or(|until| until <= self.now)
                            || *since + longest <= self.now)
                }
                Stage::Write(_) | Stage::Say(..) | Stage::Finalizer(_) => true,
                _ => fate == Fate::Fine || fate == Fate::LostBefore,
            },
        }
    }

    /// The latest time that the clock can show while nothing else happens: whoever waits for an answer gives up in time, and
    /// whoever works does so without a long pause.
    pub(crate) fn latest_now(&self) -> Timestamp {
        let mut latest = Timestamp::MAX;
        for process in self.processes.iter().filter(|process| process.is_alive) {
            for reconcile in process.running.iter().flatten() {
                match &reconcile.stage {
                    Stage::Leave(..) => {}
                    Stage::Asking => {
                        if let Some(began) = reconcile.began {
                            latest = latest.min(began + DEADLINE);
                        }
                    }
                    _ => latest = latest.min(reconcile.since + LONGEST_PAUSE),
                }
            }
            if let Some(Call::List { began, .. } | Call::Confirm { began, .. }) = &process.session.call {
                latest = latest.min(*began + DEADLINE);
            }
        }
        latest
    }

    pub(crate) fn request_at(&self, p: usize, slot: usize) -> Option<usize> {
        self.graph.requests.iter().position(|request| request.owner == Some((p, slot)))
    }

    fn request(&self, p: usize, slot: usize) -> Option<&crate::graph::Request> {
        self.request_at(p, slot).map(|at| &self.graph.requests[at])
    }

    pub(crate) fn orphan(&self, n: usize) -> Option<usize> {
        let orphans = self.graph.requests.iter().enumerate().filter(|(_, request)| request.owner.is_none());
        orphans.map(|(at, _)| at).nth(n)
    }

    /// Makes something happen that is possible.
    pub(crate) fn apply(&mut self, action: &Action) {
        match action {
            Action::Start(p) => self.start(*p),
            Action::Crash(p) => self.crash(*p),
            Action::Deliver(p, slot) => self.deliver(*p, *slot),
            Action::DeliverSecret(p, slot) => {
                self.processes[*p].secrets[*slot] = self.api.secrets[*slot].seen();
                let now = self.now;
                self.processes[*p].wake_at(*slot, now);
            }
            Action::DeliverTenant(p) => {
                self.processes[*p].allowed = self.api.allowed.clone();
                self.tell(*p, BTreeSet::new(), true);
            }
            Action::Relist(p) => self.relist(*p),
            Action::Run(p, slot, fate) => self.run(*p, *slot, *fate),
            Action::Effect(p, slot, treatment) => {
                if let Some(at) = self.request_at(*p, *slot) {
                    self.effect(at, *treatment);
                }
            }
            Action::Answer(p, slot) => {
                if let Some(at) = self.request_at(*p, *slot) {
                    let request = self.graph.requests.remove(at);
                    if let Some(outcome) = request.outcome {
                        self.answered(*p, *slot, outcome.0, request.made);
                    }
                }
            }
            Action::LoseAnswer(p, slot) => {
                if let Some(at) = self.request_at(*p, *slot) {
                    self.abandon(at);
                    self.answered(*p, *slot, Err(ErrorKind::OutcomeUnknown), None);
                }
            }
            Action::Orphan(n) => {
                if let Some(at) = self.orphan(*n) {
                    self.effect(at, Treatment::Fine);
                    let request = self.graph.requests.remove(at);
                    if let Operation::Update { id, file: Some(_), .. } = &request.operation {
                        self.graph.uploaded_by_another(id);
                    }
                }
            }
            Action::LateChange(n) => {
                let late = self.api.late.remove(*n);
                self.api.apply(late.slot, late.version, &late.change);
            }
            Action::ListBegins(p) => self.list_begins(*p),
            Action::ListTaken(p, older) => self.list_taken(*p, *older),
            Action::ListAnswered(p) => self.list_answered(*p),
            Action::ListFails(p) => self.list_failed(*p, ErrorKind::OutcomeUnknown),
            Action::Mood(mood) => self.graph.mood = MOODS[usize::from(*mood)],
            Action::Habits(is_slow, hangs) => self.graph.set_habits(*is_slow, *hangs),
            Action::Person(deed) => self.person(deed),
            Action::Tick(milliseconds) => {
                let then = self.now + SignedDuration::from_millis(*milliseconds);
                self.pass(then.min(self.latest_now()));
            }
            Action::Calm(seconds) => {
                let end = self.now + SignedDuration::from_secs(*seconds);
                self.runs_until(end);
            }
        }
        self.publish();
        self.witness();
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, then: Timestamp) {
        self.now = then.max(self.now);
        let now = self.now;
        self.graph.passed(now);
        self.api.passed(now);
        self.graph.requests.retain(|request| request.owner.is_some() || request.sent + LONGEST_WAY > now);
    }

    /// Whoever watches will be told.
    fn publish(&mut self) {
        for (slot, event) in std::mem::take(&mut self.api.events) {
            for process in self.processes.iter_mut().filter(|process| process.is_alive) {
                process.events[slot].push_back(event.clone());
            }
        }
    }

    /// A request that nobody waits for any more may still take effect.
    fn abandon(&mut self, at: usize) {
        if self.graph.requests[at].outcome.is_some() || !self.graph.requests[at].operation.is_write() {
            self.graph.requests.remove(at);
        } else {
            self.graph.requests[at].owner = None;
        }
    }

    pub(crate) fn crash(&mut self, p: usize) {
        self.not_kept.fill(0);
        let (slots, now) = (self.slots(), self.now);
        self.processes[p] = Process::dead(slots, now);
        self.graph.forget(p);
        while let Some(at) = self.graph.requests.iter().position(|request| request.owner.is_some_and(|(of, _)| of == p))
        {
            self.abandon(at);
        }
    }

    pub(crate) fn start(&mut self, p: usize) {
        self.publish();
        let (slots, now) = (self.slots(), self.clock());
        let mut process = Process::dead(slots, now);
        process.is_alive = true;
        process.cache = self.api.objects.clone();
        process.secrets = self.api.secrets.iter().map(Secret::seen).collect();
        process.allowed = self.api.allowed.clone();
        for (slot, object) in process.cache.iter().enumerate() {
            if let Some(object) = object {
                process.memory.0.open(&object.uid);
                process.due[slot] = Some(now);
            }
        }
        self.processes[p] = process;
    }

    fn deliver(&mut self, p: usize, slot: usize) {
        let now = self.now;
        let Some(event) = self.processes[p].events[slot].pop_front() else { return };
        let before = std::mem::replace(&mut self.processes[p].cache[slot], event.clone());
        match event {
            Some(object) => {
                self.processes[p].desk().open(&object.uid);
                if before.is_none_or(|before| is_other(&before, &object)) {
                    self.processes[p].wake_at(slot, now);
                }
            }
            None => {
                let waited = before.map(|before| self.processes[p].desk().forget(&before.uid)).unwrap_or_default();
                self.wake(p, &waited);
                self.wake_rivals(p);
            }
        }
    }

    fn relist(&mut self, p: usize) {
        let now = self.now;
        let mut uids = BTreeSet::new();
        for slot in 0..self.slots() {
            self.processes[p].events[slot].clear();
            let object = self.api.objects[slot].clone();
            let before = std::mem::replace(&mut self.processes[p].cache[slot], object.clone());
            if let Some(object) = object {
                self.processes[p].desk().open(&object.uid);
                uids.insert(object.uid.clone());
                if before.is_none_or(|before| is_other(&before, &object)) {
                    self.processes[p].wake_at(slot, now);
                }
            }
        }
        let waited = self.processes[p].desk().keep_only(&uids);
        self.wake(p, &waited);
        self.wake_rivals(p);
    }

    /// Wakes by namespace and name, where the name is the number of the slot.
    pub(crate) fn wake(&mut self, p: usize, names: &[(String, String)]) {
        let now = self.now;
        for (_, name) in names {
            if let Ok(slot) = name.parse::<usize>() {
                self.processes[p].wake_at(slot, now);
            }
        }
    }

    fn wake_rivals(&mut self, p: usize) {
        let now = self.now;
        for slot in 0..self.slots() {
            let is_held = self.processes[p].cache[slot].as_ref().is_some_and(|object| {
                object.status.as_ref().is_none_or(|status| {
                    status.token_id.is_none()
                        || find(&status.conditions, ConditionType::Ready)
                            .is_some_and(|ready| ready.reason == Reason::ClaimedByAnother.as_str())
                })
            });
            if is_held {
                self.processes[p].wake_at(slot, now);
            }
        }
    }

    /// Wakes whom a change of the tenant concerns.
    pub(crate) fn tell(&mut self, p: usize, ids: BTreeSet<String>, problem: bool) {
        let now = self.now;
        for slot in 0..self.slots() {
            let process = &self.processes[p];
            let Some(object) = &process.cache[slot] else { continue };
            let is_concerned = problem
                || object.token_id().map_or(!ids.is_empty(), |id| ids.contains(id))
                || process.desk().page(&object.uid).awaits_list;
            if is_concerned {
                self.processes[p].wake_at(slot, now);
            }
        }
    }

    fn list_begins(&mut self, p: usize) {
        let began = self.clock();
        let mood = self.graph.mood;
        let session = &mut self.processes[p].session;
        session.call = Some(match session.doubtful.pop_front() {
            Some(id) => Call::Confirm { id, began, outcome: None },
            None => Call::List { began, taken: None },
        });
        if let Some(error) = mood.error().filter(|error| *error == ErrorKind::Unreachable) {
            self.list_failed(p, error);
        }
    }

    fn list_taken(&mut self, p: usize, older: usize) {
        let now = self.now;
        if let Some(error) = self.graph.mood.error() {
            return self.list_failed(p, error);
        }
        if older > 0 {
            self.count("a list that shows what was");
        }
        let graph = &self.graph;
        match &mut self.processes[p].session.call {
            Some(Call::List { taken, .. }) => *taken = Some(Shown(graph.listed(older, now))),
            Some(Call::Confirm { id, outcome, .. }) => {
                *outcome = Some(Box::new(Shown(graph.shown(id, now).map(Some).ok_or(ErrorKind::NotFound))));
            }
            None => {}
        }
    }

    fn list_answered(&mut self, p: usize) {
        let now = self.clock();
        match self.processes[p].session.call.take() {
            Some(Call::List { began, taken: Some(taken) }) => {
                self.count("list");
                let in_flight: BTreeSet<String> = self.writes_in_flight(p);
                let session = &mut self.processes[p].session;
                for (entity, version, is_exact) in &taken.0 {
                    let counts = !in_flight.contains(&entity.id)
                        && session.wrote.get(&entity.id).is_none_or(|answered| *answered < began);
                    if counts {
                        // Also an older one than before: what is shown last is what is known.
                        session.seen.insert(entity.id.clone(), if *is_exact { *version } else { 0 });
                    }
                }
                let entities = taken.0.into_iter().map(|(entity, _, _)| entity).collect();
                // What a write was answered, or is about to be, no list that began before it changes; nor does one that began
                // a moment after it say that the token is gone.
                let wrote = |id: &String| session.wrote.get(id);
                let present = session.snapshot.entries().map(|entry| (&entry.entity.id, &entry.entity));
                let kept: Vec<(String, Option<Entity>)> = present
                    .filter(|(id, _)| {
                        in_flight.contains(*id)
                            || wrote(id).is_some_and(|answered| began < *answered + timings().settling)
                    })
                    .map(|(id, entity)| {
                        let keeps_all = in_flight.contains(id) || wrote(id).is_some_and(|answered| *answered >= began);
                        (id.clone(), keeps_all.then(|| entity.clone()))
                    })
                    .collect();
                let mut merged = None;
                session.change(|snapshot| merged = Some(snapshot.merge(began, now, entities, timings().settling)));
                let merged = merged.unwrap_or_default();
                let changed = kept.into_iter().find(|(id, entity)| {
                    session.snapshot.entry(id).is_none_or(|entry| {
                        !entry.is_present() || entity.as_ref().is_some_and(|entity| entry.entity != *entity)
                    })
                });
                let returned = session.gone.iter().find(|id| session.snapshot.entry(id).is_some()).cloned();
                session.failures = 0;
                session.throttled = 0;
                session.not_before = None;
                session.wanted_after.take_if(|time| began > *time);
                let mut wait = POLL;
                let an_hour_ago = began.saturating_sub(LONGEST_SYNC).unwrap_or(Timestamp::MIN);
                if session.snapshot.is_syncing_since(an_hour_ago) {
                    session.syncing_lists += 1;
                    wait = wait.min(doubling(SECOND, session.syncing_lists, SECOND * 30));
                } else {
                    session.syncing_lists = 0;
                }
                session.next_regular = Some(began + wait);
                session.changed = merged.changed;
                session.doubtful = merged.doubtful.into();
                session.problem_changed = session.problem.0.take().is_some();
                if let Some(id) = returned {
                    self.breaks(
                        NEVER_OLDER,
                        format!("a list that is behind brings back {id}, which is known to be gone"),
                    );
                }
                if let Some((id, _)) = changed {
                    self.breaks(
                        NEVER_OLDER,
                        format!("a list that may not show a write to {id} yet changes what it was answered"),
                    );
                }
            }
            Some(Call::Confirm { id, began, outcome: Some(outcome) }) => {
                self.confirmed(p, &id, began, outcome.0);
                self.processes[p].session.changed.insert(id);
            }
            other => self.processes[p].session.call = other,
        }
        self.session_told(p);
    }

    /// The tokens that a process is writing to.
    fn writes_in_flight(&self, p: usize) -> BTreeSet<String> {
        let own = self
            .graph
            .requests
            .iter()
            .filter(|request| request.operation.is_write() && request.owner.is_some_and(|(of, _)| of == p));
        own.filter_map(|request| request.operation.id().map(str::to_owned)).collect()
    }

    /// What a GET of one token said.
    pub(crate) fn confirmed(&mut self, p: usize, id: &str, began: Timestamp, outcome: crate::graph::Outcome) {
        let now = self.clock();
        let session = &mut self.processes[p].session;
        session.change(|snapshot| match outcome {
            Ok(Some(entity)) => snapshot.found(entity, began, now),
            _ => snapshot.missing(id, began, now),
        });
        // While a write was on its way, whatever that is answered counts.
        let is_gone = session.snapshot.is_gone(id);
        session.gone.extend(is_gone.then(|| id.to_owned()));
    }

    fn session_told(&mut self, p: usize) {
        let session = &mut self.processes[p].session;
        if session.doubtful.is_empty() && session.call.is_none() {
            let (ids, problem) = (std::mem::take(&mut session.changed), std::mem::take(&mut session.problem_changed));
            self.tell(p, ids, problem);
        }
    }

    fn list_failed(&mut self, p: usize, kind: ErrorKind) {
        let now = self.clock();
        self.count("a list that fails");
        let was_list = matches!(self.processes[p].session.call.take(), Some(Call::List { .. }));
        if was_list {
            let error = failure(kind);
            self.slow_down(p, kind);
            let session = &mut self.processes[p].session;
            session.failures += 1;
            let own = doubling(SignedDuration::from_millis(500), session.failures, SECOND * 60);
            session.not_before = Some(now + own);
            session.next_regular.get_or_insert(now + POLL);
            let last = session.snapshot.last_list().unwrap_or(Timestamp::MIN);
            session.wanted_after = Some(session.wanted_after.unwrap_or(Timestamp::MIN).max(last));
            let before = session.problem.0.as_ref().filter(|problem| problem.error.kind == error.kind);
            let (since, is_new) = (before.map_or(now, |problem| problem.since), before.is_none());
            session.problem = Shown(Some(Problem { since, error }));
            session.problem_changed = is_new;
        }
        self.session_told(p);
    }

    /// `Retry-After` is for the whole tenant.
    pub(crate) fn slow_down(&mut self, p: usize, kind: ErrorKind) {
        if kind == ErrorKind::Throttled {
            let until = self.now + SECOND * 7;
            let session = &mut self.processes[p].session;
            session.throttled += 1;
            session.paused_until = session.paused_until.max(Some(until));
        }
    }
}

/// What a reconcile goes by: its own status writes don't count.
fn is_other(before: &Object, now: &Object) -> bool {
    (&before.uid, before.generation, before.sync_request, before.deleting.is_some(), before.has_finalizer)
        != (&now.uid, now.generation, now.sync_request, now.deleting.is_some(), now.has_finalizer)
}

fn doubling(first: SignedDuration, times: u32, most: SignedDuration) -> SignedDuration {
    first.saturating_mul(2i32.saturating_pow(times.min(20))).min(most)
}
