//! Schedules: what was missed is caught up once, what never fires is said, and one sync runs at a time.

use std::time::Duration;

use graph_emulator::Operation;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, LIMIT, READY, STALLED, Setup, World, condition, row, until};

/// The clock itself is waited for here: two full minutes pass while nobody is there.
#[tokio::test(flavor = "multi_thread")]
async fn runs_missed_while_the_operator_was_away_are_caught_up_once() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "sync": { "schedule": "* * * * *" } })).await;
    let due = world.wait_synced("berlin").await.next_sync_time.unwrap();
    world.operator.kill();
    world.emulator.clear_requests();
    let missed = due + SignedDuration::from_secs(61);
    assert!(until(LIMIT * 3, || async { Timestamp::now() > missed }).await);
    world.operator.start().await;
    let status = world
        .wait_status("berlin", "synced and waiting for the next full minute", |status| {
            status.last_sync_date_time > Some(missed)
                && status.next_sync_time > Some(missed)
                && status.last_sync_status.as_deref() == Some("completed")
        })
        .await;
    assert_eq!(row(&status), READY);
    let next = status.next_sync_time.unwrap();
    world.wait_lists(2).await;
    let requests = world.requests(Operation::SyncLicenses);
    let missed_ones = requests.iter().filter(|request| request.began < next);
    assert_eq!(missed_ones.count(), 1, "two runs were missed, and one sync makes up for both: {requests:#?}");
    assert!(requests[0].began < missed + SignedDuration::from_secs(30), "it was caught up at once: {requests:#?}");
    assert_eq!(world.emulator.writes(), requests.len());
    world.finish().await;
}

/// A time that passed while a schedule did not name it is no run that was missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_new_or_changed_does_not_fire_for_what_lies_in_the_past() {
    let world = World::new().await;
    let minute = |time: Timestamp| time.in_tz("UTC").unwrap().minute();
    let hourly = |time: Timestamp| json!({ "sync": { "schedule": format!("{} * * * *", minute(time)) } });
    let later = Timestamp::now() + SignedDuration::from_mins(30);
    for (name, more) in
        [("new", json!({})), ("changed", hourly(later)), ("changed-meanwhile", hourly(later)), ("kept", hourly(later))]
    {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, more).await;
    }
    for name in ["new", "changed", "changed-meanwhile", "kept"] {
        world.wait_synced(name).await;
    }
    // What is due at the next full minute was not due yet when they were synced.
    let synced = Timestamp::now();
    let past = Timestamp::from_second((synced.as_second() / 60 + 1) * 60).unwrap();
    assert!(until(LIMIT * 2, || async { Timestamp::now() > past }).await);
    world.emulator.clear_requests();
    let kept = world.status("kept").await.next_sync_time.unwrap();
    let in_an_hour = |name: &'static str| {
        let world = &world;
        async move {
            let status = world
                .wait_status(name, "due in an hour", |status| {
                    status.next_sync_time == Some(past + SignedDuration::from_hours(1))
                })
                .await;
            assert_eq!(row(&status), READY, "{name}");
        }
    };
    for name in ["new", "changed"] {
        world.patch(name, json!({ "spec": hourly(past) })).await;
        in_an_hour(name).await;
    }
    world.operator.kill();
    world.patch("changed-meanwhile", json!({ "spec": hourly(past) })).await;
    world.operator.start().await;
    for name in ["new", "changed", "changed-meanwhile"] {
        in_an_hour(name).await;
    }
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    assert_eq!(world.status("kept").await.next_sync_time, Some(kept), "a start changes no promise");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_never_fires_is_said_and_stops_nothing_else() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "sync": { "schedule": "0 6 30 2 *" } })).await;
    let status = world.wait_reason("berlin", "ScheduleNeverFires").await;
    assert_eq!(row(&status), STALLED);
    let said = condition(&status, ConditionType::Ready).message;
    assert!(said.contains("\"0 6 30 2 *\" never fires"), "{said}");
    world.wait_event("berlin", "ScheduleNeverFires").await;
    // The token is there all the same, was synced after its upload, and follows the manifest.
    world.wait_condition("berlin", ConditionType::Synced, "SyncCompleted").await;
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    world.wait_graph("the country", |seen| seen.entities(&world.tenant_id)[0].country_or_region.is_some()).await;
    assert_eq!(world.status("berlin").await.next_sync_time, None);
    // A leap day is far away, and comes.
    world
        .patch("berlin", json!({ "spec": { "sync": { "schedule": "0 6 29 2 *", "timeZone": "Europe/Berlin" } } }))
        .await;
    let next = world.wait_ready("berlin").await.next_sync_time.unwrap();
    let next = next.in_tz("Europe/Berlin").unwrap();
    assert_eq!((next.month(), next.day(), next.hour(), next.minute()), (2, 29, 6, 0));
    assert_eq!(world.emulator.count(Operation::SyncLicenses), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_asked_for_while_one_runs_comes_after_it_and_also_when_asked_of_nobody() {
    let mut setup = Setup::default();
    setup.emulator.sync_duration = Duration::from_secs(10);
    let world = World::with(setup).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let id = world.entity("berlin").await.id;
    world.emulator.clear_requests();
    // Intune begins one by itself.
    assert!(world.emulator.sync_by_hand(&world.tenant_id, &id));
    let status = world.wait_condition("berlin", ConditionType::Synced, "SyncInProgress").await;
    assert_eq!(row(&status), READY);
    world.request_sync("berlin", "now").await;
    // By the time that a later change was written to Graph and listed, the request was looked at.
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    world.wait_graph("the country", |seen| seen.entities(&world.tenant_id)[0].country_or_region.is_some()).await;
    world.wait_lists(1).await;
    let entity = world.entity("berlin").await;
    assert_eq!((entity.last_sync_status.as_str(), entity.syncs), ("inProgress", 1), "it took too long to see anything");
    assert_eq!(world.emulator.count(Operation::SyncLicenses), 0);
    assert_eq!(world.status("berlin").await.last_handled_sync_request, None);
    let handled = |request: &'static str| {
        let world = &world;
        async move {
            world
                .wait_status("berlin", "synced as requested", |status| {
                    status.last_handled_sync_request.as_deref() == Some(request)
                        && status.last_sync_status.as_deref() == Some("completed")
                        && status.last_sync_date_time >= status.last_sync_trigger_time
                })
                .await
        }
    };
    handled("now").await;
    assert_eq!((world.emulator.count(Operation::SyncLicenses), world.entity("berlin").await.syncs), (1, 3));

    // Asked for while the operator is dead.
    world.operator.kill();
    world.request_sync("berlin", "later").await;
    world.operator.start().await;
    handled("later").await;
    assert_eq!((world.emulator.count(Operation::SyncLicenses), world.entity("berlin").await.syncs), (2, 4));
    world.finish().await;
}
