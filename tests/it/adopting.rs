//! Tokens that Graph already has are taken over without a write: after a restore that lost the status, or in a cluster
//! that was rebuilt. If it is not certain that a token is the same, it stalls and names the tokens that it may be.

use graph_emulator::{NewEntity, Operation, sha256};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, RENEWED, STALLED, Second, Setup, World, condition, in_days, row, through};

/// What a backup keeps of an object: no status, and nothing that the API server adds.
fn backup(object: &Value) -> Value {
    let mut kept = object.clone();
    kept["metadata"] = json!({ "name": object["metadata"]["name"], "labels": object["metadata"]["labels"] });
    kept.as_object_mut().unwrap().remove("status");
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_lost_in_a_restore_takes_the_same_token_over_without_a_write() {
    let world = World::new().await;
    let settings = json!({ "countryOrRegion": "de", "automaticallyUpdateApps": true });
    for name in ["berlin", "munich"] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, settings.clone()).await;
        world.wait_synced(name).await;
    }
    let before = [world.status("berlin").await, world.status("munich").await];
    world.emulator.clear_requests();

    // The whole object was deleted, and is restored without its status.
    let kept = backup(&world.get("vpptoken", "berlin").await);
    world.delete("berlin").await;
    world.wait_deleted("berlin").await;
    world.apply(&kept).await;
    world.wait_event("berlin", "Adopted").await;
    // The object stayed, and its status was emptied while no operator ran.
    world.operator.kill();
    let emptied = Patch::Merge(json!({ "status": null }));
    world.tokens().patch_status("munich", &PatchParams::default(), &emptied).await.unwrap();
    world.operator.start().await;

    for (name, before) in ["berlin", "munich"].into_iter().zip(before) {
        let status = world.wait_synced(name).await;
        assert_eq!(row(&status), READY, "{name}");
        assert_eq!(status.token_id, before.token_id, "{name}");
        let digest = |status: &vpptoken_operator::api::VppTokenStatus| status.uploaded.clone().map(|file| file.sha256);
        assert_eq!(digest(&status), digest(&before), "{name}");
        world.wait_events(name, &["Created", "Adopted"]).await;
    }
    world.wait_lists(2).await;
    assert_eq!(world.written(), [], "nothing had to be written");
    assert_eq!(world.entities().len(), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_renewed_while_the_status_was_lost_stops_and_a_token_id_brings_it_onto_the_same_token() {
    let world = World::new().await;
    // It was created beside another location, which the manifest still lists.
    let other = world.by_hand("berlin", &in_days(100));
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "distinctFrom": [other.id.to_uppercase()] })).await;
    let id = world.wait_synced("berlin").await.token_id.unwrap();
    let kept = backup(&world.get("vpptoken", "berlin").await);
    world.delete("berlin").await;
    world.wait_deleted("berlin").await;
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &renewed.text()).await;
    world.emulator.clear_requests();
    world.apply(&kept).await;

    let status = world.wait_reason("berlin", "SimilarTokenExists").await;
    assert_eq!(row(&status), STALLED);
    let report = condition(&status, ConditionType::Ready).message;
    for part in [id.as_str(), EXPIRES.as_str(), "tokenId", "distinctFrom"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(!report.contains(&other.id), "{report}");
    assert_eq!((status.token_id, status.pending_create), (None, None));
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);

    world.patch("berlin", json!({ "spec": { "tokenId": id } })).await;
    let status = world
        .wait_status("berlin", "renewed and synced", |status| {
            row(status) == READY
                && status.last_sync_status.as_deref() == Some("completed")
                && status.uploaded.as_ref().is_some_and(|file| status.last_sync_date_time >= Some(file.time))
        })
        .await;
    assert_eq!(status.token_id.as_ref(), Some(&id));
    assert_eq!(status.expiration_date_time, Some(renewed.expires()));
    world.wait_lists(1).await;
    let to_it = |operation| (operation, Some(id.clone()));
    assert_eq!(world.written(), [to_it(Operation::Update), to_it(Operation::SyncLicenses)]);
    assert_eq!(world.patched(), [["token"]]);
    assert_eq!(world.entities().len(), 2);
    assert_eq!(world.emulator.entity(&world.tenant_id, &other.id), Some(other));
    let entity = world.entity("berlin").await;
    assert_eq!((entity.uploads, entity.token_sha256), (2, Some(sha256(&renewed.text()))));
    world.finish().await;
}

