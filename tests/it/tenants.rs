//! Tenant objects: a namespace's own, two side by side, what their statuses show, and settings that change while everything
//! runs.

use graph_emulator::{NewEntity, Operation, Permission};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use vpptoken_operator::api::ClusterGraphTenant;

use crate::support::{EXPIRES, LIMIT, READY, RENEWED, Second, Setup, World, row, through, until};

/// Waits until the status of a tenant object holds.
async fn wait_tenant(world: &World, kind: &str, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let last = std::sync::Mutex::new(Value::Null);
    let arrived = until(LIMIT, || async {
        let status = world.get(kind, name).await["status"].clone();
        let arrived = holds(&status);
        *last.lock().unwrap() = status;
        arrived
    })
    .await;
    let last = last.into_inner().unwrap();
    assert!(arrived, "{kind} {name} never became {what}: {last:#}\n{}", world.operator.log_end());
    last
}

fn ready_reason(status: &Value) -> &str {
    status["conditions"][0]["reason"].as_str().unwrap_or_default()
}

async fn change_tenant(world: &World, change: Value) {
    let tenants: Api<ClusterGraphTenant> = Api::all(world.client.clone());
    tenants.patch(&world.tenant, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

/// It has its own credentials, so it allows everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_graph_tenant_serves_its_namespace_with_its_own_secret() {
    let world = World::new().await;
    let second = Second::make(&world, "own").await;
    let mut more = through("own");
    more["deletionPolicy"] = json!("Delete");
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, more).await;
    let status = world.wait_synced("berlin").await;
    assert_eq!(status.tenant.unwrap().tenant_id, second.tenant_id);
    let entities = second.entities(&world);
    assert_eq!((entities.len(), Some(&entities[0].id)), (1, status.token_id.as_ref()));
    assert_eq!(world.entities(), [], "nothing in the other tenant");
    let by_hand = NewEntity {
        organization_name: Some("Contoso".to_owned()),
        apple_id: Some("vpp.munich@contoso.example".to_owned()),
        ..NewEntity::default()
    };
    let by_hand = world.emulator.create_by_hand(&second.tenant_id, by_hand);
    let mut more = through("own");
    more["tokenId"] = json!(by_hand.id);
    let file = world.token("Contoso", &EXPIRES);
    world.create("munich", &file, more).await;
    world.wait_synced("munich").await;
    world.delete("berlin").await;
    world.wait_deleted("berlin").await;
    let left: Vec<String> = second.entities(&world).into_iter().map(|entity| entity.id).collect();
    assert_eq!(left, [by_hand.id]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_share_nothing_and_show_what_they_have() {
    let world = World::new().await;
    let second = Second::make(&world, "second").await;
    // The same Apple ID, organization and expiry in both: two tokens, since a tenant knows only its own.
    for (name, mut more) in [("first", json!({})), ("second", through("second"))] {
        more["appleId"] = json!("vpp@contoso.example");
        let file = world.token("Contoso", &EXPIRES);
        let secret = format!("{name}-file");
        world.write_secret(&secret, "token", &file.text()).await;
        more["tokenSecretRef"] = json!({ "name": secret });
        world.create_token(name, more).await;
    }
    for name in ["first", "second"] {
        assert_eq!(row(&world.wait_synced(name).await), READY);
    }
    assert_eq!((world.entities().len(), second.entities(&world).len()), (1, 1));
    for name in ["by-hand", "by-hand-too"] {
        let new = NewEntity { apple_id: Some(format!("{name}@contoso.example")), ..NewEntity::default() };
        world.emulator.create_by_hand(&second.tenant_id, new);
    }
    let counts = |status: &Value| (status["tokens"].as_i64(), status["unmanagedTokens"].as_i64());
    for (kind, name, expected) in [
        ("clustergraphtenant", world.tenant.as_str(), (Some(1), Some(0))),
        ("graphtenant", "second", (Some(3), Some(2))),
    ] {
        let status = wait_tenant(&world, kind, name, "counted", |status| counts(status) == expected).await;
        assert_eq!((ready_reason(&status), &status["observedGeneration"]), ("UpToDate", &json!(1)), "{kind}");
    }
    let shown = world.plane.kubectl(&["get", "graphtenants", "-n", &world.namespace]).await.stdout;
    let mut lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["NAME", "TENANT", "TOKENS", "UNMANAGED", "READY", "AGE"]);
    assert_eq!(lines.next().unwrap()[..5], ["second", &second.tenant_id, "3", "2", "True"]);

    // The second one loses its permission; the first one goes on.
    world.emulator.set_permission(&second.tenant_id, &second.client_id, Permission::None);
    world.emulator.revoke_access_tokens();
    let refused = |status: &Value| ready_reason(status) == "PermissionMissing";
    wait_tenant(&world, "graphtenant", "second", "refused", refused).await;
    for name in ["first", "second"] {
        let file = world.token("Contoso", &RENEWED);
        world.write_secret(&format!("{name}-file"), "token", &file.text()).await;
    }
    world.wait_reason("second", "PermissionMissing").await;
    world.wait_graph("the renewal of the first", |seen| seen.entities(&world.tenant_id)[0].uploads == 2).await;
    assert_eq!(row(&world.wait_ready("first").await), READY);
    let status = world.get("clustergraphtenant", &world.tenant).await["status"].clone();
    assert_eq!(ready_reason(&status), "UpToDate");
    assert_eq!(second.entities(&world)[0].uploads, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_poll_interval_counts_at_once() {
    let world = World::with(Setup { poll_interval: "1h", ..Setup::default() }).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "countryOrRegion": "de" })).await;
    world.wait_synced("berlin").await;
    let id = world.entities()[0].id.clone();
    world.emulator.edit(&world.tenant_id, &id, |entity| entity.country_or_region = Some("us".into()));
    change_tenant(&world, json!({ "spec": { "pollInterval": "5s" } })).await;
    world.wait_lists(3).await;
    let back = world.emulator.entity(&world.tenant_id, &id).unwrap();
    assert_eq!(back.country_or_region.as_deref(), Some("de"));
    wait_tenant(&world, "clustergraphtenant", &world.tenant, "looked at", |status| status["observedGeneration"] == 2)
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_credentials_count_at_once() {
    let world = World::with(Setup { poll_interval: "1h", ..Setup::default() }).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let secret = || {
        let secret = format!("other-{}", uuid::Uuid::new_v4().simple());
        world.must_not_leak(&secret);
        secret
    };

    // Another Secret.
    let other = secret();
    world.emulator.set_secret(&world.tenant_id, &world.client_id, other.as_str());
    world.emulator.revoke_access_tokens();
    world.write_secret("graph-2", "clientSecret", &other).await;
    change_tenant(&world, json!({ "spec": { "credentials": { "clientSecretRef": { "name": "graph-2" } } } })).await;
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    world.wait_graph("the country", |seen| seen.entities(&world.tenant_id)[0].country_or_region.is_some()).await;
    world.wait_ready("berlin").await;

    // It is deleted: its content stays in use, and the status of the tenant shows that.
    let message = |status: &Value| status["conditions"][0]["message"].as_str().unwrap_or_default().to_owned();
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &world.namespace);
    secrets.delete("graph-2", &DeleteParams::default()).await.unwrap();
    let status = wait_tenant(&world, "clustergraphtenants", &world.tenant, "worried", |status| {
        message(status).contains("is not there") && message(status).contains("until the operator restarts")
    });
    assert_eq!(ready_reason(&status.await), "UpToDate");
    world.patch("berlin", json!({ "spec": { "automaticallyUpdateApps": true } })).await;
    world.wait_graph("the choice", |seen| seen.entities(&world.tenant_id)[0].automatically_update_apps).await;
    world.write_secret("graph-2", "clientSecret", &other).await;
    wait_tenant(&world, "clustergraphtenants", &world.tenant, "calm", |status| {
        message(status) == "The tenant's tokens can be listed."
    })
    .await;

    // Another key of it.
    let third = secret();
    world.write_secret("graph-2", "another-key", &third).await;
    world.emulator.set_secret(&world.tenant_id, &world.client_id, third.as_str());
    world.emulator.revoke_access_tokens();
    change_tenant(&world, json!({ "spec": { "credentials": { "clientSecretRef": { "key": "another-key" } } } })).await;
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    world
        .wait_graph("the next country", |seen| {
            seen.entities(&world.tenant_id)[0].country_or_region.as_deref() == Some("fr")
        })
        .await;
    world.wait_ready("berlin").await;

    // Another app registration, with the same Secret.
    let client_id = uuid::Uuid::new_v4().to_string();
    world.emulator.add_app(&world.tenant_id, &client_id, third.as_str());
    world.emulator.clear_requests();
    change_tenant(&world, json!({ "spec": { "clientId": client_id } })).await;
    world
        .wait_graph("a list by the other app", |seen| {
            seen.requests().any(|record| {
                record.operation == Operation::List && record.client_id.as_deref() == Some(client_id.as_str())
            })
        })
        .await;
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "it" } })).await;
    world.wait_graph("a PATCH", |seen| seen.count(Operation::Update) > 0).await;
    let update = world.requests(Operation::Update)[0].clone();
    assert_eq!(update.client_id.as_deref(), Some(client_id.as_str()));
    world.wait_ready("berlin").await;
    assert_eq!((world.entities().len(), world.entities()[0].uploads), (1, 1), "still the same token");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_object_that_nobody_uses_is_left_alone_and_nobody_waits_for_it() {
    let world = World::new().await;
    let (idle, used) = (Second::make(&world, "idle").await, Second::make(&world, "used").await);
    for (name, more) in [("berlin", json!({})), ("munich", through("used"))] {
        let file = world.token("Contoso", &EXPIRES);
        world.create(name, &file, more).await;
        world.wait_synced(name).await;
    }
    world.wait_lists(2).await;
    let is_seen = |status: &Value| *status == json!({ "observedGeneration": 1 });
    wait_tenant(&world, "graphtenant", "idle", "seen, and nothing else", is_seen).await;
    assert_eq!(idle.requests(&world), 0);
    // No longer used: no longer listed. The other tenant's polls tell the time.
    world.delete("munich").await;
    world.wait_deleted("munich").await;
    world.wait_lists(1).await;
    world.emulator.clear_requests();
    world.wait_lists(2).await;
    assert_eq!(used.requests(&world), 0, "{:?}", world.emulator.requests());
    wait_tenant(&world, "graphtenant", "used", "used by nobody any more", is_seen).await;
    assert_eq!(world.tokens().get("berlin").await.unwrap().name_any(), "berlin");
    world.finish().await;
}

