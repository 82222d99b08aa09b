//! Short lives: what people do with a token or two, and what has to come of it, whatever fails meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use graph_emulator::TokenFile;
use serde_json::json;

use crate::fault::Fault;
use crate::meetings::{again, changed_mind, distinct, many_vanish, spared, unlisted, wrong_files};
use crate::mistakes::{
    ambiguous, another_id, deletion_stalls, mistakes, no_rights, not_allowed, refused, refused_at_restart, rotates,
    tenant_comes_and_goes, unavailable, unread_namespace_ends, verdicts,
};
use crate::permits::{late_reconcile, many_due, scarce_permits};
use crate::world::{DEVICES, SYSTEM, TENANT, World, condition, file, text};

/// A step of a life has to arrive within this time, whatever struck before.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

type Script = for<'a> fn(&'a World) -> BoxFuture<'a, Result<(), String>>;

/// A life.
#[derive(Clone, Copy)]
pub struct Life {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub script: Script,
}

macro_rules! lives {
    ($($name:ident),* $(,)?) => {
        /// All lives.
        pub const LIVES: &[Life] = &[$(Life { name: stringify!($name), script: |world| Box::pin($name(world)) }),*];
    };
}

lives!(
    create_and_sync,
    renew,
    drift,
    adopt,
    bind,
    observe,
    delete,
    vanish,
    one_file_for_two,
    namespace_ends,
    definition_ends,
    restore,
    one_apple_id_for_three,
    schedule,
    noted,
    suspend,
    late_secret,
    mistakes,
    not_allowed,
    tenant_comes_and_goes,
    verdicts,
    refused,
    unavailable,
    ambiguous,
    another_id,
    no_rights,
    rotates,
    spared,
    distinct,
    again,
    changed_mind,
    unlisted,
    many_vanish,
    wrong_files,
    refused_at_restart,
    deletion_stalls,
    unread_namespace_ends,
    scarce_permits,
    many_due,
    late_reconcile,
);

/// Ready and synced with its file; or, if a person uploaded a newer one meanwhile, whatever that leads to: it is not
/// uploaded over, and a person is told where one is needed.
pub(crate) async fn done(world: &World, name: &str, days: i64) -> Result<(), String> {
    done_as(world, name, &file(name, days)).await
}

async fn done_as(world: &World, name: &str, file: &TokenFile) -> Result<(), String> {
    world
        .until(&format!("{name} is ready and synced"), LIMIT, |world| {
            // With a status from before the token, and a newer file, nobody can tell whose the token is.
            let is_forgotten = || world.has_struck(Fault::Restored);
            world.is_done(name, file)
                || world.was_renewed_outside() && (is_ready(world, name) || needs_a_person(world, name))
                || world.condition(name, "Stalled").1 == "SimilarTokenExists" && is_forgotten()
                || world.condition(name, "Stalled").1 == "AmbiguousMatch" && was_hidden(world)
                || has_met_twin(world, name)
        })
        .await
}

/// Somebody created a token in the portal that may be of the same location: a person has to decide.
pub(crate) fn has_met_twin(world: &World, name: &str) -> bool {
    let stalled = world.condition(name, "Stalled").1;
    world.has_twin() && ["SimilarTokenExists", "AmbiguousMatch"].contains(&stalled.as_str())
}

