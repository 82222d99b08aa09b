//! Deletions: `Retain` never waits, whatever is missing; `Delete` uses what is there, reports what is missing, and
//! never leaves an unknown token behind; uninstalling deletes no token.

use graph_emulator::{Action, Fault, Operation, Permission, RequestRecord, When};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use vpptoken_operator::api::conditions::ConditionType;
use vpptoken_operator::api::{ClusterGraphTenant, FINALIZER, GraphTenant};

use crate::support::{EXPIRES, LIMIT, RECONCILING, Second, Setup, World, condition, in_days, row, through, until};

async fn delete_tenant(world: &World) {
    let tenants: Api<ClusterGraphTenant> = Api::all(world.client.clone());
    tenants.delete(&world.tenant, &DeleteParams::default()).await.unwrap();
}

async fn delete_graph_tenant(world: &World, name: &str) {
    let tenants: Api<GraphTenant> = Api::namespaced(world.client.clone(), &world.namespace);
    tenants.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_never_waits_and_delete_reports_what_is_missing_and_how_to_end_the_wait() {
    let world = World::new().await;
    for (name, policy) in [("plain", "Retain"), ("turned", "Delete"), ("paused", "Delete")] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, json!({ "deletionPolicy": policy })).await;
        world.wait_synced(name).await;
    }
    let before = world.entities();
    world.emulator.clear_requests();
    // Everything is deleted that a deletion could wait for, and the memory of the process is lost.
    world.operator.kill();
    world.emulator.down().await.unwrap();
    for name in ["plain", "turned", "paused", "graph"] {
        world.remove_secret(name).await;
    }
    delete_tenant(&world).await;
    world.operator.start().await;
    for name in ["plain", "turned", "paused"] {
        world.delete(name).await;
    }
    world.wait_deleted("plain").await;
    for name in ["turned", "paused"] {
        let status = world.wait_reason(name, "Deleting").await;
        assert_eq!(row(&status), RECONCILING);
        let report = condition(&status, ConditionType::Ready).message;
        let tenant = format!("ClusterGraphTenant \"{}\" is not there", world.tenant);
        for part in [tenant.as_str(), "deletionPolicy: Retain"] {
            assert!(report.contains(part), "{part}: {report}");
        }
        assert_eq!(world.finalizers(name).await, [FINALIZER]);
    }
    // Both ways out.
    world.patch("turned", json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    world.patch("paused", json!({ "spec": { "suspend": true } })).await;
    world.wait_deleted("turned").await;
    world.wait_deleted("paused").await;
    world.wait_event("paused", "TokenRetained").await;
    world.emulator.up().await.unwrap();
    assert_eq!(world.entities(), before);
    assert_eq!(world.written(), []);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_uses_the_credentials_that_are_still_in_memory() {
    let world = World::new().await;
    for (name, policy) in [("berlin", "Delete"), ("munich", "Delete"), ("stays", "Retain")] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, json!({ "deletionPolicy": policy, "countryOrRegion": "de" })).await;
        world.wait_synced(name).await;
    }
    let stays = world.entity("stays").await;
    world.emulator.clear_requests();
    // First the client secret is deleted, then the tenant object.
    world.remove_secret("graph").await;
    world.delete("berlin").await;
    world.wait_deleted("berlin").await;
    delete_tenant(&world).await;
    for name in ["munich", "stays"] {
        assert_eq!(row(&world.wait_reason(name, "TenantNotFound").await), RECONCILING, "{name}");
    }
    // The credentials in memory are used for deletions and nothing else.
    world.patch("stays", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    world.request_sync("stays", "now").await;
    let generation = world.tokens().get("stays").await.unwrap().metadata.generation;
    world.wait_status("stays", "looked at", |status| status.observed_generation == generation).await;
    world.delete("munich").await;
    world.wait_deleted("munich").await;
    world.wait_event("munich", "Deleted").await;
    assert_eq!(world.entities(), [stays]);
    assert_eq!((world.emulator.count(Operation::Delete), world.emulator.writes()), (2, 2));
    world.finish().await;
}

