//! Create, read, update, delete and lists; what entities look like; what token files do to them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graph_emulator::{
    ExpiredFile, Malformed, NeverSynced, NewEntity, Paging, TimestampStyle, TokenEncoding, TokenFile, Treatment,
    UpdateAnswer, sha256,
};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use support::{PATIENCE, TENANT, World, body, expired, expiry, file, send};

const DAY: i64 = 24 * 3600;

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_entity_is_created_read_changed_and_deleted() {
    let world = World::new().await;
    let file = file();
    let answer = world.create(&body(&file, "a@b.example")).await;
    assert_eq!(answer.status, 201);
    let created = answer.json();
    let id = created["id"].as_str().unwrap();
    for (name, value) in [
        ("@odata.type", json!("#microsoft.graph.vppToken")),
        ("organizationName", json!("Contoso")),
        ("vppTokenAccountType", json!("business")),
        ("appleId", json!("a@b.example")),
        ("expirationDateTime", json!("2047-01-22T17:32:07.0000000Z")),
        ("lastSyncDateTime", json!("0001-01-01T00:00:00Z")),
        ("token", Value::Null),
        ("state", json!("valid")),
        ("lastSyncStatus", json!("none")),
        ("automaticallyUpdateApps", json!(true)),
        ("countryOrRegion", json!("de")),
    ] {
        assert_eq!(created[name], value, "{name}");
    }
    assert_eq!(world.get(id).await.json(), created);

    let answer = world.patch(id, &json!({"countryOrRegion": "fr", "automaticallyUpdateApps": false})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["countryOrRegion"]), (200, &json!("fr")));
    assert!(time(&answer.json()["lastModifiedDateTime"]) > time(&created["lastModifiedDateTime"]));
    assert_eq!(answer.json()["appleId"], "a@b.example");

    assert_eq!(world.delete(id).await.status, 204);
    for answer in [world.delete(id).await, world.get(id).await, world.patch(id, &json!({})).await, world.sync(id).await]
    {
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (404, "ResourceNotFound"));
    }
}

#[tokio::test]
async fn ids_are_compared_without_regard_to_case() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    assert_eq!(world.get(&id.to_uppercase()).await.status, 200);
}

#[tokio::test]
async fn a_list_comes_in_pages_that_link_to_the_next() {
    for paging in [Paging::AfterEntry, Paging::ByOffset] {
        let world = World::with(|settings| (settings.page_size, settings.paging) = (2, paging)).await;
        for number in 0..5 {
            world.created(&format!("{number}@b.example")).await;
        }
        let (mut seen, mut sizes, mut url) = (Vec::new(), Vec::new(), Some(world.collection()));
        while let Some(next) = url {
            let page = send(world.request(Method::GET, &next)).await.unwrap().json();
            assert!(page["@odata.context"].is_string());
            let value = page["value"].as_array().unwrap().clone();
            sizes.push(value.len());
            seen.extend(value.iter().map(|entity| entity["appleId"].as_str().unwrap().to_owned()));
            url = page["@odata.nextLink"].as_str().map(str::to_owned);
            assert!(url.as_ref().is_none_or(|url| url.starts_with(&world.collection()) && url.contains("$skiptoken=")));
        }
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(seen, ["0@b.example", "1@b.example", "2@b.example", "3@b.example", "4@b.example"]);
        let pages: Vec<_> = world.emulator.requests().iter().filter_map(|record| record.page).collect();
        assert_eq!(pages, [1, 2, 3]);
    }
}

