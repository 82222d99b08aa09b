//! The reconcile, call by call, in the order of `vpptoken::reconcile`, `act` and `report`.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use vpptoken_operator::api::{AccountType, PendingCreate, TokenEncoding, Uploaded};
use vpptoken_operator::graph::ErrorKind;
use vpptoken_operator::tenant::{Field, Priority};
use vpptoken_operator::vpptoken::desk::ReadFile;
use vpptoken_operator::vpptoken::facts::Done;
use vpptoken_operator::vpptoken::observe::{Rival, others_of, tenant_name};
use vpptoken_operator::vpptoken::plan::{self, Plan, Step};
use vpptoken_operator::vpptoken::world::{
    FileProblem, KnownTenant, Object as Seen, Observed, StepKind, TenantState, UnsentCreate,
};

use crate::api::{Change, Changed, Definition, Object};
use crate::graph::{Operation, Outcome, Request, failure};
use crate::print::{Print, Shown};
use crate::process::{From, Look, Reconcile, Stage, Witness};
use crate::universe::{LONGEST_WAIT_FOR_LEAVE, SHORT_WAIT_FOR_LEAVE, file_of, identity, timings};
use crate::world::{Fate, Treatment, World};

/// A status that changes under our hands more often than this is tried again later.
const MOST_CONFLICTS: usize = 5;

fn who(slot: usize) -> (String, String) {
    ("ns".to_owned(), slot.to_string())
}

fn tenant() -> String {
    tenant_name(&identity())
}

impl World {
    fn reconcile(&self, p: usize, slot: usize) -> Option<&Reconcile> {
        self.processes[p].running[slot].as_deref()
    }

    fn change_reconcile(&mut self, p: usize, slot: usize, change: impl FnOnce(&mut Reconcile)) {
        if let Some(reconcile) = &mut self.processes[p].running[slot] {
            change(reconcile);
        }
    }

    fn goes_to(&mut self, p: usize, slot: usize, stage: Stage) {
        let now = self.now;
        self.change_reconcile(p, slot, |reconcile| {
            reconcile.stage = stage;
            reconcile.since = now;
        });
    }

    /// A reconcile begins, or makes its next call.
    pub(crate) fn run(&mut self, p: usize, slot: usize, fate: Fate) {
        if self.processes[p].running[slot].is_none() {
            self.begin(p, slot);
        } else {
            self.call(p, slot, fate);
        }
        // Reads that follow each other are one step.
        while !self.is_fine
            && self.reconcile(p, slot).is_some_and(|reconcile| {
                matches!(
                    reconcile.stage,
                    Stage::ReadSecret(_)
                        | Stage::ReadTenant
                        | Stage::ReadDefinition(_)
                        | Stage::ReadFile
                        | Stage::Reread
                )
            })
        {
            self.call(p, slot, Fate::Fine);
        }
    }

    fn begin(&mut self, p: usize, slot: usize) {
        self.processes[p].due[slot] = None;
        let Some(object) = self.processes[p].cache[slot].clone() else { return };
        self.count("reconcile");
        let uid = object.uid.clone();
        let written = self.processes[p].desk().page(&uid).version;
        let is_older =
            written.is_some_and(|written| written.parse::<u64>().map_or(true, |written| object.version < written));
        self.processes[p].running[slot] = Some(Box::new(Reconcile {
            uid,
            object,
            stage: Stage::Fresh,
            since: self.now,
            look: Look::default(),
            observed: None,
            step: Shown(None),
            seen: None,
            has_leave: false,
            began: None,
            done: Shown(None),
            conflicts: 0,
            witness: Witness::default(),
        }));
        if !is_older {
            self.look(p, slot, From::Caches);
        }
    }

    /// Kubernetes could not be read or written.
    fn fails(&mut self, p: usize, slot: usize) {
        self.count("a call to Kubernetes fails");
        let Some(reconcile) = self.processes[p].running[slot].take() else { return };
        let failures = self.processes[p].desk().change(&reconcile.uid, |page| {
            page.kubernetes_failures = page.kubernetes_failures.saturating_add(1);
            page.kubernetes_failures
        });
        let wait = SignedDuration::from_millis(250).saturating_mul(2i32.saturating_pow(failures.unwrap_or(1).min(10)));
        let now = self.now;
        self.processes[p].wake_in(slot, now, wait.min(SignedDuration::from_secs(30)));
    }

    fn ends(&mut self, p: usize, slot: usize) {
        self.processes[p].running[slot] = None;
    }

