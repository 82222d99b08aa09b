//! The tools built from Go modules. Runs `go` in a scratch folder with only the committed `go.mod`, `go.sum` and, for
//! kstatus, `main.go`, and moves each finished binary into the cache in one step.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::Path,
    process::Stdio,
};

use super::{
    KSTATUS,
    choose::Program,
    pins::{self, Pins},
};
use crate::Progress;

/// Where builds happen and where their binaries go. All on one file system, so that a binary appears whole.
#[derive(Clone, Copy)]
pub(super) struct Folders<'a> {
    pub(super) kubernetes: &'a Path,
    pub(super) helm: &'a Path,
    pub(super) scratch: &'a Path,
}

/// One `go build`.
struct Job<'a> {
    what: String,
    expected: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// Source files of our own, with their names.
    sources: Vec<(&'static str, &'static str)>,
    ldflags: String,
    /// Package and the name that its binary shall have.
    packages: Vec<(&'static str, &'static str)>,
    into: &'a Path,
}

/// Builds what is missing; a failure has its reason. The caller has the cache's lock.
pub(super) async fn build(
    go: &OsStr,
    pins: &Pins,
    missing: &[Program],
    folders: Folders<'_>,
    progress: &Progress,
) -> Result<(), String> {
    build_all(go, &jobs(pins, missing, folders), folders.scratch, progress).await
}

/// Builds kstatus into a folder; a failure has its reason. The caller has the cache's lock.
pub(super) async fn build_kstatus(
    go: &OsStr,
    pins: &Pins,
    into: &Path,
    scratch: &Path,
    progress: &Progress,
) -> Result<(), String> {
    build_all(go, &[kstatus_job(pins, into)], scratch, progress).await
}

async fn build_all(go: &OsStr, jobs: &[Job<'_>], scratch: &Path, progress: &Progress) -> Result<(), String> {
    let has = tokio::process::Command::new(go).arg("version").stdin(Stdio::null()).output().await;
    let has = has.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no `{}` on PATH", go.display()),
        _ => format!("`{} version`: {error}", go.display()),
    })?;
    if !has.status.success() {
        return Err(format!("`{} version` fails: {}", go.display(), last_lines(&has.stderr)));
    }
    remove_leftovers(scratch);
    // One after the other: both would compile the same standard library, and each alone keeps all cores busy.
    for job in jobs {
        progress.line(format!("building {} from Go modules ({})", job.what, job.expected));
        let what = format!("building {}", job.what);
        progress.during(&what, run(go, job, scratch)).await.map_err(|why| format!("{what}: {why}"))?;
    }
    Ok(())
}

fn jobs<'a>(pins: &Pins, missing: &[Program], folders: Folders<'a>) -> Vec<Job<'a>> {
    let of_kubernetes: Vec<_> = missing
        .iter()
        .filter_map(|program| {
            let package = match program {
                Program::Etcd => "go.etcd.io/etcd/server/v3",
                Program::ApiServer => "k8s.io/kubernetes/cmd/kube-apiserver",
                Program::ControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
                Program::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
                Program::Helm => return None,
            };
            Some((package, program.file_name()))
        })
        .collect();
    let mut jobs = Vec::new();
    if !of_kubernetes.is_empty() {
        let names: Vec<_> = of_kubernetes.iter().map(|(_, name)| *name).collect();
        let stamps: Vec<_> = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
            .iter()
            .flat_map(|package| {
                let version = pins.kubernetes;
                [
                    format!("-X {package}.gitVersion={version}"),
                    format!("-X {package}.gitMajor={}", version.major),
                    format!("-X {package}.gitMinor={}", version.minor),
                    format!("-X {package}.gitTreeState=clean"),
                ]
            })
            .collect();
        jobs.push(Job {
            what: format!("{} ({})", names.join(", "), pins.kubernetes),
            expected: "about 5 minutes on two cores, done once",
            go_mod: pins::KUBERNETES_GO_MOD,
            go_sum: pins::KUBERNETES_GO_SUM,
            sources: Vec::new(),
            ldflags: format!("-s -w {}", stamps.join(" ")),
            packages: of_kubernetes,
            into: folders.kubernetes,
        });
    }
    if missing.contains(&Program::Helm) {
        let cluster = pins.helm_kubernetes;
        let stamps: Vec<_> = ["helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"]
            .iter()
            .map(|package| {
                format!("-X {package}.k8sVersionMajor={} -X {package}.k8sVersionMinor={}", cluster.major, cluster.minor)
            })
            .collect();
        jobs.push(Job {
            what: format!("helm ({})", pins.helm),
            expected: "about 70 seconds on two cores, done once",
            go_mod: pins::HELM_GO_MOD,
            go_sum: pins::HELM_GO_SUM,
            sources: Vec::new(),
            ldflags: format!(
                "-s -w -X helm.sh/helm/v3/internal/version.version={} -X \
                 helm.sh/helm/v3/internal/version.gitTreeState=clean {}",
                pins.helm,
                stamps.join(" ")
            ),
            packages: vec![("helm.sh/helm/v3/cmd/helm", Program::Helm.file_name())],
            into: folders.helm,
        });
    }
    jobs
}

