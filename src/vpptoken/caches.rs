//! What the watches keep: VppTokens, the versions of Secrets, and the metadata of namespaces.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::status_patch::is_of_other_manager;
use crate::api::{NamespacedName, SYNC_REQUESTED_AT, UPLOAD_REQUESTED_AT, VppToken};

/// The VppTokens of one watched namespace, or of all.
#[derive(Clone)]
pub(crate) struct TokenCache {
    namespace: Option<String>,
    store: Store<VppToken>,
    is_read: Arc<AtomicBool>,
}

impl TokenCache {
    /// A cache that was not read yet. Without a namespace it is for all of them.
    pub(crate) fn new(namespace: Option<String>, store: Store<VppToken>) -> Self {
        Self { namespace, store, is_read: Arc::default() }
    }

    /// The objects.
    pub(crate) fn store(&self) -> &Store<VppToken> {
        &self.store
    }

    /// Whether it has had a complete list.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::SeqCst)
    }

    /// It has a complete list.
    pub(crate) fn set_read(&self) {
        self.is_read.store(true, Ordering::SeqCst);
    }
}

/// The caches that reconciles read. A namespace that is watched by itself has caches of its own.
#[derive(Clone)]
pub(crate) struct Caches {
    /// All VppTokens that this operator manages.
    pub tokens: Vec<TokenCache>,
    /// The versions of the Secrets.
    pub secrets: Vec<SecretVersions>,
    /// Metadata of the namespaces.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl Caches {
    /// All VppTokens.
    pub(crate) fn all_tokens(&self) -> impl Iterator<Item = Arc<VppToken>> + '_ {
        self.tokens.iter().flat_map(|cache| cache.store.state())
    }

    /// The VppToken with the names of another one.
    pub(crate) fn token(&self, object: &VppToken) -> Option<Arc<VppToken>> {
        let reference = ObjectRef::from_obj(object);
        self.tokens.iter().find_map(|cache| cache.store.get(&reference))
    }

    /// Whether this process has never read the VppTokens of a watched namespace that exists: their tokens and their
    /// creates are not known.
    pub(crate) fn has_unread_namespace(&self) -> bool {
        let is_there = |namespace: &String| self.namespaces.get(&ObjectRef::new(namespace)).is_some();
        self.unread().any(|cache| cache.namespace.as_ref().is_none_or(is_there))
    }

    /// Whether this process has never read the VppTokens of a namespace that is watched by itself.
    pub(crate) fn is_unread(&self, namespace: &str) -> bool {
        self.unread().any(|cache| cache.namespace.as_deref() == Some(namespace))
    }

    fn unread(&self) -> impl Iterator<Item = &TokenCache> {
        self.tokens.iter().filter(|cache| !cache.is_read())
    }

    /// The version of a Secret, if it is there.
    pub(crate) fn secret_version(&self, namespace: &str, name: &str) -> Option<String> {
        self.secrets.iter().find_map(|versions| versions.get(namespace, name))
    }
}

/// Names of Secrets, and their versions, in each namespace.
pub(crate) type VersionsByNamespace = HashMap<Arc<str>, HashMap<Arc<str>, String>>;

/// The versions of the Secrets of a watched namespace, or of all: a cluster may have many that are none of ours, so that
/// nothing else of them is kept. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct SecretVersions(Arc<RwLock<VersionsByNamespace>>);

impl SecretVersions {
    /// The version of a Secret, if it is there: it differs from that of any other content, also of a Secret that was deleted.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<String> {
        let versions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        versions.get(namespace)?.get(name).cloned()
    }

    /// A Secret has a version now, or was deleted.
    pub(crate) fn set(&self, namespace: &str, name: &str, version: Option<String>) {
        let mut versions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => {
                versions.entry(namespace.into()).or_default().insert(name.into(), version);
            }
            None => {
                if let Some(of_namespace) = versions.get_mut(namespace) {
                    of_namespace.remove(name);
                    if of_namespace.is_empty() {
                        versions.remove(namespace);
                    }
                }
            }
        }
    }

    /// Replaces all of them, and returns namespace and name of those that were added, changed or deleted.
    pub(crate) fn replace(&self, now: VersionsByNamespace) -> BTreeSet<NamespacedName> {
        let mut versions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut differing = BTreeSet::new();
        for (one, other) in [(&*versions, &now), (&now, &*versions)] {
            for (namespace, of_namespace) in one {
                let other = other.get(namespace);
                let is_new = |name: &Arc<str>, version| other.and_then(|other| other.get(name)) != Some(version);
                let new = of_namespace.iter().filter(|(name, version)| is_new(name, version));
                differing.extend(new.map(|(name, _)| NamespacedName::new(Arc::clone(namespace), Arc::clone(name))));
            }
        }
        *versions = now;
        differing
    }
}

/// The version of a Secret: it differs from that of any other content, also of a Secret that was deleted.
pub(crate) fn secret_version(metadata: &ObjectMeta) -> String {
    let [uid, version] = [&metadata.uid, &metadata.resource_version].map(|text| text.as_deref().unwrap_or_default());
    format!("{uid}/{version}")
}

/// Of the managed fields, only that others wrote the status is used; of the annotations, only our own are.
pub(crate) fn strip(meta: &mut ObjectMeta) {
    meta.managed_fields.take_if(|entries| {
        entries.retain(is_of_other_manager);
        entries.iter_mut().for_each(|entry| entry.fields_v1 = None);
        entries.is_empty()
    });
    meta.annotations.take_if(|annotations| {
        annotations.retain(|name, _| [SYNC_REQUESTED_AT, UPLOAD_REQUESTED_AT].contains(&name.as_str()));
        annotations.is_empty()
    });
}
