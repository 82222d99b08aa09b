//! Events about objects: a new text is a new event, and the same text within minutes is counted on the old one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::time::Instant;

/// Within this time the same text is counted on the old event.
const AGGREGATION_WINDOW: Duration = Duration::from_secs(5 * 60);
/// The latest texts are remembered, so many at the most: each takes kilobytes.
const MAX_REMEMBERED: usize = 100;

/// Writes events. A recorder of kube treats all events of one reason about one object as the same, and keeps showing
/// the text of the first; so each text has a recorder of its own.
pub(crate) struct Events {
    client: Client,
    reporter: Reporter,
    published: Mutex<HashMap<EventKey, (Recorder, Instant)>>,
}

/// The text of an event, and its object.
#[derive(Clone, PartialEq, Eq, Hash)]
struct EventKey {
    uid: Option<String>,
    reason: String,
    note: Option<String>,
}

impl Events {
    /// A writer that has published nothing yet.
    pub(crate) fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, published: Mutex::default() }
    }

    /// Writes an event.
    ///
    /// # Errors
    /// When Kubernetes can't be written.
    pub(crate) async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
        self.recorder(event, about).publish(event, about).await
    }

    fn recorder(&self, event: &Event, about: &ObjectReference) -> Recorder {
        let now = Instant::now();
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.retain(|_, (_, at)| now.duration_since(*at) < AGGREGATION_WINDOW);
        if published.len() >= MAX_REMEMBERED
            && let Some(oldest) = published.iter().min_by_key(|(_, (_, at))| *at).map(|(what, _)| what.clone())
        {
            published.remove(&oldest);
        }
        let what = EventKey { uid: about.uid.clone(), reason: event.reason.clone(), note: event.note.clone() };
        let fresh = || (Recorder::new(self.client.clone(), self.reporter.clone()), now);
        let (recorder, at) = published.entry(what).or_insert_with(fresh);
        *at = now;
        recorder.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Json;
    use axum::http::Method;
    use kube::Config;
    use kube::runtime::events::EventType;
    use serde_json::Value;

    use super::*;

    /// How each event was written, and its text.
    type Written = Arc<Mutex<Vec<(Method, String)>>>;

    async fn api_server(written: Written) -> Client {
        let answer = move |method: Method, Json(event): Json<Value>| {
            let note = event["note"].as_str().unwrap().to_owned();
            written.lock().unwrap().push((method, note));
            std::future::ready(Json(event))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        Client::try_from(Config::new(url.parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn a_new_text_is_a_new_event_and_the_same_again_is_not() {
        let written = Written::default();
        let client = api_server(Arc::clone(&written)).await;
        let events = Events::new(client, Reporter { controller: "x".into(), instance: None });
        let about = |uid: &str| ObjectReference {
            uid: Some(uid.into()),
            namespace: Some("devices".into()),
            ..ObjectReference::default()
        };
        let others: Vec<String> = (0..2 * MAX_REMEMBERED).map(|n| format!("other {n}")).collect();
        let of_others = others.iter().map(|note| ("c", note.as_str()));
        let of_ours = [("a", "from us to de"), ("a", "from us to de"), ("a", "from 0 to 7"), ("b", "from us to de")];
        for (uid, note) in of_others.chain(of_ours) {
            let event = Event {
                type_: EventType::Normal,
                reason: "Updated".into(),
                note: Some(note.into()),
                action: "Reconcile".into(),
                secondary: None,
            };
            events.publish(&event, &about(uid)).await.unwrap();
        }
        assert!(events.published.lock().unwrap().len() <= MAX_REMEMBERED);
        let written = written.lock().unwrap().split_off(others.len());
        let ways: Vec<(&str, &str)> = written.iter().map(|(method, note)| (method.as_str(), note.as_str())).collect();
        let same = "from us to de";
        assert_eq!(ways, [("POST", same), ("PATCH", same), ("POST", "from 0 to 7"), ("POST", same)]);
    }
}
