//! The rules that are never broken, each a property over worlds with up to a dozen things changed.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::api::conditions::{ConditionType, find};
use crate::api::{AccountType, ManagementPolicy};
use crate::tenant::Entry;

const IDS: [&str; 4] = [OURS, "t2", "t3", "t4"];
const APPLE_IDS: [&str; 3] = [APPLE_ID, "VPP.Berlin@Contoso.Example", "other@contoso.example"];
const ORGANIZATIONS: [&str; 3] = [ORGANIZATION, " CONTOSO", "Fabrikam"];
const DIGESTS: [&str; 3] = ["digest-1", "digest-2", "digest-3"];
const STATES: [&str; 7] =
    ["valid", "expired", "invalid", "unknown", "assignedToExternalMDM", "duplicateLocationId", "onHoliday"];
const SYNC_STATES: [&str; 5] = ["completed", "inProgress", "failed", "none", "paused"];
const COUNTRIES: [&str; 3] = ["de", "DE", "fr"];
const ERRORS: [ErrorKind; 10] = [
    ErrorKind::Unreachable,
    ErrorKind::OutcomeUnknown,
    ErrorKind::Throttled,
    ErrorKind::Unavailable,
    ErrorKind::Unauthorized,
    ErrorKind::Forbidden,
    ErrorKind::NotFound,
    ErrorKind::Conflict,
    ErrorKind::Refused,
    ErrorKind::Credentials,
];
const STEPS: [StepKind; 6] =
    [StepKind::Create, StepKind::Upload, StepKind::Update, StepKind::Sync, StepKind::Delete, StepKind::Confirm];
const PERMISSIONS: [Permission; 4] = [Permission::Create, Permission::Adopt, Permission::Bind, Permission::Delete];
const FIELDS: [Field; 4] = [Field::AppleId, Field::AccountType, Field::CountryOrRegion, Field::AutomaticallyUpdateApps];

/// How long ago, in seconds: on both sides of every limit in the rules.
const AGES: [i64; 20] =
    [0, 1, 30, 59, 60, 61, 120, 300, 599, 600, 601, 899, 900, 901, 1500, 3599, 3600, 3601, 86_400, 172_800];
/// How far ahead or back files and tokens expire, in days.
const EXPIRIES: [i64; 8] = [-1, 0, 1, 29, 30, 199, 200, 365];

/// Mostly something, sometimes nothing.
fn often<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::weighted(0.8, strategy)
}

/// One thing to change in a world.
#[derive(Clone, Debug)]
enum Change {
    File(usize, i64, usize),
    NoFile(usize),
    Token {
        id: usize,
        apple_id: Option<usize>,
        organization: Option<usize>,
        days: Option<i64>,
    },
    NoTokens,
    State(usize, Option<usize>),
    SyncState(usize, Option<usize>),
    Running(usize, i64),
    LastSync(usize, Option<i64>),
    Settings(usize, Option<usize>, Option<bool>),
    Spec(Option<usize>, Option<bool>, Option<bool>),
    AppleId(usize),
    Organization(usize),
    Named(usize),
    Distinct(usize, bool),
    PolicyDelete(bool),
    Deleting,
    Finalizer(bool),
    CrdTerminating,
    Request(bool),
    Schedule(usize),
    Created(i64),
    Forget,
    Uploaded(usize, i64, i64),
    Triggered(i64),
    Pending(usize, usize, i64, Option<usize>),
    Unsent(usize, i64),
    Claimed(usize, i64, bool),
    OthersGone,
    Creating,
    Unread,
    Forbid(usize),
    Failed(usize, usize, i64, i64, bool),
    Tried(usize, usize, u32),
    Problem(usize, i64),
    Lists(Vec<i64>),
    Lacking(usize),
    Written(usize, usize, usize, i64),
    Gone(usize, i64),
    Missing(usize, i64),
    Asked(i64),
    Shown,
    RequestUpload(bool),
    OtherTenant,
    NoTenant(usize),
    Suspend,
    Observe,
    Beta(bool, usize, bool),
    /// The present decision was written into the status, and the rest happens after that.
    Said,
    Promised(i64),
    Interval,
    AnothersFile(usize, usize),
    NamespaceDeleting,
    Paused(i64),
}

