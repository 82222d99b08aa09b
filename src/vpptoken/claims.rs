//! Who has which token, which file, and which create under way. A lookup costs the same however many VppTokens there are;
//! copies share what did not change. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use rpds::RedBlackTreeMapSync;

use crate::api::{AppleId, EntraTenant, NamespacedName, PendingCreate, VppToken};
use crate::tenant::TenantKey;

/// The UID of a VppToken. Clones share the text: there are very many, each in several places.
pub(crate) type Uid = Arc<str>;

/// A VppToken, by what never changes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectIdentity {
    /// When it was created.
    pub created: Timestamp,
    /// Its UID.
    pub uid: Uid,
    /// Its names.
    pub name: NamespacedName,
}

impl ObjectIdentity {
    pub(super) fn of(uid: Uid, object: &VppToken) -> Self {
        Self {
            created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            uid,
            name: NamespacedName::of(object),
        }
    }
}

/// The VppToken that has a token, as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// When it was created.
    pub created: Timestamp,
    /// Its UID.
    pub uid: Uid,
    /// Its name, if it is in the same namespace: objects of other namespaces are not named.
    pub name: Option<Arc<str>>,
}

/// A sorted set, nearly always of one: a tree would take ten times the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Few<T> {
    /// False when it was there.
    fn insert(&mut self, new: T) -> bool {
        let Err(place) = self.0.binary_search(&new) else { return false };
        self.0.reserve_exact(1);
        self.0.insert(place, new);
        true
    }

    fn remove(&mut self, is_it: impl Fn(&T) -> bool) {
        self.0.retain(|one| !is_it(one));
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// The claims in one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// By token id.
    holders: RedBlackTreeMapSync<Arc<str>, Few<Arc<ObjectIdentity>>>,
    /// By digest: the tokens that have the file, each with the UID of its VppToken.
    files: RedBlackTreeMapSync<Arc<str>, Few<(Arc<str>, Uid)>>,
}

impl Claims {
    /// Whether any VppToken has a token.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.holders.contains_key(id)
    }

    fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.files.is_empty()
    }

    fn add(&mut self, id: &Arc<str>, holder: Arc<ObjectIdentity>) {
        let mut holders = self.holders.get(id).cloned().unwrap_or_default();
        if holders.insert(holder) {
            self.holders.insert_mut(Arc::clone(id), holders);
        }
    }

    fn remove(&mut self, id: &Arc<str>, holder: &ObjectIdentity) {
        let Some(mut holders) = self.holders.get(id).cloned() else { return };
        holders.remove(|other| **other == *holder);
        if holders.is_empty() {
            self.holders.remove_mut(id);
        } else {
            self.holders.insert_mut(Arc::clone(id), holders);
        }
    }

    fn add_file(&mut self, sha256: &Arc<str>, id: &Arc<str>, uid: &Uid) {
        let mut tokens = self.files.get(sha256).cloned().unwrap_or_default();
        if tokens.insert((Arc::clone(id), Arc::clone(uid))) {
            self.files.insert_mut(Arc::clone(sha256), tokens);
        }
    }

    fn remove_file(&mut self, sha256: &Arc<str>, id: &Arc<str>, uid: &Uid) {
        let Some(mut tokens) = self.files.get(sha256).cloned() else { return };
        tokens.remove(|(other, holder)| other == id && holder == uid);
        if tokens.is_empty() {
            self.files.remove_mut(sha256);
        } else {
            self.files.insert_mut(Arc::clone(sha256), tokens);
        }
    }

    /// The id, as it is known already.
    fn shared(&self, id: &str) -> Arc<str> {
        self.holders.get_key_value(id).map_or_else(|| id.into(), |(known, _)| Arc::clone(known))
    }
}

/// The claims in one tenant, as one VppToken sees them: those of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OthersClaims {
    all: Claims,
    /// Its UID.
    uid: String,
    /// Its namespace: objects of others are not named.
    namespace: String,
}

impl OthersClaims {
    /// None yet.
    pub(crate) fn none(uid: &str, namespace: &str) -> Self {
        Self { all: Claims::default(), uid: uid.to_owned(), namespace: namespace.to_owned() }
    }

