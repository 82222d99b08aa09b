#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! The operator itself in virtual time, on one thread: its calls fail, its processes die, people interfere, clocks jump, and a
//! judge who sees only what the API server and Graph saw says whether a rule was broken.
//!
//! Nothing of the operator is written a second time here. A cluster runs `operator::run`, which makes the Kubernetes client,
//! Graph's transport, the clock and the generator, and calls `operator::run_with`; a simulation calls that with its own.
//! There is no listener in a simulation: `tests/it` and `src/operator/tests.rs` look at health and metrics.

pub mod explore;
pub mod fault;
pub mod graph;
pub mod history;
pub mod judge;
pub mod kubernetes;
pub mod life;
mod meetings;
mod mistakes;
pub mod permit_states;
mod permits;
pub mod process;
pub mod random;
pub mod world;