fn change() -> impl Strategy<Value = Change> {
    // Mostly ours.
    let id = || select(vec![0, 0, 0, 1, 2, 3usize]);
    let apple = || 0..APPLE_IDS.len();
    let organization = || 0..ORGANIZATIONS.len();
    let digest = || 0..DIGESTS.len();
    let age = || select(&AGES[..]);
    let days = || select(&EXPIRIES[..]);
    let tokens = prop_oneof![
        6 => (id(), often(apple()), often(organization()), often(days()))
            .prop_map(|(id, apple_id, organization, days)| Change::Token { id, apple_id, organization, days }),
        1 => Just(Change::NoTokens),
        1 => (id(), often(0..STATES.len())).prop_map(|(id, state)| Change::State(id, state)),
        1 => (id(), often(0..SYNC_STATES.len())).prop_map(|(id, state)| Change::SyncState(id, state)),
        1 => (id(), age()).prop_map(|(id, age)| Change::Running(id, age)),
        1 => (id(), often(age())).prop_map(|(id, age)| Change::LastSync(id, age)),
        2 => (id(), often(0..COUNTRIES.len()), often(any::<bool>()))
            .prop_map(|(id, country, apps)| Change::Settings(id, country, apps)),
        2 => proptest::collection::vec(age(), 0..6).prop_map(Change::Lists),
        1 => id().prop_map(Change::Lacking),
        4 => (id(), select(vec![2, 2, 2, 0, 1, 3usize]), 0..COUNTRIES.len(), select(vec![1, 30, 59, 60, 61, 300i64]))
            .prop_map(|(id, field, value, age)| Change::Written(id, field, value, age)),
        2 => (id(), age()).prop_map(|(id, age)| Change::Gone(id, age)),
        1 => (id(), age()).prop_map(|(id, age)| Change::Missing(id, age)),
        4 => age().prop_map(Change::Asked),
    ];
    let object = prop_oneof![
        3 => (digest(), days(), organization()).prop_map(|(digest, days, org)| Change::File(digest, days, org)),
        1 => (0..4usize).prop_map(Change::NoFile),
        1 => (often(0..COUNTRIES.len()), often(any::<bool>()), often(any::<bool>()))
            .prop_map(|(country, apps, education)| Change::Spec(country, apps, education)),
        1 => apple().prop_map(Change::AppleId),
        1 => organization().prop_map(Change::Organization),
        1 => id().prop_map(Change::Named),
        2 => (id(), any::<bool>()).prop_map(|(id, in_capitals)| Change::Distinct(id, in_capitals)),
        2 => any::<bool>().prop_map(Change::PolicyDelete),
        1 => Just(Change::Deleting),
        1 => any::<bool>().prop_map(Change::Finalizer),
        1 => Just(Change::CrdTerminating),
        2 => any::<bool>().prop_map(Change::Request),
        2 => any::<bool>().prop_map(Change::RequestUpload),
        1 => (0..5usize).prop_map(Change::Schedule),
        1 => age().prop_map(Change::Created),
        1 => Just(Change::Interval),
        1 => Just(Change::NamespaceDeleting),
        1 => Just(Change::Suspend),
        1 => Just(Change::Observe),
        1 => (any::<bool>(), 0..COUNTRIES.len(), any::<bool>()).prop_map(|(api, name, tags)| Change::Beta(api, name, tags)),
    ];
    let remembered = prop_oneof![
        1 => Just(Change::Forget),
        2 => (digest(), days(), age()).prop_map(|(digest, days, age)| Change::Uploaded(digest, days, age)),
        1 => age().prop_map(Change::Triggered),
        3 => Just(Change::Shown),
        4 => (digest(), apple(), age(), often(id()))
            .prop_map(|(digest, apple, age, known)| Change::Pending(digest, apple, age, known)),
        3 => (digest(), age()).prop_map(|(digest, age)| Change::Unsent(digest, age)),
        3 => (id(), age(), any::<bool>()).prop_map(|(id, age, elder)| Change::Claimed(id, age, elder)),
        1 => Just(Change::OthersGone),
        1 => Just(Change::Creating),
        1 => Just(Change::Unread),
        1 => (0..PERMISSIONS.len()).prop_map(Change::Forbid),
        5 => (0..STEPS.len(), 0..ERRORS.len(), age(), -61i64..61, any::<bool>())
            .prop_map(|(step, error, age, wait, same)| Change::Failed(step, error, age, wait, same)),
        2 => (select(vec![2, 2, 2, 0, 1, 3usize]), 0..COUNTRIES.len(), 1..5u32).prop_map(|(f, value, n)| Change::Tried(f, value, n)),
        1 => (0..ERRORS.len(), age()).prop_map(|(error, age)| Change::Problem(error, age)),
        1 => Just(Change::OtherTenant),
        1 => (0..3usize).prop_map(Change::NoTenant),
        3 => Just(Change::Said),
        1 => age().prop_map(Change::Promised),
        2 => (digest(), id()).prop_map(|(digest, id)| Change::AnothersFile(digest, id)),
        1 => age().prop_map(Change::Paused),
    ];
    prop_oneof![3 => tokens, 3 => object, 3 => remembered]
}

