//! What a tenant object's status says, written only when it changed.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::objects::TenantObject;
use crate::api::conditions::{self, ConditionStatus, ConditionType, Saying};
use crate::api::{ClusterGraphTenant, FIELD_MANAGER, GraphTenant, Reason, TenantKind, TenantStatus, VppTokenTenant};
use crate::graph::ErrorKind;
use crate::tenant::{Problem, TenantKey, TenantView, Unusable};
use crate::vpptoken::{Caches, plan};

/// The ids of a tenant's tokens that a VppToken has.
pub(super) fn claimed(caches: &Caches, identity: &VppTokenTenant) -> BTreeSet<String> {
    let is_same = |tenant: &VppTokenTenant| {
        tenant.cloud == identity.cloud && tenant.tenant_id.eq_ignore_ascii_case(&identity.tenant_id)
    };
    let ids = caches.all_tokens().filter_map(|object| {
        let status = object.status.as_ref()?;
        status.tenant.as_ref().filter(|tenant| is_same(tenant))?;
        status.token_id.clone()
    });
    ids.collect()
}

/// Writes the status of a tenant object: of its session, or why it has none.
pub(super) async fn write(
    client: &Client,
    key: &TenantKey,
    object: &TenantObject,
    session: Result<TenantView, Unusable>,
    worry: Option<&str>,
    claimed: &BTreeSet<String>,
) {
    let mut status = TenantStatus { observed_generation: Some(object.generation), ..object.status.clone() };
    let is_starting = session.as_ref().is_ok_and(|view| view.problem.is_none() && view.snapshot.read_at().is_none());
    if is_starting && conditions::find(&object.status.conditions, ConditionType::Ready).is_some() {
        // A restart of the operator changes nothing about the tenant.
        return;
    }
    let saying = match session {
        Err(Unusable { reason, message }) => say(ConditionStatus::False, reason, message),
        Ok(view) => {
            let tokens = view.snapshot.entries().count();
            let unmanaged = view.snapshot.entries().filter(|entry| !claimed.contains(&entry.entity.id)).count();
            let is_listed = view.snapshot.read_at().is_some();
            let count = |count: usize| is_listed.then(|| i64::try_from(count).unwrap_or(i64::MAX));
            (status.tokens, status.unmanaged_tokens) = (count(tokens), count(unmanaged));
            of_session(&view.problem, is_listed, worry)
        }
    };
    status.conditions = conditions::merge(&object.status.conditions, &[saying], object.generation, Timestamp::now());
    write_if_new(client, key, object, &status).await;
}

/// Nothing is done for a tenant object that no VppToken refers to, and nothing said of it but that it was seen: whoever waits
/// for it does not wait for ever.
pub(super) async fn write_unused(client: &Client, key: &TenantKey, object: &TenantObject) {
    let status = TenantStatus { observed_generation: Some(object.generation), ..TenantStatus::default() };
    write_if_new(client, key, object, &status).await;
}

async fn write_if_new(client: &Client, key: &TenantKey, object: &TenantObject, status: &TenantStatus) {
    if object.status == *status {
        return;
    }
    let outcome = match (&key.kind, &key.namespace) {
        (TenantKind::GraphTenant, Some(namespace)) => {
            apply(&Api::<GraphTenant>::namespaced(client.clone(), namespace), key, object, status).await
        }
        _ => apply(&Api::<ClusterGraphTenant>::all(client.clone()), key, object, status).await,
    };
    match outcome {
        Ok(()) => {}
        // It changed meanwhile: that change brings the next look.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
        Err(error) => tracing::warn!(tenant = key.name, %error, "the status of a tenant could not be written"),
    }
}

fn of_session(problem: &Option<Problem>, is_listed: bool, worry: Option<&str>) -> Saying {
    let Some(problem) = problem else {
        return if is_listed {
            let but = worry.map(|worry| format!(" {worry} What it held before is used until the operator restarts."));
            let message = format!("The tenant's tokens can be listed.{}", but.unwrap_or_default());
            say(ConditionStatus::True, Reason::UpToDate, message)
        } else {
            let message = "The tenant's tokens are being listed for the first time.".into();
            say(ConditionStatus::Unknown, Reason::TenantNotRead, message)
        };
    };
    let sentence = problem.error.told();
    let (reason, message) = match problem.error.kind {
        ErrorKind::Credentials => (Reason::CredentialsRefused, sentence),
        ErrorKind::Forbidden | ErrorKind::Unauthorized => {
            (Reason::PermissionMissing, plan::permission_sentence(&sentence))
        }
        ErrorKind::Throttled => (Reason::Throttled, sentence),
        _ => (Reason::GraphUnavailable, sentence),
    };
    say(ConditionStatus::False, reason, message)
}

fn say(status: ConditionStatus, reason: Reason, message: String) -> Saying {
    Saying { type_: ConditionType::Ready, status, reason, message }
}

async fn apply<K>(
    api: &Api<K>,
    key: &TenantKey,
    object: &TenantObject,
    status: &TenantStatus,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": key.name, "resourceVersion": object.version },
        "status": status,
    });
    api.patch_status(&key.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await?;
    Ok(())
}
