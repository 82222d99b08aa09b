//! Kubeconfig files. Writes only the file it is given, which none but its owner can read.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::credentials::Identity;
use crate::{Error, Result};

pub(super) enum User<'a> {
    Certificate(&'a Identity),
    Token(&'a str),
}

/// JSON, which is YAML too, so that no value needs quoting. An existing file is replaced in one step: a concurrent
/// reader gets the old one or the new one.
pub(super) fn write(file: &Path, url: &str, ca_pem: &str, user: User<'_>, namespace: &str) -> Result<()> {
    let credentials = match user {
        User::Certificate(identity) => json!({
            "client-certificate-data": BASE64_STANDARD.encode(&identity.certificate_pem),
            "client-key-data": BASE64_STANDARD.encode(&identity.key_pem),
        }),
        User::Token(token) => json!({ "token": token }),
    };
    let text = format!(
        "{:#}\n",
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "control-plane",
                "cluster": { "server": url, "certificate-authority-data": BASE64_STANDARD.encode(ca_pem) },
            }],
            "users": [{ "name": "user", "user": credentials }],
            "contexts": [{
                "name": "control-plane",
                "context": { "cluster": "control-plane", "user": "user", "namespace": namespace },
            }],
            "current-context": "control-plane",
        })
    );
    let failed = || Error::io(format!("can't write {}", file.display()));
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(folder).map_err(failed())?;
    new.write_all(text.as_bytes()).map_err(failed())?;
    new.persist(file).map_err(|error| failed()(error.error))?;
    Ok(())
}
