//! What can go wrong, written so that the person at the terminal knows what to do next. Touches nothing.

use std::{fmt, path::PathBuf, process::ExitStatus, time::Duration};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the tools or the control plane are not available.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None of the four sources has these binaries.
    #[error("{0}")]
    Unavailable(Box<Attempts>),

    /// The program that judges objects could not be built.
    #[error(
        "no kstatus, with which a test judges objects. It is built from Go modules: {why}\n\
         What helps: install Go {go} or later and let it reach a Go module proxy, then run this again.",
        go = crate::tools::go_version()
    )]
    NoKstatus {
        /// Why not.
        why: String,
    },

    /// The archive is not the one whose digest is committed: it is not used, and no other source is tried.
    #[error(
        "{url} is not the archive that was expected: its SHA-512 is\n  {actual}\nbut envtest.sha512 says\n  {expected}\n\
         Nothing of it was unpacked. If the version was bumped, bump the digests too; otherwise do not trust that server."
    )]
    Digest {
        /// Where the archive came from.
        url: String,
        /// The committed digest.
        expected: String,
        /// The digest of what arrived.
        actual: String,
    },

    /// A committed pin (`go.mod`, `envtest.sha512`) lacks something.
    #[error("{file}: {problem}")]
    Pin {
        /// The file, as it is called in this crate's folder.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
    },

    /// The tools in the environment variable can't be read.
    #[error("{variable} is set but can't be read: {problem}; unset it to search for the tools again", variable = crate::tools::HANDED_DOWN)]
    HandedDown {
        /// What is wrong with it.
        problem: String,
    },

    /// A component ended although it should run.
    #[error("{name} ended ({status}) before it was ready; the last lines of its log ({log}):\n{last_lines}", log = log.display())]
    Ended {
        /// The component.
        name: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The end of that log.
        last_lines: String,
    },

    /// A component runs but did not become ready in time.
    #[error("{name} was not ready after {limit:?}: {reason}; the last lines of its log ({log}):\n{last_lines}", log = log.display())]
    NotReady {
        /// The component.
        name: &'static str,
        /// How long it was waited for.
        limit: Duration,
        /// What it answered last.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The end of that log.
        last_lines: String,
    },

    /// Certificates or keys could not be made.
    #[error("can't make certificates: {0}")]
    Certificates(#[from] rcgen::Error),

    /// An HTTP client could not be made.
    #[error("can't make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),

    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The refusal.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: an I/O error together with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }
}

/// What was tried for binaries that are missing, and why each of the four sources failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// The binaries that are missing.
    pub missing: Vec<&'static str>,
    /// Why the `KUBEBUILDER_ASSETS` folder did not help.
    pub assets: String,
    /// Why the cache did not help.
    pub cache: String,
    /// Why the official archive did not help.
    pub archive: String,
    /// Why building from Go modules did not help.
    pub build: String,
    /// Why `PATH` did not help, where it was searched (kubectl and helm only).
    pub path: Option<String>,
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no {} for the control plane. What was tried:", self.missing.join(", no "))?;
        if let Some(path) = &self.path {
            writeln!(f, "  0. PATH: {path}")?;
        }
        writeln!(f, "  1. the folder KUBEBUILDER_ASSETS: {}", self.assets)?;
        writeln!(f, "  2. the cache: {}", self.cache)?;
        writeln!(f, "  3. the official envtest archive: {}", self.archive)?;
        writeln!(f, "  4. a build from Go modules: {}", self.build)?;
        write!(
            f,
            "What helps: install Go {} or later and let it reach a Go module proxy, then run this again",
            crate::tools::go_version()
        )?;
        // helm is not searched in that folder, the servers not on PATH.
        let (on_path, in_folder): (Vec<&str>, Vec<&str>) = self.missing.iter().partition(|name| **name == "helm");
        if !in_folder.is_empty() {
            write!(f, "; or set KUBEBUILDER_ASSETS to a folder that holds {}", in_folder.join(", "))?;
        }
        if !on_path.is_empty() {
            write!(f, "{} put helm 3.14 or later on PATH", if in_folder.is_empty() { "; or" } else { " and" })?;
        }
        write!(f, ".")
    }
}
