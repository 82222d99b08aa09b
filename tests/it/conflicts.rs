//! One token in Graph has one VppToken, in whichever namespaces the others are. They report that without naming objects
//! of other namespaces, and take over when the owner is deleted.

use graph_emulator::{Operation, sha256};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, RENEWED, STALLED, Setup, World, condition, in_days, row};

async fn world() -> World {
    World::with(Setup { elsewhere: true, ..Setup::default() }).await
}

/// It is stalled because another one of its namespace has the token, and names it.
async fn is_stalled_by(world: &World, name: &str, id: &str, owner: &str) {
    let status = world.wait_reason(name, "ClaimedByAnother").await;
    let report = condition(&status, ConditionType::Ready).message;
    let owner = format!("VppToken \"{owner}\" in this namespace");
    assert!(report.contains(id) && report.contains(&owner), "{report}");
}

/// It is stalled because another one has the token, and names neither that one nor its namespace.
async fn is_stalled(world: &World, name: &str, id: &str, of_others: &[&str]) {
    let status = world.wait_reason(name, "ClaimedByAnother").await;
    assert_eq!(row(&status), STALLED, "{name}");
    let report = condition(&status, ConditionType::Ready).message;
    assert!(report.contains(id), "{name}: {report}");
    world.wait_event(name, "ClaimedByAnother").await;
    let mut shown: Vec<String> = world.event_notes(name).await.into_iter().map(|(_, note)| note).collect();
    shown.extend(status.conditions.into_iter().map(|condition| condition.message));
    for text in shown {
        for other in of_others {
            assert!(!text.contains(other), "{name} names {other}: {text}");
        }
    }
}

fn has(status: &VppTokenStatus, id: &str) -> bool {
    row(status) == READY && status.token_id.as_deref() == Some(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_same_file_in_two_namespaces_one_has_the_token_and_the_other_takes_over_when_it_is_deleted() {
    let world = world().await;
    let same = json!({ "appleId": "vpp@contoso.example", "countryOrRegion": "de" });
    let file = world.token("Contoso", &EXPIRES);
    world.create("owner-of-it", &file, same.clone()).await;
    let id = world.wait_synced("owner-of-it").await.token_id.unwrap();
    world.emulator.clear_requests();
    world.create("elsewhere/paris", &file, same.clone()).await;
    world.create("rome", &file, same).await;
    is_stalled(&world, "elsewhere/paris", &id, &[&world.namespace, "owner-of-it", "rome"]).await;
    is_stalled(&world, "rome", &id, &[&world.elsewhere, "paris"]).await;
    is_stalled_by(&world, "rome", &id, "owner-of-it").await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);

    // The owner is deleted, and leaves the token: exactly one of the two has it then.
    world.delete("owner-of-it").await;
    world.wait_deleted("owner-of-it").await;
    let rome = async {
        world.wait_status("rome", "decided", |status| status.token_id.is_some() || row(status) == STALLED).await
    };
    rome.await;
    let has_it = crate::support::until(crate::support::LIMIT, || async {
        has(&world.status("rome").await, &id) || has(&world.status("elsewhere/paris").await, &id)
    })
    .await;
    assert!(has_it, "nobody took over\n{}", world.operator.log_end());
    let (first, second) = match has(&world.status("rome").await, &id) {
        true => ("rome", "elsewhere/paris"),
        false => ("elsewhere/paris", "rome"),
    };
    world.wait_events(first, &["ClaimedByAnother", "Adopted"]).await;
    let (namespace, name) = world.place(first);
    is_stalled(&world, second, &id, &[namespace, name]).await;
    world.delete(first).await;
    world.wait_deleted(first).await;
    world.wait_status(second, "the owner", |status| has(status, &id)).await;
    world.wait_events(second, &["ClaimedByAnother", "Adopted"]).await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), [], "whoever has it has nothing to write");
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_same_token_id_in_two_namespaces_one_has_the_token_and_the_other_takes_over_when_it_is_deleted() {
    let world = world().await;
    let there = world.by_hand("there", &EXPIRES);
    let by_id = json!({ "tokenId": there.id, "appleId": "vpp.there@contoso.example" });
    let (first, second) = (world.token("Contoso", &EXPIRES), world.token("Contoso", &RENEWED));
    world.create("owner-of-it", &first, by_id.clone()).await;
    world.wait_synced("owner-of-it").await;
    world.emulator.clear_requests();
    // In another case, as people copy ids.
    let mut shouted = by_id.clone();
    shouted["tokenId"] = json!(there.id.to_uppercase());
    world.create("elsewhere/paris", &second, shouted).await;
    is_stalled(&world, "elsewhere/paris", &there.id, &[&world.namespace, "owner-of-it"]).await;
    // By its file, in the same namespace.
    world.create("rome", &first, json!({ "appleId": "vpp.there@contoso.example" })).await;
    is_stalled(&world, "rome", &there.id, &[&world.elsewhere, "paris"]).await;
    is_stalled_by(&world, "rome", &there.id, "owner-of-it").await;
    world.delete("rome").await;
    world.wait_deleted("rome").await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);

    world.delete("owner-of-it").await;
    world.wait_deleted("owner-of-it").await;
    let digest = sha256(&second.text());
    world
        .wait_status("elsewhere/paris", "the owner, with its own file, synced", |status| {
            has(status, &there.id)
                && status.last_sync_status.as_deref() == Some("completed")
                && status
                    .uploaded
                    .as_ref()
                    .is_some_and(|file| file.sha256 == digest && status.last_sync_date_time >= Some(file.time))
        })
        .await;
    world.wait_lists(1).await;
    let to_it = |operation| (operation, Some(there.id.clone()));
    assert_eq!(world.written(), [to_it(Operation::Update), to_it(Operation::SyncLicenses)]);
    assert_eq!(world.patched(), [["token"]]);
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}

