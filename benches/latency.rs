//! How long a person waits, with nothing else to do: from a new VppToken to its POST, and from a replaced Secret to its
//! PATCH. Real API server, the operator's own process, emulated Graph. Figures are printed, never asserted.
//!
//! `make bench` runs it.
#![allow(missing_docs, dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::time::Instant;

use graph_emulator::Operation;
use serde_json::json;
use support::{EXPIRES, RENEWED, Setup, World};

const RUNS: usize = 20;

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}

async fn measure() {
    // One list per hour: what is measured does not come by a list.
    let world = World::with(Setup { poll_interval: "1h", ..Setup::default() }).await;
    // The first one signs in and lists.
    let file = world.token("Contoso", &EXPIRES);
    world.create("first", &file, json!({})).await;
    world.wait_synced("first").await;
    let idle = resident(&world);

    let (mut creates, mut renewals) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let name = format!("run-{run}");
        let file = world.token("Contoso", &EXPIRES);
        world.write_secret(&name, "token", &file.text()).await;
        world.create_token(&name, json!({})).await;
        creates.push(until_request(&world, Operation::Create, run + 2).await);
        world.wait_synced(&name).await;
    }
    for run in 0..RUNS {
        let name = format!("run-{run}");
        let file = world.token("Contoso", &RENEWED);
        world.write_secret(&name, "token", &file.text()).await;
        renewals.push(until_request(&world, Operation::Update, run + 1).await);
        world.wait_status(&name, "renewed", |status| status.expiration_date_time == Some(file.expires())).await;
        world.wait_synced(&name).await;
    }

    println!("\n{:<38} {:>5} {:>8} {:>8} {:>8}", "with nothing else to do, in ms", "runs", "min", "median", "max");
    show("object created to its POST arriving", &mut creates);
    show("Secret replaced to its PATCH arriving", &mut renewals);
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_vpptoken-operator")).unwrap().len();
    let profile = if cfg!(debug_assertions) { "development" } else { "release" };
    println!("\nbinary ({profile} build): {:.1} MiB", mebibytes(binary));
    match (idle, resident(&world)) {
        (Some(idle), Some(after)) => {
            println!(
                "operator's memory (RSS): {:.1} MiB with 1 token, {:.1} MiB with {}",
                mebibytes(idle),
                mebibytes(after),
                RUNS + 1
            );
        }
        _ => println!("operator's memory (RSS): only Linux tells it"),
    }
    world.finish().await;
}

/// Milliseconds from now, when Kubernetes has just answered, until so many requests of a kind have arrived.
async fn until_request(world: &World, operation: Operation, count: usize) -> f64 {
    let began = Instant::now();
    world.wait_graph("the request", |seen| seen.count(operation) >= count).await;
    began.elapsed().as_secs_f64() * 1000.0
}

fn show(what: &str, runs: &mut [f64]) {
    runs.sort_by(f64::total_cmp);
    let median = (runs[(runs.len() - 1) / 2] + runs[runs.len() / 2]) / 2.0;
    println!("{what:<38} {:>5} {:>8.1} {median:>8.1} {:>8.1}", runs.len(), runs[0], runs[runs.len() - 1]);
}

/// Resident memory of the operator's process.
fn resident(world: &World) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.operator.process())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[allow(clippy::cast_precision_loss)] // a figure for people
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
