//! A short share of each proof, and that a world in which a rule is broken is found.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::exhaust::{Bounds, CONFIGURATIONS, Configuration, State};
use crate::graph::{Operation, Request};
use crate::people::Deed;
use crate::random::History;
use crate::rules::{ALWAYS_ARRIVES, NEVER_OLDER, NEVER_TWO};
use crate::world::Action;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn named(name: &str) -> Configuration {
    *CONFIGURATIONS.iter().find(|configuration| configuration.name == name).unwrap()
}

/// A world in which a VppToken has its token.
fn settled() -> Configuration {
    let before = &[Action::Person(Deed::Secret(0, 1)), Action::Start(0), Action::Calm(300)];
    Configuration { before, deeds: &[], bounds: Bounds::default(), ..named("create") }
}

/// A request that no operator would send, on its way without anybody who waits for it.
fn stray(state: &State, operation: Operation) -> Request {
    Request {
        owner: None,
        sent_by: None,
        rivals: [].into(),
        uid: "uid-1".into(),
        operation,
        sent: state.world.now,
        outcome: None,
        announced: Some(state.world.now),
        organization: None,
        is_unique: true,
        seen: state.world.graph.token("t1").map(|token| token.version),
        made: None,
    }
}

fn finds(configuration: &Configuration, beginning: &State, rule: &str, last: &str) {
    let explored = configuration.explore_from(beginning.clone(), 1);
    let (broken, told) = explored.broken.unwrap();
    assert_eq!(broken.rule, rule, "{}", broken.what);
    assert!(told.last().map_or("", |step| step).starts_with(last), "{told:?}");
}

#[test]
fn random_histories_break_no_rule() {
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > 1_000 {
                        break;
                    }
                    let broken = History::random(seed).1.broken;
                    assert!(broken.is_none(), "seed {seed}: {broken:?}");
                }
            });
        }
    });
}

#[test]
fn no_history_of_a_create_with_one_fault_breaks_a_rule() {
    let bounds = Bounds { faults: 1, crashes: 1, answers: 1, waits: 1, moments: 3, ..Bounds::default() };
    let explored = Configuration { bounds, ..named("create") }.explore(threads());
    assert!(explored.broken.is_none(), "{:?}", explored.broken);
    for happened in ["step: announce", "step: create", "step: adopt", "an answer of Graph is lost", "the world heals"] {
        assert!(explored.tally.contains_key(happened), "{happened}: {:?}", explored.tally);
    }
}

#[test]
fn no_history_of_a_value_that_is_not_kept_breaks_a_rule() {
    let bounds = Bounds { faults: 1, crashes: 1, waits: 3, moments: 3, ..Bounds::default() };
    let explored = Configuration { bounds, is_coarse: true, ..named("not-kept") }.explore(threads());
    assert!(explored.broken.is_none(), "{:?}", explored.broken);
    assert!(explored.tally.contains_key("step: change settings"), "{:?}", explored.tally);
}

#[test]
fn a_second_token_is_found() {
    let settled = settled();
    let mut state = settled.beginning();
    let create = Operation::Create {
        file: 1,
        apple_id: crate::universe::APPLE_IDS[0].into(),
        account_type: "business",
        country: None,
        update_apps: None,
    };
    let stray = stray(&state, create);
    state.world.graph.requests.push(stray);
    finds(&settled, &state, NEVER_TWO, "Orphan(0)");
}

#[test]
fn an_older_file_over_a_newer_one_is_found() {
    let settled = settled();
    let mut state = settled.beginning();
    let id = state.world.graph.tokens()[0].id.clone();
    let renew =
        Operation::Update { id, file: Some(0), apple_id: None, account_type: None, country: None, update_apps: None };
    let stray = stray(&state, renew);
    state.world.graph.requests.push(stray);
    finds(&settled, &state, NEVER_OLDER, "Orphan(0)");
}

#[test]
fn a_world_that_does_not_arrive_is_found() {
    let settled = settled();
    let mut state = settled.beginning();
    let now = state.world.now;
    state.world.graph.change(now)[0].upload(0, false, now);
    let explored = settled.explore_from(state, 1);
    assert_eq!(explored.broken.map(|(broken, _)| broken.rule), Some(ALWAYS_ARRIVES));
}
