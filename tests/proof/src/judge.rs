//! Judges a history by what the API server and Graph saw. Of the world it is told which faults struck, what people did, and how
//! many processes run: what nobody could know is not held against the operator. Of the operator itself it knows nothing.
//!
//! Each rule has a name, which a broken history begins with:
//! `never_two`, `obeys`, `heeds`, `never_wipe`, `never_leak`, `never_rubbish`, `never_fight`, `never_spin`, `no_needless_write`,
//! `truthful`, `runs`, and, from the lives, `always_arrives` and `stays`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use graph_emulator::{By, Effect, Entity, Operation, TokenFile, sha256};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::fault::{CallKind, Fault};
use crate::graph::RETRY_AFTER;
use crate::kubernetes::USER;
use crate::world::{CLIENT_SECRET, TENANT, World, condition, text};

/// Calls that one minute may have, for each object and two more; more is spinning.
const MAX_CALLS_PER_MINUTE: usize = 90;
/// A request for the same thing may be made so often in ten minutes.
const MAX_SAME_CALLS: usize = 200;
/// A value that Graph does not keep is sent this often by a process, which counts in memory.
const MAX_TRIES: usize = 3;

/// Runs of a schedule are never closer together.
const MIN_SYNC_INTERVAL: SignedDuration = SignedDuration::from_mins(15);
/// What began at the same moment as the answer to another request arrived could not know of it.
const SAME_MOMENT: SignedDuration = SignedDuration::from_millis(50);

/// What is read right before a write, is read so long before at the most.
const RIGHT_BEFORE: SignedDuration = SignedDuration::from_mins(1);

/// Graph counts the writes of so long a time.
const WINDOW: SignedDuration = SignedDuration::from_secs(20);

/// The steps of the plan, each as it shows from outside.
pub const STEPS: [&str; 16] = [
    "AddFinalizer",
    "RemoveFinalizer",
    "RecordIntent",
    "AbandonIntent",
    "Create",
    "Adopt",
    "Bind",
    "Note",
    "ConfirmUpload",
    "Upload",
    "Update",
    "DeclineSync",
    "DeclineUpload",
    "Sync",
    "Confirm",
    "Delete",
];

/// A request of a process.
#[derive(Clone, Copy, Default)]
pub struct Sent {
    /// The process.
    pub by: u32,
    /// When it was sent.
    pub at: Timestamp,
}

/// What has been seen so far.
#[derive(Default)]
pub struct Judge {
    broken: Option<String>,
    struck: Vec<(Fault, CallKind)>,
    person_acted: Option<Timestamp>,
    portal_acted: Option<Timestamp>,
    portal_acts: usize,
    /// Inner tokens, and the expiry of each digest.
    secrets: BTreeSet<String>,
    files: BTreeMap<String, TokenFile>,
    writes_seen: usize,
    effects_seen: u64,
    calls: BTreeMap<i64, usize>,
    same_calls: BTreeMap<String, (i64, usize)>,
    noops: usize,
    /// Writes that came while several processes ran: without a lease each may send what the other sends.
    doubles: usize,
    hidden: BTreeSet<String>,
    /// The token that was asked for last.
    confirmed: String,
    /// When each process last asked for a token by its id.
    asked: BTreeMap<(u32, String), Timestamp>,
    /// Tokens that Graph answered a GET with 404 for.
    not_found: BTreeSet<String>,
    /// When each process sent its last writes.
    writes_sent: BTreeMap<u32, Vec<Timestamp>>,
    /// When a process was last told by Graph to wait.
    throttled: BTreeMap<u32, Timestamp>,
    /// When a person last deleted a tenant object.
    tenant_deleted: Option<Timestamp>,
    /// When each process last read something, and whether that showed that nothing may be written.
    reads: BTreeMap<(u32, String), (Timestamp, bool)>,
    /// The request that Graph carries out.
    sent: Sent,
    /// When a token was created, and by which process.
    created: BTreeMap<String, (Timestamp, u32)>,
    /// When the intent of each VppToken that has one was written.
    intents: BTreeMap<String, Timestamp>,
    /// When people created tokens that VppTokens were about to create.
    twins: BTreeMap<String, Timestamp>,
    /// Tokens that were in a status once, and since when.
    owned: BTreeMap<String, Timestamp>,
    uploads: BTreeMap<(String, String), usize>,
    /// When a file was last uploaded onto a token.
    uploaded: BTreeMap<String, Timestamp>,
    /// When the newest of the uploads was sent that have arrived.
    uploads_sent: BTreeMap<String, Timestamp>,
    /// Tokens whose last upload was sent before the one that arrived before it.
    overtaken: BTreeSet<String>,
    updates: BTreeMap<(String, Vec<String>), usize>,
    /// Updates that changed nothing.
    needless: usize,
    syncs: BTreeMap<String, usize>,
    sync_causes: BTreeMap<String, BTreeSet<String>>,
    /// Tokens that got a file from the operator and no sync since.
    unsynced: BTreeSet<String>,
    reasons: BTreeMap<String, usize>,
    steps: BTreeMap<&'static str, usize>,
    upload_requests: usize,
    restores: usize,
    object_names: BTreeSet<(String, String)>,
}

