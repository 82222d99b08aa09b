//! In paused time: syncs, lists and expiries that lag, entities hidden for a moment.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use axum::http::Method;
use graph_emulator::{NewEntity, TokenFile, UpdateAnswer};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use support::in_process::{InProcess, start};
use support::{TENANT, expiry};
use tokio::time::sleep;

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Waits in virtual time.
async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_wall_clock_is_its_start_plus_virtual_time() {
    let world = InProcess::new().await;
    assert_eq!(world.emulation.now(), start());
    sleep(Duration::from_millis(86_400_250)).await;
    assert_eq!(world.emulation.now(), start() + SignedDuration::from_millis(86_400_250));
    world.emulation.settings_mut(|settings| settings.clock_offset_seconds = -1);
    assert_eq!(world.emulation.now(), start() + SignedDuration::from_millis(86_399_250));
}

#[tokio::test(start_paused = true)]
async fn a_sync_ends_exactly_after_its_duration_however_late_one_looks() {
    let world = InProcess::with(1, |settings| settings.sync_duration = Duration::from_secs(40)).await;
    let id = world.created("a@b.example").await;
    pass(5).await;
    assert_eq!(world.sync(&id).await.1["lastSyncStatus"], "inProgress");
    sleep(Duration::from_millis(39_999)).await;
    assert_eq!(world.get(&id).await.1["lastSyncStatus"], "inProgress");
    pass(600).await;
    let entity = world.get(&id).await.1;
    assert_eq!(entity["lastSyncStatus"], "completed");
    assert_eq!(time(&entity["lastSyncDateTime"]), start() + seconds(45));
    assert_eq!(time(&entity["lastModifiedDateTime"]), start() + SignedDuration::from_millis(45_003));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_sync_learns_of_its_end_at_that_moment() {
    let world = InProcess::new().await;
    let id = world.created("a@b.example").await;
    assert!(world.emulation.sync_by_hand(TENANT, &id));
    let ended = |view: &graph_emulator::View<'_>| view.entity(TENANT, &id).is_some_and(|entity| entity.syncs == 1);
    assert!(world.emulation.wait_for(ended, Duration::from_secs(3600)).await);
    assert_eq!(world.emulation.now(), start() + seconds(3));
    assert!(!world.emulation.wait_for(|_| false, Duration::from_secs(7)).await);
    assert_eq!(world.emulation.now(), start() + seconds(10));
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_hangs_never_ends() {
    let world = InProcess::with(1, |settings| settings.sync_duration = Duration::MAX).await;
    let id = world.created("a@b.example").await;
    world.sync(&id).await;
    pass(365 * 24 * 3600).await;
    assert_eq!(world.emulation.entity(TENANT, &id).unwrap().last_sync_status, "inProgress");
}

#[tokio::test(start_paused = true)]
async fn an_access_token_and_a_token_file_expire_in_virtual_time() {
    let world = InProcess::new().await;
    let new = NewEntity { expiration_date_time: Some(start() + seconds(3600)), ..NewEntity::default() };
    let id = world.emulation.create_by_hand(TENANT, new).id;
    pass(3598).await;
    assert_eq!(world.get(&id).await.1["state"], "valid");
    pass(1).await;
    assert_eq!(world.get(&id).await.0, 401);
    pass(1).await;
    assert_eq!(world.emulation.entity(TENANT, &id).unwrap().state, "expired");
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_creations_changes_and_deletions_as_late_as_it_lags() {
    for lag in [0, 20, 90] {
        let world = InProcess::with(1, |settings| settings.list_lag = Duration::from_secs(lag)).await;
        // Of each entity, what a list shows: the Apple ID and the country.
        let listed = async || -> Vec<(String, String)> {
            let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
            world
                .list()
                .await
                .iter()
                .map(|entity| (text(&entity["appleId"]), text(&entity["countryOrRegion"])))
                .collect()
        };
        let shows = |entries: &[(&str, &str)]| -> Vec<(String, String)> {
            entries.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
        };
        let id = world.created("a@b.example").await;
        pass(5).await;
        world.patch(&id, &json!({"countryOrRegion": "fr"})).await;
        pass(5).await;
        let new = NewEntity { apple_id: Some("by@hand.example".to_owned()), ..NewEntity::default() };
        world.emulation.create_by_hand(TENANT, new);
        pass(5).await;
        assert_eq!(world.delete(&id).await, 204);

        // 15 s have passed; each thing is seen exactly when the lag after it is over, and not a moment before.
        let by_hand = ("by@hand.example", "none");
        let mut before = shows(&[]);
        for (at, expected) in [
            (0, shows(&[("a@b.example", "de")])),
            (5, shows(&[("a@b.example", "fr")])),
            (10, shows(&[("a@b.example", "fr"), by_hand])),
            (15, shows(&[by_hand])),
        ] {
            let seen_at = start() + SignedDuration::from_secs(at + i64::try_from(lag).unwrap());
            if seen_at > world.emulation.now() {
                until(&world, seen_at - SignedDuration::from_millis(1)).await;
                assert_eq!(listed().await, before, "lag {lag}, before {at} s");
            }
            if seen_at >= world.emulation.now() {
                until(&world, seen_at).await;
                assert_eq!(listed().await, expected, "lag {lag}, at {at} s");
            }
            assert_eq!(world.get(&id).await.0, 404, "GET shows the present");
            before = expected;
        }
    }
}

async fn until(world: &InProcess, wall: Timestamp) {
    sleep(Duration::try_from(wall.duration_since(world.emulation.now())).unwrap()).await;
    assert_eq!(world.emulation.now(), wall);
}

#[tokio::test(start_paused = true)]
async fn a_lagging_list_shows_a_sync_as_it_was_then() {
    let world = InProcess::with(1, |settings| settings.list_lag = Duration::from_secs(20)).await;
    let id = world.created("a@b.example").await;
    pass(30).await;
    world.sync(&id).await;
    for (wait, listed, present) in [
        (0, "none", "inProgress"),
        (19, "none", "completed"),
        (1, "inProgress", "completed"),
        (3, "completed", "completed"),
    ] {
        pass(wait).await;
        assert_eq!(world.get(&id).await.1["lastSyncStatus"], present, "{wait}");
        assert_eq!(world.list().await[0]["lastSyncStatus"], listed, "{wait}");
    }
    assert_eq!(time(&world.list().await[0]["lastSyncDateTime"]), start() + seconds(33));
}

#[tokio::test(start_paused = true)]
async fn the_old_expiry_is_shown_by_get_and_list_until_its_lag_is_over() {
    let world = InProcess::with(1, |settings| settings.expiry_lag = Duration::from_secs(60)).await;
    let id = world.created("a@b.example").await;
    let new = TokenFile::with_inner("Contoso", "2048-01-01T00:00:00Z".parse().unwrap(), "renewed");
    let answer = world.patch(&id, &json!({"token": new.text()})).await.1;
    assert_eq!(time(&answer["expirationDateTime"]), expiry());
    for (wait, shown) in [(59, expiry()), (1, new.expires())] {
        pass(wait).await;
        assert_eq!(time(&world.get(&id).await.1["expirationDateTime"]), shown);
        assert_eq!(time(&world.list().await[0]["expirationDateTime"]), shown);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hidden_entity_is_not_found_for_a_while_and_then_as_it_was() {
    for lag in [0, 20] {
        let world = InProcess::with(1, |settings| settings.list_lag = Duration::from_secs(lag)).await;
        let (id, other) = (world.created("a@b.example").await, world.created("b@b.example").await);
        pass(60).await;
        let before = world.get(&id).await;
        assert!(world.emulation.hide(TENANT, &id.to_uppercase(), Duration::from_secs(10)));
        assert!(!world.emulation.hide(TENANT, "unknown", Duration::from_secs(10)));
        for wait in [0, 9] {
            pass(wait).await;
            assert_eq!(world.get(&id).await.0, 404);
            assert_eq!(world.patch(&id, &json!({"countryOrRegion": "fr"})).await.0, 404);
            assert_eq!((world.sync(&id).await.0, world.delete(&id).await), (404, 404));
            let listed = world.list().await;
            assert_eq!(listed.iter().map(|entity| entity["id"].as_str().unwrap()).collect::<Vec<_>>(), [&other]);
            assert_eq!(world.emulation.entities(TENANT).len(), 2, "by hand it is seen");
        }
        pass(1).await;
        assert_eq!(world.get(&id).await, before);
        assert_eq!(world.list().await.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_can_be_left_out_or_be_a_new_word_and_an_update_answered_without_a_body() {
    let world = InProcess::with(1, |settings| {
        settings.extra_properties.insert("state".to_owned(), json!("somethingNew"));
        settings.update_answer = UpdateAnswer::NoContent;
    })
    .await;
    let id = world.created("a@b.example").await;
    assert_eq!(world.get(&id).await.1["state"], "somethingNew");
    assert_eq!(world.list().await[0]["state"], "somethingNew");
    assert_eq!(world.patch(&id, &json!({"countryOrRegion": "fr"})).await, (204, Value::Null));

    let left_out = BTreeSet::from(["state".to_owned()]);
    let world = InProcess::with(1, |settings| settings.omit_properties = left_out).await;
    let id = world.created("a@b.example").await;
    assert!(world.get(&id).await.1.get("state").is_none());
    assert!(world.ask(Method::GET, &id, &Value::Null).await.1.get("appleId").is_some());
}