#[tokio::test]
async fn removing_an_entry_between_two_pages_makes_only_paging_by_offset_skip_one() {
    for (paging, expected) in [(Paging::AfterEntry, vec!["2@b.example"]), (Paging::ByOffset, vec![])] {
        let world = World::with(|settings| (settings.page_size, settings.paging) = (2, paging)).await;
        for number in 0..3 {
            world.created(&format!("{number}@b.example")).await;
        }
        let first = world.list().await.json();
        world.emulator.remove(TENANT, first["value"][0]["id"].as_str().unwrap());
        let next = first["@odata.nextLink"].as_str().unwrap();
        let second = send(world.request(Method::GET, next)).await.unwrap().json();
        let seen: Vec<_> = second["value"].as_array().unwrap().iter().map(|entity| &entity["appleId"]).collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn a_full_last_page_has_no_link_and_a_wrong_skip_token_is_refused() {
    let world = World::with(|settings| settings.page_size = 2).await;
    world.created("a@b.example").await;
    world.created("b@b.example").await;
    assert!(world.list().await.json().get("@odata.nextLink").is_none());
    let url = format!("{}?$skiptoken=zzz", world.collection());
    assert_eq!(send(world.request(Method::GET, &url)).await.unwrap().status, 400);
    let url = format!("{}?$top=1", world.collection());
    assert!(send(world.request(Method::GET, &url)).await.unwrap().json()["@odata.nextLink"].is_string());
}

#[tokio::test]
async fn the_shape_of_entities_is_switchable() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    world.emulator.settings_mut(|settings| {
        settings.omit_odata_type = true;
        settings.omit_properties = BTreeSet::from(["countryOrRegion".to_owned()]);
        settings.extra_properties.insert("undocumented".to_owned(), json!({"a": [1]}));
        settings.timestamps = TimestampStyle::Offset;
        settings.never_synced = NeverSynced::Absent;
    });
    let entity = world.get(&id).await.json();
    assert!(["@odata.type", "countryOrRegion", "lastSyncDateTime"].iter().all(|name| entity.get(name).is_none()));
    assert_eq!(entity["undocumented"], json!({"a": [1]}));
    assert_eq!(entity["expirationDateTime"], "2047-01-22T09:32:07.0000000-08:00");
    world.emulator.settings_mut(|settings| {
        settings.timestamps = TimestampStyle::NoFraction;
        settings.never_synced = NeverSynced::Null;
        settings.update_answer = UpdateAnswer::NoContent;
    });
    let entity = world.get(&id).await.json();
    assert_eq!(entity["expirationDateTime"], "2047-01-22T17:32:07Z");
    assert!(entity["lastSyncDateTime"].is_null() && entity.get("lastSyncDateTime").is_some());
    let answer = world.patch(&id, &json!({"countryOrRegion": "fr"})).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
}

#[tokio::test]
async fn bodies_are_refused_as_odata_does() {
    let world = World::new().await;
    let mut good = body(&file(), "a@b.example");
    for (name, value) in [
        ("displayName", json!("beta only")),
        ("vppTokenAccountType", json!("private")),
        ("automaticallyUpdateApps", json!("yes")),
        ("appleId", json!(7)),
        ("@odata.type", json!("#microsoft.graph.user")),
        ("token", Value::Null),
    ] {
        let mut wrong = good.clone();
        wrong[name] = value;
        let answer = world.create(&wrong).await;
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (400, "BadRequest"), "{name}");
    }
    let not_json =
        world.request(Method::POST, &world.collection()).body("{").header("content-type", "application/json");
    assert_eq!(send(not_json).await.unwrap().status, 400);
    assert!(world.emulator.entities(TENANT).is_empty());

    good["displayName"] = json!("beta only");
    good["state"] = json!("invalid");
    world.emulator.settings_mut(|settings| settings.unknown_properties = Treatment::Ignore);
    let created = world.create(&good).await;
    assert_eq!(
        (created.status.as_u16(), &created.json()["state"]),
        (201, &json!("valid")),
        "the server owns the state"
    );
    world.emulator.settings_mut(|settings| settings.server_owned_properties = Treatment::Refuse);
    assert_eq!(world.create(&good).await.status, 400);
}

