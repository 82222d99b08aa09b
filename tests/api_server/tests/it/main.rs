//! The server, request by request and through kube's client.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apply;
mod client;
mod deletion;
mod nonsense;
mod objects;
mod reads;
mod watches;
mod world;
