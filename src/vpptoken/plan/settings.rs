//! The settings that a manifest can name, as Graph has them.

use std::collections::BTreeSet;

use super::draft::Draft;
use super::equality::same_text;
use crate::api::{AccountType, GraphApi, Reason, VppTokenSpec};
use crate::graph::TokenSettings;
use crate::tenant::{Entry, Field};
use crate::vpptoken::observed::{KnownTenant, Observed};

/// What the manifest names and the tenant's API knows, as Graph writes it.
pub(super) fn wanted(observed: &Observed) -> Vec<(Field, String)> {
    let knows_beta = observed.known_tenant().is_some_and(|tenant| tenant.identity.api == GraphApi::Beta);
    named(&observed.spec).into_iter().filter(|(field, _)| knows_beta || !field.is_beta()).collect()
}

/// The manifest's values of some settings, as they are sent.
pub(super) fn settings(spec: &VppTokenSpec, is_sent: impl Fn(Field) -> bool) -> TokenSettings {
    let account_type = spec.vpp_token_account_type.filter(|_| is_sent(Field::AccountType));
    TokenSettings {
        apple_id: spec.apple_id.clone().filter(|_| is_sent(Field::AppleId)),
        vpp_token_account_type: account_type.map(AccountType::as_graph),
        country_or_region: spec.country_or_region.clone().filter(|_| is_sent(Field::CountryOrRegion)),
        automatically_update_apps: spec.automatically_update_apps.filter(|_| is_sent(Field::AutomaticallyUpdateApps)),
        display_name: spec.display_name.clone().filter(|_| is_sent(Field::DisplayName)),
        role_scope_tag_ids: spec.role_scope_tag_ids.clone().filter(|_| is_sent(Field::RoleScopeTagIds)),
        data_sharing_consent_granted: spec
            .data_sharing_consent_granted
            .filter(|_| is_sent(Field::DataSharingConsentGranted)),
        claim_token_management_from_external_mdm: spec
            .claim_token_management_from_external_mdm
            .filter(|_| is_sent(Field::ClaimTokenManagement)),
    }
}

/// Settings that the tenant's API does not have are reported and never sent.
pub(super) fn stall_on_unknown_settings(draft: &mut Draft, tenant: &KnownTenant) {
    let named = named(&draft.observed.spec).into_iter().filter(|(field, _)| field.is_beta());
    let names: Vec<&str> = named.map(|(field, _)| field.as_str()).collect();
    if tenant.identity.api != GraphApi::Beta && !names.is_empty() {
        let message = format!(
            "Only Graph's beta API has {}. Leave this out, or have api: Beta set in the tenant object.",
            names.join(", ")
        );
        draft.stall(Reason::SettingUnknownToApi, message);
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

pub(super) fn found(entry: &Entry, field: Field) -> Option<String> {
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
pub(super) fn is_kept(field: Field, found: Option<&str>, wanted: &str) -> bool {
    let case_matters = match field {
        Field::DisplayName | Field::RoleScopeTagIds => true,
        Field::AppleId
        | Field::AccountType
        | Field::CountryOrRegion
        | Field::AutomaticallyUpdateApps
        | Field::DataSharingConsentGranted
        | Field::ClaimTokenManagement => false,
    };
    found.is_some_and(|found| if case_matters { found.trim() == wanted.trim() } else { same_text(found, wanted) })
}
