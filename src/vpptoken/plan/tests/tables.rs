//! One valid world, one thing changed, and what is decided and said then.

use super::*;
use crate::api::conditions::ConditionStatus::{False, True, Unknown};
use crate::api::conditions::{ConditionStatus, ConditionType, find};
use crate::api::{AccountType, CreationPolicy};

/// What is expected of a plan.
#[derive(Clone, Debug)]
struct Want {
    step: Option<Step>,
    holds: Vec<Reason>,
    ready: (ConditionStatus, Reason),
    also: Option<ConditionType>,
    valid: Option<(ConditionStatus, Reason)>,
    synced: Option<(ConditionStatus, Reason)>,
    again: Option<SignedDuration>,
    list_after: Option<Timestamp>,
}

/// Ready, with nothing to do.
fn ready() -> Want {
    Want {
        step: None,
        holds: Vec::new(),
        ready: (True, Reason::UpToDate),
        also: None,
        valid: Some((True, Reason::Valid)),
        synced: Some((True, Reason::SyncCompleted)),
        again: None,
        list_after: None,
    }
}

/// At work.
fn working(reason: Reason) -> Want {
    Want { ready: (False, reason), also: Some(ConditionType::Reconciling), ..ready() }
}

/// Waiting for what comes by itself.
fn waiting(reason: Reason) -> Want {
    working(reason).holds(&[reason])
}

/// A person is needed.
fn stalled(reason: Reason) -> Want {
    Want { ready: (False, reason), also: Some(ConditionType::Stalled), ..ready() }.holds(&[reason])
}

impl Want {
    fn also_if(&self, type_: ConditionType) -> Option<(ConditionStatus, Reason)> {
        (self.also == Some(type_)).then_some((True, self.ready.1))
    }

    fn step(self, step: Step) -> Self {
        Self { step: Some(step), ..self }
    }

    fn holds(self, holds: &[Reason]) -> Self {
        Self { holds: holds.to_vec(), ..self }
    }

    fn ready(self, status: ConditionStatus, reason: Reason) -> Self {
        Self { ready: (status, reason), also: None, ..self }
    }

    fn valid(self, status: ConditionStatus, reason: Reason) -> Self {
        Self { valid: Some((status, reason)), ..self }
    }

    fn synced(self, status: ConditionStatus, reason: Reason) -> Self {
        Self { synced: Some((status, reason)), ..self }
    }

    /// Nothing is known of a token.
    fn no_token(self) -> Self {
        Self { valid: None, synced: None, ..self }
    }

    fn again(self, again: SignedDuration) -> Self {
        Self { again: Some(again), ..self }
    }

    fn list_after(self, time: Timestamp) -> Self {
        Self { list_after: Some(time), ..self }
    }
}

