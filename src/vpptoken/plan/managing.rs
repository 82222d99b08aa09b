//! A token that is ours: the file is renewed on the same id, settings that the manifest names are kept, licences are
//! synced. What the manifest leaves out is never touched.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::Draft;
use super::file::{file_may_be_sent, hold_file_problem, is_wanted_organization};
use super::same::{same, same_second};
use super::saying::{judge_token, not_shown_yet};
use super::step::{Step, Wanted};
use super::{creating, syncing};
use crate::api::{GraphApi, Reason, Uploaded, VppTokenSpec};
use crate::tenant::{Entry, Field};
use crate::vpptoken::world::{KnownTenant, Observed, TenantState};

/// A value that Graph accepts and does not keep is sent this often, not for ever.
const MOST_TRIES: u32 = 3;

pub(super) fn plan(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) {
    mirror(draft, tenant, entry);
    if is_anothers(draft, &entry.entity.id) {
        return creating::claimed(draft, &entry.entity.id);
    }
    if draft.observed.spec.only_observes() {
        return judge_token(draft, entry);
    }
    let upload = upload_is_due(draft, entry);
    let fields = due_fields(draft, tenant, entry);
    let is_due = upload || !fields.is_empty();
    let names: Vec<&str> = fields.keys().map(|field| field.as_str()).collect();
    if draft.observed.spec.suspend {
        if upload {
            draft.hold(Reason::Suspended, "While suspend is true, the new token file is not uploaded.");
        }
        if !names.is_empty() {
            draft
                .hold(Reason::Suspended, format!("While suspend is true, not written to Graph: {}.", names.join(", ")));
        }
        judge_token(draft, entry);
    } else {
        // One after the other: what Graph refuses of one must not keep the other from it.
        let id = &entry.entity.id;
        if upload && draft.try_step(Step::Upload { id: id.clone() }) {
            draft.say_working(Reason::Uploading, "The new token file is being uploaded onto the same token.");
        }
        let message = format!("Being written to Graph: {}.", names.join(", "));
        if !fields.is_empty() && draft.try_step(Step::Update { id: id.clone(), fields }) {
            draft.say_working(Reason::Updating, message);
        }
        if !is_due {
            judge_token(draft, entry);
        }
    }
    syncing::plan(draft, entry);
}

/// Two VppTokens with one token: the elder has it, then the one with the lower UID.
fn is_anothers(draft: &Draft, id: &str) -> bool {
    let object = &draft.observed.object;
    draft.observed.others.claimed.get(id).is_some_and(|(created, uid)| (*created, uid) < (object.created, &object.uid))
}

/// Writes what Graph shows into the status.
fn mirror(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) {
    let entity = &entry.entity;
    let status = &mut draft.status;
    status.tenant = Some(tenant.identity.clone());
    status.token_id = Some(entity.id.clone());
    status.state = entity.state.clone();
    status.last_sync_status = entity.last_sync_status.clone();
    status.last_sync_date_time = entity.last_sync;
    status.expiration_date_time = entity.expiration;
    status.organization_name = entity.organization_name.clone();
    status.vpp_token_account_type = entity.vpp_token_account_type.clone();
    status.apple_id = entity.apple_id.clone();
    status.country_or_region = entity.country_or_region.clone();
    status.automatically_update_apps = entity.automatically_update_apps;
    status.display_name = entity.display_name.clone();
    status.location_name = entity.location_name.clone();
    status.role_scope_tag_ids = entity.role_scope_tag_ids.as_ref().map(|ids| ids.iter().cloned().collect());
    status.data_sharing_consent_granted = entity.data_sharing_consent_granted;
    status.claim_token_management_from_external_mdm = entity.claim_token_management_from_external_mdm;
    status.last_modified_date_time = entity.last_modified;
    status.sync_running_since = syncing::running_since(draft.observed, entry);
    draft.entity = Some(entity.clone());
}

/// Whether the file in the Secret is one that Graph should have and has not. A file that may not be uploaded is a hold.
fn upload_is_due(draft: &mut Draft, entry: &Entry) -> bool {
    let observed = draft.observed;
    let file = match &observed.file {
        Ok(file) => file,
        Err(problem) => {
            hold_file_problem(draft, problem);
            return false;
        }
    };
    if !is_wanted_organization(draft, file)
        || draft.status.uploaded.as_ref().is_some_and(|uploaded| uploaded.sha256 == file.sha256)
    {
        return false;
    }
    // Graph shows what only this file has: an upload whose answer was lost, or one by hand. The same file in another
    // encoding has the same expiry as the last upload, and is sent.
    let is_there = same_second(entry.entity.expiration, file.expiration)
        && same(entry.entity.organization_name.as_deref(), &file.organization_name);
    if let Some(uploaded) = &draft.status.uploaded
        && is_there
        && !same_second(Some(uploaded.expiration_date_time), file.expiration)
        && not_shown_yet(draft, &entry.entity).is_none()
    {
        // A step of its own, so that the sync after it is later than the time that was noted.
        draft.step(Step::Note(Uploaded {
            sha256: file.sha256.clone(),
            expiration_date_time: file.expiration,
            organization_name: file.organization_name.clone(),
            time: observed.now,
        }));
        return false;
    }
    file_may_be_sent(draft, file, Some(&entry.entity))
}

