//! What is known of a tenant's tokens: lists merged with the answers of our own writes. Pure.
//!
//! The rules, in the words of the design:
//! 1. A list counts only when all of its pages have arrived: only whole lists come here.
//! 2. An entry whose own write was in flight at, or ended after, the list's beginning keeps the write's answer.
//! 3. For a settling time after a write there is no drift verdict on what was just written.
//! 4. Vanished means: absent from two lists that began after the settling time, and a GET that answers 404.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::graph::Entity;

/// Lists that an entry must be absent from before it is asked for by its id.
const ABSENCES: u32 = 2;
/// So many are asked for after one list; the others after the next ones.
const MOST_DOUBTFUL: usize = 10;

/// A setting of a token that a manifest can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
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
    pub fn as_str(self) -> &'static str {
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
    pub fn is_beta(self) -> bool {
        use Field::{ClaimTokenManagement, DataSharingConsentGranted, DisplayName, RoleScopeTagIds};
        matches!(self, DisplayName | RoleScopeTagIds | DataSharingConsentGranted | ClaimTokenManagement)
    }
}

/// A value that was written, and when the write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// As it was sent, in text.
    pub value: String,
    /// When the write ended.
    pub at: Timestamp,
}

/// One token of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// As Graph showed it last, or as a write of ours was answered.
    pub entity: Entity,
    /// What this process wrote to it.
    pub written: BTreeMap<Field, Written>,
    /// When the last write of this process ended.
    pub last_write: Option<Timestamp>,
    /// Since when a sync has been seen running.
    pub syncing_since: Option<Timestamp>,
    in_flight: u32,
    absent: u32,
}

impl Entry {
    /// Whether the last list that counts had it.
    pub fn is_present(&self) -> bool {
        self.absent == 0
    }

    fn keeps_its_answer(&self, list_began: Timestamp) -> bool {
        self.in_flight > 0 || self.last_write.is_some_and(|ended| ended >= list_began)
    }

    /// A write of ours was answered with the token.
    fn answered(&mut self, entity: Entity, now: Timestamp) {
        self.absent = 0;
        self.show(entity, now);
    }

    fn remember(&mut self, written: &[(Field, String)], now: Timestamp) {
        let written = written.iter().map(|(field, value)| (*field, Written { value: value.clone(), at: now }));
        self.written.extend(written);
    }

    fn show(&mut self, entity: Entity, now: Timestamp) {
        let syncing = entity.last_sync_status.as_deref() == Some("inProgress");
        self.syncing_since = syncing.then(|| self.syncing_since.unwrap_or(now));
        self.entity = entity;
    }
}

/// The tokens of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<String, Entry>,
    deleted: BTreeMap<String, Timestamp>,
    lists: Vec<Timestamp>,
    read_at: Option<Timestamp>,
}

/// What a list changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Ids whose entity is new or different.
    pub changed: BTreeSet<String>,
    /// Ids to be asked for with a GET: absent from enough lists.
    pub doubtful: Vec<String>,
}

