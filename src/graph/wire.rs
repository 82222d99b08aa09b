//! JSON of the v1.0 `vppToken`, read leniently and written in one place.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

/// A token as Graph shows it (`microsoft.graph.vppToken`). Any property may be missing; unknown ones are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entity {
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
}

impl Entity {
    /// Reads an entity; none without an id.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let text =
            |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let time = |name: &str| value.get(name).and_then(Value::as_str).and_then(timestamp);
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
            automatically_update_apps: value.get("automaticallyUpdateApps").and_then(Value::as_bool),
            country_or_region: text("countryOrRegion"),
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
pub struct NewToken {
    /// `token`, exactly as it is to be sent.
    pub token: SecretString,
    /// All that must not be shown of an answer that quotes it.
    pub sensitive: Vec<SecretString>,
    /// `appleId`.
    pub apple_id: String,
    /// `vppTokenAccountType`.
    pub vpp_token_account_type: &'static str,
    /// `countryOrRegion`.
    pub country_or_region: Option<String>,
    /// `automaticallyUpdateApps`.
    pub automatically_update_apps: Option<bool>,
}

impl NewToken {
    /// The smallest body that Graph accepts is known only to a real tenant: it is chosen here.
    pub(super) fn body(&self) -> Value {
        let mut body = typed();
        body.insert("token".into(), json!(self.token.expose_secret()));
        body.insert("appleId".into(), json!(self.apple_id));
        body.insert("vppTokenAccountType".into(), json!(self.vpp_token_account_type));
        insert(&mut body, "countryOrRegion", self.country_or_region.as_ref());
        insert(&mut body, "automaticallyUpdateApps", self.automatically_update_apps.as_ref());
        Value::Object(body)
    }
}

/// Changes to a token: what is none stays as it is.
#[derive(Clone, Debug, Default)]
pub struct TokenPatch {
    /// `token`, exactly as it is to be sent.
    pub token: Option<SecretString>,
    /// All that must not be shown of an answer that quotes it.
    pub sensitive: Vec<SecretString>,
    /// `appleId`.
    pub apple_id: Option<String>,
    /// `vppTokenAccountType`.
    pub vpp_token_account_type: Option<&'static str>,
    /// `countryOrRegion`.
    pub country_or_region: Option<String>,
    /// `automaticallyUpdateApps`.
    pub automatically_update_apps: Option<bool>,
}

impl TokenPatch {
    /// Whether a PATCH of `token` alone is enough is known only to a real tenant: the body is chosen here.
    pub(super) fn body(&self) -> Value {
        let mut body = typed();
        insert(&mut body, "token", self.token.as_ref().map(|token| token.expose_secret().to_owned()).as_ref());
        insert(&mut body, "appleId", self.apple_id.as_ref());
        insert(&mut body, "vppTokenAccountType", self.vpp_token_account_type.as_ref());
        insert(&mut body, "countryOrRegion", self.country_or_region.as_ref());
        insert(&mut body, "automaticallyUpdateApps", self.automatically_update_apps.as_ref());
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
            "lastModifiedDateTime": "2026-01-01T01:00:00+01:00", "automaticallyUpdateApps": true, "surprise": {"a": 1}
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
        assert_eq!(entity.last_modified, "2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(entity.expiration, "2027-01-22T17:32:07.1234567Z".parse().ok());
    }

    #[test]
    fn a_patch_names_only_what_changes() {
        let patch = TokenPatch { automatically_update_apps: Some(false), ..TokenPatch::default() };
        assert_eq!(patch.body(), json!({"@odata.type": "#microsoft.graph.vppToken", "automaticallyUpdateApps": false}));
    }
}
