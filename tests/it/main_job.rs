//! The main job: a manifest becomes a token in Graph, which is synced, renewed and shown.

use std::collections::BTreeSet;

use graph_emulator::{Action, Fault, Operation, When, sha256};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vpptoken_operator::api::conditions::ConditionType;
use vpptoken_operator::api::{GraphApi, VppTokenStatus};

use crate::support::{
    EXPIRES, LIMIT, READY, RECONCILING, RENEWED, STALLED, World, condition, hourly, is_ready, row, soon,
};

/// A world with one token, berlin, that is ready and synced; the requests that it took are forgotten.
async fn with_berlin(more: Value) -> World {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, more).await;
    world.wait_synced("berlin").await;
    world.emulator.clear_requests();
    world
}

fn berlin(world: &World) -> graph_emulator::Entity {
    let entities = world.entities();
    assert_eq!(entities.len(), 1);
    entities[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_becomes_a_synced_token() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "countryOrRegion": "de", "automaticallyUpdateApps": true })).await;
    let status = world.wait_synced("berlin").await;
    let entities = world.entities();
    assert_eq!(entities.len(), 1);
    assert_eq!(status.token_id.as_ref(), Some(&entities[0].id));
    assert_eq!(entities[0].country_or_region.as_deref(), Some("de"));
    assert_eq!(entities[0].token_sha256, status.uploaded.map(|uploaded| uploaded.sha256));
    assert_eq!((entities[0].uploads, entities[0].syncs), (1, 1));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_for_it_and_the_status_mirrors_graph() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.write_secret("berlin", "token", &file.text()).await;
    let mut spec = world.spec("berlin");
    spec["vppTokenAccountType"] = json!("education");
    spec["countryOrRegion"] = json!("DE");
    spec["automaticallyUpdateApps"] = json!(true);
    world
        .apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": "berlin" }, "spec": spec,
        }))
        .await;
    let arguments = ["wait", "--for=condition=Ready", "vpptoken/berlin", "-n", &world.namespace, "--timeout=60s"];
    let waited = world.plane.kubectl(&arguments).await;
    assert!(waited.ok, "{}{}", waited.stderr, world.operator.log_end());

    world.wait_synced("berlin").await;
    let entity = berlin(&world);
    let status = world
        .wait_status("berlin", "a mirror of the last change", |status| {
            status.last_modified_date_time == Some(seven_digits(entity.last_modified_date_time))
        })
        .await;
    let shown = VppTokenStatus {
        tenant: status.tenant.clone(),
        observed_generation: Some(1),
        token_id: Some(entity.id),
        state: Some("valid".into()),
        last_sync_status: Some("completed".into()),
        // Graph's times have seven digits.
        last_sync_date_time: entity.last_sync_date_time.map(seven_digits),
        expiration_date_time: Some(EXPIRES.parse().unwrap()),
        organization_name: Some("Contoso".into()),
        vpp_token_account_type: Some("education".into()),
        apple_id: Some("vpp.berlin@contoso.example".into()),
        country_or_region: Some("DE".into()),
        automatically_update_apps: Some(true),
        last_modified_date_time: Some(seven_digits(entity.last_modified_date_time)),
        uploaded: status.uploaded.clone(),
        last_sync_trigger_time: status.last_sync_trigger_time,
        conditions: status.conditions.clone(),
        ..VppTokenStatus::default()
    };
    assert_eq!(status, shown);
    let tenant = status.tenant.clone().unwrap();
    assert_eq!((tenant.tenant_id.as_str(), tenant.api), (world.tenant_id.as_str(), GraphApi::V1));
    let uploaded = status.uploaded.clone().unwrap();
    assert_eq!(uploaded.sha256, sha256(&file.text()));
    assert_eq!(uploaded.expiration_date_time, EXPIRES.parse::<Timestamp>().unwrap());
    assert_eq!(uploaded.organization_name, "Contoso");
    assert_eq!(row(&status), READY);
    for (type_, reason) in [
        (ConditionType::Ready, "UpToDate"),
        (ConditionType::TokenValid, "Valid"),
        (ConditionType::Synced, "SyncCompleted"),
    ] {
        let condition = condition(&status, type_);
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", reason));
        assert_eq!(condition.observed_generation, Some(1));
    }
    world.finish().await;
}

