//! A tenant's collection of VPP tokens: what create, update, delete and sync do to it, and how time changes it. Knows
//! nothing of HTTP; the caller says what time it is.

use crate::entity::{Entity, NewEntity, default_scope_tags};
use crate::errors::Failure;
use crate::route::Api;
use crate::secret::{Secret, guid, sha256};
use crate::settings::{ExpiredFile, LocationName, Settings, SyncWhileSyncing, Treatment};
use crate::token_file::{self, Contents};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// `lastModifiedDateTime` moves this long after `lastSyncDateTime`, as seen in a capture.
const MODIFIED_AFTER_SYNC: SignedDuration = SignedDuration::from_millis(3);

/// A moment: on the emulated wall clock, and on the clock that timers use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) instant: Instant,
}

/// What a create or an update asks for. An absent property is `None`; one that may be null is an option twice.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    token: Option<Secret>,
    account_type: Option<String>,
    apple_id: Option<Option<String>>,
    country_or_region: Option<Option<String>>,
    automatically_update_apps: Option<bool>,
    display_name: Option<Option<String>>,
    data_sharing_consent_granted: Option<bool>,
    claim_token_management_from_external_mdm: Option<bool>,
    role_scope_tag_ids: Option<Vec<String>>,
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

/// One entry with what the service remembers about it.
struct Stored {
    /// Position in lists; never reused.
    position: u64,
    /// `state` in here is not used: it is worked out when someone looks.
    entity: Entity,
    forced_state: Option<String>,
    sync_ends: Option<Instant>,
    /// The old expiry that is shown until then.
    lagging: Option<(Option<Timestamp>, Instant)>,
    listed_from: Instant,
}

/// All entries of one tenant, in the order in which they were created.
#[derive(Default)]
pub(crate) struct Collection {
    entries: Vec<Stored>,
    next_position: u64,
}

impl Collection {
    /// Every entry.
    pub(crate) fn all(&self, now: Now, settings: &Settings) -> Vec<Entity> {
        self.entries.iter().map(|entry| self.view(entry, now, settings)).collect()
    }

    /// Up to `limit` entries that lists show, from a position or past a number of entries, each with its position.
    pub(crate) fn page(
        &self,
        after: Option<u64>,
        offset: usize,
        limit: usize,
        now: Now,
        settings: &Settings,
    ) -> Vec<(u64, Entity)> {
        self.entries
            .iter()
            .filter(|entry| entry.listed_from <= now.instant && after.is_none_or(|after| entry.position > after))
            .skip(offset)
            .take(limit)
            .map(|entry| (entry.position, self.view(entry, now, settings)))
            .collect()
    }

    /// One entry.
    pub(crate) fn get(&self, id: &str, now: Now, settings: &Settings) -> Option<Entity> {
        self.find(id).map(|entry| self.view(entry, now, settings))
    }

    /// A new entry for an uploaded file.
    pub(crate) fn create(&mut self, changes: Changes, now: Now, settings: &Settings) -> Result<Entity, Failure> {
        let file = changes.token.as_ref().map(|sent| accept_file(sent, now, settings)).transpose()?;
        let (organization_name, expires) = match file {
            Some(file) => (Some(file.organization), Some(file.expires)),
            None => (None, None),
        };
        let location_name = location_name(organization_name.as_deref(), settings);
        let token_sha256 = changes.token.as_ref().map(|sent| sha256(sent.expose()));
        let entity = Entity {
            id: guid(),
            organization_name,
            vpp_token_account_type: changes.account_type.unwrap_or_else(|| "business".to_owned()),
            apple_id: changes.apple_id.flatten(),
            expiration_date_time: expires,
            last_sync_date_time: None,
            last_modified_date_time: now.wall,
            state: String::new(),
            last_sync_status: "none".to_owned(),
            automatically_update_apps: changes.automatically_update_apps.unwrap_or(false),
            country_or_region: changes.country_or_region.flatten(),
            display_name: changes.display_name.flatten(),
            location_name,
            data_sharing_consent_granted: changes.data_sharing_consent_granted.unwrap_or(false),
            claim_token_management_from_external_mdm: changes.claim_token_management_from_external_mdm.unwrap_or(false),
            role_scope_tag_ids: changes.role_scope_tag_ids.unwrap_or_else(default_scope_tags),
            token_action_results: Vec::new(),
            uploads: usize::from(token_sha256.is_some()),
            token_sha256,
            syncs: 0,
            sync_fails: false,
        };
        Ok(self.push(entity, None, now.instant + settings.scaled(settings.list_lag), now, settings))
    }

