//! The binary: it prints where it listens, makes up an app, makes token files, and ends when it is stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use support::send;

const BINARY: &str = env!("CARGO_BIN_EXE_graph-emulator");

#[tokio::test]
async fn it_prints_its_url_serves_and_ends_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let (url_file, apps) = (directory.path().join("url"), directory.path().join("apps"));
    std::fs::write(&apps, "# test credentials\nfile-tenant:client:se:cret\n").unwrap();
    let mut child = Command::new(BINARY)
        .args(["--listen", "127.0.0.1:0", "--throttle", "off", "--set", "pageSize=3", "--url-file"])
        .arg(&url_file)
        .arg("--apps-file")
        .arg(&apps)
        .env("GRAPH_EMULATOR_APPS", "one:client:secret,two:client:secret")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(std::fs::read_to_string(&url_file).unwrap(), line);
    let url = line.trim();
    let client = reqwest::Client::new();
    for (tenant, secret) in [("one", "secret"), ("two", "secret"), ("file-tenant", "se:cret")] {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "client"),
            ("client_secret", secret),
            ("scope", "https://graph.microsoft.com/.default"),
        ];
        let answer = send(client.post(format!("{url}/{tenant}/oauth2/v2.0/token")).form(&form)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let settings = send(client.get(format!("{url}/emulator/settings"))).await.unwrap().json();
    assert!(settings["throttle"].is_null() && settings["pageSize"] == 3, "{settings}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_makes_token_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berlin.vpptoken");
    let arguments = ["make-token", "--organization", "Contoso", "--expires", "2027-01-22T17:32:07Z"];
    let printed = Command::new(BINARY).args(arguments).output().unwrap();
    let written = Command::new(BINARY).args(arguments).arg("--out").arg(&path).output().unwrap();
    assert!(printed.status.success() && written.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    let written = std::fs::read_to_string(path).unwrap();
    assert_ne!(printed.trim(), written, "each has a token of its own");
    for text in [printed.trim(), &written] {
        use base64::Engine as _;
        let json = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (json["orgName"].as_str(), json["expDate"].as_str()),
            (Some("Contoso"), Some("2027-01-22T17:32:07+0000"))
        );
    }
}