fn seven_digits(time: Timestamp) -> Timestamp {
    format!("{time:.7}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_secret_is_uploaded_onto_the_same_token_and_synced() {
    let world = with_berlin(json!({})).await;
    let before = berlin(&world);
    let file = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &file.text()).await;
    let status = world
        .wait_status("berlin", "renewed and synced", |status| {
            is_ready(status)
                && status.last_sync_status.as_deref() == Some("completed")
                && status.expiration_date_time == Some(file.expires())
                && status.last_sync_date_time > before.last_sync_date_time
        })
        .await;
    let after = berlin(&world);
    assert_eq!(after.id, before.id);
    assert_eq!(status.uploaded.map(|uploaded| uploaded.sha256), Some(sha256(&file.text())));
    assert_eq!((after.uploads, after.syncs), (2, 2));
    assert_eq!(after.token_sha256, Some(sha256(&file.text())));
    assert_eq!(world.patched(), [["token"]]);
    assert_eq!(world.emulator.writes(), 2, "one PATCH and one sync: {:?}", world.emulator.counters());
    world.wait_events("berlin", &["Created", "Uploaded"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_setting_is_sent_alone() {
    let world = with_berlin(json!({ "automaticallyUpdateApps": true })).await;
    let changes = [
        (json!({ "countryOrRegion": "de" }), vec!["countryOrRegion"]),
        (json!({ "automaticallyUpdateApps": false }), vec!["automaticallyUpdateApps"]),
        (json!({ "vppTokenAccountType": "education" }), vec!["vppTokenAccountType"]),
        (json!({ "appleId": "vpp.new@contoso.example" }), vec!["appleId"]),
        (
            json!({ "countryOrRegion": "fr", "vppTokenAccountType": "business" }),
            vec!["countryOrRegion", "vppTokenAccountType"],
        ),
    ];
    let mut sent = Vec::new();
    for (change, names) in changes {
        world.patch("berlin", json!({ "spec": change })).await;
        sent.push(names);
        let generation = i64::try_from(sent.len()).unwrap() + 1;
        world
            .wait_status("berlin", "changed", |status| {
                is_ready(status) && status.observed_generation == Some(generation)
            })
            .await;
        assert_eq!(world.patched(), sent);
    }
    // What Graph has already, in another spelling, is not sent.
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "FR" } })).await;
    world.wait_status("berlin", "looked at", |status| is_ready(status) && status.observed_generation == Some(7)).await;
    assert_eq!(world.emulator.writes(), sent.len(), "nothing but the PATCHes: {:?}", world.emulator.counters());
    let after = berlin(&world);
    assert_eq!((after.country_or_region.as_deref(), after.vpp_token_account_type.as_str()), (Some("fr"), "business"));
    assert_eq!((after.uploads, after.syncs), (1, 1));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_changed_in_the_portal_is_put_back_and_an_unmanaged_one_stays() {
    let world = with_berlin(json!({ "countryOrRegion": "de" })).await;
    let id = berlin(&world).id;
    world.emulator.edit(&world.tenant_id, &id, |entity| {
        entity.country_or_region = Some("us".into());
        entity.automatically_update_apps = true;
    });
    world
        .wait_graph("the country put back", |seen| {
            seen.entities(&world.tenant_id)[0].country_or_region.as_deref() == Some("de")
        })
        .await;
    world.wait_event("berlin", "Updated").await;
    world
        .wait_status("berlin", "ready, with the unmanaged setting mirrored", |status| {
            is_ready(status) && status.automatically_update_apps == Some(true)
        })
        .await;
    world.wait_lists(1).await;
    assert_eq!(world.patched(), [["countryOrRegion"]]);
    assert!(berlin(&world).automatically_update_apps);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requested_sync_is_sent_once_and_acknowledged() {
    let world = with_berlin(json!({})).await;
    world.request_sync("berlin", "first").await;
    world
        .wait_status("berlin", "acknowledged", |status| status.last_handled_sync_request.as_deref() == Some("first"))
        .await;
    world.wait_graph("the end of the sync", |seen| seen.entities(&world.tenant_id)[0].syncs == 2).await;
    assert_eq!(world.emulator.count(Operation::SyncLicenses), 1);
    world.wait_events("berlin", &["Created", "SyncStarted"]).await;

    // The same value once more does nothing: by the time that a later change of the same object has arrived in Graph,
    // it was reconciled.
    world.patch("berlin", json!({ "metadata": { "annotations": null } })).await;
    world.request_sync("berlin", "first").await;
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    world.wait_graph("the country", |seen| seen.count(Operation::Update) == 1).await;
    world.wait_lists(1).await;
    assert_eq!(world.emulator.count(Operation::SyncLicenses), 1);

    // Another value asks for another one.
    world.request_sync("berlin", "second").await;
    world
        .wait_status("berlin", "acknowledged again", |status| {
            status.last_handled_sync_request.as_deref() == Some("second")
        })
        .await;
    assert_eq!(world.emulator.count(Operation::SyncLicenses), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_starts_a_sync_when_it_is_due() {
    let world = with_berlin(json!({})).await;
    let interval = json!({ "sync": { "interval": "15m" } });
    for name in ["munich", "hamburg"] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, interval.clone()).await;
    }
    let next = |status: VppTokenStatus| status.next_sync_time.unwrap();
    let (munich, hamburg) = (next(world.wait_synced("munich").await), next(world.wait_synced("hamburg").await));
    assert_ne!(munich, hamburg, "intervals are spread");
    for time in [munich, hamburg] {
        assert!(time <= Timestamp::now() + SignedDuration::from_mins(15), "{time}");
    }
    let due = soon();
    world.patch("berlin", json!({ "spec": hourly(due) })).await;
    world.wait_status("berlin", "due soon", |status| status.next_sync_time == Some(due)).await;
    // At the full minute: that is the longest that any test waits for the clock.
    let id = world.status("berlin").await.token_id.unwrap();
    let mut synced = None;
    let arrived = world.emulator.wait_for(
        |seen| {
            let of_berlin = |record: &&graph_emulator::RequestRecord| {
                record.operation == Operation::SyncLicenses && record.id.as_ref() == Some(&id)
            };
            synced = seen.requests().find(of_berlin).map(|record| record.began);
            synced.is_some()
        },
        LIMIT * 2,
    );
    assert!(arrived.await, "the schedule started no sync\n{}", world.operator.log_end());
    assert!(synced.unwrap() >= due, "a sync at {synced:?} was not due before {due}");
    let status = world
        .wait_status("berlin", "synced by schedule", |status| {
            status.next_sync_time > Some(due) && status.last_sync_status.as_deref() == Some("completed")
        })
        .await;
    assert!(is_ready(&status));
    world.wait_events("berlin", &["Created"]).await;
    // An interval that has not come yet stays: where it falls within the next 15 minutes depends on the object's UID.
    let still = next(world.status("munich").await);
    assert!(still == munich || munich <= Timestamp::now(), "{still} and not {munich}");
    world.finish().await;
}

/// Section 5: what Graph reports of the token, and what a person sees of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_graph_shows_of_a_token_is_reported_in_conditions() {
    let world = World::new().await;
    let cases = [
        ("invalid", ["False", "Invalid"], STALLED, "Invalid"),
        ("expired", ["False", "Expired"], STALLED, "Expired"),
        ("assignedToExternalMDM", ["False", "AssignedToExternalMDM"], STALLED, "AssignedToExternalMDM"),
        ("duplicateLocationId", ["False", "DuplicateLocation"], STALLED, "DuplicateLocation"),
        ("unknown", ["Unknown", "Unknown"], RECONCILING, "StateUnknown"),
        ("somethingNew", ["Unknown", "Unknown"], RECONCILING, "StateUnknown"),
    ];
    for (state, ..) in cases {
        let file = world.token("Contoso", &EXPIRES);
        world.create(&state.to_lowercase(), &file, json!({})).await;
    }
    // A file that expires soon is valid, but the condition reports it.
    let soon = Timestamp::now() + SignedDuration::from_hours(29 * 24);
    world.create("soon", &world.token("Contoso", &soon.strftime("%FT%TZ").to_string()), json!({})).await;
    for (state, ..) in cases {
        world.wait_synced(&state.to_lowercase()).await;
    }
    for (state, ..) in cases {
        let id = world.status(&state.to_lowercase()).await.token_id.unwrap();
        assert!(world.emulator.force_state(&world.tenant_id, &id, Some(state)));
    }
    for (state, valid, expected, reason) in cases {
        let status = world.wait_reason(&state.to_lowercase(), reason).await;
        assert_eq!(row(&status), expected, "{state}");
        let token = condition(&status, ConditionType::TokenValid);
        assert_eq!([token.status, token.reason], valid, "{state}");
        assert_eq!(status.state.as_deref(), Some(state), "the text is kept");
    }
    let status = world.wait_condition("soon", ConditionType::TokenValid, "ExpiringSoon").await;
    assert_eq!(row(&status), READY);
    world.wait_event("soon", "ExpiringSoon").await;
    // A cause that ends takes its condition along.
    let id = world.status("invalid").await.token_id.unwrap();
    world.emulator.force_state(&world.tenant_id, &id, None);
    let status = world.wait_ready("invalid").await;
    assert_eq!(row(&status), READY);
    world.finish().await;
}

