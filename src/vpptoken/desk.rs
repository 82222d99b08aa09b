//! What this process remembers of the objects beyond their statuses: claims fresher than any cache, whose turn it is to
//! create, and what failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::facts::Done;
use super::plan::Plan;
use super::world::{FileFacts, FileProblem, Inputs, Memory};
use crate::api::{TokenEncoding, VppTokenStatus};

/// A tenant, apart from how it is reached: cloud and tenant id.
pub type TenantName = String;

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
pub struct Page {
    /// What a decision needs.
    pub memory: Memory,
    /// The file that was read last.
    pub file: Option<ReadFile>,
    /// What was done and could not be written into the status yet.
    pub unrecorded: Vec<Done>,
    /// A list is waited for.
    pub awaits_list: bool,
    /// The newest resource version that was written or read past the cache, which may still have an older one.
    pub version: Option<String>,
    /// The last sync that ended failed, and that was told.
    pub last_sync_failed: bool,
    /// How often in a row Kubernetes could not be read or written.
    pub kubernetes_failures: u32,
}

impl Page {
    /// A status as it is once everything that was done is written into it.
    pub fn status_with_facts(&self, status: Option<VppTokenStatus>) -> VppTokenStatus {
        let mut status = status.unwrap_or_default();
        for fact in &self.unrecorded {
            fact.apply(&mut status);
        }
        status
    }

    /// The status of a plan that was made on these inputs is written.
    pub fn recorded(&mut self, plan: &Plan, inputs: &Inputs) {
        self.unrecorded.clear();
        self.kubernetes_failures = 0;
        self.awaits_list = plan.list_after.is_some();
        if let Some(differing) = &plan.differing {
            self.memory.tries.retain(|field, _| differing.contains(field));
        }
        let is_creating = plan.status.pending_create.is_some();
        self.memory.failures.retain(|kind, failure| is_creating || failure.inputs.is_same_for(*kind, inputs));
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    pages: BTreeMap<String, Page>,
    claims: BTreeMap<(TenantName, String), String>,
    turns: BTreeMap<(TenantName, String), Turn>,
}

#[derive(Clone, Debug)]
struct Turn {
    holder: String,
    waiting: BTreeSet<(String, String)>,
    taken: Timestamp,
    /// A create is on its way: the turn lasts until its answer, even if the object goes.
    is_sending: bool,
    /// A create was sent, and what came of it is not known: if the object goes, nobody else knows that there may be a token.
    was_sent: bool,
}

impl Turn {
    fn of(uid: &str, now: Timestamp) -> Self {
        Self { holder: uid.to_owned(), waiting: BTreeSet::new(), taken: now, is_sending: false, was_sent: false }
    }
}

/// The memory of the process. Shared by all reconciles.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    state: Arc<Mutex<State>>,
}

impl Desk {
    /// A memory that begins with what is in this one, and goes its own way from there: for a checker that follows every way.
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// What is remembered of an object.
    pub fn page(&self, uid: &str) -> Page {
        self.state().pages.get(uid).cloned().unwrap_or_default()
    }

    /// Begins to remember an object, once a watch has shown it. Nothing is remembered of others, so that nothing outlives
    /// its object.
    pub fn open(&self, uid: &str) {
        self.state().pages.entry(uid.to_owned()).or_default();
    }

    /// Changes what is remembered of an object; none when it is gone.
    pub fn change<T>(&self, uid: &str, change: impl FnOnce(&mut Page) -> T) -> Option<T> {
        self.state().pages.get_mut(uid).map(change)
    }

    /// Claims a token for an object. False when another object has it, or when the object is gone.
    pub fn claim(&self, tenant: &str, id: &str, uid: &str) -> bool {
        let mut state = self.state();
        if !state.pages.contains_key(uid) {
            return false;
        }
        let holder = state.claims.entry((tenant.to_owned(), id.to_owned())).or_insert_with(|| uid.to_owned());
        holder == uid
    }

    /// The claims in a tenant: the tokens of each object.
    pub fn claims(&self, tenant: &str) -> HashMap<String, Vec<String>> {
        let mut claims: HashMap<String, Vec<String>> = HashMap::new();
        for ((_, id), holder) in self.state().claims.iter().filter(|((of, _), _)| of == tenant) {
            claims.entry(holder.clone()).or_default().push(id.clone());
        }
        claims
    }

    /// Gives up the claims of an object, but for one token.
    pub fn unclaim(&self, uid: &str, but: Option<&str>) {
        self.state().claims.retain(|(_, id), holder| holder != uid || Some(id.as_str()) == but);
    }

    /// Takes the turn to create with an Apple ID in a tenant. False when another object has it; `who` (namespace and name)
    /// is then told when it is free. Never for an object that is gone.
    pub fn take_turn(&self, tenant: &str, apple_id: &str, uid: &str, who: (String, String), now: Timestamp) -> bool {
        let mut state = self.state();
        let key = (tenant.to_owned(), apple_id.trim().to_lowercase());
        if !state.pages.contains_key(uid) {
            return false;
        }
        let turn = state.turns.entry(key).or_insert_with(|| Turn::of(uid, now));
        if turn.holder == uid {
            return true;
        }
        turn.waiting.insert(who);
        false
    }

    /// Whether another object has the turn; `who` is then told when it is free.
    pub fn is_anothers_turn(&self, tenant: &str, apple_id: &str, uid: &str, who: (String, String)) -> bool {
        let mut state = self.state();
        match state.turns.get_mut(&(tenant.to_owned(), apple_id.trim().to_lowercase())) {
            Some(turn) if turn.holder != uid => {
                turn.waiting.insert(who);
                true
            }
            _ => false,
        }
    }

