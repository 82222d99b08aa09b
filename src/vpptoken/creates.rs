//! The creates that are under way: those with one Apple ID, or with files that Graph can't tell apart, go one after the other.
//! Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::claims::CreateKey;
use crate::api::{EntraTenant, NamespacedName};
use crate::tenant::IntentPermit;

type LockName = (EntraTenant, CreateKey);

#[derive(Clone, Debug)]
struct Create {
    locks: BTreeSet<LockName>,
    taken: Timestamp,
    /// It is in flight: the locks last until its answer, even if the object is deleted.
    is_sending: bool,
    /// It was sent, and its outcome is unknown: if the object is deleted, only the locks show that there may be a token.
    was_sent: bool,
    /// Held until the create has ended: so many intents may be recorded at a time.
    intent_permit: Option<Arc<IntentPermit>>,
}

#[derive(Clone, Debug)]
struct Lock {
    holder: String,
    waiting: BTreeSet<NamespacedName>,
}

/// The creates of all VppTokens, by their UIDs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Creates {
    by_uid: BTreeMap<String, Create>,
    by_age: BTreeSet<(Timestamp, String)>,
    locks: HashMap<LockName, Lock>,
}

impl Creates {
    /// Whether another object has a lock that a create needs; `who` is then triggered when it is released.
    pub(crate) fn is_locked_by_other(
        &mut self,
        tenant: &EntraTenant,
        keys: &[CreateKey],
        uid: &str,
        who: &NamespacedName,
    ) -> bool {
        let mut is_locked = false;
        for key in keys {
            let lock = self.locks.get_mut(&(tenant.clone(), key.clone()));
            if let Some(lock) = lock.filter(|lock| lock.holder != uid) {
                lock.waiting.insert(who.clone());
                is_locked = true;
            }
        }
        is_locked
    }

    /// Takes the locks that a create needs: all of them, or none. False when another object has one; `who` is then triggered
    /// when it is released. The permit is kept until the create has ended.
    pub(crate) fn lock(
        &mut self,
        tenant: &EntraTenant,
        keys: &[CreateKey],
        uid: &str,
        who: &NamespacedName,
        now: Timestamp,
        permit: Option<IntentPermit>,
    ) -> bool {
        if self.is_locked_by_other(tenant, keys, uid, who) {
            return false;
        }
        let create = self.by_uid.entry(uid.to_owned()).or_insert_with(|| {
            self.by_age.insert((now, uid.to_owned()));
            let (locks, intent_permit) = (BTreeSet::new(), permit.map(Arc::new));
            Create { locks, taken: now, is_sending: false, was_sent: false, intent_permit }
        });
        for key in keys {
            let name = (tenant.clone(), key.clone());
            let lock = || Lock { holder: uid.to_owned(), waiting: BTreeSet::new() };
            self.locks.entry(name.clone()).or_insert_with(lock);
            create.locks.insert(name);
        }
        true
    }

    /// Whether an object has a permit to record an intent already: the last try to record it may have failed.
    pub(crate) fn has_permit(&self, uid: &str) -> bool {
        self.by_uid.get(uid).is_some_and(|create| create.intent_permit.is_some())
    }

    /// A create is in flight, or not any more. False when there are no locks for it.
    pub(crate) fn set_in_flight(&mut self, uid: &str, is_sending: bool) -> bool {
        let Some(create) = self.by_uid.get_mut(uid) else { return false };
        create.is_sending = is_sending;
        create.was_sent |= is_sending;
        true
    }

    /// Releases the locks of an object, unless its create is in flight. Returns who waited for them.
    pub(crate) fn unlock(&mut self, uid: &str) -> Vec<NamespacedName> {
        let Some(create) = self.by_uid.get(uid).filter(|create| !create.is_sending) else { return Vec::new() };
        let (locks, taken) = (create.locks.clone(), create.taken);
        self.by_uid.remove(uid);
        self.by_age.remove(&(taken, uid.to_owned()));
        locks.iter().filter_map(|name| self.locks.remove(name)).flat_map(|lock| lock.waiting).collect()
    }

    /// Releases the locks that were taken before a time. Returns who waited for them.
    pub(crate) fn unlock_before(&mut self, time: Timestamp) -> Vec<NamespacedName> {
        let old = self.by_age.iter().take_while(|(taken, _)| *taken < time).map(|(_, uid)| uid.clone());
        old.collect::<Vec<_>>().iter().flat_map(|uid| self.unlock(uid)).collect()
    }

    /// An object was deleted. Its locks are released, unless they must last until the outcome of its create is known. Returns
    /// who waited for them.
    pub(crate) fn forget(&mut self, uid: &str) -> Vec<NamespacedName> {
        match self.by_uid.get(uid) {
            Some(create) if !create.was_sent => self.unlock(uid),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tenant::{Limits, WriteRateLimiter};

    #[test]
    fn the_permit_of_an_intent_is_kept_until_its_create_has_ended() {
        let limits = Limits { writes: 1, ..Limits::default() };
        let limiter = Arc::new(WriteRateLimiter::new(limits));
        let request = |uid: &str| limiter.request_intent(uid, &NamespacedName::new("devices", uid));
        let (mut creates, keys) = (Creates::default(), [CreateKey::of_apple_id("vpp@contoso.example")]);
        let tenant = EntraTenant::new(crate::api::Cloud::Global, "t");
        let who = NamespacedName::new("devices", "berlin");
        assert!(!creates.has_permit("a"));
        assert!(creates.lock(&tenant, &keys, "a", &who, Timestamp::UNIX_EPOCH, request("a")));
        assert!(creates.has_permit("a") && !creates.has_permit("b"));
        assert!(creates.lock(&tenant, &keys, "a", &who, Timestamp::UNIX_EPOCH, None), "the intent was not recorded");
        assert!(creates.has_permit("a"));
        assert!(request("b").is_none());
        creates.unlock("a");
        assert!(!creates.has_permit("a") && request("b").is_some());
    }
}