    /// The call that the reconcile stands before.
    fn call(&mut self, p: usize, slot: usize, fate: Fate) {
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let (stage, uid) = (reconcile.stage.clone(), reconcile.uid.clone());
        if let Stage::Leave(since, plan) = stage {
            return self.leave(p, slot, since, plan.0);
        }
        let change = match &stage {
            Stage::Write(plan) | Stage::Say(plan, _) => Some(Change::Status(Print::new(plan.status.clone()))),
            Stage::Finalizer(there) => Some(Change::Finalizer(*there)),
            _ => None,
        };
        let Some(change) = change else {
            if fate != Fate::Fine {
                return self.fails(p, slot);
            }
            return self.read(p, slot, &stage, &uid);
        };
        let version = reconcile.object.version;
        let changed = match fate {
            Fate::LostBefore => None,
            Fate::Late => {
                self.count("a change to Kubernetes arrives late");
                let now = self.now;
                self.api.send_late(slot, version, change, now);
                None
            }
            Fate::Fine | Fate::LostAfter => {
                self.check_change(slot, &uid, version, &change);
                // What another process has done, and writes over it, a process does not know.
                for session in
                    self.processes.iter_mut().enumerate().filter(|(q, _)| *q != p).map(|(_, q)| &mut q.session)
                {
                    session.synced.retain(|(of, _)| *of != uid);
                    session.uploaded.retain(|(of, _), _| *of != uid);
                }
                let changed = self.api.apply(slot, version, &change);
                (fate == Fate::Fine).then_some(changed)
            }
        };
        match (changed, stage) {
            (None, _) => self.fails(p, slot),
            (Some(changed), Stage::Write(plan)) => self.wrote(p, slot, changed, *plan.0),
            (Some(changed), Stage::Say(plan, step)) => self.said(p, slot, changed, &plan, step.0),
            (Some(Changed::Conflict), _) => self.fails(p, slot),
            (Some(changed), _) => {
                if let Changed::To(version) = changed {
                    self.processes[p].desk().change(&uid, |page| page.version = Some(version.to_string()));
                }
                // The watch brings the object back.
                self.processes[p].desk().change(&uid, |page| page.kubernetes_failures = 0);
                self.ends(p, slot);
            }
        }
    }

    fn read(&mut self, p: usize, slot: usize, stage: &Stage, uid: &str) {
        match stage {
            Stage::Fresh | Stage::Live => {
                let live = self.api.get(slot).filter(|live| live.uid == uid).cloned();
                let Some(live) = live else { return self.ends(p, slot) };
                self.change_reconcile(p, slot, |reconcile| reconcile.object = live);
                self.look(p, slot, if matches!(stage, Stage::Live) { From::Live } else { From::Caches });
            }
            Stage::ReadSecret(from) => {
                let file = self.api.secrets[slot].facts();
                if let Some(version) = self.processes[p].secrets[slot] {
                    let of = read_of(slot, version);
                    self.processes[p].desk().change(uid, |page| page.file = Some(ReadFile { of, file: file.clone() }));
                }
                self.look_on(p, slot, *from, file);
            }
            Stage::ReadTenant => {
                let allowed = self.api.allowed.0.clone();
                self.tenant_seen(p, slot, From::Live, allowed);
            }
            Stage::ReadDefinition(from) => {
                let terminating = self.api.definition != Definition::There;
                self.change_reconcile(p, slot, |reconcile| reconcile.look.definition_terminating = terminating);
                self.looked(p, slot, *from);
            }
            Stage::ReadFile => self.send(p, slot),
            Stage::Reread => self.reread(p, slot, uid),
            _ => {}
        }
    }

    /// Begins to observe.
    fn look(&mut self, p: usize, slot: usize, from: From) {
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let page = self.processes[p].desk().page(&reconcile.uid);
        let spec = &reconcile.object.spec;
        if spec.token_secret_ref.is_none() || spec.only_observes() {
            return self.look_on(p, slot, from, Err(FileProblem::NotNamed));
        }
        if from == From::Caches {
            match (self.processes[p].secrets[slot], &page.file) {
                (None, _) => return self.look_on(p, slot, from, Err(FileProblem::SecretNotFound)),
                (Some(version), Some(read)) if read.of == read_of(slot, version) => {
                    return self.look_on(p, slot, from, read.file.clone());
                }
                _ => {}
            }
        }
        self.goes_to(p, slot, Stage::ReadSecret(from));
    }

