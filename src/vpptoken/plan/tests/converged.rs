//! A token with nothing to do, and what the status shows of it.

use super::*;
use crate::api::conditions::ConditionStatus::{False, True, Unknown};

#[test]
fn a_converged_token_is_ready_and_left_alone() {
    check(
        World::ready,
        &[
            ("nothing", |_| {}, ready().requeue_after(DAY * 170)),
            (
                "a converged token with a request that was handled",
                |w| {
                    w.object.sync_request = Some("then".into());
                    w.status.last_handled_sync_request = Some("then".into());
                },
                ready(),
            ),
            ("countries are compared without case", |w| w.token().country_or_region = Some("DE".into()), ready()),
            ("so are Apple IDs", |w| w.token().apple_id = Some(APPLE_ID.to_uppercase()), ready()),
            ("lastModifiedDateTime is no sign of drift", |w| w.token().last_modified = Some(now()), ready()),
            (
                "what the manifest leaves out is not touched",
                |w| {
                    w.spec.country_or_region = None;
                    w.spec.automatically_update_apps = None;
                    w.token().country_or_region = Some("fr".into());
                    w.token().automatically_update_apps = Some(false);
                    w.token().vpp_token_account_type = Some("education".into());
                },
                ready(),
            ),
            (
                "the last sync failed",
                |w| w.token().last_sync_status = Some("failed".into()),
                ready().synced(False, Reason::SyncFailed),
            ),
            (
                "there was no sync that we know of",
                |w| w.token().last_sync_status = Some("none".into()),
                ready().synced(Unknown, Reason::NeverSynced),
            ),
            (
                "Graph says something new of the sync",
                |w| w.token().last_sync_status = Some("paused".into()),
                ready().synced(Unknown, Reason::Unknown),
            ),
            (
                "a sync runs that nobody here started",
                |w| w.token().last_sync_status = Some("inProgress".into()),
                ready().synced(Unknown, Reason::SyncInProgress).requeue_after(MINUTE * 52 + SECOND),
            ),
            ("a younger VppToken has the same token", |w| w.claimed(OURS, ago(DAY), "uid-1"), ready()),
            ("one as old with a higher UID has it", |w| w.claimed(OURS, ago(DAY * 30), "uid-6"), ready()),
            (
                "the same tenant is written otherwise",
                |w| {
                    w.status.tenant.as_mut().unwrap().tenant_id = TENANT.to_uppercase();
                },
                ready(),
            ),
            (
                "the token is not in the last list",
                |w| {
                    w.lists =
                        vec![(ago(MINUTE * 8), BTreeSet::new()), (ago(MINUTE * 3), BTreeSet::from([OURS.into()]))];
                },
                ready(),
            ),
            (
                "the token was renewed in the portal",
                |w| w.token().expiration = Some(in_(DAY * 360)),
                ready().ready(True, Reason::NewerTokenInIntune),
            ),
        ],
    );
}

#[test]
fn the_status_mirrors_graph_and_forgets_a_vanished_token() {
    let mut world = World::ready();
    world.token().state = Some("onHoliday".into());
    let status = plan(&world.observe()).status;
    let token = world.token();
    assert_eq!(status.state, token.state);
    assert_eq!(status.last_sync_status, token.last_sync_status);
    assert_eq!(status.last_sync_date_time, token.last_sync);
    assert_eq!(status.expiration_date_time, token.expiration);
    assert_eq!(status.organization_name, token.organization_name);
    assert_eq!(status.vpp_token_account_type, token.vpp_token_account_type);
    assert_eq!(status.apple_id, token.apple_id);
    assert_eq!(status.country_or_region, token.country_or_region);
    assert_eq!(status.automatically_update_apps, token.automatically_update_apps);
    assert_eq!(status.last_modified_date_time, token.last_modified);
    assert_eq!(status.tenant, Some(identity()));
    world.status = status;
    world.tokens.clear();
    world.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
    let status = plan(&world.observe()).status;
    let forgotten = VppTokenStatus {
        observed_generation: Some(3),
        conditions: status.conditions.clone(),
        ..VppTokenStatus::default()
    };
    assert_eq!(status, forgotten);
}
