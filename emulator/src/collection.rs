//! A tenant's collection of VPP tokens: what create, update, delete and sync do to it, and how time changes it. Knows
//! nothing of HTTP; the caller passes the time.

use crate::changes::Changes;
use crate::clock::Now;
use crate::entity::{Entity, NewEntity, default_scope_tags};
use crate::entra::key;
use crate::errors::Failure;
use crate::history::History;
use crate::secret::{Secret, sha256};
use crate::settings::{ExpiredFile, LocationName, Settings, SyncWhileSyncing};
use crate::stored::Stored;
use crate::token_file::{self, Contents};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// `lastModifiedDateTime` moves this long after `lastSyncDateTime`, as seen in a capture.
const MODIFIED_AFTER_SYNC: SignedDuration = SignedDuration::from_millis(3);

/// All entries of one tenant, in the order in which they were created.
#[derive(Default)]
pub(crate) struct Collection {
    entries: Vec<Arc<Stored>>,
    next_position: u64,
    history: History,
    /// Entries that requests don't find until then, by id in lower case.
    hidden: BTreeMap<String, Instant>,
}

impl Collection {
    /// Every entry.
    pub(crate) fn all(&self, now: Now, settings: &Settings) -> Vec<Entity> {
        self.entries.iter().map(|entry| entry.view(&self.entries, now, settings)).collect()
    }

    /// Up to `limit` entries that lists show now, from a position or past a number of entries, each with its position.
    pub(crate) fn page(
        &self,
        after: Option<u64>,
        offset: usize,
        limit: usize,
        now: Now,
        settings: &Settings,
    ) -> Vec<(u64, Entity)> {
        let (entries, then) = self.history.listed(&self.entries, now, settings);
        entries
            .iter()
            .filter(|entry| after.is_none_or(|after| entry.position > after))
            .filter(|entry| !self.is_hidden(&entry.entity.id, now))
            .skip(offset)
            .take(limit)
            .map(|entry| (entry.position, entry.view(entries, then, settings)))
            .collect()
    }

    /// Whether requests don't find an entry now, though it exists.
    pub(crate) fn is_hidden(&self, id: &str, now: Now) -> bool {
        !self.hidden.is_empty() && self.hidden.get(&key(id)).is_some_and(|until| *until > now.instant)
    }

    /// Hides an entry from all requests for a while; returns whether it is there.
    pub(crate) fn hide(&mut self, id: &str, duration: Duration, now: Now) -> bool {
        let there = self.find(id).is_some();
        self.hidden.retain(|_, until| *until > now.instant);
        if there {
            self.hidden.insert(key(id), now.after(duration));
        }
        there
    }

    /// One entry.
    pub(crate) fn get(&self, id: &str, now: Now, settings: &Settings) -> Option<Entity> {
        self.find(id).map(|entry| entry.view(&self.entries, now, settings))
    }

