//! Tables and properties of plan. They expect what the design specifies, not what the code does.

mod adopting;
mod converged;
mod creating;
mod deleting;
mod draft;
mod file;
mod managing;
mod messages;
mod policies;
mod properties;
mod reporting;
mod restart;
mod step;
mod syncing;
mod tenant;
mod unread;
mod vanishing;
mod verdict;
mod want;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use want::{check, ready, stalled, waiting, working};

use super::*;
use crate::api::{
    Cloud, GraphApi, ManagementPolicy, NamespacedName, PendingCreate, TokenEncoding, Uploaded, VppTokenTenant,
};
use crate::graph::{Entity, ErrorKind, GraphError, TokenSettings};
use crate::tenant::{Priority, Problem, Snapshot, TenantView, Timings};
use crate::vpptoken::claims::{ObjectIdentity, OthersClaims, Owner};
use crate::vpptoken::observed::{Attempts, Failure, FileFacts, FileProblem, Object, Others, TenantState, UnsentIntent};

const APPLE_ID: &str = "vpp.berlin@contoso.example";
const ORGANIZATION: &str = "Contoso";
const TENANT: &str = "8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11";
/// The token of the world that is ready.
const OURS: &str = "t1";

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The time of every world.
fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn ago(duration: SignedDuration) -> Timestamp {
    now() - duration
}

fn in_(duration: SignedDuration) -> Timestamp {
    now() + duration
}

/// When the file of the world expires.
fn expiry() -> Timestamp {
    in_(DAY * 200)
}

/// What is observed, with a tenant that is written down as lists and writes rather than as the snapshot they make.
#[derive(Clone, Debug)]
struct World {
    observed: Observed,
    /// What Graph has.
    tokens: Vec<Entity>,
    /// When lists began, and which tokens each lacked.
    lists: Vec<(Timestamp, BTreeSet<String>)>,
    /// What this process wrote, and when that ended.
    written: Vec<(String, Field, String, Timestamp)>,
    /// What was missing for so long, until now, that it counts as vanished.
    confirmed_absent: Vec<(String, Timestamp)>,
    /// What a GET did not find at a time, and none has been asked for since.
    missing: Vec<(String, Timestamp)>,
    /// What we deleted.
    deleted: Vec<(String, Timestamp)>,
    /// What a GET showed that began after all lists.
    asked: Vec<String>,
}

impl Deref for World {
    type Target = Observed;
    fn deref(&self) -> &Observed {
        &self.observed
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Observed {
        &mut self.observed
    }
}

impl World {
    /// The schedule was due five days ago, as the status had shown.
    fn missed(&mut self) {
        self.token().last_sync = Some("2026-11-15T18:00:03Z".parse().unwrap());
        self.status.next_sync_time = Some("2026-11-16T06:00:00Z".parse().unwrap());
        self.status.observed_generation = Some(3);
    }

    /// Graph has exactly what the manifest asks for, as the status shows.
    fn ready() -> Self {
        let token = token(OURS);
        let mut world = Self::new_object();
        world.status.token_id = Some(OURS.into());
        world.status.tenant = Some(identity());
        world.status.uploaded = Some(Uploaded {
            sha256: "digest-1".into(),
            expiration_date_time: expiry(),
            organization_name: ORGANIZATION.into(),
            time: ago(DAY * 20),
            encoding: Some(TokenEncoding::AsIs),
            secret_version: Some(FILE_VERSION.into()),
            shown: false,
        });
        world.status.last_sync_trigger_time = Some(ago(DAY * 20));
        world.tokens = vec![token];
        world
    }

