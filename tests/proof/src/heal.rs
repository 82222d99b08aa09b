//! Faults and people stop, time passes fairly, and everything arrives: what Graph has is what the manifest asks for, or it
//! stands still for a reason that a person must act on and that is true. And then it stays.

use std::collections::BTreeSet;

use jiff::Timestamp;
use vpptoken_operator::api::conditions::{ConditionType, find};
use vpptoken_operator::api::{CreationPolicy, DeletionPolicy};
use vpptoken_operator::vpptoken::world::Permission;

use crate::api::{Content, Definition, Object};
use crate::graph::{Mood, Operation, Token};
use crate::process::{Call, Stage};
use crate::rules::{ALWAYS_ARRIVES, NEVER_SPIN};
use crate::universe::{LONGEST_WAIT_FOR_LEAVE, NOT_KEPT, REFUSED, SHORT_WAIT_FOR_LEAVE, file};
use crate::world::{Action, Fate, Treatment, World};

/// After so long everything has arrived: a create of unknown outcome, a refusal that is tried again once an hour, a renewal
/// that shows late, a sync that hangs.
const ARRIVES_WITHIN: jiff::SignedDuration = jiff::SignedDuration::from_hours(3);
/// And then it stays as it is.
const STAYS_FOR: jiff::SignedDuration = jiff::SignedDuration::from_hours(2);
/// More than this happens in no second.
const MOST_PER_SECOND: u32 = 600;

impl World {
    /// Faults and people stop; one process leads.
    pub fn heal(&mut self) {
        let leader = self.processes.iter().position(|process| process.is_alive);
        for p in 0..self.processes.len() {
            if self.processes[p].is_alive && Some(p) != leader {
                self.apply(&Action::Crash(p));
            }
        }
        if leader.is_none() {
            self.apply(&Action::Start(0));
        }
        // What is on its way arrives or does not; that it does is a history of its own.
        self.graph.requests.retain(|request| request.owner.is_some());
        self.api.late.clear();
        self.graph.mood = Mood::Fine;
        let (is_slow, _) = self.graph.habits();
        self.graph.set_habits(is_slow, false);
    }

    /// Runs fairly until everything must have arrived, judges, and watches that it stays.
    pub fn arrives(&mut self) {
        let arrived = self.now + ARRIVES_WITHIN;
        self.runs_until(arrived);
        if self.broken.is_some() {
            return;
        }
        self.judge();
        let before = Watched::of(self);
        let end = self.now + STAYS_FOR;
        self.runs_until(end);
        if self.broken.is_some() {
            return;
        }
        before.compare(self);
        self.judge();
    }

    /// What happens next when everything goes well, and at what time.
    pub(crate) fn runs_until(&mut self, end: Timestamp) {
        let mut second = self.now.as_second();
        let mut in_second = 0;
        while self.broken.is_none() {
            let alive = self.processes.iter().enumerate().filter(|(_, process)| process.is_alive).map(|(p, _)| p);
            let alive: Vec<usize> = alive.collect();
            if let Some(action) = alive.iter().find_map(|p| self.next_at_once(*p)) {
                self.apply(&action);
                if self.now.as_second() != second {
                    second = self.now.as_second();
                    in_second = 0;
                }
                in_second += 1;
                if in_second > MOST_PER_SECOND {
                    self.breaks(NEVER_SPIN, "there is no end of work within one second");
                }
                continue;
            }
            let next = alive.iter().map(|p| self.next_time(*p)).min().unwrap_or(end);
            if next >= end {
                self.pass(end);
                return;
            }
            self.pass(next.max(self.now + jiff::SignedDuration::from_millis(1)));
        }
    }

