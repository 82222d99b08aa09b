//! The operator with Kubernetes in memory and Graph in process, in virtual time: what concerns start-up, watches, tenant
//! objects and probes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use api_server::{ApiServer, Definitions, ResponseBody};
use axum::http::{Request, StatusCode};
use futures::StreamExt;
use graph_emulator::{Emulation, TokenFile};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::graph::Received;

const TENANT: &str = "8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11";
const CLIENT: &str = "1b6f0b6e-4f0a-4e0d-8c56-b1a5f7f2d9c3";
const SYSTEM: &str = "vpptoken-system";
const EPOCH: i64 = 1_767_225_600;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(600);

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let crds = crate::api::crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    Definitions::new(crds).unwrap()
});

static BUILDER: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::new()
});

/// Decides whether a request to Graph hangs.
type Interference = Arc<Mutex<Option<Box<dyn FnMut(&reqwest::Request) -> bool + Send>>>>;

/// Kubernetes and Graph.
struct World {
    kubernetes: ApiServer,
    graph: Emulation,
    /// Namespaces, or ends of paths, that the operator may not read or write.
    forbidden: Arc<Mutex<BTreeSet<&'static str>>>,
    /// The Secrets that were read, once for each time.
    secrets_read: Arc<Mutex<Vec<String>>>,
    /// What happens to requests to Graph.
    hangs: Interference,
    /// How long Graph takes to answer.
    latency: Duration,
    /// How long Kubernetes takes for a write.
    write_latency: Duration,
    start: Instant,
}

impl World {
    /// With these namespaces, and a ClusterGraphTenant for all of them.
    fn new(namespaces: &[&str]) -> Self {
        let start = Instant::now();
        let now = move || Timestamp::from_second(EPOCH).unwrap() + SignedDuration::try_from(start.elapsed()).unwrap();
        let kubernetes = ApiServer::new(Arc::new(now), &DEFINITIONS, api_server::Options::default());
        let epoch = Timestamp::from_second(EPOCH).unwrap();
        let clock = graph_emulator::Clock::starting_at(epoch);
        let settings = graph_emulator::Settings { sync_duration: Duration::from_secs(5), ..Default::default() };
        let graph = Emulation::new(settings, clock, graph_emulator::Random::seeded(1));
        graph.add_app(TENANT, CLIENT, "client-secret");
        let (forbidden, hangs, secrets_read) = (Arc::default(), Arc::default(), Arc::default());
        let (latency, write_latency) = (Duration::ZERO, Duration::ZERO);
        let world = Self { kubernetes, graph, forbidden, secrets_read, hangs, latency, write_latency, start };
        for namespace in namespaces.iter().chain(&[SYSTEM]) {
            world.put_namespace(namespace);
        }
        world.put_secret(SYSTEM, "graph", "clientSecret", "client-secret");
        world.put_tenant(json!({}));
        world
    }

    fn apply(&self, object: &Value) {
        let answer = self.kubernetes.apply(object);
        assert!(answer.status().is_success(), "{}", answer.json());
    }

    fn put_namespace(&self, name: &str) {
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
    }

