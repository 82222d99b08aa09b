//! The token endpoint, and how Graph answers to access tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graph_emulator::Permission;
use reqwest::Method;
use std::time::Duration;
use support::{APP, PATIENCE, SECRET, TENANT, World, file, good_form, send};

#[tokio::test]
async fn an_app_with_its_secret_gets_a_bearer_token_that_graph_accepts() {
    let world = World::new().await;
    let answer = world.ask_token(TENANT, &good_form()).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!((json["token_type"].as_str(), json["expires_in"].as_u64()), (Some("Bearer"), Some(3599)));
    assert_eq!(world.list().await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_request_is_told_as_entra_does() {
    let world = World::new().await;
    let with = |name: &str, value: Option<&'static str>| {
        let mut form = good_form();
        form.retain(|(found, _)| *found != name);
        form.extend(value.map(|value| (if name == "scope" { "scope" } else { leak(name) }, value)));
        form
    };
    let other = "99999999-0000-4000-8000-000000000000";
    for (tenant, form, status, error, code) in [
        (other, good_form(), 400, "invalid_request", 90_002),
        (TENANT, with("grant_type", None), 400, "invalid_request", 900_144),
        (TENANT, with("grant_type", Some("password")), 400, "unsupported_grant_type", 70_003),
        (TENANT, with("client_id", None), 400, "invalid_request", 900_144),
        (TENANT, with("client_id", Some(other)), 400, "unauthorized_client", 700_016),
        (TENANT, with("client_secret", None), 401, "invalid_client", 7_000_216),
        (TENANT, with("client_secret", Some("wrong-secret-of-mine")), 401, "invalid_client", 7_000_215),
        (TENANT, with("scope", None), 400, "invalid_request", 900_144),
        (TENANT, with("scope", Some("https://graph.microsoft.com/User.Read")), 400, "invalid_scope", 1_002_012),
        (TENANT, with("scope", Some("nonsense/.default")), 400, "invalid_resource", 500_011),
    ] {
        let answer = world.ask_token(tenant, &form).await;
        let json = answer.json();
        assert_eq!(answer.status, status, "{code}: {answer:?}");
        assert_eq!(json["error"], error, "{code}");
        assert_eq!(json["error_codes"], serde_json::json!([code]));
        assert!(json["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")), "{json}");
        assert!(json["trace_id"].is_string() && json["correlation_id"].is_string());
        assert!(!answer.text.contains("wrong-secret-of-mine") && !answer.text.contains(SECRET));
    }
}

fn leak(name: &str) -> &'static str {
    ["grant_type", "client_id", "client_secret"].into_iter().find(|known| *known == name).unwrap()
}

#[tokio::test]
async fn a_secret_expires_and_is_replaced() {
    let world = World::new().await;
    assert!(world.emulator.set_secret_expired(TENANT, APP, true));
    assert_eq!(world.ask_token(TENANT, &good_form()).await.json()["error_codes"][0], 7_000_222);
    assert!(world.emulator.set_secret(TENANT, APP, "another"));
    assert_eq!(world.ask_token(TENANT, &good_form()).await.json()["error_codes"][0], 7_000_215);
    let mut form = good_form();
    form.retain(|(name, _)| *name != "client_secret");
    form.push(("client_secret", "another"));
    assert_eq!(world.ask_token(TENANT, &form).await.status, 200);
}

#[tokio::test]
async fn calls_without_a_good_access_token_are_answered_with_401() {
    let world = World::new().await;
    let url = world.collection();
    for request in [
        world.client.get(&url),
        world.client.get(&url).bearer_auth("no-such-token"),
        world.client.get(&url).header("authorization", format!("Basic {}", world.token)),
    ] {
        let answer = send(request).await.unwrap();
        assert_eq!(answer.status, 401);
        assert_eq!(answer.error().0, "InvalidAuthenticationToken");
    }
    world.emulator.revoke_access_tokens();
    assert_eq!(world.list().await.status, 401);
}

#[tokio::test]
async fn an_access_token_ends_with_its_lifetime() {
    let mut world = World::with(|settings| {
        settings.access_token_lifetime = Duration::from_millis(1);
    })
    .await;
    // The answer with the access token took longer than its lifetime, at the latest when this list arrives.
    let refused = async {
        loop {
            if world.list().await.status == 401 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(world.list().await.error().1.contains("expired"));
    world.emulator.settings_mut(|settings| settings.access_token_lifetime = Duration::from_secs(3600));
    world.sign_in().await;
    assert_eq!(world.list().await.status, 200);
}

#[tokio::test]
async fn permissions_are_those_of_the_moment_when_the_access_token_was_issued() {
    let mut world = World::new().await;
    world.emulator.set_permission(TENANT, APP, Permission::None);
    assert_eq!(world.list().await.status, 200, "the old access token still has its roles");
    world.sign_in().await;
    let answer = world.list().await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (403, "Forbidden"));
    world.emulator.set_permission(TENANT, APP, Permission::Read);
    world.sign_in().await;
    assert_eq!(world.list().await.status, 200);
    assert_eq!(world.create(&support::body(&file(), "a@b.example")).await.status, 403);
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let mut world = World::new().await;
    let id = world.created("a@b.example").await;
    let other = "0a1b2c3d-0000-4000-8000-000000000002";
    world.emulator.add_app(other, APP, SECRET);
    world.token = world.ask_token(other, &good_form()).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(world.list().await.json()["value"], serde_json::json!([]));
    assert_eq!(world.get(&id).await.status, 404);
    assert_eq!(world.delete(&id).await.status, 404);
    assert!(world.emulator.entity(TENANT, &id).is_some());
}

#[tokio::test]
async fn what_is_not_emulated_is_refused() {
    let world = World::new().await;
    for (method, path) in [
        (Method::GET, "/v2.0/deviceAppManagement/vppTokens"),
        (Method::POST, "/beta/deviceAppManagement/vppTokens/syncLicenseCounts"),
        (Method::GET, "/beta/deviceAppManagement/vppTokens/a/getLicensesForApp(bundleId='b')"),
        (Method::GET, "/beta/deviceAppManagement/vppTokens/getLicensesForApp(bundleId='b')"),
        (Method::GET, "/beta/organization/a/appleVolumePurchaseProgramTokens"),
        (Method::PUT, "/v1.0/deviceAppManagement/vppTokens"),
        (Method::GET, "/v1.0/deviceAppManagement/vppTokens?$filter=state%20eq%20'valid'"),
    ] {
        let url = format!("{}{path}", world.emulator.url());
        assert_eq!(send(world.request(method, &url)).await.unwrap().status, 400, "{path}");
    }
}
