//! Several namespaces, and watches that lost their place.

use graph_emulator::{Operation, sha256};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;

use crate::support::{EXPIRES, LIMIT, Plane, READY, RECONCILING, RENEWED, STALLED, Setup, World, in_days, row, until};

fn has_file(status: &VppTokenStatus, digest: &str) -> bool {
    row(status) == READY && status.uploaded.as_ref().is_some_and(|uploaded| uploaded.sha256 == digest)
}

/// The chart's RoleBinding is lost in one of two watched namespaces, as when the namespace was deleted and made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_watched_namespace_that_may_not_be_read_stops_no_other_and_comes_back() {
    let world = World::with(Setup { elsewhere: true, ..Setup::default() }).await;
    for name in ["berlin", "elsewhere/munich"] {
        world.create(name, &world.token("Contoso", &EXPIRES), json!({})).await;
        world.wait_synced(name).await;
    }
    let bindings: Api<RoleBinding> = Api::namespaced(world.client.clone(), &world.elsewhere);
    let saved = bindings.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(saved.len(), 1);
    let name = saved[0].metadata.name.clone().unwrap();
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    world.operator.kill();
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("elsewhere/munich", "token", &renewed.text()).await;
    world.operator.start().await;

    // It is ready, its own namespace goes on, and it reports once what is wrong.
    world.write_secret("berlin", "token", &world.token("Contoso", &RENEWED).text()).await;
    world.wait_graph("the renewal of berlin", |seen| seen.entities(&world.tenant_id)[0].uploads == 2).await;
    world.create("oslo", &world.token("Contoso", &EXPIRES), json!({})).await;
    let status = world.wait_reason("oslo", "NamespaceNotRead").await;
    assert_eq!(row(&status), RECONCILING);
    let label = |kind: &str| format!("{{kind=\"{kind}\",namespace=\"{}\"}}", world.elsewhere);
    let failures = async || {
        let metrics = world.operator.metrics().await;
        let start = format!("vpptoken_watch_failures_total{} ", label("VppTokens"));
        metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u32>().ok()).unwrap_or_default()
    };
    assert!(until(LIMIT, || async { failures().await >= 3 }).await, "{}", world.operator.metrics().await);
    let metrics = world.operator.metrics().await;
    assert!(metrics.contains(&format!("vpptoken_watch_up{} 0\n", label("VppTokens"))), "{metrics}");
    let log = world.operator.log();
    let of_it = |line: &&str| line.contains("a watch failed") && line.contains(&world.elsewhere);
    let report = log.lines().filter(of_it).filter(|line| line.contains("\"VppTokens\"")).count();
    assert_eq!(report, 1, "{log}");
    assert!(!log.contains("watch list error with 403"), "each try is logged:\n{log}");
    assert_eq!(world.entities().len(), 2);

    let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
    bindings.create(&PostParams::default(), &RoleBinding { metadata, ..saved[0].clone() }).await.unwrap();
    let digest = sha256(&renewed.text());
    world.wait_status("elsewhere/munich", "renewed", |status| has_file(status, &digest)).await;
    world.wait_synced("oslo").await;
    assert_eq!(world.entities().len(), 3);
    let metrics = world.operator.metrics().await;
    assert!(metrics.contains(&format!("vpptoken_watch_up{} 1\n", label("VppTokens"))), "{metrics}");
    world.finish().await;
}