/// Settings that the manifest names, that Graph has otherwise, and that may be sent now.
fn due_fields(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) -> BTreeMap<Field, Wanted> {
    let observed = draft.observed;
    let mut due = BTreeMap::new();
    let mut differing = BTreeSet::new();
    for (field, wanted) in wanted(observed) {
        let found = found(entry, field);
        // No verdict before a list that began after the settling time says so.
        let unsettled = entry
            .written
            .get(&field)
            .filter(|written| written.value == wanted)
            .and_then(|written| Some((written, written.at.checked_add(observed.timings.settling).ok()?)))
            .filter(|(_, settled)| tenant.view.snapshot.last_list().is_none_or(|began| began <= *settled));
        if is_kept(field, found.as_deref(), &wanted) {
            // Graph may only have echoed it.
            differing.extend(unsettled.map(|_| field));
            continue;
        }
        differing.insert(field);
        if let Some((written, settled)) = unsettled {
            draft.wait(Reason::Settling, format!("{} was written; Graph does not show it yet.", field.as_str()));
            let after = if observed.now < settled { written.at } else { settled };
            if observed.now < settled {
                draft.look_at(settled);
            }
            // One that is there need not be asked for.
            if tenant.view.snapshot.last_list().is_none_or(|began| began <= after) {
                draft.list_after = Some(draft.list_after.unwrap_or(after).max(after));
            }
            continue;
        }
        if observed.memory.tries.get(&field).is_some_and(|(value, times)| *value == wanted && *times >= MOST_TRIES) {
            draft.hold(
                Reason::SettingNotAccepted,
                format!(
                    "Graph accepts {} = {wanted} and keeps {}. Correct the manifest, or leave the field out.",
                    field.as_str(),
                    found.as_deref().unwrap_or("nothing")
                ),
            );
            continue;
        }
        due.insert(field, Wanted { found, wanted });
    }
    draft.differing = Some(differing);
    due
}

/// What the manifest names and the tenant's API knows, as Graph writes it.
pub fn wanted(observed: &Observed) -> Vec<(Field, String)> {
    let knows_beta = matches!(&observed.tenant, TenantState::Known(tenant) if tenant.identity.api == GraphApi::Beta);
    named(&observed.spec).into_iter().filter(|(field, _)| knows_beta || !field.is_beta()).collect()
}

/// A setting that the tenant's API does not have is never sent, and said.
pub(super) fn hold_unknown_settings(draft: &mut Draft, tenant: &KnownTenant) {
    let named = named(&draft.observed.spec).into_iter().filter(|(field, _)| field.is_beta());
    let names: Vec<&str> = named.map(|(field, _)| field.as_str()).collect();
    if tenant.identity.api != GraphApi::Beta && !names.is_empty() {
        let message = format!(
            "Only Graph's beta API has {}. Leave this out, or have api: Beta set in the tenant object.",
            names.join(", ")
        );
        draft.hold(Reason::SettingUnknownToApi, message);
    }
}

fn named(spec: &VppTokenSpec) -> Vec<(Field, String)> {
    let mut wanted = Vec::new();
    wanted.extend(spec.apple_id.clone().map(|apple_id| (Field::AppleId, apple_id)));
    wanted.extend(spec.vpp_token_account_type.map(|type_| (Field::AccountType, type_.as_graph().to_owned())));
    wanted.extend(spec.country_or_region.clone().map(|country| (Field::CountryOrRegion, country)));
    wanted.extend(spec.automatically_update_apps.map(|update| (Field::AutomaticallyUpdateApps, update.to_string())));
    wanted.extend(spec.display_name.clone().map(|name| (Field::DisplayName, name)));
    wanted.extend(spec.role_scope_tag_ids.as_ref().map(|ids| (Field::RoleScopeTagIds, set(ids))));
    let consent = spec.data_sharing_consent_granted;
    wanted.extend(consent.map(|consent| (Field::DataSharingConsentGranted, consent.to_string())));
    let claim = spec.claim_token_management_from_external_mdm;
    wanted.extend(claim.map(|claim| (Field::ClaimTokenManagement, claim.to_string())));
    wanted
}

/// The order of a set does not matter, nor how often it names something.
fn set<'a>(values: impl IntoIterator<Item = &'a String>) -> String {
    let values: BTreeSet<&str> = values.into_iter().map(String::as_str).collect();
    values.into_iter().collect::<Vec<_>>().join(", ")
}

fn found(entry: &Entry, field: Field) -> Option<String> {
    let entity = &entry.entity;
    match field {
        Field::AppleId => entity.apple_id.clone(),
        Field::AccountType => entity.vpp_token_account_type.clone(),
        Field::CountryOrRegion => entity.country_or_region.clone(),
        Field::AutomaticallyUpdateApps => entity.automatically_update_apps.map(|update| update.to_string()),
        Field::DisplayName => entity.display_name.clone(),
        Field::RoleScopeTagIds => entity.role_scope_tag_ids.as_ref().map(set),
        Field::DataSharingConsentGranted => entity.data_sharing_consent_granted.map(|consent| consent.to_string()),
        Field::ClaimTokenManagement => entity.claim_token_management_from_external_mdm.map(|claim| claim.to_string()),
    }
}

/// Compared as a person would: the case of a country or an Apple ID does not matter, that of a name does.
fn is_kept(field: Field, found: Option<&str>, wanted: &str) -> bool {
    let case_matters = matches!(field, Field::DisplayName | Field::RoleScopeTagIds);
    found.map(str::trim).is_some_and(|found| {
        found == wanted.trim() || (!case_matters && found.to_lowercase() == wanted.trim().to_lowercase())
    })
}
