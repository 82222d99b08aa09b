//! What this process remembers of the objects beyond their statuses: claims that are newer than any cache, the locks to
//! create, and failures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::claims::{Claims, CreateKey, Index, OthersClaims, TenantName};
use super::observed::{Attempts, FileFacts, FileProblem, Inputs};
use super::outcome::Outcome;
use super::plan::Plan;
use crate::api::status_patch::Status;
use crate::api::{TokenEncoding, VppToken, VppTokenStatus};
use crate::tenant::TenantKey;

/// The file of one version of a Secret, read once.
#[derive(Clone, Debug)]
pub struct ReadFile {
    /// Secret, version, key and encoding.
    pub of: (String, String, String, TokenEncoding),
    /// What was found.
    pub file: Result<FileFacts, FileProblem>,
}

/// What is remembered of one object.
#[derive(Clone, Debug, Default)]
pub struct ObjectState {
    /// What a decision needs.
    pub attempts: Attempts,
    /// The file that was read last.
    pub file: Option<ReadFile>,
    /// Outcomes that could not be written into the status yet.
    pub unrecorded: Vec<Outcome>,
    /// A list is waited for.
    pub awaits_list: bool,
    /// The newest resource version that was written or read past the cache, which may still have an older one.
    pub version: Option<String>,
    /// The last sync that ended has failed, and that was reported.
    pub last_sync_failed: bool,
    /// The cause of a stall that an event has reported since the object was last Ready.
    pub reported_stall: Option<String>,
    /// How often in a row Kubernetes could not be read or written.
    pub kubernetes_failures: u32,
}

impl ObjectState {
    /// A status with all outcomes applied, without conditions of other writers.
    pub fn status_with_outcomes(&self, status: Option<VppTokenStatus>) -> VppTokenStatus {
        let mut status = status.unwrap_or_default().without_others_conditions();
        for outcome in &self.unrecorded {
            outcome.apply(&mut status);
        }
        status
    }

    /// The status of a plan that was made on these inputs has been written.
    pub fn record_status_written(&mut self, plan: &Plan, inputs: &Inputs) {
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
    objects: BTreeMap<String, ObjectState>,
    claims: BTreeMap<(TenantName, String), String>,
    create_locks: BTreeMap<(TenantName, CreateKey), CreateLock>,
    index: Index,
}

#[derive(Clone, Debug)]
struct CreateLock {
    holder: String,
    waiting: BTreeSet<(String, String)>,
    taken: Timestamp,
    /// A create is in flight: the lock lasts until its answer, even if the object is deleted.
    is_sending: bool,
    /// A create was sent, and its outcome is unknown: if the object is deleted, only this lock shows that there may be
    /// a token.
    was_sent: bool,
}

impl CreateLock {
    fn of(uid: &str, now: Timestamp) -> Self {
        Self { holder: uid.to_owned(), waiting: BTreeSet::new(), taken: now, is_sending: false, was_sent: false }
    }
}

impl State {
    fn is_create_locked_by_other(
        &mut self,
        tenant: &str,
        keys: &[CreateKey],
        uid: &str,
        who: &(String, String),
    ) -> bool {
        let mut is_locked = false;
        for key in keys {
            let lock = self.create_locks.get_mut(&(tenant.to_owned(), key.clone()));
            if let Some(lock) = lock.filter(|lock| lock.holder != uid) {
                lock.waiting.insert(who.clone());
                is_locked = true;
            }
        }
        is_locked
    }
}

/// What the process remembers. Shared by all reconciles.
#[derive(Clone, Debug, Default)]
pub struct LocalState {
    state: Arc<Mutex<State>>,
}

impl LocalState {
    /// An independent copy, for a checker that follows every path.
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// What is remembered of an object.
    pub fn object_state(&self, uid: &str) -> ObjectState {
        self.state().objects.get(uid).cloned().unwrap_or_default()
    }

    /// Begins to remember an object, once a watch has shown it. Other objects are not remembered, so that nothing
    /// outlives its object.
    pub fn open(&self, uid: &str) {
        self.state().objects.entry(uid.to_owned()).or_default();
    }

    /// A list shows an object: it is remembered from now on, and what its status says it has.
    pub fn show(&self, object: &VppToken) {
        if let Some(uid) = object.metadata.uid.as_deref() {
            self.open(uid);
            self.state().index.show(object);
        }
    }

    /// The same for an event of a watch, which may be late.
    pub fn show_newer(&self, object: &VppToken) {
        if let Some(uid) = object.metadata.uid.as_deref() {
            self.open(uid);
            self.state().index.show_newer(object);
        }
    }

    /// The answer to a write of this process shows an object: others see that before a watch brings it.
    pub fn show_written(&self, object: &VppToken) {
        let Some(uid) = object.metadata.uid.as_deref() else { return };
        let mut state = self.state();
        if let Some(known) = state.objects.get_mut(uid) {
            known.version.clone_from(&object.metadata.resource_version);
            state.index.show_newer(object);
        }
    }

