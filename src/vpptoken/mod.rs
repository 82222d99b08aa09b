//! The reconcile loop: observe, plan, act, report. One step and one status write at a time.
//!
//! The modules, each using only those above it:
//!
//! | module | purpose |
//! |---|---|
//! | [`claims`] | who has which token, file and intent |
//! | [`creates`] | creates that go one after the other |
//! | [`outcome`] | what was done, as a status keeps it |
//! | [`observed`] | the one value that a decision is made from |
//! | [`plan`] | decides, and says why |
//! | [`references`] | whom a change concerns |
//! | [`caches`] | what the watches keep |
//! | [`stripped`] | VppTokens without what is not used of them |
//! | [`error`] | why a reconcile failed |
//! | [`at_graph`] | steps at Graph, and what comes of them |
//! | [`local_state`] | what this process remembers |
//! | [`events`] | publishes events |
//! | [`shared_reads`] | reads that several reconciles share |
//! | [`context`] | what all reconciles work with |
//! | [`observe`] | gathers what a decision needs |
//! | [`act`] | carries out one step |
//! | [`report`] | writes one status, and the events |
//! | [`reconcile`] | all of it, one after the other |

pub(crate) mod act;
pub(crate) mod at_graph;
pub(crate) mod caches;
pub(crate) mod claims;
pub(crate) mod context;
pub(crate) mod creates;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod local_state;
pub(crate) mod observe;
pub(crate) mod observed;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod reconcile;
pub(crate) mod references;
pub(crate) mod report;
pub(crate) mod shared_reads;
pub(crate) mod stripped;
