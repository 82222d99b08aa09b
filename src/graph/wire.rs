//! JSON of the `vppToken` of v1.0 and beta, read leniently and written in one place.

use std::collections::BTreeSet;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

/// A token as Graph shows it (`microsoft.graph.vppToken`). Any property may be missing; unknown ones are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entity {
    /// The key.
    pub id: String,
    /// `organizationName`.
    pub organization_name: Option<String>,
    /// `vppTokenAccountType`.
    pub vpp_token_account_type: Option<String>,
    /// `appleId`.
    pub apple_id: Option<String>,
    /// `expirationDateTime`.
    pub expiration: Option<Timestamp>,
    /// `lastSyncDateTime`; Intune writes the year 1 for "never", which is none here.
    pub last_sync: Option<Timestamp>,
    /// `lastModifiedDateTime`.
    pub last_modified: Option<Timestamp>,
    /// `state`, also one that nobody documented.
    pub state: Option<String>,
    /// `lastSyncStatus`, likewise.
    pub last_sync_status: Option<String>,
    /// `automaticallyUpdateApps`.
    pub automatically_update_apps: Option<bool>,
    /// `countryOrRegion`.
    pub country_or_region: Option<String>,
    /// `displayName` (beta).
    pub display_name: Option<String>,
    /// `locationName` (beta).
    pub location_name: Option<String>,
    /// `roleScopeTagIds` (beta): a set, whatever order Graph shows it in.
    pub role_scope_tag_ids: Option<BTreeSet<String>>,
    /// `dataSharingConsentGranted` (beta).
    pub data_sharing_consent_granted: Option<bool>,
    /// `claimTokenManagementFromExternalMdm` (beta).
    pub claim_token_management_from_external_mdm: Option<bool>,
}

impl Entity {
    /// Reads an entity; none without an id.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let text =
            |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let time = |name: &str| value.get(name).and_then(Value::as_str).and_then(timestamp);
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        let texts = |name: &str| {
            let texts = value.get(name)?.as_array()?.iter();
            Some(texts.filter_map(Value::as_str).map(str::to_owned).collect())
        };
        Some(Self {
            id: text("id")?,
            organization_name: text("organizationName"),
            vpp_token_account_type: text("vppTokenAccountType"),
            apple_id: text("appleId"),
            expiration: time("expirationDateTime"),
            last_sync: time("lastSyncDateTime"),
            last_modified: time("lastModifiedDateTime"),
            state: text("state"),
            last_sync_status: text("lastSyncStatus"),
            automatically_update_apps: flag("automaticallyUpdateApps"),
            country_or_region: text("countryOrRegion"),
            display_name: text("displayName"),
            location_name: text("locationName"),
            role_scope_tag_ids: texts("roleScopeTagIds"),
            data_sharing_consent_granted: flag("dataSharingConsentGranted"),
            claim_token_management_from_external_mdm: flag("claimTokenManagementFromExternalMdm"),
        })
    }
}

/// An entity comes bare or wrapped in `value`.
pub(super) fn read_answer(body: &Value) -> Option<Entity> {
    Entity::read(body).or_else(|| body.get("value").and_then(Entity::read))
}

/// RFC 3339 with any number of digits; the zero date is no date.
fn timestamp(text: &str) -> Option<Timestamp> {
    let time: Timestamp = text.parse().ok()?;
    // 0002-01-01: everything before is a way to write "never".
    (time.as_second() >= -62_104_060_800).then_some(time)
}

/// A token to be created.
#[derive(Clone, Debug)]
pub(crate) struct TokenPost {
    /// `token`, exactly as it is to be sent.
    pub token: SecretString,
    /// Everything that must be removed from an answer that quotes it.
    pub sensitive: Vec<SecretString>,
    /// `appleId`, `vppTokenAccountType` and whatever else is asked for.
    pub settings: TokenSettings,
}

impl TokenPost {
    /// The smallest body that Graph accepts can only be found out with a real tenant. It is chosen here.
    pub(super) fn body(&self) -> Value {
        let mut body = typed();
        body.insert("token".into(), json!(self.token.expose_secret()));
        self.settings.insert_into(&mut body);
        Value::Object(body)
    }
}

