//! Lives in which fewer writes may be sent than are due.

use std::time::Duration;

use serde_json::json;

use crate::life::{done, has_met_twin, still_cares};
use crate::world::{DEVICES, World, file};

/// A step of a life has to arrive within this time, whatever struck before.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
const NAMES: [&str; 3] = ["t0", "t1", "t2"];

/// One write may be sent in 20 s.
async fn create_three(world: &World) -> Result<(), String> {
    world.limit_writes(1);
    for name in NAMES {
        world.put_file(name, &file(name, 200));
        world.put_token(name, json!({}));
    }
    world.start_process();
    for name in NAMES {
        done(world, name, 200).await?;
    }
    Ok(())
}

/// One write may be sent in 20 s. While three files wait to be uploaded, one VppToken is suspended and one is deleted: the
/// permits go to those that are left.
pub(crate) async fn scarce_permits(world: &World) -> Result<(), String> {
    create_three(world).await?;
    for name in NAMES {
        world.put_file(name, &file(name, 400));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.put_token("t1", json!({ "suspend": true }));
    world.delete("VppToken", DEVICES, "t2");
    done(world, "t0", 400).await?;
    world.put_token("t1", json!({ "suspend": false }));
    done(world, "t1", 400).await?;
    still_cares(world, "t0").await
}

/// Three syncs are due at the same minute, and one of them may be sent in 20 s: each is sent once. A person's file does not wait
/// for them.
pub(crate) async fn many_due(world: &World) -> Result<(), String> {
    world.limit_writes(2);
    for name in NAMES {
        world.put_file(name, &file(name, 200));
        world.put_token(name, json!({ "sync": { "schedule": "0 * * * *" } }));
    }
    world.start_process();
    for name in NAMES {
        done(world, name, 200).await?;
    }
    let before = NAMES.map(|name| world.syncs_of(name));
    let hour = i64::try_from(world.elapsed().as_secs()).unwrap_or_default() / 3600 + 1;
    let wait = Duration::from_secs(hour.unsigned_abs() * 3600).saturating_sub(world.elapsed());
    tokio::time::sleep(wait + Duration::from_secs(2)).await;
    world.put_file("t2", &file("t2", 400));
    let limit = if world.is_calm() { Duration::from_secs(15) } else { LIMIT };
    world
        .until("the new file is in Graph", limit, |world| {
            world.has_file("t2", &file("t2", 400)) || world.was_renewed_outside()
        })
        .await?;
    for (name, before) in NAMES.into_iter().zip(before) {
        world
            .until(&format!("{name} is synced"), LIMIT, |world| {
                world.syncs_of(name) > before || world.was_renewed_outside() || has_met_twin(world, name)
            })
            .await?;
    }
    if world.is_calm() && world.syncs_of("t0") + world.syncs_of("t1") != before[0] + before[1] + 2 {
        return Err("no_needless_write: a sync that was due once was sent twice".into());
    }
    still_cares(world, "t0").await
}

/// One write may be sent in 20 s. The reconcile that a permit is reserved for hangs: the next one in turn gets the permit when
/// the reservation ends.
pub(crate) async fn late_reconcile(world: &World) -> Result<(), String> {
    create_three(world).await?;
    let before = world.syncs_of("t0");
    world.put_file("t0", &file("t0", 400));
    let is_sent =
        |world: &World| world.syncs_of("t0") > before || world.was_renewed_outside() || has_met_twin(world, "t0");
    world.until("the sync after the upload is sent", LIMIT, is_sent).await?;
    for name in ["t1", "t2"] {
        world.put_file(name, &file(name, 400));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    // Its reconcile is under way when the permit becomes free.
    world.hang_next("GET secrets/devices/t1");
    world.put_file("t1", &file("t1", 401));
    let limit = if world.is_calm() { Duration::from_secs(15) } else { LIMIT };
    world
        .until("the new file of t2 is in Graph", limit, |world| {
            world.has_file("t2", &file("t2", 400)) || world.was_renewed_outside() || has_met_twin(world, "t2")
        })
        .await?;
    for (name, days) in [("t0", 400), ("t1", 401), ("t2", 400)] {
        done(world, name, days).await?;
    }
    still_cares(world, "t1").await
}
