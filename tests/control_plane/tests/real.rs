//! The real control plane: started, used, interrupted, shut down. Slow only where the tools must be built first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use control_plane::{
    ControlPlane, Error, Options, Progress,
    tools::{self, Tools},
};

async fn tools() -> Tools {
    tools::ensure(&Progress::stderr()).await.unwrap()
}

fn kubectl(tools: &Tools, kubeconfig: &Path, arguments: &[&str]) -> Output {
    Command::new(&tools.kubectl.path).arg("--kubeconfig").arg(kubeconfig).args(arguments).output().unwrap()
}

#[track_caller]
fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Command lines of all processes that have to do with a control plane's folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let all = succeeds(Command::new("ps").args(["-A", "-ww", "-o", "args="]).output().unwrap());
    all.lines().filter(|line| line.contains(folder.to_str().unwrap())).map(str::to_owned).collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn it_serves_users_survives_a_restart_of_its_api_server_and_leaves_nothing_behind() {
    let tools = tools().await;
    let began = Instant::now();
    let mut plane = ControlPlane::start(&tools, Options::default()).await.unwrap();
    println!("started in {:?}", began.elapsed());
    let folder = plane.folder().to_owned();
    let admin = plane.kubeconfig().to_owned();
    assert_eq!(processes_of(&folder).len(), 4, "three components and the guard: {:#?}", processes_of(&folder));
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);

    succeeds(kubectl(&tools, &admin, &["create", "namespace", "apps"]));
    wait_until("the controller manager makes the ServiceAccount `default`", || {
        kubectl(&tools, &admin, &["get", "serviceaccount", "default", "-n", "apps"]).status.success()
    });
    let token = succeeds(kubectl(&tools, &admin, &["create", "token", "default", "-n", "apps"]));
    let theirs = tempfile::tempdir().unwrap();
    let account = theirs.path().join("account.kubeconfig");
    plane.sa_kubeconfig(&account, token.trim(), "apps").unwrap();
    assert_eq!(fs::metadata(&account).unwrap().permissions().mode() & 0o777, 0o600);
    let who = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
    assert_eq!(succeeds(kubectl(&tools, &account, &who)), "system:serviceaccount:apps:default");
    let refused = kubectl(&tools, &account, &["get", "secrets"]);
    let refusal = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refusal.contains("Forbidden") && refusal.contains("\"apps\""),
        "RBAC is on, `apps` is the default: {refusal}"
    );

    let issuer = succeeds(kubectl(&tools, &admin, &["get", "--raw", "/.well-known/openid-configuration"]));
    assert!(issuer.contains(&format!("\"issuer\":\"{}\"", plane.url())), "{issuer}");
    assert!(issuer.contains("RS256"), "{issuer}");

    let url = plane.url().to_owned();
    let began = Instant::now();
    plane.stop_api_server().await.unwrap();
    println!("API server stopped in {:?}", began.elapsed());
    assert!(!kubectl(&tools, &admin, &["get", "namespaces"]).status.success());
    let began = Instant::now();
    plane.start_api_server().await.unwrap();
    println!("API server started again in {:?}", began.elapsed());
    assert_eq!(plane.url(), url);
    succeeds(kubectl(&tools, &admin, &["get", "namespace", "apps"]));
    assert_eq!(
        succeeds(kubectl(&tools, &account, &who)),
        "system:serviceaccount:apps:default",
        "the token is still good"
    );
    succeeds(kubectl(&tools, &admin, &["delete", "namespace", "apps", "--timeout=30s"]));

    let began = Instant::now();
    plane.shutdown().await.unwrap();
    println!("shut down in {:?}", began.elapsed());
    assert_eq!(processes_of(&folder), [""; 0]);
    assert!(!folder.exists());
}