    /// The file is read.
    fn look_on(
        &mut self,
        p: usize,
        slot: usize,
        from: From,
        file: Result<vpptoken_operator::vpptoken::world::FileFacts, FileProblem>,
    ) {
        let now = self.clock();
        let name = tenant();
        let waited = self.processes[p].desk().end_turns_before(now - timings().unknown_outcome);
        self.wake(p, &waited);
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let own = rival(&reconcile.object);
        let process = &self.processes[p];
        let rivals = process.cache.iter().flatten().filter(|other| other.uid != reconcile.uid);
        let rivals = rivals.map(|other| (rival(other), || true));
        let mut others = others_of(&own, rivals, &name, &process.desk().claims(&name), now, timings());
        if let Some(apple_id) = &reconcile.object.spec.apple_id
            && process.desk().is_anothers_turn(&name, apple_id, &reconcile.uid, who(slot))
        {
            others.creating = true;
        }
        self.change_reconcile(p, slot, |reconcile| {
            reconcile.look.file = Shown(Some(file));
            reconcile.look.others = Shown(Some(others));
        });
        match from {
            From::Live => self.goes_to(p, slot, Stage::ReadTenant),
            From::Caches => {
                let allowed = self.processes[p].allowed.0.clone();
                self.tenant_seen(p, slot, from, allowed);
            }
        }
    }

    fn tenant_seen(
        &mut self,
        p: usize,
        slot: usize,
        from: From,
        allowed: BTreeSet<vpptoken_operator::vpptoken::world::Permission>,
    ) {
        let now = self.now;
        let view = self.processes[p].session.view(now);
        let known = KnownTenant { identity: identity(), allowed, view };
        self.change_reconcile(p, slot, |reconcile| {
            reconcile.look.tenant = Shown(Some(TenantState::Known(known)));
            reconcile.look.definition_terminating = false;
        });
        let asks = self
            .reconcile(p, slot)
            .is_some_and(|reconcile| reconcile.object.deleting.is_some() && reconcile.object.has_finalizer);
        if asks {
            self.goes_to(p, slot, Stage::ReadDefinition(from));
        } else {
            self.looked(p, slot, from);
        }
    }

    /// Everything is observed: decides.
    fn looked(&mut self, p: usize, slot: usize, from: From) {
        let now = self.clock();
        let Some(reconcile) = &mut self.processes[p].running[slot] else { return };
        let look = std::mem::take(&mut reconcile.look);
        let (Some(file), Some(others), Some(tenant)) = (look.file.0, look.others.0, look.tenant.0) else { return };
        let (object, uid) = (reconcile.object.clone(), reconcile.uid.clone());
        let page = self.processes[p].desk().page(&uid);
        let observed = Observed {
            now,
            object: Seen {
                uid,
                generation: object.generation,
                created: object.created,
                deleting: object.deleting,
                namespace_deleting: self.api.namespace_deleting,
                has_finalizer: object.has_finalizer,
                sync_request: object.sync_request.map(|request| request.to_string()),
            },
            spec: object.spec.clone_inner(),
            status: page.status_with_facts(object.status()),
            file,
            tenant,
            others,
            memory: page.memory,
            crd_terminating: look.definition_terminating,
            timings: timings(),
        };
        let plan = plan::plan(&observed);
        let priority = plan.step.as_ref().and_then(Step::priority);
        let (is_first_try, is_told_first) = (plan.is_first_try(&observed), plan.is_told_first(&observed));
        let seen = match &plan.step {
            Some(Step::Upload { id }) => self.processes[p].session.seen.get(id).copied(),
            Some(Step::Update { id, fields, .. }) => {
                if from == From::Live {
                    let written: Vec<(Field, String)> =
                        fields.iter().map(|(field, wanted)| (*field, wanted.wanted.clone())).collect();
                    self.check_update(p, id, &written);
                }
                self.processes[p].session.seen.get(id).copied()
            }
            _ => None,
        };
        self.change_reconcile(p, slot, |reconcile| {
            reconcile.seen = seen;
            reconcile.observed = Some(Print::new(observed));
            reconcile.step = Shown(plan.step.clone());
        });
        match priority {
            Some(_) if from == From::Caches => {
                let now = self.now;
                self.goes_to(p, slot, Stage::Leave(now, Shown(is_first_try.then(|| Box::new(plan)))));
            }
            _ if is_told_first => {
                let step = plan.step.clone();
                self.say(p, slot, plan, step);
            }
            _ => self.act(p, slot, plan.step),
        }
    }

    /// What is planned is said, and what comes after that is the step, or waiting for leave.
    fn say(&mut self, p: usize, slot: usize, plan: Plan, step: Option<Step>) {
        let is_same =
            self.reconcile(p, slot).is_some_and(|reconcile| reconcile.object.status.as_deref() == Some(&plan.status));
        match step {
            _ if !is_same => self.goes_to(p, slot, Stage::Say(Shown(Box::new(plan)), Shown(step))),
            Some(_) => self.act(p, slot, step),
            None => {
                let now = self.now;
                self.goes_to(p, slot, Stage::Leave(now, Shown(None)));
            }
        }
    }

