//! Creates: the intent, the create itself, and a create of unknown outcome.

use super::*;
use crate::api::conditions::{ConditionType, find};

#[test]
fn an_intent_is_recorded_then_graph_is_searched_then_the_token_is_created() {
    check(
        World::new_object,
        &[
            (
                "nothing in Graph: record the intent",
                |_| {},
                working(Reason::Creating).step(record_intent(&[])).no_token(),
            ),
            (
                "a token of another Apple ID with another expiry is no candidate",
                |w| w.tokens = vec![of_another(older("t2"))],
                working(Reason::Creating).step(record_intent(&[])).no_token(),
            ),
            (
                "another VppToken's, of another Apple ID and expiring in the same second, is known beforehand",
                |w| {
                    w.tokens = vec![of_another(token("t2"))];
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "one that Graph shows nothing of is like no other, and known beforehand",
                |w| w.tokens = vec![Entity { id: "t2".into(), ..Entity::default() }],
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "a token of another organization is no candidate",
                |w| {
                    w.tokens = vec![Entity { organization_name: Some("Fabrikam".into()), ..token("t2") }];
                },
                working(Reason::Creating).step(record_intent(&[])).no_token(),
            ),
            (
                "another location's token, of another VppToken, is known beforehand",
                |w| {
                    w.tokens = vec![older("t2")];
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "another VppToken creates: wait",
                |w| w.others.creating = true,
                waiting(Reason::WaitingForCreate).no_token().requeue_after(SECOND * 10),
            ),
            (
                "a watched namespace was never read: wait",
                |w| w.others.unread = true,
                waiting(Reason::NamespaceNotRead).no_token(),
            ),
            (
                "no permission to create",
                |w| w.forbid(Permission::Create),
                stalled(Reason::OperationNotAllowed).no_token(),
            ),
        ],
    );
    check(
        recorded,
        &[
            ("a list began after it: create", |_| {}, working(Reason::Creating).step(create()).no_token()),
            (
                "no list began after it: wait for one",
                |w| w.record_intent(ago(MINUTE * 2), &[]),
                working(Reason::Creating).no_token().list_after(ago(MINUTE * 2)),
            ),
            (
                "the list began at the same time",
                |w| w.record_intent(ago(MINUTE * 3), &[]),
                working(Reason::Creating).no_token().list_after(ago(MINUTE * 3)),
            ),
            (
                "the list shows an exact match",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "the list shows a similar one",
                |w| w.tokens = vec![older("t2")],
                stalled(Reason::SimilarTokenExists).step(abandon()).no_token(),
            ),
            (
                "one of another location appeared that the intent does not name",
                |w| {
                    w.distinct(&["t2"]);
                    w.tokens = vec![older("t2")];
                },
                working(Reason::Creating).step(abandon()).no_token(),
            ),
            (
                "one that Graph shows nothing of appeared that the intent does not name",
                |w| w.tokens = vec![Entity { id: "t2".into(), ..Entity::default() }],
                working(Reason::Creating).step(abandon()).no_token(),
            ),
            (
                "one of another location that the intent names",
                |w| {
                    w.distinct(&["t2"]);
                    w.tokens = vec![older("t2")];
                    w.record_intent(ago(MINUTE * 4), &["t2"]);
                },
                working(Reason::Creating).step(create()).no_token(),
            ),
            (
                "the file changed meanwhile",
                |w| w.file().sha256 = "digest-2".into(),
                working(Reason::Creating).step(abandon()).no_token(),
            ),
            (
                "the Apple ID changed meanwhile",
                |w| w.spec.apple_id = Some("other@contoso.example".into()),
                working(Reason::Creating).step(abandon()).no_token(),
            ),
            (
                "the file became unusable meanwhile",
                |w| w.file = Err(FileProblem::KeyNotFound),
                waiting(Reason::SecretKeyNotFound).step(abandon()).no_token(),
            ),
            (
                "creating is not allowed any more",
                |w| w.forbid(Permission::Create),
                stalled(Reason::OperationNotAllowed).step(abandon()).no_token(),
            ),
            (
                "intent recorded, and Graph asks to wait",
                |w| w.known().unwrap().view.paused_until = Some(in_(MINUTE)),
                waiting(Reason::Throttled).no_token().requeue_after(MINUTE),
            ),
            (
                "intent recorded, and another VppToken has uploaded the very file meanwhile",
                |w| {
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.claims.add_file("digest-1", "t2", "uid-9");
                },
                stalled(Reason::ClaimedByAnother).step(abandon()).no_token(),
            ),
            (
                "another VppToken goes first after all",
                |w| w.others.creating = true,
                working(Reason::Creating).step(abandon()).no_token(),
            ),
            (
                "a tokenId was set meanwhile",
                |w| w.spec.token_id = Some("t9".into()),
                working(Reason::Updating).step(abandon()).no_token(),
            ),
        ],
    );
}

#[test]
fn none_is_created_while_a_token_that_could_be_of_the_location_may_only_be_hidden() {
    fn hidden(w: &mut World, token: Entity, since: Timestamp) {
        w.missing = vec![(token.id.clone(), since)];
        w.tokens.push(token);
        // It was there.
        w.lists.insert(0, (since - MINUTE, BTreeSet::new()));
    }
    let confirm_t2 = Step::Confirm { id: "t2".into() };
    let wait = || waiting(Reason::Vanished).no_token();
    check(
        World::new_object,
        &[
            ("a similar one", |w| hidden(w, older("t2"), ago(MINUTE * 10)), wait().requeue_after(MINUTE * 5)),
            ("an exact match", |w| hidden(w, token("t2"), ago(MINUTE * 10)), wait().requeue_after(MINUTE * 5)),
            (
                "for a quarter of an hour: asked for again",
                |w| hidden(w, older("t2"), ago(MINUTE * 15)),
                wait().step(confirm_t2),
            ),
            (
                "it has vanished",
                |w| {
                    w.tokens = vec![older("t2")];
                    w.confirmed_absent = vec![("t2".into(), ago(SECOND))];
                },
                working(Reason::Creating).step(record_intent(&[])).no_token(),
            ),
            (
                "one of another location is only known beforehand",
                |w| {
                    hidden(w, older("t2"), ago(MINUTE));
                    w.distinct(&["t2"]);
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "another VppToken's, with another file, is only known beforehand",
                |w| {
                    hidden(w, older("t2"), ago(MINUTE));
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "another VppToken's that matches the file",
                |w| {
                    hidden(w, token("t2"), ago(MINUTE * 10));
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                wait().requeue_after(MINUTE * 5),
            ),
            (
                "and another one is there that matches",
                |w| {
                    hidden(w, token("t2"), ago(MINUTE));
                    w.tokens.push(token("t3"));
                },
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
        ],
    );
    let mut world = recorded();
    hidden(&mut world, older("t2"), ago(MINUTE));
    assert!(is_abandon(&plan(&world.observe()).step), "it was hidden after the intent was recorded");
}

#[test]
fn after_an_unknown_outcome_what_is_not_known_is_ours() {
    check(
        unknown,
        &[
            (
                "one that was not there before",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "even without permission to adopt: we made it",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.forbid(Permission::Adopt);
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "the file changed meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.file().sha256 = "digest-2".into();
                    w.file().expiration = in_(DAY * 300);
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "the Secret is gone meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.file = Err(FileProblem::SecretNotFound);
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "the Apple ID changed meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.spec.apple_id = Some("other@contoso.example".into());
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            ("several", |w| w.tokens = vec![token("t2"), token("t3")], stalled(Reason::AmbiguousMatch).no_token()),
            (
                "several, and tokenId names one of them",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.spec.token_id = Some("T3".into());
                },
                working(Reason::Creating).step(adopt_created("t3", ago(MINUTE * 5))).no_token(),
            ),
            (
                "several, and tokenId names one of them, which is not allowed",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.spec.token_id = Some("t3".into());
                    w.forbid(Permission::Bind);
                },
                stalled(Reason::OperationNotAllowed).no_token(),
            ),
            (
                "one, which tokenId names, and binding is not allowed: it is ours all the same",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.spec.token_id = Some("t2".into());
                    w.forbid(Permission::Bind);
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "several, and tokenId names none of them",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.spec.token_id = Some("t4".into());
                },
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            (
                "several, of which all but one were known",
                |w| {
                    w.tokens = vec![token("t2"), older("t3")];
                    w.pending(ago(MINUTE * 5), &["t3"]);
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            ("none yet", |_| {}, waiting(Reason::CreateOutcomeUnknown).no_token().requeue_after(MINUTE * 10)),
            (
                "none yet, and no list since",
                |w| w.pending(ago(MINUTE), &[]),
                waiting(Reason::CreateOutcomeUnknown).no_token().requeue_after(MINUTE * 10).list_after(ago(MINUTE)),
            ),
            (
                "only what was there before",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.pending(ago(MINUTE * 5), &["t2"]);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "only what is another's",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "this process recorded another intent, for the same file",
                |w| {
                    w.record_intent(ago(MINUTE * 5), &[]);
                    w.attempts.unsent_intent.as_mut().unwrap().since = ago(MINUTE * 6);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "after the window, with two lists",
                |w| w.pending(ago(MINUTE * 16), &[]),
                waiting(Reason::CreateOutcomeUnknown).no_token().list_after(ago(MINUTE)),
            ),
            (
                "after the window, with three lists of which none began after it",
                |w| {
                    w.pending(ago(MINUTE * 16), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                waiting(Reason::CreateOutcomeUnknown).no_token().list_after(ago(MINUTE)),
            ),
            (
                "after the window and three lists, the last of them after it",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                working(Reason::Creating).step(abandon()).no_token(),
            ),
            (
                "so, but this process began only after the intent was recorded: it may have been sent until then",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                    w.known().unwrap().view.opened = ago(MINUTE * 13);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token().requeue_after(MINUTE * 2),
            ),
            (
                "so, but it was sent only later, and its answer was lost",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                    w.failed(StepKind::Create, ErrorKind::OutcomeUnknown).began = ago(MINUTE * 13);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token().requeue_after(MINUTE * 2),
            ),
            (
                "so, and later it was refused for certain",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                    w.failed(StepKind::Create, ErrorKind::Throttled).began = ago(MINUTE * 13);
                },
                working(Reason::Creating).step(abandon()).no_token(),
            ),
            (
                "one of another Apple ID with the expiry of the intent is somebody else's",
                |w| w.tokens = vec![of_another(token("t2"))],
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "one of which Graph shows nothing may be anybody's",
                |w| w.tokens = vec![Entity { id: "t2".into(), ..Entity::default() }],
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "whatever distinctFrom says by now: it was not there before",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.distinct(&["t2"]);
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "beside one of another location that expires in the same second and was there before",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.distinct(&["t2"]);
                    w.pending(ago(MINUTE * 5), &["t2"]);
                },
                working(Reason::Creating).step(adopt_created("t3", ago(MINUTE * 5))).no_token(),
            ),
            (
                "a new one with another expiry is somebody else's",
                |w| w.tokens = vec![older("t2")],
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "a new one without an expiry is ours",
                |w| w.tokens = vec![Entity { expiration: None, ..token("t2") }],
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "a tokenId was set meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.spec.token_id = Some("t2".into());
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "one with another file, which a person created meanwhile",
                |w| w.tokens = vec![older("t2")],
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "one whose expiry Graph does not show",
                |w| {
                    w.tokens = vec![Entity { expiration: None, ..token("t2") }];
                },
                working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "a tokenId was set meanwhile that names nothing",
                |w| w.spec.token_id = Some("t9".into()),
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "and the create was not carried out",
                |w| {
                    w.spec.token_id = Some("t9".into());
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                working(Reason::Updating).step(abandon()).no_token(),
            ),
        ],
    );
}

#[test]
fn a_create_that_is_tried_again_keeps_reporting_what_failed() {
    let mut world = World::new_object();
    world.failed(StepKind::Create, ErrorKind::Refused).not_before = ago(SECOND);
    let conditions = |plan: &Plan| {
        let stalled = find(&plan.status.conditions, ConditionType::Stalled).unwrap();
        stalled.reason.clone()
    };
    let plan_ = plan(&world.observe());
    assert!(matches!(plan_.step, Some(Step::RecordIntent(_))));
    assert_eq!(conditions(&plan_), "GraphRefused");
    world.record_intent(ago(MINUTE * 4), &[]);
    let plan_ = plan(&world.observe());
    assert_eq!((is_create(&plan_.step), conditions(&plan_).as_str()), (true, "GraphRefused"));
}

#[test]
fn an_intent_after_a_token_has_vanished_remembers_its_tenant() {
    let mut world = World::ready();
    world.tokens.clear();
    world.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
    assert_eq!(plan(&world.observe()).status.tenant, None);
    world.record_intent(ago(MINUTE), &[]);
    assert_eq!(plan(&world.observe()).status.tenant, Some(identity()));
}

#[test]
fn nothing_is_created_while_the_schedule_is_wrong() {
    for (schedule, reason) in [
        ("0 0 30 2 *", Reason::ScheduleNeverFires),
        ("61 * * * *", Reason::ScheduleInvalid),
        ("* * * * *", Reason::ScheduleInvalid),
    ] {
        let mut world = World::new_object();
        world.schedule(schedule);
        let stalled = plan(&world.observe());
        assert_eq!((stalled.step, stalled.blockers[0].reason), (None, reason), "{schedule}");
        assert_eq!(stalled.status.pending_create, None, "{schedule}");
        world.schedule("0 6,18 * * *");
        let step = plan(&world.observe()).step;
        assert!(matches!(step, Some(Step::RecordIntent(_))), "{schedule}: {step:?}");
    }
}

#[test]
fn nothing_is_created_while_the_manifest_asks_for_what_can_not_be_had() {
    for (name, ask, reason) in [
        (
            "a setting of the beta API",
            (|world| world.spec.display_name = Some("Berlin".into())) as fn(&mut World),
            Reason::SettingUnknownToApi,
        ),
        (
            "a deletion that is not allowed",
            |world| {
                world.spec.deletion_policy = DeletionPolicy::Delete;
                world.object.has_finalizer = true;
                world.forbid(Permission::Delete);
            },
            Reason::OperationNotAllowed,
        ),
    ] {
        let mut world = World::new_object();
        ask(&mut world);
        let stalled = plan(&world.observe());
        assert_eq!((stalled.step, stalled.blockers[0].reason), (None, reason), "{name}");
        assert_eq!(stalled.status.pending_create, None, "{name}");
    }
}

#[test]
fn a_create_that_was_not_sent_is_abandoned_when_the_schedule_is_wrong_by_then() {
    let mut world = recorded();
    assert!(is_create(&plan(&world.observe()).step));
    world.schedule("* * * * *");
    assert!(is_abandon(&plan(&world.observe()).step));
}

#[test]
fn a_manifest_without_a_file_or_an_apple_id_creates_nothing() {
    check(
        World::new_object,
        &[
            ("no Apple ID", |w| w.spec.apple_id = None, stalled(Reason::SecretNotFound).no_token()),
            (
                "no file",
                |w| {
                    w.spec.token_secret_ref = None;
                    w.file = Err(FileProblem::NotNamed);
                },
                stalled(Reason::SecretNotFound).no_token(),
            ),
        ],
    );
}
