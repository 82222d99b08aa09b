//! Whether the tenant can be used, and whether its tokens are known.

use jiff::Timestamp;

use super::draft::{Blocker, Draft, unreachable};
use super::findings::News;
use super::messages::time;
use crate::api::conditions::{ConditionType, find};
use crate::api::{Reason, VppTokenStatus};
use crate::vpptoken::observed::{KnownTenant, TenantState};

/// After this many polls without a list, what is known is out of date.
const STALE_POLLS: i32 = 3;

/// The tenant, if it can be used and is the one that the token lives in. If not, a blocker says why.
pub(super) fn usable_tenant<'a>(draft: &mut Draft<'a>) -> Result<&'a KnownTenant, News> {
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
            Err(News::Progress)
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
            Err(News::Progress)
        }
        TenantState::Unusable { reason, message } => {
            draft.wait(*reason, message.clone());
            // Right after a start the tenant may not have been looked up yet.
            let is_known = *reason == Reason::TenantNotRead && was_reported(draft);
            Err(if is_known { News::Nothing } else { News::Progress })
        }
        TenantState::Known(tenant) => match tenant_changed(&draft.status, tenant) {
            Some(message) => {
                draft.stall(Reason::TenantChanged, message);
                Err(News::Progress)
            }
            None => Ok(tenant),
        },
    }
}

/// What a person reads when the token, or its create, is in another tenant than this one.
fn tenant_changed(status: &VppTokenStatus, tenant: &KnownTenant) -> Option<String> {
    let has_token = status.token_id.is_some() || status.pending_create.is_some();
    let before = status.tenant.as_ref().filter(|_| has_token)?;
    let is_another = before.entra_tenant() != tenant.identity.entra_tenant();
    is_another.then(|| {
        format!(
            "The token lives in tenant {}, and tenantRef now leads to another tenant. Nothing is done there. Delete this \
             VppToken and create it again to use the other tenant.",
            before.tenant_id
        )
    })
}

/// Checks that the tenant's tokens have been listed, and asks for a list when the last one is out of date. Refused credentials
/// are reported in any case.
pub(super) fn check_was_listed(draft: &mut Draft, tenant: &KnownTenant) -> Result<(), News> {
    let problem = tenant.view.problem.as_ref();
    if let Some(problem) = problem.filter(|problem| problem.error.kind.is_about_access()) {
        let blocker = draft.refused_access(problem.error.kind, problem.error.summary(), problem.since);
        draft.blockers.push(blocker);
    }
    let Some(read_at) = tenant.view.snapshot.read_at() else {
        return Err(await_first_list(draft, tenant));
    };
    let stale_at = stale_after(read_at, tenant);
    if draft.observed.now <= stale_at {
        if problem.is_some() {
            draft.requeue_at(stale_at);
        }
    } else if problem.is_none()
        && let Some(began) = tenant.view.snapshot.last_list()
    {
        // The process slept. A list that changes nothing triggers only those that wait for it.
        draft.await_list(began);
    }
    Ok(())
}

/// Until the tenant's tokens are listed for the first time, a status that was complete stays for a while.
fn await_first_list(draft: &mut Draft, tenant: &KnownTenant) -> News {
    // Any list will do.
    draft.await_list(Timestamp::MIN);
    let stale_at = stale_after(tenant.view.opened, tenant);
    let is_late = draft.observed.now > stale_at;
    if !is_late {
        draft.requeue_at(stale_at);
    }
    if tenant.view.problem.as_ref().is_some_and(|problem| problem.error.kind.is_about_access()) {
        return News::Progress;
    }
    let was_reported = was_reported(draft);
    if is_late && was_reported {
        // Nothing is known to be blocked, and Ready says that what is shown is out of date.
        return News::Progress;
    }
    draft.blockers.push(unreachable(tenant).unwrap_or_else(|| Blocker {
        reason: Reason::TenantNotRead,
        message: "The tenant's tokens are being listed for the first time.".into(),
        needs_action: false,
    }));
    if was_reported { News::Nothing } else { News::Progress }
}

/// Since when what is known of a tenant's tokens is out of date, as a sentence, if it is.
pub(super) fn out_of_date(tenant: &KnownTenant, now: Timestamp) -> Option<String> {
    let read_at = tenant.view.snapshot.read_at();
    if now <= stale_after(read_at.unwrap_or(tenant.view.opened), tenant) {
        return None;
    }
    Some(match read_at {
        Some(read_at) => {
            let read_at = time(read_at);
            format!("The tenant's tokens could last be listed at {read_at}; what is shown may be out of date.")
        }
        None => "The tenant's tokens could not be listed; what is shown may be out of date.".to_owned(),
    })
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
