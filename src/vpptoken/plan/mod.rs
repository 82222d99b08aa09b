//! What to do next and what to report: a pure, total function of what was observed. All policy is in this module.
//!
//! A blocker stops only what it concerns: a malformed file blocks the upload, while schedule, drift and deletion of the
//! token that Graph already has go on.
//!
//! The modules, each using only those before it: `equality`, `messages`, `step`, `findings`, `draft`, `file`, `ownership`,
//! `retry`, `events`, `settings`, `tenant`, `vanishing`, `syncing`, `verdict`, `managing`, `creating`, `deleting`.

mod creating;
mod deleting;
mod draft;
mod equality;
mod events;
mod file;
mod findings;
mod managing;
mod messages;
mod ownership;
mod retry;
mod settings;
mod step;
mod syncing;
mod tenant;
#[cfg(test)]
mod tests;
mod vanishing;
mod verdict;

use std::collections::BTreeSet;

use draft::{Draft, only_reads};
use findings::{Findings, News, TokenFindings};
use jiff::{SignedDuration, Timestamp};
use tenant::{check_was_listed, usable_tenant};
use vanishing::{Missing, missing};

pub(crate) use creating::{outcomes_known_until, rival_intents_since};
pub(crate) use draft::Blocker;
pub(crate) use events::{EventNote, Reported};
pub(crate) use messages::list_failure;
pub(crate) use step::{NewToken, PermitKind, Step, Wanted, Write};

use super::observed::{KnownTenant, Observed, Permission, StepKind};
use crate::api::conditions::{ConditionType, find};
use crate::api::{DeletionPolicy, Reason, VppTokenStatus};
use crate::tenant::Field;

/// What is blocked is requeued after this time, even if nothing seems to have changed.
const STALLED_REQUEUE: SignedDuration = SignedDuration::from_mins(10);
/// Everything is requeued after this time.
const MAX_REQUEUE: SignedDuration = SignedDuration::from_hours(1);
/// What was due already is requeued after this time.
const MIN_REQUEUE: SignedDuration = SignedDuration::from_millis(100);

/// Whether a VppToken with this status may go on when an unclaimed token gets an owner.
pub(crate) fn awaits_claim_of_another(status: Option<&VppTokenStatus>) -> bool {
    let stalled = status.and_then(|status| find(&status.conditions, ConditionType::Stalled));
    let reasons = [Reason::AmbiguousMatch, Reason::SimilarTokenExists];
    stalled.is_some_and(|stalled| reasons.iter().any(|reason| stalled.reason == reason.as_str()))
}

/// Whether a VppToken with this status may go on when another one is deleted. One without a token may report another reason
/// first.
pub(crate) fn awaits_deletion_of_another(status: Option<&VppTokenStatus>) -> bool {
    status.is_none_or(|status| {
        status.token_id.is_none()
            || find(&status.conditions, ConditionType::Ready)
                .is_some_and(|ready| ready.reason == Reason::ClaimedByAnother.as_str())
    })
}

/// Whether a VppToken with this status waits for its turn to create a token. It is triggered when that has come, and looks for
/// similar tokens then.
pub(crate) fn awaits_its_turn(status: Option<&VppTokenStatus>) -> bool {
    let ready = status.and_then(|status| find(&status.conditions, ConditionType::Ready));
    let reasons = [Reason::Creating, Reason::WaitingForCreate];
    ready.is_some_and(|ready| reasons.iter().any(|reason| ready.reason == reason.as_str()))
}

/// What to do and what to report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// The next step, if any.
    pub step: Option<Step>,
    /// When to requeue, if nothing triggers a reconcile before.
    pub requeue_after: Option<SignedDuration>,
    /// A list has to begin after this time before the plan can go on.
    pub list_after: Option<Timestamp>,
    /// What is blocked.
    pub blockers: Vec<Blocker>,
    /// Settings that differ from the manifest, or may only have been echoed; none when they were not compared.
    pub differing: Option<BTreeSet<Field>>,
    /// When the list that this plan is based on began.
    pub planned_on: Option<Timestamp>,
    /// The whole status to write.
    pub status: VppTokenStatus,
}

