//! Writes one status, only if something changed, and the events.
//!
//! The write carries the object's resource version: a late one must not overwrite a newer status, nor that of another
//! object of the same name. What was done in Graph is written whatever the status has become meanwhile, and remembered
//! until then.

use std::sync::Arc;

use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};

use super::act;
use super::at_graph::StepResult;
use super::context::{Context, live, uid};
use super::error::Error;
use super::observed::{Observed, TenantState};
use super::outcome::Outcome;
use super::plan::{self, EventNote, Plan};
use super::stripped::Stripped;
use crate::api::status_patch::{Status, status_patch};
use crate::api::{VppToken, VppTokenStatus};

/// After this many conflicts the write is retried later.
const MAX_CONFLICTS: usize = 5;

/// Plans again with the outcome, writes the status of that plan, and returns the plan; none when the object was deleted. An
/// outcome that must not be lost is in [`LocalState`](super::local_state::LocalState) already.
///
/// # Errors
/// When Kubernetes can't be written; the outcomes are then remembered.
pub(crate) async fn report(
    context: &Context,
    mut object: Arc<VppToken>,
    mut observed: Observed,
    result: StepResult,
) -> Result<Option<Plan>, Error> {
    let uid = uid(&object)?.to_owned();
    let api = context.api(&object)?;
    if result.object_changed {
        context.local_state.change(&uid, |state| state.kubernetes_failures = 0);
        publish(context, &object, result.event).await;
        return Ok(None);
    }
    for _ in 0..MAX_CONFLICTS {
        let plan = plan_again(context, &object, &mut observed, &result.outcome);
        let written = write(&api, &object, &plan.status).await;
        match written {
            Ok(written) => {
                if let Some(written) = &written {
                    // Before the lock to create is released: who takes it next must not see the intent.
                    context.apply_newest(written);
                }
                record_reported(context, written.as_ref().unwrap_or(&object), &plan, &result.outcome, &observed);
                // After the outcome is recorded, because publishing an event may take long.
                publish(context, &object, result.event).await;
                if written.is_some() {
                    publish_changes(context, &object, &plan.status).await;
                }
                return Ok(Some(plan));
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(forget_deleted(context, &uid)),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                match live(context, &object).await? {
                    Some(live) => object = live,
                    None => return Ok(forget_deleted(context, &uid)),
                }
                if result.outcome.as_ref().is_some_and(|outcome| !outcome.must_persist()) {
                    // It was decided on a status that does not exist any more. An intent in the present one is another
                    // process's, and may have been sent, even if both were decided at the same time.
                    context.local_state.change(&uid, |state| state.attempts.unsent_intent = None);
                    if object.status.as_ref().is_none_or(|status| status.pending_create.is_none()) {
                        act::unlock_create(context, &uid);
                    }
                    let requeue_after = Some(jiff::SignedDuration::ZERO);
                    return Ok(Some(Plan { step: None, requeue_after, list_after: None, ..plan }));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let plan = plan_again(context, &object, &mut observed, &result.outcome);
    Ok(Some(Plan { requeue_after: Some(jiff::SignedDuration::from_secs(1)), step: None, ..plan }))
}

/// The same decision, with the outcome and the present state of the tenant.
pub(super) fn plan_again(
    context: &Context,
    object: &VppToken,
    observed: &mut Observed,
    outcome: &Option<Outcome>,
) -> Plan {
    let state = context.local_state.object_state(&observed.object.uid);
    let mut status = state.status_with_outcomes(object.status.clone());
    if let Some(outcome) = outcome {
        outcome.apply(&mut status);
    }
    observed.status = status;
    observed.attempts = state.attempts;
    observed.now = context.clock.now();
    observed.wall = context.clock.wall();
    if let (TenantState::Known(known), Some(tenant)) = (&mut observed.tenant, context.registry.tenant_of(object))
        && let Ok(session) = &tenant.session
    {
        known.view = session.view();
    }
    plan::plan(observed)
}

/// Reports what a plan is about to do, before it is done: with a write that is due or in flight, an object is not
/// ready. Updates `object` with what was written. False when the object changed meanwhile.
///
/// # Errors
/// When Kubernetes can't be written.
pub(super) async fn write_planned_status(
    context: &Context,
    object: &mut Arc<VppToken>,
    plan: &Plan,
) -> Result<bool, Error> {
    let api = context.api(object)?;
    match write(&api, object, &plan.status).await {
        Ok(None) => Ok(true),
        Ok(Some(written)) => {
            context.apply_newest(&written);
            publish_changes(context, object, &plan.status).await;
            *object = written;
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The object as it is after that, when there was something to write.
async fn write(
    api: &Api<Stripped>,
    object: &VppToken,
    status: &VppTokenStatus,
) -> Result<Option<Arc<VppToken>>, kube::Error> {
    if !has_news(object, status) {
        return Ok(None);
    }
    match status_patch::<VppToken, _>(&object.metadata, object.status.as_ref(), status) {
        Some((parameters, patch)) => {
            let Stripped(written) = api.patch_status(&object.name_any(), &parameters, &patch).await?;
            Ok(Some(Arc::new(written)))
        }
        None => Ok(None),
    }
}

/// Whether a status has to be written: a version of the Secret that moved without a new file is written with the next status
/// that has.
fn has_news(object: &VppToken, status: &VppTokenStatus) -> bool {
    let before = object.status.as_ref().and_then(|status| status.uploaded.as_ref());
    let mut after = status.clone();
    if let (Some(before), Some(after)) = (before, &mut after.uploaded) {
        after.secret_version.clone_from(&before.secret_version);
        after.encoding = before.encoding;
    }
    object.status.clone().map(Status::without_others_conditions) != Some(after)
}

/// The object has the status of a plan: the outcomes in it need not be remembered any more.
fn record_reported(context: &Context, object: &VppToken, plan: &Plan, outcome: &Option<Outcome>, observed: &Observed) {
    let uid = &observed.object.uid;
    if let Some(Outcome::IntentRecorded(pending, _)) = outcome {
        act::remember_intent(context, uid, pending, true);
    }
    if plan.status.pending_create.is_none() {
        act::unlock_create(context, uid);
    }
    context.local_state.unclaim(uid, plan.status.token_id.as_deref());
    context
        .local_state
        .change(uid, |state| state.record_status_written(plan, &observed.inputs(), object.status.as_ref()));
}

/// The object was deleted: nothing of it is kept.
fn forget_deleted(context: &Context, uid: &str) -> Option<Plan> {
    context.trigger_all(context.local_state.forget(uid));
    None
}

/// Asks for the list that a plan waits for, once the plan's status is written. True when there has been one meanwhile.
pub(super) fn want_list(context: &Context, object: &VppToken, plan: &Plan) -> bool {
    let Some(after) = plan.list_after else { return false };
    let Some(tenant) = context.registry.tenant_of(object) else { return false };
    let Ok(session) = &tenant.session else { return false };
    // A recorded intent counts from when it was written.
    let unsent = object.uid().and_then(|uid| context.local_state.object_state(&uid).attempts.unsent_intent);
    let is_wanted = session.want_list_after(unsent.map_or(after, |unsent| after.max(unsent.list_after)));
    !is_wanted && session.view().snapshot.last_list() > plan.planned_on
}

async fn publish_changes(context: &Context, before: &VppToken, after: &VppTokenStatus) {
    let Some(uid) = before.metadata.uid.as_deref() else { return };
    let old = before.status.clone().unwrap_or_default();
    let notes = context.local_state.change(uid, |state| state.reported.changes(&old, after));
    for note in notes.unwrap_or_default() {
        publish(context, before, Some(note)).await;
    }
}

/// Kubernetes takes at most 1024 bytes of a note.
fn shortened(mut note: String) -> String {
    const MAX_NOTE_BYTES: usize = 1024;
    const END: &str = "…";
    if note.len() > MAX_NOTE_BYTES {
        let mut end = MAX_NOTE_BYTES - END.len();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push_str(END);
    }
    note
}

/// An event that can't be written stops nothing else.
async fn publish(context: &Context, object: &VppToken, event: Option<EventNote>) {
    let Some(EventNote { is_warning, reason, note }) = event else { return };
    let type_ = if is_warning { EventType::Warning } else { EventType::Normal };
    let note = shortened(note);
    tracing::info!(object = %format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()), reason, note, "event");
    let event = Event { type_, reason, note: Some(note), action: "Reconcile".into(), secondary: None };
    if let Err(error) = context.events.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(%error, "an event could not be written");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        for (note, bytes) in [("x".repeat(1024), 1024), ("x".repeat(1025), 1024), ("é".repeat(600), 1023)] {
            let short = shortened(note.clone());
            assert_eq!(short.len(), bytes, "{}", note.len());
            assert_eq!(short == note, note.len() <= 1024);
            assert!(note.starts_with(short.trim_end_matches('…')));
        }
    }

    #[test]
    fn a_new_version_of_the_secret_alone_is_not_written() {
        let object = |status: serde_json::Value| -> VppToken {
            serde_json::from_value(json!({
                "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": "berlin" }, "spec": {},
                "status": status,
            }))
            .unwrap()
        };
        let uploaded = |version: &str, sha256: &str| {
            json!({ "uploaded": {
                "sha256": sha256, "expirationDateTime": "2027-01-22T17:32:07Z", "organizationName": "Contoso",
                "time": "2026-01-22T17:32:07Z", "encoding": "AsIs", "secretVersion": version,
            } })
        };
        let before = object(uploaded("uid/1/token", "a"));
        let has_news = |status| has_news(&before, &object(status).status.unwrap());
        assert!(!has_news(uploaded("uid/1/token", "a")));
        assert!(!has_news(uploaded("uid/2/token", "a")));
        assert!(has_news(uploaded("uid/2/token", "b")));
    }
}