impl Snapshot {
    /// Tokens that the last list had, or that were written since.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.is_present())
    }

    /// All tokens that are not known to be gone, also those that the last list lacked.
    pub fn not_gone(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One token, also while it is doubtful whether it still exists.
    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Whether a token is known to be gone: deleted by us a moment ago, or asked for by its id without being there.
    pub fn is_gone(&self, id: &str) -> bool {
        self.deleted.contains_key(id)
    }

    /// When the last list that counts ended.
    pub fn read_at(&self) -> Option<Timestamp> {
        self.read_at
    }

    /// When the last list that counts began.
    pub fn last_list(&self) -> Option<Timestamp> {
        self.lists.last().copied()
    }

    /// How many of the lists that count, of the last few, began after a time.
    pub fn lists_since(&self, time: Timestamp) -> usize {
        self.lists.iter().filter(|began| **began > time).count()
    }

    /// Whether a sync runs anywhere that began after a time.
    pub fn is_syncing_since(&self, time: Timestamp) -> bool {
        self.entries.values().any(|entry| entry.syncing_since.is_some_and(|since| since > time))
    }

    /// Merges a whole list.
    pub fn merge(
        &mut self,
        began: Timestamp,
        ended: Timestamp,
        listed: Vec<Entity>,
        settling: SignedDuration,
    ) -> Merged {
        let listed: BTreeMap<String, Entity> = listed.into_iter().map(|entity| (entity.id.clone(), entity)).collect();
        let absent: Vec<String> = self
            .entries
            .iter()
            .filter(|(id, entry)| !listed.contains_key(*id) && !entry.keeps_its_answer(began))
            .map(|(id, _)| id.clone())
            .collect();
        let mut merged = Merged::default();
        for id in absent {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if entry.last_write.is_some_and(|written| began < after(written, settling)) {
                continue;
            }
            entry.absent = entry.absent.saturating_add(1);
            if entry.absent == 1 {
                merged.changed.insert(id.clone());
            }
            if entry.absent >= ABSENCES && merged.doubtful.len() < MOST_DOUBTFUL {
                merged.doubtful.push(id);
            }
        }
        self.deleted.retain(|_, at| began < after(*at, settling));
        for (id, entity) in listed {
            if self.deleted.contains_key(&id) {
                continue;
            }
            let is_new = !self.entries.contains_key(&id);
            let entry = self.entries.entry(id.clone()).or_default();
            if entry.keeps_its_answer(began) {
                continue;
            }
            if is_new || entry.entity != entity || entry.absent > 0 {
                merged.changed.insert(id);
            }
            entry.absent = 0;
            entry.show(entity, ended);
        }
        self.lists.push(began);
        let too_many = self.lists.len().saturating_sub(8);
        self.lists.drain(..too_many);
        self.read_at = Some(ended);
        merged
    }

    /// A write to a token is about to be sent.
    pub fn write_begins(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.in_flight += 1;
        }
    }

    /// A write to a token ended: with Graph's answer, or without one. `written` is what Graph accepted, with or without
    /// showing it.
    pub fn write_ended(&mut self, id: &str, answer: Option<Entity>, written: &[(Field, String)], now: Timestamp) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        entry.last_write = Some(now);
        entry.remember(written, now);
        if let Some(entity) = answer {
            entry.answered(entity, now);
        }
    }

    /// A token was created.
    pub fn created(&mut self, entity: Entity, written: &[(Field, String)], now: Timestamp) {
        let entry = self.entries.entry(entity.id.clone()).or_default();
        entry.last_write = Some(now);
        entry.remember(written, now);
        entry.answered(entity, now);
    }

    /// A token was asked for by its id: here it is.
    pub fn found(&mut self, entity: Entity, began: Timestamp, now: Timestamp) {
        let entry = self.entries.entry(entity.id.clone()).or_default();
        if !entry.keeps_its_answer(began) {
            entry.absent = 0;
            entry.show(entity, now);
        }
    }

    /// A token is gone: deleted by us, or asked for by its id without being there.
    pub fn gone(&mut self, id: &str, now: Timestamp) {
        self.entries.remove(id);
        self.deleted.insert(id.to_owned(), now);
    }
}

