//! Gathers everything that a decision needs into one value. It only reads: the caches, and, when a write to Graph is
//! due, the Secret and what the tenant allows from the API server.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, CustomResourceExt, ResourceExt};

use super::local_state::{CreateKey, ObjectState, ReadFile};
use super::observed::{
    FileFacts, FileProblem, KnownTenant, Object, Observed, Others, Owner, Permission, TenantState, bounded_request,
};
use super::{Context, Error, namespace, tenant_key, uid};
use crate::api::{
    ClusterGraphTenant, FINALIZER, PendingCreate, Reason, SYNC_REQUESTED_AT, TenantKind, TokenEncoding,
    UPLOAD_REQUESTED_AT, VppToken, VppTokenStatus, VppTokenTenant,
};
use crate::tenant::{Access, Tenant, TenantKey};
use crate::token_file::TokenFile;

/// How fresh the reads have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Caches are enough: nothing is written to Graph because of them.
    Cached,
    /// The Secret and what the ClusterGraphTenant allows are read now, past the caches, as the VppToken was.
    Live,
}

/// Looks at one VppToken and everything around it.
///
/// # Errors
/// When Kubernetes can't be read.
pub async fn observe(context: &Context, object: &VppToken, freshness: Freshness) -> Result<Observed, Error> {
    let began = context.clock.now();
    let uid = uid(object)?;
    let state = context.local_state.object_state(uid);
    let tenant = tenant(context, object)?;
    let encoding = tenant.as_ref().and_then(Option::as_ref).map_or_else(TokenEncoding::default, |found| found.encoding);
    let identity = tenant.as_ref().and_then(Option::as_ref).map(|tenant| tenant.identity.clone());
    let file = file(context, object, encoding, &state, freshness);
    let (file, tenant) = futures::try_join!(file, tenant_state(context, object, tenant, freshness))?;
    let others = identity.map(|identity| others(context, object, &identity, file.as_ref().ok()));
    let others = others.transpose()?.unwrap_or_default();
    let status = state.status_with_outcomes(object.status.clone());
    let deleting = object.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let has_finalizer = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let crd_terminating = deleting.is_some() && has_finalizer && crd_terminating(context).await?;
    Ok(Observed {
        now: context.clock.now(),
        wall: context.clock.wall(),
        live_since: (freshness == Freshness::Live).then_some(began),
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

fn request(object: &VppToken, annotation: &str) -> Option<String> {
    object.annotations().get(annotation).map(|text| bounded_request(text))
}

/// Deleting the definition marks every object for deletion; that is no request to delete the tokens.
async fn crd_terminating(context: &Context) -> Result<bool, Error> {
    let crds: Api<CustomResourceDefinition> = Api::all(context.client.clone());
    let crd = crds.get_opt(VppToken::crd_name()).await?;
    Ok(crd.is_none_or(|crd| crd.metadata.deletion_timestamp.is_some()))
}

/// The tenant object: outer none until it was looked up, inner none when it does not exist.
fn tenant(context: &Context, object: &VppToken) -> Result<Option<Option<Tenant>>, Error> {
    let key = TenantKey::of(&object.spec.tenant_ref, namespace(object)?);
    let found = context.registry.find(&key);
    if found.is_none() {
        context.tenant_wanted.notify_one();
    }
    Ok(found)
}

async fn tenant_state(
    context: &Context,
    object: &VppToken,
    tenant: Option<Option<Tenant>>,
    freshness: Freshness,
) -> Result<TenantState, Error> {
    let reference = &object.spec.tenant_ref;
    let is_being_deleted = object.metadata.deletion_timestamp.is_some();
    let tenant = match tenant {
        None => {
            let message = format!("{} \"{}\" is being looked for.", reference.kind, reference.name);
            return Ok(TenantState::Unusable { reason: Reason::TenantNotRead, message });
        }
        Some(None) => return Ok(TenantState::NotFound),
        // What is still in memory of a deleted tenant object is used for deletions, and for nothing else.
        Some(Some(tenant)) if tenant.is_deleted && !is_being_deleted => return Ok(TenantState::NotFound),
        Some(Some(tenant)) => tenant,
    };
    let access = match (freshness, reference.kind) {
        (Freshness::Live, TenantKind::ClusterGraphTenant) => {
            let api: Api<ClusterGraphTenant> = Api::all(context.client.clone());
            match api.get_opt(&reference.name).await? {
                None if is_being_deleted => tenant.access,
                None => return Ok(TenantState::NotFound),
                Some(live) => Access::of(&live.spec),
            }
        }
        _ => tenant.access,
    };
    if !access.allows(namespace(object)?, &namespace_labels(context, object)?) {
        return Ok(TenantState::NamespaceNotAllowed);
    }
    Ok(match tenant.session {
        Err(unusable) => TenantState::Unusable { reason: unusable.reason, message: unusable.message },
        Ok(session) => TenantState::Known(KnownTenant {
            identity: tenant.identity,
            allowed: access.operations.iter().copied().map(Permission::from).collect::<BTreeSet<_>>(),
            view: session.view(),
        }),
    })
}

fn namespace_labels(context: &Context, object: &VppToken) -> Result<std::collections::BTreeMap<String, String>, Error> {
    Ok(namespace_of(context, object)?.map(|namespace| namespace.labels().clone()).unwrap_or_default())
}

fn namespace_of(context: &Context, object: &VppToken) -> Result<Option<Arc<PartialObjectMeta<Namespace>>>, Error> {
    Ok(context.caches.namespaces.get(&ObjectRef::new(namespace(object)?)))
}

/// A tenant's name in claims and locks, however many tenant objects stand for it.
pub fn tenant_name(identity: &VppTokenTenant) -> String {
    format!("{:?}/{}", identity.cloud, identity.tenant_id.to_lowercase())
}

/// The other VppTokens of this tenant: their statuses, and what this process knows before these show it.
fn others(
    context: &Context,
    object: &VppToken,
    identity: &VppTokenTenant,
    file: Option<&FileFacts>,
) -> Result<Others, Error> {
    let name = tenant_name(identity);
    let own = Own { namespace: namespace(object)?, uid: uid(object)?, keys: create_keys(object, file) };
    let all: Vec<Arc<VppToken>> = context.caches.all_tokens().collect();
    let rivals = all.iter().filter_map(|object| Some((object, object.metadata.uid.as_deref()?)));
    let rivals = rivals.filter(|(_, uid)| *uid != own.uid).map(|(object, uid)| {
        let leads_here = || tenant_of(context, object).is_some_and(|tenant| tenant_name(&tenant) == name);
        (Rival::of(object, uid), leads_here)
    });
    let overdue = context.clock.now().checked_sub(context.timings.unknown_outcome).unwrap_or(Timestamp::MIN);
    // Another process may have sent a create long after its intent, and until it ended, just before this one began.
    let is_new = tenant_key(object).is_none_or(|key| match context.registry.find(&key) {
        Some(Some(Tenant { session: Ok(session), .. })) => session.view().opened > overdue,
        _ => true,
    });
    let decided = if is_new { Timestamp::MIN } else { overdue };
    let mut others = others_of(&own, rivals, &name, &context.local_state.claims(&name), decided);
    others.unread = context.caches.has_unread_namespace();
    for (namespace, name) in context.local_state.unlock_creates_before(overdue) {
        (context.trigger)(&namespace, &name);
    }
    let who = (namespace(object)?.to_owned(), object.name_any());
    if context.local_state.is_create_locked_by_other(&name, &own.keys, own.uid, who) {
        others.creating = true;
    }
    Ok(others)
}

/// The keys that a create of this object would lock.
fn create_keys(object: &VppToken, file: Option<&FileFacts>) -> Vec<CreateKey> {
    let apple_id = object.spec.apple_id.as_deref().map(CreateKey::of_apple_id);
    let file = file.map(|file| CreateKey::of_file(&file.organization_name, file.expiration));
    apple_id.into_iter().chain(file).collect()
}

/// The VppToken that the others are compared with.
#[derive(Clone, Debug)]
pub struct Own<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// The keys that its create would lock.
    pub keys: Vec<CreateKey>,
}

/// A VppToken, as far as it matters to the others of its tenant.
#[derive(Clone, Copy, Debug)]
pub struct Rival<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// When it was created.
    pub created: Timestamp,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its status.
    pub status: Option<&'a VppTokenStatus>,
}

impl<'a> Rival<'a> {
    fn of(object: &'a VppToken, uid: &'a str) -> Self {
        Self {
            uid,
            created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            namespace: object.metadata.namespace.as_deref().unwrap_or_default(),
            name: object.metadata.name.as_deref().unwrap_or_default(),
            status: object.status.as_ref(),
        }
    }
}

/// What the statuses of other VppTokens, and the newer claims of this process, mean for one. Each of the others comes
/// with whether its `tenantRef` leads to the same tenant. What became of intents recorded until `decided` is known. Pure.
pub fn others_of<'a>(
    own: &Own<'_>,
    rivals: impl Iterator<Item = (Rival<'a>, impl Fn() -> bool)>,
    name: &str,
    claims: &HashMap<String, Vec<String>>,
    decided: Timestamp,
) -> Others {
    let mut others = Others::default();
    for (Rival { uid, created, namespace, name: its_name, status }, leads_here) in rivals {
        let its_name = (namespace == own.namespace).then(|| its_name.to_owned());
        let owner = Owner { created, uid: uid.to_owned(), name: its_name };
        for id in claims.get(uid).into_iter().flatten() {
            others.claim(id, &owner);
        }
        let Some(status) = status else { continue };
        if let (Some(tenant), Some(id)) = (&status.tenant, &status.token_id)
            && tenant_name(tenant) == name
        {
            others.claim(id, &owner);
            if let Some(uploaded) = &status.uploaded {
                // Always the same one of several, in whatever order they come.
                let first = others.files.entry(uploaded.sha256.clone()).or_insert_with(|| id.clone());
                if *id < *first {
                    first.clone_from(id);
                }
            }
        }
        // An older one has been resolved, or can't be; `knownIds` and the claims show its result. Neither of two
        // intents goes first, because each object may have recorded its own before it saw the other's, as in two
        // processes: each object that sees the other's intent abandons its own.
        let is_recent = |pending: &PendingCreate| pending.since > decided;
        if let Some(pending) = status.pending_create.as_ref().filter(|pending| is_recent(pending))
            && CreateKey::of_pending(pending).iter().any(|key| own.keys.contains(key))
            && leads_here()
        {
            others.creating = true;
        }
    }
    others
}

fn tenant_of(context: &Context, object: &VppToken) -> Option<VppTokenTenant> {
    Some(context.registry.find(&tenant_key(object)?)??.identity)
}

/// The token file: read once per version of its Secret, and again for every write.
async fn file(
    context: &Context,
    object: &VppToken,
    encoding: TokenEncoding,
    state: &ObjectState,
    freshness: Freshness,
) -> Result<Result<FileFacts, FileProblem>, Error> {
    let Some(reference) = object.spec.token_secret_ref.as_ref().filter(|_| !object.spec.only_observes()) else {
        return Ok(Err(FileProblem::NotNamed));
    };
    let version = context.caches.secret_version(namespace(object)?, &reference.name);
    let of = version.map(|version| (reference.name.clone(), version, reference.key.clone(), encoding));
    if freshness == Freshness::Cached {
        match (&of, &state.file) {
            (None, _) => return Ok(Err(FileProblem::SecretNotFound)),
            (Some(of), Some(read)) if read.of == *of => return Ok(read.file.clone()),
            _ => {}
        }
    }
    let file = read_file(context, object).await?.map(|file| FileFacts {
        sha256: file.sha256(encoding),
        expiration: file.expiration,
        organization_name: file.organization_name,
    });
    // Kubernetes may show it later, so a refusal is not remembered.
    let read = of.filter(|_| file != Err(FileProblem::NotReadable)).map(|of| ReadFile { of, file: file.clone() });
    context.local_state.change(uid(object)?, |state| state.file = read);
    Ok(file)
}

/// Reads the Secret now. The result must not outlive the request that needs it.
///
/// # Errors
/// When Kubernetes can't be read.
pub(super) async fn read_file(context: &Context, object: &VppToken) -> Result<Result<TokenFile, FileProblem>, Error> {
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
    Ok(TokenFile::parse(&bytes.0).map_err(|error| FileProblem::Malformed(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Timings;

    fn rival<'a>(uid: &'a str, status: &'a VppTokenStatus) -> Rival<'a> {
        Rival { uid, created: Timestamp::UNIX_EPOCH, namespace: "devices", name: uid, status: Some(status) }
    }

    fn own(keys: Vec<CreateKey>) -> Own<'static> {
        Own { namespace: "devices", uid: "a", keys }
    }

    fn tenant() -> VppTokenTenant {
        VppTokenTenant { cloud: crate::api::Cloud::Global, tenant_id: "8d3f".into(), api: crate::api::GraphApi::V1 }
    }

    /// A status that has a token, and uploaded a file to it.
    fn has(id: &str, sha256: &str) -> VppTokenStatus {
        let uploaded = crate::api::Uploaded {
            sha256: sha256.into(),
            expiration_date_time: Timestamp::UNIX_EPOCH,
            organization_name: "Contoso".into(),
            time: Timestamp::UNIX_EPOCH,
            shown: false,
        };
        VppTokenStatus {
            tenant: Some(tenant()),
            token_id: Some(id.into()),
            uploaded: Some(uploaded),
            ..VppTokenStatus::default()
        }
    }

    #[test]
    fn of_several_that_have_a_token_the_elder_has_it_in_whatever_order_they_come() {
        let (status, other) = (has("t1", "digest-1"), has("t0", "digest-1"));
        let elder = Rival { namespace: "elsewhere", ..rival("b", &status) };
        let younger = Rival { created: Timestamp::UNIX_EPOCH + Timings::default().settling, ..rival("c", &status) };
        let beside = rival("d", &other);
        let seen = |rivals: [Rival<'_>; 3]| {
            let rivals = rivals.into_iter().map(|rival| (rival, || true));
            let name = tenant_name(&tenant());
            others_of(&own(Vec::new()), rivals, &name, &HashMap::new(), Timestamp::MIN)
        };
        let others = seen([elder, younger, beside]);
        assert_eq!(seen([beside, younger, elder]), others);
        assert_eq!(others.claimed["t1"].uid, "b");
        assert_eq!(others.claimed["t1"].name, None, "it is in another namespace");
        assert_eq!(others.claimed["t0"].name.as_deref(), Some("d"));
        assert_eq!(others.files["digest-1"], "t0");
    }

    #[test]
    fn of_two_that_recorded_an_intent_each_that_sees_the_other_waits() {
        let timings = Timings::default();
        let now = Timestamp::UNIX_EPOCH + timings.unknown_outcome * 2;
        let with_intent = |apple_id: &str, since| {
            let pending = PendingCreate {
                sha256: "digest".into(),
                since,
                apple_id: apple_id.into(),
                organization_name: "Contoso".into(),
                expiration_date_time: now,
                known_ids: Vec::new(),
            };
            VppTokenStatus { pending_create: Some(pending), ..VppTokenStatus::default() }
        };
        let sees = |status: &VppTokenStatus, other: &VppTokenStatus, leads_here: bool| {
            let rivals = [(rival("b", other), move || leads_here)].into_iter();
            let own = own(CreateKey::of_pending(status.pending_create.as_ref().unwrap()));
            others_of(&own, rivals, "tenant", &HashMap::new(), now - timings.unknown_outcome).creating
        };
        let earlier = with_intent("vpp@contoso.example", now - timings.settling);
        let later = with_intent("VPP@contoso.example ", now);
        assert!(sees(&earlier, &later, true) && sees(&later, &earlier, true));
        assert!(!sees(&earlier, &later, false), "in another tenant");
        let mut of_another = with_intent("other@contoso.example", now);
        assert!(sees(&earlier, &of_another, true), "of another Apple ID, with the same file");
        let file = of_another.pending_create.as_mut().unwrap();
        file.organization_name = " CONTOSO".into();
        file.expiration_date_time += jiff::SignedDuration::from_millis(999);
        assert!(sees(&earlier, &of_another, true), "with one of the same second");
        of_another.pending_create.as_mut().unwrap().organization_name = "Fabrikam".into();
        assert!(!sees(&earlier, &of_another, true), "of another organization");
        let file = of_another.pending_create.as_mut().unwrap();
        file.organization_name = "Contoso".into();
        file.expiration_date_time += timings.settling;
        assert!(!sees(&earlier, &of_another, true), "of another Apple ID, with another file");
        assert!(!sees(&earlier, &with_intent("vpp@contoso.example", now - timings.unknown_outcome), true), "long ago");
        assert!(!sees(&earlier, &VppTokenStatus::default(), true), "none");
    }
}
