//! What many VppTokens cost: how long until all are created and synced, memory, processor time, and requests; with all of them
//! new, idle, after a restart, and due for a sync at the same minute. Real API server, the operator's own process, emulated Graph
//! with the real limits. Figures are printed, never asserted.
//!
//! `make bench` runs the sizes of `SIZES`, each TOKENSxTENANTS, or TOKENSx1a for one Apple ID. `OPERATOR_CGROUP` is the folder of
//! a cgroup that the operator runs in, for a limit of its memory.
#![allow(missing_docs, dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use graph_emulator::{Operation, Settings, TokenFile};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use support::{Plane, Second, Setup, World, through, until};

const SIZES: &str = "2000x20 1000x1 10000x100 100x1a";
/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(1800);
/// The costs of an idle operator are measured for so long.
const IDLE: Duration = Duration::from_secs(60);
/// After a restart, what is read at the start has been read.
const SETTLED: Duration = Duration::from_secs(15);
/// So many syncs at the same minute are a full queue.
const FULL_QUEUE: usize = 500;
/// Measurements of each kind beside a full queue.
const RUNS: usize = 10;

/// The figures of one size, in the order of the rows.
type Column = Vec<(&'static str, String)>;

fn main() {
    let sizes = std::env::var("SIZES").unwrap_or_else(|_| SIZES.into());
    let mut columns: Vec<(String, Column)> = Vec::new();
    for size in sizes.split_whitespace() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let column = runtime.block_on(measure(Size::parse(size)));
        columns.push((size.to_owned(), column));
        print(&columns);
    }
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_vpptoken-operator")).unwrap().len();
    let profile = if cfg!(debug_assertions) { "development" } else { "release" };
    println!("\nbinary ({profile} build): {:.1} MiB", binary as f64 / f64::from(1 << 20));
}

fn print(columns: &[(String, Column)]) {
    println!(
        "\n{:<52}{}",
        "tokens x tenants",
        columns.iter().map(|(size, _)| format!("{size:>12}")).collect::<String>()
    );
    let mut rows: Vec<&str> = Vec::new();
    for (row, _) in columns.iter().flat_map(|(_, column)| column) {
        if !rows.contains(row) {
            rows.push(row);
        }
    }
    for row in rows {
        let cells = columns.iter().map(|(_, column)| {
            let cell = column.iter().find(|(name, _)| name == &row).map_or("", |(_, cell)| cell.as_str());
            format!("{cell:>12}")
        });
        println!("{row:<52}{}", cells.collect::<String>());
    }
}

#[derive(Clone, Copy)]
struct Size {
    tokens: usize,
    tenants: usize,
    one_apple_id: bool,
}

impl Size {
    fn parse(text: &str) -> Self {
        let (tokens, tenants) = text.split_once('x').expect("SIZES is a list of TOKENSxTENANTS");
        let one_apple_id = tenants.ends_with('a');
        let tenants = tenants.trim_end_matches('a').parse().unwrap();
        Self { tokens: tokens.parse().unwrap(), tenants, one_apple_id }
    }

    /// The time that the limit of Graph alone takes: 90 writes in any 20 s for each tenant, two for each token.
    fn limiter_seconds(&self) -> usize {
        (2 * self.tokens.div_ceil(self.tenants)).saturating_sub(1) / 90 * 20
    }
}

