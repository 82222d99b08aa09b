//! What this process remembers of the objects beyond their statuses: claims fresher than any cache, whose turn it is to
//! create, and what failed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::facts::Done;
use super::world::{FileFacts, FileProblem, Memory};
use crate::api::TokenEncoding;

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
    /// The resource version that our last write made: a cache may still have an older one.
    pub version: Option<String>,
    /// How often in a row Kubernetes could not be read or written.
    pub kubernetes_failures: u32,
}

#[derive(Debug, Default)]
struct State {
    pages: HashMap<String, Page>,
    claims: HashMap<(TenantName, String), String>,
    turns: HashMap<(TenantName, String), Turn>,
}

#[derive(Debug)]
struct Turn {
    holder: String,
    waiting: BTreeSet<(String, String)>,
}

/// The memory of the process. Shared by all reconciles.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    state: Arc<Mutex<State>>,
}

impl Desk {
    /// What is remembered of an object.
    pub fn page(&self, uid: &str) -> Page {
        self.state().pages.get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is remembered of an object.
    pub fn change<T>(&self, uid: &str, change: impl FnOnce(&mut Page) -> T) -> T {
        change(self.state().pages.entry(uid.to_owned()).or_default())
    }

    /// Claims a token for an object. False when another object has it.
    pub fn claim(&self, tenant: &str, id: &str, uid: &str) -> bool {
        let mut state = self.state();
        let holder = state.claims.entry((tenant.to_owned(), id.to_owned())).or_insert_with(|| uid.to_owned());
        holder == uid
    }

    /// The claims of other objects in a tenant: token and UID.
    pub fn claims_of_others(&self, tenant: &str, uid: &str) -> Vec<(String, String)> {
        let state = self.state();
        let of_tenant = state.claims.iter().filter(|((of, _), holder)| of == tenant && *holder != uid);
        of_tenant.map(|((_, id), holder)| (id.clone(), holder.clone())).collect()
    }

    /// Gives up the claims of an object, but for one token.
    pub fn unclaim(&self, uid: &str, but: Option<&str>) {
        self.state().claims.retain(|(_, id), holder| holder != uid || Some(id.as_str()) == but);
    }

    /// Takes the turn to create with an Apple ID in a tenant. False when another object has it; `who` (namespace and name)
    /// is then told when it is free.
    pub fn take_turn(&self, tenant: &str, apple_id: &str, uid: &str, who: (String, String)) -> bool {
        let mut state = self.state();
        let key = (tenant.to_owned(), apple_id.trim().to_lowercase());
        let turn = state.turns.entry(key).or_insert_with(|| Turn { holder: uid.to_owned(), waiting: BTreeSet::new() });
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

    /// Ends the turn of an object. Returns who waited for it.
    pub fn end_turn(&self, uid: &str) -> Vec<(String, String)> {
        let mut state = self.state();
        let mut waited = Vec::new();
        state.turns.retain(|_, turn| {
            if turn.holder != uid {
                return true;
            }
            waited.extend(std::mem::take(&mut turn.waiting));
            false
        });
        waited
    }

    /// Forgets an object that is gone. Returns who waited for its turn.
    pub fn forget(&self, uid: &str) -> Vec<(String, String)> {
        self.unclaim(uid, None);
        self.state().pages.remove(uid);
        self.end_turn(uid)
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

    #[test]
    fn a_token_has_one_claimant() {
        let desk = Desk::default();
        assert!(desk.claim("t", "id", "a") && desk.claim("t", "id", "a") && !desk.claim("t", "id", "b"));
        assert!(desk.claim("other", "id", "b"));
        assert_eq!(desk.claims_of_others("t", "b"), [("id".to_owned(), "a".to_owned())]);
        assert!(desk.claims_of_others("t", "a").is_empty());
        desk.forget("a");
        assert!(desk.claim("t", "id", "b"));
    }

    #[test]
    fn creates_with_one_apple_id_take_turns() {
        let desk = Desk::default();
        let who = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(desk.take_turn("t", "A@b.example", "a", who("a")));
        assert!(!desk.take_turn("t", "a@B.example", "b", who("b")));
        assert!(desk.is_anothers_turn("t", "a@b.example", "c", who("c")));
        assert!(desk.take_turn("t", "other@b.example", "b", who("b")));
        assert_eq!(desk.end_turn("a"), [who("b"), who("c")]);
        assert!(desk.take_turn("t", "a@b.example", "b", who("b")));
    }
}
