//! The conditions: what Graph reports of the token and of its last sync.

use super::*;
use crate::api::conditions::ConditionStatus::{False, True, Unknown};
use crate::api::conditions::{ConditionType, find};

#[test]
fn what_graph_shows_of_the_token_is_reported() {
    check(
        World::ready,
        &[
            (
                "expires in 30 days",
                |w| {
                    w.token().expiration = Some(in_(DAY * 30));
                    w.uploaded().expiration_date_time = in_(DAY * 30);
                },
                ready().valid(True, Reason::ExpiringSoon).requeue_after(DAY * 30),
            ),
            (
                "expires in 30 days and a second",
                |w| {
                    w.token().expiration = Some(in_(DAY * 30 + SECOND));
                    w.uploaded().expiration_date_time = in_(DAY * 30 + SECOND);
                },
                ready().requeue_after(SECOND),
            ),
            (
                "has expired, and Graph says so",
                |w| w.token().state = Some("expired".into()),
                stalled(Reason::Expired).valid(False, Reason::Expired),
            ),
            (
                "has expired, and Graph does not say so yet",
                |w| w.token().expiration = Some(now()),
                stalled(Reason::Expired).valid(False, Reason::Expired),
            ),
            (
                "revoked",
                |w| w.token().state = Some("invalid".into()),
                stalled(Reason::Invalid).valid(False, Reason::Invalid),
            ),
            (
                "in another MDM",
                |w| w.token().state = Some("assignedToExternalMDM".into()),
                stalled(Reason::AssignedToExternalMDM).valid(False, Reason::AssignedToExternalMDM),
            ),
            (
                "two of one location",
                |w| w.token().state = Some("duplicateLocationId".into()),
                stalled(Reason::DuplicateLocation).valid(False, Reason::DuplicateLocation),
            ),
            (
                "not known yet, ten minutes less a second after an upload",
                |w| {
                    w.token().state = Some("unknown".into());
                    w.uploaded().time = ago(MINUTE * 10 - SECOND);
                    w.status.last_sync_trigger_time = Some(ago(MINUTE));
                },
                waiting(Reason::StateUnknown).valid(Unknown, Reason::Unknown).requeue_after(SECOND),
            ),
            (
                "not known, ten minutes after an upload",
                |w| {
                    w.token().state = Some("unknown".into());
                    w.uploaded().time = ago(MINUTE * 10);
                    w.status.last_sync_trigger_time = Some(ago(MINUTE));
                },
                ready().ready(True, Reason::StateUnknown).valid(Unknown, Reason::Unknown),
            ),
            (
                "not known, after a setting was written",
                |w| {
                    w.token().state = Some("unknown".into());
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "de".into(), ago(MINUTE * 6))];
                },
                waiting(Reason::StateUnknown).valid(Unknown, Reason::Unknown).requeue_after(MINUTE * 4),
            ),
            (
                "nothing said",
                |w| w.token().state = None,
                ready().ready(True, Reason::StateUnknown).valid(Unknown, Reason::Unknown),
            ),
            (
                "something new",
                |w| w.token().state = Some("onHoliday".into()),
                ready().ready(True, Reason::StateUnknown).valid(Unknown, Reason::Unknown),
            ),
            (
                "nothing said of one that expires in 29 days",
                |w| {
                    w.token().state = None;
                    w.token().expiration = Some(in_(DAY * 29));
                    w.uploaded().expiration_date_time = in_(DAY * 29);
                },
                ready().ready(True, Reason::StateUnknown).valid(Unknown, Reason::ExpiringSoon),
            ),
            (
                "nothing said of one that has expired",
                |w| {
                    w.token().state = None;
                    w.token().expiration = Some(now());
                },
                stalled(Reason::Expired).valid(False, Reason::Expired),
            ),
        ],
    );
}

