//! What each step needs and how it can fail.

use super::*;

#[test]
fn what_is_sent_to_graph_fails_by_its_kind_and_what_changes_something_there_needs_a_permit() {
    let person = Some(PermitKind::Write(Priority::Interactive));
    for (step, kind, permit) in [
        (create(), Some(StepKind::Create), person),
        (upload(), Some(StepKind::Confirm), person),
        (upload_now(World::ready().file(), None), Some(StepKind::Upload), person),
        (update(&[]), Some(StepKind::Update), person),
        (person_sync(), Some(StepKind::Sync), person),
        (scheduled_sync(), Some(StepKind::Sync), Some(PermitKind::Write(Priority::Scheduled))),
        (delete(), Some(StepKind::Delete), person),
        (confirm(), Some(StepKind::Confirm), None),
        (record_intent(&[]), None, Some(PermitKind::Intent)),
        (abandon(), None, None),
        (adopt(OURS, now()), None, None),
        (adopt_created(OURS, now()), None, None),
        (Step::Bind { id: OURS.into() }, None, None),
        (Step::Note(uploaded(now())), None, None),
        (decline(), None, None),
        (Step::DeclineUpload { request: "now".into() }, None, None),
        (Step::AddFinalizer, None, None),
        (remove_finalizer(), None, None),
    ] {
        assert_eq!((step.kind(), step.needed_permit()), (kind, permit), "{step:?}");
        let takes_over = matches!(step, Step::Adopt { .. } | Step::Bind { .. });
        assert_eq!(step.needs_live_reads(), permit.is_some() || takes_over, "{step:?}");
        let is_intent = matches!(step, Step::RecordIntent(_));
        assert_eq!(step.needs_live_object(), step.needs_live_reads() && !is_intent, "{step:?}");
        let is_match = matches!(step, Step::Adopt { is_own_create: false, .. });
        assert_eq!(step.needs_live_secret(), is_match, "{step:?}");
    }
}