    fn put_secret(&self, namespace: &str, name: &str, key: &str, content: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace },
            "stringData": { key: content },
        }));
    }

    /// The ClusterGraphTenant "default", with more of a spec.
    fn put_tenant(&self, more: Value) {
        let mut spec = json!({
            "tenantId": TENANT, "clientId": CLIENT, "credentials": { "clientSecretRef": { "name": "graph" } },
            "allowedNamespaces": { "from": "All" }, "allowedOperations": ["Create", "Adopt", "Bind", "Delete"],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "ClusterGraphTenant", "metadata": { "name": "default" },
            "spec": spec,
        }));
    }

    /// Writes a file that expires in so many days into the Secret of a VppToken.
    fn put_file(&self, namespace: &str, name: &str, days: i64) {
        let expires = Timestamp::from_second(EPOCH + days * 86_400).unwrap();
        let file = TokenFile::with_inner("Contoso", expires, format!("inner-of-{name}-{days}"));
        self.put_secret(namespace, name, "token", &file.text());
    }

    /// A VppToken with a Secret of its name.
    fn put_token(&self, namespace: &str, name: &str) {
        self.put_file(namespace, name, 300);
        self.apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "tokenSecretRef": { "name": name }, "appleId": format!("vpp.{name}@contoso.example") },
        }));
    }

    /// The reason of `Ready`.
    fn reason(&self, kind: &str, namespace: &str, name: &str) -> String {
        let object = self.kubernetes.get(kind, namespace, name).unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        ready.map(|ready| ready["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    async fn wait_reason(&self, namespace: &str, name: &str, reason: &str) {
        self.until(&format!("{namespace}/{name} is {reason}"), || self.reason("VppToken", namespace, name) == reason)
            .await;
    }

    async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !condition() {
            let objects = || (self.kubernetes.objects("VppToken"), self.kubernetes.objects("ClusterGraphTenant"));
            assert!(Instant::now() < deadline, "never: {what}\n{:#?}", objects());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn forbid(&self, part: &'static str) {
        self.forbidden.lock().unwrap().insert(part);
    }

    fn allow(&self, part: &str) {
        self.forbidden.lock().unwrap().remove(part);
    }

    /// A client with these rights, in place of a real API server's authorization.
    fn client(&self) -> Client {
        let (service, forbidden) = (self.kubernetes.service("operator"), Arc::clone(&self.forbidden));
        let (latency, secrets_read) = (self.write_latency, Arc::clone(&self.secrets_read));
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            if let Some((_, name)) = path.split_once("/secrets/") {
                secrets_read.lock().unwrap().push(name.to_owned());
            }
            let is_forbidden = forbidden
                .lock()
                .unwrap()
                .iter()
                .any(|part| path.ends_with(part) || path.contains(&format!("/namespaces/{part}/")));
            let mut service = service.clone();
            async move {
                if is_forbidden {
                    let status = json!({
                        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                        "message": "forbidden",
                    });
                    let line = futures::stream::iter([status.to_string().into()]).boxed();
                    let mut answer = ResponseBody::streamed(line);
                    *answer.status_mut() = StatusCode::FORBIDDEN;
                    return Ok(answer);
                }
                if request.method() != axum::http::Method::GET && !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                tower::Service::call(&mut service, request).await
            }
        });
        Client::new(service, SYSTEM)
    }

    fn transport(&self) -> Transport {
        let (graph, hangs, latency) = (self.graph.clone(), Arc::clone(&self.hangs), self.latency);
        Transport::in_process(
            BUILDER.clone(),
            Arc::new(move |request| {
                let (graph, hangs) = (graph.clone(), Arc::clone(&hangs));
                Box::pin(async move {
                    let hangs = hangs
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .as_mut()
                        .is_some_and(|hangs| hangs(&request));
                    if hangs {
                        return std::future::pending().await;
                    }
                    tokio::time::sleep(latency).await;
                    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default().to_vec();
                    let mut sent = Request::new(body);
                    *sent.method_mut() = request.method().clone();
                    *sent.uri_mut() = request.url().as_str().parse().unwrap();
                    *sent.headers_mut() = request.headers().clone();
                    let (parts, body) = graph.call(sent).await.unwrap().into_parts();
                    let body = Ok(body.into_bytes().unwrap().to_vec());
                    Ok(Received { status: parts.status, headers: parts.headers, body })
                })
            }),
        )
    }

    /// Starts a process of the operator.
    fn operator(&self, watch_namespaces: &[&str]) -> Process {
        self.operator_that_listens(watch_namespaces, None)
    }

    fn operator_that_listens(&self, watch_namespaces: &[&str], listener: Option<tokio::net::TcpListener>) -> Process {
        let start = self.start;
        let elapsed = move || start.elapsed();
        let wall = move || Timestamp::from_second(EPOCH).unwrap() + SignedDuration::try_from(start.elapsed()).unwrap();
        let environment = Environment {
            client: self.client(),
            watching: self.client(),
            transport: self.transport(),
            clock: Clock::new(elapsed, wall),
            random: Random::seeded(1),
        };
        let settings = Settings {
            namespace: Some(SYSTEM.into()),
            watch_namespaces: watch_namespaces.iter().map(|&name| name.to_owned()).collect(),
            listen: ([127, 0, 0, 1], 0).into(),
            graph_endpoint: None,
            login_endpoint: None,
            timings: Timings::default(),
            limits: Limits::default(),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run_with(settings, SYSTEM.into(), environment, listener, stop.clone()));
        Process { stop, task }
    }
}

struct Process {
    stop: CancellationToken,
    task: JoinHandle<Result<(), StartError>>,
}

impl Process {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_may_not_be_read_stops_no_other() {
    let world = World::new(&["a", "b"]);
    let first = world.operator(&["a", "b"]);
    world.put_token("a", "berlin");
    world.put_token("b", "munich");
    world.wait_reason("a", "berlin", "UpToDate").await;
    world.wait_reason("b", "munich", "UpToDate").await;
    first.stop().await;

