//! A world for a test: namespace, emulator, tenant, chart, operator.

mod history;
mod looking;
mod operator;
mod plane;
mod second;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use graph_emulator::{Emulator, Settings, TokenFile};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use vpptoken_operator::api::conditions::{ConditionType, find};
use vpptoken_operator::api::{
    FIELD_MANAGER, SYNC_REQUESTED_AT, UPLOAD_REQUESTED_AT, VppToken, VppTokenSpec, VppTokenStatus,
};

pub(crate) use history::History;
pub(crate) use looking::{EXPIRES, READY, RECONCILING, RENEWED, STALLED, condition, in_days, row};
pub(crate) use operator::Operator;
pub(crate) use plane::Plane;
pub(crate) use second::{Second, through};

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What differs from test to test.
pub(crate) struct Setup {
    /// The emulator's switches.
    pub emulator: Settings,
    /// `pollInterval` of the tenant.
    pub poll_interval: &'static str,
    /// More flags of the operator.
    pub flags: Vec<String>,
    /// More `--set` for the chart.
    pub values: Vec<String>,
    /// Watches all namespaces, not only that of the test: for control planes of a test's own.
    pub cluster_wide: bool,
    /// Watches a second namespace too: objects whose name begins with `elsewhere/` are there.
    pub elsewhere: bool,
    /// Has the chart installed by helm, so that helm can uninstall it.
    pub by_helm: bool,
}

impl Default for Setup {
    fn default() -> Self {
        // A test waits neither for a minute of settling nor for a quarter of an hour of an unknown outcome or a missing token.
        let flags = ["--settling-time", "2s", "--unknown-outcome-time", "3s", "--vanished-time", "3s"];
        let flags = flags.map(str::to_owned).to_vec();
        let emulator = Settings { sync_duration: Duration::from_millis(500), ..Settings::default() };
        Self {
            emulator,
            poll_interval: "5s",
            flags,
            values: Vec::new(),
            cluster_wide: false,
            elsewhere: false,
            by_helm: false,
        }
    }
}

/// Everything that one test needs.
pub(crate) struct World {
    /// The control plane, as an administrator sees it.
    pub plane: Plane,
    /// An administrator's client.
    pub client: Client,
    /// The namespace of the test: the operator lives there too.
    pub namespace: String,
    /// The second namespace, if there is one.
    pub elsewhere: String,
    /// The ClusterGraphTenant that the chart made.
    pub tenant: String,
    /// The Entra tenant.
    pub tenant_id: String,
    /// The app registration.
    pub client_id: String,
    /// Graph.
    pub emulator: Emulator,
    /// The operator under test.
    pub operator: Operator,
    secrets: std::sync::Mutex<Vec<String>>,
}

impl World {
    /// A world with the usual switches, on the shared control plane.
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    /// A world with other switches, on the shared control plane.
    pub(crate) async fn with(setup: Setup) -> Self {
        Self::on(Plane::shared().await, setup).await
    }

    /// A world on a control plane of one's own.
    pub(crate) async fn on(plane: Plane, setup: Setup) -> Self {
        let emulator = Emulator::start(setup.emulator.clone()).await.unwrap();
        let tenant_id = uuid::Uuid::new_v4().to_string();
        let client_id = uuid::Uuid::new_v4().to_string();
        let client_secret = format!("client-secret-{}", uuid::Uuid::new_v4().simple());
        emulator.add_app(&tenant_id, &client_id, client_secret.as_str());
        Self::install(plane, setup, emulator, tenant_id, client_id, vec![client_secret]).await
    }

    /// The cluster is lost, and there is another one for the same Entra tenant: a fresh namespace, tenant object and
    /// operator.
    pub(crate) async fn rebuilt(self, setup: Setup) -> Self {
        self.operator.kill();
        let Self { plane, emulator, tenant_id, client_id, secrets, .. } = self;
        let secrets = secrets.into_inner().unwrap();
        Self::install(plane, setup, emulator, tenant_id, client_id, secrets).await
    }

