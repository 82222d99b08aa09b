//! What many VppTokens cost: how long until all are created and synced, and the operator's memory and processor time, with all
//! of them new, idle, and after a restart. Real API server, the operator's own process, emulated Graph with the real limits.
//! Figures are printed, never asserted.
//!
//! `make scale` runs the sizes of `SIZES`, each TOKENSxTENANTS.
#![allow(missing_docs, dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use graph_emulator::{Operation, Settings};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use support::{Plane, Second, Setup, World, through, until};

const SIZES: &str = "100x1 1000x1 2000x20";
/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(1800);
/// The processor time of an idle operator is measured for so long.
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    let sizes = std::env::var("SIZES").unwrap_or_else(|_| SIZES.into());
    println!(
        "\n{:>7} {:>7} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}",
        "tokens",
        "tenants",
        "synced s",
        "limiter s",
        "idle MiB",
        "peak MiB",
        "restarted",
        "its peak",
        "CPU s",
        "idle CPU"
    );
    for size in sizes.split_whitespace() {
        let (tokens, tenants) = size.split_once('x').expect("SIZES is a list of TOKENSxTENANTS");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(measure(tokens.parse().unwrap(), tenants.parse().unwrap()));
    }
}

async fn measure(tokens: usize, tenants: usize) {
    let plane = Plane::own().await;
    let emulator = Settings { sync_duration: Duration::from_secs(2), log_capacity: 1000, ..Settings::default() };
    let setup = Setup { emulator, poll_interval: "5m", flags: Vec::new(), ..Setup::default() };
    let world = World::on(plane.clone(), setup).await;
    for n in 1..tenants {
        Second::make(&world, &format!("tenant-{n}")).await;
    }
    let first = "2097-01-22T17:32:07Z".parse::<Timestamp>().unwrap();
    let began = Instant::now();
    stream::iter(0..tokens)
        .for_each_concurrent(8, |n| {
            let expires = first + SignedDuration::from_mins(i64::try_from(n).unwrap());
            let file = world.token(&format!("Location {n}"), &expires.to_string());
            let world = &world;
            async move {
                let tenant = n % tenants;
                let more = if tenant == 0 { json!({}) } else { through(&format!("tenant-{tenant}")) };
                world.create(&format!("token-{n}"), &file, more).await;
            }
        })
        .await;
    let all_synced = until(LIMIT, || async { world.emulator.count(Operation::SyncLicenses) >= tokens }).await;
    assert!(all_synced, "not all were synced\n{}", world.operator.log_end());
    let synced = began.elapsed().as_secs_f64();
    // 90 writes in any 20 s for each tenant, two for each token.
    let windows = (2 * tokens / tenants).saturating_sub(1) / 90;
    let process = world.operator.process();
    let busy = processor_seconds(process);
    let peak = memory(process, "VmHWM:");
    tokio::time::sleep(IDLE).await;
    let idle = memory(process, "VmRSS:");
    let idle_share = (processor_seconds(process) - busy) / IDLE.as_secs_f64() * 100.0;
    let lists = world.emulator.count(Operation::List);
    world.operator.restart().await;
    let listed = until(LIMIT, || async { world.emulator.count(Operation::List) >= lists + tenants }).await;
    assert!(listed, "the tenants were not listed again\n{}", world.operator.log_end());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let process = world.operator.process();
    println!(
        "{tokens:>7} {tenants:>7} {synced:>9.1} {:>10} {idle:>9.1} {peak:>9.1} {:>9.1} {:>9.1} {busy:>8.1} {idle_share:>8.2}%",
        windows * 20,
        memory(process, "VmRSS:"),
        memory(process, "VmHWM:"),
    );
    world.operator.kill();
    plane.shutdown().await;
}

/// A line of /proc/PID/status, in MiB.
fn memory(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

/// Seconds that a process has used, from /proc/PID/stat: a hundredth of a second is its unit on Linux.
fn processor_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let used = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    used.sum::<f64>() / 100.0
}
