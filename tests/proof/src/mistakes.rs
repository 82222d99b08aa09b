//! Lives in which a person makes a mistake, or somebody says no: the reason is said, and when it is put right, all arrives.

use std::time::Duration;

use graph_emulator::{By, Operation, Permission};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::life::{all_is_deleted, create, done, has_met_twin, is_ready, still_cares, was_hidden};
use crate::world::{CLIENT, CLIENT_SECRET, DEVICES, SYSTEM, TENANT, World, condition, file};

/// A reason has to be said within this time.
const LIMIT: Duration = Duration::from_secs(2 * 3600);
/// Another Entra tenant.
const OTHER_TENANT: &str = "3c1f7a52-6b0e-4a37-8f7d-2a9f5f0f6a10";

/// Waits until a condition has a reason; when a person renewed or created the token in the portal, anything may come.
pub(crate) async fn says(world: &World, name: &str, reason: &str) -> Result<(), String> {
    world
        .until(&format!("{name} says {reason}"), LIMIT, |world| {
            let object = world.token(name);
            let conditions = object["status"]["conditions"].as_array();
            let says = conditions.is_some_and(|all| all.iter().any(|condition| condition["reason"] == reason));
            says && object["status"]["observedGeneration"] == object["metadata"]["generation"]
                || world.was_renewed_outside()
                || world.has_twin()
        })
        .await
}

/// Nothing is in Graph while the manifest or its file is wrong.
fn nothing_is_created(world: &World) -> Result<(), String> {
    let effects = world.graph.effects();
    let created =
        effects.iter().filter(|effect| effect.operation == Operation::Create && matches!(effect.by, By::Request(_)));
    match created.count() {
        0 => Ok(()),
        count => Err(format!("always_arrives: {count} tokens were created from a wrong manifest")),
    }
}

pub(crate) async fn mistakes(world: &World) -> Result<(), String> {
    world.put_secret(DEVICES, "t0", "other", "x");
    world.put_token("t0", json!({}));
    world.start_process();
    says(world, "t0", "SecretKeyNotFound").await?;
    world.put_secret(DEVICES, "t0", "token", "this is no token file");
    says(world, "t0", "TokenFileMalformed").await?;
    world.put_file("t0", &file("t0", -1));
    says(world, "t0", "TokenFileExpired").await?;
    world.put_token("t0", json!({ "organizationName": "Fabrikam" }));
    world.put_file("t0", &file("t0", 200));
    says(world, "t0", "OrganizationMismatch").await?;
    world.put_token("t0", json!({ "sync": { "schedule": "0 0 31 4 *" } }));
    says(world, "t0", "ScheduleNeverFires").await?;
    world.put_token("t0", json!({ "sync": { "schedule": "0,50 * * * *" } }));
    says(world, "t0", "ScheduleInvalid").await?;
    world.put_token("t0", json!({ "displayName": "Berlin" }));
    says(world, "t0", "SettingUnknownToApi").await?;
    nothing_is_created(world)?;
    world.put_token("t0", json!({}));
    done(world, "t0", 200).await
}

fn put_tenant(world: &World, tenant_id: &str, namespaces: &Value, operations: &[&str]) {
    world.apply(&json!({
        "apiVersion": "vpptoken.io/v1alpha1", "kind": "ClusterGraphTenant", "metadata": { "name": "default" },
        "spec": {
            "tenantId": tenant_id, "clientId": CLIENT, "credentials": { "clientSecretRef": { "name": "graph" } },
            "allowedNamespaces": namespaces, "allowedOperations": operations,
        },
    }));
}

const ALL_OPERATIONS: [&str; 4] = ["Create", "Adopt", "Bind", "Delete"];

pub(crate) async fn not_allowed(world: &World) -> Result<(), String> {
    put_tenant(world, TENANT, &json!({ "from": "Names", "names": ["elsewhere"] }), &ALL_OPERATIONS);
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({}));
    world.start_process();
    says(world, "t0", "NamespaceNotAllowed").await?;
    put_tenant(world, TENANT, &json!({ "from": "All" }), &["Adopt"]);
    says(world, "t0", "OperationNotAllowed").await?;
    nothing_is_created(world)?;
    put_tenant(world, TENANT, &json!({ "from": "All" }), &ALL_OPERATIONS);
    done(world, "t0", 200).await
}

