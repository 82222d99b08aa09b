//! The beta view of the collection: what only it shows and takes, and that v1.0 shows the same entries without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graph_emulator::{LocationName, NewEntity, Operation, ScopeTagOrder, SyncAnswer, TokenFile, Treatment};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{TENANT, World, body, expiry, file, send};

const BETA_ONLY: [&str; 6] = [
    "displayName",
    "locationName",
    "dataSharingConsentGranted",
    "claimTokenManagementFromExternalMdm",
    "roleScopeTagIds",
    "tokenActionResults",
];

/// What a client may set in beta, with values that differ from the defaults.
fn settable() -> [(&'static str, Value); 4] {
    [
        ("displayName", json!("Berlin")),
        ("dataSharingConsentGranted", json!(true)),
        ("claimTokenManagementFromExternalMdm", json!(true)),
        ("roleScopeTagIds", json!(["0", "7"])),
    ]
}

fn assert_shows(entity: &Value, expected: [(&str, Value); 6]) {
    assert_eq!(expected.each_ref().map(|(name, _)| *name), BETA_ONLY);
    for (name, value) in expected {
        assert_eq!(entity.get(name), Some(&value), "{name}");
    }
}

fn assert_as_in_v1(entity: &Value) {
    assert!(BETA_ONLY.iter().all(|name| entity.get(name).is_none()), "{entity}");
    assert!(entity["appleId"].is_string());
}

async fn in_beta() -> World {
    let mut world = World::new().await;
    world.api = "beta";
    world
}

#[tokio::test]
async fn an_entity_is_created_read_changed_synced_and_deleted_in_beta() {
    let world = in_beta().await;
    let mut wanted = body(&file(), "a@b.example");
    for (name, value) in settable() {
        wanted[name] = value;
    }
    let answer = world.create(&wanted).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let created = answer.json();
    let id = created["id"].as_str().unwrap();
    assert_eq!((&created["appleId"], &created["token"]), (&json!("a@b.example"), &Value::Null));
    assert_eq!(created["@odata.type"], "#microsoft.graph.vppToken");
    assert_shows(
        &created,
        [
            ("displayName", json!("Berlin")),
            ("locationName", json!("Contoso")),
            ("dataSharingConsentGranted", json!(true)),
            ("claimTokenManagementFromExternalMdm", json!(true)),
            ("roleScopeTagIds", json!(["0", "7"])),
            ("tokenActionResults", json!([])),
        ],
    );
    assert_eq!(world.get(id).await.json(), created);
    assert_eq!(world.list().await.json()["value"][0]["displayName"], "Berlin");

    for (name, value) in [
        ("displayName", json!("Rome")),
        ("displayName", Value::Null),
        ("dataSharingConsentGranted", json!(false)),
        ("claimTokenManagementFromExternalMdm", json!(false)),
        ("roleScopeTagIds", json!([])),
        ("countryOrRegion", json!("it")),
    ] {
        let before = world.get(id).await.json();
        let mut after = world.patch(id, &json!({name: value})).await.json();
        assert_eq!(after[name], value, "{name}");
        assert_eq!(world.get(id).await.json(), after, "{name}");
        for moved in [name, "lastModifiedDateTime"] {
            after[moved] = before[moved].clone();
        }
        assert_eq!(after, before, "{name} changes nothing else");
    }

    assert_eq!(world.sync(id).await.json()["tokenActionResults"], json!([]));
    world.emulator.settings_mut(|settings| settings.sync_answer = SyncAnswer::Wrapped);
    assert_eq!(world.sync(id).await.json()["value"]["locationName"], "Contoso");
    assert_eq!(world.delete(id).await.status, 204);
    for answer in [world.delete(id).await, world.get(id).await, world.patch(id, &json!({})).await, world.sync(id).await]
    {
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (404, "ResourceNotFound"));
    }
    let operations = [Operation::Create, Operation::Update, Operation::SyncLicenses, Operation::Delete];
    assert_eq!(operations.map(|operation| world.emulator.count(operation)), [1, 7, 3, 2]);
}

