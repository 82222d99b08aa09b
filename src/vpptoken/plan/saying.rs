//! What a person reads: what Graph says of a token and of its last sync, and the conditions that all of it comes to.

use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Hold};
use super::syncing::STUCK_AFTER;
use super::wording::{short, time};
use crate::api::conditions::{ConditionStatus, ConditionType, Saying};
use crate::api::{Reason, Uploaded};
use crate::graph::Entity;
use crate::tenant::Entry;

/// A token that expires within this time is worth a word.
const EXPIRING_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Graph may show the expiry of the old file for a while after a renewal, but not for ever.
const RENEWAL_LAG: SignedDuration = SignedDuration::from_hours(24);

/// What Graph says of a token that is up to date on our side.
pub(super) fn judge_token(draft: &mut Draft, entry: &Entry) {
    let verdict = token_verdict(draft, &entry.entity);
    if verdict.status == ConditionStatus::True
        && let Some((uploaded, until)) = not_shown_yet(draft, &entry.entity)
        && draft.observed.now >= until
    {
        let message = format!(
            "The file that expires at {} was uploaded at {}, and Graph shows a token that expires at {}: it did not keep \
             the file, or someone uploaded an older one. Upload the file in Intune, or put one into the Secret that is newer \
             still.",
            time(uploaded.expiration_date_time),
            time(uploaded.time),
            entry.entity.expiration.map(time).unwrap_or_default()
        );
        draft.hold(Reason::RenewalNotKept, message);
    }
    match verdict.reason {
        Reason::Expired | Reason::Invalid | Reason::AssignedToExternalMDM | Reason::DuplicateLocation => {
            draft.hold(verdict.reason, verdict.message);
        }
        Reason::Unknown => draft.wait(Reason::StateUnknown, verdict.message),
        Reason::RenewalNotShownYet if verdict.status != ConditionStatus::True => {
            draft.wait(Reason::RenewalNotShownYet, verdict.message);
        }
        _ => {}
    }
}

/// A renewal whose expiry Graph does not show yet, and until when that is no wonder.
pub(super) fn not_shown_yet(draft: &Draft, entity: &Entity) -> Option<(Uploaded, Timestamp)> {
    let uploaded = draft.status.uploaded.clone()?;
    let until = uploaded.time.saturating_add(RENEWAL_LAG).unwrap_or(Timestamp::MAX);
    let lags = entity.expiration.is_some_and(|shown| shown.as_second() < uploaded.expiration_date_time.as_second());
    lags.then_some((uploaded, until))
}

fn token_verdict(draft: &mut Draft, entity: &Entity) -> Saying {
    let now = draft.observed.now;
    let saying = |status, reason, message: String| Saying { type_: ConditionType::TokenValid, status, reason, message };
    let state = entity.state.as_deref().unwrap_or("unknown");
    let has_expired = entity.expiration.is_some_and(|expiration| expiration <= now);
    if let Some((uploaded, until)) = not_shown_yet(draft, entity)
        && matches!(state, "valid" | "expired" | "unknown")
    {
        let is_valid = state == "valid" && !has_expired;
        if is_valid && now >= until {
            return by_date(draft, entity, saying);
        }
        if now >= until {
            let message = format!(
                "The file that expires at {} was uploaded at {}, and Graph still shows the old one, which has expired. Look \
                 at the token in Intune.",
                time(uploaded.expiration_date_time),
                time(uploaded.time)
            );
            return saying(ConditionStatus::False, Reason::Expired, message);
        }
        let status = if is_valid { ConditionStatus::True } else { ConditionStatus::Unknown };
        draft.look_at(until);
        if let Some(expiration) = entity.expiration.filter(|expiration| *expiration > now) {
            draft.look_at(expiration);
        }
        let message = format!(
            "The file that expires at {} was uploaded; Graph still shows the expiry of the old one.",
            time(uploaded.expiration_date_time)
        );
        return saying(status, Reason::RenewalNotShownYet, message);
    }
    let renew = how_to_renew(draft);
    match state {
        "expired" => expired(entity, renew, saying),
        "valid" if has_expired => expired(entity, renew, saying),
        "valid" => by_date(draft, entity, saying),
        "invalid" => saying(
            ConditionStatus::False,
            Reason::Invalid,
            format!(
                "Apple does not accept the token: it was revoked, or its Managed Apple ID or the password was changed or \
                 disabled. {renew}"
            ),
        ),
        "assignedToExternalMDM" => saying(
            ConditionStatus::False,
            Reason::AssignedToExternalMDM,
            "The token is used by another device management system. Remove it there first.".into(),
        ),
        "duplicateLocationId" => saying(
            ConditionStatus::False,
            Reason::DuplicateLocation,
            "Intune has two tokens of this location; neither syncs until one is removed.".into(),
        ),
        "unknown" => saying(
            ConditionStatus::Unknown,
            Reason::Unknown,
            "Graph has not said yet whether the token is valid.".into(),
        ),
        other => saying(
            ConditionStatus::Unknown,
            Reason::Unknown,
            format!("Graph says that the token is \"{}\", which this version does not know.", short(other)),
        ),
    }
}

fn how_to_renew(draft: &Draft) -> &'static str {
    if draft.observed.spec.only_observes() {
        "Download a new file from Apple and upload it in Intune."
    } else {
        "Download a new file from Apple and replace the Secret."
    }
}

