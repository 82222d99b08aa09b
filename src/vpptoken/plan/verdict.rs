//! What a person reads: the state of a token and of its last sync in Graph, and the conditions.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::draft::{Blocker, Draft};
use super::findings::ReadyNote;
use super::messages::{cut, short, time};
use super::syncing::STUCK_AFTER;
use super::tenant::out_of_date;
use crate::api::conditions::{self, ConditionStatus, ConditionType, ConditionUpdate};
use crate::api::{Reason, UPLOAD_REQUESTED_AT, Uploaded};
use crate::graph::Entity;
use crate::tenant::Entry;
use crate::vpptoken::observed::KnownTenant;

/// A token that expires within this time is reported.
const EXPIRING_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Graph may show the expiry of the old file for a while after a renewal, but not for ever.
const RENEWAL_LAG: SignedDuration = SignedDuration::from_hours(24);
/// How long Graph may take after a write until it shows whether the token is valid.
const STATE_LAG: SignedDuration = SignedDuration::from_mins(10);
/// A message is not longer than this: Kubernetes takes at most 32,768 characters.
const MAX_MESSAGE: usize = 4_000;

/// Reports the state in Graph of a token that needs no write, or gets none while suspended. Returns what a person should know although it is ready.
pub(super) fn judge_token(
    draft: &mut Draft,
    tenant: &KnownTenant,
    entry: &Entry,
    valid: &ConditionUpdate,
) -> Option<ReadyNote> {
    let entity = &entry.entity;
    if let Some(uploaded) = replaced(draft, tenant, entity) {
        stall_on_replaced(draft, entity, &uploaded);
    } else if valid.status == ConditionStatus::True
        && let Some((uploaded, until)) = not_shown_yet(draft, tenant, entity)
        && draft.observed.wall >= until
    {
        stall_on_renewal_not_kept(draft, entity, &uploaded);
    }
    let message = valid.message.clone();
    match valid.status {
        ConditionStatus::True => {}
        ConditionStatus::False => draft.stall(valid.reason, message),
        ConditionStatus::Unknown if valid.reason == Reason::RenewalNotShownYet => draft.wait(valid.reason, message),
        ConditionStatus::Unknown => match state_is_due(draft, entry).filter(|until| *until > draft.observed.now) {
            Some(until) => {
                draft.requeue_at(until);
                draft.wait(Reason::StateUnknown, message);
            }
            None => {
                let message = format!("Graph has what this manifest asks for. {message}");
                return Some(ReadyNote { reason: Reason::StateUnknown, message });
            }
        },
    }
    None
}

fn stall_on_replaced(draft: &mut Draft, entity: &Entity, uploaded: &Uploaded) {
    let message = format!(
        "Intune had the file that expires at {}, and now has a token that expires at {}: someone replaced it there. Put a \
         newer file into the Secret, or set the annotation {UPLOAD_REQUESTED_AT} to a new value to upload the Secret's file \
         again.",
        time(uploaded.expiration_date_time),
        entity.expiration.map(time).unwrap_or_default()
    );
    draft.stall(Reason::ReplacedInIntune, message);
}

fn stall_on_renewal_not_kept(draft: &mut Draft, entity: &Entity, uploaded: &Uploaded) {
    let message = format!(
        "The file that expires at {} was uploaded at {}, and Graph shows a token that expires at {}: it did not keep the \
         file, or someone uploaded an older one. Upload the file in Intune, or put one into the Secret that is newer still.",
        time(uploaded.expiration_date_time),
        time(uploaded.time),
        entity.expiration.map(time).unwrap_or_default()
    );
    draft.stall(Reason::RenewalNotKept, message);
}

/// When Graph should show whether the token is valid: some time after our last write that may change that.
fn state_is_due(draft: &Draft, entry: &Entry) -> Option<Timestamp> {
    let uploaded = draft.status.uploaded.as_ref().map(|uploaded| draft.observed.at_wall(uploaded.time));
    uploaded.max(entry.last_setting_write)?.saturating_add(STATE_LAG).ok()
}

/// A renewal whose expiry Graph does not show yet, and until when that is expected.
pub(super) fn not_shown_yet(draft: &Draft, tenant: &KnownTenant, entity: &Entity) -> Option<(Uploaded, Timestamp)> {
    let uploaded = shows_earlier(draft, entity).filter(|_| replaced(draft, tenant, entity).is_none())?;
    let until = uploaded.time.saturating_add(RENEWAL_LAG).unwrap_or(Timestamp::MAX);
    Some((uploaded, until))
}

