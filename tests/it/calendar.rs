//! Schedules: a missed run is caught up once, a wrong schedule is reported, and one sync runs at a time.

use std::time::Duration;

use graph_emulator::Operation;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, LIMIT, READY, STALLED, Setup, World, condition, hourly, row, soon, until};

/// This waits for the clock itself: a full minute passes while no operator runs. That many missed runs are made up for
/// by one sync is tested with plan: two runs are never less than 15 minutes apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_missed_while_the_operator_was_away_is_caught_up_once() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let due = soon();
    world.patch("berlin", json!({ "spec": hourly(due) })).await;
    world.wait_status("berlin", "due soon", |status| status.next_sync_time == Some(due)).await;
    world.operator.kill();
    world.emulator.clear_requests();
    assert!(until(LIMIT * 2, || async { Timestamp::now() > due }).await);
    let started = Timestamp::now();
    world.operator.start().await;
    let next = due + SignedDuration::from_hours(1);
    let status = world
        .wait_status("berlin", "synced and waiting for the next hour", |status| {
            status.last_sync_date_time > Some(due)
                && status.next_sync_time == Some(next)
                && status.last_sync_status.as_deref() == Some("completed")
        })
        .await;
    assert_eq!(row(&status), READY);
    world.wait_lists(2).await;
    let requests = world.requests(Operation::SyncLicenses);
    assert_eq!(requests.len(), 1, "one run was missed: {requests:#?}");
    assert!(requests[0].began < started + SignedDuration::from_secs(30), "it was caught up at once: {requests:#?}");
    assert_eq!(world.emulator.writes(), 1);
    world.finish().await;
}

/// A time that passed before a schedule named it is no missed run.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_new_or_changed_does_not_fire_for_what_lies_in_the_past() {
    let world = World::new().await;
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

/// What the API server can't check: for a new object before anything is created, for one with a token beside everything
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_wrong_is_reported_and_stalls_a_create_and_nothing_else() {
    let world = World::new().await;
    let never = json!({ "sync": { "schedule": "0 6 30 2 *" } });
    let often = json!({ "sync": { "schedule": "4,50 1,3 * * *", "timeZone": "Europe/Berlin" } });
    let no_zone = json!({ "sync": { "schedule": "0 6 * * *", "timeZone": "Europe/Atlantis" } });
    let right = json!({ "sync": { "schedule": "0 6 29 2 *", "timeZone": "Europe/Berlin" } });
    let wrong = [
        ("never", never, "ScheduleNeverFires", "\"0 6 30 2 *\" never fires"),
        ("often", often, "ScheduleInvalid", "two syncs must be at least 15 minutes apart"),
        ("no-zone", no_zone, "ScheduleInvalid", "there is no time zone \"Europe/Atlantis\""),
    ];
    for (name, sync, ..) in &wrong {
        world.create(name, &world.token("Contoso", &EXPIRES), sync.clone()).await;
    }
    for (name, _, reason, sentence) in &wrong {
        let status = world.wait_reason(name, reason).await;
        assert_eq!(row(&status), STALLED, "{name}");
        let report = condition(&status, ConditionType::Ready).message.to_lowercase();
        assert!(report.contains(&sentence.to_lowercase()), "{name}: {report}");
        assert_eq!((status.token_id, status.pending_create), (None, None), "{name}");
        world.wait_event(name, reason).await;
    }
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    for (name, ..) in &wrong {
        world.patch(name, json!({ "spec": right })).await;
    }
    for (name, sync, reason, _) in &wrong {
        // A leap day is far away, and comes.
        let next = world.wait_synced(name).await.next_sync_time.unwrap().in_tz("Europe/Berlin").unwrap();
        assert_eq!((next.month(), next.day(), next.hour(), next.minute()), (2, 29, 6, 0), "{name}");
        // One that has its token follows the manifest in all else.
        world.patch(name, json!({ "spec": { "sync": null } })).await;
        world.patch(name, json!({ "spec": sync })).await;
        world.patch(name, json!({ "spec": { "countryOrRegion": "de" } })).await;
        let country = |status: &VppTokenStatus| status.country_or_region.as_deref() == Some("de");
        let status = world.wait_status(name, "with its country", country).await;
        assert_eq!(status.next_sync_time, None, "{name}");
        assert_eq!(row(&world.wait_reason(name, reason).await), STALLED, "{name}");
    }
    assert_eq!(world.emulator.count(Operation::SyncLicenses), wrong.len());
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
    // By the time that a later change was written to Graph and listed, the request was reconciled.
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

    // Requested while the operator is stopped.
    world.operator.kill();
    world.request_sync("berlin", "later").await;
    world.operator.start().await;
    handled("later").await;
    assert_eq!((world.emulator.count(Operation::SyncLicenses), world.entity("berlin").await.syncs), (2, 4));
    world.finish().await;
}
