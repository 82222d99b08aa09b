//! A renewed file: onto the same token, in three stages that a person can distinguish.

use std::time::Duration;

use graph_emulator::{Action, Fault, Operation, When, sha256};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, History, LIMIT, READY, RECONCILING, RENEWED, STALLED, Setup, World, condition, row};

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
    // This one's old file expires before the new one comes.
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

    // Uploaded: Graph does not show the new expiry yet.
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
                    // Whether it succeeds or not: for Graph, the token may still be the old one.
                    && status.last_sync_status.as_deref() != Some("inProgress")
            })
            .await;
    }
    let versions = history.of("berlin").await;
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
    let versions = history.of("late").await;
    let mut stages: Vec<_> = versions.iter().map(shown).collect();
    stages.dedup();
    assert_eq!(
        stages,
        [
            of(STALLED, "Expired", ["False", "Expired"], Some(short.expires())),
            of(RECONCILING, "Uploading", ["False", "Expired"], Some(short.expires())),
            // Not as a failure: Graph has the file, and nobody has to act.
            of(RECONCILING, "RenewalNotShownYet", ["Unknown", "RenewalNotShownYet"], Some(short.expires())),
            of(READY, "UpToDate", ["True", "Valid"], Some(late.expires())),
        ]
    );
    let report =
        history.of("berlin").await.into_iter().map(|status| condition(&status, ConditionType::TokenValid).message);
    let report: Vec<String> = report.filter(|message| message.contains("was uploaded")).collect();
    assert!(report.iter().all(|message| message.contains(RENEWED.as_str())), "{report:?}");

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

/// While the PATCH fails, the renewal is reported as due; the old token goes on.
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

/// Someone uploads a newer file in the portal after the last list: the older one of the Secret is not uploaded over it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_newer_than_the_last_list_showed_and_older_than_what_graph_has_stays_in_the_cluster() {
    // One list at the start, and those of the first sync: later changes are shown only by a GET.
    let world = World::with(Setup { poll_interval: "1h", ..Setup::default() }).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    let id = world.wait_synced("berlin").await.token_id.unwrap();
    let newest = crate::support::in_days(570);
    world.emulator.edit(&world.tenant_id, &id, |entity| entity.expiration_date_time = Some(newest.parse().unwrap()));
    world.emulator.clear_requests();
    world.write_secret("berlin", "token", &world.token("Contoso", &RENEWED).text()).await;
    let status = world.wait_reason("berlin", "TokenFileOlder").await;
    assert_eq!(row(&status), STALLED);
    assert_eq!(status.expiration_date_time, Some(newest.parse().unwrap()));
    let report = condition(&status, ConditionType::Ready).message;
    assert!(report.contains(&newest) && report.contains(RENEWED.as_str()), "{report}");
    assert_eq!(world.written(), []);
    assert_eq!(world.emulator.count(Operation::Get), 1);

    // A newer one still is uploaded, after a GET of what Graph has; that fails at first.
    let down = Action::Status { when: When::Before, code: 503, retry_after: None, body: Default::default() };
    let down = world.emulator.inject(Fault::new(down).on(Operation::Get));
    let last = world.token("Contoso", &crate::support::in_days(580));
    world.write_secret("berlin", "token", &last.text()).await;
    world.wait_reason("berlin", "GraphUnavailable").await;
    assert!(down.wait_hits(2, LIMIT).await);
    assert_eq!(world.written(), [], "nothing is uploaded on the word of a list");
    down.remove();
    world
        .wait_status("berlin", "renewed", |status| {
            row(status) == READY && status.expiration_date_time == Some(last.expires())
        })
        .await;
    assert_eq!(world.patched(), [["token"]]);
    world.finish().await;
}

/// What people do in the portal with a token is reported, and an upload can be requested.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_someone_renewed_or_replaced_in_the_portal_is_distinguished() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let id = world.entity("berlin").await.id;
    let shown = |status: &VppTokenStatus| status.uploaded.as_ref().is_some_and(|uploaded| uploaded.shown);
    world.wait_status("berlin", "known to be shown by Graph", shown).await;
    world.emulator.clear_requests();
    let by_hand = |expires: String| {
        let expires = Some(expires.parse().unwrap());
        assert!(world.emulator.edit(&world.tenant_id, &id, |entity| entity.expiration_date_time = expires));
    };
    by_hand(RENEWED.clone());
    let status = world.wait_reason("berlin", "NewerTokenInIntune").await;
    assert_eq!(row(&status), READY);
    let report = condition(&status, ConditionType::Ready).message;
    assert!(report.contains(RENEWED.as_str()) && report.contains("Secret \"berlin\""), "{report}");

    let soon = crate::support::in_days(16);
    by_hand(soon.clone());
    let status = world.wait_reason("berlin", "ReplacedInIntune").await;
    assert_eq!(row(&status), STALLED);
    assert_eq!(condition(&status, ConditionType::TokenValid).reason, "ExpiringSoon");
    let report = condition(&status, ConditionType::Ready).message;
    for part in [soon.as_str(), EXPIRES.as_str(), "vpptoken.io/upload-requested-at"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    world.wait_events("berlin", &["Created", "ReplacedInIntune", "ExpiringSoon"]).await;
    world.wait_lists(2).await;
    assert_eq!(world.written(), [], "nobody fights with people");

    // A request may be a text of any length.
    let request = "x".repeat(100_000);
    world.request_upload("berlin", &request).await;
    let status = world
        .wait_status("berlin", "uploaded again", |status| {
            row(status) == READY && status.expiration_date_time == Some(file.expires())
        })
        .await;
    let answered = status.last_handled_upload_request.unwrap();
    assert!(answered.starts_with("sha256:") && answered.len() < 100, "{answered}");
    assert_eq!(condition(&world.wait_synced("berlin").await, ConditionType::Ready).reason, "UpToDate");
    world.wait_lists(2).await;
    assert_eq!(world.written(), [(Operation::Update, Some(id.clone())), (Operation::SyncLicenses, Some(id))]);
    assert_eq!((world.patched(), world.emulator.count(Operation::Get)), (vec![vec!["token".to_owned()]], 1));
    world.finish().await;
}
