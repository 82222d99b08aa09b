//! Two hundred VppTokens of one tenant: each is created once, and after that there is only one list per poll. Counted
//! by the emulator and by the API server's own metrics; prints its figures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use graph_emulator::{Operation, Settings, View};
use jiff::SignedDuration;
use kube::api::ListParams;
use serde_json::json;
use vpptoken_operator::api::VppToken;

use crate::support::{Plane, Setup, World, is_ready, until};

const TOKENS: usize = 200;
const PAGE: usize = 60;
const PAGES: usize = TOKENS.div_ceil(PAGE);
const POLLS: usize = 10;
/// 400 writes at 90 in any 20 s take 80 s at the least.
const CONVERGE: Duration = Duration::from_secs(180);

fn is_synced(object: &VppToken) -> bool {
    object.status.as_ref().is_some_and(|status| {
        is_ready(status) && status.token_id.is_some() && status.last_sync_status.as_deref() == Some("completed")
    })
}

/// What the API server counted of requests for this operator's kinds, by resource, subresource and verb.
async fn api_requests(world: &World) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for ([group, resource, subresource, verb], count) in world.plane.requests().await {
        if group == "vpptoken.io" {
            *counted.entry(format!("{resource}/{subresource} {verb}")).or_default() += count;
        }
    }
    counted
}

/// Those of them that write.
fn writes(counted: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let is_write = |what: &str| !["GET", "LIST", "WATCH"].iter().any(|verb| what.ends_with(&format!(" {verb}")));
    counted.iter().filter(|(what, _)| is_write(what)).map(|(what, count)| (what.clone(), *count)).collect()
}

/// Lines of /proc/PID/status, where there is such a thing.
fn memory(process: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let lines = status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tokens_of_one_tenant_cost_one_list_per_poll_and_no_status_write() {
    let plane = Plane::own().await;
    let setup = Setup { emulator: Settings { page_size: PAGE, ..Setup::default().emulator }, ..Setup::default() };
    let world = World::on(plane.clone(), setup).await;
    let first = "2097-01-22T17:32:07Z".parse::<jiff::Timestamp>().unwrap();
    let began = Instant::now();
    stream::iter(0..TOKENS)
        .for_each_concurrent(16, |n| {
            let expires = first + SignedDuration::from_hours(24) * i32::try_from(n).unwrap();
            let file = world.token(&format!("Location {n}"), &expires.to_string());
            let world = &world;
            async move {
                let name = format!("token-{n}");
                world.create(&name, &file, json!({ "automaticallyUpdateApps": true })).await;
            }
        })
        .await;
    let applied = began.elapsed();
    let converged = until(CONVERGE, || async {
        let objects = world.tokens().list(&ListParams::default()).await.unwrap();
        objects.items.len() == TOKENS && objects.iter().all(is_synced)
    })
    .await;
    let converging = began.elapsed();
    assert!(converged, "not all became ready and synced\n{}", world.operator.log_end());
    let graph = world.emulator.counters();
    assert_eq!(world.entities().len(), TOKENS);
    let failed =
        world.emulator.requests().into_iter().filter(|request| request.status().is_none_or(|code| code >= 300));
    let failed: Vec<_> = failed.collect();
    assert!(failed.is_empty(), "not every request was answered well: {failed:#?}");
    assert_eq!(graph.get(&Operation::Create), Some(&TOKENS));
    assert_eq!(graph.get(&Operation::SyncLicenses), Some(&TOKENS));
    assert_eq!(graph.get(&Operation::Update), None);
    assert_eq!(graph.get(&Operation::Get), None);
    let to_converge = writes(&api_requests(&world).await);

    // Whatever was still in flight when the last one became ready ends before the counting begins.
    world.wait_lists(2).await;
    world.wait_graph("the end of a list", is_between_lists).await;
    world.emulator.clear_requests();
    let before = api_requests(&world).await;
    let counting = Instant::now();
    world
        .wait_graph("ten polls", |seen| {
            let answered = seen.requests().filter(|request| request.status() == Some(200));
            answered.count() >= POLLS * PAGES
        })
        .await;
    let (counted, after) = (world.emulator.counters(), api_requests(&world).await);
    let requests = world.emulator.requests();

    println!(
        "{TOKENS} VppTokens on {PAGES} pages: applied in {:.1} s, all ready and synced after {:.1} s",
        applied.as_secs_f64(),
        converging.as_secs_f64()
    );
    println!("  to Graph until then: {graph:?}");
    println!("  writes to the API server until then: {to_converge:?}");
    println!("  operator: {}", memory(world.operator.process()));
    println!(
        "  then {POLLS} polls in {:.1} s: {counted:?} to Graph, and to the API server {:?}",
        counting.elapsed().as_secs_f64(),
        difference(&before, &after)
    );
    assert_eq!(counted, BTreeMap::from([(Operation::List, POLLS * PAGES)]), "{requests:#?}");
    let polls = requests.iter().filter(|request| !request.is_follow_up()).count();
    assert_eq!(polls, POLLS);
    assert_eq!(writes(&before), writes(&after), "written although nothing changed");
    assert!(
        writes(&after).iter().any(|(what, count)| what.starts_with("vpptokens/status ") && *count >= 200),
        "the API server's metrics are not understood: {after:?}"
    );
    world.finish().await;
    plane.shutdown().await;
}

/// Whether the last list has all its pages.
fn is_between_lists(seen: &View<'_>) -> bool {
    let last = seen.requests().next_back();
    last.is_some_and(|request| request.page == u32::try_from(PAGES).ok() && request.ended.is_some())
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = after.iter().map(|(what, count)| (what.clone(), count - before.get(what).unwrap_or(&0)));
    grown.filter(|(_, count)| *count > 0).collect()
}
