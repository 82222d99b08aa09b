//! What is known of a tenant's tokens: lists merged with the answers of our own writes. Pure.
//!
//! The rules:
//! 1. A list counts only when all of its pages have arrived: only whole lists come here.
//! 2. An entry whose own write was in flight at, or ended after, the list's beginning keeps the write's answer.
//! 3. For a settling time after a write there is no drift verdict on what was just written.
//! 4. Vanished means: absent from every list, and 404 to a GET, at both ends of a time that is long enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::entries::{Entries, Entry, Field};
use crate::graph::Entity;

/// Lists that an entry must be absent from before it is asked for by its id.
const ABSENCES: u32 = 2;
/// How many tokens are asked for after one list; the others follow after the next ones.
const MAX_TO_CONFIRM: usize = 10;
/// A token that was not asked for in this time is not remembered as missing any more.
const MAX_MISSING_AGE: SignedDuration = SignedDuration::from_hours(24);

/// A token that a GET did not find.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    /// The token as it was known before, if it was, until it has vanished.
    entry: Option<Arc<Entry>>,
    /// When the first GET began that did not find it.
    since: Timestamp,
    /// When the last one ended.
    last: Timestamp,
    /// Whether it was missing for long enough.
    has_vanished: bool,
}

/// The tokens of one tenant. A clone shares the entries with the original: a change costs one entry, however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    entries: Entries,
    deleted: BTreeMap<String, Timestamp>,
    missing: BTreeMap<String, Missing>,
    lists: Vec<Timestamp>,
    read_at: Option<Timestamp>,
}

/// What a list changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Ids whose entity is new or different.
    pub changed: BTreeSet<String>,
    /// Ids to be asked for with a GET: absent from enough lists.
    pub to_confirm: Vec<String>,
}