    fn said(&mut self, p: usize, slot: usize, changed: Changed, plan: &Plan, step: Option<Step>) {
        let now = self.now;
        let Some(uid) = self.reconcile(p, slot).map(|reconcile| reconcile.uid.clone()) else { return };
        if let Changed::To(version) = changed {
            self.count("what is due is said before it is done");
            self.processes[p].desk().change(&uid, |page| page.version = Some(version.to_string()));
        }
        match (step, changed) {
            // What was decided on is not changed by it: it is read again once there is leave.
            (None, _) => self.goes_to(p, slot, Stage::Leave(now, Shown(None))),
            (Some(step), Changed::To(version)) => {
                self.change_reconcile(p, slot, |reconcile| {
                    let status = Some(Print::new(plan.status.clone()));
                    reconcile.object = Print::new(Object { version, status, ..reconcile.object.clone_inner() });
                });
                self.act(p, slot, Some(step));
            }
            (Some(_), Changed::Conflict | Changed::NotFound) => {
                self.processes[p].wake_at(slot, now);
                self.ends(p, slot);
            }
        }
    }

    /// Waited for leave to write.
    fn leave(&mut self, p: usize, slot: usize, since: Timestamp, plan: Option<Box<Plan>>) {
        let now = self.now;
        if let Some(plan) = plan.filter(|_| since + SHORT_WAIT_FOR_LEAVE <= now) {
            return self.say(p, slot, *plan, None);
        }
        if self.processes[p].session.paused_until.is_some_and(|until| until > now) {
            if since + LONGEST_WAIT_FOR_LEAVE <= now {
                self.report(p, slot, None);
            }
            return;
        }
        let Some(uid) = self.reconcile(p, slot).map(|reconcile| reconcile.uid.clone()) else { return };
        let claims = self.known_claims(p, &uid);
        self.change_reconcile(p, slot, |reconcile| {
            reconcile.has_leave = true;
            reconcile.witness = Witness { claims, ..Witness::default() };
        });
        self.goes_to(p, slot, Stage::Live);
    }

    fn act(&mut self, p: usize, slot: usize, step: Option<Step>) {
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let (uid, has_leave) = (reconcile.uid.clone(), reconcile.has_leave);
        let Some(observed) = reconcile.observed.clone() else { return };
        if let Some(step) = &step {
            self.count(step_name(step));
        }
        match step {
            None => self.report(p, slot, None),
            Some(Step::Withdraw) => {
                self.end_turn(p, &uid);
                let pending = observed.status.pending_create.as_ref();
                self.report(p, slot, pending.map(|pending| Done::Withdrawn { since: pending.since }));
            }
            Some(Step::Note(uploaded)) => self.report(p, slot, Some(Done::Uploaded(uploaded))),
            Some(Step::DeclineSync { request, .. }) => self.report(p, slot, Some(Done::SyncDeclined { request })),
            Some(Step::AddFinalizer) => self.goes_to(p, slot, Stage::Finalizer(true)),
            Some(Step::RemoveFinalizer { .. }) => self.goes_to(p, slot, Stage::Finalizer(false)),
            Some(Step::Announce(pending)) => {
                let now = self.clock();
                if !self.processes[p].desk().take_turn(&tenant(), &pending.apple_id, &uid, who(slot), now) {
                    return self.report(p, slot, None);
                }
                self.announced(p, &uid, &pending);
                self.report(p, slot, Some(Done::Announced(pending, identity())));
            }
            Some(Step::Adopt { id, uploaded }) => self.own(p, slot, &uid, id, Some(uploaded)),
            Some(Step::Bind { id }) => self.own(p, slot, &uid, id, None),
            Some(Step::Confirm { .. }) => self.send(p, slot),
            Some(Step::Create) if has_leave => self.goes_to(p, slot, Stage::ReadFile),
            Some(Step::Upload { .. }) if has_leave => self.goes_to(p, slot, Stage::ReadFile),
            Some(Step::Update { .. } | Step::Sync { .. } | Step::Delete { .. }) if has_leave => self.send(p, slot),
            Some(_) => self.report(p, slot, None),
        }
    }

    fn announced(&mut self, p: usize, uid: &str, pending: &PendingCreate) {
        let unsent = UnsentCreate { since: pending.since, list_after: self.clock() };
        self.processes[p].desk().change(uid, |page| page.memory.unsent_create = Some(unsent));
    }

    fn end_turn(&mut self, p: usize, uid: &str) {
        self.processes[p].desk().change(uid, |page| page.memory.unsent_create = None);
        let waited = self.processes[p].desk().end_turn(uid);
        self.wake(p, &waited);
    }

    fn own(&mut self, p: usize, slot: usize, uid: &str, id: String, uploaded: Option<Uploaded>) {
        self.check_not_gone(p, &id);
        if !self.processes[p].desk().claim(&tenant(), &id, uid) {
            return self.report(p, slot, None);
        }
        self.end_turn(p, uid);
        self.report(p, slot, Some(Done::Owned { id, tenant: identity(), uploaded }));
    }

