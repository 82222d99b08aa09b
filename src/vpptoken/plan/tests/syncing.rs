//! Syncs: after an upload, on request, and by schedule.

use super::*;
use crate::api::conditions::ConditionStatus::{False, Unknown};

#[test]
fn a_sync_follows_each_upload_and_each_request_once() {
    check(
        World::ready,
        &[
            ("uploaded after the last sync", |w| w.uploaded().time = ago(HOUR), ready().step(person_sync())),
            (
                "uploaded, and a sync was started since",
                |w| {
                    w.uploaded().time = ago(HOUR);
                    w.status.last_sync_trigger_time = Some(ago(MINUTE * 59));
                },
                ready(),
            ),
            (
                "uploaded, and Intune ended a sync since, which may have begun before",
                |w| {
                    w.uploaded().time = ago(HOUR);
                    w.token().last_sync = Some(ago(MINUTE * 50));
                },
                ready().step(person_sync()),
            ),
            (
                "taken over as it was, and synced before",
                |w| {
                    w.status.last_sync_trigger_time = None;
                    w.uploaded().time = ago(HOUR * 3);
                },
                ready(),
            ),
            (
                "taken over as it was, and never synced",
                |w| {
                    w.status.last_sync_trigger_time = None;
                    w.uploaded().time = now();
                    w.token().last_sync = None;
                },
                ready().step(person_sync()),
            ),
        ],
    );
    check(
        requested,
        &[
            ("requested", |_| {}, ready().step(sync(Priority::Interactive, Some("now")))),
            (
                "requested again with another value",
                |w| w.status.last_handled_sync_request = Some("then".into()),
                ready().step(sync(Priority::Interactive, Some("now"))),
            ),
            ("handled", |w| w.status.last_handled_sync_request = Some("now".into()), ready()),
            (
                "while one runs: after it",
                |w| w.token().last_sync_status = Some("inProgress".into()),
                ready().synced(Unknown, Reason::SyncInProgress).requeue_after(MINUTE * 52 + SECOND),
            ),
            (
                "while one is stuck: now",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.lists = vec![(ago(HOUR + SECOND), BTreeSet::new()), (ago(MINUTE), BTreeSet::new())];
                },
                ready().step(sync(Priority::Interactive, Some("now"))).synced(False, Reason::SyncStuck),
            ),
            (
                "while one is stuck that this operator started before its restart: now",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = w.token().last_sync;
                    w.status.sync_running_since = Some(ago(HOUR + SECOND));
                },
                ready().step(sync(Priority::Interactive, Some("now"))).synced(False, Reason::SyncStuck),
            ),
            (
                "another one runs since then",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = Some(ago(DAY));
                    w.status.sync_running_since = Some(ago(HOUR + SECOND));
                },
                ready().synced(Unknown, Reason::SyncInProgress).requeue_after(MINUTE * 52 + SECOND),
            ),
            (
                "the stuck one was followed by one of ours, which runs",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = w.token().last_sync;
                    w.status.sync_running_since = Some(ago(HOUR * 2));
                    w.status.last_sync_trigger_time = Some(ago(MINUTE));
                },
                ready().synced(Unknown, Reason::SyncInProgress).requeue_after(MINUTE * 59),
            ),
            (
                "one of ours failed long ago, and Intune started another one just now",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = w.token().last_sync;
                    w.status.last_sync_trigger_time = Some(ago(HOUR * 2));
                },
                ready().synced(Unknown, Reason::SyncInProgress).requeue_after(MINUTE * 52 + SECOND),
            ),
            (
                "a setting differs: that goes first",
                |w| w.token().country_or_region = Some("fr".into()),
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "the sync can't be started",
                |w| {
                    w.failed(StepKind::Sync, ErrorKind::Throttled);
                },
                ready().synced(False, Reason::Throttled).requeue_after(MINUTE),
            ),
            (
                "the sync is refused",
                |w| {
                    w.failed(StepKind::Sync, ErrorKind::Refused);
                },
                ready().synced(False, Reason::GraphRefused).requeue_after(MINUTE),
            ),
            (
                "the answer was lost: look first",
                |w| {
                    w.failed(StepKind::Sync, ErrorKind::OutcomeUnknown);
                },
                ready().synced(False, Reason::GraphUnavailable).list_after(ago(SECOND)),
            ),
        ],
    );
}