    /// An entry that a person adds in the portal: in lists at once, whatever its token is.
    pub(crate) fn create_by_hand(&mut self, new: NewEntity, now: Now, settings: &Settings) -> Entity {
        let sent = new.token.as_ref().map(Secret::expose);
        let file = sent.and_then(|sent| token_file::read(sent, settings.token_encoding, true).ok());
        let (organization_name, expiration_date_time) = match file {
            Some(file) => (Some(file.organization), Some(file.expires)),
            None => (new.organization_name, new.expiration_date_time),
        };
        let location_name = new.location_name.or_else(|| location_name(organization_name.as_deref(), settings));
        let entity = Entity {
            id: guid(),
            organization_name,
            vpp_token_account_type: new.vpp_token_account_type.unwrap_or_else(|| "business".to_owned()),
            apple_id: new.apple_id,
            expiration_date_time,
            last_sync_date_time: None,
            last_modified_date_time: now.wall,
            state: String::new(),
            last_sync_status: "none".to_owned(),
            automatically_update_apps: new.automatically_update_apps.unwrap_or(false),
            country_or_region: new.country_or_region,
            display_name: new.display_name,
            location_name,
            data_sharing_consent_granted: new.data_sharing_consent_granted.unwrap_or(false),
            claim_token_management_from_external_mdm: new.claim_token_management_from_external_mdm.unwrap_or(false),
            role_scope_tag_ids: new.role_scope_tag_ids.unwrap_or_else(default_scope_tags),
            token_action_results: Vec::new(),
            token_sha256: sent.map(sha256),
            uploads: usize::from(sent.is_some()),
            syncs: 0,
            sync_fails: false,
        };
        self.push(entity, new.state, now.instant, now, settings)
    }

    /// Changes an entry as a PATCH does. `None` if there is no such entry.
    pub(crate) fn update(
        &mut self,
        id: &str,
        changes: Changes,
        now: Now,
        settings: &Settings,
    ) -> Option<Result<Entity, Failure>> {
        let shown = self.get(id, now, settings)?.expiration_date_time;
        let entry = self.find_mut(id)?;
        if let Some(sent) = &changes.token {
            let file = match accept_file(sent, now, settings) {
                Ok(file) => file,
                Err(failure) => return Some(Err(failure)),
            };
            let lag = settings.scaled(settings.expiry_lag);
            entry.lagging = (!lag.is_zero()).then(|| (shown, now.instant + lag));
            if let Some(location) = location_name(Some(&file.organization), settings) {
                entry.entity.location_name = Some(location);
            }
            entry.entity.organization_name = Some(file.organization);
            entry.entity.expiration_date_time = Some(file.expires);
            entry.entity.token_sha256 = Some(sha256(sent.expose()));
            entry.entity.uploads += 1;
            if settings.renewal_cures && matches!(entry.forced_state.as_deref(), Some("invalid" | "expired")) {
                entry.forced_state = None;
            }
        }
        if let Some(value) = changes.account_type {
            entry.entity.vpp_token_account_type = value;
        }
        if let Some(value) = changes.apple_id {
            entry.entity.apple_id = value;
        }
        if let Some(value) = changes.country_or_region {
            entry.entity.country_or_region = value;
        }
        if let Some(value) = changes.automatically_update_apps {
            entry.entity.automatically_update_apps = value;
        }
        if let Some(value) = changes.display_name {
            entry.entity.display_name = value;
        }
        if let Some(value) = changes.data_sharing_consent_granted {
            entry.entity.data_sharing_consent_granted = value;
        }
        if let Some(value) = changes.claim_token_management_from_external_mdm {
            entry.entity.claim_token_management_from_external_mdm = value;
        }
        if let Some(value) = changes.role_scope_tag_ids {
            entry.entity.role_scope_tag_ids = value;
        }
        entry.entity.last_modified_date_time = now.wall;
        self.get(id, now, settings).map(Ok)
    }

