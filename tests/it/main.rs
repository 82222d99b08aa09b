//! The operator on a real control plane, with the chart's rights, against the emulated Graph.
//!
//! Each test has a namespace, an emulator and an operator of its own, so that all run side by side on one control plane:
//! the one that `control-plane run` started, or else one that this process starts itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adopting;
mod api_server;
mod at_scale;
mod beta;
mod calendar;
mod conflicts;
mod crashes;
mod drift;
mod ending;
mod going;
mod kstatus;
mod late;
mod main_job;
mod manifests;
mod namespaces;
mod observing;
mod outages;
mod policies;
mod races;
mod refusals;
mod renewing;
mod secrets;
mod support;
mod tenants;
mod vanished;
