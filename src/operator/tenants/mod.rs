//! Keeps a session for each tenant object that a VppToken uses, tells VppTokens of what changed there, and has the tenants'
//! statuses written.

mod objects;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Settings;
use super::metrics::Metrics;
use super::watches::TenantCaches;
use crate::api::{Credentials, FINALIZER, Reason, TenantConnection, TenantKind, VppToken, VppTokenTenant};
use crate::graph::{Credential, GraphClient};
use crate::schedule::duration;
use crate::tenant::{Budgets, Change, Directory, Session, SessionSettings, Tenant, TenantKey, Unusable};
use crate::vpptoken::{Context, tenant_key};
use objects::TenantObject;

/// Statuses of tenants are written at most this often: while many tokens are created, their number changes all the time.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Even if nothing is said to have changed, look again.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often a tenant whose object is gone is listed, while nothing needs it.
const QUIET: Duration = Duration::from_secs(365 * 24 * 3600);

/// A session and what it was opened with.
struct Opened {
    connection: TenantConnection,
    secret_version: String,
    /// Why the newest credentials could not be read, so that older ones are still in use.
    worry: Option<String>,
    session: Arc<Session>,
    task: AbortHandle,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A version of a Secret that does not hold what is needed: it need not be read again.
struct Useless {
    credentials: Credentials,
    secret_version: String,
    why: Unusable,
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
    useless: HashMap<TenantKey, Useless>,
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
            useless: HashMap::new(),
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
        let mut look_at = Instant::now();
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
                () = tokio::time::sleep_until(look_at) => {
                    self.look().await;
                    look_at = Instant::now() + LOOK_EVERY;
                }
            }
        }
    }

    /// Opens, changes and closes sessions, so that there is one for each tenant object in use.
    async fn look(&mut self) {
        let used = self.used();
        for key in self.directory().keep_only(&used) {
            self.opened.remove(&key);
            self.useless.remove(&key);
        }
        for key in used {
            let before = self.directory().find(&key);
            let tenant = match objects::find(&self.caches, &key) {
                None if self.may_serve_a_deletion(&key) => {
                    self.keep_for_deletions(&key);
                    before.clone().flatten().map(|tenant| Tenant { is_gone: true, ..tenant })
                }
                None => {
                    self.opened.remove(&key);
                    self.useless.remove(&key);
                    None
                }
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

    /// Whether the credentials in memory are all that a VppToken with our finalizer will have for deleting its token.
    fn may_serve_a_deletion(&self, key: &TenantKey) -> bool {
        self.opened.contains_key(key) && self.context.caches.all_tokens().any(|object| is_finalized(&object, key))
    }

    /// Nothing is asked of Graph for a tenant object that is gone, until a VppToken of it is being deleted.
    fn keep_for_deletions(&self, key: &TenantKey) {
        let Some(opened) = self.opened.get(key) else { return };
        let is_needed = self
            .context
            .caches
            .all_tokens()
            .any(|object| is_finalized(&object, key) && object.metadata.deletion_timestamp.is_some());
        let mut settings = self.session_settings(&opened.connection);
        if !is_needed {
            settings.poll_interval = QUIET;
        }
        opened.session.set_settings(settings);
    }

    fn session_settings(&self, connection: &TenantConnection) -> SessionSettings {
        SessionSettings {
            poll_interval: duration(&connection.poll_interval)
                .map_or(Duration::from_secs(300), |interval| interval.unsigned_abs()),
            timings: self.settings.timings,
        }
    }

    async fn open(&mut self, key: &TenantKey, found: TenantObject) -> Tenant {
        let connection = found.connection.clone();
        let identity =
            VppTokenTenant { cloud: connection.cloud, tenant_id: connection.tenant_id.clone(), api: connection.api };
        let session = self.session(key, &connection).await;
        Tenant { is_gone: false, access: found.access, identity, encoding: connection.token_encoding, session }
    }

    async fn session(&mut self, key: &TenantKey, connection: &TenantConnection) -> Result<Arc<Session>, Unusable> {
        let settings = self.session_settings(connection);
        let secret_ref = &connection.credentials.client_secret_ref;
        let version = self.context.caches.secret_version(self.secret_namespace(key), &secret_ref.name);
        let is_same_app = |opened: &Opened| {
            let before = &opened.connection;
            (&before.tenant_id, &before.client_id, before.cloud, before.api)
                == (&connection.tenant_id, &connection.client_id, connection.cloud, connection.api)
        };
        if self.opened.get(key).is_some_and(|opened| !is_same_app(opened)) {
            self.opened.remove(key);
        }
        let credentials = &connection.credentials;
        if let Some(opened) = self.opened.get(key) {
            let session = Arc::clone(&opened.session);
            session.set_settings(settings);
            let is_newest = &opened.connection.credentials == credentials
                && version.as_ref().is_some_and(|version| *version == opened.secret_version);
            let found = if is_newest { None } else { Some(self.credential(key, connection, version).await) };
            if let Some(opened) = self.opened.get_mut(key) {
                opened.worry = None;
                match found {
                    None => {}
                    Some(Ok((credential, version))) => {
                        session.set_credential(credential);
                        opened.connection = connection.clone();
                        opened.secret_version = version;
                    }
                    // A Secret that is gone or useless is no reason to forget what it held, but one to say so.
                    Some(Err(why)) => opened.worry = Some(why.message),
                }
            }
            return Ok(session);
        }
        let (credential, secret_version) = self.credential(key, connection, version).await?;
        let endpoints = self.settings.endpoints(connection.cloud);
        let metrics = Arc::clone(&self.metrics);
        let meter = Arc::new(move |operation, status, took| metrics.requested(operation, status, took));
        let budget_key = (endpoints.graph.clone(), connection.tenant_id.clone(), connection.client_id.clone());
        let client = GraphClient::new(
            endpoints,
            connection.api,
            &connection.tenant_id,
            &connection.client_id,
            credential,
            meter,
        )
        .map_err(|error| Unusable { reason: Reason::GraphUnavailable, message: error.to_string() })?;
        let (sender, key_of_change) = (self.tell_change.clone(), key.clone());
        let on_change = Box::new(move |change| {
            // A closed channel means that the operator stops.
            let _ = sender.send((key_of_change.clone(), change));
        });
        let session = Arc::new(Session::new(client, settings, Arc::clone(&self.budgets), budget_key, on_change));
        let task = tokio::spawn(Arc::clone(&session).run()).abort_handle();
        let opened =
            Opened { connection: connection.clone(), secret_version, worry: None, session: Arc::clone(&session), task };
        self.opened.insert(key.clone(), opened);
        Ok(session)
    }

    /// The client secret, and the version of the Secret that holds it. Each version is read once.
    async fn credential(
        &mut self,
        key: &TenantKey,
        connection: &TenantConnection,
        version: Option<String>,
    ) -> Result<(Credential, String), Unusable> {
        let whose = format!("the client secret of {} \"{}\"", key.kind, key.name);
        // VppTokens of other namespaces are told, too.
        let which = match &key.namespace {
            Some(_) => format!("Secret \"{}\"", connection.credentials.client_secret_ref.name),
            None => "The Secret".to_owned(),
        };
        let Some(secret_version) = version else {
            let message = format!("{which} with {whose} is not there.");
            return Err(Unusable { reason: Reason::SecretNotFound, message });
        };
        let credentials = connection.credentials.clone();
        if let Some(useless) = self.useless.get(key)
            && (&useless.credentials, &useless.secret_version) == (&credentials, &secret_version)
        {
            return Err(useless.why.clone());
        }
        let reference = &credentials.client_secret_ref;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.secret_namespace(key));
        let secret = api.get(&reference.name).await.map_err(|error| {
            tracing::warn!(%error, "the Secret of a tenant can't be read");
            let message = format!("{which} with {whose} can't be read; it is tried again.");
            let is_refused = matches!(&error, kube::Error::Api(status) if status.code == 403);
            let reason = if is_refused { Reason::SecretNotReadable } else { Reason::TenantNotRead };
            Unusable { reason, message }
        })?;
        let bytes = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let text = bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).map(str::trim);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.useless.remove(key);
            return Ok((Credential::ClientSecret(SecretString::from(text)), secret_version));
        }
        let message = format!("{which} with {whose} has no text under the key that clientSecretRef names.");
        let why = Unusable { reason: Reason::SecretKeyNotFound, message };
        self.useless.insert(key.clone(), Useless { credentials, secret_version, why: why.clone() });
        Err(why)
    }

    /// Where the Secrets of a tenant object live.
    fn secret_namespace<'a>(&'a self, key: &'a TenantKey) -> &'a str {
        key.namespace.as_deref().unwrap_or(&self.namespace)
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
        let used: BTreeSet<TenantKey> = self.used();
        for key in objects::all(&self.caches).into_iter().filter(|key| !used.contains(key)) {
            // Whether a VppToken of a namespace that is not watched uses it, another operator knows.
            let is_mine = key.kind == TenantKind::GraphTenant || self.settings.watch_namespaces.is_empty();
            if let Some(object) = objects::find(&self.caches, &key).filter(|_| is_mine) {
                status::write_unused(&self.client, &key, &object).await;
            }
        }
        for key in used {
            if let (Some(object), Some(Some(tenant))) = (objects::find(&self.caches, &key), self.directory().find(&key))
            {
                let claimed = status::claimed(&self.context.caches, &tenant.identity);
                let session = tenant.session.map(|session| session.view());
                let worry = self.opened.get(&key).and_then(|opened| opened.worry.as_deref());
                status::write(&self.client, &key, &object, session, worry, &claimed).await;
            }
        }
    }

    /// The tenant objects that VppTokens refer to.
    fn used(&self) -> BTreeSet<TenantKey> {
        self.context.caches.all_tokens().filter_map(|object| tenant_key(&object)).collect()
    }

    fn directory(&self) -> &Directory {
        &self.context.directory
    }
}

/// Whether a VppToken of a tenant object has our finalizer.
fn is_finalized(object: &VppToken, key: &TenantKey) -> bool {
    tenant_key(object).as_ref() == Some(key) && object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

fn is_same(before: &Tenant, now: &Tenant) -> bool {
    before.is_gone == now.is_gone
        && before.access == now.access
        && before.identity == now.identity
        && before.encoding == now.encoding
        && match (&before.session, &now.session) {
            (Ok(before), Ok(now)) => Arc::ptr_eq(before, now),
            (Err(before), Err(now)) => before == now,
            _ => false,
        }
}
