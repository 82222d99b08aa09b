//! A running control plane: three child processes in a temporary folder, on loopback ports of their own. Touches that
//! folder, those processes, and files that the caller names.

mod component;
mod credentials;
mod guard;
mod kubeconfig;

use std::{
    fs, net,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use component::Component;
use credentials::Credentials;
use guard::Guard;
use tempfile::TempDir;

use crate::{Error, Result, tools::Tools};

/// Ports are chosen below the range that systems use for outgoing connections, so that nobody takes the API server's
/// while it is stopped.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const START_ATTEMPTS: usize = 5;
const POLL: Duration = Duration::from_millis(25);
/// How long a component may take to end by itself before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  resources: [{group: vpptoken.io}]
- level: None
";

/// Controllers that nothing here needs: nodes, volumes, certificates, autoscaling, cloud.
const CONTROLLERS: &str = "--controllers=*,\
-certificatesigningrequest-approving-controller,-certificatesigningrequest-cleaner-controller,\
-certificatesigningrequest-signing-controller,-cloud-node-lifecycle-controller,-device-taint-eviction-controller,\
-ephemeral-volume-controller,-horizontal-pod-autoscaler-controller,-legacy-serviceaccount-token-cleaner-controller,\
-node-ipam-controller,-node-lifecycle-controller,-node-route-controller,-persistentvolume-attach-detach-controller,\
-persistentvolume-binder-controller,-persistentvolume-expander-controller,-persistentvolume-protection-controller,\
-persistentvolumeclaim-protection-controller,-service-lb-controller,-taint-eviction-controller,-ttl-controller";

/// How a control plane is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long each component may take to become ready.
    pub ready_within: Duration,
    /// Further arguments for the API server, after the crate's own.
    pub api_server_arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { ready_within: Duration::from_secs(60), api_server_arguments: Vec::new() }
    }
}

/// A running control plane.
///
/// [`shutdown`](Self::shutdown) ends it in order. When it is dropped, its processes are killed and reaped. When its
/// process ends without either (a `static` in a test, a kill), a guard process kills them. In all three cases the
/// temporary folder is removed.
///
/// It is not bound to the tokio runtime that it was started in.
#[derive(Debug)]
pub struct ControlPlane {
    tools: Tools,
    options: Options,
    ports: Ports,
    url: String,
    ca_pem: String,
    client_identity_pem: String,
    kubeconfig: PathBuf,
    audit_log: PathBuf,
    etcd: Option<Component>,
    api_server: Option<Component>,
    controller_manager: Option<Component>,
    guard: Guard,
    // Last: the folder is removed when nothing writes to it any more.
    folder: TempDir,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    api_server: u16,
    etcd: u16,
    etcd_peer: u16,
}

impl ControlPlane {
    /// Starts etcd, kube-apiserver and kube-controller-manager in a temporary folder of their own, and waits until the
    /// API server is ready and the `default` ServiceAccount is there, which the controller manager makes.
    ///
    /// Where another process takes a port first, this is tried again with other ports.
    ///
    /// # Errors
    /// [`Error::Ended`] and [`Error::NotReady`] quote the end of the component's log.
    pub async fn start(tools: &Tools, options: Options) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::start_once(tools, &options).await {
                Err(Error::Ended { last_lines, .. })
                    if last_lines.contains("address already in use") && attempt < START_ATTEMPTS =>
                {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn start_once(tools: &Tools, options: &Options) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("control-plane-")
            .permissions(fs::Permissions::from_mode(0o700)) // keys are in it
            .tempdir()
            .map_err(Error::io("can't make a temporary folder"))?;
        let ports = Ports::pick()?;
        let url = format!("https://127.0.0.1:{}", ports.api_server);
        let guard = Guard::start(folder.path())?;
        let mut plane = Self {
            tools: tools.clone(),
            options: options.clone(),
            ports,
            url,
            ca_pem: String::new(),
            client_identity_pem: String::new(),
            kubeconfig: folder.path().join("admin.kubeconfig"),
            audit_log: folder.path().join("audit.log"),
            etcd: None,
            api_server: None,
            controller_manager: None,
            guard,
            folder,
        };
        plane.start_etcd()?;
        // While etcd starts: keys take a moment.
        let credentials = tokio::task::spawn_blocking(Credentials::make)
            .await
            .map_err(|error| Error::io("making certificates")(std::io::Error::other(error)))??;
        plane.lay_out(&credentials)?;
        plane.ca_pem = credentials.ca_pem;
        plane.client_identity_pem = credentials.admin.identity_pem();
        plane.wait_for_etcd().await?;
        plane.start_api_server().await?;
        plane.start_controller_manager()?;
        plane.wait_for_controller_manager().await?;
        Ok(plane)
    }

    /// A kubeconfig file for a cluster administrator, with the server's CA and the client's certificate inside.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `https://127.0.0.1:PORT`; also the issuer of ServiceAccount tokens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `http://127.0.0.1:PORT` of etcd: for what no API server does, such as changing the age of an object.
    #[must_use]
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    /// The certificate authority of the API server.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The audit log: a JSON line for each finished request to the group `vpptoken.io`, without bodies.
    #[must_use]
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// The folder with everything, including the components' logs (`NAME.log`). It is removed with the control plane.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the API server; etcd keeps the data, and the controller manager waits for it to come back.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub async fn stop_api_server(&mut self) -> Result<()> {
        if let Some(api_server) = &mut self.api_server {
            api_server.stop(STOP_LIMIT).await?;
            self.api_server = None;
            self.tell_guard();
        }
        Ok(())
    }

