//! A token that Graph's lists lack: gone for certain, or not.

use jiff::Timestamp;

use super::draft::Draft;
use super::step::Step;
use crate::api::{Reason, VppTokenStatus};
use crate::tenant::Entry;
use crate::vpptoken::world::KnownTenant;

/// A token has to be absent from so many lists before it is asked for.
const LISTS_TO_VANISH: usize = 2;
/// More claimed tokens than this, and more than half of all, gone at once are a fault.
const MANY_VANISHED: usize = 3;

/// Whether a token that the snapshot lacks is gone for certain: two lists that began after our last write to it settled,
/// also when another process wrote it, and a GET that answers 404.
pub(super) fn vanished(draft: &mut Draft, tenant: &KnownTenant, id: &str) -> bool {
    let snapshot = &tenant.view.snapshot;
    if snapshot.is_gone(id) {
        return true;
    }
    draft.wait(Reason::Vanished, format!("Graph's list lacks the token {id}; it is being looked for."));
    let written = draft.status.uploaded.as_ref().map(|uploaded| uploaded.time).max(draft.status.last_sync_trigger_time);
    let settled = written.and_then(|at| at.checked_add(draft.observed.timings.settling).ok()).unwrap_or(Timestamp::MIN);
    if draft.observed.now < settled {
        draft.look_at(settled);
    } else if snapshot.lists_since(settled) < LISTS_TO_VANISH {
        draft.list_after = snapshot.last_list().max(Some(settled));
    } else {
        draft.try_step(Step::Confirm { id: id.to_owned() });
    }
    false
}

/// Whether so many of the tenant's claimed tokens are missing that creating them again would be folly.
pub(super) fn many_vanished(draft: &Draft, tenant: &KnownTenant) -> bool {
    let claimed = &draft.observed.others.claimed;
    let is_there = |id: &String| tenant.view.snapshot.entry(id).is_some_and(Entry::is_present);
    let missing = claimed.keys().filter(|id| !is_there(id)).count() + 1;
    missing > MANY_VANISHED && missing * 2 > claimed.len() + 1
}

/// The token is gone: from here on it is as if there had never been one.
pub(super) fn forget_vanished(draft: &mut Draft) {
    draft.vanished = draft.status.token_id.take();
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