#[tokio::test]
async fn both_views_are_of_the_same_entries() {
    let mut world = World::new().await;
    let id = world.created("a@b.example").await;
    for answer in [world.get(&id).await, world.patch(&id, &json!({})).await, world.sync(&id).await] {
        assert_as_in_v1(&answer.json());
    }
    let of_v1 = world.get(&id).await.json();

    world.api = "beta";
    let of_beta = world.get(&id).await.json();
    assert_shows(
        &of_beta,
        [
            ("displayName", Value::Null),
            ("locationName", json!("Contoso")),
            ("dataSharingConsentGranted", json!(false)),
            ("claimTokenManagementFromExternalMdm", json!(false)),
            ("roleScopeTagIds", json!(["0"])),
            ("tokenActionResults", json!([])),
        ],
    );
    let mut common = of_beta.as_object().unwrap().clone();
    common.retain(|name, _| !BETA_ONLY.contains(&name.as_str()));
    common.insert("@odata.context".to_owned(), of_v1["@odata.context"].clone());
    assert_eq!(Value::Object(common), of_v1);
    world.patch(&id, &json!({"displayName": "Berlin", "countryOrRegion": "fr"})).await;
    let second = world.created("b@b.example").await;

    world.api = "v1.0";
    let listed = world.list().await.json()["value"].take();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    listed.as_array().unwrap().iter().for_each(assert_as_in_v1);
    let renewed = TokenFile::new("Fabrikam", expiry());
    let changed = world.patch(&id, &json!({"token": renewed.text(), "automaticallyUpdateApps": false})).await.json();
    assert_eq!(changed["countryOrRegion"], "fr");
    assert_eq!(world.delete(&second).await.status, 204);

    world.api = "beta";
    assert_eq!(world.get(&second).await.status, 404);
    let seen = world.get(&id).await.json();
    assert_eq!(seen["displayName"], "Berlin", "a write in v1.0 leaves beta's properties alone");
    assert_eq!((&seen["automaticallyUpdateApps"], &seen["locationName"]), (&json!(false), &json!("Fabrikam")));
}

#[tokio::test]
async fn what_only_beta_has_is_unknown_to_v1() {
    let mut world = World::new().await;
    let id = world.created("a@b.example").await;
    let server_owned = [("locationName", json!("HQ")), ("tokenActionResults", json!([]))];
    for (name, value) in settable().into_iter().chain(server_owned) {
        let mut wrong = body(&file(), "b@b.example");
        wrong[name] = value.clone();
        for answer in [world.create(&wrong).await, world.patch(&id, &json!({name: value})).await] {
            let (code, sentence) = answer.error();
            assert_eq!((answer.status.as_u16(), code.as_str()), (400, "BadRequest"), "{name}");
            assert!(sentence.contains(&format!("The property '{name}' does not exist on type")), "{sentence}");
        }
    }
    world.emulator.settings_mut(|settings| settings.unknown_properties = Treatment::Ignore);
    assert_eq!(world.patch(&id, &json!({"displayName": "Berlin"})).await.status, 200);
    world.api = "beta";
    assert_eq!(world.get(&id).await.json()["displayName"], Value::Null, "ignored is not kept");
}