#[tokio::test]
async fn a_property_can_be_accepted_and_not_kept() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    world.emulator.settings_mut(|settings| settings.not_kept = BTreeSet::from(["countryOrRegion".to_owned()]));
    let answer = world.patch(&id, &json!({"countryOrRegion": "fr", "automaticallyUpdateApps": false})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["countryOrRegion"]), (200, &json!("de")));
    assert_eq!(answer.json()["automaticallyUpdateApps"], false);
}

#[tokio::test]
async fn a_write_without_a_length_is_refused_by_the_web_server() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    let mut stream = tokio::net::TcpStream::connect(world.emulator.address()).await.unwrap();
    let head = format!(
        "POST /v1.0/deviceAppManagement/vppTokens/{id}/syncLicenses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \
         {}\r\nconnection: close\r\n\r\n",
        world.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
}

#[tokio::test]
async fn a_file_that_can_not_be_read_is_refused_and_quoted_only_on_demand() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    for how in Malformed::ALL {
        let mut wrong = body(&file(), "b@b.example");
        let text = file().malformed(how);
        wrong["token"] = json!(text);
        for answer in [world.create(&wrong).await, world.patch(&id, &json!({"token": text})).await] {
            let (code, sentence) = answer.error();
            assert_eq!((answer.status.as_u16(), code.as_str()), (400, "BadRequest"), "{how:?}");
            assert!(sentence.contains("Activity ID: "), "{sentence}");
            assert!(text.is_empty() || !answer.text.contains(&text));
        }
        world.emulator.settings_mut(|settings| settings.echo_token_in_errors = true);
        assert!(world.create(&wrong).await.error().1.contains(&text), "{how:?}");
        world.emulator.settings_mut(|settings| settings.echo_token_in_errors = false);
    }
    assert_eq!(world.emulator.entities(TENANT).len(), 1);
}

#[tokio::test]
async fn the_encoding_of_the_token_is_a_switch() {
    use base64::Engine as _;
    let world = World::with(|settings| settings.token_encoding = TokenEncoding::Base64).await;
    let mut wrapped = body(&file(), "a@b.example");
    assert_eq!(world.create(&wrapped).await.status, 400);
    let text = base64::engine::general_purpose::STANDARD.encode(file().text());
    wrapped["token"] = json!(text);
    assert_eq!(world.create(&wrapped).await.status, 201);
    assert_eq!(world.emulator.entities(TENANT)[0].token_sha256, Some(sha256(&text)));
}

#[tokio::test]
async fn an_expired_file_is_accepted_as_expired_or_refused() {
    let world = World::new().await;
    let old = TokenFile::new("Contoso", expired());
    let created = world.create(&body(&old, "a@b.example")).await;
    assert_eq!((created.status.as_u16(), &created.json()["state"]), (201, &json!("expired")));
    world.emulator.settings_mut(|settings| settings.expired_file = ExpiredFile::Refuse);
    assert_eq!(world.create(&body(&old, "a@b.example")).await.status, 400);
}

#[tokio::test]
async fn a_token_expires_when_the_clock_passes_its_date() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    let left = expiry().as_second() - world.emulator.now().as_second();
    world.emulator.settings_mut(|settings| settings.clock_offset_seconds = left - DAY);
    assert_eq!(world.get(&id).await.json()["state"], "valid");
    world.emulator.settings_mut(|settings| settings.clock_offset_seconds = left + DAY);
    assert_eq!(world.get(&id).await.json()["state"], "expired");
}

#[tokio::test]
async fn a_renewal_brings_expiry_and_organization_of_the_new_file() {
    let world = World::new().await;
    let id = world.created("a@b.example").await;
    world.emulator.force_state(TENANT, &id, Some("invalid"));
    assert_eq!(world.get(&id).await.json()["state"], "invalid");
    let new = TokenFile::new("Contoso Ltd", "2048-01-01T00:00:00Z".parse().unwrap());
    let answer = world.patch(&id, &json!({"token": new.text()})).await.json();
    assert_eq!((&answer["organizationName"], &answer["state"]), (&json!("Contoso Ltd"), &json!("valid")));
    assert_eq!(time(&answer["expirationDateTime"]), new.expires());
    let entity = world.emulator.entity(TENANT, &id).unwrap();
    assert_eq!((entity.uploads, entity.token_sha256), (2, Some(sha256(&new.text()))));
}