    /// Sends the request of the step. The file, if there is one, was read just now.
    fn send(&mut self, p: usize, slot: usize) {
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let (uid, step, seen) = (reconcile.uid.clone(), reconcile.step.0.clone(), reconcile.seen);
        let (Some(observed), Some(step)) = (reconcile.observed.clone(), step) else { return };
        let decided = observed.file.as_ref().ok().map(|file| file.sha256.clone());
        let file = self.api.secrets[slot].facts().ok().filter(|file| Some(&file.sha256) == decided.as_ref());
        let number = file.as_ref().and_then(|file| file_of(&file.sha256));
        let spec = &observed.spec;
        let operation = match &step {
            Step::Create => {
                let (Some(file), Some(apple_id)) = (number, spec.apple_id.clone()) else {
                    return self.report(p, slot, None);
                };
                let now = self.clock();
                let desk = self.processes[p].desk();
                if !desk.take_turn(&tenant(), &apple_id, &uid, who(slot), now) || !desk.keep_turn(&uid, true) {
                    return self.report(p, slot, None);
                }
                self.processes[p].desk().change(&uid, |page| page.memory.unsent_create = None);
                Operation::Create {
                    file,
                    apple_id,
                    account_type: spec.vpp_token_account_type.unwrap_or(AccountType::Business).as_graph(),
                    country: spec.country_or_region.clone(),
                    update_apps: spec.automatically_update_apps,
                }
            }
            Step::Upload { id } => {
                let Some(file) = number else { return self.report(p, slot, None) };
                self.check_upload(p, &uid, id, file);
                Operation::Update {
                    id: id.clone(),
                    file: Some(file),
                    apple_id: None,
                    account_type: None,
                    country: None,
                    update_apps: None,
                }
            }
            Step::Update { id, fields } => {
                let text = |field: Field| fields.get(&field).map(|wanted| wanted.wanted.clone());
                Operation::Update {
                    id: id.clone(),
                    file: None,
                    apple_id: text(Field::AppleId),
                    account_type: fields
                        .get(&Field::AccountType)
                        .and(spec.vpp_token_account_type)
                        .map(AccountType::as_graph),
                    country: text(Field::CountryOrRegion),
                    update_apps: fields.get(&Field::AutomaticallyUpdateApps).and(spec.automatically_update_apps),
                }
            }
            Step::Sync { id, priority, request } => {
                self.check_sync(p, &uid, request.as_deref());
                Operation::Sync { id: id.clone(), is_scheduled: *priority == Priority::Schedule }
            }
            Step::Delete { id } => Operation::Delete { id: id.clone() },
            Step::Confirm { id } => Operation::Get { id: id.clone() },
            _ => return,
        };
        let sent = self.clock();
        if let Operation::Update { id, .. } | Operation::Sync { id, .. } | Operation::Delete { id } = &operation {
            self.processes[p].session.change(|snapshot| snapshot.write_begins(id));
        }
        self.count(operation.name());
        let request = Request {
            owner: Some((p, slot)),
            sent_by: Some(p),
            rivals: self.known_rivals(p),
            uid,
            announced: observed.status.pending_create.as_ref().map(|pending| pending.since),
            organization: spec.organization_name.clone(),
            is_unique: spec.creation_policy == vpptoken_operator::api::CreationPolicy::Unique,
            seen,
            made: None,
            operation,
            sent,
            outcome: None,
        };
        self.change_reconcile(p, slot, |reconcile| {
            reconcile.began = Some(sent);
            reconcile.stage = Stage::Asking;
        });
        self.check_sent(p, slot, &request);
        if request.operation.is_write() && self.is_watched {
            self.written.push((request.uid.clone(), request.operation.clone()));
        }
        self.graph.requests.push(request);
        if let Some(error) = self.graph.mood.error().filter(|error| *error == ErrorKind::Unreachable)
            && let Some(at) = self.request_at(p, slot)
        {
            self.graph.requests.remove(at);
            self.answered(p, slot, Err(error), None);
        }
    }

