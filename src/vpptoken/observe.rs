//! Gathers everything that a decision needs into one value. It only reads: the caches, a Secret whose version is not known,
//! and, when a write to Graph is due or announced, or a token is about to be taken over, what decides that from the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, CustomResourceExt, ResourceExt};

use super::caches::secret_version;
use super::claims::CreateKey;
use super::context::{Context, namespace, uid};
use super::error::Error;
use super::local_state::{ObjectState, Own, ReadFile};
use super::observed::{
    FileFacts, FileProblem, KnownTenant, LiveCluster, LiveReads, LiveSecret, Object, Observed, Others, Permission,
    TenantState, bounded_request,
};
use super::plan;
use crate::api::{
    ClusterGraphTenant, FINALIZER, Reason, SYNC_REQUESTED_AT, TenantKind, TokenEncoding, UPLOAD_REQUESTED_AT, VppToken,
};
use crate::tenant::{Access, Lookup, Tenant, TenantKey};
use crate::token_file::TokenFile;

/// Reads what decides whether a VppToken may use its tenant and, if that is asked for, the version of its Secret. Unless
/// `of_its_own`, a shared read of a moment ago may confirm what the caches have.
///
/// # Errors
/// When Kubernetes can't be read.
pub(crate) async fn read_live(
    context: &Context,
    object: &VppToken,
    of_its_own: bool,
    with_secret: bool,
) -> Result<LiveReads, Error> {
    let since = context.clock.now();
    let secret = async {
        match object.spec.token_secret_ref.as_ref().filter(|_| with_secret) {
            Some(reference) => read_version(context, object, &reference.name).await.map(Some),
            None => Ok(None),
        }
    };
    let (cluster, secret) = futures::try_join!(read_cluster(context, object, of_its_own), secret)?;
    Ok(LiveReads { since, cluster, secret })
}

async fn read_version(context: &Context, object: &VppToken, name: &str) -> Result<LiveSecret, Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace(object)?);
    let version = match secrets.get_metadata_opt(name).await {
        Ok(Some(secret)) => Ok(secret_version(&secret.metadata)),
        Ok(None) => Err(FileProblem::SecretNotFound),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(FileProblem::NotReadable),
        Err(error) => return Err(error.into()),
    };
    Ok(LiveSecret { name: name.to_owned(), version })
}

async fn read_cluster(context: &Context, object: &VppToken, of_its_own: bool) -> Result<Option<LiveCluster>, Error> {
    let reference = &object.spec.tenant_ref;
    if reference.kind != TenantKind::ClusterGraphTenant {
        return Ok(None);
    }
    let namespace = namespace(object)?;
    let found = context.registry.tenant_of(object);
    let cached_access = found.filter(|tenant| !tenant.is_deleted).map(|tenant| tenant.access.clone());
    let is_known = |access: &Result<Option<Access>, Error>| {
        !of_its_own && access.as_ref().is_ok_and(|access| access.is_some() && *access == cached_access)
    };
    let access = context.live_access.tenants.get(&reference.name, &context.clock, is_known, || async {
        let tenants: Api<ClusterGraphTenant> = Api::all(context.client.clone());
        Ok(tenants.get_opt(&reference.name).await?.map(|tenant| Access::of(&tenant.spec)))
    });
    let cached_labels = cached_labels(context, object)?;
    let is_known = |labels: &Result<Option<BTreeMap<String, String>>, Error>| {
        !of_its_own && labels.as_ref().is_ok_and(|labels| labels.as_ref() == Some(&cached_labels))
    };
    let labels = context.live_access.namespaces.get(namespace, &context.clock, is_known, || async {
        let namespaces: Api<Namespace> = Api::all(context.client.clone());
        Ok(namespaces.get_metadata_opt(namespace).await?.map(|namespace| namespace.labels().clone()))
    });
    let (access, labels) = futures::try_join!(access, labels)?;
    let labels = labels.unwrap_or_default();
    Ok(Some(LiveCluster { access, labels }))
}

