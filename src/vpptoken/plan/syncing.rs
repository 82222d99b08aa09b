//! When to start a sync: after an upload, on request, or when the schedule is due. Never while one is running.

use jiff::{SignedDuration, Timestamp};

use super::draft::{Blocker, Draft, only_reads};
use super::step::{Step, Write};
use crate::api::Reason;
use crate::schedule::{Schedule, ScheduleError};
use crate::tenant::session::MAX_SYNC_DURATION;
use crate::tenant::{Entry, Priority};
use crate::vpptoken::observed::{KnownTenant, Observed, StepKind};

/// A sync that runs longer than this is stuck; the next one that is due may start.
pub(super) const STUCK_AFTER: SignedDuration = MAX_SYNC_DURATION;

/// Offers a sync when one is due. Returns why it can't be started, or why the last try failed: that is shown in the condition
/// Synced, and does not make the token unready.
pub(super) fn plan(draft: &mut Draft, tenant: &KnownTenant, entry: &Entry) -> Option<Blocker> {
    acknowledge_lost_answer(draft, entry);
    let uploaded = draft.status.uploaded.as_ref().map(|uploaded| uploaded.time);
    let noted = draft.observed.status.uploaded.as_ref().map(|uploaded| uploaded.time);
    if noted.is_some() && noted == entry.entity.last_sync {
        // It was taken over as an exact match, and had been synced.
        draft.status.last_sync_trigger_time = draft.status.last_sync_trigger_time.max(uploaded);
    }
    let request = open_request(draft);
    if only_reads(&draft.observed.spec).is_some() {
        let message = "suspend is true. It runs when suspend is false again.".to_owned();
        let is_suspended = draft.observed.spec.suspend && request.is_some();
        return is_suspended.then_some(Blocker { reason: Reason::Suspended, message, needs_action: true });
    }
    let scheduled = schedule(draft, entry);
    // A sync that ended since then may have begun with the old file, so only one of ours counts.
    let uploaded = uploaded.is_some_and(|at| draft.status.last_sync_trigger_time.is_none_or(|synced| synced < at));
    let due = scheduled.filter(|time| *time <= draft.observed.wall);
    if let Some(time) = scheduled.filter(|_| due.is_none()) {
        draft.requeue_at_wall(time);
    }
    if request.is_none() && !uploaded && due.is_none() {
        return None;
    }
    if let Some(since) = draft.status.sync_running_since {
        let stuck_at = since.saturating_add(STUCK_AFTER).unwrap_or(Timestamp::MAX);
        if draft.observed.wall < stuck_at {
            draft.requeue_at_wall(stuck_at);
            return None;
        }
    }
    // An upload is followed by a sync of its own.
    if matches!(draft.step, Some(Step::ConfirmUpload { .. } | Step::Write(Write::Upload { .. }))) {
        return None;
    }
    let priority = if request.is_some() || uploaded { Priority::Interactive } else { Priority::Scheduled };
    let sync = Write::Sync { id: entry.entity.id.clone(), priority, request };
    draft.offer(tenant, Step::Write(sync)).blocker
}

/// Since when a sync runs: since it was first seen running, which the status keeps over restarts.
pub(super) fn running_since(observed: &Observed, entry: &Entry) -> Option<Timestamp> {
    let seen = observed.wall_at(entry.syncing_since?);
    let before = &observed.status;
    let is_another = before.last_sync_date_time != entry.entity.last_sync;
    let since = before.sync_running_since.filter(|_| !is_another).unwrap_or(seen);
    // One that we started meanwhile, because the first was stuck, is another sync.
    let since = before.last_sync_trigger_time.filter(|started| *started > since).unwrap_or(since);
    // A time in the future was written while the wall clock was wrong.
    Some(since.min(observed.wall))
}

/// The request for a sync that was not answered yet.
fn open_request(draft: &Draft) -> Option<String> {
    let request = draft.observed.object.sync_request.clone();
    request.filter(|request| draft.status.last_handled_sync_request.as_ref() != Some(request))
}