    /// A request takes effect.
    pub(crate) fn effect(&mut self, at: usize, treatment: Treatment) {
        let now = self.clock();
        let request = self.graph.requests[at].clone();
        let outcome = match (self.graph.mood.error(), treatment) {
            (Some(error), _) => Err(error),
            (None, Treatment::Unavailable) => Err(ErrorKind::Unavailable),
            (None, Treatment::Throttled) => Err(ErrorKind::Throttled),
            (None, Treatment::Conflict) => Err(ErrorKind::Conflict),
            (None, Treatment::Fine | Treatment::UnavailableAfter) => {
                self.check_effect(&request);
                let before = request.operation.id().and_then(|id| self.graph.token(id)).map(|token| token.version);
                let outcome = self.graph.carry_out(&request, now);
                if let Operation::Update { id, file: Some(_), .. } = &request.operation
                    && request.seen != before
                {
                    // Of another process, which had not been shown what it was uploaded over.
                    self.graph.uploaded_by_another(id);
                }
                if treatment == Treatment::Fine { outcome } else { Err(ErrorKind::Unavailable) }
            }
        };
        let id = match (&request.operation, &outcome) {
            (Operation::Update { id, .. }, Ok(_)) => Some(id.clone()),
            (_, Ok(Some(entity))) => Some(entity.id.clone()),
            _ => None,
        };
        self.graph.requests[at].made = id.and_then(|id| self.graph.token(&id)).map(|token| token.version);
        self.graph.requests[at].outcome = Some(Shown(outcome));
    }

    /// Graph's answer, or what the client made of its absence.
    pub(crate) fn answered(&mut self, p: usize, slot: usize, mut outcome: Outcome, made: Option<u32>) {
        let now = self.clock();
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let (uid, step, began) = (reconcile.uid.clone(), reconcile.step.0.clone(), reconcile.began.unwrap_or(now));
        let (Some(observed), Some(step)) = (reconcile.observed.clone(), step) else { return };
        if matches!((&step, &outcome), (Step::Delete { .. }, Err(ErrorKind::NotFound))) {
            outcome = Ok(None);
        }
        match &outcome {
            Err(kind) => {
                self.count(failure_name(*kind));
                self.slow_down(p, *kind);
            }
            Ok(_) => self.processes[p].session.throttled = 0,
        }
        if let Step::Upload { id } | Step::Update { id, .. } | Step::Sync { id, .. } | Step::Delete { id } = &step {
            self.processes[p].session.wrote.insert(id.clone(), now);
        }
        let mut done = None;
        match &step {
            Step::Confirm { id } => {
                if matches!(outcome, Ok(Some(_)) | Err(ErrorKind::NotFound)) {
                    self.confirmed(p, id, began, outcome);
                    outcome = Ok(None);
                }
                self.noted(p, &uid, StepKind::Confirm, &outcome, &observed, began);
            }
            Step::Create => {
                let written = plan::wanted(&observed);
                if let Ok(Some(entity)) = &outcome {
                    self.processes[p].session.change(|snapshot| snapshot.created(entity.clone(), &written, now));
                    self.saw(p, &entity.id, made);
                }
                self.processes[p].desk().keep_turn(&uid, false);
                self.noted(p, &uid, StepKind::Create, &outcome, &observed, began);
                match &outcome {
                    Ok(Some(entity)) => {
                        self.end_turn(p, &uid);
                        return self.own(p, slot, &uid, entity.id.clone(), uploaded(&observed, now));
                    }
                    Ok(None) => {}
                    Err(kind) if failure(*kind).maybe_executed() => {
                        let after = self.clock();
                        self.processes[p].session.want_list_after(after);
                    }
                    Err(_) => {
                        self.end_turn(p, &uid);
                        let pending = observed.status.pending_create.as_ref();
                        done = pending.map(|pending| Done::Withdrawn { since: pending.since });
                    }
                }
            }
            Step::Upload { id } => {
                let answer = outcome.as_ref().ok().cloned().flatten();
                self.processes[p].session.change(|snapshot| snapshot.write_ended(id, answer, &[], now));
                self.noted(p, &uid, StepKind::Upload, &outcome, &observed, began);
                if outcome.is_ok() {
                    self.saw(p, id, made);
                    let number = observed.file.as_ref().ok().and_then(|file| file_of(&file.sha256));
                    let session = &mut self.processes[p].session;
                    session.uploaded.extend(number.map(|number| ((uid.clone(), id.clone()), number)));
                    done = uploaded(&observed, now).map(Done::Uploaded);
                }
            }
            Step::Update { id, fields } => {
                let written: Vec<(Field, String)> =
                    fields.iter().map(|(field, wanted)| (*field, wanted.wanted.clone())).collect();
                let answer = outcome.as_ref().ok().cloned().flatten();
                let accepted = if outcome.is_ok() { written.as_slice() } else { &[] };
                self.processes[p].session.change(|snapshot| snapshot.write_ended(id, answer, accepted, now));
                self.noted(p, &uid, StepKind::Update, &outcome, &observed, began);
                if outcome.is_ok() {
                    self.saw(p, id, made);
                    self.check_accepted(p, slot, id, &written);
                    self.processes[p].desk().change(&uid, |page| page.memory.tried(written));
                }
            }
            Step::Sync { id, request, .. } => {
                self.processes[p].session.change(|snapshot| snapshot.write_ended(id, None, &[], now));
                self.noted(p, &uid, StepKind::Sync, &outcome, &observed, began);
                if outcome.is_ok() {
                    let session = &mut self.processes[p].session;
                    session.synced.extend(request.clone().map(|request| (uid.clone(), request)));
                    session.want_list_after(now);
                    session.syncing_lists = 1;
                    let soon = now + SignedDuration::from_secs(2);
                    session.next_regular = Some(session.next_regular.map_or(soon, |already| already.min(soon)));
                    done = Some(Done::Synced { at: began, request: request.clone() });
                }
            }
            Step::Delete { id } => {
                self.processes[p].session.change(|snapshot| {
                    snapshot.write_ended(id, None, &[], now);
                    if outcome.is_ok() {
                        snapshot.gone(id, now);
                    }
                });
                let is_gone = outcome.is_ok();
                self.processes[p].session.gone.extend(is_gone.then(|| id.clone()));
                self.noted(p, &uid, StepKind::Delete, &outcome, &observed, began);
            }
            _ => {}
        }
        self.report(p, slot, done);
    }

