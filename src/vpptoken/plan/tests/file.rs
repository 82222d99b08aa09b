//! Which files are uploaded, and which are not.

use super::*;
use crate::api::conditions::ConditionStatus::{False, True, Unknown};

#[test]
fn a_changed_file_is_uploaded_onto_the_same_token_unless_it_is_rubbish() {
    check(
        renewal,
        &[
            ("a newer file", |_| {}, working(Reason::Uploading).step(upload())),
            (
                "with a setting that differs: one after the other",
                |w| w.token().country_or_region = Some("fr".into()),
                working(Reason::Uploading).step(upload()),
            ),
            (
                "Graph refuses the file: the setting is put back all the same",
                |w| {
                    w.token().country_or_region = Some("fr".into());
                    w.failed(StepKind::Upload, ErrorKind::Refused);
                },
                stalled(Reason::GraphRefused).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "Graph refuses the setting: the file is uploaded all the same",
                |w| {
                    w.token().country_or_region = Some("fr".into());
                    w.failed(StepKind::Update, ErrorKind::Refused);
                },
                stalled(Reason::GraphRefused).step(upload()),
            ),
            (
                "older than the last upload, and Graph shows no expiry",
                |w| {
                    w.token().expiration = None;
                    w.file().expiration = expiry() - DAY;
                },
                stalled(Reason::TokenFileOlder),
            ),
            (
                "older than an upload that Graph has not shown for days",
                |w| {
                    w.token().expiration = Some(in_(DAY));
                    w.file().expiration = expiry() - DAY;
                },
                stalled(Reason::TokenFileOlder)
                    .blockers(&[Reason::TokenFileOlder, Reason::RenewalNotKept])
                    .valid(True, Reason::ExpiringSoon),
            ),
            (
                "older than an upload that Graph has shown, and newer than what it has now",
                |w| {
                    w.uploaded().shown = true;
                    w.token().expiration = Some(in_(DAY));
                    w.file().expiration = expiry() - DAY;
                },
                working(Reason::Uploading).step(upload()).valid(True, Reason::ExpiringSoon),
            ),
            (
                "older than what it has now, which replaced an upload that Graph had shown",
                |w| {
                    w.uploaded().shown = true;
                    w.token().expiration = Some(in_(DAY * 40));
                    w.file().expiration = in_(DAY * 39);
                },
                stalled(Reason::TokenFileOlder).blockers(&[Reason::TokenFileOlder, Reason::ReplacedInIntune]),
            ),
            (
                "the last upload failed and may be tried again: what failed stays said",
                |w| {
                    w.failed(StepKind::Upload, ErrorKind::Throttled).not_before = now();
                },
                waiting(Reason::Throttled).step(upload()),
            ),
            (
                "the last upload failed and waits: the token is not asked for either",
                |w| {
                    w.failed(StepKind::Upload, ErrorKind::Throttled);
                },
                waiting(Reason::Throttled).requeue_after(MINUTE),
            ),
            (
                "the token could not be asked for: nothing is uploaded on the word of a list",
                |w| {
                    w.failed(StepKind::Confirm, ErrorKind::Unavailable);
                },
                waiting(Reason::GraphUnavailable).requeue_after(MINUTE),
            ),
            (
                "read past the caches, and the token was not asked for yet",
                |w| w.live_since = Some(ago(SECOND)),
                working(Reason::Uploading).step(upload()),
            ),
            (
                "read past the caches, and the token was asked for since",
                |w| {
                    w.live_since = Some(ago(SECOND));
                    w.asked = vec![OURS.into()];
                },
                working(Reason::Uploading).step(upload_now(renewal().file(), None)),
            ),
            (
                "the token was asked for, but nothing was read past the caches",
                |w| w.asked = vec![OURS.into()],
                working(Reason::Uploading).step(upload()),
            ),
            (
                "the token was asked for before the rest was read past the caches",
                |w| {
                    w.live_since = Some(now());
                    w.asked = vec![OURS.into()];
                },
                working(Reason::Uploading).step(upload()),
            ),
            (
                "the same file in another encoding",
                |w| w.file().expiration = expiry(),
                working(Reason::Uploading).step(upload()),
            ),
            (
                "Graph has it already: a lost answer, or by hand",
                |w| w.token().expiration = Some(in_(DAY * 365)),
                ready().step(Step::Note(Uploaded {
                    sha256: "digest-2".into(),
                    expiration_date_time: in_(DAY * 365),
                    organization_name: ORGANIZATION.into(),
                    time: now(),
                    encoding: Some(TokenEncoding::AsIs),
                    secret_version: Some(FILE_VERSION.into()),
                    shown: false,
                })),
            ),
            (
                "Graph has it already, which replaced the last one",
                |w| {
                    w.uploaded().shown = true;
                    w.file().expiration = in_(DAY * 100);
                    w.token().expiration = Some(in_(DAY * 100));
                },
                stalled(Reason::ReplacedInIntune).step(Step::Note(Uploaded {
                    sha256: "digest-2".into(),
                    expiration_date_time: in_(DAY * 100),
                    organization_name: ORGANIZATION.into(),
                    time: now(),
                    encoding: Some(TokenEncoding::AsIs),
                    secret_version: Some(FILE_VERSION.into()),
                    shown: false,
                })),
            ),
            (
                "malformed",
                |w| w.file = Err(FileProblem::Malformed("at byte 7".into())),
                stalled(Reason::TokenFileMalformed),
            ),
            ("the Secret is gone", |w| w.file = Err(FileProblem::SecretNotFound), waiting(Reason::SecretNotFound)),
            ("the key is gone", |w| w.file = Err(FileProblem::KeyNotFound), waiting(Reason::SecretKeyNotFound)),
            ("the Secret is not shown", |w| w.file = Err(FileProblem::NotReadable), waiting(Reason::SecretNotReadable)),
            ("expired", |w| w.file().expiration = now(), stalled(Reason::TokenFileExpired)),
            ("older than what Graph has", |w| w.file().expiration = expiry() - SECOND, stalled(Reason::TokenFileOlder)),
            (
                "older than what was uploaded and Graph does not show yet",
                |w| {
                    w.file().expiration = expiry() - SECOND;
                    w.token().expiration = Some(in_(DAY * 10));
                    w.uploaded().time = ago(HOUR);
                    w.status.last_sync_trigger_time = Some(ago(MINUTE));
                },
                stalled(Reason::TokenFileOlder).valid(True, Reason::ExpiringSoon),
            ),
            (
                "of another organization than Graph's entry",
                |w| w.file().organization_name = "Fabrikam".into(),
                stalled(Reason::OrganizationMismatch),
            ),
            (
                "of another organization, which the manifest names",
                |w| {
                    w.file().organization_name = "Fabrikam".into();
                    w.spec.organization_name = Some("fabrikam".into());
                },
                working(Reason::Uploading).step(upload()),
            ),
            (
                "of another organization than the manifest names",
                |w| {
                    w.spec.organization_name = Some("Fabrikam".into());
                },
                stalled(Reason::OrganizationMismatch),
            ),
            (
                "Graph does not say of which organization its entry is",
                |w| w.token().organization_name = None,
                working(Reason::Uploading).step(upload()),
            ),
            (
                "Graph's token has expired meanwhile",
                |w| {
                    w.token().state = Some("expired".into());
                    w.token().expiration = Some(ago(DAY));
                },
                working(Reason::Uploading).step(upload()).valid(False, Reason::Expired),
            ),
            (
                "a sync runs: it does not hinder the upload",
                |w| w.token().last_sync_status = Some("inProgress".into()),
                working(Reason::Uploading).step(upload()).synced(Unknown, Reason::SyncInProgress),
            ),
            (
                "a sync is due: the upload goes first",
                |w| w.object.sync_request = Some("now".into()),
                working(Reason::Uploading).step(upload()),
            ),
            (
                "a malformed file stops only the upload: drift goes on",
                |w| {
                    w.file = Err(FileProblem::Malformed("at byte 7".into()));
                    w.token().country_or_region = Some("fr".into());
                },
                stalled(Reason::TokenFileMalformed).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "a malformed file stops only the upload: a requested sync goes on",
                |w| {
                    w.file = Err(FileProblem::Malformed("at byte 7".into()));
                    w.object.sync_request = Some("now".into());
                },
                stalled(Reason::TokenFileMalformed).step(sync(Priority::Interactive, Some("now"))),
            ),
            (
                "a malformed file stops only the upload: the schedule goes on",
                |w| {
                    w.file = Err(FileProblem::Malformed("at byte 7".into()));
                    w.schedule("0 6,18 * * *");
                    w.missed();
                },
                stalled(Reason::TokenFileMalformed).step(scheduled_sync()),
            ),
        ],
    );
    check(
        World::new_object,
        &[
            (
                "new, malformed",
                |w| w.file = Err(FileProblem::Malformed("at byte 7".into())),
                stalled(Reason::TokenFileMalformed).no_token(),
            ),
            (
                "new, no Secret yet",
                |w| w.file = Err(FileProblem::SecretNotFound),
                waiting(Reason::SecretNotFound).no_token(),
            ),
            (
                "new, no key yet",
                |w| w.file = Err(FileProblem::KeyNotFound),
                waiting(Reason::SecretKeyNotFound).no_token(),
            ),
            ("new, expired", |w| w.file().expiration = now(), stalled(Reason::TokenFileExpired).no_token()),
            (
                "new, of another organization than the manifest names",
                |w| {
                    w.spec.organization_name = Some("Fabrikam".into());
                },
                stalled(Reason::OrganizationMismatch).no_token(),
            ),
        ],
    );
}

#[test]
fn what_is_wrong_with_a_file_names_its_secret() {
    let mut world = renewal();
    let message_of = |world: &World| plan(&world.observe()).blockers[0].message.clone();
    world.file().expiration = ago(SECOND);
    assert!(message_of(&world).contains("Secret \"berlin-vpp\" expired"), "{}", message_of(&world));
    world.file().expiration = in_(DAY);
    assert!(message_of(&world).contains("Secret \"berlin-vpp\" expires"), "{}", message_of(&world));
    world.file().organization_name = "Fabrikam".into();
    world.file().expiration = in_(DAY * 365);
    assert!(message_of(&world).contains("Secret \"berlin-vpp\" is of organization"), "{}", message_of(&world));
}