/// Answers a request for a sync of a token that is only observed.
pub(super) fn decline(draft: &mut Draft) {
    if let Some(request) = open_request(draft) {
        draft.step(Step::DeclineSync { request });
    }
}

/// A sync was sent and its answer lost, and Graph shows that it was carried out: it is not sent again. Graph's times are
/// compared only with each other, because its clock may differ from ours.
fn acknowledge_lost_answer(draft: &mut Draft, entry: &Entry) {
    let Some(failure) = draft.observed.failure(StepKind::Sync).filter(|failure| failure.maybe_executed).cloned() else {
        return;
    };
    let ended = entry.entity.last_sync > failure.last_sync;
    let runs = entry.syncing_since.is_some_and(|since| since >= failure.began);
    if ended || runs {
        // The wall clock may have been wrong then: a time in the future would block the schedule until it has passed.
        let began = failure.began_wall.min(draft.observed.wall_at(failure.began));
        // The two clocks are read one after the other: converted again, the same time may differ by moments, which is no news.
        let shown = draft.status.last_sync_trigger_time;
        if shown.is_none_or(|shown| began.duration_since(shown) >= SignedDuration::from_secs(1)) {
            draft.status.last_sync_trigger_time = Some(began);
        }
        if failure.inputs.sync_request.is_some() {
            draft.status.last_handled_sync_request = failure.inputs.sync_request;
        }
    }
}

/// When the schedule is due. The status shows that time, and a run that was shown is made up for if it is missed. A new
/// or changed schedule begins now, so that many objects do not fire together.
fn schedule(draft: &mut Draft, entry: &Entry) -> Option<Timestamp> {
    let observed = draft.observed;
    let sync = observed.spec.sync.as_ref();
    let base = last_sync(draft, entry).unwrap_or(observed.object.created).max(observed.object.created);
    let shown = observed.status.next_sync_time;
    let is_same_manifest = observed.status.observed_generation == Some(observed.object.generation);
    let next = sync.and_then(|sync| {
        let schedule = Schedule::parse(sync, &observed.object.uid, observed.wall).ok()?;
        let from_now = schedule.next_after(base.max(observed.wall)).ok()?;
        match shown {
            Some(shown) if shown > base && fires_at(&schedule, shown) => Some(shown.min(from_now)),
            Some(shown) if shown <= base && is_same_manifest => schedule.next_after(base).ok(),
            _ => Some(from_now),
        }
    });
    draft.status.next_sync_time = next;
    next
}

fn fires_at(schedule: &Schedule, time: Timestamp) -> bool {
    time.checked_sub(SignedDuration::from_secs(1))
        .is_ok_and(|before| schedule.next_after(before).is_ok_and(|next| next == time))
}

/// A schedule that can't be read, never fires or fires too often needs a person, whether there is anything to sync or not.
pub(super) fn check_schedule(draft: &mut Draft) {
    let object = &draft.observed.object;
    let Some(sync) = &draft.observed.spec.sync else {
        // A schedule that is corrected later begins anew.
        draft.status.next_sync_time = None;
        return;
    };
    let parsed = Schedule::parse(sync, &object.uid, draft.observed.wall);
    if let Err(error) = parsed.and_then(|schedule| schedule.next_after(object.created)) {
        let reason = match error {
            ScheduleError::NeverFires(_) => Reason::ScheduleNeverFires,
            ScheduleError::Cron { .. }
            | ScheduleError::Zone(_)
            | ScheduleError::Interval(_)
            | ScheduleError::OneOf
            | ScheduleError::TooFrequent { .. } => Reason::ScheduleInvalid,
        };
        draft.stall(reason, format!("{}.", capital(&error.to_string())));
    }
}

/// When a sync last ended in Graph, or was last started by us. A sync that Graph ended after another one became due
/// serves for that one. A time ahead of the wall clock was noted while that was wrong, and must not block the schedule.
fn last_sync(draft: &Draft, entry: &Entry) -> Option<Timestamp> {
    draft.status.last_sync_trigger_time.max(entry.entity.last_sync).map(|at| at.min(draft.observed.wall))
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
