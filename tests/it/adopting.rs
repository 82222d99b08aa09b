//! What Graph has already is taken over, and nothing is written for that: after a restore that lost the status, in a
//! cluster that was built anew. Where it is not certain that it is the same, it stops and says which one it may be.

use graph_emulator::{NewEntity, Operation, sha256};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, RENEWED, STALLED, Second, Setup, World, condition, row, through};

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

    // The whole object went, and comes back without its status.
    let kept = backup(&world.get("vpptoken", "berlin").await);
    world.delete("berlin").await;
    world.wait_gone("berlin").await;
    world.apply(&kept).await;
    world.wait_event("berlin", "Adopted").await;
    // The object stayed, and its status was emptied while nobody looked.
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
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    let id = world.wait_synced("berlin").await.token_id.unwrap();
    let kept = backup(&world.get("vpptoken", "berlin").await);
    world.delete("berlin").await;
    world.wait_gone("berlin").await;
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &renewed.text()).await;
    world.emulator.clear_requests();
    world.apply(&kept).await;

    let status = world.wait_reason("berlin", "SimilarTokenExists").await;
    assert_eq!(row(&status), STALLED);
    let said = condition(&status, ConditionType::Ready).message;
    for part in [id.as_str(), EXPIRES.as_str(), "tokenId", "creationPolicy: Always"] {
        assert!(said.contains(part), "{part}: {said}");
    }
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
    let entities = world.entities();
    assert_eq!(entities.len(), 1);
    assert_eq!((entities[0].uploads, entities[0].token_sha256.clone()), (2, Some(sha256(&renewed.text()))));
    world.finish().await;
}

/// The manifests come from Git, the Secrets from wherever they are kept; the statuses and the old cluster are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_cluster_takes_over_all_its_tokens_without_a_write() {
    let world = World::new().await;
    let names = ["berlin", "munich", "hamburg"];
    let settings = [
        json!({}),
        json!({ "countryOrRegion": "DE", "automaticallyUpdateApps": true, "deletionPolicy": "Delete" }),
        // Only the file tells these two apart.
        json!({ "appleId": "vpp.munich@contoso.example", "creationPolicy": "Always", "vppTokenAccountType": "education" }),
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
    // Even who wants another one beside a similar one does not get a third of the same.
    world.create("berlin", &file, json!({ "creationPolicy": "Always" })).await;
    let status = world.wait_reason("berlin", "AmbiguousMatch").await;
    assert_eq!(row(&status), STALLED);
    let said = condition(&status, ConditionType::Ready).message;
    for part in [first.id.as_str(), second.id.as_str(), EXPIRES.as_str(), "tokenId"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    world.wait_events("berlin", &["AmbiguousMatch"]).await;

    world.patch("berlin", json!({ "spec": { "tokenId": second.id } })).await;
    let status = world.wait_synced("berlin").await;
    assert_eq!((row(&status), status.token_id.as_ref()), (READY, Some(&second.id)));
    assert_eq!(world.entities().len(), 2);
    assert_eq!(world.emulator.entity(&world.tenant_id, &first.id), Some(first));
    assert_eq!(world.emulator.count(Operation::Create), 0);
    world.finish().await;
}

/// A wrong id never leads to a new token beside the one that was meant, nor to one of somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_id_that_this_tenant_does_not_have_or_has_no_more_is_said_and_nothing_is_created() {
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
    let file = world.token("Contoso", &EXPIRES);
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
        let said = condition(&status, ConditionType::Ready).message;
        assert!(said.contains(id.as_str()), "{name}: {said}");
    }
    // One that has a token, and is told to have another one.
    world.patch("has-one", json!({ "spec": { "tokenId": foreign.id } })).await;
    let status = world.wait_reason("has-one", "AlreadyBound").await;
    assert_eq!((row(&status), status.token_id.as_ref()), (STALLED, Some(&own)));
    world.wait_lists(4).await;
    assert_eq!(world.written(), []);
    assert_eq!(world.entities().len(), 1);
    assert_eq!(world.emulator.entity(&second.tenant_id, &foreign.id), Some(foreign));
    world.finish().await;
}
