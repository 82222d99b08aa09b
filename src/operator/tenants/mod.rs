//! Keeps a session for each tenant object that a VppToken uses, triggers VppTokens on changes there, and has the
//! tenants' statuses written.

mod objects;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Settings;
use super::metrics::Metrics;
use super::watch_state::{Kind, Watches};
use super::watches::TenantCaches;
use crate::api::{Credentials, EntraTenant, NamespacedName, Reason, TenantConnection, VppTokenTenant};
use crate::graph::{AppRegistration, Credential, GraphClient, Transport};
use crate::schedule::duration;
use crate::tenant::{
    AppKey, Callbacks, Change, Lookup, Session, SessionSettings, Tenant, TenantKey, TenantRegistry, Unusable,
    WriteRateLimiters,
};
use crate::vpptoken::caches::TokenCache;
use crate::vpptoken::context::Context;
use crate::vpptoken::references::References;
use objects::TenantObject;
use status::WriteOutcome;

/// Statuses of tenants are written at most this often: while many tokens are created, their number changes all the time.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// Sessions are checked this often, even without a notification, and statuses that could not be written are written again.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// A session whose task ended by a fault is opened again after this.
const REOPEN_DELAY: Duration = Duration::from_secs(10);

/// How often the tenant of a deleted object is listed, while nothing needs it.
const NO_POLL: Duration = Duration::from_secs(365 * 24 * 3600);

/// A session and what it was opened with.
struct OpenSession {
    connection: TenantConnection,
    secret_version: String,
    /// Why the newest credentials could not be read, so that older ones are still in use.
    warning: Option<String>,
    session: Arc<Session>,
    task: AbortHandle,
    used_at: Instant,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A version of a Secret that lacks what is needed: it is not read again.
struct UnusableSecret {
    credentials: Credentials,
    secret_version: String,
    why: Unusable,
}

/// Keeps the sessions.
pub(super) struct SessionManager {
    settings: Settings,
    namespace: String,
    transport: Transport,
    context: Arc<Context>,
    caches: TenantCaches,
    watches: Watches,
    metrics: Arc<Metrics>,
    limiters: Arc<WriteRateLimiters>,
    open_sessions: HashMap<TenantKey, OpenSession>,
    unusable_secrets: HashMap<TenantKey, UnusableSecret>,
    changes: mpsc::UnboundedReceiver<(TenantKey, Change)>,
    change_sender: mpsc::UnboundedSender<(TenantKey, Change)>,
    /// Sessions whose task ended.
    ended: mpsc::UnboundedReceiver<(TenantKey, Arc<Session>)>,
    end_sender: mpsc::UnboundedSender<(TenantKey, Arc<Session>)>,
    /// Tenant objects that no VppToken uses any more, whose status still describes their session.
    released: BTreeSet<TenantKey>,
}

impl SessionManager {
    pub(super) fn new(
        settings: Settings,
        namespace: String,
        transport: Transport,
        context: Arc<Context>,
        caches: TenantCaches,
        watches: Watches,
        metrics: Arc<Metrics>,
    ) -> Self {
        let limiters = Arc::new(WriteRateLimiters::new(settings.limits));
        let (change_sender, changes) = mpsc::unbounded_channel();
        let (end_sender, ended) = mpsc::unbounded_channel();
        Self {
            settings,
            namespace,
            transport,
            context,
            caches,
            watches,
            metrics,
            limiters,
            open_sessions: HashMap::new(),
            unusable_secrets: HashMap::new(),
            changes,
            change_sender,
            ended,
            end_sender,
            released: BTreeSet::new(),
        }
    }