    fn next_at_once(&self, p: usize) -> Option<Action> {
        let process = &self.processes[p];
        for slot in 0..self.slots() {
            let candidates = [
                Action::Deliver(p, slot),
                Action::DeliverSecret(p, slot),
                Action::Effect(p, slot, Treatment::Fine),
                Action::Answer(p, slot),
                Action::Run(p, slot, Fate::Fine),
            ];
            for action in candidates {
                if self.is_possible(&action) {
                    return Some(action);
                }
            }
        }
        if self.is_possible(&Action::DeliverTenant(p)) {
            return Some(Action::DeliverTenant(p));
        }
        match &process.session.call {
            Some(Call::List { taken: None, .. } | Call::Confirm { outcome: None, .. }) => Some(Action::ListTaken(p, 0)),
            Some(_) => Some(Action::ListAnswered(p)),
            None => Some(Action::ListBegins(p)).filter(|action| self.is_possible(action)),
        }
    }

    pub(crate) fn next_time(&self, p: usize) -> Timestamp {
        let process = &self.processes[p];
        let mut next = process.session.next_list(self.now);
        for (due, running) in process.due.iter().zip(&process.running) {
            match running.as_ref().map(|reconcile| &reconcile.stage) {
                None => next = due.map_or(next, |due| next.min(due)),
                Some(Stage::Leave(since, plan)) => {
                    let longest = if plan.is_some() { SHORT_WAIT_FOR_LEAVE } else { LONGEST_WAIT_FOR_LEAVE };
                    let paused_until = process.session.paused_until.unwrap_or(self.now);
                    next = next.min(paused_until).min(*since + longest);
                }
                Some(_) => {}
            }
        }
        self.graph.next_event(self.now).map_or(next, |event| next.min(event))
    }

    /// Everything is as it should be, or stands still for a reason that is true.
    fn judge(&mut self) {
        for slot in 0..self.slots() {
            let Some(object) = self.api.get(slot).cloned() else { continue };
            if let Err(what) = self.judge_object(slot, &object) {
                let uid = object.uid.clone();
                let says = self.says(&object);
                return self.breaks(ALWAYS_ARRIVES, format!("{uid}: {what}; it says: {says}"));
            }
        }
    }

    fn says(&self, object: &Object) -> String {
        let status = object.status.as_ref();
        let ready = status.and_then(|status| find(&status.conditions, ConditionType::Ready));
        ready.map_or_else(|| "nothing".to_owned(), |ready| format!("{}: {}", ready.reason, ready.message))
    }

    fn judge_object(&self, slot: usize, object: &Object) -> Result<(), String> {
        let Some(status) = &object.status else { return Err("it has no status".into()) };
        let ready = find(&status.conditions, ConditionType::Ready);
        let Some(ready) = ready else { return Err("it says nothing".into()) };
        if status.observed_generation != Some(object.generation) {
            return Err("its status is of an older generation".into());
        }
        let token = object.token_id().and_then(|id| self.graph.token(id));
        if object.deleting.is_some() {
            return self.judge_deletion(object, token);
        }
        let wants_finalizer = object.spec.deletion_policy == DeletionPolicy::Delete && !object.spec.only_observes();
        if object.has_finalizer != wants_finalizer {
            return Err("its finalizer is not what its policy asks for".into());
        }
        let request = object.sync_request.map(|request| request.to_string());
        if ready.status != "True" {
            return self.judge_reason(slot, object, token, &ready.reason);
        }
        let Some(token) = token else { return Err("it is ready without a token".into()) };
        if request.is_some() && status.last_handled_sync_request != request {
            return Err("its sync request was never answered".into());
        }
        if self.has_elder(object, &token.id) {
            return Err(format!("it is ready with {}, which belongs to an elder one", token.id));
        }
        if object.spec.only_observes() {
            return Ok(());
        }
        // A file that was uploaded is not uploaded again because a person put another one over it, or a request did that
        // nobody waited for any more or that was decided before; nor over a newer one whose upload was not answered before the
        // Secret went back.
        let secret = self.api.secrets[slot].file();
        let is_newer = secret.as_ref().is_ok_and(|number| file(*number).expiration() < file(token.file).expiration());
        let is_its_file = secret == Ok(token.file) || token.has_anothers_file || is_newer;
        if !object.spec.suspend && !is_its_file {
            return Err(format!("it is ready with another file than {}", file(token.file).sha256));
        }
        if let Some(difference) = difference(object, token) {
            return Err(format!("it is ready with another {difference}"));
        }
        let doubles = self.graph.tokens().iter().filter(|other| {
            other.id != token.id
                && other.made_by.as_deref() == Some(&object.uid)
                && !other.disguised
                && !self.has_other(&object.uid, &other.id)
        });
        match doubles.map(|double| &double.id).next() {
            Some(double) => Err(format!("it has {} and {double}", token.id)),
            None => Ok(()),
        }
    }

