//! What only Graph's beta API has: set, shown and kept where the tenant object has `api: Beta`, and reported where it
//! does not.

use graph_emulator::{Entity, Operation};
use serde_json::{Map, Value, json};
use vpptoken_operator::api::conditions::ConditionType;

use crate::support::{EXPIRES, READY, STALLED, Second, World, condition, row, through};

/// Sets the API of the GraphTenant NAME.
async fn set_api(world: &World, tenant: &Second, name: &str, api: &str) {
    let mut manifest = tenant.manifest(name, "5s");
    manifest["spec"]["api"] = json!(api);
    world.apply(&manifest).await;
}

/// A spec that names all that only beta has.
fn all_of_beta(tenant: &str) -> Value {
    let mut more = through(tenant);
    more["displayName"] = json!("Berlin and Potsdam");
    more["roleScopeTagIds"] = json!(["7", "0"]);
    more["dataSharingConsentGranted"] = json!(true);
    more["claimTokenManagementFromExternalMdm"] = json!(true);
    more["countryOrRegion"] = json!("de");
    more
}

/// What a person changes in the portal.
type Edit = fn(&mut Entity);

const ONLY_BETA: [&str; 4] =
    ["claimTokenManagementFromExternalMdm", "dataSharingConsentGranted", "displayName", "roleScopeTagIds"];