async fn measure(size: Size) -> Column {
    let Size { tokens, tenants, .. } = size;
    let plane = Plane::own().await;
    let emulator = Settings { sync_duration: Duration::from_secs(2), log_capacity: 100_000, ..Settings::default() };
    let flags = ["--log", "info"].map(str::to_owned).to_vec();
    let setup = Setup { emulator, poll_interval: "5m", flags, elsewhere: true, ..Setup::default() };
    let world = World::on(plane.clone(), setup).await;
    for n in 1..tenants {
        let name = format!("tenant-{n}");
        let second = Second::make(&world, &name).await;
        world.apply_to(&name, &second.manifest(&name, "5m")).await;
    }
    let mut column: Column = Vec::new();
    let mut add = |row, figure: String| column.push((row, figure));
    add("memory with no token, MiB", mebibytes(world.operator.process(), "VmRSS:"));
    let before = api_requests(&world).await;

    progress(&size, "creating");
    let began = Instant::now();
    stream::iter(0..tokens).for_each_concurrent(8, |n| create(&world, size, n)).await;
    add("all applied after s", seconds(began));
    wait_for(&world, Operation::Create, tokens).await;
    add("last POST after s", seconds(began));
    wait_for(&world, Operation::SyncLicenses, tokens).await;
    add("last sync after s", seconds(began));
    add("Graph's limit alone, s", size.limiter_seconds().to_string());
    all_ready(&world, tokens).await;
    add("all ready and synced after s", seconds(began));
    let process = world.operator.process();
    add("CPU until then, s", format!("{:.1}", processor_seconds(process)));
    add("highest memory until then, MiB", mebibytes(process, "VmHWM:"));
    let mut all = 0;
    for (what, count) in since(&before, &api_requests(&world).await) {
        all += count;
        add(what, format!("{:.2}", count as f64 / tokens as f64));
    }
    add("requests to the API server per token, in all", format!("{:.2}", all as f64 / tokens as f64));
    let lists = world.emulator.count(Operation::List) as f64;
    add("lists of Graph per tenant", format!("{:.1}", lists / tenants as f64));

    progress(&size, "idle");
    let (busy, before, graph) = (processor_seconds(process), api_requests(&world).await, all_graph(&world));
    tokio::time::sleep(IDLE).await;
    add("idle: memory, MiB", mebibytes(process, "VmRSS:"));
    let used = processor_seconds(process) - busy;
    add("idle: CPU, s per minute", format!("{:.2}", used / IDLE.as_secs_f64() * 60.0));
    add("idle: requests to Graph per minute", (all_graph(&world) - graph).to_string());
    let requests: u64 = since(&before, &api_requests(&world).await).values().sum();
    add("idle: requests to the API server per minute", requests.to_string());

    progress(&size, "restarting");
    let (before, graph, lists) = (api_requests(&world).await, all_graph(&world), world.emulator.count(Operation::List));
    world.operator.restart().await;
    let listed = until(LIMIT, || async { world.emulator.count(Operation::List) >= lists + tenants }).await;
    assert!(listed, "the tenants were not listed again\n{}", world.operator.log_end());
    tokio::time::sleep(SETTLED).await;
    let process = world.operator.process();
    add("restart: highest memory, MiB", mebibytes(process, "VmHWM:"));
    add("restart: memory after it, MiB", mebibytes(process, "VmRSS:"));
    add("restart: CPU, s", format!("{:.1}", processor_seconds(process)));
    add("restart: requests to Graph", (all_graph(&world) - graph).to_string());
    let requests = since(&before, &api_requests(&world).await);
    add("restart: Secrets read", requests.get(GET_SECRET).copied().unwrap_or_default().to_string());
    let others: u64 = requests.iter().filter(|(what, _)| **what != GET_SECRET).map(|(_, count)| count).sum();
    add("restart: other requests to the API server", others.to_string());
    if size.tenants == 1 && !size.one_apple_id && tokens >= FULL_QUEUE {
        column.extend(full_queue(&world, size).await);
    }
    world.operator.kill();
    plane.shutdown().await;
    column
}