impl Snapshot {
    /// Tokens that the last list had, or that were written since.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.is_present())
    }

    /// The tokens that may have this Apple ID, or expire in the same second, as far as Graph shows that: what is not shown may be
    /// equal. Those that are known to be deleted, vanished or missing are not among them, those that the last list lacked are.
    pub(crate) fn known_like(&self, apple_id: &str, expiration: Timestamp) -> impl Iterator<Item = &Entry> {
        self.entries.like(apple_id, expiration)
    }

    /// Tokens that were known before a GET did not find them, and that are not missing for long enough to have vanished.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Entry> {
        self.missing.values().filter_map(|missing| missing.entry.as_deref())
    }

    /// One token, also while it is to be confirmed whether it still exists.
    pub(crate) fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Whether a token is absent for certain: deleted by us, or missing at both ends of the time after which it counts
    /// as vanished.
    pub(crate) fn is_confirmed_absent(&self, id: &str) -> bool {
        self.deleted.contains_key(id) || self.missing.get(id).is_some_and(|missing| missing.has_vanished)
    }

    /// Since when GETs do not find a token that no list has shown since.
    pub(crate) fn missing_since(&self, id: &str) -> Option<Timestamp> {
        self.missing.get(id).map(|missing| missing.since)
    }

    /// When the last list that counts ended.
    pub(crate) fn read_at(&self) -> Option<Timestamp> {
        self.read_at
    }

    /// When the last list that counts began.
    pub(crate) fn last_list(&self) -> Option<Timestamp> {
        self.lists.last().copied()
    }

    /// How many of the lists that count, of the last few, began after a time.
    pub(crate) fn lists_since(&self, time: Timestamp) -> usize {
        self.lists.iter().filter(|began| **began > time).count()
    }

    /// Whether a sync runs anywhere that began after a time.
    pub(crate) fn is_syncing_since(&self, time: Timestamp) -> bool {
        self.entries.values().any(|entry| entry.syncing_since.is_some_and(|since| since > time))
    }

    /// Merges a whole list.
    pub(crate) fn merge(
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
            .filter(|(id, entry)| !listed.contains_key(*id) && !entry.is_newer_than_list(began))
            .map(|(id, _)| id.to_owned())
            .collect();
        let mut merged = Merged::default();
        for id in absent {
            let is_settling = |entry: &Entry| entry.last_write.is_some_and(|at| began < after(at, settling));
            if self.entries.get(&id).is_none_or(is_settling) {
                continue;
            }
            let mut absent = 0;
            self.entries.change(&id, |entry| {
                entry.absent = entry.absent.saturating_add(1);
                absent = entry.absent;
            });
            if absent == 1 {
                merged.changed.insert(id.clone());
            }
            if absent >= ABSENCES && merged.to_confirm.len() < MAX_TO_CONFIRM {
                merged.to_confirm.push(id);
            }
        }
        self.deleted.retain(|_, at| began < after(*at, settling));
        self.missing.retain(|_, missing| began < after(missing.last, MAX_MISSING_AGE));
        for (id, entity) in listed {
            if self.deleted.contains_key(&id) || self.missing.get(&id).is_some_and(|missing| began <= missing.last) {
                continue;
            }
            self.missing.remove(&id);
            let known = self.entries.get(&id);
            if known.is_some_and(|entry| entry.is_newer_than_list(began)) {
                continue;
            }
            let is_settled = |at: Timestamp| began > after(at, settling);
            let is_same = known.is_some_and(|entry| entry.entity == entity && entry.is_present());
            if is_same && known.is_none_or(|entry| !entry.written.iter().any(|(_, written)| is_settled(written.at))) {
                continue;
            }
            let mut entry = known.cloned().unwrap_or_default();
            entry.written.retain(|(_, written)| !is_settled(written.at));
            entry.written.shrink_to_fit();
            if !is_same {
                entry.absent = 0;
                entry.record_shown(entity, ended);
                merged.changed.insert(id.clone());
            }
            self.entries.insert(&id, entry);
        }
        self.lists.push(began);
        let too_many = self.lists.len().saturating_sub(8);
        self.lists.drain(..too_many);
        self.read_at = Some(ended);
        merged
    }

    /// A write to a token is about to be sent.
    pub(crate) fn record_write_started(&mut self, id: &str) {
        self.entries.change(id, |entry| entry.in_flight += 1);
    }

    /// A write to a token ended: with Graph's answer, or without one. `written` is what Graph accepted, with or without
    /// showing it.
    pub(crate) fn record_write_ended(
        &mut self,
        id: &str,
        answer: Option<Entity>,
        written: &[(Field, String)],
        now: Timestamp,
    ) {
        self.entries.change(id, |entry| {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            entry.last_write = Some(now);
            entry.record_written(written, now);
            if let Some(entity) = answer {
                entry.record_answer(entity, now);
            }
        });
    }

    /// A token was created.
    pub(crate) fn record_created(&mut self, entity: Entity, written: &[(Field, String)], now: Timestamp) {
        self.missing.remove(&entity.id);
        let id = entity.id.clone();
        let mut entry = self.entries.get(&id).cloned().unwrap_or_default();
        entry.last_write = Some(now);
        entry.record_written(written, now);
        entry.record_answer(entity, now);
        self.entries.insert(&id, entry);
    }

    /// A token was asked for by its id, and found, which a write that was answered since, or a list that began since and has it,
    /// outweighs.
    pub(crate) fn record_found(&mut self, entity: Entity, began: Timestamp, now: Timestamp) {
        // Deleted while it was asked for.
        if self.deleted.get(&entity.id).is_some_and(|deleted_at| *deleted_at >= began) {
            return;
        }
        self.deleted.remove(&entity.id);
        self.missing.remove(&entity.id);
        let id = entity.id.clone();
        let is_listed_since = self.is_listed_since(&id, began);
        let mut entry = self.entries.get(&id).cloned().unwrap_or_default();
        if !entry.keeps_its_answer(began) && !is_listed_since {
            entry.absent = 0;
            entry.asked = Some((began, now));
            entry.record_shown(entity, now);
            self.entries.insert(&id, entry);
        }
    }

    /// A token was asked for by its id, and not found, which a write that was answered since, or a list that began since and has it,
    /// outweighs. It has vanished when a GET that began `vanished_after` the first one does not find it either.
    pub(crate) fn record_missing(
        &mut self,
        id: &str,
        began: Timestamp,
        now: Timestamp,
        vanished_after: SignedDuration,
    ) {
        let keeps_its_answer = self.entries.get(id).is_some_and(|entry| entry.keeps_its_answer(began));
        if keeps_its_answer || self.is_listed_since(id, began) {
            return;
        }
        let entry = self.entries.get(id).cloned().map(Arc::new);
        self.entries.remove(id);
        let missing = self.missing.entry(id.to_owned());
        let missing = missing.or_insert(Missing { entry, since: began, last: now, has_vanished: false });
        missing.last = now;
        missing.has_vanished |= began >= after(missing.since, vanished_after);
        missing.entry.take_if(|_| missing.has_vanished);
    }

    /// Whether a list that began after a time has a token; or lacks it so shortly after a write that this does not count.
    fn is_listed_since(&self, id: &str, time: Timestamp) -> bool {
        let is_later = self.last_list().is_some_and(|began| began > time);
        is_later && self.entries.get(id).is_some_and(Entry::is_present)
    }

    /// A token was deleted by us.
    pub(crate) fn record_deleted(&mut self, id: &str, now: Timestamp) {
        self.entries.remove(id);
        self.missing.remove(id);
        self.deleted.insert(id.to_owned(), now);
    }
}