pub(crate) async fn tenant_comes_and_goes(world: &World) -> Result<(), String> {
    world.graph.add_app(OTHER_TENANT, CLIENT, CLIENT_SECRET);
    world.delete("ClusterGraphTenant", "", "default");
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({}));
    world.start_process();
    says(world, "t0", "TenantNotFound").await?;
    put_tenant(world, TENANT, &json!({ "from": "All" }), &ALL_OPERATIONS);
    done(world, "t0", 200).await?;
    world.delete("ClusterGraphTenant", "", "default");
    says(world, "t0", "TenantNotFound").await?;
    put_tenant(world, OTHER_TENANT, &json!({ "from": "All" }), &ALL_OPERATIONS);
    says(world, "t0", "TenantChanged").await?;
    if !world.graph.entities(OTHER_TENANT).is_empty() {
        return Err("never_two: a token was created in another tenant".into());
    }
    world.delete("ClusterGraphTenant", "", "default");
    put_tenant(world, TENANT, &json!({ "from": "All" }), &ALL_OPERATIONS);
    done(world, "t0", 200).await
}

pub(crate) async fn verdicts(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    let id = world.token("t0")["status"]["tokenId"].as_str().unwrap_or_default().to_owned();
    let force = |state: Option<&str>| {
        world.judge().graph_disturbed(world.now());
        world.graph.force_state(TENANT, &id, state)
    };
    for (state, reason) in [
        ("expired", "Expired"),
        ("invalid", "Invalid"),
        ("assignedToExternalMDM", "AssignedToExternalMDM"),
        ("duplicateLocationId", "DuplicateLocation"),
    ] {
        force(Some(state));
        says(world, "t0", reason).await?;
    }
    force(Some("unknown"));
    says(world, "t0", "Unknown").await?;
    says(world, "t0", "StateUnknown").await?;
    world.until("t0 is ready with a state that nobody knows", LIMIT, |world| is_ready(world, "t0")).await?;
    force(None);
    world.until("t0 is ready", LIMIT, |world| is_ready(world, "t0")).await?;
    world.delete("VppToken", DEVICES, "t0");
    world.delete_in_portal(&id);
    // A token that is about to expire; then a new file.
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    world.put_file("t0", &file("t0", 20));
    world.put_token("t0", json!({}));
    says(world, "t0", "ExpiringSoon").await?;
    world.put_file("t0", &file("t0", 200));
    done(world, "t0", 200).await
}

pub(crate) async fn refused(world: &World) -> Result<(), String> {
    world.graph.settings_mut(|settings| {
        settings.required_on_create.insert("displayName".into());
    });
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({}));
    world.start_process();
    says(world, "t0", "GraphRefused").await?;
    nothing_is_created(world)?;
    world.graph.settings_mut(|settings| {
        settings.required_on_create.remove("displayName");
    });
    done(world, "t0", 200).await?;
    world.graph.settings_mut(|settings| {
        settings.not_kept.insert("countryOrRegion".into());
    });
    world.put_token("t0", json!({ "countryOrRegion": "fr" }));
    says(world, "t0", "SettingNotAccepted").await?;
    world.graph.settings_mut(|settings| settings.not_kept.clear());
    world.put_token("t0", json!({ "countryOrRegion": "it" }));
    done(world, "t0", 200).await
}

/// Credentials expire, the permission is taken away, a sync fails, and Graph can't be reached for a long time.
pub(crate) async fn unavailable(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    world.graph.set_secret_expired(TENANT, CLIENT, true);
    world.graph.revoke_access_tokens();
    says(world, "t0", "CredentialsRefused").await?;
    world.graph.set_secret_expired(TENANT, CLIENT, false);
    world.until("t0 is ready", LIMIT, |world| is_ready(world, "t0") || world.was_renewed_outside()).await?;
    world.graph.set_permission(TENANT, CLIENT, Permission::None);
    world.graph.revoke_access_tokens();
    says(world, "t0", "PermissionMissing").await?;
    world.graph.set_permission(TENANT, CLIENT, Permission::ReadWrite);
    world.graph.revoke_access_tokens();
    world.until("t0 is ready", LIMIT, |world| is_ready(world, "t0") || world.was_renewed_outside()).await?;
    let id = world.token("t0")["status"]["tokenId"].as_str().unwrap_or_default().to_owned();
    world.graph.set_sync_failure(TENANT, &id, true);
    let request = |at: &str| {
        let annotations = json!({ "vpptoken.io/sync-requested-at": at });
        world.patch("VppToken", DEVICES, "t0", &json!({ "metadata": { "annotations": annotations } }));
    };
    request("one");
    says(world, "t0", "SyncFailed").await?;
    let is_told = |world: &World| events(world, "SyncFailed") > 0 || !world.is_calm();
    world.until("an event says that the sync failed", LIMIT, is_told).await?;
    world.graph.set_sync_failure(TENANT, &id, false);
    world.take_graph_down(true);
    // With a write due, which a person's edit makes, it is not the snapshot that is missed.
    let is_edited = || world.has_struck(Fault::PortalEdits) && world.condition("t0", "Ready").1 == "GraphUnavailable";
    world
        .until("t0 says SnapshotStale", LIMIT, |world| {
            world.condition("t0", "Ready").1 == "SnapshotStale" || is_edited() || world.was_renewed_outside()
        })
        .await?;
    world.take_graph_down(false);
    request("two");
    done(world, "t0", 200).await
}

