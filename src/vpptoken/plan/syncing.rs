//! When to start a sync: after an upload, on request, or when the schedule is due. Never while one is running.

use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, only_reads};
use super::step::Step;
use crate::api::Reason;
use crate::schedule::{Schedule, ScheduleError};
use crate::tenant::session::LONGEST_SYNC;
use crate::tenant::{Entry, Priority};
use crate::vpptoken::world::{Observed, StepKind};

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
    if let Some(since) = draft.status.sync_running_since {
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

/// Since when a sync runs: since it was first seen to, which the status remembers when the operator does not.
pub(super) fn running_since(observed: &Observed, entry: &Entry) -> Option<Timestamp> {
    let seen = entry.syncing_since?;
    let before = &observed.status;
    let is_another = before.last_sync_date_time != entry.entity.last_sync;
    let since = before.sync_running_since.filter(|_| !is_another).unwrap_or(seen);
    // One that we started meanwhile, because it was stuck, is another one, too.
    Some(before.last_sync_trigger_time.filter(|started| *started > since).unwrap_or(since))
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
        if failure.inputs.sync_request.is_some() {
            draft.status.last_handled_sync_request = failure.inputs.sync_request;
        }
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
    let next = sync.and_then(|sync| {
        let schedule = Schedule::parse(sync, &observed.object.uid).ok()?;
        let from_now = schedule.next_after(base.max(observed.now)).ok()?;
        match promised {
            Some(promised) if promised > base && fires_at(&schedule, promised) => Some(promised.min(from_now)),
            Some(promised) if promised <= base && is_same_manifest => schedule.next_after(base).ok(),
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

/// A schedule that can't be read, or never fires, needs a person, whether there is anything to sync or not.
pub(super) fn look_at_schedule(draft: &mut Draft) {
    let object = &draft.observed.object;
    let Some(sync) = &draft.observed.spec.sync else {
        // Whatever was promised, a schedule that comes later begins anew.
        draft.status.next_sync_time = None;
        return;
    };
    if let Err(error) = Schedule::parse(sync, &object.uid).and_then(|schedule| schedule.next_after(object.created)) {
        let reason = match error {
            ScheduleError::NeverFires(_) => Reason::ScheduleNeverFires,
            _ => Reason::ScheduleInvalid,
        };
        draft.hold(reason, format!("{}.", capital(&error.to_string())));
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
