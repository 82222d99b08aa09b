//! The command line: `serve` runs the emulator until it is stopped, `make-token` writes a test token file.

use crate::settings::{Settings, Throttle};
use crate::{Emulator, Secret, TokenFile};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const DEFAULT_TENANT: &str = "11111111-1111-4111-8111-111111111111";
const DEFAULT_CLIENT: &str = "22222222-2222-4222-8222-222222222222";
const DEFAULT_SECRET: &str = "emulator-secret";

/// Emulates Microsoft Graph's deviceAppManagement/vppTokens (v1.0 and beta) and the Entra token endpoint, for tests and demos.
#[derive(Debug, Parser)]
#[command(name = "graph-emulator", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

const EXAMPLES: &str = "Without a command, it serves. Examples:
  graph-emulator --listen 127.0.0.1:0 --url-file emulator.url --time-scale 10
  graph-emulator serve --app tenant:client:secret --set syncAnswer=wrapped --set 'notKept=[\"countryOrRegion\"]'
  graph-emulator make-token --organization Contoso --expires 2027-01-22T17:32:07Z --out berlin.vpptoken

The admin API is under /emulator/ of the same URL; GET /emulator lists its routes.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Listen until SIGINT or SIGTERM; prints the URL on one line when ready
    Serve(Box<Serve>),
    /// Make a .vpptoken test file with a random inner token
    MakeToken(MakeToken),
}

#[derive(Debug, Args)]
struct Serve {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Write the URL into this file too, when ready
    #[arg(long, value_name = "PATH")]
    url_file: Option<PathBuf>,
    /// An app that may sign in, as TENANT:CLIENT:SECRET (test credentials); repeat for more. Without any, one app is
    /// made up, and printed
    #[arg(
        long = "app",
        value_name = "APP",
        env = "GRAPH_EMULATOR_APPS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    apps: Vec<App>,
    /// A file with one such app per line; # begins a comment
    #[arg(long, value_name = "PATH")]
    apps_file: Option<PathBuf>,
    /// Divide emulated durations by this
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    time_scale: f64,
    /// How long a sync takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3")]
    sync_duration: f64,
    /// Entries per page of a list
    #[arg(long, value_name = "ENTRIES", default_value = "100")]
    page_size: usize,
    /// Whether to enforce Microsoft's request limits
    #[arg(long, default_value = "on")]
    throttle: Switch,
    /// Set any other switch: a name as in GET /emulator/settings, and JSON or plain text; repeat for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    /// Print one line per request to standard error
    #[arg(long)]
    log: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone)]
struct App {
    tenant: String,
    client_id: String,
    secret: Secret,
}

impl std::str::FromStr for App {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':').filter(|part| !part.is_empty());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(tenant), Some(client_id), Some(secret)) => {
                Ok(Self { tenant: tenant.to_owned(), client_id: client_id.to_owned(), secret: secret.into() })
            }
            _ => Err("an app is TENANT:CLIENT:SECRET"),
        }
    }
}

fn setting(text: &str) -> Result<(String, Value), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

#[derive(Debug, Args)]
struct MakeToken {
    /// The organization that the file names
    #[arg(long, value_name = "NAME")]
    organization: String,
    /// When it expires, such as 2027-01-22T17:32:07Z
    #[arg(long, value_name = "TIMESTAMP")]
    expires: Timestamp,
    /// Write it here instead of to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command that the arguments ask for.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::MakeToken(arguments)) => make_token(&arguments),
        Some(Command::Serve(arguments)) => serve(*arguments).await,
        None => serve(cli.serve).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("graph-emulator: {why}");
            ExitCode::FAILURE
        }
    }
}

fn make_token(arguments: &MakeToken) -> Result<(), String> {
    let text = TokenFile::new(&arguments.organization, arguments.expires).text();
    match &arguments.out {
        // No newline: Apple's files have none.
        Some(path) => fs::write(path, text).map_err(|error| format!("can't write {}: {error}", path.display())),
        None => writeln!(io::stdout(), "{text}").map_err(|error| format!("can't write to standard output: {error}")),
    }
}

