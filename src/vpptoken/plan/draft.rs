//! A plan in the making: what is offered, what is held and why, and when to look again.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::step::Step;
use super::wording::{permission_sentence, time, transient_reason};
use crate::api::conditions::Saying;
use crate::api::{Reason, VppTokenSpec, VppTokenStatus};
use crate::graph::{Entity, ErrorKind};
use crate::tenant::Field;
use crate::vpptoken::world::{Failure, Observed, StepKind, TenantState};

/// Credentials that are refused, or a permission that is missing, count as needing a person after this long.
const PATIENCE_WITH_CREDENTIALS: SignedDuration = SignedDuration::from_mins(10);

/// Something that is stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: Reason,
    /// What to do about it.
    pub message: String,
    /// Whether it needs a person; otherwise it is expected to end by itself.
    pub needs_person: bool,
}

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) observed: &'a Observed,
    /// The status as it is going to be, but for the conditions.
    pub(super) status: VppTokenStatus,
    pub(super) step: Option<Step>,
    /// When to look again, if not before.
    pub(super) again: Option<Timestamp>,
    /// A list that began after this time is waited for.
    pub(super) list_after: Option<Timestamp>,
    /// What is stopped, the first being what a person reads.
    pub(super) holds: Vec<Hold>,
    /// What the operator is doing, when nothing is stopped.
    pub(super) working: Option<(Reason, String)>,
    /// As in the plan.
    pub(super) differing: Option<BTreeSet<Field>>,
    /// Why nothing can be sent to Graph.
    pub(super) unreachable: Option<(Reason, String)>,
    /// Since when the tenant's tokens are not known any more, as a sentence.
    pub(super) stale: Option<String>,
    /// Nothing new can be said, so that what was said stays.
    pub(super) is_silent: bool,
    /// The token that is gone for certain.
    pub(super) vanished: Option<String>,
    /// Why a sync that is due can't be started.
    pub(super) sync_held: Option<Hold>,
    /// The token as Graph shows it.
    pub(super) entity: Option<Entity>,
    /// The conditions.
    pub(super) sayings: Vec<Saying>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(observed: &'a Observed) -> Self {
        let mut status = observed.status.clone();
        status.observed_generation = Some(observed.object.generation);
        Self {
            observed,
            status,
            step: None,
            again: None,
            list_after: None,
            holds: Vec::new(),
            working: None,
            differing: None,
            unreachable: None,
            stale: None,
            is_silent: false,
            vanished: None,
            sync_held: None,
            entity: None,
            sayings: Vec::new(),
        }
    }

    /// The first step wins: steps are offered in the order of their importance.
    pub(super) fn step(&mut self, step: Step) {
        self.step.get_or_insert(step);
    }

    /// A step that needs Graph: not while Graph can't be reached, nor while the last failure of its kind holds it back, nor a
    /// write when the manifest forbids it. True when it is taken, or would be but for an earlier one.
    pub(super) fn try_step(&mut self, step: Step) -> bool {
        if step.priority().is_some() && only_reads(&self.observed.spec).is_some() {
            return false;
        }
        if step.kind().is_some_and(|kind| self.is_held_back(kind)) {
            return false;
        }
        if let Some(kind) = step.kind() {
            self.say_failed_before(kind);
        }
        self.step(step);
        true
    }

    /// Whether a kind of step has to wait, and says why.
    pub(super) fn is_held_back(&mut self, kind: StepKind) -> bool {
        if let Some((reason, sentence)) = self.unreachable.clone() {
            self.wait(reason, sentence);
            return true;
        }
        if let TenantState::Known(tenant) = &self.observed.tenant
            && let Some(until) = tenant.view.paused_until.filter(|until| *until > self.observed.now)
        {
            self.wait(Reason::Throttled, format!("Graph asked to wait until {}.", time(until)));
            self.look_at(until);
            return true;
        }
        let Some(failure) = self.observed.failure(kind).cloned() else {
            return false;
        };
        let looked_since = match &self.observed.tenant {
            TenantState::Known(tenant) => tenant.view.snapshot.last_list().is_some_and(|began| began > failure.at),
            _ => true,
        };
        if (failure.maybe_executed || failure.kind == ErrorKind::NotFound) && !looked_since {
            // Look before trying again: it may have happened.
            self.say_failure(kind, &failure);
            self.list_after = Some(self.list_after.map_or(failure.at, |already| already.max(failure.at)));
            return true;
        }
        if self.observed.now < failure.not_before {
            self.say_failure(kind, &failure);
            self.look_at(failure.not_before);
            return true;
        }
        false
    }

    /// What failed is tried again: until that succeeds, what is said of it stays, so that a status tells of changes and not
    /// of tries.
    pub(super) fn say_failed_before(&mut self, kind: StepKind) {
        if let Some(failure) = self.observed.failure(kind) {
            self.say_failure(kind, failure);
        }
    }

    /// Says why a step is held back.
    fn say_failure(&mut self, kind: StepKind, failure: &Failure) {
        let message = failure.message.clone();
        match failure.kind {
            ErrorKind::NotFound => {
                self.wait(Reason::Vanished, "Graph says that the token is not there; it is being looked for.".into());
            }
            ErrorKind::Refused => {
                let what = match kind {
                    StepKind::Create => "to create the token",
                    StepKind::Upload => "the new token file",
                    StepKind::Update => "the settings",
                    StepKind::Sync => "to start a sync",
                    StepKind::Delete => "to delete the token",
                    StepKind::Confirm => "to show the token",
                };
                self.hold(Reason::GraphRefused, format!("Graph refuses {what}: {message}"));
            }
            ErrorKind::Credentials => self.impatient(Reason::CredentialsRefused, message, failure.since),
            ErrorKind::Forbidden | ErrorKind::Unauthorized => {
                self.impatient(Reason::PermissionMissing, permission_sentence(&message), failure.since);
            }
            kind => self.wait(transient_reason(kind), message),
        }
    }

    /// Something needs a person.
    pub(super) fn hold(&mut self, reason: Reason, message: impl Into<String>) {
        self.holds.push(Hold { reason, message: message.into(), needs_person: true });
    }

    /// Something is expected to come by itself.
    pub(super) fn wait(&mut self, reason: Reason, message: String) {
        self.holds.push(Hold { reason, message, needs_person: false });
    }

    /// Something that may come by itself, but needs a person after a while.
    pub(super) fn impatient(&mut self, reason: Reason, message: String, since: Timestamp) {
        let patient_until = since.saturating_add(PATIENCE_WITH_CREDENTIALS).unwrap_or(Timestamp::MAX);
        let needs_person = self.observed.now >= patient_until;
        if !needs_person {
            self.look_at(patient_until);
        }
        self.holds.push(Hold { reason, message, needs_person });
    }

    /// The operator is at work.
    pub(super) fn say_working(&mut self, reason: Reason, message: impl Into<String>) {
        let message = message.into();
        self.working.get_or_insert((reason, message));
    }

    /// Look again at a time, if not before.
    pub(super) fn look_at(&mut self, time: Timestamp) {
        self.again = Some(self.again.map_or(time, |already| already.min(time)));
    }
}

/// What of a manifest says that nothing is written to Graph, if anything does.
pub(super) fn only_reads(spec: &VppTokenSpec) -> Option<&'static str> {
    if spec.only_observes() { Some("managementPolicy: Observe") } else { spec.suspend.then_some("suspend: true") }
}
