//! What a person is told by events: changes, not attempts.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::step::Wanted;
use crate::api::conditions::{ConditionType, find};
use crate::api::{Reason, VppTokenStatus};
use crate::tenant::Field;

/// An event to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventNote {
    /// Whether a person should worry.
    pub is_warning: bool,
    /// What, in one CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl EventNote {
    /// A token was created.
    pub(crate) fn created(id: &str) -> Self {
        Self::normal("Created", format!("Created the token {id} in Graph."))
    }

    /// A token was taken over: a create of this VppToken has made it, or Graph had it already.
    pub(crate) fn adopted(id: &str, is_own_create: bool) -> Self {
        if is_own_create {
            return Self::normal(
                "Created",
                format!("Found the token {id}, which a create whose answer was lost has made."),
            );
        }
        Self::normal("Adopted", format!("Took over the token {id}, which Graph already had."))
    }

    /// The token that the manifest names was taken over.
    pub(crate) fn bound(id: &str) -> Self {
        Self::normal("Bound", format!("Took over the token {id} by its id."))
    }

    /// A file was uploaded.
    pub(crate) fn uploaded(id: &str, expiration: Timestamp) -> Self {
        let until = expiration.strftime("%Y-%m-%dT%H:%M:%SZ");
        Self::normal("Uploaded", format!("Uploaded the token file that expires at {until} onto the token {id}."))
    }

    /// Settings were changed.
    pub(crate) fn updated(changes: &BTreeMap<Field, Wanted>) -> Self {
        let changes = changes.iter().map(|(field, Wanted { found, wanted })| {
            format!("{} from {} to {wanted}", field.as_str(), found.as_deref().unwrap_or("nothing"))
        });
        Self::normal("Updated", format!("Changed {}.", changes.collect::<Vec<_>>().join(", ")))
    }

    /// A sync was started: only one that a person asked for is told.
    pub(crate) fn sync_started(request: Option<&str>) -> Option<Self> {
        request.map(|_| Self::normal("SyncStarted", "Started a sync, as requested."))
    }

    /// A token was deleted.
    pub(crate) fn deleted(id: &str) -> Self {
        Self::normal("Deleted", format!("Deleted the token {id} in Graph."))
    }

    /// A sync that was asked for is not started.
    pub(crate) fn sync_declined() -> Self {
        let note = "A sync was requested and not started, because of managementPolicy: Observe.";
        Self::normal("SyncNotStarted", note)
    }

    /// An upload that was asked for is not done.
    pub(crate) fn upload_declined() -> Self {
        let note = "An upload was requested and not done, because of managementPolicy: Observe.";
        Self::normal("UploadNotDone", note)
    }

    /// A VppToken is let go although its token should have been deleted.
    pub(crate) fn retained(why: &str) -> Self {
        Self::warning("TokenRetained", why)
    }

    fn normal(reason: &str, note: impl Into<String>) -> Self {
        Self { is_warning: false, reason: reason.to_owned(), note: note.into() }
    }

    fn warning(reason: &str, note: impl Into<String>) -> Self {
        Self { is_warning: true, reason: reason.to_owned(), note: note.into() }
    }
}

/// What events of this process have reported of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    /// The cause of a stall since the object was last Ready.
    stall: Option<String>,
    /// The last sync that ended has failed.
    sync_failed: bool,
}

impl Reported {
    /// The events for a status that has changed: one when the cause that a person should act on became another one.
    pub(crate) fn changes(&mut self, before: &VppTokenStatus, after: &VppTokenStatus) -> Vec<EventNote> {
        let vanished = before.token_id.as_ref().filter(|_| after.token_id.is_none());
        let vanished = vanished.map(|id| EventNote::warning("Vanished", format!("The token {id} is gone from Graph.")));
        let failed = self.begins_to_fail(after).then(|| EventNote::warning("SyncFailed", "The last sync failed."));
        let stalled = self.stalled(before, after);
        [stalled, vanished, failed, begins_to_expire(before, after)].into_iter().flatten().collect()
    }

