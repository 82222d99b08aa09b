//! All sources of the tools, end to end: made-up binaries, a file server on loopback, and a made-up `go`.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use sha2::{Digest as _, Sha512};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpListener};

use super::{
    archive::{Failure, fetch},
    *,
};

/// Serves one body with one status for every request, until the test's runtime ends.
async fn file_server(status: &'static str, body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
        }
    });
    base
}

/// An address where nothing listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn sha512(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A binary that prints only its version.
fn says(text: &str) -> String {
    format!("#!/bin/sh\necho '{text}'\n")
}

fn archive_of(files: &[(&str, String)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn envtest() -> Vec<u8> {
    archive_of(&[
        ("controller-tools/envtest/etcd", says("etcd Version: 3.6.8")),
        ("controller-tools/envtest/README", "not wanted".into()),
        ("controller-tools/envtest/kube-apiserver", says("Kubernetes v1.36.2")),
        ("controller-tools/envtest/kubectl", says("Client Version: v1.36.2")),
    ])
}

fn executable(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).unwrap();
    let file = folder.join(name);
    // Written by a child, not by us: a file that this process holds open for writing while another test's thread forks
    // can't be executed until that fork has become something else.
    let mut sh = std::process::Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(&file)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    sh.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(sh.wait().unwrap().success());
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A place where no source has anything.
struct Place {
    folder: tempfile::TempDir,
    setting: Setting,
}

impl Place {
    async fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins {
            archive: Some(pins::Archive {
                version: "v1.36.2".parse().unwrap(),
                file_name: "envtest.tar.gz".into(),
                sha512: sha512(&envtest()),
            }),
            ..Pins::committed().unwrap()
        };
        let setting = Setting {
            pins,
            assets: None,
            path: None,
            cache: folder.path().join("cache"),
            archive_base: Some(nobody().await),
            go: folder.path().join("no-such-go").into(),
        };
        Self { folder, setting }
    }

    fn with_assets(mut self, binaries: &[(&str, &str)]) -> Self {
        let folder = self.folder.path().join("assets");
        for (name, version) in binaries {
            executable(&folder, name, &says(version));
        }
        self.setting.assets = Some(folder);
        self
    }

    async fn with_file_server(mut self, status: &'static str, body: Vec<u8>) -> Self {
        self.setting.archive_base = Some(file_server(status, body).await);
        self
    }

    /// A `go` that notes that it ran, takes its time, and makes a file per package in its output folder.
    fn with_go(mut self) -> Self {
        let script = format!(
            r#"#!/bin/sh
[ "$1" = version ] && exit 0
test -s go.mod && test -s go.sum || {{ echo "no module here" >&2; exit 1; }}
echo "$@" >>'{noted}'
sleep 0.3
while [ "$1" != -o ]; do shift; done
out=$2; shift 2
for package; do
  case $package in */v3) name=server;; *) name=${{package##*/}};; esac
  printf '#!/bin/sh\n' >"$out$name"; chmod 755 "$out$name"
done
"#,
            noted = self.folder.path().join("go-ran").display()
        );
        executable(self.folder.path(), "go", &script);
        self.setting.go = self.folder.path().join("go").into();
        self
    }

    fn with_failing_go(mut self) -> Self {
        executable(
            self.folder.path(),
            "go",
            "#!/bin/sh\n[ \"$1\" = version ] || { echo 'module lookup refused' >&2; exit 1; }\n",
        );
        self.setting.go = self.folder.path().join("go").into();
        self
    }

    fn builds(&self) -> Vec<String> {
        let noted = fs::read_to_string(self.folder.path().join("go-ran")).unwrap_or_default();
        noted.lines().map(str::to_owned).collect()
    }

    async fn ensure(&self) -> Result<Tools> {
        self.setting.ensure(&Progress::silent()).await
    }
}

fn sources(tools: &Tools) -> [Source; 5] {
    tools.all().map(|(_, tool)| tool.source)
}

#[tokio::test]
async fn an_archive_with_the_right_digest_is_unpacked() {
    let (body, folder) = (envtest(), tempfile::tempdir().unwrap());
    let base = file_server("200 OK", body.clone()).await;
    fetch(&base, &sha512(&body), folder.path(), &Progress::silent()).await.unwrap();
    assert_eq!(names(folder.path()), ["etcd", "kube-apiserver", "kubectl"]);
    assert!(is_executable(&folder.path().join("etcd")));
}

#[tokio::test]
async fn an_archive_with_a_wrong_digest_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let base = file_server("200 OK", envtest()).await;
    let failure = fetch(&base, &sha512(b"another"), folder.path(), &Progress::silent()).await.unwrap_err();
    assert_eq!(failure, Failure::WrongDigest { actual: sha512(&envtest()) });
    assert_eq!(names(folder.path()), [""; 0]);
}