/// The client secret is replaced in Entra, and later in Kubernetes.
pub(crate) async fn rotates(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    let replaced = format!("{CLIENT_SECRET}-two");
    world.graph.set_secret(TENANT, CLIENT, replaced.clone());
    world.graph.revoke_access_tokens();
    says(world, "t0", "CredentialsRefused").await?;
    world.put_secret(SYSTEM, "graph", "clientSecret", &replaced);
    done(world, "t0", 200).await?;
    still_cares(world, "t0").await
}

/// How often an event was written for a reason.
fn events(world: &World, reason: &str) -> usize {
    let writes = world.api.writes();
    let events = writes.iter().filter(|write| write.kind == "Event").filter_map(|write| write.new.as_deref());
    events.filter(|event| event["reason"] == reason && event["type"] == "Warning").count()
}

fn is_stalled_by(world: &World, reason: &str) -> bool {
    world.condition("t0", "Stalled") == ("True".into(), reason.into())
}

/// The operator starts again while its credentials are refused: that needs a person as before, and is no news.
pub(crate) async fn refused_at_restart(world: &World) -> Result<(), String> {
    const REASON: &str = "CredentialsRefused";
    create(world, "t0").await?;
    world.graph.set_secret_expired(TENANT, CLIENT, true);
    world.graph.revoke_access_tokens();
    world.until("t0 is stalled", LIMIT, |world| is_stalled_by(world, REASON) || world.was_renewed_outside()).await?;
    let (events_before, writes_before) = (events(world, REASON), world.api.writes().len());
    world.restart();
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    if world.is_calm() {
        if events(world, REASON) > events_before {
            return Err("truthful: after a restart an event says again what it had said".into());
        }
        let statuses = world.api.writes_from(writes_before);
        let mut statuses = statuses.iter().filter(|write| write.kind == "VppToken").filter_map(|it| it.new.as_deref());
        if statuses.any(|object| condition(object, "Stalled").0 != "True") {
            return Err("truthful: after a restart t0 is not stalled for a while".into());
        }
    }
    world
        .until("t0 is stalled still", LIMIT, |world| is_stalled_by(world, REASON) || world.was_renewed_outside())
        .await?;
    world.graph.set_secret_expired(TENANT, CLIENT, false);
    done(world, "t0", 200).await
}

/// A VppToken is deleted after its tenant object, and no process remembers that one: a person is told, and can help.
pub(crate) async fn deletion_stalls(world: &World) -> Result<(), String> {
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({ "deletionPolicy": "Delete" }));
    world.start_process();
    done(world, "t0", 200).await?;
    world.restart();
    world.delete("ClusterGraphTenant", "", "default");
    world.delete("VppToken", DEVICES, "t0");
    let is_gone = |world: &World| world.token("t0").is_null();
    world
        .until("the deletion is stalled", LIMIT, |world| is_stalled_by(world, "TenantNotFound") || is_gone(world))
        .await?;
    let is_told = |world: &World| events(world, "TenantNotFound") > 0 || !world.is_calm();
    world.until("an event says why the deletion is stalled", LIMIT, is_told).await?;
    put_tenant(world, TENANT, &json!({ "from": "All" }), &ALL_OPERATIONS);
    world.until("the VppToken is gone", LIMIT, is_gone).await?;
    all_is_deleted(world)
}

