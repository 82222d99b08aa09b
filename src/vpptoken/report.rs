//! Writes one status, only if something changed, and the events.
//!
//! The write carries the object's resource version: a late one must not land on a newer status, nor on another object of
//! the same name. What happened in Graph is written whatever the status has become meanwhile, and kept in mind until then.

use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::act::{self, Acted, Happened};
use super::facts::Done;
use super::plan::{self, Plan};
use super::world::{Observed, TenantState};
use super::{Context, Error, tenant_key, uid};
use crate::api::conditions::{ConditionType, find};
use crate::api::{FIELD_MANAGER, VppToken, VppTokenStatus};
use crate::tenant::clock;

/// A status that changes under our hands more often than this is tried again later.
const MOST_CONFLICTS: usize = 5;

/// Plans once more with what was done, writes the status that follows from it, and returns that plan; none when there is
/// nothing left to write on.
///
/// # Errors
/// When Kubernetes can't be written; facts are kept in mind then.
pub async fn report(
    context: &Context,
    mut object: VppToken,
    mut observed: Observed,
    acted: Acted,
) -> Result<Option<Plan>, Error> {
    let uid = uid(&object)?.to_owned();
    let api: Api<VppToken> = context.api(&object)?;
    if let Some(fact) = acted.done.clone().filter(Done::is_fact) {
        context.desk.change(&uid, |page| page.unrecorded.push(fact));
    }
    if acted.object_changed {
        context.desk.change(&uid, |page| page.kubernetes_failures = 0);
        publish(context, &object, acted.event).await;
        return Ok(None);
    }
    for _ in 0..MOST_CONFLICTS {
        let plan = plan_again(context, &object, &mut observed, &acted.done);
        let written = write(&api, &object, &plan.status).await;
        match written {
            Ok(version) => {
                settle(context, &uid, &plan, &acted.done, &observed);
                // After the fact is recorded: an event may take its time.
                publish(context, &object, acted.event).await;
                if version.is_some() {
                    context.desk.change(&uid, |page| page.version = version);
                    tell_changes(context, &object, &plan.status).await;
                }
                return Ok(Some(plan));
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(gone(context, &uid)),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                match api.get_opt(&object.name_any()).await? {
                    Some(live) if live.metadata.uid == object.metadata.uid => object = live,
                    _ => return Ok(gone(context, &uid)),
                }
                // Whoever decides next must not do so on the cache that was behind.
                context.desk.change(&uid, |page| page.version = object.resource_version());
                if acted.done.as_ref().is_some_and(|done| !done.is_fact()) {
                    // It was decided on a status that is no more.
                    if object.status.as_ref().is_none_or(|status| status.pending_create.is_none()) {
                        act::end_turn(context, &uid);
                    }
                    let again = Some(jiff::SignedDuration::ZERO);
                    return Ok(Some(Plan { step: None, again, list_after: None, ..plan }));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let plan = plan_again(context, &object, &mut observed, &acted.done);
    Ok(Some(Plan { again: Some(jiff::SignedDuration::from_secs(1)), step: None, ..plan }))
}

/// The same decision, with what was done and what the tenant looks like now.
fn plan_again(context: &Context, object: &VppToken, observed: &mut Observed, done: &Option<Done>) -> Plan {
    let page = context.desk.page(&observed.object.uid);
    let mut status = page.status_with_facts(object.status.clone());
    if let Some(done) = done {
        done.apply(&mut status);
    }
    observed.status = status;
    observed.memory = page.memory;
    observed.now = clock::now();
    if let (TenantState::Known(known), Some(Some(tenant))) =
        (&mut observed.tenant, tenant_key(object).and_then(|key| context.directory.find(&key)))
        && let Ok(session) = &tenant.session
    {
        known.view = session.view();
    }
    plan::plan(observed)
}

/// Says what a plan is about to do, before it is done: a write that is due or on its way is not ready. Keeps the object in
/// step with what was written. False when the object changed meanwhile.
///
/// # Errors
/// When Kubernetes can't be written.
pub(super) async fn say(context: &Context, object: &mut VppToken, plan: &Plan) -> Result<bool, Error> {
    let api: Api<VppToken> = context.api(object)?;
    match write(&api, object, &plan.status).await {
        Ok(None) => Ok(true),
        Ok(version) => {
            context.desk.change(uid(object)?, |page| page.version.clone_from(&version));
            tell_changes(context, object, &plan.status).await;
            object.metadata.resource_version = version;
            object.status = Some(plan.status.clone());
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The new resource version, when there was something to write.
async fn write(api: &Api<VppToken>, object: &VppToken, status: &VppTokenStatus) -> Result<Option<String>, kube::Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(None);
    }
    let patch = json!({
        "apiVersion": VppToken::api_version(&()),
        "kind": VppToken::kind(&()),
        "metadata": { "name": object.name_any(), "resourceVersion": object.resource_version() },
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch_status(&object.name_any(), &parameters, &Patch::Apply(patch)).await?;
    Ok(written.resource_version())
}

/// The status is written: what was kept in mind for it is recorded now.
fn settle(context: &Context, uid: &str, plan: &Plan, done: &Option<Done>, observed: &Observed) {
    if let Some(Done::Announced(pending, _)) = done {
        // Other operators can read it only now.
        act::announced(context, uid, pending);
    }
    if plan.status.pending_create.is_none() {
        act::end_turn(context, uid);
    }
    context.desk.unclaim(uid, plan.status.token_id.as_deref());
    context.desk.change(uid, |page| page.recorded(plan, &observed.inputs()));
}

/// The object went: nothing of it is kept.
fn gone(context: &Context, uid: &str) -> Option<Plan> {
    for (namespace, name) in context.desk.forget(uid) {
        (context.wake)(&namespace, &name);
    }
    None
}

/// Asks for the list that a plan waits for, once the plan's status is written. True when there has been one meanwhile.
pub(super) fn want_list(context: &Context, object: &VppToken, plan: &Plan) -> bool {
    let Some(after) = plan.list_after else { return false };
    let Some(Some(tenant)) = tenant_key(object).and_then(|key| context.directory.find(&key)) else { return false };
    let Ok(session) = &tenant.session else { return false };
    // An announcement counts from when it was written.
    let unsent = object.uid().and_then(|uid| context.desk.page(&uid).memory.unsent_create);
    let is_wanted = session.want_list_after(unsent.map_or(after, |unsent| after.max(unsent.list_after)));
    !is_wanted && session.view().snapshot.last_list() > plan.planned_on
}

/// Events are changes, not attempts: one when the cause that a person should act on became another one.
async fn tell_changes(context: &Context, before: &VppToken, after: &VppTokenStatus) {
    let stalled = |status: &VppTokenStatus| {
        find(&status.conditions, ConditionType::Stalled)
            .map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let old = before.status.clone().unwrap_or_default();
    if let Some((reason, note)) = stalled(after)
        && stalled(&old).map(|(reason, _)| reason).as_ref() != Some(&reason)
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

/// Whether a sync failed and the one before, as far as this process knows, did not.
fn began_to_fail(context: &Context, object: &VppToken, after: &VppTokenStatus) -> bool {
    let synced = find(&after.conditions, ConditionType::Synced).map(|condition| condition.reason.as_str());
    let failed = match synced {
        Some("SyncFailed") => true,
        Some("SyncCompleted") => false,
        _ => return false,
    };
    let before = object
        .uid()
        .and_then(|uid| context.desk.change(&uid, |page| std::mem::replace(&mut page.last_sync_failed, failed)));
    failed && before == Some(false)
}

async fn publish(context: &Context, object: &VppToken, event: Option<Happened>) {
    if let Some(Happened { warning, reason, note }) = event {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        show(context, object, type_, reason.to_owned(), note).await;
    }
}

/// Kubernetes takes 1024 bytes of a note at the most.
fn shortened(mut note: String) -> String {
    const MOST: usize = 1024;
    const END: &str = "…";
    if note.len() > MOST {
        let mut end = MOST - END.len();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push_str(END);
    }
    note
}

/// An event that can't be written is no reason to stop.
async fn show(context: &Context, object: &VppToken, type_: EventType, reason: String, note: String) {
    let note = shortened(note);
    tracing::info!(object = %format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()), reason, note, "event");
    let event = Event { type_, reason, note: Some(note), action: "Reconcile".into(), secondary: None };
    if let Err(error) = context.events.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(%error, "an event could not be written");
    }
}