/// Section 5: a sync that failed shows in `Synced` only, and does not make the token unready.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_shows_only_in_synced() {
    let world = with_berlin(json!({})).await;
    let id = berlin(&world).id;
    world.emulator.set_sync_failure(&world.tenant_id, &id, true);
    world.request_sync("berlin", "now").await;
    let status = world.wait_condition("berlin", ConditionType::Synced, "SyncFailed").await;
    assert_eq!(row(&status), READY);
    assert_eq!(condition(&status, ConditionType::Synced).status, "False");
    world.wait_event("berlin", "SyncFailed").await;
    world.emulator.set_sync_failure(&world.tenant_id, &id, false);
    world.request_sync("berlin", "again").await;
    let status = world.wait_condition("berlin", ConditionType::Synced, "SyncCompleted").await;
    assert_eq!(condition(&status, ConditionType::Synced).status, "True");
    world.finish().await;
}

/// Section 5: with nothing due, an outage is not shown until three polls were missed; with a write due, at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_graph_is_reported_only_when_it_matters() {
    let world = with_berlin(json!({})).await;
    world.emulator.down().await.unwrap();
    let seen = std::sync::Mutex::new(BTreeSet::new());
    let status = world
        .wait_status("berlin", "out of date", |status| {
            let ready = condition(status, ConditionType::Ready);
            seen.lock().unwrap().insert((ready.status, ready.reason.clone()));
            ready.reason == "SnapshotStale"
        })
        .await;
    assert_eq!(row(&status), ["Unknown", "–", "–"]);
    let report = [("True", "UpToDate"), ("Unknown", "SnapshotStale")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(seen.into_inner().unwrap(), BTreeSet::from(report));

    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    let status = world.wait_reason("berlin", "GraphUnavailable").await;
    assert_eq!(row(&status), RECONCILING);
    world.emulator.up().await.unwrap();
    let status = world.wait_ready("berlin").await;
    assert_eq!(row(&status), READY);
    assert_eq!(berlin(&world).country_or_region.as_deref(), Some("de"));
    world.finish().await;
}

