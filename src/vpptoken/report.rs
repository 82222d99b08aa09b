//! Writes one status, only if something changed, and the events.
//!
//! The write carries the object's resource version: a late one must not overwrite a newer status, nor that of another
//! object of the same name. What was done in Graph is written whatever the status has become meanwhile, and remembered
//! until then.

use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};

use super::act::{self, EventNote, StepResult};
use super::context::{Context, Error, live, uid};
use super::observed::{Observed, TenantState};
use super::outcome::Outcome;
use super::plan::{self, Plan};
use crate::api::conditions::{ConditionType, find};
use crate::api::status_patch::{Status, status_patch};
use crate::api::{VppToken, VppTokenStatus};
use crate::tenant::TenantKey;

/// After this many conflicts the write is retried later.
const MAX_CONFLICTS: usize = 5;

/// Plans again with the outcome, writes the status of that plan, and returns the plan; none when the object was
/// deleted.
///
/// # Errors
/// When Kubernetes can't be written; the outcomes are then remembered.
pub async fn report(
    context: &Context,
    mut object: VppToken,
    mut observed: Observed,
    result: StepResult,
) -> Result<Option<Plan>, Error> {
    let uid = uid(&object)?.to_owned();
    let api: Api<VppToken> = context.api(&object)?;
    if let Some(outcome) = result.outcome.clone().filter(Outcome::must_persist) {
        context.local_state.change(&uid, |state| state.unrecorded.push(outcome));
    }
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
                record_reported(context, &uid, &plan, &result.outcome, &observed);
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
    if let (TenantState::Known(known), Some(Some(tenant))) =
        (&mut observed.tenant, TenantKey::of_token(object).and_then(|key| context.registry.find(&key)))
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
pub(super) async fn write_planned_status(context: &Context, object: &mut VppToken, plan: &Plan) -> Result<bool, Error> {
    let api: Api<VppToken> = context.api(object)?;
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
    api: &Api<VppToken>,
    object: &VppToken,
    status: &VppTokenStatus,
) -> Result<Option<VppToken>, kube::Error> {
    if !has_news(object, status) {
        return Ok(None);
    }
    match status_patch::<VppToken, _>(&object.metadata, object.status.as_ref(), status) {
        Some((parameters, patch)) => Ok(Some(api.patch_status(&object.name_any(), &parameters, &patch).await?)),
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

/// The status is written: the outcomes in it need not be remembered any more.
fn record_reported(context: &Context, uid: &str, plan: &Plan, outcome: &Option<Outcome>, observed: &Observed) {
    if let Some(Outcome::IntentRecorded(pending, _)) = outcome {
        // Other operators can read it only now.
        act::remember_intent(context, uid, pending);
    }
    if plan.status.pending_create.is_none() {
        act::unlock_create(context, uid);
    }
    context.local_state.unclaim(uid, plan.status.token_id.as_deref());
    context.local_state.change(uid, |state| state.record_status_written(plan, &observed.inputs()));
}

/// The object was deleted: nothing of it is kept.
fn forget_deleted(context: &Context, uid: &str) -> Option<Plan> {
    context.trigger_all(context.local_state.forget(uid));
    None
}

/// Asks for the list that a plan waits for, once the plan's status is written. True when there has been one meanwhile.
pub(super) fn want_list(context: &Context, object: &VppToken, plan: &Plan) -> bool {
    let Some(after) = plan.list_after else { return false };
    let Some(Some(tenant)) = TenantKey::of_token(object).and_then(|key| context.registry.find(&key)) else {
        return false;
    };
    let Ok(session) = &tenant.session else { return false };
    // A recorded intent counts from when it was written.
    let unsent = object.uid().and_then(|uid| context.local_state.object_state(&uid).attempts.unsent_intent);
    let is_wanted = session.want_list_after(unsent.map_or(after, |unsent| after.max(unsent.list_after)));
    !is_wanted && session.view().snapshot.last_list() > plan.planned_on
}

/// Publishes changes, not attempts: one event when the cause that a person should act on became another one.
async fn publish_changes(context: &Context, before: &VppToken, after: &VppTokenStatus) {
    let stalled = |status: &VppTokenStatus| {
        find(&status.conditions, ConditionType::Stalled)
            .map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let old = before.status.clone().unwrap_or_default();
    let stalled_now = stalled(after);
    // Of two that may take over one token, the one that loses is stalled by the same cause as before.
    let is_known = was_stall_reported(context, before, after, stalled_now.as_ref().map(|(reason, _)| reason.as_str()));
    if let Some((reason, note)) = stalled_now
        && stalled(&old).map(|(reason, _)| reason).as_ref() != Some(&reason)
        && !is_known
    {
        show(context, before, EventType::Warning, reason, note).await;
    }
    if let Some(id) = old.token_id.as_ref().filter(|_| after.token_id.is_none()) {
        let note = format!("The token {id} is gone from Graph.");
        show(context, before, EventType::Warning, "Vanished".into(), note).await;
    }
    if began_to_fail(context, before, after) {
        show(context, before, EventType::Warning, "SyncFailed".into(), "The last sync failed.".into()).await;
    }
    let expiring = |status: &VppTokenStatus| {
        find(&status.conditions, ConditionType::TokenValid)
            .filter(|condition| condition.reason == "ExpiringSoon")
            .map(|condition| condition.message.clone())
    };
    if let Some(note) = expiring(after)
        && expiring(&old).is_none()
    {
        show(context, before, EventType::Warning, "ExpiringSoon".into(), note).await;
    }
}

/// Whether an event of this process has reported what stalls the object, and it was not Ready since.
fn was_stall_reported(context: &Context, object: &VppToken, after: &VppTokenStatus, reason: Option<&str>) -> bool {
    let is_ready = find(&after.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True");
    let Some(uid) = object.uid() else { return false };
    context.local_state.change(&uid, |state| match reason {
        Some(reason) => state.reported_stall.replace(reason.to_owned()).as_deref() == Some(reason),
        None => {
            state.reported_stall.take_if(|_| is_ready);
            false
        }
    }) == Some(true)
}

/// Whether a sync failed and the one before, as far as this process knows, did not.
fn began_to_fail(context: &Context, object: &VppToken, after: &VppTokenStatus) -> bool {
    let synced = find(&after.conditions, ConditionType::Synced).map(|condition| condition.reason.as_str());
    let failed = match synced {
        Some("SyncFailed") => true,
        Some("SyncCompleted") => false,
        _ => return false,
    };
    let before = object.uid().and_then(|uid| {
        context.local_state.change(&uid, |state| std::mem::replace(&mut state.last_sync_failed, failed))
    });
    failed && before == Some(false)
}

async fn publish(context: &Context, object: &VppToken, event: Option<EventNote>) {
    if let Some(EventNote { warning, reason, note }) = event {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        show(context, object, type_, reason.to_owned(), note).await;
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
async fn show(context: &Context, object: &VppToken, type_: EventType, reason: String, note: String) {
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