/// The app registration may not delete. Recreating the tenant object with another one is what a person would try.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_object_that_is_made_anew_serves_a_deletion_that_waits() {
    let world = World::new().await;
    let tenant = Second::make(&world, "own").await;
    let mut more = through("own");
    more["deletionPolicy"] = json!("Delete");
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, more).await;
    let id = world.wait_synced("berlin").await.token_id.unwrap();
    world.emulator.set_permission(&tenant.tenant_id, &tenant.client_id, Permission::Read);
    world.emulator.revoke_access_tokens();
    world.emulator.clear_requests();
    world.delete("berlin").await;
    let refused = async |times: usize| {
        let is_refused =
            |record: &&RequestRecord| record.operation == Operation::Delete && record.status() == Some(403);
        world.wait_graph("refused deletions", |seen| seen.requests().filter(is_refused).count() >= times).await;
    };
    refused(1).await;
    let status = world
        .wait_status("berlin", "told what is missing", |status| {
            row(status) == RECONCILING && condition(status, ConditionType::Ready).message.contains("ReadWrite")
        })
        .await;
    assert_eq!(condition(&status, ConditionType::Ready).reason, "Deleting");

    // The tenant object and its Secret are deleted: the credentials in memory are tried once more, and not allowed
    // either.
    delete_graph_tenant(&world, "own").await;
    world.remove_secret("own").await;
    refused(2).await;
    assert_eq!(world.finalizers("berlin").await, [FINALIZER]);
    // A new one, with an app that may delete.
    let secret = format!("anew-{}", uuid::Uuid::new_v4().simple());
    world.must_not_leak(&secret);
    let anew = Second { tenant_id: tenant.tenant_id.clone(), client_id: uuid::Uuid::new_v4().to_string() };
    world.emulator.add_app(&anew.tenant_id, &anew.client_id, secret.as_str());
    world.write_secret("own", "clientSecret", &secret).await;
    world.apply(&anew.manifest("own", "5s")).await;
    world.wait_deleted("berlin").await;
    world.wait_event("berlin", "Deleted").await;
    assert_eq!(tenant.entities(&world), []);
    let deletions = world.requests(Operation::Delete);
    let (last, before) = deletions.split_last().unwrap();
    assert_eq!((last.status(), last.client_id.as_ref()), (Some(204), Some(&anew.client_id)));
    for deletion in before {
        // The first one had an access token from before the permission was taken.
        assert!(matches!(deletion.status(), Some(401 | 403)), "{deletion:#?}");
        assert!(deletion.client_id.as_ref().is_none_or(|by| *by == tenant.client_id));
        assert_eq!(deletion.id.as_ref(), Some(&id));
    }
    world.finish().await;
}

/// The other tenant's polls tell the time.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_requested_from_graph_for_a_deleted_tenant_object_but_a_deletion() {
    let world = World::new().await;
    let tenant = Second::make(&world, "own").await;
    for (name, policy, more) in
        [("berlin", "Delete", through("own")), ("munich", "Retain", through("own")), ("paris", "Retain", json!({}))]
    {
        let mut more = more;
        more["deletionPolicy"] = json!(policy);
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, more).await;
        world.wait_synced(name).await;
    }
    let quiet = async || {
        // What was in flight before has ended by then.
        world.wait_lists(1).await;
        world.emulator.clear_requests();
        world.wait_lists(3).await;
        assert_eq!(tenant.requests(&world), 0, "{:#?}", world.emulator.requests());
    };
    delete_graph_tenant(&world, "own").await;
    for name in ["berlin", "munich"] {
        assert_eq!(row(&world.wait_reason(name, "TenantNotFound").await), RECONCILING, "{name}");
    }
    quiet().await;
    // Whatever is requested of it.
    for name in ["berlin", "munich"] {
        world.request_sync(name, "now").await;
        world.patch(name, json!({ "spec": { "countryOrRegion": "de" } })).await;
        let generation = world.tokens().get(name).await.unwrap().metadata.generation;
        world.wait_status(name, "looked at", |status| status.observed_generation == generation).await;
    }
    quiet().await;
    // The credentials that are still in memory are used for this alone; then nothing is left to request.
    world.emulator.clear_requests();
    world.delete("berlin").await;
    world.wait_deleted("berlin").await;
    assert_eq!(world.written().iter().map(|(operation, _)| *operation).collect::<Vec<_>>(), [Operation::Delete]);
    assert_eq!(tenant.entities(&world).len(), 1);
    quiet().await;
    world.finish().await;
}

