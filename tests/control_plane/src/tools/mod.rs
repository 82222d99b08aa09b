//! The binaries: found, downloaded or built. Reads `PATH` and the `KUBEBUILDER_ASSETS` folder, writes to the user's
//! cache folder, and runs `go` and the tools' own `--version`.

mod archive;
mod build;
mod choose;
mod pins;
mod version;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use choose::Source;
use choose::{Choice, Program, Stock, Survey};
use pins::Pins;
pub(crate) use pins::go_version;
pub use version::Version;

use crate::{Attempts, Error, Progress, Result};

/// Names the tools to a child process, so that [`ensure`] there finds them at once and prints nothing.
pub const HANDED_DOWN: &str = "CONTROL_PLANE_TOOLS";

/// Replaces the official folder that the envtest archive is downloaded from.
pub const ENVTEST_BASE_URL: &str = "ENVTEST_BASE_URL";

/// Names kstatus to a child process, so that [`kstatus`] there finds it at once and prints nothing.
pub const KSTATUS_HANDED_DOWN: &str = "CONTROL_PLANE_KSTATUS";

/// The program around kstatus, as its module and its binary are called.
const KSTATUS: &str = "kstatus";

/// One binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// The version that it prints.
    pub version: Version,
    /// Where it came from.
    pub source: Source,
}

/// Every binary that a control plane and its users need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// The API server's store.
    pub etcd: Tool,
    /// The API server.
    pub kube_apiserver: Tool,
    /// Namespaces, ServiceAccounts, garbage collection.
    pub kube_controller_manager: Tool,
    /// Within one minor version of the API server.
    pub kubectl: Tool,
    /// 3.14 or later.
    pub helm: Tool,
}

impl Tools {
    /// Each binary with its usual name.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &Tool); 5] {
        [
            (Program::Etcd.file_name(), &self.etcd),
            (Program::ApiServer.file_name(), &self.kube_apiserver),
            (Program::ControllerManager.file_name(), &self.kube_controller_manager),
            (Program::Kubectl.file_name(), &self.kubectl),
            (Program::Helm.file_name(), &self.helm),
        ]
    }

    /// `PATH` for a child process: the folders of kubectl and helm, where they are not on it already, before the rest.
    #[must_use]
    pub fn path_variable(&self) -> OsString {
        let mut folders: Vec<PathBuf> = Vec::new();
        for tool in [&self.kubectl, &self.helm] {
            if let Some(folder) = tool.path.parent()
                && tool.source != Source::Path
                && !folders.iter().any(|known| known == folder)
            {
                folders.push(folder.to_owned());
            }
        }
        let rest = env::var_os("PATH").unwrap_or_default();
        // A folder whose name contains the separator can't be on PATH; the child then gets PATH as it was.
        env::join_paths(folders.into_iter().chain(env::split_paths(&rest))).unwrap_or(rest)
    }

    /// The value of [`HANDED_DOWN`] for a child process.
    #[must_use]
    pub fn to_hand_down(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn all_there(&self) -> bool {
        self.all().iter().all(|(_, tool)| is_executable(&tool.path))
    }
}

/// Finds the tools, and downloads or builds what is missing.
///
/// For the control plane the first of these wins: the folder `KUBEBUILDER_ASSETS`, the user's cache folder, the
/// official envtest archive (checked against a committed digest), a build from Go modules. A controller manager that
/// the winner lacks comes from the later ones. kubectl and helm may also be on `PATH`, where their versions suit.
///
/// Two invocations at once do not both download or build: the second waits for the first.
///
/// # Errors
/// [`Error::Unavailable`] where none of the ways works, [`Error::Digest`] where the archive is not the expected one.
pub async fn ensure(progress: &Progress) -> Result<Tools> {
    if let Some(text) = env::var_os(HANDED_DOWN) {
        let tools: Tools = text
            .to_str()
            .ok_or_else(|| "not UTF-8".to_owned())
            .and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()))
            .map_err(|problem| Error::HandedDown { problem })?;
        if tools.all_there() {
            return Ok(tools);
        }
        progress.line(format!("some tools that {HANDED_DOWN} names are missing; searching again"));
    }
    Setting::of_this_process()?.ensure(progress).await
}

