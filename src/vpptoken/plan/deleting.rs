//! A VppToken that is being deleted. Its token in Graph is deleted only under `deletionPolicy: Delete` and with every
//! precondition in place; in doubt it stays.

use jiff::{SignedDuration, Timestamp};

use super::creating::{self, check_namespaces_read};
use super::draft::{Blocker, Draft, only_reads, unreachable};
use super::findings::News;
use super::step::{Step, Write};
use super::tenant::{check_was_listed, usable_tenant};
use super::vanishing::has_vanished;
use crate::api::{DeletionPolicy, Reason};
use crate::vpptoken::observed::{KnownTenant, Permission};

/// How long a deletion waits for what is missing before it needs a person, or, in a namespace that is being deleted,
/// before the finalizer is removed.
const GRACE_PERIOD: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn plan(draft: &mut Draft) -> News {
    let observed = draft.observed;
    if !observed.object.has_finalizer {
        if let Some(unsent) = observed.unsent_intent() {
            draft.step(Step::AbandonIntent { since: unsent.since });
        }
        return News::Nothing;
    }
    if observed.spec.deletion_policy == DeletionPolicy::Retain {
        release(draft, None);
    } else if observed.crd_terminating {
        release(draft, Some("The CustomResourceDefinition is being deleted, so the token stays in Graph."));
    } else if draft.status.token_id.is_none() && draft.status.pending_create.is_none() {
        // The finalizer is added after the first status, so that one was lost.
        let is_lost = observed.status.observed_generation.is_none_or(|generation| generation < 0);
        let warning = "Its status was lost and with it which token it has, so nothing is deleted in Graph.";
        release(draft, is_lost.then_some(warning));
    } else if let Some(because) = only_reads(&observed.spec) {
        release(draft, Some(&format!("{because} forbids to delete, so the token stays in Graph.")));
    } else {
        draft.set_progress(Reason::Deleting, "The token is being deleted in Graph.");
        let deleted = delete(draft);
        if draft.step.is_none() {
            release_or_wait(draft);
        }
        if let Err(news) = deleted {
            return news;
        }
    }
    News::Progress
}

/// Deletes the token, or resolves the create that may have made one.
fn delete(draft: &mut Draft) -> Result<(), News> {
    let tenant = usable_tenant(draft)?;
    check_was_listed(draft, tenant)?;
    if let Some(problem) = &tenant.view.problem {
        // Refused credentials are among the blockers already.
        if !problem.error.kind.is_about_access() {
            draft.blockers.extend(unreachable(tenant));
        }
        return Ok(());
    }
    match draft.status.token_id.clone() {
        Some(id) => delete_token(draft, tenant, &id),
        None => creating::resolve(draft, tenant),
    }
}

fn delete_token(draft: &mut Draft, tenant: &KnownTenant, id: &str) -> Result<(), News> {
    if tenant.view.snapshot.is_confirmed_absent(id) {
        release(draft, None);
    } else if draft.status.tenant.is_none() {
        release(draft, Some("It is not known which tenant the token lives in, so it stays in Graph."));
    } else if draft.observed.others.claims.contains(id) {
        release(draft, Some("The token also belongs to another VppToken, so it stays in Graph."));
    } else if tenant.allowed.contains(&Permission::Delete) {
        check_namespaces_read(draft)?;
        draft.try_step(tenant, Step::Write(Write::Delete { id: id.to_owned() }));
    } else if tenant.view.snapshot.entry(id).is_none() && has_vanished(draft, tenant, id) {
        // What does not exist any more need not be allowed.
        release(draft, None);
    } else {
        draft.stall(Reason::OperationNotAllowed, "The ClusterGraphTenant does not allow Delete.");
    }
    Ok(())
}

/// In a namespace that is being deleted nobody can restore what is missing.
fn release_or_wait(draft: &mut Draft) {
    let observed = draft.observed;
    let until = observed.object.deleting.and_then(|since| since.checked_add(GRACE_PERIOD).ok());
    if let Some(until) = until {
        stall_on_what_does_not_come(draft, until);
    }
    match until.filter(|_| observed.object.namespace_deleting) {
        Some(until) if observed.wall >= until => {
            let waited_for = std::mem::take(&mut draft.blockers);
            let why = waited_for.first().map(|blocker| format!(" {}", blocker.message)).unwrap_or_default();
            release(draft, Some(&format!("The namespace is being deleted, so the token stays in Graph.{why}")));
        }
        Some(until) => {
            draft.requeue_at_wall(until);
            explain_release(draft);
        }
        None => explain_release(draft),
    }
}

/// The tenant object or its Secret was deleted before the VppToken: only a person can restore it.
fn stall_on_what_does_not_come(draft: &mut Draft, until: Timestamp) {
    let comes = |blocker: &Blocker| {
        !matches!(
            blocker.reason,
            Reason::TenantNotFound | Reason::SecretNotFound | Reason::SecretKeyNotFound | Reason::SecretNotReadable
        )
    };
    if draft.blockers.iter().all(comes) {
        return;
    }
    if draft.observed.wall < until {
        return draft.requeue_at_wall(until);
    }
    for blocker in draft.blockers.iter_mut().filter(|blocker| !comes(blocker)) {
        blocker.needs_action = true;
    }
}

/// Nothing is blocked by then: a blocker would be reported beside it.
fn release(draft: &mut Draft, warning: Option<&str>) {
    draft.step(Step::RemoveFinalizer { warning: warning.map(str::to_owned) });
}

/// Whatever a deletion waits for, the message says how a person can end the wait.
fn explain_release(draft: &mut Draft) {
    for blocker in &mut draft.blockers {
        blocker.message.push_str(
            " The deletion waits for this; to let go and keep the token in Graph, set deletionPolicy: Retain.",
        );
    }
}