/// Events are changes, not attempts.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_fail_make_no_events() {
    let world = with_berlin(json!({})).await;
    let fault =
        Fault::new(Action::Status { when: When::Before, code: 503, retry_after: None, body: Default::default() });
    let fault = world.emulator.inject(fault.on(Operation::Update).times(3));
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    assert!(fault.wait_hits(3, LIMIT).await, "{}", world.operator.log_end());
    world.wait_graph("the country", |seen| seen.entities(&world.tenant_id)[0].country_or_region.is_some()).await;
    world.wait_event("berlin", "Updated").await;
    world.wait_ready("berlin").await;
    world.wait_events("berlin", &["Created", "Updated"]).await;
    let events = world.events().await;
    assert!(events.iter().all(|event| event.series.is_none()), "no event was repeated: {events:#?}");
    world.finish().await;
}

/// A rolling update: what is in progress is finished and recorded, then the process ends.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_it_finishes_and_ends_with_zero() {
    let world = with_berlin(json!({})).await;
    let held = world.emulator.inject(Fault::new(Action::Hold { when: When::After }).on(Operation::Update));
    let file = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &file.text()).await;
    assert!(held.wait_hit(LIMIT).await);
    world.operator.terminate();
    let is_stopping =
        crate::support::until(LIMIT, || async { world.operator.log().contains("stopping; finishing") }).await;
    assert!(is_stopping && world.operator.is_running(), "it waits for the upload");
    held.remove();
    assert_eq!(world.operator.wait_end().await, Some(0), "{}", world.operator.log_end());
    assert!(!world.operator.log().contains("still in progress"), "it ended within its grace");
    let uploaded = world.status("berlin").await.uploaded;
    assert_eq!(uploaded.map(|uploaded| uploaded.sha256), Some(sha256(&file.text())));
    // With nothing to do, it ends as well.
    world.operator.start().await;
    world.operator.terminate();
    assert_eq!(world.operator.wait_end().await, Some(0), "{}", world.operator.log_end());
    world.finish().await;
}