    /// Says that a create is on its way, or is not any more. False when the object, or its turn, is gone.
    pub fn keep_turn(&self, uid: &str, is_sending: bool) -> bool {
        let mut state = self.state();
        let mut has_turn = false;
        for turn in state.turns.values_mut().filter(|turn| turn.holder == uid) {
            turn.is_sending = is_sending;
            turn.was_sent |= is_sending;
            has_turn = true;
        }
        has_turn && state.pages.contains_key(uid)
    }

    /// Ends the turn of an object, unless its create is on its way. Returns who waited for it.
    pub fn end_turn(&self, uid: &str) -> Vec<(String, String)> {
        self.end_turns(|turn| turn.holder == uid)
    }

    /// Ends the turns that were taken before a time: a create of unknown outcome that nobody can look for must not keep the
    /// others waiting for ever. Whatever it made is told from others by `knownIds` and the claims. Returns who waited.
    pub fn end_turns_before(&self, time: Timestamp) -> Vec<(String, String)> {
        self.end_turns(|turn| turn.taken < time)
    }

    fn end_turns(&self, is_over: impl Fn(&Turn) -> bool) -> Vec<(String, String)> {
        let mut waited = Vec::new();
        self.state().turns.retain(|_, turn| {
            if !is_over(turn) || turn.is_sending {
                return true;
            }
            waited.extend(std::mem::take(&mut turn.waiting));
            false
        });
        waited
    }

    /// Forgets an object that is gone, and ends its turn, unless that is to last until the outcome of its create is known.
    /// Returns who waited for it.
    pub fn forget(&self, uid: &str) -> Vec<(String, String)> {
        // The page first: without it nothing can be claimed any more.
        self.state().pages.remove(uid);
        self.unclaim(uid, None);
        self.end_turns(|turn| turn.holder == uid && !turn.was_sent)
    }

    /// Forgets all objects but these. Returns who waited for the turns of the others.
    pub fn keep_only(&self, uids: &BTreeSet<String>) -> Vec<(String, String)> {
        let gone: Vec<String> = self.state().pages.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        gone.iter().flat_map(|uid| self.forget(uid)).collect()
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

    fn desk() -> Desk {
        let desk = Desk::default();
        for uid in ["a", "b", "c"] {
            desk.open(uid);
        }
        desk
    }

    #[test]
    fn a_turn_lasts_until_the_answer_though_its_object_goes() {
        let desk = desk();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(desk.take_turn("t", "a@b.example", "a", who("a"), at(0)) && desk.keep_turn("a", true));
        assert!(desk.forget("a").is_empty());
        assert!(!desk.take_turn("t", "a@b.example", "b", who("b"), at(0)));
        assert!(!desk.keep_turn("a", false));
        assert_eq!(desk.end_turn("a"), [who("b")]);
        assert!(desk.take_turn("t", "a@b.example", "b", who("b"), at(0)));
    }

    #[test]
    fn a_turn_whose_create_got_no_answer_outlasts_its_object_for_a_while() {
        let desk = desk();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(desk.take_turn("t", "a@b.example", "a", who("a"), at(0)) && desk.keep_turn("a", true));
        assert!(desk.keep_turn("a", false));
        assert!(desk.forget("a").is_empty());
        assert!(!desk.take_turn("t", "a@b.example", "b", who("b"), at(1)), "there may be a token");
        assert_eq!(desk.end_turns_before(at(100)), [who("b")]);
        assert!(desk.take_turn("t", "a@b.example", "b", who("b"), at(101)));
        assert!(desk.forget("b").is_empty());
        assert!(desk.take_turn("t", "a@b.example", "c", who("c"), at(102)), "nothing was sent");
    }

    #[test]
    fn a_turn_that_nobody_ends_is_over_after_a_while_but_not_while_its_create_is_on_its_way() {
        let desk = desk();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(desk.take_turn("t", "a@b.example", "a", who("a"), at(0)) && desk.keep_turn("a", true));
        assert!(!desk.take_turn("t", "a@b.example", "b", who("b"), at(1)));
        assert!(desk.end_turns_before(at(100)).is_empty(), "it is on its way");
        assert!(desk.keep_turn("a", false));
        assert!(desk.end_turns_before(at(0)).is_empty(), "it is young");
        assert_eq!(desk.end_turns_before(at(100)), [who("b")]);
        assert!(desk.take_turn("t", "a@b.example", "b", who("b"), at(101)));
    }

    #[test]
    fn a_token_has_one_claimant() {
        let desk = desk();
        assert!(desk.claim("t", "id", "a") && desk.claim("t", "id", "a") && !desk.claim("t", "id", "b"));
        assert!(desk.claim("other", "id", "b"));
        assert_eq!(desk.claims("t")["a"], ["id"]);
        desk.forget("a");
        assert!(!desk.claim("t", "id", "a"), "it is gone");
        assert!(desk.claim("t", "id", "b"));
    }

    #[test]
    fn creates_with_one_apple_id_take_turns() {
        let desk = desk();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(desk.take_turn("t", "A@b.example", "a", who("a"), at(0)));
        assert!(!desk.take_turn("t", "a@B.example", "b", who("b"), at(0)));
        assert!(desk.is_anothers_turn("t", "a@b.example", "c", who("c")));
        assert!(desk.take_turn("t", "other@b.example", "b", who("b"), at(0)));
        assert_eq!(desk.end_turn("a"), [who("b"), who("c")]);
        assert!(desk.take_turn("t", "a@b.example", "b", who("b"), at(0)));
    }
}