    /// Reconciles whenever something changed, for ever.
    pub(super) async fn run(mut self, changed: Arc<Notify>) -> &'static str {
        let mut write_at = Instant::now();
        let mut to_write = true;
        let mut has_failed = false;
        let mut resync_at = Instant::now();
        let mut watches = self.watches.subscribe();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(write_at), if to_write => {
                    has_failed = !self.write_statuses().await;
                    to_write = false;
                    write_at = Instant::now() + STATUS_INTERVAL;
                }
                () = tokio::time::sleep_until(resync_at) => {
                    self.sync_sessions().await;
                    to_write |= has_failed || !self.released.is_empty();
                    resync_at = Instant::now() + RESYNC_INTERVAL;
                }
                Some((key, change)) = self.changes.recv() => {
                    self.notify_tokens(&key, &change);
                    to_write = true;
                }
                Some((key, session)) = self.ended.recv() => {
                    if self.open_sessions.get(&key).is_some_and(|open| Arc::ptr_eq(&open.session, &session)) {
                        self.open_sessions.remove(&key);
                        self.sync_sessions().await;
                    }
                }
                Ok(()) = watches.changed() => {
                    // What could not be read before may exist now.
                    self.sync_sessions().await;
                    to_write = true;
                }
                () = changed.notified() => {
                    self.sync_sessions().await;
                    to_write = true;
                }
            }
        }
    }

    /// Opens, changes and closes sessions, so that there is one for each tenant object in use.
    async fn sync_sessions(&mut self) {
        let used = self.used();
        // Before their versions are looked at: a Secret that changes after that is told of.
        self.registry().set_secrets(self.secrets_of(&used));
        for key in self.registry().keep_only(&used) {
            self.open_sessions.remove(&key);
            self.unusable_secrets.remove(&key);
            self.released.insert(key);
        }
        for key in used {
            self.released.remove(&key);
            if !self.is_read(Kind::GraphTenants, &key) {
                // Whether it exists is not known.
                continue;
            }
            let before = self.registry().find(&key);
            let tenant = match objects::find(&self.caches, &key) {
                None if self.may_serve_a_deletion(&key) => {
                    self.keep_for_deletions(&key);
                    before.clone().found().map(|tenant| Tenant { is_deleted: true, ..Tenant::clone(&tenant) })
                }
                None => {
                    self.open_sessions.remove(&key);
                    self.unusable_secrets.remove(&key);
                    None
                }
                Some(found) => Some(self.tenant(&key, found).await),
            };
            let is_news = match (&before, &tenant) {
                (Lookup::Found(before), Some(now)) => !is_same(before, now),
                (Lookup::NotFound, None) => false,
                (Lookup::NotRead | Lookup::NotFound, _) | (Lookup::Found(_), None) => true,
            };
            self.registry().set(key.clone(), tenant);
            if is_news {
                self.notify_tokens(&key, &Change { problem: true, ..Change::default() });
            }
        }
    }

    /// The Secrets with the credentials of tenant objects.
    fn secrets_of(&self, used: &BTreeSet<TenantKey>) -> BTreeSet<NamespacedName> {
        let secret = |key: &TenantKey| {
            let found = objects::find(&self.caches, key)?;
            let name = found.connection.credentials.client_secret_ref.name;
            Some(NamespacedName::new(self.secret_namespace(key), name))
        };
        used.iter().filter_map(secret).collect()
    }

    /// Whether the cache of a kind was read where a tenant object lives. That of the ClusterGraphTenants was, before the start.
    fn is_read(&self, kind: Kind, key: &TenantKey) -> bool {
        key.namespace.as_deref().is_none_or(|namespace| self.watches.is_read(kind, namespace))
    }

    /// Whether a VppToken with our finalizer may need the credentials in memory to delete its token.
    fn may_serve_a_deletion(&self, key: &TenantKey) -> bool {
        self.open_sessions.contains_key(key)
            && self.context.local_state.references(|references| references.has_finalized(key, false))
    }

    /// Nothing is requested from Graph for a deleted tenant object, until a VppToken of it is being deleted.
    fn keep_for_deletions(&self, key: &TenantKey) {
        let Some(open) = self.open_sessions.get(key) else { return };
        let is_needed = self.context.local_state.references(|references| references.has_finalized(key, true));
        let mut settings = self.session_settings(&open.connection);
        if !is_needed {
            settings.poll_interval = NO_POLL;
        }
        open.session.set_settings(settings);
    }

    fn session_settings(&self, connection: &TenantConnection) -> SessionSettings {
        SessionSettings {
            poll_interval: duration(&connection.poll_interval)
                .map_or(Duration::from_secs(300), |interval| interval.unsigned_abs()),
            timings: self.settings.timings,
        }
    }

    async fn tenant(&mut self, key: &TenantKey, found: TenantObject) -> Tenant {
        let connection = found.connection.clone();
        let identity =
            VppTokenTenant { cloud: connection.cloud, tenant_id: connection.tenant_id.clone(), api: connection.api };
        let session = self.session(key, &connection).await;
        Tenant { is_deleted: false, access: found.access, identity, encoding: connection.token_encoding, session }
    }

    async fn session(&mut self, key: &TenantKey, connection: &TenantConnection) -> Result<Arc<Session>, Unusable> {
        let settings = self.session_settings(connection);
        let secret_ref = &connection.credentials.client_secret_ref;
        let version = self.context.caches.secret_version(self.secret_namespace(key), &secret_ref.name);
        let is_same_app = |session: &OpenSession| {
            let before = &session.connection;
            (&before.tenant_id, &before.client_id, before.cloud, before.api)
                == (&connection.tenant_id, &connection.client_id, connection.cloud, connection.api)
        };
        if self.open_sessions.get(key).is_some_and(|session| !is_same_app(session)) {
            self.open_sessions.remove(key);
        }
        let credentials = &connection.credentials;
        if let Some(open) = self.open_sessions.get(key) {
            let session = Arc::clone(&open.session);
            session.set_settings(settings);
            let is_newest = &open.connection.credentials == credentials
                && version.as_ref().is_some_and(|version| *version == open.secret_version);
            let found = if is_newest { None } else { Some(self.credential(key, connection, version).await) };
            if let Some(open) = self.open_sessions.get_mut(key) {
                open.warning = None;
                match found {
                    None => {}
                    Some(Ok((credential, version))) => {
                        session.set_credential(credential);
                        open.connection = connection.clone();
                        open.secret_version = version;
                    }
                    // If a Secret was deleted or is unusable, its last credentials stay in use, with a warning.
                    Some(Err(why)) => open.warning = Some(why.message),
                }
            }
            return Ok(session);
        }
        let (credential, secret_version) = self.credential(key, connection, version).await?;
        let endpoints = self.settings.endpoints(connection.cloud);
        let metrics = Arc::clone(&self.metrics);
        let meter = Arc::new(move |operation, status, took| metrics.requested(operation, status, took));
        let tenant = EntraTenant::new(connection.cloud, &connection.tenant_id);
        let app_key = AppKey::new(&endpoints.graph, tenant, &connection.client_id);
        let app = AppRegistration {
            endpoints,
            api: connection.api,
            tenant_id: connection.tenant_id.clone(),
            client_id: connection.client_id.clone(),
        };
        let random = self.context.random.clone();
        let client = GraphClient::new(app, credential, self.transport.clone(), random, meter);
        let (sender, key_of_change) = (self.change_sender.clone(), key.clone());
        let on_change = Box::new(move |change| {
            // A closed channel means that the operator stops.
            let _ = sender.send((key_of_change.clone(), change));
        });
        let on_reserved = Arc::clone(&self.context.trigger);
        let session = Arc::new(Session::new(
            key.to_string(),
            client,
            settings,
            Arc::clone(&self.limiters),
            app_key,
            self.context.clock.clone(),
            Callbacks { on_change, on_reserved },
        ));
        let task = tokio::spawn(self.live(key.clone(), Arc::clone(&session))).abort_handle();
        let open = OpenSession {
            connection: connection.clone(),
            secret_version,
            warning: None,
            session: Arc::clone(&session),
            task,
            used_at: Instant::now(),
        };
        self.open_sessions.insert(key.clone(), open);
        Ok(session)
    }

    /// Runs a session, and sends a message when it ended, which is a fault.
    fn live(&self, key: TenantKey, session: Arc<Session>) -> impl Future<Output = ()> + Send + 'static {
        let (metrics, sender) = (Arc::clone(&self.metrics), self.end_sender.clone());
        async move {
            let _ = AssertUnwindSafe(Arc::clone(&session).run()).catch_unwind().await;
            tracing::error!(tenant = %key, "a fault of the operator: the session of a tenant ended; it is opened again");
            metrics.session_restarted();
            tokio::time::sleep(REOPEN_DELAY).await;
            // A closed channel means that the operator stops.
            let _ = sender.send((key, session));
        }
    }

    /// The client secret, and the version of the Secret that holds it. Each version is read once.
    async fn credential(
        &mut self,
        key: &TenantKey,
        connection: &TenantConnection,
        version: Option<String>,
    ) -> Result<(Credential, String), Unusable> {
        let whose = format!("the client secret of {} \"{}\"", key.kind, key.name);
        // VppTokens of other namespaces show this message, too, so it does not name the Secret.
        let which = match &key.namespace {
            Some(_) => format!("Secret \"{}\"", connection.credentials.client_secret_ref.name),
            None => "The Secret".to_owned(),
        };
        let Some(secret_version) = version else {
            let namespace = self.secret_namespace(key);
            if !self.watches.is_read(Kind::Secrets, namespace) {
                let is_refused = self.watches.is_refused(Kind::Secrets, namespace);
                let reason = if is_refused { Reason::SecretNotReadable } else { Reason::TenantNotRead };
                let message = format!("{which} with {whose} can't be read; it is tried again.");
                return Err(Unusable { reason, message });
            }
            let message = format!("{which} with {whose} is not there.");
            return Err(Unusable { reason: Reason::SecretNotFound, message });
        };
        let credentials = connection.credentials.clone();
        if let Some(unusable) = self.unusable_secrets.get(key)
            && (&unusable.credentials, &unusable.secret_version) == (&credentials, &secret_version)
        {
            return Err(unusable.why.clone());
        }
        let reference = &credentials.client_secret_ref;
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), self.secret_namespace(key));
        let secret = api.get(&reference.name).await.map_err(|error| {
            tracing::warn!(tenant = %key, %error, "the Secret of a tenant can't be read");
            let message = format!("{which} with {whose} can't be read; it is tried again.");
            let is_refused = matches!(&error, kube::Error::Api(status) if status.code == 403);
            let reason = if is_refused { Reason::SecretNotReadable } else { Reason::TenantNotRead };
            Unusable { reason, message }
        })?;
        let bytes = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let text = bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).map(str::trim);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.unusable_secrets.remove(key);
            return Ok((Credential::ClientSecret(SecretString::from(text)), secret_version));
        }
        let message = format!("{which} with {whose} has no text under the key that clientSecretRef names.");
        let why = Unusable { reason: Reason::SecretKeyNotFound, message };
        self.unusable_secrets.insert(key.clone(), UnusableSecret { credentials, secret_version, why: why.clone() });
        Err(why)
    }

    /// Where the Secrets of a tenant object live.
    fn secret_namespace<'a>(&'a self, key: &'a TenantKey) -> &'a str {
        key.namespace.as_deref().unwrap_or(&self.namespace)
    }

    /// Triggers the VppTokens that a change concerns.
    fn notify_tokens(&self, key: &TenantKey, change: &Change) {
        let local_state = &self.context.local_state;
        if change.problem {
            let all = local_state
                .references(|references| references.of_tenant(key).map(|(_, name)| name.clone()).collect::<Vec<_>>());
            self.context.trigger_all(all);
        } else {
            self.context.trigger_all(local_state.concerned_by(key, &change.ids));
        }
    }

    /// False when one of them has to be written again.
    async fn write_statuses(&mut self) -> bool {
        let used: BTreeSet<TenantKey> = self.used();
        let released = std::mem::take(&mut self.released);
        let mut all_written = true;
        for key in objects::all(&self.caches).into_iter().filter(|key| !used.contains(key)) {
            if let Some(object) = objects::find(&self.caches, &key) {
                let was_released = released.contains(&key);
                let is_unused = was_released || self.sees_all_users(&key);
                if status::write_unused(&self.context, &key, &object, is_unused).await == WriteOutcome::Failed {
                    all_written = false;
                    // The next try has to know that the status is of our session.
                    self.released.extend(was_released.then_some(key));
                }
            }
        }
        for key in used {
            if let (Some(object), Some(tenant)) =
                (objects::find(&self.caches, &key), self.registry().find(&key).found())
            {
                let claims = self.context.local_state.claims(&tenant.identity.entra_tenant());
                let session = tenant.session.as_ref().map(|session| session.view()).map_err(Clone::clone);
                let warning = self.open_sessions.get(&key).and_then(|open| open.warning.as_deref());
                let written = status::write(&self.context, &key, &object, session, warning, &claims).await;
                all_written &= written != WriteOutcome::Failed;
            }
        }
        all_written
    }

    /// Whether this operator knows every VppToken that can use a tenant object: none can be in a namespace that it does
    /// not watch or could not read.
    fn sees_all_users(&self, key: &TenantKey) -> bool {
        match &key.namespace {
            Some(namespace) => self.watches.is_read(Kind::VppTokens, namespace),
            None => {
                self.settings.watch_namespaces.is_empty() && self.context.caches.tokens.iter().all(TokenCache::is_read)
            }
        }
    }

    /// The tenant objects that VppTokens refer to, or did a short time ago: a session knows what it created before Graph's
    /// lists show it, and a VppToken that is deleted and created again must find that.
    fn used(&mut self) -> BTreeSet<TenantKey> {
        let mut used = self.context.local_state.references(References::tenants);
        let now = Instant::now();
        for (key, open) in &mut self.open_sessions {
            if used.contains(key) {
                open.used_at = now;
            } else if now < open.used_at + self.settings.timings.unknown_outcome.unsigned_abs() {
                used.insert(key.clone());
            }
        }
        used
    }

    fn registry(&self) -> &TenantRegistry {
        &self.context.registry
    }
}

fn is_same(before: &Tenant, now: &Tenant) -> bool {
    before.is_deleted == now.is_deleted
        && before.access == now.access
        && before.identity == now.identity
        && before.encoding == now.encoding
        && match (&before.session, &now.session) {
            (Ok(before), Ok(now)) => Arc::ptr_eq(before, now),
            (Err(before), Err(now)) => before == now,
            _ => false,
        }
}