    /// Adds a claim.
    #[cfg(test)]
    pub(crate) fn add(&mut self, id: &str, holder: ObjectIdentity) {
        self.all.add(&id.into(), Arc::new(holder));
    }

    /// Adds a file that was uploaded to a token.
    #[cfg(test)]
    pub(crate) fn add_file(&mut self, sha256: &str, id: &str, uid: &str) {
        self.all.add_file(&sha256.into(), &id.into(), &uid.into());
    }

    /// Whether another VppToken has a token.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.holders(id).next().is_some()
    }

    /// The other VppTokens that have a token.
    pub(crate) fn owners(&self, id: &str) -> impl Iterator<Item = Owner> {
        self.holders(id).map(|holder| Owner {
            created: holder.created,
            uid: Arc::clone(&holder.uid),
            name: (*holder.name.namespace == *self.namespace).then(|| Arc::clone(&holder.name.name)),
        })
    }

    /// The token that another VppToken uploaded a file to; of several always the same one.
    pub(crate) fn token_with_file(&self, sha256: &str) -> Option<&str> {
        let tokens = self.all.files.get(sha256)?;
        tokens.iter().find(|(_, uid)| **uid != *self.uid).map(|(id, _)| &**id)
    }

    /// All tokens that other VppTokens have.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.all.holders.keys().map(|id| &**id).filter(|id| self.contains(id))
    }

    fn holders(&self, id: &str) -> impl Iterator<Item = &Arc<ObjectIdentity>> {
        self.all.holders.get(id).into_iter().flat_map(Few::iter).filter(|holder| *holder.uid != *self.uid)
    }
}

/// What has to be the same in two creates that go one after the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CreateKey {
    /// The Apple ID.
    AppleId(AppleId),
    /// The file, as far as Graph shows it: its organization, and the second in which it expires.
    File(String, i64),
}

impl CreateKey {
    /// An Apple ID, however it is written.
    pub(crate) fn of_apple_id(apple_id: &str) -> Self {
        Self::AppleId(AppleId::new(apple_id))
    }

    /// What a file names, however it is written.
    pub(crate) fn of_file(organization_name: &str, expiration: Timestamp) -> Self {
        Self::File(organization_name.trim().to_lowercase(), expiration.as_second())
    }

    /// Both keys of a create.
    pub(crate) fn of_pending(pending: &PendingCreate) -> Vec<Self> {
        let file = Self::of_file(&pending.organization_name, pending.expiration_date_time);
        vec![Self::of_apple_id(&pending.apple_id), file]
    }
}

/// An intent that a VppToken's status shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intent {
    keys: Vec<CreateKey>,
    since: Timestamp,
    /// The tenant object that its `tenantRef` leads to.
    tenant: TenantKey,
}

/// What one VppToken has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IndexEntry {
    identity: Arc<ObjectIdentity>,
    /// The resource version that showed it.
    version: Option<u64>,
    /// By its status: the token, and the file that was uploaded to it.
    shown: Option<(EntraTenant, Arc<str>, Option<Arc<str>>)>,
    intent: Option<Box<Intent>>,
    /// What this process has claimed for it. The token that its status has is among them: a list that is late may not show it.
    claimed: Few<(EntraTenant, Arc<str>)>,
}

impl IndexEntry {
    fn of(identity: Arc<ObjectIdentity>) -> Self {
        Self { identity, version: None, shown: None, intent: None, claimed: Few::default() }
    }

    fn tokens(&self) -> BTreeSet<(&EntraTenant, &Arc<str>)> {
        let shown = self.shown.iter().map(|(tenant, id, _)| (tenant, id));
        shown.chain(self.claimed.iter().map(|(tenant, id)| (tenant, id))).collect()
    }
}

/// The resource version. Those of one kind can be compared as numbers; one that is no number is older than all.
pub(super) fn version(object: &VppToken) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

/// What all VppTokens have, as their watches show it, and as this process knows before they do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    tenants: HashMap<EntraTenant, Claims>,
    intents: HashMap<CreateKey, BTreeSet<Uid>>,
    objects: BTreeMap<Uid, IndexEntry>,
}

