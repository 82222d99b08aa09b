//! Keeps a session for each tenant object that a VppToken uses, tells VppTokens of what changed there, and writes the
//! tenants' statuses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Settings;
use super::metrics::Metrics;
use super::watches::TenantCaches;
use crate::api::conditions::{self, ConditionStatus, ConditionType, Saying};
use crate::api::{
    ClusterGraphTenant, FIELD_MANAGER, GraphTenant, Reason, TenantConnection, TenantKind, TenantStatus, VppToken,
    VppTokenTenant,
};
use crate::graph::{Credential, ErrorKind, GraphClient};
use crate::schedule::duration;
use crate::tenant::{Access, Budgets, Change, Directory, Session, SessionSettings, Tenant, TenantKey, Unusable};
use crate::vpptoken::{Context, plan, tenant_key};

/// Statuses of tenants are written at most this often: while many tokens are created, their number changes all the time.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Even if nothing is said to have changed, look again.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A tenant object as the cache has it, whichever kind.
#[derive(Clone)]
struct Found {
    connection: TenantConnection,
    access: Access,
    generation: i64,
    status: TenantStatus,
    version: Option<String>,
}

/// A session and what it was opened with.
struct Opened {
    connection: TenantConnection,
    secret_version: String,
    session: Arc<Session>,
    task: AbortHandle,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps the sessions.
pub(super) struct Keeper {
    settings: Settings,
    namespace: String,
    client: Client,
    context: Arc<Context>,
    caches: TenantCaches,
    metrics: Arc<Metrics>,
    budgets: Arc<Budgets>,
    opened: HashMap<TenantKey, Opened>,
    changes: mpsc::UnboundedReceiver<(TenantKey, Change)>,
    tell_change: mpsc::UnboundedSender<(TenantKey, Change)>,
}

impl Keeper {
    pub(super) fn new(
        settings: Settings,
        namespace: String,
        client: Client,
        context: Arc<Context>,
        caches: TenantCaches,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (tell_change, changes) = mpsc::unbounded_channel();
        Self {
            settings,
            namespace,
            client,
            context,
            caches,
            metrics,
            budgets: Arc::default(),
            opened: HashMap::new(),
            changes,
            tell_change,
        }
    }

    pub(super) async fn wait_until_ready(&self) {
        for store in &self.caches.graph {
            let _ = store.wait_until_ready().await;
        }
        let _ = self.caches.cluster.wait_until_ready().await;
    }

    /// Looks whenever something changed, for ever.
    pub(super) async fn run(mut self, changed: Arc<Notify>) -> &'static str {
        let mut write_at = Instant::now();
        let mut to_write = true;
        loop {
            tokio::select! {
                () = changed.notified() => {
                    self.look().await;
                    to_write = true;
                }
                Some((key, change)) = self.changes.recv() => {
                    self.tell(&key, &change);
                    to_write = true;
                }
                () = tokio::time::sleep_until(write_at), if to_write => {
                    self.write_statuses().await;
                    to_write = false;
                    write_at = Instant::now() + STATUS_EVERY;
                }
                () = tokio::time::sleep(LOOK_EVERY) => self.look().await,
            }
        }
    }

    /// Opens, changes and closes sessions, so that there is one for each tenant object in use.
    async fn look(&mut self) {
        let used: BTreeSet<TenantKey> =
            self.context.caches.all_tokens().filter_map(|object| tenant_key(&object)).collect();
        for key in self.directory().keep_only(&used) {
            self.opened.remove(&key);
        }
        for key in used {
            let before = self.directory().find(&key);
            let tenant = match self.find(&key) {
                None => None,
                Some(found) => Some(self.open(&key, found).await),
            };
            let is_news = match (&before, &tenant) {
                (Some(Some(before)), Some(now)) => !is_same(before, now),
                (Some(None), None) => false,
                _ => true,
            };
            self.directory().enter(key.clone(), tenant);
            if is_news {
                self.tell(&key, &Change { problem: true, ..Change::default() });
            }
        }
    }

    async fn open(&mut self, key: &TenantKey, found: Found) -> Tenant {
        let connection = found.connection.clone();
        let identity =
            VppTokenTenant { cloud: connection.cloud, tenant_id: connection.tenant_id.clone(), api: "V1".to_owned() };
        let session = self.session(key, &connection).await;
        Tenant { access: found.access, identity, encoding: connection.token_encoding, session }
    }