/// What was uploaded, when Graph shows a token that expires earlier.
fn shows_earlier(draft: &Draft, entity: &Entity) -> Option<Uploaded> {
    let uploaded = draft.status.uploaded.clone()?;
    let is_earlier =
        entity.expiration.is_some_and(|shown| shown.as_second() < uploaded.expiration_date_time.as_second());
    is_earlier.then_some(uploaded)
}

/// What was uploaded, when Graph has shown it and by now shows a token that expires earlier. Lists lag, so one that
/// began before the upload settled does not count.
fn replaced(draft: &Draft, tenant: &KnownTenant, entity: &Entity) -> Option<Uploaded> {
    let observed = draft.observed;
    let uploaded = shows_earlier(draft, entity).filter(|uploaded| uploaded.shown)?;
    let settled = observed.at_wall(uploaded.time).saturating_add(observed.timings.settling).ok()?;
    tenant.view.snapshot.last_list().is_some_and(|began| began > settled).then_some(uploaded)
}

/// Someone renewed the token in Intune, and the Secret still has the file that was uploaded before.
pub(super) fn newer_in_intune(draft: &Draft, entity: &Entity) -> Option<ReadyNote> {
    let file = draft.observed.file.as_ref().ok()?;
    let expiration = entity.expiration.filter(|at| at.as_second() > file.expiration.as_second())?;
    if draft.status.uploaded.as_ref()?.sha256 != file.sha256 {
        return None;
    }
    let secret = draft.observed.spec.token_secret_ref.as_ref().map_or("", |reference| &reference.name);
    let message = format!(
        "The token in Intune expires at {}, and the file in Secret \"{secret}\" at {}: someone renewed it in Intune. Nothing is \
         uploaded; put the newer file into the Secret.",
        time(expiration),
        time(file.expiration)
    );
    Some(ReadyNote { reason: Reason::NewerTokenInIntune, message })
}

/// The condition TokenValid.
pub(super) fn token_valid(draft: &mut Draft, tenant: &KnownTenant, entity: &Entity) -> ConditionUpdate {
    let now = draft.observed.wall;
    let update =
        |status, reason, message: String| ConditionUpdate { type_: ConditionType::TokenValid, status, reason, message };
    let state = entity.state.as_deref().unwrap_or_default();
    let is_unknown = !["valid", "expired", "invalid", "assignedToExternalMDM", "duplicateLocationId"].contains(&state);
    let has_expired = state == "expired"
        || (state == "valid" || is_unknown) && entity.expiration.is_some_and(|expiration| expiration <= now);
    let lag = not_shown_yet(draft, tenant, entity);
    if has_expired && let Some((uploaded, until)) = &lag {
        if now < *until {
            draft.requeue_at_wall(*until);
            return update(ConditionStatus::Unknown, Reason::RenewalNotShownYet, lags(uploaded));
        }
        let message = format!(
            "The file that expires at {} was uploaded at {}, and Graph still shows the old one, which has expired. Look \
             at the token in Intune.",
            time(uploaded.expiration_date_time),
            time(uploaded.time)
        );
        return update(ConditionStatus::False, Reason::Expired, message);
    }
    if has_expired {
        return expired(entity, how_to_renew(draft), update);
    }
    match state {
        "valid" => by_date(draft, entity, lag, update),
        "invalid" => update(
            ConditionStatus::False,
            Reason::Invalid,
            format!(
                "Apple does not accept the token: it was revoked, or its Managed Apple ID or the password was changed or \
                 disabled. {}",
                how_to_renew(draft)
            ),
        ),
        "assignedToExternalMDM" => update(
            ConditionStatus::False,
            Reason::AssignedToExternalMDM,
            "The token is used by another device management system. Remove it there first.".into(),
        ),
        "duplicateLocationId" => update(
            ConditionStatus::False,
            Reason::DuplicateLocation,
            "Intune has two tokens of this location; neither syncs until one is removed.".into(),
        ),
        other => {
            let by_date = by_date(draft, entity, lag, update);
            // That it expires soon is known all the same.
            let reason = if by_date.reason == Reason::ExpiringSoon { by_date.reason } else { Reason::Unknown };
            let what = not_understood(other);
            let message = if by_date.reason == Reason::Valid { what } else { format!("{what} {}", by_date.message) };
            update(ConditionStatus::Unknown, reason, message)
        }
    }
}