impl Change {
    fn apply(self, world: &mut World) {
        let past = |age: i64| ago(SECOND * i32::try_from(age).unwrap());
        let day = |days: i64| now() + SignedDuration::from_hours(24 * days);
        match self {
            Self::File(digest, days, organization) => {
                world.file = Ok(FileFacts {
                    sha256: DIGESTS[digest].into(),
                    expiration: day(days),
                    organization_name: ORGANIZATIONS[organization].into(),
                    encoding: TokenEncoding::AsIs,
                    secret_version: FILE_VERSION.into(),
                });
            }
            Self::NoFile(which) => {
                world.file = Err(match which {
                    0 => FileProblem::SecretNotFound,
                    1 => FileProblem::KeyNotFound,
                    2 => FileProblem::NotReadable,
                    _ => FileProblem::Malformed("at byte 7".into()),
                });
            }
            Self::Token { id, apple_id, organization, days } => {
                let token = Entity {
                    apple_id: apple_id.map(|n| APPLE_IDS[n].into()),
                    organization_name: organization.map(|n| ORGANIZATIONS[n].into()),
                    expiration: days.map(day),
                    ..token(IDS[id])
                };
                world.tokens.retain(|other| other.id != token.id);
                world.tokens.push(token);
            }
            Self::NoTokens => world.tokens.clear(),
            Self::State(id, state) => {
                of(world, id, |token| token.state = state.map(|n| STATES[n].into()));
            }
            Self::SyncState(id, state) => {
                of(world, id, |token| token.last_sync_status = state.map(|n| SYNC_STATES[n].into()));
            }
            Self::Running(id, age) => {
                of(world, id, |token| token.last_sync_status = Some("inProgress".into()));
                world.lists.insert(0, (past(age).min(world.lists.first().map_or(now(), |it| it.0)), BTreeSet::new()));
            }
            Self::LastSync(id, age) => of(world, id, |token| token.last_sync = age.map(past)),
            Self::Settings(id, country, apps) => of(world, id, |token| {
                token.country_or_region = country.map(|n| COUNTRIES[n].into());
                token.automatically_update_apps = apps;
            }),
            Self::Spec(country, apps, education) => {
                world.spec.country_or_region = country.map(|n| COUNTRIES[n].into());
                world.spec.automatically_update_apps = apps;
                world.spec.vpp_token_account_type =
                    education.map(|it| if it { AccountType::Education } else { AccountType::Business });
            }
            Self::AppleId(n) => world.spec.apple_id = Some(APPLE_IDS[n].into()),
            Self::Organization(n) => world.spec.organization_name = Some(ORGANIZATIONS[n].into()),
            Self::Named(id) => world.spec.token_id = Some(IDS[id].into()),
            Self::Distinct(id, in_capitals) => {
                let id = if in_capitals { IDS[id].to_uppercase() } else { IDS[id].to_owned() };
                world.spec.distinct_from.push(id.as_str().into());
            }
            Self::PolicyDelete(finalizer) => {
                world.spec.deletion_policy = DeletionPolicy::Delete;
                world.object.has_finalizer = finalizer;
            }
            Self::Deleting => {
                world.object.deleting = Some(past(1));
                world.object.has_finalizer = true;
            }
            Self::Finalizer(has) => world.object.has_finalizer = has,
            Self::CrdTerminating => world.crd_terminating = true,
            Self::Request(handled) => {
                world.object.sync_request = Some("now".into());
                world.status.last_handled_sync_request = handled.then(|| "now".into());
            }
            Self::Schedule(which) => {
                world.schedule(["0 6,18 * * *", "*/15 * * * *", "0 0 30 2 *", "61 * * * *", "0 0 29 2 *"][which]);
            }
            Self::Created(age) => world.object.created = past(age),
            Self::Forget => {
                world.status.token_id = None;
                world.status.tenant = None;
                world.status.uploaded = None;
            }
            Self::Uploaded(digest, days, age) => {
                world.status.uploaded = Some(Uploaded {
                    sha256: DIGESTS[digest].into(),
                    expiration_date_time: day(days),
                    organization_name: ORGANIZATION.into(),
                    time: past(age),
                    encoding: Some(TokenEncoding::AsIs),
                    secret_version: Some(FILE_VERSION.into()),
                    shown: false,
                });
            }
            Self::Triggered(age) => world.status.last_sync_trigger_time = Some(past(age)),
            Self::Pending(digest, apple_id, age, known) => {
                let pending = PendingCreate {
                    sha256: DIGESTS[digest].into(),
                    apple_id: APPLE_IDS[apple_id].into(),
                    ..pending(past(age), &known.map(|id| IDS[id]).into_iter().collect::<Vec<_>>())
                };
                world.status.pending_create = Some(Box::new(pending));
                world.status.token_id = None;
            }
            Self::Unsent(digest, age) => {
                let pending = world.status.pending_create.as_ref().filter(|pending| pending.sha256 == DIGESTS[digest]);
                let since = pending.map_or(past(age), |pending| pending.since);
                world.attempts.unsent_intent = Some(UnsentIntent { since, list_after: past(age), is_recorded: true });
            }
            Self::Claimed(id, age, elder) => {
                let created = if elder { past(age) - DAY * 60 } else { past(age) };
                world.claimed(IDS[id], created, if elder { "uid-1" } else { "uid-9" });
            }
            Self::OthersGone => {
                for id in ["g1", "g2", "g3"] {
                    world.claimed(id, past(60), id);
                }
            }
            Self::Creating => world.others.creating = true,
            Self::Unread => world.others.unread = true,
            Self::Forbid(n) => {
                if let Some(tenant) = world.known() {
                    tenant.allowed.remove(&PERMISSIONS[n]);
                }
            }
            Self::Failed(step, error, age, wait, same_inputs) => {
                let failure = world.failed(STEPS[step], ERRORS[error]);
                failure.at = past(age);
                failure.since = past(age) - MINUTE * 5;
                failure.not_before = now() + SignedDuration::from_secs(wait);
                if !same_inputs {
                    failure.inputs.generation -= 1;
                }
            }
            Self::Tried(field, value, times) => {
                let value =
                    [COUNTRIES[value], "true", APPLE_ID][usize::from(field != 2) * (1 + usize::from(field == 0))];
                world.attempts.tries.insert(FIELDS[field], (value.into(), times));
            }
            Self::Problem(error, age) => world.problem(ERRORS[error], past(age)),
            Self::Lists(ages) => {
                let mut lists: Vec<Timestamp> = ages.into_iter().map(past).collect();
                lists.sort();
                world.lists = lists.into_iter().map(|began| (began, BTreeSet::new())).collect();
            }
            Self::Lacking(id) => {
                for (_, lacking) in world.lists.iter_mut().rev().take(1 + id % 2) {
                    lacking.insert(IDS[id].into());
                }
            }
            Self::Written(id, field, value, age) => {
                world.written.push((IDS[id].into(), FIELDS[field], COUNTRIES[value].into(), past(age)));
            }
            Self::Gone(id, age) => {
                world.tokens.retain(|token| token.id != IDS[id]);
                world.confirmed_absent.push((IDS[id].into(), past(age)));
            }
            Self::Missing(id, age) => {
                world.tokens.retain(|token| token.id != IDS[id]);
                world.missing.push((IDS[id].into(), past(age)));
            }
            Self::Asked(age) => {
                world.live_since = Some(past(age));
                world.asked = world.tokens.iter().map(|token| token.id.clone()).collect();
            }
            Self::Shown => {
                if let Some(uploaded) = &mut world.status.uploaded {
                    uploaded.shown = true;
                }
            }
            Self::RequestUpload(handled) => {
                world.object.upload_request = Some("now".into());
                world.status.last_handled_upload_request = handled.then(|| "now".into());
            }
            Self::Beta(is_spoken, name, tags) => {
                world.spec.display_name = Some(COUNTRIES[name].into());
                world.spec.role_scope_tag_ids = tags.then(|| vec!["7".into(), "0".into()]);
                if let Some(tenant) = world.known().filter(|_| is_spoken) {
                    tenant.identity.api = GraphApi::Beta;
                }
            }
            Self::Suspend => world.spec.suspend = true,
            Self::Observe => {
                world.spec.management_policy = ManagementPolicy::Observe;
                world.spec.token_id.get_or_insert_with(|| OURS.into());
                world.file = Err(FileProblem::NotNamed);
            }
            Self::Said => world.observed.status = plan(&world.observe()).status,
            Self::Promised(age) => world.status.next_sync_time = Some(past(age)),
            Self::Interval => {
                world.spec.sync = Some(serde_json::from_value(serde_json::json!({ "interval": "6h" })).unwrap());
            }
            Self::AnothersFile(digest, id) => {
                world.claimed(IDS[id], past(60), "uid-9");
                world.others.claims.add_file(DIGESTS[digest], IDS[id], "uid-9");
            }
            Self::NamespaceDeleting => world.object.namespace_deleting = true,
            Self::Paused(age) => {
                if let Some(tenant) = world.known() {
                    tenant.view.paused_until = Some(now() + SignedDuration::from_secs(age));
                }
            }
            Self::OtherTenant => {
                if let Some(tenant) = &mut world.status.tenant {
                    tenant.tenant_id = "0".into();
                }
            }
            Self::NoTenant(which) => {
                world.tenant = match which {
                    0 => TenantState::NotFound,
                    1 => TenantState::NamespaceNotAllowed,
                    _ => TenantState::Unusable { reason: Reason::CredentialsRefused, message: "No.".into() },
                };
            }
        }
    }
}

fn of(world: &mut World, id: usize, change: impl FnOnce(&mut Entity)) {
    if let Some(token) = world.tokens.iter_mut().find(|token| token.id == IDS[id]) {
        change(token);
    }
}

fn world() -> impl Strategy<Value = Observed> {
    let bases: [fn() -> World; 12] = [
        World::ready,
        World::ready,
        World::ready,
        drift,
        drift,
        renewal,
        World::new_object,
        World::new_object,
        recorded,
        unknown,
        deleting,
        observed_by_id,
    ];
    (select(bases.to_vec()), proptest::collection::vec(change(), 0..10)).prop_map(|(base, changes)| {
        let mut world = base();
        for change in changes {
            change.apply(&mut world);
        }
        world.observe()
    })
}

