//! Many tokens vanish from Graph: that looks like a fault, so nothing is created until it has ended, or a person says
//! that it is none.

use std::time::Duration;

use graph_emulator::{Entity, Operation};
use serde_json::json;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, RECONCILING, RENEWED, STALLED, Setup, World, condition, row};

/// Longer than a test runs.
const FOR_LONG: Duration = Duration::from_secs(3600);

async fn created(world: &World, names: &[&str]) -> Vec<Entity> {
    let mut entities = Vec::new();
    for name in names {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, json!({ "countryOrRegion": "de" })).await;
    }
    for name in names {
        world.wait_synced(name).await;
        entities.push(world.entity(name).await);
    }
    entities
}

async fn are_missed(world: &World, names: &[&str], entities: &[Entity]) {
    for (name, entity) in names.iter().zip(entities) {
        let status = world.wait_reason(name, "ManyVanished").await;
        assert_eq!(row(&status), STALLED, "{name}");
        let report = condition(&status, ConditionType::Ready).message;
        assert!(report.contains("none is created again") && report.contains("delete their VppTokens"), "{report}");
        assert_eq!(status.token_id.as_ref(), Some(&entity.id), "{name}: it is not forgotten");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_vanish_at_once_are_not_created_again_and_all_are_ready_when_they_are_back() {
    let world = World::new().await;
    let (gone, there) = (["ab", "cd", "ef", "gh"], ["uv", "xy"]);
    let lost = created(&world, &gone).await;
    let left = created(&world, &there).await;
    world.emulator.clear_requests();
    for entity in &lost {
        assert!(world.emulator.hide(&world.tenant_id, &entity.id, FOR_LONG));
    }
    are_missed(&world, &gone, &lost).await;
    for name in gone {
        world.wait_event(name, "ManyVanished").await;
    }
    // Nothing that their manifests ask for is sent meanwhile, by this process or another one.
    world.patch("ab", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    world.request_sync("cd", "now").await;
    let renewed = world.token("Contoso", &RENEWED);
    world.write_secret("ef", "token", &renewed.text()).await;
    world.wait_lists(2).await;
    world.operator.restart().await;
    world.wait_lists(3).await;
    are_missed(&world, &gone, &lost).await;
    assert_eq!(world.written(), []);
    // The others are still managed, and new ones are created.
    world.emulator.edit(&world.tenant_id, &left[0].id, |entity| entity.country_or_region = Some("us".into()));
    world.wait_graph("the country put back", |seen| seen.count(Operation::Update) == 1).await;
    world.request_sync("xy", "now").await;
    world.wait_status("xy", "synced", |status| status.last_handled_sync_request.is_some()).await;
    let new = created(&world, &["new"]).await;
    world.wait_lists(2).await;
    are_missed(&world, &gone, &lost).await;
    assert_eq!(world.emulator.count(Operation::Create), 1);

    // The fault ends: the same tokens are there again.
    world.emulator.clear_requests();
    for entity in &lost {
        assert!(world.emulator.hide(&world.tenant_id, &entity.id, Duration::ZERO));
    }
    for (name, entity) in gone.iter().zip(&lost).chain(["new"].iter().zip(&new)) {
        let status = world.wait_synced(name).await;
        assert_eq!((row(&status), status.token_id.as_ref()), (READY, Some(&entity.id)), "{name}");
    }
    world
        .wait_status("cd", "synced as requested", |status| status.last_handled_sync_request.as_deref() == Some("now"))
        .await;
    world
        .wait_status("ef", "renewed", |status| {
            status.expiration_date_time == Some(renewed.expires()) && row(status) == READY
        })
        .await;
    assert_eq!(world.entity("ab").await.country_or_region.as_deref(), Some("fr"));
    assert_eq!((world.emulator.count(Operation::Create), world.entities().len()), (0, 7));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_were_deleted_on_purpose_are_created_again_when_a_person_makes_their_vpptokens_anew() {
    let world = World::new().await;
    let names = ["ab", "cd", "ef", "gh", "ij"];
    let lost = created(&world, &names).await;
    world.emulator.clear_requests();
    for entity in &lost {
        assert!(world.emulator.remove(&world.tenant_id, &entity.id));
    }
    are_missed(&world, &names, &lost).await;
    assert_eq!(world.written(), []);
    // As the message asks for.
    for name in names {
        world.delete(name).await;
        world.wait_deleted(name).await;
    }
    for name in names {
        world.create_token(name, json!({ "countryOrRegion": "de" })).await;
    }
    for (name, entity) in names.iter().zip(&lost) {
        let status = world.wait_synced(name).await;
        assert_eq!(row(&status), READY, "{name}");
        assert_ne!(status.token_id.as_ref(), Some(&entity.id), "{name}");
    }
    world.wait_lists(2).await;
    assert_eq!((world.emulator.count(Operation::Create), world.entities().len()), (5, 5));
    world.finish().await;
}

/// Graph hides a token for a moment: that makes no second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_missing_for_a_moment_is_not_created_again() {
    let flags = ["--settling-time", "2s", "--unknown-outcome-time", "3s", "--vanished-time", "15m"];
    let world = World::with(Setup { flags: flags.map(str::to_owned).to_vec(), ..Setup::default() }).await;
    let entity = created(&world, &["berlin"]).await.remove(0);
    world.emulator.clear_requests();
    assert!(world.emulator.hide(&world.tenant_id, &entity.id, FOR_LONG));
    let status = world
        .wait_status("berlin", "said to be missing", |status| {
            row(status) == RECONCILING
                && condition(status, ConditionType::Ready).message.contains("missing in Graph since")
        })
        .await;
    assert_eq!(condition(&status, ConditionType::Ready).reason, "Vanished");
    assert_eq!(status.token_id.as_ref(), Some(&entity.id));
    world.wait_lists(2).await;
    assert_eq!((world.written(), world.emulator.count(Operation::Get)), (vec![], 1));
    assert!(world.emulator.hide(&world.tenant_id, &entity.id, Duration::ZERO));
    let status = world.wait_ready("berlin").await;
    assert_eq!(status.token_id.as_ref(), Some(&entity.id));
    let events = world.event_reasons("berlin").await;
    assert!(!events.contains(&"Vanished".to_owned()), "{events:?}");
    assert_eq!(world.written(), []);
    world.finish().await;
}

/// There are only two tokens: that both vanish at once is as unlikely as with many.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_two_tokens_that_vanish_at_once_are_not_created_again() {
    let world = World::new().await;
    let names = ["ab", "cd"];
    let lost = created(&world, &names).await;
    world.emulator.clear_requests();
    for entity in &lost {
        assert!(world.emulator.remove(&world.tenant_id, &entity.id));
    }
    are_missed(&world, &names, &lost).await;
    world.wait_lists(3).await;
    are_missed(&world, &names, &lost).await;
    assert_eq!(world.written(), []);
    world.finish().await;
}