impl Plan {
    /// How long to wait for the next reconcile, if nothing triggers it before. It is bounded, because some changes
    /// trigger nothing, such as the last writes of a process that led before.
    pub(crate) fn requeue_after(&self) -> SignedDuration {
        match self.step {
            Some(_) => SignedDuration::ZERO,
            None => self.requeue_after.unwrap_or(MAX_REQUEUE).min(MAX_REQUEUE),
        }
    }

    /// Whether its step is reported before it is taken: with a change that is due or in flight, an object is not ready,
    /// and when Kubernetes or Graph refuses it, the attempt was reported. A token is deleted only when the status names
    /// it, which may not have been written yet.
    pub(crate) fn is_reported_first(&self, observed: &Observed) -> bool {
        match &self.step {
            Some(Step::Write(Write::Delete { .. })) => true,
            Some(
                Step::AddFinalizer
                | Step::ConfirmUpload { .. }
                | Step::Write(Write::Upload { .. } | Write::Update { .. }),
            ) => self.is_first_try(observed),
            Some(
                Step::RemoveFinalizer { .. }
                | Step::RecordIntent(_)
                | Step::AbandonIntent { .. }
                | Step::Adopt { .. }
                | Step::Bind { .. }
                | Step::Note(_)
                | Step::DeclineSync { .. }
                | Step::DeclineUpload { .. }
                | Step::Confirm { .. }
                | Step::Write(Write::Create(_) | Write::Sync { .. }),
            )
            | None => false,
        }
    }

    /// Whether its step is tried for the first time. A failure is reported until the step succeeds; the attempts are
    /// not.
    pub(crate) fn is_first_try(&self, observed: &Observed) -> bool {
        let Some(step) = &self.step else { return true };
        let is_upload = matches!(step, Step::ConfirmUpload { .. });
        let kinds = [step.kind(), is_upload.then_some(StepKind::Upload)];
        kinds.into_iter().flatten().all(|kind| observed.failure(kind).is_none())
    }
}

/// Decides.
pub(crate) fn plan(observed: &Observed) -> Plan {
    let mut draft = Draft::new(observed);
    let findings = match observed.object.deleting {
        Some(_) => Findings::WithoutToken(deleting::plan(&mut draft)),
        None => living(&mut draft),
    };
    finish(draft, findings)
}

/// A VppToken that is not being deleted.
fn living(draft: &mut Draft) -> Findings {
    let findings = look_after(draft);
    let spec = &draft.observed.spec;
    if only_reads(spec).is_some() {
        // A sync that will not happen is not shown.
        draft.status.next_sync_time = None;
    }
    if spec.only_observes() {
        syncing::decline(draft);
        managing::decline_upload(draft);
    }
    findings
}

/// Checks the manifest and its tenant, and goes on with the token when the tenant's tokens have been listed.
fn look_after(draft: &mut Draft) -> Findings {
    let observed = draft.observed;
    syncing::check_schedule(draft);
    let wants_finalizer = observed.spec.deletion_policy == DeletionPolicy::Delete && !observed.spec.only_observes();
    if wants_finalizer && !observed.object.has_finalizer {
        draft.set_progress(Reason::Finalizing, "The finalizer for deletionPolicy: Delete is being written.");
        draft.step(Step::AddFinalizer);
    } else if !wants_finalizer && observed.object.has_finalizer {
        draft.step(Step::RemoveFinalizer { warning: None });
    }
    let tenant = match usable_tenant(draft) {
        Ok(tenant) => tenant,
        Err(news) => {
            if let Some(unsent) = observed.unsent_intent() {
                // Others must not wait for a create that can't be sent.
                draft.step(Step::AbandonIntent { since: unsent.since });
            }
            return Findings::WithoutToken(news);
        }
    };
    if wants_finalizer && !tenant.allowed.contains(&Permission::Delete) {
        draft.stall(
            Reason::OperationNotAllowed,
            "The ClusterGraphTenant does not allow Delete, so deletionPolicy: Delete can't be followed. Set deletionPolicy: \
             Retain, or have Delete added to allowedOperations.",
        );
    }
    if !observed.spec.only_observes() {
        settings::stall_on_unknown_settings(draft, tenant);
    }
    match check_was_listed(draft, tenant) {
        Ok(()) => manage_or_create(draft, tenant),
        Err(news) => Findings::WithoutToken(news),
    }
}

