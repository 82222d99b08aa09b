//! The main job: a manifest becomes a token in Graph, which is synced, renewed and shown.

use serde_json::json;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_becomes_a_synced_token() {
    let world = World::new().await;
    let file = world.token("Contoso", "2027-01-22T17:32:07Z");
    world.create("berlin", &file, json!({ "countryOrRegion": "de", "automaticallyUpdateApps": true })).await;
    let status = world.wait_synced("berlin").await;
    let entities = world.entities();
    assert_eq!(entities.len(), 1);
    assert_eq!(status.token_id.as_ref(), Some(&entities[0].id));
    assert_eq!(entities[0].country_or_region.as_deref(), Some("de"));
    assert_eq!(entities[0].token_sha256, status.uploaded.map(|uploaded| uploaded.sha256));
    assert_eq!((entities[0].uploads, entities[0].syncs), (1, 1));
    world.finish().await;
}
