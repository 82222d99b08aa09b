//! An emulator of the part of Microsoft Graph that manages Apple VPP tokens: `deviceAppManagement/vppTokens` of v1.0
//! and beta, and the token endpoint of Microsoft Entra ID.
//!
//! An [`Emulation`] answers requests in process ([`Emulation::call`]), on a [`Clock`] and with a [`Random`] that are
//! passed in: in paused time and with a seed, every run is the same. An [`Emulator`] is an emulation that listens on
//! one plain HTTP port. Tests read what either has recorded, and make it misbehave with [`Emulation::inject`]. The
//! binary `graph-emulator` listens too, with an admin API under `/emulator/`.
//!
//! It does not depend on the operator, and nothing that it prints or records contains a token or a secret.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admin;
mod body;
mod changes;
pub mod cli;
mod clock;
mod collection;
mod effects;
mod emulation;
mod emulator;
mod entity;
mod entra;
mod errors;
mod fault_handle;
mod faults;
mod graph;
mod history;
mod log;
mod pipeline;
mod random;
mod route;
mod secret;
mod server;
mod settings;
mod state;
mod stored;
mod throttle;
pub mod token_file;
mod writes;

pub use body::{AnswerBody, BrokenBody};
pub use clock::Clock;
pub use effects::{By, Effect};
pub use emulation::Emulation;
pub use emulator::Emulator;
pub use entity::{Entity, NewEntity, ZERO_DATE};
pub use entra::Permission;
pub use fault_handle::FaultHandle;
pub use faults::{Action, Fault, FaultStatus, When};
pub use log::{Operation, Outcome, RequestRecord};
pub use pipeline::Closed;
pub use random::Random;
pub use secret::{Secret, sha256};
pub use settings::{
    BodyKind, ExpiredFile, LocationName, NeverSynced, Paging, RetryAfter, ScopeTagOrder, Settings, SyncAnswer,
    SyncWhileSyncing, Throttle, TimestampStyle, TokenEncoding, Treatment, UpdateAnswer,
};
pub use state::View;
pub use token_file::{Malformed, TokenFile};
