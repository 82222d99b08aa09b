//! A token that is ours: its file is renewed on the same id, settings that the manifest names are kept, licences are
//! synced. Other settings are never touched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::draft::Draft;
use super::equality::{same, same_second};
use super::file::{file_may_be_sent, is_wanted_organization, stall_on_file_problem};
use super::findings::TokenFindings;
use super::messages::{cut, short};
use super::ownership::{belongs_to_other, stall_on_owner};
use super::settings::{found, is_kept, settings, wanted};
use super::step::{Step, Wanted, Write};
use super::syncing;
use super::verdict::{judge_token, newer_in_intune, not_shown_yet, synced, token_valid};
use crate::api::Reason;
use crate::tenant::{Entry, Field};
use crate::vpptoken::observed::{KnownTenant, Observed, StepKind};

/// How often a value is sent that Graph accepts and does not keep.
const MAX_TRIES: u32 = 3;
/// The status shows at most this many characters of a text of Graph, and this many texts of a set.
const MAX_TEXT: usize = 512;
const MAX_TEXTS: usize = 100;
/// The same for a text of a set.
const MAX_TEXT_OF_SET: usize = 64;

pub(super) fn plan(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) -> TokenFindings {
    let entity = &entry.entity;
    mirror(draft, tenant, entry);
    // Only a status that was restored has both.
    draft.status.pending_create = None;
    if belongs_to_other(draft, &entity.id) {
        stall_on_owner(draft, &entity.id);
        let valid = token_valid(draft, tenant, entity);
        return TokenFindings { valid, synced: synced(draft, entity, None), differing: None, note: None };
    }
    if draft.observed.spec.only_observes() {
        let valid = token_valid(draft, tenant, entity);
        let note = judge_token(draft, tenant, entry, &valid);
        return TokenFindings { valid, synced: synced(draft, entity, None), differing: None, note };
    }
    note_shown(draft, tenant, entry);
    let upload = upload_is_due(draft, tenant, entry);
    let Compared { due: changes, differing } = compare(draft, tenant, entry);
    let is_due = upload || !changes.is_empty();
    if draft.observed.spec.suspend {
        report_suspended(draft, upload, &changes);
    } else {
        // One after the other: if Graph refuses one, the other must still be written.
        if upload && try_upload(draft, tenant, entry) {
            draft.set_progress(Reason::Uploading, "The token file is being uploaded onto the same token.");
        }
        if !changes.is_empty() {
            try_update(draft, tenant, &entity.id, changes);
        }
    }
    let valid = token_valid(draft, tenant, entity);
    // What is being written may change the state.
    let is_written = is_due && !draft.observed.spec.suspend;
    let note = if is_written { None } else { judge_token(draft, tenant, entry, &valid) };
    let note = note.or_else(|| newer_in_intune(draft, entity));
    let sync_blocker = syncing::plan(draft, tenant, entry);
    TokenFindings { valid, synced: synced(draft, entity, sync_blocker), differing: Some(differing), note }
}

/// What is due is not written while `suspend` is true.
fn report_suspended(draft: &mut Draft, upload: bool, changes: &BTreeMap<Field, Wanted>) {
    if upload {
        draft.stall(Reason::Suspended, "While suspend is true, the token file is not uploaded.");
    }
    if !changes.is_empty() {
        let message = format!("While suspend is true, not written to Graph: {}.", names_of(changes));
        draft.stall(Reason::Suspended, message);
    }
}

fn try_update(draft: &mut Draft, tenant: &KnownTenant, id: &str, changes: BTreeMap<Field, Wanted>) {
    let message = format!("Being written to Graph: {}.", names_of(&changes));
    let settings = settings(&draft.observed.spec, |field| changes.contains_key(&field));
    if draft.try_step(tenant, Step::Write(Write::Update { id: id.to_owned(), changes, settings })) {
        draft.set_progress(Reason::Updating, message);
    }
}

fn names_of(changes: &BTreeMap<Field, Wanted>) -> String {
    changes.keys().map(|field| field.as_str()).collect::<Vec<_>>().join(", ")
}