#[tokio::test]
async fn the_old_expiry_is_shown_for_a_while_after_a_renewal() {
    let world = World::with(|settings| settings.expiry_lag = Duration::from_secs(60)).await;
    let id = world.created("a@b.example").await;
    let new = TokenFile::new("Contoso", "2048-01-01T00:00:00Z".parse().unwrap());
    let answer = world.patch(&id, &json!({"token": new.text()})).await.json();
    assert_eq!(time(&answer["expirationDateTime"]), expiry());
    assert_eq!(time(&world.get(&id).await.json()["expirationDateTime"]), expiry());

    world.emulator.settings_mut(|settings| settings.time_scale = 600.0);
    world.patch(&id, &json!({"token": new.text()})).await;
    let arrived = |view: &graph_emulator::View<'_>| {
        view.entity(TENANT, &id).is_some_and(|entity| entity.expiration_date_time == Some(new.expires()))
    };
    assert!(world.emulator.wait_for(arrived, PATIENCE).await);
    assert_eq!(time(&world.get(&id).await.json()["expirationDateTime"]), new.expires());
}

#[tokio::test]
async fn a_new_entity_can_be_late_in_lists() {
    let world = World::with(|settings| settings.list_lag = Duration::from_secs(3600)).await;
    let id = world.created("a@b.example").await;
    assert_eq!(world.list().await.json()["value"], json!([]));
    assert_eq!(world.get(&id).await.status, 200);
}

#[tokio::test]
async fn two_files_of_one_location_are_marked_on_demand() {
    let world = World::with(|settings| settings.mark_duplicates = true).await;
    let first = world.created("a@b.example").await;
    assert_eq!(world.get(&first).await.json()["state"], "valid");
    let second = world.created("a@b.example").await;
    let other = world.created("b@b.example").await;
    for (id, state) in [(&first, "duplicateLocationId"), (&second, "duplicateLocationId"), (&other, "valid")] {
        assert_eq!(world.get(id).await.json()["state"], state);
    }
    world.delete(&second).await;
    assert_eq!(world.get(&first).await.json()["state"], "valid");
}

#[tokio::test]
async fn a_person_adds_changes_and_removes_entities_by_hand() {
    let world = World::new().await;
    let new = NewEntity {
        apple_id: Some("by@hand.example".to_owned()),
        organization_name: Some("Fabrikam".to_owned()),
        expiration_date_time: Some(expiry()),
        ..NewEntity::default()
    };
    let entity = world.emulator.create_by_hand(TENANT, new);
    assert_eq!(world.get(&entity.id).await.json()["organizationName"], "Fabrikam");
    let before = world.emulator.entity(TENANT, &entity.id).unwrap().last_modified_date_time;
    assert!(world.emulator.edit(TENANT, &entity.id, |entity| entity.country_or_region = Some("at".to_owned())));
    let after = world.get(&entity.id).await.json();
    assert_eq!(after["countryOrRegion"], "at");
    assert!(time(&after["lastModifiedDateTime"]) > before);
    for state in ["assignedToExternalMDM", "somethingNew"] {
        world.emulator.edit(TENANT, &entity.id, |entity| entity.state = state.to_owned());
        assert_eq!(world.get(&entity.id).await.json()["state"], state);
    }
    world.emulator.force_state(TENANT, &entity.id, None);
    assert_eq!(world.get(&entity.id).await.json()["state"], "valid");
    assert!(world.emulator.remove(TENANT, &entity.id));
    assert!(!world.emulator.remove(TENANT, &entity.id));
    assert_eq!(world.list().await.json()["value"], json!([]));
}
