//! Steps at Graph, and what comes of them. Pure.

use std::collections::BTreeMap;

use super::error::Error;
use super::observed::LiveReads;
use super::outcome::Outcome;
use super::plan::EventNote;
use crate::api::NamespacedName;

/// The result of a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepResult {
    /// What to write into the status.
    pub outcome: Option<Outcome>,
    /// What to show.
    pub event: Option<EventNote>,
    /// The step changed the object itself. Its watch triggers the next reconcile, which writes the status.
    pub object_changed: bool,
}

/// A step at Graph that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The live reads that it was decided on.
    pub live: Option<LiveReads>,
    /// What came of it.
    pub result: Result<StepResult, Error>,
}

/// What became of a step at Graph.
#[derive(Debug)]
pub(crate) enum GraphTask {
    /// It is under way: nothing else is done for a VppToken of this name.
    UnderWay,
    /// It has ended, and is to be reported. Whether the VppToken was triggered meanwhile.
    Ended(Box<Ended>, bool),
}

/// The step at Graph of one VppToken.
#[derive(Clone, Debug)]
struct Entry {
    uid: String,
    was_triggered: bool,
    ended: Option<Box<Ended>>,
}

/// The steps at Graph that are under way or not reported yet, by the names of their VppTokens: one that was deleted and made anew
/// waits for the step of the one before.
#[derive(Clone, Debug, Default)]
pub(crate) struct GraphTasks(BTreeMap<NamespacedName, Entry>);

impl GraphTasks {
    /// A step begins.
    pub(crate) fn begin(&mut self, name: NamespacedName, uid: String) {
        self.0.insert(name, Entry { uid, was_triggered: false, ended: None });
    }

    /// A step has ended: its result is kept until it is reported, unless its VppToken was deleted.
    pub(crate) fn end(&mut self, name: &NamespacedName, ended: Ended, is_known: impl FnOnce(&str) -> bool) {
        match self.0.get_mut(name) {
            Some(entry) if is_known(&entry.uid) => entry.ended = Some(Box::new(ended)),
            _ => drop(self.0.remove(name)),
        }
    }

    /// A VppToken is reconciled. The result of its step is taken out.
    pub(crate) fn take(&mut self, name: &NamespacedName, uid: &str) -> Option<GraphTask> {
        let entry = self.0.get_mut(name)?;
        if entry.ended.is_none() {
            entry.was_triggered = true;
            return Some(GraphTask::UnderWay);
        }
        let entry = self.0.remove(name)?;
        Some(GraphTask::Ended(entry.ended.filter(|_| entry.uid == uid)?, entry.was_triggered))
    }

    /// A result could not be reported.
    pub(crate) fn put_back(&mut self, name: NamespacedName, uid: String, ended: Ended) {
        self.0.insert(name, Entry { uid, was_triggered: true, ended: Some(Box::new(ended)) });
    }

    /// Whether the result of a step is to be reported.
    pub(crate) fn has_result(&self, name: &NamespacedName) -> bool {
        self.0.get(name).is_some_and(|entry| entry.ended.is_some())
    }

    /// A VppToken was deleted: no result is reported any more.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.0.retain(|_, entry| entry.uid != uid || entry.ended.is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Ended {
        Ended { live: None, result: Ok(StepResult::default()) }
    }

    #[test]
    fn a_result_is_for_the_vpp_token_whose_step_it_was() {
        let name = NamespacedName::new("devices", "berlin");
        let mut tasks = GraphTasks::default();
        assert!(tasks.take(&name, "a").is_none());
        tasks.begin(name.clone(), "a".into());
        assert!(!tasks.has_result(&name));
        assert!(matches!(tasks.take(&name, "a"), Some(GraphTask::UnderWay)));
        tasks.forget("a");
        assert!(matches!(tasks.take(&name, "b"), Some(GraphTask::UnderWay)), "made anew, it waits");
        tasks.end(&name, ended(), |uid| uid != "a");
        assert!(tasks.take(&name, "b").is_none());
        for (uid, is_told) in [("a", true), ("b", false)] {
            tasks.begin(name.clone(), "a".into());
            tasks.end(&name, ended(), |_| true);
            assert!(tasks.has_result(&name));
            assert_eq!(matches!(tasks.take(&name, uid), Some(GraphTask::Ended(_, false))), is_told);
            assert!(!tasks.has_result(&name), "once");
        }
        tasks.put_back(name.clone(), "a".into(), ended());
        assert!(matches!(tasks.take(&name, "a"), Some(GraphTask::Ended(_, true))));
        tasks.put_back(name.clone(), "a".into(), ended());
        tasks.forget("a");
        assert!(tasks.take(&name, "a").is_none());
    }
}