    /// The process was shown a version of a token: for the rules.
    fn saw(&mut self, p: usize, id: &str, version: Option<u32>) {
        let now = self.now;
        let session = &mut self.processes[p].session;
        session.wrote.insert(id.to_owned(), now);
        session.seen.extend(version.map(|version| (id.to_owned(), version)));
    }

    fn noted(&mut self, p: usize, uid: &str, kind: StepKind, outcome: &Outcome, observed: &Observed, began: Timestamp) {
        let now = self.clock();
        let inputs = observed.inputs();
        self.processes[p].desk().change(uid, |page| match outcome {
            Ok(_) => {
                page.memory.failures.remove(&kind);
            }
            Err(error) => page.memory.failed(kind, &failure(*error), inputs, began, now, 0.5),
        });
    }

    /// What was done goes into the status, if that changes it.
    fn report(&mut self, p: usize, slot: usize, done: Option<Done>) {
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let uid = reconcile.uid.clone();
        if let Some(fact) = done.clone().filter(Done::is_fact) {
            self.processes[p].desk().change(&uid, |page| page.unrecorded.push(fact));
        }
        self.change_reconcile(p, slot, |reconcile| reconcile.done = Shown(done));
        self.write(p, slot);
    }

    fn write(&mut self, p: usize, slot: usize) {
        let plan = self.plan_again(p, slot);
        let Some(plan) = plan else { return self.ends(p, slot) };
        let is_same =
            self.reconcile(p, slot).is_some_and(|reconcile| reconcile.object.status.as_deref() == Some(&plan.status));
        if is_same {
            self.settle(p, slot, &plan);
            self.finish(p, slot, &plan);
        } else {
            self.goes_to(p, slot, Stage::Write(Shown(Box::new(plan))));
        }
    }

    /// The same decision, with what was done and what the tenant looks like now.
    fn plan_again(&mut self, p: usize, slot: usize) -> Option<Plan> {
        let now = self.clock();
        let reconcile = self.reconcile(p, slot)?;
        let page = self.processes[p].desk().page(&reconcile.uid);
        let mut status = page.status_with_facts(reconcile.object.status());
        if let Some(done) = &reconcile.done.0 {
            done.apply(&mut status);
        }
        let mut observed = Observed::clone(reconcile.observed.as_ref()?);
        observed.status = status;
        observed.memory = page.memory;
        observed.now = now;
        if let TenantState::Known(known) = &mut observed.tenant {
            known.view = self.processes[p].session.view(now);
        }
        let plan = plan::plan(&observed);
        self.change_reconcile(p, slot, |reconcile| reconcile.observed = Some(Print::new(observed)));
        Some(plan)
    }

    fn wrote(&mut self, p: usize, slot: usize, changed: Changed, plan: Plan) {
        let Some(uid) = self.reconcile(p, slot).map(|reconcile| reconcile.uid.clone()) else { return };
        match changed {
            Changed::To(version) => {
                self.count("status write");
                self.settle(p, slot, &plan);
                self.processes[p].desk().change(&uid, |page| page.version = Some(version.to_string()));
                self.finish(p, slot, &plan);
            }
            Changed::NotFound => self.gone(p, slot, &uid),
            Changed::Conflict => {
                self.count("a status write conflicts");
                self.goes_to(p, slot, Stage::Reread);
            }
        }
    }

