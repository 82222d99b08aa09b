//! The finalizer, and the deletion of a token.

use super::*;
use crate::api::conditions::{ConditionType, find};

#[test]
fn the_finalizer_follows_the_policy_before_there_is_anything_to_delete() {
    check(
        World::new_object,
        &[
            (
                "Delete, new",
                |w| w.spec.deletion_policy = DeletionPolicy::Delete,
                working(Reason::Finalizing).step(Step::AddFinalizer).no_token(),
            ),
            (
                "Delete, without a tenant",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Delete;
                    w.tenant = TenantState::NotFound;
                },
                waiting(Reason::TenantNotFound).step(Step::AddFinalizer).no_token(),
            ),
            (
                "Delete, with the finalizer",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Delete;
                    w.object.has_finalizer = true;
                },
                working(Reason::Creating).step(record_intent(&[])).no_token(),
            ),
        ],
    );
    check(
        World::ready,
        &[
            (
                "Delete now",
                |w| w.spec.deletion_policy = DeletionPolicy::Delete,
                working(Reason::Finalizing).step(Step::AddFinalizer),
            ),
            ("Retain again", |w| w.object.has_finalizer = true, ready().step(remove_finalizer())),
            (
                "Delete is not allowed by the tenant",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Delete;
                    w.object.has_finalizer = true;
                    w.forbid(Permission::Delete);
                },
                stalled(Reason::OperationNotAllowed),
            ),
        ],
    );
}

#[test]
fn a_token_is_deleted_only_with_every_precondition_in_place() {
    // Being deleted, with a finalizer, waits for Graph.
    let waits = |blockers: &[Reason]| working(Reason::Deleting).blockers(blockers).no_token();
    check(
        deleting,
        &[
            ("all in place", |_| {}, waits(&[]).step(delete())),
            (
                "the file is missing: that does not concern a deletion",
                |w| w.file = Err(FileProblem::SecretNotFound),
                waits(&[]).step(delete()),
            ),
            ("lists lack the token: Graph will say", |w| w.tokens.clear(), waits(&[]).step(delete())),
            (
                "it was deleted: done",
                |w| w.deleted = vec![(OURS.into(), ago(SECOND))],
                waits(&[]).step(remove_finalizer()),
            ),
            (
                "it has vanished: done",
                |w| w.confirmed_absent = vec![(OURS.into(), ago(SECOND))],
                waits(&[]).step(remove_finalizer()),
            ),
            (
                "a GET did not find it just now: Graph is told to delete it all the same",
                |w| w.missing = vec![(OURS.into(), ago(SECOND))],
                waits(&[]).step(delete()),
            ),
            (
                "deletionPolicy is Retain",
                |w| w.spec.deletion_policy = DeletionPolicy::Retain,
                waits(&[]).step(remove_finalizer()),
            ),
            (
                "Retain does not wait for a tenant",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Retain;
                    w.tenant = TenantState::NotFound;
                },
                waits(&[]).step(remove_finalizer()),
            ),
            (
                "no id and no intent",
                |w| {
                    w.status.token_id = None;
                    w.status.observed_generation = Some(2);
                },
                waits(&[]).step(remove_finalizer()),
            ),
            (
                "its status was lost",
                |w| {
                    w.status = VppTokenStatus { observed_generation: Some(-1), ..VppTokenStatus::default() };
                },
                waits(&[]).no_token().step(Step::RemoveFinalizer {
                    warning: Some(
                        "Its status was lost and with it which token it has, so nothing is deleted in Graph.".into(),
                    ),
                }),
            ),
            (
                "not allowed by the tenant",
                |w| w.forbid(Permission::Delete),
                stalled(Reason::OperationNotAllowed).no_token(),
            ),
            (
                "not allowed by the tenant, and seemingly gone",
                |w| {
                    w.forbid(Permission::Delete);
                    w.tokens.clear();
                },
                stalled(Reason::OperationNotAllowed)
                    .blockers(&[Reason::Vanished, Reason::OperationNotAllowed])
                    .step(Step::Confirm { id: OURS.into() })
                    .no_token(),
            ),
            (
                "namespace not allowed",
                |w| w.tenant = TenantState::NamespaceNotAllowed,
                stalled(Reason::NamespaceNotAllowed).no_token(),
            ),
            (
                "no tenant",
                |w| w.tenant = TenantState::NotFound,
                waits(&[Reason::TenantNotFound]).requeue_after(MINUTE * 10 - SECOND),
            ),
            (
                "no tenant for ten minutes",
                |w| {
                    w.tenant = TenantState::NotFound;
                    w.object.deleting = Some(ago(MINUTE * 10));
                },
                stalled(Reason::TenantNotFound).no_token(),
            ),
            (
                "the tenant's Secret is missing for ten minutes",
                |w| {
                    w.tenant = TenantState::Unusable { reason: Reason::SecretNotFound, message: "No Secret.".into() };
                    w.object.deleting = Some(ago(MINUTE * 10));
                },
                stalled(Reason::SecretNotFound).no_token(),
            ),
            (
                "another tenant",
                |w| w.status.tenant.as_mut().unwrap().tenant_id = "0".into(),
                stalled(Reason::TenantChanged).no_token(),
            ),
            ("never listed", |w| w.lists.clear(), waits(&[Reason::TenantNotRead]).list_after(Timestamp::MIN)),
            (
                "credentials refused",
                |w| w.problem(ErrorKind::Credentials, ago(SECOND)),
                waits(&[Reason::CredentialsRefused]).requeue_after(MINUTE * 10 - SECOND),
            ),
            (
                "Graph can't be reached",
                |w| w.problem(ErrorKind::Unreachable, ago(SECOND)),
                waits(&[Reason::GraphUnavailable]),
            ),
            (
                "Graph refused to",
                |w| {
                    w.failed(StepKind::Delete, ErrorKind::Refused);
                },
                stalled(Reason::GraphRefused).no_token().requeue_after(MINUTE),
            ),
            (
                "Graph refused to, and is asked again: it needs a person as before",
                |w| {
                    w.failed(StepKind::Delete, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).step(delete()).no_token(),
            ),
            (
                "Graph can't be reached for ten minutes: that passes",
                |w| {
                    w.problem(ErrorKind::Unreachable, ago(MINUTE * 10));
                    w.object.deleting = Some(ago(MINUTE * 10));
                },
                waits(&[Reason::GraphUnavailable]),
            ),
        ],
    );
    let warned = |change: fn(&mut World)| {
        let mut world = deleting();
        change(&mut world);
        let plan = plan(&world.observe());
        assert!(matches!(plan.step, Some(Step::RemoveFinalizer { warning: Some(_) })), "{:?}", plan.step);
    };
    warned(|w| w.crd_terminating = true);
    warned(|w| w.claimed(OURS, ago(DAY), "uid-9"));
    let mut without_finalizer = deleting();
    without_finalizer.object.has_finalizer = false;
    let plan = plan(&without_finalizer.observe());
    assert_eq!((plan.step, plan.requeue_after, plan.blockers), (None, None, Vec::new()));
}