    /// A cache has an object, perhaps an older one than what was shown: it is remembered from now on.
    pub fn show_unknown(&self, object: &VppToken) {
        if let Some(uid) = object.metadata.uid.as_deref() {
            self.open(uid);
            let mut state = self.state();
            if !state.index.knows(uid) {
                state.index.show(object);
            }
        }
    }

    /// The claims in a tenant.
    pub fn claims(&self, tenant: &str) -> Claims {
        self.state().index.claims(tenant)
    }

    /// The claims in a tenant of all objects but one.
    pub fn others_claims(&self, tenant: &str, uid: &str, namespace: &str) -> OthersClaims {
        self.state().index.others_claims(tenant, uid, namespace)
    }

    /// Tenant objects of other objects whose statuses show an intent with one of the keys, recorded after a time.
    pub fn tenants_of_intents(&self, keys: &[CreateKey], uid: &str, after: Timestamp) -> BTreeSet<TenantKey> {
        self.state().index.tenants_of_intents(keys, uid, after)
    }

    /// Changes what is remembered of an object; none when it was deleted.
    pub fn change<T>(&self, uid: &str, change: impl FnOnce(&mut ObjectState) -> T) -> Option<T> {
        self.state().objects.get_mut(uid).map(change)
    }

    /// Claims a token for an object. False when this process has claimed it for another object, or when the object was deleted.
    pub fn claim(&self, tenant: &str, id: &str, uid: &str) -> bool {
        let mut state = self.state();
        if !state.objects.contains_key(uid) {
            return false;
        }
        let holder = state.claims.entry((tenant.to_owned(), id.to_owned())).or_insert_with(|| uid.to_owned());
        let is_its = holder == uid;
        if is_its {
            state.index.claim(uid, tenant, id);
        }
        is_its
    }

    /// Gives up the claims of an object, except for one token.
    pub fn unclaim(&self, uid: &str, but: Option<&str>) {
        let mut state = self.state();
        for claim in state.index.claimed_by(uid).into_iter().filter(|(_, id)| Some(id.as_str()) != but) {
            state.claims.remove(&claim);
        }
        state.index.unclaim(uid, but);
    }

    /// Takes the locks to create in a tenant: all of them, or none. False when another object has one; `who` (namespace
    /// and name) is then triggered when it is released. Never for an object that was deleted.
    pub fn lock_create(
        &self,
        tenant: &str,
        keys: &[CreateKey],
        uid: &str,
        who: (String, String),
        now: Timestamp,
    ) -> bool {
        let mut state = self.state();
        if !state.objects.contains_key(uid) || state.is_create_locked_by_other(tenant, keys, uid, &who) {
            return false;
        }
        for key in keys {
            let key = (tenant.to_owned(), key.clone());
            state.create_locks.entry(key).or_insert_with(|| CreateLock::of(uid, now));
        }
        true
    }

    /// Whether another object has one of the locks; `who` is then triggered when it is released.
    pub fn is_create_locked_by_other(
        &self,
        tenant: &str,
        keys: &[CreateKey],
        uid: &str,
        who: (String, String),
    ) -> bool {
        self.state().is_create_locked_by_other(tenant, keys, uid, &who)
    }

    /// Marks a create as in flight, or as not in flight any more. False when the object or its lock does not exist.
    pub fn set_create_in_flight(&self, uid: &str, is_sending: bool) -> bool {
        let mut state = self.state();
        let mut has_lock = false;
        for lock in state.create_locks.values_mut().filter(|lock| lock.holder == uid) {
            lock.is_sending = is_sending;
            lock.was_sent |= is_sending;
            has_lock = true;
        }
        has_lock && state.objects.contains_key(uid)
    }

    /// Releases the locks of an object, unless its create is in flight. Returns who waited for them.
    pub fn unlock_create(&self, uid: &str) -> Vec<(String, String)> {
        self.unlock_creates(|lock| lock.holder == uid)
    }

    /// Releases the locks that were taken before a time: a create of unknown outcome must not block others for ever.
    /// `knownIds` and the claims distinguish its result from other tokens. Returns who waited.
    pub fn unlock_creates_before(&self, time: Timestamp) -> Vec<(String, String)> {
        self.unlock_creates(|lock| lock.taken < time)
    }

    fn unlock_creates(&self, is_over: impl Fn(&CreateLock) -> bool) -> Vec<(String, String)> {
        let mut waited = Vec::new();
        self.state().create_locks.retain(|_, lock| {
            if !is_over(lock) || lock.is_sending {
                return true;
            }
            waited.extend(std::mem::take(&mut lock.waiting));
            false
        });
        waited
    }

    /// Forgets an object that was deleted, and releases its locks, unless they must last until the outcome of its
    /// create is known. Returns who waited for them.
    pub fn forget(&self, uid: &str) -> Vec<(String, String)> {
        // The state first: without it nothing can be claimed any more.
        self.state().objects.remove(uid);
        self.unclaim(uid, None);
        self.state().index.forget(uid);
        self.unlock_creates(|lock| lock.holder == uid && !lock.was_sent)
    }

