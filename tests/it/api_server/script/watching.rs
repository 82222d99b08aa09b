//! Watches: from a version on, of a selection, of metadata only, and from a compacted version.

use serde_json::json;

use super::super::steps::{Group, Step, delete, get, merge, post};
use super::reading::{PARTIAL, PARTIAL_LIST};
use super::{SECRETS, TOKENS, secret, token, with};

pub(super) fn groups() -> Vec<Group> {
    vec![
        Group { name: "watching", steps: watching() },
        Group { name: "watches of a part", steps: parts() },
        Group { name: "watches that begin with what there is", steps: initial() },
        Group { name: "watches that are refused", steps: refused() },
    ]
}

/// Versions that are too old for the real server's cache and compacted in etcd.
pub(super) fn compacted() -> Vec<Group> {
    vec![Group { name: "compacted versions", steps: compacted_versions() }]
}

fn watch(name: &'static str, query: &str) -> Step {
    Step::Watch(name, get(format!("{TOKENS}?watch=true&{query}")))
}

fn watching() -> Vec<Step> {
    let paris = format!("{TOKENS}/paris");
    vec![
        get(format!("{TOKENS}?limit=1")).remembered("list").into(),
        watch("live", "resourceVersion=$(list/metadata/resourceVersion)&allowWatchBookmarks=true"),
        post(TOKENS, token("paris", json!({}))).into(),
        merge(&paris, json!({ "metadata": { "finalizers": ["vpptoken.io/finalizer"] } })).into(),
        merge(&paris, json!({ "spec": { "countryOrRegion": "fr" } })).remembered("paris").into(),
        // Nothing changes, so there is no event.
        merge(&paris, json!({ "spec": { "countryOrRegion": "fr" } })).into(),
        merge(format!("{paris}/status"), json!({ "status": { "state": "valid" } })).into(),
        delete(&paris).into(),
        merge(&paris, json!({ "metadata": { "finalizers": null } })).into(),
        Step::Read("live", "DELETED", "paris"),
        watch("again", "resourceVersion=$(list/metadata/resourceVersion)"),
        Step::Read("again", "DELETED", "paris"),
        watch("later", "resourceVersion=$(paris/metadata/resourceVersion)"),
        Step::Read("later", "DELETED", "paris"),
        // Two seconds before its end, a watch gets a bookmark, if its version is new: the real server learns of other
        // writes when it answers a list that has to be fresh.
        post(SECRETS, secret("elsewhere", "x")).into(),
        get(format!("{TOKENS}?labelSelector=region")).into(),
        watch("short", "resourceVersion=$(paris/metadata/resourceVersion)&allowWatchBookmarks=true&timeoutSeconds=4"),
        Step::ReadAll("short"),
    ]
}

/// What enters a selection is added, and what leaves it is deleted.
fn parts() -> Vec<Step> {
    let oslo = format!("{TOKENS}/oslo");
    let from = "resourceVersion=$(start/metadata/resourceVersion)";
    let tier = |tier: Option<&str>| json!({ "metadata": { "labels": { "tier": tier } } });
    vec![
        get(format!("{TOKENS}?limit=1")).remembered("start").into(),
        watch("labelled", &format!("{from}&labelSelector=tier%3Db")),
        watch("named", &format!("{from}&fieldSelector=metadata.name%3Doslo")),
        // One object is not watched by its path: this just reads it.
        get(format!("{TOKENS}/oslo?watch=true&{from}")).into(),
        Step::Watch("metadata", get(format!("{TOKENS}?watch=true&{from}")).partial(PARTIAL)),
        Step::Watch("secrets", get(format!("{SECRETS}?watch=true&{from}")).partial(PARTIAL)),
        merge(&oslo, tier(Some("c"))).into(),
        merge(&oslo, tier(Some("b"))).into(),
        merge(&oslo, json!({ "spec": { "suspend": true } })).into(),
        merge(format!("{TOKENS}/madrid"), tier(Some("b"))).into(),
        post(SECRETS, secret("watched", "x")).into(),
        merge(&oslo, tier(None)).into(),
        delete(&oslo).into(),
        delete(format!("{TOKENS}/madrid")).into(),
        delete(format!("{SECRETS}/watched")).into(),
        Step::Read("labelled", "DELETED", "madrid"),
        Step::Read("named", "DELETED", "oslo"),
        Step::Read("metadata", "DELETED", "madrid"),
        Step::Read("secrets", "DELETED", "watched"),
    ]
}

