//! Events about objects: what says something new is a new one, and what is said again within minutes counts on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::time::Instant;

/// For so long what is said again counts on.
const COUNTS_ON: Duration = Duration::from_secs(5 * 60);

/// Writes events. A recorder of kube takes all events of one reason about one object for the same one, and keeps showing what
/// the first of them said; so each sentence has a recorder of its own.
pub struct Events {
    client: Client,
    reporter: Reporter,
    told: Mutex<HashMap<Told, (Recorder, Instant)>>,
}

/// What was said, about which object.
#[derive(PartialEq, Eq, Hash)]
struct Told {
    uid: Option<String>,
    reason: String,
    note: Option<String>,
}

impl Events {
    /// Nothing was said yet.
    pub fn new(client: Client, reporter: Reporter) -> Self {
        Self { client, reporter, told: Mutex::default() }
    }

    /// Writes an event.
    ///
    /// # Errors
    /// When Kubernetes can't be written.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
        self.recorder(event, about).publish(event, about).await
    }

    fn recorder(&self, event: &Event, about: &ObjectReference) -> Recorder {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, (_, at)| now.duration_since(*at) < COUNTS_ON);
        let what = Told { uid: about.uid.clone(), reason: event.reason.clone(), note: event.note.clone() };
        let fresh = || (Recorder::new(self.client.clone(), self.reporter.clone()), now);
        let (recorder, at) = told.entry(what).or_insert_with(fresh);
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

    /// How each event came, and what it said.
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
    async fn what_says_something_new_is_a_new_event_and_the_same_again_is_not() {
        let written = Written::default();
        let client = api_server(Arc::clone(&written)).await;
        let events = Events::new(client, Reporter { controller: "x".into(), instance: None });
        let about = |uid: &str| ObjectReference {
            uid: Some(uid.into()),
            namespace: Some("devices".into()),
            ..ObjectReference::default()
        };
        for (uid, note) in
            [("a", "from us to de"), ("a", "from us to de"), ("a", "from 0 to 7"), ("b", "from us to de")]
        {
            let event = Event {
                type_: EventType::Normal,
                reason: "Updated".into(),
                note: Some(note.into()),
                action: "Reconcile".into(),
                secondary: None,
            };
            events.publish(&event, &about(uid)).await.unwrap();
        }
        let written = written.lock().unwrap().clone();
        let ways: Vec<(&str, &str)> = written.iter().map(|(method, note)| (method.as_str(), note.as_str())).collect();
        let same = "from us to de";
        assert_eq!(ways, [("POST", same), ("PATCH", same), ("POST", "from 0 to 7"), ("POST", same)]);
    }
}