    /// Of two that may take over one token, the one that loses is stalled by the same cause as before.
    fn stalled(&mut self, before: &VppTokenStatus, after: &VppTokenStatus) -> Option<EventNote> {
        let stalled = |status| find(status, ConditionType::Stalled);
        let Some(now) = stalled(&after.conditions) else {
            let is_ready = find(&after.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True");
            self.stall.take_if(|_| is_ready);
            return None;
        };
        let is_known = self.stall.replace(now.reason.clone()).as_ref() == Some(&now.reason);
        let is_same = stalled(&before.conditions).is_some_and(|before| before.reason == now.reason);
        (!is_same && !is_known).then(|| EventNote::warning(&now.reason, now.message.clone()))
    }

    /// Whether a sync failed and the one before, as far as this process knows, did not.
    fn begins_to_fail(&mut self, after: &VppTokenStatus) -> bool {
        let synced = find(&after.conditions, ConditionType::Synced).map(|synced| synced.reason.as_str());
        let ended = [Reason::SyncFailed, Reason::SyncCompleted].into_iter().find(|it| synced == Some(it.as_str()));
        let Some(ended) = ended else { return false };
        let has_failed = ended == Reason::SyncFailed;
        let had_failed = std::mem::replace(&mut self.sync_failed, has_failed);
        has_failed && !had_failed
    }
}

fn begins_to_expire(before: &VppTokenStatus, after: &VppTokenStatus) -> Option<EventNote> {
    let expiring = |status: &VppTokenStatus| {
        let valid = find(&status.conditions, ConditionType::TokenValid);
        valid.filter(|valid| valid.reason == Reason::ExpiringSoon.as_str()).map(|valid| valid.message.clone())
    };
    let note = expiring(after).filter(|_| expiring(before).is_none())?;
    Some(EventNote::warning(Reason::ExpiringSoon.as_str(), note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::{ConditionStatus, ConditionUpdate, merge};

    fn status(conditions: &[(ConditionType, ConditionStatus, Reason)]) -> VppTokenStatus {
        let update = |(type_, status, reason): &(ConditionType, ConditionStatus, Reason)| ConditionUpdate {
            type_: *type_,
            status: *status,
            reason: *reason,
            message: "what to do".into(),
        };
        let updates: Vec<ConditionUpdate> = conditions.iter().map(update).collect();
        let conditions = merge(&[], &updates, 1, jiff::Timestamp::UNIX_EPOCH);
        VppTokenStatus { conditions, token_id: Some("t1".into()), ..VppTokenStatus::default() }
    }

    /// The reasons of the events that statuses tell of, one after the other.
    fn told(statuses: &[VppTokenStatus]) -> Vec<String> {
        let mut reported = Reported::default();
        let changes = statuses.windows(2).flat_map(|pair| reported.changes(&pair[0], &pair[1]));
        changes.map(|note| note.reason).collect()
    }

    #[test]
    fn a_stall_is_told_once_until_the_object_was_ready() {
        use ConditionStatus::{False, True};
        let ready = status(&[(ConditionType::Ready, True, Reason::UpToDate)]);
        let stalled = |reason| status(&[(ConditionType::Ready, False, reason), (ConditionType::Stalled, True, reason)]);
        let busy = status(&[(ConditionType::Ready, False, Reason::Updating)]);
        let (expired, older) = (stalled(Reason::TokenFileExpired), stalled(Reason::TokenFileOlder));
        let all = [&ready, &expired, &busy, &expired, &older, &ready, &older].map(Clone::clone);
        assert_eq!(told(&all), ["TokenFileExpired", "TokenFileOlder", "TokenFileOlder"]);
        assert!(told(&[older.clone(), older]).is_empty(), "the status said so before this process");
    }

    #[test]
    fn the_first_of_several_failed_syncs_is_told() {
        let synced = |reason| status(&[(ConditionType::Synced, ConditionStatus::False, reason)]);
        let [failed, ok] = [Reason::SyncFailed, Reason::SyncCompleted].map(synced);
        let running = synced(Reason::SyncInProgress);
        let all = [&ok, &failed, &running, &failed, &ok, &failed].map(Clone::clone);
        assert_eq!(told(&all), ["SyncFailed", "SyncFailed"]);
    }

    #[test]
    fn a_token_that_vanishes_or_begins_to_expire_is_told() {
        let valid = |reason| status(&[(ConditionType::TokenValid, ConditionStatus::True, reason)]);
        let [good, soon] = [Reason::Valid, Reason::ExpiringSoon].map(valid);
        let gone = VppTokenStatus { token_id: None, ..good.clone() };
        assert_eq!(told(&[good.clone(), soon.clone(), soon, good, gone.clone(), gone]), ["ExpiringSoon", "Vanished"]);
    }
}
