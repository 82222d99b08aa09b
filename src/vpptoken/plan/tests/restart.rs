//! What the status shows is kept when the operator is restarted.

use super::*;
use crate::api::conditions::{ConditionType, find};

/// What needs a person is not removed by a restart of the operator, and then reported again.
#[test]
fn a_start_of_the_operator_takes_nothing_back() {
    let mut world = World::new_object();
    world.tokens = vec![older("t2")];
    world.observed.status = plan(&world.observe()).status;
    let before = world.status.clone();
    assert!(find(&before.conditions, ConditionType::Stalled).is_some());
    let message = "It is being looked for.".to_owned();
    let not_looked_for = TenantState::Unusable { reason: Reason::TenantNotRead, message };
    let tenant = std::mem::replace(&mut world.observed.tenant, not_looked_for);
    assert_eq!(plan(&world.observe()).status, before);
    world.observed.tenant = tenant;
    world.lists.clear();
    assert_eq!(plan(&world.observe()).status, before);
    world.problem(ErrorKind::Unreachable, ago(SECOND));
    assert_eq!(plan(&world.observe()).status, before);
    world.known().unwrap().view.opened = ago(MINUTE * 15 + SECOND);
    let status = plan(&world.observe()).status;
    let reasons: Vec<&str> = status.conditions.iter().map(|condition| condition.reason.as_str()).collect();
    assert_eq!(reasons, ["SnapshotStale"], "but not for ever");
    // The conditions of another manifest do not stay.
    world.status.observed_generation = Some(2);
    assert_ne!(plan(&world.observe()).status, before);
}

#[test]
fn a_start_of_the_operator_changes_nothing_that_was_reported() {
    let mut world = World::ready();
    world.observed.status = plan(&world.observe()).status;
    let before = world.observed.status.clone();
    world.lists.clear();
    assert_eq!(plan(&world.observe()).status, before, "not listed yet");
    world.problem(ErrorKind::Unreachable, ago(SECOND));
    assert_eq!(plan(&world.observe()).status, before, "Graph is away");
    world.known().unwrap().view.opened = ago(MINUTE * 16);
    let plan = plan(&world.observe());
    let ready = crate::api::conditions::find(&plan.status.conditions, ConditionType::Ready).unwrap().clone();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("Unknown", "SnapshotStale"), "for three polls");
}

/// A process that has just started does not know since when they are refused; the status does.
#[test]
fn refused_credentials_stay_stalled_over_a_restart() {
    let mut world = World::ready();
    world.problem(ErrorKind::Credentials, ago(HOUR));
    world.observed.status = plan(&world.observe()).status;
    let before = world.status.clone();
    assert_eq!(find(&before.conditions, ConditionType::Stalled).unwrap().reason, "CredentialsRefused");
    world.lists.clear();
    world.problem(ErrorKind::Credentials, ago(SECOND));
    assert_eq!(plan(&world.observe()).status, before);
    world.known().unwrap().view.problem = None;
    world.problem(ErrorKind::Forbidden, ago(SECOND));
    let status = plan(&world.observe()).status;
    assert_eq!(find(&status.conditions, ConditionType::Stalled).unwrap().reason, "PermissionMissing", "one cause");
    // Another cause is no reason.
    world.observed.status.conditions[1].reason = "GraphRefused".into();
    let status = plan(&world.observe()).status;
    assert_eq!(find(&status.conditions, ConditionType::Stalled), None);
}

#[test]
fn only_what_was_reported_of_a_token_stays_after_a_start() {
    let reason = |world: &World| {
        let conditions = plan(&world.observe()).status.conditions;
        find(&conditions, ConditionType::Ready).unwrap().reason.clone()
    };
    let mut world = World::ready();
    world.observed.status = plan(&world.observe()).status;
    let mut without_secret = world.clone();
    without_secret.tenant = TenantState::Unusable { reason: Reason::SecretNotFound, message: "No Secret.".into() };
    assert_eq!(reason(&without_secret), "SecretNotFound", "that is no start");
    world.lists.clear();
    world.known().unwrap().view.opened = ago(MINUTE * 15);
    assert_eq!(reason(&world), "UpToDate", "for three polls");
    world.status.conditions.retain(|condition| condition.type_ != "TokenValid");
    assert_eq!(reason(&world), "TenantNotRead", "nothing was said of the token");
    let mut waiting = World::new_object();
    waiting.file = Err(FileProblem::SecretNotFound);
    waiting.observed.status = plan(&waiting.observe()).status;
    waiting.lists.clear();
    assert_eq!(reason(&waiting), "TenantNotRead", "it has no token");
}

#[test]
fn what_needs_a_person_stays_reported_after_a_start_and_while_another_creates() {
    let mut world = World::new_object();
    world.tokens = vec![older("t2")];
    world.observed.status = plan(&world.observe()).status;
    assert_eq!(world.status.conditions[0].reason, "SimilarTokenExists");
    let before = world.status.clone();
    let mut started = world.clone();
    started.lists.clear();
    assert_eq!(plan(&started.observe()).status, before, "the tenant's tokens were not listed yet");
    started.tenant = TenantState::Unusable { reason: Reason::TenantNotRead, message: "It is being looked for.".into() };
    assert_eq!(plan(&started.observe()).status, before, "nobody looked for the tenant yet");
    world.others.creating = true;
    let waits = plan(&world.observe());
    assert_eq!((waits.step, waits.status), (None, before.clone()), "another one creates");
    assert!(waits.requeue_after.is_some());
    let mut mended = world.clone();
    let stalled = find(&before.conditions, ConditionType::Stalled).unwrap();
    let position = before.conditions.iter().position(|condition| condition == stalled).unwrap();
    mended.observed.status.conditions[position].reason = "TokenFileMalformed".into();
    assert_ne!(plan(&mended.observe()).status.conditions, mended.status.conditions, "what it was said for is mended");
    world.object.generation += 1;
    assert_ne!(plan(&world.observe()).status.conditions, before.conditions, "the manifest changed");
}

#[test]
fn intents_of_others_count_for_ever_to_a_session_that_is_new() {
    let (known_until, moment) = (now(), SignedDuration::from_nanos(1));
    for (opened, since) in [
        (None, Timestamp::MIN),
        (Some(known_until + moment), Timestamp::MIN),
        (Some(known_until), known_until),
        (Some(known_until - moment), known_until),
    ] {
        assert_eq!(rival_intents_since(known_until, opened), since, "{opened:?}");
    }
    assert_eq!(outcomes_known_until(now(), &Timings::default()), ago(MINUTE * 15));
    assert_eq!(outcomes_known_until(Timestamp::MIN, &Timings::default()), Timestamp::MIN);
}
