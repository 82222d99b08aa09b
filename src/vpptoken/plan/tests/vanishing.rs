//! A token that Graph's lists lack.

use super::*;

#[test]
fn a_token_that_lists_lack_is_asked_for_and_only_then_created_again() {
    fn missing() -> World {
        let mut world = World::ready();
        world.tokens.clear();
        world
    }
    check(
        missing,
        &[
            ("absent from two lists: ask for it", |_| {}, waiting(Reason::Vanished).step(confirm()).no_token()),
            (
                "absent from one list: another one first",
                |w| {
                    w.lists.remove(0);
                },
                waiting(Reason::Vanished).no_token().list_after(ago(MINUTE * 3)),
            ),
            (
                "uploaded a moment ago, by an earlier process: lists that began before it settled don't count",
                |w| {
                    w.uploaded().time = ago(MINUTE * 4);
                },
                waiting(Reason::Vanished).no_token().list_after(ago(MINUTE * 3)),
            ),
            (
                "uploaded so lately that it has not settled",
                |w| w.uploaded().time = ago(SECOND * 20),
                waiting(Reason::Vanished).no_token().requeue_after(SECOND * 40),
            ),
            (
                "Graph can't be reached",
                |w| w.problem(ErrorKind::Unreachable, ago(SECOND)),
                waiting(Reason::Vanished).blockers(&[Reason::Vanished, Reason::GraphUnavailable]).no_token(),
            ),
            (
                "a GET did not find it: for a quarter of an hour nothing else is done",
                |w| w.missing = vec![(OURS.into(), ago(MINUTE * 15 - SECOND))],
                waiting(Reason::Vanished).no_token().requeue_after(SECOND),
            ),
            (
                "a GET did not find it a quarter of an hour ago: asked for again",
                |w| w.missing = vec![(OURS.into(), ago(MINUTE * 15))],
                waiting(Reason::Vanished).step(confirm()).no_token(),
            ),
            (
                "a GET did not find it, and a list shows it",
                |w| {
                    w.missing = vec![(OURS.into(), ago(MINUTE * 5))];
                    w.tokens = vec![token(OURS)];
                },
                waiting(Reason::Vanished).no_token().requeue_after(MINUTE * 10),
            ),
            (
                "asking failed",
                |w| {
                    w.failed(StepKind::Confirm, ErrorKind::Throttled);
                },
                waiting(Reason::Vanished)
                    .blockers(&[Reason::Vanished, Reason::Throttled])
                    .no_token()
                    .requeue_after(MINUTE),
            ),
            (
                "it is gone: as for a new object",
                |w| w.confirmed_absent = vec![(OURS.into(), ago(SECOND))],
                working(Reason::Vanished).step(record_intent(&[])).no_token(),
            ),
            (
                "it is gone, and an exact match is there",
                |w| {
                    w.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
                    w.tokens = vec![token("t2")];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "it is gone, and the Secret too",
                |w| {
                    w.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
                    w.file = Err(FileProblem::SecretNotFound);
                },
                waiting(Reason::SecretNotFound).no_token(),
            ),
            (
                "most are gone at once: a fault to report",
                |w| {
                    w.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
                    for id in ["a", "b", "c"] {
                        w.claimed(id, ago(DAY), id);
                    }
                },
                stalled(Reason::ManyVanished).no_token(),
            ),
            (
                "missing in a list, as all of three are: first this one is asked for",
                |w| {
                    for id in ["a", "b"] {
                        w.claimed(id, ago(DAY), id);
                    }
                },
                waiting(Reason::Vanished).step(confirm()).no_token(),
            ),
            (
                "missing in a list, as all of three are, which was said before",
                |w| {
                    for id in ["a", "b"] {
                        w.claimed(id, ago(DAY), id);
                    }
                    w.missing = vec![(OURS.into(), ago(SECOND))];
                    w.observed.status = plan(&w.observe()).status;
                    w.missing.clear();
                },
                stalled(Reason::ManyVanished).no_token(),
            ),
        ],
    );
}

#[test]
fn all_of_two_or_three_tokens_or_at_least_half_of_more_are_many() {
    for (vanished, there, are_many) in [
        (1, 0, false),
        (2, 0, true),
        (3, 0, true),
        (1, 1, false),
        (2, 1, false),
        (3, 1, false),
        (3, 2, false),
        (4, 0, true),
        (4, 3, true),
        (4, 4, true),
        (4, 5, false),
        (5, 5, true),
    ] {
        let mut world = World::ready();
        world.tokens.clear();
        world.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
        for n in 1..vanished {
            let id = format!("gone-{n}");
            world.claimed(&id, ago(DAY), &id);
        }
        for n in 0..there {
            let id = format!("there-{n}");
            world.claimed(&id, ago(DAY), &id);
            world.tokens.push(Entity { apple_id: Some("other@contoso.example".into()), ..token(&id) });
        }
        let reason = plan(&world.observe()).blockers.first().map(|blocker| blocker.reason);
        assert_eq!(reason == Some(Reason::ManyVanished), are_many, "{vanished} gone and {there} there: {reason:?}");
    }
}

#[test]
fn while_a_missing_token_is_waited_for_the_message_says_until_when() {
    let mut world = World::ready();
    world.tokens.clear();
    world.missing = vec![(OURS.into(), ago(MINUTE * 5))];
    let message = plan(&world.observe()).blockers[0].message.clone();
    assert!(message.contains(OURS) && message.contains("2026-11-21T12:10:00Z"), "{message}");
}

#[test]
fn most_tokens_vanished_at_once_stay_reported_and_are_not_created_by_the_next_reconcile() {
    let mut world = World::ready();
    world.tokens.clear();
    world.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
    for id in ["a", "b", "c"] {
        world.claimed(id, ago(DAY), id);
    }
    for _ in 0..3 {
        let plan = plan(&world.observe());
        assert_eq!((plan.step, plan.blockers[0].reason), (None, Reason::ManyVanished));
        world.status = plan.status;
    }
    assert_eq!(world.status.token_id.as_deref(), Some(OURS));
}
