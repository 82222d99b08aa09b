//! A VppToken that is being deleted. Graph's token goes with it only by `deletionPolicy: Delete`, with everything that says
//! so in place; in doubt it stays.

use super::{Draft, Step, creating, tenant_was_read, usable_tenant};
use crate::api::{DeletionPolicy, Reason};
use crate::vpptoken::world::{KnownTenant, Permission};

pub(super) fn plan(draft: &mut Draft) {
    let observed = draft.observed;
    if !observed.object.has_finalizer {
        return;
    }
    if observed.spec.deletion_policy == DeletionPolicy::Retain {
        return let_go(draft, None);
    }
    if observed.crd_terminating {
        return let_go(draft, Some("The CustomResourceDefinition is being deleted, so the token stays in Graph."));
    }
    if draft.status.token_id.is_none() && draft.status.pending_create.is_none() {
        return let_go(draft, None);
    }
    draft.say_working(Reason::Deleting, "The token is being deleted in Graph.");
    let Some(tenant) = usable_tenant(draft) else {
        return say_how_to_let_go(draft);
    };
    if !tenant_was_read(draft, tenant) {
        return say_how_to_let_go(draft);
    }
    match draft.status.token_id.clone() {
        Some(id) => delete(draft, tenant, &id),
        None => creating::resolve(draft, tenant),
    }
    say_how_to_let_go(draft);
}

fn delete(draft: &mut Draft, tenant: &KnownTenant, id: &str) {
    if tenant.view.snapshot.is_gone(id) {
        return let_go(draft, None);
    }
    if draft.observed.others.claimed.contains_key(id) {
        return let_go(draft, Some("The token also belongs to another VppToken, so it stays in Graph."));
    }
    if !tenant.allowed.contains(&Permission::Delete) {
        return draft.hold(Reason::OperationNotAllowed, "The ClusterGraphTenant does not allow Delete.");
    }
    draft.try_step(Step::Delete { id: id.to_owned() });
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
