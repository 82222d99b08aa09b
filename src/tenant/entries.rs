//! The tokens of a snapshot: by id, and by what a create is compared with. Clones share what did not change. Pure.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::api::AppleId;
use crate::graph::Entity;

/// A setting of a token that a manifest can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Field {
    /// `appleId`.
    AppleId,
    /// `vppTokenAccountType`.
    AccountType,
    /// `countryOrRegion`.
    CountryOrRegion,
    /// `automaticallyUpdateApps`.
    AutomaticallyUpdateApps,
    /// `displayName` (beta).
    DisplayName,
    /// `roleScopeTagIds` (beta).
    RoleScopeTagIds,
    /// `dataSharingConsentGranted` (beta).
    DataSharingConsentGranted,
    /// `claimTokenManagementFromExternalMdm` (beta).
    ClaimTokenManagement,
}

impl Field {
    /// The name in manifests and in Graph.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AppleId => "appleId",
            Self::AccountType => "vppTokenAccountType",
            Self::CountryOrRegion => "countryOrRegion",
            Self::AutomaticallyUpdateApps => "automaticallyUpdateApps",
            Self::DisplayName => "displayName",
            Self::RoleScopeTagIds => "roleScopeTagIds",
            Self::DataSharingConsentGranted => "dataSharingConsentGranted",
            Self::ClaimTokenManagement => "claimTokenManagementFromExternalMdm",
        }
    }

    /// Whether only Graph's beta API has it.
    pub(crate) fn is_beta(self) -> bool {
        use Field::{ClaimTokenManagement, DataSharingConsentGranted, DisplayName, RoleScopeTagIds};
        matches!(self, DisplayName | RoleScopeTagIds | DataSharingConsentGranted | ClaimTokenManagement)
    }
}

/// A value that was written, and when the write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// As it was sent, in text.
    pub value: String,
    /// When the write ended.
    pub at: Timestamp,
}

/// One token of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As Graph showed it last, or as a write of ours was answered.
    pub entity: Entity,
    /// What this process wrote to it, until a list shows what Graph made of that: few, so that a vector takes less memory than a
    /// map.
    pub(super) written: Vec<(Field, Written)>,
    /// When this process last wrote a setting.
    pub last_setting_write: Option<Timestamp>,
    /// When the last write of this process ended.
    pub last_write: Option<Timestamp>,
    /// Since when a sync has been seen running.
    pub syncing_since: Option<Timestamp>,
    /// The last GET that showed it: when it began, and when it ended.
    pub(super) asked: Option<(Timestamp, Timestamp)>,
    pub(super) in_flight: u32,
    pub(super) absent: u32,
}

impl Entry {
    /// Whether the last list that counts had it.
    pub(crate) fn is_present(&self) -> bool {
        self.absent == 0
    }

    /// What this process wrote to a field last, if no list that began after the settling time has shown the token since.
    pub(crate) fn written(&self, field: Field) -> Option<&Written> {
        self.written.iter().find(|(of, _)| *of == field).map(|(_, written)| written)
    }

    /// Whether a GET that began after a time has shown it.
    pub(crate) fn was_asked_since(&self, time: Timestamp) -> bool {
        self.asked.is_some_and(|(began, _)| began > time)
    }

    pub(super) fn keeps_its_answer(&self, read_began: Timestamp) -> bool {
        self.in_flight > 0 || self.last_write.is_some_and(|ended| ended >= read_began)
    }

    /// Whether the entry is newer than a list that began at a time.
    pub(super) fn is_newer_than_list(&self, list_began: Timestamp) -> bool {
        self.keeps_its_answer(list_began) || self.asked.is_some_and(|(_, ended)| ended >= list_began)
    }

    /// A write of ours was answered with the token.
    pub(super) fn record_answer(&mut self, entity: Entity, now: Timestamp) {
        self.absent = 0;
        self.record_shown(entity, now);
    }

    pub(super) fn record_written(&mut self, written: &[(Field, String)], now: Timestamp) {
        if written.is_empty() {
            return;
        }
        self.last_setting_write = Some(now);
        self.written.retain(|(known, _)| written.iter().all(|(field, _)| field != known));
        self.written.reserve_exact(written.len());
        self.written.extend(written.iter().map(|(field, value)| (*field, Written { value: value.clone(), at: now })));
    }

    pub(super) fn record_shown(&mut self, entity: Entity, now: Timestamp) {
        let syncing = entity.last_sync_status.as_deref() == Some("inProgress");
        self.syncing_since = syncing.then(|| self.syncing_since.unwrap_or(now));
        self.entity = entity;
    }
}

/// The tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    by_id: RedBlackTreeMapSync<Arc<str>, Entry>,
    /// Digests of what a create is compared with, each with the id of a token that has it: few bytes for each of very many tokens.
    by_digest: RedBlackTreeSetSync<(u64, Arc<str>)>,
}

/// A digest of an Apple ID, or of there being none.
fn of_apple_id(apple_id: Option<&str>) -> u64 {
    digest(("appleId", apple_id.map(AppleId::new)))
}