/// Looks at one VppToken and everything around it. Without live reads, nothing is written to Graph because of what is seen.
///
/// # Errors
/// When Kubernetes can't be read.
pub(crate) async fn observe(context: &Context, object: &VppToken, live: Option<&LiveReads>) -> Result<Observed, Error> {
    let uid = uid(object)?;
    record_shown_intent(context, uid, object);
    let state = context.local_state.object_state(uid);
    let tenant = tenant(context, object)?;
    let found = tenant.clone().found();
    let encoding = found.as_ref().map_or_else(TokenEncoding::default, |found| found.encoding);
    let live_since = live.map(|live| live.since);
    let (cluster, secret) = live.map_or((None, None), |live| (live.cluster.clone(), live.secret.clone()));
    let file = file(context, object, secret, encoding, &state).await?;
    // The snapshot comes last: it has to show what another VppToken has created, once that one does not create any more.
    let others = found.map(|found| others(context, object, &found, file.as_ref().ok()));
    let others = others.transpose()?.unwrap_or_default();
    let tenant = tenant_state(context, object, tenant, cluster)?;
    let status = state.status_with_outcomes(object.status.clone());
    let deleting = object.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let has_finalizer = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let crd_terminating = deleting.is_some() && has_finalizer && crd_terminating(context).await?;
    Ok(Observed {
        now: context.clock.now(),
        wall: context.clock.wall(),
        live_since,
        object: Object {
            uid: uid.to_owned(),
            generation: object.metadata.generation.unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting,
            namespace_deleting: namespace_of(context, object)?
                .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()),
            has_finalizer,
            sync_request: request(object, SYNC_REQUESTED_AT),
            upload_request: request(object, UPLOAD_REQUESTED_AT),
        },
        spec: object.spec.clone(),
        status,
        file,
        tenant,
        others,
        attempts: state.attempts,
        crd_terminating,
        timings: context.timings,
    })
}

/// An intent whose write was not answered is in the status: others may have read it only now, so a list has to begin after now.
fn record_shown_intent(context: &Context, uid: &str, object: &VppToken) {
    let Some(pending) = object.status.as_ref().and_then(|status| status.pending_create.as_ref()) else { return };
    let now = context.clock.now();
    context.local_state.change(uid, |state| {
        let unsent = state.attempts.unsent_intent.as_mut();
        if let Some(unsent) = unsent.filter(|unsent| !unsent.is_recorded && unsent.since == pending.since) {
            (unsent.list_after, unsent.is_recorded) = (now, true);
        }
    });
}

fn request(object: &VppToken, annotation: &str) -> Option<String> {
    object.annotations().get(annotation).map(|text| bounded_request(text))
}

/// Deleting the definition marks every object for deletion; that is no request to delete the tokens.
async fn crd_terminating(context: &Context) -> Result<bool, Error> {
    let crds: Api<CustomResourceDefinition> = Api::all(context.client.clone());
    let crd = crds.get_opt(VppToken::crd_name()).await?;
    Ok(crd.is_none_or(|crd| crd.metadata.deletion_timestamp.is_some()))
}

/// The tenant object. If it was not looked up yet, that is asked for.
fn tenant(context: &Context, object: &VppToken) -> Result<Lookup, Error> {
    let found = context.registry.find(&TenantKey::of(&object.spec.tenant_ref, namespace(object)?));
    if matches!(found, Lookup::NotRead) {
        context.tenant_wanted.notify_one();
    }
    Ok(found)
}

fn is_being_deleted(object: &VppToken) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// The tenant as its session shows it now, and whether the object may use it.
fn tenant_state(
    context: &Context,
    object: &VppToken,
    tenant: Lookup,
    live: Option<LiveCluster>,
) -> Result<TenantState, Error> {
    let reference = &object.spec.tenant_ref;
    let tenant = match tenant {
        Lookup::NotRead => {
            let message = format!("{} \"{}\" is being looked for.", reference.kind, reference.name);
            return Ok(TenantState::Unusable { reason: Reason::TenantNotRead, message });
        }
        Lookup::NotFound => return Ok(TenantState::NotFound),
        Lookup::Found(tenant) => tenant,
    };
    let (access, labels) = match live {
        Some(live) => (live.access, live.labels),
        None => (Some(tenant.access.clone()), cached_labels(context, object)?),
    };
    // What is still in memory of a deleted tenant object is used for deletions, and for nothing else.
    if (tenant.is_deleted || access.is_none()) && !is_being_deleted(object) {
        return Ok(TenantState::NotFound);
    }
    let access = access.unwrap_or_else(|| tenant.access.clone());
    if !access.allows(namespace(object)?, &labels) {
        return Ok(TenantState::NamespaceNotAllowed);
    }
    Ok(match &tenant.session {
        Err(unusable) => TenantState::Unusable { reason: unusable.reason, message: unusable.message.clone() },
        Ok(session) => TenantState::Known(KnownTenant {
            identity: tenant.identity.clone(),
            allowed: access.operations.iter().copied().map(Permission::from).collect::<BTreeSet<_>>(),
            view: session.view(),
        }),
    })
}

/// The labels of the object's namespace, by which a ClusterGraphTenant may allow it, as the cache has them.
fn cached_labels(context: &Context, object: &VppToken) -> Result<BTreeMap<String, String>, Error> {
    Ok(namespace_of(context, object)?.map(|namespace| namespace.labels().clone()).unwrap_or_default())
}

fn namespace_of(context: &Context, object: &VppToken) -> Result<Option<Arc<PartialObjectMeta<Namespace>>>, Error> {
    Ok(context.caches.namespaces.get(&ObjectRef::new(namespace(object)?)))
}

