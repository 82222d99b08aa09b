//! The binary `control-plane`: arguments in, an exit code out. What it does is in `commands.rs`.

mod commands;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// A real Kubernetes control plane on loopback, without Docker or root.
///
/// etcd, kube-apiserver and kube-controller-manager run in a temporary folder, with kubectl and helm at hand. The
/// binaries come from the first of these that has them: the folder KUBEBUILDER_ASSETS, the user's cache folder, the
/// official envtest archive, a build from Go modules (once, about 6 minutes on two cores). kubectl and helm on PATH
/// are used where their versions suit.
#[derive(Parser)]
#[command(
    name = "control-plane",
    after_help = "Environment:\n  KUBEBUILDER_ASSETS  folder with etcd, kube-apiserver and, if there, kube-controller-manager and kubectl\n  \
                  ENVTEST_BASE_URL    folder to download the envtest archive from, in place of the official one\n  \
                  XDG_CACHE_HOME      where the cache is, in place of ~/.cache (on macOS ~/Library/Caches)"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command against a control plane of its own, then take the control plane down.
    ///
    /// The command gets KUBECONFIG (cluster administrator), PATH with kubectl and helm in front,
    /// CONTROL_PLANE_AUDIT_LOG (requests to the group vpptoken.io, a JSON line each), CONTROL_PLANE_TOOLS (with which
    /// a test can start further control planes at once) and, where `tools` has built it, CONTROL_PLANE_KSTATUS (a program
    /// that judges objects, for a test). The exit code is the command's, or 128 + N where signal N
    /// ended it.
    Run {
        /// The command and its arguments, after `--`.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Start a control plane, print how to use it, and keep it until Ctrl-C.
    Up,
    /// Find or build the tools, and print where each is and where it came from.
    ///
    /// To those of the control plane this adds kstatus, which only a test needs.
    Tools,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { command } => commands::run(command).await,
        Command::Up => commands::up().await,
        Command::Tools => commands::tools().await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("control-plane: {error}");
        ExitCode::FAILURE
    })
}
