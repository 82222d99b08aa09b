//! The server as kubectl shows it to a person: objects read and written by kind, namespace and name. All of it is
//! requests of the user `kubectl`.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::controllers::path_of;
use crate::failure::page_not_found;
use crate::patch;
use crate::resource::Resource;
use crate::server::ApiServer;

/// Who writes through these.
pub const KUBECTL: &str = "kubectl";

impl ApiServer {
    /// The objects of a kind, in order of namespace and name; a kind is named by kind, plural, or plural and group.
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        let state = self.shared.lock();
        let table = state.find(kind);
        table.into_iter().flat_map(|table| table.objects.values()).map(|object| object.object()).collect()
    }

    /// One object; the namespace is empty for cluster-scoped ones.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.shared.lock();
        let table = state.find(kind)?;
        table.objects.get(&table.resource.key(namespace, name)).map(|object| object.object())
    }

    /// The objects of a kind, as [`ApiServer::objects`], but without managed fields, which costs next to nothing.
    pub fn values(&self, kind: &str) -> Vec<Arc<Value>> {
        let state = self.shared.lock();
        let table = state.find(kind);
        table.into_iter().flat_map(|table| table.objects.values()).map(|object| Arc::clone(&object.value)).collect()
    }

    /// One object, as [`ApiServer::get`], but without managed fields, which costs next to nothing.
    pub fn value(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let state = self.shared.lock();
        let table = state.find(kind)?;
        table.objects.get(&table.resource.key(namespace, name)).map(|object| Arc::clone(&object.value))
    }

    /// Applies a manifest, by server-side apply and by force.
    pub fn apply(&self, manifest: &Value) -> Answer {
        self.apply_as(KUBECTL, manifest)
    }

    pub(crate) fn apply_as(&self, user: &str, manifest: &Value) -> Answer {
        let Some(path) = self.path_of_object(manifest) else { return page_not_found() };
        let path = format!("{path}?fieldManager={user}&force=true");
        self.send(user, Method::PATCH, &path, patch::APPLY, Some(manifest))
    }

    /// Creates an object.
    pub fn create(&self, manifest: &Value) -> Answer {
        let Some(resource) = self.resource_of(manifest) else { return page_not_found() };
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or_default();
        let path = format!("{}?fieldManager={KUBECTL}", path_of(&resource, namespace));
        self.send(KUBECTL, Method::POST, &path, "application/json", Some(manifest))
    }

    /// Replaces an object.
    pub fn replace(&self, object: &Value) -> Answer {
        let Some(path) = self.path_of_object(object) else { return page_not_found() };
        self.send(KUBECTL, Method::PUT, &format!("{path}?fieldManager={KUBECTL}"), "application/json", Some(object))
    }

    /// Patches an object by JSON merge patch.
    pub fn merge(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Answer {
        let Some(path) = self.path_to(kind, namespace, name) else { return page_not_found() };
        let path = format!("{path}?fieldManager={KUBECTL}");
        self.send(KUBECTL, Method::PATCH, &path, "application/merge-patch+json", Some(patch))
    }

    /// Deletes an object, in the background.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Answer {
        let Some(path) = self.path_to(kind, namespace, name) else { return page_not_found() };
        let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
        self.send(KUBECTL, Method::DELETE, &path, "application/json", Some(&options))
    }

    fn path_to(&self, kind: &str, namespace: &str, name: &str) -> Option<String> {
        let resource = Arc::clone(&self.shared.lock().find(kind)?.resource);
        Some(format!("{}/{name}", path_of(&resource, namespace)))
    }

    fn resource_of(&self, object: &Value) -> Option<Arc<Resource>> {
        let is_it = |resource: &Resource| {
            object["kind"] == resource.kind.as_str() && object["apiVersion"] == resource.api_version().as_str()
        };
        let state = self.shared.lock();
        state.tables.values().map(|table| &table.resource).find(|resource| is_it(resource)).cloned()
    }

    fn path_of_object(&self, object: &Value) -> Option<String> {
        let resource = self.resource_of(object)?;
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Some(format!("{}/{}", path_of(&resource, text("namespace")), text("name")))
    }
}