/// Uploads the file, after the token was read with a permit at hand: someone may have uploaded a newer file since the
/// last list.
fn try_upload(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) -> bool {
    let id = entry.entity.id.clone();
    if draft.observed.live_since.is_some_and(|since| entry.was_asked_since(since)) {
        let Ok(file) = draft.observed.file.clone() else { return false };
        return draft.try_step(tenant, Step::Write(Write::Upload { id, file, request: open_request(draft) }));
    }
    if draft.is_blocked(tenant, StepKind::Upload) {
        return false;
    }
    draft.report_earlier_failure(StepKind::Upload);
    draft.try_step(tenant, Step::ConfirmUpload { id })
}

/// The request for an upload that was not answered yet.
fn open_request(draft: &Draft) -> Option<String> {
    let request = draft.observed.object.upload_request.clone();
    request.filter(|request| draft.status.last_handled_upload_request.as_ref() != Some(request))
}

/// Answers a request for an upload to a token that is only observed.
pub(super) fn decline_upload(draft: &mut Draft) {
    if let Some(request) = open_request(draft) {
        draft.step(Step::DeclineUpload { request });
    }
}

/// Notes that Graph shows what was uploaded: in a list that began after the upload, since the answer may be an echo.
fn note_shown(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) {
    let observed = draft.observed;
    let Some(uploaded) = &mut draft.status.uploaded else { return };
    let shows = entry.entity.expiration.is_some_and(|at| at.as_second() >= uploaded.expiration_date_time.as_second());
    if uploaded.shown || !shows {
        return;
    }
    let uploaded_at = observed.at_wall(uploaded.time);
    uploaded.shown = tenant.view.snapshot.last_list().is_some_and(|began| began > uploaded_at);
    if !uploaded.shown {
        // A list that changes nothing triggers no reconcile.
        let next_list = uploaded_at.max(tenant.view.snapshot.read_at().unwrap_or(uploaded_at));
        draft.requeue_at(next_list.saturating_add(tenant.view.poll_interval).unwrap_or(Timestamp::MAX));
    }
}

/// Writes what Graph shows into the status.
fn mirror(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) {
    let entity = &entry.entity;
    let status = &mut draft.status;
    status.tenant = Some(tenant.identity.clone());
    status.token_id = Some(entity.id.clone());
    status.state = shown(&entity.state);
    status.last_sync_status = shown(&entity.last_sync_status);
    status.last_sync_date_time = entity.last_sync;
    status.expiration_date_time = entity.expiration;
    status.organization_name = shown(&entity.organization_name);
    status.vpp_token_account_type = shown(&entity.vpp_token_account_type);
    status.apple_id = shown(&entity.apple_id);
    status.country_or_region = shown(&entity.country_or_region);
    status.automatically_update_apps = entity.automatically_update_apps;
    status.display_name = shown(&entity.display_name);
    status.location_name = shown(&entity.location_name);
    let ids = entity.role_scope_tag_ids.as_ref();
    status.role_scope_tag_ids = ids.map(|ids| ids.iter().take(MAX_TEXTS).map(|id| cut(id, MAX_TEXT_OF_SET)).collect());
    status.data_sharing_consent_granted = entity.data_sharing_consent_granted;
    status.claim_token_management_from_external_mdm = entity.claim_token_management_from_external_mdm;
    status.last_modified_date_time = entity.last_modified;
    status.sync_running_since = syncing::running_since(draft.observed, entry);
}

/// A text of Graph as the status shows it: a very long one would make every write fail.
fn shown(text: &Option<String>) -> Option<String> {
    text.as_deref().map(|text| cut(text, MAX_TEXT))
}

