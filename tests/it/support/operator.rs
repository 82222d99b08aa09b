//! The operator's own binary as a child process, with the token of the chart's ServiceAccount.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{LIMIT, Plane, until};

/// The operator's binary: in the cgroup whose folder `OPERATOR_CGROUP` is, if it is set.
fn command() -> Command {
    let binary = env!("CARGO_BIN_EXE_vpptoken-operator");
    let Some(cgroup) = std::env::var_os("OPERATOR_CGROUP") else { return Command::new(binary) };
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#]).arg(cgroup).arg(binary);
    shell
}

/// The operator under test: can be killed and started again.
pub(crate) struct Operator {
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    child: Mutex<Option<Child>>,
}

impl Operator {
    /// Prepares its rights and arguments; does not start it.
    pub(crate) async fn new(plane: &Plane, namespace: &str, graph: &str, flags: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let account = format!("serviceaccount/{namespace}-vpptoken-operator");
        let name = account.trim_start_matches("serviceaccount/");
        let token = plane.kubectl(&["create", "token", name, "-n", namespace, "--duration=1h"]).await;
        assert!(token.ok, "{}", token.stderr);
        let admin = std::fs::read_to_string(plane.kubeconfig()).unwrap();
        let mut kubeconfig: Value = serde_json::from_str(&admin).unwrap();
        for user in kubeconfig["users"].as_array_mut().unwrap() {
            user["user"] = json!({ "token": token.stdout.trim() });
        }
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let mut arguments: Vec<String> = [
            "run",
            "--namespace",
            namespace,
            "--listen",
            "127.0.0.1:0",
            "--graph-endpoint",
            graph,
            "--login-endpoint",
            graph,
            "--log-format",
            "json",
        ]
        .map(str::to_owned)
        .to_vec();
        if !flags.iter().any(|flag| flag == "--log") {
            arguments.extend(["--log", "info,vpptoken_operator=debug"].map(str::to_owned));
        }
        arguments.extend_from_slice(flags);
        Self { arguments, folder, child: Mutex::new(None) }
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(&self) {
        let starts = self.log().matches("vpptoken-operator starts").count();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let child = command()
            .args(&self.arguments)
            .env_clear()
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child() = Some(child);
        // The log is kept over restarts: the address is that of the newest one.
        let ready = until(LIMIT, || async {
            self.log().matches("vpptoken-operator starts").count() > starts
                && self.get("/readyz").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
        assert!(ready, "the operator never became ready\n{}", self.log_end());
    }

    /// Kills it with SIGKILL, and waits for its end.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it and starts it again.
    pub(crate) async fn restart(&self) {
        self.kill();
        self.start().await;
    }

    /// Stops it with SIGTERM, as Kubernetes does.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Pauses it with SIGSTOP, until it is resumed.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub(crate) async fn wait_end(&self) -> Option<i32> {
        let ended = until(LIMIT, || async { !self.is_running() }).await;
        assert!(ended, "the operator never ended\n{}", self.log_end());
        self.child().take().unwrap().wait().unwrap().code()
    }

    /// The id of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child().as_ref().unwrap().id()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Everything that it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of its log, for a failed test.
    pub(crate) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Its metrics, if it runs.
    pub(crate) async fn metrics(&self) -> String {
        self.get("/metrics").await.map(|(_, body)| body).unwrap_or_default()
    }

    /// A request to its health server, whose address is in the log.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let log = self.log();
        let health = log.rsplit_once("\"health\":\"")?.1.split('"').next()?.to_owned();
        let url = format!("{}{path}", health.strip_suffix("/healthz")?);
        let response = reqwest::get(url).await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("operator.log")
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}
