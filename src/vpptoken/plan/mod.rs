//! What to do next, and what to say: a pure, total function of what was observed. All policy lives in this room.
//!
//! A hold stops only what it concerns: a malformed file blocks the upload, while schedule, drift and deletion of the
//! token that Graph already has go on.

mod creating;
mod deleting;
mod draft;
mod file;
mod managing;
mod same;
mod saying;
mod step;
mod syncing;
mod tenant;
#[cfg(test)]
mod tests;
mod vanishing;
mod wording;

use std::collections::BTreeSet;

use draft::{Draft, only_reads};
use jiff::{SignedDuration, Timestamp};
use tenant::{tenant_was_read, usable_tenant};
use vanishing::{forget_vanished, many_vanished, vanished};

pub use draft::Hold;
pub use managing::wanted;
pub use step::{Step, Wanted};
pub(crate) use wording::permission_sentence;

use super::world::{Observed, Permission, TenantState};
use crate::api::conditions::ConditionType;
use crate::api::{DeletionPolicy, Reason, VppTokenStatus, conditions};
use crate::tenant::Field;

/// What is held is looked at again this often, even if nothing seems to have changed.
const SLOW_LOOK: SignedDuration = SignedDuration::from_mins(10);
/// Everything is looked at again this often.
const SLOWEST_LOOK: SignedDuration = SignedDuration::from_hours(1);

/// What to do and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The next step, if any.
    pub step: Option<Step>,
    /// When to look again, if nothing happens before.
    pub again: Option<SignedDuration>,
    /// A list has to begin after this time before it can go on.
    pub list_after: Option<Timestamp>,
    /// What is stopped.
    pub holds: Vec<Hold>,
    /// Settings that Graph has otherwise than the manifest asks, or may only have echoed; none when they were not compared.
    pub differing: Option<BTreeSet<Field>>,
    /// When the list that this was planned on began.
    pub planned_on: Option<Timestamp>,
    /// The whole status to write.
    pub status: VppTokenStatus,
}

impl Plan {
    /// How long to wait before looking again, if nothing happens before: what nobody tells of, such as the last words of a
    /// process that led before, does not stay for ever.
    pub fn next_look(&self) -> SignedDuration {
        match self.step {
            Some(_) => SignedDuration::ZERO,
            None => self.again.unwrap_or(SLOWEST_LOOK).min(SLOWEST_LOOK),
        }
    }

    /// Whether its step is told before it is taken: what is due or on its way is not ready, and what Kubernetes or Graph then
    /// refuses has been said to be tried.
    pub fn is_told_first(&self, observed: &Observed) -> bool {
        let is_change = matches!(self.step, Some(Step::AddFinalizer | Step::Upload { .. } | Step::Update { .. }));
        is_change && self.is_first_try(observed)
    }

    /// Whether its step is tried for the first time. What failed before keeps saying so until it succeeds: no attempt is told.
    pub fn is_first_try(&self, observed: &Observed) -> bool {
        let kind = self.step.as_ref().and_then(Step::kind);
        kind.is_none_or(|kind| observed.failure(kind).is_none())
    }
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let mut draft = Draft::new(observed);
    if observed.object.deleting.is_some() {
        deleting::plan(&mut draft);
    } else {
        living(&mut draft);
    }
    finish(draft)
}

fn living(draft: &mut Draft) {
    alive(draft);
    if let Some(because) = only_reads(&draft.observed.spec) {
        syncing::decline(draft, because);
    }
}

fn alive(draft: &mut Draft) {
    let observed = draft.observed;
    syncing::look_at_schedule(draft);
    let wants_finalizer = observed.spec.deletion_policy == DeletionPolicy::Delete && !observed.spec.only_observes();
    if wants_finalizer && !observed.object.has_finalizer {
        draft.say_working(Reason::Finalizing, "The finalizer for deletionPolicy: Delete is being written.");
        draft.step(Step::AddFinalizer);
    } else if !wants_finalizer && observed.object.has_finalizer {
        draft.step(Step::RemoveFinalizer { warning: None });
    }
    let Some(tenant) = usable_tenant(draft) else {
        if observed.unsent_create().is_some() {
            // Nobody should wait for a create that can't be sent.
            draft.step(Step::Withdraw);
        }
        return;
    };
    if wants_finalizer && !tenant.allowed.contains(&Permission::Delete) {
        draft.hold(
            Reason::OperationNotAllowed,
            "The ClusterGraphTenant does not allow Delete, so deletionPolicy: Delete can't be followed. Set deletionPolicy: \
             Retain, or have Delete added to allowedOperations.",
        );
    }
    if !observed.spec.only_observes() {
        managing::hold_unknown_settings(draft, tenant);
    }
    if !tenant_was_read(draft, tenant) {
        return;
    }
    if let Some(id) = draft.status.token_id.clone() {
        match tenant.view.snapshot.entry(&id) {
            Some(entry) => {
                hold_another_token_id(draft, &id);
                return managing::plan(draft, tenant, entry);
            }
            None if many_vanished(draft, tenant) => {
                return draft.hold(
                    Reason::ManyVanished,
                    "Most of the tenant's tokens that VppTokens have seem to be gone at once. That looks like a fault, so \
                     none is created again. If they were deleted on purpose, delete their VppTokens and create them again.",
                );
            }
            None if !vanished(draft, tenant, &id) => return,
            None => forget_vanished(draft),
        }
    }
    match observed.spec.token_id.clone() {
        Some(id) => creating::bind(draft, tenant, id),
        None => creating::plan(draft, tenant),
    }
}

/// `tokenId` was set after this VppToken had come by another token.
fn hold_another_token_id(draft: &mut Draft, id: &str) {
    if let Some(other) = draft.observed.spec.token_id.as_ref().filter(|other| !other.eq_ignore_ascii_case(id)) {
        let message = format!(
            "This VppToken has the token {id}, and tokenId names {other}. To take that one over, delete this VppToken and \
             create it again; with deletionPolicy: Retain its token stays in Graph."
        );
        draft.hold(Reason::AlreadyBound, message);
    }
}

/// Puts together what was decided.
fn finish(mut draft: Draft) -> Plan {
    let now = draft.observed.now;
    if !draft.holds.is_empty() {
        // Whatever should end it tells; if that is missed, it ends a little later.
        draft.look_at(now.saturating_add(SLOW_LOOK).unwrap_or(Timestamp::MAX));
    }
    saying::conclude(&mut draft);
    let planned_on = match &draft.observed.tenant {
        TenantState::Known(tenant) => tenant.view.snapshot.last_list(),
        _ => None,
    };
    let again = draft.again.map(|time| time.duration_since(now).max(SignedDuration::from_millis(100)));
    if !draft.is_silent {
        let generation = draft.observed.object.generation;
        let before = &draft.observed.status.conditions;
        draft.status.conditions = conditions::merge(before, &draft.sayings, generation, now);
        if draft.entity.is_none() && draft.status.token_id.is_some() {
            // What was last known of a token that can't be seen now.
            let of_token = [ConditionType::TokenValid, ConditionType::Synced];
            let known = of_token.into_iter().filter_map(|type_| conditions::find(before, type_));
            draft.status.conditions.extend(known.cloned());
        }
    }
    Plan {
        step: draft.step,
        again,
        list_after: draft.list_after,
        holds: draft.holds,
        differing: draft.differing,
        planned_on,
        status: draft.status,
    }
}
