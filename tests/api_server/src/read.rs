//! GET and LIST.

use std::sync::Arc;

use crate::answer::{Answer, json_response};
use crate::failure::{Failure, FieldError};
use crate::request::Call;
use crate::resource::Role;
use crate::selector::Selector;
use crate::state::{Shape, State, Stored, Table};

/// Answers GET for one object.
pub(crate) fn get(state: &State, call: &Call, lagging: Option<u64>) -> Result<Answer, Failure> {
    let version = call.query.version()?;
    check_reached(state, version)?;
    let lagging = lagging.filter(|_| version == Some(0));
    let not_found = || Failure::not_found(&call.resource, call.name());
    let table = state.tables.get(&call.resource.qualified()).ok_or_else(not_found)?;
    let found = match lagging {
        Some(revision) => table.at(readable(state, revision), &call.namespace).get(&call.key()).cloned(),
        None => table.objects.get(&call.key()).cloned(),
    };
    Ok(object(200, &*found.ok_or_else(not_found)?, call.shape()))
}

/// The answer that is one object.
pub(crate) fn object(code: u16, stored: &Stored, shape: Shape) -> Answer {
    Answer::Once(json_response(code, stored.json(shape)))
}

/// A revision that the log still reaches.
pub(crate) fn readable(state: &State, revision: u64) -> u64 {
    revision.clamp(state.compacted, state.revision)
}

/// # Errors
/// 504 for a version that is still to come.
pub(crate) fn check_reached(state: &State, version: Option<u64>) -> Result<(), Failure> {
    match version {
        Some(version) if version > state.revision => Err(Failure::too_large_version(version, state.revision)),
        _ => Ok(()),
    }
}

/// Where a list begins: in which state, and after which key.
struct Start {
    revision: Option<u64>,
    after: Option<String>,
}

/// Answers LIST.
pub(crate) fn list(state: &State, call: &Call, lagging: Option<u64>) -> Result<Answer, Failure> {
    let query = &call.query;
    let selector = Selector::parse(query.get("labelSelector"), query.get("fieldSelector"))?;
    let limit = query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let start = start(state, call, limit.is_some(), lagging)?;
    let Some(table) = state.tables.get(&call.resource.qualified()) else {
        return Err(Failure::not_found(&call.resource, ""));
    };
    let found = select(table, call, &selector, &start);
    let revision = start.revision.unwrap_or(state.revision);
    let shown = limit.map_or(found.len(), |limit| limit.min(found.len()));
    let rest = found.len() - shown;
    let last = found.get(..shown).and_then(<[_]>::last).map(|(key, _)| key.as_str()).filter(|_| rest > 0);
    let items = found.iter().take(shown).map(|(_, object)| object);
    let remaining = (rest > 0 && selector.is_everything()).then_some(rest);
    let page = Page { revision, next: last.map(|key| format!("{revision}:{key}")), remaining };
    Ok(Answer::Once(json_response(200, page.json(call, items).into())))
}

fn select(table: &Table, call: &Call, selector: &Selector, start: &Start) -> Vec<(String, Arc<Stored>)> {
    let is_after = |key: &String| start.after.as_ref().is_none_or(|after| key > after);
    let is_selected = |(key, object): &(String, Arc<Stored>)| is_after(key) && selector.matches(&object.value);
    match start.revision {
        Some(revision) => table.at(revision, &call.namespace).into_iter().filter(is_selected).collect(),
        None => {
            let all = table.within(&call.namespace).map(|(key, object)| (key.clone(), Arc::clone(object)));
            all.filter(is_selected).collect()
        }
    }
}

/// What `resourceVersion`, `resourceVersionMatch`, `limit` and `continue` come to.
fn start(state: &State, call: &Call, has_limit: bool, lagging: Option<u64>) -> Result<Start, Failure> {
    let query = &call.query;
    let unreadable = |_| Failure::bad_request("invalid resource version");
    let (version, matching) = (query.version().map_err(unreadable)?, query.get("resourceVersionMatch"));
    let errors = wrong_options(call, version, matching);
    if !errors.is_empty() {
        return Err(Failure::invalid_kind("meta.k8s.io", "ListOptions", "", &errors));
    }
    if let Some(token) = query.get("continue") {
        if version.is_some_and(|version| version != 0) {
            return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
        }
        return continued(state, token);
    }
    check_reached(state, version)?;
    let exact = match (version, matching) {
        (Some(0) | None, _) | (_, Some("NotOlderThan")) => None,
        (Some(version), Some(_)) => Some(version),
        (Some(version), None) => has_limit.then_some(version),
    };
    if exact.is_some_and(|exact| exact < state.compacted) {
        return Err(Failure::expired("The resourceVersion for the provided list is too old."));
    }
    // A limited list of any version is answered by the store itself, not by a cache.
    let lagging = lagging.filter(|_| version == Some(0)).map(|revision| readable(state, revision));
    Ok(Start { revision: exact.or(lagging), after: None })
}

fn continued(state: &State, token: &str) -> Result<Start, Failure> {
    let unreadable = || Failure::bad_request("continue key is not valid");
    let (revision, after) = token.split_once(':').ok_or_else(unreadable)?;
    if revision == "-1" {
        return Ok(Start { revision: None, after: Some(after.to_owned()) });
    }
    let revision: u64 = revision.parse().map_err(|_| unreadable())?;
    if revision < state.compacted {
        return Err(Failure::expired_continue(&format!("-1:{after}")));
    }
    check_reached(state, Some(revision))?;
    Ok(Start { revision: Some(revision), after: Some(after.to_owned()) })
}

fn wrong_options(call: &Call, version: Option<u64>, matching: Option<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut forbid = |why: &str| errors.push(FieldError::forbidden("resourceVersionMatch", why));
    if let Some(matching) = matching {
        if version.is_none() {
            forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if call.query.get("continue").is_some() {
            forbid("resourceVersionMatch is forbidden when continue is provided");
        }
        if matching == "Exact" && version == Some(0) {
            forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(
                "resourceVersionMatch",
                matching,
                "\"Exact\", \"NotOlderThan\", \"\"",
            ));
        }
    }
    if call.query.get("sendInitialEvents").is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    errors
}

/// One page of a list.
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) next: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl Page {
    pub(crate) fn json<'a>(&self, call: &Call, items: impl Iterator<Item = &'a Arc<Stored>>) -> Vec<u8> {
        let resource = &call.resource;
        let (api_version, kind, shape) = match (call.is_partial, resource.role) {
            (true, _) => ("meta.k8s.io/v1".into(), "PartialObjectMetadataList", Shape::Partial),
            (false, Role::Custom) => (resource.api_version(), resource.list_kind.as_str(), Shape::Full),
            (false, _) => (resource.api_version(), resource.list_kind.as_str(), Shape::Item),
        };
        let mut metadata = serde_json::json!({ "resourceVersion": self.revision.to_string() });
        match &self.next {
            Some(next) => metadata["continue"] = next.as_str().into(),
            // Lists of custom resources, which are no Go types, leave nothing out.
            None if resource.role == Role::Custom && !call.is_partial => metadata["continue"] = "".into(),
            None => {}
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let mut json =
            format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",\"metadata\":{metadata},\"items\":[")
                .into_bytes();
        for (n, item) in items.enumerate() {
            if n > 0 {
                json.push(b',');
            }
            json.extend_from_slice(&item.json(shape));
        }
        json.extend_from_slice(b"]}");
        json
    }
}