/// Settings of a token: what is none is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenSettings {
    /// `appleId`.
    pub apple_id: Option<String>,
    /// `vppTokenAccountType`.
    pub vpp_token_account_type: Option<&'static str>,
    /// `countryOrRegion`.
    pub country_or_region: Option<String>,
    /// `automaticallyUpdateApps`.
    pub automatically_update_apps: Option<bool>,
    /// `displayName` (beta).
    pub display_name: Option<String>,
    /// `roleScopeTagIds` (beta).
    pub role_scope_tag_ids: Option<Vec<String>>,
    /// `dataSharingConsentGranted` (beta).
    pub data_sharing_consent_granted: Option<bool>,
    /// `claimTokenManagementFromExternalMdm` (beta).
    pub claim_token_management_from_external_mdm: Option<bool>,
}

impl TokenSettings {
    fn insert_into(&self, body: &mut Map<String, Value>) {
        insert(body, "appleId", self.apple_id.as_ref());
        insert(body, "vppTokenAccountType", self.vpp_token_account_type.as_ref());
        insert(body, "countryOrRegion", self.country_or_region.as_ref());
        insert(body, "automaticallyUpdateApps", self.automatically_update_apps.as_ref());
        insert(body, "displayName", self.display_name.as_ref());
        insert(body, "roleScopeTagIds", self.role_scope_tag_ids.as_ref());
        insert(body, "dataSharingConsentGranted", self.data_sharing_consent_granted.as_ref());
        let claim = self.claim_token_management_from_external_mdm;
        insert(body, "claimTokenManagementFromExternalMdm", claim.as_ref());
    }
}

/// Changes to a token: what is none stays as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenPatch {
    /// `token`, exactly as it is to be sent.
    pub token: Option<SecretString>,
    /// Everything that must be removed from an answer that quotes it.
    pub sensitive: Vec<SecretString>,
    /// What else changes.
    pub settings: TokenSettings,
}

impl TokenPatch {
    /// Whether a PATCH of `token` alone is enough can only be found out with a real tenant. The body is chosen here.
    pub(super) fn body(&self) -> Value {
        let mut body = typed();
        insert(&mut body, "token", self.token.as_ref().map(|token| token.expose_secret().to_owned()).as_ref());
        self.settings.insert_into(&mut body);
        Value::Object(body)
    }
}

fn typed() -> Map<String, Value> {
    Map::from_iter([("@odata.type".to_owned(), json!("#microsoft.graph.vppToken"))])
}

fn insert<T: serde::Serialize>(body: &mut Map<String, Value>, name: &str, value: Option<&T>) {
    if let Some(value) = value {
        body.insert(name.into(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_is_read_from_whatever_graph_sends() {
        let full = json!({
            "@odata.context": "x", "id": "i", "appleId": "a@b", "state": "somethingNew", "token": null,
            "expirationDateTime": "2027-01-22T17:32:07.1234567Z", "lastSyncDateTime": "0001-01-01T00:00:00Z",
            "lastModifiedDateTime": "2026-01-01T01:00:00+01:00", "automaticallyUpdateApps": true, "surprise": {"a": 1},
            "roleScopeTagIds": ["7", "0", "7"], "dataSharingConsentGranted": true
        });
        for (body, found) in [
            (json!({"id": "i"}), true),
            (json!({"value": {"id": "i"}}), true),
            (full.clone(), true),
            (json!({"value": null}), false),
            (json!(null), false),
            (json!({}), false),
        ] {
            assert_eq!(read_answer(&body).is_some(), found, "{body}");
        }
        let entity = Entity::read(&full).unwrap();
        assert_eq!(entity.state.as_deref(), Some("somethingNew"));
        assert_eq!(entity.last_sync, None);
        assert_eq!(entity.role_scope_tag_ids, Some(BTreeSet::from(["0".to_owned(), "7".to_owned()])));
        assert_eq!((entity.data_sharing_consent_granted, entity.display_name), (Some(true), None));
        assert_eq!(entity.last_modified, "2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(entity.expiration, "2027-01-22T17:32:07.1234567Z".parse().ok());
    }

    #[test]
    fn a_patch_names_only_what_changes() {
        let settings = TokenSettings {
            automatically_update_apps: Some(false),
            role_scope_tag_ids: Some(vec!["0".into(), "7".into()]),
            ..TokenSettings::default()
        };
        let patch = TokenPatch { settings, ..TokenPatch::default() };
        let expected = json!({
            "@odata.type": "#microsoft.graph.vppToken",
            "automaticallyUpdateApps": false,
            "roleScopeTagIds": ["0", "7"],
        });
        assert_eq!(patch.body(), expected);
    }
}