impl Judge {
    /// The rule that was broken first, if one was.
    pub fn broken(&self) -> Option<String> {
        self.broken.clone()
    }

    /// A rule is broken.
    pub fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// Reasons that conditions had, and how often they were written.
    pub fn reasons(&self) -> &BTreeMap<String, usize> {
        &self.reasons
    }

    /// Steps that were taken, as far as they show.
    pub fn steps(&self) -> &BTreeMap<&'static str, usize> {
        &self.steps
    }

    /// Whether Graph began a sync of a token after the operator last gave it a file.
    pub fn is_synced(&self, id: &str) -> bool {
        !self.unsynced.contains(id)
    }

    // What it is told of the history.

    /// A fault struck.
    pub fn struck(&mut self, fault: Fault, kind: CallKind) {
        self.struck.push((fault, kind));
    }

    /// A person used kubectl.
    pub fn person_acted(&mut self, at: Timestamp) {
        self.person_acted = Some(at);
    }

    /// A person used the portal.
    pub fn portal_acted(&mut self, at: Timestamp) {
        self.portal_acted = Some(at);
        self.portal_acts += 1;
    }

    /// Graph was away, or showed something else than it has.
    pub fn graph_disturbed(&mut self, at: Timestamp) {
        self.portal_acted = Some(at);
    }

    /// Whether Graph hid a token.
    pub fn has_hidden(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// Whether a person created a token that a VppToken was about to create.
    pub fn has_twins(&self) -> bool {
        !self.twins.is_empty()
    }

    /// Graph shows these tokens to nobody for a while.
    pub fn hidden(&mut self, ids: impl Iterator<Item = String>) {
        self.hidden.extend(ids);
    }

    /// A request of a process that is gone had its effect: another one that gave the token the same file and synced it before
    /// can't know.
    pub fn late_effect(&mut self, world: &World, sent: Sent, id: &str, was_synced: bool) {
        self.graph_answered(world, sent);
        if was_synced {
            self.unsynced.remove(id);
        }
    }

    /// A person created a token that a VppToken was about to create.
    pub fn created_in_portal(&mut self, id: String, at: Timestamp) {
        self.twins.insert(id, at);
    }

    /// A person uploaded a file in the portal; when the Secret has it, too, it is synced.
    pub fn uploaded_in_portal(&mut self, id: &str, digest: &str) {
        self.sync_causes.entry(id.to_owned()).or_default().insert(format!("portal {digest}"));
    }

    /// An old status was put back, and with it what it did not know yet.
    pub fn restored(&mut self) {
        self.restores += 1;
    }

    /// A token file that exists in this world.
    pub fn file_seen(&mut self, file: &TokenFile) {
        self.secrets.extend([file.inner().to_owned(), file.text()]);
        self.files.insert(sha256(&file.text()), file.clone());
    }

    // What it sees.

    /// The API server answers a read of a process.
    pub fn read(&mut self, world: &World, process: u32, key: &str) {
        let object = key.strip_prefix("GET vpptokens/").and_then(|rest| rest.split_once('/'));
        let object = object.and_then(|(namespace, name)| world.api.value("VppToken", namespace, name));
        let forbids = object.is_some_and(|object| forbids_writes(&object["spec"]));
        self.reads.insert((process, key.to_owned()), (world.now(), forbids));
    }

    /// Graph answers a request of a process with 429.
    pub fn throttled(&mut self, process: u32, at: Timestamp) {
        self.throttled.insert(process, at);
    }

    /// A person deletes a tenant object.
    pub fn tenant_deleted(&mut self, at: Timestamp) {
        self.tenant_deleted = Some(at);
    }

    /// Graph answers a GET with 404.
    pub fn not_found(&mut self, id: &str) {
        self.not_found.insert(id.to_lowercase());
    }

    /// A request to Graph begins.
    pub fn graph_call(&mut self, world: &World, process: u32, key: &str, id: Option<&str>) {
        self.look_at_graph(world);
        let is_to_wait = self.throttled.get(&process).is_some_and(|at| {
            let since = world.now().duration_since(*at);
            since > SAME_MOMENT && since < SignedDuration::from_secs(RETRY_AFTER.into())
        });
        // A session that was not let in yet shares its pause with nobody, and ends with its tenant object: the next one lists.
        let is_new_session = key.starts_with("LIST") && self.tenant_deleted >= self.throttled.get(&process).copied();
        // Access tokens come from another host.
        if is_to_wait && !is_new_session && key != "POST token" {
            self.fail(format!("heeds: {key} is sent although Graph asked to wait"));
        }
        if key == "POST vppTokens" && self.intents.is_empty() {
            self.fail("never_two: a create is sent, and no VppToken has an intent on record".into());
        }
        if key == "POST vppTokens" && !self.may_seem_stalled(world) {
            let objects = world.api.values("VppToken");
            let mut creating = objects.iter().filter(|it| self.intents.contains_key(text(&it["metadata"]["uid"])));
            // What Graph or Entra refused is tried again slowly.
            let may_go_on = |it: &Value| {
                let (stalled, reason) = condition(it, "Stalled");
                stalled != "True"
                    || ["GraphRefused", "PermissionMissing", "CredentialsRefused"].contains(&reason.as_str())
            };
            if !creating.any(|it| may_go_on(it)) {
                self.fail("truthful: a create is sent although its VppToken is Stalled".into());
            }
        }
        match id {
            Some(id) if key.starts_with("DELETE") => self.may_delete(world, process, id),
            Some(id) if key.starts_with("GET") => {
                self.step("Confirm");
                self.asked.insert((process, id.to_owned()), world.now());
                self.confirmed = id.to_owned();
            }
            _ => {}
        }
    }

    /// Whether another process, a restore, or a person may just have changed what statuses say.
    fn may_seem_stalled(&self, world: &World) -> bool {
        let acts = [self.portal_acted, self.person_acted].into_iter().flatten();
        let is_recent = |at: Timestamp| world.now().duration_since(at) < SignedDuration::from_mins(1);
        world.processes_started() > 1 || self.restores > 0 || acts.into_iter().any(is_recent) || self.intents.is_empty()
    }

    /// A process sends a write.
    pub fn write_sent(&mut self, world: &World, process: u32) {
        let (now, most) = (world.now(), world.limits().writes);
        let sent = self.writes_sent.entry(process).or_default();
        sent.retain(|at| now.duration_since(*at) < WINDOW);
        sent.push(now);
        if sent.len() > most {
            self.fail(format!("heeds: more than {most} writes in 20 s"));
        }
    }

    /// Graph carried out a request of a process.
    pub fn graph_answered(&mut self, world: &World, sent: Sent) {
        self.sent = sent;
        self.look_at_graph(world);
    }

    /// A request to the API server was carried out.
    pub fn kube_call(&mut self, world: &World) {
        self.look_at_graph(world);
        self.look_at_kubernetes(world);
    }

    /// The history is over.
    pub fn finish(&mut self, world: &World) {
        self.look_at_graph(world);
        self.look_at_kubernetes(world);
        for write in world.api.writes() {
            let Some(new) = write.new.as_deref().filter(|_| write.user == USER) else { continue };
            let shown = new.to_string();
            if self.secrets.iter().map(String::as_str).chain([CLIENT_SECRET]).any(|secret| shown.contains(secret)) {
                self.fail(format!("never_leak: {} {} shows a secret", write.kind, write.name));
            }
        }
    }

    /// How many writes may have had an effect that the operator could not know of, or forgot.
    fn hidden_effects(&self) -> usize {
        self.struck.iter().filter(|(fault, kind)| fault.hides_an_effect(*kind)).count() + self.restores + self.doubles
    }

    /// A call begins.
    pub fn called(&mut self, world: &World, key: &str) {
        let minute = world.now().as_second() / 60;
        let (since, same) = self.same_calls.entry(key.to_owned()).or_default();
        if *since / 10 != minute / 10 {
            (*since, *same) = (minute, 0);
        }
        *same += 1;
        if *same > MAX_SAME_CALLS {
            self.fail(format!("never_spin: more than {MAX_SAME_CALLS} times {key} within ten minutes"));
        }
        let calls = self.calls.entry(minute).or_default();
        *calls += 1;
        let limit = MAX_CALLS_PER_MINUTE * (2 + self.object_names.len());
        if *calls > limit {
            self.fail(format!("never_spin: more than {limit} calls within a minute"));
        }
    }

    /// Graph DELETE only with `deletionPolicy: Delete`, a deletion timestamp and the id in the status.
    fn may_delete(&mut self, world: &World, process: u32, id: &str) {
        let objects = world.api.values("VppToken");
        let of_objects = objects.iter().filter(|object| text(&object["status"]["tokenId"]).eq_ignore_ascii_case(id));
        let mut of_object = of_objects.map(|object| {
            let [namespace, name] = ["namespace", "name"].map(|field| text(&object["metadata"][field]));
            format!("GET vpptokens/{namespace}/{name}")
        });
        let of_object = of_object.next_back().unwrap_or_else(|| "GET vpptokens/".into());
        let is_live = |start: &str| {
            let mut read = self.reads.iter().filter(|((reader, key), _)| *reader == process && key.starts_with(start));
            read.any(|(_, (at, _))| world.now().duration_since(*at) < RIGHT_BEFORE)
        };
        let of_definition = "GET customresourcedefinitions/vpptokens.vpptoken.io";
        let tenants = "GET clustergraphtenants/";
        if let Some(unread) = [of_object.as_str(), of_definition, tenants].into_iter().find(|start| !is_live(start)) {
            self.fail(format!("never_wipe: the token {id} is deleted, and no {unread} came right before"));
        }
        let definition = world.api.value("CustomResourceDefinition", "", "vpptokens.vpptoken.io").unwrap_or_default();
        if !definition["metadata"]["deletionTimestamp"].is_null() {
            self.fail("never_wipe: a token is deleted while the definition is".into());
        }
        let is_meant = world.api.values("VppToken").iter().any(|object| {
            object["spec"]["deletionPolicy"] == "Delete"
                && object["metadata"]["deletionTimestamp"].is_string()
                && text(&object["status"]["tokenId"]).eq_ignore_ascii_case(id)
        });
        let has_another = world.api.values("VppToken").into_iter().any(|object| {
            object["metadata"]["deletionTimestamp"].is_null()
                && text(&object["status"]["tokenId"]).eq_ignore_ascii_case(id)
                && condition(&object, "Ready").0 == "True"
                && object["spec"]["managementPolicy"] != "Observe"
        });
        if has_another {
            self.fail(format!("never_wipe: the token {id} is deleted, and another VppToken has it"));
        }
        // A process that read the object before another one let it go may be late; Graph answers 404.
        if !is_meant && world.graph.entity(TENANT, id).is_some() {
            self.fail(format!("never_wipe: the token {id} is deleted, and no manifest says so"));
        }
    }

    fn look_at_graph(&mut self, world: &World) {
        let new: Vec<Effect> = world.graph.look(|view| {
            let seen = self.effects_seen;
            view.effects().rev().take_while(|effect| effect.sequence > seen).cloned().collect()
        });
        for effect in new.into_iter().rev() {
            self.effects_seen = effect.sequence;
            self.effect(world, &effect);
        }
    }

    fn effect(&mut self, world: &World, effect: &Effect) {
        let By::Request(_) = effect.by else { return };
        let id = effect.id.clone();
        self.doubles += usize::from(world.processes_alive() > 1);
        self.may_write(world, effect);
        match effect.operation {
            Operation::Create => {
                self.step("Create");
                self.unsynced.insert(id);
                self.created.insert(effect.id.clone(), (effect.at, self.sent.by));
                if let Some(created) = &effect.after {
                    self.may_be_created(world, created);
                    self.never_two(world, created);
                }
            }
            Operation::Update => self.updated(world, effect, &id),
            Operation::SyncLicenses => {
                self.step("Sync");
                self.unsynced.remove(&id);
                let count = self.syncs.entry(id.clone()).or_default();
                *count += 1;
                let count = *count;
                let causes = self.sync_causes.get(&id);
                let scheduled = causes.map_or(0, |all| all.iter().filter(|it| it.starts_with("schedule")).count());
                let runs = 1 + world.elapsed().as_secs() / MIN_SYNC_INTERVAL.as_secs().unsigned_abs();
                let too_many = scheduled.saturating_sub(usize::try_from(runs).unwrap_or(usize::MAX));
                // Who created a token or took it over syncs it, perhaps before its status tells.
                let causes = (causes.map_or(0, BTreeSet::len) - too_many).max(1);
                // A schedule goes by the wall clock: what was due and is due again, or seems due, is synced.
                let clock =
                    self.struck.iter().filter(|(fault, _)| matches!(fault, Fault::ClockGlitch | Fault::ClockDip));
                if count > causes + clock.count() + self.hidden_effects() {
                    self.fail(format!("no_needless_write: sync {count} of {id} has no cause (there are {causes})"));
                }
            }
            Operation::Delete => self.step("Delete"),
            _ => {}
        }
    }

    /// Nothing is written to a token while its VppToken says so: as its process had read when it sent the request, or once that
    /// was said for longer than a request takes.
    fn may_write(&mut self, world: &World, effect: &Effect) {
        let id = effect.id.as_str();
        let created = effect.after.as_ref().filter(|_| effect.operation == Operation::Create);
        let created = created.and_then(|created| created.token_sha256.as_deref());
        for object in world.api.values("VppToken") {
            let status = &object["status"];
            let is_its =
                status["tokenId"] == id || created.is_some() && status["pendingCreate"]["sha256"].as_str() == created;
            if !is_its {
                continue;
            }
            let [namespace, name] = ["namespace", "name"].map(|field| text(&object["metadata"][field]));
            let read = self.reads.get(&(self.sent.by, format!("GET vpptokens/{namespace}/{name}")));
            if read.is_some_and(|(at, forbids)| *forbids && *at <= self.sent.at) {
                self.fail(format!("obeys: {id} is written to, although its VppToken was read to forbid that"));
            }
        }
        let is_new = self.person_acted.is_some_and(|at| world.now().duration_since(at) < SignedDuration::from_mins(2));
        let was_struck = self.struck.iter().any(|(fault, _)| matches!(fault, Fault::WatchLate | Fault::WatchSilent));
        if is_new || was_struck {
            return;
        }
        for object in world.api.values("VppToken") {
            if forbids_writes(&object["spec"]) && object["status"]["tokenId"] == id {
                self.fail(format!("obeys: {id} is written to, although its VppToken forbids that"));
            }
        }
    }

    /// What is no token file, has expired, or is of another organization than the manifest names, creates nothing.
    fn may_be_created(&mut self, world: &World, created: &Entity) {
        let digest = created.token_sha256.clone().unwrap_or_default();
        let Some(file) = self.files.get(&digest) else {
            return self.fail(format!("never_rubbish: {} is created from what is no token file", created.id));
        };
        let (expires, organization) = (file.expires(), file.organization().to_owned());
        if expires <= world.now() {
            self.fail(format!("never_rubbish: {} is created from an expired file", created.id));
        }
        let others = world.api.values("VppToken").into_iter().filter(|object| {
            object["status"]["pendingCreate"]["sha256"] == digest.as_str()
                && object["spec"]["organizationName"].as_str().is_some_and(|named| named != organization)
        });
        if others.count() > 0 {
            self.fail(format!("never_rubbish: {} is created from a file of another organization", created.id));
        }
    }

    /// No second entry of a location.
    fn never_two(&mut self, world: &World, created: &Entity) {
        if world.graph.entity(TENANT, &created.id).is_none() {
            // In another tenant.
            return;
        }
        let twin = world
            .graph
            .entities(TENANT)
            .into_iter()
            .filter(|entity| entity.id != created.id && self.is_same_location(entity, created))
            .find(|entity| self.can_be_known(world, entity, &created.id));
        if let Some(twin) = twin {
            self.fail(format!("never_two: {} is created beside {}", created.id, twin.id));
        }
    }

    /// Whether the operator can know of a token. Nobody can of one that Graph has hidden since before it was in a status, nor
    /// of one that no list can show yet, if another process created it and no status names it.
    fn can_be_known(&self, world: &World, entity: &Entity, created: &str) -> bool {
        let creator = |id: &str| self.created.get(id).map(|(_, process)| *process);
        let lag = SignedDuration::try_from(world.climate.list_lag).unwrap_or_default();
        let is_too_new = self.created.get(&entity.id).is_some_and(|(at, _)| world.now().duration_since(*at) < lag);
        let is_named = || {
            self.owned.get(&entity.id).is_some_and(|since| *since <= self.sent.at)
                && world.api.values("VppToken").iter().any(|it| text(&it["status"]["tokenId"]) == entity.id)
        };
        // By the intent that it was created from.
        let is_intended = || {
            let created_at = self.created.get(&entity.id).map(|(at, _)| *at);
            world.api.values("VppToken").iter().any(|it| {
                let pending = &it["status"]["pendingCreate"];
                let since = text(&pending["since"]).parse::<Timestamp>().ok();
                pending["sha256"].as_str() == entity.token_sha256.as_deref() && since.is_some() && since <= created_at
            })
        };
        if self.hidden.contains(&entity.id) && !self.owned.contains_key(&entity.id) {
            return false;
        }
        // Only a list that begins after the intent is looked through for certain.
        if let Some(at) = self.twins.get(&entity.id).and_then(|at| at.checked_add(lag).ok()) {
            // A create that arrives late may find its intent abandoned.
            return !self.intents.is_empty() && self.intents.values().all(|written| at <= *written);
        }
        !is_too_new || creator(&entity.id) == creator(created) || is_named() || is_intended()
    }

    /// The location of the file that a token has.
    pub fn location(&self, entity: &Entity) -> Option<String> {
        let file = self.files.get(entity.token_sha256.as_deref().unwrap_or_default())?;
        let (location, _) = file.inner().rsplit_once('-')?;
        Some(location.trim_start_matches("inner-token-of-").to_owned())
    }

    /// Of one location: the inner tokens of our files begin with its name.
    fn is_same_location(&self, one: &Entity, other: &Entity) -> bool {
        match (self.location(one), self.location(other)) {
            (Some(one), Some(other)) => one == other,
            _ => one.apple_id == other.apple_id,
        }
    }

    fn updated(&mut self, world: &World, effect: &Effect, id: &str) {
        let (Some(before), Some(after)) = (&effect.before, &effect.after) else { return };
        if after.uploads > before.uploads {
            if self.confirmed == id {
                self.step("ConfirmUpload");
            }
            self.step("Upload");
            self.unsynced.insert(id.to_owned());
            let digest = after.token_sha256.clone().unwrap_or_default();
            let count = self.uploads.entry((id.to_owned(), digest.clone())).or_default();
            *count += 1;
            let count = *count;
            self.sync_causes.entry(id.to_owned()).or_default().insert(format!("upload {digest} {count}"));
            if count > 1 + self.hidden_effects() + self.portal_acts + self.upload_requests {
                self.fail(format!("no_needless_write: the same file is uploaded onto {id} for the {count}th time"));
            }
            let organization = digest_organization(&self.files, &digest);
            let is_meant = world.api.values("VppToken").iter().any(|object| {
                text(&object["status"]["tokenId"]) == id && object["spec"]["organizationName"].as_str() == organization
            });
            if organization.is_some() && organization != before.organization_name.as_deref() && !is_meant {
                self.fail(format!("never_rubbish: a file of another organization is uploaded onto {id}"));
            }
            let shown =
                |digest: Option<&String>| digest.and_then(|digest| self.files.get(digest)).map(TokenFile::expires);
            let (old, new) = (shown(before.token_sha256.as_ref()), shown(after.token_sha256.as_ref()));
            // What a person uploads after the operator asked, right before it sends, can't be seen by it.
            let asked = self.asked.get(&(self.sent.by, id.to_owned())).copied();
            let asked = asked.filter(|asked| effect.at.duration_since(*asked) < RIGHT_BEFORE);
            let is_raced = self.portal_acted.is_some_and(|at| asked.is_some_and(|asked| asked <= at));
            let is_overtaken = self.uploads_sent.get(id).is_some_and(|newest| *newest > self.sent.at);
            if is_overtaken {
                self.overtaken.insert(id.to_owned());
            } else {
                self.overtaken.remove(id);
                self.uploads_sent.insert(id.to_owned(), self.sent.at);
            }
            // Nor can what another process uploads after this one has sent.
            let before_this = self.uploaded.insert(id.to_owned(), effect.at);
            let is_raced = is_raced || before_this.is_some_and(|at| at > self.sent.at);
            if old > new && !is_raced {
                self.fail(format!("never_rubbish: an older file is uploaded onto {id}"));
            }
            if new.is_some_and(|expires| expires <= effect.at) {
                self.fail(format!("never_rubbish: an expired file is uploaded onto {id}"));
            }
        } else {
            self.step("Update");
            self.needless_update(world, id, before, after);
            let values = vec![
                after.country_or_region.clone().unwrap_or_default(),
                after.apple_id.clone().unwrap_or_default(),
                after.automatically_update_apps.to_string(),
            ];
            let count = self.updates.entry((id.to_owned(), values)).or_default();
            *count += 1;
            let tries = MAX_TRIES * world.processes_started();
            if *count > tries + self.hidden_effects() + self.portal_acts {
                self.fail(format!("never_fight: the same settings are sent to {id} for ever"));
            }
        }
    }

    /// Settings that Graph has already are not sent, once lists show what was written before.
    fn needless_update(&mut self, world: &World, id: &str, before: &Entity, after: &Entity) {
        let settings = |entity: &Entity| {
            (entity.country_or_region.clone(), entity.apple_id.clone(), entity.automatically_update_apps)
        };
        let graph = world.graph.settings();
        let is_refused = !graph.not_kept.is_empty();
        // Drift is judged a minute after the last write; what lists show later than that looks like drift.
        let lags = graph.list_lag > Duration::from_secs(30);
        // Who made the tenant object anew made a session that knows of no write.
        let acts = [self.portal_acted, self.person_acted];
        let is_raced =
            acts.into_iter().flatten().any(|at| world.now().duration_since(at) < SignedDuration::from_mins(1));
        if settings(before) != settings(after) || is_refused || lags || is_raced {
            return;
        }
        self.needless += 1;
        // A process that was just started does not know what the one before it wrote, to any token.
        if self.needless > self.hidden_effects() * self.object_names.len() {
            self.fail(format!("no_needless_write: settings are sent to {id} that it has already"));
        }
    }

    fn look_at_kubernetes(&mut self, world: &World) {
        let writes = world.api.writes_from(self.writes_seen);
        self.writes_seen += writes.len();
        for write in writes {
            if write.kind == "VppToken" {
                let name = (write.namespace.clone(), write.name.clone());
                if write.new.is_some() {
                    self.object_names.insert(name)
                } else {
                    if let Some(old) = write.old.as_deref() {
                        self.deleted_while_creating(world, old);
                    }
                    let uid = write.old.as_ref().map(|old| text(&old["metadata"]["uid"]).to_owned());
                    self.intents.remove(&uid.unwrap_or_default());
                    self.object_names.remove(&name)
                };
            }
            if write.kind == "Event" {
                self.event(write.new.as_deref());
            }
            if write.user != USER || !matches!(write.kind.as_str(), "VppToken" | "ClusterGraphTenant" | "GraphTenant") {
                self.request_seen(&write.kind, write.new.as_deref());
                continue;
            }
            if write.subresource != "status" {
                self.finalizers(write.old.as_deref(), write.new.as_deref());
                continue;
            }
            if write.is_noop {
                self.noops += 1;
                if self.noops > self.struck.len() {
                    self.fail(format!("never_spin: a status of {} is written without a change", write.name));
                }
            }
            if let Some(new) = write.new.as_deref() {
                self.status(world, write.old.as_deref(), new, write.kind == "VppToken");
            }
        }
    }

    /// A VppToken is deleted before its status could name the token that it created, and perhaps synced.
    fn deleted_while_creating(&mut self, world: &World, old: &Value) {
        let pending = &old["status"]["pendingCreate"];
        let creates = world.graph.effects().into_iter().filter(|effect| effect.operation == Operation::Create);
        for created in creates.filter_map(|effect| effect.after) {
            if pending.is_object() && created.apple_id.as_deref() == pending["appleId"].as_str() {
                let owner = format!("owned by {}", text(&old["metadata"]["uid"]));
                self.sync_causes.entry(created.id).or_default().insert(owner);
            }
        }
    }

    /// Requests of people are causes of writes to Graph.
    fn request_seen(&mut self, kind: &str, new: Option<&Value>) {
        let Some(new) = new.filter(|_| kind == "VppToken") else { return };
        let annotations = &new["metadata"]["annotations"];
        let id = text(&new["status"]["tokenId"]).to_owned();
        if let Some(request) = annotations["vpptoken.io/sync-requested-at"].as_str() {
            self.sync_causes.entry(id.clone()).or_default().insert(format!("request {request}"));
        }
        if annotations["vpptoken.io/upload-requested-at"].is_string() {
            self.upload_requests += 1;
        }
    }

    fn finalizers(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let has = |object: Option<&Value>| {
            let all = object.and_then(|object| object["metadata"]["finalizers"].as_array());
            all.is_some_and(|all| !all.is_empty())
        };
        match (has(old), has(new)) {
            (false, true) => self.step("AddFinalizer"),
            (true, false) => self.step("RemoveFinalizer"),
            _ => {}
        }
    }

    fn event(&mut self, event: Option<&Value>) {
        match event.map(|event| text(&event["reason"])) {
            Some("Adopted") => self.step("Adopt"),
            Some("Bound") => self.step("Bind"),
            Some("SyncNotStarted") => self.step("DeclineSync"),
            Some("UploadNotDone") => self.step("DeclineUpload"),
            _ => {}
        }
    }

    fn status(&mut self, world: &World, old: Option<&Value>, new: &Value, is_token: bool) {
        for condition in new["status"]["conditions"].as_array().into_iter().flatten() {
            *self.reasons.entry(text(&condition["reason"]).to_owned()).or_default() += 1;
        }
        let old_status = old.map(|old| &old["status"]);
        if new["status"]["pendingCreate"].is_null() {
            self.intents.remove(text(&new["metadata"]["uid"]));
        }
        let is_pending = |status: Option<&Value>| status.is_some_and(|status| status["pendingCreate"].is_object());
        match (is_pending(old_status), is_pending(Some(&new["status"]))) {
            (false, true) => {
                self.step("RecordIntent");
                let (spec, finalizers) = (&new["spec"], new["metadata"]["finalizers"].as_array());
                let is_to_delete = spec["deletionPolicy"] == "Delete" && spec["managementPolicy"] != "Observe";
                if is_to_delete && finalizers.is_none_or(Vec::is_empty) {
                    self.fail("never_wipe: a create is announced before the finalizer is there that deletes it".into());
                }
                self.intents.insert(text(&new["metadata"]["uid"]).to_owned(), world.now());
            }
            (true, false) if new["status"]["tokenId"].is_null() => self.step("AbandonIntent"),
            _ => {}
        }
        let token_id =
            |status: Option<&Value>| status.map(|status| text(&status["tokenId"]).to_owned()).unwrap_or_default();
        let id = token_id(Some(&new["status"]));
        let digest = |status: Option<&Value>| status.map(|status| text(&status["uploaded"]["sha256"]).to_owned());
        let (digest_before, digest) = (digest(old_status), digest(Some(&new["status"])).unwrap_or_default());
        let has_uploaded = self.uploads.contains_key(&(id.clone(), digest.clone()));
        if token_id(old_status) == id && !digest.is_empty() && digest_before.as_ref() != Some(&digest) && !has_uploaded
        {
            self.step("Note");
        }
        if !id.is_empty() && token_id(old_status) != id {
            let owner = format!("owned by {}", text(&new["metadata"]["uid"]));
            self.owned.entry(id.clone()).or_insert(world.now());
            self.sync_causes.entry(id).or_default().insert(owner);
        }
        let is = |type_: &str| condition(new, type_).0 == "True";
        if is("Ready") && (is("Stalled") || is("Reconciling")) {
            self.fail(format!("truthful: {} is Ready and not", text(&new["metadata"]["name"])));
        }
        if is("Stalled") && is("Reconciling") {
            self.fail(format!("truthful: {} is Stalled and Reconciling", text(&new["metadata"]["name"])));
        }
        if !is_token {
            return;
        }
        let named = text(&new["spec"]["tokenId"]).to_lowercase();
        if condition(new, "Stalled").1 == "TokenNotFound" && !self.not_found.contains(&named) {
            self.fail(format!("truthful: TokenNotFound is said of {named}, and Graph did not"));
        }
        let next = text(&new["status"]["nextSyncTime"]);
        if !next.is_empty() {
            let id = text(&new["status"]["tokenId"]).to_owned();
            self.sync_causes.entry(id).or_default().insert(format!("schedule {next}"));
        }
        let after = |time: Option<Timestamp>| time.map_or(SignedDuration::MAX, |time| world.now().duration_since(time));
        let watch_failed = self.struck.iter().any(|(fault, _)| {
            matches!(fault, Fault::WatchBroken | Fault::WatchGone | Fault::WatchLate | Fault::WatchSilent)
        });
        let watch_delay = if watch_failed { SignedDuration::from_mins(12) } else { SignedDuration::from_secs(90) };
        if after(self.person_acted) > watch_delay && after(self.portal_acted) > SignedDuration::from_mins(45) {
            self.ready(world, new);
        }
    }

    /// After a long quiet, what is Ready is so.
    pub fn ready_after_quiet(&mut self, world: &World, object: &Value) {
        self.ready(world, object);
    }

    /// Ready means that Graph has what the manifest and the Secret ask for, unless somebody changed it a moment ago.
    fn ready(&mut self, world: &World, object: &Value) {
        let spec = &object["spec"];
        let is_current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        if condition(object, "Ready").0 != "True" || !is_current || forbids_writes(spec) {
            return;
        }
        let name = text(&object["metadata"]["name"]);
        let Some(entity) = world.graph.entity(TENANT, text(&object["status"]["tokenId"])) else {
            return self.fail(format!("truthful: {name} is Ready, and its token is not in Graph"));
        };
        let secret =
            world.api.value("Secret", text(&object["metadata"]["namespace"]), text(&spec["tokenSecretRef"]["name"]));
        let digest = secret.and_then(|secret| self.digest_of(&secret));
        let is_newer_outside = condition(object, "TokenValid").1 == "NewerTokenInIntune"
            || condition(object, "Ready").1 == "NewerTokenInIntune";
        // Without a lease, an upload of a process that is gone may arrive after that of the next one. What Graph shows then looks
        // like a renewal that it does not show yet, which is said.
        let was_overtaken =
            self.overtaken.contains(&entity.id) && condition(object, "TokenValid").1 == "RenewalNotShownYet";
        if digest.is_some() && digest != entity.token_sha256 && !is_newer_outside && !was_overtaken {
            self.fail(format!("truthful: {name} is Ready, and Graph has not the file of its Secret"));
        }
        let wanted = text(&spec["countryOrRegion"]);
        if !wanted.is_empty() && entity.country_or_region.as_deref() != Some(wanted) {
            self.fail(format!("truthful: {name} is Ready, and Graph has not its country"));
        }
        let updates = &spec["automaticallyUpdateApps"];
        if updates.is_boolean() && *updates != entity.automatically_update_apps {
            self.fail(format!("truthful: {name} is Ready, and Graph has another automaticallyUpdateApps"));
        }
        let apple_id = entity.apple_id.as_deref().unwrap_or_default();
        if !apple_id.eq_ignore_ascii_case(text(&spec["appleId"])) {
            self.fail(format!("truthful: {name} is Ready, and Graph has another Apple ID"));
        }
    }

    fn digest_of(&self, secret: &Value) -> Option<String> {
        self.file_of(secret).map(|file| sha256(&file.text()))
    }

    /// The token file that a Secret has.
    pub fn file_of(&self, secret: &Value) -> Option<TokenFile> {
        let encoded = text(&secret["data"]["token"]);
        self.files.values().find(|file| base64(file.text().as_bytes()) == encoded).cloned()
    }

    fn step(&mut self, name: &'static str) {
        *self.steps.entry(name).or_default() += 1;
    }
}

/// Suspended, or an observer.
fn forbids_writes(spec: &Value) -> bool {
    spec["suspend"] == true || spec["managementPolicy"] == "Observe"
}

fn digest_organization<'a>(files: &'a BTreeMap<String, TokenFile>, digest: &str) -> Option<&'a str> {
    files.get(digest).map(TokenFile::organization)
}

/// Base64, as Secrets have it.
pub fn base64(bytes: &[u8]) -> String {
    let value = serde_json::to_value(k8s_bytes(bytes)).unwrap_or_default();
    text(&value).to_owned()
}

fn k8s_bytes(bytes: &[u8]) -> k8s_openapi::ByteString {
    k8s_openapi::ByteString(bytes.to_vec())
}
