//! An emulator of the part of Microsoft Graph that manages Apple VPP tokens: `deviceAppManagement/vppTokens` of v1.0
//! and beta, and the token endpoint of Microsoft Entra ID, on one plain HTTP port.
//!
//! Tests start it in their own process with [`Emulator::start`], look at what it has seen and make it misbehave with
//! [`Emulator::inject`]. The binary `graph-emulator` is the same with an admin API under `/emulator/`.
//!
//! It knows nothing of the operator, and nothing it prints or remembers for show holds a token or a secret.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admin;
pub mod cli;
mod collection;
mod emulator;
mod entity;
mod entra;
mod errors;
mod faults;
mod graph;
mod log;
mod pipeline;
mod route;
mod secret;
mod server;
mod settings;
mod state;
mod throttle;
pub mod token_file;

pub use emulator::{Emulator, FaultHandle};
pub use entity::{Entity, NewEntity, ZERO_DATE};
pub use entra::Permission;
pub use faults::{Action, Fault, FaultStatus, When};
pub use log::{Operation, Outcome, RequestRecord};
pub use secret::{Secret, sha256};
pub use settings::{
    BodyKind, ExpiredFile, LocationName, NeverSynced, Paging, RetryAfter, ScopeTagOrder, Settings, SyncAnswer,
    SyncWhileSyncing, Throttle, TimestampStyle, TokenEncoding, Treatment, UpdateAnswer,
};
pub use state::View;
pub use token_file::{Malformed, TokenFile};