#[test]
fn a_schedule_is_followed_and_a_missed_run_caught_up_once() {
    check(
        scheduled,
        &[
            ("due in six hours", |_| {}, ready().requeue_after(HOUR * 6)),
            ("missed", |w| w.missed(), ready().step(scheduled_sync())),
            (
                "missed, and caught up",
                |w| {
                    w.missed();
                    w.status.last_sync_trigger_time = Some(now());
                },
                ready().requeue_after(HOUR * 6),
            ),
            (
                "a sync was noted for the day after tomorrow, while the wall clock was wrong",
                |w| w.status.last_sync_trigger_time = Some(in_(DAY * 2)),
                ready().requeue_after(HOUR * 6),
            ),
            (
                "the next run was shown for the day after tomorrow, while the wall clock was wrong",
                |w| w.status.next_sync_time = w.status.next_sync_time.map(|at| at + DAY * 2),
                ready().requeue_after(HOUR * 6),
            ),
            (
                "new: it begins now, whatever was synced when",
                |w| {
                    w.missed();
                    w.status.next_sync_time = None;
                },
                ready().requeue_after(HOUR * 6),
            ),
            (
                "changed: it begins now",
                |w| {
                    w.missed();
                    w.schedule("0 8,20 * * *");
                    w.status.observed_generation = Some(2);
                },
                ready().requeue_after(HOUR * 8),
            ),
            (
                "missed, and another part of the manifest changed",
                |w| {
                    w.missed();
                    w.status.observed_generation = Some(2);
                },
                ready().step(scheduled_sync()),
            ),
            (
                "changed while the tenant had to be listed again: it begins now",
                |w| {
                    w.missed();
                    w.schedule("0 8,20 * * *");
                    listed_anew(w);
                },
                ready().requeue_after(HOUR * 8),
            ),
            (
                "removed and put back meanwhile: it begins now",
                |w| {
                    w.missed();
                    let sync = w.spec.sync.take();
                    listed_anew(w);
                    (w.spec.sync, w.status.observed_generation) = (sync, Some(2));
                },
                ready().requeue_after(HOUR * 6),
            ),
            (
                "missed, and another part of the manifest changed meanwhile",
                |w| {
                    w.missed();
                    w.status.last_sync_date_time = w.token().last_sync;
                    listed_anew(w);
                },
                ready().step(scheduled_sync()),
            ),
            (
                "never synced, and created after the last run",
                |w| {
                    w.token().last_sync = None;
                    w.object.created = ago(HOUR);
                    w.status.last_sync_trigger_time = Some(ago(MINUTE));
                    w.uploaded().time = ago(HOUR);
                },
                ready().requeue_after(HOUR * 6),
            ),
            (
                "due, and one runs",
                |w| {
                    w.missed();
                    w.token().last_sync_status = Some("inProgress".into());
                },
                ready().synced(Unknown, Reason::SyncInProgress).requeue_after(MINUTE * 52 + SECOND),
            ),
            (
                "due, and one is stuck",
                |w| {
                    w.missed();
                    w.token().last_sync_status = Some("inProgress".into());
                    w.lists = vec![(ago(HOUR + SECOND), BTreeSet::new()), (ago(MINUTE), BTreeSet::new())];
                },
                ready().step(scheduled_sync()).synced(False, Reason::SyncStuck),
            ),
            (
                "not due, and one is stuck",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.lists = vec![(ago(HOUR + SECOND), BTreeSet::new()), (ago(MINUTE), BTreeSet::new())];
                },
                ready().synced(False, Reason::SyncStuck),
            ),
            (
                "seen running for 59:59",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.lists = vec![(ago(HOUR), BTreeSet::new()), (ago(MINUTE), BTreeSet::new())];
                },
                ready().synced(Unknown, Reason::SyncInProgress).requeue_after(SECOND),
            ),
            ("can't be read", |w| w.schedule("61 * * * *"), stalled(Reason::ScheduleInvalid)),
            (
                "a zone that is none",
                |w| {
                    w.spec.sync.as_mut().unwrap().time_zone = Some("Mars/Olympus".into());
                },
                stalled(Reason::ScheduleInvalid),
            ),
            (
                "an interval that is too short",
                |w| {
                    w.spec.sync = Some(serde_json::from_value(serde_json::json!({ "interval": "1m" })).unwrap());
                },
                stalled(Reason::ScheduleInvalid),
            ),
            ("fires too often", |w| w.schedule("*/14 * * * *"), stalled(Reason::ScheduleInvalid)),
            (
                "fires too often only where Berlin changes its clock",
                |w| {
                    w.schedule("4,50 1,3 * * *");
                    w.spec.sync.as_mut().unwrap().time_zone = Some("Europe/Berlin".into());
                },
                stalled(Reason::ScheduleInvalid),
            ),
            ("never fires", |w| w.schedule("0 0 30 2 *"), stalled(Reason::ScheduleNeverFires)),
            (
                "never fires; a request goes on",
                |w| {
                    w.schedule("0 0 30 2 *");
                    w.object.sync_request = Some("now".into());
                },
                stalled(Reason::ScheduleNeverFires).step(sync(Priority::Interactive, Some("now"))),
            ),
            (
                "the scheduled sync can't be started: only Synced tells",
                |w| {
                    w.missed();
                    w.failed(StepKind::Sync, ErrorKind::Unavailable).at = ago(MINUTE * 4);
                },
                ready().synced(False, Reason::GraphUnavailable).requeue_after(MINUTE),
            ),
        ],
    );
}