/// All tokens are due for a sync at the same minute; meanwhile a person makes a VppToken and replaces Secrets.
async fn full_queue(world: &World, size: Size) -> Column {
    let mut column: Column = Vec::new();
    // Five minutes leave time to change all manifests.
    let due = (Timestamp::now() + SignedDuration::from_mins(5)).as_second() / 60 % 60;
    progress(&size, "setting schedules");
    let spec = json!({ "spec": { "sync": { "schedule": format!("{due} * * * *") } } });
    stream::iter(0..size.tokens)
        .for_each_concurrent(8, |n| {
            let spec = spec.clone();
            async move { world.patch(&format!("token-{n}"), spec).await }
        })
        .await;
    let process = world.operator.process();
    forget_highest_memory(process);
    let before = syncs(world);
    let sent = || world.emulator.count(Operation::SyncLicenses);
    let count = sent();
    progress(&size, "waiting for the schedules");
    assert!(until(LIMIT, || async { sent() > count }).await, "no sync was due");
    let began = Instant::now();
    for (place, creates_row, renewals_row) in [
        ("", "full queue: new object to POST, ms", "full queue: Secret to PATCH, ms"),
        ("elsewhere/", "of another namespace: new object to POST, ms", "of another namespace: Secret to PATCH, ms"),
    ] {
        let (mut creates, mut renewals) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            let name = format!("{place}person-{run}");
            let (posts, patches) = (world.emulator.count(Operation::Create), world.emulator.count(Operation::Update));
            let file = file(world, size.tokens + run + place.len());
            write_secret(world, &name, &file).await;
            world.create_token(&name, json!({})).await;
            creates.push(until_request(world, Operation::Create, posts + 1).await);
            world.wait_synced(&name).await;
            let file = world.token(&format!("Location {}", size.tokens + run + place.len()), "2099-01-22T17:32:07Z");
            world.write_secret(&name, "token", &file.text()).await;
            renewals.push(until_request(world, Operation::Update, patches + 1).await);
        }
        column.push((creates_row, spread(&mut creates)));
        column.push((renewals_row, spread(&mut renewals)));
    }
    column.push(("full queue: measured within s", seconds(began)));
    let is_over = |after: &BTreeMap<String, usize>| {
        before.keys().all(|id| after.get(id).copied().unwrap_or_default() > before[id])
    };
    assert!(until(LIMIT, || async { is_over(&syncs(world)) }).await, "not all were synced");
    column.push(("full queue: all synced after s", seconds(began)));
    let after = syncs(world);
    let once = before.iter().filter(|(id, count)| after[*id] == **count + 1).count();
    column.push(("full queue: tokens synced exactly once", once.to_string()));
    column.push(("full queue: highest memory, MiB", mebibytes(process, "VmHWM:")));
    column.push(("full queue: memory after it, MiB", mebibytes(process, "VmRSS:")));
    column
}

/// How often each token was synced.
fn syncs(world: &World) -> BTreeMap<String, usize> {
    let mut syncs = BTreeMap::new();
    for request in world.emulator.requests() {
        if let (Operation::SyncLicenses, Some(id)) = (request.operation, request.id) {
            *syncs.entry(id).or_default() += 1;
        }
    }
    syncs
}

async fn create(world: &World, size: Size, n: usize) {
    let name = format!("token-{n}");
    write_secret(world, &name, &file(world, n)).await;
    let tenant = n % size.tenants;
    let mut more = if tenant == 0 { json!({}) } else { through(&format!("tenant-{tenant}")) };
    if size.one_apple_id {
        more["appleId"] = "vpp@contoso.example".into();
    }
    world.create_token(&name, more).await;
}

fn file(world: &World, n: usize) -> TokenFile {
    let first = "2097-01-22T17:32:07Z".parse::<Timestamp>().unwrap();
    let expires = first + SignedDuration::from_mins(i64::try_from(n).unwrap());
    world.token(&format!("Location {n}"), &expires.to_string())
}

/// Without the GET of [`World::write_secret`], so that the operator's are counted.
async fn write_secret(world: &World, name: &str, file: &TokenFile) {
    let (namespace, name) = world.place(name);
    let api: Api<Secret> = Api::namespaced(world.client.clone(), namespace);
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        string_data: Some(BTreeMap::from([("token".to_owned(), file.text())])),
        ..Secret::default()
    };
    api.create(&PostParams::default(), &secret).await.unwrap();
}

