//! A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager as child
//! processes, for the demo and the tests. No Docker, no root.
//!
//! [`tools::ensure`] finds, downloads or builds the binaries; [`ControlPlane`] runs them in a temporary folder of
//! its own. The crate writes to that folder and to the user's cache folder, and nowhere else.
//!
//! ```no_run
//! # async fn example() -> control_plane::Result<()> {
//! use control_plane::{ControlPlane, Options, Progress, tools};
//!
//! let tools = tools::ensure(&Progress::stderr()).await?;
//! let plane = ControlPlane::start(&tools, Options::default()).await?;
//! println!("export KUBECONFIG={}", plane.kubeconfig().display());
//! plane.shutdown().await
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod plane;
mod progress;
pub mod tools;

pub use error::{Attempts, Error, Result};
pub use plane::{ControlPlane, Options};
pub use progress::Progress;