/// The operator was restarted, with another manifest, and had not listed the tenant's tokens at its first reconcile.
fn listed_anew(world: &mut World) {
    world.status.observed_generation = Some(2);
    let lists = std::mem::take(&mut world.lists);
    world.observed.status = plan(&world.observe()).status;
    assert_eq!(world.status.conditions[0].reason, "TenantNotRead");
    assert_eq!(world.status.observed_generation, Some(3));
    world.lists = lists;
}

#[test]
fn the_status_shows_when_the_next_sync_is_due() {
    let mut world = scheduled();
    let next = |world: &World| plan(&world.observe()).status.next_sync_time;
    assert_eq!(next(&world), Some(in_(HOUR * 6)));
    world.schedule("0 0 30 2 *");
    assert_eq!(next(&world), None);
    world.status.next_sync_time = Some(now());
    world.spec.sync = None;
    assert_eq!(next(&world), None);
}

#[test]
fn a_promise_that_was_kept_is_followed_by_the_next_run() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let next = |world: &World| plan(&world.observe()).status.next_sync_time;
    let mut world = scheduled();
    world.missed();
    world.token().last_sync = Some(at("2026-11-16T06:00:03Z"));
    assert_eq!(next(&world), Some(at("2026-11-16T18:00:00Z")), "another one was missed since");
    world.status.observed_generation = Some(2);
    assert_eq!(
        next(&world),
        Some(at("2026-11-21T18:00:00Z")),
        "the manifest changed: only what was promised is made up for"
    );
    world.missed();
    world.status.next_sync_time = Some(at("2026-11-21T06:00:00Z"));
    world.status.last_sync_trigger_time = world.status.next_sync_time;
    assert_eq!(next(&world), Some(at("2026-11-21T18:00:00Z")), "kept to the moment");
}

#[test]
fn a_missed_first_run_is_made_up_for_though_the_manifest_changed_meanwhile() {
    let mut world = scheduled();
    let first: Timestamp = "2026-11-20T18:00:00Z".parse().unwrap();
    world.token().last_sync = Some(ago(DAY * 20));
    world.status.next_sync_time = Some(first);
    world.status.observed_generation = Some(2);
    let made_up_for = plan(&world.observe());
    assert_eq!((made_up_for.step, made_up_for.status.next_sync_time), (Some(scheduled_sync()), Some(first)));
    // For a schedule that does not exist any more there is nothing to make up for.
    world.schedule("0 7,19 * * *");
    let plan = plan(&world.observe());
    assert_eq!((plan.step, plan.status.next_sync_time), (None, Some("2026-11-21T19:00:00Z".parse().unwrap())));
}

