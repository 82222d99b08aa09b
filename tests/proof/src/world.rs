//! One simulated world: Kubernetes in memory, Graph in process, the operator's processes, and the record of all calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_server::{ApiServer, Definitions};
use graph_emulator::{Emulation, NewEntity, Operation, TokenFile, sha256};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use vpptoken_operator::operator::Limits;

use crate::fault::{Address, CallKind, Fault, Faults};
use crate::judge::Judge;
use crate::process::Process;
use crate::random::Dice;

/// The Entra tenant.
pub const TENANT: &str = "8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11";
/// The app registration.
pub const CLIENT: &str = "1b6f0b6e-4f0a-4e0d-8c56-b1a5f7f2d9c3";
/// Its client secret, which must show up nowhere.
pub const CLIENT_SECRET: &str = "client-secret-that-nobody-may-see";
/// The operator's namespace.
pub const SYSTEM: &str = "vpptoken-system";
/// The namespace of most VppTokens.
pub const DEVICES: &str = "devices";
/// Where the simulated time begins: 2026-01-01T00:00:00Z.
pub const EPOCH: i64 = 1_767_225_600;
/// The organization of all files.
pub const ORGANIZATION: &str = "Contoso";

/// A call takes less than so many milliseconds longer than the shortest.
const MAX_DELAY: u64 = 16;

/// So often may the operator read the clock at one instant; more is spinning.
const MAX_CLOCK_READS: usize = 200_000;

/// Without a fault, each thing that a life waits for has come after this. A token that is gone is looked for 15 minutes.
const MAX_CALM_WAIT: Duration = Duration::from_secs(25 * 60);

/// How unkind a world is, apart from its faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Climate {
    /// Lists of Graph show what was so long ago.
    pub list_lag: Duration,
    /// Graph shows a new expiry so late.
    pub expiry_lag: Duration,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it began.
    pub at: Timestamp,
    /// By which process.
    pub process: u32,
    /// Its kind.
    pub kind: CallKind,
    /// Which call.
    pub address: Address,
    /// What struck it.
    pub fault: Option<Fault>,
    /// What it was answered with.
    pub answer: String,
}

/// A call that has begun.
pub struct Begun {
    /// Its place among all calls.
    pub number: usize,
    /// What strikes it.
    pub fault: Option<Fault>,
    /// It takes so much longer than the shortest. It depends on nothing but the call, so that of two calls that begin at the
    /// same time the same one is always answered first.
    pub delay: Duration,
}

struct Record {
    dice: Dice,
    counts: BTreeMap<String, u32>,
    calls: Vec<Call>,
    struck: BTreeMap<Address, Fault>,
    wall_offset: SignedDuration,
    processes: Vec<Arc<Process>>,
    watch_namespaces: Vec<String>,
    limits: Limits,
    clock_reads: (Duration, usize),
    forbidden: BTreeSet<(String, String)>,
    is_graph_down: bool,
    hidden_until: Duration,
    was_renewed_outside: bool,
    is_api_server_down: bool,
    is_over: bool,
    has_ended: bool,
    to_hang: BTreeSet<String>,
}

impl Record {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed ^ 0xFA17),
            counts: BTreeMap::new(),
            calls: Vec::new(),
            struck: BTreeMap::new(),
            wall_offset: SignedDuration::ZERO,
            processes: Vec::new(),
            watch_namespaces: Vec::new(),
            limits: Limits::default(),
            clock_reads: (Duration::ZERO, 0),
            forbidden: BTreeSet::new(),
            is_graph_down: false,
            hidden_until: Duration::ZERO,
            was_renewed_outside: false,
            is_api_server_down: false,
            is_over: false,
            has_ended: false,
            to_hang: BTreeSet::new(),
        }
    }
}

/// A world. Clones are the same one.
#[derive(Clone)]
pub struct World(Arc<Inner>);

/// What a world is made of.
pub struct Inner {
    /// Kubernetes.
    pub api: ApiServer,
    /// Microsoft.
    pub graph: Emulation,
    /// How unkind it is.
    pub climate: Climate,
    /// Makes requests to Microsoft.
    pub builder: reqwest::Client,
    /// The seed of all randomness.
    pub seed: u64,
    start: Instant,
    faults: Faults,
    one_in: Option<u64>,
    record: Mutex<Record>,
    judge: Mutex<Judge>,
    changed: Notify,
}

