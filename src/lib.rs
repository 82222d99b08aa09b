#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! `vpptoken-operator` keeps Apple VPP tokens in Microsoft Intune as Kubernetes manifests ask for them.
//!
//! The rooms, each using only those above it:
//!
//! | room | what it is for |
//! |---|---|
//! | [`api`] | what users write and read |
//! | [`token_file`] | the `.vpptoken` file |
//! | [`schedule`] | when the next sync is due |
//! | [`graph`] | the only room that speaks to Microsoft |
//! | [`tenant`] | a live session per tenant: budget and snapshot |
//! | [`vpptoken`] | observe, plan, act, report: the reconcile loop |
//! | [`operator`] | start-up, watches, health, metrics |
//! | [`cli`] | what a person runs |

pub mod api;
pub mod cli;
pub mod graph;
pub mod operator;
pub mod schedule;
pub mod tenant;
pub mod token_file;
pub mod vpptoken;