/// The manifests come from Git, the Secrets from a backup; the statuses and the old cluster are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_cluster_takes_over_all_its_tokens_without_a_write() {
    let world = World::new().await;
    let names = ["berlin", "munich", "hamburg"];
    // A location that people manage by hand, with the Apple ID of two others.
    let other = world.by_hand("munich", &in_days(100));
    let distinct = json!([other.id]);
    let settings = [
        json!({}),
        json!({ "countryOrRegion": "DE", "automaticallyUpdateApps": true, "deletionPolicy": "Delete", "distinctFrom": distinct }),
        // Only the file tells these two apart.
        json!({ "appleId": "vpp.munich@contoso.example", "vppTokenAccountType": "education", "distinctFrom": distinct }),
    ];
    for ((name, more), expires) in names.into_iter().zip(settings).zip([&EXPIRES, &EXPIRES, &RENEWED]) {
        let file = world.token("Contoso", expires);
        world.create(name, &file, more).await;
        world.wait_synced(name).await;
    }
    let mut kept = Vec::new();
    let mut ids = Vec::new();
    for name in names {
        kept.push(backup(&world.get("secret", name).await));
        kept.push(backup(&world.get("vpptoken", name).await));
        ids.push(world.status(name).await.token_id);
    }
    let before = world.entities();

    let world = world.rebuilt(Setup::default()).await;
    world.emulator.clear_requests();
    for mut object in kept {
        if object["kind"] == "VppToken" {
            // The chart gives the tenant object the name of the test's namespace.
            object["spec"]["tenantRef"]["name"] = json!(world.tenant);
        }
        world.apply(&object).await;
    }
    for (name, id) in names.into_iter().zip(ids) {
        let status = world.wait_synced(name).await;
        assert_eq!((row(&status), &status.token_id), (READY, &id), "{name}");
        world.wait_events(name, &["Adopted"]).await;
    }
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    assert_eq!(world.entities(), before);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_exact_matches_stop_until_a_token_id_says_which() {
    let world = World::new().await;
    let (first, second) = (world.by_hand("berlin", &EXPIRES), world.by_hand("berlin", &EXPIRES));
    let file = world.token("Contoso", &EXPIRES);
    // A token of another location is not confused with it, though it expires in the same second.
    let other = world.by_hand("berlin", &EXPIRES);
    world.create("berlin", &file, json!({ "distinctFrom": [other.id] })).await;
    let status = world.wait_reason("berlin", "AmbiguousMatch").await;
    assert_eq!(row(&status), STALLED);
    let report = condition(&status, ConditionType::Ready).message;
    for part in [first.id.as_str(), second.id.as_str(), EXPIRES.as_str(), "tokenId", "distinctFrom"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(!report.contains(&other.id), "{report}");
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    world.wait_events("berlin", &["AmbiguousMatch"]).await;

    world.patch("berlin", json!({ "spec": { "tokenId": second.id } })).await;
    let status = world.wait_synced("berlin").await;
    assert_eq!((row(&status), status.token_id.as_ref()), (READY, Some(&second.id)));
    assert_eq!(world.entities().len(), 3);
    assert_eq!(world.emulator.entity(&world.tenant_id, &first.id), Some(first));
    assert_eq!(world.emulator.count(Operation::Create), 0);
    world.finish().await;
}

/// The file and the organization are those of a token that Intune has under another Apple ID.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_apple_id_makes_no_second_token_and_once_corrected_the_token_is_taken_over() {
    let world = World::new().await;
    let there = world.by_hand("berlin", &EXPIRES);
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "appleId": "vpp.berlln@contoso.example" })).await;
    let status = world.wait_reason("berlin", "SimilarTokenExists").await;
    assert_eq!(row(&status), STALLED);
    let report = condition(&status, ConditionType::Ready).message;
    for part in [there.id.as_str(), "vpp.berlin@contoso.example", "vpp.berlln@contoso.example", "mistyped"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    assert_eq!(world.entities(), std::slice::from_ref(&there));

    world.patch("berlin", json!({ "spec": { "appleId": "vpp.berlin@contoso.example" } })).await;
    let status = world.wait_synced("berlin").await;
    assert_eq!((row(&status), status.token_id.as_ref()), (READY, Some(&there.id)));
    world.wait_events("berlin", &["SimilarTokenExists", "Adopted"]).await;
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}