#[tokio::test]
async fn pages_and_contexts_of_beta_say_beta() {
    let mut world = World::with(|settings| settings.page_size = 2).await;
    for number in 0..3 {
        world.created(&format!("{number}@b.example")).await;
    }
    for api in ["v1.0", "beta"] {
        world.api = api;
        let context = format!("{}/{api}/$metadata#deviceAppManagement/vppTokens", world.emulator.url());
        let first = world.list().await.json();
        assert_eq!(first["@odata.context"], context);
        let next = first["@odata.nextLink"].as_str().unwrap();
        assert!(next.starts_with(&format!("{}?$skiptoken=", world.collection())), "{next}");
        let second = send(world.request(Method::GET, next)).await.unwrap().json();
        assert_eq!(
            (&second["@odata.context"], &second["value"][0]["appleId"]),
            (&json!(context), &json!("2@b.example"))
        );
        assert!(second.get("@odata.nextLink").is_none());
        assert_eq!(second["value"][0].get("roleScopeTagIds").is_some(), api == "beta");
        let id = second["value"][0]["id"].as_str().unwrap();
        for answer in [world.get(id).await, world.patch(id, &json!({})).await, world.sync(id).await] {
            assert_eq!(answer.json()["@odata.context"], format!("{context}/$entity"));
        }
    }
}

#[tokio::test]
async fn beta_checks_the_types_of_its_properties_and_owns_some() {
    let world = in_beta().await;
    let id = world.created("a@b.example").await;
    let before = world.get(&id).await.json();
    for (name, value) in [
        ("displayName", json!(7)),
        ("dataSharingConsentGranted", json!("true")),
        ("dataSharingConsentGranted", Value::Null),
        ("claimTokenManagementFromExternalMdm", json!(1)),
        ("claimTokenManagementFromExternalMdm", Value::Null),
        ("roleScopeTagIds", json!("0")),
        ("roleScopeTagIds", json!(["0", 7])),
        ("roleScopeTagIds", Value::Null),
        ("colour", json!("red")),
    ] {
        let mut wrong = body(&file(), "b@b.example");
        wrong[name] = value.clone();
        for answer in [world.create(&wrong).await, world.patch(&id, &json!({name: value})).await] {
            let (code, sentence) = answer.error();
            assert_eq!((answer.status.as_u16(), code.as_str()), (400, "BadRequest"), "{name}: {value}");
            assert!(sentence.contains(&format!("'{name}'")), "{sentence}");
        }
    }
    assert_eq!(world.get(&id).await.json(), before);
    assert_eq!(world.emulator.entities(TENANT).len(), 1);

    let owned = json!({"locationName": "HQ", "tokenActionResults": [{"actionName": "x"}]});
    let answer = world.patch(&id, &owned).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["locationName"]), (200, &json!("Contoso")));
    assert_eq!(answer.json()["tokenActionResults"], json!([]));
    world.emulator.settings_mut(|settings| settings.server_owned_properties = Treatment::Refuse);
    assert!(world.patch(&id, &json!({"locationName": "HQ"})).await.error().1.contains("read-only"));
}

#[tokio::test]
async fn beta_properties_can_be_accepted_and_not_kept_required_or_left_out() {
    let world = in_beta().await;
    let id = world.created("a@b.example").await;
    let before = world.get(&id).await.json();
    for (name, value) in settable() {
        world.emulator.settings_mut(|settings| settings.not_kept = BTreeSet::from([name.to_owned()]));
        let mut new = body(&file(), "b@b.example");
        new[name] = value.clone();
        let (changed, created) = (world.patch(&id, &json!({name: value})).await, world.create(&new).await);
        assert_eq!((changed.status.as_u16(), &changed.json()[name]), (200, &before[name]), "{name}");
        assert_eq!((created.status.as_u16(), &created.json()[name]), (201, &before[name]), "{name}");
        assert_eq!(world.get(&id).await.json()[name], before[name], "{name}");
    }
    world.emulator.settings_mut(|settings| {
        settings.not_kept.clear();
        settings.required_on_create.insert("displayName".to_owned());
        settings.omit_properties = BTreeSet::from(BETA_ONLY.map(str::to_owned));
    });
    let mut new = body(&file(), "c@b.example");
    assert_eq!(world.create(&new).await.status, 400);
    new["displayName"] = json!("Berlin");
    assert_eq!(world.create(&new).await.status, 201);
    assert_as_in_v1(&world.get(&id).await.json());
}