pub(crate) fn is_ready(world: &World, name: &str) -> bool {
    let object = world.token(name);
    world.condition(name, "Ready").0 == "True"
        && object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

/// What Graph hid from everybody for a while, nobody could find.
pub(crate) fn was_hidden(world: &World) -> bool {
    world.judge().has_hidden()
}

pub(crate) fn needs_a_person(world: &World, name: &str) -> bool {
    matches!(
        world.condition(name, "Stalled").1.as_str(),
        "TokenFileOlder"
            | "SimilarTokenExists"
            | "AmbiguousMatch"
            | "ReplacedInIntune"
            | "ClaimedByAnother"
            | "Suspended"
    )
}

pub(crate) async fn create(world: &World, name: &str) -> Result<(), String> {
    world.put_file(name, &file(name, 200));
    world.put_token(name, json!({}));
    world.start_process();
    done(world, name, 200).await
}

/// Drift is noticed and put back: whoever was forgotten would not.
pub(crate) async fn still_cares(world: &World, name: &str) -> Result<(), String> {
    if needs_a_person(world, name) {
        return Ok(());
    }
    let object = world.token(name);
    let id = object["status"]["tokenId"].as_str().ok_or_else(|| format!("stays: {name} has no token"))?;
    world.edit_in_portal(id, "us");
    world
        .until(&format!("the country of {name} is put back"), LIMIT, |world| {
            world.graph.entity(TENANT, id).is_some_and(|entity| entity.country_or_region.as_deref() == Some("de"))
        })
        .await?;
    world
        .until(&format!("{name} is ready again"), LIMIT, |world| {
            world.condition(name, "Ready").0 == "True" || world.was_renewed_outside() && needs_a_person(world, name)
        })
        .await
}

async fn create_and_sync(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    still_cares(world, "t0").await
}

async fn renew(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    world.put_file("t0", &file("t0", 400));
    done(world, "t0", 400).await?;
    still_cares(world, "t0").await
}

async fn drift(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    still_cares(world, "t0").await?;
    if needs_a_person(world, "t0") {
        return Ok(());
    }
    world.put_token("t0", json!({ "countryOrRegion": "fr" }));
    let id = world.token_id("t0");
    world
        .until("the new country is in Graph", LIMIT, |world| {
            world.graph.entity(TENANT, &id).is_some_and(|entity| entity.country_or_region.as_deref() == Some("fr"))
                && world.condition("t0", "Ready").0 == "True"
        })
        .await
}

async fn adopt(world: &World) -> Result<(), String> {
    let id = world.create_in_portal("vpp.t0@contoso.example", &file("t0", 200), "de");
    // What no list can show yet, nobody can find.
    tokio::time::sleep(world.climate.list_lag).await;
    create(world, "t0").await?;
    let has_another = world.token("t0")["status"]["tokenId"] != id.as_str();
    if has_another && !needs_a_person(world, "t0") && !was_hidden(world) && !world.has_twin() {
        return Err("always_arrives: another token was taken than the one in Graph".into());
    }
    still_cares(world, "t0").await
}

async fn bind(world: &World) -> Result<(), String> {
    let id = world.create_in_portal("vpp.old@contoso.example", &file("t0", 100), "us");
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({ "tokenId": id }));
    world.start_process();
    done(world, "t0", 200).await?;
    still_cares(world, "t0").await
}

async fn observe(world: &World) -> Result<(), String> {
    let id = world.create_in_portal("vpp.t0@contoso.example", &file("t0", 200), "us");
    world.put_token(
        "t0",
        json!({ "tokenId": id, "managementPolicy": "Observe", "tokenSecretRef": null, "appleId": null, "countryOrRegion": null }),
    );
    world.start_process();
    world.until("it is ready", LIMIT, |world| world.condition("t0", "Ready").0 == "True").await?;
    let requests = json!({ "vpptoken.io/sync-requested-at": "now", "vpptoken.io/upload-requested-at": "now" });
    world.patch("VppToken", DEVICES, "t0", &json!({ "metadata": { "annotations": requests } }));
    world
        .until("the requests are answered", LIMIT, |world| {
            let status = &world.token("t0")["status"];
            status["lastHandledSyncRequest"] == "now" && status["lastHandledUploadRequest"] == "now"
        })
        .await?;
    world.edit_in_portal(&id, "fr");
    world
        .until("the status shows the change", LIMIT, |world| {
            let country = world.graph.entity(TENANT, &id).and_then(|entity| entity.country_or_region);
            world.token("t0")["status"]["countryOrRegion"].as_str() == country.as_deref()
        })
        .await?;
    if world.graph.look(|view| view.requests().any(|request| request.operation.is_write())) {
        return Err("never_fight: under Observe something was written".into());
    }
    Ok(())
}

async fn delete(world: &World) -> Result<(), String> {
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({ "deletionPolicy": "Delete" }));
    world.start_process();
    done(world, "t0", 200).await?;
    world.delete("VppToken", DEVICES, "t0");
    // Of two that may be the result of its create, a person has to say which one is deleted.
    let is_over = |world: &World| world.token("t0").is_null() || has_met_twin(world, "t0");
    world.until("the VppToken is gone", LIMIT, is_over).await?;
    all_is_deleted(world)
}