    async fn session(&mut self, key: &TenantKey, connection: &TenantConnection) -> Result<Arc<Session>, Unusable> {
        let settings = SessionSettings {
            poll_interval: duration(&connection.poll_interval)
                .map_or(Duration::from_secs(300), |interval| interval.unsigned_abs()),
            timings: self.settings.timings,
        };
        let secret_ref = &connection.credentials.client_secret_ref;
        let version = self.context.caches.secret_version(self.secret_namespace(key), &secret_ref.name);
        let is_same_app = |opened: &Opened| {
            (&opened.connection.tenant_id, &opened.connection.client_id, opened.connection.cloud)
                == (&connection.tenant_id, &connection.client_id, connection.cloud)
        };
        if self.opened.get(key).is_some_and(|opened| !is_same_app(opened)) {
            self.opened.remove(key);
        }
        if let Some(opened) = self.opened.get_mut(key) {
            opened.session.set_settings(settings.clone());
            // A Secret that is gone or unreadable for a while is no reason to forget what it held.
            let is_other_key = opened.connection.credentials != connection.credentials;
            let newer = version.clone().filter(|version| is_other_key || *version != opened.secret_version);
            let session = Arc::clone(&opened.session);
            if let Some(version) = newer
                && let Ok(credential) = self.credential(key, connection).await
            {
                session.set_credential(credential).await;
                if let Some(opened) = self.opened.get_mut(key) {
                    opened.connection = connection.clone();
                    opened.secret_version = version;
                }
            }
            return Ok(session);
        }
        let credential = self.credential(key, connection).await?;
        let endpoints = self.settings.endpoints(connection.cloud);
        let metrics = Arc::clone(&self.metrics);
        let meter = Arc::new(move |operation, status, took| metrics.requested(operation, status, took));
        let budget_key = (endpoints.graph.clone(), connection.tenant_id.clone(), connection.client_id.clone());
        let client = GraphClient::new(endpoints, &connection.tenant_id, &connection.client_id, credential, meter)
            .map_err(|error| Unusable { reason: Reason::GraphUnavailable, message: error.to_string() })?;
        let (sender, key_of_change) = (self.tell_change.clone(), key.clone());
        let on_change = Box::new(move |change| {
            // A closed channel means that the operator stops.
            let _ = sender.send((key_of_change.clone(), change));
        });
        let session = Arc::new(Session::new(client, settings, Arc::clone(&self.budgets), budget_key, on_change));
        let task = tokio::spawn(Arc::clone(&session).run()).abort_handle();
        let opened = Opened {
            connection: connection.clone(),
            secret_version: version.unwrap_or_default(),
            session: Arc::clone(&session),
            task,
        };
        self.opened.insert(key.clone(), opened);
        Ok(session)
    }