fn as_asked_for(entity: &Entity) -> bool {
    let mut tags = entity.role_scope_tag_ids.clone();
    tags.sort();
    entity.display_name.as_deref() == Some("Berlin and Potsdam")
        && tags == ["0", "7"]
        && entity.data_sharing_consent_granted
        && entity.claim_token_management_from_external_mdm
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_beta_has_is_created_shown_and_put_back_one_by_one() {
    let world = World::new().await;
    let tenant = Second::make(&world, "beta").await;
    set_api(&world, &tenant, "beta", "Beta").await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, all_of_beta("beta")).await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("left-out", &file, through("beta")).await;
    let status = world.wait_synced("berlin").await;
    let left_out = world.wait_synced("left-out").await.token_id.unwrap();
    let id = status.token_id.clone().unwrap();
    let entity = || world.emulator.entity(&tenant.tenant_id, &id).unwrap();
    assert!(as_asked_for(&entity()), "{:#?}", entity());
    assert_eq!(world.emulator.count(Operation::Update), 0, "the create brought all of it");
    let shown = serde_json::to_value(&status).unwrap();
    for (field, value) in [
        ("displayName", json!("Berlin and Potsdam")),
        ("roleScopeTagIds", json!(["0", "7"])),
        ("dataSharingConsentGranted", json!(true)),
        ("claimTokenManagementFromExternalMdm", json!(true)),
        ("locationName", json!("Contoso")),
        ("tenant", json!({ "api": "Beta", "cloud": "Global", "tenantId": tenant.tenant_id })),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }

    // No drift: the same set in another order. And what a manifest leaves out is shown, and left as people set it.
    world.emulator.edit(&tenant.tenant_id, &id, |entity| entity.role_scope_tag_ids = vec!["7".into(), "0".into()]);
    world.emulator.edit(&tenant.tenant_id, &left_out, |entity| {
        entity.display_name = Some("By hand".into());
        entity.role_scope_tag_ids = vec!["9".into()];
        entity.claim_token_management_from_external_mdm = true;
    });
    world
        .wait_status("left-out", "shown as people set it", |status| {
            row(status) == READY
                && status.display_name.as_deref() == Some("By hand")
                && status.role_scope_tag_ids.as_deref() == Some(&["9".to_owned()])
                && status.claim_token_management_from_external_mdm == Some(true)
        })
        .await;

    // Each of them is put back alone, and nothing else with it.
    let edits: [(&str, Edit, &str); 4] = [
        ("displayName", |entity| entity.display_name = Some("berlin and potsdam".into()), "from berlin and potsdam to"),
        ("roleScopeTagIds", |entity| entity.role_scope_tag_ids = vec!["0".into()], "from 0 to 0, 7"),
        ("dataSharingConsentGranted", |entity| entity.data_sharing_consent_granted = false, "from false to true"),
        (
            "claimTokenManagementFromExternalMdm",
            |entity| entity.claim_token_management_from_external_mdm = false,
            "from false to true",
        ),
    ];
    for (field, edit, change) in edits {
        world.wait_lists(1).await;
        world.emulator.clear_requests();
        assert!(world.emulator.edit(&tenant.tenant_id, &id, edit));
        world.wait_graph(field, |seen| as_asked_for(&seen.entity(&tenant.tenant_id, &id).unwrap())).await;
        world.wait_ready("berlin").await;
        assert_eq!(world.written(), [(Operation::Update, Some(id.clone()))], "{field}");
        assert_eq!(world.patched(), [[field]]);
        let there = crate::support::until(crate::support::LIMIT, || async {
            let notes = world.event_notes("berlin").await;
            notes.iter().any(|(_, note)| note.contains(&format!("{field} {change}")))
        })
        .await;
        assert!(there, "{field}: {:?}", world.event_notes("berlin").await);
    }
    let left_out = world.emulator.entity(&tenant.tenant_id, &left_out).unwrap();
    assert_eq!(left_out.display_name.as_deref(), Some("By hand"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_v1_does_not_have_is_reported_and_never_sent_until_the_tenant_object_has_beta() {
    let world = World::new().await;
    let tenant = Second::make(&world, "own").await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, all_of_beta("own")).await;
    let status = world.wait_reason("berlin", "SettingUnknownToApi").await;
    let report = condition(&status, ConditionType::Ready).message;
    for part in ONLY_BETA.into_iter().chain(["api: Beta", "Leave this out"]) {
        assert!(report.contains(part), "{part}: {report}");
    }
    // Nothing is created before that is corrected.
    world.wait_lists(2).await;
    assert_eq!(world.written(), []);
    let left_out = ONLY_BETA.map(|field| (field.to_owned(), Value::Null));
    world.patch("berlin", json!({ "spec": Map::from_iter(left_out) })).await;
    let id = world.wait_synced("berlin").await.token_id.unwrap();
    // For a token that is there it stops nothing else: it is synced on request, and its country kept.
    world.patch("berlin", json!({ "spec": all_of_beta("own") })).await;
    world.wait_reason("berlin", "SettingUnknownToApi").await;
    world.request_sync("berlin", "1").await;
    assert_eq!(row(&world.wait_requested_sync("berlin", "1").await), STALLED);
    world.emulator.edit(&tenant.tenant_id, &id, |entity| {
        entity.country_or_region = Some("us".into());
        entity.display_name = Some("By hand".into());
    });
    world
        .wait_graph("the country put back", |seen| {
            seen.entity(&tenant.tenant_id, &id).unwrap().country_or_region.as_deref() == Some("de")
        })
        .await;
    world.wait_lists(2).await;
    let sent = |field: &&str| world.emulator.requests().iter().any(|record| record.has(field));
    assert!(!ONLY_BETA.iter().any(sent), "{:#?}", world.emulator.requests());
    assert_eq!(world.patched(), [["countryOrRegion"]]);
    let status = world.wait_reason("berlin", "SettingUnknownToApi").await;
    assert_eq!((status.display_name, status.role_scope_tag_ids), (None, None), "v1.0 does not show it");

    // What the message asks for.
    world.emulator.clear_requests();
    set_api(&world, &tenant, "own", "Beta").await;
    let status = world
        .wait_status("berlin", "ready, in beta", |status| {
            row(status) == READY && status.display_name.as_deref() == Some("Berlin and Potsdam")
        })
        .await;
    assert_eq!(status.token_id.as_ref(), Some(&id));
    assert!(as_asked_for(&world.emulator.entity(&tenant.tenant_id, &id).unwrap()));
    assert_eq!(world.written(), [(Operation::Update, Some(id))], "one PATCH onto the same token");
    assert_eq!(world.patched(), [ONLY_BETA]);
    world.finish().await;
}