/// The token that the VppToken has is managed; without one, a token is taken over or created.
fn manage_or_create(draft: &mut Draft, tenant: &KnownTenant) -> Findings {
    let token_id = draft.status.token_id.clone();
    if let Some(id) = &token_id {
        if let Some(entry) = tenant.view.snapshot.entry(id) {
            stall_on_other_token_id(draft, id);
            return Findings::WithToken(managing::plan(draft, tenant, entry));
        }
        match missing(draft, tenant, id) {
            Missing::MaybeThere | Missing::ManyVanished => return Findings::WithoutToken(News::Progress),
            Missing::Vanished => {}
        }
    }
    Findings::WithoutToken(match &draft.observed.spec.token_id {
        Some(id) => creating::bind(draft, tenant, id),
        None => creating::plan(draft, tenant, token_id.as_deref()),
    })
}

/// `tokenId` was set when this VppToken already had another token.
fn stall_on_other_token_id(draft: &mut Draft, id: &str) {
    if let Some(other) = draft.observed.spec.token_id.as_ref().filter(|other| !other.matches(id)) {
        let message = format!(
            "This VppToken has the token {id}, and tokenId names {other}. To take that one over, delete this VppToken and \
             create it again; with deletionPolicy: Retain its token stays in Graph."
        );
        draft.stall(Reason::AlreadyBound, message);
    }
}

/// Puts together what was decided.
fn finish(mut draft: Draft, findings: Findings) -> Plan {
    let observed = draft.observed;
    note_file_version(&mut draft.status, observed);
    if !draft.blockers.is_empty() {
        // What ends a blocker triggers a reconcile; if that is missed, this requeue follows.
        draft.requeue_at(observed.now.saturating_add(STALLED_REQUEUE).unwrap_or(Timestamp::MAX));
    }
    let (conditions, differing) = match findings {
        Findings::WithoutToken(News::Nothing) => (observed.status.conditions.clone(), None),
        Findings::WithoutToken(News::Progress) => {
            let mut conditions = verdict::merge(&draft, verdict::ready(&draft, None));
            if draft.status.token_id.is_some() {
                // The last known conditions of a token that was not looked at.
                let of_token = [ConditionType::TokenValid, ConditionType::Synced];
                let known = of_token.into_iter().filter_map(|type_| find(&observed.status.conditions, type_));
                conditions.extend(known.cloned());
            }
            (conditions, None)
        }
        Findings::WithToken(TokenFindings { valid, synced, differing, note }) => {
            let mut updates = verdict::ready(&draft, note);
            updates.extend([valid, synced]);
            (verdict::merge(&draft, updates), differing)
        }
    };
    let requeue_at = draft.requeue.at;
    Plan {
        step: draft.step,
        requeue_after: requeue_at.map(|time| time.duration_since(observed.now).max(MIN_REQUEUE)),
        list_after: draft.requeue.list_after,
        blockers: draft.blockers,
        differing,
        planned_on: observed.known_tenant().and_then(|tenant| tenant.view.snapshot.last_list()),
        status: VppTokenStatus { conditions, ..draft.status },
    }
}

/// Notes the version of the Secret that has the uploaded file, so that a restart need not read it.
fn note_file_version(status: &mut VppTokenStatus, observed: &Observed) {
    if let (Some(uploaded), Ok(file)) = (&mut status.uploaded, &observed.file)
        && uploaded.sha256 == file.sha256
    {
        uploaded.encoding = Some(file.encoding);
        uploaded.secret_version = Some(file.secret_version.clone());
    }
}