fn initial() -> Vec<Step> {
    let streamed = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    vec![
        watch("all", "labelSelector=region&timeoutSeconds=1"),
        Step::ReadAll("all"),
        watch("from zero", "resourceVersion=0&labelSelector=region&timeoutSeconds=1"),
        Step::ReadAll("from zero"),
        watch("streamed", &format!("{streamed}&labelSelector=region")),
        Step::ReadAll("streamed"),
        watch(
            "without bookmarks",
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1&labelSelector=region",
        ),
        Step::ReadAll("without bookmarks"),
        Step::Watch(
            "streamed metadata",
            get(format!("{SECRETS}?watch=true&{streamed}&resourceVersion=")).partial(PARTIAL),
        ),
        Step::ReadAll("streamed metadata"),
    ]
}

fn refused() -> Vec<Step> {
    let refused = |query: &str, code| get(format!("{TOKENS}?watch=true&{query}")).refused(code).into();
    vec![
        refused("resourceVersion=x", 500),
        refused("sendInitialEvents=true", 422),
        refused("sendInitialEvents=true&resourceVersionMatch=Exact", 422),
        refused("resourceVersionMatch=NotOlderThan", 422),
        refused("resourceVersionMatch=Exact", 422),
        refused("labelSelector=a+b+c", 400),
        refused("fieldSelector=spec.appleId%3Dx", 400),
    ]
}

fn compacted_versions() -> Vec<Step> {
    let list = |query: &str| get(format!("{TOKENS}?{query}"));
    vec![
        post(TOKENS, with(token("prague", json!({})), json!({ "labels": { "region": "east" } })))
            .remembered("prague")
            .into(),
        list("limit=1").remembered("page").into(),
        merge(format!("{TOKENS}/prague"), json!({ "spec": { "suspend": true } })).remembered("changed").into(),
        post(SECRETS, secret("after", "x")).into(),
        Step::Compact,
        get(format!("{TOKENS}?limit=1")).until("/kind", "VppTokenList").into(),
        watch("compacted", "resourceVersion=$(prague/metadata/resourceVersion)"),
        Step::ReadAll("compacted"),
        watch("first", "resourceVersion=1&allowWatchBookmarks=true"),
        Step::ReadAll("first"),
        Step::Watch("compacted metadata", get(format!("{SECRETS}?watch=true&resourceVersion=1")).partial(PARTIAL)),
        Step::ReadAll("compacted metadata"),
        list("resourceVersion=$(prague/metadata/resourceVersion)&resourceVersionMatch=Exact").refused(410).into(),
        list("limit=1&continue=$(page/metadata/continue)").refused(410).remembered("expired").into(),
        list("limit=1&continue=$(expired/metadata/continue)").into(),
        list("resourceVersion=$(prague/metadata/resourceVersion)").into(),
        get(format!("{TOKENS}?labelSelector=region")).partial(PARTIAL_LIST).into(),
        get(format!("{TOKENS}/prague?resourceVersion=$(prague/metadata/resourceVersion)")).remembered("fresh").into(),
        watch("fresh", "resourceVersion=$(fresh/metadata/resourceVersion)"),
        merge(format!("{TOKENS}/prague"), json!({ "spec": { "suspend": false } })).into(),
        delete(format!("{TOKENS}/prague")).into(),
        Step::Read("fresh", "DELETED", "prague"),
    ]
}