    /// A VppToken that was not reconciled yet, in a tenant without tokens.
    fn new_object() -> Self {
        let spec = serde_json::json!({
            "tokenSecretRef": { "name": "berlin-vpp" },
            "appleId": APPLE_ID,
            "countryOrRegion": "de",
            "automaticallyUpdateApps": true,
        });
        let tenant = KnownTenant {
            identity: identity(),
            allowed: BTreeSet::from([Permission::Create, Permission::Adopt, Permission::Bind, Permission::Delete]),
            view: TenantView {
                snapshot: Arc::default(),
                problem: None,
                poll_interval: MINUTE * 5,
                opened: now(),
                paused_until: None,
            },
        };
        let observed = Observed {
            now: now(),
            wall: now(),
            live_since: None,
            object: Object {
                uid: "uid-5".into(),
                generation: 3,
                created: ago(DAY * 30),
                deleting: None,
                namespace_deleting: false,
                has_finalizer: false,
                sync_request: None,
                upload_request: None,
            },
            spec: serde_json::from_value(spec).unwrap(),
            status: VppTokenStatus { observed_generation: Some(-1), ..VppTokenStatus::default() },
            file: Ok(FileFacts {
                sha256: "digest-1".into(),
                expiration: expiry(),
                organization_name: ORGANIZATION.into(),
                encoding: TokenEncoding::AsIs,
                secret_version: FILE_VERSION.into(),
            }),
            tenant: TenantState::Known(tenant),
            others: Others::default(),
            attempts: Attempts::default(),
            crd_terminating: false,
            timings: Timings::default(),
        };
        Self {
            observed,
            tokens: Vec::new(),
            lists: vec![(ago(MINUTE * 8), BTreeSet::new()), (ago(MINUTE * 3), BTreeSet::new())],
            written: Vec::new(),
            confirmed_absent: Vec::new(),
            missing: Vec::new(),
            deleted: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn token(&mut self) -> &mut Entity {
        &mut self.tokens[0]
    }

    fn file(&mut self) -> &mut FileFacts {
        self.observed.file.as_mut().unwrap()
    }

    fn uploaded(&mut self) -> &mut Uploaded {
        self.observed.status.uploaded.as_mut().unwrap()
    }

    fn known(&mut self) -> Option<&mut KnownTenant> {
        match &mut self.observed.tenant {
            TenantState::Known(tenant) => Some(tenant),
            _ => None,
        }
    }

    fn forbid(&mut self, permission: Permission) {
        self.known().unwrap().allowed.remove(&permission);
    }

    /// The tenant can't be listed.
    fn problem(&mut self, kind: ErrorKind, since: Timestamp) {
        if let Some(tenant) = self.known() {
            tenant.view.problem = Some(Problem { since, error: graph_error(kind) });
        }
    }

    /// A step failed a second ago, and may be tried again in a minute.
    fn failed(&mut self, kind: StepKind, error: ErrorKind) -> &mut Failure {
        let ours = self.tokens.iter().find(|token| token.id == OURS);
        let failure = Failure {
            kind: error,
            message: "It failed.".into(),
            since: ago(SECOND),
            began: ago(SECOND),
            began_wall: ago(SECOND),
            last_sync: ours.and_then(|token| token.last_sync),
            at: ago(SECOND),
            count: 1,
            not_before: in_(MINUTE),
            maybe_executed: kind != StepKind::Confirm && graph_error(error).maybe_executed(),
            inputs: self.observed.inputs(),
        };
        self.observed.attempts.failures.entry(kind).or_insert(failure)
    }

    /// Another VppToken has a token, in another namespace.
    fn claimed(&mut self, id: &str, created: Timestamp, uid: &str) {
        let name = NamespacedName::new("elsewhere", "other");
        self.others.claims.add(id, ObjectIdentity { created, uid: uid.into(), name });
    }

    /// A VppToken of the same namespace has a token.
    fn claimed_here(&mut self, id: &str, name: &str) {
        let name = NamespacedName::new("", name);
        self.others.claims.add(id, ObjectIdentity { created: ago(DAY), uid: "uid-9".into(), name });
    }

    /// The manifest says that these are other locations.
    fn distinct(&mut self, ids: &[&str]) {
        self.spec.distinct_from = ids.iter().map(|id| (*id).into()).collect();
    }

    /// An intent was recorded, and whether its create was sent is not known; this process has run for longer.
    fn pending(&mut self, since: Timestamp, known_ids: &[&str]) {
        if let Some(tenant) = self.known() {
            tenant.view.opened = since - MINUTE;
        }
        self.status.pending_create = Some(Box::new(pending(since, known_ids)));
    }

    /// An intent was recorded by this process, and its create was not sent.
    fn record_intent(&mut self, since: Timestamp, known_ids: &[&str]) {
        self.pending(since, known_ids);
        self.attempts.unsent_intent = Some(UnsentIntent { since, list_after: since, is_recorded: true });
    }

    fn being_deleted(&mut self) {
        self.object.deleting = Some(ago(SECOND));
        self.object.has_finalizer = true;
        self.spec.deletion_policy = DeletionPolicy::Delete;
    }

    fn schedule(&mut self, schedule: &str) {
        self.spec.sync = Some(serde_json::from_value(serde_json::json!({ "schedule": schedule })).unwrap());
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut events: Vec<(Timestamp, usize, bool)> = Vec::new();
        events.extend(self.lists.iter().enumerate().map(|(n, (began, _))| (*began, n, true)));
        events.extend(self.written.iter().enumerate().map(|(n, write)| (write.3, n, false)));
        events.sort();
        let vanished_after = self.timings.vanished_after;
        let absent = self.confirmed_absent.iter().map(|(id, at)| (id, *at - vanished_after));
        let missing: Vec<(&String, Timestamp)> = self.missing.iter().map(|(id, at)| (id, *at)).chain(absent).collect();
        for (time, n, is_list) in events {
            if is_list {
                let is_missing = |token: &Entity| missing.iter().any(|(id, since)| **id == token.id && time > *since);
                let lacks = &self.lists[n].1;
                let listed = self.tokens.iter().filter(|token| !lacks.contains(&token.id) && !is_missing(token));
                let ended = (time + SECOND).min(self.now);
                let _ = snapshot.merge(time, ended, listed.cloned().collect(), self.timings.settling);
            } else {
                let (id, field, value, _) = &self.written[n];
                let answer = self.tokens.iter().find(|token| token.id == *id).cloned();
                snapshot.record_write_started(id);
                snapshot.record_write_ended(id, answer, &[(*field, value.clone())], time);
            }
        }
        for (id, at) in &self.confirmed_absent {
            snapshot.record_missing(id, *at - vanished_after, *at - vanished_after, vanished_after);
            snapshot.record_missing(id, *at, *at, vanished_after);
        }
        for (id, at) in &self.missing {
            snapshot.record_missing(id, *at, *at, vanished_after);
        }
        for (id, at) in &self.deleted {
            snapshot.record_deleted(id, *at);
        }
        for id in &self.asked {
            if let Some(entity) = self.tokens.iter().find(|token| token.id == *id) {
                snapshot.record_found(entity.clone(), self.now, self.now);
            }
        }
        snapshot
    }

    fn observe(&self) -> Observed {
        let mut observed = self.observed.clone();
        if let TenantState::Known(tenant) = &mut observed.tenant {
            tenant.view.snapshot = Arc::new(self.snapshot());
        }
        observed
    }
}

/// A new object whose intent was recorded by this process, before the last list.
fn recorded() -> World {
    let mut world = World::new_object();
    world.record_intent(ago(MINUTE * 4), &[]);
    world
}

/// A new object whose intent was recorded by an earlier process.
fn unknown() -> World {
    let mut world = World::new_object();
    world.pending(ago(MINUTE * 5), &[]);
    world
}

fn deleting() -> World {
    let mut world = World::ready();
    world.being_deleted();
    world
}

/// Ready, with a newer file in the Secret.
fn renewal() -> World {
    let mut world = World::ready();
    world.file().sha256 = "digest-2".into();
    world.file().expiration = in_(DAY * 365);
    world
}

/// Observed by its id, and without anything that a manifest could ask for; people manage it by hand.
fn observed_by_id() -> World {
    let mut world = World::new_object();
    world.tokens = vec![Entity { country_or_region: Some("fr".into()), ..token(OURS) }];
    world.spec.management_policy = ManagementPolicy::Observe;
    world.spec.token_id = Some(OURS.into());
    world.spec.token_secret_ref = None;
    world.spec.apple_id = None;
    world.file = Err(FileProblem::NotNamed);
    world
}

/// Ready, with the country changed by someone else.
fn drift() -> World {
    let mut world = World::ready();
    world.token().country_or_region = Some("fr".into());
    world
}

fn identity() -> VppTokenTenant {
    VppTokenTenant { cloud: Cloud::Global, tenant_id: TENANT.into(), api: GraphApi::V1 }
}

/// A token that Graph shows for the world's file.
fn token(id: &str) -> Entity {
    Entity {
        id: id.into(),
        organization_name: Some(ORGANIZATION.into()),
        vpp_token_account_type: Some("business".into()),
        apple_id: Some(APPLE_ID.into()),
        expiration: Some(expiry()),
        last_sync: Some(ago(HOUR * 3)),
        last_modified: Some(ago(HOUR * 3)),
        state: Some("valid".into()),
        last_sync_status: Some("completed".into()),
        automatically_update_apps: Some(true),
        country_or_region: Some("de".into()),
        ..Entity::default()
    }
}

fn pending(since: Timestamp, known_ids: &[&str]) -> PendingCreate {
    PendingCreate {
        sha256: "digest-1".into(),
        since,
        apple_id: APPLE_ID.into(),
        organization_name: ORGANIZATION.into(),
        expiration_date_time: expiry(),
        known_ids: known_ids.iter().map(|id| (*id).to_owned()).collect(),
    }
}

fn graph_error(kind: ErrorKind) -> GraphError {
    GraphError {
        kind,
        sentence: "Graph says no".into(),
        code: Some("Code".into()),
        status: None,
        retry_after: None,
        request_id: None,
        activity_id: None,
    }
}

fn upload() -> Step {
    Step::ConfirmUpload { id: OURS.into() }
}

fn upload_now(file: &FileFacts, request: Option<&str>) -> Step {
    Step::Write(Write::Upload { id: OURS.into(), file: file.clone(), request: request.map(str::to_owned) })
}

/// The settings as they are sent follow from the changes and the world.
fn update(changes: &[(Field, Option<&str>, &str)]) -> Step {
    let text = |text: &str| text.to_owned();
    let wanted = |(field, found, wanted): &(Field, Option<&str>, &str)| {
        (*field, Wanted { found: found.map(text), wanted: text(wanted) })
    };
    let changes = changes.iter().map(wanted).collect();
    Step::Write(Write::Update { id: OURS.into(), changes, settings: TokenSettings::default() })
}

/// A create, of anything.
fn create() -> Step {
    let mut world = recorded();
    let (pending, file) = (pending(now(), &[]), world.file().clone());
    let settings = TokenSettings::default();
    Step::Write(Write::Create(Box::new(NewToken { pending, file, settings, named: Vec::new(), request: None })))
}

fn is_create(step: &Option<Step>) -> bool {
    matches!(step, Some(Step::Write(Write::Create(_))))
}

/// The end of an intent, whenever it was recorded.
fn abandon() -> Step {
    Step::AbandonIntent { since: now() }
}

fn is_abandon(step: &Option<Step>) -> bool {
    matches!(step, Some(Step::AbandonIntent { .. }))
}

fn sync(priority: Priority, request: Option<&str>) -> Step {
    Step::Write(Write::Sync { id: OURS.into(), priority, request: request.map(str::to_owned) })
}

fn person_sync() -> Step {
    sync(Priority::Interactive, None)
}

fn scheduled_sync() -> Step {
    sync(Priority::Scheduled, None)
}

fn adopt(id: &str, time: Timestamp) -> Step {
    Step::Adopt { id: id.into(), uploaded: uploaded(time), is_own_create: false }
}

/// Takes over the result of a create, which was made of a file of an unknown version of the Secret.
fn adopt_created(id: &str, time: Timestamp) -> Step {
    let uploaded = Uploaded { encoding: None, secret_version: None, ..uploaded(time) };
    Step::Adopt { id: id.into(), uploaded, is_own_create: true }
}

/// The version of the Secret, and its key.
const FILE_VERSION: &str = "uid/1/token";

fn uploaded(time: Timestamp) -> Uploaded {
    Uploaded {
        sha256: "digest-1".into(),
        expiration_date_time: expiry(),
        organization_name: ORGANIZATION.into(),
        time,
        encoding: Some(TokenEncoding::AsIs),
        secret_version: Some(FILE_VERSION.into()),
        shown: false,
    }
}

fn record_intent(known_ids: &[&str]) -> Step {
    Step::RecordIntent(pending(now(), known_ids))
}

fn confirm() -> Step {
    Step::Confirm { id: OURS.into() }
}

fn delete() -> Step {
    Step::Write(Write::Delete { id: OURS.into() })
}

fn remove_finalizer() -> Step {
    Step::RemoveFinalizer { warning: None }
}

fn decline() -> Step {
    Step::DeclineSync { request: "now".into() }
}

fn older(id: &str) -> Entity {
    Entity { expiration: Some(in_(DAY * 10)), ..token(id) }
}

/// A token with an Apple ID that the manifest does not name.
fn of_another(token: Entity) -> Entity {
    Entity { apple_id: Some("other@contoso.example".into()), ..token }
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

/// The text of all tables, and of what they share.
const TABLES: [&str; 16] = [
    include_str!("adopting.rs"),
    include_str!("converged.rs"),
    include_str!("creating.rs"),
    include_str!("deleting.rs"),
    include_str!("draft.rs"),
    include_str!("file.rs"),
    include_str!("managing.rs"),
    include_str!("messages.rs"),
    include_str!("policies.rs"),
    include_str!("restart.rs"),
    include_str!("step.rs"),
    include_str!("syncing.rs"),
    include_str!("tenant.rs"),
    include_str!("vanishing.rs"),
    include_str!("verdict.rs"),
    include_str!("want.rs"),
];

#[test]
fn every_reason_has_a_row() {
    for reason in Reason::ALL {
        let name = format!("Reason::{reason}");
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric());
        assert!(TABLES.iter().any(|table| table.split(&name).skip(1).any(ends)), "{name}");
    }
}