/// A digest of the second in which a token expires, or of there being none.
fn of_expiration(expiration: Option<Timestamp>) -> u64 {
    digest(("expirationDateTime", expiration.map(Timestamp::as_second)))
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn digests(entity: &Entity) -> [u64; 2] {
    [of_apple_id(entity.apple_id.as_deref()), of_expiration(entity.expiration)]
}

impl Entries {
    /// One token.
    pub(super) fn get(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.by_id.iter().map(|(id, entry)| (&**id, entry))
    }

    /// All of them.
    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values()
    }

    /// Those with an Apple ID, or an expiry of the same second, and those of which either is not shown; each once, by id.
    pub(super) fn like(&self, apple_id: &str, expiration: Timestamp) -> impl Iterator<Item = &Entry> {
        let wanted =
            [of_apple_id(Some(apple_id)), of_apple_id(None), of_expiration(Some(expiration)), of_expiration(None)];
        let first: Arc<str> = "".into();
        let of = |digest: u64| {
            let from = self.by_digest.range((digest, Arc::clone(&first))..);
            from.take_while(move |(other, _)| *other == digest).map(|(_, id)| id)
        };
        let ids: BTreeSet<&Arc<str>> = wanted.into_iter().flat_map(of).collect();
        ids.into_iter().filter_map(|id| self.by_id.get(id))
    }

    /// Puts in a token, in place of the one with its id.
    pub(super) fn insert(&mut self, id: &str, entry: Entry) {
        let known = self.by_id.get_key_value(id).map(|(id, known)| (Arc::clone(id), digests(&known.entity)));
        let (id, before) = known.map_or_else(|| (id.into(), None), |(id, before)| (id, Some(before)));
        self.reindex(&id, before, Some(digests(&entry.entity)));
        self.by_id.insert_mut(id, entry);
    }

    /// Changes a token, if it is there.
    pub(super) fn change(&mut self, id: &str, change: impl FnOnce(&mut Entry)) {
        let Some((id, _)) = self.by_id.get_key_value(id) else { return };
        let id = Arc::clone(id);
        let Some(entry) = self.by_id.get_mut(&id) else { return };
        let before = digests(&entry.entity);
        change(entry);
        let after = digests(&entry.entity);
        self.reindex(&id, Some(before), Some(after));
    }

    /// Removes a token.
    pub(super) fn remove(&mut self, id: &str) {
        let known = self.by_id.get_key_value(id).map(|(id, known)| (Arc::clone(id), digests(&known.entity)));
        if let Some((id, before)) = known {
            self.reindex(&id, Some(before), None);
            self.by_id.remove_mut(&id);
        }
    }

    fn reindex(&mut self, id: &Arc<str>, before: Option<[u64; 2]>, now: Option<[u64; 2]>) {
        if before == now {
            return;
        }
        for digest in before.into_iter().flatten() {
            self.by_digest.remove_mut(&(digest, Arc::clone(id)));
        }
        for digest in now.into_iter().flatten() {
            self.by_digest.insert_mut((digest, Arc::clone(id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const APPLE_IDS: [Option<&str>; 4] =
        [None, Some("vpp@contoso.example"), Some(" VPP@contoso.example"), Some("other@b.example")];

    fn expiration(n: usize) -> Option<Timestamp> {
        // The first two are of the same second.
        [None, Some(1_000), Some(1_900), Some(2_000)][n].and_then(|at| Timestamp::from_millisecond(at).ok())
    }

    fn entry(id: usize, apple_id: usize, expires: usize) -> Entry {
        let apple_id = APPLE_IDS[apple_id].map(str::to_owned);
        let entity = Entity { id: id.to_string(), apple_id, expiration: expiration(expires), ..Entity::default() };
        Entry { entity, ..Entry::default() }
    }

    fn is_like(entry: &Entry, apple_id: &str, expiration: Timestamp) -> bool {
        let same = |one: &str, other: &str| one.trim().eq_ignore_ascii_case(other.trim());
        entry.entity.apple_id.as_deref().is_none_or(|shown| same(shown, apple_id))
            || entry.entity.expiration.is_none_or(|shown| shown.as_second() == expiration.as_second())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_alike_is_what_a_scan_would_find(
            changes in proptest::collection::vec((0usize..6, 0usize..4, 0usize..4, 0usize..3), 0..40)
        ) {
            let mut entries = Entries::default();
            for (id, apple_id, expires, how) in changes {
                let new = entry(id, apple_id, expires);
                match how {
                    0 => entries.insert(&id.to_string(), new),
                    1 => entries.change(&id.to_string(), |entry| entry.entity = new.entity),
                    _ => entries.remove(&id.to_string()),
                }
                for (apple_id, expires) in APPLE_IDS.iter().flatten().zip((1..4).filter_map(expiration)) {
                    let scanned: Vec<&Entry> = entries.values().filter(|it| is_like(it, apple_id, expires)).collect();
                    prop_assert_eq!(entries.like(apple_id, expires).collect::<Vec<_>>(), scanned);
                }
                prop_assert_eq!(entries.by_digest.size(), 2 * entries.by_id.size());
            }
        }
    }
}
