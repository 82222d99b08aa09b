//! What this process remembers of the objects beyond their statuses: the index of who has what, which the watches and our own
//! writes keep, the locks to create, and failures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::at_graph::GraphTasks;
use super::claims::{Claims, CreateKey, Index, OthersClaims, Uid, version};
use super::creates::Creates;
use super::observed::{Attempts, FileFacts, FileProblem, Inputs};
use super::outcome::Outcome;
use super::plan::{Plan, Reported};
use super::references::References;
use crate::api::status_patch::Status;
use crate::api::{EntraTenant, NamespacedName, TokenEncoding, VppToken, VppTokenStatus};
use crate::tenant::{IntentPermit, TenantKey, WriteRateLimiter};

/// The file of one version of a Secret, read once.
#[derive(Clone, Debug)]
pub(crate) struct ReadFile {
    /// Version of the Secret, with the key, and encoding.
    pub of: (String, TokenEncoding),
    /// What was found.
    pub file: Result<FileFacts, FileProblem>,
}

/// What is remembered of one object.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectState {
    /// What a decision needs.
    pub attempts: Attempts,
    /// The file that was read last, unless the status knows it.
    pub file: Option<Box<ReadFile>>,
    /// Outcomes that could not be written into the status yet.
    pub unrecorded: Vec<Outcome>,
    /// A list is waited for.
    pub awaits_list: bool,
    /// The object as this process wrote it last, or read it past the cache, until the watch shows it.
    pub newest: Option<Arc<VppToken>>,
    /// The version that the watch has shown last, which the cache has.
    pub shown: Option<u64>,
    /// What events have reported.
    pub reported: Reported,
    /// How often in a row Kubernetes could not be read or written.
    pub kubernetes_failures: u32,
}

impl ObjectState {
    /// A status with all outcomes applied, without conditions of other writers.
    pub(crate) fn status_with_outcomes(&self, status: Option<VppTokenStatus>) -> VppTokenStatus {
        let mut status = status.unwrap_or_default().without_others_conditions();
        for outcome in &self.unrecorded {
            outcome.apply(&mut status);
        }
        status
    }

    /// The cache has an object in this state.
    fn record_shown(&mut self, object: &VppToken) {
        self.shown = version(object);
        self.newest.take_if(|newest| version(newest) <= version(object));
    }

    /// The status of a plan that was made on these inputs has been written, or needed no write: `status` is what the object has.
    pub(crate) fn record_status_written(&mut self, plan: &Plan, inputs: &Inputs, status: Option<&VppTokenStatus>) {
        let uploaded = status.and_then(|status| status.uploaded.as_ref());
        self.file.take_if(|read| {
            let (version, encoding) = &read.of;
            let known = uploaded.and_then(|uploaded| FileFacts::of_uploaded(uploaded, version, *encoding));
            known.is_some_and(|known| read.file == Ok(known))
        });
        self.unrecorded.clear();
        self.kubernetes_failures = 0;
        self.awaits_list = plan.list_after.is_some();
        if let Some(differing) = &plan.differing {
            self.attempts.tries.retain(|field, _| differing.contains(field));
        }
        let is_creating = plan.status.pending_create.is_some();
        self.attempts.failures.retain(|kind, failure| is_creating || failure.inputs.is_same_for(*kind, inputs));
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    objects: BTreeMap<Uid, ObjectState>,
    creates: Creates,
    index: Index,
    references: References,
    graph_tasks: GraphTasks,
    /// Where an object may have a ticket.
    limiters: BTreeMap<Uid, Arc<WriteRateLimiter>>,
}

/// The object that the others are compared with.
#[derive(Clone, Debug)]
pub(crate) struct Own<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: &'a str,
    /// The keys that its create would lock.
    pub keys: Vec<CreateKey>,
}

/// What one object sees of the others of its tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct OthersSeen {
    /// Another one has a lock to create that it needs.
    pub is_create_locked: bool,
    /// Tenant objects of those whose statuses show an intent with one of its keys.
    pub intents: BTreeSet<TenantKey>,
    /// The tokens that they have, and the files that they uploaded.
    pub claims: OthersClaims,
}

/// What the process remembers. Shared by all reconciles.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalState {
    state: Arc<Mutex<State>>,
}

impl LocalState {
    /// What is remembered of an object.
    pub(crate) fn object_state(&self, uid: &str) -> ObjectState {
        self.state().objects.get(uid).cloned().unwrap_or_default()
    }

