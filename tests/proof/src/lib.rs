#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
//! The operator's own decisions (`plan`, the snapshot, the memory of a process, the facts of a status) in a simulated world:
//! an API server with caches that lag, a Graph whose answers get lost, processes that die, people who change their minds.
//!
//! One world, two ways through it: [`random`] histories, each made again by its seed, and [`exhaust`]ively all histories
//! within small bounds.

mod api;
pub mod exhaust;
mod graph;
mod heal;
mod people;
mod print;
mod process;
pub mod random;
mod rules;
mod steps;
#[cfg(test)]
mod tests;
mod universe;
mod world;

pub use people::Deed;
pub use rules::{Broken, RULES};
pub use world::{Action, Fate, Treatment, World};
