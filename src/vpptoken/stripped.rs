//! VppTokens as they are read: without what is not used of them. To parse the managed fields of each answer and each event of a
//! watch would cost more than all the rest.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use serde::{Deserialize, Deserializer};

use crate::api::status_patch::is_of_other_manager;
use crate::api::{SYNC_REQUESTED_AT, UPLOAD_REQUESTED_AT, VppToken, VppTokenSpec, VppTokenStatus};

/// A VppToken without labels, owners, and annotations of others. Of the managed fields it has only that others wrote the status.
#[derive(Clone, Debug)]
pub(crate) struct Stripped(pub(crate) VppToken);

impl Stripped {
    /// The event of a watch, for the VppToken.
    pub(crate) fn event(event: Event<Self>) -> Event<VppToken> {
        match event {
            Event::Apply(Self(object)) => Event::Apply(object),
            Event::Delete(Self(object)) => Event::Delete(object),
            Event::Init => Event::Init,
            Event::InitApply(Self(object)) => Event::InitApply(object),
            Event::InitDone => Event::InitDone,
        }
    }
}

impl Resource for Stripped {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        VppToken::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        VppToken::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        VppToken::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        VppToken::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

impl<'de> Deserialize<'de> for Stripped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object { metadata, spec, status } = Object::deserialize(deserializer)?;
        Ok(Self(VppToken { metadata: metadata.into(), spec, status }))
    }
}

/// What is read of a VppToken.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    spec: VppTokenSpec,
    #[serde(default)]
    status: Option<VppTokenStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    annotations: Option<Annotations>,
    managed_fields: Option<Vec<Manager>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "vpptoken.io/sync-requested-at")]
    sync_requested_at: Option<String>,
    #[serde(rename = "vpptoken.io/upload-requested-at")]
    upload_requested_at: Option<String>,
}

/// An entry of the managed fields, without the fields.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Manager {
    manager: Option<String>,
    operation: Option<String>,
    subresource: Option<String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        let Annotations { sync_requested_at, upload_requested_at } = read.annotations.unwrap_or_default();
        let annotations = [(SYNC_REQUESTED_AT, sync_requested_at), (UPLOAD_REQUESTED_AT, upload_requested_at)];
        let annotations = annotations.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let managers = read.managed_fields.into_iter().flatten().map(ManagedFieldsEntry::from);
        let others: Vec<_> = managers.filter(is_of_other_manager).collect();
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            generation: read.generation,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            finalizers: read.finalizers,
            annotations: Some(annotations)
                .filter(|annotations: &std::collections::BTreeMap<_, _>| !annotations.is_empty()),
            managed_fields: Some(others).filter(|others| !others.is_empty()),
            ..Self::default()
        }
    }
}

impl From<Manager> for ManagedFieldsEntry {
    fn from(Manager { manager, operation, subresource }: Manager) -> Self {
        Self { manager, operation, subresource, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::FIELD_MANAGER;

    fn object(metadata: Value) -> Value {
        json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": metadata,
            "spec": { "appleId": "vpp@contoso.example" }, "status": { "state": "valid" },
        })
    }

    fn read(metadata: Value) -> VppToken {
        serde_json::from_value::<Stripped>(object(metadata)).unwrap().0
    }

    #[test]
    fn what_is_used_is_read_as_of_any_object() {
        let metadata = json!({
            "name": "berlin", "namespace": "devices", "uid": "1", "resourceVersion": "7", "generation": 3,
            "creationTimestamp": "2026-11-21T12:00:00Z", "deletionTimestamp": "2026-11-22T12:00:00Z",
            "finalizers": ["x"], "annotations": { SYNC_REQUESTED_AT: "a", UPLOAD_REQUESTED_AT: "b" },
        });
        let whole: VppToken = serde_json::from_value(object(metadata.clone())).unwrap();
        assert_eq!(read(metadata), whole);
    }

    #[test]
    fn nothing_else_is_kept() {
        let entry = |manager: &str, operation: &str, subresource: Option<&str>| {
            json!({
                "manager": manager, "operation": operation, "subresource": subresource,
                "fieldsV1": { "f:status": { "f:state": {} } }, "time": "2026-11-21T12:00:00Z",
            })
        };
        let with = |managers: Value| {
            json!({
                "name": "berlin", "labels": { "a": "b" }, "annotations": { "last-applied": "x" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y" }],
                "managedFields": managers,
            })
        };
        let own = [entry("kubectl", "Apply", None), entry(FIELD_MANAGER, "Apply", Some("status"))];
        let expected = ObjectMeta { name: Some("berlin".into()), ..ObjectMeta::default() };
        assert_eq!(read(with(json!(own))).metadata, expected);
        let other = read(with(json!([entry("backup", "Update", Some("status"))])));
        let managers = other.metadata.managed_fields.unwrap();
        assert_eq!(managers.len(), 1);
        assert!(is_of_other_manager(&managers[0]) && managers[0].fields_v1.is_none());
    }
}