    fn has_elder(&self, object: &Object, id: &str) -> bool {
        self.api.objects.iter().flatten().any(|other| {
            other.uid != object.uid
                && other.token_id() == Some(id)
                && (other.created, &other.uid) < (object.created, &object.uid)
        })
    }

    fn judge_deletion(&self, object: &Object, token: Option<&Token>) -> Result<(), String> {
        if !object.has_finalizer {
            return Err("it is not gone, though nothing holds it".into());
        }
        let may_delete = self.api.allowed.contains(&Permission::Delete);
        let could_be_its = self.graph.tokens().iter().filter(|token| !self.has_other(&object.uid, &token.id)).count();
        if token.is_some() && !may_delete || token.is_none() && could_be_its > 1 {
            return Ok(());
        }
        Err("it is not gone".into())
    }

    /// Whether what stands in the way is there, and one that only a person can remove.
    fn judge_reason(&self, slot: usize, object: &Object, token: Option<&Token>, reason: &str) -> Result<(), String> {
        let now = self.now;
        let secret = &self.api.secrets[slot];
        let secret_file = secret.file().ok().map(file);
        let spec = &object.spec;
        let apple_id = spec.apple_id.as_deref().unwrap_or_default();
        let pending = object.status.as_ref().and_then(|status| status.pending_create.as_ref());
        let unclaimed: Vec<&Token> = self
            .graph
            .tokens()
            .iter()
            .filter(|token| {
                // What an announced create may have made has the announced look.
                !self.has_other(&object.uid, &token.id)
                    && (secret_file.is_none_or(|file| token.looks_like(apple_id, file.organization))
                        || pending
                            .is_some_and(|pending| token.looks_like(&pending.apple_id, &pending.organization_name)))
            })
            .collect();
        let is_double = |token: &Token| {
            self.graph.tokens().iter().any(|other| other.id != token.id && other.location() == token.location())
        };
        let all: BTreeSet<Permission> =
            BTreeSet::from([Permission::Create, Permission::Adopt, Permission::Bind, Permission::Delete]);
        let is_true = match reason {
            "SecretNotFound" => secret.content.is_none(),
            "SecretKeyNotFound" => secret.content == Some(Content::NoKey),
            "TokenFileMalformed" => secret.content == Some(Content::Malformed),
            "TokenFileExpired" => secret_file.is_some_and(|file| file.expiration() <= now),
            // What was uploaded may show late: it counts as if it were there.
            "TokenFileOlder" => secret_file.zip(token).is_some_and(|(new, token)| {
                let uploaded = object.status.as_ref().and_then(|status| status.uploaded.as_ref());
                new.expiration() < file(token.file).expiration()
                    || uploaded.is_some_and(|uploaded| new.expiration() < uploaded.expiration_date_time)
            }),
            "OrganizationMismatch" => secret_file.is_some_and(|new| {
                spec.organization_name.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(new.organization))
                    || token.is_some_and(|token| token.organization != new.organization)
            }),
            "OperationNotAllowed" => self.api.allowed.0 != all,
            // What was there before the create was announced is not what it made.
            "AmbiguousMatch" => {
                let known: &[String] = pending.map_or(&[], |pending| &pending.known_ids);
                unclaimed.iter().filter(|token| !known.contains(&token.id)).count() > 1
            }
            "SimilarTokenExists" => spec.creation_policy == CreationPolicy::Unique && !unclaimed.is_empty(),
            "ClaimedByAnother" => self.graph.tokens().iter().any(|token| self.has_other(&object.uid, &token.id)),
            "TokenNotFound" => spec.token_id.as_ref().is_some_and(|id| self.graph.token(id).is_none()),
            "AlreadyBound" => spec.token_id.is_some() && spec.token_id.as_deref() != object.token_id(),
            "GraphRefused" => spec.country_or_region.as_deref() == Some(REFUSED),
            "SettingNotAccepted" => spec.country_or_region.as_deref() == Some(NOT_KEPT),
            "Suspended" => spec.suspend,
            "Expired" => token.is_some_and(|token| file(token.file).expiration() <= now),
            "DuplicateLocation" => token.is_some_and(is_double),
            "ManyVanished" => true,
            _ => false,
        };
        if is_true { Ok(()) } else { Err(format!("it stands still, and that is not so: {reason}")) }
    }
}