    /// Starts the API server on its port and its data, if it does not run, and waits until it is ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_none() {
            self.spawn_api_server()?;
        }
        self.wait_for_api_server().await
    }

    /// Ends everything, in order, and deletes the temporary folder. What does not end by itself is killed.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub async fn shutdown(mut self) -> Result<()> {
        for slot in [&self.controller_manager, &self.api_server].into_iter().flatten() {
            slot.ask_to_end(); // both at once; each is waited for below
        }
        for slot in [&mut self.controller_manager, &mut self.api_server, &mut self.etcd] {
            if let Some(component) = slot {
                component.stop(STOP_LIMIT).await?;
            }
            *slot = None;
        }
        Ok(()) // the rest is dropped: the guard, then the folder
    }

    /// Writes a kubeconfig file for a bearer token, with that namespace as the default one. Only its owner can read
    /// it.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn sa_kubeconfig(&self, file: &Path, token: &str, namespace: &str) -> Result<()> {
        kubeconfig::write(file, &self.url, &self.ca_pem, kubeconfig::User::Token(token), namespace)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn lay_out(&self, credentials: &Credentials) -> Result<()> {
        for (name, text) in [
            ("ca.crt", &credentials.ca_pem),
            ("server.crt", &credentials.server.certificate_pem),
            ("server.key", &credentials.server.key_pem),
            ("service-accounts.key", &credentials.signing_key_pem),
            ("service-accounts.pub", &credentials.signing_public_key_pem),
            ("audit-policy.yaml", &AUDIT_POLICY.to_owned()),
        ] {
            let file = self.file(name);
            fs::write(&file, text).map_err(Error::io(format!("can't write {}", file.display())))?;
        }
        for (file, identity) in [
            (self.kubeconfig.clone(), &credentials.admin),
            (self.file("controller-manager.kubeconfig"), &credentials.manager),
        ] {
            kubeconfig::write(
                &file,
                &self.url,
                &credentials.ca_pem,
                kubeconfig::User::Certificate(identity),
                "default",
            )?;
        }
        Ok(())
    }

    fn start_etcd(&mut self) -> Result<()> {
        let client = self.etcd_url();
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let arguments = [
            format!("--data-dir={}", self.file("etcd").display()),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ];
        self.etcd = Some(Component::spawn("etcd", &self.tools.etcd.path, &arguments, self.folder.path())?);
        self.tell_guard();
        Ok(())
    }

    fn spawn_api_server(&mut self) -> Result<()> {
        let file = |name: &str| self.file(name).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers={}", self.etcd_url()),
            format!("--secure-port={}", self.ports.api_server),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            "--endpoint-reconciler-type=none".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            format!("--cert-dir={}", file("certificates")),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            "--authorization-mode=Node,RBAC".into(),
            format!("--service-account-issuer={}", self.url),
            format!("--service-account-jwks-uri={}/openid/v1/jwks", self.url),
            format!("--service-account-key-file={}", file("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", file("service-accounts.key")),
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", self.audit_log.display()),
            // Open watches are cut off after two seconds; otherwise they delay the end for a minute.
            "--shutdown-send-retry-after=true".into(),
            "--profiling=false".into(),
        ];
        arguments.extend(self.options.api_server_arguments.iter().cloned());
        let program = &self.tools.kube_apiserver.path;
        self.api_server = Some(Component::spawn("kube-apiserver", program, &arguments, self.folder.path())?);
        self.tell_guard();
        Ok(())
    }

    fn start_controller_manager(&mut self) -> Result<()> {
        let file = |name: &str| self.file(name).display().to_string();
        let arguments = [
            format!("--kubeconfig={}", file("controller-manager.kubeconfig")),
            "--leader-elect=false".into(),
            "--secure-port=0".into(), // serves nothing
            format!("--service-account-private-key-file={}", file("service-accounts.key")),
            format!("--root-ca-file={}", file("ca.crt")),
            "--kube-api-qps=200".into(), // deleting a namespace asks for every resource there is
            "--kube-api-burst=400".into(),
            "--profiling=false".into(),
            CONTROLLERS.into(),
        ];
        let program = &self.tools.kube_controller_manager.path;
        self.controller_manager =
            Some(Component::spawn("kube-controller-manager", program, &arguments, self.folder.path())?);
        self.tell_guard();
        Ok(())
    }

    async fn wait_for_etcd(&mut self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let url = format!("{}/health", self.etcd_url());
        wait_until(&mut self.etcd, self.options.ready_within, || answers(&client, &url)).await
    }

    async fn wait_for_api_server(&mut self) -> Result<()> {
        let client = self.admin_client()?;
        let url = format!("{}/readyz", self.url);
        wait_until(&mut self.api_server, self.options.ready_within, || answers(&client, &url)).await
    }

    async fn wait_for_controller_manager(&mut self) -> Result<()> {
        let client = self.admin_client()?;
        let url = format!("{}/api/v1/namespaces/default/serviceaccounts/default", self.url);
        wait_until(&mut self.controller_manager, self.options.ready_within, || answers(&client, &url)).await
    }

    /// A new one each time: a client's connections belong to the runtime that they were opened in.
    fn admin_client(&self) -> Result<reqwest::Client> {
        Ok(reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(self.ca_pem.as_bytes())?])
            .identity(reqwest::Identity::from_pem(self.client_identity_pem.as_bytes())?)
            .timeout(Duration::from_secs(5))
            .build()?)
    }

    fn tell_guard(&mut self) {
        let running = [&self.etcd, &self.api_server, &self.controller_manager];
        self.guard.watch(running.into_iter().flatten().map(Component::id));
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for slot in [&mut self.controller_manager, &mut self.api_server, &mut self.etcd] {
            *slot = None; // kills and reaps
        }
        self.guard.watch([]);
    }
}