/// What Graph says of a token, when that does not tell whether it is valid.
fn not_understood(state: &str) -> String {
    match state {
        "" => "Graph leaves out whether the token is valid.".to_owned(),
        "unknown" => "Graph says \"unknown\" of the token: it does not tell whether it is valid.".to_owned(),
        new => format!("Graph says that the token is \"{}\", which this version does not know.", short(new)),
    }
}

/// The sentence for a renewal whose expiry Graph does not show yet.
fn lags(uploaded: &Uploaded) -> String {
    let expiration = time(uploaded.expiration_date_time);
    format!("The file that expires at {expiration} was uploaded; Graph still shows the expiry of the old one.")
}

fn how_to_renew(draft: &Draft) -> &'static str {
    if draft.observed.spec.only_observes() {
        "Download a new file from Apple and upload it in Intune."
    } else {
        "Download a new file from Apple and replace the Secret."
    }
}

/// Of a token that has not expired. `lag` is a renewal whose expiry Graph does not show, and until when that is
/// expected.
fn by_date(
    draft: &mut Draft,
    entity: &Entity,
    lag: Option<(Uploaded, Timestamp)>,
    update: impl Fn(ConditionStatus, Reason, String) -> ConditionUpdate,
) -> ConditionUpdate {
    let now = draft.observed.wall;
    let lag = lag.filter(|(_, until)| now < *until);
    if let Some((_, until)) = &lag {
        draft.requeue_at_wall(*until);
    }
    let Some(expiration) = entity.expiration else {
        return update(ConditionStatus::True, Reason::Valid, "The token is valid.".into());
    };
    let soon = expiration.saturating_sub(EXPIRING_SOON).unwrap_or(Timestamp::MIN);
    if now >= soon {
        draft.requeue_at_wall(expiration);
        let then = lag.map_or_else(|| how_to_renew(draft).to_owned(), |(uploaded, _)| lags(&uploaded));
        let message = format!("The token expires at {}. {then}", time(expiration));
        return update(ConditionStatus::True, Reason::ExpiringSoon, message);
    }
    draft.requeue_at_wall(soon);
    match lag {
        Some((uploaded, _)) => update(ConditionStatus::True, Reason::RenewalNotShownYet, lags(&uploaded)),
        None => {
            let message = format!("The token is valid until {}.", time(expiration));
            update(ConditionStatus::True, Reason::Valid, message)
        }
    }
}

fn expired(
    entity: &Entity,
    renew: &str,
    update: impl Fn(ConditionStatus, Reason, String) -> ConditionUpdate,
) -> ConditionUpdate {
    let when = entity.expiration.map(|expiration| format!(" at {}", time(expiration))).unwrap_or_default();
    let message = format!("The token in Graph expired{when}. {renew}");
    update(ConditionStatus::False, Reason::Expired, message)
}

/// The condition Synced: why a sync that is due can't be started, or else how the last one ended.
pub(super) fn synced(draft: &mut Draft, entity: &Entity, sync_blocker: Option<Blocker>) -> ConditionUpdate {
    let now = draft.observed.wall;
    let update =
        |status, reason, message: String| ConditionUpdate { type_: ConditionType::Synced, status, reason, message };
    if let Some(Blocker { reason, message, .. }) = sync_blocker {
        return update(ConditionStatus::False, reason, format!("A sync is due and can't be started: {message}"));
    }
    match entity.last_sync_status.as_deref() {
        Some("completed") => {
            let when = entity.last_sync.map(|at| format!(" at {}", time(at))).unwrap_or_default();
            update(ConditionStatus::True, Reason::SyncCompleted, format!("The last sync completed{when}."))
        }
        Some("failed") => {
            // Graph has the time of the last sync that completed, not that of the failure.
            let last = entity.last_sync.map(|at| format!(" The sync before it completed at {}.", time(at)));
            let message = format!(
                "The last sync failed. Intune's page of the token says why; it is tried again when it is due.{}",
                last.unwrap_or_default()
            );
            update(ConditionStatus::False, Reason::SyncFailed, message)
        }
        Some("inProgress") => {
            let since = draft.status.sync_running_since.unwrap_or(now);
            let stuck_at = since.saturating_add(STUCK_AFTER).unwrap_or(Timestamp::MAX);
            if now >= stuck_at {
                let message =
                    format!("A sync has been running since {}; the next one that is due may start.", time(since));
                update(ConditionStatus::False, Reason::SyncStuck, message)
            } else {
                draft.requeue_at_wall(stuck_at);
                update(ConditionStatus::Unknown, Reason::SyncInProgress, "A sync is running.".into())
            }
        }
        None | Some("none") => update(ConditionStatus::Unknown, Reason::NeverSynced, "There was no sync yet.".into()),
        Some(other) => update(
            ConditionStatus::Unknown,
            Reason::Unknown,
            format!("Graph says \"{}\" of the last sync, which this version does not know.", short(other)),
        ),
    }
}

