//! The server behind kube's client, in paused time.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, ObjectReference, Secret};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;

use crate::world::*;

fn widgets(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.io", "v1", "Widget"), "widgets");
    Api::namespaced_with(client.clone(), "devices", &resource)
}

#[tokio::test(start_paused = true)]
async fn the_status_is_patched_and_conflicts_are_seen() {
    let server = server();
    let client = Client::new(server.service("operator"), "devices");
    let api = widgets(&client);
    let created =
        api.create(&PostParams::default(), &serde_json::from_value(widget("w", json!({}))).unwrap()).await.unwrap();
    let mut patch = widget("w", json!({}));
    patch["metadata"]["resourceVersion"] = created.metadata.resource_version.clone().into();
    patch["status"] = json!({ "phase": "a" });
    let parameters = PatchParams::apply("operator").force();
    let patched = api.patch_status("w", &parameters, &Patch::Apply(&patch)).await.unwrap();
    assert_eq!(patched.data["status"]["phase"], "a");
    patch["status"]["phase"] = "b".into();
    let error = api.patch_status("w", &parameters, &Patch::Apply(&patch)).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.is_conflict()));
    assert!(api.get_opt("nobody").await.unwrap().is_none());
    let writes = server.writes();
    let last = writes.last().unwrap();
    assert_eq!(
        (last.user.as_str(), last.manager.as_str(), last.subresource.as_str()),
        ("operator", "operator", "status")
    );
}

#[tokio::test(start_paused = true)]
async fn a_watcher_lists_watches_and_starts_anew_after_410() {
    let server = server();
    post(&server, WIDGETS, &widget("a", json!({})));
    let client = Client::new(server.service("operator"), "devices");
    let mut events = Box::pin(watcher::watcher(widgets(&client), watcher::Config::default().page_size(1)));
    let mut next =
        async || format!("{:?}", events.try_next().await.unwrap().unwrap()).split('(').next().unwrap().to_owned();
    assert_eq!([next().await, next().await, next().await], ["Init", "InitApply", "InitDone"]);
    post(&server, WIDGETS, &widget("b", json!({})));
    assert_eq!(next().await, "Apply");
    server.delete("widgets", "devices", "a");
    assert_eq!(next().await, "Delete");
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_streamed_and_of_metadata_alone_work() {
    let server = server();
    post(&server, SECRETS, &secret("s"));
    let client = Client::new(server.service("operator"), "devices");
    let config = watcher::Config::default().streaming_lists();
    let mut events = Box::pin(watcher::watcher(Api::<PartialObjectMeta<Secret>>::all(client.clone()), config));
    assert!(matches!(events.try_next().await.unwrap().unwrap(), watcher::Event::Init));
    let watcher::Event::InitApply(found) = events.try_next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(found.metadata.name.as_deref(), Some("s"));
    assert!(matches!(events.try_next().await.unwrap().unwrap(), watcher::Event::InitDone));
    server.merge("secrets", "devices", "s", &json!({ "metadata": { "labels": { "a": "b" } } }));
    let watcher::Event::Apply(found) = events.try_next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(found.metadata.labels.unwrap()["a"], "b");
    let listed = Api::<Namespace>::all(client).list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_goes_on_over_ends_and_lost_history() {
    let server = server();
    let client = Client::new(server.service("operator"), "devices");
    let events = watcher::watcher(widgets(&client), watcher::Config::default());
    let mut names = Box::pin(events.filter_map(async |event| match event {
        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => object.metadata.name,
        _ => None,
    }));
    for name in ["a", "b", "c"] {
        let other = server.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1000)).await;
            post(&other, WIDGETS, &widget(name, json!({})));
        });
        assert_eq!(names.next().await.as_deref(), Some(name));
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_recorded_and_counted() {
    let server = server();
    let client = Client::new(server.service("operator"), "devices");
    let recorder =
        Recorder::new(client, Reporter { controller: "vpptoken-operator".into(), instance: Some("one".into()) });
    let about = ObjectReference {
        kind: Some("Widget".into()),
        namespace: Some("devices".into()),
        name: Some("w".into()),
        uid: Some("1".into()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Normal,
        reason: "Updated".into(),
        note: Some("from us to de".into()),
        action: "Reconcile".into(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &about).await.unwrap();
    }
    let events = server.objects("events.events.k8s.io");
    assert_eq!(
        (events.len(), &events[0]["series"]["count"], &events[0]["note"]),
        (1, &json!(3), &json!("from us to de"))
    );
}

/// Several watchers and controllers at once: everything that they receive, in order.
fn history() -> Vec<String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let server = server();
        let controllers = server.spawn_controllers();
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        for n in 0..5 {
            let client = Client::new(server.service("operator"), "devices");
            let seen = seen.clone();
            let mut events = Box::pin(watcher::watcher(widgets(&client), watcher::Config::default()));
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    seen.lock().unwrap().push(format!("{n} {event:?}"));
                }
            });
        }
        for n in 0..20 {
            post(&server, WIDGETS, &widget(&format!("w{n}"), json!({})));
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        server.delete("namespaces", "", "devices");
        tokio::time::sleep(Duration::from_secs(20)).await;
        controllers.abort();
        seen.lock().unwrap().push(format!("{:?}", server.writes()));
        std::mem::take(&mut *seen.lock().unwrap())
    })
}

#[test]
fn the_same_history_is_the_same_to_the_letter() {
    let first = history();
    assert!(first.len() > 200, "{}", first.len());
    for _ in 0..5 {
        assert_eq!(history(), first);
    }
}
