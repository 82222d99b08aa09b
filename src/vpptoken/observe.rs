//! Gathers all that a decision needs into one value. Reads only: the caches, and past them the Secret and what the tenant
//! allows when a write to Graph is due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, CustomResourceExt, ResourceExt};

use super::desk::{Page, ReadFile};
use super::world::{FileFacts, FileProblem, KnownTenant, Object, Observed, Others, Permission, TenantState};
use super::{Context, Error, namespace, tenant_key, uid};
use crate::api::{
    ClusterGraphTenant, FINALIZER, PendingCreate, Reason, SYNC_REQUESTED_AT, TenantKind, TokenEncoding, VppToken,
    VppTokenStatus, VppTokenTenant,
};
use crate::tenant::{Access, Tenant, TenantKey, Timings, clock};
use crate::token_file::TokenFile;

/// How fresh the reads have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Caches will do: nothing is written to Graph on their word.
    Caches,
    /// The Secret and what the ClusterGraphTenant allows are read now, past the caches; the VppToken was.
    Live,
}

/// Looks at one VppToken and everything around it.
///
/// # Errors
/// When Kubernetes can't be read.
pub async fn observe(context: &Context, object: &VppToken, from: From) -> Result<Observed, Error> {
    let uid = uid(object)?;
    let page = context.desk.page(uid);
    let tenant = tenant(context, object)?;
    let encoding = tenant.as_ref().and_then(Option::as_ref).map_or_else(TokenEncoding::default, |found| found.encoding);
    let file = file(context, object, encoding, &page, from).await?;
    let identity = tenant.as_ref().and_then(Option::as_ref).map(|tenant| &tenant.identity);
    let others = identity.map(|identity| others(context, object, identity)).transpose()?.unwrap_or_default();
    let tenant = tenant_state(context, object, tenant, from).await?;
    let status = page.status_with_facts(object.status.clone());
    let deleting = object.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let has_finalizer = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let crd_terminating = deleting.is_some() && has_finalizer && crd_terminating(context).await?;
    Ok(Observed {
        now: clock::now(),
        object: Object {
            uid: uid.to_owned(),
            generation: object.metadata.generation.unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting,
            namespace_deleting: namespace_of(context, object)?
                .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()),
            has_finalizer,
            sync_request: object.annotations().get(SYNC_REQUESTED_AT).cloned(),
        },
        spec: object.spec.clone(),
        status,
        file,
        tenant,
        others,
        memory: page.memory,
        crd_terminating,
        timings: context.timings,
    })
}

/// Deleting the definition marks every object for deletion; that is not a person's wish for the tokens.
async fn crd_terminating(context: &Context) -> Result<bool, Error> {
    let crds: Api<CustomResourceDefinition> = Api::all(context.client.clone());
    let crd = crds.get_opt(VppToken::crd_name()).await?;
    Ok(crd.is_none_or(|crd| crd.metadata.deletion_timestamp.is_some()))
}

/// The tenant object: outer none while nobody looked for it, inner none when it is not there.
fn tenant(context: &Context, object: &VppToken) -> Result<Option<Option<Tenant>>, Error> {
    let key = TenantKey::of(&object.spec.tenant_ref, namespace(object)?);
    let found = context.directory.find(&key);
    if found.is_none() {
        context.tenant_wanted.notify_one();
    }
    Ok(found)
}

