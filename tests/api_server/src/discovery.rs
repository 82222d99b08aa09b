//! `/version`, and which groups and resources there are.

use std::collections::BTreeMap;

use http::Method;
use http::request::Parts;
use serde_json::{Value, json};

use crate::answer::{Answer, json_response};
use crate::state::{State, Table};

/// Answers requests about the server; none for other requests.
pub(crate) fn answer(state: &State, parts: &Parts) -> Option<Answer> {
    if parts.method != Method::GET {
        return None;
    }
    let segments: Vec<&str> = parts.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let found = match segments.as_slice() {
        ["version"] => json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        }),
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ["apis"] => groups(state),
        ["api", version] => resources(state, "", version)?,
        ["apis", group, version] => resources(state, group, version)?,
        _ => return None,
    };
    Some(Answer::Once(json_response(200, found.to_string().into())))
}

fn groups(state: &State) -> Value {
    let groups: BTreeMap<&str, &str> = state
        .tables
        .values()
        .map(|table| (table.resource.group.as_str(), table.resource.version.as_str()))
        .filter(|(group, _)| !group.is_empty())
        .collect();
    let groups: Vec<Value> = groups
        .into_iter()
        .map(|(group, version)| {
            let version = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
            json!({ "name": group, "versions": [version], "preferredVersion": version })
        })
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn resources(state: &State, group: &str, version: &str) -> Option<Value> {
    let row = |table: &Table, subresource: &str| {
        let resource = &table.resource;
        let verbs: &[&str] = if subresource.is_empty() {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        } else {
            &["get", "patch", "update"]
        };
        json!({
            "name": format!("{}{subresource}", resource.plural), "singularName": resource.singular,
            "namespaced": resource.is_namespaced, "kind": resource.kind, "verbs": verbs,
        })
    };
    let of_version = |table: &&Table| table.resource.group == group && table.resource.version == version;
    let mut rows = Vec::new();
    for table in state.tables.values().filter(of_version) {
        rows.push(row(table, ""));
        if table.resource.has_status {
            rows.push(row(table, "/status"));
        }
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!rows.is_empty())
        .then(|| json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows }))
}
