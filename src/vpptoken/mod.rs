//! The reconcile loop: observe, plan, act, report. One step and one status write at a time.
//!
//! A module uses only those above it in this list.

pub(crate) mod act;
pub(crate) mod caches;
pub(crate) mod claims;
pub(crate) mod context;
pub(crate) mod creates;
pub(crate) mod events;
pub(crate) mod local_state;
pub(crate) mod observe;
pub(crate) mod observed;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod reconcile;
pub(crate) mod references;
pub(crate) mod report;
