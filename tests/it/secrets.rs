//! Secrets: what is not a token file is not uploaded and not shown; what arrives late is used when it arrives; what
//! Entra or Graph refuses is explained. After every test, its Secrets' content is searched for in statuses, events,
//! logs and metrics.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use graph_emulator::token_file::Malformed;
use graph_emulator::{Operation, Permission, Settings, TokenEncoding, TokenFile};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, RECONCILING, RENEWED, STALLED, Setup, World, condition, in_days, row};

const LONG_AGO: &str = "2020-01-22T17:32:07Z";

/// What a Secret holds, and what a person reads of it.
struct Case {
    name: String,
    /// None: there is no Secret.
    data: Option<BTreeMap<String, ByteString>>,
    reason: &'static str,
    row: [&'static str; 3],
    /// A part of the sentence.
    says: &'static str,
}

impl Case {
    fn new(name: &str, token: impl Into<Vec<u8>>, reason: &'static str, says: &'static str) -> Self {
        let data = Some(BTreeMap::from([("token".to_owned(), ByteString(token.into()))]));
        Self { name: name.to_owned(), data, reason, row: STALLED, says }
    }
}

/// Everything that is not a file to upload. The contents are searched for at the end.
fn cases(world: &World) -> Vec<Case> {
    let rubbish = |name: &str| {
        let text = format!("{name}-{}", uuid::Uuid::new_v4().simple());
        world.must_not_leak(&text);
        text
    };
    let malformed = "TokenFileMalformed";
    let mut cases = vec![
        Case::new("text", rubbish("rubbish with spaces"), malformed, "is not base64"),
        Case::new("binary", [&[0xff, 0xfe, 0x00][..], rubbish("binary").as_bytes()].concat(), malformed, "byte 1"),
        Case::new("base64", STANDARD.encode(rubbish("rubbish")), malformed, "not the JSON of a token file"),
        Case::new("spaces", " \r\n", malformed, "it is empty"),
        Case::new("expired", world.token("Contoso", LONG_AGO).text(), "TokenFileExpired", "expired at 2020-01-22"),
        Case { data: None, row: RECONCILING, ..Case::new("missing", "", "SecretNotFound", "is not there") },
        Case {
            data: Some(BTreeMap::from([("other".to_owned(), ByteString(rubbish("other").into_bytes()))])),
            row: RECONCILING,
            ..Case::new("keyless", "", "SecretKeyNotFound", "has no key \"token\"")
        },
        Case {
            data: Some(BTreeMap::new()),
            row: RECONCILING,
            ..Case::new("dataless", "", "SecretKeyNotFound", "has no key")
        },
    ];
    for how in Malformed::ALL {
        let file = world.token("Contoso", &EXPIRES);
        let text = file.malformed(how);
        if !text.is_empty() {
            world.must_not_leak(&text);
        }
        let says = if how == Malformed::Empty { "it is empty" } else { "is not a token file" };
        cases.push(Case::new(&format!("{how:?}").to_lowercase(), text, malformed, says));
    }
    cases
}

async fn put(world: &World, name: &str, data: &Option<BTreeMap<String, ByteString>>) {
    let api: Api<Secret> = Api::namespaced(world.client.clone(), &world.namespace);
    let there = api.get_opt(name).await.unwrap();
    match data {
        None if there.is_some() => world.remove_secret(name).await,
        None => {}
        Some(data) => {
            let secret = Secret {
                metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
                data: Some(data.clone()),
                ..Secret::default()
            };
            match there {
                None => drop(api.create(&PostParams::default(), &secret).await.unwrap()),
                Some(there) => {
                    let mut secret = secret;
                    secret.metadata.resource_version = there.metadata.resource_version;
                    api.replace(name, &PostParams::default(), &secret).await.unwrap();
                }
            }
        }
    }
}

async fn says(world: &World, case: &Case) {
    let status = world.wait_reason(&case.name, case.reason).await;
    assert_eq!(row(&status), case.row, "{}", case.name);
    let message = condition(&status, ConditionType::Ready).message;
    assert!(message.contains(case.says), "{}: {message}", case.name);
    assert!(message.contains(&format!("Secret \"{}\"", case.name)), "{}: {message}", case.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_token_file_creates_nothing() {
    let world = World::new().await;
    let cases = cases(&world);
    for case in &cases {
        put(&world, &case.name, &case.data).await;
        world.create_token(&case.name, json!({})).await;
    }
    for case in &cases {
        says(&world, case).await;
        assert_eq!(world.status(&case.name).await.pending_create, None, "{}", case.name);
    }
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 0, "{:?}", world.emulator.counters());
    assert_eq!(world.entities(), []);
    // Repeated reconciles make no more events, and a cause that ends is removed at once.
    for case in &cases {
        let expected: &[&str] = if case.row == STALLED { &[case.reason] } else { &[] };
        assert_eq!(world.event_reasons(&case.name).await, expected, "{}", case.name);
        let file = world.token("Contoso", &EXPIRES);
        world.write_secret(&case.name, "token", &file.text()).await;
    }
    for case in &cases {
        assert_eq!(row(&world.wait_synced(&case.name).await), READY, "{}", case.name);
    }
    assert_eq!(world.emulator.count(Operation::Create), cases.len());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_token_file_is_not_uploaded_and_the_old_token_goes_on_syncing() {
    let world = World::new().await;
    let mut cases = cases(&world);
    cases.push(Case::new(
        "older",
        world.token("Contoso", &in_days(100)).text(),
        "TokenFileOlder",
        "before the one that Graph has",
    ));
    let other = world.token("Fabrikam", &RENEWED).text();
    cases.push(Case::new("foreign", other, "OrganizationMismatch", "\"Fabrikam\""));
    for case in &cases {
        let file = world.token("Contoso", &EXPIRES);
        world.create(&case.name, &file, json!({})).await;
    }
    for case in &cases {
        world.wait_synced(&case.name).await;
    }
    let before = world.entities();
    world.emulator.clear_requests();
    for case in &cases {
        put(&world, &case.name, &case.data).await;
    }
    for case in &cases {
        says(&world, case).await;
        // A blocker stops only what it concerns.
        world.request_sync(&case.name, "now").await;
    }
    for case in &cases {
        let status = world
            .wait_status(&case.name, "acknowledged", |status| {
                status.last_handled_sync_request.as_deref() == Some("now")
            })
            .await;
        assert_eq!(condition(&status, ConditionType::Ready).reason, case.reason, "{}", case.name);
        assert_eq!(condition(&status, ConditionType::TokenValid).reason, "Valid", "{}", case.name);
    }
    world
        .wait_graph("a second sync of each", |seen| {
            seen.entities(&world.tenant_id).iter().all(|entity| entity.syncs == 2)
        })
        .await;
    world.wait_lists(1).await;
    assert_eq!(world.emulator.writes(), cases.len(), "syncs only: {:?}", world.emulator.counters());
    for (before, after) in before.iter().zip(world.entities()) {
        assert_eq!((after.uploads, &after.token_sha256), (1, &before.token_sha256));
    }
    world.finish().await;
}

/// GitOps applies in any order. The tenant is listed once an hour here, so that no list triggers anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_is_used_when_it_arrives() {
    let world = World::with(Setup { poll_interval: "1h", ..Setup::default() }).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create_token("berlin", json!({})).await;
    let status = world.wait_reason("berlin", "SecretNotFound").await;
    assert_eq!(row(&status), RECONCILING);
    world.write_secret("berlin", "token", &file.text()).await;
    world.wait_ready("berlin").await;

    // A tenant object, then its client secret: first without the key.
    let tenant_ref = json!({ "tenantRef": { "kind": "GraphTenant", "name": "late" } });
    let file = world.token("Contoso", &EXPIRES);
    world.create("munich", &file, tenant_ref).await;
    let status = world.wait_reason("munich", "TenantNotFound").await;
    assert_eq!(row(&status), RECONCILING);
    let (tenant_id, client_id) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
    world.apply(&graph_tenant("late", &tenant_id, &client_id)).await;
    let status = world.wait_reason("munich", "SecretNotFound").await;
    assert_eq!(row(&status), RECONCILING);
    assert_eq!(tenant_condition(&world, "graphtenant", "late", "SecretNotFound").await["status"], "False");
    world.write_secret("late", "wrongKey", "not-the-client-secret").await;
    let status = world.wait_reason("munich", "SecretKeyNotFound").await;
    assert_eq!(row(&status), RECONCILING);
    let client_secret = format!("late-{}", uuid::Uuid::new_v4().simple());
    world.must_not_leak(&client_secret);
    world.emulator.add_app(&tenant_id, &client_id, client_secret.as_str());
    world.write_secret("late", "clientSecret", &client_secret).await;
    world.wait_ready("munich").await;
    assert_eq!((world.entities().len(), world.emulator.entities(&tenant_id).len()), (1, 1));
    world.finish().await;
}

fn graph_tenant(name: &str, tenant_id: &str, client_id: &str) -> Value {
    json!({
        "apiVersion": "vpptoken.io/v1alpha1",
        "kind": "GraphTenant",
        "metadata": { "name": name },
        "spec": {
            "tenantId": tenant_id,
            "clientId": client_id,
            "credentials": { "clientSecretRef": { "name": name } },
            "pollInterval": "1h",
        },
    })
}

/// Waits until Ready of a tenant object has a reason, and returns it.
async fn tenant_condition(world: &World, kind: &str, name: &str, reason: &str) -> Value {
    let last = std::sync::Mutex::new(Value::Null);
    let arrived = crate::support::until(crate::support::LIMIT, || async {
        let ready = world.get(kind, name).await["status"]["conditions"][0].clone();
        let is_there = ready["reason"] == reason;
        *last.lock().unwrap() = ready;
        is_there
    })
    .await;
    let last = last.into_inner().unwrap();
    assert!(arrived, "{kind} {name} never said {reason}: {last}");
    last
}

/// Graph may quote what it was sent. Here it expects the other encoding, so that it refuses every file.
#[tokio::test(flavor = "multi_thread")]
async fn graphs_sentence_is_shown_without_the_token_that_it_quotes() {
    let emulator = Settings { echo_token_in_errors: true, ..Setup::default().emulator };
    let world = World::with(Setup { emulator, ..Setup::default() }).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("old", &file, json!({})).await;
    world.wait_synced("old").await;
    world.emulator.settings_mut(|settings| settings.token_encoding = TokenEncoding::Base64);
    for name in ["old", "new"] {
        let file = world.token("Contoso", &RENEWED);
        world.write_secret(name, "token", &file.text()).await;
    }
    world.create_token("new", json!({})).await;
    for name in ["old", "new"] {
        let status = world.wait_reason(name, "GraphRefused").await;
        assert_eq!(row(&status), STALLED, "{name}");
        let message = condition(&status, ConditionType::Ready).message;
        // The emulator's message without the token.
        assert!(message.contains("The VPP token is not valid"), "{name}: {message}");
        assert!(message.contains("Value received: '[redacted]'"), "{name}: {message}");
        world.wait_event(name, "GraphRefused").await;
    }
    assert_eq!(world.entities().len(), 1);
    assert_eq!(world.entities()[0].token_sha256, Some(graph_emulator::sha256(&file.text())));
    world.finish().await;
}

/// kubectl apply writes the whole Secret, in plain text, into an annotation.
#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_apply_copies_into_an_annotation_is_never_shown() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    let manifest = |file: &TokenFile| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "berlin" },
            "stringData": { "token": file.text() },
        })
    };
    world.apply(&manifest(&file)).await;
    let secret = world.get("secret", "berlin").await;
    let annotation = &secret["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(annotation.as_str().unwrap().contains(&file.text()), "the annotation is what this is about");
    world.create_token("berlin", json!({})).await;
    world.wait_synced("berlin").await;
    let renewed = world.token("Contoso", &RENEWED);
    world.apply(&manifest(&renewed)).await;
    world.wait_graph("the renewal", |seen| seen.entities(&world.tenant_id)[0].uploads == 2).await;
    world.wait_event("berlin", "Uploaded").await;
    world.finish().await;
}