    /// The first of the secrets is the client secret.
    async fn install(
        plane: Plane,
        setup: Setup,
        emulator: Emulator,
        tenant_id: String,
        client_id: String,
        secrets: Vec<String>,
    ) -> Self {
        let client = plane.client().await;
        let unique = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        let namespace = format!("test-{unique}");
        plane.create_namespace(&client, &namespace).await;
        let mut watched = vec![namespace.clone()];
        let mut elsewhere = String::new();
        if setup.elsewhere {
            elsewhere = format!("aside-{unique}");
            plane.create_namespace(&client, &elsewhere).await;
            watched.push(elsewhere.clone());
        }
        let watched = watched.join(",");
        let (watching, mut flags) = if setup.cluster_wide {
            ("watchNamespaces=null".to_owned(), Vec::new())
        } else {
            (format!("watchNamespaces={{{watched}}}"), vec!["--watch-namespaces".to_owned(), watched])
        };
        flags.extend(setup.flags);
        let mut values = vec![
            watching,
            "tenant.create=true".to_owned(),
            format!("tenant.name={namespace}"),
            format!("tenant.tenantId={tenant_id}"),
            format!("tenant.clientId={client_id}"),
            "tenant.clientSecretRef.name=graph".to_owned(),
            "tenant.allowedNamespaces.from=All".to_owned(),
            "tenant.allowedOperations={Create,Adopt,Bind,Delete}".to_owned(),
            format!("tenant.pollInterval={}", setup.poll_interval),
        ];
        values.extend(setup.values);
        plane.install_chart(&namespace, &values, setup.by_helm).await;
        let operator = Operator::new(&plane, &namespace, &emulator.url(), &flags).await;
        let client_secret = secrets[0].clone();
        let world = Self {
            plane,
            client,
            tenant: namespace.clone(),
            namespace,
            elsewhere,
            tenant_id,
            client_id,
            emulator,
            operator,
            secrets: std::sync::Mutex::new(secrets),
        };
        world.write_secret("graph", "clientSecret", &client_secret).await;
        world.operator.start().await;
        world
    }

