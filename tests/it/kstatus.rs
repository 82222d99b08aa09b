//! kstatus, the library by which Flux, Helm and others judge whether an object is ready, agrees with our conditions at
//! every moment. Its own code (tests/kstatus) judges every version that the API server ever had, also those that
//! existed only until the next write.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use control_plane::{Progress, tools};
use futures::TryStreamExt;
use graph_emulator::{Action, BodyKind, Entity, Fault, Operation, TokenFile, When, sha256};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use vpptoken_operator::api::{FINALIZER, Reason, VppTokenStatus};

use crate::support::{EXPIRES, LIMIT, RENEWED, Setup, World, in_days, is_ready};

/// The verdict of kstatus on one version of an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    resource_version: String,
    status: String,
    message: String,
}

/// The program around kstatus.
struct Judge(PathBuf);

impl Judge {
    async fn new() -> Self {
        Self(tools::kstatus(&Progress::stderr()).await.unwrap().path)
    }

    async fn judge(&self, objects: &[Value]) -> Vec<Verdict> {
        let mut child = tokio::process::Command::new(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
        let writing = async move {
            // A program that ends before it has read everything reports why.
            let _ = stdin.write_all(lines.as_bytes()).await;
        };
        let ((), output) = tokio::join!(writing, child.wait_with_output());
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let verdicts: Vec<Verdict> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(verdicts.len(), objects.len());
        verdicts
    }

    /// Has each version judged, and compares that with our own conditions. Returns the verdicts.
    async fn agrees(&self, objects: &[Value]) -> Vec<String> {
        let verdicts = self.judge(objects).await;
        for (object, verdict) in objects.iter().zip(&verdicts) {
            assert_eq!(verdict.resource_version, text(&object["metadata"]["resourceVersion"]));
            let (expected, message) = expected(object);
            assert_eq!(verdict.status, expected, "kstatus says {verdict:?} of {object:#}");
            if let Some(message) = message {
                assert_eq!(verdict.message, message, "{object:#}");
            }
        }
        verdicts.into_iter().map(|verdict| verdict.status).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

/// Ready, Reconciling and Stalled.
fn row(object: &Value) -> [&str; 3] {
    ["Ready", "Reconciling", "Stalled"]
        .map(|type_| condition(object, type_).map_or("–", |condition| text(&condition["status"])))
}

fn is_observed(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Our own conditions as a status of kstatus; and the message that a person should read, where there is one.
fn expected(object: &Value) -> (&'static str, Option<&str>) {
    let sentence = |type_| condition(object, type_).map(|condition| text(&condition["message"]));
    if is_deleted(object) {
        return ("Terminating", None);
    }
    if !is_observed(object) {
        return ("InProgress", None);
    }
    match row(object) {
        // A tenant object that nobody uses.
        ["True", ..] | ["–", "–", "–"] => ("Current", None),
        [_, _, "True"] => ("Failed", sentence("Stalled")),
        [_, "True", _] => ("InProgress", sentence("Reconciling")),
        _ => ("InProgress", sentence("Ready")),
    }
}

/// The rows of the table in which a VppToken can be, and no others.
fn is_a_row_of_the_table(object: &Value) -> bool {
    let row = row(object);
    match object["status"]["observedGeneration"].as_i64() {
        Some(-1) => row == ["–"; 3],
        _ if is_deleted(object) && is_observed(object) => row == ["False", "True", "–"],
        _ => {
            matches!(row, ["False", "True", "–"] | ["False", "–", "True"] | ["True", "–", "–"] | ["Unknown", "–", "–"])
        }
    }
}

/// Every version of the objects of one kind, as the API server sends them.
struct Recording {
    shared: Arc<Shared>,
    path: String,
    client: Client,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    versions: Mutex<Vec<Value>>,
    gone: Mutex<Vec<String>>,
    broken: Mutex<Option<String>>,
    changed: Notify,
}

impl Recording {
    /// Records what is there, and from then on every version. `path` is that of the kind in the API.
    async fn begin(client: &Client, path: String) -> Self {
        let list = Request::new(&path).list(&ListParams::default()).unwrap();
        let list: Value = client.request(list).await.unwrap();
        let shared = Arc::new(Shared::default());
        shared.versions.lock().unwrap().extend(list["items"].as_array().unwrap().iter().cloned());
        let from = text(&list["metadata"]["resourceVersion"]).to_owned();
        let watching = watch(client.clone(), path.clone(), from, Arc::clone(&shared));
        let writer = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let why = watching.await;
            *writer.broken.lock().unwrap() = Some(why);
            writer.changed.notify_waiters();
        });
        Self { shared, path, client: client.clone(), task: task.abort_handle() }
    }

    /// The VppTokens of a test.
    async fn of_tokens(world: &World) -> Self {
        let path = format!("/apis/vpptoken.io/v1alpha1/namespaces/{}/vpptokens", world.namespace);
        Self::begin(&world.client, path).await
    }

    /// Waits until the version that an object has now is recorded, and returns all of that object up to now.
    async fn until_now(&self, name: &str) -> Vec<Value> {
        let get = Request::new(&self.path).get(name, &kube::api::GetParams::default()).unwrap();
        let now: Value = self.client.request(get).await.unwrap();
        let version = now["metadata"]["resourceVersion"].clone();
        self.wait(name, "the version that it has now", |object| object["metadata"]["resourceVersion"] == version).await
    }

    /// Waits until some version of an object fulfils a condition, and returns all versions up to now.
    async fn wait(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.wait_for(name, what, || self.of(name).iter().any(&holds)).await
    }

    /// Waits until an object is deleted, and returns all versions of it.
    async fn wait_deleted(&self, name: &str) -> Vec<Value> {
        self.wait_for(name, "an end", || self.shared.gone.lock().unwrap().iter().any(|gone| gone == name)).await
    }

    async fn wait_for(&self, name: &str, what: &str, holds: impl Fn() -> bool) -> Vec<Value> {
        let waiting = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds() {
                    return;
                }
                changed.await;
            }
        };
        let held = tokio::time::timeout(LIMIT, waiting).await.is_ok();
        assert!(held, "{name} never had {what}: {:#?}", self.of(name).last());
        self.of(name)
    }