impl Ports {
    /// Three ports that were free a moment ago.
    fn pick() -> Result<Self> {
        use std::hash::{BuildHasher as _, Hasher as _};
        // A hasher's random keys are random enough to separate processes that start at once.
        let mut from = std::hash::RandomState::new().build_hasher().finish();
        let mut free = std::iter::from_fn(|| {
            from = from.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u16::try_from(from >> 48).ok()
        })
        .map(|random| PORTS.start + random % (PORTS.end - PORTS.start))
        .take(1000)
        .filter(|port| net::TcpListener::bind((net::Ipv4Addr::LOCALHOST, *port)).is_ok());
        let mut next = || {
            free.next().ok_or_else(|| {
                Error::io(format!("no free port on loopback in {PORTS:?}"))(std::io::ErrorKind::AddrInUse.into())
            })
        };
        let (api_server, etcd) = (next()?, next()?);
        let etcd_peer = next()?;
        Ok(Self { api_server, etcd, etcd_peer })
    }
}

/// Polls until `ready` succeeds, the component ends, or the time is over.
async fn wait_until<F>(component: &mut Option<Component>, limit: Duration, mut ready: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<(), String>>,
{
    let Some(component) = component else { return Ok(()) };
    let began = Instant::now();
    loop {
        let reason = match ready().await {
            // Another process might have taken its port, and answer there.
            Ok(()) => return component.still_runs(),
            Err(reason) => reason,
        };
        component.still_runs()?;
        if began.elapsed() > limit {
            return Err(component.not_ready(limit, reason));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn answers(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let response = client.get(url).send().await.map_err(|error| format!("{url} does not answer ({error})"))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("{url} answers {status}")) }
}
