#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! `vpptoken-operator` keeps Apple VPP tokens in Microsoft Intune as Kubernetes manifests ask for them.
//!
//! The modules, each using only those above it:
//!
//! | module | purpose |
//! |---|---|
//! | [`clock`] | time and randomness, passed in |
//! | `backoff` | delays that grow |
//! | [`api`] | what users write and read |
//! | `token_file` | the `.vpptoken` file |
//! | [`schedule`] | when the next sync is due |
//! | `graph` | the only module that sends requests to Microsoft |
//! | `tenant` | a live session per tenant: rate limiter and snapshot |
//! | `vpptoken` | observe, plan, act, report: the reconcile loop |
//! | [`operator`] | start-up, watches, health, metrics |
//! | [`cli`] | the command line |

pub mod api;
mod backoff;
pub mod cli;
pub mod clock;
mod graph;
pub mod operator;
pub mod schedule;
mod tenant;
mod token_file;
mod vpptoken;