#[test]
fn a_renewal_tells_its_three_stages_apart() {
    /// The newer file was uploaded an hour ago and synced since; Graph shows the old expiry.
    fn lagging() -> World {
        let mut world = renewal();
        world.status.uploaded = Some(Uploaded {
            sha256: "digest-2".into(),
            expiration_date_time: in_(DAY * 365),
            organization_name: ORGANIZATION.into(),
            time: ago(HOUR),
            encoding: Some(TokenEncoding::AsIs),
            secret_version: Some(FILE_VERSION.into()),
            shown: false,
        });
        world.token().last_sync = Some(ago(MINUTE * 50));
        world.status.last_sync_trigger_time = Some(ago(MINUTE * 51));
        world
    }
    check(
        lagging,
        &[
            (
                "Graph shows the old expiry, and that is still to come",
                |_| {},
                ready().valid(True, Reason::RenewalNotShownYet).requeue_after(HOUR * 23),
            ),
            (
                "Graph shows the old expiry, which is past",
                |w| w.token().expiration = Some(ago(DAY)),
                waiting(Reason::RenewalNotShownYet)
                    .valid(Unknown, Reason::RenewalNotShownYet)
                    .requeue_after(MINUTE * 10),
            ),
            (
                "Graph shows the old expiry, which is soon",
                |w| w.token().expiration = Some(in_(DAY * 16)),
                ready().valid(True, Reason::ExpiringSoon).requeue_after(HOUR * 23),
            ),
            (
                "Graph shows the old expiry, which is soon in a day",
                |w| w.token().expiration = Some(in_(DAY * 30 + HOUR)),
                ready().valid(True, Reason::RenewalNotShownYet).requeue_after(HOUR),
            ),
            (
                "Graph shows the old expiry, which is within the hour",
                |w| w.token().expiration = Some(in_(MINUTE * 30)),
                ready().valid(True, Reason::ExpiringSoon).requeue_after(MINUTE * 30),
            ),
            (
                "Graph shows the old expiry, and does not say whether it is valid",
                |w| w.token().state = None,
                ready().ready(True, Reason::StateUnknown).valid(Unknown, Reason::Unknown).requeue_after(HOUR * 23),
            ),
            (
                "Graph had shown the new expiry, and now shows an earlier one",
                |w| w.uploaded().shown = true,
                stalled(Reason::ReplacedInIntune),
            ),
            (
                "Graph had shown the new expiry, and now shows one in 16 days",
                |w| {
                    w.uploaded().shown = true;
                    w.token().expiration = Some(in_(DAY * 16));
                },
                stalled(Reason::ReplacedInIntune).valid(True, Reason::ExpiringSoon),
            ),
            (
                "Graph had shown the new expiry, and now shows one that is past",
                |w| {
                    w.uploaded().shown = true;
                    w.token().expiration = Some(ago(DAY));
                },
                stalled(Reason::ReplacedInIntune)
                    .blockers(&[Reason::ReplacedInIntune, Reason::Expired])
                    .valid(False, Reason::Expired),
            ),
            (
                "Graph had shown the new expiry, and a list from before it settled shows an earlier one",
                |w| {
                    w.uploaded().time = ago(MINUTE * 4);
                    w.uploaded().shown = true;
                    w.status.last_sync_trigger_time = Some(ago(MINUTE));
                },
                ready().valid(True, Reason::RenewalNotShownYet),
            ),
            (
                "it was replaced, and an upload is requested",
                |w| {
                    w.uploaded().shown = true;
                    w.object.upload_request = Some("again".into());
                },
                working(Reason::Uploading).step(upload()),
            ),
            (
                "Graph shows the old expiry, which is now",
                |w| w.token().expiration = Some(now()),
                waiting(Reason::RenewalNotShownYet)
                    .valid(Unknown, Reason::RenewalNotShownYet)
                    .requeue_after(MINUTE * 10),
            ),
            (
                "Graph calls it expired",
                |w| w.token().state = Some("expired".into()),
                waiting(Reason::RenewalNotShownYet).valid(Unknown, Reason::RenewalNotShownYet),
            ),
            (
                "Graph says that it was revoked: the lag does not hide that",
                |w| w.token().state = Some("invalid".into()),
                stalled(Reason::Invalid).valid(False, Reason::Invalid),
            ),
            ("Graph shows the new expiry", |w| w.token().expiration = Some(in_(DAY * 365)), ready()),
            (
                "after a day it is said that Graph has not kept it",
                |w| w.uploaded().time = ago(DAY),
                stalled(Reason::RenewalNotKept),
            ),
            (
                "after a day, and what Graph shows expires soon",
                |w| {
                    w.uploaded().time = ago(DAY);
                    w.token().expiration = Some(in_(DAY * 20));
                },
                stalled(Reason::RenewalNotKept).valid(True, Reason::ExpiringSoon),
            ),
            (
                "not for ever",
                |w| {
                    w.uploaded().time = ago(DAY * 2);
                    w.token().state = Some("expired".into());
                },
                stalled(Reason::Expired).valid(False, Reason::Expired),
            ),
        ],
    );
    let mut world = lagging();
    world.uploaded().time = ago(DAY * 2);
    world.token().state = Some("expired".into());
    let message = plan(&world.observe()).blockers[0].message.clone();
    assert!(message.contains("Look at the token in Intune") && !message.contains("Download"), "{message}");
}