/// Finds the program that judges objects as kubectl's and GitOps tools' own library does, and builds it from Go modules
/// where the cache lacks it. No control plane needs it, only a test.
///
/// # Errors
/// [`Error::NoKstatus`] where it can't be built.
pub async fn kstatus(progress: &Progress) -> Result<Tool> {
    let setting = Setting::of_this_process()?;
    if let Some(path) = env::var_os(KSTATUS_HANDED_DOWN).map(PathBuf::from) {
        if is_executable(&path) {
            return Ok(setting.kstatus_at(path));
        }
        progress.line(format!("the kstatus that {KSTATUS_HANDED_DOWN} names is missing; searching again"));
    }
    setting.kstatus(progress).await
}

/// The same program where the cache has it; nothing is built.
#[must_use]
pub fn cached_kstatus() -> Option<Tool> {
    Setting::of_this_process().ok()?.cached_kstatus()
}

/// Where to search. A value, so that tests can use other places.
struct Setting {
    pins: Pins,
    assets: Option<PathBuf>,
    path: Option<OsString>,
    cache: PathBuf,
    archive_base: Option<String>,
    go: OsString,
}

impl Setting {
    fn of_this_process() -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        Ok(Self {
            pins: Pins::committed()?,
            assets: set("KUBEBUILDER_ASSETS").map(PathBuf::from),
            path: set("PATH"),
            cache: user_cache(set)?.join("vpptoken-operator").join("control-plane"),
            archive_base: set(ENVTEST_BASE_URL).and_then(|base| base.into_string().ok()),
            go: "go".into(),
        })
    }

    fn built_kubernetes(&self) -> PathBuf {
        let Pins { kubernetes, etcd, platform, .. } = &self.pins;
        self.cache.join(format!("kubernetes-{kubernetes}-etcd-{etcd}-{platform}"))
    }

    fn built_helm(&self) -> PathBuf {
        let Pins { helm, platform, .. } = &self.pins;
        self.cache.join(format!("helm-{helm}-{platform}"))
    }

    fn unpacked_archive(&self) -> Option<PathBuf> {
        let Pins { archive, platform, .. } = &self.pins;
        archive.as_ref().map(|archive| self.cache.join(format!("envtest-{}-{platform}", archive.version)))
    }

    fn built_kstatus(&self) -> PathBuf {
        let Pins { kstatus, kstatus_digest, platform, .. } = &self.pins;
        self.cache.join(format!("kstatus-{kstatus}-{kstatus_digest}-{platform}"))
    }

    fn kstatus_at(&self, path: PathBuf) -> Tool {
        Tool { path, version: self.pins.kstatus, source: Source::Build }
    }

    fn cached_kstatus(&self) -> Option<Tool> {
        let path = self.built_kstatus().join(KSTATUS);
        is_executable(&path).then(|| self.kstatus_at(path))
    }

    async fn kstatus(&self, progress: &Progress) -> Result<Tool> {
        if let Some(tool) = self.cached_kstatus() {
            return Ok(tool);
        }
        let _lock = self.lock(progress).await?;
        if let Some(tool) = self.cached_kstatus() {
            return Ok(tool); // another invocation built it meanwhile
        }
        build::build_kstatus(&self.go, &self.pins, &self.built_kstatus(), &self.cache, progress)
            .await
            .map_err(|why| Error::NoKstatus { why })?;
        self.cached_kstatus().ok_or_else(|| Error::NoKstatus { why: "the build made none".into() })
    }

    async fn ensure(&self, progress: &Progress) -> Result<Tools> {
        let outside = self.survey_outside().await;
        let survey = self.survey_cache(outside.clone()).await;
        if let Some(tools) = self.tools(&survey) {
            return Ok(tools);
        }

        let _lock = self.lock(progress).await?;
        let mut survey = self.survey_cache(outside.clone()).await; // another invocation may have filled the cache meanwhile
        let mut missing = survey.choose(self.pins.kubernetes).missing();
        let mut attempts = self.attempts_so_far(&survey, &missing);

        if missing.contains(&Program::ApiServer) {
            match self.fetch_archive(progress).await? {
                Ok(()) => attempts.archive = "it holds etcd, kube-apiserver and kubectl, and they are used".into(),
                Err(reason) => {
                    progress.line(format!(
                        "the official archive can't be had ({reason}); building from Go modules instead"
                    ));
                    attempts.archive = reason;
                }
            }
            survey = self.survey_cache(outside.clone()).await;
            missing = survey.choose(self.pins.kubernetes).missing();
        }

        if !missing.is_empty() {
            let folders =
                build::Folders { kubernetes: &self.built_kubernetes(), helm: &self.built_helm(), scratch: &self.cache };
            if let Err(reason) = build::build(&self.go, &self.pins, &missing, folders, progress).await {
                attempts.build = reason;
            }
            survey = self.survey_cache(outside).await;
        }

        self.tools(&survey).ok_or_else(|| {
            attempts.missing =
                survey.choose(self.pins.kubernetes).missing().into_iter().map(Program::file_name).collect();
            Error::Unavailable(Box::new(attempts))
        })
    }

    /// `Ok(Err(reason))` where the archive is not available but the build may still help.
    async fn fetch_archive(&self, progress: &Progress) -> Result<Result<(), String>> {
        let (Some(archive), Some(folder)) = (&self.pins.archive, self.unpacked_archive()) else {
            return Ok(Err(format!("none is published for {}", self.pins.platform)));
        };
        let url = archive.url(self.archive_base.as_deref());
        match archive::fetch(&url, &archive.sha512, &folder, progress).await {
            Ok(()) => Ok(Ok(())),
            Err(archive::Failure::NotHad(reason)) => Ok(Err(format!("{url}: {reason}"))),
            Err(archive::Failure::WrongDigest { actual }) => {
                Err(Error::Digest { url, expected: archive.sha512.clone(), actual })
            }
        }
    }

    fn attempts_so_far(&self, survey: &Survey, missing: &[Program]) -> Attempts {
        let looked_at_path = missing.iter().any(|program| matches!(program, Program::Kubectl | Program::Helm));
        let on_path: Vec<_> =
            survey.path.iter().map(|(program, version)| format!("{} is {version}", program.file_name())).collect();
        Attempts {
            missing: Vec::new(),
            path: looked_at_path.then(|| match on_path.as_slice() {
                [] => "has neither kubectl nor helm".to_owned(),
                found => format!(
                    "{}; wanted are kubectl within one minor version of the API server ({}) and helm 3.14 or later",
                    found.join(", "),
                    self.pins.kubernetes
                ),
            }),
            assets: match &self.assets {
                None => "not set".into(),
                Some(folder) => format!(
                    "{}: {}",
                    folder.display(),
                    survey.against_assets(self.pins.kubernetes).unwrap_or_else(|| "lacks what is missing".into())
                ),
            },
            cache: format!("{} does not hold what is missing", self.cache.display()),
            archive: "not downloaded: etcd and kube-apiserver are there, and it does not hold what is missing".into(),
            build: "not needed".into(),
        }
    }

    /// `PATH` and `KUBEBUILDER_ASSETS`: these binaries are asked for their versions.
    async fn survey_outside(&self) -> Survey {
        let mut survey = Survey::default();
        for program in [Program::Kubectl, Program::Helm] {
            if let Some(file) = self.on_path(program)
                && let Some(version) = ask_version(program, &file).await
            {
                survey.path.insert(program, version);
            }
        }
        if let Some(folder) = &self.assets {
            survey.assets =
                stock_of(folder, &[Program::Etcd, Program::ApiServer, Program::ControllerManager, Program::Kubectl])
                    .await;
        }
        survey
    }

    /// The cache: a build's version is its folder's; an archive's version is that of its etcd.
    async fn survey_cache(&self, outside: Survey) -> Survey {
        let mut survey = outside;
        let built = self.built_kubernetes();
        for (program, folder, version) in [
            (Program::Etcd, &built, self.pins.etcd),
            (Program::ApiServer, &built, self.pins.kubernetes),
            (Program::ControllerManager, &built, self.pins.kubernetes),
            (Program::Kubectl, &built, self.pins.kubernetes),
            (Program::Helm, &self.built_helm(), self.pins.helm),
        ] {
            if is_executable(&folder.join(program.file_name())) {
                survey.built.insert(program, version);
            }
        }
        if let Some(folder) = self.unpacked_archive() {
            survey.archived = stock_of(&folder, &[Program::Etcd, Program::ApiServer, Program::Kubectl]).await;
        }
        survey
    }

    fn on_path(&self, program: Program) -> Option<PathBuf> {
        env::split_paths(self.path.as_deref()?)
            .map(|folder| folder.join(program.file_name()))
            .find(|file| is_executable(file))
    }

    fn file(&self, source: Source, program: Program) -> Option<PathBuf> {
        let folder = match source {
            Source::Path => return self.on_path(program),
            Source::Assets => self.assets.clone()?,
            Source::Archive => self.unpacked_archive()?,
            Source::Build if program == Program::Helm => self.built_helm(),
            Source::Build => self.built_kubernetes(),
        };
        Some(folder.join(program.file_name()))
    }

    /// All tools, if none is missing.
    fn tools(&self, survey: &Survey) -> Option<Tools> {
        let Choice { servers, controller_manager, kubectl, helm } = survey.choose(self.pins.kubernetes);
        let tool = |program, source: Option<Source>| {
            let source = source?;
            let version = *survey.stock(source).get(&program)?;
            Some(Tool { path: self.file(source, program)?, version, source })
        };
        Some(Tools {
            etcd: tool(Program::Etcd, servers)?,
            kube_apiserver: tool(Program::ApiServer, servers)?,
            kube_controller_manager: tool(Program::ControllerManager, controller_manager)?,
            kubectl: tool(Program::Kubectl, kubectl)?,
            helm: tool(Program::Helm, helm)?,
        })
    }

    /// Held until dropped; the system releases it when a process ends, however it ends.
    async fn lock(&self, progress: &Progress) -> Result<File> {
        fs::create_dir_all(&self.cache).map_err(Error::io(format!("can't make {}", self.cache.display())))?;
        let path = self.cache.join(".lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(format!("can't open {}", path.display())))?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => {
                return Err(Error::io(format!("can't lock {}", path.display()))(source));
            }
        }
        progress.line("another invocation is getting the tools; waiting for it");
        progress
            .during("waiting for the other invocation", async {
                loop {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    match lock.try_lock() {
                        Ok(()) => return Ok(()),
                        Err(TryLockError::WouldBlock) => {}
                        Err(TryLockError::Error(source)) => {
                            return Err(Error::io(format!("can't lock {}", path.display()))(source));
                        }
                    }
                }
            })
            .await?;
        Ok(lock)
    }
}

