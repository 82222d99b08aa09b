//! The control plane as an administrator sees it: the shared one, or one of a test's own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control_plane::{ControlPlane, Options, Progress, tools};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, OnceCell};

use super::{LIMIT, until};

/// What a command printed.
pub(crate) struct Output {
    /// Whether it exited with 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    fn of(output: &std::process::Output) -> Self {
        Self {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A control plane with the CRDs applied.
#[derive(Clone)]
pub(crate) struct Plane {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
    own: Option<Arc<Mutex<Option<ControlPlane>>>>,
}

static SHARED: OnceCell<Plane> = OnceCell::const_new();

impl Plane {
    /// The one that `control-plane run` started, or else one that lasts as long as this process.
    pub(crate) async fn shared() -> Self {
        SHARED
            .get_or_init(|| async {
                let inherited = std::env::var_os(tools::HANDED_DOWN).and(std::env::var_os("KUBECONFIG"));
                let plane = match inherited {
                    Some(kubeconfig) => {
                        let tools = tools::ensure(&Progress::stderr()).await.unwrap();
                        Self {
                            kubeconfig: kubeconfig.into(),
                            kubectl: tools.kubectl.path,
                            helm: tools.helm.path,
                            own: None,
                        }
                    }
                    None => Self::start().await,
                };
                plane.apply_crds().await;
                plane
            })
            .await
            .clone()
    }

    /// One of a test's own, for tests that stop its API server or count its requests.
    pub(crate) async fn own() -> Self {
        let plane = Self::start().await;
        plane.apply_crds().await;
        plane
    }

    async fn start() -> Self {
        let tools = tools::ensure(&Progress::stderr()).await.unwrap();
        let plane = ControlPlane::start(&tools, Options::default()).await.unwrap();
        Self {
            kubeconfig: plane.kubeconfig().to_owned(),
            kubectl: tools.kubectl.path,
            helm: tools.helm.path,
            own: Some(Arc::new(Mutex::new(Some(plane)))),
        }
    }

    /// Stops the API server of a plane of one's own.
    pub(crate) async fn stop_api_server(&self) {
        self.own.as_ref().unwrap().lock().await.as_mut().unwrap().stop_api_server().await.unwrap();
    }

    /// Starts it again.
    pub(crate) async fn start_api_server(&self) {
        self.own.as_ref().unwrap().lock().await.as_mut().unwrap().start_api_server().await.unwrap();
    }

    /// Makes a VppToken that is being deleted older by this much, on a plane of one's own: its deletion then began
    /// earlier, as its watchers see at once.
    pub(crate) async fn grow_older(&self, namespace: &str, name: &str, by: SignedDuration) {
        let key = STANDARD.encode(format!("/registry/vpptoken.io/vpptokens/{namespace}/{name}"));
        // The operator may write its status meanwhile.
        let changed = until(LIMIT, || async {
            let found = self.ask_etcd("range", json!({ "key": key })).await["kvs"][0].clone();
            let stored = STANDARD.decode(found["value"].as_str().unwrap()).unwrap();
            let mut object: Value = serde_json::from_slice(&stored).unwrap();
            let began: Timestamp = object["metadata"]["deletionTimestamp"].as_str().unwrap().parse().unwrap();
            object["metadata"]["deletionTimestamp"] = json!((began - by).to_string());
            let unchanged = json!({ "key": key, "target": "MOD", "modRevision": found["mod_revision"] });
            let put = json!({ "requestPut": { "key": key, "value": STANDARD.encode(object.to_string()) } });
            self.ask_etcd("txn", json!({ "compare": [unchanged], "success": [put] })).await["succeeded"] == true
        })
        .await;
        assert!(changed, "{namespace}/{name} did not grow older");
    }

    /// Has etcd forget all versions but the current ones, on a plane of one's own.
    pub(crate) async fn compact(&self) {
        let now = self.ask_etcd("range", json!({ "key": STANDARD.encode("/") })).await;
        self.ask_etcd("compaction", json!({ "revision": now["header"]["revision"], "physical": true })).await;
    }

    async fn ask_etcd(&self, what: &str, question: Value) -> Value {
        let etcd = self.own.as_ref().unwrap().lock().await.as_ref().unwrap().etcd_url();
        let asked = reqwest::Client::new().post(format!("{etcd}/v3/kv/{what}")).body(question.to_string());
        let answered = asked.send().await.unwrap().error_for_status().unwrap();
        serde_json::from_slice(&answered.bytes().await.unwrap()).unwrap()
    }

    /// Shuts down a plane of one's own.
    pub(crate) async fn shutdown(&self) {
        if let Some(plane) = self.own.as_ref().unwrap().lock().await.take() {
            plane.shutdown().await.unwrap();
        }
    }

    /// How many requests the API server has counted, by group, resource, subresource and verb.
    pub(crate) async fn requests(&self) -> Vec<([String; 4], u64)> {
        let metrics = self.kubectl(&["get", "--raw", "/metrics"]).await;
        assert!(metrics.ok, "{}", metrics.stderr);
        let counters = metrics.stdout.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{"));
        let read = |counter: &str| {
            let (labels, count) = counter.rsplit_once("} ").unwrap();
            let label = |name: &str| {
                let (_, value) = labels.split_once(&format!("{name}=\"")).unwrap();
                value.split('"').next().unwrap().to_owned()
            };
            (["group", "resource", "subresource", "verb"].map(label), count.parse::<f64>().unwrap() as u64)
        };
        counters.map(read).collect()
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with the administrator's rights.
    pub(crate) async fn client(&self) -> Client {
        // The provider can be installed once per process.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// Runs kubectl as an administrator.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_with(arguments, "").await
    }

    /// Runs kubectl as an administrator, with something on its standard input.
    pub(crate) async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = tokio::process::Command::new(&self.kubectl)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        Output::of(&output)
    }

    /// Runs helm as an administrator.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(&self.helm);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).kill_on_drop(true);
        let output = command.output().await;
        Output::of(&output.unwrap())
    }

    async fn apply_crds(&self) {
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/vpptoken-operator/crds");
        let applied = self.kubectl(&["apply", "--server-side", "-f", crds]).await;
        assert!(applied.ok, "{}", applied.stderr);
        let established = self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", crds]).await;
        assert!(established.ok, "{}", established.stderr);
    }

    /// Creates a namespace and waits for its ServiceAccount.
    pub(crate) async fn create_namespace(&self, client: &Client, name: &str) {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await.unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        let ready =
            until(LIMIT, || async { accounts.get_opt("default").await.is_ok_and(|account| account.is_some()) }).await;
        assert!(ready, "the namespace {name} never got its ServiceAccount");
    }

    /// Applies what the chart renders for a release that is called like its namespace, or has helm install it.
    pub(crate) async fn install_chart(&self, namespace: &str, values: &[String], by_helm: bool) {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/vpptoken-operator");
        let command = if by_helm { "install" } else { "template" };
        let mut arguments = vec![command, namespace, chart, "--namespace", namespace];
        for value in values {
            arguments.extend(["--set", value]);
        }
        let done = self.helm(&arguments).await;
        assert!(done.ok, "{}", done.stderr);
        if !by_helm {
            let applied = self.kubectl_with(&["apply", "-f", "-"], &done.stdout).await;
            assert!(applied.ok, "{}", applied.stderr);
        }
    }

    /// Has helm uninstall a release that it installed.
    pub(crate) async fn uninstall_chart(&self, namespace: &str) {
        let done = self.helm(&["uninstall", namespace, "--namespace", namespace]).await;
        assert!(done.ok, "{}", done.stderr);
    }
}
