//! A small shell process that outlives its parent by a moment: when the parent ends in whatever way, it kills the
//! components that still run and removes their folder.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{Error, Result};

/// Each line on standard input is the list of process ids to kill at the end of input.
const SCRIPT: &str = r#"
while IFS= read -r line; do ids=$line; done
if [ -n "$ids" ]; then kill -KILL $ids 2>/dev/null; sleep 0.2; fi
rm -rf -- "$1"
"#;

#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    line: Option<ChildStdin>,
}

impl Guard {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "control-plane-guard"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is for the parent
            .spawn()
            .map_err(Error::io("can't start sh"))?;
        let line = shell.stdin.take();
        Ok(Self { shell, line })
    }

    /// These processes are killed if the parent ends.
    pub(super) fn watch(&mut self, ids: impl IntoIterator<Item = u32>) {
        let mut text = ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
        text.push('\n');
        if let Some(line) = &mut self.line {
            // Someone may have killed the guard; the control plane then goes on without it.
            let _ = line.write_all(text.as_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.line = None;
        let _ = self.shell.wait();
    }
}
