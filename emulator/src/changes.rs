//! What a create or an update asks for: reads a body, refuses what Graph refuses, drops what is not kept.

use crate::errors::Failure;
use crate::route::Api;
use crate::secret::Secret;
use crate::settings::{Settings, Treatment};
use serde_json::{Map, Value};

/// What a create or an update asks for. An absent property is `None`; one that may be null is an option twice.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) token: Option<Secret>,
    pub(crate) account_type: Option<String>,
    pub(crate) apple_id: Option<Option<String>>,
    pub(crate) country_or_region: Option<Option<String>>,
    pub(crate) automatically_update_apps: Option<bool>,
    pub(crate) display_name: Option<Option<String>>,
    pub(crate) data_sharing_consent_granted: Option<bool>,
    pub(crate) claim_token_management_from_external_mdm: Option<bool>,
    pub(crate) role_scope_tag_ids: Option<Vec<String>>,
}

const SERVER_OWNED: [&str; 6] =
    ["id", "expirationDateTime", "lastSyncDateTime", "lastModifiedDateTime", "state", "lastSyncStatus"];
const SERVER_OWNED_IN_BETA: [&str; 2] = ["locationName", "tokenActionResults"];
const ODATA_TYPE: &str = "#microsoft.graph.vppToken";

impl Changes {
    /// Reads a body. Refuses what Graph refuses; drops what is not kept.
    pub(crate) fn read(
        body: &Map<String, Value>,
        api: Api,
        creating: bool,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let mut changes = Self::default();
        let beta = api == Api::Beta;
        for (name, value) in body {
            let wrong = || Failure::bad_request(format!("Cannot convert the value of '{name}' to the expected type."));
            let text = || match value {
                Value::Null => Ok(None),
                Value::String(text) => Ok(Some(text.clone())),
                _ => Err(wrong()),
            };
            let flag = || value.as_bool().ok_or_else(wrong);
            let texts = || {
                let text = |one: &Value| one.as_str().map(str::to_owned);
                value.as_array().and_then(|all| all.iter().map(text).collect::<Option<Vec<_>>>()).ok_or_else(wrong)
            };
            match name.as_str() {
                "@odata.type" if value.as_str() == Some(ODATA_TYPE) => {}
                "@odata.type" => {
                    return Err(Failure::bad_request("The type named in '@odata.type' does not fit this collection."));
                }
                // The token is null in every answer, so a null that comes back changes nothing.
                "token" => changes.token = text()?.map(Secret::from),
                "vppTokenAccountType" => match value.as_str() {
                    Some(kind @ ("business" | "education")) => changes.account_type = Some(kind.to_owned()),
                    _ => return Err(wrong()),
                },
                "appleId" => changes.apple_id = Some(text()?),
                "countryOrRegion" => changes.country_or_region = Some(text()?),
                "automaticallyUpdateApps" => changes.automatically_update_apps = Some(flag()?),
                "displayName" if beta => changes.display_name = Some(text()?),
                "dataSharingConsentGranted" if beta => changes.data_sharing_consent_granted = Some(flag()?),
                "claimTokenManagementFromExternalMdm" if beta => {
                    changes.claim_token_management_from_external_mdm = Some(flag()?);
                }
                "roleScopeTagIds" if beta => changes.role_scope_tag_ids = Some(texts()?),
                // Documented as sendable; in practice the token file decides.
                "organizationName" => drop(text()?),
                owned if SERVER_OWNED.contains(&owned) || beta && SERVER_OWNED_IN_BETA.contains(&owned) => {
                    if settings.server_owned_properties == Treatment::Refuse {
                        return Err(Failure::bad_request(format!("The property '{name}' is read-only.")));
                    }
                }
                annotation if annotation.contains('@') => {}
                _ => {
                    if settings.unknown_properties == Treatment::Refuse {
                        return Err(Failure::bad_request(format!(
                            "The property '{name}' does not exist on type 'microsoft.graph.vppToken'. Make sure to \
                             only use property names that are defined by the type."
                        )));
                    }
                }
            }
        }
        if creating {
            if settings.require_odata_type && !body.contains_key("@odata.type") {
                return Err(Failure::bad_request("The property '@odata.type' is missing."));
            }
            let missing = |name: &&String| body.get(*name).is_none_or(Value::is_null);
            if let Some(name) = settings.required_on_create.iter().find(missing) {
                return Err(Failure::nested(400, "BadRequest", format!("The property '{name}' is required.")));
            }
        }
        for name in &settings.not_kept {
            match name.as_str() {
                "token" => changes.token = None,
                "vppTokenAccountType" => changes.account_type = None,
                "appleId" => changes.apple_id = None,
                "countryOrRegion" => changes.country_or_region = None,
                "automaticallyUpdateApps" => changes.automatically_update_apps = None,
                "displayName" => changes.display_name = None,
                "dataSharingConsentGranted" => changes.data_sharing_consent_granted = None,
                "claimTokenManagementFromExternalMdm" => changes.claim_token_management_from_external_mdm = None,
                "roleScopeTagIds" => changes.role_scope_tag_ids = None,
                _ => {}
            }
        }
        Ok(changes)
    }
}
