//! The reconcile loop: observe, plan, act, report. One step and one status write at a time.
//!
//! A module uses only those above it in this list.

pub mod act;
pub mod caches;
pub mod claims;
pub mod context;
pub mod creates;
pub mod events;
pub mod local_state;
pub mod observe;
pub mod observed;
pub mod outcome;
pub mod plan;
pub mod reconcile;
pub mod references;
pub mod report;