async fn serve(arguments: Serve) -> Result<(), String> {
    if arguments.log {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info"))
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .init();
    }
    let settings = settings(&arguments)?;
    let mut apps = arguments.apps;
    if let Some(path) = &arguments.apps_file {
        apps.extend(read_apps(path)?);
    }
    // Before the URL is printed, so that a reader of it may send a signal at once.
    let unheard = |error: io::Error| format!("can't listen for signals: {error}");
    let mut interrupted = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(unheard)?;

    let listen = settings.listen;
    let emulator = Emulator::start(settings).await.map_err(|error| format!("can't listen on {listen}: {error}"))?;
    let url = emulator.url();
    if apps.is_empty() {
        emulator.add_app(DEFAULT_TENANT, DEFAULT_CLIENT, DEFAULT_SECRET);
        eprintln!("{}", introduction(&url));
    }
    for app in apps {
        emulator.add_app(&app.tenant, &app.client_id, app.secret);
    }
    if let Some(path) = &arguments.url_file {
        write_whole(path, &url).map_err(|error| format!("can't write {}: {error}", path.display()))?;
    }
    writeln!(io::stdout(), "{url}").map_err(|error| format!("can't write to standard output: {error}"))?;

    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    emulator.shutdown().await;
    Ok(())
}

fn settings(arguments: &Serve) -> Result<Settings, String> {
    let from_seconds = |seconds| std::time::Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    let settings = Settings {
        listen: arguments.listen,
        time_scale: arguments.time_scale,
        sync_duration: from_seconds(arguments.sync_duration).map_err(|why| format!("--sync-duration: {why}"))?,
        page_size: arguments.page_size,
        throttle: matches!(arguments.throttle, Switch::On).then(Throttle::default),
        ..Settings::default()
    };
    let changes: Map<String, Value> = arguments.set.iter().cloned().collect();
    settings.with(changes).map_err(|why| format!("--set: {why}"))
}

fn read_apps(path: &PathBuf) -> Result<Vec<App>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().map_err(|why| format!("{}: {why}", path.display()))).collect()
}

/// Writes a file in one step, so that a reader never sees half of it.
fn write_whole(path: &PathBuf, url: &str) -> io::Result<()> {
    let mut beside = path.clone().into_os_string();
    beside.push(".part");
    fs::write(&beside, format!("{url}\n"))?;
    fs::rename(&beside, path)
}

fn introduction(url: &str) -> String {
    format!(
        "An app to sign in with:
  tenant {DEFAULT_TENANT}
  client {DEFAULT_CLIENT}
  secret {DEFAULT_SECRET}
Try:
  curl {url}/{DEFAULT_TENANT}/oauth2/v2.0/token -d grant_type=client_credentials \\
    -d client_id={DEFAULT_CLIENT} -d client_secret={DEFAULT_SECRET} \\
    -d scope=https://graph.microsoft.com/.default
  curl {url}/v1.0/deviceAppManagement/vppTokens -H \"Authorization: Bearer $ACCESS_TOKEN\"
  curl {url}/emulator"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_app_may_have_a_colon_in_its_secret() {
        let app: App = "t:c:se:cret".parse().unwrap();
        assert_eq!((app.tenant.as_str(), app.client_id.as_str(), app.secret.expose()), ("t", "c", "se:cret"));
        assert!("t:c".parse::<App>().is_err());
    }

    #[test]
    fn any_switch_can_be_set() {
        let arguments = ["graph-emulator", "--set", "syncAnswer=wrapped", "--set", "expiryLag=1.5"];
        let settings = settings(&Cli::parse_from(arguments).serve).unwrap();
        assert_eq!(settings.sync_answer, crate::SyncAnswer::Wrapped);
        assert_eq!(settings.expiry_lag, std::time::Duration::from_millis(1500));
        let wrong = ["graph-emulator", "--set", "syncAnswers=wrapped"];
        assert!(super::settings(&Cli::parse_from(wrong).serve).is_err());
    }
}