/// Of what a life puts into Graph, something was hidden, renewed or doubled.
fn was_disturbed(world: &World) -> bool {
    was_hidden(world) || world.was_renewed_outside() || world.has_twin()
}

pub(crate) async fn ambiguous(world: &World) -> Result<(), String> {
    let shared = file("t0", 200);
    let [first, second] =
        ["us", "de"].map(|country| world.create_in_portal("vpp.t0@contoso.example", &shared, country));
    // What no list can show yet, nobody can find.
    tokio::time::sleep(world.climate.list_lag).await;
    world.put_file("t0", &shared);
    world.put_token("t0", json!({}));
    world.start_process();
    world
        .until("t0 says AmbiguousMatch, if it can see both", LIMIT, |world| {
            world.condition("t0", "Ready").1 == "AmbiguousMatch" || was_disturbed(world)
        })
        .await?;
    if world.condition("t0", "Ready").1 != "AmbiguousMatch" {
        return Ok(());
    }
    world.delete_in_portal(&first);
    done(world, "t0", 200).await?;
    if was_disturbed(world) {
        // It may have taken over the one that was deleted, which then is missed for a quarter of an hour.
        tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    } else if world.token("t0")["status"]["tokenId"] != second.as_str() {
        return Err("always_arrives: another token was taken than the one that is left".into());
    }
    Ok(())
}

pub(crate) async fn another_id(world: &World) -> Result<(), String> {
    create(world, "t0").await?;
    if has_met_twin(world, "t0") {
        return Ok(());
    }
    let other = world.create_in_portal("vpp.other@contoso.example", &file("other", 300), "us");
    world.put_token("t0", json!({ "tokenId": other }));
    says(world, "t0", "AlreadyBound").await?;
    let request = json!({ "metadata": { "annotations": { "vpptoken.io/upload-requested-at": "now" } } });
    world.patch("VppToken", DEVICES, "t0", &request);
    world
        .until("the upload is done, and the token still is the one that it had", LIMIT, |world| {
            let status = &world.token("t0")["status"];
            let is_uploaded = status["lastHandledUploadRequest"] == "now" || world.was_renewed_outside();
            is_uploaded && status["tokenId"] != other.as_str()
        })
        .await
}

/// A second namespace that is watched.
const OTHER: &str = "schools";

/// The second of two watched namespaces can't be read: t0 waits for it.
async fn wait_for_unread(world: &World) -> Result<(), String> {
    world.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": OTHER } }));
    world.watch_namespaces(&[DEVICES, OTHER]);
    world.forbid("vpptokens", OTHER, true);
    world.put_file("t0", &file("t0", 200));
    world.put_token("t0", json!({}));
    world.start_process();
    says(world, "t0", "NamespaceNotRead").await
}

/// One of two watched namespaces can't be read: nothing is created until it can, and renewals go on. Then the Secret can't.
pub(crate) async fn no_rights(world: &World) -> Result<(), String> {
    const REFUSED_WATCHES: [&str; 2] = ["LIST secrets/devices", "WATCH secrets/devices"];
    wait_for_unread(world).await?;
    nothing_is_created(world)?;
    world.forbid("vpptokens", OTHER, false);
    done(world, "t0", 200).await?;
    world.forbid("secrets", DEVICES, true);
    world.put_file("t0", &file("t0", 300));
    // Of a watch that is refused, the log and a metric tell, and the VppTokens stay as they were.
    world
        .until("t0 says SecretNotReadable", LIMIT, |world| {
            world.condition("t0", "Ready").1 == "SecretNotReadable"
                || REFUSED_WATCHES.iter().any(|call| world.was_answered(call, "403"))
        })
        .await?;
    world.forbid("secrets", DEVICES, false);
    done(world, "t0", 300).await
}

/// A watched namespace that can't be read is deleted: whoever waited because of it goes on at once.
pub(crate) async fn unread_namespace_ends(world: &World) -> Result<(), String> {
    wait_for_unread(world).await?;
    world.delete("Namespace", "", OTHER);
    let limit = if world.is_calm() { Duration::from_secs(60) } else { LIMIT };
    world
        .until("t0 does not wait for the namespace any more", limit, |world| {
            world.condition("t0", "Ready").1 != "NamespaceNotRead"
        })
        .await?;
    done(world, "t0", 200).await
}