impl std::ops::Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl World {
    /// An empty world, but for the definitions, the namespaces and a tenant object. Called in paused time.
    pub fn new(
        definitions: &Definitions,
        builder: &reqwest::Client,
        climate: Climate,
        settings: impl FnOnce(&mut graph_emulator::Settings),
        faults: Faults,
        one_in: Option<u64>,
        seed: u64,
    ) -> Self {
        let start = Instant::now();
        let mut graph_settings = graph_emulator::Settings {
            list_lag: climate.list_lag,
            expiry_lag: climate.expiry_lag,
            sync_duration: Duration::from_secs(5),
            log_capacity: 100_000,
            ..graph_emulator::Settings::default()
        };
        settings(&mut graph_settings);
        let epoch = Timestamp::from_second(EPOCH).unwrap_or_default();
        let graph = Emulation::new(
            graph_settings,
            graph_emulator::Clock::starting_at(epoch),
            graph_emulator::Random::seeded(seed),
        );
        graph.add_app(TENANT, CLIENT, CLIENT_SECRET);
        let api = ApiServer::new(Arc::new(move || true_time(start)), definitions, api_server::Options::default());
        let world = Self(Arc::new(Inner {
            api,
            graph,
            climate,
            builder: builder.clone(),
            seed,
            start,
            faults,
            one_in,
            record: Mutex::new(Record::new(seed)),
            judge: Mutex::default(),
            changed: Notify::new(),
        }));
        world.api.spawn_controllers();
        for namespace in [SYSTEM, DEVICES] {
            world.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
        }
        world.put_secret(SYSTEM, "graph", "clientSecret", CLIENT_SECRET);
        world.apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "ClusterGraphTenant", "metadata": { "name": "default" },
            "spec": {
                "tenantId": TENANT, "clientId": CLIENT, "credentials": { "clientSecretRef": { "name": "graph" } },
                "allowedNamespaces": { "from": "All" }, "allowedOperations": ["Create", "Adopt", "Bind", "Delete"],
            },
        }));
        world
    }

    // Time.

    /// The time of Kubernetes and Graph.
    pub fn now(&self) -> Timestamp {
        true_time(self.start)
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The same, for the operator: who asks for ever while no time passes, spins.
    pub fn read_clock(&self) -> Duration {
        let elapsed = self.elapsed();
        let mut record = self.record();
        let (at, reads) = &mut record.clock_reads;
        if *at != elapsed {
            (*at, *reads) = (elapsed, 0);
        }
        *reads += 1;
        let spins = *reads > MAX_CLOCK_READS;
        drop(record);
        if spins {
            self.judge().fail("never_spin: the operator goes on and on without letting time pass".into());
            // It never waits, so that nothing else could end it. Unlike a panic of its own this one is not printed.
            std::panic::resume_unwind(Box::new(()));
        }
        elapsed
    }

    /// The wall clock of the operator's machine.
    pub fn operator_wall(&self) -> Timestamp {
        self.now().saturating_add(self.record().wall_offset).unwrap_or(Timestamp::MAX)
    }

    /// Steps the wall clock of the operator's machine.
    pub fn step_wall_clock(&self, step: SignedDuration) {
        self.record().wall_offset += step;
    }

    // Calls.

    /// A call begins: it is recorded, and what strikes it is returned.
    pub fn begin(&self, process: &Process, kind: CallKind, key: String) -> Begun {
        let at = self.now();
        let mut record = self.record();
        let nth = record.counts.entry(key.clone()).or_default();
        let address = Address { key, nth: *nth };
        *nth += 1;
        let drawn = self.one_in.and_then(|one_in| record.dice.fault(kind, one_in));
        let delay = Duration::from_millis(address.mix() % MAX_DELAY);
        let fault = self.faults.0.get(&address).copied().or(drawn).filter(|_| !record.is_over);
        if let Some(fault) = fault {
            record.struck.insert(address.clone(), fault);
        }
        record.calls.push(Call { at, process: process.number, kind, address, fault, answer: String::new() });
        let number = record.calls.len() - 1;
        let key = record.calls[number].address.key.clone();
        let hangs = !record.is_over && record.to_hang.remove(&key);
        drop(record);
        let mut judge = self.judge();
        judge.called(self, &key);
        if let Some(fault) = fault {
            judge.struck(fault, kind);
        }
        drop(judge);
        Begun { number, fault: fault.or(hangs.then_some(Fault::Hang)), delay }
    }

    /// The next call of this name hangs, unless a fault strikes it: that belongs to the life, and counts as no fault.
    pub fn hang_next(&self, key: &str) {
        self.record().to_hang.insert(key.to_owned());
    }

    /// A call was answered.
    pub fn answered(&self, number: usize, answer: impl Into<String>) {
        if let Some(call) = self.record().calls.get_mut(number) {
            call.answer = answer.into();
        }
        self.changed.notify_waiters();
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.record().calls.clone()
    }

    /// Whether a call was ever answered so.
    pub fn was_answered(&self, key: &str, answer: &str) -> bool {
        self.record().calls.iter().any(|call| call.address.key == key && call.answer == answer)
    }

    /// How many calls there were.
    pub fn call_count(&self) -> usize {
        self.record().calls.len()
    }

    /// The faults that struck.
    pub fn struck(&self) -> BTreeMap<Address, Fault> {
        self.record().struck.clone()
    }

    /// Whether a fault struck.
    pub fn has_struck(&self, fault: Fault) -> bool {
        self.record().struck.values().any(|struck| *struck == fault)
    }

    /// The judge, who is asked and told.
    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Processes.

    /// Processes that start from now on watch these namespaces only.
    pub fn watch_namespaces(&self, namespaces: &[&str]) {
        self.record().watch_namespaces = namespaces.iter().map(|namespace| (*namespace).to_owned()).collect();
    }

    /// The namespaces that a process is to watch; none means all.
    pub fn watched_namespaces(&self) -> Vec<String> {
        self.record().watch_namespaces.clone()
    }

    /// Processes that start from now on send so many writes in 20 s at most, all but one of them scheduled syncs.
    pub fn limit_writes(&self, writes: usize) {
        self.record().limits = Limits { writes, scheduled: writes.saturating_sub(1).max(1), at_a_time: writes };
    }

    /// How much a process may send.
    pub fn limits(&self) -> Limits {
        self.record().limits
    }

    /// The operator may not use a kind of object in a namespace, or may again. Watches that run go on.
    pub fn forbid(&self, plural: &str, namespace: &str, is_forbidden: bool) {
        let which = (plural.to_owned(), namespace.to_owned());
        let mut record = self.record();
        if is_forbidden {
            record.forbidden.insert(which)
        } else {
            record.forbidden.remove(&which)
        };
        drop(record);
        self.judge().person_acted(self.now());
    }

    /// Whether the operator may not do that.
    pub fn is_forbidden(&self, plural: &str, namespace: &str) -> bool {
        self.record().forbidden.contains(&(plural.to_owned(), namespace.to_owned()))
    }

    /// No connection to Graph can be made, or can be made again.
    pub fn take_graph_down(&self, is_down: bool) {
        self.record().is_graph_down = is_down;
        self.judge().graph_disturbed(self.now());
    }

    /// Whether no connection to Graph can be made.
    pub fn is_graph_down(&self) -> bool {
        self.record().is_graph_down
    }

    /// No connection to the API server can be made; what is connected goes on.
    pub fn is_api_server_down(&self) -> bool {
        self.record().is_api_server_down
    }

    /// For two minutes, no connection to Graph can be made, or none to the API server.
    pub fn outage(&self, of_graph: bool) {
        let set = move |world: &Self, is_down: bool| {
            let mut record = world.record();
            let down = if of_graph { &mut record.is_graph_down } else { &mut record.is_api_server_down };
            *down = is_down;
        };
        set(self, true);
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(120)).await;
            set(&world, false);
        });
    }

    /// The wall clock of the operator's machine steps, and back a minute later.
    pub fn step_wall_clock_for_a_minute(&self, step: SignedDuration) {
        self.step_wall_clock(step);
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            world.step_wall_clock(-step);
        });
    }

    /// Starts a process of the operator.
    pub fn start_process(&self) {
        let number = u32::try_from(self.record().processes.len()).unwrap_or(u32::MAX);
        let process = Process::start(self, number);
        self.record().processes.push(process);
    }

    /// A process is gone, at once; the next one starts two seconds later, unless another one runs.
    pub fn kill(&self, process: &Process) {
        process.kill();
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            if world.processes_alive() == 0 && !world.record().has_ended {
                world.start_process();
            }
        });
    }

    /// All processes are gone, at once; the next one starts two seconds later.
    pub fn restart(&self) {
        let processes = self.record().processes.clone();
        for process in processes.iter().filter(|process| process.is_alive()) {
            self.kill(process);
        }
    }

    /// A second process starts; ten seconds later the first is told to stop, and then it is gone. One at a time is replaced.
    pub fn replace(&self, process: Arc<Process>) {
        if self.processes_alive() > 1 {
            return;
        }
        self.start_process();
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            process.stop();
            tokio::time::sleep(Duration::from_secs(30)).await;
            world.kill(&process);
        });
    }

    /// How many processes were started.
    pub fn processes_started(&self) -> usize {
        self.record().processes.len()
    }

    /// How many processes run.
    pub fn processes_alive(&self) -> usize {
        self.record().processes.iter().filter(|process| process.is_alive()).count()
    }

    /// From now on no fault strikes; a process runs.
    pub fn faults_are_over(&self) {
        self.record().is_over = true;
        if self.processes_alive() == 0 {
            self.start_process();
        }
    }

    /// All processes end.
    pub fn end(&self) {
        let processes = {
            let mut record = self.record();
            record.is_over = true;
            record.has_ended = true;
            record.processes.clone()
        };
        for process in processes {
            process.kill();
        }
    }

    // People with kubectl.

    /// Server-side apply, as a GitOps tool does it.
    pub fn apply(&self, object: &Value) {
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let namespace = text(&object["metadata"]["namespace"]);
        let path = format!("{}?fieldManager=gitops&force=true", path(kind, namespace, name));
        self.request("PATCH", &path, "application/apply-patch+yaml", object);
    }

    /// A merge patch.
    pub fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) {
        let path = format!("{}?fieldManager=kubectl-edit", path(kind, namespace, name));
        self.request("PATCH", &path, "application/merge-patch+json", patch);
    }

    /// `kubectl delete`.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        if kind == "ClusterGraphTenant" {
            self.judge().tenant_deleted(self.now());
        }
        self.request("DELETE", &path(kind, namespace, name), "application/json", &json!({}));
    }

    /// Any request of a person.
    pub fn request(&self, method: &str, path: &str, content_type: &str, body: &Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("user-agent", "kubectl")
            .body(body.to_string().into_bytes())
            .unwrap_or_default();
        self.api.call(request, "kubectl");
        self.judge().person_acted(self.now());
    }

    /// A Secret with one key.
    pub fn put_secret(&self, namespace: &str, name: &str, key: &str, content: &str) {
        let data = BTreeMap::from([(key, content)]);
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace },
            "stringData": data,
        }));
    }

    /// A Secret with a token file in the namespace of the devices.
    pub fn put_file(&self, name: &str, file: &TokenFile) {
        self.put_file_in(DEVICES, name, file);
    }

    /// A Secret with a token file.
    pub fn put_file_in(&self, namespace: &str, name: &str, file: &TokenFile) {
        self.judge().file_seen(file);
        self.put_secret(namespace, name, "token", &file.text());
    }

    /// A VppToken whose Secret has its name, in the namespace of the devices.
    pub fn put_token(&self, name: &str, spec: Value) {
        self.put_token_in(DEVICES, name, spec);
    }

    /// A VppToken whose Secret has its name.
    pub fn put_token_in(&self, namespace: &str, name: &str, spec: Value) {
        let mut whole = json!({
            "tokenSecretRef": { "name": name }, "appleId": format!("vpp.{name}@contoso.example"),
            "countryOrRegion": "de",
        });
        if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
            for (field, value) in spec {
                if value.is_null() {
                    whole.remove(&field)
                } else {
                    whole.insert(field, value)
                };
            }
        }
        self.apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
            "metadata": { "name": name, "namespace": namespace }, "spec": whole,
        }));
    }

    /// A VppToken as it is.
    pub fn token(&self, name: &str) -> Arc<Value> {
        self.api.value("VppToken", DEVICES, name).unwrap_or_default()
    }

    /// The status of a condition of a VppToken, with its reason.
    pub fn condition(&self, name: &str, type_: &str) -> (String, String) {
        condition(&self.token(name), type_)
    }

    /// Whether a VppToken is Ready, of its newest manifest, and Graph has the file of its Secret and synced after that.
    pub fn is_done(&self, name: &str, file: &TokenFile) -> bool {
        let object = self.token(name);
        let status = &object["status"];
        let id = text(&status["tokenId"]);
        let digest = sha256(&file.text());
        condition(&object, "Ready").0 == "True"
            && status["observedGeneration"] == object["metadata"]["generation"]
            && status["uploaded"]["sha256"] == digest.as_str()
            && condition(&object, "Synced").1 == "SyncCompleted"
            && self.judge().is_synced(id)
            && self.graph.entity(TENANT, id).is_some_and(|entity| {
                entity.token_sha256.as_ref() == Some(&digest) && entity.last_sync_status == "completed"
            })
    }

    // People in the portal.

    /// How often the token of a VppToken was synced.
    pub fn syncs_of(&self, name: &str) -> usize {
        let id = self.token_id(name);
        let effects = self.graph.effects();
        effects.iter().filter(|effect| effect.operation == Operation::SyncLicenses && effect.id == id).count()
    }

    /// Whether the token of a VppToken has a file.
    pub fn has_file(&self, name: &str, file: &TokenFile) -> bool {
        let entity = self.graph.entity(TENANT, &self.token_id(name));
        entity.is_some_and(|entity| entity.token_sha256 == Some(sha256(&file.text())))
    }

    /// The id of the only token with this Apple ID, if there is one.
    pub fn id_of(&self, name: &str) -> Option<String> {
        let apple_id = format!("vpp.{name}@contoso.example");
        self.graph.look(|view| {
            let mut all = view.entities(TENANT).into_iter();
            all.find(|entity| entity.apple_id.as_deref() == Some(apple_id.as_str())).map(|entity| entity.id)
        })
    }

    /// A person uploads a token in the portal.
    pub fn create_in_portal(&self, apple_id: &str, file: &TokenFile, country: &str) -> String {
        self.judge().portal_acted(self.now());
        let new = NewEntity {
            token: Some(file.text().into()),
            apple_id: Some(apple_id.to_owned()),
            country_or_region: Some(country.to_owned()),
            ..NewEntity::default()
        };
        self.graph.create_by_hand(TENANT, new).id
    }

    /// A person uploads the file of the first VppToken that has no token yet.
    pub fn create_twin_in_portal(&self) {
        for object in self.api.values("VppToken").iter().filter(|object| object["status"]["tokenId"].is_null()) {
            let (namespace, secret) =
                (text(&object["metadata"]["namespace"]), text(&object["spec"]["tokenSecretRef"]["name"]));
            let file = self.api.value("Secret", namespace, secret).and_then(|secret| self.judge().file_of(&secret));
            if let Some(file) = file {
                let id = self.create_in_portal(text(&object["spec"]["appleId"]), &file, "de");
                self.judge().created_in_portal(id, self.now());
                return;
            }
        }
    }

    /// Whether a person created a token in the portal that a VppToken was about to create.
    pub fn has_twin(&self) -> bool {
        self.judge().has_twins()
    }

    /// The id of the token that a VppToken has.
    pub fn token_id(&self, name: &str) -> String {
        text(&self.token(name)["status"]["tokenId"]).to_owned()
    }

    /// A person changes the country in the portal.
    pub fn edit_in_portal(&self, id: &str, country: &str) {
        self.judge().portal_acted(self.now());
        self.graph.edit(TENANT, id, |entity| entity.country_or_region = Some(country.to_owned()));
    }

    /// A person uploads another file onto a token in the portal.
    pub fn upload_in_portal(&self, id: &str, file: &TokenFile) {
        self.judge().portal_acted(self.now());
        self.judge().uploaded_in_portal(id, &sha256(&file.text()));
        self.graph.edit(TENANT, id, |entity| {
            entity.token_sha256 = Some(sha256(&file.text()));
            entity.expiration_date_time = Some(file.expires());
            entity.state = "valid".into();
        });
    }

    /// A person uploads a newer file in the portal, in the middle of a life that knows nothing of it.
    pub fn renew_in_portal(&self, id: &str, file: &TokenFile) {
        self.record().was_renewed_outside = true;
        self.upload_in_portal(id, file);
    }

    /// Whether the fault struck in which a person uploads a newer file in the portal.
    pub fn was_renewed_outside(&self) -> bool {
        self.record().was_renewed_outside
    }

    /// A person deletes a token in the portal.
    pub fn delete_in_portal(&self, id: &str) {
        self.judge().portal_acted(self.now());
        self.graph.remove(TENANT, id);
    }

    /// Graph shows no token for a while, or for longer if it is hiding them already.
    pub fn hide_all(&self, duration: Duration) {
        self.judge().graph_disturbed(self.now());
        let until = self.elapsed() + duration;
        let hidden_until = std::mem::replace(&mut self.record().hidden_until, until);
        if hidden_until > until {
            self.record().hidden_until = hidden_until;
            return;
        }
        let entities = self.graph.entities(TENANT);
        for entity in &entities {
            self.graph.hide(TENANT, &entity.id, duration);
        }
        self.judge().hidden(entities.into_iter().map(|entity| entity.id));
    }

    // Waiting.

    /// Whether there is no fault in this history.
    pub fn is_calm(&self) -> bool {
        self.faults.0.is_empty() && self.one_in.is_none()
    }

    /// Waits until something holds, looking again after each call and every five seconds.
    ///
    /// # Errors
    /// Says what did not come in time.
    pub async fn until(&self, what: &str, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> Result<(), String> {
        // Without a fault nothing takes long: a trigger that is lost must not be made up for by the next hour's requeue.
        let limit = if self.is_calm() { limit.min(MAX_CALM_WAIT) } else { limit };
        let deadline = Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            if holds(self) {
                return Ok(());
            }
            if let Some(broken) = self.judge().broken() {
                return Err(broken);
            }
            if Instant::now() >= deadline {
                return Err(format!("always_arrives: within {} s it did not come that {what}", limit.as_secs()));
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn true_time(start: Instant) -> Timestamp {
    let elapsed = SignedDuration::try_from(start.elapsed()).unwrap_or_default();
    Timestamp::from_second(EPOCH).unwrap_or_default().saturating_add(elapsed).unwrap_or(Timestamp::MAX)
}

/// A text, or none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A condition's status and reason.
pub fn condition(object: &Value, type_: &str) -> (String, String) {
    let all = object["status"]["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|condition| condition["type"] == type_));
    found.map(|found| (text(&found["status"]).to_owned(), text(&found["reason"]).to_owned())).unwrap_or_default()
}

/// A token file of a location that expires so many days after the beginning.
pub fn file(location: &str, days: i64) -> TokenFile {
    file_of(ORGANIZATION, location, days)
}

/// A token file of a location of another organization.
pub fn file_of(organization: &str, location: &str, days: i64) -> TokenFile {
    let expires = Timestamp::from_second(EPOCH + days * 86_400).unwrap_or_default();
    TokenFile::with_inner(organization, expires, format!("inner-token-of-{location}-{days}"))
}

/// Where the API server has an object.
pub fn path(kind: &str, namespace: &str, name: &str) -> String {
    let (base, plural) = match kind {
        "Namespace" => ("/api/v1", "namespaces"),
        "Secret" => ("/api/v1", "secrets"),
        "CustomResourceDefinition" => ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
        "ClusterGraphTenant" => ("/apis/vpptoken.io/v1alpha1", "clustergraphtenants"),
        "GraphTenant" => ("/apis/vpptoken.io/v1alpha1", "graphtenants"),
        _ => ("/apis/vpptoken.io/v1alpha1", "vpptokens"),
    };
    if namespace.is_empty() {
        format!("{base}/{plural}/{name}")
    } else {
        format!("{base}/namespaces/{namespace}/{plural}/{name}")
    }
}
