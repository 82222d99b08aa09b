//! Which VppTokens a change concerns, so that no other one is looked at. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use kube::ResourceExt;

use super::claims::{ObjectIdentity, Uid};
use super::plan;
use crate::api::{FINALIZER, NamespacedName, VppToken};
use crate::tenant::TenantKey;

/// What one VppToken refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refers {
    object: Arc<ObjectIdentity>,
    tenant: TenantKey,
    secret: Option<NamespacedName>,
    token_id: Option<Arc<str>>,
    awaits_its_turn: bool,
    awaits_claim: bool,
    awaits_deletion: bool,
    has_finalizer: bool,
    is_being_deleted: bool,
}

impl Refers {
    fn of(identity: &Arc<ObjectIdentity>, object: &VppToken) -> Option<Self> {
        let secret = object.spec.token_secret_ref.as_ref();
        Some(Self {
            object: Arc::clone(identity),
            tenant: TenantKey::of_token(object)?,
            secret: secret
                .map(|secret| NamespacedName::new(Arc::clone(&identity.name.namespace), secret.name.as_str())),
            token_id: object.status.as_ref().and_then(|status| Some(status.token_id.as_deref()?.into())),
            awaits_its_turn: plan::awaits_its_turn(object.status.as_ref()),
            awaits_claim: plan::awaits_claim_of_another(object.status.as_ref()),
            awaits_deletion: plan::awaits_deletion_of_another(object.status.as_ref()),
            has_finalizer: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            is_being_deleted: object.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// VppTokens for each key: often one, so that a vector takes less memory than a set.
#[derive(Clone, Debug)]
struct Many<K>(HashMap<K, Vec<Uid>>);

impl<K> Default for Many<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Many<K> {
    fn add(&mut self, key: K, uid: &Uid) {
        let all = self.0.entry(key).or_insert_with(|| Vec::with_capacity(1));
        if let Err(place) = all.binary_search(uid) {
            all.insert(place, Arc::clone(uid));
        }
    }

    fn remove(&mut self, key: &K, uid: &str) {
        if let Some(all) = self.0.get_mut(key) {
            if let Ok(place) = all.binary_search_by(|other| (**other).cmp(uid)) {
                all.remove(place);
            }
            if all.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn get<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a Uid> + use<'a, K> {
        self.0.get(key).into_iter().flatten()
    }

    fn of(&self, is_wanted: impl Fn(&K) -> bool) -> impl Iterator<Item = &Uid> {
        self.0.iter().filter(move |(key, _)| is_wanted(key)).flat_map(|(_, uids)| uids)
    }
}

/// What all VppTokens refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct References {
    by_uid: BTreeMap<Uid, Refers>,
    by_namespace: Many<Arc<str>>,
    by_secret: Many<NamespacedName>,
    by_tenant: Many<TenantKey>,
    /// By the id of the token that the status has.
    by_token: Many<(TenantKey, Arc<str>)>,
    /// Those that have none, and may get one that is new or changed.
    without_token: Many<TenantKey>,
    awaiting_claim: Many<TenantKey>,
    awaiting_deletion: Many<TenantKey>,
}

impl References {
    /// A VppToken is as this now. True when that changes how tenant objects are used: it is the first that refers to one, it
    /// refers to another one, or its deletion will need or needs one.
    pub(crate) fn apply(&mut self, identity: &Arc<ObjectIdentity>, object: &VppToken) -> bool {
        let Some(mut now) = Refers::of(identity, object) else { return false };
        let uid = Arc::clone(&identity.uid);
        let before = self.by_uid.get(&uid);
        if before == Some(&now) {
            return false;
        }
        if let Some((known, _)) = self.by_tenant.0.get_key_value(&now.tenant) {
            now.tenant = known.clone();
        }
        let use_of = |refers: &Refers| (refers.tenant.clone(), refers.has_finalizer, refers.is_being_deleted);
        let is_news = match before {
            Some(before) => use_of(before) != use_of(&now),
            None => now.has_finalizer || !self.by_tenant.0.contains_key(&now.tenant),
        };
        self.forget(&uid);
        self.by_namespace.add(Arc::clone(&identity.name.namespace), &uid);
        if let Some(secret) = &now.secret {
            self.by_secret.add(secret.clone(), &uid);
        }
        self.by_tenant.add(now.tenant.clone(), &uid);
        match &now.token_id {
            Some(id) => self.by_token.add((now.tenant.clone(), Arc::clone(id)), &uid),
            None if now.awaits_its_turn => {}
            None => self.without_token.add(now.tenant.clone(), &uid),
        }
        if now.awaits_claim {
            self.awaiting_claim.add(now.tenant.clone(), &uid);
        }
        if now.awaits_deletion {
            self.awaiting_deletion.add(now.tenant.clone(), &uid);
        }
        self.by_uid.insert(uid, now);
        is_news
    }

    /// A VppToken was deleted.
    pub(crate) fn forget(&mut self, uid: &str) {
        let Some(before) = self.by_uid.remove(uid) else { return };
        self.by_namespace.remove(&before.object.name.namespace, uid);
        if let Some(secret) = before.secret {
            self.by_secret.remove(&secret, uid);
        }
        self.by_tenant.remove(&before.tenant, uid);
        self.awaiting_claim.remove(&before.tenant, uid);
        self.awaiting_deletion.remove(&before.tenant, uid);
        match before.token_id {
            Some(id) => self.by_token.remove(&(before.tenant, id), uid),
            None => self.without_token.remove(&before.tenant, uid),
        }
    }

    /// Those of a namespace.
    pub(crate) fn of_namespace(&self, namespace: &str) -> Vec<NamespacedName> {
        self.names(self.by_namespace.get(&namespace.into()))
    }

    /// Those whose file is in a Secret.
    pub(crate) fn of_secret(&self, secret: &NamespacedName) -> Vec<NamespacedName> {
        self.names(self.by_secret.get(secret))
    }

    /// Those whose tenant object is this one, with their UIDs.
    pub(crate) fn of_tenant(&self, tenant: &TenantKey) -> impl Iterator<Item = (&Uid, &NamespacedName)> {
        self.by_tenant.get(tenant).filter_map(|uid| Some((uid, &self.by_uid.get(uid)?.object.name)))
    }

    /// Those that have one of these tokens, and those that may get one of them because they have none; of these, not those that
    /// wait for their turn.
    pub(crate) fn of_tokens(&self, tenant: &TenantKey, ids: &BTreeSet<String>) -> Vec<NamespacedName> {
        let having = ids.iter().flat_map(|id| self.by_token.get(&(tenant.clone(), id.as_str().into())));
        let without = self.without_token.get(tenant).filter(|_| !ids.is_empty());
        self.names(having.chain(without))
    }

    /// Those that go on when a token gets an owner, if their tenant object leads to the token.
    pub(crate) fn awaiting_claim(&self, leads_there: impl Fn(&TenantKey) -> bool) -> Vec<NamespacedName> {
        self.names(self.awaiting_claim.of(leads_there))
    }

    /// Those that may go on when a VppToken is deleted, if their tenant object leads to where its token is.
    pub(crate) fn awaiting_deletion(&self, leads_there: impl Fn(&TenantKey) -> bool) -> Vec<NamespacedName> {
        self.names(self.awaiting_deletion.of(leads_there))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<NamespacedName> {
        self.by_uid.values().map(|refers| refers.object.name.clone()).collect()
    }

    /// The tenant objects that they refer to.
    pub(crate) fn tenants(&self) -> BTreeSet<TenantKey> {
        self.by_tenant.0.keys().cloned().collect()
    }

    /// Whether one that refers to a tenant object has our finalizer; `is_being_deleted` asks for one that is being deleted, too.
    pub(crate) fn has_finalized(&self, tenant: &TenantKey, is_being_deleted: bool) -> bool {
        let mut all = self.by_tenant.get(tenant).filter_map(|uid| self.by_uid.get(uid));
        all.any(|refers| refers.has_finalizer && (refers.is_being_deleted || !is_being_deleted))
    }

    fn names<'a>(&self, uids: impl Iterator<Item = &'a Uid>) -> Vec<NamespacedName> {
        uids.filter_map(|uid| Some(self.by_uid.get(uid)?.object.name.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, token_id: Option<&str>) -> VppToken {
        serde_json::from_value(json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
            "metadata": { "name": name, "namespace": "ns", "uid": format!("uid of {name}") },
            "spec": { "tokenSecretRef": { "name": format!("secret-{name}") } },
            "status": { "tokenId": token_id },
        }))
        .unwrap()
    }

    fn changed(object: &VppToken, change: &Value) -> VppToken {
        let mut value = serde_json::to_value(object).unwrap();
        for (place, new) in change.as_object().unwrap() {
            *value.pointer_mut(place).unwrap() = new.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn apply(references: &mut References, object: &VppToken) -> bool {
        references.apply(&Arc::new(ObjectIdentity::of(object.uid().unwrap().into(), object)), object)
    }

    fn names(found: Vec<NamespacedName>) -> Vec<String> {
        found.into_iter().map(|found| found.name.to_string()).collect()
    }

    #[test]
    fn a_change_concerns_those_that_refer_to_it_and_no_others() {
        let mut references = References::default();
        for (name, id) in [("a", Some("1")), ("b", Some("2")), ("c", None)] {
            assert_eq!(apply(&mut references, &object(name, id)), name == "a", "the tenant object is in use then");
        }
        let tenant = TenantKey::of_token(&object("a", None)).unwrap();
        let of_tokens = |references: &References, ids: &[&str]| {
            names(references.of_tokens(&tenant, &ids.iter().map(|id| (*id).to_owned()).collect()))
        };
        assert_eq!(names(references.of_secret(&NamespacedName::new("ns", "secret-b"))), ["b"]);
        assert_eq!(names(references.of_secret(&NamespacedName::new("other", "secret-b"))), [""; 0]);
        assert_eq!(names(references.of_namespace("ns")), ["a", "b", "c"]);
        assert_eq!(of_tokens(&references, &["1"]), ["a", "c"], "c may get it");
        assert_eq!(of_tokens(&references, &[]), [""; 0]);
        assert_eq!(names(references.awaiting_deletion(|_| true)), ["c"]);
        assert_eq!(references.of_tenant(&tenant).count(), 3);
        references.forget("uid of a");
        assert_eq!(of_tokens(&references, &["1"]), ["c"]);
        let creating = changed(
            &object("c", None),
            &json!({ "/status": { "conditions": [{
                "type": "Ready", "status": "False", "reason": "Creating", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }] } }),
        );
        apply(&mut references, &creating);
        assert_eq!(of_tokens(&references, &["1"]), [""; 0], "its turn will come");
        apply(&mut references, &object("c", None));
        assert_eq!(of_tokens(&references, &["1"]), ["c"]);
        assert_eq!(names(references.all()), ["b", "c"]);
    }

    #[test]
    fn what_an_object_referred_to_before_does_not_concern_it_any_more() {
        let mut references = References::default();
        let before = object("a", None);
        apply(&mut references, &before);
        let now = changed(
            &before,
            &json!({
                "/spec/tokenSecretRef/name": "new",
                "/status": { "tokenId": "1", "conditions": [{
                    "type": "Ready", "status": "False", "reason": "ClaimedByAnother", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }, {
                    "type": "Stalled", "status": "True", "reason": "SimilarTokenExists", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }] },
            }),
        );
        assert!(!apply(&mut references, &now), "its tenant object is used as before");
        assert_eq!(names(references.of_secret(&NamespacedName::new("ns", "secret-a"))), [""; 0]);
        assert_eq!(names(references.of_secret(&NamespacedName::new("ns", "new"))), ["a"]);
        assert_eq!(names(references.awaiting_deletion(|_| true)), ["a"], "another one has its token");
        assert_eq!(names(references.awaiting_claim(|_| true)), ["a"]);
        assert_eq!(names(references.awaiting_claim(|_| false)), [""; 0], "it is of another tenant");
        assert_eq!(names(references.awaiting_deletion(|_| false)), [""; 0], "likewise");
        assert!(!apply(&mut references, &now));
        let tenant = TenantKey::of_token(&now).unwrap();
        assert_eq!(references.tenants(), BTreeSet::from([tenant.clone()]));
        assert!(!references.has_finalized(&tenant, false));
        let finalized = changed(
            &now,
            &json!({ "/metadata": {
            "name": "a", "namespace": "ns", "uid": "uid of a", "finalizers": [FINALIZER],
        } }),
        );
        assert!(apply(&mut references, &finalized));
        assert!(references.has_finalized(&tenant, false) && !references.has_finalized(&tenant, true));
        references.forget("uid of a");
        assert!(references.tenants().is_empty() && references.awaiting_claim(|_| true).is_empty());
    }
}
