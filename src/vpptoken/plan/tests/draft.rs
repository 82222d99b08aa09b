//! What holds back a step: a failure, a delay, credentials, a Graph that can't be reached.

use super::*;
use crate::api::conditions::ConditionStatus::Unknown;

#[test]
fn a_passing_trouble_shows_only_when_a_write_is_due_or_it_lasts_three_polls() {
    check(
        World::ready,
        &[
            (
                "nothing due",
                |w| w.problem(ErrorKind::Unreachable, ago(MINUTE)),
                ready().requeue_after(MINUTE * 12 + SECOND),
            ),
            (
                "read exactly three polls ago",
                |w| {
                    w.lists = vec![(ago(MINUTE * 15 + SECOND), BTreeSet::new())];
                    w.problem(ErrorKind::Unavailable, ago(MINUTE * 10));
                },
                ready().requeue_after(SignedDuration::from_millis(100)),
            ),
            (
                "read longer ago than three polls",
                |w| {
                    w.lists = vec![(ago(MINUTE * 15 + SECOND * 2), BTreeSet::new())];
                    w.problem(ErrorKind::Unavailable, ago(MINUTE * 10));
                },
                ready().ready(Unknown, Reason::SnapshotStale),
            ),
            (
                "read longer ago than three polls, and nothing is known to be wrong: the next list is waited for",
                |w| w.lists = vec![(ago(MINUTE * 15 + SECOND * 2), BTreeSet::new())],
                ready().ready(Unknown, Reason::SnapshotStale).list_after(ago(MINUTE * 15 + SECOND * 2)),
            ),
        ],
    );
    check(
        drift,
        &[
            ("network", |w| w.problem(ErrorKind::Unreachable, ago(MINUTE)), waiting(Reason::GraphUnavailable)),
            ("5xx", |w| w.problem(ErrorKind::Unavailable, ago(MINUTE)), waiting(Reason::GraphUnavailable)),
            ("429", |w| w.problem(ErrorKind::Throttled, ago(MINUTE)), waiting(Reason::Throttled)),
            (
                "the write itself is throttled",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Throttled);
                },
                waiting(Reason::Throttled).requeue_after(MINUTE),
            ),
            (
                "the write's outcome is unknown: look before trying again",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::OutcomeUnknown);
                },
                waiting(Reason::GraphUnavailable).list_after(ago(SECOND)),
            ),
            (
                "looked since: wait out the delay",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::OutcomeUnknown).at = ago(MINUTE * 4);
                },
                waiting(Reason::GraphUnavailable).requeue_after(MINUTE),
            ),
            (
                "the delay is over: what was said stays until it succeeds",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Throttled).not_before = now();
                },
                waiting(Reason::Throttled).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "Graph refused it, and it is tried again: it needs a person as before",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "Graph refuses it",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused);
                },
                stalled(Reason::GraphRefused).requeue_after(MINUTE),
            ),
            (
                "Graph refused it, and the manifest changed since",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused).inputs.generation = 2;
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "Graph refused it, and the file changed since",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused).inputs.sha256 = None;
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "another kind of step failed",
                |w| {
                    w.failed(StepKind::Sync, ErrorKind::Refused);
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
        ],
    );
    check(
        World::new_object,
        &[
            (
                "a create is due",
                |w| w.problem(ErrorKind::Unreachable, ago(MINUTE)),
                waiting(Reason::GraphUnavailable).no_token(),
            ),
            (
                "a create was refused, and its intent is recorded again: it needs a person as before",
                |w| {
                    w.failed(StepKind::Create, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).step(record_intent(&[])).no_token(),
            ),
            (
                "a create was refused, and the next one waits for a list",
                |w| {
                    w.record_intent(ago(MINUTE * 2), &[]);
                    w.failed(StepKind::Create, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).no_token().list_after(ago(MINUTE * 2)),
            ),
            (
                "a create was refused, and the next one is sent",
                |w| {
                    w.record_intent(ago(MINUTE * 4), &[]);
                    w.failed(StepKind::Create, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).step(create()).no_token(),
            ),
            (
                "a create was refused",
                |w| {
                    w.failed(StepKind::Create, ErrorKind::Refused);
                },
                stalled(Reason::GraphRefused).no_token().requeue_after(MINUTE),
            ),
            (
                "a create was throttled",
                |w| {
                    w.failed(StepKind::Create, ErrorKind::Throttled);
                },
                waiting(Reason::Throttled).no_token().requeue_after(MINUTE),
            ),
        ],
    );
}

#[test]
fn credentials_and_permissions_need_a_person_after_ten_minutes() {
    check(
        World::ready,
        &[
            (
                "credentials refused for 9:59",
                |w| w.problem(ErrorKind::Credentials, ago(MINUTE * 10 - SECOND)),
                waiting(Reason::CredentialsRefused).requeue_after(SECOND),
            ),
            (
                "credentials refused for 10:00",
                |w| w.problem(ErrorKind::Credentials, ago(MINUTE * 10)),
                stalled(Reason::CredentialsRefused),
            ),
            (
                "permission missing for 9:59",
                |w| w.problem(ErrorKind::Forbidden, ago(MINUTE * 10 - SECOND)),
                waiting(Reason::PermissionMissing).requeue_after(SECOND),
            ),
            (
                "permission missing for 10:00",
                |w| w.problem(ErrorKind::Forbidden, ago(MINUTE * 10)),
                stalled(Reason::PermissionMissing),
            ),
            (
                "access token not accepted",
                |w| w.problem(ErrorKind::Unauthorized, ago(MINUTE * 10)),
                stalled(Reason::PermissionMissing),
            ),
        ],
    );
    check(
        drift,
        &[
            (
                "a write is refused for want of a permission",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Forbidden);
                },
                waiting(Reason::PermissionMissing).requeue_after(MINUTE),
            ),
            (
                "for ten minutes",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Forbidden).since = ago(MINUTE * 10);
                },
                stalled(Reason::PermissionMissing).requeue_after(MINUTE),
            ),
        ],
    );
}