/// Whether the Secret has a file to be uploaded: one that Graph lacks, or one whose upload is requested. For a file
/// that may not be uploaded, a blocker is added.
fn upload_is_due(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) -> bool {
    let observed = draft.observed;
    let file = match &observed.file {
        Ok(file) => file,
        Err(problem) => {
            stall_on_file_problem(draft, problem);
            return false;
        }
    };
    if !is_wanted_organization(draft, file) {
        return false;
    }
    if open_request(draft).is_some() {
        return file_may_be_sent(draft, file, Some(&entry.entity));
    }
    if draft.status.uploaded.as_ref().is_some_and(|uploaded| uploaded.sha256 == file.sha256) {
        return false;
    }
    // Graph shows what only this file has: an upload whose answer was lost, or one by hand. The same file in another
    // encoding has the same expiry as the last upload, and is sent.
    let is_there = same_second(entry.entity.expiration, file.expiration)
        && same(entry.entity.organization_name.as_deref(), &file.organization_name);
    if let Some(uploaded) = &draft.status.uploaded
        && is_there
        && !same_second(Some(uploaded.expiration_date_time), file.expiration)
        && not_shown_yet(draft, tenant, &entry.entity).is_none()
    {
        // A step of its own, so that the sync after it is later than the noted time.
        draft.step(Step::Note(file.as_uploaded(observed.wall, false)));
        return false;
    }
    file_may_be_sent(draft, file, Some(&entry.entity))
}

/// How the settings of the manifest compare with those in Graph.
struct Compared {
    /// Those that differ and may be sent now.
    due: BTreeMap<Field, Wanted>,
    /// Those that differ, or may only have been echoed.
    differing: BTreeSet<Field>,
}

fn compare(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) -> Compared {
    let mut compared = Compared { due: BTreeMap::new(), differing: BTreeSet::new() };
    for (field, wanted) in wanted(draft.observed) {
        let found = found(entry, field);
        let unsettled = unsettled(draft.observed, tenant, entry, field, &wanted);
        if is_kept(field, found.as_deref(), &wanted) {
            // The answer may be an echo.
            compared.differing.extend(unsettled.map(|_| field));
            continue;
        }
        compared.differing.insert(field);
        if let Some(unsettled) = unsettled {
            wait_until_settled(draft, tenant, field, unsettled);
        } else if is_given_up(draft.observed, field, &wanted) {
            draft.stall(
                Reason::SettingNotAccepted,
                format!(
                    "Graph accepts {} = {wanted} and keeps {}. Correct the manifest, or leave the field out.",
                    field.as_str(),
                    found.as_deref().map_or("nothing".into(), short)
                ),
            );
        } else {
            compared.due.insert(field, Wanted { found, wanted });
        }
    }
    compared
}

/// A value that was written, and of which there is no verdict yet.
#[derive(Clone, Copy)]
struct Unsettled {
    /// When it was written.
    written_at: Timestamp,
    /// A list that begins after this tells.
    settled_at: Timestamp,
}

/// There is no verdict before a list that began after the settling time and has the token.
fn unsettled(
    observed: &Observed,
    tenant: &KnownTenant,
    entry: &Entry,
    field: Field,
    wanted: &str,
) -> Option<Unsettled> {
    let written = entry.written(field).filter(|written| written.value == wanted)?;
    let settled_at = written.at.checked_add(observed.timings.settling).ok()?;
    let is_settled = entry.is_present() && tenant.view.snapshot.last_list().is_some_and(|began| began > settled_at);
    (!is_settled).then_some(Unsettled { written_at: written.at, settled_at })
}

fn wait_until_settled(draft: &mut Draft, tenant: &KnownTenant, field: Field, unsettled: Unsettled) {
    let Unsettled { written_at, settled_at } = unsettled;
    draft.wait(Reason::Settling, format!("{} was written; Graph does not show it yet.", field.as_str()));
    let is_settling = draft.observed.now < settled_at;
    if is_settling {
        draft.requeue_at(settled_at);
    }
    let after = if is_settling { written_at } else { settled_at };
    // A list that is there need not be requested.
    if tenant.view.snapshot.last_list().is_none_or(|began| began <= after) {
        draft.await_list(after);
    }
}

/// Whether a value was sent as often as it is sent at most.
fn is_given_up(observed: &Observed, field: Field, wanted: &str) -> bool {
    observed.attempts.tries.get(&field).is_some_and(|(value, times)| *value == wanted && *times >= MAX_TRIES)
}
