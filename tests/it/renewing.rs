//! A renewed file: onto the same token, in three stages that a person can tell apart.

use std::time::Duration;

use graph_emulator::{Action, Fault, Operation, When, sha256};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, History, LIMIT, READY, RECONCILING, RENEWED, STALLED, World, condition, row};

/// What kubectl shows of a renewal: the row, the reasons of Ready and of TokenValid, and the expiry.
fn shown(status: &VppTokenStatus) -> ([&str; 3], String, [String; 2], Option<Timestamp>) {
    let token = condition(status, ConditionType::TokenValid);
    (
        row(status),
        condition(status, ConditionType::Ready).reason,
        [token.status, token.reason],
        status.expiration_date_time,
    )
}

fn has(status: &VppTokenStatus, digest: &str) -> bool {
    status.uploaded.as_ref().is_some_and(|uploaded| uploaded.sha256 == digest)
}

/// Graph takes the file and goes on showing the old expiry for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_shows_that_it_is_uploaded_then_that_graph_lags_then_that_it_is_done() {
    let world = World::new().await;
    let (old, renewed) = (world.token("Contoso", &EXPIRES), world.token("Contoso", &RENEWED));
    // This one's old file runs out before the new one comes.
    let soon = (Timestamp::now() + SignedDuration::from_secs(15)).strftime("%FT%TZ").to_string();
    let (short, late) = (world.token("Contoso", &soon), world.token("Contoso", &RENEWED));
    world.create("late", &short, json!({})).await;
    world.create("berlin", &old, json!({})).await;
    let ids = [world.wait_synced("berlin").await.token_id, world.wait_ready("late").await.token_id];
    let status = world.wait_reason("late", "Expired").await;
    assert_eq!(row(&status), STALLED);
    world
        .wait_graph("the end of all syncs", |seen| {
            seen.entities(&world.tenant_id).iter().all(|entity| entity.last_sync_status != "inProgress")
        })
        .await;
    world.emulator.clear_requests();
    let history = History::begin(world.tokens()).await;
    world.emulator.settings_mut(|settings| settings.expiry_lag = Duration::from_secs(6));
    let held = world.emulator.inject(Fault::new(Action::Hold { when: When::After }).on(Operation::SyncLicenses));
    for (name, file) in [("berlin", &renewed), ("late", &late)] {
        world.write_secret(name, "token", &file.text()).await;
    }

    // Uploaded: the file is on its way to being everything that Graph shows.
    for (name, file) in [("berlin", &renewed), ("late", &late)] {
        let digest = sha256(&file.text());
        assert!(history.wait(name, |status| has(status, &digest)).await, "{}", world.operator.log_end());
        world.wait_event(name, "Uploaded").await;
    }
    assert!(held.wait_hits(2, LIMIT).await, "a sync follows each upload");
    held.remove();
    for (name, file) in [("berlin", &renewed), ("late", &late)] {
        world
            .wait_status(name, "done", |status| {
                row(status) == READY
                    && status.expiration_date_time == Some(file.expires())
                    // Whether it succeeds or not: Graph may still take the token for the old one.
                    && status.last_sync_status.as_deref() != Some("inProgress")
            })
            .await;
    }
    let versions = history.of("berlin");
    let mut stages: Vec<_> = versions.iter().map(shown).collect();
    stages.dedup();
    let of = |row, reason: &str, token: [&str; 2], expiry| (row, reason.to_owned(), token.map(str::to_owned), expiry);
    assert_eq!(
        stages,
        [
            of(READY, "UpToDate", ["True", "Valid"], Some(old.expires())),
            of(RECONCILING, "Uploading", ["True", "Valid"], Some(old.expires())),
            of(READY, "UpToDate", ["True", "RenewalNotShownYet"], Some(old.expires())),
            of(READY, "UpToDate", ["True", "Valid"], Some(renewed.expires())),
        ]
    );
    let versions = history.of("late");
    let mut stages: Vec<_> = versions.iter().map(shown).collect();
    stages.dedup();
    assert_eq!(
        stages,
        [
            of(STALLED, "Expired", ["False", "Expired"], Some(short.expires())),
            of(RECONCILING, "Uploading", ["False", "Expired"], Some(short.expires())),
            // Not as if it had failed: Graph has the file, and a person has nothing to do.
            of(RECONCILING, "RenewalNotShownYet", ["Unknown", "RenewalNotShownYet"], Some(short.expires())),
            of(READY, "UpToDate", ["True", "Valid"], Some(late.expires())),
        ]
    );
    let said = history.of("berlin").into_iter().map(|status| condition(&status, ConditionType::TokenValid).message);
    let said: Vec<String> = said.filter(|message| message.contains("was uploaded")).collect();
    assert!(said.iter().all(|message| message.contains(RENEWED.as_str())), "{said:?}");

    // Each: one PATCH of the file alone, then one sync, on the token that it had.
    world.wait_lists(1).await;
    assert_eq!(world.patched(), [["token"], ["token"]]);
    for id in ids {
        let mut written = world.written();
        written.retain(|(_, to)| *to == id);
        assert_eq!(written, [(Operation::Update, id.clone()), (Operation::SyncLicenses, id)]);
    }
    assert_eq!((world.entities().len(), world.emulator.writes()), (2, 4));
    for name in ["berlin", "late"] {
        let events = world.event_reasons(name).await;
        assert_eq!(events.iter().filter(|reason| *reason == "Uploaded").count(), 1, "{events:?}");
    }
    world.finish().await;
}

/// While the PATCH fails, the renewal is said to be due; the old token goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_graph_does_not_take_yet_is_shown_as_due() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let down = Action::Status { when: When::Before, code: 503, retry_after: None, body: Default::default() };
    let down = world.emulator.inject(Fault::new(down).on(Operation::Update));
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &renewed.text()).await;
    let status = world.wait_reason("berlin", "GraphUnavailable").await;
    assert_eq!(row(&status), RECONCILING);
    assert_eq!(status.uploaded.as_ref().unwrap().sha256, sha256(&file.text()));
    assert_eq!(condition(&status, ConditionType::TokenValid).reason, "Valid");
    // A still newer one comes before Graph has taken this one.
    let newest = world.token("Contoso", &crate::support::in_days(565));
    down.remove();
    world.write_secret("berlin", "token", &newest.text()).await;
    world
        .wait_status("berlin", "renewed", |status| {
            row(status) == READY && status.expiration_date_time == Some(newest.expires())
        })
        .await;
    assert_eq!(world.entities()[0].uploads, 2, "the one in between was never taken");
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}