#[test]
fn after_a_lost_answer_only_a_list_that_began_later_tells() {
    let mut world = drift();
    let failed_at = world.lists.last().unwrap().0;
    let failure = world.failed(StepKind::Update, ErrorKind::OutcomeUnknown);
    (failure.at, failure.not_before) = (failed_at, failed_at);
    let looks = plan(&world.observe());
    assert_eq!((looks.step, looks.list_after), (None, Some(failed_at)));
    world.lists.push((failed_at + SECOND, BTreeSet::new()));
    assert!(matches!(plan(&world.observe()).step, Some(Step::Write(Write::Update { .. }))));
}

#[test]
fn a_request_for_a_sync_undoes_no_other_delay() {
    let mut world = drift();
    world.failed(StepKind::Update, ErrorKind::Refused);
    world.object.sync_request = Some("now".into());
    assert_eq!(plan(&world.observe()).step, Some(sync(Priority::Interactive, Some("now"))));
    let mut world = requested();
    world.failed(StepKind::Sync, ErrorKind::Throttled);
    assert_eq!(plan(&world.observe()).step, None);
    world.object.sync_request = Some("again".into());
    assert_eq!(plan(&world.observe()).step, Some(sync(Priority::Interactive, Some("again"))));
}

#[test]
fn nothing_is_sent_while_graph_asked_to_wait() {
    let mut world = renewal();
    assert_eq!(plan(&world.observe()).step, Some(upload()));
    world.known().unwrap().view.paused_until = Some(now() + SECOND * 30);
    let waits = plan(&world.observe());
    assert_eq!((waits.step, waits.requeue_after), (None, Some(SECOND * 30)));
    assert_eq!(waits.blockers[0].reason, Reason::Throttled);
    world.known().unwrap().view.paused_until = Some(now());
    assert_eq!(plan(&world.observe()).step, Some(upload()), "until now");
}
