//! A VppToken that is being deleted. Graph's token goes with it only by `deletionPolicy: Delete`, with everything that says
//! so in place; in doubt it stays.

use jiff::SignedDuration;

use super::creating;
use super::draft::{Draft, only_reads};
use super::step::Step;
use super::tenant::{tenant_was_read, usable_tenant};
use super::vanishing::vanished;
use crate::api::{DeletionPolicy, Reason};
use crate::vpptoken::world::{KnownTenant, Permission};

/// How long a deletion in a namespace that is being deleted waits for what is missing.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn plan(draft: &mut Draft) {
    let observed = draft.observed;
    if !observed.object.has_finalizer {
        if observed.unsent_create().is_some() {
            draft.step(Step::Withdraw);
        }
        return;
    }
    if observed.spec.deletion_policy == DeletionPolicy::Retain {
        return let_go(draft, None);
    }
    if observed.crd_terminating {
        return let_go(draft, Some("The CustomResourceDefinition is being deleted, so the token stays in Graph."));
    }
    if draft.status.token_id.is_none() && draft.status.pending_create.is_none() {
        // The finalizer came after the first status, so that one was lost.
        let is_lost = observed.status.observed_generation.is_none_or(|generation| generation < 0);
        let warning = "Its status was lost and with it which token it has, so nothing is deleted in Graph.";
        return let_go(draft, is_lost.then_some(warning));
    }
    if let Some(because) = only_reads(&observed.spec) {
        return let_go(draft, Some(&format!("{because} forbids to delete, so the token stays in Graph.")));
    }
    draft.say_working(Reason::Deleting, "The token is being deleted in Graph.");
    let Some(tenant) = usable_tenant(draft) else {
        return give_up_or_wait(draft);
    };
    if !tenant_was_read(draft, tenant) {
        return give_up_or_wait(draft);
    }
    if let Some((reason, sentence)) = draft.unreachable.clone() {
        if draft.holds.is_empty() {
            draft.wait(reason, sentence);
        }
        return give_up_or_wait(draft);
    }
    match draft.status.token_id.clone() {
        Some(id) => delete(draft, tenant, &id),
        None => creating::resolve(draft, tenant),
    }
    if draft.step.is_none() {
        give_up_or_wait(draft);
    }
}

fn delete(draft: &mut Draft, tenant: &KnownTenant, id: &str) {
    if tenant.view.snapshot.is_gone(id) {
        return let_go(draft, None);
    }
    if draft.status.tenant.is_none() {
        return let_go(draft, Some("It is not known which tenant the token lives in, so it stays in Graph."));
    }
    if draft.observed.others.claimed.contains_key(id) {
        return let_go(draft, Some("The token also belongs to another VppToken, so it stays in Graph."));
    }
    if !tenant.allowed.contains(&Permission::Delete) {
        if tenant.view.snapshot.entry(id).is_none() && vanished(draft, tenant, id) {
            // What is gone need not be allowed.
            return let_go(draft, None);
        }
        return draft.hold(Reason::OperationNotAllowed, "The ClusterGraphTenant does not allow Delete.");
    }
    draft.try_step(Step::Delete { id: id.to_owned() });
}

/// In a namespace that is being deleted nobody can mend what is missing any more.
fn give_up_or_wait(draft: &mut Draft) {
    let observed = draft.observed;
    let until = observed.object.deleting.and_then(|since| since.checked_add(PATIENCE).ok());
    match until.filter(|_| observed.object.namespace_deleting) {
        Some(until) if observed.now >= until => {
            let why = draft.holds.first().map(|hold| format!(" {}", hold.message)).unwrap_or_default();
            let_go(draft, Some(&format!("The namespace is being deleted, so the token stays in Graph.{why}")));
        }
        Some(until) => {
            draft.look_at(until);
            say_how_to_let_go(draft);
        }
        None => say_how_to_let_go(draft),
    }
}

fn let_go(draft: &mut Draft, warning: Option<&str>) {
    draft.holds.clear();
    draft.step(Step::RemoveFinalizer { warning: warning.map(str::to_owned) });
}

/// Whatever keeps a deletion waiting, there is a way out that a person can take.
fn say_how_to_let_go(draft: &mut Draft) {
    if draft.step.is_none() {
        for hold in &mut draft.holds {
            hold.message.push_str(
                " The deletion waits for this; to let go and keep the token in Graph, set deletionPolicy: Retain.",
            );
        }
    }
}