#[test]
fn what_is_wrong_with_a_schedule_is_a_sentence() {
    let mut world = scheduled();
    world.schedule("61 * * * *");
    let message = plan(&world.observe()).blockers[0].message.clone();
    assert!(message.starts_with("Schedule \"61 * * * *\" can't be read") && message.ends_with('.'), "{message}");
}

#[test]
fn a_lost_answer_of_a_sync_that_runs_counts_as_carried_out() {
    let mut world = requested();
    world.failed(StepKind::Sync, ErrorKind::OutcomeUnknown).began = ago(MINUTE * 5);
    world.token().last_sync_status = Some("inProgress".into());
    world.lists = vec![(ago(MINUTE * 4), BTreeSet::new()), (ago(MINUTE), BTreeSet::new())];
    let plan = plan(&world.observe());
    assert_eq!((plan.step, plan.status.last_handled_sync_request.as_deref()), (None, Some("now")));
}

#[test]
fn a_lost_sync_that_was_sent_while_the_clock_was_ahead_blocks_no_schedule() {
    let mut world = World::ready();
    world.schedule("59 * * * *");
    world.token().last_sync = Some(ago(HOUR * 3));
    let failure = world.failed(StepKind::Sync, ErrorKind::OutcomeUnknown);
    (failure.began, failure.began_wall, failure.at) = (ago(HOUR * 2), in_(DAY), ago(HOUR * 2));
    failure.not_before = ago(HOUR);
    world.token().last_sync = Some(ago(HOUR * 2));
    let first = plan(&world.observe());
    assert_eq!(first.status.last_sync_trigger_time, Some(ago(HOUR * 2)));
    world.status = first.status;
    world.status.next_sync_time = Some(ago(MINUTE));
    let due = plan(&world.observe());
    assert!(matches!(due.step, Some(Step::Write(Write::Sync { .. }))), "{:?}", due.step);
}

#[test]
fn a_lost_sync_has_one_time_however_the_clocks_are_read() {
    let mut world = World::ready();
    world.token().last_sync = Some(ago(HOUR));
    let failure = world.failed(StepKind::Sync, ErrorKind::OutcomeUnknown);
    (failure.began, failure.began_wall, failure.at) = (ago(MINUTE * 5), ago(MINUTE * 5), ago(MINUTE * 5));
    world.token().last_sync = Some(ago(MINUTE * 4));
    let began = ago(MINUTE * 5);
    let moment = SignedDuration::from_micros(1);
    for (read, shown) in [(-moment, began - moment), (SignedDuration::ZERO, began - moment), (moment, began - moment)] {
        world.observed.wall = now() + read;
        world.observed.status = plan(&world.observe()).status;
        assert_eq!(world.observed.status.last_sync_trigger_time, Some(shown), "{read:?}");
    }
}

#[test]
fn a_sync_whose_answer_was_lost_is_not_sent_again_when_graph_shows_it_whatever_its_clock() {
    // Graph's clock, compared with ours.
    for ahead in [SignedDuration::ZERO, HOUR, -HOUR] {
        let mut world = requested();
        world.token().last_sync = Some(ago(MINUTE * 10) + ahead);
        let failure = world.failed(StepKind::Sync, ErrorKind::OutcomeUnknown);
        (failure.began, failure.began_wall, failure.at) = (ago(MINUTE * 5), ago(MINUTE * 5), ago(MINUTE * 5));
        failure.not_before = ago(MINUTE * 4);
        assert!(
            matches!(plan(&world.observe()).step, Some(Step::Write(Write::Sync { .. }))),
            "nothing shows it: {ahead}"
        );
        world.token().last_sync = Some(ago(MINUTE * 4) + ahead);
        let plan = plan(&world.observe());
        assert_eq!(
            (plan.step, plan.status.last_handled_sync_request.as_deref()),
            (None, Some("now")),
            "Graph shows it: {ahead}"
        );
    }
    let mut world = requested();
    world.token().last_sync = None;
    world.failed(StepKind::Sync, ErrorKind::OutcomeUnknown).at = ago(MINUTE * 5);
    world.token().last_sync = Some(ago(DAY));
    assert_eq!(plan(&world.observe()).step, None, "the first sync ever");
}
