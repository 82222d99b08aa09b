#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! `vpptoken-operator` keeps Apple VPP tokens in Microsoft Intune as Kubernetes manifests ask for them.
//!
//! The modules, each using only those above it:
//!
//! | module | purpose |
//! |---|---|
//! | [`clock`] | time and randomness, passed in |
//! | [`backoff`] | delays that grow |
//! | [`api`] | what users write and read |
//! | [`token_file`] | the `.vpptoken` file |
//! | [`schedule`] | when the next sync is due |
//! | [`graph`] | the only module that sends requests to Microsoft |
//! | [`tenant`] | a live session per tenant: rate limiter and snapshot |
//! | [`vpptoken`] | observe, plan, act, report: the reconcile loop |
//! | [`operator`] | start-up, watches, health, metrics |
//! | [`cli`] | the command line |

pub mod api;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod graph;
pub mod operator;
pub mod schedule;
pub mod tenant;
pub mod token_file;
pub mod vpptoken;