fn known(observed: &Observed) -> Option<&KnownTenant> {
    match &observed.tenant {
        TenantState::Known(tenant) => Some(tenant),
        _ => None,
    }
}

/// The entry of the token in the status.
fn own_entry(observed: &Observed) -> Option<&Entry> {
    known(observed)?.view.snapshot.entry(observed.status.token_id.as_deref()?)
}

fn is_alike(found: Option<&str>, wanted: &str) -> bool {
    found.is_none_or(|found| found.trim().eq_ignore_ascii_case(wanted.trim()))
}

/// Tokens of an organization, and of an Apple ID or with an expiry, of whomever; what Graph does not show counts as equal.
fn alike<'a>(observed: &'a Observed, apple_id: &'a str, organization: &'a str, expiry: Timestamp) -> Vec<&'a Entity> {
    let entries = known(observed).into_iter().flat_map(|tenant| tenant.view.snapshot.listed());
    entries
        .map(|entry| &entry.entity)
        .filter(|it| is_alike(it.organization_name.as_deref(), organization))
        .filter(|it| is_alike(it.apple_id.as_deref(), apple_id) || is_in_second(it, expiry))
        .collect()
}

fn is_in_second(entity: &Entity, expiry: Timestamp) -> bool {
    entity.expiration.is_none_or(|at| at.as_second() == expiry.as_second())
}

/// Whether a token could be the result of a create: of its organization and Apple ID and with its expiry, as far as Graph shows
/// them, and not without all of the three.
fn is_result(entity: &Entity, pending: &PendingCreate) -> bool {
    is_alike(entity.organization_name.as_deref(), &pending.organization_name)
        && is_alike(entity.apple_id.as_deref(), &pending.apple_id)
        && is_in_second(entity, pending.expiration_date_time)
        && shows_something(entity)
}

fn shows_something(entity: &Entity) -> bool {
    entity.apple_id.is_some() || entity.organization_name.is_some() || entity.expiration.is_some()
}

fn is_distinct(observed: &Observed, id: &str) -> bool {
    observed.spec.distinct_from.iter().any(|distinct| distinct.as_str().to_lowercase() == id.to_lowercase())
}

fn apple_id(observed: &Observed) -> &str {
    observed.spec.apple_id.as_deref().unwrap_or_default()
}

fn is_exact(entity: &Entity, file: &FileFacts) -> bool {
    entity.expiration.is_some_and(|at| at.as_second() == file.expiration.as_second())
}

fn target(step: &Step) -> Option<&str> {
    match step {
        Step::ConfirmUpload { id }
        | Step::Write(Write::Upload { id, .. })
        | Step::Write(Write::Update { id, .. })
        | Step::Write(Write::Sync { id, .. })
        | Step::Confirm { id }
        | Step::Write(Write::Delete { id }) => Some(id),
        _ => None,
    }
}

fn is(plan: &Plan, type_: ConditionType, status: &str) -> bool {
    find(&plan.status.conditions, type_).is_some_and(|condition| condition.status == status)
}

