//! What may be done in Graph, and what not: deletion, taking over by id, creating beside a similar token, and who may
//! use a tenant.

use graph_emulator::{Action, BodyKind, Fault, Operation, When, sha256};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, CustomResourceExt};
use serde_json::{Value, json};
use vpptoken_operator::api::conditions::ConditionType;
use vpptoken_operator::api::{ClusterGraphTenant, FINALIZER, VppToken, VppTokenStatus};

use crate::support::{
    EXPIRES, LIMIT, Plane, READY, RECONCILING, RENEWED, STALLED, Second, Setup, World, condition, row, through, until,
};

/// A world whose tenant object has other settings.
async fn with(values: &[&str]) -> World {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    World::with(Setup { values, ..Setup::default() }).await
}

async fn message(world: &World, name: &str, reason: &str) -> String {
    let status = world.wait_reason(name, reason).await;
    assert_eq!(row(&status), STALLED, "{name}: {reason}");
    condition(&status, ConditionType::Ready).message
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_leaves_graph_alone() {
    let world = World::new().await;
    for name in ["berlin", "munich"] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, json!({})).await;
        world.wait_synced(name).await;
        assert_eq!(world.finalizers(name).await, Vec::<String>::new(), "{name}");
    }
    let before = world.entities();
    world.emulator.clear_requests();
    world.delete("berlin").await;
    world.wait_deleted("berlin").await;
    // munich keeps the tenant in use: what the deletion could have caused was sent before these lists.
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 0, "{:?}", world.emulator.counters());
    assert_eq!(world.entities(), before);
    // The same manifest takes the same token over again.
    world.create_token("berlin", json!({})).await;
    let status = world.wait_ready("berlin").await;
    assert!(before.iter().any(|entity| Some(&entity.id) == status.token_id.as_ref()));
    assert_eq!(world.emulator.count(Operation::Create) + world.emulator.count(Operation::Update), 0);
    world.wait_events("berlin", &["Created", "Adopted"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_deletes_in_graph_too() {
    let world = World::new().await;
    for name in ["berlin", "munich"] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, json!({ "deletionPolicy": "Delete" })).await;
        world.wait_synced(name).await;
        assert_eq!(world.finalizers(name).await, [FINALIZER]);
    }
    let munich = world.status("munich").await.token_id.unwrap();
    world.emulator.clear_requests();
    // Neither the file nor a wish for another setting is needed for that.
    world.remove_secret("berlin").await;
    world.wait_reason("berlin", "SecretNotFound").await;
    world.delete("berlin").await;
    world.wait_deleted("berlin").await;
    let left: Vec<String> = world.entities().into_iter().map(|entity| entity.id).collect();
    assert_eq!(left, [munich]);
    assert_eq!((world.emulator.count(Operation::Delete), world.emulator.writes()), (1, 1));
    world.wait_event("berlin", "Deleted").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_finalizer_is_added_and_removed_with_the_policy() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let before = world.entities();
    for (policy, finalizers) in [("Delete", vec![FINALIZER]), ("Retain", vec![]), ("Delete", vec![FINALIZER])] {
        world.patch("berlin", json!({ "spec": { "deletionPolicy": policy } })).await;
        let there = until(LIMIT, || async { world.finalizers("berlin").await == finalizers }).await;
        assert!(there, "{policy}: {:?}", world.finalizers("berlin").await);
        world.wait_ready("berlin").await;
    }
    // A deletion that Graph refuses can still be turned into Retain. A finalizer of somebody else stays.
    let others = json!({ "metadata": { "finalizers": [FINALIZER, "example.com/other"] } });
    world.patch("berlin", others).await;
    let refusal = Action::Status { when: When::Before, code: 403, retry_after: None, body: BodyKind::Json };
    let refused = world.emulator.inject(Fault::new(refusal).on(Operation::Delete));
    world.delete("berlin").await;
    assert!(refused.wait_hit(LIMIT).await, "{}", world.operator.log_end());
    let status = world.wait_reason("berlin", "Deleting").await;
    assert_eq!(row(&status), RECONCILING);
    world.patch("berlin", json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    let only = until(LIMIT, || async { world.finalizers("berlin").await == ["example.com/other"] }).await;
    assert!(only, "{:?}", world.finalizers("berlin").await);
    world.patch("berlin", json!({ "metadata": { "finalizers": null } })).await;
    world.wait_deleted("berlin").await;
    assert_eq!(world.entities(), before);
    assert_eq!(world.emulator.count(Operation::Delete), usize::try_from(refused.hits()).unwrap());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_that_the_tenant_does_not_allow_is_reported_and_not_done() {
    let world = with(&["tenant.allowedOperations={Create,Adopt}"]).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "deletionPolicy": "Delete" })).await;
    let report = message(&world, "berlin", "OperationNotAllowed").await;
    assert!(report.contains("Delete") && report.contains("allowedOperations"), "{report}");
    // Nothing is created before that is corrected.
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    world.patch("berlin", json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    world.wait_synced("berlin").await;
    // For a token that is there it stops nothing else.
    world.patch("berlin", json!({ "spec": { "deletionPolicy": "Delete" } })).await;
    message(&world, "berlin", "OperationNotAllowed").await;
    world.request_sync("berlin", "1").await;
    world.wait_requested_sync("berlin", "1").await;
    let finalized = until(LIMIT, || async { world.finalizers("berlin").await == [FINALIZER] }).await;
    assert!(finalized, "{:?}", world.finalizers("berlin").await);
    let before = world.entities();

    world.delete("berlin").await;
    let advises =
        |status: &VppTokenStatus| condition(status, ConditionType::Ready).message.contains("deletionPolicy: Retain");
    let status =
        world.wait_status("berlin", "told how to let go", |status| row(status) == STALLED && advises(status)).await;
    let report = condition(&status, ConditionType::Stalled);
    assert_eq!(report.reason, "OperationNotAllowed");
    assert!(report.message.contains("does not allow Delete"), "{}", report.message);
    world.wait_event("berlin", "OperationNotAllowed").await;
    world.wait_lists(2).await;
    assert_eq!(world.entities(), before);
    // The way out that the message names.
    world.patch("berlin", json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    world.wait_deleted("berlin").await;
    assert_eq!(world.entities(), before);
    assert_eq!(world.emulator.count(Operation::Delete), 0);
    world.finish().await;
}

/// Applies a manifest that names its namespace.
async fn apply(plane: &Plane, manifest: &Value) {
    let applied = plane.kubectl_with(&["apply", "-f", "-"], &manifest.to_string()).await;
    assert!(applied.ok, "{}", applied.stderr);
}

/// On a control plane of its own: it watches all namespaces, and then the definition is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_deleted_with_its_objects_and_deleting_the_crd_deletes_no_token() {
    let plane = Plane::own().await;
    let world = World::on(plane.clone(), Setup { cluster_wide: true, ..Setup::default() }).await;
    // A namespace that is deleted while its objects are being deleted in Graph.
    let devices = "devices";
    plane.create_namespace(&world.client, devices).await;
    let tokens: Api<VppToken> = Api::namespaced(world.client.clone(), devices);
    let secret = |name: &str, key: &str, value: &str| {
        let metadata = json!({ "name": name, "namespace": devices });
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": { key: value } })
    };
    // One of them by a tenant object that is deleted with the namespace, and its client secret too.
    let own = Second { tenant_id: uuid::Uuid::new_v4().to_string(), client_id: uuid::Uuid::new_v4().to_string() };
    world.must_not_leak("the-client-secret-that-goes");
    world.emulator.add_app(&own.tenant_id, &own.client_id, "the-client-secret-that-goes");
    let mut tenant = own.manifest("own", "5s");
    tenant["metadata"]["namespace"] = json!(devices);
    apply(&plane, &secret("own", "clientSecret", "the-client-secret-that-goes")).await;
    apply(&plane, &tenant).await;
    for (name, policy) in [("retained", "Retain"), ("deleted", "Delete"), ("own", "Delete")] {
        let file = world.token("Contoso", &EXPIRES);
        let file_secret = format!("file-of-{name}");
        apply(&plane, &secret(&file_secret, "token", &file.text())).await;
        let mut spec = world.spec(name);
        spec["deletionPolicy"] = json!(policy);
        spec["tokenSecretRef"]["name"] = json!(file_secret);
        if name == "own" {
            spec["tenantRef"] = through("own")["tenantRef"].clone();
        }
        let object = VppToken::new(name, serde_json::from_value(spec).unwrap());
        tokens.create(&PostParams::default(), &object).await.unwrap();
        let ready = ["wait", "--for=condition=Ready", &format!("vpptoken/{name}"), "-n", devices, "--timeout=60s"];
        let ready = plane.kubectl(&ready).await;
        assert!(ready.ok, "{}{}", ready.stderr, world.operator.log_end());
    }
    let id = |name: &'static str| {
        let tokens = tokens.clone();
        async move { tokens.get(name).await.unwrap().status.unwrap().token_id.unwrap() }
    };
    let (retained, deleted) = (id("retained").await, id("deleted").await);
    // Graph can't be reached at first: when it can, the tenant object and its Secret are deleted.
    let down = Action::Status { when: When::Before, code: 503, retry_after: None, body: BodyKind::Json };
    let down = world.emulator.inject(Fault::new(down).on(Operation::Delete).tenant(own.tenant_id.as_str()).times(2));
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(devices, &DeleteParams::default()).await.unwrap();
    let gone = until(LIMIT, || async { namespaces.get_opt(devices).await.unwrap().is_none() }).await;
    assert!(gone, "{:#?}\n{}", namespaces.get(devices).await, world.operator.log_end());
    assert!(world.emulator.entity(&world.tenant_id, &retained).is_some(), "Retain leaves it alone");
    assert_eq!(world.emulator.entity(&world.tenant_id, &deleted), None, "Delete deletes it");
    assert_eq!(own.entities(&world), [], "also with the credentials that are only in memory by then");
    assert_eq!((world.emulator.count(Operation::Delete), down.hits()), (4, 2));

    // Deleting the definition marks every object for deletion; that is no request to delete the tokens.
    for name in ["berlin", "munich", "hamburg"] {
        // Not in the second in which the retained one expires.
        let file = world.token("Contoso", &RENEWED);
        world.create(name, &file, json!({ "deletionPolicy": "Delete" })).await;
        world.wait_synced(name).await;
        assert_eq!(world.finalizers(name).await, [FINALIZER]);
    }
    let before = world.entities();
    let crds: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    crds.delete(VppToken::crd_name(), &DeleteParams::default()).await.unwrap();
    let gone = until(LIMIT, || async { crds.get_opt(VppToken::crd_name()).await.unwrap().is_none() }).await;
    assert!(gone, "{}", world.operator.log_end());
    assert_eq!(world.entities(), before);
    assert_eq!(world.emulator.count(Operation::Delete), 4, "no more than before");
    for name in ["berlin", "munich", "hamburg"] {
        world.wait_event(name, "TokenRetained").await;
    }
    world.operator.kill();
    drop(world);
    plane.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_taken_over_by_its_id() {
    let world = World::new().await;
    let (right, other) = (world.by_hand("berlin", &EXPIRES), world.by_hand("berlin", &EXPIRES));
    let file = world.token("Contoso", &RENEWED);
    world.create("berlin", &file, json!({ "tokenId": right.id, "countryOrRegion": "de" })).await;
    let status = world.wait_synced("berlin").await;
    assert_eq!(status.token_id.as_ref(), Some(&right.id));
    // Whatever file it had: the Secret's one is uploaded.
    let bound = world.emulator.entity(&world.tenant_id, &right.id).unwrap();
    assert_eq!((bound.uploads, bound.syncs, bound.token_sha256), (1, 1, Some(sha256(&file.text()))));
    assert_eq!(bound.country_or_region.as_deref(), Some("de"));
    assert_eq!(world.emulator.entity(&world.tenant_id, &other.id), Some(other));
    assert_eq!(world.emulator.count(Operation::Create), 0);
    world.wait_events("berlin", &["Bound", "Uploaded", "Updated"]).await;

    // Another VppToken gets neither this one nor one that is not there, and nothing is created instead.
    let file = world.token("Contoso", &RENEWED);
    world.create("thief", &file, json!({ "tokenId": right.id })).await;
    let report = message(&world, "thief", "ClaimedByAnother").await;
    assert!(report.contains(&right.id) && report.contains("VppToken \"berlin\" in this namespace"), "{report}");
    let nowhere = uuid::Uuid::new_v4().to_string();
    let file = world.token("Contoso", &RENEWED);
    world.create("lost", &file, json!({ "tokenId": nowhere })).await;
    let report = message(&world, "lost", "TokenNotFound").await;
    assert!(report.contains(&nowhere), "{report}");
    world.wait_lists(2).await;
    assert_eq!(world.emulator.count(Operation::Create), 0);
    assert_eq!(world.entities().len(), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_tenant_does_not_allow_is_not_done() {
    let world = with(&["tenant.allowedOperations={Delete}"]).await;
    let bind = world.by_hand("bind", &EXPIRES);
    world.by_hand("adopt", &EXPIRES);
    let before = world.entities();
    for (name, more, expires, operation) in [
        ("bind", json!({ "tokenId": bind.id }), &EXPIRES, "Bind"),
        ("adopt", json!({}), &EXPIRES, "Adopt"),
        ("create", json!({}), &RENEWED, "Create"),
    ] {
        let file = world.token("Contoso", expires);
        world.create(name, &file, more).await;
        let report = message(&world, name, "OperationNotAllowed").await;
        assert!(report.contains(&format!("Have {operation} added to allowedOperations")), "{report}");
    }
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 0, "{:?}", world.emulator.counters());
    assert_eq!(world.entities(), before);
    // Once it is allowed, each goes on by itself.
    change_tenant(&world, json!({ "spec": { "allowedOperations": ["Create", "Adopt", "Bind"] } })).await;
    for name in ["bind", "adopt", "create"] {
        world.wait_ready(name).await;
    }
    assert_eq!((world.emulator.count(Operation::Create), world.entities().len()), (1, 3));
    world.finish().await;
}

async fn change_tenant(world: &World, change: Value) {
    let tenants: Api<ClusterGraphTenant> = Api::all(world.client.clone());
    tenants.patch(&world.tenant, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_allowed_gets_nothing() {
    let world = with(&["tenant.allowedNamespaces.from=Names", "tenant.allowedNamespaces.names={elsewhere}"]).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    let report = message(&world, "berlin", "NamespaceNotAllowed").await;
    assert!(report.contains("allowedNamespaces") && !report.contains("elsewhere"), "{report}");
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 0, "{:?}", world.emulator.counters());

    // By a label, which the namespace gets afterwards.
    let selector = json!({ "from": "Selector", "names": null, "selector": { "matchLabels": { "intune": "yes" } } });
    change_tenant(&world, json!({ "spec": { "allowedNamespaces": selector } })).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let label = |value: Value| {
        let patch = Patch::Merge(json!({ "metadata": { "labels": { "intune": value } } }));
        let (namespaces, name) = (namespaces.clone(), world.namespace.clone());
        async move { namespaces.patch(&name, &PatchParams::default(), &patch).await.unwrap() }
    };
    label(json!("yes")).await;
    world.wait_synced("berlin").await;

    // Taken away again: from then on nothing is written, not even what was just asked for.
    label(Value::Null).await;
    message(&world, "berlin", "NamespaceNotAllowed").await;
    world.emulator.clear_requests();
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    world.request_sync("berlin", "now").await;
    let generation = world.tokens().get("berlin").await.unwrap().metadata.generation;
    let status = world.wait_status("berlin", "looked at", |status| status.observed_generation == generation).await;
    assert_eq!(row(&status), STALLED);
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 0, "{:?}", world.emulator.counters());
    world.finish().await;
}

/// Two tokens of one location stop its syncing, so a similar one stalls a create until a person decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_similar_token_stalls_a_create_until_it_is_listed_as_another_location() {
    let world = World::new().await;
    let similar = world.by_hand("berlin", &EXPIRES);
    let file = world.token("Contoso", &RENEWED);
    world.create("berlin", &file, json!({})).await;
    let report = message(&world, "berlin", "SimilarTokenExists").await;
    for part in [similar.id.as_str(), EXPIRES.as_str(), "tokenId", "distinctFrom"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    world.wait_event("berlin", "SimilarTokenExists").await;
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 0, "{:?}", world.emulator.counters());
    world.patch("berlin", json!({ "spec": { "distinctFrom": [similar.id] } })).await;
    let status = world.wait_synced("berlin").await;
    assert_eq!(row(&status), READY);
    assert_ne!(status.token_id.as_ref(), Some(&similar.id));
    assert_eq!((world.emulator.count(Operation::Create), world.entities().len()), (1, 2));
    assert_eq!(world.emulator.entity(&world.tenant_id, &similar.id), Some(similar));
    let objects = world.tokens().list(&ListParams::default()).await.unwrap();
    assert_eq!(objects.items.len(), 1);
    world.finish().await;
}
