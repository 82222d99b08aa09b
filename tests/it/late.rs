//! GitOps applies in any order. Whatever arrives last makes it ready then, and not when something is tried again.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use vpptoken_operator::api::conditions::{ConditionType, find};
use vpptoken_operator::api::{ClusterGraphTenant, VppTokenStatus};

use crate::support::{READY, RECONCILING, STALLED, Setup, World, in_days, row};

/// What a VppToken needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    File,
    Tenant,
    ClientSecret,
    Permission,
}

use Part::{ClientSecret, File, Permission, Tenant};

/// Without a trigger nothing is requeued before this: half the shortest of all delays that could cause it.
const BOUND: Duration = Duration::from_secs(30);

/// All orders of the four.
fn orders() -> Vec<[Part; 4]> {
    let parts = [File, Tenant, ClientSecret, Permission];
    let mut orders = Vec::new();
    for first in parts {
        for second in parts {
            for third in parts {
                for fourth in parts {
                    let order = [first, second, third, fourth];
                    if parts.iter().all(|part| order.contains(part)) {
                        orders.push(order);
                    }
                }
            }
        }
    }
    orders
}

/// What is reported while only these exist.
fn expected(there: &[Part]) -> ([&'static str; 3], &'static str) {
    if !there.contains(&Tenant) {
        (RECONCILING, "TenantNotFound")
    } else if !there.contains(&Permission) {
        (STALLED, "NamespaceNotAllowed")
    } else if !there.contains(&ClientSecret) || !there.contains(&File) {
        (RECONCILING, "SecretNotFound")
    } else {
        (READY, "UpToDate")
    }
}

fn says(status: &VppTokenStatus, expected: ([&str; 3], &str)) -> bool {
    let reason = find(&status.conditions, ConditionType::Ready).map(|ready| ready.reason.as_str());
    (row(status), reason) == (expected.0, Some(expected.1))
}

async fn arrives(world: &World, name: &str, part: Part, client_secret: &str) {
    let tenant = format!("{}-{name}", world.namespace);
    match part {
        File => {
            // Creates with files of one organization that expire in the same second wait for each other.
            let n: i64 = name.trim_start_matches("order-").parse().unwrap();
            world.write_secret(name, "token", &world.token("Contoso", &in_days(200 + n)).text()).await;
        }
        ClientSecret => world.write_secret(&format!("graph-{name}"), "clientSecret", client_secret).await,
        Permission => {
            let namespaces: Api<Namespace> = Api::all(world.client.clone());
            let label = Patch::Merge(json!({ "metadata": { "labels": { name: "yes" } } }));
            namespaces.patch(&world.namespace, &PatchParams::default(), &label).await.unwrap();
        }
        Tenant => {
            let spec = json!({
                "tenantId": world.tenant_id,
                "clientId": world.client_id,
                "credentials": { "clientSecretRef": { "name": format!("graph-{name}") } },
                "pollInterval": "1h",
                "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { name: "yes" } } },
            });
            let tenants: Api<ClusterGraphTenant> = Api::all(world.client.clone());
            let object = ClusterGraphTenant::new(&tenant, serde_json::from_value(spec).unwrap());
            tenants.create(&PostParams::default(), &object).await.unwrap();
        }
    }
}

/// The tenant is listed once an hour here, so that no list triggers anything.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_of_four_arrives_last_makes_it_ready_at_once() {
    let world = World::with(Setup { poll_interval: "1h", ..Setup::default() }).await;
    let client_secret = format!("late-{}", uuid::Uuid::new_v4().simple());
    world.must_not_leak(&client_secret);
    world.emulator.set_secret(&world.tenant_id, &world.client_id, client_secret.as_str());
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let names: Vec<String> = (0..orders.len()).map(|order| format!("order-{order}")).collect();
    for name in &names {
        let tenant = json!({ "tenantRef": { "name": format!("{}-{name}", world.namespace) } });
        world.create_token(name, tenant).await;
    }
    for arrived in 0..=4 {
        let began = Instant::now();
        if arrived > 0 {
            for (name, order) in names.iter().zip(&orders) {
                arrives(&world, name, order[arrived - 1], &client_secret).await;
            }
        }
        for (name, order) in names.iter().zip(&orders) {
            let expected = expected(&order[..arrived]);
            let what = format!("{} with {:?}", expected.1, &order[..arrived]);
            world.wait_status(name, &what, |status| says(status, expected)).await;
        }
        let took = began.elapsed();
        assert!(took < BOUND, "after {arrived} of four it took {took:?}: something was waited for");
    }
    assert_eq!(world.entities().len(), orders.len());
    let tenants: Api<ClusterGraphTenant> = Api::all(world.client.clone());
    for tenant in tenants.list(&ListParams::default()).await.unwrap() {
        let name = tenant.metadata.name.unwrap();
        if name.starts_with(&format!("{}-order", world.namespace)) {
            tenants.delete(&name, &DeleteParams::default()).await.unwrap();
        }
    }
    world.finish().await;
}
