//! When to start a sync: after an upload, on request, or when the schedule is due. Never while one is running.

use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, only_reads};
use super::step::Step;
use crate::api::Reason;
use crate::schedule::Schedule;
use crate::tenant::session::LONGEST_SYNC;
use crate::tenant::{Entry, Priority};
use crate::vpptoken::world::StepKind;

/// A sync that runs longer than this is stuck; the next one that is due may start.
pub(super) const STUCK_AFTER: SignedDuration = LONGEST_SYNC;

pub(super) fn plan(draft: &mut Draft, entry: &Entry) {
    acknowledge_lost_answer(draft, entry);
    let uploaded = draft.status.uploaded.as_ref().map(|uploaded| uploaded.time);
    if uploaded.is_some() && uploaded == entry.entity.last_sync {
        // It was taken over as it was, and had been synced.
        draft.status.last_sync_trigger_time = draft.status.last_sync_trigger_time.max(uploaded);
    }
    if only_reads(&draft.observed.spec).is_some() {
        return;
    }
    let scheduled = schedule(draft, entry);
    let request = open_request(draft);
    // A sync that ended since then may have begun with the old file, so only one of ours counts.
    let uploaded = uploaded.is_some_and(|at| draft.status.last_sync_trigger_time.is_none_or(|synced| synced < at));
    let due = scheduled.filter(|time| *time <= draft.observed.now);
    if let Some(time) = scheduled.filter(|_| due.is_none()) {
        draft.look_at(time);
    }
    if request.is_none() && !uploaded && due.is_none() {
        return;
    }
    if let Some(since) = running_since(draft, entry) {
        let stuck_at = since.saturating_add(STUCK_AFTER).unwrap_or(Timestamp::MAX);
        if draft.observed.now < stuck_at {
            draft.look_at(stuck_at);
            return;
        }
    }
    // A file that is about to be uploaded brings its own sync.
    if matches!(draft.step, Some(Step::Upload { .. })) {
        return;
    }
    let priority = if request.is_some() || uploaded { Priority::Person } else { Priority::Schedule };
    let holds = draft.holds.len();
    draft.try_step(Step::Sync { id: entry.entity.id.clone(), priority, request });
    // What keeps a sync from starting shows in the condition Synced, and does not make the token unready.
    let said = draft.holds.split_off(holds);
    if let Some(hold) = said.into_iter().next() {
        draft.sync_held = Some(hold);
    }
}

/// Since when a sync runs: since it was first seen, or since we started it, which outlives a restart.
pub(super) fn running_since(draft: &Draft, entry: &Entry) -> Option<Timestamp> {
    let seen = entry.syncing_since?;
    let started = draft
        .status
        .last_sync_trigger_time
        .filter(|started| entry.entity.last_sync.is_none_or(|ended| ended < *started));
    Some(started.map_or(seen, |started| started.min(seen)))
}

/// The request for a sync that was not answered yet.
fn open_request(draft: &Draft) -> Option<String> {
    let request = draft.observed.object.sync_request.clone();
    request.filter(|request| draft.status.last_handled_sync_request.as_ref() != Some(request))
}

/// Nothing is synced, and whoever asks is told so.
pub(super) fn decline(draft: &mut Draft, because: &'static str) {
    draft.status.next_sync_time = None;
    if let Some(request) = open_request(draft) {
        draft.step(Step::DeclineSync { request, because });
    }
}

/// A sync was sent and its answer lost, and Graph shows that it was carried out: it is not sent again.
fn acknowledge_lost_answer(draft: &mut Draft, entry: &Entry) {
    let Some(failure) = draft.observed.failure(StepKind::Sync).filter(|failure| failure.maybe_executed).cloned() else {
        return;
    };
    let ended = entry.entity.last_sync.is_some_and(|at| at >= failure.began);
    let runs = entry.syncing_since.is_some_and(|since| since >= failure.began);
    if ended || runs {
        draft.status.last_sync_trigger_time = draft.status.last_sync_trigger_time.max(Some(failure.began));
        draft.status.last_handled_sync_request = failure.inputs.sync_request;
    }
}

/// When the schedule is due; also into the status, where it is a promise: a run that was announced there is made up for if it
/// is missed. A schedule that is new, or changed, begins now, so that many that come together do not fire together.
fn schedule(draft: &mut Draft, entry: &Entry) -> Option<Timestamp> {
    let observed = draft.observed;
    let sync = observed.spec.sync.as_ref();
    let base = last_sync(draft, entry).unwrap_or(observed.object.created).max(observed.object.created);
    let promised = observed.status.next_sync_time;
    let is_same_manifest = observed.status.observed_generation == Some(observed.object.generation);
    let next = sync.map(|sync| {
        let schedule = Schedule::parse(sync, &observed.object.uid)?;
        let next = schedule.next_after(base)?;
        match promised {
            Some(promised) if is_same_manifest && promised > base => Ok(promised),
            Some(promised) if is_same_manifest || promised == next => Ok(next),
            _ => schedule.next_after(base.max(observed.now)),
        }
    });
    match next {
        None => {
            draft.status.next_sync_time = None;
            None
        }
        Some(Ok(next)) => {
            draft.status.next_sync_time = Some(next);
            Some(next)
        }
        Some(Err(error)) => {
            let reason = match error {
                crate::schedule::ScheduleError::NeverFires(_) => Reason::ScheduleNeverFires,
                _ => Reason::ScheduleInvalid,
            };
            draft.status.next_sync_time = None;
            draft.hold(reason, format!("{}.", capital(&error.to_string())));
            None
        }
    }
}

/// When a sync last ended in Graph, or was last started by us. A sync that Graph ended after another one became due serves
/// for that one.
fn last_sync(draft: &Draft, entry: &Entry) -> Option<Timestamp> {
    draft.status.last_sync_trigger_time.max(entry.entity.last_sync)
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