/// Of a token that is valid today.
fn by_date(draft: &mut Draft, entity: &Entity, saying: impl Fn(ConditionStatus, Reason, String) -> Saying) -> Saying {
    let Some(expiration) = entity.expiration else {
        return saying(ConditionStatus::True, Reason::Valid, "The token is valid.".into());
    };
    let soon = expiration.saturating_sub(EXPIRING_SOON).unwrap_or(Timestamp::MIN);
    if draft.observed.now >= soon {
        draft.look_at(expiration);
        let message = format!("The token expires at {}. {}", time(expiration), how_to_renew(draft));
        saying(ConditionStatus::True, Reason::ExpiringSoon, message)
    } else {
        draft.look_at(soon);
        saying(ConditionStatus::True, Reason::Valid, format!("The token is valid until {}.", time(expiration)))
    }
}

fn expired(entity: &Entity, renew: &str, saying: impl Fn(ConditionStatus, Reason, String) -> Saying) -> Saying {
    let when = entity.expiration.map(|expiration| format!(" at {}", time(expiration))).unwrap_or_default();
    let message = format!("The token in Graph expired{when}. {renew}");
    saying(ConditionStatus::False, Reason::Expired, message)
}

fn synced(draft: &mut Draft, entity: &Entity) -> Saying {
    let now = draft.observed.now;
    let saying = |status, reason, message: String| Saying { type_: ConditionType::Synced, status, reason, message };
    if let Some(Hold { reason, message, .. }) = draft.sync_held.clone() {
        return saying(ConditionStatus::False, reason, format!("A sync is due and can't be started: {message}"));
    }
    let when = entity.last_sync.map(|at| format!(" at {}", time(at))).unwrap_or_default();
    match entity.last_sync_status.as_deref() {
        Some("completed") => {
            saying(ConditionStatus::True, Reason::SyncCompleted, format!("The last sync completed{when}."))
        }
        Some("failed") => saying(
            ConditionStatus::False,
            Reason::SyncFailed,
            format!(
                "The last sync failed{when}. Intune's page of the token says why; it is tried again when it is due."
            ),
        ),
        Some("inProgress") => {
            let since = draft.status.sync_running_since.unwrap_or(now);
            let stuck_at = since.saturating_add(STUCK_AFTER).unwrap_or(Timestamp::MAX);
            if now >= stuck_at {
                let message =
                    format!("A sync has been running since {}; the next one that is due may start.", time(since));
                saying(ConditionStatus::False, Reason::SyncStuck, message)
            } else {
                draft.look_at(stuck_at);
                saying(ConditionStatus::Unknown, Reason::SyncInProgress, "A sync is running.".into())
            }
        }
        None | Some("none") => saying(ConditionStatus::Unknown, Reason::NeverSynced, "There was no sync yet.".into()),
        Some(other) => saying(
            ConditionStatus::Unknown,
            Reason::Unknown,
            format!("Graph says \"{}\" of the last sync, which this version does not know.", short(other)),
        ),
    }
}

/// What needs a person, in one: what harms the token comes before what the manifest merely can't have.
fn for_a_person(holds: &[Hold]) -> Option<Hold> {
    let can_wait = |hold: &&Hold| {
        matches!(
            hold.reason,
            Reason::OperationNotAllowed
                | Reason::SettingUnknownToApi
                | Reason::AlreadyBound
                | Reason::ScheduleInvalid
                | Reason::ScheduleNeverFires
                | Reason::Suspended
        )
    };
    let mut all: Vec<&Hold> = holds.iter().filter(|hold| hold.needs_person).collect();
    all.sort_by_key(can_wait);
    let (first, others) = all.split_first()?;
    let mut messages = vec![first.message.as_str()];
    for hold in others {
        if !messages.contains(&hold.message.as_str()) {
            messages.push(&hold.message);
        }
    }
    Some(Hold { message: messages.join(" Also: "), ..Hold::clone(first) })
}

/// Puts the conditions together: Ready, and either Reconciling or Stalled, or neither.
pub(super) fn conclude(draft: &mut Draft) {
    let person = for_a_person(&draft.holds);
    let waiting = draft.holds.iter().find(|hold| !hold.needs_person).cloned();
    let working = draft.working.clone().map(|(reason, message)| Hold { reason, message, needs_person: false });
    let deleting = draft.observed.object.deleting.is_some();
    if deleting && !draft.observed.object.has_finalizer {
        draft.is_silent = true;
        return;
    }
    let not_ready = if deleting {
        // Waiting for whatever it is; the deletion is what a person reads about.
        let why = person.or(waiting).or(working).map(|hold| hold.message);
        let message = why.unwrap_or_else(|| "The VppToken is being deleted.".into());
        Some(Hold { reason: Reason::Deleting, message, needs_person: false })
    } else {
        person.or(waiting).or(working)
    };
    let mut sayings = Vec::new();
    let mut say = |type_, status, reason, message: &str| {
        sayings.push(Saying { type_, status, reason, message: message.to_owned() });
    };
    match (&not_ready, &draft.stale) {
        (Some(hold), _) => {
            say(ConditionType::Ready, ConditionStatus::False, hold.reason, &hold.message);
            let type_ = if hold.needs_person { ConditionType::Stalled } else { ConditionType::Reconciling };
            say(type_, ConditionStatus::True, hold.reason, &hold.message);
        }
        (None, Some(stale)) => say(ConditionType::Ready, ConditionStatus::Unknown, Reason::SnapshotStale, stale),
        (None, None) => say(
            ConditionType::Ready,
            ConditionStatus::True,
            Reason::UpToDate,
            "Graph has what this manifest asks for, and the token is valid.",
        ),
    }
    if let Some(entity) = draft.entity.clone() {
        sayings.push(token_verdict(draft, &entity));
        sayings.push(synced(draft, &entity));
    }
    draft.sayings = sayings;
}
