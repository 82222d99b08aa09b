//! Lists: pages, selectors, versions, and metadata only.

use serde_json::json;

use super::super::steps::{Group, Step, get, merge, post};
use super::{ALL_TOKENS, SECRETS, TOKENS, WIDGETS, token, with};

/// Metadata of one object.
pub(super) const PARTIAL: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Metadata of a list.
pub(super) const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

pub(super) fn groups() -> Vec<Group> {
    vec![
        Group { name: "lists", steps: lists() },
        Group { name: "selectors", steps: selectors() },
        Group { name: "versions", steps: versions() },
        Group { name: "metadata only", steps: partial() },
    ]
}

fn lists() -> Vec<Step> {
    let labelled = |name: &str, labels| post(TOKENS, with(token(name, json!({})), json!({ "labels": labels })));
    vec![
        labelled("lisbon", json!({ "region": "west", "tier": "a" })).into(),
        labelled("madrid", json!({ "region": "west" })).into(),
        labelled("oslo", json!({ "region": "north", "tier": "b" })).into(),
        get(TOKENS.replace("alike", "nowhere")).into(),
        get(format!("{TOKENS}?labelSelector=region")).into(),
        get(format!("{ALL_TOKENS}?labelSelector=region")).into(),
        get(format!("{WIDGETS}?fieldSelector=metadata.name%3Da")).into(),
        get(SECRETS).into(),
        get(format!("{TOKENS}?labelSelector=region&limit=2")).remembered("page").into(),
        get(format!("{TOKENS}?labelSelector=region&limit=2&continue=$(page/metadata/continue)")).into(),
        get(format!("{TOKENS}?limit=3&resourceVersion=0&labelSelector=region")).into(),
        get(format!("{WIDGETS}?limit=1")).remembered("widgets").into(),
        get(format!("{WIDGETS}?limit=1&continue=$(widgets/metadata/continue)")).into(),
        get(format!("{WIDGETS}?limit=500")).into(),
        get(format!("{WIDGETS}?limit=1&continue=nonsense")).refused(400).into(),
        get(format!("{WIDGETS}?limit=x")).refused(400).into(),
        get(format!("{WIDGETS}?continue=$(widgets/metadata/continue)&resourceVersion=5")).refused(400).into(),
    ]
}

fn selectors() -> Vec<Step> {
    let taken = [
        "labelSelector=region%3Dwest",
        "labelSelector=region%3D%3Dwest,tier",
        "labelSelector=region,region!%3Dwest",
        "labelSelector=region+in+(west,north),tier+notin+(b)",
        "labelSelector=region,!tier",
        "labelSelector=nothing%3Dat-all",
        "fieldSelector=metadata.name%3Doslo",
        "fieldSelector=metadata.name!%3Doslo&labelSelector=tier",
        "fieldSelector=metadata.name%3Doslo,metadata.namespace%3Delsewhere",
    ];
    let refused = ["labelSelector=a+b+c", "labelSelector=%3D%3D", "fieldSelector=spec.appleId%3Dx", "fieldSelector=x"];
    let taken = taken.into_iter().map(|query| get(format!("{TOKENS}?{query}")).into());
    taken.chain(refused.into_iter().map(|query| get(format!("{TOKENS}?{query}")).refused(400).into())).collect()
}

fn versions() -> Vec<Step> {
    let oslo = format!("{TOKENS}/oslo");
    let list = |of: &str, more: &str| {
        let version = format!("resourceVersion=$({of}/metadata/resourceVersion)");
        get(format!("{TOKENS}?labelSelector=tier%3Db&{version}{more}")).into()
    };
    vec![
        get(format!("{TOKENS}?fieldSelector=metadata.name%3Doslo")).remembered("before").into(),
        merge(&oslo, json!({ "spec": { "countryOrRegion": "no" } })).remembered("oslo").into(),
        get(format!("{oslo}?resourceVersion=$(oslo/metadata/resourceVersion)")).into(),
        get(format!("{oslo}?resourceVersion=x")).refused(500).into(),
        get(format!("{oslo}?resourceVersion=999999999")).refused(504).into(),
        list("before", "&resourceVersionMatch=Exact"),
        list("oslo", "&resourceVersionMatch=NotOlderThan"),
        list("oslo", ""),
        get(format!("{TOKENS}?resourceVersionMatch=Exact")).refused(422).into(),
        get(format!("{TOKENS}?resourceVersion=0&resourceVersionMatch=Exact")).refused(422).into(),
        get(format!("{TOKENS}?resourceVersion=5&resourceVersionMatch=Nearly")).refused(422).into(),
        get(format!("{TOKENS}?sendInitialEvents=true")).refused(422).into(),
        get(format!("{TOKENS}?resourceVersion=x")).refused(400).into(),
        get(format!("{TOKENS}?resourceVersion=999999999")).refused(504).into(),
    ]
}

fn partial() -> Vec<Step> {
    vec![
        get(format!("{TOKENS}/oslo")).partial(PARTIAL).into(),
        get(format!("{TOKENS}/gone")).partial(PARTIAL).refused(404).into(),
        get(format!("{SECRETS}/berlin-vpp")).partial(PARTIAL).into(),
        get(format!("{SECRETS}?limit=1")).partial(PARTIAL_LIST).into(),
        get(format!("{TOKENS}?labelSelector=tier")).partial(PARTIAL_LIST).into(),
        merge(format!("{TOKENS}/oslo"), json!({ "metadata": { "annotations": { "a": "b" } } })).partial(PARTIAL).into(),
        // The cache that answers this may be behind.
        get(format!("{TOKENS}/oslo?resourceVersion=0")).until("/metadata/annotations/a", "b").into(),
    ]
}
