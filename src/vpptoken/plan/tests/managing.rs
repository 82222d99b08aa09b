//! A token of ours: its settings, requested uploads, and who has it.

use super::*;
use crate::api::AccountType;

#[test]
fn a_setting_that_someone_changed_is_put_back_but_never_fought_over() {
    check(
        drift,
        &[
            (
                "one field",
                |_| {},
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "missing in Graph",
                |w| w.token().country_or_region = None,
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, None, "de")])),
            ),
            (
                "all fields, in one request",
                |w| {
                    w.spec.vpp_token_account_type = Some(AccountType::Education);
                    w.spec.apple_id = Some("new@contoso.example".into());
                    w.token().automatically_update_apps = Some(false);
                },
                working(Reason::Updating).step(update(&[
                    (Field::AppleId, Some(APPLE_ID), "new@contoso.example"),
                    (Field::AccountType, Some("business"), "education"),
                    (Field::CountryOrRegion, Some("fr"), "de"),
                    (Field::AutomaticallyUpdateApps, Some("false"), "true"),
                ])),
            ),
            (
                "written 59 s ago: no verdict yet",
                |w| {
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "de".into(), ago(SECOND * 59))];
                },
                waiting(Reason::Settling).requeue_after(SECOND).list_after(ago(SECOND * 59)),
            ),
            (
                "written a minute ago, and no list began since it settled",
                |w| {
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "de".into(), ago(MINUTE))];
                },
                waiting(Reason::Settling).list_after(now()),
            ),
            (
                "written and settled, and a list shows that it was not kept",
                |w| {
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "de".into(), ago(MINUTE * 5))];
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "written and settled, and the list since then lacks the token",
                |w| {
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "de".into(), ago(MINUTE * 5))];
                    w.lists[1] = (ago(MINUTE * 2), [OURS.to_owned()].into());
                },
                waiting(Reason::Settling),
            ),
            (
                "written and settled, shown by a list since then, and the last list lacks the token",
                |w| {
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "de".into(), ago(MINUTE * 5))];
                    w.lists.push((ago(MINUTE * 2), [OURS.to_owned()].into()));
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "another value was written: the manifest changed",
                |w| {
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "fr".into(), ago(SECOND))];
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "tried twice",
                |w| {
                    w.attempts.tries.insert(Field::CountryOrRegion, ("de".into(), 2));
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "tried three times",
                |w| {
                    w.attempts.tries.insert(Field::CountryOrRegion, ("de".into(), 3));
                },
                stalled(Reason::SettingNotAccepted),
            ),
            (
                "tried three times with another value",
                |w| {
                    w.attempts.tries.insert(Field::CountryOrRegion, ("it".into(), 3));
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "tried three times; the other field goes on",
                |w| {
                    w.attempts.tries.insert(Field::CountryOrRegion, ("de".into(), 3));
                    w.token().automatically_update_apps = Some(false);
                },
                stalled(Reason::SettingNotAccepted).step(update(&[(
                    Field::AutomaticallyUpdateApps,
                    Some("false"),
                    "true",
                )])),
            ),
        ],
    );
}

/// Otherwise a value that Graph echoes and does not keep would be sent for ever.
#[test]
fn what_was_just_written_may_be_an_echo_and_counts_as_differing_until_a_list_shows_it() {
    for (written, differing) in [(ago(SECOND * 59), true), (ago(MINUTE * 5), false)] {
        let mut world = World::ready();
        world.written = vec![(OURS.into(), Field::CountryOrRegion, "de".into(), written)];
        let plan = plan(&world.observe());
        assert_eq!(plan.step, None);
        assert_eq!(plan.differing, Some(differing.then_some(Field::CountryOrRegion).into_iter().collect()));
    }
}

#[test]
fn of_two_vpptokens_with_one_token_the_elder_has_it_then_the_lower_uid() {
    check(
        drift,
        &[
            ("an elder one has it", |w| w.claimed(OURS, ago(DAY * 31), "uid-9"), stalled(Reason::ClaimedByAnother)),
            (
                "one as old with a lower UID has it",
                |w| w.claimed(OURS, ago(DAY * 30), "uid-4"),
                stalled(Reason::ClaimedByAnother),
            ),
            (
                "a younger one has it too",
                |w| w.claimed(OURS, ago(DAY), "uid-1"),
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "an elder one has it, and a sync was requested",
                |w| {
                    w.claimed(OURS, ago(DAY * 31), "uid-9");
                    w.object.sync_request = Some("now".into());
                },
                stalled(Reason::ClaimedByAnother),
            ),
        ],
    );
}