impl Index {
    /// What identifies a VppToken: as it is known already, so that it is shared.
    pub(crate) fn identity_of(&self, uid: &str, object: &VppToken) -> Arc<ObjectIdentity> {
        let known = self.objects.get(uid).map(|known| &known.identity);
        let shared = known.map_or_else(|| uid.into(), |known| Arc::clone(&known.uid));
        let new = ObjectIdentity::of(shared, object);
        known.filter(|known| ***known == new).map_or_else(|| Arc::new(new), Arc::clone)
    }

    /// A list has a VppToken.
    pub(crate) fn apply_listed(&mut self, identity: &Arc<ObjectIdentity>, object: &VppToken) {
        let version = version(object);
        let status = object.status.as_ref();
        let shown = status.and_then(|status| {
            let (tenant, id) = self.shared(&status.tenant.as_ref()?.entra_tenant(), status.token_id.as_ref()?);
            let sha256 = status.uploaded.as_ref().map(|uploaded| uploaded.sha256.as_str().into());
            Some((tenant, id, sha256))
        });
        let intent = status.and_then(|status| status.pending_create.as_ref()).map(|pending| {
            let keys = CreateKey::of_pending(pending);
            let tenant = TenantKey::of(&object.spec.tenant_ref, &identity.name.namespace);
            Box::new(Intent { keys, since: pending.since, tenant })
        });
        let before = self.objects.remove(&identity.uid).unwrap_or_else(|| IndexEntry::of(Arc::clone(identity)));
        self.change(before, |known| {
            (known.shown, known.intent, known.version) = (shown, intent, version);
            known.identity = Arc::clone(identity);
        });
    }

    /// A watch brings a VppToken, or a write of this process is answered with it, which a watch that is late must not undo.
    /// False when it is older than what is known.
    pub(crate) fn apply_if_newer(&mut self, identity: &Arc<ObjectIdentity>, object: &VppToken) -> bool {
        let known = self.objects.get(&identity.uid).and_then(|known| known.version);
        let is_newer = known.is_none_or(|known| version(object).is_none_or(|version| version >= known));
        if is_newer {
            self.apply_listed(identity, object);
        }
        is_newer
    }

    /// Claims a token for a VppToken that is known. False when another one has it.
    pub(crate) fn claim(&mut self, uid: &str, tenant: &EntraTenant, id: &str) -> bool {
        let holders = self.tenants.get(tenant).and_then(|claims| claims.holders.get(id));
        let has_another = holders.is_some_and(|holders| holders.iter().any(|holder| *holder.uid != *uid));
        if has_another {
            return false;
        }
        let claimed = self.shared(tenant, id);
        let Some(known) = self.objects.remove(uid) else { return false };
        self.change(known, |known| {
            known.claimed.insert(claimed);
        });
        true
    }

    /// Drops what was claimed for a VppToken, except for the token that its status has.
    pub(crate) fn unclaim(&mut self, uid: &str, but: Option<&str>) {
        let keeps = |id: &Arc<str>| Some(&**id) == but;
        let has_more = |known: &IndexEntry| known.claimed.iter().any(|(_, id)| !keeps(id));
        if self.objects.get(uid).is_some_and(has_more)
            && let Some(known) = self.objects.remove(uid)
        {
            self.change(known, |known| known.claimed.remove(|(_, id)| !keeps(id)));
        }
    }

    /// The VppTokens that are known of the namespaces for which a function returns true.
    pub(crate) fn uids_in(&self, is_in: impl Fn(&str) -> bool) -> Vec<Uid> {
        let known = self.objects.iter().filter(|(_, known)| is_in(&known.identity.name.namespace));
        known.map(|(uid, _)| Arc::clone(uid)).collect()
    }

    /// A VppToken was deleted.
    pub(crate) fn forget(&mut self, uid: &str) {
        if let Some(known) = self.objects.remove(uid) {
            self.take_out(&known);
        }
    }

    /// The claims in a tenant.
    pub(crate) fn claims(&self, tenant: &EntraTenant) -> Claims {
        self.tenants.get(tenant).cloned().unwrap_or_default()
    }

    /// The claims in a tenant of all VppTokens but one.
    pub(crate) fn others_claims(&self, tenant: &EntraTenant, uid: &str, namespace: &str) -> OthersClaims {
        OthersClaims { all: self.claims(tenant), ..OthersClaims::none(uid, namespace) }
    }

