//! What is reported before it is done, and when an object is looked at again.

use super::*;

#[test]
fn only_the_first_try_of_a_change_is_reported() {
    let mut world = World::ready();
    world.spec.country_or_region = Some("us".into());
    let reports = |world: &World| {
        let observed = world.observe();
        let plan = plan(&observed);
        assert_eq!(plan.step.as_ref().and_then(Step::kind), Some(StepKind::Update));
        assert_eq!(plan.is_reported_first(&observed), plan.is_first_try(&observed));
        plan.is_first_try(&observed)
    };
    assert!(reports(&world));
    world.failed(StepKind::Sync, ErrorKind::Unavailable);
    assert!(reports(&world), "something else failed");
    world.failed(StepKind::Update, ErrorKind::Throttled).not_before = ago(SECOND);
    assert!(!reports(&world), "it failed, and is tried again now");
    world.observed.attempts.failures.get_mut(&StepKind::Update).unwrap().inputs.generation += 1;
    assert!(reports(&world), "another manifest failed");
}

#[test]
fn what_is_due_is_reported_first_when_it_makes_the_object_unready() {
    let observed = World::ready().observe();
    let base = plan(&observed);
    let is_first = |step: Option<Step>| Plan { step, ..base.clone() }.is_reported_first(&observed);
    assert!(is_first(Some(Step::AddFinalizer)));
    assert!(is_first(Some(Step::ConfirmUpload { id: OURS.into() })));
    assert!(is_first(Some(upload_now(World::ready().file(), None))));
    assert!(is_first(Some(update(&[]))));
    assert!(!is_first(Some(Step::Write(Write::Sync {
        id: OURS.into(),
        priority: Priority::Interactive,
        request: None
    }))));
    assert!(!is_first(Some(create())), "its intent has reported it");
    let mut failing = deleting();
    failing.failed(StepKind::Delete, ErrorKind::Unavailable);
    let retried = Plan { step: Some(delete()), ..base.clone() };
    assert!(retried.is_reported_first(&failing.observe()), "a token is deleted only when the status names it");
    assert!(!is_first(None));
}

#[test]
fn a_plan_knows_on_which_list_it_was_made() {
    let world = World::ready();
    assert_eq!(plan(&world.observe()).planned_on, world.lists.iter().map(|(began, _)| *began).max());
}

#[test]
fn everything_is_requeued_within_the_hour() {
    let mut plan = plan(&World::ready().observe());
    assert!(plan.requeue_after > Some(DAY), "nothing is due");
    assert_eq!(plan.requeue_after(), HOUR);
    plan.requeue_after = None;
    assert_eq!(plan.requeue_after(), HOUR);
    plan.requeue_after = Some(MINUTE);
    assert_eq!(plan.requeue_after(), MINUTE);
    plan.step = Some(Step::AddFinalizer);
    assert_eq!(plan.requeue_after(), SignedDuration::ZERO);
}
