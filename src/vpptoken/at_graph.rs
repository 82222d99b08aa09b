//! Steps at Graph, and what comes of them. Plain data.

use super::error::Error;
use super::observed::LiveReads;
use super::outcome::Outcome;
use super::plan::EventNote;

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

/// A step at Graph. Its VppToken's reconcile has ended.
#[derive(Clone, Debug)]
pub(crate) enum GraphTask {
    /// It is under way: nothing else is done for the VppToken.
    UnderWay,
    /// It has ended, and is to be reported.
    Ended(Box<Ended>),
}

/// A step at Graph that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The live reads that it was decided on.
    pub live: Option<LiveReads>,
    /// What came of it.
    pub result: Result<StepResult, Error>,
}