/// Two statuses with one id, as a careless restore makes them: the elder has the token, and writes go to it from nobody
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_statuses_with_one_id_the_elder_has_the_token() {
    let world = world().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("elder", &file, json!({ "countryOrRegion": "de" })).await;
    let elder = world.wait_synced("elder").await;
    world.operator.kill();
    let id = elder.token_id.clone().unwrap();
    let other = world.token("Contoso", &RENEWED);
    // Creation times have whole seconds: the second one is younger for certain.
    let created = world.tokens().get("elder").await.unwrap().metadata.creation_timestamp.unwrap().0;
    let is_later = crate::support::until(crate::support::LIMIT, || async {
        jiff::Timestamp::now().as_second() > created.as_second()
    })
    .await;
    assert!(is_later);
    let more = json!({ "appleId": "vpp.elder@contoso.example", "countryOrRegion": "fr" });
    world.create("elsewhere/younger", &other, more).await;
    let (tokens, name) = world.at("elsewhere/younger");
    let restored = json!({ "status": serde_json::to_value(&elder).unwrap() });
    tokens.patch_status(name, &PatchParams::default(), &Patch::Merge(restored)).await.unwrap();
    world.emulator.clear_requests();
    world.operator.start().await;
    is_stalled(&world, "elsewhere/younger", &id, &[&world.namespace, "elder"]).await;
    world.request_sync("elsewhere/younger", "now").await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    assert!(has(&world.wait_ready("elder").await, &id));
    // The elder is deleted: what the younger asks for is due now.
    world.delete("elder").await;
    world
        .wait_status("elsewhere/younger", "the owner", |status| {
            has(status, &id)
                && status.country_or_region.as_deref() == Some("fr")
                && status.last_handled_sync_request.as_deref() == Some("now")
        })
        .await;
    assert_eq!(world.patched(), [["token"], ["countryOrRegion"]]);
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}