    /// The namespace that a name belongs to, and the rest of the name.
    pub(crate) fn place<'a>(&'a self, name: &'a str) -> (&'a str, &'a str) {
        match name.strip_prefix("elsewhere/") {
            Some(name) => (&self.elsewhere, name),
            None => (&self.namespace, name),
        }
    }

    /// Where a VppToken is, and what it is called there.
    pub(crate) fn at<'a>(&'a self, name: &'a str) -> (Api<VppToken>, &'a str) {
        let (namespace, name) = self.place(name);
        (Api::namespaced(self.client.clone(), namespace), name)
    }

    /// A valid token file of an organization, whose content is searched for at the end.
    pub(crate) fn token(&self, organization: &str, expires: &str) -> TokenFile {
        let file = TokenFile::new(organization, expires.parse::<Timestamp>().unwrap());
        let mut secrets = self.secrets.lock().unwrap();
        secrets.push(file.text());
        secrets.push(file.inner().to_owned());
        file
    }

    /// Something else that must not be seen anywhere.
    pub(crate) fn must_not_leak(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    /// Creates or replaces a Secret with one key.
    pub(crate) async fn write_secret(&self, name: &str, key: &str, value: &str) {
        let (namespace, name) = self.place(name);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            string_data: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            ..Secret::default()
        };
        if let Some(old) = api.get_opt(name).await.unwrap() {
            let secret = Secret {
                metadata: ObjectMeta { resource_version: old.resource_version(), ..secret.metadata },
                ..secret
            };
            api.replace(name, &PostParams::default(), &secret).await.unwrap();
        } else {
            api.create(&PostParams::default(), &secret).await.unwrap();
        }
    }

    /// Removes a Secret.
    pub(crate) async fn remove_secret(&self, name: &str) {
        let (namespace, name) = self.place(name);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The VppTokens of the test.
    pub(crate) fn tokens(&self) -> Api<VppToken> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The smallest spec: Secret NAME, and the Apple ID vpp.NAME@contoso.example.
    pub(crate) fn spec(&self, name: &str) -> Value {
        let (_, name) = self.place(name);
        json!({
            "tokenSecretRef": { "name": name },
            "tenantRef": { "name": self.tenant },
            "appleId": format!("vpp.{name}@contoso.example"),
        })
    }

    /// Writes the file into the Secret NAME and creates the VppToken NAME; `more` is merged into its spec.
    pub(crate) async fn create(&self, name: &str, file: &TokenFile, more: Value) -> VppToken {
        self.write_secret(name, "token", &file.text()).await;
        self.create_token(name, more).await
    }

    /// Creates the VppToken NAME alone; `more` is merged into its spec.
    pub(crate) async fn create_token(&self, name: &str, more: Value) -> VppToken {
        let mut spec = self.spec(name);
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            spec[key] = value;
        }
        let spec: VppTokenSpec = serde_json::from_value(spec).unwrap();
        let (tokens, name) = self.at(name);
        tokens.create(&PostParams::default(), &VppToken::new(name, spec)).await.unwrap()
    }

    /// Merges a patch into a VppToken.
    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        let (tokens, name) = self.at(name);
        tokens.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Asks for a sync with a value of the annotation.
    pub(crate) async fn request_sync(&self, name: &str, value: &str) {
        self.patch(name, json!({ "metadata": { "annotations": { SYNC_REQUESTED_AT: value } } })).await;
    }

    /// Asks for an upload with a value of the annotation.
    pub(crate) async fn request_upload(&self, name: &str, value: &str) {
        self.patch(name, json!({ "metadata": { "annotations": { UPLOAD_REQUESTED_AT: value } } })).await;
    }

    /// The status of a VppToken as it is now.
    pub(crate) async fn status(&self, name: &str) -> VppTokenStatus {
        let (tokens, name) = self.at(name);
        tokens.get_status(name).await.unwrap().status.unwrap_or_default()
    }

    /// Waits for a status, and returns it.
    pub(crate) async fn wait_status(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&VppTokenStatus) -> bool,
    ) -> VppTokenStatus {
        let last = std::sync::Mutex::new(VppTokenStatus::default());
        let (tokens, own_name) = self.at(name);
        let arrived = until(LIMIT, || async {
            // The API server may be down in some tests.
            if let Ok(object) = tokens.get_status(own_name).await {
                *last.lock().unwrap() = object.status.unwrap_or_default();
            }
            holds(&last.lock().unwrap())
        })
        .await;
        let last = last.into_inner().unwrap();
        assert!(arrived, "{name} never became {what}:\n{last:#?}\n{}", self.operator.log_end());
        last
    }

    /// Waits until a VppToken is ready.
    pub(crate) async fn wait_ready(&self, name: &str) -> VppTokenStatus {
        self.wait_status(name, "ready", is_ready).await
    }

    /// Waits until Ready has a reason.
    pub(crate) async fn wait_reason(&self, name: &str, reason: &str) -> VppTokenStatus {
        self.wait_status(name, reason, |status| {
            find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
        })
        .await
    }

    /// Waits until a VppToken is ready and its last sync completed.
    pub(crate) async fn wait_synced(&self, name: &str) -> VppTokenStatus {
        self.wait_status(name, "ready and synced", |status| {
            is_ready(status) && status.last_sync_status.as_deref() == Some("completed")
        })
        .await
    }

    /// Waits until a requested sync was started and has completed since.
    pub(crate) async fn wait_requested_sync(&self, name: &str, request: &str) -> VppTokenStatus {
        self.wait_status(name, "synced as requested", |status| {
            status.last_handled_sync_request.as_deref() == Some(request)
                && status.last_sync_status.as_deref() == Some("completed")
                && status.last_sync_date_time >= status.last_sync_trigger_time
        })
        .await
    }

    /// Waits for something in the emulator.
    pub(crate) async fn wait_graph(&self, what: &str, holds: impl FnMut(&graph_emulator::View<'_>) -> bool) {
        assert!(self.emulator.wait_for(holds, LIMIT).await, "Graph never had {what}\n{}", self.operator.log_end());
    }

    /// The tokens that Graph has.
    pub(crate) fn entities(&self) -> Vec<graph_emulator::Entity> {
        self.emulator.entities(&self.tenant_id)
    }

    /// The events of the test's namespace that the operator wrote.
    pub(crate) async fn events(&self) -> Vec<Event> {
        self.events_in(&self.namespace).await
    }

    async fn events_in(&self, namespace: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let events = api.list(&ListParams::default()).await.unwrap();
        events.into_iter().filter(|event| event.reporting_controller.as_deref() == Some(FIELD_MANAGER)).collect()
    }

    /// Ends the test: nothing secret was found in statuses, events or logs; the namespace is deleted.
    pub(crate) async fn finish(self) {
        self.assert_nothing_leaked().await;
        self.operator.kill();
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for namespace in [&self.namespace, &self.elsewhere] {
            let _ = namespaces.delete(namespace, &DeleteParams::default()).await;
        }
    }

    /// Searches statuses, events, tenant objects, the operator's log and metrics for the content of Secrets.
    pub(crate) async fn assert_nothing_leaked(&self) {
        let mut seen = String::new();
        for namespace in [&self.namespace, &self.elsewhere].into_iter().filter(|namespace| !namespace.is_empty()) {
            let tokens: Api<VppToken> = Api::namespaced(self.client.clone(), namespace);
            seen.push_str(&serde_json::to_string(&tokens.list(&ListParams::default()).await.unwrap()).unwrap());
            seen.push_str(&serde_json::to_string(&self.events_in(namespace).await).unwrap());
        }
        let tenants = self.plane.kubectl(&["get", "clustergraphtenants", &self.tenant, "-o", "json"]).await;
        seen.push_str(&tenants.stdout);
        let tenants = self.plane.kubectl(&["get", "graphtenants", "-n", &self.namespace, "-o", "json"]).await;
        seen.push_str(&tenants.stdout);
        seen.push_str(&self.operator.log());
        seen.push_str(&self.operator.metrics().await);
        let secrets = self.secrets.lock().unwrap().clone();
        // A Secret's data is written in base64.
        let encoded = secrets.iter().map(|secret| STANDARD.encode(secret));
        for secret in secrets.iter().cloned().chain(encoded) {
            // A part of it would be as bad as all of it.
            let pieces = [&secret[..secret.len().min(20)], &secret[secret.len().saturating_sub(20)..]];
            for piece in pieces.into_iter().filter(|piece| piece.len() > 5) {
                assert!(!seen.contains(piece), "the content of a Secret was seen: {}…", &piece[..4]);
            }
        }
    }
}

/// The first full minute that leaves the operator 20 s to learn of a schedule.
pub(crate) fn soon() -> Timestamp {
    Timestamp::from_second(((Timestamp::now().as_second() + 20) / 60 + 1) * 60).unwrap()
}

/// `spec.sync` that is due at the minute of this time, every hour.
pub(crate) fn hourly(time: Timestamp) -> Value {
    json!({ "sync": { "schedule": format!("{} * * * *", time.in_tz("UTC").unwrap().minute()), "timeZone": "UTC" } })
}

/// Whether Ready is True.
pub(crate) fn is_ready(status: &VppTokenStatus) -> bool {
    find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
}

/// Repeats a check until it succeeds, within a limit.
pub(crate) async fn until<F: Future<Output = bool>>(limit: Duration, mut holds: impl FnMut() -> F) -> bool {
    let end = tokio::time::Instant::now() + limit;
    loop {
        if holds().await {
            return true;
        }
        if tokio::time::Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