/// The token of a VppToken that is gone is deleted in Graph.
pub(crate) fn all_is_deleted(world: &World) -> Result<(), String> {
    let left = world.graph.entities(TENANT).len();
    // Who is told 404 in answer to a DELETE may let go. So may who is suspended meanwhile.
    if left > 0 && !was_hidden(world) && !world.has_twin() && !world.has_struck(Fault::Suspends) {
        return Err(format!("always_arrives: {left} tokens are left in Graph"));
    }
    Ok(())
}

async fn vanish(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    world.delete_in_portal(&world.token_id("t0"));
    world.until("the loss is seen", LIMIT, |world| world.condition("t0", "Ready").0 == "False").await?;
    done(world, "t0", 200).await?;
    still_cares(world, "t0").await
}

async fn one_file_for_two(world: &World) -> Result<(), String> {
    let shared = file("t0", 200);
    for name in ["t0", "t1"] {
        world.put_file(name, &shared);
        world.put_token(name, json!({ "appleId": "vpp.t0@contoso.example" }));
    }
    world.start_process();
    world
        .until("one has the token and the other is stalled", LIMIT, |world| {
            let ready = ["t0", "t1"].map(|name| world.is_done(name, &shared));
            let stalled = ["t0", "t1"].map(|name| world.condition(name, "Stalled").1 == "ClaimedByAnother");
            let is_ambiguous = || world.has_twin() && ["t0", "t1"].iter().all(|name| needs_a_person(world, name));
            (ready[0] && stalled[1]) || (ready[1] && stalled[0]) || world.was_renewed_outside() || is_ambiguous()
        })
        .await?;
    if world.was_renewed_outside() || world.has_twin() {
        return Ok(());
    }
    let owner = if world.is_done("t0", &shared) { "t0" } else { "t1" };
    let other = if owner == "t0" { "t1" } else { "t0" };
    world.delete("VppToken", DEVICES, owner);
    done_as(world, other, &shared).await
}

async fn namespace_ends(world: &World) -> Result<(), String> {
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({ "deletionPolicy": "Delete" }));
    world.start_process();
    done(world, "t0", 200).await?;
    world.delete("Namespace", "", DEVICES);
    world.until("the namespace is gone", LIMIT, |world| world.api.value("Namespace", "", DEVICES).is_none()).await
}

async fn definition_ends(world: &World) -> Result<(), String> {
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({ "deletionPolicy": "Delete" }));
    world.start_process();
    done(world, "t0", 200).await?;
    world.delete("CustomResourceDefinition", "", "vpptokens.vpptoken.io");
    world
        .until("the definition is gone", LIMIT, |world| {
            world.api.value("CustomResourceDefinition", "", "vpptokens.vpptoken.io").is_none()
        })
        .await?;
    if world.graph.entities(TENANT).is_empty() {
        return Err("never_wipe: the token went with the definition".into());
    }
    Ok(())
}

async fn restore(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    world.put_file("t0", &file("t0", 400));
    done(world, "t0", 400).await?;
    crate::kubernetes::restore(world, "VppToken", DEVICES, "t0");
    tokio::time::sleep(Duration::from_secs(5)).await;
    done(world, "t0", 400).await?;
    still_cares(world, "t0").await
}

async fn one_apple_id_for_three(world: &World) -> Result<(), String> {
    for (n, name) in ["t0", "t1", "t2"].into_iter().enumerate() {
        world.put_file(name, &file(name, 200 + i64::try_from(n).unwrap_or_default()));
        world.put_token(name, json!({ "appleId": "vpp.shared@contoso.example" }));
    }
    world.start_process();
    for (n, name) in ["t0", "t1", "t2"].into_iter().enumerate() {
        done_as(world, name, &file(name, 200 + i64::try_from(n).unwrap_or_default())).await?;
    }
    Ok(())
}