fn user_cache(set: impl Fn(&'static str) -> Option<OsString>) -> Result<PathBuf> {
    if let Some(folder) = set("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute()) {
        return Ok(folder);
    }
    let home = set("HOME").map(PathBuf::from).ok_or_else(|| {
        Error::io("can't find the user's cache folder: set HOME or XDG_CACHE_HOME")(std::io::ErrorKind::NotFound.into())
    })?;
    Ok(if cfg!(target_os = "macos") { home.join("Library").join("Caches") } else { home.join(".cache") })
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

async fn stock_of(folder: &Path, programs: &[Program]) -> Stock {
    let mut stock = Stock::new();
    for program in programs {
        let file = folder.join(program.file_name());
        if is_executable(&file)
            && let Some(version) = ask_version(*program, &file).await
        {
            stock.insert(*program, version);
        }
    }
    stock
}

/// The version that a binary prints; `None` where it can't be run or prints no version.
async fn ask_version(program: Program, file: &Path) -> Option<Version> {
    let arguments: &[&str] = match program {
        Program::Etcd | Program::ApiServer | Program::ControllerManager => &["--version"],
        Program::Kubectl => &["version", "--client"],
        Program::Helm => &["version", "--short"],
    };
    let asked = tokio::process::Command::new(file)
        .args(arguments)
        .env("KUBECONFIG", OsStr::new("/dev/null"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(10), asked).await.ok()?.ok()?;
    Version::find_in(&String::from_utf8_lossy(&output.stdout))
}

#[cfg(test)]
mod tests;
