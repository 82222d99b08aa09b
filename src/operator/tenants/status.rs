//! The status of a tenant object, written only when it changed.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::objects::TenantObject;
use crate::api::conditions::{self, ConditionStatus, ConditionType, ConditionUpdate};
use crate::api::status_patch::status_patch;
use crate::api::{ClusterGraphTenant, GraphTenant, Reason, TenantKind, TenantStatus};
use crate::tenant::{Problem, TenantKey, TenantView, Unusable};
use crate::vpptoken::claims::Claims;
use crate::vpptoken::context::Context;
use crate::vpptoken::plan;

/// How the write of a status ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// There was nothing to write.
    Unchanged,
    /// It is written.
    Written,
    /// It has to be written again.
    Failed,
}

/// Writes the status of a tenant object: that of its session, or why it has none.
pub(super) async fn write(
    context: &Context,
    key: &TenantKey,
    object: &TenantObject,
    session: Result<TenantView, Unusable>,
    warning: Option<&str>,
    claims: &Claims,
) -> WriteOutcome {
    let mut status = TenantStatus { observed_generation: Some(object.generation()), ..object.status.clone() };
    let is_starting = session.as_ref().is_ok_and(|view| view.problem.is_none() && view.snapshot.read_at().is_none());
    if is_starting && conditions::find(&object.status.conditions, ConditionType::Ready).is_some() {
        // A restart of the operator changes nothing about the tenant.
        return WriteOutcome::Unchanged;
    }
    let update = match session {
        Err(Unusable { reason, message }) => ready(ConditionStatus::False, reason, message),
        Ok(view) => {
            let tokens = view.snapshot.listed().count();
            let unmanaged = view.snapshot.listed().filter(|entry| !claims.contains(&entry.entity.id)).count();
            let is_listed = view.snapshot.read_at().is_some();
            let count = |count: usize| is_listed.then(|| i64::try_from(count).unwrap_or(i64::MAX));
            (status.tokens, status.unmanaged_tokens) = (count(tokens), count(unmanaged));
            of_session(&view.problem, is_listed, warning)
        }
    };
    let now = context.clock.wall();
    status.conditions = conditions::merge(&object.status.conditions, &[update], object.generation(), now);
    let written = write_if_new(context, key, object, &status).await;
    if written == WriteOutcome::Written
        && let Some(refusal) = new_refusal(&object.status, &status)
    {
        publish(context, key, object, refusal).await;
    }
    written
}

/// For a tenant object that no VppToken uses, the status only shows that it was seen, so that nobody waits for it for
/// ever. If another operator, with other namespaces, may use it, an existing status of this generation stays: otherwise
/// two operators would overwrite it for ever.
pub(super) async fn write_unused(
    context: &Context,
    key: &TenantKey,
    object: &TenantObject,
    is_certain: bool,
) -> WriteOutcome {
    let is_current = |ready: &&Condition| ready.observed_generation == Some(object.generation());
    let ready = conditions::find(&object.status.conditions, ConditionType::Ready).filter(is_current);
    let before = match ready.filter(|_| !is_certain) {
        // Operators write no other condition of a tenant object.
        Some(ready) => TenantStatus { conditions: vec![ready.clone()], ..object.status.clone() },
        None => TenantStatus::default(),
    };
    let status = TenantStatus { observed_generation: Some(object.generation()), ..before };
    write_if_new(context, key, object, &status).await
}

async fn write_if_new(
    context: &Context,
    key: &TenantKey,
    object: &TenantObject,
    status: &TenantStatus,
) -> WriteOutcome {
    let client = context.client.clone();
    let outcome = match (&key.kind, &key.namespace) {
        (TenantKind::GraphTenant, Some(namespace)) => {
            apply(&Api::<GraphTenant>::namespaced(client, namespace), object, status).await
        }
        _ => apply(&Api::<ClusterGraphTenant>::all(client), object, status).await,
    };
    match outcome {
        Ok(written) => written,
        Err(kube::Error::Api(status)) if status.is_not_found() => WriteOutcome::Unchanged,
        Err(kube::Error::Api(status)) if status.is_conflict() => WriteOutcome::Failed,
        Err(error) => {
            tracing::warn!(tenant = %key, %error, "the status of a tenant could not be written; it is tried again");
            WriteOutcome::Failed
        }
    }
}

/// The condition that Microsoft refuses access, if the status before did not report that: whether it names credentials
/// or a permission may change from try to try.
fn new_refusal<'a>(before: &TenantStatus, after: &'a TenantStatus) -> Option<&'a Condition> {
    refusal(after).filter(|_| refusal(before).is_none())
}

fn refusal(status: &TenantStatus) -> Option<&Condition> {
    let refusals = [Reason::CredentialsRefused, Reason::PermissionMissing];
    conditions::find(&status.conditions, ConditionType::Ready)
        .filter(|ready| refusals.iter().any(|reason| ready.reason == reason.as_str()))
}

/// An event on the tenant object. One that can't be written stops nothing else.
async fn publish(context: &Context, key: &TenantKey, object: &TenantObject, refusal: &Condition) {
    let (api_version, kind) = match key.kind {
        TenantKind::GraphTenant => (GraphTenant::api_version(&()), GraphTenant::kind(&())),
        TenantKind::ClusterGraphTenant => (ClusterGraphTenant::api_version(&()), ClusterGraphTenant::kind(&())),
    };
    let about = ObjectReference {
        api_version: Some(api_version.into_owned()),
        kind: Some(kind.into_owned()),
        namespace: key.namespace.as_deref().map(str::to_owned),
        name: Some(key.name.to_string()),
        uid: object.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let (reason, note) = (refusal.reason.clone(), refusal.message.clone());
    tracing::info!(tenant = %key, reason, note, "event");
    let event = Event { type_: EventType::Warning, reason, note: Some(note), action: "List".into(), secondary: None };
    if let Err(error) = context.events.publish(&event, &about).await {
        tracing::warn!(tenant = %key, %error, "an event could not be written");
    }
}

fn of_session(problem: &Option<Problem>, is_listed: bool, warning: Option<&str>) -> ConditionUpdate {
    let Some(problem) = problem else {
        return if is_listed {
            let but =
                warning.map(|warning| format!(" {warning} What it held before is used until the operator restarts."));
            let message = format!("The tenant's tokens can be listed.{}", but.unwrap_or_default());
            ready(ConditionStatus::True, Reason::UpToDate, message)
        } else {
            let message = "The tenant's tokens are being listed for the first time.".into();
            ready(ConditionStatus::Unknown, Reason::TenantNotRead, message)
        };
    };
    let (reason, message) = plan::list_failure(&problem.error);
    ready(ConditionStatus::False, reason, message)
}

fn ready(status: ConditionStatus, reason: Reason, message: String) -> ConditionUpdate {
    ConditionUpdate { type_: ConditionType::Ready, status, reason, message }
}

async fn apply<K>(api: &Api<K>, object: &TenantObject, status: &TenantStatus) -> Result<WriteOutcome, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let Some((parameters, patch)) = status_patch::<K, _>(&object.metadata, Some(&object.status), status) else {
        return Ok(WriteOutcome::Unchanged);
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    api.patch_status(name, &parameters, &patch).await?;
    Ok(WriteOutcome::Written)
}