    fn reread(&mut self, p: usize, slot: usize, uid: &str) {
        let Some(live) = self.api.get(slot).filter(|live| live.uid == uid).cloned() else {
            return self.gone(p, slot, uid);
        };
        self.processes[p].desk().change(uid, |page| page.version = Some(live.version.to_string()));
        let is_unannounced = live.status.as_ref().is_none_or(|status| status.pending_create.is_none());
        let mut was_decision = false;
        let mut conflicts = 0;
        self.change_reconcile(p, slot, |reconcile| {
            was_decision = reconcile.done.as_ref().is_some_and(|done| !done.is_fact());
            reconcile.conflicts += 1;
            conflicts = reconcile.conflicts;
            reconcile.object = live;
        });
        let now = self.now;
        if was_decision {
            // It was decided on a status that is no more.
            if is_unannounced {
                self.end_turn(p, uid);
            }
            self.processes[p].wake_at(slot, now);
            return self.ends(p, slot);
        }
        if conflicts >= MOST_CONFLICTS {
            self.processes[p].wake_in(slot, now, SignedDuration::from_secs(1));
            return self.ends(p, slot);
        }
        self.write(p, slot);
    }

    fn gone(&mut self, p: usize, slot: usize, uid: &str) {
        let waited = self.processes[p].desk().forget(uid);
        self.wake(p, &waited);
        self.ends(p, slot);
    }

    /// The status is written: what was kept in mind for it is recorded now.
    fn settle(&mut self, p: usize, slot: usize, plan: &Plan) {
        let Some(reconcile) = self.reconcile(p, slot) else { return };
        let (uid, done) = (reconcile.uid.clone(), reconcile.done.0.clone());
        let Some(inputs) = reconcile.observed.as_ref().map(|observed| observed.inputs()) else { return };
        if let Some(Done::Announced(pending, _)) = &done {
            self.announced(p, &uid, pending);
        }
        if plan.status.pending_create.is_none() {
            self.end_turn(p, &uid);
        }
        self.processes[p].desk().unclaim(&uid, plan.status.token_id.as_deref());
        self.processes[p].desk().change(&uid, |page| page.recorded(plan, &inputs));
    }

    /// Asks for the list that the plan waits for, and says when to look again.
    fn finish(&mut self, p: usize, slot: usize, plan: &Plan) {
        let Some(uid) = self.reconcile(p, slot).map(|reconcile| reconcile.uid.clone()) else { return };
        let now = self.now;
        self.ends(p, slot);
        if let Some(after) = plan.list_after {
            let unsent = self.processes[p].desk().page(&uid).memory.unsent_create;
            let after = unsent.map_or(after, |unsent| after.max(unsent.list_after));
            let session = &mut self.processes[p].session;
            let is_wanted = session.want_list_after(after);
            if !is_wanted && session.snapshot.last_list() > plan.planned_on {
                return self.processes[p].wake_at(slot, now);
            }
        }
        self.processes[p].wake_in(slot, now, plan.next_look());
    }
}

fn rival(object: &Object) -> Rival<'_> {
    Rival {
        uid: &object.uid,
        created: object.created,
        apple_id: object.spec.apple_id.as_deref(),
        status: object.status.as_deref(),
    }
}

fn read_of(slot: usize, version: u32) -> (String, String, String, TokenEncoding) {
    (slot.to_string(), version.to_string(), "token".into(), TokenEncoding::default())
}

fn uploaded(observed: &Observed, time: Timestamp) -> Option<Uploaded> {
    observed.file.as_ref().ok().map(|file| Uploaded {
        sha256: file.sha256.clone(),
        expiration_date_time: file.expiration,
        organization_name: file.organization_name.clone(),
        time,
    })
}

fn step_name(step: &Step) -> &'static str {
    match step {
        Step::AddFinalizer => "step: add the finalizer",
        Step::RemoveFinalizer { .. } => "step: remove the finalizer",
        Step::Announce(_) => "step: announce",
        Step::Withdraw => "step: withdraw",
        Step::Create => "step: create",
        Step::Adopt { .. } => "step: adopt",
        Step::Bind { .. } => "step: bind",
        Step::Upload { .. } => "step: renew",
        Step::Update { .. } => "step: change settings",
        Step::Note(_) => "step: note what Graph has",
        Step::DeclineSync { .. } => "step: decline a sync",
        Step::Sync { .. } => "step: sync",
        Step::Confirm { .. } => "step: confirm",
        Step::Delete { .. } => "step: delete",
    }
}

fn failure_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unreachable => "Graph can't be reached",
        ErrorKind::OutcomeUnknown => "an answer of Graph is lost",
        ErrorKind::Throttled => "Graph throttles",
        ErrorKind::Unavailable => "Graph answers 503",
        ErrorKind::NotFound => "Graph answers 404",
        ErrorKind::Conflict => "Graph answers 409",
        ErrorKind::Refused => "Graph refuses for good",
        ErrorKind::Credentials => "the credentials are refused",
        ErrorKind::Forbidden | ErrorKind::Unauthorized => "the permission is missing",
    }
}

impl<T: Clone> Print<T> {
    pub(crate) fn clone_inner(&self) -> T {
        T::clone(self)
    }
}