    // The next process can't see which token Munich has.
    world.forbid("b");
    let second = world.operator(&["a", "b"]);
    world.put_file("a", "berlin", 400);
    let uploads = |world: &World| world.graph.entities(TENANT).iter().map(|entity| entity.uploads).sum::<usize>();
    world.until("the renewal", || uploads(&world) == 3).await;
    world.put_token("a", "oslo");
    world.wait_reason("a", "oslo", "NamespaceNotRead").await;
    // Not even after hours: a token that seems unclaimed may belong to a VppToken there.
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(world.reason("VppToken", "a", "oslo"), "NamespaceNotRead");
    assert_eq!(world.graph.entities(TENANT).len(), 2);

    // It comes back by itself.
    world.allow("b");
    world.put_file("b", "munich", 400);
    world.wait_reason("a", "oslo", "UpToDate").await;
    world.until("the other renewal", || uploads(&world) == 5).await;
    assert_eq!(world.graph.entities(TENANT).len(), 3);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_gone_stops_nothing_until_it_is_there() {
    let world = World::new(&["a"]);
    // Without the namespace there is no RoleBinding in it.
    world.forbid("gone");
    let operator = world.operator(&["a", "gone"]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    // It is there, and its RoleBinding is not: what is in it is not known.
    world.put_namespace("gone");
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.put_token("a", "oslo");
    world.wait_reason("a", "oslo", "NamespaceNotRead").await;
    world.allow("gone");
    world.put_token("gone", "munich");
    world.wait_reason("gone", "munich", "UpToDate").await;
    world.wait_reason("a", "oslo", "UpToDate").await;
    assert_eq!(world.graph.entities(TENANT).len(), 3);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_may_not_be_read_any_more_stops_no_other() {
    let world = World::new(&["a", "b"]);
    let operator = world.operator(&["a", "b"]);
    world.put_token("b", "munich");
    world.wait_reason("b", "munich", "UpToDate").await;
    world.forbid("b");
    // Longer than any watch lasts.
    tokio::time::sleep(Duration::from_secs(1200)).await;
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    world.allow("b");
    world.put_token("b", "oslo");
    world.wait_reason("b", "oslo", "UpToDate").await;
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_no_vpp_token_uses_is_seen_by_an_operator_of_some_namespaces() {
    let world = World::new(&["a", "b"]);
    let observed = |world: &World| {
        let tenant = world.kubernetes.get("ClusterGraphTenant", "", "default").unwrap();
        tenant["status"]["observedGeneration"].as_i64()
    };
    let (idle, other) = (world.operator(&["a"]), world.operator(&["b"]));
    world.until("it is seen", || observed(&world) == Some(1)).await;
    world.put_tenant(json!({ "pollInterval": "10m" }));
    world.until("the change is seen", || observed(&world) == Some(2)).await;
    assert_eq!(world.reason("ClusterGraphTenant", "", "default"), "", "and nothing is said of it");

    // One of two operators uses it, and the other one leaves what that says.
    world.put_token("b", "munich");
    world.wait_reason("b", "munich", "UpToDate").await;
    world.until("it is listed", || world.reason("ClusterGraphTenant", "", "default") == "UpToDate").await;
    world.put_tenant(json!({ "pollInterval": "5m" }));
    world.until("this change is seen", || observed(&world) == Some(3)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = world.kubernetes.revision();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.kubernetes.revision(), before, "nothing is written without a change");
    assert_eq!(world.reason("ClusterGraphTenant", "", "default"), "UpToDate");

    // Nobody uses it any more: some time later its session ends, and its status is removed.
    world.kubernetes.delete("VppToken", "b", "munich");
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    world.until("it is let go", || world.reason("ClusterGraphTenant", "", "default").is_empty()).await;
    assert_eq!(observed(&world), Some(3));
    idle.stop().await;
    other.stop().await;
}

/// Writes the status of the ClusterGraphTenant "default" as another manager than the operator.
fn write_tenant_status(world: &World, status: &Value) {
    let mut tenant = world.kubernetes.get("ClusterGraphTenant", "", "default").unwrap();
    tenant["status"] = status.clone();
    tenant["metadata"].as_object_mut().unwrap().remove("managedFields");
    let path = "/apis/vpptoken.io/v1alpha1/clustergraphtenants/default/status?fieldManager=backup";
    let request = Request::put(path).header("content-type", "application/json").body(tenant.to_string().into_bytes());
    let answer = world.kubernetes.call(request.unwrap(), "backup");
    assert!(matches!(&answer, api_server::Answer::Once(answer) if answer.status().is_success()));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_status_that_another_manager_restored_is_corrected_and_others_conditions_stay() {
    let world = World::new(&["a"]);
    let status = |world: &World| world.kubernetes.get("ClusterGraphTenant", "", "default").unwrap()["status"].clone();
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": "True", "reason": "Restored", "message": "x.", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let restored = json!({
        "observedGeneration": 1, "tokens": 7, "unmanagedTokens": 7,
        "conditions": [condition("Ready"), condition("Stalled"), condition("Others")],
    });

    // In use: also a restored status that has nothing but a condition too many.
    let operator = world.operator(&[]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    let is_listed = |world: &World| status(world)["tokens"] == 1 && status(world)["unmanagedTokens"] == 0;
    world.until("it is listed", || is_listed(&world)).await;
    let mut with_stalled = status(&world);
    with_stalled["conditions"].as_array_mut().unwrap().push(condition("Stalled"));
    for written in [&restored, &with_stalled] {
        write_tenant_status(&world, written);
        let types = |world: &World| {
            let conditions = status(world)["conditions"].as_array().cloned().unwrap_or_default();
            let types = conditions.iter().map(|condition| condition["type"].as_str().unwrap().to_owned());
            types.collect::<BTreeSet<_>>()
        };
        let mut expected = types(&world);
        expected.remove("Stalled");
        world.until("it is corrected", || types(&world) == expected && is_listed(&world)).await;
        assert_eq!(world.reason("ClusterGraphTenant", "", "default"), "UpToDate");
    }
    write_tenant_status(&world, &restored);
    world.until("it is corrected again", || is_listed(&world)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = world.kubernetes.revision();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.kubernetes.revision(), before, "nothing is written without a change");

    // Not in use any more.
    world.kubernetes.delete("VppToken", "a", "berlin");
    let is_unused =
        |world: &World| status(world) == json!({ "observedGeneration": 1, "conditions": [condition("Others")] });
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    world.until("its session ends", || is_unused(&world)).await;
    write_tenant_status(&world, &restored);
    world.until("it is corrected without a session", || is_unused(&world)).await;
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_status_of_an_unused_tenant_is_written_later_when_its_write_failed() {
    const STATUS: &str = "/clustergraphtenants/default/status";
    let world = World::new(&["a"]);
    let observed = |world: &World| {
        let tenant = world.kubernetes.get("ClusterGraphTenant", "", "default").unwrap();
        tenant["status"]["observedGeneration"].as_i64()
    };
    world.forbid(STATUS);
    let operator = world.operator(&["a"]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(observed(&world), Some(-1));
    world.allow(STATUS);
    world.until("it is seen", || observed(&world) == Some(1)).await;

    world.put_token("a", "berlin");
    world.until("it is listed", || world.reason("ClusterGraphTenant", "", "default") == "UpToDate").await;
    world.forbid(STATUS);
    world.kubernetes.delete("VppToken", "a", "berlin");
    // Its session ends, and its status can't be removed. Another operator might have written it, for all that the status
    // itself shows.
    tokio::time::sleep(Duration::from_secs(30 * 60)).await;
    assert_eq!(world.reason("ClusterGraphTenant", "", "default"), "UpToDate");
    world.allow(STATUS);
    world.until("it is let go", || world.reason("ClusterGraphTenant", "", "default").is_empty()).await;
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_make_one_event_on_the_tenant_object() {
    let world = World::new(&["a"]);
    let events = |world: &World| {
        let events = world.kubernetes.objects("events.events.k8s.io").into_iter();
        events.filter(|event| event["regarding"]["kind"] == "ClusterGraphTenant").collect::<Vec<_>>()
    };
    let operator = world.operator(&["a"]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    assert_eq!(events(&world), [Value::Null; 0]);
    world.graph.set_secret(TENANT, CLIENT, "another-secret");
    world.graph.revoke_access_tokens();
    let refused = || world.reason("ClusterGraphTenant", "", "default") == "CredentialsRefused";
    world.until("refused", refused).await;
    tokio::time::sleep(Duration::from_secs(7200)).await;
    let reported = events(&world);
    assert_eq!(reported.len(), 1, "{reported:#?}");
    assert_eq!((&reported[0]["type"], &reported[0]["reason"]), (&json!("Warning"), &json!("CredentialsRefused")));
    assert!(reported[0]["note"].as_str().unwrap().contains("AADSTS7000215"), "{reported:#?}");
    assert_eq!(reported[0]["regarding"]["name"], "default");
    assert!(reported[0]["series"].is_null(), "{reported:#?}");
    operator.stop().await;

    // A restart is not reported, another refusal after a success is.
    let operator = world.operator(&["a"]);
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert!(refused() && events(&world) == reported);
    world.graph.set_secret(TENANT, CLIENT, "client-secret");
    world.until("accepted", || world.reason("ClusterGraphTenant", "", "default") == "UpToDate").await;
    world.graph.set_secret(TENANT, CLIENT, "another-secret");
    world.graph.revoke_access_tokens();
    world.until("refused again", refused).await;
    world.until("reported again", || events(&world).len() == 2).await;
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_task_panicked_is_opened_again() {
    let world = World::new(&["a"]);
    let panics = Arc::new(Mutex::new(2));
    *world.hangs.lock().unwrap() = Some(Box::new(move |request| {
        let mut left = panics.lock().unwrap();
        if request.url().path().ends_with("/vppTokens") && *left > 0 {
            *left -= 1;
            drop(left);
            // As a fault of the operator in its list would.
            std::panic::resume_unwind(Box::new(()));
        }
        false
    }));
    let operator = world.operator(&["a"]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    assert_eq!(world.graph.entities(TENANT).len(), 1);
    operator.stop().await;
}

/// Blocks the runtime of the test: only a server of its own can answer.
fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_probes_follow_start_and_stop_and_answer_while_the_runtime_is_busy() {
    let world = World::new(&["a", "b"]);
    // Nothing may be read at all.
    world.forbid("");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let operator = world.operator_that_listens(&["a", "b"], Some(listener));
    // What blocks the runtime of this test blocks its start.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world
        .until("it has failed to read", || get(address, "/metrics").1.contains("vpptoken_watch_failures_total{"))
        .await;
    assert_eq!(get(address, "/healthz").0, 200);
    let (status, why) = get(address, "/readyz");
    assert_eq!(status, 503);
    assert!(why.contains("not read yet"), "{why}");

    world.allow("");
    world.forbid("b");
    world.until("it is ready", || get(address, "/readyz").0 == 200).await;
    let metrics = get(address, "/metrics").1;
    for (namespace, up) in [("a", 1), ("b", 0)] {
        let line = format!("vpptoken_watch_up{{kind=\"VppTokens\",namespace=\"{namespace}\"}} {up}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }

    // Stopped while a create is in flight.
    let asked = Arc::new(Mutex::new(false));
    let hit = Arc::clone(&asked);
    world.allow("b");
    *world.hangs.lock().unwrap() = Some(Box::new(move |request| {
        let is_create = request.method() == reqwest::Method::POST && request.url().path().ends_with("/vppTokens");
        *hit.lock().unwrap() |= is_create;
        is_create
    }));
    world.put_token("a", "berlin");
    world.until("a create", || *asked.lock().unwrap()).await;
    operator.stop.cancel();
    let (status, why) = get(address, "/readyz");
    assert_eq!((status, why.as_str()), (503, "it is stopping\n"));
    assert_eq!(get(address, "/healthz").0, 200);
    operator.task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_shown_as_events() {
    let world = World::new(&["a"]);
    let operator = world.operator(&[]);
    let reasons = |world: &World| {
        let events = world.kubernetes.objects("events.events.k8s.io").into_iter();
        events.map(|event| event["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let patch = |change: Value| {
        world.kubernetes.merge("VppToken", "a", "berlin", &change);
    };
    let has = |what: &'static str| {
        let world = &world;
        async move { world.until(&format!("the event {what}"), || reasons(world).iter().any(|it| it == what)).await }
    };
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    has("Created").await;
    world.put_file("a", "berlin", 400);
    has("Uploaded").await;
    patch(json!({ "spec": { "countryOrRegion": "fr" } }));
    has("Updated").await;
    patch(json!({ "metadata": { "annotations": { "vpptoken.io/sync-requested-at": "now" } } }));
    has("SyncStarted").await;
    // A sync that fails is an event, once in a row.
    world
        .until("it is synced", || {
            !reasons(&world).is_empty() && world.graph.entities(TENANT)[0].last_sync_status == "completed"
        })
        .await;
    let id = world.graph.entities(TENANT)[0].id.clone();
    for (request, fails) in [("1", true), ("2", true), ("3", false), ("4", true)] {
        world.graph.set_sync_failure(TENANT, &id, fails);
        let before = world.graph.count(graph_emulator::Operation::SyncLicenses);
        patch(json!({ "metadata": { "annotations": { "vpptoken.io/sync-requested-at": request } } }));
        world.until("it is sent", || world.graph.count(graph_emulator::Operation::SyncLicenses) > before).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(reasons(&world).iter().filter(|it| *it == "SyncFailed").count(), 1, "of one text there is one event");
    let failed = world
        .kubernetes
        .objects("events.events.k8s.io")
        .into_iter()
        .find(|event| event["reason"] == "SyncFailed")
        .unwrap();
    assert_eq!(failed["series"]["count"], 2, "a failure after a failure is none: {failed}");
    patch(json!({ "spec": { "deletionPolicy": "Delete" } }));
    world
        .until("the finalizer", || {
            let object = world.kubernetes.get("VppToken", "a", "berlin").unwrap();
            object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
        })
        .await;
    world.kubernetes.delete("VppToken", "a", "berlin");
    has("Deleted").await;
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_person_asks_for_by_an_annotation_is_done_at_once() {
    let world = World::new(&["a"]);
    let operator = world.operator(&[]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    // The first sync has ended, and nothing else is due.
    tokio::time::sleep(Duration::from_secs(120)).await;
    for (annotation, operation) in [
        ("vpptoken.io/sync-requested-at", graph_emulator::Operation::SyncLicenses),
        ("vpptoken.io/upload-requested-at", graph_emulator::Operation::Update),
    ] {
        let (before, asked) = (world.graph.count(operation), Instant::now());
        world.kubernetes.merge(
            "VppToken",
            "a",
            "berlin",
            &json!({ "metadata": { "annotations": { annotation: "x" } } }),
        );
        world.until(annotation, || world.graph.count(operation) > before).await;
        assert!(asked.elapsed() < Duration::from_secs(1), "{annotation}: {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_being_taken_over_is_taken_before_a_status_shows_it() {
    let mut world = World::new(&["a"]);
    let operator = world.operator(&[]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    let id = world.graph.entities(TENANT)[0].id.clone();
    world.kubernetes.delete("VppToken", "a", "berlin");
    operator.stop().await;
    for name in ["munich", "oslo"] {
        world.apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": name, "namespace": "a" },
            "spec": { "managementPolicy": "Observe", "tokenId": id },
        }));
    }
    // Both decide before a status shows what either has done.
    world.write_latency = Duration::from_millis(20);
    let operator = world.operator(&[]);
    let reasons = || ["munich", "oslo"].map(|name| world.reason("VppToken", "a", name));
    world.until("both are decided", || reasons().iter().filter(|reason| *reason == "UpToDate").count() == 1).await;
    world.until("the other waits", || reasons().contains(&"ClaimedByAnother".to_owned())).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let events = world.kubernetes.objects("events.events.k8s.io");
    assert_eq!(events.iter().filter(|event| event["reason"] == "Bound").count(), 1);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_changes_while_graph_is_asked_changes_nothing_that_is_remembered_of_its_file() {
    let mut world = World::new(&["a"]);
    world.latency = Duration::from_secs(2);
    let operator = world.operator(&[]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    let asked = Arc::new(Mutex::new(false));
    let hit = Arc::clone(&asked);
    *world.hangs.lock().unwrap() = Some(Box::new(move |request| {
        *hit.lock().unwrap() |=
            request.method() == reqwest::Method::GET && !request.url().path().ends_with("/vppTokens");
        false
    }));
    world.put_file("a", "berlin", 400);
    world.until("Graph is asked before the upload", || *asked.lock().unwrap()).await;
    let name = |secret: &str| {
        let change = json!({ "spec": { "tokenSecretRef": { "name": secret } } });
        world.kubernetes.merge("VppToken", "a", "berlin", &change);
    };
    name("mistyped");
    world.wait_reason("a", "berlin", "SecretNotFound").await;
    name("berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_shown_as_an_event_although_kubernetes_fails_after_it() {
    let mut world = World::new(&["a"]);
    world.latency = Duration::from_secs(2);
    let operator = world.operator(&[]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    world.kubernetes.merge("VppToken", "a", "berlin", &json!({ "spec": { "deletionPolicy": "Delete" } }));
    let finalizers = || world.kubernetes.get("VppToken", "a", "berlin").unwrap()["metadata"]["finalizers"].clone();
    world.until("the finalizer", || finalizers().is_array()).await;
    let forbidden = Arc::clone(&world.forbidden);
    let definition = "vpptokens.vpptoken.io";
    *world.hangs.lock().unwrap() = Some(Box::new(move |request| {
        if request.method() == reqwest::Method::DELETE {
            forbidden.lock().unwrap().insert(definition);
        }
        false
    }));
    world.kubernetes.delete("VppToken", "a", "berlin");
    world.until("it is deleted in Graph", || world.graph.entities(TENANT).is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(finalizers().is_array(), "it is not known whether the definition is being deleted");
    world.allow(definition);
    world.until("it is gone", || world.kubernetes.get("VppToken", "a", "berlin").is_none()).await;
    let events = world.kubernetes.objects("events.events.k8s.io");
    assert_eq!(events.iter().filter(|event| event["reason"] == "Deleted").count(), 1);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_while_the_operator_stops_is_reported_although_another_request_hangs() {
    let mut world = World::new(&["a"]);
    world.latency = Duration::from_secs(2);
    let operator = world.operator(&[]);
    for name in ["berlin", "munich"] {
        world.put_token("a", name);
        world.wait_reason("a", name, "UpToDate").await;
    }
    let status = |name: &str| world.kubernetes.get("VppToken", "a", name).unwrap()["status"].clone();
    let hung = status("berlin")["tokenId"].as_str().unwrap().to_owned();
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    *world.hangs.lock().unwrap() = Some(Box::new(move |request| {
        let is_sync = request.url().path().ends_with("/syncLicenses");
        *count.lock().unwrap() += usize::from(is_sync);
        is_sync && request.url().path().contains(&hung)
    }));
    let request = json!({ "metadata": { "annotations": { "vpptoken.io/sync-requested-at": "now" } } });
    for name in ["berlin", "munich"] {
        world.kubernetes.merge("VppToken", "a", name, &request);
    }
    world.until("both are sent", || *asked.lock().unwrap() == 2).await;
    operator.stop().await;
    let handled = |name: &str| status(name)["lastHandledSyncRequest"].clone();
    assert_eq!((handled("munich"), handled("berlin")), (json!("now"), json!(null)));
    let events = world.kubernetes.objects("events.events.k8s.io");
    assert!(events.iter().any(|it| it["reason"] == "SyncStarted" && it["regarding"]["name"] == "munich"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_reads_no_secret_whose_version_a_status_knows() {
    let world = World::new(&["a"]);
    let operator = world.operator(&[]);
    for name in ["berlin", "munich"] {
        world.put_token("a", name);
        world.wait_reason("a", name, "UpToDate").await;
    }
    operator.stop().await;
    world.put_file("a", "munich", 400);
    world.secrets_read.lock().unwrap().clear();
    let operator = world.operator(&[]);
    world.until("the renewal", || world.graph.entities(TENANT).iter().any(|entity| entity.uploads == 2)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let read: BTreeSet<String> = world.secrets_read.lock().unwrap().drain(..).collect();
    assert_eq!(read, ["graph".to_owned(), "munich".to_owned()].into(), "its credentials, and the one that is new");
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_token_that_is_only_observed_is_declined_in_events() {
    let world = World::new(&["a"]);
    let operator = world.operator(&[]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    let id = world.graph.entities(TENANT)[0].id.clone();
    world.apply(&json!({
        "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
        "metadata": {
            "name": "watched", "namespace": "a",
            "annotations": { "vpptoken.io/sync-requested-at": "now", "vpptoken.io/upload-requested-at": "now" },
        },
        "spec": { "managementPolicy": "Observe", "tokenId": id },
    }));
    for reason in ["SyncNotStarted", "UploadNotDone"] {
        let is_shown = || {
            let events = world.kubernetes.objects("events.events.k8s.io");
            events.iter().any(|event| event["reason"] == reason && event["regarding"]["name"] == "watched")
        };
        world.until(&format!("the event {reason}"), is_shown).await;
    }
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_replaced_while_its_upload_is_decided_is_not_sent_undecided() {
    let mut world = World::new(&["a"]);
    world.latency = Duration::from_secs(2);
    let operator = world.operator(&[]);
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "UpToDate").await;
    let is_asked = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&is_asked);
    // Nothing hangs: a request is seen when it is sent, and arrives two seconds later.
    *world.hangs.lock().unwrap() = Some(Box::new(move |request| {
        let is_single = request.method() == "GET" && !request.url().path().ends_with("vppTokens");
        asked.fetch_or(is_single, std::sync::atomic::Ordering::SeqCst);
        false
    }));
    world.put_file("a", "berlin", 400);
    world.until("what Graph has is asked", || is_asked.load(std::sync::atomic::Ordering::SeqCst)).await;
    // Before the answer arrives, there is a newer file, of another organization.
    let expires = Timestamp::from_second(EPOCH + 500 * 86_400).unwrap();
    let other = TokenFile::with_inner("Fabrikam", expires, "inner-of-another".to_owned());
    world.put_secret("a", "berlin", "token", &other.text());
    world.wait_reason("a", "berlin", "OrganizationMismatch").await;
    let entity = &world.graph.entities(TENANT)[0];
    assert_eq!(entity.organization_name.as_deref(), Some("Contoso"), "{entity:?}");
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_create_that_graph_refuses_leaves_no_intent() {
    let world = World::new(&["a"]);
    let operator = world.operator(&[]);
    world.graph.settings_mut(|settings| {
        settings.required_on_create.insert("displayName".into());
    });
    world.put_token("a", "berlin");
    world.wait_reason("a", "berlin", "GraphRefused").await;
    let status = &world.kubernetes.get("VppToken", "a", "berlin").unwrap()["status"];
    assert!(status["pendingCreate"].is_null(), "{status:#}");
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_vpp_tokens_at_graph_than_workers_all_arrive() {
    let mut world = World::new(&["a", "b"]);
    world.latency = Duration::from_secs(2);
    // Two tenants: one alone has fewer requests under way than there are workers.
    let other = "5f0d3a51-9d1b-4c0f-8e57-0c7f6b2f1a10";
    world.graph.add_app(other, CLIENT, "client-secret");
    world.put_secret("a", "graph", "clientSecret", "client-secret");
    world.apply(&json!({
        "apiVersion": "vpptoken.io/v1alpha1", "kind": "GraphTenant", "metadata": { "name": "other", "namespace": "a" },
        "spec": {
            "tenantId": other, "clientId": CLIENT, "credentials": { "clientSecretRef": { "name": "graph" } },
        },
    }));
    let operator = world.operator(&[]);
    let names: Vec<String> = (0..2 * usize::from(WORKERS)).map(|n| format!("token-{n}")).collect();
    for (name, days) in names.iter().zip(200..) {
        for (namespace, tenant) in [
            ("a", json!({ "kind": "GraphTenant", "name": "other" })),
            ("b", json!({ "kind": "ClusterGraphTenant", "name": "default" })),
        ] {
            world.put_file(namespace, name, days);
            world.apply(&json!({
                "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
                "metadata": { "name": name, "namespace": namespace },
                "spec": {
                    "tokenSecretRef": { "name": name }, "appleId": format!("vpp.{name}@contoso.example"),
                    "tenantRef": tenant,
                },
            }));
        }
    }
    for name in &names {
        world.wait_reason("a", name, "UpToDate").await;
        world.wait_reason("b", name, "UpToDate").await;
    }
    assert_eq!(world.graph.entities(TENANT).len() + world.graph.entities(other).len(), 2 * names.len());
    operator.stop().await;
}

/// The tenant that hangs.
const HUNG: &str = "5f0d3a51-9d1b-4c0f-8e57-0c7f6b2f1a10";

/// Creates of namespace a; that the other tenant is asked for its tokens does not matter.
fn is_create_of_hung(request: &reqwest::Request) -> bool {
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    request.method() == "POST" && String::from_utf8_lossy(body).contains("vpp.hung-")
}

/// Signing in, without which nothing else is asked.
fn is_sign_in_of_hung(request: &reqwest::Request) -> bool {
    request.url().path().contains(HUNG)
}

/// With a tenant of namespace a of which such requests hang, and so many VppTokens there: how long a new one of another tenant
/// waits, and how many requests hang at a time.
async fn beside_a_hung_tenant(tokens: u16, hangs: fn(&reqwest::Request) -> bool) -> (Duration, usize) {
    let world = World::new(&["a", "b"]);
    world.graph.add_app(HUNG, CLIENT, "client-secret");
    world.put_secret("a", "graph", "clientSecret", "client-secret");
    world.apply(&json!({
        "apiVersion": "vpptoken.io/v1alpha1", "kind": "GraphTenant", "metadata": { "name": "hung", "namespace": "a" },
        "spec": {
            "tenantId": HUNG, "clientId": CLIENT, "credentials": { "clientSecretRef": { "name": "graph" } },
        },
    }));
    let hung = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&hung);
    *world.hangs.lock().unwrap() = Some(Box::new(move |request| {
        let hangs = hangs(request);
        counted.fetch_add(usize::from(hangs), std::sync::atomic::Ordering::SeqCst);
        hangs
    }));
    let operator = world.operator(&[]);
    for n in 0..tokens {
        let name = format!("hung-{n}");
        world.put_file("a", &name, 300 + i64::from(n));
        world.apply(&json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": name, "namespace": "a" },
            "spec": {
                "tokenSecretRef": { "name": name }, "appleId": format!("vpp.{name}@contoso.example"),
                "tenantRef": { "kind": "GraphTenant", "name": "hung" },
            },
        }));
    }
    world.put_token("b", "first");
    world.wait_reason("b", "first", "UpToDate").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let at_a_time = hung.load(std::sync::atomic::Ordering::SeqCst);
    let began = Instant::now();
    world.put_file("b", "berlin", 200);
    world.apply(&json!({
        "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken", "metadata": { "name": "berlin", "namespace": "b" },
        "spec": { "tokenSecretRef": { "name": "berlin" }, "appleId": "vpp.berlin@contoso.example" },
    }));
    world.until("it is created", || world.graph.entities(TENANT).len() == 2).await;
    let waited = began.elapsed();
    operator.stop().await;
    (waited, at_a_time)
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_never_answers_delays_no_other() {
    let (alone, none) = beside_a_hung_tenant(0, is_create_of_hung).await;
    let (beside, at_a_time) = beside_a_hung_tenant(200, is_create_of_hung).await;
    assert_eq!((none, at_a_time), (0, Limits::default().at_a_time));
    assert_eq!(beside, alone);
    let (beside, at_a_time) = beside_a_hung_tenant(200, is_sign_in_of_hung).await;
    assert_eq!((beside, at_a_time), (alone, 1));
}
