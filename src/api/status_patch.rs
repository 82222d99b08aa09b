//! How a status is written: by server-side apply, or by a merge patch where another manager has written it, such as one
//! that restores a backup. Server-side apply can't remove the fields that another manager owns. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry};
use kube::Resource;
use kube::api::{ObjectMeta, Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::{FIELD_MANAGER, TenantStatus, VppTokenStatus, conditions};

/// A status of one of our resources.
pub trait Status: Clone + Default + PartialEq + Serialize {
    /// Its conditions, also those of other managers.
    fn conditions_mut(&mut self) -> &mut Vec<Condition>;

    /// The status without the conditions of other managers.
    #[must_use]
    fn without_others_conditions(mut self) -> Self {
        self.conditions_mut().retain(conditions::is_ours);
        self
    }
}

impl Status for VppTokenStatus {
    fn conditions_mut(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

impl Status for TenantStatus {
    fn conditions_mut(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

/// The request that changes the status of an object of kind `K` to `to`, which has only our conditions; none when there
/// is nothing to change. It fails with a conflict when the object has changed since it was read.
pub fn status_patch<K, S>(metadata: &ObjectMeta, from: Option<&S>, to: &S) -> Option<(PatchParams, Patch<Value>)>
where
    K: Resource<DynamicType = ()>,
    S: Status,
{
    if from.cloned().map(S::without_others_conditions).as_ref() == Some(to) {
        return None;
    }
    let mut patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": metadata.name, "resourceVersion": metadata.resource_version },
        "status": to,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER);
    if !has_other_managers(metadata) {
        return Some((parameters.force(), Patch::Apply(patch)));
    }
    patch["status"] = merge_of(&from.cloned().unwrap_or_default(), to);
    Some((parameters, Patch::Merge(patch)))
}

fn has_other_managers(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(is_of_other_manager)
}

/// Whether an entry of `managedFields` shows a status that was not written by our server-side apply.
pub fn is_of_other_manager(entry: &ManagedFieldsEntry) -> bool {
    entry.subresource.as_deref() == Some("status")
        && (entry.manager.as_deref(), entry.operation.as_deref()) != (Some(FIELD_MANAGER), Some("Apply"))
}

/// The merge patch that changes one status into another. Conditions of other types than ours stay.
fn merge_of<S: Status>(from: &S, to: &S) -> Value {
    let (mut from, mut to) = (from.clone(), to.clone());
    let others = from.conditions_mut().iter().filter(|condition| !conditions::is_ours(condition));
    to.conditions_mut().extend(others.cloned());
    let [from, mut to] = [from, to].map(|status| serde_json::to_value(status).unwrap_or_default());
    remove_others(&mut to, &from);
    to
}

/// Sets each field to null that only the other value has.
fn remove_others(value: &mut Value, other: &Value) {
    let (Some(fields), Some(others)) = (value.as_object_mut(), other.as_object()) else { return };
    for (name, other) in others {
        match fields.get_mut(name) {
            None => {
                fields.insert(name.clone(), Value::Null);
            }
            Some(value) => remove_others(value, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClusterGraphTenant, VppToken};

    fn status<S: serde::de::DeserializeOwned>(status: Value) -> S {
        serde_json::from_value(status).unwrap()
    }

    fn condition(type_: &str) -> Value {
        json!({ "type": type_, "status": "True", "reason": "X", "message": "x.", "lastTransitionTime": "2026-11-21T12:00:00Z" })
    }

    fn of(types: &[&str]) -> Value {
        json!({ "conditions": types.iter().map(|type_| condition(type_)).collect::<Vec<_>>() })
    }

    fn metadata(manager: &str, operation: &str, subresource: Option<&str>) -> ObjectMeta {
        serde_json::from_value(json!({
            "name": "x", "resourceVersion": "7",
            "managedFields": [{ "manager": manager, "operation": operation, "subresource": subresource }],
        }))
        .unwrap()
    }

    #[test]
    fn what_another_manager_restored_is_taken_away_and_nothing_else() {
        let uploaded = json!({
            "sha256": "x", "expirationDateTime": "2026-11-21T12:00:00Z", "organizationName": "x", "time": "2026-11-21T12:00:00Z"
        });
        let mut shown = uploaded.clone();
        shown["shown"] = json!(true);
        let mut not_shown = uploaded.clone();
        not_shown["shown"] = Value::Null;
        for (from, to, expected) in [
            (json!({ "state": "valid" }), json!({ "state": "valid" }), json!({ "state": "valid" })),
            (json!({ "state": "expired" }), json!({ "state": "valid" }), json!({ "state": "valid" })),
            (json!({ "state": "valid", "tokenId": "x" }), json!({}), json!({ "state": null, "tokenId": null })),
            (json!({}), json!({ "state": "valid" }), json!({ "state": "valid" })),
            (json!({ "uploaded": shown }), json!({ "uploaded": uploaded }), json!({ "uploaded": not_shown })),
            (of(&["Ready"]), of(&["Ready"]), of(&["Ready"])),
            (of(&["Ready", "Others"]), of(&["Ready"]), of(&["Ready", "Others"])),
            (of(&["Stalled", "Ready", "Others"]), of(&["Ready"]), of(&["Ready", "Others"])),
            (of(&["Stalled"]), json!({}), json!({ "conditions": null })),
        ] {
            let [before, after] = [&from, &to].map(|it| status::<VppTokenStatus>(it.clone()));
            assert_eq!(merge_of(&before, &after), expected, "{from} {to}");
        }
        for (from, to, expected) in [
            (json!({ "tokens": 7 }), json!({ "tokens": 1 }), json!({ "tokens": 1 })),
            (json!({ "tokens": 7 }), json!({}), json!({ "tokens": null })),
            (of(&["Stalled", "Ready", "Others"]), of(&["Ready"]), of(&["Ready", "Others"])),
        ] {
            let [before, after] = [&from, &to].map(|it| status::<TenantStatus>(it.clone()));
            assert_eq!(merge_of(&before, &after), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_status_that_only_we_wrote_is_applied() {
        let (from, to) = (TenantStatus::default(), status::<TenantStatus>(of(&["Ready"])));
        for (manager, operation, subresource, is_merged) in [
            (FIELD_MANAGER, "Apply", Some("status"), false),
            ("kubectl", "Apply", None, false),
            ("backup", "Update", Some("status"), true),
            (FIELD_MANAGER, "Update", Some("status"), true),
        ] {
            let metadata = metadata(manager, operation, subresource);
            let (parameters, patch) = status_patch::<ClusterGraphTenant, _>(&metadata, Some(&from), &to).unwrap();
            assert_eq!(matches!(patch, Patch::Merge(_)), is_merged, "{manager} {operation}");
            assert_eq!(matches!(patch, Patch::Apply(_)), !is_merged, "{manager} {operation}");
            // A merge patch can't be forced.
            assert_eq!(parameters.force, !is_merged, "{manager} {operation}");
            let (Patch::Merge(body) | Patch::Apply(body)) = patch else { continue };
            assert_eq!(body["metadata"], json!({ "name": "x", "resourceVersion": "7" }));
        }
    }

    #[test]
    fn nothing_is_written_without_a_change_of_what_is_ours() {
        let metadata = metadata("backup", "Update", Some("status"));
        let is_written = |from: Option<Value>, to: Value| {
            let (from, to) = (from.map(status::<VppTokenStatus>), status(to));
            status_patch::<VppToken, _>(&metadata, from.as_ref(), &to).is_some()
        };
        assert!(!is_written(Some(of(&["Ready"])), of(&["Ready"])));
        assert!(!is_written(Some(of(&["Ready", "Others"])), of(&["Ready"])));
        assert!(is_written(Some(of(&["Ready", "Stalled"])), of(&["Ready"])));
        assert!(is_written(None, json!({})), "an empty status is not none");
    }
}