/// All that needs a person, in one: what harms the token comes before what the manifest merely can't have.
fn for_a_person(blockers: &[Blocker]) -> Option<Blocker> {
    let can_wait = |blocker: &&Blocker| {
        matches!(
            blocker.reason,
            Reason::OperationNotAllowed
                | Reason::SettingUnknownToApi
                | Reason::AlreadyBound
                | Reason::ScheduleInvalid
                | Reason::ScheduleNeverFires
                | Reason::Suspended
        )
    };
    let mut all: Vec<&Blocker> = blockers.iter().filter(|blocker| blocker.needs_action).collect();
    all.sort_by_key(can_wait);
    let (first, others) = all.split_first()?;
    let mut messages = vec![first.message.as_str()];
    for blocker in others {
        if !messages.contains(&blocker.message.as_str()) {
            messages.push(&blocker.message);
        }
    }
    Some(Blocker { message: messages.join(" Also: "), ..Blocker::clone(first) })
}

/// What keeps the object from being ready: what is blocked, or else what is under way.
fn not_ready(draft: &Draft) -> Option<Blocker> {
    let person = for_a_person(&draft.blockers);
    let waiting = draft.blockers.iter().find(|blocker| !blocker.needs_action).cloned();
    let working = draft.working.clone().map(|(reason, message)| Blocker { reason, message, needs_action: false });
    if draft.observed.object.deleting.is_none() || person.is_some() {
        return person.or(waiting).or(working);
    }
    // Whatever it waits for, a person reads about the deletion.
    let why = waiting.or(working).map(|blocker| blocker.message);
    let message = why.unwrap_or_else(|| "The VppToken is being deleted.".into());
    Some(Blocker { reason: Reason::Deleting, message, needs_action: false })
}

/// The condition Ready, and with it either Reconciling or Stalled, or neither. The note is for a token that is ready.
pub(super) fn ready(draft: &Draft, note: Option<ReadyNote>) -> Vec<ConditionUpdate> {
    let update = |type_, status, reason, message| ConditionUpdate { type_, status, reason, message };
    if let Some(Blocker { reason, message, needs_action }) = not_ready(draft) {
        let type_ = if needs_action { ConditionType::Stalled } else { ConditionType::Reconciling };
        return vec![
            update(ConditionType::Ready, ConditionStatus::False, reason, message.clone()),
            update(type_, ConditionStatus::True, reason, message),
        ];
    }
    let tenant = draft.observed.known_tenant();
    if let Some(since) = tenant.and_then(|tenant| out_of_date(tenant, draft.observed.now)) {
        return vec![update(ConditionType::Ready, ConditionStatus::Unknown, Reason::SnapshotStale, since)];
    }
    let ReadyNote { reason, message } = note.unwrap_or_else(|| ReadyNote {
        reason: Reason::UpToDate,
        message: "Graph has what this manifest asks for, and the token is valid.".to_owned(),
    });
    vec![update(ConditionType::Ready, ConditionStatus::True, reason, message)]
}

/// The conditions to be written. One that says the same as before keeps its time.
pub(super) fn merge(draft: &Draft, mut updates: Vec<ConditionUpdate>) -> Vec<Condition> {
    for update in &mut updates {
        if update.message.chars().count() > MAX_MESSAGE {
            update.message = format!("{} … and more.", cut(&update.message, MAX_MESSAGE));
        }
    }
    let observed = draft.observed;
    conditions::merge(&observed.status.conditions, &updates, observed.object.generation, observed.wall)
}
