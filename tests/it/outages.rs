//! Graph or the API server is down for half a minute and comes back: everything that was requested meanwhile is done,
//! by the same process, and nothing is done twice.

use std::time::Duration;

use graph_emulator::{Action, Fault, Operation, When};
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;

use crate::support::{LIMIT, Plane, Setup, World, is_ready};

/// How long the outage lasts: what is waited for here is the time itself.
const OUTAGE: Duration = Duration::from_secs(30);

fn synced_with(status: &VppTokenStatus, digest: &str) -> bool {
    let uploaded = status.uploaded.as_ref().filter(|uploaded| uploaded.sha256 == digest);
    is_ready(status)
        && status.last_sync_status.as_deref() == Some("completed")
        && uploaded.is_some_and(|uploaded| status.last_sync_date_time >= Some(uploaded.time))
}

/// The process that was there all the time.
struct Process {
    id: u32,
    starts: usize,
}

impl Process {
    fn of(world: &World) -> Self {
        Self { id: world.operator.process(), starts: world.operator.log().matches("vpptoken-operator starts").count() }
    }

    fn assert_is_still_there(&self, world: &World) {
        assert!(world.operator.is_running(), "it ended\n{}", world.operator.log_end());
        let now = Self::of(world);
        assert_eq!((now.id, now.starts), (self.id, self.starts), "it was restarted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_away_for_half_a_minute_and_back() {
    let world = World::new().await;
    let renewed = world.token("Contoso", "2098-01-21T08:00:00Z");
    for (name, expires) in
        [("berlin", "2097-01-22T17:32:07Z"), ("paris", "2097-02-03T04:05:06Z"), ("oslo", "2097-03-04T05:06:07Z")]
    {
        world.create(name, &world.token("Contoso", expires), json!({})).await;
        world.wait_synced(name).await;
    }
    let process = Process::of(&world);
    world.emulator.clear_requests();

    world.emulator.down().await.unwrap();
    let rome = world.token("Contoso", "2097-04-05T06:07:08Z");
    world.create("rome", &rome, json!({ "countryOrRegion": "it" })).await;
    world.write_secret("berlin", "token", &renewed.text()).await;
    world.request_sync("paris", "during the outage").await;
    world.patch("oslo", json!({ "spec": { "countryOrRegion": "no" } })).await;
    // The status of what is concerned shows it, and of nothing else.
    world.wait_reason("rome", "GraphUnavailable").await;
    world.wait_reason("berlin", "GraphUnavailable").await;
    tokio::time::sleep(OUTAGE).await;
    world.emulator.up().await.unwrap();

    let digest = graph_emulator::sha256(&rome.text());
    world.wait_status("rome", "created and synced", |status| synced_with(status, &digest)).await;
    let digest = graph_emulator::sha256(&renewed.text());
    world.wait_status("berlin", "renewed and synced", |status| synced_with(status, &digest)).await;
    world
        .wait_status("paris", "synced as requested", |status| {
            is_ready(status)
                && status.last_handled_sync_request.as_deref() == Some("during the outage")
                && status.last_sync_status.as_deref() == Some("completed")
        })
        .await;
    world
        .wait_status("oslo", "changed", |status| is_ready(status) && status.country_or_region.as_deref() == Some("no"))
        .await;
    process.assert_is_still_there(&world);
    let entities = world.entities();
    assert_eq!(entities.len(), 4, "{entities:#?}");
    let sent = |operation| world.emulator.count(operation);
    assert_eq!(
        (sent(Operation::Create), sent(Operation::Update), sent(Operation::SyncLicenses)),
        (1, 2, 3),
        "{:#?}",
        world.emulator.requests()
    );
    assert_eq!(sent(Operation::Delete), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_away_for_half_a_minute_and_back() {
    let plane = Plane::own().await;
    let world = World::on(plane.clone(), Setup::default()).await;
    let renewed = world.token("Contoso", "2098-01-21T08:00:00Z");
    for (name, expires) in [("berlin", "2097-01-22T17:32:07Z"), ("paris", "2097-02-03T04:05:06Z")] {
        let file = world.token("Contoso", expires);
        world.create(name, &file, json!({ "countryOrRegion": "de" })).await;
        world.wait_synced(name).await;
    }
    let process = Process::of(&world);
    world.emulator.clear_requests();

    // The API server is stopped while a create is in flight: its outcome can't be written.
    let create = world.emulator.inject(Fault::new(Action::Hold { when: When::Before }).on(Operation::Create).once());
    let rome = world.token("Contoso", "2097-04-05T06:07:08Z");
    world.create("rome", &rome, json!({})).await;
    assert!(create.wait_hit(LIMIT).await);
    // Also right after a change that was not reconciled yet.
    world.write_secret("berlin", "token", &renewed.text()).await;
    plane.stop_api_server().await;
    create.release();
    world.wait_graph("the token of rome", |seen| seen.entities(&world.tenant_id).len() == 3).await;
    // A person changes something in the portal meanwhile.
    let paris = world.entities()[1].id.clone();
    assert!(world.emulator.edit(&world.tenant_id, &paris, |entity| {
        entity.country_or_region = Some("fr".into());
    }));
    tokio::time::sleep(OUTAGE).await;
    plane.start_api_server().await;
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "ch" } })).await;
    world.request_sync("paris", "after the outage").await;
    let oslo = world.token("Contoso", "2097-05-06T07:08:09Z");
    world.create("oslo", &oslo, json!({})).await;

    for (name, file) in [("rome", &rome), ("oslo", &oslo), ("berlin", &renewed)] {
        let digest = graph_emulator::sha256(&file.text());
        world.wait_status(name, "up to date and synced", |status| synced_with(status, &digest)).await;
    }
    for (name, country) in [("berlin", "ch"), ("paris", "de")] {
        world
            .wait_status(name, "set right", |status| {
                is_ready(status) && status.country_or_region.as_deref() == Some(country)
            })
            .await;
    }
    world
        .wait_status("paris", "synced as requested", |status| {
            status.last_handled_sync_request.as_deref() == Some("after the outage")
                && status.last_sync_status.as_deref() == Some("completed")
        })
        .await;
    process.assert_is_still_there(&world);
    let entities = world.entities();
    assert_eq!(entities.len(), 4, "{entities:#?}");
    assert_eq!(world.emulator.count(Operation::Create), 2, "{:#?}", world.emulator.requests());
    let uploads: Vec<usize> = entities.iter().map(|entity| entity.uploads).collect();
    assert_eq!(uploads, [2, 1, 1, 1], "each file once: {entities:#?}");
    world.finish().await;
    plane.shutdown().await;
}