#[tokio::test]
async fn the_audit_log_has_a_line_per_request_to_our_group_and_no_other() {
    let tools = tools().await;
    let plane = ControlPlane::start(&tools, Options::default()).await.unwrap();
    let admin = plane.kubeconfig().to_owned();
    let definition = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.vpptoken.io"},
        "spec":{"group":"vpptoken.io","scope":"Namespaced","names":{"plural":"things","kind":"Thing"},
        "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}"#;
    let file = plane.folder().join("crd.json");
    fs::write(&file, definition).unwrap();
    succeeds(kubectl(&tools, &admin, &["create", "-f", file.to_str().unwrap()]));
    succeeds(kubectl(&tools, &admin, &["wait", "--for=condition=Established", "crd/things.vpptoken.io"]));
    succeeds(kubectl(&tools, &admin, &["get", "--raw", "/apis/vpptoken.io/v1/namespaces/default/things"]));
    let log = fs::read_to_string(plane.audit_log()).unwrap();
    // A request that comes while a new kind is still being set up is answered 429 and sent again: a line each.
    let ours = log.lines().filter(|line| line.contains(r#""username":"admin""#) && line.contains(r#""code":200"#));
    assert_eq!(ours.count(), 1, "{log}");
    assert!(log.lines().all(|line| line.contains(r#""apiGroup":"vpptoken.io""#)), "{log}");

    let folder = plane.folder().to_owned();
    drop(plane);
    assert_eq!(processes_of(&folder), [""; 0], "dropping it ends it too");
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_component_that_can_not_start_is_quoted() {
    let options = Options { api_server_arguments: vec!["--no-such-flag".into()], ..Options::default() };
    match ControlPlane::start(&tools().await, options).await {
        Err(error @ Error::Ended { name: "kube-apiserver", .. }) => {
            assert!(error.to_string().contains("unknown flag: --no-such-flag"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// The binary as a child, with the tools at hand so that it starts at once.
fn binary(tools: &Tools, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command.args(arguments).env(tools::HANDED_DOWN, tools.to_hand_down()).stdin(Stdio::null());
    command
}

/// A child whose first line on standard output is `SOMETHING=PATH`; that path's folder.
fn folder_from_first_line(child: &mut Child) -> PathBuf {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Path::new(line.trim().split_once('=').unwrap().1).parent().unwrap().to_owned()
}

fn signal(child: &Child, name: &str) {
    succeeds(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).output().unwrap());
}

#[tokio::test]
async fn run_gives_the_command_what_it_needs_and_exits_as_it_does() {
    let tools = tools().await;
    tools::kstatus(&Progress::stderr()).await.unwrap();
    let script = r#"kubectl get namespaces -o name && command -v helm && test -f "$CONTROL_PLANE_AUDIT_LOG" &&
        test -n "$CONTROL_PLANE_TOOLS" && test -x "$CONTROL_PLANE_KSTATUS" && echo "folder=$KUBECONFIG"; sleep 300 & exit 7"#;
    let output = binary(&tools, &["run", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("namespace/default"), "{printed}");
    let kubeconfig = printed.lines().find_map(|line| line.strip_prefix("folder=")).unwrap();
    let folder = Path::new(kubeconfig).parent().unwrap();
    assert_eq!(processes_of(folder), [""; 0]);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_signal_ends_the_command_with_all_it_started_and_the_control_plane() {
    let tools = tools().await;
    let script = r#"echo "folder=$KUBECONFIG"; sh -c 'sleep 300; : "$0"' "$KUBECONFIG" & wait"#;
    let mut child = binary(&tools, &["run", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let folder = folder_from_first_line(&mut child);
    wait_until("the command's own child runs", || processes_of(&folder).len() == 5);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(processes_of(&folder), [""; 0]);
    assert!(!folder.exists());
}

#[tokio::test]
async fn nothing_is_left_behind_even_where_the_holder_is_killed() {
    let tools = tools().await;
    let mut child = binary(&tools, &["up"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let folder = folder_from_first_line(&mut child);
    assert_eq!(processes_of(&folder).len(), 4);
    signal(&child, "KILL");
    child.wait().unwrap();
    wait_until("the guard ends the components and removes the folder", || {
        processes_of(&folder).is_empty() && !folder.exists()
    });
}