    /// Tenant objects of other VppTokens whose statuses show an intent with one of the keys, recorded after a time.
    pub(crate) fn tenants_of_intents(&self, keys: &[CreateKey], uid: &str, after: Timestamp) -> BTreeSet<TenantKey> {
        let others = keys.iter().filter_map(|key| self.intents.get(key)).flatten().filter(|other| ***other != *uid);
        let intents = others.filter_map(|other| self.objects.get(other)?.intent.as_deref());
        intents.filter(|intent| intent.since > after).map(|intent| intent.tenant.clone()).collect()
    }

    /// A tenant and a token of it, as they are known already.
    fn shared(&self, tenant: &EntraTenant, id: &str) -> (EntraTenant, Arc<str>) {
        match self.tenants.get_key_value(tenant) {
            Some((known, claims)) => (known.clone(), claims.shared(id)),
            None => (tenant.clone(), id.into()),
        }
    }

    /// Changes what one VppToken has: what it had is taken out, and what it has then is put in.
    fn change(&mut self, before: IndexEntry, change: impl FnOnce(&mut IndexEntry)) {
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            self.take_out(&before);
            self.put_in(&after);
        }
        self.objects.insert(Arc::clone(&after.identity.uid), after);
    }

    fn take_out(&mut self, known: &IndexEntry) {
        let uid = &known.identity.uid;
        for (tenant, id) in known.tokens() {
            self.of_tenant(tenant, |claims| claims.remove(id, &known.identity));
        }
        if let Some((tenant, id, Some(sha256))) = &known.shown {
            self.of_tenant(tenant, |claims| claims.remove_file(sha256, id, uid));
        }
        for key in known.intent.iter().flat_map(|intent| &intent.keys) {
            if let Some(uids) = self.intents.get_mut(key) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.intents.remove(key);
                }
            }
        }
    }

    fn put_in(&mut self, known: &IndexEntry) {
        let uid = &known.identity.uid;
        for (tenant, id) in known.tokens() {
            self.of_tenant(tenant, |claims| claims.add(id, Arc::clone(&known.identity)));
        }
        if let Some((tenant, id, Some(sha256))) = &known.shown {
            self.of_tenant(tenant, |claims| claims.add_file(sha256, id, uid));
        }
        for key in known.intent.iter().flat_map(|intent| &intent.keys) {
            self.intents.entry(key.clone()).or_default().insert(Arc::clone(uid));
        }
    }

    fn of_tenant(&mut self, tenant: &EntraTenant, change: impl FnOnce(&mut Claims)) {
        let claims = self.tenants.entry(tenant.to_owned()).or_default();
        change(claims);
        if claims.is_empty() {
            self.tenants.remove(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::{Cloud, GraphApi, Uploaded, VppTokenStatus, VppTokenTenant};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn tenant(id: &str) -> VppTokenTenant {
        VppTokenTenant { cloud: Cloud::Global, tenant_id: id.into(), api: GraphApi::V1 }
    }

    /// A VppToken; the later its letter, the younger it is.
    fn object(uid: &str, status: VppTokenStatus) -> VppToken {
        let age = i64::from(uid.as_bytes()[0]);
        let created = Timestamp::from_second(1_700_000_000 + age).unwrap();
        let mut object: VppToken = serde_json::from_value(json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
            "metadata": {
                "name": uid, "namespace": if uid == "b" { "elsewhere" } else { "devices" }, "uid": uid,
                "creationTimestamp": created.to_string(),
            },
            "spec": {},
        }))
        .unwrap();
        object.status = Some(status);
        object
    }

    /// A status that has a token, and uploaded a file to it.
    fn has(id: &str, sha256: &str) -> VppTokenStatus {
        let uploaded = Uploaded {
            sha256: sha256.into(),
            expiration_date_time: NOW,
            organization_name: "Contoso".into(),
            time: NOW,
            encoding: None,
            secret_version: None,
            shown: false,
        };
        VppTokenStatus {
            tenant: Some(tenant("8D3F")),
            token_id: Some(id.into()),
            uploaded: Some(uploaded),
            ..VppTokenStatus::default()
        }
    }

    fn apply_listed(index: &mut Index, object: &VppToken) {
        index.apply_listed(&index.identity_of(object.metadata.uid.as_deref().unwrap(), object), object);
    }

    fn apply_if_newer(index: &mut Index, object: &VppToken) {
        index.apply_if_newer(&index.identity_of(object.metadata.uid.as_deref().unwrap(), object), object);
    }

    fn others_of(index: &Index, uid: &str) -> OthersClaims {
        index.others_claims(&tenant("8d3f").entra_tenant(), uid, "devices")
    }

    #[test]
    fn all_that_have_a_token_are_known_in_whatever_order_they_come() {
        let all = [("b", has("t1", "digest-1")), ("c", has("t1", "digest-1")), ("d", has("t0", "digest-1"))];
        let seen = |order: [usize; 3]| {
            let mut index = Index::default();
            order.into_iter().for_each(|n| apply_listed(&mut index, &object(all[n].0, all[n].1.clone())));
            index
        };
        let index = seen([0, 1, 2]);
        let others = others_of(&index, "a");
        assert_eq!(others, others_of(&seen([2, 1, 0]), "a"));
        let owners = |id| others.owners(id).map(|owner| (owner.uid, owner.name)).collect::<Vec<_>>();
        assert_eq!(owners("t1"), [("b".into(), None), ("c".into(), Some("c".into()))], "b is elsewhere");
        assert_eq!(owners("t0"), [("d".into(), Some("d".into()))]);
        assert_eq!((others.token_with_file("digest-1"), others.ids().count()), (Some("t0"), 2));
        let others = others_of(&index, "d");
        assert_eq!((others.contains("t0"), others.token_with_file("digest-1")), (false, Some("t1")), "its own");
        assert!(
            !index.others_claims(&tenant("other").entra_tenant(), "a", "devices").contains("t1"),
            "in another tenant"
        );
    }

    #[test]
    fn of_two_that_recorded_an_intent_each_sees_the_other() {
        let with_intent = |apple_id: &str, organization: &str, after: SignedDuration| {
            let pending = PendingCreate {
                sha256: "digest".into(),
                since: NOW,
                apple_id: apple_id.into(),
                organization_name: organization.into(),
                expiration_date_time: NOW + after,
                known_ids: Vec::new(),
            };
            VppTokenStatus { pending_create: Some(Box::new(pending)), ..VppTokenStatus::default() }
        };
        let second = SignedDuration::from_secs(1);
        let sees = |status: &VppTokenStatus, after: Timestamp| {
            let mut index = Index::default();
            apply_listed(&mut index, &object("b", status.clone()));
            let keys = vec![CreateKey::of_apple_id("vpp@contoso.example"), CreateKey::of_file("Contoso", NOW)];
            assert!(index.tenants_of_intents(&keys, "b", after).is_empty(), "its own");
            !index.tenants_of_intents(&keys, "a", after).is_empty()
        };
        let before = NOW - second;
        assert!(sees(&with_intent("VPP@contoso.example ", "Fabrikam", second), before), "the same Apple ID");
        let mut index = Index::default();
        apply_listed(&mut index, &object("b", with_intent("vpp@contoso.example", "Contoso", second)));
        apply_listed(&mut index, &object("b", VppTokenStatus::default()));
        assert!(index.intents.is_empty(), "it is not there any more");
        let almost = SignedDuration::from_millis(999);
        assert!(sees(&with_intent("other@contoso.example", " CONTOSO", almost), before), "a file of the same second");
        assert!(!sees(&with_intent("other@contoso.example", "Fabrikam", almost), before), "of another organization");
        assert!(!sees(&with_intent("other@contoso.example", "Contoso", second), before), "another file");
        assert!(!sees(&with_intent("vpp@contoso.example", "Contoso", second), NOW), "long ago");
        assert!(!sees(&VppTokenStatus::default(), before), "none");
    }

    /// What a VppToken has: the token and the file of its status, and what was claimed for it.
    type Has = (Option<(u8, u8)>, BTreeSet<u8>);

    #[test]
    fn a_watch_that_is_late_does_not_undo_what_this_process_wrote() {
        let version = |version: &str, status: VppTokenStatus| {
            let mut object = object("b", status);
            object.metadata.resource_version = Some(version.into());
            object
        };
        let mut index = Index::default();
        apply_if_newer(&mut index, &version("9", VppTokenStatus::default()));
        apply_if_newer(&mut index, &version("10", has("t1", "digest-1")));
        apply_if_newer(&mut index, &version("9", VppTokenStatus::default()));
        assert!(others_of(&index, "a").contains("t1"));
        apply_listed(&mut index, &version("9", VppTokenStatus::default()));
        assert!(!others_of(&index, "a").contains("t1"), "a list, after a restore of etcd perhaps");
        apply_if_newer(&mut index, &version("11", has("t1", "digest-1")));
        assert!(others_of(&index, "a").contains("t1"));
    }

    fn has_it((shown, claimed): &Has, id: u8) -> bool {
        claimed.contains(&id) || shown.is_some_and(|(shown, _)| shown == id)
    }

    /// What may happen to one of three VppTokens.
    #[derive(Clone, Debug)]
    enum Event {
        Shown(Option<(u8, u8)>),
        Claims(u8),
        Unclaims(Option<u8>),
        Deleted,
    }

    fn event() -> impl Strategy<Value = (usize, Event)> {
        let event = prop_oneof![
            proptest::option::of((0u8..3, 0u8..2)).prop_map(Event::Shown),
            (0u8..3).prop_map(Event::Claims),
            proptest::option::of(0u8..3).prop_map(Event::Unclaims),
            Just(Event::Deleted),
        ];
        (0usize..3, event)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_index_is_what_a_scan_of_all_objects_would_find(events in proptest::collection::vec(event(), 1..40)) {
            const UIDS: [&str; 3] = ["b", "c", "d"];
            let name = tenant("8d3f").entra_tenant();
            let mut index = Index::default();
            // None of those that are not there.
            let mut objects: [Option<Has>; 3] = Default::default();
            for (n, event) in events {
                let uid = UIDS[n];
                match event {
                    Event::Shown(shown) => {
                        let status = shown.map(|(id, file)| has(&format!("t{id}"), &format!("digest-{file}")));
                        apply_listed(&mut index, &object(uid, status.unwrap_or_default()));
                        objects[n].get_or_insert_default().0 = shown;
                    }
                    Event::Claims(id) => {
                        let is_free = (0..3).filter(|other| *other != n).all(|other| {
                            objects[other].as_ref().is_none_or(|has| !has_it(has, id))
                        });
                        let is_claimed = index.claim(uid, &name, &format!("t{id}"));
                        prop_assert_eq!(is_claimed, is_free && objects[n].is_some());
                        if let Some((_, claimed)) = objects[n].as_mut().filter(|_| is_claimed) {
                            claimed.insert(id);
                        }
                    }
                    Event::Unclaims(but) => {
                        index.unclaim(uid, but.map(|id| format!("t{id}")).as_deref());
                        if let Some((_, claimed)) = &mut objects[n] {
                            claimed.retain(|id| Some(*id) == but);
                        }
                    }
                    Event::Deleted => {
                        index.forget(uid);
                        objects[n] = None;
                    }
                }
                let others = others_of(&index, UIDS[2]);
                for id in 0..3 {
                    let owners = (0..2).filter(|n| objects[*n].as_ref().is_some_and(|has| has_it(has, id)));
                    let owners: Vec<&str> = owners.map(|n| UIDS[n]).collect();
                    let seen = others.owners(&format!("t{id}")).map(|owner| owner.uid.to_string()).collect::<Vec<_>>();
                    prop_assert_eq!(seen, owners);
                }
                for file in 0..2 {
                    let shown = objects[..2].iter().flatten().filter_map(|(shown, _)| *shown);
                    let first = shown.filter(|(_, of)| *of == file).map(|(id, _)| format!("t{id}")).min();
                    prop_assert_eq!(others.token_with_file(&format!("digest-{file}")), first.as_deref());
                }
            }
            UIDS.iter().for_each(|uid| index.forget(uid));
            prop_assert!(index.tenants.is_empty() && index.objects.is_empty() && index.intents.is_empty());
        }
    }
}