#[test]
fn what_someone_did_in_the_portal_is_reported_with_what_to_do() {
    let mut world = World::ready();
    world.token().expiration = Some(in_(DAY * 360));
    let message_of = |world: &World| {
        let conditions = plan(&world.observe()).status.conditions;
        find(&conditions, ConditionType::Ready).unwrap().message.clone()
    };
    for part in ["2027-11-16T12:00:00Z", "2027-06-09T12:00:00Z", "Secret \"berlin-vpp\"", "newer file"] {
        assert!(message_of(&world).contains(part), "{}", message_of(&world));
    }
    world.token().expiration = Some(in_(DAY * 100));
    world.uploaded().shown = true;
    for part in ["2027-03-01T12:00:00Z", "2027-06-09T12:00:00Z", "vpptoken.io/upload-requested-at"] {
        assert!(message_of(&world).contains(part), "{}", message_of(&world));
    }
    let valid = |world: &World| {
        let conditions = plan(&world.observe()).status.conditions;
        find(&conditions, ConditionType::TokenValid).unwrap().message.clone()
    };
    world.token().state = Some("onHoliday".into());
    assert!(valid(&world).contains("\"onHoliday\""), "{}", valid(&world));
    world.token().state = None;
    assert!(valid(&world).contains("leaves out"), "{}", valid(&world));
    world.token().state = Some("unknown".into());
    assert!(valid(&world).contains("\"unknown\""), "{}", valid(&world));
}

#[test]
fn a_failed_sync_is_not_given_the_time_of_the_last_one_that_completed() {
    let mut world = World::ready();
    world.token().last_sync_status = Some("failed".into());
    let message_of = |world: &World| {
        let conditions = plan(&world.observe()).status.conditions;
        find(&conditions, ConditionType::Synced).unwrap().message.clone()
    };
    let message = message_of(&world);
    assert!(!message.contains("failed at") && message.contains("completed at 2026-11-21T09:00:00Z"), "{message}");
    world.token().last_sync = None;
    assert!(!message_of(&world).contains("completed"), "{}", message_of(&world));
}

#[test]
fn a_token_that_has_expired_is_expired_whatever_graph_calls_it() {
    let mut world = World::ready();
    world.uploaded().expiration_date_time = ago(SECOND);
    world.file().expiration = ago(SECOND);
    world.token().expiration = Some(ago(SECOND));
    let conditions = plan(&world.observe()).status.conditions;
    let valid = find(&conditions, ConditionType::TokenValid).unwrap();
    assert_eq!((valid.status.as_str(), valid.reason.as_str()), ("False", "Expired"));
}

#[test]
fn how_to_renew_depends_on_who_renews() {
    let mut world = World::ready();
    world.token().expiration = Some(in_(DAY));
    world.uploaded().expiration_date_time = in_(DAY);
    world.file().expiration = in_(DAY);
    let message_of = |world: &World| {
        let conditions = plan(&world.observe()).status.conditions;
        find(&conditions, ConditionType::TokenValid).unwrap().message.clone()
    };
    assert!(
        message_of(&world).ends_with("Download a new file from Apple and replace the Secret."),
        "{}",
        message_of(&world)
    );
    world.spec.management_policy = ManagementPolicy::Observe;
    world.spec.token_id = Some(OURS.into());
    assert!(
        message_of(&world).ends_with("Download a new file from Apple and upload it in Intune."),
        "{}",
        message_of(&world)
    );
}

#[test]
fn what_expires_and_what_is_due_goes_by_the_wall_clock() {
    // The wall clock was set back by a year after the process had started; delays go on.
    let check = |change: fn(&mut World), reason: Reason| {
        let mut world = scheduled();
        change(&mut world);
        world.observed.now = now() + DAY * 365;
        world.lists = vec![(world.now - MINUTE * 8, BTreeSet::new()), (world.now - MINUTE * 3, BTreeSet::new())];
        let plan = plan(&world.observe());
        let valid = find(&plan.status.conditions, ConditionType::TokenValid).unwrap();
        assert_eq!(valid.reason, reason.as_str());
        assert!(find(&plan.status.conditions, ConditionType::Ready).unwrap().last_transition_time.0 == now());
        plan
    };
    let plan = check(|_| {}, Reason::Valid);
    assert_eq!((plan.step, plan.requeue_after), (None, Some(HOUR * 6)), "the schedule is due at 18:00");
    let plan = check(
        |w| {
            w.token().expiration = Some(in_(HOUR));
            w.uploaded().expiration_date_time = in_(HOUR);
        },
        Reason::ExpiringSoon,
    );
    assert_eq!(plan.requeue_after, Some(HOUR));
    let plan = check(
        |w| {
            w.file().sha256 = "digest-2".into();
            w.file().expiration = in_(DAY * 300);
        },
        Reason::Valid,
    );
    assert_eq!(plan.step, Some(upload()), "the file has not expired");
}

#[test]
fn all_that_needs_a_person_is_reported_and_what_harms_the_token_first() {
    let mut world = World::ready();
    world.forbid(Permission::Delete);
    world.spec.deletion_policy = DeletionPolicy::Delete;
    world.object.has_finalizer = true;
    world.file = Err(FileProblem::Malformed("at byte 7".into()));
    let plan = plan(&world.observe());
    let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, "TokenFileMalformed");
    let parts: Vec<&str> = ready.message.split(" Also: ").collect();
    assert!(
        parts[0].contains("at byte 7") && parts[1].contains("does not allow Delete") && parts.len() == 2,
        "{parts:?}"
    );
}
