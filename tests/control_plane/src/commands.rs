//! What each sub command does. Starts processes, prints, and listens to signals; everything else is in the library.

use std::{
    ffi::OsString,
    future::Future,
    io::{self, IsTerminal as _},
    os::unix::process::ExitStatusExt as _,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use control_plane::{ControlPlane, Error, Options, Progress, Result, tools};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
};

/// How long the command may take to end by itself after a signal before it is killed.
const COMMAND_LIMIT: Duration = Duration::from_secs(15);

/// `control-plane run`
pub(crate) async fn run(command: Vec<OsString>) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let started = signals.or(start()).await;
    let (tools, plane) = match started {
        Ok(started) => started?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    let outcome = run_command(command, &tools, &plane, &mut signals).await;
    plane.shutdown().await?;
    outcome
}

/// `control-plane up`
pub(crate) async fn up() -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let (tools, plane) = match signals.or(start()).await {
        Ok(started) => started?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    println!("export KUBECONFIG={}", plane.kubeconfig().display());
    println!("export CONTROL_PLANE_AUDIT_LOG={}", plane.audit_log().display());
    eprintln!(
        "control-plane: {} at {}, logs in {}\ncontrol-plane: kubectl is {}, helm is {}\ncontrol-plane: Ctrl-C takes it down",
        tools.kube_apiserver.version,
        plane.url(),
        plane.folder().display(),
        tools.kubectl.path.display(),
        tools.helm.path.display(),
    );
    signals.next().await;
    plane.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

/// `control-plane tools`
pub(crate) async fn tools() -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let progress = Progress::stderr();
    let both = async { Ok::<_, Error>((tools::ensure(&progress).await?, tools::kstatus(&progress).await?)) };
    let (tools, kstatus) = match signals.or(both).await {
        Ok(both) => both?,
        Err(signal) => return Ok(ended_by(signal)),
    };
    println!("{:<24} {:<9} {:<26} PATH", "TOOL", "VERSION", "FROM");
    for (name, tool) in tools.all().into_iter().chain([("kstatus", &kstatus)]) {
        println!("{name:<24} {:<9} {:<26} {}", tool.version.to_string(), tool.source, tool.path.display());
    }
    Ok(ExitCode::SUCCESS)
}

async fn start() -> Result<(tools::Tools, ControlPlane)> {
    let tools = tools::ensure(&Progress::stderr()).await?;
    let plane = ControlPlane::start(&tools, Options::default()).await?;
    Ok((tools, plane))
}

async fn run_command(
    mut command: Vec<OsString>,
    tools: &tools::Tools,
    plane: &ControlPlane,
    signals: &mut Signals,
) -> Result<ExitCode> {
    let program = command.remove(0);
    let failed = |doing: &str| {
        let doing = format!("{doing} {}", program.display());
        move |source| Error::Io { doing, source }
    };
    // A group of its own can be ended as a whole. On a terminal it must stay in ours, or it could not read from there;
    // Ctrl-C then reaches all of it anyway.
    let own_group = !io::stdin().is_terminal();
    let mut prepared = Command::new(&program);
    prepared
        .args(command)
        .env("KUBECONFIG", plane.kubeconfig())
        .env("PATH", tools.path_variable())
        .env("CONTROL_PLANE_AUDIT_LOG", plane.audit_log())
        .env(tools::HANDED_DOWN, tools.to_hand_down())
        .kill_on_drop(true);
    // Only a test needs it, so that a demo does not wait until it is built.
    if let Some(kstatus) = tools::cached_kstatus() {
        prepared.env(tools::KSTATUS_HANDED_DOWN, kstatus.path);
    }
    if own_group {
        prepared.process_group(0);
    }
    let child = prepared.spawn().map_err(failed("can't run"))?;
    let mut running = Running { id: pid(&child), child, own_group };

    let status = match signals.or(running.child.wait()).await {
        Ok(status) => status,
        Err(signal) => {
            running.signal(signal);
            match tokio::time::timeout(COMMAND_LIMIT, signals.or(running.child.wait())).await {
                Ok(Ok(status)) => status,
                // The time is over, or a second signal came: kill it.
                Err(_) | Ok(Err(_)) => {
                    running.signal(Signal::KILL);
                    running.child.wait().await
                }
            }
        }
    };
    running.end_the_rest().await;
    Ok(exit_code(status.map_err(failed("can't wait for"))?))
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// The command and, where it has a group of its own, all that it started there.
struct Running {
    child: Child,
    id: Option<Pid>,
    own_group: bool,
}

impl Running {
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // It may have ended already.
            let _ = if self.own_group { kill_process_group(id, signal) } else { kill_process(id, signal) };
        }
    }

    /// Ends what the command left running in its group. The group's id is not reused while one of it runs.
    async fn end_the_rest(&self) {
        let Some(id) = self.id.filter(|_| self.own_group) else {
            return;
        };
        for signal in [Signal::TERM, Signal::KILL] {
            if kill_process_group(id, signal).is_err() {
                return;
            }
            for _ in 0..40 {
                if rustix::process::test_kill_process_group(id).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn ended_by(signal: Signal) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1))
}

/// The signals that end this process.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen =
            |kind| unix::signal(kind).map_err(|source| Error::Io { doing: "can't listen to signals".into(), source });
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }

    /// The step's output, or the signal that came first; the step is then dropped, which ends what it started.
    async fn or<F: Future>(&mut self, step: F) -> Result<F::Output, Signal> {
        tokio::select! {
            output = step => Ok(output),
            signal = self.next() => Err(signal),
        }
    }
}
