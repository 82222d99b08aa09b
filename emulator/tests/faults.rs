//! Every fault, seen from the client's side; and being down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use futures::future::join_all;
use graph_emulator::{Action, BodyKind, Fault, Operation, Outcome, When};
use serde_json::json;
use std::time::{Duration, Instant};
use support::{PATIENCE, TENANT, World, body, file, send};

fn new_body() -> serde_json::Value {
    body(&file(), "a@b.example")
}

#[tokio::test]
async fn a_connection_cut_before_the_effect_is_an_error_and_nothing_happened() {
    let world = World::new().await;
    let fault = world.emulator.inject(Fault::new(Action::Cut { when: When::Before }).on(Operation::Create).once());
    let error = send(world.create_request(&new_body())).await.unwrap_err();
    assert!(error.is_request() && error.status().is_none(), "{error:?}");
    assert!(world.emulator.entities(TENANT).is_empty());
    assert_eq!(fault.hits(), 1);
    let record = world.emulator.requests().pop().unwrap();
    assert_eq!((record.outcome, record.carried_out, record.fault), (Outcome::Cut, None, Some(fault.number())));
    assert_eq!(world.create(&new_body()).await.status, 201, "only one was to be hit");
}

#[tokio::test]
async fn a_connection_cut_after_the_effect_is_an_error_though_it_happened() {
    let world = World::new().await;
    world.emulator.inject(Fault::new(Action::Cut { when: When::After }).on(Operation::Create).once());
    let error = send(world.create_request(&new_body())).await.unwrap_err();
    assert!(error.is_request() && error.status().is_none(), "{error:?}");
    assert_eq!(world.emulator.entities(TENANT).len(), 1);
    let record = world.emulator.requests().pop().unwrap();
    assert_eq!((record.outcome, record.status()), (Outcome::Cut, None));
    assert!(record.carried_out.is_some());
    assert_eq!(record.id, Some(world.emulator.entities(TENANT)[0].id.clone()));
    assert_eq!(world.emulator.count(Operation::Create), 1, "the client did not try again by itself");
}

#[tokio::test]
async fn an_answer_cut_in_the_middle_has_a_head_and_no_end() {
    let world = World::new().await;
    world.emulator.inject(Fault::new(Action::CutAnswer).on(Operation::Create).once());
    let response = world.create_request(&new_body()).send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(response.bytes().await.is_err());
    assert_eq!(world.emulator.entities(TENANT).len(), 1);
    assert_eq!(world.emulator.requests()[0].outcome, Outcome::Cut);
}

#[tokio::test]
async fn a_status_of_choice_comes_before_or_after_the_effect() {
    let world = World::new().await;
    for (when, happened) in [(When::Before, 0), (When::After, 1)] {
        let retry_after = Some("2.128".to_owned());
        let action = Action::Status { when, code: 503, retry_after, body: BodyKind::Json };
        world.emulator.inject(Fault::new(action).on(Operation::Create).once());
        let answer = world.create(&new_body()).await;
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (503, "ServiceUnavailable"));
        assert_eq!(answer.headers["retry-after"], "2.128");
        assert_eq!(world.emulator.entities(TENANT).len(), happened);
    }
}