    /// All versions of one object so far.
    fn of(&self, name: &str) -> Vec<Value> {
        let broken = self.shared.broken.lock().unwrap().clone();
        assert_eq!(broken, None, "versions may be missing");
        let versions = self.shared.versions.lock().unwrap();
        versions.iter().filter(|object| object["metadata"]["name"] == name).cloned().collect()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches from a version on, over all ends of watches; returns why it can't go on without missing something.
async fn watch(client: Client, path: String, mut from: String, shared: Arc<Shared>) -> String {
    loop {
        let request = Request::new(&path).watch(&WatchParams::default(), &from).unwrap();
        let events = match client.request_events::<Value>(request).await {
            Ok(events) => events,
            Err(error) => return error.to_string(),
        };
        let mut events = std::pin::pin!(events);
        loop {
            let object = match events.try_next().await {
                Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => object,
                Ok(Some(WatchEvent::Deleted(object))) => {
                    // Its last version once more, and no version to be judged.
                    from = text(&object["metadata"]["resourceVersion"]).to_owned();
                    shared.gone.lock().unwrap().push(text(&object["metadata"]["name"]).to_owned());
                    shared.changed.notify_waiters();
                    continue;
                }
                Ok(Some(WatchEvent::Bookmark(_))) => continue,
                Ok(Some(WatchEvent::Error(status))) => return format!("{status:?}"),
                Ok(None) => break,
                Err(error) => return error.to_string(),
            };
            from = text(&object["metadata"]["resourceVersion"]).to_owned();
            shared.versions.lock().unwrap().push(object);
            shared.changed.notify_waiters();
        }
    }
}

/// The life of one VppToken, berlin, with all its versions.
struct Life {
    world: World,
    judge: Judge,
    tokens: Recording,
    /// So many versions are judged and compared with Graph.
    judged: usize,
    seen: BTreeSet<String>,
}

impl Life {
    /// Judges the versions that came since the last time: none is Current unless Graph, as it is at the moment, has what
    /// that version's manifest asks for. Returns what the newest one is.
    async fn judge(&mut self) -> String {
        let versions = self.tokens.until_now("berlin").await;
        self.judge_these(versions).await
    }

    async fn judge_these(&mut self, versions: Vec<Value>) -> String {
        let entities = self.world.entities();
        let verdicts = self.judge.agrees(&versions).await;
        for (object, verdict) in versions.iter().zip(&verdicts).skip(self.judged) {
            assert!(is_a_row_of_the_table(object), "{:?} is no row of the table: {object:#}", row(object));
            if verdict == "Current" {
                assert!(
                    entities.iter().any(|entity| has_what_is_asked_for(object, entity)),
                    "Current, and Graph has {entities:#?}\nwhile the object is {object:#}"
                );
            }
        }
        self.judged = versions.len();
        self.seen.extend(verdicts.iter().cloned());
        verdicts.last().unwrap().clone()
    }

    /// Causes a write to Graph, and holds it before it has an effect: no version until then may count as up to date.
    /// Returns the verdict of kstatus meanwhile.
    async fn while_held(&mut self, operation: Operation, change: impl AsyncFnOnce(&World)) -> String {
        let held = self.world.emulator.inject(Fault::new(Action::Hold { when: When::Before }).on(operation).once());
        change(&self.world).await;
        assert!(held.wait_hit(LIMIT).await, "{operation:?}: {}", self.world.operator.log_end());
        let verdict = self.judge().await;
        held.release();
        verdict
    }

    /// Waits until the status is so, and judges what led there.
    async fn current_when(&mut self, what: &str, holds: impl Fn(&VppTokenStatus) -> bool) {
        let versions = self.tokens.until_now("berlin").await;
        let generation = versions.last().unwrap()["metadata"]["generation"].as_i64();
        self.world
            .wait_status("berlin", what, |status| {
                is_ready(status)
                    && status.observed_generation == generation
                    && status.last_sync_status.as_deref() == Some("completed")
                    && holds(status)
            })
            .await;
        assert_eq!(self.judge().await, "Current", "{what}");
    }
}

/// Whether Graph has what a version's manifest asks for, with the file that its status shows as uploaded.
fn has_what_is_asked_for(object: &Value, entity: &Entity) -> bool {
    let (spec, status) = (&object["spec"], &object["status"]);
    let same = |wanted: &Value, found: &str| wanted.is_null() || text(wanted).eq_ignore_ascii_case(found);
    text(&status["tokenId"]) == entity.id
        && entity.token_sha256.as_deref() == status["uploaded"]["sha256"].as_str()
        && entity.state == "valid"
        && same(&spec["appleId"], entity.apple_id.as_deref().unwrap_or_default())
        && same(&spec["countryOrRegion"], entity.country_or_region.as_deref().unwrap_or_default())
        && same(&spec["vppTokenAccountType"], &entity.vpp_token_account_type)
        && spec["automaticallyUpdateApps"].as_bool().is_none_or(|wanted| wanted == entity.automatically_update_apps)
}

fn has_uploaded(status: &VppTokenStatus, file: &TokenFile) -> bool {
    status.uploaded.as_ref().is_some_and(|uploaded| uploaded.sha256 == sha256(&file.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn kstatus_agrees_with_every_version_of_a_token_from_creation_to_deletion() {
    let mut setup = Setup::default();
    // So that there is a time between an upload and the expiry that goes with it.
    setup.emulator.expiry_lag = std::time::Duration::from_secs(2);
    let world = World::with(setup).await;
    world.operator.kill();
    let tokens = Recording::of_tokens(&world).await;
    let mut life = Life { world, judge: Judge::new().await, tokens, judged: 0, seen: BTreeSet::new() };

    // It was not reconciled yet.
    life.world.create_token("berlin", json!({ "deletionPolicy": "Delete" })).await;
    assert_eq!(life.judge().await, "InProgress");
    assert_eq!(life.tokens.of("berlin")[0]["status"], json!({ "observedGeneration": -1 }));

    life.world.operator.start().await;
    life.world.wait_reason("berlin", "SecretNotFound").await;
    assert_eq!(life.judge().await, "InProgress");

    let file = life.world.token("Contoso", &EXPIRES);
    let creating = async |world: &World| world.write_secret("berlin", "token", &file.text()).await;
    assert_eq!(life.while_held(Operation::Create, creating).await, "InProgress");
    life.current_when("created and synced", |status| has_uploaded(status, &file)).await;

    // Until the new manifest is reconciled, the conditions of the old one do not count.
    let changing = async |world: &World| {
        let spec = json!({ "countryOrRegion": "de", "automaticallyUpdateApps": true });
        world.patch("berlin", json!({ "spec": spec })).await;
    };
    assert_eq!(life.while_held(Operation::Update, changing).await, "InProgress");
    life.current_when("changed", |status| status.country_or_region.as_deref() == Some("de")).await;
    let versions = life.tokens.of("berlin");
    let overtaken = versions.iter().any(|object| row(object)[0] == "True" && !is_observed(object));
    assert!(overtaken, "no version that was ready for an older generation");

    // Nor does what was done for a manifest that was changed again meanwhile.
    let held = life.world.emulator.inject(Fault::new(Action::Hold { when: When::Before }).on(Operation::Update).once());
    life.world.patch("berlin", json!({ "spec": { "countryOrRegion": "fr" } })).await;
    assert!(held.wait_hit(LIMIT).await, "{}", life.world.operator.log_end());
    life.world.patch("berlin", json!({ "spec": { "countryOrRegion": "it" } })).await;
    assert_eq!(life.judge().await, "InProgress");
    held.release();
    life.current_when("changed twice", |status| status.country_or_region.as_deref() == Some("it")).await;

    // A new file is not in the manifest; Graph shows it late all the same, and no condition reports it before.
    let renewed = life.world.token("Contoso", &RENEWED);
    let renewing = async |world: &World| world.write_secret("berlin", "token", &renewed.text()).await;
    assert_eq!(life.while_held(Operation::Update, renewing).await, "InProgress");
    life.current_when("renewed", |status| {
        has_uploaded(status, &renewed) && status.expiration_date_time == Some(renewed.expires())
    })
    .await;

    // What needs a person has failed, until it is corrected.
    life.world.write_secret("berlin", "token", "no token file").await;
    life.world.wait_reason("berlin", "TokenFileMalformed").await;
    assert_eq!(life.judge().await, "Failed");
    life.world.write_secret("berlin", "token", &file.text()).await;
    life.world.wait_reason("berlin", "TokenFileOlder").await;
    assert_eq!(life.judge().await, "Failed");
    let newest = life.world.token("Contoso", &in_days(600));
    let mending = async |world: &World| world.write_secret("berlin", "token", &newest.text()).await;
    assert_eq!(life.while_held(Operation::Update, mending).await, "InProgress");
    life.current_when("mended", |status| has_uploaded(status, &newest)).await;

    // Graph refuses for a while, and nobody is needed for that.
    let refusal = Action::Status { when: When::Before, code: 503, retry_after: None, body: BodyKind::Json };
    let refused = life.world.emulator.inject(Fault::new(refusal).on(Operation::Update));
    life.world.patch("berlin", json!({ "spec": { "countryOrRegion": "at" } })).await;
    life.world.wait_reason("berlin", "GraphUnavailable").await;
    assert_eq!(life.judge().await, "InProgress");
    refused.remove();
    life.current_when("changed again", |status| status.country_or_region.as_deref() == Some("at")).await;

    // With nothing due, an outage shows only after three polls.
    life.world.emulator.down().await.unwrap();
    life.world.wait_reason("berlin", "SnapshotStale").await;
    assert_eq!(life.judge().await, "InProgress");
    life.world.emulator.up().await.unwrap();
    life.current_when("seen again", |_| true).await;

    assert_eq!(life.world.finalizers("berlin").await, [FINALIZER]);
    let deleting = async |world: &World| world.delete("berlin").await;
    assert_eq!(life.while_held(Operation::Delete, deleting).await, "Terminating");
    let versions = life.tokens.wait_deleted("berlin").await;
    assert_eq!(life.judge_these(versions).await, "Terminating");

    let all = ["Current", "Failed", "InProgress", "Terminating"].map(str::to_owned);
    assert_eq!(life.seen, BTreeSet::from(all));
    println!("{} versions judged", life.judged);
    life.world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kstatus_agrees_with_every_version_of_the_tenant_objects_that_are_used() {
    let world = World::new().await;
    let judge = Judge::new().await;
    let kinds = "/apis/vpptoken.io/v1alpha1";
    let cluster = Recording::begin(&world.client, format!("{kinds}/clustergraphtenants")).await;
    let own = format!("{kinds}/namespaces/{}/graphtenants", world.namespace);
    let own = Recording::begin(&world.client, own).await;
    let newest = async |recording: &Recording, name: &str| {
        let versions = recording.until_now(name).await;
        judge.agrees(&versions).await.pop().unwrap()
    };
    let has_reason =
        |reason: &'static str| move |object: &Value| condition(object, "Ready").is_some_and(|r| r["reason"] == reason);

    // Nobody uses them yet, so there is nothing to wait for once they were seen.
    let (tenant_id, client_id) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
    let secret = format!("own-{}", uuid::Uuid::new_v4().simple());
    world.must_not_leak(&secret);
    world.emulator.add_app(&tenant_id, &client_id, secret.as_str());
    let tenant = |poll_interval: &str| {
        json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "GraphTenant", "metadata": { "name": "own" },
            "spec": {
                "tenantId": tenant_id, "clientId": client_id, "pollInterval": poll_interval,
                "credentials": { "clientSecretRef": { "name": "own" } },
            },
        })
    };
    world.apply(&tenant("5s")).await;
    own.wait("own", "seen", is_observed).await;
    assert_eq!(newest(&own, "own").await, "Current");
    cluster.wait(&world.tenant, "seen", is_observed).await;
    assert_eq!(newest(&cluster, &world.tenant).await, "Current");

    // No Secret, a wrong one, and the right one whose tenant can't be listed yet.
    let lists = Fault::new(Action::Hold { when: When::Before }).on(Operation::List).once();
    let listing = world.emulator.inject(lists.tenant(tenant_id.as_str()));
    let file = world.token("Contoso", &EXPIRES);
    world.create("munich", &file, json!({ "tenantRef": { "kind": "GraphTenant", "name": "own" } })).await;
    own.wait("own", "no Secret", has_reason("SecretNotFound")).await;
    assert_eq!(newest(&own, "own").await, "InProgress");
    world.write_secret("own", "clientSecret", "wrong").await;
    own.wait("own", "refused credentials", has_reason("CredentialsRefused")).await;
    assert_eq!(newest(&own, "own").await, "InProgress");
    world.write_secret("own", "clientSecret", &secret).await;
    assert!(listing.wait_hit(LIMIT).await, "{}", world.operator.log_end());
    let mut before = own.until_now("own").await;
    before.retain(|object| condition(object, "Ready").is_some());
    let verdicts = judge.agrees(&before).await;
    assert!(verdicts.iter().all(|verdict| verdict == "InProgress"), "never listed, and {verdicts:?}");
    listing.release();
    own.wait("own", "tokens listed", has_reason("UpToDate")).await;
    assert_eq!(newest(&own, "own").await, "Current");

    // A new manifest counts from its first reconcile.
    world.apply(&tenant("7s")).await;
    let is_second = |object: &Value| object["metadata"]["generation"] == 2 && is_observed(object);
    let versions = own.wait("own", "an observed second generation", is_second).await;
    let verdicts = judge.agrees(&versions).await;
    let unseen = versions.iter().zip(&verdicts).find(|(object, _)| object["metadata"]["generation"] == 2);
    assert_eq!(unseen.map(|(_, verdict)| verdict.as_str()), Some("InProgress"));
    own.wait("own", "tokens listed", |object| is_second(object) && has_reason("UpToDate")(object)).await;
    assert_eq!(newest(&own, "own").await, "Current");

    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({})).await;
    cluster.wait(&world.tenant, "tokens listed", has_reason("UpToDate")).await;
    assert_eq!(newest(&cluster, &world.tenant).await, "Current");
    world.finish().await;
}

#[tokio::test]
async fn kstatus_reads_each_row_of_the_table_as_it_is_meant_whatever_the_reason() {
    let rows = [
        (["–", "–", "–"], -1, false, "InProgress"),
        (["False", "True", "–"], 2, false, "InProgress"),
        (["False", "–", "True"], 2, false, "Failed"),
        (["True", "–", "–"], 2, false, "Current"),
        (["Unknown", "–", "–"], 2, false, "InProgress"),
        (["True", "–", "–"], 1, false, "InProgress"),
        (["False", "–", "True"], 1, false, "InProgress"),
        (["True", "–", "–"], 1, true, "Terminating"),
        (["False", "True", "–"], 2, true, "Terminating"),
    ];
    let mut objects = Vec::new();
    let mut meant = Vec::new();
    for reason in Reason::ALL {
        for (row, observed, deleted, verdict) in rows {
            let conditions: Vec<Value> = ["Ready", "Reconciling", "Stalled"]
                .iter()
                .zip(row)
                .filter(|(_, status)| *status != "–")
                .map(|(type_, status)| {
                    json!({ "type": type_, "status": status, "reason": reason.as_str(), "message": reason.meaning() })
                })
                .collect();
            let number = objects.len().to_string();
            let mut object = json!({
                "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
                "metadata": { "name": "berlin", "namespace": "devices", "resourceVersion": number, "generation": 2 },
                "status": { "observedGeneration": observed, "conditions": conditions },
            });
            if deleted {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            objects.push(object);
            meant.push(verdict);
        }
    }
    assert_eq!(Judge::new().await.agrees(&objects).await, meant);
}
