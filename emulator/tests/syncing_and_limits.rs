//! How a sync proceeds, and what happens to clients that send too many requests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graph_emulator::{RetryAfter, SyncAnswer, SyncWhileSyncing, Throttle};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use support::{PATIENCE, TENANT, World, send};

async fn synced(world: &World, id: &str, times: usize) {
    let done = |view: &graph_emulator::View<'_>| view.entity(TENANT, id).is_some_and(|entity| entity.syncs == times);
    assert!(world.emulator.wait_for(done, PATIENCE).await, "the sync did not end");
}

#[tokio::test]
async fn a_sync_goes_from_none_over_in_progress_to_completed() {
    let world = World::with(|settings| settings.sync_duration = Duration::from_secs(3600)).await;
    let id = world.created("a@b.example").await;
    assert_eq!(world.get(&id).await.json()["lastSyncStatus"], "none");
    let answer = world.sync(&id).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["lastSyncStatus"]), (200, &json!("inProgress")));
    assert_eq!(world.get(&id).await.json()["lastSyncDateTime"], "0001-01-01T00:00:00Z");
    world.emulator.edit(TENANT, &id, |entity| entity.last_sync_status = "none".to_owned());

    world.emulator.settings_mut(|settings| settings.time_scale = 360_000.0);
    world.sync(&id).await;
    synced(&world, &id, 1).await;
    let entity = world.get(&id).await.json();
    assert_eq!((&entity["lastSyncStatus"], &entity["state"]), (&json!("completed"), &json!("valid")));
    let stored = world.emulator.entity(TENANT, &id).unwrap();
    let apart = stored.last_modified_date_time.duration_since(stored.last_sync_date_time.unwrap());
    assert_eq!(apart.as_millis(), 3);
}

#[tokio::test]
async fn a_sync_fails_on_demand_and_for_a_token_that_is_no_good() {
    let world = World::with(|settings| settings.sync_duration = Duration::from_millis(1)).await;
    let id = world.created("a@b.example").await;
    assert!(world.emulator.set_sync_failure(TENANT, &id, true));
    world.sync(&id).await;
    synced(&world, &id, 1).await;
    let entity = world.get(&id).await.json();
    assert_eq!(entity["lastSyncStatus"], "failed");
    assert_eq!(entity["lastSyncDateTime"], "0001-01-01T00:00:00Z");

    world.emulator.set_sync_failure(TENANT, &id, false);
    world.emulator.force_state(TENANT, &id, Some("assignedToExternalMDM"));
    world.sync(&id).await;
    synced(&world, &id, 2).await;
    assert_eq!(world.get(&id).await.json()["lastSyncStatus"], "failed");

    world.emulator.force_state(TENANT, &id, None);
    world.sync(&id).await;
    synced(&world, &id, 3).await;
    assert_eq!(world.get(&id).await.json()["lastSyncStatus"], "completed");
}

#[tokio::test]
async fn a_second_sync_during_the_first_is_switchable_and_starts_nothing() {
    let world = World::with(|settings| settings.sync_duration = Duration::from_secs(3600)).await;
    let id = world.created("a@b.example").await;
    world.sync(&id).await;
    for (setting, status) in
        [(SyncWhileSyncing::Accept, 200), (SyncWhileSyncing::Conflict, 409), (SyncWhileSyncing::BadRequest, 400)]
    {
        world.emulator.settings_mut(|settings| settings.sync_while_syncing = setting);
        assert_eq!(world.sync(&id).await.status, status);
    }
    assert_eq!(world.emulator.entity(TENANT, &id).unwrap().syncs, 0);
}

#[tokio::test]
async fn sync_licenses_answers_in_each_of_the_four_shapes() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    for (setting, status) in
        [(SyncAnswer::Entity, 200), (SyncAnswer::Wrapped, 200), (SyncAnswer::Null, 200), (SyncAnswer::NoContent, 204)]
    {
        world.emulator.settings_mut(|settings| settings.sync_answer = setting);
        let answer = world.sync(&id).await;
        assert_eq!(answer.status, status);
        match setting {
            SyncAnswer::Entity => assert_eq!(answer.json()["id"], id.as_str()),
            SyncAnswer::Wrapped => assert_eq!(answer.json()["value"]["id"], id.as_str()),
            SyncAnswer::Null => assert_eq!(answer.json(), Value::Null),
            SyncAnswer::NoContent => assert_eq!(answer.text, ""),
        }
    }
}

#[tokio::test]
async fn the_hundred_and_first_write_in_a_window_is_answered_with_429() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    for _ in 0..99 {
        assert_eq!(world.sync(&id).await.status, 200);
    }
    let answer = world.sync(&id).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (429, "TooManyRequests"));
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(world.list().await.status, 200, "reads have a limit of their own");

    world.emulator.settings_mut(|settings| settings.retry_after = RetryAfter::Fractional);
    assert!(world.sync(&id).await.headers["retry-after"].to_str().unwrap().contains('.'));
    world.emulator.settings_mut(|settings| settings.retry_after = RetryAfter::Absent);
    assert!(world.sync(&id).await.headers.get("retry-after").is_none());
    world.emulator.settings_mut(|settings| settings.throttle = None);
    assert_eq!(world.sync(&id).await.status, 200);
}

#[tokio::test]
async fn the_window_slides_and_is_scaled() {
    let world = World::with(|settings| {
        settings.throttle = Some(Throttle { writes_per_app: 1, ..Throttle::default() });
        settings.time_scale = 400.0;
    })
    .await;
    world.created("a@b.example").await;
    let url = format!("{}/none/syncLicenses", world.collection());
    let let_through = async {
        loop {
            let request = world.request(Method::POST, &url).header("content-length", "0");
            if send(request).await.unwrap().status == 404 {
                break;
            }
        }
    };
    // 20 s become 50 ms.
    tokio::time::timeout(PATIENCE, let_through).await.unwrap();
}