#[tokio::test]
async fn scope_tags_come_back_in_an_order_of_the_servers_choice() {
    let world = in_beta().await;
    let id = world.created("a@b.example").await;
    let sent = json!({"roleScopeTagIds": ["7", "0", "31"]});
    assert_eq!(world.patch(&id, &sent).await.json()["roleScopeTagIds"], json!(["0", "31", "7"]));
    for (order, expected) in [
        (ScopeTagOrder::AsSent, ["7", "0", "31"]),
        (ScopeTagOrder::Reversed, ["31", "0", "7"]),
        (ScopeTagOrder::Sorted, ["0", "31", "7"]),
    ] {
        world.emulator.settings_mut(|settings| settings.scope_tag_order = order);
        assert_eq!(world.get(&id).await.json()["roleScopeTagIds"], json!(expected), "{order:?}");
        assert_eq!(world.patch(&id, &sent).await.json()["roleScopeTagIds"], json!(expected), "{order:?}");
    }
}

#[tokio::test]
async fn the_location_can_stay_unknown_until_a_person_names_it() {
    let mut world = World::with(|settings| settings.location_name = LocationName::Null).await;
    world.api = "beta";
    let id = world.created("a@b.example").await;
    assert_eq!(world.get(&id).await.json()["locationName"], Value::Null);
    assert!(world.emulator.edit(TENANT, &id, |entity| entity.location_name = Some("HQ".to_owned())));
    let renewed = world.patch(&id, &json!({"token": file().text()})).await.json();
    assert_eq!(renewed["locationName"], "HQ");
}

#[tokio::test]
async fn a_person_adds_and_changes_beta_properties_by_hand() {
    let world = in_beta().await;
    let new = NewEntity {
        organization_name: Some("Fabrikam".to_owned()),
        display_name: Some("Berlin".to_owned()),
        data_sharing_consent_granted: Some(true),
        claim_token_management_from_external_mdm: Some(true),
        role_scope_tag_ids: Some(vec!["7".to_owned()]),
        ..NewEntity::default()
    };
    let id = world.emulator.create_by_hand(TENANT, new).id;
    let by_hand = [
        ("displayName", json!("Berlin")),
        ("locationName", json!("Fabrikam")),
        ("dataSharingConsentGranted", json!(true)),
        ("claimTokenManagementFromExternalMdm", json!(true)),
        ("roleScopeTagIds", json!(["7"])),
        ("tokenActionResults", json!([])),
    ];
    assert_shows(&world.get(&id).await.json(), by_hand);
    world.emulator.edit(TENANT, &id, |entity| {
        entity.display_name = None;
        entity.location_name = Some("HQ".to_owned());
        entity.data_sharing_consent_granted = false;
        entity.claim_token_management_from_external_mdm = false;
        entity.role_scope_tag_ids = vec!["8".to_owned()];
        entity.token_action_results = vec![json!({"actionName": "revokeLicenses"})];
    });
    let changed = [
        ("displayName", Value::Null),
        ("locationName", json!("HQ")),
        ("dataSharingConsentGranted", json!(false)),
        ("claimTokenManagementFromExternalMdm", json!(false)),
        ("roleScopeTagIds", json!(["8"])),
        ("tokenActionResults", json!([{"actionName": "revokeLicenses"}])),
    ];
    assert_shows(&world.get(&id).await.json(), changed);

    let bare = world.emulator.create_by_hand(TENANT, NewEntity::default()).id;
    let defaults = [
        ("displayName", Value::Null),
        ("locationName", Value::Null),
        ("dataSharingConsentGranted", json!(false)),
        ("claimTokenManagementFromExternalMdm", json!(false)),
        ("roleScopeTagIds", json!(["0"])),
        ("tokenActionResults", json!([])),
    ];
    assert_shows(&world.get(&bare).await.json(), defaults);
}