/// Two files of one location, renewed one after the other, are still of one location.
#[tokio::test(flavor = "multi_thread")]
async fn with_one_file_that_is_renewed_in_both_secrets_there_is_one_token_and_the_other_takes_over_by_the_file_it_has()
{
    let world = World::new().await;
    let same = json!({ "appleId": "vpp@contoso.example" });
    let file = world.token("Contoso", &EXPIRES);
    world.create("owner", &file, same.clone()).await;
    let id = world.wait_synced("owner").await.token_id.unwrap();
    world.create("heir", &file, same).await;
    is_stalled(&world, "heir", &id, &[]).await;
    world.emulator.clear_requests();
    let renewed_with = |name: &'static str, digest: String| {
        let world = &world;
        async move {
            world
                .wait_status(name, "renewed and synced", |status| {
                    row(status) == READY
                        && status.last_sync_status.as_deref() == Some("completed")
                        && status
                            .uploaded
                            .as_ref()
                            .is_some_and(|file| file.sha256 == digest && status.last_sync_date_time >= Some(file.time))
                })
                .await
        }
    };

    // First the owner's Secret: the other one has the old file.
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("owner", "token", &renewed.text()).await;
    renewed_with("owner", sha256(&renewed.text())).await;
    world.wait_lists(1).await;
    is_stalled(&world, "heir", &id, &[]).await;
    // Also in the memory of a process that starts now.
    world.operator.restart().await;
    world.wait_lists(2).await;
    is_stalled(&world, "heir", &id, &[]).await;
    world.write_secret("heir", "token", &renewed.text()).await;
    // Then the other one's: it has a file that Graph does not have yet.
    let newest = world.token("Contoso", &in_days(600));
    world.write_secret("heir", "token", &newest.text()).await;
    world.wait_lists(2).await;
    is_stalled(&world, "heir", &id, &[]).await;
    world.write_secret("owner", "token", &newest.text()).await;
    renewed_with("owner", sha256(&newest.text())).await;
    world.wait_lists(1).await;
    is_stalled(&world, "heir", &id, &[]).await;
    let to_it = |operation| (operation, Some(id.clone()));
    let renewal = [to_it(Operation::Update), to_it(Operation::SyncLicenses)];
    assert_eq!(world.written(), [renewal.clone(), renewal].concat());
    assert_eq!(world.patched(), [["token"], ["token"]]);

    // The owner is deleted. With an older file, the other one can't know whether that token is of its location.
    world.write_secret("heir", "token", &file.text()).await;
    world.wait_lists(1).await;
    world.emulator.clear_requests();
    world.delete("owner").await;
    world.wait_deleted("owner").await;
    let status = world.wait_reason("heir", "SimilarTokenExists").await;
    assert_eq!(row(&status), STALLED);
    let report = condition(&status, ConditionType::Ready).message;
    assert!(report.contains(&id) && report.contains("Set tokenId"), "{report}");
    world.wait_lists(2).await;
    // With the file that Graph has, it can.
    world.write_secret("heir", "token", &newest.text()).await;
    world.wait_status("heir", "the owner", |status| has(status, &id)).await;
    world.wait_events("heir", &["ClaimedByAnother", "SimilarTokenExists", "Adopted"]).await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), [], "there is nothing to write");
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}

/// A backup tool applies an old status: fields that the operator does not write are removed again, and others'
/// conditions stay.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_manager_restored_in_the_status_is_removed_again() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let before = world.entity("berlin").await;
    let condition_of = |type_: &str| {
        let time = "2026-01-01T00:00:00Z";
        json!({ "type": type_, "status": "True", "reason": "GraphRefused", "message": "Old.", "lastTransitionTime": time })
    };
    let old = json!({
        "apiVersion": "vpptoken.io/v1alpha1",
        "kind": "VppToken",
        "metadata": { "name": "berlin" },
        "status": {
            "conditions": [condition_of("Stalled"), condition_of("example.com/Backed-up")],
            "locationName": "Berlin",
            "pendingCreate": {
                "sha256": "old", "since": "2026-01-01T00:00:00Z", "appleId": "vpp.berlin@contoso.example",
                "organizationName": "Contoso", "expirationDateTime": "2026-01-01T00:00:00Z", "knownIds": [],
            },
        },
    });
    let restored = world
        .tokens()
        .patch_status("berlin", &PatchParams::apply("backup"), &Patch::Apply(old))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!((row(&restored), restored.pending_create.is_some()), (["True", "–", "True"], true));
    let mut changes = 0;
    let mut version = world.tokens().get("berlin").await.unwrap().metadata.resource_version;
    world.request_sync("berlin", "now").await;
    world
        .wait_status("berlin", "as it was, and synced", |status| {
            row(status) == READY
                && status.pending_create.is_none()
                && status.location_name.is_none()
                && status.last_handled_sync_request.is_some()
                && status.last_sync_status.as_deref() == Some("completed")
        })
        .await;
    // It stays so, without writes.
    for _ in 0..3 {
        world.wait_lists(1).await;
        let now = world.tokens().get("berlin").await.unwrap().metadata.resource_version;
        changes += i32::from(now != version);
        version = now;
    }
    assert!(changes <= 1, "it is written again and again");
    let status = world.status("berlin").await;
    let types: Vec<&str> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert!(types.contains(&"example.com/Backed-up"), "{types:?}");
    assert_eq!(world.entity("berlin").await.uploads, before.uploads);
    world.finish().await;
}