/// Two namespaces with objects and Secrets of the same names. The tenant is listed once an hour, so that only the watch
/// of the namespace in which something happens can trigger a reconcile.
#[tokio::test(flavor = "multi_thread")]
async fn in_two_watched_namespaces_what_happens_in_one_triggers_its_own() {
    let world = World::with(Setup { poll_interval: "1h", elsewhere: true, ..Setup::default() }).await;
    let names = ["berlin", "elsewhere/berlin"];
    for name in names {
        let file = world.token("Contoso", &EXPIRES);
        let (namespace, _) = world.place(name);
        world.create(name, &file, json!({ "appleId": format!("vpp@{namespace}.example") })).await;
        world.wait_synced(name).await;
    }
    let ids = [world.entity(names[0]).await.id, world.entity(names[1]).await.id];
    assert_ne!(ids[0], ids[1]);
    for (name, id) in names.into_iter().zip(&ids) {
        let file = world.token("Contoso", &RENEWED);
        world.emulator.clear_requests();
        let to_it = |operation| (operation, Some(id.clone()));
        // A Secret.
        world.write_secret(name, "token", &file.text()).await;
        let digest = sha256(&file.text());
        world
            .wait_status(name, "renewed and synced", |status| {
                has_file(status, &digest)
                    && status.last_sync_status.as_deref() == Some("completed")
                    && status.last_sync_date_time >= status.uploaded.as_ref().map(|file| file.time)
            })
            .await;
        assert_eq!(world.written(), [to_it(Operation::Update), to_it(Operation::SyncLicenses)], "{name}");
        // A manifest, and an annotation.
        world.patch(name, json!({ "spec": { "countryOrRegion": "de" } })).await;
        world.wait_status(name, "changed", |status| status.country_or_region.as_deref() == Some("de")).await;
        world.request_sync(name, "now").await;
        world.wait_status(name, "acknowledged", |status| status.last_handled_sync_request.is_some()).await;
        let all = [Operation::Update, Operation::SyncLicenses, Operation::Update, Operation::SyncLicenses];
        assert_eq!(world.written(), all.map(to_it), "{name}");
    }
    // Deleting one leaves the other of its name alone.
    world.patch("elsewhere/berlin", json!({ "spec": { "deletionPolicy": "Delete" } })).await;
    world
        .wait_status("elsewhere/berlin", "ready to be deleted", |status| {
            row(status) == READY && status.observed_generation == Some(3)
        })
        .await;
    world.delete("elsewhere/berlin").await;
    world.wait_deleted("elsewhere/berlin").await;
    let left: Vec<String> = world.entities().into_iter().map(|entity| entity.id).collect();
    assert_eq!(left, ids[..1]);
    assert_eq!(row(&world.wait_ready("berlin").await), READY);
    world.finish().await;
}

/// The operator is paused, and the API server forgets what happened meanwhile: the watches get "410 Gone", and begin
/// again with a list.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_lost_their_place_miss_nothing_that_happened_meanwhile() {
    let plane = Plane::own().await;
    let world = World::on(plane.clone(), Setup { poll_interval: "1h", ..Setup::default() }).await;
    let there = world.by_hand("bare", &in_days(100));
    let same = json!({ "appleId": "vpp@contoso.example" });
    let file = world.token("Contoso", &EXPIRES);
    world.create("owner", &file, same.clone()).await;
    let id = world.wait_synced("owner").await.token_id.unwrap();
    world.create("heir", &file, same).await;
    assert_eq!(row(&world.wait_reason("heir", "ClaimedByAnother").await), STALLED);
    for name in ["renewed", "changed", "namesake", "secretless"] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, json!({})).await;
        world.wait_synced(name).await;
    }
    let namesake = world.entity("namesake").await.id;
    // One without a Secret, which only its own watch can report.
    let bare = json!({
        "managementPolicy": "Observe", "tokenId": there.id, "appleId": null, "tokenSecretRef": null,
    });
    world.create_token("bare", bare).await;
    world.wait_ready("bare").await;
    world.emulator.clear_requests();

    world.operator.pause();
    // That ends its watches; and an API server that has just started knows of no change before its start.
    plane.stop_api_server().await;
    plane.start_api_server().await;
    world.delete("owner").await;
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("renewed", "token", &renewed.text()).await;
    world.patch("changed", json!({ "spec": { "countryOrRegion": "de" } })).await;
    world.request_sync("changed", "now").await;
    world.request_sync("bare", "now").await;
    world.remove_secret("secretless").await;
    // One is deleted, and another one gets its name.
    world.delete("namesake").await;
    world.wait_deleted("namesake").await;
    world.create_token("namesake", json!({})).await;
    let new = world.token("Contoso", &in_days(300));
    world.create("new", &new, json!({})).await;
    world.operator.resume();

    world.wait_status("heir", "the owner", |status| status.token_id.as_ref() == Some(&id)).await;
    let digest = sha256(&renewed.text());
    world.wait_status("renewed", "renewed", |status| has_file(status, &digest)).await;
    world
        .wait_status("changed", "changed and synced", |status| {
            status.country_or_region.as_deref() == Some("de")
                && status.last_handled_sync_request.as_deref() == Some("now")
        })
        .await;
    world
        .wait_status("bare", "acknowledged", |status| status.last_handled_sync_request.as_deref() == Some("now"))
        .await;
    world.wait_reason("secretless", "SecretNotFound").await;
    let status = world.wait_ready("namesake").await;
    assert_eq!(status.token_id.as_ref(), Some(&namesake));
    world.wait_synced("new").await;
    let log = world.operator.log();
    for watch in ["VppTokens", "Secrets"] {
        let lost = |line: &&str| line.contains("too old resource version") && line.contains(watch);
        assert!(log.lines().any(|line| lost(&line)), "{watch} did not lose its place\n{log}");
    }
    assert_eq!(world.emulator.count(Operation::Create), 1, "{:#?}", world.emulator.requests());
    assert_eq!(world.entities().len(), 7);
    world.finish().await;
    plane.shutdown().await;
}
