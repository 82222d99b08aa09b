#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! The operator itself in virtual time, on one thread: its calls fail, its processes die, people interfere, clocks jump, and a
//! judge who sees only what the API server and Graph saw says whether a rule was broken.
//!
//! Nothing of the operator is written a second time here. `main` starts it by `operator::run`, a simulation by
//! `operator::run_with`, and the only differences are the Kubernetes client, Graph's transport, the clock and the generator.

pub mod explore;
pub mod fault;
pub mod graph;
pub mod history;
pub mod judge;
pub mod kubernetes;
pub mod life;
mod meetings;
mod mistakes;
pub mod process;
pub mod random;
pub mod world;