fn after(time: Timestamp, wait: SignedDuration) -> Timestamp {
    time.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::entries::Written;
    use super::*;
    use proptest::prelude::*;

    const SETTLING: SignedDuration = SignedDuration::from_secs(60);
    const VANISHED_AFTER: SignedDuration = SignedDuration::from_mins(15);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn entity(id: &str, country: &str) -> Entity {
        Entity { id: id.into(), country_or_region: Some(country.into()), ..Entity::default() }
    }

    fn country(snapshot: &Snapshot, id: &str) -> Option<String> {
        snapshot.listed().find(|entry| entry.entity.id == id)?.entity.country_or_region.clone()
    }

    fn list(snapshot: &mut Snapshot, began: i64, ended: i64, entities: &[Entity]) -> Merged {
        snapshot.merge(at(began), at(ended), entities.to_vec(), SETTLING)
    }

    fn writes(snapshot: &mut Snapshot, id: &str, country: &str, ended: i64) {
        snapshot.record_write_started(id);
        let written = [(Field::CountryOrRegion, country.to_owned())];
        snapshot.record_write_ended(id, Some(entity(id, country)), &written, at(ended));
    }

    fn has_a(country: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, &[entity("a", country)]);
        snapshot
    }

    fn ids<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<&'a str> {
        entries.map(|entry| entry.entity.id.as_str()).collect()
    }

    // Rule 1, as far as it is implemented here: a list replaces everything that rules 2 to 4 do not keep.

    #[test]
    fn a_list_is_taken_over_whole_and_says_what_it_changed() {
        let mut snapshot = Snapshot::default();
        assert_eq!((snapshot.read_at(), snapshot.last_list()), (None, None));
        let merged = list(&mut snapshot, 0, 1, &[entity("a", "de"), entity("b", "de"), entity("c", "de")]);
        assert_eq!(merged.changed, ["a", "b", "c"].map(str::to_owned).into(), "new");
        assert_eq!((snapshot.read_at(), snapshot.last_list()), (Some(at(1)), Some(at(0))));
        let merged = list(&mut snapshot, 2, 3, &[entity("a", "de"), entity("b", "fr")]);
        assert_eq!(merged.changed, ["b", "c"].map(str::to_owned).into(), "different, and absent");
        assert_eq!(merged.to_confirm, [""; 0]);
        assert_eq!((snapshot.read_at(), snapshot.last_list()), (Some(at(3)), Some(at(2))));
        assert_eq!(ids(snapshot.listed()), ["a", "b"]);
        assert_eq!(ids(snapshot.entries.values()), ["a", "b", "c"]);
        assert_eq!(country(&snapshot, "b").as_deref(), Some("fr"));
        assert!(snapshot.entry("a").unwrap().is_present() && !snapshot.entry("c").unwrap().is_present());
        assert_eq!(snapshot.entry("d"), None);
    }

    #[test]
    fn lists_are_counted_from_a_time_on_and_only_the_last_few() {
        let mut snapshot = Snapshot::default();
        for second in 0..5 {
            list(&mut snapshot, second, second + 1, &[]);
        }
        assert_eq!([-1, 0, 2, 4].map(|second| snapshot.lists_since(at(second))), [5, 4, 2, 0]);
        for second in 5..20 {
            list(&mut snapshot, second, second + 1, &[]);
        }
        assert_eq!(snapshot.lists_since(at(-1)), 8);
        assert_eq!(snapshot.lists_since(at(17)), 2, "the last ones are kept");
    }

    // Rule 2.

    #[test]
    fn a_list_that_began_before_a_create_ended_does_not_remove_it() {
        let mut snapshot = Snapshot::default();
        snapshot.record_created(entity("a", "de"), &[], at(5));
        for (began, ended) in [(0, 10), (5, 10)] {
            let merged = list(&mut snapshot, began, ended, &[]);
            assert_eq!(merged, Merged::default());
            assert_eq!(country(&snapshot, "a").as_deref(), Some("de"));
        }
    }

    #[test]
    fn a_list_that_began_before_a_write_ended_does_not_change_the_entry() {
        let mut snapshot = has_a("de");
        snapshot.record_write_started("a");
        list(&mut snapshot, 2, 4, &[entity("a", "old")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("de"), "while the write is in flight");
        snapshot.record_write_ended("a", Some(entity("a", "fr")), &[], at(5));
        for began in [3, 5] {
            assert_eq!(list(&mut snapshot, began, 6, &[entity("a", "old")]), Merged::default());
            assert_eq!(country(&snapshot, "a").as_deref(), Some("fr"), "began at {began}");
        }
        let merged = list(&mut snapshot, 6, 8, &[entity("a", "it")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("it"));
        assert!(merged.changed.contains("a"));
    }

    #[test]
    fn of_several_writes_in_flight_the_last_counts() {
        let mut snapshot = has_a("de");
        snapshot.record_write_started("a");
        snapshot.record_write_started("a");
        snapshot.record_write_ended("a", Some(entity("a", "fr")), &[], at(3));
        list(&mut snapshot, 4, 5, &[entity("a", "old")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("fr"), "one is still in flight");
        snapshot.record_write_ended("a", Some(entity("a", "it")), &[], at(6));
        list(&mut snapshot, 5, 7, &[entity("a", "old")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("it"));
        list(&mut snapshot, 7, 8, &[entity("a", "es")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("es"), "none is in flight any more");
    }

    #[test]
    fn a_write_without_an_answer_also_keeps_older_lists_out() {
        let mut snapshot = has_a("de");
        snapshot.record_write_started("a");
        snapshot.record_write_ended("a", None, &[(Field::CountryOrRegion, "fr".into())], at(5));
        let entry = snapshot.entry("a").unwrap();
        let accepted = Written { value: "fr".into(), at: at(5) };
        assert_eq!((entry.last_write, entry.written(Field::CountryOrRegion)), (Some(at(5)), Some(&accepted)));
        assert_eq!(list(&mut snapshot, 4, 6, &[]), Merged::default());
        assert_eq!(country(&snapshot, "a").as_deref(), Some("de"));
        list(&mut snapshot, 6, 7, &[entity("a", "fr")]);
        assert_eq!(country(&snapshot, "a").as_deref(), Some("fr"));
    }

    #[test]
    fn a_write_to_a_token_that_is_not_known_leaves_no_trace() {
        let mut snapshot = Snapshot::default();
        writes(&mut snapshot, "a", "de", 5);
        assert_eq!(snapshot, Snapshot::default());
    }

    #[test]
    fn what_was_asked_for_before_a_write_ended_does_not_change_the_entry() {
        let mut snapshot = has_a("de");
        writes(&mut snapshot, "a", "fr", 5);
        for began in [4, 5] {
            snapshot.record_found(entity("a", "old"), at(began), at(6));
            assert_eq!(country(&snapshot, "a").as_deref(), Some("fr"));
        }
        snapshot.record_found(entity("a", "it"), at(6), at(7));
        assert_eq!(country(&snapshot, "a").as_deref(), Some("it"));
        snapshot.record_found(entity("b", "de"), at(6), at(7));
        assert_eq!(ids(snapshot.listed()), ["a", "b"], "also one that was not known");
    }

    #[test]
    fn a_deleted_token_does_not_come_back_with_what_was_asked_for_before() {
        let mut snapshot = has_a("de");
        snapshot.record_deleted("a", at(5));
        assert!(snapshot.is_confirmed_absent("a") && !snapshot.is_confirmed_absent("b"));
        for began in [4, 5] {
            snapshot.record_found(entity("a", "de"), at(began), at(6));
            assert_eq!(snapshot.entry("a"), None, "a GET that began at {began}");
        }
        for began in [4, 6, 64] {
            assert_eq!(list(&mut snapshot, began, 70, &[entity("a", "de")]), Merged::default());
            assert!(snapshot.is_confirmed_absent("a") && snapshot.entry("a").is_none(), "a list that began at {began}");
        }
        let merged = list(&mut snapshot, 65, 71, &[entity("a", "de")]);
        assert_eq!(merged.changed, ["a".to_owned()].into(), "after the settling time Graph is believed");
        assert!(!snapshot.is_confirmed_absent("a"));
        assert_eq!(country(&snapshot, "a").as_deref(), Some("de"));
    }

    #[test]
    fn a_list_that_began_after_a_get_and_has_the_token_is_believed() {
        for (listed, is_missing) in [(vec![entity("a", "de")], false), (Vec::new(), true)] {
            let mut snapshot = has_a("de");
            for began in [100, 110] {
                list(&mut snapshot, began, began + 1, &[]);
            }
            // It was asked for at 112, and the answer took long.
            list(&mut snapshot, 114, 115, &listed);
            snapshot.record_missing("a", at(112), at(120), VANISHED_AFTER);
            assert_eq!(snapshot.missing_since("a").is_some(), is_missing);
        }
        let mut snapshot = has_a("de");
        list(&mut snapshot, 114, 115, &[entity("a", "fr")]);
        snapshot.record_found(entity("a", "de"), at(112), at(120));
        assert_eq!(country(&snapshot, "a").as_deref(), Some("fr"));
        assert!(!snapshot.entry("a").unwrap().was_asked_since(at(111)), "it is asked again");
    }

    #[test]
    fn a_get_that_began_after_a_delete_is_believed() {
        let mut snapshot = has_a("de");
        snapshot.record_deleted("a", at(5));
        snapshot.record_found(entity("a", "de"), at(6), at(7));
        assert_eq!(ids(snapshot.listed()), ["a"]);
        assert!(!snapshot.is_confirmed_absent("a"));
    }

    // Rule 3.

    #[test]
    fn what_was_written_is_known_until_a_list_after_the_settling_time_has_the_token() {
        let mut snapshot = Snapshot::default();
        snapshot.record_created(
            entity("a", "de"),
            &[(Field::AppleId, "x".into()), (Field::CountryOrRegion, "de".into())],
            at(5),
        );
        writes(&mut snapshot, "a", "fr", 9);
        list(&mut snapshot, 10, 11, &[entity("a", "it")]);
        let entry = snapshot.entry("a").unwrap();
        let written = |value: &str, second| Written { value: value.into(), at: at(second) };
        let expected = [(Field::AppleId, written("x", 5)), (Field::CountryOrRegion, written("fr", 9))];
        assert_eq!(entry.written, expected);
        assert_eq!(entry.last_setting_write, Some(at(9)));
        assert_eq!(entry.last_write, Some(at(9)));
        list(&mut snapshot, 12, 13, &[]);
        let fields = |snapshot: &Snapshot| -> Vec<Field> {
            snapshot.entry("a").unwrap().written.iter().map(|(field, _)| *field).collect()
        };
        assert_eq!(fields(&snapshot), [Field::AppleId, Field::CountryOrRegion]);
        for (began, known) in [(65, vec![Field::AppleId, Field::CountryOrRegion]), (66, vec![Field::CountryOrRegion])] {
            list(&mut snapshot, began, 67, &[entity("a", "it")]);
            assert_eq!(fields(&snapshot), known, "{began}");
        }
        let merged = list(&mut snapshot, 70, 71, &[entity("a", "it")]);
        assert_eq!((fields(&snapshot), merged.changed.len()), (Vec::new(), 0));
        assert_eq!(snapshot.entry("a").unwrap().last_setting_write, Some(at(9)));
        snapshot.record_deleted("a", at(72));
        list(&mut snapshot, 140, 141, &[entity("a", "de")]);
        assert_eq!(snapshot.entry("a").unwrap().last_setting_write, None);
    }

    // Rule 4.

    #[test]
    fn absent_twice_after_settling_is_to_be_confirmed_and_not_yet_vanished() {
        let mut snapshot = Snapshot::default();
        snapshot.record_created(entity("a", "de"), &[], at(0));
        for began in [30, 59] {
            assert_eq!(list(&mut snapshot, began, 62, &[]), Merged::default(), "within the settling time");
        }
        assert_eq!(ids(snapshot.listed()), ["a"]);
        let first = list(&mut snapshot, 60, 63, &[]);
        assert_eq!((first.changed, first.to_confirm), (["a".to_owned()].into(), Vec::new()));
        for began in [61, 63] {
            let next = list(&mut snapshot, began, 64, &[]);
            assert_eq!(
                (next.changed, next.to_confirm),
                (BTreeSet::new(), vec!["a".to_owned()]),
                "until it is asked for"
            );
        }
        assert!(snapshot.entry("a").is_some() && !snapshot.is_confirmed_absent("a"));
        assert_eq!(snapshot.listed().count(), 0);
        snapshot.record_deleted("a", at(65));
        assert!(snapshot.entry("a").is_none() && snapshot.is_confirmed_absent("a"), "only a 404 confirms that");
        assert_eq!(list(&mut snapshot, 66, 67, &[]), Merged::default());
    }

    #[test]
    fn a_token_that_shows_again_is_present_again() {
        type Show = fn(&mut Snapshot);
        let shows: [(&str, Show); 3] = [
            ("in a list", |snapshot| {
                let merged = list(snapshot, 4, 5, &[entity("a", "de")]);
                assert_eq!(merged.changed, ["a".to_owned()].into());
                assert_eq!(list(snapshot, 4, 5, &[entity("a", "de")]), Merged::default(), "and is no news twice");
            }),
            ("when asked for", |snapshot| snapshot.record_found(entity("a", "de"), at(4), at(5))),
            ("in the answer to a write", |snapshot| writes(snapshot, "a", "de", 5)),
        ];
        for (how, show) in shows {
            let mut snapshot = has_a("de");
            list(&mut snapshot, 2, 3, &[]);
            assert!(!snapshot.entry("a").unwrap().is_present());
            show(&mut snapshot);
            assert!(snapshot.entry("a").unwrap().is_present(), "{how}");
            assert!(
                list(&mut snapshot, 66, 67, &[]).to_confirm.is_empty(),
                "{how}: absences are counted from the start"
            );
            assert_eq!(list(&mut snapshot, 68, 69, &[]).to_confirm, ["a"], "{how}");
        }
    }

    #[test]
    fn of_many_that_are_absent_only_some_are_asked_for_at_once() {
        let many: Vec<Entity> = (0..MAX_TO_CONFIRM * 2).map(|n| entity(&format!("t{n}"), "de")).collect();
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, &many);
        let merged = list(&mut snapshot, 2, 3, &[]);
        assert_eq!((merged.changed.len(), merged.to_confirm.len()), (MAX_TO_CONFIRM * 2, 0));
        let first = list(&mut snapshot, 4, 5, &[]).to_confirm;
        assert_eq!(first.len(), MAX_TO_CONFIRM);
        for id in &first {
            snapshot.record_deleted(id, at(6));
        }
        let second = list(&mut snapshot, 7, 8, &[]).to_confirm;
        assert_eq!(second.len(), MAX_TO_CONFIRM);
        assert!(second.iter().all(|id| !first.contains(id)), "the others come after them");
    }

    // What else a snapshot shows.

    #[test]
    fn the_time_a_sync_was_first_seen_running_is_kept() {
        let running = Entity { last_sync_status: Some("inProgress".into()), ..entity("a", "de") };
        let mut snapshot = Snapshot::default();
        list(&mut snapshot, 0, 1, std::slice::from_ref(&running));
        list(&mut snapshot, 2, 3, std::slice::from_ref(&running));
        assert_eq!(snapshot.entry("a").unwrap().syncing_since, Some(at(1)));
        assert!(snapshot.is_syncing_since(at(0)));
        assert!(!snapshot.is_syncing_since(at(1)), "not after the time that it was seen");
        list(&mut snapshot, 4, 5, &[Entity { last_sync_status: Some("completed".into()), ..entity("a", "de") }]);
        assert!(!snapshot.is_syncing_since(at(0)));
        assert_eq!(snapshot.entry("a").unwrap().syncing_since, None);
        snapshot.record_found(running, at(6), at(7));
        assert_eq!(snapshot.entry("a").unwrap().syncing_since, Some(at(7)), "the next sync");
    }

    #[test]
    fn fields_are_called_as_in_graph() {
        let names: [(Field, &str, bool); 8] = [
            (Field::AppleId, "appleId", false),
            (Field::AccountType, "vppTokenAccountType", false),
            (Field::CountryOrRegion, "countryOrRegion", false),
            (Field::AutomaticallyUpdateApps, "automaticallyUpdateApps", false),
            (Field::DisplayName, "displayName", true),
            (Field::RoleScopeTagIds, "roleScopeTagIds", true),
            (Field::DataSharingConsentGranted, "dataSharingConsentGranted", true),
            (Field::ClaimTokenManagement, "claimTokenManagementFromExternalMdm", true),
        ];
        for (field, name, is_beta) in names {
            assert_eq!((field.as_str(), field.is_beta()), (name, is_beta));
        }
    }

    #[test]
    fn a_get_that_finds_nothing_counts_unless_a_write_was_answered_since_it_began() {
        for (wrote, is_missing) in [(4, true), (5, false), (6, false)] {
            let mut snapshot = has_a("de");
            snapshot.record_write_started("a");
            snapshot.record_write_ended("a", Some(entity("a", "fr")), &[], at(wrote));
            snapshot.record_missing("a", at(5), at(7), VANISHED_AFTER);
            assert_eq!(
                (snapshot.missing_since("a"), snapshot.entry("a").is_none()),
                (is_missing.then(|| at(5)), is_missing),
                "{wrote}"
            );
        }
        let mut snapshot = has_a("de");
        snapshot.record_write_started("a");
        snapshot.record_missing("a", at(5), at(7), VANISHED_AFTER);
        assert_eq!(snapshot.missing_since("a"), None, "a write is in flight");
        snapshot.record_missing("b", at(5), at(7), VANISHED_AFTER);
        assert_eq!(snapshot.missing_since("b"), Some(at(5)), "never seen");
    }

    #[test]
    fn a_token_has_vanished_when_it_is_missing_at_both_ends_of_a_quarter_of_an_hour() {
        let mut snapshot = has_a("de");
        for (began, has_vanished) in [(10, false), (400, false), (909, false), (910, true), (911, true)] {
            snapshot.record_missing("a", at(began), at(began + 1), VANISHED_AFTER);
            list(&mut snapshot, began + 2, began + 3, &[]);
            assert_eq!(snapshot.is_confirmed_absent("a"), has_vanished, "{began}");
            assert_eq!(snapshot.missing_since("a"), Some(at(10)));
            assert_eq!(ids(snapshot.missing()), if has_vanished { [].as_slice() } else { &["a"] }, "{began}");
        }
        list(&mut snapshot, 910 + 86_400, 910 + 86_401, &[]);
        assert_eq!(snapshot.missing_since("a"), Some(at(10)));
        list(&mut snapshot, 912 + 86_400, 913 + 86_400, &[]);
        assert!(!snapshot.is_confirmed_absent("a"), "nobody asks for it any more");
    }

    #[test]
    fn whatever_shows_a_missing_token_begins_the_wait_anew() {
        type Show = fn(&mut Snapshot);
        let shows: [(&str, bool, Show); 5] = [
            ("a list", true, |snapshot| {
                assert_eq!(list(snapshot, 12, 13, &[entity("a", "de")]).changed, ["a".to_owned()].into());
            }),
            ("a list that began before", false, |snapshot| {
                list(snapshot, 11, 13, &[entity("a", "de")]);
            }),
            ("a GET", true, |snapshot| snapshot.record_found(entity("a", "de"), at(12), at(13))),
            ("our delete", true, |snapshot| snapshot.record_deleted("a", at(12))),
            ("the answer to a create", true, |snapshot| snapshot.record_created(entity("a", "de"), &[], at(12))),
        ];
        for (how, begins_anew, show) in shows {
            let mut snapshot = has_a("de");
            snapshot.record_missing("a", at(10), at(11), VANISHED_AFTER);
            assert_eq!(ids(snapshot.entries.values()), [""; 0]);
            show(&mut snapshot);
            assert_eq!(snapshot.missing_since("a").is_none(), begins_anew, "{how}");
        }
    }

    #[test]
    fn what_a_get_showed_is_not_changed_by_a_list_that_began_before_its_end() {
        let mut snapshot = has_a("de");
        assert!(!snapshot.entry("a").unwrap().was_asked_since(at(-1)), "a list is no GET");
        snapshot.record_found(entity("a", "fr"), at(10), at(12));
        let entry = snapshot.entry("a").unwrap();
        assert_eq!([9, 10].map(|second| entry.was_asked_since(at(second))), [true, false]);
        for began in [9, 11, 12] {
            assert_eq!(list(&mut snapshot, began, 14, &[entity("a", "de")]), Merged::default(), "{began}");
            assert_eq!(list(&mut snapshot, began, 14, &[]), Merged::default(), "{began}");
        }
        assert_eq!(list(&mut snapshot, 13, 14, &[entity("a", "de")]).changed, ["a".to_owned()].into());
        assert_eq!(country(&snapshot, "a").as_deref(), Some("de"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

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
                        snapshot.record_created(wrote.clone(), &[], ended);
                        answers.insert(id, (ended, Some(wrote)));
                    }
                    1 if snapshot.entry(&id).is_some() => {
                        snapshot.record_write_started(&id);
                        snapshot.record_write_ended(&id, Some(wrote.clone()), &[], ended);
                        answers.insert(id, (ended, Some(wrote)));
                    }
                    2 => {
                        snapshot.record_deleted(&id, ended);
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
