//! `managementPolicy: Observe` and `suspend`: what Graph has is shown, and nothing is written to it.

use graph_emulator::{Operation, sha256};
use serde_json::{Map, Value, json};
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, RENEWED, STALLED, World, condition, in_days, row};

async fn acknowledged(world: &World, name: &str, request: &str) {
    world
        .wait_status(name, "acknowledged", |status| status.last_handled_sync_request.as_deref() == Some(request))
        .await;
    world.wait_event(name, "SyncNotStarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_token_is_shown_as_it_is_and_never_written_to() {
    let world = World::new().await;
    let (named, bare) = (world.by_hand("named", &EXPIRES), world.by_hand("bare", &EXPIRES));
    let mut least = json!({ "managementPolicy": "Observe", "tokenId": bare.id });
    least["tokenSecretRef"] = Value::Null;
    least["appleId"] = Value::Null;
    world.create_token("bare", least).await;
    // One that would change everything, but for its suspension, and then only observes.
    let everything = json!({
        "tokenId": named.id, "suspend": true, "appleId": "other@contoso.example", "countryOrRegion": "fr",
        "automaticallyUpdateApps": true, "vppTokenAccountType": "education", "deletionPolicy": "Delete",
        "sync": { "interval": "15m" },
    });
    let file = world.token("Contoso", &RENEWED);
    world.create("named", &file, everything.clone()).await;
    assert_eq!(row(&world.wait_reason("named", "Suspended").await), STALLED);
    let mut only_observe: Map<String, Value> =
        everything.as_object().unwrap().keys().map(|field| (field.clone(), Value::Null)).collect();
    only_observe.insert("tokenId".into(), json!(named.id));
    only_observe.insert("tokenSecretRef".into(), Value::Null);
    only_observe.insert("managementPolicy".into(), json!("Observe"));
    world.patch("named", json!({ "spec": only_observe })).await;

    for (name, there) in [("named", &named), ("bare", &bare)] {
        let status = world.wait_ready(name).await;
        assert_eq!((row(&status), status.token_id.as_ref()), (READY, Some(&there.id)), "{name}");
        assert_eq!(status.expiration_date_time, there.expiration_date_time, "{name}");
        assert_eq!(status.apple_id, there.apple_id, "{name}");
        assert_eq!((status.next_sync_time, &status.uploaded), (None, &None), "{name}");
        assert_eq!(condition(&status, ConditionType::Synced).reason, "NeverSynced", "{name}");
        assert_eq!(world.finalizers(name).await, Vec::<String>::new(), "{name}");
        world.wait_event(name, "Bound").await;
    }
    world.wait_events("bare", &["Bound"]).await;
    // People change it, sync it and renew it by hand; that is shown.
    for there in [&named, &bare] {
        world.emulator.edit(&world.tenant_id, &there.id, |entity| {
            entity.country_or_region = Some("us".into());
            entity.expiration_date_time = Some(RENEWED.parse().unwrap());
        });
        assert!(world.emulator.sync_by_hand(&world.tenant_id, &there.id));
    }
    for (name, there) in [("named", &named), ("bare", &bare)] {
        let is_shown = |status: &VppTokenStatus| {
            status.country_or_region.as_deref() == Some("us")
                && status.expiration_date_time == Some(RENEWED.parse().unwrap())
                && status.last_sync_status.as_deref() == Some("completed")
        };
        let status = world.wait_status(name, "as people made it", is_shown).await;
        assert_eq!(row(&status), READY, "{name}");
        assert_eq!(condition(&status, ConditionType::Synced).reason, "SyncCompleted", "{name}");
        let ended = world.emulator.entity(&world.tenant_id, &there.id).unwrap().last_sync_date_time.unwrap();
        assert_eq!(status.last_sync_date_time.unwrap().as_millisecond(), ended.as_millisecond(), "{name}");
        world.request_sync(name, "now").await;
        world.request_upload(name, "now").await;
    }
    for name in ["named", "bare"] {
        acknowledged(&world, name, "now").await;
        let is_answered = |status: &VppTokenStatus| status.last_handled_upload_request.as_deref() == Some("now");
        world.wait_status(name, "told that nothing is uploaded", is_answered).await;
        world.wait_event(name, "UploadNotDone").await;
    }
    // A file in the Secret that it named once changes nothing.
    let newest = world.token("Contoso", &crate::support::in_days(600));
    world.write_secret("named", "token", &newest.text()).await;
    world.emulator.force_state(&world.tenant_id, &bare.id, Some("invalid"));
    assert_eq!(row(&world.wait_reason("bare", "Invalid").await), STALLED);

    // Deleted in Graph: reported, not created. Deleted here: left alone there.
    assert!(world.emulator.remove(&world.tenant_id, &bare.id));
    let status = world.wait_reason("bare", "TokenNotFound").await;
    assert_eq!(row(&status), STALLED);
    assert!(condition(&status, ConditionType::Ready).message.contains(&bare.id));
    world.wait_event("bare", "TokenNotFound").await;
    for name in ["named", "bare"] {
        world.delete(name).await;
        world.wait_deleted(name).await;
    }
    assert_eq!(world.written(), [], "nothing whatsoever");
    let left: Vec<String> = world.entities().into_iter().map(|entity| entity.id).collect();
    assert_eq!(left, [named.id]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_suspended_nothing_is_written_and_afterwards_it_catches_up() {
    let world = World::new().await;
    let settings = json!({ "countryOrRegion": "de", "sync": { "interval": "15m" } });
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, settings).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("oslo", &file, json!({ "deletionPolicy": "Delete" })).await;
    for name in ["berlin", "oslo"] {
        world.wait_synced(name).await;
    }
    let (berlin, oslo) = (world.entity("berlin").await.id, world.entity("oslo").await);
    world.emulator.clear_requests();
    for name in ["berlin", "oslo"] {
        world.patch(name, json!({ "spec": { "suspend": true } })).await;
        let status = world.wait_status(name, "looked at", |status| status.observed_generation == Some(2)).await;
        assert_eq!((row(&status), status.next_sync_time), (READY, None), "nothing is due for {name}");
    }
    // All that would be written: a new file, a setting changed here, one changed there, a sync, a new token.
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &renewed.text()).await;
    world.patch("berlin", json!({ "spec": { "automaticallyUpdateApps": true } })).await;
    world.emulator.edit(&world.tenant_id, &berlin, |entity| entity.country_or_region = Some("us".into()));
    world.request_sync("berlin", "now").await;
    let munich = world.token("Contoso", &in_days(300));
    world.create("munich", &munich, json!({ "suspend": true })).await;
    for name in ["berlin", "munich"] {
        let status = world.wait_reason(name, "Suspended").await;
        assert_eq!(row(&status), STALLED, "{name}");
    }
    let status = world.wait_condition("berlin", ConditionType::Synced, "Suspended").await;
    assert_eq!(status.last_handled_sync_request, None, "it stays open");
    // What Graph has is shown all the same.
    world.wait_status("berlin", "shown as it is", |status| status.country_or_region.as_deref() == Some("us")).await;
    world.wait_lists(2).await;
    let status = world.status("munich").await;
    assert_eq!((status.token_id, status.pending_create), (None, None));
    assert_eq!(world.written(), []);

    // Deleted while suspended: the finalizer is removed.
    world.delete("oslo").await;
    world.wait_deleted("oslo").await;
    world.wait_event("oslo", "TokenRetained").await;
    assert_eq!(world.emulator.entity(&world.tenant_id, &oslo.id), Some(oslo));

    // Resumed: everything at once, and nothing twice.
    for name in ["berlin", "munich"] {
        world.patch(name, json!({ "spec": { "suspend": false } })).await;
    }
    let digest = sha256(&renewed.text());
    world
        .wait_status("berlin", "caught up", |status| {
            row(status) == READY
                && status.next_sync_time.is_some()
                && status.country_or_region.as_deref() == Some("de")
                && status
                    .uploaded
                    .as_ref()
                    .is_some_and(|file| file.sha256 == digest && status.last_sync_date_time >= Some(file.time))
        })
        .await;
    world.wait_synced("munich").await;
    world.wait_lists(1).await;
    assert_eq!(world.patched(), [vec!["token"], vec!["automaticallyUpdateApps", "countryOrRegion"]]);
    let syncs = world
        .written()
        .into_iter()
        .filter(|(what, to)| *what == Operation::SyncLicenses && to.as_ref() == Some(&berlin));
    assert_eq!(syncs.count(), 1, "the one that was requested, which is also the one after the upload");
    let status = world.status("berlin").await;
    assert_eq!(status.last_handled_sync_request.as_deref(), Some("now"));
    let events = world.event_reasons("berlin").await;
    assert!(!events.contains(&"SyncNotStarted".to_owned()), "{events:?}");
    assert_eq!(world.emulator.count(Operation::Create), 1);
    assert_eq!(world.entities().len(), 3);
    world.finish().await;
}
