//! A Kubernetes API server in memory, for the operator in virtual time (tests/proof).
//!
//! It answers what the operator and the people around it ask of kube-apiserver: reads with pages and versions, writes with
//! optimistic locking, server-side apply with managed fields, deletions with finalizers, watches with bookmarks and 410, and
//! the ends of namespaces and definitions. It stands behind `kube::Client::new`, or is called by a simulator that delays and
//! loses requests and events as it likes; the server itself never fails and never waits.
//!
//! Everything is deterministic: names, UIDs and versions come from counters, the time from a clock that is passed in, and
//! nothing depends on the order of a hash map. Waiting (for events, for the next bookmark) is done with tokio's time.
//!
//! It is compared with kube-apiserver by `tests/it/api_server`: one script of requests, which both have to answer alike.
//!
//! What is not as in kube-apiserver:
//! - CEL rules (`x-kubernetes-validations`) are not evaluated, and there is no admission by webhooks or policies.
//! - Only the resources that the operator touches are served, each in one version. Nobody is authenticated or authorized.
//! - What is applied has to be JSON. Strategic merge patches know finalizers, conditions and owners; other lists are replaced.
//! - Events of core/v1 and of events.k8s.io/v1 are stored apart.
//! - Nothing is collected by owner, and `propagationPolicy` is accepted without effect. Namespaces get no conditions while
//!   they are deleted.
//! - Bookmarks have the newest revision of the whole server. Those of kube-apiserver may be behind, and are left out where they
//!   tell nothing new.
//! - Codes, reasons and causes of errors are the same, their messages are not always, and there are no `Warning` headers.
//! - The history is one for all resources: a watch that is older than it gets 410 even when its resource did not change.

mod answer;
mod controllers;
mod decode;
mod definitions;
mod delete;
mod discovery;
mod failure;
mod fields;
mod journal;
mod kubectl;
mod metadata;
mod patch;
mod read;
mod request;
mod resource;
mod roles;
mod schema;
mod selector;
mod server;
mod service;
mod state;
mod watch;
mod write;

pub use answer::Answer;
pub use journal::{Verb, Write};
pub use kubectl::KUBECTL;
pub use resource::Definitions;
pub use server::{ApiServer, Clock, Options};
pub use service::{ResponseBody, Service};
pub use watch::{EventType, WatchEvent, WatchStream};
