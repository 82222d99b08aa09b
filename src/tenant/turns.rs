//! A queue in which namespaces take turns, so that one with thousands of objects does not hold up another's. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Who waits, by namespace; within a namespace the lesser `K` goes first, which begins with since when it waits.
#[derive(Clone, Debug)]
pub(crate) struct Turns<K> {
    by_namespace: BTreeMap<String, BTreeSet<K>>,
    /// The namespaces in which somebody waits, each once: the first one is next.
    order: VecDeque<String>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { by_namespace: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Ord + Clone> Turns<K> {
    /// Adds one that waits. A namespace in which nobody waited comes after the others.
    pub(crate) fn insert(&mut self, namespace: &str, key: K) {
        let waiting = self.by_namespace.entry(namespace.to_owned()).or_default();
        if waiting.is_empty() {
            self.order.push_back(namespace.to_owned());
        }
        waiting.insert(key);
    }

    /// Removes one that does not wait any more.
    pub(crate) fn remove(&mut self, namespace: &str, key: &K) {
        let Some(waiting) = self.by_namespace.get_mut(namespace) else { return };
        waiting.remove(key);
        if waiting.is_empty() {
            self.by_namespace.remove(namespace);
            self.order.retain(|other| other != namespace);
        }
    }

    /// Takes out the next one: the first of the namespace whose turn it is.
    pub(crate) fn pop_next(&mut self) -> Option<K> {
        let namespace = self.order.pop_front()?;
        let waiting = self.by_namespace.get_mut(&namespace)?;
        let next = waiting.pop_first();
        if waiting.is_empty() {
            self.by_namespace.remove(&namespace);
        } else {
            self.order.push_back(namespace);
        }
        next
    }

    /// The one that waits longest, whosever turn it is.
    pub(crate) fn oldest(&self) -> Option<&K> {
        self.by_namespace.values().filter_map(BTreeSet::first).min()
    }

    /// Takes out the one that waits longest, whosever turn it is.
    pub(crate) fn pop_oldest(&mut self) -> Option<K> {
        let firsts = self.by_namespace.iter().filter_map(|(namespace, waiting)| Some((waiting.first()?, namespace)));
        let (key, namespace) = firsts.min().map(|(key, namespace)| (key.clone(), namespace.clone()))?;
        self.remove(&namespace, &key);
        Some(key)
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_namespace.values().map(BTreeSet::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(waiting: &[(&str, u32)]) -> Turns<u32> {
        let mut turns = Turns::default();
        for (namespace, key) in waiting {
            turns.insert(namespace, *key);
        }
        turns
    }

    #[test]
    fn namespaces_take_turns_and_within_one_the_oldest_goes_first() {
        let mut turns = turns(&[("a", 3), ("a", 1), ("a", 2), ("b", 9), ("c", 8)]);
        let order: Vec<u32> = std::iter::from_fn(|| turns.pop_next()).collect();
        assert_eq!(order, [1, 9, 8, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn the_oldest_goes_before_the_turn() {
        let mut turns = turns(&[("a", 3), ("b", 1), ("c", 2)]);
        assert_eq!(turns.pop_oldest(), Some(1));
        assert_eq!([turns.pop_next(), turns.pop_next(), turns.pop_next()], [Some(3), Some(2), None]);
    }

    #[test]
    fn who_left_is_not_waited_for() {
        let mut turns = turns(&[("a", 1), ("b", 2)]);
        turns.remove("a", &1);
        turns.remove("a", &1);
        turns.insert("a", 3);
        assert_eq!(turns.len(), 2);
        assert_eq!([turns.pop_next(), turns.pop_next(), turns.pop_next()], [Some(2), Some(3), None]);
    }
}