#[tokio::test]
async fn an_archive_that_can_not_be_had_or_is_no_use_leaves_other_sources_their_turn() {
    let lacking = archive_of(&[("envtest/etcd", says("etcd Version: 3.6.8")), ("envtest/kubectl", says("v1.36.2"))]);
    let cases = [
        ("refused", nobody().await, sha512(&envtest()), "refused"),
        ("not there", file_server("404 Not Found", envtest()).await, sha512(&envtest()), "404"),
        ("incomplete", file_server("200 OK", lacking.clone()).await, sha512(&lacking), "no kube-apiserver"),
        ("not an archive", file_server("200 OK", b"hello".to_vec()).await, sha512(b"hello"), "unpacking"),
    ];
    for (name, base, digest, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        match fetch(&base, &digest, folder.path(), &Progress::silent()).await {
            Err(Failure::NotHad(reason)) => assert!(reason.contains(expected), "{name}: {reason}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn when_nothing_works_one_error_names_all_four_ways_and_what_to_do() {
    let text = Place::bare().await.ensure().await.unwrap_err().to_string();
    for part in [
        "no etcd, no kube-apiserver, no kube-controller-manager, no kubectl, no helm",
        "0. PATH: has neither kubectl nor helm",
        "1. the folder KUBEBUILDER_ASSETS: not set",
        "2. the cache: ",
        "3. the official envtest archive: http://127.0.0.1:",
        "refused",
        "4. a build from Go modules: there is no `",
        "install Go 1.26",
        "a folder that holds etcd, kube-apiserver, kube-controller-manager, kubectl and put helm 3.14 or later on PATH",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[tokio::test]
async fn the_error_names_only_what_is_missing_and_why_each_way_failed() {
    let place = Place::bare()
        .await
        .with_assets(&[("etcd", "etcd Version: 3.6.8"), ("kube-apiserver", "Kubernetes v1.33.0")])
        .with_file_server("503 Service Unavailable", Vec::new())
        .await
        .with_failing_go();
    let text = place.ensure().await.unwrap_err().to_string();
    for part in ["its kube-apiserver is v1.33.0, it holds no kube-controller-manager", "503", "module lookup refused"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[tokio::test]
async fn a_wrong_digest_ends_it_even_where_a_build_would_work() {
    let place = Place::bare().await.with_go().with_file_server("200 OK", b"something else".to_vec()).await;
    assert!(matches!(place.ensure().await, Err(Error::Digest { .. })));
    assert_eq!(place.builds(), [""; 0]);
}

#[tokio::test]
async fn the_archive_saves_building_what_it_holds() {
    use Source::{Archive, Build};
    let place = Place::bare().await.with_go().with_file_server("200 OK", envtest()).await;
    let tools = place.ensure().await.unwrap();
    assert_eq!(sources(&tools), [Archive, Archive, Build, Archive, Build]);
    assert_eq!(tools.kube_apiserver.version.to_string(), "v1.36.2");
    let builds = place.builds();
    assert_eq!(builds.len(), 2);
    assert!(builds[0].ends_with(" k8s.io/kubernetes/cmd/kube-controller-manager"), "{builds:?}");

    assert_eq!(place.ensure().await.unwrap(), tools, "the second time all is in the cache");
    assert_eq!(place.builds().len(), 2);
}

#[tokio::test]
async fn without_the_archive_all_is_built_once_and_nothing_else_is_left_in_the_cache() {
    let place = Place::bare().await.with_go();
    let tools = place.ensure().await.unwrap();
    assert_eq!(sources(&tools), [Source::Build; 5]);
    assert!(place.builds()[0].contains("gitVersion="), "{:?}", place.builds());
    let cache = names(&place.setting.cache);
    assert!(cache.iter().all(|name| !name.starts_with(".build-")), "{cache:?}");
    assert_eq!(place.ensure().await.unwrap(), tools);
    assert_eq!(place.builds().len(), 2);
}

#[tokio::test]
async fn two_invocations_at_once_build_once() {
    let place = Place::bare().await.with_go();
    let report = Arc::new(Mutex::new(Vec::new()));
    let hear = report.clone();
    let progress = Progress::to(move |line| hear.lock().unwrap().push(line.to_owned()));
    let (one, two) = tokio::join!(place.setting.ensure(&progress), place.setting.ensure(&progress));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(place.builds().len(), 2, "Kubernetes once, helm once");
    assert!(report.lock().unwrap().iter().any(|line| line.contains("another invocation")), "{report:?}");
}

#[tokio::test]
async fn kstatus_is_built_once_into_a_folder_that_is_named_after_its_source() {
    let place = Place::bare().await.with_go();
    assert_eq!(place.setting.cached_kstatus(), None);
    let silent = Progress::silent();
    let (one, two) = tokio::join!(place.setting.kstatus(&silent), place.setting.kstatus(&silent));
    let tool = one.unwrap();
    assert_eq!((two.unwrap(), place.setting.cached_kstatus()), (tool.clone(), Some(tool.clone())));
    assert_eq!((tool.source, tool.version), (Source::Build, place.setting.pins.kstatus));
    let builds = place.builds();
    assert!(builds.len() == 1 && builds[0].ends_with(" kstatus"), "{builds:?}");

    let mut changed = place;
    changed.setting.pins.kstatus_digest = "another".into();
    assert_ne!(changed.setting.kstatus(&Progress::silent()).await.unwrap().path, tool.path);
    assert_eq!(changed.builds().len(), 2);
}

#[tokio::test]
async fn without_kstatus_the_error_says_why_and_what_to_do() {
    let failing = Place::bare().await.with_failing_go();
    for (place, why) in [(Place::bare().await, "there is no `"), (failing, "module lookup refused")] {
        let text = place.setting.kstatus(&Progress::silent()).await.unwrap_err().to_string();
        for part in ["no kstatus", why, "install Go 1.26"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}

#[tokio::test]
async fn assets_win_and_lean_on_a_build_for_what_they_lack() {
    use Source::{Assets, Build};
    let place = Place::bare().await.with_go().with_assets(&[
        ("etcd", "etcd Version: 3.6.1"),
        ("kube-apiserver", "Kubernetes v1.36.0"),
        ("kubectl", "Client Version: v1.36.0"),
    ]);
    let tools = place.ensure().await.unwrap();
    assert_eq!(sources(&tools), [Assets, Assets, Build, Assets, Build]);
    assert_eq!(tools.etcd.version.to_string(), "v3.6.1");
}

#[tokio::test]
async fn kubectl_and_helm_on_path_are_used_where_they_suit() {
    let mut place = Place::bare().await.with_go();
    let bin = place.folder.path().join("bin");
    executable(&bin, "kubectl", &says("Client Version: v1.32.4-dispatcher"));
    executable(&bin, "helm", &says("v3.19.0+gabc"));
    place.setting.path = Some(bin.into());
    let tools = place.ensure().await.unwrap();
    assert_eq!((tools.kubectl.source, tools.helm.source), (Source::Build, Source::Path));
    assert_eq!(place.builds().len(), 1);
}

#[test]
fn tools_survive_being_handed_down() {
    let tool =
        |name: &str, source| Tool { path: PathBuf::from("/x").join(name), version: "v1.2.3".parse().unwrap(), source };
    let tools = Tools {
        etcd: tool("etcd", Source::Assets),
        kube_apiserver: tool("kube-apiserver", Source::Archive),
        kube_controller_manager: tool("kube-controller-manager", Source::Build),
        kubectl: tool("kubectl", Source::Path),
        helm: tool("helm", Source::Build),
    };
    assert_eq!(serde_json::from_str::<Tools>(&tools.to_hand_down()).unwrap(), tools);
    assert!(!tools.all_there());
    let path = tools.path_variable().into_string().unwrap();
    assert!(path.starts_with("/x:"), "helm's folder is in front: {path}");
}

#[test]
fn the_cache_is_where_the_user_keeps_caches() {
    let with = |pairs: &'static [(&str, &str)]| {
        user_cache(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())).ok()
    };
    let of_home = if cfg!(target_os = "macos") { "/h/Library/Caches" } else { "/h/.cache" };
    assert_eq!(with(&[("HOME", "/h")]), Some(of_home.into()));
    assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some("/c".into()));
    assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]), Some(of_home.into()));
    assert_eq!(with(&[]), None);
}
