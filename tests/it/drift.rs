//! What people change in the portal: what the manifest names is put back, other settings stay, and nothing newer is
//! overwritten by something older.

use graph_emulator::Operation;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, RENEWED, STALLED, Setup, World, condition, in_days, row};

#[tokio::test(flavor = "multi_thread")]
async fn named_settings_are_put_back_in_one_patch_and_nothing_else_is_touched() {
    let world = World::new().await;
    let named = json!({ "countryOrRegion": "DE", "automaticallyUpdateApps": true });
    for (name, more) in [("berlin", named.clone()), ("calm", named), ("left-out", json!({}))] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, more).await;
        world.wait_synced(name).await;
    }
    let berlin = world.entity("berlin").await.id;
    world.emulator.clear_requests();

    // No drift: another spelling of the same, and a time of change.
    let calm = world.entity("calm").await.id;
    let touched = Timestamp::now() + SignedDuration::from_secs(1);
    world.emulator.edit(&world.tenant_id, &calm, |entity| {
        entity.country_or_region = Some("de".into());
        entity.apple_id = Some("VPP.Calm@Contoso.Example".into());
        entity.last_modified_date_time = touched;
    });
    // Not managed: whatever people set stays, and is shown.
    let left_out = world.entity("left-out").await.id;
    world.emulator.edit(&world.tenant_id, &left_out, |entity| {
        entity.country_or_region = Some("us".into());
        entity.automatically_update_apps = true;
        entity.vpp_token_account_type = "education".into();
    });
    // Managed: two settings that the manifest names, and one that it leaves out.
    world.emulator.edit(&world.tenant_id, &berlin, |entity| {
        entity.country_or_region = Some("us".into());
        entity.automatically_update_apps = false;
        entity.vpp_token_account_type = "education".into();
    });
    world
        .wait_graph("both settings put back", |seen| {
            let entity = seen.entity(&world.tenant_id, &berlin).unwrap();
            entity.country_or_region.as_deref() == Some("DE") && entity.automatically_update_apps
        })
        .await;
    world.wait_event("berlin", "Updated").await;
    world
        .wait_status("left-out", "shown as people set it", |status| {
            row(status) == READY
                && status.country_or_region.as_deref() == Some("us")
                && status.automatically_update_apps == Some(true)
                && status.vpp_token_account_type.as_deref() == Some("education")
        })
        .await;
    world
        .wait_status("calm", "shown with its new time of change", |status| {
            status.apple_id.as_deref() == Some("VPP.Calm@Contoso.Example")
                && status.last_modified_date_time.is_some_and(|at| at.as_second() == touched.as_second())
        })
        .await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), [(Operation::Update, Some(berlin.clone()))], "one PATCH, of the one that drifted");
    assert_eq!(world.patched(), [["automaticallyUpdateApps", "countryOrRegion"]]);
    assert_eq!(world.entity("berlin").await.vpp_token_account_type, "education");
    let notes = world.event_notes("berlin").await;
    let (_, note) = notes.iter().find(|(reason, _)| reason == "Updated").unwrap();
    for part in ["countryOrRegion from us to DE", "automaticallyUpdateApps from false to true"] {
        assert!(note.contains(part), "{part}: {note}");
    }
    for name in ["berlin", "calm", "left-out"] {
        assert_eq!(row(&world.wait_ready(name).await), READY, "{name}");
    }
    world.wait_events("calm", &["Created"]).await;
    world.wait_events("left-out", &["Created"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_graph_does_not_keep_is_sent_three_times_and_then_reported() {
    let mut setup = Setup::default();
    setup.emulator.not_kept.insert("vppTokenAccountType".into());
    let world = World::with(setup).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "vppTokenAccountType": "education", "countryOrRegion": "de" })).await;
    let status = world.wait_reason("berlin", "SettingNotAccepted").await;
    assert_eq!(row(&status), STALLED);
    let report = condition(&status, ConditionType::Ready).message;
    for part in ["vppTokenAccountType", "education", "business", "leave the field out"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert_eq!(world.patched(), [["vppTokenAccountType"], ["vppTokenAccountType"], ["vppTokenAccountType"]]);
    // Not for ever, and not instead of anything else.
    world.wait_lists(2).await;
    assert_eq!(world.emulator.count(Operation::Update), 3);
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    world
        .wait_graph("the country", |seen| seen.entities(&world.tenant_id)[0].country_or_region.as_deref() == Some("fr"))
        .await;
    assert_eq!(world.patched().pop().unwrap(), ["countryOrRegion"]);
    world.request_sync("berlin", "now").await;
    world
        .wait_status("berlin", "synced as requested", |status| {
            status.last_handled_sync_request.as_deref() == Some("now")
        })
        .await;
    // It ends when the field is removed, as the message asks for.
    world.patch("berlin", json!({ "spec": { "vppTokenAccountType": null } })).await;
    assert_eq!(row(&world.wait_ready("berlin").await), READY);
    assert_eq!(world.emulator.count(Operation::Update), 4);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_renewed_in_the_portal_is_not_overwritten_by_the_older_file() {
    let world = World::new().await;
    let old = world.token("Contoso", &EXPIRES);
    world.create("berlin", &old, json!({ "countryOrRegion": "de" })).await;
    world.wait_synced("berlin").await;
    let id = world.entity("berlin").await.id;
    world.emulator.clear_requests();
    // A person uploads a newer file in the portal; Git has the old one, and somebody writes it again.
    world.emulator.edit(&world.tenant_id, &id, |entity| {
        entity.expiration_date_time = Some(RENEWED.parse().unwrap());
        entity.token_sha256 = Some("0".repeat(64));
    });
    world
        .wait_status("berlin", "shown with the new expiry", |status| {
            status.expiration_date_time == Some(RENEWED.parse().unwrap())
        })
        .await;
    let older = world.token("Contoso", &in_days(300));
    world.write_secret("berlin", "token", &older.text()).await;
    let status = world.wait_reason("berlin", "TokenFileOlder").await;
    assert_eq!(row(&status), STALLED);
    let report = condition(&status, ConditionType::Ready).message;
    assert!(report.contains(in_days(300).as_str()) && report.contains(RENEWED.as_str()), "{report}");
    // That stops only the upload.
    world.emulator.edit(&world.tenant_id, &id, |entity| entity.country_or_region = Some("us".into()));
    world.wait_graph("the country put back", |seen| seen.count(Operation::Update) == 1).await;
    world.wait_lists(2).await;
    assert_eq!(world.patched(), [["countryOrRegion"]], "no file went up");
    assert_eq!(world.entity("berlin").await.expiration_date_time, Some(RENEWED.parse().unwrap()));
    assert_eq!(world.emulator.count(Operation::Create), 0);
    // Nor by a process that starts now, which remembers nothing.
    world.operator.restart().await;
    world.wait_lists(2).await;
    world.wait_reason("berlin", "TokenFileOlder").await;
    assert_eq!(world.patched(), [["countryOrRegion"]]);
    // The newer file ends it.
    let newest = world.token("Contoso", &in_days(570));
    world.write_secret("berlin", "token", &newest.text()).await;
    world
        .wait_status("berlin", "renewed", |status| {
            row(status) == READY && status.expiration_date_time == Some(newest.expires())
        })
        .await;
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}