#[tokio::test]
async fn error_bodies_are_empty_html_or_cut_off_on_demand() {
    let world = World::new().await;
    let whole = world.get("none").await;
    assert!(whole.json()["error"]["innerError"]["request-id"].is_string());
    for (kind, good) in [
        (BodyKind::Empty, Box::new(|text: &str| text.is_empty()) as Box<dyn Fn(&str) -> bool>),
        (BodyKind::Html, Box::new(|text: &str| text.starts_with("<!DOCTYPE HTML>"))),
        (BodyKind::CutOff, Box::new(|text: &str| text.starts_with("{\"error\"") && !text.ends_with('}'))),
    ] {
        world.emulator.settings_mut(|settings| settings.error_body = kind);
        let answer = world.get("none").await;
        assert!(answer.status == 404 && good(&answer.text), "{kind:?}: {answer:?}");
        let action = Action::Status { when: When::Before, code: 502, retry_after: None, body: kind };
        world.emulator.inject(Fault::new(action).on(Operation::List).once());
        let answer = world.list().await;
        assert!(answer.status == 502 && good(&answer.text), "{kind:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_create_can_succeed_with_half_of_its_answer() {
    let world = World::new().await;
    let action = Action::Status { when: When::After, code: 201, retry_after: None, body: BodyKind::CutOff };
    world.emulator.inject(Fault::new(action).on(Operation::Create).once());
    let answer = world.create(&new_body()).await;
    assert_eq!(answer.status, 201);
    assert!(serde_json::from_str::<serde_json::Value>(&answer.text).is_err());
    assert_eq!(world.emulator.entities(TENANT).len(), 1);
}

#[tokio::test]
async fn ids_of_a_request_are_answered_and_recorded() {
    let world = World::new().await;
    let mine = "5f0c2d1e-0000-4000-8000-00000000000c";
    let answer =
        send(world.list_request().header("client-request-id", mine).header("user-agent", "t/1")).await.unwrap();
    assert_eq!(answer.headers["client-request-id"], mine);
    let record = world.emulator.requests().pop().unwrap();
    assert_eq!(answer.headers["request-id"], record.request_id.as_str());
    assert_eq!((record.client_request_id.as_deref(), record.user_agent.as_deref()), (Some(mine), Some("t/1")));
}

#[tokio::test]
async fn a_delay_makes_a_request_take_longer() {
    let world = World::new().await;
    for when in [When::Before, When::After] {
        let duration = Duration::from_millis(30);
        world.emulator.inject(Fault::new(Action::Delay { when, duration }).once());
        let began = Instant::now();
        assert_eq!(world.list().await.status, 200);
        assert!(began.elapsed() >= duration);
    }
}

#[tokio::test]
async fn a_list_held_with_its_answer_does_not_show_what_is_created_meanwhile() {
    let world = World::new().await;
    let fault = world.emulator.inject(Fault::new(Action::Hold { when: When::After }).on(Operation::List).once());
    let list = tokio::spawn(send(world.list_request()));
    assert!(fault.wait_hit(PATIENCE).await);
    world.created("a@b.example").await;
    assert!(!list.is_finished());
    assert_eq!(fault.holding(), 1);
    fault.release();
    assert_eq!(list.await.unwrap().unwrap().json()["value"], json!([]));
    let records = world.emulator.requests();
    assert!(records[0].began < records[1].began && records[1].ended < records[0].ended, "{records:?}");
}

#[tokio::test]
async fn a_list_held_before_its_effect_shows_what_was_created_meanwhile() {
    let world = World::new().await;
    let fault = world.emulator.inject(Fault::new(Action::Hold { when: When::Before }).on(Operation::List).once());
    let list = tokio::spawn(send(world.list_request()));
    assert!(fault.wait_hit(PATIENCE).await);
    world.created("a@b.example").await;
    fault.release();
    assert_eq!(list.await.unwrap().unwrap().json()["value"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_hold_goes_on_after_a_release_and_ends_with_its_removal() {
    let world = World::new().await;
    let fault = world.emulator.inject(Fault::new(Action::Hold { when: When::Before }).on(Operation::List));
    let first = tokio::spawn(send(world.list_request()));
    assert!(fault.wait_hit(PATIENCE).await);
    fault.release();
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    let others: Vec<_> = (0..3).map(|_| tokio::spawn(send(world.list_request()))).collect();
    assert!(fault.wait_hits(4, PATIENCE).await);
    fault.remove();
    assert!(join_all(others).await.into_iter().all(|answer| answer.unwrap().unwrap().status == 200));
    assert!(world.emulator.faults().is_empty());
    assert_eq!((fault.hits(), fault.holding()), (4, 0));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_undo_what_it_asked_for() {
    let world = World::new().await;
    let fault = world.emulator.inject(Fault::new(Action::Hold { when: When::Before }).on(Operation::Create).once());
    let create = tokio::spawn(send(world.create_request(&new_body())));
    assert!(fault.wait_hit(PATIENCE).await);
    create.abort();
    let lost = |view: &graph_emulator::View<'_>| view.requests().any(|record| record.outcome == Outcome::Lost);
    assert!(world.emulator.wait_for(lost, PATIENCE).await);
    assert!(world.emulator.entities(TENANT).is_empty());
    fault.release();
    let made = |view: &graph_emulator::View<'_>| view.entities(TENANT).len() == 1;
    assert!(world.emulator.wait_for(made, PATIENCE).await);
    assert_eq!(world.emulator.requests()[0].outcome, Outcome::Lost);
}

#[tokio::test]
async fn faults_are_narrowed_down_by_operation_id_and_number() {
    let world = World::new().await;
    let (one, two) = (world.created("a@b.example").await, world.created("b@b.example").await);
    let action = Action::Status { when: When::Before, code: 500, retry_after: None, body: BodyKind::Json };
    world.emulator.inject(Fault::new(action).on(Operation::Get).id(&one).skip(1).times(1));
    let mut seen = Vec::new();
    for id in [&one, &two, &one, &one] {
        seen.push(world.get(id).await.status.as_u16());
    }
    assert_eq!(seen, [200, 200, 500, 200]);
}

#[tokio::test]
async fn down_refuses_connections_and_up_listens_on_the_same_port_again() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    let url = world.emulator.url();
    for _ in 0..3 {
        world.emulator.down().await.unwrap();
        assert!(send(world.list_request()).await.unwrap_err().is_connect());
        world.emulator.up().await.unwrap();
        assert_eq!(world.emulator.url(), url);
        assert_eq!(world.get(&id).await.status, 200, "nothing is forgotten");
    }
}

#[tokio::test]
async fn going_down_breaks_the_requests_that_wait_for_their_answers() {
    let world = World::new().await;
    let fault = world.emulator.inject(Fault::new(Action::Hold { when: When::After }).on(Operation::Create).once());
    let create = tokio::spawn(send(world.create_request(&new_body())));
    assert!(fault.wait_hit(PATIENCE).await);
    world.emulator.down().await.unwrap();
    assert!(create.await.unwrap().is_err());
    assert_eq!(world.emulator.requests()[0].outcome, Outcome::Lost);
    assert_eq!(world.emulator.entities(TENANT).len(), 1);
}

#[tokio::test]
async fn nothing_listens_after_a_shutdown_or_a_drop() {
    let world = World::new().await;
    let address = world.emulator.address();
    world.emulator.inject(Fault::new(Action::Hold { when: When::Before }).on(Operation::List));
    let held = tokio::spawn(send(world.list_request()));
    world.emulator.shutdown().await;
    assert!(held.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());

    let World { emulator, .. } = World::new().await;
    let address = emulator.address();
    drop(emulator);
    let gone = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}
