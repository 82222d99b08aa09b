//! A plan in the making: the step, what is blocked and why, and when to requeue.

use jiff::{SignedDuration, Timestamp};

use super::messages::{list_failure, permission_sentence, reason_of, time};
use super::step::Step;
use crate::api::conditions::{ConditionType, find};
use crate::api::{Reason, VppTokenSpec, VppTokenStatus};
use crate::graph::ErrorKind;
use crate::vpptoken::observed::{Failure, KnownTenant, Observed, StepKind};

/// After this long, refused credentials or a missing permission need a person.
const CREDENTIALS_GRACE_PERIOD: SignedDuration = SignedDuration::from_mins(10);

/// Something that is blocked, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    /// Why.
    pub reason: Reason,
    /// What to do about it.
    pub message: String,
    /// Whether it needs a person; otherwise it is expected to end by itself.
    pub needs_action: bool,
}

/// What became of a step that was offered.
pub(super) struct Offer {
    /// It is due, even if an earlier one is taken.
    pub(super) is_due: bool,
    /// What blocks it, or its last failure.
    pub(super) blocker: Option<Blocker>,
}

/// When to plan again, if nothing triggers a reconcile before.
#[derive(Default)]
pub(super) struct Requeue {
    /// The earliest time that something waits for.
    pub(super) at: Option<Timestamp>,
    /// A list that began after this time is needed: the latest time that something waits for a list after.
    pub(super) list_after: Option<Timestamp>,
}