/// The operator watches one namespace; it can't know whether VppTokens of another one use the tenant object.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_cluster_graph_tenant_that_no_vpp_token_uses() {
    let world = World::new().await;
    let observed = |generation: i64| move |status: &Value| status["observedGeneration"] == generation;
    wait_tenant(&world, "clustergraphtenant", &world.tenant, "seen", observed(1)).await;
    change_tenant(&world, json!({ "spec": { "pollInterval": "10s" } })).await;
    let status = wait_tenant(&world, "clustergraphtenant", &world.tenant, "seen again", observed(2)).await;
    assert_eq!(status, json!({ "observedGeneration": 2 }));
    assert_eq!(world.emulator.requests().len(), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_make_one_event_on_the_tenant_object() {
    let world = World::new().await;
    world.create("berlin", &world.token("Contoso", &EXPIRES), json!({})).await;
    world.wait_synced("berlin").await;
    world.emulator.set_secret(&world.tenant_id, &world.client_id, "another-secret");
    world.emulator.revoke_access_tokens();
    // Kubernetes keeps the events of an object without a namespace in this one.
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let events = async || {
        let mut all = events.list(&ListParams::default()).await.unwrap().items;
        all.retain(|event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(&world.tenant));
        all
    };
    let refused = |status: &Value| ready_reason(status) == "CredentialsRefused";
    wait_tenant(&world, "clustergraphtenant", &world.tenant, "refused", refused).await;
    assert!(until(LIMIT, || async { !events().await.is_empty() }).await, "{}", world.operator.log_end());
    // Several tries later.
    world
        .wait_graph("more tries", |seen| {
            seen.requests()
                .filter(|record| record.operation == Operation::Token && record.status() != Some(200))
                .count()
                > 4
        })
        .await;
    let events = events().await;
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0].reason.as_deref(), Some("CredentialsRefused"));
    assert!(events[0].note.as_ref().unwrap().contains("AADSTS7000215"), "{events:#?}");
    assert!(events[0].series.is_none(), "{events:#?}");
    let log = world.operator.log();
    let line = log.lines().find(|line| line.contains("can't be listed")).unwrap();
    assert!(line.contains(&format!("ClusterGraphTenant {}", world.tenant)), "{line}");
    world.finish().await;
}
