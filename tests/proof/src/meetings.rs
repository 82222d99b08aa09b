//! Lives in which a VppToken meets another one, the token of another location, its own namesake, or a Graph that hides tokens.

use std::time::Duration;

use graph_emulator::Operation;
use serde_json::json;

use crate::life::{create, done, needs_a_person, still_cares, was_hidden};
use crate::mistakes::says;
use crate::world::{DEVICES, TENANT, World, file};

/// A step of a life has to arrive within this time, whatever struck before.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// Longer than a token has to be missing before it counts as vanished.
const LONG: Duration = Duration::from_secs(40 * 60);

/// Two VppTokens name one token. One has it; the other is told so, and when that one is deleted, the token stays, although it
/// asks for a deletion in Intune, too.
pub(crate) async fn spared(world: &World) -> Result<(), String> {
    let id = world.create_in_portal("vpp.t0@contoso.example", &file("t0", 200), "de");
    for name in ["t0", "t1"] {
        world.put_file(name, &file("t0", 200));
        let spec = json!({ "tokenId": id, "appleId": "vpp.t0@contoso.example", "deletionPolicy": "Delete" });
        world.put_token(name, spec);
    }
    world.start_process();
    let is_ready = |world: &World, name| world.condition(name, "Ready").0 == "True";
    let is_stalled = |world: &World, name| world.condition(name, "Stalled").1 == "ClaimedByAnother";
    let owner = |world: &World| {
        ["t0", "t1"].into_iter().zip(["t1", "t0"]).find(|(one, other)| is_ready(world, one) && is_stalled(world, other))
    };
    world
        .until("one has the token and the other is told so", LIMIT, |world| {
            owner(world).is_some() || world.was_renewed_outside()
        })
        .await?;
    let Some((owner, other)) = owner(world) else { return Ok(()) };
    world.delete("VppToken", DEVICES, other);
    world.until(&format!("{other} is gone"), LIMIT, |world| world.token(other).is_null()).await?;
    if world.graph.entity(TENANT, &id).is_none() {
        return Err("never_wipe: the token of another VppToken was deleted".into());
    }
    still_cares(world, owner).await
}

/// A similar token of another location is in Graph: nothing is created until a person says that it is another one.
pub(crate) async fn distinct(world: &World) -> Result<(), String> {
    let other = world.create_in_portal("vpp.other@contoso.example", &file("other", 200), "us");
    // What no list can show yet, nobody can find.
    tokio::time::sleep(world.climate.list_lag).await;
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({}));
    world.start_process();
    world
        .until("t0 says SimilarTokenExists, if it can see it", LIMIT, |world| {
            let is_seen = !was_hidden(world) && !world.was_renewed_outside() && !world.has_twin();
            world.condition("t0", "Stalled").1 == "SimilarTokenExists" || !is_seen
        })
        .await?;
    world.put_token("t0", json!({ "distinctFrom": [other] }));
    done(world, "t0", 200).await?;
    if world.token_id("t0") == other {
        return Err("never_fight: a token that is listed in distinctFrom was taken".into());
    }
    still_cares(world, "t0").await
}

/// A VppToken is deleted and made again at once: its namesake finds the token, and nothing of the first one is left over.
pub(crate) async fn again(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    world.delete("VppToken", DEVICES, "t0");
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.put_token("t0", json!({}));
    done(world, "t0", 200).await?;
    if needs_a_person(world, "t0") {
        return Ok(());
    }
    let id = world.token_id("t0");
    world.delete("VppToken", DEVICES, "t0");
    world.put_file("t0", &file("t0", 300));
    world.put_token("t0", json!({ "tokenId": id }));
    done(world, "t0", 300).await?;
    still_cares(world, "t0").await
}

/// A person replaces the file while the first one is being created.
pub(crate) async fn changed_mind(world: &World) -> Result<(), String> {
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({}));
    world.start_process();
    world
        .until("the intent is recorded", LIMIT, |world| {
            world.token("t0")["status"]["pendingCreate"].is_object() || world.id_of("t0").is_some()
        })
        .await?;
    world.put_file("t0", &file("t0", 300));
    done(world, "t0", 300).await?;
    still_cares(world, "t0").await
}

/// A token is missing in all lists for long, while Graph still has it: no second one is created.
pub(crate) async fn unlisted(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    let id = world.token_id("t0");
    let lag = |lag: Duration| {
        world.judge().graph_disturbed(world.now());
        world.graph.settings_mut(|settings| settings.list_lag = lag);
    };
    lag(world.elapsed() + LONG);
    tokio::time::sleep(LONG).await;
    lag(world.climate.list_lag);
    done(world, "t0", 200).await?;
    if world.token_id("t0") != id {
        return Err("never_two: another token was created for one that Graph still has".into());
    }
    still_cares(world, "t0").await
}

/// Graph shows none of three tokens for long: that is reported, and not made good for. Its lists have three pages.
pub(crate) async fn many_vanish(world: &World) -> Result<(), String> {
    const NAMES: [&str; 3] = ["t0", "t1", "t2"];
    world.graph.settings_mut(|settings| settings.page_size = 1);
    for (name, days) in NAMES.into_iter().zip(200..) {
        world.put_file(name, &file(name, days));
        world.put_token(name, json!({}));
    }
    world.start_process();
    for (name, days) in NAMES.into_iter().zip(200..) {
        done(world, name, days).await?;
    }
    let before = world.graph.count(Operation::Create);
    world.hide_all(LONG);
    says(world, "t1", "ManyVanished").await?;
    tokio::time::sleep(LONG).await;
    for (name, days) in NAMES.into_iter().zip(200..) {
        done(world, name, days).await?;
    }
    if world.graph.count(Operation::Create) > before && !world.was_renewed_outside() {
        return Err("never_two: tokens that Graph hid were created again".into());
    }
    still_cares(world, "t2").await
}

/// The file of a VppToken is replaced by an older one, then by one of another organization: neither is uploaded.
pub(crate) async fn wrong_files(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    world.put_file("t0", &file("t0", 100));
    says(world, "t0", "TokenFileOlder").await?;
    let foreign = crate::world::file_of("Fabrikam", "fabrikam", 300);
    world.put_file("t0", &foreign);
    says(world, "t0", "OrganizationMismatch").await?;
    world.put_file("t0", &file("t0", -1));
    says(world, "t0", "TokenFileExpired").await?;
    world.put_file("t0", &file("t0", 400));
    done(world, "t0", 400).await?;
    if !needs_a_person(world, "t0") {
        still_cares(world, "t0").await?;
    }
    Ok(())
}