/// Whether there is a token to delete is found out first: neither an unknown nor a second one is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_of_unknown_outcome_is_resolved_before_its_object_is_deleted() {
    let world = World::new().await;
    let delete = json!({ "deletionPolicy": "Delete" });
    let cut = |when| Fault::new(Action::Cut { when }).on(Operation::Create).once();
    // Carried out, and the answer lost; and never carried out.
    for (name, when) in [("carried-out", When::After), ("never", When::Before)] {
        let fault = world.emulator.inject(cut(when));
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, delete.clone()).await;
        assert!(fault.wait_hit(LIMIT).await, "{}", world.operator.log_end());
        world.delete(name).await;
        world.wait_deleted(name).await;
        assert_eq!(world.entities(), [], "{name}");
    }
    assert_eq!(world.emulator.count(Operation::Create), 2);
    assert_eq!(world.emulator.count(Operation::Delete), 1);
    world.wait_events("carried-out", &["Created", "Deleted"]).await;

    // Deleted after the operator crashed during the create.
    let fault = world.emulator.inject(Fault::new(Action::Hold { when: When::After }).on(Operation::Create).once());
    let file = world.token("Contoso", &EXPIRES);
    world.create("orphaned", &file, delete).await;
    assert!(fault.wait_hit(LIMIT).await, "{}", world.operator.log_end());
    world.operator.kill();
    world.delete("orphaned").await;
    fault.remove();
    assert_eq!(world.entities().len(), 1, "the answer is what it never heard");
    world.operator.start().await;
    world.wait_deleted("orphaned").await;
    assert_eq!(world.entities(), []);
    assert_eq!((world.emulator.count(Operation::Create), world.emulator.count(Operation::Delete)), (3, 2));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_the_chart_takes_nothing_along() {
    let world = World::with(Setup { by_helm: true, ..Setup::default() }).await;
    for (name, policy) in [("berlin", "Delete"), ("munich", "Retain")] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, json!({ "deletionPolicy": policy })).await;
        world.wait_synced(name).await;
    }
    let (before, ids) = (world.entities(), [world.entity("berlin").await.id, world.entity("munich").await.id]);
    world.emulator.clear_requests();
    // The operator still runs while its release is uninstalled, tenant object and rights included: the worst case.
    world.plane.uninstall_chart(&world.namespace).await;
    let noticed = |name: &str| {
        let about = format!("{name}.{} failed", world.namespace);
        world.operator.log().lines().filter(|line| line.contains("a reconcile failed") && line.contains(&about)).count()
            >= 2
    };
    let noticed = until(LIMIT, || async { noticed("berlin") && noticed("munich") }).await;
    assert!(noticed, "{}", world.operator.log_end());
    world.operator.kill();
    let tenants: Api<ClusterGraphTenant> = Api::all(world.client.clone());
    assert!(tenants.get_opt(&world.tenant).await.unwrap().is_none(), "the tenant object is of the release");
    for (name, id) in ["berlin", "munich"].into_iter().zip(ids) {
        let object = world.tokens().get(name).await.unwrap();
        assert_eq!(object.metadata.deletion_timestamp, None, "{name}");
        assert_eq!(object.status.unwrap().token_id, Some(id), "{name}");
    }
    assert_eq!(world.written(), []);
    assert_eq!(world.entities(), before);
    world.patch("berlin", json!({ "metadata": { "finalizers": null } })).await;
    world.finish().await;
}

/// So many writes are due that the next one waits for a permit. What is deleted while it waits is not created
/// afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_it_waits_for_a_permit_leaves_nothing_in_graph() {
    const BUSY: usize = 46;
    let world = World::new().await;
    // Creates with files of one organization that expire in the same second would wait for each other.
    let mut days = 100..;
    let mut file = || world.token("Contoso", &in_days(days.next().unwrap()));
    let busy: Vec<String> = (0..BUSY).map(|n| format!("busy-{n}")).collect();
    futures::future::join_all(busy.iter().map(|name| {
        let (world, file) = (&world, file());
        async move { world.create(name, &file, json!({})).await }
    }))
    .await;
    // The limit is reached: 90 writes, and the others wait.
    world.wait_graph("as many writes as a window takes", |seen| seen.writes() >= 90).await;
    let doomed: Vec<String> = (0..12).map(|n| format!("doomed-{n}")).collect();
    futures::future::join_all(doomed.iter().enumerate().map(|(n, name)| {
        let policy = if n % 2 == 0 { "Retain" } else { "Delete" };
        let (world, file) = (&world, file());
        async move { world.create(name, &file, json!({ "deletionPolicy": policy })).await }
    }))
    .await;
    // Some have recorded the intent of a create, some have not been reconciled yet.
    world.wait_status(&doomed[5], "intent recorded", |status| status.pending_create.is_some()).await;
    futures::future::join_all(doomed.iter().map(|name| world.delete(name))).await;
    assert!(world.emulator.writes() <= 92, "the window was not full any more");
    for name in &doomed {
        world.wait_deleted(name).await;
    }
    for name in &busy {
        world.wait_synced(name).await;
    }
    world.wait_lists(2).await;
    assert_eq!(world.entities().len(), BUSY, "{:#?}", world.entities());
    assert_eq!(world.emulator.count(Operation::Create), BUSY);
    assert_eq!(world.emulator.count(Operation::Delete), 0, "there was nothing to delete");
    world.finish().await;
}