    /// Takes an entry away; says whether there was one.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !same_id(&entry.entity.id, id));
        self.entries.len() < before
    }

    /// Begins a sync. `None` if there is no such entry.
    pub(crate) fn sync(&mut self, id: &str, now: Now, settings: &Settings) -> Option<Result<Entity, Failure>> {
        let entry = self.find_mut(id)?;
        if entry.sync_ends.is_some() {
            let sentence = "A sync of this token is already in progress.";
            match settings.sync_while_syncing {
                SyncWhileSyncing::Accept => {}
                SyncWhileSyncing::Conflict => return Some(Err(Failure::nested(409, "Conflict", sentence))),
                SyncWhileSyncing::BadRequest => return Some(Err(Failure::nested(400, "BadRequest", sentence))),
            }
        } else {
            entry.sync_ends = Some(now.instant + settings.scaled(settings.sync_duration));
            "inProgress".clone_into(&mut entry.entity.last_sync_status);
        }
        self.get(id, now, settings).map(Ok)
    }

    /// Lets a person change an entry. A changed `state` is forced from now on; a changed expiry ends its lag; a sync
    /// status other than `inProgress` ends the sync. `lastModifiedDateTime` moves unless it was set.
    pub(crate) fn edit(&mut self, id: &str, edit: impl FnOnce(&mut Entity), now: Now, settings: &Settings) -> bool {
        let Some(before) = self.get(id, now, settings) else {
            return false;
        };
        let mut after = before.clone();
        edit(&mut after);
        let Some(entry) = self.find_mut(id) else { return false };
        if after.state != before.state {
            entry.forced_state = Some(after.state.clone());
        }
        if after.expiration_date_time == before.expiration_date_time {
            // What was shown may be the old value: the real one stays.
            after.expiration_date_time = entry.entity.expiration_date_time;
        } else {
            entry.lagging = None;
        }
        if after.last_sync_status != "inProgress" {
            entry.sync_ends = None;
        }
        if after.last_modified_date_time == before.last_modified_date_time {
            after.last_modified_date_time = now.wall;
        }
        entry.entity = after;
        true
    }

    /// Forces a state, or (with `None`) lets the service work it out again.
    pub(crate) fn force_state(&mut self, id: &str, state: Option<String>, now: Now) -> bool {
        let Some(entry) = self.find_mut(id) else { return false };
        entry.forced_state = state;
        entry.entity.last_modified_date_time = now.wall;
        true
    }

    /// Ends the syncs that are due; says whether any did.
    pub(crate) fn advance(&mut self, now: Now, settings: &Settings) -> bool {
        let due: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| entry.sync_ends.is_some_and(|ends| ends <= now.instant))
            .map(|entry| entry.entity.id.clone())
            .collect();
        for id in &due {
            let unusable = settings.unusable_sync_fails
                && self.get(id, now, settings).is_some_and(|entity| is_unusable(&entity.state, settings));
            let Some(entry) = self.find_mut(id) else { continue };
            let failed = entry.entity.sync_fails || unusable;
            entry.sync_ends = None;
            entry.entity.syncs += 1;
            entry.entity.last_sync_status = if failed { "failed" } else { "completed" }.to_owned();
            if !failed || settings.failed_sync_sets_date {
                entry.entity.last_sync_date_time = Some(now.wall);
            }
            entry.entity.last_modified_date_time = now.wall + MODIFIED_AFTER_SYNC;
        }
        !due.is_empty()
    }

    /// When time next changes something here.
    pub(crate) fn next_change(&self, now: Now) -> Option<Instant> {
        let timers = self.entries.iter().flat_map(|entry| {
            let expires = entry.entity.expiration_date_time.filter(|at| *at > now.wall).map(|at| {
                // Rounded up, so that it has expired when the timer fires; the wall clock is looked at again hourly.
                let left = Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
                now.instant + left.min(Duration::from_secs(3600)) + Duration::from_millis(1)
            });
            let lag = entry.lagging.as_ref().map(|(_, until)| *until);
            [entry.sync_ends, lag, Some(entry.listed_from), expires]
        });
        timers.flatten().filter(|at| *at > now.instant).min()
    }

    fn push(
        &mut self,
        entity: Entity,
        forced_state: Option<String>,
        listed_from: Instant,
        now: Now,
        settings: &Settings,
    ) -> Entity {
        let entry =
            Stored { position: self.next_position, entity, forced_state, sync_ends: None, lagging: None, listed_from };
        self.next_position += 1;
        let id = entry.entity.id.clone();
        let fallback = entry.entity.clone();
        self.entries.push(entry);
        self.get(&id, now, settings).unwrap_or(fallback)
    }

    fn find(&self, id: &str) -> Option<&Stored> {
        self.entries.iter().find(|entry| same_id(&entry.entity.id, id))
    }

    fn find_mut(&mut self, id: &str) -> Option<&mut Stored> {
        self.entries.iter_mut().find(|entry| same_id(&entry.entity.id, id))
    }

    fn view(&self, entry: &Stored, now: Now, settings: &Settings) -> Entity {
        let mut entity = entry.entity.clone();
        if let Some((old, until)) = entry.lagging
            && now.instant < until
        {
            entity.expiration_date_time = old;
        }
        entity.state = if let Some(forced) = &entry.forced_state {
            forced.clone()
        } else if settings.mark_duplicates && self.has_duplicate(entry) {
            settings.duplicate_state.clone()
        } else if entity.expiration_date_time.is_some_and(|at| at <= now.wall) {
            "expired".to_owned()
        } else if entity.syncs == 0 {
            settings.initial_state.clone()
        } else {
            "valid".to_owned()
        };
        entity
    }

    fn has_duplicate(&self, entry: &Stored) -> bool {
        let key = |entry: &Stored| (entry.entity.apple_id.clone(), entry.entity.organization_name.clone());
        self.entries.iter().any(|other| other.position != entry.position && key(other) == key(entry))
    }
}

/// The file does not name the location.
fn location_name(organization: Option<&str>, settings: &Settings) -> Option<String> {
    match settings.location_name {
        LocationName::Organization => organization.map(str::to_owned),
        LocationName::Null => None,
    }
}

fn same_id(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn is_unusable(state: &str, settings: &Settings) -> bool {
    matches!(state, "expired" | "invalid" | "assignedToExternalMDM") || state == settings.duplicate_state
}

fn accept_file(sent: &Secret, now: Now, settings: &Settings) -> Result<Contents, Failure> {
    let refuse = |sentence: &str| {
        let mut message = sentence.to_owned();
        if settings.echo_token_in_errors {
            message.push_str(&format!(" Value received: '{}'.", sent.expose()));
        }
        Failure::nested(settings.bad_token_status, &settings.bad_token_code, message)
    };
    let file = token_file::read(sent.expose(), settings.token_encoding, settings.tolerate_whitespace)
        .map_err(|why| refuse(&format!("The VPP token is not valid ({why}).")))?;
    if settings.expired_file == ExpiredFile::Refuse && file.expires <= now.wall {
        return Err(refuse("The VPP token has expired."));
    }
    Ok(file)
}