    /// Forgets all objects but these. Returns who waited for the locks of the others.
    pub fn keep_only(&self, uids: &BTreeSet<String>) -> Vec<(String, String)> {
        let deleted: Vec<String> = self.state().objects.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        deleted.iter().flat_map(|uid| self.forget(uid)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn local_state() -> LocalState {
        let local_state = LocalState::default();
        for uid in ["a", "b", "c"] {
            local_state.open(uid);
        }
        local_state
    }

    #[test]
    fn a_lock_lasts_until_the_answer_though_its_object_is_deleted() {
        let local_state = local_state();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(
            local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "a", who("a"), at(0))
                && local_state.set_create_in_flight("a", true)
        );
        assert!(local_state.forget("a").is_empty());
        assert!(!local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "b", who("b"), at(0)));
        assert!(!local_state.set_create_in_flight("a", false));
        assert_eq!(local_state.unlock_create("a"), [who("b")]);
        assert!(local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "b", who("b"), at(0)));
    }

    #[test]
    fn a_lock_whose_create_got_no_answer_outlasts_its_object_for_a_while() {
        let local_state = local_state();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(
            local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "a", who("a"), at(0))
                && local_state.set_create_in_flight("a", true)
        );
        assert!(local_state.set_create_in_flight("a", false));
        assert!(local_state.forget("a").is_empty());
        assert!(
            !local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "b", who("b"), at(1)),
            "there may be a token"
        );
        assert_eq!(local_state.unlock_creates_before(at(100)), [who("b")]);
        assert!(local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "b", who("b"), at(101)));
        assert!(local_state.forget("b").is_empty());
        assert!(
            local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "c", who("c"), at(102)),
            "nothing was sent"
        );
    }

    #[test]
    fn a_lock_that_nobody_releases_expires_but_not_while_its_create_is_in_flight() {
        let local_state = local_state();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(
            local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "a", who("a"), at(0))
                && local_state.set_create_in_flight("a", true)
        );
        assert!(!local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "b", who("b"), at(1)));
        assert!(local_state.unlock_creates_before(at(100)).is_empty(), "it is in flight");
        assert!(local_state.set_create_in_flight("a", false));
        assert!(local_state.unlock_creates_before(at(0)).is_empty(), "it is young");
        assert_eq!(local_state.unlock_creates_before(at(100)), [who("b")]);
        assert!(local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "b", who("b"), at(101)));
    }

    #[test]
    fn a_token_has_one_claimant() {
        let local_state = local_state();
        assert!(
            local_state.claim("t", "id", "a")
                && local_state.claim("t", "id", "a")
                && !local_state.claim("t", "id", "b")
        );
        assert!(local_state.claim("other", "id", "b"));
        assert!(local_state.others_claims("t", "b", "ns").contains("id"));
        local_state.forget("a");
        assert!(!local_state.claim("t", "id", "a"), "it was deleted");
        assert!(local_state.claim("t", "id", "b"));
    }

    #[test]
    fn creates_with_one_apple_id_go_one_after_the_other() {
        let local_state = local_state();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(local_state.lock_create("t", &[CreateKey::of_apple_id("A@b.example")], "a", who("a"), at(0)));
        assert!(!local_state.lock_create("t", &[CreateKey::of_apple_id("a@B.example")], "b", who("b"), at(0)));
        assert!(local_state.is_create_locked_by_other("t", &[CreateKey::of_apple_id("a@b.example")], "c", who("c")));
        assert!(local_state.lock_create("t", &[CreateKey::of_apple_id("other@b.example")], "b", who("b"), at(0)));
        assert_eq!(local_state.unlock_create("a"), [who("b"), who("c")]);
        assert!(local_state.lock_create("t", &[CreateKey::of_apple_id("a@b.example")], "b", who("b"), at(0)));
    }

    #[test]
    fn creates_of_one_file_go_one_after_the_other_whatever_their_apple_ids() {
        let local_state = local_state();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        let keys = |apple_id: &str, organization: &str, second: i64| {
            [CreateKey::of_apple_id(apple_id), CreateKey::of_file(organization, at(second))]
        };
        let lock = |uid: &str, keys: &[CreateKey]| local_state.lock_create("t", keys, uid, who(uid), at(0));
        assert!(lock("a", &keys("a@b.example", "Contoso", 5)));
        assert!(lock("a", &keys("a@b.example", "Contoso", 5)), "it has them already");
        assert!(!lock("b", &keys("b@b.example", " CONTOSO", 5)));
        assert!(lock("c", &keys("b@b.example", "Contoso", 6)), "nothing of what another could not take is locked");
        assert!(local_state.set_create_in_flight("a", true));
        assert!(local_state.unlock_create("a").is_empty(), "it is in flight");
        assert!(local_state.set_create_in_flight("a", false));
        assert_eq!(local_state.unlock_create("a"), [who("b")]);
        assert!(!local_state.is_create_locked_by_other("t", &keys("a@b.example", "Contoso", 5), "b", who("b")));
        assert!(local_state.is_create_locked_by_other("t", &keys("b@b.example", "Contoso", 5), "a", who("a")));
    }
}