/// The window of a recorded intent is over, and enough lists were searched.
fn was_looked_for(observed: &Observed, pending: &PendingCreate) -> bool {
    let until = pending.since + observed.timings.unknown_outcome;
    known(observed).is_some_and(|tenant| {
        let snapshot = &tenant.view.snapshot;
        observed.now >= until && snapshot.lists_since(pending.since) >= 3 && snapshot.last_list() >= Some(until)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plan_is_total_and_the_same_for_the_same_world(observed in world()) {
        prop_assert_eq!(plan(&observed), plan(&observed));
    }

    #[test]
    fn never_two_a_create_is_sent_only_as_recorded_in_order_and_after_a_list_that_shows_nothing(observed in world()) {
        let plan = plan(&observed);
        if !is_create(&plan.step) {
            return Ok(());
        }
        let pending = observed.status.pending_create.as_ref().unwrap();
        let unsent = observed.attempts.unsent_intent.as_ref().unwrap();
        let file = observed.file.as_ref().unwrap();
        prop_assert!(observed.object.deleting.is_none() && observed.spec.token_id.is_none());
        prop_assert!(observed.status.token_id.is_none());
        prop_assert_eq!(&pending.sha256, &file.sha256);
        prop_assert_eq!(pending.since, unsent.since);
        prop_assert!(pending.apple_id.eq_ignore_ascii_case(apple_id(&observed)));
        prop_assert!(known(&observed).unwrap().view.snapshot.last_list() > Some(unsent.list_after));
        prop_assert!(!observed.others.creating);
        for entity in alike(&observed, apple_id(&observed), &file.organization_name, file.expiration) {
            let is_claimed = observed.others.claims.contains(&entity.id);
            let is_same_apple_id = is_alike(entity.apple_id.as_deref(), apple_id(&observed));
            let is_the_file = is_exact(entity, file) && is_same_apple_id;
            let stops = if is_claimed { is_the_file } else { shows_something(entity) };
            prop_assert!(!stops || is_distinct(&observed, &entity.id), "a similar one is there");
            prop_assert!(pending.known_ids.contains(&entity.id), "one that would be taken for ours");
        }
    }

    #[test]
    fn never_two_nothing_becomes_ones_own_while_what_others_have_is_not_known(observed in world()) {
        let observed = Observed { others: Others { unread: true, ..observed.others.clone() }, ..observed };
        let step = plan(&observed).step;
        let rests_on_claims = matches!(
            step,
            Some(Step::RecordIntent(_) | Step::Write(Write::Create(_)) | Step::Adopt { .. } | Step::Bind { .. } | Step::Write(Write::Delete { .. }))
        );
        prop_assert!(!rests_on_claims, "{step:?}");
    }

    #[test]
    fn never_two_an_intent_names_all_that_is_there_and_overwrites_none(observed in world()) {
        let plan = plan(&observed);
        if let Some(Step::RecordIntent(pending)) = &plan.step {
            prop_assert!(observed.status.pending_create.is_none());
            prop_assert!(!observed.others.creating);
            prop_assert_eq!(pending.since, observed.now);
            let expiry = pending.expiration_date_time;
            for entity in alike(&observed, &pending.apple_id, &pending.organization_name, expiry) {
                prop_assert!(pending.known_ids.contains(&entity.id));
            }
        }
    }

    #[test]
    fn never_two_an_unknown_outcome_is_given_up_only_after_the_window_and_three_lists(observed in world()) {
        let plan = plan(&observed);
        let is_unsent = observed.unsent_intent().is_some();
        if let (Some(pending), false) = (&observed.status.pending_create, is_unsent)
            && is_abandon(&plan.step)
        {
            prop_assert!(was_looked_for(&observed, pending));
            for entity in known(&observed).unwrap().view.snapshot.listed().map(|entry| &entry.entity) {
                let is_known = pending.known_ids.contains(&entity.id);
                let is_claimed = observed.others.claims.contains(&entity.id);
                prop_assert!(is_known || is_claimed || !is_result(entity, pending));
            }
        }
        if !is_abandon(&plan.step) {
            prop_assert_eq!(&plan.status.pending_create, &observed.status.pending_create);
        }
    }

    #[test]
    fn never_two_while_another_has_the_token_of_the_file_none_is_created_or_taken_over(observed in world()) {
        let Ok(file) = &observed.file else { return Ok(()) };
        let Some(id) = observed.others.claims.token_with_file(&file.sha256) else { return Ok(()) };
        let is_there = known(&observed).is_some_and(|tenant| {
            tenant.view.snapshot.entry(id).is_some_and(|entry| {
                is_alike(entry.entity.apple_id.as_deref(), apple_id(&observed))
                    && is_alike(entry.entity.organization_name.as_deref(), &file.organization_name)
            })
        });
        let is_sent = observed.status.pending_create.is_some() && observed.unsent_intent().is_none();
        if !is_there || is_sent || !observed.others.claims.contains(id) {
            return Ok(());
        }
        let plan = plan(&observed);
        let makes_one = matches!(plan.step, Some(Step::RecordIntent(_) | Step::Write(Write::Create(_)) | Step::Adopt { .. }));
        prop_assert!(!makes_one, "{:?}", plan.step);
    }

    #[test]
    fn never_two_only_an_exact_match_or_the_result_of_an_intent_is_adopted(observed in world()) {
        let plan = plan(&observed);
        let Some(Step::Adopt { id, uploaded, is_own_create }) = &plan.step else { return Ok(()) };
        prop_assert!(!observed.others.claims.contains(id));
        let entity = &known(&observed).unwrap().view.snapshot.entry(id).unwrap().entity;
        let pending = observed.status.pending_create.as_ref();
        let is_ours = pending.filter(|_| observed.unsent_intent().is_none()).is_some_and(|it| {
            it.sha256 == uploaded.sha256 && !it.known_ids.contains(id) && is_result(entity, it)
        });
        let is_match = observed.file.as_ref().is_ok_and(|it| it.sha256 == uploaded.sha256 && is_exact(entity, it))
            && is_alike(entity.apple_id.as_deref(), apple_id(&observed))
            && !is_distinct(&observed, id);
        let is_allowed = if *is_own_create { is_ours } else { is_match };
        prop_assert!(is_allowed);
    }

    #[test]
    fn never_wipe_nothing_is_deleted_unless_everything_says_so(observed in world()) {
        let plan = plan(&observed);
        let Some(Step::Write(Write::Delete { id })) = &plan.step else { return Ok(()) };
        let tenant = known(&observed).unwrap();
        prop_assert!(observed.object.deleting.is_some() && observed.object.has_finalizer);
        prop_assert!(!observed.crd_terminating);
        prop_assert_eq!(observed.spec.deletion_policy, DeletionPolicy::Delete);
        prop_assert!(tenant.allowed.contains(&Permission::Delete));
        prop_assert_eq!(observed.status.token_id.as_ref(), Some(id));
        let lives_in = observed.status.tenant.as_ref().unwrap();
        prop_assert_eq!((lives_in.cloud, &lives_in.tenant_id), (tenant.identity.cloud, &tenant.identity.tenant_id));
        prop_assert!(!observed.others.claims.contains(id));
    }

    #[test]
    fn never_wipe_with_retain_there_is_no_finalizer_and_nothing_waits(observed in world()) {
        if observed.spec.deletion_policy != DeletionPolicy::Retain {
            return Ok(());
        }
        let plan = plan(&observed);
        let is_let_go = plan.step == Some(Step::RemoveFinalizer { warning: None });
        prop_assert_eq!(is_let_go, observed.object.has_finalizer);
        prop_assert!(plan.step != Some(Step::AddFinalizer));
    }

    #[test]
    fn never_wipe_the_finalizer_is_there_before_there_is_anything_to_delete(observed in world()) {
        let is_observed = observed.spec.management_policy == ManagementPolicy::Observe;
        if observed.spec.deletion_policy != DeletionPolicy::Delete || is_observed || observed.object.has_finalizer {
            return Ok(());
        }
        // Nothing was sent of what is abandoned.
        let step = plan(&observed).step.filter(|step| !matches!(step, Step::AbandonIntent { .. }));
        let expected = observed.object.deleting.is_none().then_some(Step::AddFinalizer);
        prop_assert_eq!(step, expected);
    }

    #[test]
    fn never_upload_rubbish_only_a_file_that_is_valid_and_newer_and_of_the_right_organization(observed in world()) {
        let plan = plan(&observed);
        let entity = match &plan.step {
            Some(Step::Write(Write::Upload { id, .. })) => {
                Some(&known(&observed).unwrap().view.snapshot.entry(id).unwrap().entity)
            }
            Some(Step::Write(Write::Create(_))) => None,
            _ => return Ok(()),
        };
        let file = observed.file.as_ref().unwrap();
        prop_assert!(file.expiration > observed.now);
        let wanted = observed.spec.organization_name.as_deref();
        prop_assert!(wanted.is_none_or(|wanted| is_alike(Some(wanted), &file.organization_name)));
        let Some(entity) = entity else { return Ok(()) };
        prop_assert!(entity.expiration.is_none_or(|at| at.as_second() <= file.expiration.as_second()));
        prop_assert!(wanted.is_some() || is_alike(entity.organization_name.as_deref(), &file.organization_name));
        let Some(Step::Write(Write::Upload { id, request, .. })) = &plan.step else { return Ok(()) };
        let entry = known(&observed).unwrap().view.snapshot.entry(id).unwrap();
        let was_asked = observed.live_since.is_some_and(|since| entry.was_asked_since(since));
        prop_assert!(was_asked, "on the word of a list");
        let is_open = observed.object.upload_request != observed.status.last_handled_upload_request;
        prop_assert_eq!(request.is_some(), observed.object.upload_request.is_some() && is_open);
        if let Some(uploaded) = &observed.status.uploaded {
            prop_assert!(uploaded.sha256 != file.sha256 || request.is_some());
            let is_older = file.expiration < uploaded.expiration_date_time;
            prop_assert!(!is_older || plan.status.uploaded.unwrap().shown, "older than one that Graph does not show yet");
        }
    }

    #[test]
    fn never_recreate_to_renew_a_token_that_is_there_keeps_its_id(observed in world()) {
        if own_entry(&observed).is_none() || observed.object.deleting.is_some() {
            return Ok(());
        }
        let plan = plan(&observed);
        let id = observed.status.token_id.as_deref();
        prop_assert_eq!(plan.status.token_id.as_deref(), id);
        match &plan.step {
            Some(step @ (Step::ConfirmUpload { .. } | Step::Write(Write::Upload { .. }) | Step::Write(Write::Update { .. }) | Step::Write(Write::Sync { .. }))) => prop_assert_eq!(target(step), id),
            Some(step) => {
                let is_local =
                    matches!(step, Step::AddFinalizer | Step::RemoveFinalizer { .. } | Step::Note(_) | Step::DeclineSync { .. } | Step::DeclineUpload { .. });
                prop_assert!(is_local, "{:?}", step);
            }
            None => {}
        }
    }

    #[test]
    fn never_recreate_a_token_is_forgotten_only_when_it_has_vanished_for_certain(observed in world()) {
        let plan = plan(&observed);
        if let (Some(id), None) = (&observed.status.token_id, &plan.status.token_id) {
            prop_assert!(known(&observed).unwrap().view.snapshot.is_confirmed_absent(id));
            let is_lost = |id: &str| own_entry_of(&observed, id).is_none();
            let lost = observed.others.claims.ids().filter(|id| is_lost(id)).count() + 1;
            let all = observed.others.claims.ids().count() + 1;
            prop_assert!(lost == 1 || lost < all && (lost <= 3 || lost * 2 < all), "{lost} of {all}");
        }
    }

    #[test]
    fn never_fight_what_an_elder_has_is_left_alone(observed in world()) {
        let plan = plan(&observed);
        let Some(id) = observed.status.token_id.as_deref() else { return Ok(()) };
        let is_elder =
            |other: Owner| (other.created, &*other.uid) < (observed.object.created, &*observed.object.uid);
        if !observed.others.claims.owners(id).any(is_elder) || own_entry(&observed).is_none() {
            return Ok(());
        }
        prop_assert!(plan.step.as_ref().is_none_or(|step| !step.writes()));
        prop_assert!(!is(&plan, ConditionType::Ready, "True"));
    }

    #[test]
    fn a_create_sends_the_decided_file_for_its_intent_and_what_the_manifest_names(observed in world()) {
        let plan = plan(&observed);
        let Some(Step::Write(Write::Create(new))) = &plan.step else { return Ok(()) };
        prop_assert_eq!(Some(&new.pending), observed.status.pending_create.as_deref());
        prop_assert_eq!(Ok(&new.file), observed.file.as_ref());
        prop_assert_eq!(&new.request, &observed.object.upload_request);
        let (spec, sent) = (&observed.spec, &new.settings);
        prop_assert_eq!(&sent.apple_id, &spec.apple_id);
        let account_type = spec.vpp_token_account_type.map_or("business", AccountType::as_graph);
        prop_assert_eq!(sent.vpp_token_account_type, Some(account_type));
        prop_assert_eq!(&sent.country_or_region, &spec.country_or_region);
        prop_assert_eq!(sent.automatically_update_apps, spec.automatically_update_apps);
        let knows_beta = known(&observed).unwrap().identity.api == GraphApi::Beta;
        prop_assert_eq!(&sent.display_name, &spec.display_name.clone().filter(|_| knows_beta));
        prop_assert_eq!(&sent.role_scope_tag_ids, &spec.role_scope_tag_ids.clone().filter(|_| knows_beta));
        let is_named = |field| new.named.iter().any(|(named, _)| *named == field);
        prop_assert_eq!(is_named(Field::AccountType), spec.vpp_token_account_type.is_some());
    }

    #[test]
    fn never_fight_only_what_the_manifest_names_and_graph_has_otherwise_is_sent(observed in world()) {
        let plan = plan(&observed);
        let Some(Step::Write(Write::Update { changes, settings, .. })) = &plan.step else { return Ok(()) };
        let entry = own_entry(&observed).unwrap();
        let entity = &entry.entity;
        prop_assert!(!changes.is_empty());
        let changed = |field| changes.contains_key(&field);
        prop_assert_eq!(&settings.apple_id, &observed.spec.apple_id.clone().filter(|_| changed(Field::AppleId)));
        let account_type = observed.spec.vpp_token_account_type.filter(|_| changed(Field::AccountType));
        prop_assert_eq!(settings.vpp_token_account_type, account_type.map(AccountType::as_graph));
        let country = observed.spec.country_or_region.clone().filter(|_| changed(Field::CountryOrRegion));
        prop_assert_eq!(&settings.country_or_region, &country);
        let updates = observed.spec.automatically_update_apps.filter(|_| changed(Field::AutomaticallyUpdateApps));
        prop_assert_eq!(settings.automatically_update_apps, updates);
        prop_assert_eq!(&settings.display_name, &observed.spec.display_name.clone().filter(|_| changed(Field::DisplayName)));
        prop_assert_eq!(settings.role_scope_tag_ids.is_some(), changed(Field::RoleScopeTagIds));
        for (field, Wanted { found, wanted }) in changes {
            let (asked, shown) = match field {
                Field::AppleId => (observed.spec.apple_id.clone(), entity.apple_id.clone()),
                Field::AccountType => (
                    observed.spec.vpp_token_account_type.map(|it| it.as_graph().to_owned()),
                    entity.vpp_token_account_type.clone(),
                ),
                Field::DisplayName => (observed.spec.display_name.clone(), entity.display_name.clone()),
                Field::RoleScopeTagIds => (Some("0, 7".into()), None),
                Field::DataSharingConsentGranted | Field::ClaimTokenManagement => {
                    return Err(TestCaseError::fail("nobody asks for it"));
                }
                Field::CountryOrRegion => {
                    (observed.spec.country_or_region.clone(), entity.country_or_region.clone())
                }
                Field::AutomaticallyUpdateApps => (
                    observed.spec.automatically_update_apps.map(|it| it.to_string()),
                    entity.automatically_update_apps.map(|it| it.to_string()),
                ),
            };
            let is_known = !field.is_beta() || known(&observed).unwrap().identity.api == GraphApi::Beta;
            prop_assert!(is_known, "v1.0 does not have it");
            prop_assert_eq!(asked.as_ref(), Some(wanted));
            prop_assert_eq!(&shown, found);
            prop_assert!(!found.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(wanted)));
            let tries = observed.attempts.tries.get(field).filter(|(value, _)| value == wanted);
            prop_assert!(tries.is_none_or(|(_, times)| *times < 3), "sent for ever");
            let written = entry.written(*field).filter(|it| it.value == *wanted);
            prop_assert!(written.is_none_or(|it| observed.now >= it.at + observed.timings.settling), "not settled");
        }
    }

    #[test]
    fn never_spin_planning_again_without_a_step_changes_nothing(observed in world()) {
        let first = plan(&observed);
        if first.step.is_some() {
            return Ok(());
        }
        let second = plan(&Observed { status: first.status.clone(), ..observed });
        // Beside what needs a person, what ends by itself is not shown. Once that is reported, it need not be found again.
        let shown = |plan: Plan| {
            let has_action = plan.blockers.iter().any(|blocker| blocker.needs_action);
            let blockers = plan.blockers.into_iter().filter(|blocker| blocker.needs_action || !has_action).collect();
            Plan { blockers, ..plan }
        };
        prop_assert_eq!(shown(second), shown(first));
    }

    #[test]
    fn never_spin_time_alone_changes_nothing_before_the_next_requeue(observed in world(), part in 0.0..1.0f64) {
        let first = plan(&observed);
        if first.step.is_some() {
            return Ok(());
        }
        let wait = first.requeue_after.unwrap_or(DAY * 50);
        // Lists come by themselves; when none comes any more, that is a problem, which triggers a reconcile.
        let stale = known(&observed)
            .filter(|tenant| tenant.view.problem.is_none())
            .and_then(|tenant| Some(tenant.view.snapshot.read_at()? + tenant.view.poll_interval * 3))
            .filter(|stale| *stale >= observed.now);
        let wait = stale.map_or(wait, |stale| wait.min(stale.duration_since(observed.now)));
        let then = observed.now + SignedDuration::from_secs_f64(wait.as_secs_f64() * part * 0.999);
        let wall = observed.wall + then.duration_since(observed.now);
        let later = Observed { status: first.status.clone(), now: then, wall, ..observed };
        let second = plan(&later);
        prop_assert_eq!(second.step, None);
        prop_assert_eq!(second.status, first.status);
    }

    #[test]
    fn never_spin_a_failure_waits_out_its_delay_unless_its_inputs_change(observed in world()) {
        let step = plan(&observed).step;
        let failure = step.as_ref().and_then(Step::kind).and_then(|kind| observed.failure(kind));
        if let Some(failure) = failure {
            prop_assert!(observed.now >= failure.not_before);
            let last_list = known(&observed).unwrap().view.snapshot.last_list();
            prop_assert!(!failure.maybe_executed || last_list > Some(failure.at), "tried again without a look");
        }
    }

    #[test]
    fn never_spin_the_next_requeue_is_ahead_and_a_list_is_never_requested_from_the_future(observed in world()) {
        let plan = plan(&observed);
        prop_assert!(plan.requeue_after.is_none_or(|requeue_after| requeue_after >= SignedDuration::from_millis(100)));
        prop_assert!(plan.list_after.is_none_or(|after| after <= observed.now));
    }

    #[test]
    fn never_spin_a_sync_is_started_only_for_a_reason_and_not_while_one_runs(observed in world()) {
        let plan = plan(&observed);
        let Some(Step::Write(Write::Sync { request, priority, .. })) = &plan.step else { return Ok(()) };
        let entry = own_entry(&observed).unwrap();
        prop_assert!(entry.syncing_since.is_none_or(|since| observed.now >= since + HOUR));
        let last = plan.status.last_sync_trigger_time;
        let is_new_request = observed.object.sync_request.is_some()
            && observed.object.sync_request != observed.status.last_handled_sync_request;
        prop_assert_eq!(request.is_some(), is_new_request);
        let was_uploaded = plan.status.uploaded.as_ref().is_some_and(|it| last.is_none_or(|last| last < it.time));
        let is_due = plan.status.next_sync_time.is_some_and(|next| next <= observed.now);
        prop_assert!(is_new_request || was_uploaded || is_due);
        prop_assert_eq!(*priority == Priority::Interactive, is_new_request || was_uploaded);
        // Started now, it is not due again.
        let mut then = observed.clone();
        then.status = plan.status.clone();
        then.status.last_sync_trigger_time = Some(observed.now);
        then.status.last_handled_sync_request = observed.object.sync_request.clone();
        let is_started_again = matches!(super::plan(&then).step, Some(Step::Write(Write::Sync { .. })));
        prop_assert!(!is_started_again);
    }

    #[test]
    fn suspended_or_observing_nothing_is_written_and_requests_are_answered(observed in world()) {
        let is_observed = observed.spec.management_policy == ManagementPolicy::Observe;
        let plan = plan(&observed);
        if !is_observed && !observed.spec.suspend {
            let declines = matches!(plan.step, Some(Step::DeclineSync { .. } | Step::DeclineUpload { .. }));
            prop_assert!(!declines);
            return Ok(());
        }
        prop_assert!(plan.step.as_ref().is_none_or(|step| !step.writes()), "{:?}", plan.step);
        let creates = matches!(plan.step, Some(Step::RecordIntent(_) | Step::Write(Write::Create(_))));
        prop_assert!(!creates);
        if is_observed {
            let changes = matches!(plan.step, Some(Step::Adopt { .. })) && observed.status.pending_create.is_none();
            prop_assert!(!changes && plan.step != Some(Step::AddFinalizer));
        }
        let is_open = observed.object.sync_request.is_some()
            && observed.object.sync_request != observed.status.last_handled_sync_request
            && plan.status.last_handled_sync_request != observed.object.sync_request;
        if observed.object.deleting.is_none() {
            prop_assert_eq!(plan.status.next_sync_time, None);
            prop_assert!(!is_open || !is_observed || plan.step.is_some(), "nobody answers the request");
            if !is_observed {
                let handled = |status: &VppTokenStatus| status.last_handled_upload_request.clone();
                prop_assert_eq!(handled(&plan.status), handled(&observed.status));
                let is_declined = matches!(plan.step, Some(Step::DeclineSync { .. } | Step::DeclineUpload { .. }));
                prop_assert!(!is_declined, "it stays open");
            }
        } else if observed.object.has_finalizer {
            let is_let_go = matches!(plan.step, Some(Step::RemoveFinalizer { .. }));
            prop_assert!(is_let_go, "{:?}", plan.step);
        }
    }

    #[test]
    fn only_what_the_tenant_allows_is_done(observed in world()) {
        let needed = match plan(&observed).step {
            Some(Step::Write(Write::Create(_))) => Permission::Create,
            Some(Step::RecordIntent(_)) => Permission::Create,
            Some(Step::Bind { .. }) => Permission::Bind,
            Some(Step::Write(Write::Delete { .. })) => Permission::Delete,
            // The result of our own intent needs no permission to be adopted.
            Some(Step::Adopt { .. }) if observed.status.pending_create.is_none() => Permission::Adopt,
            _ => return Ok(()),
        };
        prop_assert!(known(&observed).unwrap().allowed.contains(&needed));
    }

    #[test]
    fn nothing_is_asked_of_a_tenant_that_is_unusable_forbidden_another_or_in_trouble(observed in world()) {
        let step = plan(&observed).step;
        let is_local = matches!(step, None | Some(
            Step::AddFinalizer | Step::RemoveFinalizer { .. } | Step::AbandonIntent { .. }
                | Step::DeclineSync { .. } | Step::DeclineUpload { .. }
        ));
        let Some(tenant) = known(&observed) else {
            prop_assert!(is_local);
            return Ok(());
        };
        let lives_in = observed.status.tenant.as_ref().filter(|_| observed.status.token_id.is_some());
        let place = |it: &VppTokenTenant| (it.cloud, it.tenant_id.clone());
        if lives_in.is_some_and(|it| place(it) != place(&tenant.identity)) || tenant.view.snapshot.read_at().is_none() {
            prop_assert!(is_local);
        }
        if tenant.view.problem.is_some() {
            prop_assert!(step.as_ref().and_then(Step::kind).is_none(), "{:?}", step);
        }
    }

    #[test]
    fn conditions_agree_with_each_other(observed in world()) {
        let plan = plan(&observed);
        let conditions = &plan.status.conditions;
        let types: BTreeSet<&str> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
        prop_assert_eq!(types.len(), conditions.len());
        let ready = is(&plan, ConditionType::Ready, "True");
        let reconciling = is(&plan, ConditionType::Reconciling, "True");
        let stalled = is(&plan, ConditionType::Stalled, "True");
        prop_assert!(!(reconciling && stalled));
        // The conditions stay until the tenant's tokens are known.
        let is_as_before = *conditions == observed.status.conditions;
        prop_assert!(!(ready && (reconciling || stalled || !plan.blockers.is_empty() && !is_as_before)));
        prop_assert_eq!(is(&plan, ConditionType::Ready, "False"), reconciling || stalled);
        prop_assert_eq!(plan.status.observed_generation, Some(observed.object.generation));
        if ready && !is_as_before {
            prop_assert!(own_entry(&observed).is_some());
            prop_assert!(!is(&plan, ConditionType::TokenValid, "False"));
            let is_due = matches!(plan.step, Some(Step::ConfirmUpload { .. } | Step::Write(Write::Upload { .. }) | Step::Write(Write::Update { .. }) | Step::Write(Write::Create(_)) | Step::RecordIntent(_)));
            prop_assert!(!is_due);
        }
        if observed.object.deleting.is_some() {
            prop_assert!(is_as_before || (reconciling || stalled) == observed.object.has_finalizer);
        } else {
            prop_assert!(find(conditions, ConditionType::Ready).is_some());
        }
        if observed.object.deleting.is_none() || observed.object.has_finalizer {
            prop_assert!(is_as_before || stalled == plan.blockers.iter().any(|blocker| blocker.needs_action));
        }
        for condition in conditions {
            prop_assert!(condition.message.ends_with('.'), "{}", condition.message);
        }
    }

    #[test]
    fn always_arrives_whatever_is_waited_for_something_brings_it_back(observed in world()) {
        let plan = plan(&observed);
        let is_going = observed.object.deleting.is_some() && !observed.object.has_finalizer;
        if is_going || !is(&plan, ConditionType::Reconciling, "True") || plan.step.is_some() {
            return Ok(());
        }
        let problem = known(&observed).is_some_and(|tenant| tenant.view.problem.is_some());
        let comes_with_an_object = plan.blockers.iter().any(|blocker| {
            matches!(
                blocker.reason,
                Reason::SecretNotFound
                    | Reason::SecretKeyNotFound
                    | Reason::SecretNotReadable
                    | Reason::TenantNotFound
            )
        });
        let comes_with_the_tenant = known(&observed).is_none() || problem;
        let comes_with_graph = plan.blockers.iter().any(|blocker| blocker.reason == Reason::StateUnknown);
        let needs_action = plan.blockers.iter().any(|blocker| blocker.needs_action);
        prop_assert!(
            plan.requeue_after.is_some()
                || plan.list_after.is_some()
                || comes_with_an_object
                || comes_with_the_tenant
                || comes_with_graph
                || needs_action,
            "nobody comes back: {:?}",
            plan.blockers
        );
    }
}

fn own_entry_of<'a>(observed: &'a Observed, id: &str) -> Option<&'a Entry> {
    known(observed)?.view.snapshot.entry(id)
}

/// Properties of worlds that never get that far prove nothing.
#[test]
fn the_worlds_reach_every_step_and_every_reason() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |what: String| *reached.entry(what).or_default() += 1;
    for _ in 0..8_000 {
        let observed = world().new_tree(&mut runner).unwrap().current();
        let plan = plan(&observed);
        if let Some(step) = &plan.step {
            let text = format!("{step:?}");
            let name = text.strip_prefix("Write(").unwrap_or(&text).split([' ', '(']).next();
            count(name.unwrap_or_default().to_owned());
        }
        for condition in &plan.status.conditions {
            count(condition.reason.clone());
        }
    }
    for step in [
        "AddFinalizer",
        "RemoveFinalizer",
        "RecordIntent",
        "AbandonIntent",
        "Create",
        "Adopt",
        "Bind",
        "DeclineSync",
        "Update",
        "Sync",
        "Confirm",
        "Delete",
    ] {
        assert!(reached.get(step).is_some_and(|n| *n >= 10), "{step}: {reached:#?}");
    }
    for reason in Reason::ALL {
        assert!(reached.contains_key(reason.as_str()), "{reason}: {reached:#?}");
    }
}
