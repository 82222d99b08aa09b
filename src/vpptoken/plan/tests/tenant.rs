//! A tenant that can't be used or read.

use super::*;
use crate::api::conditions::{ConditionType, find};

#[test]
fn a_tenant_that_cannot_be_used_stops_everything() {
    check(
        drift,
        &[
            ("not there yet", |w| w.tenant = TenantState::NotFound, waiting(Reason::TenantNotFound).no_token()),
            (
                "namespace not allowed",
                |w| w.tenant = TenantState::NamespaceNotAllowed,
                stalled(Reason::NamespaceNotAllowed).no_token(),
            ),
            (
                "its Secret is missing",
                |w| {
                    w.tenant = TenantState::Unusable { reason: Reason::SecretNotFound, message: "No Secret.".into() };
                },
                waiting(Reason::SecretNotFound).no_token(),
            ),
            (
                "another tenant now",
                |w| w.status.tenant.as_mut().unwrap().tenant_id = "0".into(),
                stalled(Reason::TenantChanged).no_token(),
            ),
            (
                "another cloud now",
                |w| w.status.tenant.as_mut().unwrap().cloud = Cloud::China,
                stalled(Reason::TenantChanged).no_token(),
            ),
            (
                "not listed yet",
                |w| w.lists.clear(),
                waiting(Reason::TenantNotRead).no_token().list_after(Timestamp::MIN),
            ),
            (
                "can't be listed the first time",
                |w| {
                    w.lists.clear();
                    w.problem(ErrorKind::Unreachable, ago(SECOND));
                },
                waiting(Reason::GraphUnavailable).no_token().list_after(Timestamp::MIN),
            ),
            (
                "throttled the first time",
                |w| {
                    w.lists.clear();
                    w.problem(ErrorKind::Throttled, ago(SECOND));
                },
                waiting(Reason::Throttled).no_token().list_after(Timestamp::MIN),
            ),
            (
                "credentials refused the first time",
                |w| {
                    w.lists.clear();
                    w.problem(ErrorKind::Credentials, ago(SECOND));
                },
                waiting(Reason::CredentialsRefused)
                    .no_token()
                    .list_after(Timestamp::MIN)
                    .requeue_after(MINUTE * 10 - SECOND),
            ),
        ],
    );
}

#[test]
fn what_was_last_known_of_a_token_stays_reported_while_it_can_not_be_read() {
    let mut world = World::ready();
    world.token().expiration = Some(in_(DAY));
    world.observed.status = plan(&world.observe()).status;
    world.tenant = TenantState::NotFound;
    let conditions = plan(&world.observe()).status.conditions;
    let shown = |type_| find(&conditions, type_).map(|it| format!("{} {}", it.status, it.reason));
    assert_eq!(shown(ConditionType::Ready).as_deref(), Some("False TenantNotFound"));
    assert_eq!(shown(ConditionType::TokenValid).as_deref(), Some("True ExpiringSoon"));
    assert_eq!(shown(ConditionType::Synced).as_deref(), Some("True SyncCompleted"));
}
