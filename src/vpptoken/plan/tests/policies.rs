//! `managementPolicy: Observe` and `suspend`.

use super::*;
use crate::api::conditions::ConditionStatus::False;

#[test]
fn an_observed_token_is_shown_and_nothing_is_written() {
    fn watched() -> World {
        let mut world = observed_by_id();
        world.status = World::ready().status.clone();
        world.status.uploaded = None;
        world
    }
    check(
        observed_by_id,
        &[
            ("it is there", |_| {}, working(Reason::Updating).step(Step::Bind { id: OURS.into() }).no_token()),
            ("binding is not allowed", |w| w.forbid(Permission::Bind), stalled(Reason::OperationNotAllowed).no_token()),
            (
                "it is not there",
                |w| {
                    w.tokens.clear();
                    w.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
        ],
    );
    check(
        watched,
        &[
            ("settings differ from what a manifest could ask", |_| {}, ready()),
            ("a file and settings are named all the same", |w| w.observed.spec = renewal_by_id().spec.clone(), ready()),
            (
                "a schedule is named",
                |w| {
                    w.schedule("0 6,18 * * *");
                    w.token().last_sync = Some(ago(DAY * 3));
                },
                ready(),
            ),
            ("a sync is asked for", |w| w.object.sync_request = Some("now".into()), ready().step(decline())),
            (
                "it expired",
                |w| w.token().state = Some("expired".into()),
                stalled(Reason::Expired).valid(False, Reason::Expired),
            ),
            ("deletionPolicy: Delete counts for nothing", |w| w.spec.deletion_policy = DeletionPolicy::Delete, ready()),
            (
                "it is gone: reported, not created",
                |w| {
                    w.tokens.clear();
                    w.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
            ("another VppToken has it", |w| w.claimed(OURS, ago(DAY * 31), "uid-1"), {
                stalled(Reason::ClaimedByAnother)
            }),
        ],
    );
    let mut world = watched();
    world.being_deleted();
    assert!(matches!(plan(&world.observe()).step, Some(Step::RemoveFinalizer { warning: Some(_) })));
}

/// Under `Observe`, with everything named that counts only under `Manage`.
fn renewal_by_id() -> World {
    let mut world = drift();
    world.spec.management_policy = ManagementPolicy::Observe;
    world.spec.token_id = Some(OURS.into());
    world
}

#[test]
fn while_suspended_nothing_is_written_and_what_is_due_is_reported() {
    fn suspended(mut world: World) -> World {
        world.spec.suspend = true;
        world
    }
    check(
        || suspended(World::ready()),
        &[
            ("nothing is due", |_| {}, ready()),
            (
                "a sync is due",
                |w| {
                    w.schedule("0 6,18 * * *");
                    w.token().last_sync = Some(ago(DAY * 3));
                },
                ready(),
            ),
            (
                "a sync is asked for: it stays open",
                |w| w.object.sync_request = Some("now".into()),
                ready().synced(False, Reason::Suspended),
            ),
            ("a setting differs", |w| w.token().country_or_region = Some("fr".into()), stalled(Reason::Suspended)),
            (
                "a new file is there",
                |w| {
                    w.file().sha256 = "digest-2".into();
                    w.file().expiration = in_(DAY * 365);
                },
                stalled(Reason::Suspended),
            ),
            (
                "the finalizer still follows the policy",
                |w| w.spec.deletion_policy = DeletionPolicy::Delete,
                working(Reason::Finalizing).step(Step::AddFinalizer),
            ),
        ],
    );
    check(
        || suspended(World::new_object()),
        &[
            ("there is no token", |_| {}, stalled(Reason::Suspended).no_token()),
            (
                "a sync is asked for before there is a token: it stays open",
                |w| w.object.sync_request = Some("now".into()),
                stalled(Reason::Suspended).no_token(),
            ),
            (
                "an exact match is taken over, which writes nothing",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
        ],
    );
    check(
        || suspended(recorded()),
        &[(
            "an intent was recorded and its create not sent",
            |_| {},
            stalled(Reason::Suspended).step(abandon()).no_token(),
        )],
    );
    check(
        || suspended(unknown()),
        &[(
            "a create of unknown outcome is found again",
            |w| w.tokens = vec![token("t2")],
            working(Reason::Creating).step(adopt_created("t2", ago(MINUTE * 5))).no_token(),
        )],
    );
    let mut world = suspended(deleting());
    let step = plan(&world.observe()).step;
    assert!(matches!(&step, Some(Step::RemoveFinalizer { warning: Some(why) }) if why.contains("suspend")), "{step:?}");
    world.spec.deletion_policy = DeletionPolicy::Retain;
    assert_eq!(plan(&world.observe()).step, Some(remove_finalizer()));
}