async fn tenant_state(
    context: &Context,
    object: &VppToken,
    tenant: Option<Option<Tenant>>,
    from: From,
) -> Result<TenantState, Error> {
    let reference = &object.spec.tenant_ref;
    let is_being_deleted = object.metadata.deletion_timestamp.is_some();
    let tenant = match tenant {
        None => {
            let message = format!("{} \"{}\" is being looked for.", reference.kind, reference.name);
            return Ok(TenantState::Unusable { reason: Reason::TenantNotRead, message });
        }
        Some(None) => return Ok(TenantState::NotFound),
        // What is still in memory of a tenant object that is gone serves deletions, and nothing else.
        Some(Some(tenant)) if tenant.is_gone && !is_being_deleted => return Ok(TenantState::NotFound),
        Some(Some(tenant)) => tenant,
    };
    let access = match (from, reference.kind) {
        (From::Live, TenantKind::ClusterGraphTenant) => {
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

/// A tenant's name in claims and turns, however many tenant objects stand for it.
pub fn tenant_name(identity: &VppTokenTenant) -> String {
    format!("{:?}/{}", identity.cloud, identity.tenant_id.to_lowercase())
}

/// What other VppTokens have to do with this tenant: what their statuses say, and what this process knows before them.
fn others(context: &Context, object: &VppToken, identity: &VppTokenTenant) -> Result<Others, Error> {
    let name = tenant_name(identity);
    let own = Rival::of(object, uid(object)?);
    let all: Vec<Arc<VppToken>> = context.caches.all_tokens().collect();
    let rivals = all.iter().filter_map(|object| Some((object, object.metadata.uid.as_deref()?)));
    let rivals = rivals.filter(|(_, uid)| *uid != own.uid).map(|(object, uid)| {
        let leads_here = || tenant_of(context, object).is_some_and(|tenant| tenant_name(&tenant) == name);
        (Rival::of(object, uid), leads_here)
    });
    let mut others = others_of(&own, rivals, &name, &context.desk.claims(&name), clock::now(), context.timings);
    let overdue = clock::now().checked_sub(context.timings.unknown_outcome).unwrap_or(Timestamp::MIN);
    for (namespace, name) in context.desk.end_turns_before(overdue) {
        (context.wake)(&namespace, &name);
    }
    let who = (namespace(object)?.to_owned(), object.name_any());
    if object
        .spec
        .apple_id
        .as_ref()
        .is_some_and(|apple_id| context.desk.is_anothers_turn(&name, apple_id, own.uid, who))
    {
        others.creating = true;
    }
    Ok(others)
}

/// A VppToken, as far as it matters to the others of its tenant.
#[derive(Clone, Copy, Debug)]
pub struct Rival<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// When it was created.
    pub created: Timestamp,
    /// The Apple ID that it asks for.
    pub apple_id: Option<&'a str>,
    /// What its status says.
    pub status: Option<&'a VppTokenStatus>,
}

impl<'a> Rival<'a> {
    fn of(object: &'a VppToken, uid: &'a str) -> Self {
        Self {
            uid,
            created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            apple_id: object.spec.apple_id.as_deref(),
            status: object.status.as_ref(),
        }
    }
}

/// What the statuses of other VppTokens, and the claims that this process knows of before them, mean for one. Each of the
/// others comes with whether its `tenantRef` leads to the same tenant. Pure.
pub fn others_of<'a>(
    own: &Rival<'_>,
    rivals: impl Iterator<Item = (Rival<'a>, impl Fn() -> bool)>,
    name: &str,
    claims: &HashMap<String, Vec<String>>,
    now: Timestamp,
    timings: Timings,
) -> Others {
    let own_apple_id = own.apple_id.map(|apple_id| apple_id.trim().to_lowercase());
    let mut others = Others::default();
    for (Rival { uid, created, status, .. }, leads_here) in rivals {
        for id in claims.get(uid).into_iter().flatten() {
            others.claimed.insert(id.clone(), (created, uid.to_owned()));
        }
        let Some(status) = status else { continue };
        if let (Some(tenant), Some(id)) = (&status.tenant, &status.token_id)
            && tenant_name(tenant) == name
        {
            others.claimed.insert(id.clone(), (created, uid.to_owned()));
            others.files.extend(status.uploaded.as_ref().map(|uploaded| (uploaded.sha256.clone(), id.clone())));
        }
        // One that is older than that has been decided upon, or can't be; `knownIds` and the claims tell what came of it.
        // Whoever announced first need not have been seen first by the other, so nobody goes before the other: of two whose
        // announcements cross, as those of two processes may, each that sees the other withdraws its own.
        let is_recent = |pending: &PendingCreate| now.duration_since(pending.since) < timings.unknown_outcome;
        if let Some(pending) = status.pending_create.as_ref().filter(|pending| is_recent(pending))
            && Some(pending.apple_id.trim().to_lowercase()) == own_apple_id
            && leads_here()
        {
            others.creating = true;
        }
    }
    others
}

fn tenant_of(context: &Context, object: &VppToken) -> Option<VppTokenTenant> {
    Some(context.directory.find(&tenant_key(object)?)??.identity)
}

/// The token file: read once per version of its Secret, and again for every write.
async fn file(
    context: &Context,
    object: &VppToken,
    encoding: TokenEncoding,
    page: &Page,
    from: From,
) -> Result<Result<FileFacts, FileProblem>, Error> {
    let Some(reference) = object.spec.token_secret_ref.as_ref().filter(|_| !object.spec.only_observes()) else {
        return Ok(Err(FileProblem::NotNamed));
    };
    let version = context.caches.secret_version(namespace(object)?, &reference.name);
    let of = version.map(|version| (reference.name.clone(), version, reference.key.clone(), encoding));
    if from == From::Caches {
        match (&of, &page.file) {
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
    // What Kubernetes refuses to show may be shown at the next look.
    let read = of.filter(|_| file != Err(FileProblem::NotReadable)).map(|of| ReadFile { of, file: file.clone() });
    context.desk.change(uid(object)?, |page| page.file = read);
    Ok(file)
}

/// Reads the Secret now. What comes back must not outlive the request that needs it.
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

    fn rival<'a>(uid: &'a str, status: &'a VppTokenStatus) -> Rival<'a> {
        let created = Timestamp::UNIX_EPOCH;
        Rival { uid, created, apple_id: Some("vpp@contoso.example"), status: Some(status) }
    }

    #[test]
    fn of_two_that_announced_a_create_each_that_sees_the_other_stands_back() {
        let timings = Timings::default();
        let now = Timestamp::UNIX_EPOCH + timings.unknown_outcome * 2;
        let announced = |apple_id: &str, since| {
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
        let sees = |own: &VppTokenStatus, other: &VppTokenStatus, leads_here: bool| {
            let rivals = [(rival("b", other), move || leads_here)].into_iter();
            others_of(&rival("a", own), rivals, "tenant", &HashMap::new(), now, timings).creating
        };
        let earlier = announced("vpp@contoso.example", now - timings.settling);
        let later = announced("VPP@contoso.example ", now);
        assert!(sees(&earlier, &later, true) && sees(&later, &earlier, true));
        assert!(!sees(&earlier, &later, false), "in another tenant");
        assert!(!sees(&earlier, &announced("other@contoso.example", now), true), "of another Apple ID");
        assert!(!sees(&earlier, &announced("vpp@contoso.example", now - timings.unknown_outcome), true), "long ago");
        assert!(!sees(&earlier, &VppTokenStatus::default(), true), "none");
    }
}
