//! What fails is tried again after a delay that fits the failure, and delays nobody else.

use std::collections::BTreeSet;

use graph_emulator::{Action, Fault, Operation, RequestRecord, When};
use serde_json::{Value, json};
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, History, LIMIT, READY, RENEWED, STALLED, Setup, World, condition, row};

/// Refused for good, as long as nothing changes: Graph's sentence is shown, and it is not sent again and again.
#[tokio::test(flavor = "multi_thread")]
async fn what_graph_refuses_is_reported_and_sent_again_only_when_something_changes() {
    let mut setup = Setup::default();
    setup.emulator.required_on_create.insert("countryOrRegion".into());
    let world = World::with(setup).await;
    let sent = |count: usize| {
        let world = &world;
        async move {
            world.wait_graph(&format!("create {count}"), |seen| seen.count(Operation::Create) >= count).await;
            // Reconciled after the answer, and not sent once more.
            let sequence = world.requests(Operation::Create).last().unwrap().sequence;
            world
                .wait_graph("the refusal", |seen| {
                    seen.requests().any(|record| record.sequence == sequence && record.status() == Some(400))
                })
                .await;
            let status = world.wait_reason("berlin", "GraphRefused").await;
            assert_eq!(row(&status), STALLED);
            let report = condition(&status, ConditionType::Ready).message;
            assert!(report.contains("The property 'countryOrRegion' is required"), "{report}");
        }
    };
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    sent(1).await;
    // Nobody else is delayed.
    let other = world.token("Contoso", &EXPIRES);
    world.create("munich", &other, json!({ "countryOrRegion": "de" })).await;
    world.wait_synced("munich").await;
    world.request_sync("munich", "now").await;
    world.wait_status("munich", "synced", |status| status.last_handled_sync_request.is_some()).await;
    // Over some polls, one of which shows a change of somebody else's token.
    let id = world.entity("munich").await.id;
    world.emulator.edit(&world.tenant_id, &id, |entity| entity.automatically_update_apps = true);
    world.wait_lists(3).await;
    let creates = || world.emulator.count(Operation::Create);
    assert_eq!(creates(), 2, "one of each: {:#?}", world.emulator.requests());
    world.wait_events("berlin", &["GraphRefused"]).await;

    // Another manifest, and another file: at once, although Graph refuses them too.
    world.patch("berlin", json!({ "spec": { "automaticallyUpdateApps": true } })).await;
    sent(3).await;
    let file = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &file.text()).await;
    sent(4).await;
    world.wait_lists(1).await;
    assert_eq!(creates(), 4);
    // What the message asks for.
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    assert_eq!(row(&world.wait_synced("berlin").await), READY);
    assert_eq!((creates(), world.entities().len()), (5, 2));
    world.wait_events("berlin", &["GraphRefused", "Created"]).await;
    world.finish().await;
}

fn gaps(requests: &[RequestRecord]) -> Vec<f64> {
    requests.windows(2).map(|pair| pair[1].began.duration_since(pair[0].began).as_secs_f64()).collect()
}

/// The delay of what fails grows from try to try, though the object's status is written between any two; others go on; a
/// success ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_object_waits_longer_and_longer_whatever_is_written_about_it_and_delays_nobody() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let id = world.entity("berlin").await.id;
    world.emulator.clear_requests();
    let down = |times: u32| {
        let action = Action::Status { when: When::Before, code: 503, retry_after: None, body: Default::default() };
        Fault::new(action).on(Operation::Update).id(id.as_str()).times(times)
    };
    let history = History::begin(world.tokens()).await;
    let fault = world.emulator.inject(down(u32::MAX));
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    let mut versions = BTreeSet::new();
    for tries in 1..=4 {
        assert!(fault.wait_hits(tries, LIMIT).await, "{}", world.operator.log_end());
        // Something that the status has to show, between this try and the next.
        let type_ = if tries % 2 == 0 { "business" } else { "education" };
        world.emulator.edit(&world.tenant_id, &id, |entity| entity.vpp_token_account_type = type_.into());
        world
            .wait_status("berlin", "shown as it is", |status: &VppTokenStatus| {
                status.vpp_token_account_type.as_deref() == Some(type_)
            })
            .await;
        versions.insert(world.tokens().get("berlin").await.unwrap().metadata.resource_version);
        if tries == 3 {
            // In the middle of it.
            let other = world.token("Contoso", &EXPIRES);
            world.create("munich", &other, Value::Null).await;
            world.wait_synced("munich").await;
        }
    }
    assert_eq!(versions.len(), 4, "its own status writes were between the tries");
    assert!(fault.wait_hits(5, LIMIT).await);
    let failed = gaps(&world.requests(Operation::Update)[..5]);
    // The status shows what it waits for, and no single attempt.
    let report = history.of("berlin").await;
    let mut report: Vec<_> = report.iter().map(|status| condition(status, ConditionType::Ready).reason).collect();
    report.dedup();
    assert_eq!(report, ["UpToDate", "Updating", "GraphUnavailable"]);
    for (gap, doubled) in failed.iter().zip([1.0, 2.0, 4.0, 8.0]) {
        assert!(*gap >= 0.8 * doubled, "tried again too early: {failed:?}");
    }
    // With another manifest it is tried at once, and after a success the first delay is the first again.
    fault.remove();
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    world.wait_ready("berlin").await;
    world.emulator.clear_requests();
    let fault = world.emulator.inject(down(2));
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "it" } })).await;
    assert!(fault.wait_hits(2, LIMIT).await);
    world.wait_ready("berlin").await;
    let short = gaps(&world.requests(Operation::Update)[..2]);
    assert!(short[0] < failed[3], "the delay did not begin anew: {short:?} after {failed:?}");
    assert_eq!(world.emulator.count(Operation::Update), 3);
    world.finish().await;
}