/// A person who searches for a fault turns on everything that can be logged, also in the libraries.
#[tokio::test(flavor = "multi_thread")]
async fn not_even_a_trace_shows_a_secret() {
    let mut setup = Setup::default();
    setup.flags.extend(["--log", "trace"].map(str::to_owned));
    setup.emulator.echo_token_in_errors = true;
    let world = World::with(setup).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    let file = world.token("Contoso", &RENEWED);
    world.write_secret("berlin", "token", &file.text()).await;
    world.wait_graph("the renewal", |seen| seen.entities(&world.tenant_id)[0].uploads == 2).await;
    world.emulator.settings_mut(|settings| settings.token_encoding = TokenEncoding::Base64);
    let file = world.token("Contoso", &EXPIRES);
    world.create("munich", &file, json!({})).await;
    world.wait_reason("munich", "GraphRefused").await;
    assert!(world.operator.log().contains("TRACE"), "the log is one of traces");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_is_explained_and_a_right_one_heals() {
    let world = World::with(Setup { poll_interval: "1h", ..Setup::default() }).await;
    let mut secret = format!("right-{}", uuid::Uuid::new_v4().simple());
    world.must_not_leak(&secret);
    world.must_not_leak("never-the-right-secret");
    world.emulator.set_secret(&world.tenant_id, &world.client_id, secret.as_str());
    world.write_secret("graph", "clientSecret", "never-the-right-secret").await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    let meaning = "the client secret is wrong";
    refused(&world, "AADSTS7000215", meaning).await;
    assert_eq!(world.emulator.count(Operation::List), 0);
    world.write_secret("graph", "clientSecret", &secret).await;
    world.wait_ready("berlin").await;
    assert_eq!(tenant_condition(&world, "clustergraphtenant", &world.tenant, "UpToDate").await["status"], "True");

    // Replaced at Entra while everything runs: nothing is due, so it shows when something is.
    secret = format!("newer-{}", uuid::Uuid::new_v4().simple());
    world.must_not_leak(&secret);
    world.emulator.set_secret(&world.tenant_id, &world.client_id, secret.as_str());
    world.emulator.revoke_access_tokens();
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    let status = world.wait_reason("berlin", "CredentialsRefused").await;
    assert_eq!(row(&status), RECONCILING);
    world.write_secret("graph", "clientSecret", &secret).await;
    world.wait_ready("berlin").await;
    assert_eq!(world.entities()[0].country_or_region.as_deref(), Some("de"));
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_client_secret_is_explained() {
    let world = World::new().await;
    world.emulator.set_secret_expired(&world.tenant_id, &world.client_id, true);
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    refused(&world, "AADSTS7000222", "the client secret has expired").await;
    world.finish().await;
}

/// Both the VppToken and the tenant object show Entra's message, and what it means.
async fn refused(world: &World, code: &str, meaning: &str) {
    let status = world.wait_reason("berlin", "CredentialsRefused").await;
    assert_eq!(row(&status), RECONCILING, "a person has ten minutes");
    let message = condition(&status, ConditionType::Ready).message;
    assert!(message.contains(code) && message.contains(meaning), "{message}");
    let ready = tenant_condition(world, "clustergraphtenant", &world.tenant, "CredentialsRefused").await;
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains(code) && message.contains(meaning), "{message}");
    assert_eq!(ready["status"], "False");
}

/// The access token contains the roles: after consent is granted, only a fresh one has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named_and_granting_it_heals() {
    let world = World::new().await;
    world.emulator.set_permission(&world.tenant_id, &world.client_id, Permission::None);
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    let names = |message: &str| {
        message.contains("DeviceManagementServiceConfig.ReadWrite.All")
            && message.contains("DeviceManagementApps.ReadWrite.All")
    };
    let status = world.wait_reason("berlin", "PermissionMissing").await;
    assert_eq!(row(&status), RECONCILING);
    let message = condition(&status, ConditionType::Ready).message;
    assert!(names(&message), "{message}");
    let ready = tenant_condition(&world, "clustergraphtenant", &world.tenant, "PermissionMissing").await;
    assert!(names(ready["message"].as_str().unwrap()), "{ready}");

    // Reading is allowed now: the tenant is ready, the create is not allowed.
    world.emulator.set_permission(&world.tenant_id, &world.client_id, Permission::Read);
    tenant_condition(&world, "clustergraphtenant", &world.tenant, "UpToDate").await;
    world.wait_graph("a create that was refused", |seen| seen.count(Operation::Create) > 0).await;
    let status = world.wait_reason("berlin", "PermissionMissing").await;
    assert_eq!(row(&status), RECONCILING);
    let message = condition(&status, ConditionType::Ready).message;
    assert!(names(&message), "{message}");
    assert_eq!(world.entities(), []);

    world.emulator.set_permission(&world.tenant_id, &world.client_id, Permission::ReadWrite);
    world.wait_synced("berlin").await;
    assert_eq!(world.entities().len(), 1);
    world.finish().await;
}

/// A Secret that changes without its file changing is no reason to upload.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_written_otherwise_is_not_uploaded_again() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    world.wait_synced("berlin").await;
    world.emulator.clear_requests();
    world.write_secret("berlin", "token", &format!("\u{feff}{}\r\n", file.text())).await;
    let labelled: Api<Secret> = Api::namespaced(world.client.clone(), &world.namespace);
    let label = json!({ "metadata": { "labels": { "team": "devices" } } });
    labelled.patch("berlin", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    // By the time that a later change has arrived in Graph, those were reconciled.
    world.patch("berlin", json!({ "spec": { "countryOrRegion": "de" } })).await;
    world.wait_graph("the country", |seen| seen.entities(&world.tenant_id)[0].country_or_region.is_some()).await;
    world.wait_lists(2).await;
    assert_eq!(world.emulator.writes(), 1, "{:?}", world.emulator.counters());
    assert_eq!(world.entities()[0].uploads, 1);
    world.finish().await;
}