/// Graph shows no difference between their tokens, except for the ids.
#[tokio::test(flavor = "multi_thread")]
async fn two_locations_whose_files_expire_in_the_same_second_have_a_token_each_also_in_a_rebuilt_cluster() {
    let world = World::new().await;
    let same = json!({ "appleId": "vpp@contoso.example" });
    let (berlin, munich) = (world.token("Contoso", &EXPIRES), world.token("Contoso", &EXPIRES));
    world.create("berlin", &berlin, same.clone()).await;
    let of_berlin = world.wait_synced("berlin").await.token_id.unwrap();
    world.create("munich", &munich, same).await;
    let status = world.wait_reason("munich", "ClaimedByAnother").await;
    assert_eq!(row(&status), STALLED);
    let report = condition(&status, ConditionType::Ready).message;
    for part in ["VppToken \"berlin\" in this namespace", &of_berlin, "distinctFrom"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    world.patch("munich", json!({ "spec": { "distinctFrom": [of_berlin] } })).await;
    let of_munich = world.wait_synced("munich").await.token_id.unwrap();
    assert_ne!(of_munich, of_berlin);
    assert_eq!(world.entities().len(), 2);
    assert_eq!(world.entity("munich").await.token_sha256, Some(sha256(&munich.text())));
    let mut kept = Vec::new();
    for name in ["berlin", "munich"] {
        kept.push((name, backup(&world.get("secret", name).await), backup(&world.get("vpptoken", name).await)));
    }

    let world = world.rebuilt(Setup::default()).await;
    world.emulator.clear_requests();
    for ((name, secret, mut token), reason) in kept.into_iter().zip(["AmbiguousMatch", "UpToDate"]) {
        token["spec"]["tenantRef"]["name"] = json!(world.tenant);
        world.apply(&secret).await;
        world.apply(&token).await;
        world.wait_reason(name, reason).await;
    }
    // Once the other one has its token, there is no doubt any more.
    for (name, id) in [("berlin", of_berlin), ("munich", of_munich)] {
        let status = world.wait_synced(name).await;
        assert_eq!((row(&status), &status.token_id), (READY, &Some(id)), "{name}");
    }
    world.wait_events("berlin", &["AmbiguousMatch", "Adopted"]).await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    assert_eq!(world.entities().len(), 2);
    world.finish().await;
}

/// A wrong id never leads to a new token beside the intended one, nor to a token of somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_id_that_this_tenant_does_not_have_or_has_no_more_is_reported_and_nothing_is_created() {
    let world = World::new().await;
    let second = Second::make(&world, "second").await;
    let foreign = NewEntity {
        organization_name: Some("Contoso".to_owned()),
        expiration_date_time: Some(EXPIRES.parse().unwrap()),
        apple_id: Some("vpp.foreign@contoso.example".to_owned()),
        ..NewEntity::default()
    };
    let foreign = world.emulator.create_by_hand(&second.tenant_id, foreign);
    let bound = world.by_hand("bound", &EXPIRES);
    let file = world.token("Contoso", &EXPIRES);
    world.create("bound", &file, json!({ "tokenId": bound.id })).await;
    world.wait_synced("bound").await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("has-one", &file, json!({})).await;
    let own = world.wait_synced("has-one").await.token_id.unwrap();
    // Somebody uses the second tenant too, so that its tokens are known.
    let file = world.token("Contoso", &in_days(100));
    world.create("beside", &file, through("second")).await;
    world.wait_synced("beside").await;
    world.emulator.clear_requests();

    // The id of another tenant.
    let file = world.token("Contoso", &RENEWED);
    world.create("foreign", &file, json!({ "tokenId": foreign.id })).await;
    // One that was there: deleted in the portal.
    assert!(world.emulator.remove(&world.tenant_id, &bound.id));
    for (name, id) in [("foreign", &foreign.id), ("bound", &bound.id)] {
        let status = world.wait_reason(name, "TokenNotFound").await;
        assert_eq!((row(&status), &status.token_id), (STALLED, &None), "{name}");
        let report = condition(&status, ConditionType::Ready).message;
        assert!(report.contains(id.as_str()), "{name}: {report}");
    }
    // It has a token, and its manifest names another one.
    world.patch("has-one", json!({ "spec": { "tokenId": foreign.id } })).await;
    let status = world.wait_reason("has-one", "AlreadyBound").await;
    assert_eq!((row(&status), status.token_id.as_ref()), (STALLED, Some(&own)));
    world.wait_lists(4).await;
    assert_eq!(world.written(), []);
    assert_eq!(world.entities().len(), 1);
    assert_eq!(world.emulator.entity(&second.tenant_id, &foreign.id), Some(foreign));
    world.finish().await;
}