async fn wait_for(world: &World, operation: Operation, count: usize) {
    let all = until(LIMIT, || async { world.emulator.count(operation) >= count }).await;
    assert!(all, "{operation:?} was not sent {count} times\n{}", world.operator.log_end());
}

/// By the operator's own metrics.
async fn all_ready(world: &World, tokens: usize) {
    let ready = |metrics: String| {
        let of = |name: &str, value: &str| {
            metrics.lines().filter(|line| line.starts_with(name) && line.ends_with(value)).count()
        };
        of("vpptoken_ready{", " 1") >= tokens && of("vpptoken_last_sync_timestamp_seconds{", "") >= tokens
    };
    let all = until(LIMIT, || async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        ready(world.operator.metrics().await)
    });
    assert!(all.await, "not all became ready\n{}", world.operator.log_end());
}

/// Milliseconds from now until so many requests of a kind have arrived.
async fn until_request(world: &World, operation: Operation, count: usize) -> f64 {
    let began = Instant::now();
    world.wait_graph("the request", |seen| seen.count(operation) >= count).await;
    began.elapsed().as_secs_f64() * 1000.0
}

fn spread(runs: &mut [f64]) -> String {
    runs.sort_by(f64::total_cmp);
    format!("{:.0} ({:.0})", (runs[(runs.len() - 1) / 2] + runs[runs.len() / 2]) / 2.0, runs[runs.len() - 1])
}

fn progress(size: &Size, what: &str) {
    eprintln!("{} x {}: {what}", size.tokens, size.tenants);
}

fn seconds(began: Instant) -> String {
    format!("{:.1}", began.elapsed().as_secs_f64())
}

fn all_graph(world: &World) -> usize {
    world.emulator.counters().values().sum()
}

const GET_SECRET: &str = "API server per token: GET secrets";

/// What an operator asks the API server for, by group, resource, subresource and verb.
const API_REQUESTS: [(&str, [&str; 4]); 10] = [
    ("API server per token: GET vpptokens", ["vpptoken.io", "vpptokens", "", "GET"]),
    ("API server per token: PATCH vpptokens/status", ["vpptoken.io", "vpptokens", "status", "PATCH"]),
    ("API server per token: PATCH vpptokens/status", ["vpptoken.io", "vpptokens", "status", "APPLY"]),
    (GET_SECRET, ["", "secrets", "", "GET"]),
    ("API server per token: GET clustergraphtenants", ["vpptoken.io", "clustergraphtenants", "", "GET"]),
    ("API server per token: GET namespaces", ["", "namespaces", "", "GET"]),
    ("API server per token: events", ["events.k8s.io", "events", "", "POST"]),
    ("API server per token: events", ["events.k8s.io", "events", "", "PATCH"]),
    ("API server per token: tenants' status", ["vpptoken.io", "clustergraphtenants", "status", "APPLY"]),
    ("API server per token: tenants' status", ["vpptoken.io", "graphtenants", "status", "APPLY"]),
];

async fn api_requests(world: &World) -> BTreeMap<&'static str, u64> {
    let mut counted = BTreeMap::new();
    for (found, count) in world.plane.requests().await {
        if let Some((what, _)) = API_REQUESTS.iter().find(|(_, known)| known.map(str::to_owned) == found) {
            *counted.entry(*what).or_default() += count;
        }
    }
    counted
}

fn since(before: &BTreeMap<&'static str, u64>, after: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    after.iter().map(|(what, count)| (*what, count - before.get(what).copied().unwrap_or_default())).collect()
}

/// A line of /proc/PID/status, in MiB.
fn mebibytes(process: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let kibibytes = line.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse::<f64>().ok());
    format!("{:.1}", kibibytes.unwrap_or_default() / 1024.0)
}

/// From now on, the highest memory is that since now (proc_pid_clear_refs(5)).
fn forget_highest_memory(process: u32) {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
}

/// Seconds that a process has used, from /proc/PID/stat: a hundredth of a second is its unit on Linux.
fn processor_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let used = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    used.sum::<f64>() / 100.0
}