fn kstatus_job<'a>(pins: &Pins, into: &'a Path) -> Job<'a> {
    Job {
        what: format!("{KSTATUS} ({})", pins.kstatus),
        expected: "about 30 seconds on two cores, done once",
        go_mod: pins::KSTATUS_GO_MOD,
        go_sum: pins::KSTATUS_GO_SUM,
        sources: vec![("main.go", pins::KSTATUS_MAIN)],
        ldflags: "-s -w".into(),
        // The module is called as the program.
        packages: vec![(KSTATUS, KSTATUS)],
        into,
    }
}

const SCRATCH_PREFIX: &str = ".build-";

/// Scratch folders of builds that were killed; with the lock, none is running.
fn remove_leftovers(scratch: &Path) {
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(SCRATCH_PREFIX.as_bytes()) {
            // A folder that can't be removed only costs space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

async fn run(go: &OsStr, job: &Job<'_>, scratch: &Path) -> Result<(), String> {
    let io = |error: io::Error| format!("in the cache folder: {error}");
    let module = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(scratch).map_err(io)?;
    let out = module.path().join("out");
    fs::create_dir(&out).map_err(io)?;
    fs::write(module.path().join("go.mod"), job.go_mod).map_err(io)?;
    fs::write(module.path().join("go.sum"), job.go_sum).map_err(io)?;
    for (name, text) in &job.sources {
        fs::write(module.path().join(name), text).map_err(io)?;
    }

    let mut out_argument = OsString::from(&out);
    out_argument.push("/"); // a folder even for a single package
    let built = tokio::process::Command::new(go)
        .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", &job.ldflags, "-o"])
        .arg(&out_argument)
        .args(job.packages.iter().map(|(package, _)| package))
        .current_dir(module.path())
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("can't run `go build`: {error}"))?;
    if !built.status.success() {
        return Err(format!("`go build` fails ({}):\n{}", built.status, last_lines(&built.stderr)));
    }
    fs::create_dir_all(job.into).map_err(io)?;
    for (package, name) in &job.packages {
        fs::rename(out.join(go_names(package)), job.into.join(name)).map_err(io)?;
    }
    Ok(())
}

/// What `go build` calls a package's binary: the last part of its path that is no major version.
fn go_names(package: &str) -> &str {
    let is_major = |part: &&str| part.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    package.rsplit('/').find(|part| !is_major(part)).unwrap_or(package)
}

fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("go: downloading")).collect();
    lines[lines.len().saturating_sub(12)..]
        .iter()
        .map(|line| format!("     {line}\n"))
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_called_as_go_calls_it() {
        assert_eq!(go_names("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(go_names("k8s.io/kubernetes/cmd/kubectl"), "kubectl");
        assert_eq!(go_names("helm.sh/helm/v3/cmd/helm"), "helm");
        assert_eq!(go_names(KSTATUS), "kstatus");
    }

    #[test]
    fn only_what_is_missing_is_built() {
        let pins = Pins::committed().unwrap();
        let here = Path::new(".");
        let folders = Folders { kubernetes: here, helm: here, scratch: here };
        let packages = |missing: &[Program]| -> Vec<Vec<&str>> {
            jobs(&pins, missing, folders)
                .iter()
                .map(|job| job.packages.iter().map(|(_, name)| *name).collect())
                .collect()
        };
        assert_eq!(
            packages(&[Program::ControllerManager, Program::Helm]),
            [vec!["kube-controller-manager"], vec!["helm"]]
        );
        assert_eq!(packages(&[Program::Helm]), [["helm"]]);
        assert_eq!(packages(&[Program::Etcd, Program::Kubectl]), [["etcd", "kubectl"]]);
        assert!(packages(&[]).is_empty());
    }
}