    /// Reads the client secret now.
    async fn credential(&self, key: &TenantKey, connection: &TenantConnection) -> Result<Credential, Unusable> {
        let reference = &connection.credentials.client_secret_ref;
        let whose = format!("the client secret of {} \"{}\"", key.kind, key.name);
        let unusable = |reason, message| Err(Unusable { reason, message });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.secret_namespace(key));
        let secret = match api.get_opt(&reference.name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => return unusable(Reason::SecretNotFound, format!("The Secret with {whose} is not there.")),
            Err(error) => {
                tracing::warn!(%error, "the Secret of a tenant can't be read");
                return unusable(Reason::SecretNotFound, format!("The Secret with {whose} can't be read."));
            }
        };
        let bytes = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let text =
            bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).map(str::trim).filter(|text| !text.is_empty());
        match text {
            Some(text) => Ok(Credential::ClientSecret(SecretString::from(text))),
            None => unusable(
                Reason::SecretKeyNotFound,
                format!("The Secret with {whose} has no text under the key that clientSecretRef names."),
            ),
        }
    }

    /// Where the Secrets of a tenant object live.
    fn secret_namespace<'a>(&'a self, key: &'a TenantKey) -> &'a str {
        key.namespace.as_deref().unwrap_or(&self.namespace)
    }

    fn find(&self, key: &TenantKey) -> Option<Found> {
        match key.kind {
            TenantKind::ClusterGraphTenant => {
                let object = self.caches.cluster.get(&ObjectRef::new(&key.name))?;
                Some(Found {
                    connection: object.spec.connection.clone(),
                    access: Access::of(&object.spec),
                    generation: object.metadata.generation.unwrap_or_default(),
                    status: object.status.clone().unwrap_or_default(),
                    version: object.resource_version(),
                })
            }
            TenantKind::GraphTenant => {
                let reference = ObjectRef::new(&key.name).within(key.namespace.as_deref()?);
                let object = self.caches.graph.iter().find_map(|store| store.get(&reference))?;
                Some(Found {
                    connection: object.spec.connection.clone(),
                    access: Access::own(),
                    generation: object.metadata.generation.unwrap_or_default(),
                    status: object.status.clone().unwrap_or_default(),
                    version: object.resource_version(),
                })
            }
        }
    }

    /// Wakes the VppTokens that a change concerns.
    fn tell(&self, key: &TenantKey, change: &Change) {
        for object in self.context.caches.all_tokens() {
            if tenant_key(&object).as_ref() == Some(key) && self.concerns(&object, change) {
                (self.context.wake)(&object.namespace().unwrap_or_default(), &object.name_any());
            }
        }
    }

    fn concerns(&self, object: &VppToken, change: &Change) -> bool {
        let id = object.status.as_ref().and_then(|status| status.token_id.as_deref());
        let awaits_list = || object.uid().is_some_and(|uid| self.context.desk.page(&uid).awaits_list);
        change.problem || id.map_or(!change.ids.is_empty(), |id| change.ids.contains(id)) || awaits_list()
    }

    async fn write_statuses(&self) {
        for (key, opened) in &self.opened {
            if let Some(found) = self.find(key) {
                let view = opened.session.view();
                let claimed = self.claimed(&found.connection);
                let listed = view.snapshot.read_at().is_some();
                let tokens = view.snapshot.entries().count();
                let unmanaged = view.snapshot.entries().filter(|entry| !claimed.contains(&entry.entity.id)).count();
                let saying = tenant_saying(&view.problem, listed, tokens);
                let status = TenantStatus {
                    observed_generation: Some(found.generation),
                    tokens: listed.then(|| i64::try_from(tokens).unwrap_or(i64::MAX)),
                    unmanaged_tokens: listed.then(|| i64::try_from(unmanaged).unwrap_or(i64::MAX)),
                    conditions: conditions::merge(
                        &found.status.conditions,
                        &[saying],
                        found.generation,
                        Timestamp::now(),
                    ),
                };
                self.write_status(key, &found, &status).await;
            }
        }
        let used: Vec<TenantKey> = self.context.caches.all_tokens().filter_map(|object| tenant_key(&object)).collect();
        for key in used.into_iter().collect::<BTreeSet<_>>() {
            if let (Some(found), Some(Some(Tenant { session: Err(unusable), .. }))) =
                (self.find(&key), self.directory().find(&key))
            {
                let saying = Saying {
                    type_: ConditionType::Ready,
                    status: ConditionStatus::False,
                    reason: unusable.reason,
                    message: unusable.message,
                };
                let status = TenantStatus {
                    observed_generation: Some(found.generation),
                    conditions: conditions::merge(
                        &found.status.conditions,
                        &[saying],
                        found.generation,
                        Timestamp::now(),
                    ),
                    ..found.status.clone()
                };
                self.write_status(&key, &found, &status).await;
            }
        }
    }

    /// The ids of the tenant's tokens that a VppToken has.
    fn claimed(&self, connection: &TenantConnection) -> BTreeSet<String> {
        let of_tenant = |tenant: &VppTokenTenant| {
            tenant.cloud == connection.cloud && tenant.tenant_id.eq_ignore_ascii_case(&connection.tenant_id)
        };
        let objects = self.context.caches.all_tokens();
        objects
            .filter_map(|object| {
                let status = object.status.as_ref()?;
                status.tenant.as_ref().filter(|tenant| of_tenant(tenant))?;
                status.token_id.clone()
            })
            .collect()
    }

    async fn write_status(&self, key: &TenantKey, found: &Found, status: &TenantStatus) {
        if found.status == *status {
            return;
        }
        let outcome = match (&key.kind, &key.namespace) {
            (TenantKind::GraphTenant, Some(namespace)) => {
                let api: Api<GraphTenant> = namespaced(&self.client, namespace);
                apply_status(&api, &key.name, found, status).await
            }
            _ => apply_status(&Api::<ClusterGraphTenant>::all(self.client.clone()), &key.name, found, status).await,
        };
        match outcome {
            Ok(()) => {}
            // It changed meanwhile: that change brings the next look.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
            Err(error) => tracing::warn!(tenant = key.name, %error, "the status of a tenant could not be written"),
        }
    }

    fn directory(&self) -> &Directory {
        &self.context.directory
    }
}

fn is_same(before: &Tenant, now: &Tenant) -> bool {
    before.access == now.access
        && before.identity == now.identity
        && before.encoding == now.encoding
        && match (&before.session, &now.session) {
            (Ok(before), Ok(now)) => Arc::ptr_eq(before, now),
            (Err(before), Err(now)) => before == now,
            _ => false,
        }
}

fn tenant_saying(problem: &Option<crate::tenant::Problem>, listed: bool, tokens: usize) -> Saying {
    let (status, reason, message) = match problem {
        Some(problem) => {
            let sentence = plan::failure_sentence(&problem.error.sentence, problem.error.code.as_deref());
            match problem.error.kind {
                ErrorKind::Credentials => (ConditionStatus::False, Reason::CredentialsRefused, sentence),
                ErrorKind::Forbidden | ErrorKind::Unauthorized => {
                    (ConditionStatus::False, Reason::PermissionMissing, plan::permission_sentence(&sentence))
                }
                ErrorKind::Throttled => (ConditionStatus::False, Reason::Throttled, sentence),
                _ => (ConditionStatus::False, Reason::GraphUnavailable, sentence),
            }
        }
        None if listed => {
            let plural = if tokens == 1 { "token" } else { "tokens" };
            (ConditionStatus::True, Reason::UpToDate, format!("The tenant's {plural} can be listed."))
        }
        None => (
            ConditionStatus::Unknown,
            Reason::TenantNotRead,
            "The tenant's tokens are being listed for the first time.".to_owned(),
        ),
    };
    Saying { type_: ConditionType::Ready, status, reason, message }
}

fn namespaced<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
    client: &Client,
    namespace: &str,
) -> Api<K> {
    Api::namespaced(client.clone(), namespace)
}

async fn apply_status<K>(api: &Api<K>, name: &str, found: &Found, status: &TenantStatus) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "resourceVersion": found.version },
        "status": status,
    });
    api.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await?;
    Ok(())
}
