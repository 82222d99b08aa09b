//! Watches: their events, where they begin, and how they end.

use std::time::Duration;

use api_server::{Answer, ApiServer, EventType, WatchStream};
use serde_json::{Value, json};
use tokio::time::{advance, timeout};

use crate::world::*;

fn watch(server: &ApiServer, query: &str) -> WatchStream {
    match ask(server, "GET", &format!("{WIDGETS}?watch=true&{query}"), "", &Value::Null) {
        Answer::Watch(stream) => stream,
        other => panic!("{other:?}"),
    }
}

/// What there is already: kind, name, version.
fn waiting(stream: &mut WatchStream) -> Vec<(String, String)> {
    let events = std::iter::from_fn(|| stream.try_next());
    let message = events.map(|event| {
        let line: Value = serde_json::from_slice(&event.line).unwrap();
        assert!(event.line.ends_with(b"\n"));
        if event.event_type != EventType::Error {
            assert_eq!(version(&line["object"]), event.revision);
        }
        (line["type"].as_str().unwrap().to_owned(), event.name)
    });
    message.collect()
}

fn message(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_happens_after_its_version() {
    let server = server();
    post(&server, WIDGETS, &widget("a", json!({})));
    let list = get(&server, WIDGETS).1;
    post(&server, WIDGETS, &widget("b", json!({})));
    let mut stream = watch(&server, &format!("resourceVersion={}", version(&list)));
    assert_eq!(waiting(&mut stream), message(&[("ADDED", "b")]));
    merge(&server, &format!("{WIDGETS}/a"), &json!({ "spec": { "size": 5 } }));
    merge(&server, &format!("{WIDGETS}/a"), &json!({ "spec": { "size": 5 } }));
    delete(&server, &format!("{WIDGETS}/a"), &Value::Null);
    post(&server, SECRETS, &secret("s"));
    assert_eq!(waiting(&mut stream), message(&[("MODIFIED", "a"), ("DELETED", "a")]));
}

#[tokio::test(start_paused = true)]
async fn without_a_version_a_watch_begins_with_what_there_is() {
    let server = server();
    post(&server, WIDGETS, &widget("a", json!({})));
    let then = server.revision();
    post(&server, WIDGETS, &widget("b", json!({})));
    for query in ["", "resourceVersion=0"] {
        assert_eq!(waiting(&mut watch(&server, query)), message(&[("ADDED", "a"), ("ADDED", "b")]));
    }
    let lagging =
        server.call_at(request("GET", &format!("{WIDGETS}?watch=1&resourceVersion=0"), "", &Value::Null), "test", then);
    let Answer::Watch(mut lagging) = lagging else { panic!() };
    assert_eq!(lagging.next().await.map(|event| event.revision), Some(then));
    assert_eq!(waiting(&mut lagging), message(&[("ADDED", "b")]), "it catches up");
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut streaming = watch(&server, initial);
    let events: Vec<_> = std::iter::from_fn(|| streaming.try_next()).collect();
    let last: Value = serde_json::from_slice(&events[2].line).unwrap();
    assert_eq!(last["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((&last["type"], &last["object"]["kind"]), (&json!("BOOKMARK"), &json!("Widget")));
    assert_eq!(get(&server, &format!("{WIDGETS}?watch=1&sendInitialEvents=true")).0, 422);
}

#[tokio::test(start_paused = true)]
async fn leaving_a_selection_is_a_deletion_to_whoever_watches_it() {
    let server = server();
    let mut stream = watch(&server, "labelSelector=on=yes");
    post(&server, WIDGETS, &widget("a", json!({})));
    let label = |value: Value| {
        merge(&server, &format!("{WIDGETS}/a"), &json!({ "metadata": { "labels": { "on": value } } }));
    };
    label(json!("yes"));
    label(json!("no"));
    label(json!("never"));
    assert_eq!(waiting(&mut stream), message(&[("ADDED", "a"), ("DELETED", "a")]));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_shows_the_last_state_at_the_deletion_s_version() {
    let server = server();
    let mut body = widget("a", json!({}));
    body["metadata"]["finalizers"] = json!(["example.io/guard"]);
    post(&server, WIDGETS, &body);
    delete(&server, &format!("{WIDGETS}/a"), &Value::Null);
    let mut stream = watch(&server, &format!("resourceVersion={}", server.revision()));
    merge(&server, &format!("{WIDGETS}/a"), &json!({ "metadata": { "finalizers": null } }));
    let event = stream.next().await.unwrap();
    assert_eq!((event.event_type, event.revision), (EventType::Deleted, server.revision()));
    let line: Value = serde_json::from_slice(&event.line).unwrap();
    assert_eq!(line["object"]["metadata"]["finalizers"], json!(["example.io/guard"]));
}

#[tokio::test(start_paused = true)]
async fn a_watch_waits_without_time_passing_for_others() {
    let server = server();
    let mut stream = watch(&server, "");
    let other = server.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        post(&other, WIDGETS, &widget("late", json!({})));
    });
    assert!(timeout(Duration::from_secs(4), stream.next()).await.is_err());
    let event = stream.next().await.unwrap();
    assert_eq!((event.name.as_str(), event.at.to_string().as_str()), ("late", "2026-01-01T00:00:05Z"));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_before_the_end() {
    let server = server();
    let mut stream = watch(&server, "allowWatchBookmarks=true&timeoutSeconds=150");
    let start = tokio::time::Instant::now();
    let mut times = Vec::new();
    while let Some(event) = stream.next().await {
        assert_eq!(event.event_type, EventType::Bookmark);
        times.push(start.elapsed().as_secs());
    }
    assert_eq!((times, start.elapsed().as_secs()), (vec![60, 120, 148], 150));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_forgotten_is_gone() {
    let server = server();
    let then = server.revision();
    let mut running = watch(&server, &format!("resourceVersion={then}"));
    post(&server, WIDGETS, &widget("a", json!({})));
    server.compact();
    let mut stream = watch(&server, &format!("resourceVersion={then}"));
    for stream in [&mut stream, &mut running] {
        let event = stream.next().await.unwrap();
        let line: Value = serde_json::from_slice(&event.line).unwrap();
        assert_eq!((event.event_type, &line["object"]["code"]), (EventType::Error, &json!(410)));
        assert_eq!(line["object"]["reason"], "Expired");
        assert!(stream.next().await.is_none());
    }
    let mut current = watch(&server, &format!("resourceVersion={}", server.revision()));
    assert_eq!(waiting(&mut current), message(&[]));
}

#[tokio::test(start_paused = true)]
async fn versions_are_forgotten_after_five_minutes() {
    let server = server();
    post(&server, WIDGETS, &widget("a", json!({})));
    let then = server.revision();
    advance(Duration::from_secs(200)).await;
    post(&server, WIDGETS, &widget("b", json!({})));
    advance(Duration::from_secs(200)).await;
    assert_eq!(waiting(&mut watch(&server, &format!("resourceVersion={then}"))), message(&[("ADDED", "b")]));
    advance(Duration::from_secs(200)).await;
    assert_eq!(waiting(&mut watch(&server, &format!("resourceVersion={then}"))), message(&[("ERROR", "")]));
}

#[tokio::test(start_paused = true)]
async fn the_watches_of_a_definition_end_with_it() {
    let server = server();
    let mut stream = watch(&server, "");
    server.delete("customresourcedefinitions", "", "widgets.example.io");
    let controllers = server.spawn_controllers();
    assert!(stream.next().await.is_none());
    assert_eq!(get(&server, WIDGETS).0, 404);
    controllers.abort();
}
