//! The committed versions and digests, read from the files that the build itself uses, so that each is named once.
//! Pure: the files are part of the program.

use sha2::{Digest as _, Sha256};

use super::version::Version;
use crate::{Error, Result};

/// `go.mod` for etcd and Kubernetes.
pub(super) const KUBERNETES_GO_MOD: &str = include_str!("../../go.mod");
/// Its `go.sum`.
pub(super) const KUBERNETES_GO_SUM: &str = include_str!("../../go.sum");
/// `go.mod` for helm, which wants other versions of the same dependencies.
pub(super) const HELM_GO_MOD: &str = include_str!("../../helm/go.mod");
/// Its `go.sum`.
pub(super) const HELM_GO_SUM: &str = include_str!("../../helm/go.sum");
/// `go.mod` for kstatus, which asks for libraries of another Kubernetes version.
pub(super) const KSTATUS_GO_MOD: &str = include_str!("../../../kstatus/go.mod");
/// Its `go.sum`.
pub(super) const KSTATUS_GO_SUM: &str = include_str!("../../../kstatus/go.sum");
/// The program around it.
pub(super) const KSTATUS_MAIN: &str = include_str!("../../../kstatus/main.go");
/// Digests of the official archives, as `sha512sum` prints them.
const ENVTEST_DIGESTS: &str = include_str!("../../envtest.sha512");

const RELEASES: &str = "https://github.com/kubernetes-sigs/controller-tools/releases/download";

/// The official archive for this platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) version: Version,
    pub(super) file_name: String,
    pub(super) sha512: String,
}

impl Archive {
    /// Where it is published; `base` replaces the official folder.
    pub(super) fn url(&self, base: Option<&str>) -> String {
        match base {
            Some(base) => format!("{}/{}", base.trim_end_matches('/'), self.file_name),
            None => format!("{RELEASES}/envtest-{}/{}", self.version, self.file_name),
        }
    }
}

/// The versions that are built, and the archive that may replace a part of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pins {
    pub(super) kubernetes: Version,
    pub(super) etcd: Version,
    pub(super) helm: Version,
    /// The Kubernetes version that helm assumes when it can't ask a cluster.
    pub(super) helm_kubernetes: Version,
    /// The version of the library that the program kstatus is made of.
    pub(super) kstatus: Version,
    /// Of the whole source of the program, which its version alone does not identify.
    pub(super) kstatus_digest: String,
    /// `None` where none is published for this platform.
    pub(super) archive: Option<Archive>,
    /// `OS-ARCH` as Go writes it.
    pub(super) platform: String,
}

impl Pins {
    pub(super) fn committed() -> Result<Self> {
        let platform = platform();
        let client_go = go_mod_version(HELM_GO_MOD, "helm/go.mod", "k8s.io/client-go")?;
        Ok(Self {
            kubernetes: go_mod_version(KUBERNETES_GO_MOD, "go.mod", "k8s.io/kubernetes")?,
            etcd: go_mod_version(KUBERNETES_GO_MOD, "go.mod", "go.etcd.io/etcd/server/v3")?,
            helm: go_mod_version(HELM_GO_MOD, "helm/go.mod", "helm.sh/helm/v3")?,
            helm_kubernetes: Version { major: 1, ..client_go },
            kstatus: go_mod_version(KSTATUS_GO_MOD, "../kstatus/go.mod", "sigs.k8s.io/cli-utils")?,
            kstatus_digest: short_digest(&[KSTATUS_GO_MOD, KSTATUS_GO_SUM, KSTATUS_MAIN]),
            archive: archive_for(ENVTEST_DIGESTS, &platform)?,
            platform,
        })
    }
}

/// The Go version that the builds need at least.
pub(crate) fn go_version() -> &'static str {
    KUBERNETES_GO_MOD.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1.26")
}

/// The beginning of a SHA-256 of some texts, in hexadecimal.
fn short_digest(texts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.len().to_be_bytes());
        digest.update(text);
    }
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn platform() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{os}-{arch}")
}

/// The version that a `go.mod` requires of a module.
fn go_mod_version(go_mod: &str, file: &'static str, module: &str) -> Result<Version> {
    go_mod
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("require").unwrap_or(line).split_whitespace();
            (words.next() == Some(module)).then(|| words.next())?
        })
        .find_map(|word| word.parse().ok())
        .ok_or_else(|| Error::Pin { file, problem: format!("requires no version of {module}") })
}

/// The line of `envtest.sha512` for a platform.
fn archive_for(digests: &str, platform: &str) -> Result<Option<Archive>> {
    for line in digests.lines().filter(|line| !line.trim().is_empty()) {
        let bad = || Error::Pin {
            file: "envtest.sha512",
            problem: format!("`{line}` is not `DIGEST  envtest-vX.Y.Z-OS-ARCH.tar.gz`"),
        };
        let (sha512, file_name) = line.split_once("  ").ok_or_else(bad)?;
        let (version, of_platform) = file_name
            .strip_prefix("envtest-")
            .and_then(|rest| rest.strip_suffix(".tar.gz"))
            .and_then(|rest| rest.split_once('-'))
            .ok_or_else(bad)?;
        if sha512.len() != 128 || !sha512.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        if of_platform == platform {
            let version = version.parse().map_err(|_| bad())?;
            return Ok(Some(Archive { version, file_name: file_name.to_owned(), sha512: sha512.to_lowercase() }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_name_every_version_and_they_go_together() {
        let pins = Pins::committed().unwrap();
        assert!(pins.helm.suits_chart());
        for platform in ["linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"] {
            let archive = archive_for(ENVTEST_DIGESTS, platform).unwrap().unwrap();
            assert!(
                pins.kubernetes.may_manage(archive.version),
                "the archive has no controller manager: the built one must be able to work with its API server"
            );
            let url = archive.url(None);
            assert!(url.starts_with(RELEASES) && url.ends_with(&format!("-{platform}.tar.gz")), "{url}");
        }
    }

    #[test]
    fn another_source_has_another_digest() {
        let digest = short_digest(&["go.mod", "go.sum"]);
        assert_eq!(digest.len(), 12);
        assert_eq!(digest, short_digest(&["go.mod", "go.sum"]));
        for other in [&["go.mod", "go.sun"], &["go.mo", "dgo.sum"]] {
            assert_ne!(digest, short_digest(other));
        }
    }

    #[test]
    fn a_platform_without_a_published_archive_has_none() {
        assert_eq!(archive_for(ENVTEST_DIGESTS, "plan9-mips").unwrap(), None);
    }

    #[test]
    fn a_broken_digest_line_is_refused() {
        let good = "a".repeat(128);
        for line in [
            format!("{good} envtest-v1.2.3-linux-amd64.tar.gz"),
            format!("{good}  something.zip"),
            "abc  envtest-v1.2.3-linux-amd64.tar.gz".into(),
        ] {
            assert!(archive_for(&line, "linux-amd64").is_err(), "{line}");
        }
    }

    #[test]
    fn another_base_takes_the_place_of_the_official_folder() {
        let archive = archive_for(ENVTEST_DIGESTS, "linux-amd64").unwrap().unwrap();
        assert_eq!(archive.url(Some("http://127.0.0.1:1/x/")), format!("http://127.0.0.1:1/x/{}", archive.file_name));
    }
}