#[test]
fn a_requested_upload_is_done_once_and_never_of_an_older_file() {
    fn asked() -> World {
        let mut world = World::ready();
        world.object.upload_request = Some("now".into());
        world
    }
    check(
        asked,
        &[
            ("the same file", |_| {}, working(Reason::Uploading).step(upload())),
            (
                "asked for right before",
                |w| {
                    w.live_since = Some(ago(SECOND));
                    w.asked = vec![OURS.into()];
                },
                working(Reason::Uploading).step(upload_now(World::ready().file(), Some("now"))),
            ),
            ("it was answered", |w| w.status.last_handled_upload_request = Some("now".into()), ready()),
            (
                "another one was answered",
                |w| w.status.last_handled_upload_request = Some("then".into()),
                working(Reason::Uploading).step(upload()),
            ),
            (
                "Intune has a newer file",
                |w| w.token().expiration = Some(expiry() + SECOND),
                stalled(Reason::TokenFileOlder),
            ),
            ("the file is not there", |w| w.file = Err(FileProblem::SecretNotFound), waiting(Reason::SecretNotFound)),
            (
                "a new file that Graph has already",
                |w| {
                    w.file().sha256 = "digest-2".into();
                    w.file().expiration = in_(DAY * 365);
                    w.token().expiration = Some(in_(DAY * 365));
                },
                working(Reason::Uploading).step(upload()),
            ),
            ("while suspended it stays open", |w| w.spec.suspend = true, stalled(Reason::Suspended)),
            (
                "an upload that failed waits, unless another one is asked for",
                |w| {
                    w.failed(StepKind::Upload, ErrorKind::Throttled).inputs.upload_request = Some("then".into());
                },
                working(Reason::Uploading).step(upload()),
            ),
        ],
    );
    let mut observed = observed_by_id();
    observed.status = World::ready().status.clone();
    observed.object.upload_request = Some("now".into());
    let step = plan(&observed.observe()).step;
    assert_eq!(step, Some(Step::DeclineUpload { request: "now".into() }));
    observed.status.last_handled_upload_request = Some("now".into());
    assert_eq!(plan(&observed.observe()).step, None);
}

#[test]
fn that_graph_has_shown_an_upload_is_noted_once_a_list_from_after_it_shows_it() {
    let shown = |change: fn(&mut World)| {
        let mut world = World::ready();
        world.status.last_sync_trigger_time = Some(now());
        change(&mut world);
        let plan = plan(&world.observe());
        (plan.status.uploaded.unwrap().shown, plan.requeue_after)
    };
    assert!(shown(|_| {}).0);
    assert!(!shown(|w| w.token().expiration = Some(expiry() - SECOND)).0, "it shows an earlier one");
    assert!(!shown(|w| w.token().expiration = None).0, "it shows none");
    assert!(shown(|w| w.token().expiration = Some(expiry() + DAY)).0, "it shows a later one");
    assert!(shown(|w| w.uploaded().time = ago(MINUTE * 3 + SECOND)).0, "a list began after the upload");
    // The answer to the upload is no list; the next one comes with the next poll.
    let (is_shown, requeue_after) = shown(|w| w.uploaded().time = ago(MINUTE * 3));
    assert_eq!((is_shown, requeue_after), (false, Some(MINUTE * 2 + SECOND)));
    let stays = shown(|w| {
        w.uploaded().shown = true;
        w.token().expiration = Some(in_(DAY));
    });
    assert!(stays.0, "once shown, it stays so");
}

#[test]
fn settings_of_the_beta_api_are_kept_there_and_a_mistake_elsewhere() {
    fn beta() -> World {
        let mut world = World::ready();
        world.known().unwrap().identity.api = GraphApi::Beta;
        world.status.tenant.as_mut().unwrap().api = GraphApi::Beta;
        world.spec.display_name = Some("Berlin".into());
        world.spec.role_scope_tag_ids = Some(vec!["7".into(), "0".into(), "7".into()]);
        world.spec.data_sharing_consent_granted = Some(true);
        world.spec.claim_token_management_from_external_mdm = Some(false);
        let token = world.token();
        token.display_name = Some("Berlin".into());
        token.location_name = Some("Berlin Mitte".into());
        token.role_scope_tag_ids = Some(["0", "7"].map(str::to_owned).into());
        token.data_sharing_consent_granted = Some(true);
        token.claim_token_management_from_external_mdm = Some(false);
        world
    }
    check(
        beta,
        &[
            ("all is as asked, sets in any order", |_| {}, ready()),
            (
                "the case of a name matters",
                |w| w.token().display_name = Some("BERLIN".into()),
                working(Reason::Updating).step(update(&[(Field::DisplayName, Some("BERLIN"), "Berlin")])),
            ),
            (
                "a scope tag was taken away",
                |w| w.token().role_scope_tag_ids = Some(["0"].map(str::to_owned).into()),
                working(Reason::Updating).step(update(&[(Field::RoleScopeTagIds, Some("0"), "0, 7")])),
            ),
            (
                "consent was taken back, and the token is being claimed",
                |w| {
                    w.token().data_sharing_consent_granted = Some(false);
                    w.spec.claim_token_management_from_external_mdm = Some(true);
                },
                working(Reason::Updating).step(update(&[
                    (Field::DataSharingConsentGranted, Some("false"), "true"),
                    (Field::ClaimTokenManagement, Some("false"), "true"),
                ])),
            ),
            (
                "the tenant object speaks v1.0: said, and never sent",
                |w| {
                    w.known().unwrap().identity.api = GraphApi::V1;
                    w.token().display_name = None;
                },
                stalled(Reason::SettingUnknownToApi),
            ),
            (
                "that stops nothing else",
                |w| {
                    w.known().unwrap().identity.api = GraphApi::V1;
                    w.token().country_or_region = Some("fr".into());
                },
                stalled(Reason::SettingUnknownToApi).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
        ],
    );
    let status = plan(&beta().observe()).status;
    assert_eq!(status.role_scope_tag_ids, Some(vec!["0".to_owned(), "7".to_owned()]));
    assert_eq!(
        (status.location_name.as_deref(), status.display_name.as_deref()),
        (Some("Berlin Mitte"), Some("Berlin"))
    );
    let mut gone = beta();
    gone.tokens.clear();
    gone.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
    assert_eq!(plan(&gone.observe()).status.location_name, None);
}