/// What is changed in the world, and what is expected then.
type Row = (&'static str, fn(&mut World), Want);

fn check(base: fn() -> World, rows: &[Row]) {
    let wrong: Vec<String> = rows.iter().flat_map(|row| differences(base, row)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn differences(base: fn() -> World, (name, change, want): &Row) -> Vec<String> {
    let mut world = base();
    change(&mut world);
    let plan = plan(&world.observe());
    let mut wrong = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            wrong.push(format!("{name}: {what} is {found}, wanted {wanted}"));
        }
    };
    let holds: Vec<Reason> = plan.holds.iter().map(|hold| hold.reason).collect();
    compare("step", format!("{:?}", plan.step), format!("{:?}", want.step));
    compare("holds", format!("{holds:?}"), format!("{:?}", want.holds));
    compare("list_after", format!("{:?}", plan.list_after), format!("{:?}", want.list_after));
    compare("generation", format!("{:?}", plan.status.observed_generation), "Some(3)".into());
    // Unless a row says otherwise: at once after a step, in ten minutes while something is held, else when the hour is over.
    let usual = match (&want.step, want.holds.is_empty()) {
        (Some(_), _) => SignedDuration::ZERO,
        (None, false) => MINUTE * 10,
        (None, true) => HOUR,
    };
    match want.again {
        Some(again) => compare("the delay", format!("{:?}", plan.again), format!("{:?}", Some(again))),
        None => compare("the delay", format!("{:?}", plan.next_look()), format!("{usual:?}")),
    }
    for (type_, wanted) in [
        (ConditionType::Ready, Some(want.ready)),
        (ConditionType::Reconciling, want.also_if(ConditionType::Reconciling)),
        (ConditionType::Stalled, want.also_if(ConditionType::Stalled)),
        (ConditionType::TokenValid, want.valid),
        (ConditionType::Synced, want.synced),
    ] {
        let found = find(&plan.status.conditions, type_).map(|it| format!("{} {}", it.status, it.reason));
        let wanted = wanted.map(|(status, reason)| format!("{} {reason}", status.as_str()));
        compare(type_.as_str(), format!("{found:?}"), format!("{wanted:?}"));
    }
    wrong
}

fn upload() -> Step {
    Step::Upload { id: OURS.into() }
}

fn update(fields: &[(Field, Option<&str>, &str)]) -> Step {
    let text = |text: &str| text.to_owned();
    Step::Update {
        id: OURS.into(),
        fields: fields
            .iter()
            .map(|(field, found, wanted)| (*field, Wanted { found: found.map(text), wanted: text(wanted) }))
            .collect(),
    }
}

fn sync(priority: Priority, request: Option<&str>) -> Step {
    Step::Sync { id: OURS.into(), priority, request: request.map(str::to_owned) }
}

fn person_sync() -> Step {
    sync(Priority::Person, None)
}

fn scheduled_sync() -> Step {
    sync(Priority::Schedule, None)
}

fn adopt(id: &str, time: Timestamp) -> Step {
    Step::Adopt { id: id.into(), uploaded: uploaded(time) }
}

fn uploaded(time: Timestamp) -> Uploaded {
    Uploaded { sha256: "digest-1".into(), expiration_date_time: expiry(), organization_name: ORGANIZATION.into(), time }
}

fn announce(known_ids: &[&str]) -> Step {
    Step::Announce(pending(now(), known_ids))
}

fn confirm() -> Step {
    Step::Confirm { id: OURS.into() }
}

fn delete() -> Step {
    Step::Delete { id: OURS.into() }
}

fn let_go() -> Step {
    Step::RemoveFinalizer { warning: None }
}

fn older(id: &str) -> Entity {
    Entity { expiration: Some(in_(DAY * 10)), ..token(id) }
}

fn requested() -> World {
    let mut world = World::ready();
    world.object.sync_request = Some("now".into());
    world
}

fn scheduled() -> World {
    let mut world = World::ready();
    world.schedule("0 6,18 * * *");
    world.token().last_sync = Some("2026-11-21T06:00:03Z".parse().unwrap());
    world
}

#[test]
fn a_converged_token_is_ready_and_left_alone() {
    check(
        World::ready,
        &[
            ("nothing", |_| {}, ready().again(DAY * 170)),
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
                ready().synced(Unknown, Reason::SyncInProgress).again(MINUTE * 52 + SECOND),
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
            ("the token was renewed in the portal", |w| w.token().expiration = Some(in_(DAY * 360)), ready()),
        ],
    );
}

#[test]
fn what_graph_says_of_the_token_is_said() {
    check(
        World::ready,
        &[
            (
                "expires in 30 days",
                |w| {
                    w.token().expiration = Some(in_(DAY * 30));
                    w.uploaded().expiration_date_time = in_(DAY * 30);
                },
                ready().valid(True, Reason::ExpiringSoon).again(DAY * 30),
            ),
            (
                "expires in 30 days and a second",
                |w| {
                    w.token().expiration = Some(in_(DAY * 30 + SECOND));
                    w.uploaded().expiration_date_time = in_(DAY * 30 + SECOND);
                },
                ready().again(SECOND),
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
                "not known yet",
                |w| w.token().state = Some("unknown".into()),
                waiting(Reason::StateUnknown).valid(Unknown, Reason::Unknown),
            ),
            ("nothing said", |w| w.token().state = None, waiting(Reason::StateUnknown).valid(Unknown, Reason::Unknown)),
            (
                "something new",
                |w| w.token().state = Some("onHoliday".into()),
                waiting(Reason::StateUnknown).valid(Unknown, Reason::Unknown),
            ),
        ],
    );
}

#[test]
fn a_new_object_is_announced_then_looked_for_then_created() {
    check(
        World::new_object,
        &[
            ("nothing in Graph: announce", |_| {}, working(Reason::Creating).step(announce(&[])).no_token()),
            (
                "a token of another Apple ID is no candidate",
                |w| {
                    w.tokens = vec![Entity { apple_id: Some("other@contoso.example".into()), ..token("t2") }];
                },
                working(Reason::Creating).step(announce(&[])).no_token(),
            ),
            (
                "a token of another organization is no candidate",
                |w| {
                    w.tokens = vec![Entity { organization_name: Some("Fabrikam".into()), ..token("t2") }];
                },
                working(Reason::Creating).step(announce(&[])).no_token(),
            ),
            (
                "another location's token, of another VppToken, is known beforehand",
                |w| {
                    w.tokens = vec![older("t2")];
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                working(Reason::Creating).step(announce(&["t2"])).no_token(),
            ),
            (
                "another VppToken creates: wait",
                |w| w.others.creating = true,
                waiting(Reason::WaitingForTurn).no_token().again(SECOND * 2),
            ),
            (
                "no permission to create",
                |w| w.forbid(Permission::Create),
                stalled(Reason::OperationNotAllowed).no_token(),
            ),
        ],
    );
    check(
        announced,
        &[
            ("a list began after it: create", |_| {}, working(Reason::Creating).step(Step::Create).no_token()),
            (
                "no list began after it: wait for one",
                |w| w.announced(ago(MINUTE * 2), &[]),
                working(Reason::Creating).no_token().list_after(ago(MINUTE * 2)),
            ),
            (
                "the list began at the same time",
                |w| w.announced(ago(MINUTE * 3), &[]),
                working(Reason::Creating).no_token().list_after(ago(MINUTE * 3)),
            ),
            (
                "the list shows an exact match",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "the list shows a similar one",
                |w| w.tokens = vec![older("t2")],
                stalled(Reason::SimilarTokenExists).step(Step::Withdraw).no_token(),
            ),
            (
                "a similar one appeared that the announcement does not know",
                |w| {
                    w.spec.creation_policy = CreationPolicy::Always;
                    w.tokens = vec![older("t2")];
                },
                working(Reason::Creating).step(Step::Withdraw).no_token(),
            ),
            (
                "a similar one that the announcement knows",
                |w| {
                    w.spec.creation_policy = CreationPolicy::Always;
                    w.tokens = vec![older("t2")];
                    w.announced(ago(MINUTE * 4), &["t2"]);
                },
                working(Reason::Creating).step(Step::Create).no_token(),
            ),
            (
                "the file changed meanwhile",
                |w| w.file().sha256 = "digest-2".into(),
                working(Reason::Creating).step(Step::Withdraw).no_token(),
            ),
            (
                "the Apple ID changed meanwhile",
                |w| w.spec.apple_id = Some("other@contoso.example".into()),
                working(Reason::Creating).step(Step::Withdraw).no_token(),
            ),
            (
                "the file became unusable meanwhile",
                |w| w.file = Err(FileProblem::KeyNotFound),
                waiting(Reason::SecretKeyNotFound).step(Step::Withdraw).no_token(),
            ),
            (
                "creating is not allowed any more",
                |w| w.forbid(Permission::Create),
                stalled(Reason::OperationNotAllowed).step(Step::Withdraw).no_token(),
            ),
            (
                "announced, and Graph asks to wait",
                |w| w.known().unwrap().view.paused_until = Some(in_(MINUTE)),
                waiting(Reason::Throttled).no_token().again(MINUTE),
            ),
            (
                "announced, and another VppToken has uploaded the very file meanwhile",
                |w| {
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.files.insert("digest-1".into(), "t2".into());
                },
                stalled(Reason::ClaimedByAnother).step(Step::Withdraw).no_token(),
            ),
            (
                "another VppToken goes first after all",
                |w| w.others.creating = true,
                working(Reason::Creating).step(Step::Withdraw).no_token(),
            ),
            (
                "a tokenId was set meanwhile",
                |w| w.spec.token_id = Some("t9".into()),
                waiting(Reason::TokenNotFound).step(Step::Withdraw).no_token(),
            ),
        ],
    );
}

/// The operator started anew, with another manifest, and had not listed the tenant's tokens when it first looked.
fn listed_anew(world: &mut World) {
    world.status.observed_generation = Some(2);
    let lists = std::mem::take(&mut world.lists);
    world.observed.status = plan(&world.observe()).status;
    assert_eq!(world.status.conditions[0].reason, "TenantNotRead");
    assert_eq!(world.status.observed_generation, Some(3));
    world.lists = lists;
}

/// It was said that another VppToken has the token of the file.
fn held_as_anothers(world: &mut World) {
    world.tokens = vec![token("t2")];
    world.claimed("t2", ago(DAY), "uid-9");
    world.observed.status = plan(&world.observe()).status;
    assert_eq!(world.status.conditions[0].reason, "ClaimedByAnother");
    assert_eq!(world.status.claimed_by_another.as_ref().unwrap().token_id, "t2");
    // Whatever else was said since, and by whichever process.
    world.status.conditions.clear();
}

#[test]
fn an_exact_match_is_adopted_and_a_similar_token_makes_it_stop() {
    check(
        World::new_object,
        &[
            (
                "one exact match",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "one that never synced counts as uploaded now",
                |w| {
                    w.tokens = vec![Entity { last_sync: None, ..token("t2") }];
                },
                working(Reason::Creating).step(adopt("t2", now())).no_token(),
            ),
            (
                "Apple ID and organization are compared without case",
                |w| {
                    w.tokens = vec![Entity {
                        apple_id: Some(APPLE_ID.to_uppercase()),
                        organization_name: Some("CONTOSO".into()),
                        ..token("t2")
                    }];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "missing values count as equal",
                |w| {
                    w.tokens = vec![Entity { apple_id: None, organization_name: None, ..token("t2") }];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "the expiry is compared to the second",
                |w| {
                    w.tokens =
                        vec![Entity { expiration: Some(expiry() + SignedDuration::from_millis(999)), ..token("t2") }];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "an exact match beside a similar one",
                |w| w.tokens = vec![older("t2"), token("t3")],
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
            (
                "adopting is not allowed",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.forbid(Permission::Adopt);
                },
                stalled(Reason::OperationNotAllowed).no_token(),
            ),
            (
                "several exact matches",
                |w| w.tokens = vec![token("t2"), token("t3")],
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            (
                "several, of which one is another's",
                |w| {
                    w.tokens = vec![older("t2"), token("t3"), token("t4")];
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            ("a similar one", |w| w.tokens = vec![older("t2")], stalled(Reason::SimilarTokenExists).no_token()),
            (
                "one without an expiry is similar",
                |w| {
                    w.tokens = vec![Entity { expiration: None, ..token("t2") }];
                },
                stalled(Reason::SimilarTokenExists).no_token(),
            ),
            (
                "a similar one with creationPolicy Always",
                |w| {
                    w.tokens = vec![older("t2")];
                    w.spec.creation_policy = CreationPolicy::Always;
                },
                working(Reason::Creating).step(announce(&["t2"])).no_token(),
            ),
            (
                "an exact match with creationPolicy Always",
                |w| {
                    w.tokens = vec![older("t2"), token("t3")];
                    w.spec.creation_policy = CreationPolicy::Always;
                },
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
            (
                "several exact matches with creationPolicy Always",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.spec.creation_policy = CreationPolicy::Always;
                },
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            (
                "the exact match is another's, though Graph does not name its Apple ID and organization",
                |w| {
                    w.tokens = vec![Entity { apple_id: None, organization_name: None, ..token("t2") }];
                    w.claimed("t2", ago(DAY), "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken uploaded the very file, and Graph shows another expiry",
                |w| {
                    w.tokens = vec![older("t2")];
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.files.insert("digest-1".into(), "t2".into());
                    w.spec.creation_policy = CreationPolicy::Always;
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken uploaded the very file, and no list shows its token yet",
                |w| {
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.files.insert("digest-1".into(), "t2".into());
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken uploaded the very file, and its token is gone",
                |w| {
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.files.insert("digest-1".into(), "t2".into());
                    w.gone.push(("t2".into(), ago(SECOND)));
                },
                working(Reason::Creating).step(announce(&[])).no_token(),
            ),
            (
                "held because of another's token, which was renewed since",
                |w| {
                    held_as_anothers(w);
                    w.tokens = vec![older("t2")];
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so held, and a person says that it is of another location",
                |w| {
                    held_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.spec.creation_policy = CreationPolicy::Always;
                },
                working(Reason::Creating).step(announce(&["t2"])).no_token(),
            ),
            (
                "so held, and the other lets go",
                |w| {
                    held_as_anothers(w);
                    w.others.claimed.clear();
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "so held, and a part of the manifest changed that says nothing of the file",
                |w| {
                    held_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.status.observed_generation = Some(2);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so held, and the manifest names another Apple ID",
                |w| {
                    held_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.spec.apple_id = Some("other@contoso.example".into());
                },
                working(Reason::Creating)
                    .step(Step::Announce(PendingCreate {
                        apple_id: "other@contoso.example".into(),
                        ..pending(now(), &[])
                    }))
                    .no_token(),
            ),
            (
                "so held, and the other lets go, while a third has one of another location",
                |w| {
                    held_as_anothers(w);
                    w.tokens.push(older("t3"));
                    w.others.claimed.clear();
                    w.claimed("t3", ago(DAY), "uid-8");
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "so held, and the manifest names another Secret",
                |w| {
                    held_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.spec.token_secret_ref.as_mut().unwrap().name = "munich-vpp".into();
                },
                working(Reason::Creating).step(announce(&["t2"])).no_token(),
            ),
            (
                "so held, and the other's token has another Apple ID by now",
                |w| {
                    held_as_anothers(w);
                    w.tokens = vec![Entity { apple_id: Some("vpp.munich@contoso.example".into()), ..older("t2") }];
                },
                working(Reason::Creating).step(announce(&[])).no_token(),
            ),
            (
                "so held, and the tenant was away meanwhile",
                |w| {
                    held_as_anothers(w);
                    let tenant = std::mem::replace(&mut w.observed.tenant, TenantState::NotFound);
                    w.observed.status = plan(&w.observe()).status;
                    assert_eq!(w.status.conditions[0].reason, "TenantNotFound");
                    (w.observed.tenant, w.tokens) = (tenant, vec![older("t2")]);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so held, and the Secret was away meanwhile",
                |w| {
                    held_as_anothers(w);
                    let file = std::mem::replace(&mut w.observed.file, Err(FileProblem::SecretNotFound));
                    w.observed.status = plan(&w.observe()).status;
                    assert_eq!(w.status.conditions[0].reason, "SecretNotFound");
                    (w.observed.file, w.tokens) = (file, vec![older("t2")]);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so held, and the other let go, and a third one took it over",
                |w| {
                    held_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    let claimed = std::mem::take(&mut w.others.claimed);
                    w.observed.status = plan(&w.observe()).status;
                    assert_eq!(w.status.conditions[0].reason, "SimilarTokenExists");
                    w.others.claimed = claimed;
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken has the very file",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.claimed("t2", ago(DAY), "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
        ],
    );
}

#[test]
fn after_an_unknown_outcome_what_is_not_known_is_ours() {
    check(
        unknown,
        &[
            (
                "one that was not there before",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "even without permission to adopt: we made it",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.forbid(Permission::Adopt);
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "the file changed meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.file().sha256 = "digest-2".into();
                    w.file().expiration = in_(DAY * 300);
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "the Secret is gone meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.file = Err(FileProblem::SecretNotFound);
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "the Apple ID changed meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.spec.apple_id = Some("other@contoso.example".into());
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            ("several", |w| w.tokens = vec![token("t2"), token("t3")], stalled(Reason::AmbiguousMatch).no_token()),
            (
                "several, and tokenId names one of them",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.spec.token_id = Some("T3".into());
                },
                working(Reason::Creating).step(adopt("t3", ago(MINUTE * 5))).no_token(),
            ),
            (
                "several, and tokenId names one of them, which is not allowed",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.spec.token_id = Some("t3".into());
                    w.forbid(Permission::Bind);
                },
                stalled(Reason::OperationNotAllowed).no_token(),
            ),
            (
                "one, which tokenId names, and binding is not allowed: it is ours all the same",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.spec.token_id = Some("t2".into());
                    w.forbid(Permission::Bind);
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "several, and tokenId names none of them",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.spec.token_id = Some("t4".into());
                },
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            (
                "several, of which all but one were known",
                |w| {
                    w.tokens = vec![token("t2"), older("t3")];
                    w.pending(ago(MINUTE * 5), &["t3"]);
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            ("none yet", |_| {}, waiting(Reason::CreateOutcomeUnknown).no_token().again(MINUTE * 10)),
            (
                "none yet, and no list since",
                |w| w.pending(ago(MINUTE), &[]),
                waiting(Reason::CreateOutcomeUnknown).no_token().again(MINUTE * 10).list_after(ago(MINUTE)),
            ),
            (
                "only what was there before",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.pending(ago(MINUTE * 5), &["t2"]);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "only what is another's",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "this process made another announcement, of the same file",
                |w| {
                    w.announced(ago(MINUTE * 5), &[]);
                    w.memory.unsent_create.as_mut().unwrap().since = ago(MINUTE * 6);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "after the window, with two lists",
                |w| w.pending(ago(MINUTE * 16), &[]),
                waiting(Reason::CreateOutcomeUnknown).no_token().list_after(ago(MINUTE)),
            ),
            (
                "after the window, with three lists of which none began after it",
                |w| {
                    w.pending(ago(MINUTE * 16), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                waiting(Reason::CreateOutcomeUnknown).no_token().list_after(ago(MINUTE)),
            ),
            (
                "after the window and three lists, the last of them after it",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                working(Reason::Creating).step(Step::Withdraw).no_token(),
            ),
            (
                "so, but this process began only after the announcement: it may have been sent until then",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                    w.known().unwrap().view.opened = ago(MINUTE * 13);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token().again(MINUTE * 2),
            ),
            (
                "so, but it was sent only later, and its answer was lost",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                    w.failed(StepKind::Create, ErrorKind::OutcomeUnknown).began = ago(MINUTE * 13);
                },
                waiting(Reason::CreateOutcomeUnknown).no_token().again(MINUTE * 2),
            ),
            (
                "so, and later it was refused for certain",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                    w.failed(StepKind::Create, ErrorKind::Throttled).began = ago(MINUTE * 13);
                },
                working(Reason::Creating).step(Step::Withdraw).no_token(),
            ),
            (
                "a new one with another expiry is somebody else's",
                |w| w.tokens = vec![older("t2")],
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "a new one without an expiry is ours",
                |w| w.tokens = vec![Entity { expiration: None, ..token("t2") }],
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "a tokenId was set meanwhile",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.spec.token_id = Some("t2".into());
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "one with another file, which a person created meanwhile",
                |w| w.tokens = vec![older("t2")],
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "one whose expiry Graph does not show",
                |w| {
                    w.tokens = vec![Entity { expiration: None, ..token("t2") }];
                },
                working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
            ),
            (
                "a tokenId was set meanwhile that names nothing",
                |w| w.spec.token_id = Some("t9".into()),
                waiting(Reason::CreateOutcomeUnknown).no_token(),
            ),
            (
                "and the create was not carried out",
                |w| {
                    w.spec.token_id = Some("t9".into());
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                waiting(Reason::TokenNotFound).step(Step::Withdraw).no_token(),
            ),
        ],
    );
}

#[test]
fn a_token_that_the_manifest_names_is_bound_by_its_id() {
    fn named() -> World {
        let mut world = World::new_object();
        world.tokens = vec![older("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10")];
        world.spec.token_id = Some("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10".into());
        world
    }
    let bind = || working(Reason::Updating).step(Step::Bind { id: named().token().id.clone() }).no_token();
    check(
        named,
        &[
            ("it is there", |_| {}, bind()),
            (
                "ids are GUIDs, whatever their case",
                |w| {
                    let id = w.spec.token_id.clone().unwrap();
                    w.spec.token_id = Some(id.to_uppercase());
                },
                bind(),
            ),
            ("a similar one is there too", |w| w.tokens.push(token("t2")), bind()),
            (
                "it is not in the list: asked for, it may have come since",
                |w| w.tokens.clear(),
                waiting(Reason::TokenNotFound).step(Step::Confirm { id: named().token().id.clone() }).no_token(),
            ),
            (
                "it is not there",
                |w| {
                    w.tokens.clear();
                    w.gone = vec![(named().token().id.clone(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
            (
                "it is still not there: not asked for again",
                |w| {
                    w.tokens.clear();
                    w.gone = vec![(named().token().id.clone(), ago(SECOND))];
                    w.observed.status = plan(&w.observe()).status;
                    w.gone.clear();
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
            ("binding is not allowed", |w| w.forbid(Permission::Bind), stalled(Reason::OperationNotAllowed).no_token()),
            (
                "another VppToken has it",
                |w| {
                    let id = w.token().id.clone();
                    w.claimed(&id, ago(DAY), "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "the file is missing: that only concerns the upload",
                |w| w.file = Err(FileProblem::SecretNotFound),
                bind(),
            ),
        ],
    );
    check(
        World::ready,
        &[
            (
                "bound a moment ago: the file is uploaded",
                |w| w.status.uploaded = None,
                working(Reason::Uploading).step(upload()),
            ),
            (
                "bound, and the named token is gone: not created again",
                |w| {
                    w.spec.token_id = Some(OURS.into());
                    w.tokens.clear();
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
        ],
    );
}

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
                    .holds(&[Reason::TokenFileOlder, Reason::RenewalNotKept])
                    .valid(True, Reason::ExpiringSoon),
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
                stalled(Reason::TokenFileOlder).valid(True, Reason::RenewalNotShownYet),
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
                stalled(Reason::TokenFileMalformed).step(sync(Priority::Person, Some("now"))),
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
fn a_renewal_tells_its_three_stages_apart() {
    /// The newer file was uploaded an hour ago and synced since; Graph shows the old expiry.
    fn lagging() -> World {
        let mut world = renewal();
        world.status.uploaded = Some(Uploaded {
            sha256: "digest-2".into(),
            expiration_date_time: in_(DAY * 365),
            organization_name: ORGANIZATION.into(),
            time: ago(HOUR),
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
                ready().valid(True, Reason::RenewalNotShownYet).again(HOUR * 23),
            ),
            (
                "Graph shows the old expiry, which is past",
                |w| w.token().expiration = Some(ago(DAY)),
                waiting(Reason::RenewalNotShownYet).valid(Unknown, Reason::RenewalNotShownYet).again(MINUTE * 10),
            ),
            (
                "Graph shows the old expiry, which is within the hour",
                |w| w.token().expiration = Some(in_(MINUTE * 30)),
                ready().valid(True, Reason::RenewalNotShownYet).again(MINUTE * 30),
            ),
            (
                "Graph shows the old expiry, which is now",
                |w| w.token().expiration = Some(now()),
                waiting(Reason::RenewalNotShownYet).valid(Unknown, Reason::RenewalNotShownYet).again(MINUTE * 10),
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
    let message = plan(&world.observe()).holds[0].message.clone();
    assert!(message.contains("Look at the token in Intune") && !message.contains("Download"), "{message}");
}

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
                waiting(Reason::Settling).again(SECOND).list_after(ago(SECOND * 59)),
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
                "another value was written: the manifest changed",
                |w| {
                    w.written = vec![(OURS.into(), Field::CountryOrRegion, "fr".into(), ago(SECOND))];
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "tried twice",
                |w| {
                    w.memory.tries.insert(Field::CountryOrRegion, ("de".into(), 2));
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "tried three times",
                |w| {
                    w.memory.tries.insert(Field::CountryOrRegion, ("de".into(), 3));
                },
                stalled(Reason::SettingNotAccepted),
            ),
            (
                "tried three times with another value",
                |w| {
                    w.memory.tries.insert(Field::CountryOrRegion, ("it".into(), 3));
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "tried three times; the other field goes on",
                |w| {
                    w.memory.tries.insert(Field::CountryOrRegion, ("de".into(), 3));
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
                waiting(Reason::CredentialsRefused).no_token().list_after(Timestamp::MIN).again(MINUTE * 10 - SECOND),
            ),
        ],
    );
}

/// What needs a person is not taken back because the operator starts anew, and then said again.
#[test]
fn a_start_of_the_operator_takes_nothing_back() {
    let mut world = World::new_object();
    world.tokens = vec![older("t2")];
    world.observed.status = plan(&world.observe()).status;
    let said = world.status.clone();
    assert!(find(&said.conditions, ConditionType::Stalled).is_some());
    let message = "It is being looked for.".to_owned();
    let not_looked_for = TenantState::Unusable { reason: Reason::TenantNotRead, message };
    let tenant = std::mem::replace(&mut world.observed.tenant, not_looked_for);
    assert_eq!(plan(&world.observe()).status, said);
    world.observed.tenant = tenant;
    world.lists.clear();
    assert_eq!(plan(&world.observe()).status, said);
    world.problem(ErrorKind::Unreachable, ago(SECOND));
    assert_eq!(plan(&world.observe()).status, said);
    world.known().unwrap().view.opened = ago(MINUTE * 15 + SECOND);
    let status = plan(&world.observe()).status;
    let reasons: Vec<&str> = status.conditions.iter().map(|condition| condition.reason.as_str()).collect();
    assert_eq!(reasons, ["SnapshotStale"], "but not for ever");
    // What another manifest was told is another matter.
    world.status.observed_generation = Some(2);
    assert_ne!(plan(&world.observe()).status, said);
}

#[test]
fn credentials_and_permissions_need_a_person_after_ten_minutes() {
    check(
        World::ready,
        &[
            (
                "credentials refused for 9:59",
                |w| w.problem(ErrorKind::Credentials, ago(MINUTE * 10 - SECOND)),
                waiting(Reason::CredentialsRefused).again(SECOND),
            ),
            (
                "credentials refused for 10:00",
                |w| w.problem(ErrorKind::Credentials, ago(MINUTE * 10)),
                stalled(Reason::CredentialsRefused),
            ),
            (
                "permission missing for 9:59",
                |w| w.problem(ErrorKind::Forbidden, ago(MINUTE * 10 - SECOND)),
                waiting(Reason::PermissionMissing).again(SECOND),
            ),
            (
                "permission missing for 10:00",
                |w| w.problem(ErrorKind::Forbidden, ago(MINUTE * 10)),
                stalled(Reason::PermissionMissing),
            ),
            (
                "access token not accepted",
                |w| w.problem(ErrorKind::Unauthorized, ago(MINUTE * 10)),
                stalled(Reason::PermissionMissing),
            ),
        ],
    );
    check(
        drift,
        &[
            (
                "a write is refused for want of a permission",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Forbidden);
                },
                waiting(Reason::PermissionMissing).again(MINUTE),
            ),
            (
                "for ten minutes",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Forbidden).since = ago(MINUTE * 10);
                },
                stalled(Reason::PermissionMissing).again(MINUTE),
            ),
        ],
    );
}

#[test]
fn a_passing_trouble_shows_only_when_a_write_is_due_or_it_lasts_three_polls() {
    check(
        World::ready,
        &[
            ("nothing due", |w| w.problem(ErrorKind::Unreachable, ago(MINUTE)), ready().again(MINUTE * 12 + SECOND)),
            (
                "read exactly three polls ago",
                |w| {
                    w.lists = vec![(ago(MINUTE * 15 + SECOND), BTreeSet::new())];
                    w.problem(ErrorKind::Unavailable, ago(MINUTE * 10));
                },
                ready().again(SignedDuration::from_millis(100)),
            ),
            (
                "read longer ago than three polls",
                |w| {
                    w.lists = vec![(ago(MINUTE * 15 + SECOND * 2), BTreeSet::new())];
                    w.problem(ErrorKind::Unavailable, ago(MINUTE * 10));
                },
                ready().ready(Unknown, Reason::SnapshotStale),
            ),
            (
                "read longer ago than three polls, and nothing is known to be wrong: the next list is waited for",
                |w| w.lists = vec![(ago(MINUTE * 15 + SECOND * 2), BTreeSet::new())],
                ready().ready(Unknown, Reason::SnapshotStale).list_after(ago(MINUTE * 15 + SECOND * 2)),
            ),
        ],
    );
    check(
        drift,
        &[
            ("network", |w| w.problem(ErrorKind::Unreachable, ago(MINUTE)), waiting(Reason::GraphUnavailable)),
            ("5xx", |w| w.problem(ErrorKind::Unavailable, ago(MINUTE)), waiting(Reason::GraphUnavailable)),
            ("429", |w| w.problem(ErrorKind::Throttled, ago(MINUTE)), waiting(Reason::Throttled)),
            (
                "the write itself is throttled",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Throttled);
                },
                waiting(Reason::Throttled).again(MINUTE),
            ),
            (
                "the write's outcome is unknown: look before trying again",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::OutcomeUnknown);
                },
                waiting(Reason::GraphUnavailable).list_after(ago(SECOND)),
            ),
            (
                "looked since: wait out the delay",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::OutcomeUnknown).at = ago(MINUTE * 4);
                },
                waiting(Reason::GraphUnavailable).again(MINUTE),
            ),
            (
                "the delay is over: what was said stays until it succeeds",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Throttled).not_before = now();
                },
                waiting(Reason::Throttled).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "Graph refused it, and it is tried again: it needs a person as before",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "Graph refuses it",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused);
                },
                stalled(Reason::GraphRefused).again(MINUTE),
            ),
            (
                "Graph refused it, and the manifest changed since",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused).inputs.generation = 2;
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "Graph refused it, and the file changed since",
                |w| {
                    w.failed(StepKind::Update, ErrorKind::Refused).inputs.sha256 = None;
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
            (
                "another kind of step failed",
                |w| {
                    w.failed(StepKind::Sync, ErrorKind::Refused);
                },
                working(Reason::Updating).step(update(&[(Field::CountryOrRegion, Some("fr"), "de")])),
            ),
        ],
    );
    check(
        World::new_object,
        &[
            (
                "a create is due",
                |w| w.problem(ErrorKind::Unreachable, ago(MINUTE)),
                waiting(Reason::GraphUnavailable).no_token(),
            ),
            (
                "a create was refused, and is announced again: it needs a person as before",
                |w| {
                    w.failed(StepKind::Create, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).step(announce(&[])).no_token(),
            ),
            (
                "a create was refused, and the next one waits for a list",
                |w| {
                    w.announced(ago(MINUTE * 2), &[]);
                    w.failed(StepKind::Create, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).no_token().list_after(ago(MINUTE * 2)),
            ),
            (
                "a create was refused, and the next one is sent",
                |w| {
                    w.announced(ago(MINUTE * 4), &[]);
                    w.failed(StepKind::Create, ErrorKind::Refused).not_before = now();
                },
                stalled(Reason::GraphRefused).step(Step::Create).no_token(),
            ),
            (
                "a create was refused",
                |w| {
                    w.failed(StepKind::Create, ErrorKind::Refused);
                },
                stalled(Reason::GraphRefused).no_token().again(MINUTE),
            ),
            (
                "a create was throttled",
                |w| {
                    w.failed(StepKind::Create, ErrorKind::Throttled);
                },
                waiting(Reason::Throttled).no_token().again(MINUTE),
            ),
        ],
    );
}

#[test]
fn a_token_that_lists_lack_is_asked_for_and_only_then_created_again() {
    fn missing() -> World {
        let mut world = World::ready();
        world.tokens.clear();
        world
    }
    check(
        missing,
        &[
            ("absent from two lists: ask for it", |_| {}, waiting(Reason::Vanished).step(confirm()).no_token()),
            (
                "absent from one list: another one first",
                |w| {
                    w.lists.remove(0);
                },
                waiting(Reason::Vanished).no_token().list_after(ago(MINUTE * 3)),
            ),
            (
                "uploaded a moment ago, by a process that is no more: lists that began before it settled don't count",
                |w| {
                    w.uploaded().time = ago(MINUTE * 4);
                },
                waiting(Reason::Vanished).no_token().list_after(ago(MINUTE * 3)),
            ),
            (
                "uploaded so lately that it has not settled",
                |w| w.uploaded().time = ago(SECOND * 20),
                waiting(Reason::Vanished).no_token().again(SECOND * 40),
            ),
            (
                "Graph can't be reached",
                |w| w.problem(ErrorKind::Unreachable, ago(SECOND)),
                waiting(Reason::Vanished).holds(&[Reason::Vanished, Reason::GraphUnavailable]).no_token(),
            ),
            (
                "asking failed",
                |w| {
                    w.failed(StepKind::Confirm, ErrorKind::Throttled);
                },
                waiting(Reason::Vanished).holds(&[Reason::Vanished, Reason::Throttled]).no_token().again(MINUTE),
            ),
            (
                "it is gone: as for a new object",
                |w| w.gone = vec![(OURS.into(), ago(SECOND))],
                working(Reason::Vanished).step(announce(&[])).no_token(),
            ),
            (
                "it is gone, and an exact match is there",
                |w| {
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                    w.tokens = vec![token("t2")];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "it is gone, and the Secret too",
                |w| {
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                    w.file = Err(FileProblem::SecretNotFound);
                },
                waiting(Reason::SecretNotFound).no_token(),
            ),
            (
                "most are gone at once: a fault to report",
                |w| {
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                    for id in ["a", "b", "c"] {
                        w.claimed(id, ago(DAY), id);
                    }
                },
                stalled(Reason::ManyVanished).no_token(),
            ),
            (
                "three gone at once are not many",
                |w| {
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                    for id in ["a", "b"] {
                        w.claimed(id, ago(DAY), id);
                    }
                },
                working(Reason::Vanished).step(announce(&[])).no_token(),
            ),
            (
                "four of eight gone at once are not most",
                |w| {
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                    for id in ["a", "b", "c", "d", "e", "f", "g"] {
                        w.claimed(id, ago(DAY), id);
                    }
                    let other = |id: &str| Entity { apple_id: Some("other@contoso.example".into()), ..token(id) };
                    w.tokens = ["a", "b", "c", "d"].map(other).to_vec();
                },
                working(Reason::Vanished).step(announce(&[])).no_token(),
            ),
        ],
    );
}

#[test]
fn most_tokens_gone_at_once_stay_reported_and_are_not_created_with_the_next_look() {
    let mut world = World::ready();
    world.tokens.clear();
    world.gone = vec![(OURS.into(), ago(SECOND))];
    for id in ["a", "b", "c"] {
        world.claimed(id, ago(DAY), id);
    }
    for _ in 0..3 {
        let plan = plan(&world.observe());
        assert_eq!((plan.step, plan.holds[0].reason), (None, Reason::ManyVanished));
        world.status = plan.status;
    }
    assert_eq!(world.status.token_id.as_deref(), Some(OURS));
}

#[test]
fn the_finalizer_follows_the_policy_before_there_is_anything_to_delete() {
    check(
        World::new_object,
        &[
            (
                "Delete, new",
                |w| w.spec.deletion_policy = DeletionPolicy::Delete,
                working(Reason::Finalizing).step(Step::AddFinalizer).no_token(),
            ),
            (
                "Delete, without a tenant",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Delete;
                    w.tenant = TenantState::NotFound;
                },
                waiting(Reason::TenantNotFound).step(Step::AddFinalizer).no_token(),
            ),
            (
                "Delete, with the finalizer",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Delete;
                    w.object.has_finalizer = true;
                },
                working(Reason::Creating).step(announce(&[])).no_token(),
            ),
        ],
    );
    check(
        World::ready,
        &[
            (
                "Delete now",
                |w| w.spec.deletion_policy = DeletionPolicy::Delete,
                working(Reason::Finalizing).step(Step::AddFinalizer),
            ),
            ("Retain again", |w| w.object.has_finalizer = true, ready().step(let_go())),
            (
                "Delete is not allowed by the tenant",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Delete;
                    w.object.has_finalizer = true;
                    w.forbid(Permission::Delete);
                },
                stalled(Reason::OperationNotAllowed),
            ),
        ],
    );
}

#[test]
fn graph_is_told_to_delete_only_with_every_precondition_in_place() {
    // In words: being deleted, with a finalizer, waits for Graph.
    let waits = |holds: &[Reason]| working(Reason::Deleting).holds(holds).no_token();
    check(
        deleting,
        &[
            ("all in place", |_| {}, waits(&[]).step(delete())),
            (
                "the file is missing: that does not concern a deletion",
                |w| w.file = Err(FileProblem::SecretNotFound),
                waits(&[]).step(delete()),
            ),
            ("lists lack the token: Graph will say", |w| w.tokens.clear(), waits(&[]).step(delete())),
            ("it is gone: done", |w| w.gone = vec![(OURS.into(), ago(SECOND))], waits(&[]).step(let_go())),
            (
                "deletionPolicy is Retain",
                |w| w.spec.deletion_policy = DeletionPolicy::Retain,
                waits(&[]).step(let_go()),
            ),
            (
                "Retain does not wait for a tenant",
                |w| {
                    w.spec.deletion_policy = DeletionPolicy::Retain;
                    w.tenant = TenantState::NotFound;
                },
                waits(&[]).step(let_go()),
            ),
            (
                "no id and no announced create",
                |w| {
                    w.status.token_id = None;
                    w.status.observed_generation = Some(2);
                },
                waits(&[]).step(let_go()),
            ),
            (
                "its status was lost",
                |w| {
                    w.status = VppTokenStatus { observed_generation: Some(-1), ..VppTokenStatus::default() };
                },
                waits(&[]).no_token().step(Step::RemoveFinalizer {
                    warning: Some(
                        "Its status was lost and with it which token it has, so nothing is deleted in Graph.".into(),
                    ),
                }),
            ),
            ("not allowed by the tenant", |w| w.forbid(Permission::Delete), waits(&[Reason::OperationNotAllowed])),
            (
                "not allowed by the tenant, and seemingly gone",
                |w| {
                    w.forbid(Permission::Delete);
                    w.tokens.clear();
                },
                waits(&[Reason::Vanished, Reason::OperationNotAllowed]).step(Step::Confirm { id: OURS.into() }),
            ),
            (
                "namespace not allowed",
                |w| w.tenant = TenantState::NamespaceNotAllowed,
                waits(&[Reason::NamespaceNotAllowed]),
            ),
            ("no tenant", |w| w.tenant = TenantState::NotFound, waits(&[Reason::TenantNotFound])),
            (
                "another tenant",
                |w| w.status.tenant.as_mut().unwrap().tenant_id = "0".into(),
                waits(&[Reason::TenantChanged]),
            ),
            ("never listed", |w| w.lists.clear(), waits(&[Reason::TenantNotRead]).list_after(Timestamp::MIN)),
            (
                "credentials refused",
                |w| w.problem(ErrorKind::Credentials, ago(SECOND)),
                waits(&[Reason::CredentialsRefused]).again(MINUTE * 10 - SECOND),
            ),
            (
                "Graph can't be reached",
                |w| w.problem(ErrorKind::Unreachable, ago(SECOND)),
                waits(&[Reason::GraphUnavailable]),
            ),
            (
                "Graph refused to",
                |w| {
                    w.failed(StepKind::Delete, ErrorKind::Refused);
                },
                waits(&[Reason::GraphRefused]).again(MINUTE),
            ),
        ],
    );
    let warned = |change: fn(&mut World)| {
        let mut world = deleting();
        change(&mut world);
        let plan = plan(&world.observe());
        assert!(matches!(plan.step, Some(Step::RemoveFinalizer { warning: Some(_) })), "{:?}", plan.step);
    };
    warned(|w| w.crd_terminating = true);
    warned(|w| w.claimed(OURS, ago(DAY), "uid-9"));
    let mut without_finalizer = deleting();
    without_finalizer.object.has_finalizer = false;
    let plan = plan(&without_finalizer.observe());
    assert_eq!((plan.step, plan.again, plan.holds), (None, None, Vec::new()));
}

#[test]
fn a_deletion_first_resolves_a_create_of_unknown_outcome() {
    fn creating() -> World {
        let mut world = World::new_object();
        world.being_deleted();
        world.pending(ago(MINUTE * 5), &[]);
        world
    }
    let waits = |holds: &[Reason]| working(Reason::Deleting).holds(holds).no_token();
    check(
        creating,
        &[
            (
                "found: ours, and deleted next",
                |w| w.tokens = vec![token("t2")],
                waits(&[]).step(adopt("t2", ago(MINUTE * 5))),
            ),
            ("not found yet", |_| {}, waits(&[Reason::CreateOutcomeUnknown]).again(MINUTE * 10)),
            ("several", |w| w.tokens = vec![token("t2"), token("t3")], waits(&[Reason::AmbiguousMatch])),
            ("not sent at all", |w| w.announced(ago(MINUTE * 5), &[]), waits(&[]).step(Step::Withdraw)),
            (
                "not found in the window and three lists",
                |w| {
                    w.pending(ago(MINUTE * 19), &[]);
                    w.lists.insert(0, (ago(MINUTE * 12), BTreeSet::new()));
                },
                waits(&[]).step(Step::Withdraw),
            ),
        ],
    );
}

#[test]
fn a_deletion_that_waits_says_how_to_let_go() {
    let mut world = deleting();
    world.tenant = TenantState::NotFound;
    let plan = plan(&world.observe());
    let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("set deletionPolicy: Retain"), "{}", ready.message);
}

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
            ("requested", |_| {}, ready().step(sync(Priority::Person, Some("now")))),
            (
                "requested again with another value",
                |w| w.status.last_handled_sync_request = Some("then".into()),
                ready().step(sync(Priority::Person, Some("now"))),
            ),
            ("handled", |w| w.status.last_handled_sync_request = Some("now".into()), ready()),
            (
                "while one runs: after it",
                |w| w.token().last_sync_status = Some("inProgress".into()),
                ready().synced(Unknown, Reason::SyncInProgress).again(MINUTE * 52 + SECOND),
            ),
            (
                "while one is stuck: now",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.lists = vec![(ago(HOUR + SECOND), BTreeSet::new()), (ago(MINUTE), BTreeSet::new())];
                },
                ready().step(sync(Priority::Person, Some("now"))).synced(False, Reason::SyncStuck),
            ),
            (
                "while one is stuck that this operator started before its restart: now",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = w.token().last_sync;
                    w.status.sync_running_since = Some(ago(HOUR + SECOND));
                },
                ready().step(sync(Priority::Person, Some("now"))).synced(False, Reason::SyncStuck),
            ),
            (
                "another one runs since then",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = Some(ago(DAY));
                    w.status.sync_running_since = Some(ago(HOUR + SECOND));
                },
                ready().synced(Unknown, Reason::SyncInProgress).again(MINUTE * 52 + SECOND),
            ),
            (
                "the stuck one was followed by one of ours, which runs",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = w.token().last_sync;
                    w.status.sync_running_since = Some(ago(HOUR * 2));
                    w.status.last_sync_trigger_time = Some(ago(MINUTE));
                },
                ready().synced(Unknown, Reason::SyncInProgress).again(MINUTE * 59),
            ),
            (
                "one of ours failed long ago, and Intune started another one just now",
                |w| {
                    w.token().last_sync_status = Some("inProgress".into());
                    w.status.last_sync_date_time = w.token().last_sync;
                    w.status.last_sync_trigger_time = Some(ago(HOUR * 2));
                },
                ready().synced(Unknown, Reason::SyncInProgress).again(MINUTE * 52 + SECOND),
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
                ready().synced(False, Reason::Throttled).again(MINUTE),
            ),
            (
                "the sync is refused",
                |w| {
                    w.failed(StepKind::Sync, ErrorKind::Refused);
                },
                ready().synced(False, Reason::GraphRefused).again(MINUTE),
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
            ("due in six hours", |_| {}, ready().again(HOUR * 6)),
            ("missed", |w| w.missed(), ready().step(scheduled_sync())),
            (
                "missed, and caught up",
                |w| {
                    w.missed();
                    w.status.last_sync_trigger_time = Some(now());
                },
                ready().again(HOUR * 6),
            ),
            (
                "new: it begins now, whatever was synced when",
                |w| {
                    w.missed();
                    w.status.next_sync_time = None;
                },
                ready().again(HOUR * 6),
            ),
            (
                "changed: it begins now",
                |w| {
                    w.missed();
                    w.schedule("0 8,20 * * *");
                    w.status.observed_generation = Some(2);
                },
                ready().again(HOUR * 8),
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
                "changed while the tenant had to be listed anew: it begins now",
                |w| {
                    w.missed();
                    w.schedule("0 8,20 * * *");
                    listed_anew(w);
                },
                ready().again(HOUR * 8),
            ),
            (
                "removed and put back meanwhile: it begins now",
                |w| {
                    w.missed();
                    let sync = w.spec.sync.take();
                    listed_anew(w);
                    (w.spec.sync, w.status.observed_generation) = (sync, Some(2));
                },
                ready().again(HOUR * 6),
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
                ready().again(HOUR * 6),
            ),
            (
                "due, and one runs",
                |w| {
                    w.missed();
                    w.token().last_sync_status = Some("inProgress".into());
                },
                ready().synced(Unknown, Reason::SyncInProgress).again(MINUTE * 52 + SECOND),
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
                ready().synced(Unknown, Reason::SyncInProgress).again(SECOND),
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
            ("never fires", |w| w.schedule("0 0 30 2 *"), stalled(Reason::ScheduleNeverFires)),
            (
                "never fires; a request goes on",
                |w| {
                    w.schedule("0 0 30 2 *");
                    w.object.sync_request = Some("now".into());
                },
                stalled(Reason::ScheduleNeverFires).step(sync(Priority::Person, Some("now"))),
            ),
            (
                "the scheduled sync can't be started: only Synced tells",
                |w| {
                    w.missed();
                    w.failed(StepKind::Sync, ErrorKind::Unavailable).at = ago(MINUTE * 4);
                },
                ready().synced(False, Reason::GraphUnavailable).again(MINUTE),
            ),
        ],
    );
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
fn the_status_mirrors_graph_and_forgets_what_is_gone() {
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
    world.gone = vec![(OURS.into(), ago(SECOND))];
    let status = plan(&world.observe()).status;
    let forgotten = VppTokenStatus {
        observed_generation: Some(3),
        conditions: status.conditions.clone(),
        ..VppTokenStatus::default()
    };
    assert_eq!(status, forgotten);
}

#[test]
fn messages_name_what_a_person_has_to_act_on() {
    let message = |world: &World| plan(&world.observe()).holds[0].message.clone();
    let mut world = World::new_object();
    world.tokens = vec![older("t2"), older("t3")];
    let text = message(&world);
    for part in ["t2 (expires 2026-12-01T12:00:00Z)", "t3", "tokenId", "creationPolicy: Always"] {
        assert!(text.contains(part), "{text}");
    }
    world.tokens = ["a", "b", "c", "d", "e", "f", "g"].map(older).to_vec();
    assert!(message(&world).contains("and 2 more"), "{}", message(&world));
    world.file = Err(FileProblem::Malformed("at byte 7".into()));
    let text = message(&world);
    for part in ["\"berlin-vpp\"", "\"token\"", "at byte 7"] {
        assert!(text.contains(part), "{text}");
    }
    let mut world = World::ready();
    world.claimed(OURS, ago(DAY * 31), "uid-secret");
    let text = message(&world);
    assert!(text.contains(OURS) && !text.contains("uid-secret"), "{text}");
}

#[test]
fn all_that_needs_a_person_is_said_and_what_harms_the_token_first() {
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

#[test]
fn after_a_lost_answer_only_a_list_that_began_later_tells() {
    let mut world = drift();
    let failed_at = world.lists.last().unwrap().0;
    let failure = world.failed(StepKind::Update, ErrorKind::OutcomeUnknown);
    (failure.at, failure.not_before) = (failed_at, failed_at);
    let looks = plan(&world.observe());
    assert_eq!((looks.step, looks.list_after), (None, Some(failed_at)));
    world.lists.push((failed_at + SECOND, BTreeSet::new()));
    assert!(matches!(plan(&world.observe()).step, Some(Step::Update { .. })));
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
fn what_is_wrong_with_a_schedule_is_a_sentence() {
    let mut world = scheduled();
    world.schedule("61 * * * *");
    let message = plan(&world.observe()).holds[0].message.clone();
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
fn only_what_was_said_of_a_token_stays_after_a_start() {
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
fn more_than_half_of_the_tokens_gone_at_once_are_many() {
    let mut world = World::ready();
    world.tokens = ["p1", "p2", "p3"].map(token).to_vec();
    for id in ["g1", "g2", "g3", "p1", "p2", "p3"] {
        world.claimed(id, ago(DAY), id);
    }
    assert_eq!(plan(&world.observe()).holds[0].reason, Reason::ManyVanished);
    world.claimed("p4", ago(DAY), "p4");
    world.tokens.push(token("p4"));
    assert_ne!(plan(&world.observe()).holds[0].reason, Reason::ManyVanished, "half of them");
}

#[test]
fn how_to_renew_depends_on_who_renews() {
    let mut world = World::ready();
    world.token().expiration = Some(in_(DAY));
    world.uploaded().expiration_date_time = in_(DAY);
    world.file().expiration = in_(DAY);
    let said = |world: &World| {
        let conditions = plan(&world.observe()).status.conditions;
        find(&conditions, ConditionType::TokenValid).unwrap().message.clone()
    };
    assert!(said(&world).ends_with("Download a new file from Apple and replace the Secret."), "{}", said(&world));
    world.spec.management_policy = ManagementPolicy::Observe;
    world.spec.token_id = Some(OURS.into());
    assert!(said(&world).ends_with("Download a new file from Apple and upload it in Intune."), "{}", said(&world));
}

#[test]
fn what_is_wrong_with_a_file_names_its_secret() {
    let mut world = renewal();
    let said = |world: &World| plan(&world.observe()).holds[0].message.clone();
    world.file().expiration = ago(SECOND);
    assert!(said(&world).contains("Secret \"berlin-vpp\" expired"), "{}", said(&world));
    world.file().expiration = in_(DAY);
    assert!(said(&world).contains("Secret \"berlin-vpp\" expires"), "{}", said(&world));
    world.file().organization_name = "Fabrikam".into();
    world.file().expiration = in_(DAY * 365);
    assert!(said(&world).contains("Secret \"berlin-vpp\" is of organization"), "{}", said(&world));
}

#[test]
fn what_was_last_known_of_a_token_stays_said_while_it_can_not_be_seen() {
    let mut world = World::ready();
    world.token().expiration = Some(in_(DAY));
    world.observed.status = plan(&world.observe()).status;
    world.tenant = TenantState::NotFound;
    let conditions = plan(&world.observe()).status.conditions;
    let said = |type_| find(&conditions, type_).map(|it| format!("{} {}", it.status, it.reason));
    assert_eq!(said(ConditionType::Ready).as_deref(), Some("False TenantNotFound"));
    assert_eq!(said(ConditionType::TokenValid).as_deref(), Some("True ExpiringSoon"));
    assert_eq!(said(ConditionType::Synced).as_deref(), Some("True SyncCompleted"));
}

#[test]
fn a_create_that_is_tried_again_keeps_saying_what_failed() {
    let mut world = World::new_object();
    world.failed(StepKind::Create, ErrorKind::Refused).not_before = ago(SECOND);
    let conditions = |plan: &Plan| {
        let stalled = find(&plan.status.conditions, ConditionType::Stalled).unwrap();
        stalled.reason.clone()
    };
    let plan_ = plan(&world.observe());
    assert!(matches!(plan_.step, Some(Step::Announce(_))));
    assert_eq!(conditions(&plan_), "GraphRefused");
    world.announced(ago(MINUTE * 4), &[]);
    let plan_ = plan(&world.observe());
    assert_eq!((plan_.step.as_ref(), conditions(&plan_).as_str()), (Some(&Step::Create), "GraphRefused"));
}

#[test]
fn a_create_announced_for_a_token_that_is_gone_remembers_its_tenant() {
    let mut world = World::ready();
    world.tokens.clear();
    world.gone = vec![(OURS.into(), ago(SECOND))];
    assert_eq!(plan(&world.observe()).status.tenant, None);
    world.announced(ago(MINUTE), &[]);
    assert_eq!(plan(&world.observe()).status.tenant, Some(identity()));
}

#[test]
fn what_needs_a_person_stays_said_after_a_start_and_while_another_creates() {
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
    assert!(waits.again.is_some());
    let mut mended = world.clone();
    let stalled = find(&before.conditions, ConditionType::Stalled).unwrap();
    let position = before.conditions.iter().position(|condition| condition == stalled).unwrap();
    mended.observed.status.conditions[position].reason = "TokenFileMalformed".into();
    assert_ne!(plan(&mended.observe()).status.conditions, mended.status.conditions, "what it was said for is mended");
    world.object.generation += 1;
    assert_ne!(plan(&world.observe()).status.conditions, before.conditions, "the manifest changed");
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
    // Of a schedule that is no more there is nothing to make up for.
    world.schedule("0 7,19 * * *");
    let plan = plan(&world.observe());
    assert_eq!((plan.step, plan.status.next_sync_time), (None, Some("2026-11-21T19:00:00Z".parse().unwrap())));
}

#[test]
fn a_schedule_that_never_fires_is_said_before_there_is_a_token() {
    let mut world = scheduled();
    world.schedule("0 0 30 2 *");
    world.status.token_id = None;
    world.tokens.clear();
    let plan = plan(&world.observe());
    assert_eq!(plan.holds[0].reason, Reason::ScheduleNeverFires);
    assert!(matches!(plan.step, Some(Step::Announce(_))), "{:?}", plan.step);
}

#[test]
fn a_request_for_a_sync_undoes_no_other_delay() {
    let mut world = drift();
    world.failed(StepKind::Update, ErrorKind::Refused);
    world.object.sync_request = Some("now".into());
    assert_eq!(plan(&world.observe()).step, Some(sync(Priority::Person, Some("now"))));
    let mut world = requested();
    world.failed(StepKind::Sync, ErrorKind::Throttled);
    assert_eq!(plan(&world.observe()).step, None);
    world.object.sync_request = Some("again".into());
    assert_eq!(plan(&world.observe()).step, Some(sync(Priority::Person, Some("again"))));
}

#[test]
fn what_is_sent_to_graph_fails_by_its_kind_and_what_changes_something_there_waits_for_leave() {
    let person = Some(Priority::Person);
    for (step, kind, priority) in [
        (Step::Create, Some(StepKind::Create), person),
        (upload(), Some(StepKind::Upload), person),
        (update(&[]), Some(StepKind::Update), person),
        (person_sync(), Some(StepKind::Sync), person),
        (scheduled_sync(), Some(StepKind::Sync), Some(Priority::Schedule)),
        (delete(), Some(StepKind::Delete), person),
        (confirm(), Some(StepKind::Confirm), None),
        (announce(&[]), None, None),
        (Step::Withdraw, None, None),
        (adopt(OURS, now()), None, None),
        (Step::Bind { id: OURS.into() }, None, None),
        (Step::Note(uploaded(now())), None, None),
        (decline("suspend: true"), None, None),
        (Step::AddFinalizer, None, None),
        (let_go(), None, None),
    ] {
        assert_eq!((step.kind(), step.priority()), (kind, priority), "{step:?}");
    }
}

#[test]
fn every_reason_has_a_row() {
    for reason in Reason::ALL {
        let name = format!("Reason::{reason}");
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric());
        assert!(include_str!("tables.rs").split(&name).skip(1).any(ends), "{name}");
    }
}

#[test]
fn a_start_of_the_operator_changes_nothing_that_was_said() {
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

#[test]
fn nothing_is_sent_while_graph_asked_to_wait() {
    let mut world = renewal();
    assert_eq!(plan(&world.observe()).step, Some(upload()));
    world.known().unwrap().view.paused_until = Some(now() + SECOND * 30);
    let waits = plan(&world.observe());
    assert_eq!((waits.step, waits.again), (None, Some(SECOND * 30)));
    assert_eq!(waits.holds[0].reason, Reason::Throttled);
    world.known().unwrap().view.paused_until = Some(now());
    assert_eq!(plan(&world.observe()).step, Some(upload()), "until now");
}

#[test]
fn a_namespace_that_is_being_deleted_ends_after_ten_minutes() {
    let causes: [fn(&mut World); 5] = [
        |w| w.tenant = TenantState::NotFound,
        |w| w.forbid(Permission::Delete),
        |w| {
            w.failed(StepKind::Delete, ErrorKind::Refused);
        },
        |w| w.problem(ErrorKind::Unreachable, ago(HOUR)),
        |w| {
            w.status = unknown().status.clone();
            w.tokens = vec![token("t2"), token("t3")];
        },
    ];
    for (cause, change) in causes.into_iter().enumerate() {
        for (minutes, is_deleted, lets_go) in [(9, true, false), (10, true, true), (10, false, false)] {
            let mut world = deleting();
            change(&mut world);
            world.observed.object.namespace_deleting = is_deleted;
            world.observed.object.deleting = Some(ago(MINUTE * minutes));
            let plan = plan(&world.observe());
            let is_let_go = matches!(&plan.step, Some(Step::RemoveFinalizer { warning: Some(_) }));
            assert_eq!(is_let_go, lets_go, "{cause}, {minutes}: {:?}", plan.step);
            let ready = find(&plan.status.conditions, ConditionType::Ready).unwrap();
            let says_how = ready.message.contains("deletionPolicy: Retain");
            assert!(lets_go || says_how, "{cause}, {minutes}: {}", ready.message);
        }
    }
}

#[test]
fn a_sync_whose_answer_was_lost_is_not_sent_again_when_graph_shows_it() {
    let mut world = World::ready();
    world.observed.object.sync_request = Some("now".into());
    world.failed(StepKind::Sync, ErrorKind::OutcomeUnknown);
    let failure = world.observed.memory.failures.get_mut(&StepKind::Sync).unwrap();
    (failure.maybe_executed, failure.began, failure.at) = (true, ago(MINUTE * 5), ago(MINUTE * 5));
    (failure.not_before, failure.inputs.sync_request) = (ago(MINUTE * 4), Some("now".into()));
    assert!(matches!(plan(&world.observe()).step, Some(Step::Sync { .. })), "nothing shows it");
    world.token().last_sync = Some(ago(MINUTE * 4));
    let plan = plan(&world.observe());
    assert_eq!((plan.step, plan.status.last_handled_sync_request.as_deref()), (None, Some("now")));
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
    gone.gone = vec![(OURS.into(), ago(SECOND))];
    assert_eq!(plan(&gone.observe()).status.location_name, None);
}

fn decline(because: &'static str) -> Step {
    Step::DeclineSync { request: "now".into(), because }
}

#[test]
fn an_observed_token_is_shown_and_nothing_is_written() {
    fn watched() -> World {
        let mut world = observed_by_id();
        world.status = World::ready().status.clone();
        world.status.uploaded = None;
        world
    }
    check(
        observed_by_id,
        &[
            ("it is there", |_| {}, working(Reason::Updating).step(Step::Bind { id: OURS.into() }).no_token()),
            ("binding is not allowed", |w| w.forbid(Permission::Bind), stalled(Reason::OperationNotAllowed).no_token()),
            (
                "it is not there",
                |w| {
                    w.tokens.clear();
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
        ],
    );
    check(
        watched,
        &[
            ("settings differ from what a manifest could ask", |_| {}, ready()),
            ("a file and settings are named all the same", |w| w.observed.spec = renewal_by_id().spec.clone(), ready()),
            (
                "a schedule is named",
                |w| {
                    w.schedule("0 6,18 * * *");
                    w.token().last_sync = Some(ago(DAY * 3));
                },
                ready(),
            ),
            (
                "a sync is asked for",
                |w| w.object.sync_request = Some("now".into()),
                ready().step(decline("managementPolicy: Observe")),
            ),
            (
                "it expired",
                |w| w.token().state = Some("expired".into()),
                stalled(Reason::Expired).valid(False, Reason::Expired),
            ),
            ("deletionPolicy: Delete counts for nothing", |w| w.spec.deletion_policy = DeletionPolicy::Delete, ready()),
            (
                "it is gone: reported, not created",
                |w| {
                    w.tokens.clear();
                    w.gone = vec![(OURS.into(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
            ("another VppToken has it", |w| w.claimed(OURS, ago(DAY * 31), "uid-1"), {
                stalled(Reason::ClaimedByAnother)
            }),
        ],
    );
    let mut world = watched();
    world.being_deleted();
    assert!(matches!(plan(&world.observe()).step, Some(Step::RemoveFinalizer { warning: Some(_) })));
}

/// Under `Observe`, with everything named that counts only under `Manage`.
fn renewal_by_id() -> World {
    let mut world = drift();
    world.spec.management_policy = ManagementPolicy::Observe;
    world.spec.token_id = Some(OURS.into());
    world
}

#[test]
fn while_suspended_nothing_is_written_and_what_is_due_is_said() {
    fn suspended(mut world: World) -> World {
        world.spec.suspend = true;
        world
    }
    check(
        || suspended(World::ready()),
        &[
            ("nothing is due", |_| {}, ready()),
            (
                "a sync is due",
                |w| {
                    w.schedule("0 6,18 * * *");
                    w.token().last_sync = Some(ago(DAY * 3));
                },
                ready(),
            ),
            (
                "a sync is asked for",
                |w| w.object.sync_request = Some("now".into()),
                ready().step(decline("suspend: true")),
            ),
            ("a setting differs", |w| w.token().country_or_region = Some("fr".into()), stalled(Reason::Suspended)),
            (
                "a new file is there",
                |w| {
                    w.file().sha256 = "digest-2".into();
                    w.file().expiration = in_(DAY * 365);
                },
                stalled(Reason::Suspended),
            ),
            (
                "the finalizer still follows the policy",
                |w| w.spec.deletion_policy = DeletionPolicy::Delete,
                working(Reason::Finalizing).step(Step::AddFinalizer),
            ),
        ],
    );
    check(
        || suspended(World::new_object()),
        &[
            ("there is no token", |_| {}, stalled(Reason::Suspended).no_token()),
            (
                "a sync is asked for before there is a token",
                |w| w.object.sync_request = Some("now".into()),
                stalled(Reason::Suspended).step(decline("suspend: true")).no_token(),
            ),
            (
                "an exact match is taken over, which writes nothing",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
        ],
    );
    check(
        || suspended(announced()),
        &[("a create was announced and not sent", |_| {}, stalled(Reason::Suspended).step(Step::Withdraw).no_token())],
    );
    check(
        || suspended(unknown()),
        &[(
            "a create of unknown outcome is found again",
            |w| w.tokens = vec![token("t2")],
            working(Reason::Creating).step(adopt("t2", ago(MINUTE * 5))).no_token(),
        )],
    );
    let mut world = suspended(deleting());
    let step = plan(&world.observe()).step;
    assert!(matches!(&step, Some(Step::RemoveFinalizer { warning: Some(why) }) if why.contains("suspend")), "{step:?}");
    world.spec.deletion_policy = DeletionPolicy::Retain;
    assert_eq!(plan(&world.observe()).step, Some(let_go()));
}

#[test]
fn a_manifest_without_a_file_or_an_apple_id_creates_nothing() {
    check(
        World::new_object,
        &[
            ("no Apple ID", |w| w.spec.apple_id = None, stalled(Reason::SecretNotFound).no_token()),
            (
                "no file",
                |w| {
                    w.spec.token_secret_ref = None;
                    w.file = Err(FileProblem::NotNamed);
                },
                stalled(Reason::SecretNotFound).no_token(),
            ),
        ],
    );
}

#[test]
fn a_token_id_that_names_another_token_is_said() {
    let row = (
        "tokenId names another one",
        (|w| w.spec.token_id = Some("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10".into())) as fn(&mut World),
        stalled(Reason::AlreadyBound),
    );
    check(World::ready, &[row]);
}
