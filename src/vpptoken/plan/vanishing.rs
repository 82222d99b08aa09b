//! A token that Graph's lists lack: whether it has vanished for certain.

use jiff::Timestamp;

use super::draft::Draft;
use super::messages::time;
use super::step::Step;
use crate::api::{Reason, VppTokenStatus};
use crate::tenant::Entry;
use crate::vpptoken::observed::KnownTenant;

/// After this many lists without a token, it is asked for by its id.
const LISTS_TO_VANISH: usize = 2;
/// It looks like a fault if all of up to this many claimed tokens vanish at once, or more than this many and at least
/// half.
const MANY_VANISHED: usize = 3;

/// What is known of a token that Graph's lists lack.
pub(super) enum Missing {
    /// It may be there: it is being looked for.
    MaybeThere,
    /// So many are missing with it that it looks like a fault.
    ManyVanished,
    /// It has vanished for certain, and is forgotten.
    Vanished,
}

/// What is known of a token that the snapshot lacks. Unless it has vanished, a blocker is added.
pub(super) fn missing(draft: &mut Draft, tenant: &KnownTenant, id: &str) -> Missing {
    if many_vanished(draft, tenant, id) {
        draft.stall(
            Reason::ManyVanished,
            "Most of the tenant's tokens that VppTokens have seem to be gone at once. That looks like a fault, so none is \
             created again. If they were deleted on purpose, delete their VppTokens and create them again.",
        );
        return Missing::ManyVanished;
    }
    if !has_vanished(draft, tenant, id) {
        return Missing::MaybeThere;
    }
    forget(draft);
    Missing::Vanished
}

/// Whether a token that the snapshot lacks has vanished for certain: two lists that began after our last write to it
/// settled, also a write of another process, lack it, and then it is shown nowhere for a time at both ends of which a
/// GET answers 404. If not, a blocker is added.
pub(super) fn has_vanished(draft: &mut Draft, tenant: &KnownTenant, id: &str) -> bool {
    let snapshot = &tenant.view.snapshot;
    if snapshot.is_confirmed_absent(id) {
        return true;
    }
    if let Some(since) = snapshot.missing_since(id) {
        wait_until_vanished(draft, tenant, id, since, "");
        return false;
    }
    draft.wait(Reason::Vanished, format!("Graph's list lacks the token {id}; it is being looked for."));
    let written = draft.status.uploaded.as_ref().map(|uploaded| uploaded.time).max(draft.status.last_sync_trigger_time);
    let written = written.map(|at| draft.observed.at_wall(at));
    let settled = written.and_then(|at| at.checked_add(draft.observed.timings.settling).ok()).unwrap_or(Timestamp::MIN);
    if draft.observed.now < settled {
        draft.requeue_at(settled);
    } else if snapshot.lists_since(settled) < LISTS_TO_VANISH {
        draft.await_list(snapshot.last_list().map_or(settled, |began| began.max(settled)));
    } else {
        draft.try_step(tenant, Step::Confirm { id: id.to_owned() });
    }
    false
}

/// A GET did not find a token. Graph may hide it for a while, so it has vanished only when it is not found later either.
pub(super) fn wait_until_vanished(draft: &mut Draft, tenant: &KnownTenant, id: &str, since: Timestamp, note: &str) {
    let until = since.saturating_add(draft.observed.timings.vanished_after).unwrap_or(Timestamp::MAX);
    draft.wait(
        Reason::Vanished,
        format!(
            "The token {id} is missing in Graph since {}. It counts as gone when it is still missing at {}.{note}",
            time(since),
            time(until)
        ),
    );
    if draft.observed.now < until {
        draft.requeue_at(until);
    } else {
        draft.try_step(tenant, Step::Confirm { id: id.to_owned() });
    }
}

/// Whether so many of the tenant's claimed tokens are missing that it looks like a fault. This token was asked for
/// before that is reported, unless it has been reported already.
fn many_vanished(draft: &Draft, tenant: &KnownTenant, id: &str) -> bool {
    let is_missing = tenant.view.snapshot.missing_since(id).is_some();
    if !is_missing && !draft.was_stalled_by(Reason::ManyVanished) {
        return false;
    }
    let is_there = |id: &str| tenant.view.snapshot.entry(id).is_some_and(Entry::is_present);
    let (mut missing, mut all) = (1, 1);
    for id in draft.observed.others.claims.ids() {
        missing += usize::from(!is_there(id));
        all += 1;
    }
    if all <= MANY_VANISHED { all > 1 && missing == all } else { missing > MANY_VANISHED && missing * 2 >= all }
}

/// The token has vanished: from here on it is as if there had never been one.
fn forget(draft: &mut Draft) {
    draft.status.token_id = None;
    draft.status.uploaded = None;
    draft.status.last_sync_trigger_time = None;
    if draft.status.pending_create.is_none() {
        draft.status.tenant = None;
    }
    clear_mirror(&mut draft.status);
}

fn clear_mirror(status: &mut VppTokenStatus) {
    status.state = None;
    status.last_sync_status = None;
    status.last_sync_date_time = None;
    status.sync_running_since = None;
    status.expiration_date_time = None;
    status.organization_name = None;
    status.vpp_token_account_type = None;
    status.apple_id = None;
    status.country_or_region = None;
    status.automatically_update_apps = None;
    status.display_name = None;
    status.location_name = None;
    status.role_scope_tag_ids = None;
    status.data_sharing_consent_granted = None;
    status.claim_token_management_from_external_mdm = None;
    status.last_modified_date_time = None;
}