    /// A new entry for an uploaded file.
    pub(crate) fn create(
        &mut self,
        id: String,
        changes: Changes,
        now: Now,
        settings: &Settings,
    ) -> Result<Entity, Failure> {
        let file = changes.token.as_ref().map(|sent| accept_file(sent, now, settings)).transpose()?;
        let (organization_name, expires) = match file {
            Some(file) => (Some(file.organization), Some(file.expires)),
            None => (None, None),
        };
        let location_name = location_name(organization_name.as_deref(), settings);
        let token_sha256 = changes.token.as_ref().map(|sent| sha256(sent.expose()));
        let entity = Entity {
            id,
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
        Ok(self.push(entity, None, now, settings))
    }

    /// An entry that a person adds in the portal, whatever its token is.
    pub(crate) fn create_by_hand(&mut self, id: String, new: NewEntity, now: Now, settings: &Settings) -> Entity {
        let sent = new.token.as_ref().map(Secret::expose);
        let file = sent.and_then(|sent| token_file::read(sent, settings.token_encoding, true).ok());
        let (organization_name, expiration_date_time) = match file {
            Some(file) => (Some(file.organization), Some(file.expires)),
            None => (new.organization_name, new.expiration_date_time),
        };
        let location_name = new.location_name.or_else(|| location_name(organization_name.as_deref(), settings));
        let entity = Entity {
            id,
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
        self.push(entity, new.state, now, settings)
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
        let entry = self.change(id, now, settings)?;
        if let Some(sent) = &changes.token {
            let file = match accept_file(sent, now, settings) {
                Ok(file) => file,
                Err(failure) => return Some(Err(failure)),
            };
            let lag = settings.scaled(settings.expiry_lag);
            entry.lagging = (!lag.is_zero()).then(|| (shown, now.after(lag)));
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

    /// Takes an entry away, and returns it as it was shown.
    pub(crate) fn remove(&mut self, id: &str, now: Now, settings: &Settings) -> Option<Entity> {
        let before = self.get(id, now, settings)?;
        self.history.remember(&self.entries, now, settings);
        self.entries.retain(|entry| !same_id(&entry.entity.id, id));
        Some(before)
    }

    /// Begins a sync. `None` if there is no such entry.
    pub(crate) fn sync(&mut self, id: &str, now: Now, settings: &Settings) -> Option<Result<Entity, Failure>> {
        let entry = self.change(id, now, settings)?;
        if entry.sync_ends.is_some() {
            let sentence = "A sync of this token is already in progress.";
            match settings.sync_while_syncing {
                SyncWhileSyncing::Accept => {}
                SyncWhileSyncing::Conflict => return Some(Err(Failure::nested(409, "Conflict", sentence))),
                SyncWhileSyncing::BadRequest => return Some(Err(Failure::nested(400, "BadRequest", sentence))),
            }
        } else {
            entry.sync_ends = Some(now.after(settings.scaled(settings.sync_duration)));
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
        let Some(entry) = self.change(id, now, settings) else { return false };
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
    pub(crate) fn force_state(&mut self, id: &str, state: Option<String>, now: Now, settings: &Settings) -> bool {
        let Some(entry) = self.change(id, now, settings) else { return false };
        entry.forced_state = state;
        entry.entity.last_modified_date_time = now.wall;
        true
    }

    /// Ends the syncs that are due, each at its own moment; returns whether any did.
    pub(crate) fn advance(&mut self, now: Now, settings: &Settings) -> bool {
        let mut changed = false;
        while let Some((ends, id)) = self.next_sync_to_end(now) {
            self.end_sync(&id, now.back_to(ends), settings);
            changed = true;
        }
        changed
    }

    fn next_sync_to_end(&self, now: Now) -> Option<(Instant, String)> {
        let due = self.entries.iter().filter_map(|entry| Some((entry.sync_ends?, entry)));
        let first = due.filter(|(ends, _)| *ends <= now.instant).min_by_key(|(ends, _)| *ends);
        first.map(|(ends, entry)| (ends, entry.entity.id.clone()))
    }

    fn end_sync(&mut self, id: &str, now: Now, settings: &Settings) {
        let unusable = settings.unusable_sync_fails
            && self.get(id, now, settings).is_some_and(|entity| is_unusable(&entity.state, settings));
        let Some(entry) = self.change(id, now, settings) else { return };
        let failed = entry.entity.sync_fails || unusable;
        entry.sync_ends = None;
        entry.entity.syncs += 1;
        entry.entity.last_sync_status = if failed { "failed" } else { "completed" }.to_owned();
        if !failed || settings.failed_sync_sets_date {
            entry.entity.last_sync_date_time = Some(now.wall);
        }
        entry.entity.last_modified_date_time = now.wall + MODIFIED_AFTER_SYNC;
    }

    /// When time next changes something here.
    pub(crate) fn next_change(&self, now: Now) -> Option<Instant> {
        let timers = self.entries.iter().flat_map(|entry| {
            let expires = entry.entity.expiration_date_time.filter(|at| *at > now.wall).map(|at| {
                // Rounded up, so that it has expired when the timer fires; the wall clock is checked again hourly.
                let left = Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
                now.instant + left.min(Duration::from_secs(3600)) + Duration::from_millis(1)
            });
            let lag = entry.lagging.as_ref().map(|(_, until)| *until);
            [entry.sync_ends, lag, expires]
        });
        timers.flatten().filter(|at| *at > now.instant).min()
    }

    fn push(&mut self, entity: Entity, forced_state: Option<String>, now: Now, settings: &Settings) -> Entity {
        self.history.remember(&self.entries, now, settings);
        let position = self.next_position;
        self.next_position += 1;
        let entry = Arc::new(Stored { position, entity, forced_state, sync_ends: None, lagging: None });
        self.entries.push(Arc::clone(&entry));
        entry.view(&self.entries, now, settings)
    }

    fn find(&self, id: &str) -> Option<&Arc<Stored>> {
        self.entries.iter().find(|entry| same_id(&entry.entity.id, id))
    }

    /// An entry that is about to be changed.
    fn change(&mut self, id: &str, now: Now, settings: &Settings) -> Option<&mut Stored> {
        let index = self.entries.iter().position(|entry| same_id(&entry.entity.id, id))?;
        self.history.remember(&self.entries, now, settings);
        self.entries.get_mut(index).map(Arc::make_mut)
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