fn difference(object: &Object, token: &Token) -> Option<&'static str> {
    let spec = &object.spec;
    if spec.suspend {
        return None;
    }
    if spec.apple_id.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&token.apple_id)) {
        return Some("Apple ID");
    }
    if spec.country_or_region.as_ref().is_some_and(|wanted| Some(wanted) != token.country.as_ref()) {
        return Some("country");
    }
    if spec.automatically_update_apps.is_some_and(|wanted| Some(wanted) != token.update_apps) {
        return Some("choice about updating apps");
    }
    if spec.vpp_token_account_type.is_some_and(|wanted| wanted.as_graph() != token.account_type) {
        return Some("account type");
    }
    None
}

/// What is to stay as it is.
struct Watched {
    versions: Vec<Option<u64>>,
    tokens: Vec<(String, u32)>,
}

impl Watched {
    fn of(world: &mut World) -> Self {
        world.is_watched = true;
        Self {
            versions: world.api.objects.iter().map(|object| object.as_ref().map(|object| object.version)).collect(),
            tokens: world.graph.tokens().iter().map(|token| (token.id.clone(), token.version)).collect(),
        }
    }

    fn compare(&self, world: &mut World) {
        let tokens: Vec<_> = world.graph.tokens().iter().map(|token| (token.id.clone(), token.version)).collect();
        if tokens != self.tokens {
            return world.breaks(NEVER_SPIN, "Graph changes although nothing is asked for");
        }
        let mut syncs = BTreeSet::new();
        for (uid, operation) in std::mem::take(&mut world.written) {
            let is_refused =
                matches!(&operation, Operation::Update { country: Some(country), .. } if country == REFUSED);
            match operation {
                Operation::Sync { is_scheduled: true, .. } => {
                    syncs.insert(uid);
                }
                // A refusal is looked at again, slowly.
                _ if is_refused => {}
                Operation::Create { country: Some(country), .. } if country == REFUSED => {
                    syncs.insert(uid);
                }
                operation => {
                    let what = format!("{} for {uid} although nothing is asked for", operation.name());
                    return world.breaks(NEVER_SPIN, what);
                }
            }
        }
        for (slot, before) in self.versions.iter().enumerate() {
            let Some(object) = world.api.get(slot).cloned() else { continue };
            if Some(object.version) == *before {
                continue;
            }
            // Whoever syncs by schedule is told of its progress, and so is another one with the same token.
            let is_told = syncs.contains(&object.uid)
                || object.token_id().is_some_and(|id| {
                    world
                        .api
                        .objects
                        .iter()
                        .flatten()
                        .any(|other| syncs.contains(&other.uid) && other.token_id() == Some(id))
                });
            if !is_told && world.api.definition == Definition::There {
                let what =
                    format!("the status of {} changes although nothing happens: {}", object.uid, world.says(&object));
                return world.breaks(NEVER_SPIN, what);
            }
        }
    }
}
