//! Namespaces that are deleted while a deletion in Graph can't be done: nobody can restore what is missing, so they end
//! after ten minutes.

use graph_emulator::{Action, BodyKind, Fault, Operation, When};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use vpptoken_operator::api::FINALIZER;
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{
    EXPIRES, LIMIT, Plane, RECONCILING, STALLED, Second, Setup, World, condition, row, through, until,
};

const TEN_MINUTES: SignedDuration = SignedDuration::from_mins(10);

/// What an operator's events of an object contain that no namespace accepts any more.
fn note(world: &World, name: &str) -> String {
    let about = format!("{}/{name}", world.elsewhere);
    let log = world.operator.log();
    log.lines().filter(|line| line.contains(&about) && line.contains("TokenRetained")).collect()
}

/// Its deletion began earlier; and the object is changed, so that it is reconciled.
async fn grow_older(world: &World, name: &str, by: SignedDuration) {
    let (namespace, own_name) = world.place(name);
    world.plane.grow_older(namespace, own_name, by).await;
    world.request_sync(name, &by.to_string()).await;
}

/// On a control plane of its own, where the age of objects can be changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_ends_though_its_deletions_are_not_allowed_or_refused_for_ever() {
    let plane = Plane::own().await;
    let setup = Setup {
        cluster_wide: true,
        elsewhere: true,
        values: vec!["tenant.allowedOperations={Create,Adopt}".to_owned()],
        ..Setup::default()
    };
    let world = World::on(plane.clone(), setup).await;
    let own = Second::make(&world, "elsewhere/own").await;
    let ending = ["elsewhere/not-allowed", "elsewhere/refused"];
    for (name, mut more) in [(ending[0], json!({})), (ending[1], through("own")), ("not-allowed", json!({}))] {
        let file = world.token("Contoso", &EXPIRES);
        more["appleId"] = json!(format!("vpp@{}.example", name.replace('/', "-")));
        world.create(name, &file, more).await;
        world.wait_synced(name).await;
        // With that policy from the beginning, nothing would be created where it is not allowed.
        world.patch(name, json!({ "spec": { "deletionPolicy": "Delete" } })).await;
        let finalized = until(LIMIT, || async { world.finalizers(name).await == [FINALIZER] }).await;
        assert!(finalized, "{name}: {:?}", world.finalizers(name).await);
    }
    let before = (world.entities(), own.entities(&world));
    assert_eq!((before.0.len(), before.1.len()), (2, 1));
    let forbidden = Action::Status { when: When::Before, code: 403, retry_after: None, body: BodyKind::Json };
    let forbidden = world.emulator.inject(Fault::new(forbidden).on(Operation::Delete));

    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&world.elsewhere, &DeleteParams::default()).await.unwrap();
    world.delete("not-allowed").await;
    for (name, why, expected, reason) in [
        (ending[0], "does not allow Delete", STALLED, "OperationNotAllowed"),
        (ending[1], "ReadWrite", RECONCILING, "Deleting"),
        ("not-allowed", "not allow Delete", STALLED, "OperationNotAllowed"),
    ] {
        let status = world
            .wait_status(name, "told what is missing", |status| {
                row(status) == expected && condition(status, ConditionType::Ready).message.contains(why)
            })
            .await;
        let report = condition(&status, ConditionType::Ready);
        assert_eq!(report.reason, reason, "{name}");
        assert!(report.message.contains("deletionPolicy: Retain"), "{name}: {}", report.message);
    }
    // Not before its time.
    for name in ending {
        grow_older(&world, name, TEN_MINUTES - SignedDuration::from_secs(60)).await;
    }
    let hits = forbidden.hits();
    assert!(forbidden.wait_hits(hits + 1, LIMIT).await, "{}", world.operator.log_end());
    world.wait_lists(2).await;
    for name in ending {
        assert_eq!(world.finalizers(name).await, [FINALIZER], "{name}");
        assert_eq!(note(&world, name.trim_start_matches("elsewhere/")), "");
    }
    // Ten minutes and more.
    for name in ["not-allowed", ending[0], ending[1]] {
        grow_older(&world, name, TEN_MINUTES).await;
    }
    let gone = until(LIMIT, || async { namespaces.get_opt(&world.elsewhere).await.unwrap().is_none() }).await;
    assert!(gone, "{:#?}\n{}", namespaces.get(&world.elsewhere).await, world.operator.log_end());
    for name in ["not-allowed", "refused"] {
        let report = note(&world, name);
        assert!(report.contains("The namespace is being deleted, so the token stays in Graph"), "{name}: {report}");
    }
    assert!(note(&world, "not-allowed").contains("does not allow Delete"));
    assert_eq!((world.entities(), own.entities(&world)), before, "all of them stay in Graph");

    // In a namespace that is not deleted, a person can restore it, and the deletion waits.
    world.wait_lists(2).await;
    assert_eq!(world.finalizers("not-allowed").await, [FINALIZER]);
    let status = world.wait_reason("not-allowed", "OperationNotAllowed").await;
    assert!(condition(&status, ConditionType::Ready).message.contains("does not allow Delete"));
    assert_eq!(world.tokens().get("not-allowed").await.unwrap().name_any(), "not-allowed");
    world.operator.kill();
    drop(world);
    plane.shutdown().await;
}

/// Where the operator watches some namespaces only, deleting a namespace also deletes its RoleBinding there.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_watched_by_itself_ends_with_its_deletions() {
    let world = World::with(Setup { elsewhere: true, ..Setup::default() }).await;
    let own = Second::make(&world, "elsewhere/own").await;
    for (name, mut more) in [("elsewhere/shared", json!({})), ("elsewhere/own", through("own"))] {
        more["deletionPolicy"] = json!("Delete");
        more["tokenSecretRef"] = json!({ "name": "file" });
        let file = world.token("Contoso", &EXPIRES);
        world.write_secret("elsewhere/file", "token", &file.text()).await;
        world.create_token(name, more).await;
        world.wait_synced(name).await;
    }
    // Graph refuses at first: when it does not any more, everything else is deleted.
    let refusal = Action::Status { when: When::Before, code: 503, retry_after: None, body: BodyKind::Json };
    let refused = world.emulator.inject(Fault::new(refusal).on(Operation::Delete).times(4));
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&world.elsewhere, &DeleteParams::default()).await.unwrap();
    let gone = until(LIMIT, || async { namespaces.get_opt(&world.elsewhere).await.unwrap().is_none() }).await;
    assert!(gone, "{:#?}\n{}", namespaces.get(&world.elsewhere).await, world.operator.log_end());
    assert_eq!((world.entities(), own.entities(&world)), (Vec::new(), Vec::new()));
    assert_eq!(refused.hits(), 4);
    world.operator.kill();
}
