//! What is recorded and what is never shown; and the admin API of the binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graph_emulator::{NewEntity, Operation, sha256};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex};
use support::{APP, PATIENCE, SECRET, TENANT, World, body, file, good_form, send};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

async fn admin(world: &World, method: Method, path: &str, body: Option<Value>) -> support::Answer {
    let request = world.client.request(method, format!("{}/emulator{path}", world.emulator.url()));
    send(if let Some(body) = body { request.json(&body) } else { request }).await.unwrap()
}

#[tokio::test]
async fn no_record_debug_output_log_line_or_admin_answer_shows_a_token_or_a_secret() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(lines.clone()).finish();
    // The test runs on one thread, so this hears the emulator's tasks too.
    let _listening = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    world.ask_token(TENANT, &good_form()).await;
    let (file, broken) = (file(), file().malformed(graph_emulator::Malformed::NotJson));
    let id = world.create(&body(&file, "a@b.example")).await.json()["id"].as_str().unwrap().to_owned();
    let renewed = support::file();
    world.patch(&id, &json!({"token": renewed.text()})).await;
    world.emulator.settings_mut(|settings| settings.echo_token_in_errors = true);
    assert_eq!(world.patch(&id, &json!({"token": broken})).await.status, 400);
    world.get(&id).await;
    world.list().await;
    let by_hand = NewEntity { token: Some(file.text().into()), ..NewEntity::default() };
    let mut shown = format!("{by_hand:?} {file:?} {:?} {:?}", world.emulator, world.emulator.settings());
    world.emulator.create_by_hand(TENANT, by_hand);
    shown += &format!("{:?} {:?}", world.emulator.requests(), world.emulator.entities(TENANT));
    shown += &format!("{:?} {:?}", world.emulator.effects(), *world.emulator);
    for path in [
        "",
        "/settings",
        "/requests",
        "/counters",
        "/effects",
        "/faults",
        "/apps",
        &format!("/tenants/{TENANT}/vppTokens"),
    ] {
        let answer = admin(&world, Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{path}");
        shown += &answer.text;
    }
    shown += &String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(shown.contains("a@b.example") && shown.contains("PATCH"), "the test looks at nothing");
    for (what, secret) in [
        ("client secret", SECRET),
        ("access token", &world.token),
        ("file", &file.text()),
        ("inner token", file.inner()),
        ("renewed file", &renewed.text()),
        ("broken file", &broken),
    ] {
        assert!(!shown.contains(secret), "the {what} is shown");
    }
}

#[tokio::test]
async fn requests_are_recorded_with_names_but_no_values() {
    let mut world = World::new().await;
    world.sign_in().await;
    let file = file();
    let id = world.create(&body(&file, "a@b.example")).await.json()["id"].as_str().unwrap().to_owned();
    world.list().await;
    world.delete(&id).await;
    let records = world.emulator.requests();
    let operations: Vec<_> = records.iter().map(|record| record.operation).collect();
    assert_eq!(operations, [Operation::Token, Operation::Create, Operation::List, Operation::Delete]);
    assert!(
        records.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence && pair[0].ended <= Some(pair[1].began))
    );
    assert!(records.iter().all(|record| record.tenant.as_deref() == Some(TENANT)));
    assert!(records.iter().all(|record| record.client_id.as_deref() == Some(APP)));
    let create = &records[1];
    let names =
        ["@odata.type", "appleId", "automaticallyUpdateApps", "countryOrRegion", "token", "vppTokenAccountType"];
    assert_eq!(create.properties, names);
    assert_eq!(create.token_sha256, Some(sha256(&file.text())));
    assert_eq!((create.id.as_deref(), create.status()), (Some(id.as_str()), Some(201)));
    assert_eq!((world.emulator.writes(), world.emulator.count(Operation::List)), (2, 1));
    world.emulator.clear_requests();
    assert_eq!((world.emulator.requests().len(), world.emulator.writes()), (0, 0));
}

