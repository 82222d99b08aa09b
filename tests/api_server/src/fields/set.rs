//! Sets of fields, as `fieldsV1` of `managedFields` writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of fields: a tree whose steps are `f:name`, `k:{…}` and `v:…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet(BTreeMap<String, Node>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    is_member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        match self.0.get_mut(first) {
            Some(node) if rest.is_empty() => node.is_member = true,
            Some(node) => node.below.insert(rest),
            None => {
                let mut node = Node { is_member: rest.is_empty(), below: Self::default() };
                node.below.insert(rest);
                self.0.insert(first.clone(), node);
            }
        }
    }

    pub(crate) fn has(&self, step: &str) -> bool {
        self.0.get(step).is_some_and(|node| node.is_member)
    }

    /// What is below a step.
    pub(crate) fn below(&self, step: &str) -> Option<&Self> {
        self.0.get(step).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// The steps at the top, and whether anything is below them.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|(step, node)| (step.as_str(), !node.below.is_empty()))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (step, theirs) in &other.0 {
            match self.0.get_mut(step) {
                Some(node) => {
                    node.is_member |= theirs.is_member;
                    node.below.add(&theirs.below);
                }
                None => {
                    self.0.insert(step.clone(), theirs.clone());
                }
            }
        }
    }

    /// Removes the members of another set, and nothing below them.
    pub(crate) fn subtract(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.0.retain(|step, node| {
            if let Some(theirs) = other.0.get(step) {
                node.is_member &= !theirs.is_member;
                node.below.subtract(&theirs.below);
            }
            !node.is_empty()
        });
    }

    /// Removes fields with everything below them.
    pub(crate) fn remove_trees(&mut self, steps: &[&str]) {
        for step in steps {
            self.0.remove(*step);
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = BTreeMap::new();
        for (step, node) in &self.0 {
            if let Some(theirs) = other.0.get(step) {
                let is_member = node.is_member && theirs.is_member;
                let node = Node { is_member, below: node.below.intersection(&theirs.below) };
                if !node.is_empty() {
                    both.insert(step.clone(), node);
                }
            }
        }
        Self(both)
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|(step, node)| {
            other
                .0
                .get(step)
                .is_some_and(|theirs| (!node.is_member || theirs.is_member) && node.below.is_within(&theirs.below))
        })
    }

    /// Makes a step a member.
    pub(crate) fn mark(&mut self, step: &str) {
        if let Some(node) = self.0.get_mut(step) {
            node.is_member = true;
        }
    }

    /// The set below a step, to be changed; it is there already.
    pub(crate) fn below_mut(&mut self, step: &str) -> Option<&mut Self> {
        self.0.get_mut(step).map(|node| &mut node.below)
    }

    /// All members, as people read paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        for (step, node) in &self.0 {
            let path = format!("{prefix}{}", shown(step));
            if node.is_member {
                paths.push(path.clone());
            }
            node.below.collect_paths(&path, paths);
        }
    }

    /// Writes the set as `fieldsV1`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.write_with(false, out);
    }

    fn write_with(&self, is_member: bool, out: &mut Vec<u8>) {
        out.push(b'{');
        if is_member && !self.is_empty() {
            out.extend_from_slice(b"\".\":{},");
        }
        for (step, node) in &self.0 {
            write_json(step, out);
            out.push(b':');
            node.below.write_with(node.is_member, out);
            out.push(b',');
        }
        if !self.is_empty() {
            out.pop();
        }
        out.push(b'}');
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let steps = value.as_object().into_iter().flatten().filter(|(step, _)| *step != ".").map(|(step, below)| {
            let is_member = below.get(".").is_some() || below.as_object().is_none_or(Map::is_empty);
            (step.clone(), Node { is_member, below: Self::from_json(below) })
        });
        Self(steps.collect())
    }
}

/// Writes a text in quotes.
pub(crate) fn write_json(text: &str, out: &mut Vec<u8>) {
    // Writing into memory can't fail.
    let _ = serde_json::to_writer(out, text);
}

/// A step as conflicts show it: `.name`, `[key="value"]`.
fn shown(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: Value = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> =
                keys.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        _ => step.to_owned(),
    }
}
