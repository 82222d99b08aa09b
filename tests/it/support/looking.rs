//! What tests read: single conditions, events of one object, requests of one kind, completed polls.

use std::sync::LazyLock;

use graph_emulator::{Entity, NewEntity, Operation, RequestRecord};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::Value;
use vpptoken_operator::api::VppTokenStatus;
use vpptoken_operator::api::conditions::{ConditionType, find};

use super::{LIMIT, World, until};

/// When the usual token file expires: a date that lies ahead whenever the tests run.
pub(crate) static EXPIRES: LazyLock<String> = LazyLock::new(|| in_days(200));
/// When its successor expires.
pub(crate) static RENEWED: LazyLock<String> = LazyLock::new(|| in_days(560));

/// A time so many days from today, as Graph writes it; the same all day long.
pub(crate) fn in_days(days: i64) -> String {
    let today = Timestamp::now().as_second() / 86_400 * 86_400;
    let time = Timestamp::from_second(today + days * 86_400 + 63_127).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The status of a condition, or "–" when it is absent.
pub(super) fn condition_status(status: &VppTokenStatus, type_: ConditionType) -> &str {
    find(&status.conditions, type_).map_or("–", |condition| &condition.status)
}

/// Ready, Reconciling and Stalled, as the table of section 5 writes them.
pub(crate) fn row(status: &VppTokenStatus) -> [&str; 3] {
    [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
        .map(|type_| condition_status(status, type_))
}

/// Not ready, and expected to become ready by itself.
pub(crate) const RECONCILING: [&str; 3] = ["False", "True", "–"];
/// Not ready without a person.
pub(crate) const STALLED: [&str; 3] = ["False", "–", "True"];
/// Ready.
pub(crate) const READY: [&str; 3] = ["True", "–", "–"];

/// One condition, which must be there.
pub(crate) fn condition(status: &VppTokenStatus, type_: ConditionType) -> Condition {
    find(&status.conditions, type_).unwrap_or_else(|| panic!("no {} in {status:#?}", type_.as_str())).clone()
}

impl World {
    /// Waits until a condition has a reason.
    pub(crate) async fn wait_condition(&self, name: &str, type_: ConditionType, reason: &str) -> VppTokenStatus {
        let what = format!("{} with {reason}", type_.as_str());
        self.wait_status(name, &what, |status| {
            find(&status.conditions, type_).is_some_and(|condition| condition.reason == reason)
        })
        .await
    }

    /// Waits until so many lists that begin from now on have been answered completely. Whatever a list can cause has
    /// been sent after all but the last.
    pub(crate) async fn wait_lists(&self, lists: usize) {
        let before = self.emulator.requests().last().map_or(0, |record| record.sequence);
        self.wait_graph(&format!("{lists} more lists"), |seen| {
            let answered = seen.requests().filter(|record| {
                record.sequence > before
                    && record.operation == Operation::List
                    && !record.is_follow_up()
                    && record.status() == Some(200)
            });
            answered.count() >= lists
        })
        .await;
    }

    /// The requests of a kind since they were last cleared.
    pub(crate) fn requests(&self, operation: Operation) -> Vec<RequestRecord> {
        let mut requests = self.emulator.requests();
        requests.retain(|record| record.operation == operation);
        requests
    }

    /// The names of the properties of each PATCH, besides the type that each names.
    pub(crate) fn patched(&self) -> Vec<Vec<String>> {
        let updates = self.requests(Operation::Update).into_iter();
        updates.map(|record| record.properties.into_iter().filter(|name| name != "@odata.type").collect()).collect()
    }

    /// The writes to Graph since they were last cleared: what, and to which token.
    pub(crate) fn written(&self) -> Vec<(Operation, Option<String>)> {
        let mut requests = self.emulator.requests();
        requests.retain(|record| record.operation.is_write());
        requests.into_iter().map(|record| (record.operation, record.id)).collect()
    }

    /// A token that people added by hand, for the Apple ID of a VppToken.
    pub(crate) fn by_hand(&self, name: &str, expires: &str) -> Entity {
        let (_, name) = self.place(name);
        let new = NewEntity {
            organization_name: Some("Contoso".to_owned()),
            expiration_date_time: Some(expires.parse().unwrap()),
            apple_id: Some(format!("vpp.{name}@contoso.example")),
            ..NewEntity::default()
        };
        self.emulator.create_by_hand(&self.tenant_id, new)
    }

    /// The token in Graph that a VppToken has.
    pub(crate) async fn entity(&self, name: &str) -> Entity {
        let id = self.status(name).await.token_id.unwrap();
        self.emulator.entity(&self.tenant_id, &id).unwrap()
    }

    /// The reasons of an object's events, in order of time.
    pub(crate) async fn event_reasons(&self, name: &str) -> Vec<String> {
        self.event_notes(name).await.into_iter().map(|(reason, _)| reason).collect()
    }

    /// The reasons and sentences of an object's events, in order of time.
    pub(crate) async fn event_notes(&self, name: &str) -> Vec<(String, String)> {
        let (namespace, name) = self.place(name);
        let mut events = self.events_in(namespace).await;
        events.retain(|event| {
            let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            about == Some(name)
        });
        events.sort_by_key(|event| event.event_time.clone());
        events.into_iter().map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
    }

    /// Waits until the events of an object are these, in order of time. They are written after the status that they belong to.
    pub(crate) async fn wait_events(&self, name: &str, reasons: &[&str]) {
        let there = until(LIMIT, || async { self.event_reasons(name).await == reasons }).await;
        assert!(there, "the events of {name} are {:?} and not {reasons:?}", self.event_reasons(name).await);
    }

    /// Waits until there is an event about an object.
    pub(crate) async fn wait_event(&self, name: &str, reason: &str) {
        let there = until(LIMIT, || async { self.event_reasons(name).await.iter().any(|found| found == reason) }).await;
        assert!(there, "no event {reason}: {:?}", self.event_reasons(name).await);
    }

    /// Deletes a VppToken, and does not wait for its end.
    pub(crate) async fn delete(&self, name: &str) {
        let (tokens, name) = self.at(name);
        tokens.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until a VppToken does not exist any more.
    pub(crate) async fn wait_deleted(&self, name: &str) {
        let (tokens, name) = self.at(name);
        let gone = until(LIMIT, || async { tokens.get_opt(name).await.is_ok_and(|found| found.is_none()) }).await;
        assert!(gone, "{name} never went\n{}", self.operator.log_end());
    }

    /// The finalizers of a VppToken.
    pub(crate) async fn finalizers(&self, name: &str) -> Vec<String> {
        let (tokens, name) = self.at(name);
        tokens.get(name).await.unwrap().finalizers().to_vec()
    }

    /// Applies a manifest with kubectl.
    pub(crate) async fn apply(&self, manifest: &Value) {
        self.apply_to("", manifest).await;
    }

    /// Applies a manifest with kubectl, in the namespace that a name belongs to.
    pub(crate) async fn apply_to(&self, name: &str, manifest: &Value) {
        let (namespace, _) = self.place(name);
        let applied = self.plane.kubectl_with(&["apply", "-n", namespace, "-f", "-"], &manifest.to_string()).await;
        assert!(applied.ok, "{}", applied.stderr);
    }

    /// An object of any kind of the test's namespace, as kubectl shows it.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        let got = self.plane.kubectl(&["get", kind, name, "-n", &self.namespace, "-o", "json"]).await;
        assert!(got.ok, "{}", got.stderr);
        serde_json::from_str(&got.stdout).unwrap()
    }
}