    /// A list has an object: it is remembered from now on, and what its status says it has. Other objects are not remembered,
    /// so that nothing outlives its object. See [`References::apply`] for what is returned.
    pub(crate) fn apply_listed(&self, object: &VppToken) -> bool {
        let Some(uid) = object.metadata.uid.as_ref() else { return false };
        let mut state = self.state();
        let identity = state.index.identity_of(uid, object);
        state.objects.entry(Arc::clone(&identity.uid)).or_default();
        state.index.apply_listed(&identity, object);
        state.references.apply(&identity, object)
    }

    /// The same for an event of a watch, which may be late.
    pub(crate) fn apply_if_newer(&self, object: &VppToken) -> bool {
        let Some(uid) = object.metadata.uid.as_ref() else { return false };
        let mut state = self.state();
        let identity = state.index.identity_of(uid, object);
        state.objects.entry(Arc::clone(&identity.uid)).or_default().record_shown(object);
        state.index.apply_if_newer(&identity, object) && state.references.apply(&identity, object)
    }

    /// A list is complete: the cache has these objects now.
    pub(crate) fn record_shown<'a>(&self, objects: impl IntoIterator<Item = &'a Arc<VppToken>>) {
        let mut state = self.state();
        for object in objects {
            let known = object.metadata.uid.as_ref().and_then(|uid| state.objects.get_mut(uid.as_str()));
            if let Some(known) = known {
                known.record_shown(object);
            }
        }
    }

    /// An object as this process has written it, or read it past the cache: others see that before a watch brings it.
    /// See [`References::apply`] for what is returned.
    pub(crate) fn apply_newest(&self, object: &Arc<VppToken>) -> bool {
        let Some(uid) = object.metadata.uid.as_deref() else { return false };
        let mut state = self.state();
        let Some(known) = state.objects.get_mut(uid) else { return false };
        known.newest = (version(object) > known.shown).then(|| Arc::clone(object));
        let identity = state.index.identity_of(uid, object);
        state.index.apply_if_newer(&identity, object) && state.references.apply(&identity, object)
    }

    /// The object that a cache has, or the newer one that this process has written or read past the cache.
    pub(crate) fn newest(&self, cached: Arc<VppToken>) -> Arc<VppToken> {
        let uid = cached.metadata.uid.as_deref().unwrap_or_default();
        let mut state = self.state();
        let Some(known) = state.objects.get_mut(uid) else { return cached };
        known.newest.take_if(|newest| version(newest) <= version(&cached));
        known.newest.clone().unwrap_or(cached)
    }

    /// Looks at what the objects refer to.
    pub(crate) fn references<T>(&self, look: impl FnOnce(&References) -> T) -> T {
        look(&self.state().references)
    }

    /// The objects that news of a tenant concerns: those that have one of these tokens, that may get one, or that wait for a
    /// list.
    pub(crate) fn concerned_by(&self, tenant: &TenantKey, ids: &BTreeSet<String>) -> BTreeSet<NamespacedName> {
        let state = self.state();
        let awaits_list = |uid: &str| state.objects.get(uid).is_some_and(|object| object.awaits_list);
        let awaiting = state.references.of_tenant(tenant).filter(|(uid, _)| awaits_list(uid)).map(|(_, name)| name);
        state.references.of_tokens(tenant, ids).into_iter().chain(awaiting.cloned()).collect()
    }

    /// The claims in a tenant.
    pub(crate) fn claims(&self, tenant: &EntraTenant) -> Claims {
        self.state().index.claims(tenant)
    }

    /// What one object sees of the others of its tenant. If one of them has a lock to create that it needs, it is triggered when
    /// that is released. All at one moment: a create that ends is either still seen, or its token is.
    pub(crate) fn others_of(&self, tenant: &EntraTenant, own: &Own<'_>, rivals_since: Timestamp) -> OthersSeen {
        let mut state = self.state();
        let who = NamespacedName::new(own.namespace, own.name.as_str());
        OthersSeen {
            is_create_locked: state.creates.is_locked_by_other(tenant, &own.keys, own.uid, &who),
            intents: state.index.tenants_of_intents(&own.keys, own.uid, rivals_since),
            claims: state.index.others_claims(tenant, own.uid, own.namespace),
        }
    }

    /// Changes what is remembered of an object; none when it was deleted.
    pub(crate) fn change<T>(&self, uid: &str, change: impl FnOnce(&mut ObjectState) -> T) -> Option<T> {
        self.state().objects.get_mut(uid).map(change)
    }

    /// The limiter that an object asks from now on; its ticket with another one is withdrawn. False when the object was deleted.
    pub(crate) fn set_limiter(&self, uid: &str, limiter: Option<&Arc<WriteRateLimiter>>) -> bool {
        let mut state = self.state();
        let known = state.objects.get_key_value(uid).map(|(uid, _)| Arc::clone(uid));
        let limiter = limiter.filter(|_| known.is_some()).map(Arc::clone);
        let before = match (&limiter, known) {
            (Some(limiter), Some(uid)) => state.limiters.insert(uid, Arc::clone(limiter)),
            _ => state.limiters.remove(uid),
        };
        if let Some(before) = before.filter(|before| limiter.is_none_or(|limiter| !Arc::ptr_eq(before, &limiter))) {
            before.withdraw(uid);
        }
        state.objects.contains_key(uid)
    }

    /// Whether an object exists, as far as the watches have shown.
    pub(crate) fn is_known(&self, uid: &str) -> bool {
        self.state().objects.contains_key(uid)
    }

    /// The reconcile of an object ended before it could ask for a permit.
    pub(crate) fn release_reservation(&self, uid: &str) {
        if let Some(limiter) = self.state().limiters.get(uid) {
            limiter.release(uid);
        }
    }

    /// Looks at the steps at Graph, or changes them. They see which objects exist.
    pub(crate) fn graph_tasks<T>(&self, change: impl FnOnce(&mut GraphTasks, &dyn Fn(&str) -> bool) -> T) -> T {
        let State { graph_tasks, objects, .. } = &mut *self.state();
        change(graph_tasks, &|uid| objects.contains_key(uid))
    }

    /// Whether an object has a permit to record the intent of a create already.
    pub(crate) fn has_intent_permit(&self, uid: &str) -> bool {
        self.state().creates.has_permit(uid)
    }

    /// Claims a token for an object. False when another object has it, or when the object was deleted.
    pub(crate) fn claim(&self, tenant: &EntraTenant, id: &str, uid: &str) -> bool {
        let mut state = self.state();
        state.objects.contains_key(uid) && state.index.claim(uid, tenant, id)
    }

    /// Gives up the claims of an object, except for the token that its status has.
    pub(crate) fn unclaim(&self, uid: &str, but: Option<&str>) {
        self.state().index.unclaim(uid, but);
    }

    /// Takes the locks to create in a tenant: see [`Creates::lock`]. Never for an object that was deleted.
    pub(crate) fn lock_create(
        &self,
        tenant: &EntraTenant,
        keys: &[CreateKey],
        uid: &str,
        who: &NamespacedName,
        now: Timestamp,
        permit: Option<IntentPermit>,
    ) -> bool {
        let mut state = self.state();
        state.objects.contains_key(uid) && state.creates.lock(tenant, keys, uid, who, now, permit)
    }

    /// Marks a create as in flight, or as not in flight any more. False when the object or its lock does not exist.
    pub(crate) fn set_create_in_flight(&self, uid: &str, is_sending: bool) -> bool {
        let mut state = self.state();
        state.creates.set_in_flight(uid, is_sending) && state.objects.contains_key(uid)
    }

    /// Releases the locks of an object, unless its create is in flight. Returns who waited for them.
    pub(crate) fn unlock_create(&self, uid: &str) -> Vec<NamespacedName> {
        self.state().creates.unlock(uid)
    }

    /// Releases the locks that were taken before a time: a create of unknown outcome must not block others for ever.
    /// `knownIds` and the claims distinguish its result from other tokens. Returns who waited.
    pub(crate) fn unlock_creates_before(&self, time: Timestamp) -> Vec<NamespacedName> {
        self.state().creates.unlock_before(time)
    }

    /// Forgets an object that was deleted, and releases its locks, unless they must last until the outcome of its
    /// create is known. Returns who waited for them.
    pub(crate) fn forget(&self, uid: &str) -> Vec<NamespacedName> {
        let mut state = self.state();
        state.objects.remove(uid);
        state.index.forget(uid);
        state.references.forget(uid);
        state.graph_tasks.forget(uid);
        if let Some(limiter) = state.limiters.remove(uid) {
            limiter.withdraw(uid);
        }
        state.creates.forget(uid)
    }

    /// Of the namespaces for which a function returns true, forgets all objects but these. Returns who waited for the locks of
    /// the others.
    pub(crate) fn keep_only(&self, uids: &BTreeSet<String>, is_in: impl Fn(&str) -> bool) -> Vec<NamespacedName> {
        let known = self.state().index.uids_in(is_in);
        known.iter().filter(|uid| !uids.contains(&***uid)).flat_map(|uid| self.forget(uid)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::Cloud;
    use crate::tenant::{Limits, Priority};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn tenant(id: &str) -> EntraTenant {
        EntraTenant::new(Cloud::Global, id)
    }

    fn local_state() -> LocalState {
        let local_state = LocalState::default();
        for (uid, namespace) in [("a", "ns"), ("b", "ns"), ("c", "elsewhere")] {
            local_state.apply_listed(&object(uid, namespace));
        }
        local_state
    }

    fn object(uid: &str, namespace: &str) -> VppToken {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "VppToken",
            "metadata": { "name": uid, "namespace": namespace, "uid": uid }, "spec": {},
        }))
        .unwrap()
    }

    fn is_locked_by_other(local_state: &LocalState, keys: &[CreateKey], uid: &str) -> bool {
        let own = Own { namespace: "ns", name: uid.into(), uid, keys: keys.to_vec() };
        local_state.others_of(&tenant("t"), &own, Timestamp::MIN).is_create_locked
    }

    #[test]
    fn a_file_that_the_status_knows_is_not_kept() {
        let facts = FileFacts {
            sha256: "digest".into(),
            expiration: at(0),
            organization_name: "Contoso".into(),
            encoding: TokenEncoding::AsIs,
            secret_version: "uid/1/token".into(),
        };
        let plan = Plan {
            step: None,
            requeue_after: None,
            list_after: None,
            blockers: Vec::new(),
            differing: None,
            planned_on: None,
            status: VppTokenStatus::default(),
        };
        let inputs = Inputs { generation: 1, sha256: None, sync_request: None, upload_request: None };
        let another = FileFacts { secret_version: "uid/2/token".into(), ..facts.clone() };
        let replaced = FileFacts { sha256: "other".into(), ..facts.clone() };
        for (uploaded, is_kept) in
            [(Some(facts.clone()), false), (None, true), (Some(another), true), (Some(replaced), true)]
        {
            let uploaded = uploaded.map(|uploaded| uploaded.as_uploaded(at(1), true));
            let status = VppTokenStatus { uploaded, ..VppTokenStatus::default() };
            let of = (facts.secret_version.clone(), facts.encoding);
            let file = Some(Box::new(ReadFile { of, file: Ok(facts.clone()) }));
            let mut state = ObjectState { file, ..ObjectState::default() };
            state.record_status_written(&plan, &inputs, Some(&status));
            assert_eq!(state.file.is_some(), is_kept, "{:?}", status.uploaded);
        }
    }

    #[test]
    fn a_reconcile_begins_with_what_was_written_until_the_watch_shows_it() {
        let local_state = local_state();
        let at_version = |version: &str| {
            let mut object = object("a", "ns");
            object.metadata.resource_version = Some(version.to_owned());
            Arc::new(object)
        };
        let version_of_newest = |cached| local_state.newest(at_version(cached)).metadata.resource_version.clone();
        let keeps = || local_state.object_state("a").newest.is_some();
        local_state.apply_if_newer(&at_version("98"));
        assert_eq!(version_of_newest("98").as_deref(), Some("98"));
        local_state.apply_newest(&at_version("101"));
        assert_eq!(version_of_newest("98").as_deref(), Some("101"));
        local_state.apply_if_newer(&at_version("99"));
        assert_eq!(version_of_newest("99").as_deref(), Some("101"));
        local_state.apply_if_newer(&at_version("102"));
        assert!(!keeps());
        assert_eq!(version_of_newest("102").as_deref(), Some("102"));
        // The watch was faster than the answer.
        local_state.apply_newest(&at_version("102"));
        assert!(!keeps());
        // A list is complete only later, and tells nothing of the cache.
        local_state.apply_newest(&at_version("103"));
        local_state.apply_listed(&at_version("103"));
        assert_eq!(version_of_newest("102").as_deref(), Some("103"));
        local_state.record_shown([&at_version("103")]);
        assert!(!keeps());
        assert_eq!(version_of_newest("103").as_deref(), Some("103"));
        local_state.apply_newest(&at_version("103"));
        assert!(!keeps());
        // The API server was restored to an earlier state.
        local_state.apply_newest(&at_version("110"));
        local_state.record_shown([&at_version("50")]);
        local_state.apply_newest(&at_version("51"));
        assert_eq!(version_of_newest("50").as_deref(), Some("51"));
        local_state.apply_if_newer(&at_version("51"));
        assert!(!keeps());
        local_state.forget("a");
        local_state.apply_newest(&at_version("104"));
        assert_eq!(version_of_newest("103").as_deref(), Some("103"), "it was deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_reserved_for_an_object_that_is_gone_suspended_or_moved_goes_to_the_next_at_once() {
        let limiter = || Arc::new(WriteRateLimiter::new(Limits { at_a_time: 1, ..Limits::default() }));
        let withdraw: [fn(&LocalState, &WriteRateLimiter); 3] = [
            |local_state, _| drop(local_state.forget("a")),
            // Its plan has nothing to write.
            |_, limiter| limiter.record_unwanted("a"),
            |local_state, _| {
                let other = Arc::new(WriteRateLimiter::new(Limits::default()));
                local_state.set_limiter("a", Some(&other));
            },
        ];
        for withdraw in withdraw {
            let (local_state, limiter) = (local_state(), limiter());
            let (sender, mut triggered) = tokio::sync::mpsc::unbounded_channel();
            let running = Arc::clone(&limiter);
            let run = tokio::spawn(async move { running.run(&|object| drop(sender.send(object))).await });
            let request = |uid: &str| {
                assert!(local_state.set_limiter(uid, Some(&limiter)));
                limiter.request(uid, &NamespacedName::new("ns", uid), Priority::Interactive)
            };
            let held = request("c").unwrap();
            assert!(request("a").is_none() && request("b").is_none());
            drop(held);
            assert_eq!(&*triggered.recv().await.unwrap().name, "a");
            withdraw(&local_state, &limiter);
            let next = tokio::time::timeout(Duration::from_millis(1), triggered.recv()).await;
            assert_eq!(&*next.unwrap().unwrap().name, "b");
            assert!(request("b").is_some());
            run.abort();
        }
    }

    #[test]
    fn a_list_of_one_namespace_forgets_nothing_of_another() {
        let local_state = local_state();
        assert!(local_state.claim(&tenant("t"), "id", "c") && local_state.claim(&tenant("t"), "id-b", "b"));
        let listed = BTreeSet::from(["a".to_owned()]);
        local_state.keep_only(&listed, |namespace| namespace == "ns");
        assert!(local_state.claims(&tenant("t")).contains("id"));
        assert!(!local_state.claims(&tenant("t")).contains("id-b"), "it is not listed");
        assert!(!local_state.claim(&tenant("t"), "id-b", "b"));
    }

    #[test]
    fn a_lock_lasts_until_the_answer_though_its_object_is_deleted() {
        let local_state = local_state();
        let who = |name: &str| NamespacedName::new("ns", name);
        assert!(
            local_state.lock_create(
                &tenant("t"),
                &[CreateKey::of_apple_id("a@b.example")],
                "a",
                &who("a"),
                at(0),
                None
            ) && local_state.set_create_in_flight("a", true)
        );
        assert!(local_state.forget("a").is_empty());
        assert!(!local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("a@b.example")],
            "b",
            &who("b"),
            at(0),
            None
        ));
        assert!(!local_state.set_create_in_flight("a", false));
        assert_eq!(local_state.unlock_create("a"), [who("b")]);
        assert!(local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("a@b.example")],
            "b",
            &who("b"),
            at(0),
            None
        ));
    }

    #[test]
    fn a_lock_whose_create_got_no_answer_outlasts_its_object_for_a_while() {
        let local_state = local_state();
        let who = |name: &str| NamespacedName::new("ns", name);
        assert!(
            local_state.lock_create(
                &tenant("t"),
                &[CreateKey::of_apple_id("a@b.example")],
                "a",
                &who("a"),
                at(0),
                None
            ) && local_state.set_create_in_flight("a", true)
        );
        assert!(local_state.set_create_in_flight("a", false));
        assert!(local_state.forget("a").is_empty());
        assert!(
            !local_state.lock_create(
                &tenant("t"),
                &[CreateKey::of_apple_id("a@b.example")],
                "b",
                &who("b"),
                at(1),
                None
            ),
            "there may be a token"
        );
        assert_eq!(local_state.unlock_creates_before(at(100)), [who("b")]);
        assert!(local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("a@b.example")],
            "b",
            &who("b"),
            at(101),
            None
        ));
        assert!(local_state.forget("b").is_empty());
        assert!(
            local_state.lock_create(
                &tenant("t"),
                &[CreateKey::of_apple_id("a@b.example")],
                "c",
                &who("c"),
                at(102),
                None
            ),
            "nothing was sent"
        );
    }

    #[test]
    fn a_lock_that_nobody_releases_expires_but_not_while_its_create_is_in_flight() {
        let local_state = local_state();
        let who = |name: &str| NamespacedName::new("ns", name);
        assert!(
            local_state.lock_create(
                &tenant("t"),
                &[CreateKey::of_apple_id("a@b.example")],
                "a",
                &who("a"),
                at(0),
                None
            ) && local_state.set_create_in_flight("a", true)
        );
        assert!(!local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("a@b.example")],
            "b",
            &who("b"),
            at(1),
            None
        ));
        assert!(local_state.unlock_creates_before(at(100)).is_empty(), "it is in flight");
        assert!(local_state.set_create_in_flight("a", false));
        assert!(local_state.unlock_creates_before(at(0)).is_empty(), "it is young");
        assert_eq!(local_state.unlock_creates_before(at(100)), [who("b")]);
        assert!(local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("a@b.example")],
            "b",
            &who("b"),
            at(101),
            None
        ));
    }

    #[test]
    fn a_token_has_one_claimant() {
        let local_state = local_state();
        assert!(
            local_state.claim(&tenant("t"), "id", "a")
                && local_state.claim(&tenant("t"), "id", "a")
                && !local_state.claim(&tenant("t"), "id", "b")
        );
        assert!(local_state.claim(&tenant("other"), "id", "b"));
        assert!(local_state.claims(&tenant("t")).contains("id"));
        local_state.forget("a");
        assert!(!local_state.claim(&tenant("t"), "id", "a"), "it was deleted");
        assert!(local_state.claim(&tenant("t"), "id", "b"));
    }

    #[test]
    fn creates_with_one_apple_id_go_one_after_the_other() {
        let local_state = local_state();
        let who = |name: &str| NamespacedName::new("ns", name);
        assert!(local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("A@b.example")],
            "a",
            &who("a"),
            at(0),
            None
        ));
        assert!(!local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("a@B.example")],
            "b",
            &who("b"),
            at(0),
            None
        ));
        assert!(is_locked_by_other(&local_state, &[CreateKey::of_apple_id("a@b.example")], "c"));
        assert!(local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("other@b.example")],
            "b",
            &who("b"),
            at(0),
            None
        ));
        assert_eq!(local_state.unlock_create("a"), [who("b"), who("c")]);
        assert!(local_state.lock_create(
            &tenant("t"),
            &[CreateKey::of_apple_id("a@b.example")],
            "b",
            &who("b"),
            at(0),
            None
        ));
    }

    #[test]
    fn creates_of_one_file_go_one_after_the_other_whatever_their_apple_ids() {
        let local_state = local_state();
        let who = |name: &str| NamespacedName::new("ns", name);
        let keys = |apple_id: &str, organization: &str, second: i64| {
            [CreateKey::of_apple_id(apple_id), CreateKey::of_file(organization, at(second))]
        };
        let lock =
            |uid: &str, keys: &[CreateKey]| local_state.lock_create(&tenant("t"), keys, uid, &who(uid), at(0), None);
        assert!(lock("a", &keys("a@b.example", "Contoso", 5)));
        assert!(lock("a", &keys("a@b.example", "Contoso", 5)), "it has them already");
        assert!(!lock("b", &keys("b@b.example", " CONTOSO", 5)));
        assert!(lock("c", &keys("b@b.example", "Contoso", 6)), "nothing of what another could not take is locked");
        assert!(local_state.set_create_in_flight("a", true));
        assert!(local_state.unlock_create("a").is_empty(), "it is in flight");
        assert!(local_state.set_create_in_flight("a", false));
        assert_eq!(local_state.unlock_create("a"), [who("b")]);
        assert!(!is_locked_by_other(&local_state, &keys("a@b.example", "Contoso", 5), "b"));
        assert!(is_locked_by_other(&local_state, &keys("b@b.example", "Contoso", 5), "a"));
    }
}