/// A plan in the making: what many functions add to, each in its turn.
pub(super) struct Draft<'a> {
    pub(super) observed: &'a Observed,
    /// The status to be written, without the conditions.
    pub(super) status: VppTokenStatus,
    pub(super) step: Option<Step>,
    pub(super) requeue: Requeue,
    /// What is blocked; a person reads the first one.
    pub(super) blockers: Vec<Blocker>,
    /// What the operator is doing, when nothing is blocked.
    pub(super) working: Option<(Reason, String)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(observed: &'a Observed) -> Self {
        let mut status = observed.status.clone();
        status.observed_generation = Some(observed.object.generation);
        correct_future_times(&mut status, observed.wall);
        Self { observed, status, step: None, requeue: Requeue::default(), blockers: Vec::new(), working: None }
    }

    /// The first step wins: steps are offered in the order of their importance.
    pub(super) fn step(&mut self, step: Step) {
        self.step.get_or_insert(step);
    }

    /// Offers a step that needs Graph, unless the tenant can't be reached, the last failure of its kind still delays it,
    /// or the manifest forbids writes. What blocks it, or its last failure, is added to the blockers. True when the step is
    /// due, even if an earlier one is taken.
    pub(super) fn try_step(&mut self, tenant: &KnownTenant, step: Step) -> bool {
        let Offer { is_due, blocker } = self.offer(tenant, step);
        self.blockers.extend(blocker);
        is_due
    }

    /// The same, without adding to the blockers.
    pub(super) fn offer(&mut self, tenant: &KnownTenant, step: Step) -> Offer {
        if step.writes() && only_reads(&self.observed.spec).is_some() {
            return Offer { is_due: false, blocker: None };
        }
        let kind = step.kind();
        if let Some(blocker) = kind.and_then(|kind| self.blocker_of(tenant, kind)) {
            return Offer { is_due: false, blocker: Some(blocker) };
        }
        let blocker = kind.and_then(|kind| self.earlier_failure(kind));
        self.step(step);
        Offer { is_due: true, blocker }
    }

    /// Whether a kind of step has to wait; the reason is added to the blockers.
    pub(super) fn is_blocked(&mut self, tenant: &KnownTenant, kind: StepKind) -> bool {
        let blocker = self.blocker_of(tenant, kind);
        let is_blocked = blocker.is_some();
        self.blockers.extend(blocker);
        is_blocked
    }

    /// Why a kind of step has to wait, if it has to.
    fn blocker_of(&mut self, tenant: &KnownTenant, kind: StepKind) -> Option<Blocker> {
        if let Some(unreachable) = unreachable(tenant) {
            return Some(unreachable);
        }
        if let Some(until) = tenant.view.paused_until.filter(|until| *until > self.observed.now) {
            self.requeue_at(until);
            let message = format!("Graph asked to wait until {}.", time(until));
            return Some(Blocker { reason: Reason::Throttled, message, needs_action: false });
        }
        let failure = self.observed.failure(kind)?;
        let looked_since = tenant.view.snapshot.last_list().is_some_and(|began| began > failure.at);
        if (failure.maybe_executed || failure.kind == ErrorKind::NotFound) && !looked_since {
            // A list comes before the next try: it may have been carried out.
            self.await_list(failure.at);
            return Some(self.failed(kind, failure));
        }
        if self.observed.now < failure.not_before {
            self.requeue_at(failure.not_before);
            return Some(self.failed(kind, failure));
        }
        None
    }

    /// A failed step is tried again. Its failure is reported until it succeeds, so that a status shows changes and not
    /// attempts.
    pub(super) fn report_earlier_failure(&mut self, kind: StepKind) {
        let blocker = self.earlier_failure(kind);
        self.blockers.extend(blocker);
    }

    fn earlier_failure(&mut self, kind: StepKind) -> Option<Blocker> {
        let failure = self.observed.failure(kind)?;
        Some(self.failed(kind, failure))
    }

    /// What a step's failure says.
    fn failed(&mut self, kind: StepKind, failure: &Failure) -> Blocker {
        let message = failure.message.clone();
        let (reason, needs_action) = (reason_of(failure.kind), failure.kind == ErrorKind::Refused);
        let message = match failure.kind {
            ErrorKind::NotFound => "Graph says that the token is not there; it is being looked for.".into(),
            ErrorKind::Refused => {
                let what = match kind {
                    StepKind::Create => "to create the token",
                    StepKind::Upload => "the new token file",
                    StepKind::Update => "the settings",
                    StepKind::Sync => "to start a sync",
                    StepKind::Delete => "to delete the token",
                    StepKind::Confirm => "to show the token",
                };
                format!("Graph refuses {what}: {message}")
            }
            ErrorKind::Credentials | ErrorKind::Forbidden | ErrorKind::Unauthorized => {
                return self.refused_access(failure.kind, message, failure.since);
            }
            ErrorKind::Unreachable
            | ErrorKind::OutcomeUnknown
            | ErrorKind::Throttled
            | ErrorKind::Unavailable
            | ErrorKind::Conflict => message,
        };
        Blocker { reason, message, needs_action }
    }

    /// Something needs a person.
    pub(super) fn stall(&mut self, reason: Reason, message: impl Into<String>) {
        self.blockers.push(Blocker { reason, message: message.into(), needs_action: true });
    }

    /// Something is expected to end by itself.
    pub(super) fn wait(&mut self, reason: Reason, message: String) {
        self.blockers.push(Blocker { reason, message, needs_action: false });
    }

    /// Credentials or permissions: they may be corrected soon, but need a person after a while. If the status already
    /// says that a person is needed, that stays: a process that started since then only knows its own attempts.
    pub(super) fn refused_access(&mut self, kind: ErrorKind, sentence: String, since: Timestamp) -> Blocker {
        let reason = reason_of(kind);
        let message = if reason == Reason::PermissionMissing { permission_sentence(&sentence) } else { sentence };
        let stall_at = since.saturating_add(CREDENTIALS_GRACE_PERIOD).unwrap_or(Timestamp::MAX);
        let is_about_access = [Reason::CredentialsRefused, Reason::PermissionMissing];
        let needs_action = self.observed.now >= stall_at || is_about_access.iter().any(|it| self.was_stalled_by(*it));
        if !needs_action {
            self.requeue_at(stall_at);
        }
        Blocker { reason, message, needs_action }
    }

    /// Whether the status says that a person is needed, for a reason.
    pub(super) fn was_stalled_by(&self, reason: Reason) -> bool {
        find(&self.observed.status.conditions, ConditionType::Stalled)
            .is_some_and(|stalled| stalled.reason == reason.as_str())
    }

    /// The operator is at work.
    pub(super) fn set_progress(&mut self, reason: Reason, message: impl Into<String>) {
        let message = message.into();
        self.working.get_or_insert((reason, message));
    }

    /// Requeues at a time, if nothing triggers a reconcile before.
    pub(super) fn requeue_at(&mut self, time: Timestamp) {
        self.requeue.at = Some(self.requeue.at.map_or(time, |already| already.min(time)));
    }

    /// The same for a time of the wall clock.
    pub(super) fn requeue_at_wall(&mut self, time: Timestamp) {
        self.requeue_at(self.observed.at_wall(time));
    }

    /// A list that began after a time is needed to go on.
    pub(super) fn await_list(&mut self, after: Timestamp) {
        self.requeue.list_after = self.requeue.list_after.max(Some(after));
    }
}

/// Why nothing can be sent to a tenant: its tokens can't be listed either.
pub(super) fn unreachable(tenant: &KnownTenant) -> Option<Blocker> {
    let error = &tenant.view.problem.as_ref()?.error;
    let (reason, _) = list_failure(error);
    Some(Blocker { reason, message: error.summary(), needs_action: false })
}

/// A time in the future was written while the wall clock was wrong. It becomes the present time, or it would block
/// syncs and verdicts until it has passed. The order of the times is kept.
fn correct_future_times(status: &mut VppTokenStatus, wall: Timestamp) {
    let synced = &mut status.last_sync_trigger_time;
    let Some(uploaded) = status.uploaded.as_mut().map(|uploaded| &mut uploaded.time) else {
        *synced = synced.map(|at| at.min(wall));
        return;
    };
    let needs_sync = synced.is_none_or(|synced| synced < *uploaded);
    *uploaded = (*uploaded).min(wall);
    *synced = synced.map(|at| at.min(wall));
    if needs_sync && *synced == Some(*uploaded) {
        *synced = uploaded.checked_sub(SignedDuration::from_micros(1)).ok();
    }
}

/// What in a manifest forbids writes to Graph, if anything does.
pub(super) fn only_reads(spec: &VppTokenSpec) -> Option<&'static str> {
    if spec.only_observes() { Some("managementPolicy: Observe") } else { spec.suspend.then_some("suspend: true") }
}