fn after(time: Timestamp, wait: SignedDuration) -> Timestamp {
    time.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTLING: SignedDuration = SignedDuration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn entity(id: &str, country: &str) -> Entity {
        Entity { id: id.into(), country_or_region: Some(country.into()), ..Entity::default() }
    }

    fn country(snapshot: &Snapshot, id: &str) -> Option<String> {
        snapshot.entries().find(|entry| entry.entity.id == id)?.entity.country_or_region.clone()
    }

    fn list(snapshot: &mut Snapshot, began: i64, ended: i64, entities: &[Entity]) -> Merged {
        snapshot.merge(at(began), at(ended), entities.to_vec(), SETTLING)
    }

    #[test]
    fn a_list_that_began_before_a_create_ended_does_not_remove_it() {
        let mut snapshot = Snapshot::default();
        snapshot.created(entity("a", "de"), &[], at(5));
        for (began, ended) in [(0, 10), (5, 10)] {
            let merged = list(&mut snapshot, began, ended, &[]);
            assert_eq!(merged, Merged::default());
            assert_eq!(country(&snapshot, "a").as_deref(), Some("de"));
        }
    }

    #[test]
    fn a_list_that_began_before_a_write_ended_does_not_change_the_entry() {
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, &[entity("a", "de")]);
        snapshot.write_begins("a");
        list(&mut snapshot, 2, 4, &[entity("a", "old")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("de"));
        snapshot.write_ended("a", Some(entity("a", "fr")), &[], at(5));
        list(&mut snapshot, 3, 6, &[entity("a", "old")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("fr"));
        let merged = list(&mut snapshot, 7, 8, &[entity("a", "it")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("it"));
        assert!(merged.changed.contains("a"));
    }

    #[test]
    fn a_deleted_token_does_not_come_back_with_an_older_list() {
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, &[entity("a", "de")]);
        snapshot.gone("a", at(5));
        list(&mut snapshot, 4, 6, &[entity("a", "de")]);
        assert_eq!(country(&snapshot, "a"), None);
        list(&mut snapshot, 70, 71, &[entity("a", "de")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("de"));
    }

    #[test]
    fn absent_twice_after_settling_is_doubtful_and_not_yet_gone() {
        let mut snapshot = Snapshot::default();
        snapshot.created(entity("a", "de"), &[], at(0));
        assert!(list(&mut snapshot, 30, 31, &[]).doubtful.is_empty());
        assert!(list(&mut snapshot, 61, 62, &[]).doubtful.is_empty());
        assert_eq!(list(&mut snapshot, 63, 64, &[]).doubtful, ["a"]);
        assert!(snapshot.entry("a").is_some());
        assert_eq!(snapshot.entries().count(), 0);
    }

    #[test]
    fn a_token_that_shows_again_is_present_again() {
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, &[entity("a", "de")]);
        list(&mut snapshot, 2, 3, &[]);
        let merged = list(&mut snapshot, 4, 5, &[entity("a", "de")]);
        assert!(merged.changed.contains("a"));
        assert!(list(&mut snapshot, 6, 7, &[]).doubtful.is_empty());
    }

    #[test]
    fn of_many_that_are_absent_only_some_are_asked_for_at_once() {
        let many: Vec<Entity> = (0..MOST_DOUBTFUL * 2).map(|n| entity(&format!("t{n}"), "de")).collect();
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, &many);
        list(&mut snapshot, 2, 3, &[]);
        assert_eq!(list(&mut snapshot, 4, 5, &[]).doubtful.len(), MOST_DOUBTFUL);
    }

    #[test]
    fn the_time_a_sync_was_first_seen_running_is_kept() {
        let running = Entity { last_sync_status: Some("inProgress".into()), ..entity("a", "de") };
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, std::slice::from_ref(&running));
        list(&mut snapshot, 2, 3, &[running]);
        assert_eq!(snapshot.entry("a").unwrap().syncing_since, Some(at(1)));
        assert!(snapshot.is_syncing_since(at(0)));
        list(&mut snapshot, 4, 5, &[entity("a", "de")]);
        assert!(!snapshot.is_syncing_since(at(0)));
    }

    proptest! {
        #[test]
        fn no_list_changes_or_removes_what_was_written_after_it_began(
            history in proptest::collection::vec((0u8..4, 0i64..100, 0i64..100, 0u8..3), 1..60)
        ) {
            let mut snapshot = Snapshot::default();
            let mut answers: BTreeMap<String, (Timestamp, Option<Entity>)> = BTreeMap::new();
            for (what, first, second, id) in history {
                let (began, ended) = (at(first.min(second)), at(first.max(second)));
                let id = format!("t{id}");
                let wrote = entity(&id, &format!("{what}{first}{second}"));
                match what {
                    0 => {
                        snapshot.created(wrote.clone(), &[], ended);
                        answers.insert(id, (ended, Some(wrote)));
                    }
                    1 if snapshot.entry(&id).is_some() => {
                        snapshot.write_begins(&id);
                        snapshot.write_ended(&id, Some(wrote.clone()), &[], ended);
                        answers.insert(id, (ended, Some(wrote)));
                    }
                    2 => {
                        snapshot.gone(&id, ended);
                        answers.insert(id, (ended, None));
                    }
                    _ => {
                        let listed = if first % 2 == 0 { vec![wrote] } else { Vec::new() };
                        let _ = snapshot.merge(began, ended, listed, SETTLING);
                        for (id, (written, answer)) in &answers {
                            if *written >= began {
                                prop_assert_eq!(snapshot.entry(id).map(|entry| &entry.entity), answer.as_ref());
                            }
                        }
                        answers.retain(|_, (written, _)| *written >= began);
                    }
                }
            }
        }
    }
}