#[tokio::test]
async fn the_admin_api_does_over_http_what_tests_do_in_process() {
    let mut world = World::new().await;
    let id = world.created("a@b.example").await;
    let entity = format!("/tenants/{TENANT}/vppTokens/{id}");

    let changes = json!({"state": "invalid", "countryOrRegion": "at", "syncFails": true});
    assert_eq!(admin(&world, Method::PATCH, &entity, Some(changes)).await.status, 200);
    let seen = world.get(&id).await.json();
    assert_eq!((&seen["state"], &seen["countryOrRegion"]), (&json!("invalid"), &json!("at")));
    admin(&world, Method::PATCH, &entity, Some(json!({"state": null}))).await;
    assert_eq!(world.get(&id).await.json()["state"], "valid");
    let changes = json!({"displayName": "Berlin", "locationName": "HQ", "roleScopeTagIds": ["7"],
        "dataSharingConsentGranted": true, "claimTokenManagementFromExternalMdm": true,
        "tokenActionResults": [{"actionName": "revokeLicenses", "actionState": "pending"}]});
    let changed = admin(&world, Method::PATCH, &entity, Some(changes.clone())).await.json();
    world.api = "beta";
    let seen = world.get(&id).await.json();
    world.api = "v1.0";
    for (name, value) in changes.as_object().unwrap() {
        assert_eq!((&changed[name], &seen[name]), (value, value), "{name}");
    }
    let wrong = json!({"roleScopeTagIds": [7]});
    assert_eq!(admin(&world, Method::PATCH, &entity, Some(wrong)).await.status, 400);
    assert_eq!(admin(&world, Method::PATCH, &entity, Some(json!({"colour": "red"}))).await.status.as_u16(), 400);
    assert_eq!(admin(&world, Method::POST, &format!("{entity}/sync"), None).await.status, 202);
    assert_eq!(world.get(&id).await.json()["lastSyncStatus"], "inProgress");

    let hide = async |path: String| admin(&world, Method::POST, &path, None).await.status;
    assert_eq!(hide(format!("{entity}/hide?seconds=3600")).await, 204);
    assert_eq!(world.get(&id).await.status, 404);
    assert_eq!(hide(format!("{entity}/hide?seconds=0")).await, 204);
    assert_eq!(world.get(&id).await.status, 200);
    assert_eq!(hide(format!("{entity}/hide?seconds=-1")).await, 400);
    assert_eq!(hide(format!("/tenants/{TENANT}/vppTokens/unknown/hide?seconds=1")).await, 404);

    let effects = admin(&world, Method::GET, "/effects?after=4", None).await.json();
    let sync = &effects.as_array().unwrap()[0];
    assert_eq!((effects.as_array().unwrap().len(), &sync["sequence"], &sync["by"]), (1, &json!(5), &json!("hand")));
    assert_eq!((&sync["operation"], &sync["after"]["lastSyncStatus"]), (&json!("syncLicenses"), &json!("inProgress")));
    let create = admin(&world, Method::GET, "/effects", None).await.json()[0].take();
    assert_eq!((&create["by"], &create["before"]), (&json!({"request": 2}), &Value::Null));

    let fault = json!({"operation": "list", "times": 1, "action": {"hold": {"when": "before"}}});
    let number = admin(&world, Method::POST, "/faults", Some(fault)).await.json()["number"].as_u64().unwrap();
    let list = tokio::spawn(send(world.list_request()));
    let held = |view: &graph_emulator::View<'_>| view.requests().any(|record| record.fault == Some(number));
    assert!(world.emulator.wait_for(held, PATIENCE).await);
    assert_eq!(admin(&world, Method::DELETE, &format!("/faults/{number}"), None).await.status, 204);
    assert_eq!(list.await.unwrap().unwrap().status, 200);

    let changed = admin(&world, Method::PATCH, "/settings", Some(json!({"pageSize": 7, "expiryLag": 1.5}))).await;
    assert_eq!((changed.status.as_u16(), &changed.json()["pageSize"]), (200, &json!(7)));
    assert_eq!(admin(&world, Method::PATCH, "/settings", Some(json!({"pageSise": 7}))).await.status, 400);

    let counters = admin(&world, Method::GET, "/counters", None).await.json();
    assert_eq!((&counters["operations"]["create"], &counters["writes"]), (&json!(1), &json!(1)));
    assert_eq!(admin(&world, Method::DELETE, "/counters", None).await.status, 204);
    assert_eq!(admin(&world, Method::GET, "/requests", None).await.json(), json!([]));

    let app = json!({"tenant": "another", "clientId": APP, "secret": SECRET});
    assert_eq!(admin(&world, Method::POST, "/apps", Some(app)).await.status, 201);
    assert_eq!(world.ask_token("another", &good_form()).await.status, 200);
    let path = format!("/apps/{TENANT}/{APP}");
    admin(&world, Method::PATCH, &path, Some(json!({"secretExpired": true}))).await;
    assert_eq!(world.ask_token(TENANT, &good_form()).await.status, 401);
    admin(&world, Method::PATCH, &path, Some(json!({"secretExpired": false}))).await;
    assert_eq!(admin(&world, Method::POST, "/revoke", None).await.status, 204);
    assert_eq!(world.list().await.status, 401);
    world.sign_in().await;

    let made =
        admin(&world, Method::POST, &format!("/tenants/{TENANT}/vppTokens"), Some(json!({"appleId": "x"}))).await;
    assert_eq!((made.status.as_u16(), &made.json()["appleId"]), (201, &json!("x")));
    assert_eq!(admin(&world, Method::DELETE, &entity, None).await.status, 204);
    assert_eq!(admin(&world, Method::GET, &entity, None).await.status, 404);
    assert_eq!(admin(&world, Method::GET, "/nonsense", None).await.status, 404);
}

#[tokio::test]
async fn an_outage_asked_for_over_http_ends_by_itself() {
    let world = World::new().await;
    assert_eq!(admin(&world, Method::POST, "/down?seconds=0.2", None).await.status, 202);
    let refused = async { while send(world.list_request()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let back = async { while send(world.list_request()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
}
