//! A VPP token as the emulator keeps it, how a person adds one by hand, and how it looks on the wire.

use crate::route::Api;
use crate::secret::Secret;
use crate::settings::{NeverSynced, ScopeTagOrder, Settings, TimestampStyle};
use jiff::Timestamp;
use jiff::tz::offset;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What `lastSyncDateTime` shows before the first sync.
pub const ZERO_DATE: &str = "0001-01-01T00:00:00Z";

/// One entry of a tenant's collection, as a person in the portal would see it. It does not hold the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entity {
    /// A GUID.
    pub id: String,
    /// From the token file.
    pub organization_name: Option<String>,
    /// `business` or `education`.
    pub vpp_token_account_type: String,
    /// The Managed Apple ID.
    pub apple_id: Option<String>,
    /// From the token file; the value that is shown, which may lag behind the file.
    pub expiration_date_time: Option<Timestamp>,
    /// When the last sync ended; `None` before the first.
    pub last_sync_date_time: Option<Timestamp>,
    /// Moves with every write and every sync.
    pub last_modified_date_time: Timestamp,
    /// `valid`, `expired`, `invalid`, …
    pub state: String,
    /// `none`, `inProgress`, `completed` or `failed`.
    pub last_sync_status: String,
    /// Whether apps are updated by themselves.
    pub automatically_update_apps: bool,
    /// Two letters.
    pub country_or_region: Option<String>,
    /// A name for people. Beta only.
    pub display_name: Option<String>,
    /// From Apple, by way of the server. Beta only.
    pub location_name: Option<String>,
    /// Whether the organization agreed to share data with Apple. Beta only.
    pub data_sharing_consent_granted: bool,
    /// Whether the token is taken over from another MDM. Beta only.
    pub claim_token_management_from_external_mdm: bool,
    /// Who may see the entry, as it was sent; how answers order it is a setting. Beta only.
    pub role_scope_tag_ids: Vec<String>,
    /// What became of actions on the entry; the emulator adds none. Beta only.
    pub token_action_results: Vec<Value>,
    /// SHA-256, in hexadecimal, of the exact string last received in `token`. Not on the wire.
    pub token_sha256: Option<String>,
    /// How often a token was uploaded, the create included. Not on the wire.
    pub uploads: usize,
    /// How many syncs ended. Not on the wire.
    pub syncs: usize,
    /// Whether syncs of this entry fail. Not on the wire.
    pub sync_fails: bool,
}

/// An entry that a person adds by hand in the portal. What is left out gets a usual value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NewEntity {
    /// The string for `token`; if it can be read, organization and expiry come from it.
    pub token: Option<Secret>,
    /// The organization, if there is no token that names it.
    pub organization_name: Option<String>,
    /// The expiry, if there is no token that names it.
    pub expiration_date_time: Option<Timestamp>,
    /// The Managed Apple ID.
    pub apple_id: Option<String>,
    /// `business` if left out.
    pub vpp_token_account_type: Option<String>,
    /// Two letters.
    pub country_or_region: Option<String>,
    /// `false` if left out.
    pub automatically_update_apps: Option<bool>,
    /// A name for people.
    pub display_name: Option<String>,
    /// If left out, as [`Settings::location_name`] says.
    pub location_name: Option<String>,
    /// `false` if left out.
    pub data_sharing_consent_granted: Option<bool>,
    /// `false` if left out.
    pub claim_token_management_from_external_mdm: Option<bool>,
    /// `["0"]`, the default scope tag, if left out.
    pub role_scope_tag_ids: Option<Vec<String>>,
    /// A state that stays until someone changes it.
    pub state: Option<String>,
}

/// The scope tags of an entry for which nobody named any.
pub(crate) fn default_scope_tags() -> Vec<String> {
    vec!["0".to_owned()]
}

impl Entity {
    /// The JSON of this entry on the wire.
    pub(crate) fn to_wire(&self, api: Api, settings: &Settings) -> Map<String, Value> {
        let time = |at: Timestamp| Value::String(timestamp(at, settings.timestamps));
        let mut wire = Map::new();
        let mut put = |name: &str, value: Value| {
            if !settings.omit_properties.contains(name) {
                wire.insert(name.to_owned(), value);
            }
        };
        if !settings.omit_odata_type {
            put("@odata.type", json!("#microsoft.graph.vppToken"));
        }
        put("id", json!(self.id));
        put("organizationName", json!(self.organization_name));
        put("vppTokenAccountType", json!(self.vpp_token_account_type));
        put("appleId", json!(self.apple_id));
        put("expirationDateTime", self.expiration_date_time.map_or(Value::Null, time));
        match (self.last_sync_date_time, settings.never_synced) {
            (Some(at), _) => put("lastSyncDateTime", time(at)),
            (None, NeverSynced::ZeroDate) => put("lastSyncDateTime", json!(ZERO_DATE)),
            (None, NeverSynced::Null) => put("lastSyncDateTime", Value::Null),
            (None, NeverSynced::Absent) => {}
        }
        put("token", Value::Null);
        put("lastModifiedDateTime", time(self.last_modified_date_time));
        put("state", json!(self.state));
        put("lastSyncStatus", json!(self.last_sync_status));
        put("automaticallyUpdateApps", json!(self.automatically_update_apps));
        put("countryOrRegion", json!(self.country_or_region));
        if api == Api::Beta {
            let mut scope_tags = self.role_scope_tag_ids.clone();
            match settings.scope_tag_order {
                ScopeTagOrder::Sorted => scope_tags.sort(),
                ScopeTagOrder::AsSent => {}
                ScopeTagOrder::Reversed => scope_tags.reverse(),
            }
            put("displayName", json!(self.display_name));
            put("locationName", json!(self.location_name));
            put("dataSharingConsentGranted", json!(self.data_sharing_consent_granted));
            put("claimTokenManagementFromExternalMdm", json!(self.claim_token_management_from_external_mdm));
            put("roleScopeTagIds", json!(scope_tags));
            put("tokenActionResults", json!(self.token_action_results));
        }
        wire.extend(settings.extra_properties.clone());
        wire
    }
}

fn timestamp(at: Timestamp, style: TimestampStyle) -> String {
    match style {
        TimestampStyle::SevenDigits => format!("{at:.7}"),
        TimestampStyle::NoFraction => format!("{at:.0}"),
        TimestampStyle::Offset => format!("{:.7}", at.display_with_offset(offset(-8))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_in_the_three_styles() {
        let at: Timestamp = "2027-01-22T17:32:07.25Z".parse().unwrap();
        for (style, expected) in [
            (TimestampStyle::SevenDigits, "2027-01-22T17:32:07.2500000Z"),
            (TimestampStyle::NoFraction, "2027-01-22T17:32:07Z"),
            (TimestampStyle::Offset, "2027-01-22T09:32:07.2500000-08:00"),
        ] {
            assert_eq!(timestamp(at, style), expected);
        }
    }
}
