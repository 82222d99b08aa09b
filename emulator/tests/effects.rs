//! The effects: what was carried out, in order, by whom, and what the entity was before and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graph_emulator::{Action, By, Fault, NewEntity, Operation, When, sha256};
use jiff::SignedDuration;
use serde_json::json;
use std::time::Duration;
use support::TENANT;
use support::in_process::{InProcess, start};

#[tokio::test(start_paused = true)]
async fn each_write_that_was_carried_out_is_an_effect_with_before_and_after() {
    let world = InProcess::new().await;
    let new = NewEntity { token: Some("by hand".into()), ..NewEntity::default() };
    let by_hand = world.emulation.create_by_hand(TENANT, new);
    let id = world.created("a@b.example").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.patch(&id, &json!({"countryOrRegion": "fr"})).await;
    world.sync(&id).await;
    world.emulation.force_state(TENANT, &id, Some("invalid"));
    world.emulation.edit(TENANT, &by_hand.id, |entity| entity.automatically_update_apps = true);
    assert!(world.emulation.sync_by_hand(TENANT, &by_hand.id));
    assert!(world.emulation.remove(TENANT, &by_hand.id));
    assert_eq!(world.delete(&id).await, 204);

    let effects = world.emulation.effects();
    let note: Vec<_> =
        effects.iter().map(|effect| (effect.sequence, effect.operation, effect.id.as_str(), effect.by)).collect();
    let (id, other) = (id.as_str(), by_hand.id.as_str());
    assert_eq!(
        note,
        [
            (1, Operation::Create, other, By::Hand),
            (2, Operation::Create, id, By::Request(2)),
            (3, Operation::Update, id, By::Request(3)),
            (4, Operation::SyncLicenses, id, By::Request(4)),
            (5, Operation::Update, id, By::Hand),
            (6, Operation::Update, other, By::Hand),
            (7, Operation::SyncLicenses, other, By::Hand),
            (8, Operation::Delete, other, By::Hand),
            (9, Operation::Delete, id, By::Request(5)),
        ]
    );
    assert!(effects.iter().all(|effect| effect.tenant == TENANT));
    let seconds: Vec<_> = effects.iter().map(|effect| effect.at.duration_since(start()).as_secs()).collect();
    assert_eq!(seconds, [0, 0, 1, 1, 1, 1, 1, 1, 1]);

    assert_eq!((&effects[0].before, effects[0].after.as_ref()), (&None, Some(&by_hand)));
    assert_eq!(by_hand.token_sha256, Some(sha256("by hand")));
    let (before, after) = (effects[2].before.as_ref().unwrap(), effects[2].after.as_ref().unwrap());
    assert_eq!(before, effects[1].after.as_ref().unwrap());
    assert_eq!((before.country_or_region.as_deref(), after.country_or_region.as_deref()), (Some("de"), Some("fr")));
    assert_eq!(after.last_modified_date_time, start() + SignedDuration::from_secs(1));
    assert_eq!(effects[3].after.as_ref().unwrap().last_sync_status, "inProgress");
    assert_eq!(effects[4].after.as_ref().unwrap().state, "invalid");
    assert_eq!((&effects[8].before, &effects[8].after), (&effects[4].after, &None));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_stopped_on_its_way_is_no_effect_and_a_lost_answer_is_one() {
    let world = InProcess::new().await;
    let id = world.created("a@b.example").await;
    world.emulation.hide(TENANT, &id, Duration::from_secs(1));
    assert_eq!(world.delete(&id).await, 404);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.patch(&id, &json!({"token": "no file"})).await.0, 400);
    assert_eq!(world.patch("unknown", &json!({})).await.0, 404);
    assert!(!world.emulation.remove(TENANT, "unknown"));
    assert!(!world.emulation.edit(TENANT, "unknown", |_| {}));
    world.get(&id).await;
    for (when, effects) in [(When::Before, 1), (When::After, 2)] {
        world.emulation.inject(Fault::new(Action::Cut { when }).on(Operation::Create).once());
        assert!(world.call(world.creating("b@b.example")).await.is_err());
        assert_eq!(world.emulation.look(|view| view.effects().len()), effects, "{when:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_effects_are_kept_as_requests() {
    let world = InProcess::with(1, |settings| settings.log_capacity = 2).await;
    for number in 0..3 {
        world.created(&format!("{number}@b.example")).await;
    }
    assert_eq!(world.emulation.effects().iter().map(|effect| effect.sequence).collect::<Vec<_>>(), [2, 3]);
}
