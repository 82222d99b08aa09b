//! Whether the tenant can be used, and whether its tokens are known.

use jiff::Timestamp;

use super::draft::Draft;
use super::messages::{list_failure, time};
use crate::api::Reason;
use crate::api::conditions::{ConditionType, find};
use crate::vpptoken::observed::{KnownTenant, TenantState};

/// After this many polls without a list, what is known is out of date.
const STALE_POLLS: i32 = 3;

/// The tenant, if it can be used and is the one that the token lives in.
pub(super) fn usable_tenant<'a>(draft: &mut Draft<'a>) -> Option<&'a KnownTenant> {
    let reference = &draft.observed.spec.tenant_ref;
    match &draft.observed.tenant {
        TenantState::NotFound => {
            let (kind, name) = (reference.kind, &reference.name);
            draft.wait(
                Reason::TenantNotFound,
                format!(
                    "{kind} \"{name}\" is not there. Create it; tenantRef can't be changed, so if that is wrong, delete this \
                     VppToken and create it again."
                ),
            );
            None
        }
        TenantState::NamespaceNotAllowed => {
            draft.stall(
                Reason::NamespaceNotAllowed,
                format!(
                    "ClusterGraphTenant \"{}\" does not allow this namespace. Have it added to allowedNamespaces, or use a \
                     GraphTenant of your own.",
                    reference.name
                ),
            );
            None
        }
        TenantState::Unusable { reason, message } => {
            draft.wait(*reason, message.clone());
            // Right after a start the tenant may not have been looked up yet.
            draft.keeps_conditions = *reason == Reason::TenantNotRead && was_reported(draft);
            None
        }
        TenantState::Known(tenant) => {
            if (draft.status.token_id.is_some() || draft.status.pending_create.is_some())
                && let Some(before) = &draft.status.tenant
                && before.entra_tenant() != tenant.identity.entra_tenant()
            {
                draft.stall(
                    Reason::TenantChanged,
                    format!(
                        "The token lives in tenant {}, and tenantRef now leads to another tenant. Nothing is done there. \
                         Delete this VppToken and create it again to use the other tenant.",
                        before.tenant_id
                    ),
                );
                return None;
            }
            Some(tenant)
        }
    }
}

/// Whether the tenant's tokens are known. Refused credentials are reported in any case.
pub(super) fn tenant_was_read(draft: &mut Draft, tenant: &KnownTenant) -> bool {
    let now = draft.observed.now;
    let read_at = tenant.view.snapshot.read_at();
    if let Some(problem) = &tenant.view.problem {
        let kind = problem.error.kind;
        let (reason, _) = list_failure(&problem.error);
        let sentence = problem.error.summary();
        draft.unreachable = Some((reason, sentence.clone()));
        if kind.is_about_access() {
            let blocker = draft.refused_access(kind, sentence, problem.since);
            draft.blockers.push(blocker);
        } else if read_at.is_none() {
            draft.wait(reason, sentence);
            draft.keeps_conditions = was_reported(draft);
        }
    }
    let Some(read_at) = read_at else {
        if tenant.view.problem.is_none() {
            draft.wait(Reason::TenantNotRead, "The tenant's tokens are being listed for the first time.".into());
            draft.keeps_conditions = was_reported(draft);
        }
        let stale_at = stale_after(tenant.view.opened, tenant);
        if now <= stale_at {
            draft.requeue_at(stale_at);
        } else if draft.keeps_conditions {
            draft.keeps_conditions = false;
            draft.blockers.retain(|blocker| blocker.needs_action);
            draft.stale = Some("The tenant's tokens could not be listed; what is shown may be out of date.".into());
        }
        // Any list will do.
        draft.list_after = Some(Timestamp::MIN);
        return false;
    };
    let stale_at = stale_after(read_at, tenant);
    if now > stale_at {
        draft.stale = Some(format!(
            "The tenant's tokens could last be listed at {}; what is shown may be out of date.",
            time(read_at)
        ));
        if tenant.view.problem.is_none() {
            // The process slept. A list that changes nothing triggers only those that wait for it.
            draft.list_after = tenant.view.snapshot.last_list();
        }
    } else if tenant.view.problem.is_some() {
        draft.requeue_at(stale_at);
    }
    true
}

fn stale_after(time: Timestamp, tenant: &KnownTenant) -> Timestamp {
    time.saturating_add(tenant.view.poll_interval.saturating_mul(STALE_POLLS)).unwrap_or(Timestamp::MAX)
}

/// Whether the status of the same generation is complete, or says that a person is needed: then a start of the operator
/// changes nothing about it.
fn was_reported(draft: &Draft) -> bool {
    let before = &draft.observed.status;
    let has = |type_| find(&before.conditions, type_).is_some();
    before.observed_generation == Some(draft.observed.object.generation)
        && (has(ConditionType::Stalled) || (before.token_id.is_some() && has(ConditionType::TokenValid)))
}
