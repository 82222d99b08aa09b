//! What happens at the same time: lists that overlap a write, VppTokens that want the same token, lost answers, tokens
//! that people add to Graph or remove from it. Never two tokens, never an older state.

use std::collections::BTreeSet;
use std::time::Duration;

use graph_emulator::{Action, BodyKind, Fault, NewEntity, Operation, Paging, Settings, TokenFile, When};
use jiff::SignedDuration;
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::{ConditionType, find};

use crate::support::{History, LIMIT, Setup, World, is_ready};

/// The reason of Ready.
fn reason(status: &VppTokenStatus) -> &str {
    find(&status.conditions, ConditionType::Ready).map_or("", |ready| &ready.reason)
}

/// How many requests of a kind were carried out.
fn carried_out(world: &World, operation: Operation) -> usize {
    let requests = world.requests(operation);
    requests.iter().filter(|request| request.carried_out.is_some()).count()
}

fn hold(when: When, operation: Operation) -> Fault {
    Fault::new(Action::Hold { when }).on(operation).once()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_began_before_a_create_and_ended_after_it_brings_no_second_create_and_nothing_vanishes() {
    let world = World::new().await;
    let history = History::begin(world.tokens()).await;
    let create = world.emulator.inject(hold(When::Before, Operation::Create));
    world.create("berlin", &world.token("Contoso", "2097-01-22T17:32:07Z"), json!({})).await;
    assert!(create.wait_hit(LIMIT).await);
    // The next poll: its answer is ready while there is no token, and arrives when there is one.
    let list = world.emulator.inject(hold(When::After, Operation::List));
    assert!(list.wait_hit(LIMIT).await);
    assert!(world.entities().is_empty());
    create.release();
    assert!(history.wait("berlin", |status| status.token_id.is_some()).await);
    let id = world.entities()[0].id.clone();
    list.release();
    world.wait_synced("berlin").await;
    world.wait_lists(2).await;

    assert_eq!(world.entities().len(), 1, "{:#?}", world.entities());
    assert_eq!(carried_out(&world, Operation::Create), 1);
    assert_eq!(world.emulator.count(Operation::Get), 0, "the token was missed and asked for");
    let created = history.of("berlin").await.into_iter().skip_while(|status| status.token_id.is_none());
    for status in created {
        assert_eq!(status.token_id.as_ref(), Some(&id), "{status:#?}");
        assert_ne!(reason(&status), "Vanished", "the token seemed to be gone: {status:#?}");
        assert_eq!(status.pending_create, None, "{status:#?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_began_before_a_change_and_ended_after_it_shows_nothing_old() {
    let world = World::new().await;
    let history = History::begin(world.tokens()).await;
    let file = world.token("Contoso", "2097-01-22T17:32:07Z");
    world.create("berlin", &file, json!({ "countryOrRegion": "de" })).await;
    world.wait_synced("berlin").await;
    let update = world.emulator.inject(hold(When::Before, Operation::Update));
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    assert!(update.wait_hit(LIMIT).await);
    let list = world.emulator.inject(hold(When::After, Operation::List));
    assert!(list.wait_hit(LIMIT).await);
    update.release();
    let shows = |status: &VppTokenStatus, country: &str| status.country_or_region.as_deref() == Some(country);
    assert!(history.wait("berlin", |status| shows(status, "fr")).await);
    list.release();
    world.wait_lists(2).await;

    assert_eq!(carried_out(&world, Operation::Update), 1);
    let versions = history.of("berlin").await;
    let changed = versions.iter().skip_while(|status| !shows(status, "fr"));
    for status in changed {
        assert!(shows(status, "fr"), "an old value came back: {status:#?}");
    }
    assert!(is_ready(versions.last().unwrap()), "{:#?}", versions.last());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_one_list_lacks_is_neither_missed_nor_created_again() {
    // Pages of one entry by offset: when the first entry is deleted during the list, the second is skipped.
    let setup = Setup {
        emulator: Settings { page_size: 1, paging: Paging::ByOffset, ..Setup::default().emulator },
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let history = History::begin(world.tokens()).await;
    let other = world.emulator.create_by_hand(
        &world.tenant_id,
        NewEntity {
            organization_name: Some("Fabrikam".into()),
            apple_id: Some("vpp@fabrikam.example".into()),
            ..NewEntity::default()
        },
    );
    world.create("berlin", &world.token("Contoso", "2097-01-22T17:32:07Z"), json!({})).await;
    world.wait_synced("berlin").await;
    let id = world.entities()[1].id.clone();

    // From here on the first page of a list waits, answered with the other entry.
    let page = world.emulator.inject(hold(When::After, Operation::List));
    assert!(page.wait_hit(LIMIT).await);
    let held = world.requests(Operation::List).pop().unwrap();
    assert_eq!(held.page, Some(1), "the fault hit in the middle of a list");
    assert!(world.emulator.remove(&world.tenant_id, &other.id));
    page.release();
    world
        .wait_graph("the second page, which is empty, and two lists more", |seen| {
            let lists = seen.requests().filter(|request| request.operation == Operation::List);
            lists.filter(|request| request.sequence > held.sequence).count() >= 3
        })
        .await;

    assert_eq!(carried_out(&world, Operation::Create), 1);
    assert_eq!(world.emulator.count(Operation::Get), 0, "one list was believed");
    assert_eq!(world.entities().len(), 1);
    let synced = history.of("berlin").await.into_iter().skip_while(|status| status.token_id.is_none());
    for status in synced {
        assert_eq!(status.token_id.as_ref(), Some(&id));
        assert_ne!(reason(&status), "Vanished", "the token seemed to be gone: {status:#?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_deleted_in_the_portal_is_created_again_exactly_once() {
    let world = World::new().await;
    world.create("berlin", &world.token("Contoso", "2097-01-22T17:32:07Z"), json!({})).await;
    let before = world.wait_synced("berlin").await.token_id;
    assert!(world.emulator.remove(&world.tenant_id, before.as_ref().unwrap()));
    let after = world
        .wait_status("berlin", "created again and synced", |status| {
            is_ready(status)
                && status.token_id != before
                && status.token_id.is_some()
                && status.last_sync_status.as_deref() == Some("completed")
        })
        .await
        .token_id;
    world.wait_lists(2).await;
    let entities = world.entities();
    assert_eq!(entities.len(), 1, "{entities:#?}");
    assert_eq!(Some(&entities[0].id), after.as_ref());
    assert_eq!(carried_out(&world, Operation::Create), 2);
    assert_eq!((entities[0].uploads, entities[0].syncs), (1, 1));
    assert_eq!(carried_out(&world, Operation::Get), 2, "missing from two lists, and then asked for at both ends");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_of_one_apple_id_and_organization_are_created_one_after_the_other() {
    let world = World::new().await;
    let history = History::begin(world.tokens()).await;
    let files = [
        ("berlin", world.token("Contoso", "2097-01-22T17:32:07Z")),
        ("paris", world.token("Contoso", "2097-02-03T04:05:06Z")),
        ("rome", world.token("Contoso", "2097-03-04T05:06:07Z")),
    ];
    for (name, file) in &files {
        world.write_secret(name, "token", &file.text()).await;
    }
    let same = json!({ "appleId": "vpp@contoso.example" });
    let created = files.iter().map(|(name, _)| world.create_token(name, same.clone()));
    futures::future::join_all(created).await;
    for (name, _) in &files {
        world.wait_synced(name).await;
    }

    let entities = world.entities();
    assert_eq!(entities.len(), 3, "{entities:#?}");
    assert_eq!(carried_out(&world, Operation::Create), 3);
    let ids: BTreeSet<&String> = entities.iter().map(|entity| &entity.id).collect();
    let mut owned = BTreeSet::new();
    for (name, file) in &files {
        let status = world.status(name).await;
        let entity = entities.iter().find(|entity| Some(&entity.id) == status.token_id.as_ref()).unwrap();
        assert_eq!(entity.token_sha256, Some(graph_emulator::sha256(&file.text())), "{name}");
        owned.insert(entity.id.clone());
    }
    assert_eq!(owned.iter().collect::<BTreeSet<_>>(), ids);

    let mut recorded: BTreeSet<String> = BTreeSet::new();
    let mut intents = 0;
    for (name, status) in history.all().await {
        if status.pending_create.is_none() {
            recorded.remove(&name);
        } else if recorded.insert(name) {
            intents += 1;
        }
        assert!(recorded.len() <= 1, "recorded at the same time: {recorded:?}");
    }
    assert_eq!(intents, 3);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_vpptokens_with_the_same_file_one_gets_it_and_the_other_is_stalled() {
    of_two_with_the_same_file_one_gets_it(["vpp@contoso.example"; 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_vpptokens_with_the_same_file_one_gets_it_though_one_apple_id_is_mistyped() {
    of_two_with_the_same_file_one_gets_it(["vpp@contoso.example", "vppp@contoso.example"]).await;
}

async fn of_two_with_the_same_file_one_gets_it(apple_ids: [&str; 2]) {
    let world = World::new().await;
    let file = world.token("Contoso", "2097-01-22T17:32:07Z");
    world.write_secret("shared", "token", &file.text()).await;
    let names = ["berlin", "paris"];
    let create = |(name, apple_id)| {
        world.create_token(name, json!({ "tokenSecretRef": { "name": "shared" }, "appleId": apple_id }))
    };
    futures::future::join_all(names.into_iter().zip(apple_ids).map(create)).await;
    for name in names {
        world
            .wait_status(name, "decided", |status| {
                reason(status) == "ClaimedByAnother"
                    || (is_ready(status) && status.last_sync_status.as_deref() == Some("completed"))
            })
            .await;
    }
    world.wait_lists(2).await;

    let entities = world.entities();
    assert_eq!(entities.len(), 1, "{entities:#?}");
    assert_eq!(carried_out(&world, Operation::Create), 1);
    assert_eq!((entities[0].uploads, entities[0].syncs), (1, 1));
    let statuses = [world.status("berlin").await, world.status("paris").await];
    let (has, held): (Vec<_>, Vec<_>) = statuses.iter().partition(|status| is_ready(status));
    assert_eq!((has.len(), held.len()), (1, 1), "{statuses:#?}");
    assert_eq!(has[0].token_id.as_ref(), Some(&entities[0].id));
    assert_eq!(held[0].token_id, None);
    assert_eq!(reason(held[0]), "ClaimedByAnother");
    assert!(find(&held[0].conditions, ConditionType::Stalled).is_some_and(|stalled| stalled.status == "True"));
    world.finish().await;
}

fn by_hand(file: &TokenFile, apple_id: &str) -> NewEntity {
    NewEntity { token: Some(file.text().into()), apple_id: Some(apple_id.to_owned()), ..NewEntity::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_match_in_graph_is_taken_over_without_a_patch() {
    let world = World::new().await;
    let file = world.token("Contoso", "2097-01-22T17:32:07Z");
    // As a person may have written it.
    let there = world.emulator.create_by_hand(&world.tenant_id, by_hand(&file, "VPP.Berlin@Contoso.example"));
    world.create("berlin", &file, json!({})).await;
    let status = world.wait_synced("berlin").await;
    world.wait_lists(2).await;
    assert_eq!(status.token_id.as_ref(), Some(&there.id));
    assert_eq!(status.uploaded.map(|uploaded| uploaded.sha256), Some(graph_emulator::sha256(&file.text())));
    assert_eq!(world.entities().len(), 1);
    assert_eq!(world.emulator.count(Operation::Create), 0);
    assert_eq!(world.emulator.count(Operation::Update), 0);
    assert_eq!(world.emulator.count(Operation::SyncLicenses), 1, "it had never been synced");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_similar_token_in_graph_stalls_the_create_until_a_person_decides() {
    let world = World::new().await;
    let older = world.token("Contoso", "2096-12-22T17:32:07Z");
    let newer = world.token("Contoso", "2097-12-22T17:32:07Z");
    let there = world.emulator.create_by_hand(&world.tenant_id, by_hand(&older, "vpp.berlin@contoso.example"));
    world.create("berlin", &newer, json!({})).await;
    let status = world.wait_reason("berlin", "SimilarTokenExists").await;
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains(&there.id), "{}", ready.message);
    assert!(ready.message.contains("2096-12-22"), "{}", ready.message);
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 0);
    assert_eq!(world.entities().len(), 1);

    // The manifest says that it is the same location.
    world.patch("berlin", json!({ "spec": { "tokenId": there.id } })).await;
    let status = world.wait_synced("berlin").await;
    assert_eq!(status.token_id.as_ref(), Some(&there.id));
    let entities = world.entities();
    assert_eq!(entities.len(), 1);
    assert_eq!(entities[0].token_sha256, Some(graph_emulator::sha256(&newer.text())));
    assert_eq!(world.emulator.count(Operation::Create), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_is_lost_makes_one_token() {
    let world = World::new().await;
    let cut = world.emulator.inject(Fault::new(Action::Cut { when: When::After }).on(Operation::Create).once());
    world.create("berlin", &world.token("Contoso", "2097-01-22T17:32:07Z"), json!({})).await;
    let status = world.wait_synced("berlin").await;
    world.wait_lists(2).await;
    assert_eq!(cut.hits(), 1);
    let entities = world.entities();
    assert_eq!(entities.len(), 1, "{entities:#?}");
    assert_eq!(status.token_id.as_ref(), Some(&entities[0].id));
    assert_eq!(world.emulator.count(Operation::Create), 1);
    assert_eq!(world.emulator.count(Operation::Update), 0);
    assert_eq!((entities[0].uploads, entities[0].syncs), (1, 1));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_never_arrived_is_sent_again_once_that_is_certain() {
    let world = World::new().await;
    let cut = world.emulator.inject(Fault::new(Action::Cut { when: When::Before }).on(Operation::Create).once());
    world.create("berlin", &world.token("Contoso", "2097-01-22T17:32:07Z"), json!({})).await;
    world.wait_reason("berlin", "CreateOutcomeUnknown").await;
    world.wait_synced("berlin").await;
    assert_eq!(cut.hits(), 1);
    assert_eq!(world.entities().len(), 1);
    let requests = world.emulator.requests();
    let creates: Vec<_> = requests.iter().filter(|request| request.operation == Operation::Create).collect();
    assert_eq!(creates.len(), 2);
    let whole_lists = requests.iter().filter(|request| {
        request.operation == Operation::List
            && request.sequence > creates[0].sequence
            && request.sequence < creates[1].sequence
    });
    assert!(whole_lists.count() >= 3, "Graph was hardly searched: {requests:#?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_delays_the_whole_tenant() {
    let world = World::new().await;
    let too_many =
        Action::Status { when: When::Before, code: 429, retry_after: Some("4.5".to_owned()), body: BodyKind::Json };
    let throttled = world.emulator.inject(Fault::new(too_many).on(Operation::Create).once());
    world.create("berlin", &world.token("Contoso", "2097-01-22T17:32:07Z"), json!({})).await;
    assert!(throttled.wait_hit(LIMIT).await);
    // One without any relation to it.
    world.create("paris", &world.token("Contoso", "2097-02-03T04:05:06Z"), json!({})).await;
    world.wait_synced("berlin").await;
    world.wait_synced("paris").await;
    assert_eq!(world.entities().len(), 2);
    assert_eq!(carried_out(&world, Operation::Create), 2);
    assert_eq!(world.emulator.count(Operation::Create), 3);
    let requests = world.emulator.requests();
    let refused = requests.iter().find(|request| request.status() == Some(429)).unwrap();
    let until = refused.began + SignedDuration::try_from(Duration::from_millis(4500)).unwrap();
    let too_early: Vec<_> = requests
        .iter()
        .filter(|request| request.operation.is_write() && request.sequence > refused.sequence && request.began < until)
        .collect();
    assert!(too_early.is_empty(), "sent while Graph asked to wait: {too_early:#?}");
    world.finish().await;
}
