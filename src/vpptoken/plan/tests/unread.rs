//! A watched namespace was never read: what its VppTokens have, and what they are creating, is not known.

use super::*;

fn reasons(plan: &Plan) -> Vec<Reason> {
    plan.blockers.iter().map(|blocker| blocker.reason).collect()
}

/// Changes a world, observes it with a namespace that was never read, and plans.
fn plan_unread(mut world: World, change: impl FnOnce(&mut World)) -> Plan {
    change(&mut world);
    world.others.unread = true;
    plan(&world.observe())
}

#[test]
fn nothing_is_created_or_taken_over_while_a_namespace_was_never_read() {
    type Change = fn(&mut World);
    let worlds: [(&str, Change); 6] = [
        ("create", |_| {}),
        ("adopt", |world| world.tokens = vec![token("t9")]),
        ("bind", |world| {
            world.tokens = vec![token("t9")];
            world.spec.token_id = Some("t9".into());
        }),
        ("the result of a lost create", |world| {
            world.pending(ago(MINUTE * 5), &[]);
            world.tokens = vec![token("t9")];
        }),
        ("a lost create without a result", |world| {
            world.pending(ago(HOUR), &[]);
            world.lists.extend((1..5).map(|n| (ago(MINUTE * 10) + MINUTE * n, BTreeSet::new())));
        }),
        ("a token that is gone", |world| {
            world.status = World::ready().observed.status;
            world.confirmed_absent = vec![(OURS.into(), ago(MINUTE))];
        }),
    ];
    for (what, change) in worlds {
        let mut read = World::new_object();
        change(&mut read);
        assert!(plan(&read.observe()).step.is_some(), "{what}: there would be something to do");
        let plan = plan_unread(World::new_object(), change);
        assert_eq!(plan.step, None, "{what}");
        assert!(reasons(&plan).contains(&Reason::NamespaceNotRead), "{what}: {:?}", plan.blockers);
        assert!(plan.blockers.iter().all(|blocker| !blocker.needs_action), "{what}");
    }
}

#[test]
fn an_intent_that_was_not_sent_is_abandoned_when_a_namespace_appears_that_can_not_be_read() {
    let plan = plan_unread(World::new_object(), |world| world.record_intent(ago(MINUTE * 4), &[]));
    assert!(is_abandon(&plan.step));
}

#[test]
fn a_token_is_not_deleted_while_it_may_be_had_in_a_namespace_that_was_never_read() {
    let mut deletion = World::ready();
    deletion.being_deleted();
    assert_eq!(plan(&deletion.observe()).step, Some(Step::Write(Write::Delete { id: OURS.into() })));
    let plan = plan_unread(deletion, |_| {});
    assert_eq!((plan.step.clone(), reasons(&plan)), (None, vec![Reason::NamespaceNotRead]));
    let retained = plan_unread(World::ready(), |world| {
        world.being_deleted();
        world.spec.deletion_policy = DeletionPolicy::Retain;
    });
    assert_eq!(retained.step, Some(Step::RemoveFinalizer { warning: None }));
}

#[test]
fn what_is_ones_own_goes_on_while_a_namespace_was_never_read() {
    type Change = fn(&mut World);
    let worlds: [(&str, Change); 4] = [
        ("nothing", |_| {}),
        ("a renewal", |world| {
            world.file().sha256 = "digest-2".into();
            world.file().expiration = expiry() + DAY;
        }),
        ("drift", |world| world.token().country_or_region = Some("us".into())),
        ("a requested sync", |world| world.object.sync_request = Some("now".into())),
    ];
    for (what, change) in worlds {
        let mut read = World::ready();
        change(&mut read);
        assert_eq!(plan_unread(World::ready(), change), plan(&read.observe()), "{what}");
    }
}
