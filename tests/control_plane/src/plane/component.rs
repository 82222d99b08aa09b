//! One child process with a log file. Starts, signals and reaps it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::POLL;
use crate::{Error, Result};

/// How much of a log an error quotes.
const QUOTED_LINES: usize = 15;

/// A running component; killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Component {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Starts a program in `folder`, with its output appended to `NAME.log` there.
    ///
    /// It gets an environment of its own (etcd takes flags from variables), and a process group of its own, so that
    /// Ctrl-C reaches only its parent process, which then ends it in order.
    pub(super) fn spawn(name: &'static str, program: &Path, arguments: &[String], folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::io(format!("can't write {}", log.display())))?;
        let errors = output.try_clone().map_err(Error::io(format!("can't write {}", log.display())))?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("can't start {}", program.display())))?;
        Ok(Self { name, child, log })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub(super) fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait().map_err(Error::io(format!("can't wait for {}", self.name)))? {
            None => Ok(()),
            Some(status) => {
                Err(Error::Ended { name: self.name, status, log: self.log.clone(), last_lines: self.last_lines() })
            }
        }
    }

    pub(super) fn not_ready(&self, limit: Duration, reason: String) -> Error {
        Error::NotReady { name: self.name, limit, reason, log: self.log.clone(), last_lines: self.last_lines() }
    }

    /// SIGTERM. Not reaped yet, so the id is still its own.
    pub(super) fn ask_to_end(&self) {
        // One that has ended already needs no signal.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }

    /// SIGTERM, then SIGKILL after `limit`; reaped when this returns.
    pub(super) async fn stop(&mut self, limit: Duration) -> Result<()> {
        let failed = || Error::io(format!("can't stop {}", self.name));
        let began = Instant::now();
        if self.child.try_wait().map_err(failed())?.is_some() {
            return Ok(());
        }
        self.ask_to_end();
        while self.child.try_wait().map_err(failed())?.is_none() {
            if began.elapsed() > limit {
                self.child.kill().map_err(failed())?;
                self.child.wait().map_err(failed())?;
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        // Does nothing to a child that was reaped; a killed one ends at once, so this does not block for long.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