/// The other VppTokens of this tenant: their statuses, and what this process knows before these show it.
fn others(context: &Context, object: &VppToken, tenant: &Tenant, file: Option<&FileFacts>) -> Result<Others, Error> {
    let entra_tenant = tenant.identity.entra_tenant();
    let overdue = plan::outcomes_known_until(context.clock.now(), &context.timings);
    let opened = tenant.session.as_ref().ok().map(|session| session.opened());
    let rivals_since = plan::rival_intents_since(overdue, opened);
    context.trigger_all(context.local_state.unlock_creates_before(overdue));
    // Before what the others have: a namespace that is read by now has all its objects there.
    let unread = context.caches.has_unread_namespace();
    let keys = create_keys(object, file);
    let own = Own { namespace: namespace(object)?, name: object.name_any(), uid: uid(object)?, keys };
    let seen = context.local_state.others_of(&entra_tenant, &own, rivals_since);
    let creating = seen.is_create_locked || seen.intents.iter().any(|key| context.leads_to(key, &entra_tenant));
    Ok(Others { claims: seen.claims, creating, unread })
}

/// The keys that a create of this object would lock.
fn create_keys(object: &VppToken, file: Option<&FileFacts>) -> Vec<CreateKey> {
    let apple_id = object.spec.apple_id.as_deref().map(CreateKey::of_apple_id);
    let file = file.map(|file| CreateKey::of_file(&file.organization_name, file.expiration));
    apple_id.into_iter().chain(file).collect()
}

/// What is known of the token file: read once per version of its Secret, and not at all if the status knows that version.
async fn file(
    context: &Context,
    object: &VppToken,
    live: Option<LiveSecret>,
    encoding: TokenEncoding,
    state: &ObjectState,
) -> Result<Result<FileFacts, FileProblem>, Error> {
    let Some(reference) = object.spec.token_secret_ref.as_ref().filter(|_| !object.spec.only_observes()) else {
        return Ok(Err(FileProblem::NotNamed));
    };
    // The manifest may name another Secret by now.
    let version = match live.filter(|live| live.name == reference.name) {
        Some(live) => live.version,
        None => {
            let cached = context.caches.secret_version(namespace(object)?, &reference.name);
            cached.ok_or(FileProblem::SecretNotFound)
        }
    };
    let version = match version {
        Ok(version) => version,
        Err(problem) => return Ok(Err(problem)),
    };
    let of = (file_version(&version, &reference.key), encoding);
    if let Some(read) = state.file.as_ref().filter(|read| read.of == of) {
        return Ok(read.file.clone());
    }
    let uploaded = object.status.as_ref().and_then(|status| status.uploaded.as_ref());
    if let Some(known) = uploaded.and_then(|uploaded| FileFacts::of_uploaded(uploaded, &of.0, encoding)) {
        return Ok(Ok(known));
    }
    let file = read_file(context, object).await?.map(|read| read.facts(encoding));
    // Kubernetes may show it later, so a refusal is not remembered.
    let read = (file != Err(FileProblem::NotReadable)).then(|| Box::new(ReadFile { of, file: file.clone() }));
    context.local_state.change(uid(object)?, |state| state.file = read);
    Ok(file)
}

/// The version of a file: that of its Secret, and its key.
fn file_version(secret_version: &str, key: &str) -> String {
    format!("{secret_version}/{key}")
}

/// A file that was read, and from which version of its Secret.
pub(super) struct VersionedFile {
    pub(super) file: TokenFile,
    version: String,
}

impl VersionedFile {
    /// What is known of it.
    pub(super) fn facts(&self, encoding: TokenEncoding) -> FileFacts {
        FileFacts {
            sha256: self.file.sha256(encoding),
            expiration: self.file.expiration,
            organization_name: self.file.organization_name.clone(),
            encoding,
            secret_version: self.version.clone(),
        }
    }
}

/// Reads the Secret now. The result must not outlive the request that needs it.
///
/// # Errors
/// When Kubernetes can't be read.
pub(super) async fn read_file(
    context: &Context,
    object: &VppToken,
) -> Result<Result<VersionedFile, FileProblem>, Error> {
    let Some(reference) = &object.spec.token_secret_ref else { return Ok(Err(FileProblem::NotNamed)) };
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace(object)?);
    let secret = match secrets.get_opt(&reference.name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return Ok(Err(FileProblem::SecretNotFound)),
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok(Err(FileProblem::NotReadable)),
        Err(error) => return Err(error.into()),
    };
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(&reference.key)) else {
        return Ok(Err(FileProblem::KeyNotFound));
    };
    let version = file_version(&secret_version(&secret.metadata), &reference.key);
    let file = TokenFile::parse(&bytes.0).map_err(|error| FileProblem::Malformed(error.to_string()));
    Ok(file.map(|file| VersionedFile { file, version }))
}