async fn schedule(world: &World) -> Result<(), String> {
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({ "sync": { "schedule": "20 * * * *" } }));
    world.start_process();
    done(world, "t0", 200).await?;
    let before = world.graph.count(graph_emulator::Operation::SyncLicenses);
    world
        .until("the scheduled sync is sent", LIMIT, |world| {
            world.graph.count(graph_emulator::Operation::SyncLicenses) > before
        })
        .await?;
    world.until("it is synced", LIMIT, |world| world.condition("t0", "Synced").1 == "SyncCompleted").await
}

/// A person uploads a file in the portal and puts it into the Secret, too: it is noted, and not uploaded again.
async fn noted(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    if has_met_twin(world, "t0") {
        return Ok(());
    }
    let id = world.token_id("t0");
    let newer = file("t0", 400);
    world.judge().file_seen(&newer);
    world.upload_in_portal(&id, &newer);
    world
        .until("the status shows the newer expiry", LIMIT, |world| {
            world.condition("t0", "Ready").1 == "NewerTokenInIntune" || world.was_renewed_outside()
        })
        .await?;
    world.put_file("t0", &newer);
    done_as(world, "t0", &newer).await
}

async fn suspend(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    world.put_token("t0", json!({ "suspend": true }));
    world.put_file("t0", &file("t0", 400));
    world
        .until("the suspension is said", LIMIT, |world| {
            world.condition("t0", "Ready").1 == "Suspended" || world.was_renewed_outside() || has_met_twin(world, "t0")
        })
        .await?;
    world.put_token("t0", json!({ "suspend": false }));
    done(world, "t0", 400).await
}

async fn late_secret(world: &World) -> Result<(), String> {
    world.delete("Secret", SYSTEM, "graph");
    world.put_token("t0", json!({}));
    world.start_process();
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.put_secret(SYSTEM, "graph", "clientSecret", crate::world::CLIENT_SECRET);
    world.put_file("t0", &file("t0", 200));
    done(world, "t0", 200).await
}

/// After a life nothing is written any more, and what is done stays done.
///
/// # Errors
/// Says what was written.
pub async fn stays(world: &World) -> Result<(), String> {
    // A call that comes later than without faults must not be struck in the quiet that is judged here.
    world.faults_are_over();
    // Faults whose effects are still on their way, and people's changes, settle first: a token that is gone is noticed at a
    // poll, looked for during a quarter of an hour, and created again. A time that was written while the wall clock was wrong
    // is corrected at the next look, an hour later at most.
    let minutes = if world.has_struck(Fault::ClockGlitch) { 70 } else { 40 };
    tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
    let writes = || {
        let ours = world.api.writes();
        let ours = ours.iter().filter(|write| write.user == crate::kubernetes::USER);
        (ours.count(), world.graph.look(|view| view.requests().filter(|request| request.operation.is_write()).count()))
    };
    let ready = || -> BTreeSet<String> {
        let objects = world.api.values("VppToken").into_iter().filter(|it| condition(it, "Ready").0 == "True");
        objects.map(|it| text(&it["metadata"]["uid"]).to_owned()).collect()
    };
    let owners = world
        .api
        .objects("VppToken")
        .into_iter()
        .filter(|object| condition(object, "Ready").0 == "True" && object["spec"]["managementPolicy"] != "Observe");
    let mut owned = BTreeSet::new();
    if let Some(twice) = owners.map(|it| text(&it["status"]["tokenId"]).to_owned()).find(|id| !owned.insert(id.clone()))
    {
        return Err(format!("never_fight: two VppTokens have the token {twice}"));
    }
    let (before, was_ready) = (writes(), ready());
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    let (after, is_ready) = (writes(), ready());
    for object in world.api.values("VppToken") {
        world.judge().ready_after_quiet(world, &object);
    }
    if !is_ready.is_superset(&was_ready) {
        return Err("stays: what was Ready is not any more".into());
    }
    if let Some(broken) = world.judge().broken() {
        return Err(broken);
    }
    if before != after && !has_schedule(world) {
        return Err(format!(
            "stays: without a reason (Kubernetes writes, Graph writes) went from {before:?} to {after:?}"
        ));
    }
    Ok(())
}

fn has_schedule(world: &World) -> bool {
    world.api.values("VppToken").iter().any(|object| object["spec"]["sync"].is_object())
}