#[test]
fn a_deletion_first_resolves_a_create_of_unknown_outcome() {
    fn creating() -> World {
        let mut world = World::new_object();
        world.being_deleted();
        world.pending(ago(MINUTE * 5), &[]);
        world
    }
    let waits = |blockers: &[Reason]| working(Reason::Deleting).blockers(blockers).no_token();
    check(
        creating,
        &[
            (
                "found: ours, and deleted next",
                |w| w.tokens = vec![token("t2")],
                waits(&[]).step(adopt_created("t2", ago(MINUTE * 5))),
            ),
            ("not found yet", |_| {}, waits(&[Reason::CreateOutcomeUnknown]).requeue_after(MINUTE * 10)),
            ("several", |w| w.tokens = vec![token("t2"), token("t3")], stalled(Reason::AmbiguousMatch).no_token()),
            ("not sent at all", |w| w.record_intent(ago(MINUTE * 5), &[]), waits(&[]).step(abandon())),
            (
                "not found in the window and three lists",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                waits(&[]).step(abandon()),
            ),
        ],
    );
}

#[test]
fn a_deletion_that_waits_says_how_to_end_the_wait() {
    let mut world = deleting();
    world.tenant = TenantState::NotFound;
    let plan = plan(&world.observe());
    let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("set deletionPolicy: Retain"), "{}", ready.message);
}

#[test]
fn a_namespace_that_is_being_deleted_ends_after_ten_minutes() {
    let causes: [fn(&mut World); 5] = [
        |w| w.tenant = TenantState::NotFound,
        |w| w.forbid(Permission::Delete),
        |w| {
            w.failed(StepKind::Delete, ErrorKind::Refused);
        },
        |w| w.problem(ErrorKind::Unreachable, ago(HOUR)),
        |w| {
            w.status = unknown().status.clone();
            w.tokens = vec![token("t2"), token("t3")];
        },
    ];
    for (cause, change) in causes.into_iter().enumerate() {
        for (minutes, is_deleted, lets_go) in [(9, true, false), (10, true, true), (10, false, false)] {
            let mut world = deleting();
            change(&mut world);
            world.observed.object.namespace_deleting = is_deleted;
            world.observed.object.deleting = Some(ago(MINUTE * minutes));
            let plan = plan(&world.observe());
            let is_let_go = matches!(&plan.step, Some(Step::RemoveFinalizer { warning: Some(_) }));
            assert_eq!(is_let_go, lets_go, "{cause}, {minutes}: {:?}", plan.step);
            let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap();
            let says_how = ready.message.contains("deletionPolicy: Retain");
            assert!(lets_go || says_how, "{cause}, {minutes}: {}", ready.message);
        }
    }
}
