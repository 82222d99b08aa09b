//! The controllers that end namespaces and definitions. They use the server's own requests, one step at a time, so that
//! others can see the states between the steps.

use std::sync::Arc;

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::definitions::FINALIZER;
use crate::journal::Verb;
use crate::resource::{DEFINITIONS, Resource, Role};
use crate::server::ApiServer;
use crate::state::{State, Table};
use crate::{metadata, roles};

const NAMESPACES: &str = "system:serviceaccount:kube-system:namespace-controller";
const SERVER: &str = "system:apiserver";

/// What is to be done next.
enum Step {
    /// Delete all objects of a resource, of a namespace or everywhere.
    DeleteAll { path: Vec<String>, user: &'static str },
    /// Nothing is left in a namespace.
    EndNamespace(String),
    /// Nothing is left of a definition.
    EndDefinition(String),
}

impl ApiServer {
    /// Does the next step of what is due: the objects of one resource in one namespace that is being deleted, or those of a
    /// definition that is; or the end of either when nothing is left. False when nothing is due.
    pub fn step_controllers(&self) -> bool {
        let step = next_step(&self.shared.lock(), &self.options.deletion_order);
        match step {
            None => return false,
            Some(Step::DeleteAll { path, user }) => {
                for path in path {
                    self.send(user, Method::DELETE, &path, "application/json", None);
                }
            }
            Some(Step::EndNamespace(name)) => self.end_namespace(&name),
            Some(Step::EndDefinition(name)) => self.end_definition(&name),
        }
        true
    }

    /// Runs the controllers in the time of the runtime, until the task is aborted.
    pub fn spawn_controllers(&self) -> JoinHandle<()> {
        let server = self.clone();
        tokio::spawn(async move {
            loop {
                let changed = server.changed();
                let changed = changed.notified();
                if !server.is_due() {
                    changed.await;
                }
                tokio::time::sleep(server.options.controller_delay).await;
                server.step_controllers();
            }
        })
    }

    fn is_due(&self) -> bool {
        next_step(&self.shared.lock(), &self.options.deletion_order).is_some()
    }

    /// Removes the finalizer of a namespace, and with it the namespace.
    fn end_namespace(&self, name: &str) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        let Some(table) = state.tables.get("namespaces") else { return };
        let (resource, found) = (Arc::clone(&table.resource), table.objects.get(name).cloned());
        let Some(found) = found else { return };
        let mut value = (*found.value).clone();
        value["spec"] = json!({});
        let stored = state.put(&resource, name.to_owned(), value, found.managers.clone(), now);
        state.note(&resource, by(NAMESPACES, Verb::Update, "finalize"), Some(&found), Some(&stored), false, now);
        if metadata::texts(&stored.metadata()["finalizers"]).is_empty() {
            state.remove(&resource, name, now);
            state.note(&resource, by(NAMESPACES, Verb::Delete, ""), Some(&stored), None, false, now);
        }
    }

    /// Removes the server's finalizer of a definition; without others, the definition is deleted.
    fn end_definition(&self, name: &str) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        let Some(table) = state.tables.get(DEFINITIONS) else { return };
        let (resource, found) = (Arc::clone(&table.resource), table.objects.get(name).cloned());
        let Some(found) = found else { return };
        let mut value = (*found.value).clone();
        let finalizers = metadata::texts(&found.metadata()["finalizers"]);
        let rest: Vec<Value> = finalizers.into_iter().filter(|one| *one != FINALIZER).map(Value::from).collect();
        if rest.is_empty() {
            crate::delete::remove(&mut state, &resource, name, now);
            state.note(&resource, by(SERVER, Verb::Delete, ""), Some(&found), None, false, now);
        } else {
            metadata::object(&mut value).insert("finalizers".into(), rest.into());
            let stored = state.put(&resource, name.to_owned(), value, found.managers.clone(), now);
            state.note(&resource, by(SERVER, Verb::Update, ""), Some(&found), Some(&stored), false, now);
        }
    }

    pub(crate) fn send(
        &self,
        user: &str,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> crate::Answer {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content_type);
        match request.body(body) {
            Ok(request) => self.call(request, user),
            Err(error) => crate::failure::Failure::bad_request(error.to_string()).answer(),
        }
    }
}

fn by(user: &str, verb: Verb, subresource: &str) -> (String, String, Verb, String) {
    (user.to_owned(), String::new(), verb, subresource.to_owned())
}

/// The path of all objects of a resource.
pub(crate) fn path_of(resource: &Resource, namespace: &str) -> String {
    let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let within = if resource.is_namespaced && !namespace.is_empty() {
        format!("/namespaces/{namespace}")
    } else {
        String::new()
    };
    format!("{root}/{}{within}/{}", resource.version, resource.plural)
}

fn next_step(state: &State, order: &[String]) -> Option<Step> {
    let being_deleted = |table: &Table| -> Vec<String> {
        let marked = table.objects.iter().filter(|(_, object)| object.is_being_deleted());
        marked.map(|(name, _)| name.clone()).collect()
    };
    let namespaces = state.tables.get("namespaces");
    let has_content = |name: &String| {
        namespaces.and_then(|table| table.objects.get(name)).is_some_and(|found| roles::has_content(&found.value))
    };
    for namespace in namespaces.map(being_deleted).unwrap_or_default().into_iter().filter(has_content) {
        if let Some(step) = namespace_step(state, &namespace, order) {
            return Some(step);
        }
    }
    let definitions = state.tables.get(DEFINITIONS).map(being_deleted).unwrap_or_default();
    definitions.into_iter().find_map(|definition| definition_step(state, definition))
}

fn namespace_step(state: &State, namespace: &str, order: &[String]) -> Option<Step> {
    let rank = |table: &&Table| {
        let name = table.resource.qualified();
        (order.iter().position(|first| *first == name).unwrap_or(order.len()), name)
    };
    let mut tables: Vec<&Table> = state.tables.values().filter(|table| table.resource.is_namespaced).collect();
    tables.sort_by_key(rank);
    let mut is_empty = true;
    for table in tables {
        let mut objects = table.within(namespace).peekable();
        is_empty &= objects.peek().is_none();
        if objects.any(|(_, object)| !object.is_being_deleted()) {
            return Some(Step::DeleteAll { path: vec![path_of(&table.resource, namespace)], user: NAMESPACES });
        }
    }
    is_empty.then(|| Step::EndNamespace(namespace.to_owned()))
}

fn definition_step(state: &State, definition: String) -> Option<Step> {
    let found = state.tables.get(DEFINITIONS).and_then(|table| table.objects.get(&definition));
    if !found.is_some_and(|found| metadata::texts(&found.metadata()["finalizers"]).contains(&FINALIZER)) {
        return None;
    }
    let Some(table) = state.tables.get(&definition).filter(|table| table.resource.role == Role::Custom) else {
        return Some(Step::EndDefinition(definition));
    };
    if table.objects.is_empty() {
        return Some(Step::EndDefinition(definition));
    }
    let mut namespaces: Vec<&str> = table
        .objects
        .values()
        .filter(|object| !object.is_being_deleted())
        .map(|object| object.text("namespace"))
        .collect();
    namespaces.dedup();
    let path: Vec<String> = namespaces.into_iter().map(|namespace| path_of(&table.resource, namespace)).collect();
    (!path.is_empty()).then_some(Step::DeleteAll { path, user: SERVER })
}
