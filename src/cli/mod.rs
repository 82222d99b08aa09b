//! The command line: `run` and `crds`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::operator::{self, Settings};
use crate::tenant::{Limits, Timings};
use crate::{api, schedule};

/// Nearly all time is spent waiting. By default there would be one for each processor of the node, each with memory of its own.
const WORKER_THREADS: usize = 2;

/// Keeps Apple VPP tokens in Microsoft Intune as Kubernetes manifests ask for them.
#[derive(Debug, Parser)]
#[command(name = "vpptoken-operator", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: in a pod, or anywhere with a kubeconfig.
    Run(Run),
    /// Write the CustomResourceDefinitions.
    Crds {
        /// Folder to write one file per definition to. Left out: all to standard output.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Namespace that holds the Secrets of ClusterGraphTenants. Left out: that of the Kubernetes configuration.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Namespaces whose VppTokens are looked after, separated by commas. Left out: all.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Address for /healthz, /readyz and /metrics.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Another Microsoft Graph than the cloud's, for example an emulator. Credentials are sent there.
    #[arg(long, env = "GRAPH_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    graph_endpoint: Option<String>,
    /// Another login host than the cloud's, for example an emulator. Credentials are sent there.
    #[arg(long, env = "LOGIN_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    login_endpoint: Option<String>,
    /// How long after a write Graph may still show the old value.
    #[arg(long, env = "SETTLING_TIME", default_value = "60s", value_parser = duration)]
    settling_time: SignedDuration,
    /// How long to look for the result of a create whose answer was lost, before creating again.
    #[arg(long, env = "UNKNOWN_OUTCOME_TIME", default_value = "15m", value_parser = duration)]
    unknown_outcome_time: SignedDuration,
    /// How long a token has to be missing in Graph before it counts as gone and is created again.
    #[arg(long, env = "VANISHED_TIME", default_value = "15m", value_parser = duration)]
    vanished_time: SignedDuration,
    /// How to write logs.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What to log: error, warn, info, debug, or a filter such as info,vpptoken_operator=debug.
    #[arg(long, env = "LOG", default_value = "info")]
    log: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(host) if !host.trim_matches('/').is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("write a URL such as http://127.0.0.1:8090".to_owned()),
    }
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    schedule::duration(text).ok_or_else(|| "write a duration such as 60s or 15m".to_owned())
}

/// Reads the command line and runs the command.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Crds { dir } => finish(crds(dir)),
        Command::Run(arguments) => finish(operate(arguments)),
    }
}

fn finish(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("vpptoken-operator: {message}");
            ExitCode::FAILURE
        }
    }
}

fn crds(dir: Option<PathBuf>) -> Result<(), String> {
    let files = api::crds_as_files().map_err(|error| error.to_string())?;
    let Some(dir) = dir else {
        for (_, yaml) in files {
            println!("---\n{yaml}");
        }
        return Ok(());
    };
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for (name, yaml) in files {
        let path = dir.join(name);
        std::fs::write(&path, yaml).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn operate(arguments: Run) -> Result<(), String> {
    // The Kubernetes client logs answers that it can't read, and Secrets are among them; and its watcher logs each try
    // that is refused.
    let filters = format!("{},kube_client::client=error,kube_runtime::watcher=error", arguments.log);
    let filter = EnvFilter::try_new(filters).map_err(|error| format!("--log \"{}\": {error}", arguments.log))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    // A panic's own message may quote anything; where it happened is enough to find it.
    std::panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "a fault of the operator: it panicked");
    }));
    let settings = Settings {
        namespace: arguments.namespace,
        watch_namespaces: arguments.watch_namespaces,
        listen: arguments.listen,
        graph_endpoint: arguments.graph_endpoint,
        login_endpoint: arguments.login_endpoint,
        timings: Timings {
            settling: arguments.settling_time,
            unknown_outcome: arguments.unknown_outcome_time,
            vanished_after: arguments.vanished_time,
        },
        limits: Limits::default(),
    };
    // The one TLS provider of the process; two would make the first client panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| format!("can't start: {error}"))?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let signals = tokio::spawn(async move {
            stop_requested().await;
            tracing::info!("stopping; finishing what is in progress");
            stopping.cancel();
        });
        let outcome = operator::run(settings, stop).await.map_err(|error| error.to_string());
        signals.abort();
        outcome
    })
}

async fn stop_requested() {
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// The defaults of the flags are those that the tests and the simulation run with.
    #[test]
    fn the_default_times_are_those_of_the_library() {
        let Ok(Cli { command: Command::Run(run), .. }) = Cli::try_parse_from(["vpptoken-operator", "run"]) else {
            panic!("run needs nothing");
        };
        let timings = Timings::default();
        assert_eq!(run.settling_time, timings.settling);
        assert_eq!(run.unknown_outcome_time, timings.unknown_outcome);
        assert_eq!(run.vanished_time, timings.vanished_after);
    }

    #[test]
    fn an_endpoint_is_a_url() {
        assert_eq!(endpoint("http://127.0.0.1:8090/"), Ok("http://127.0.0.1:8090".to_owned()));
        for text in ["127.0.0.1:8090", "https://", "file:///etc", ""] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
