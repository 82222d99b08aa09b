//! The official envtest archive: downloaded, checked against its digest, and only then unpacked. Writes to the given
//! folder, where each binary appears whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha512};

use crate::Progress;

/// What the archive is used for; anything else in it is left alone.
const WANTED: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// The archive is about 70 MB; more than this is not the archive.
const SIZE_LIMIT: u64 = 1 << 30;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// Why there is no archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not available: another source may help.
    NotHad(String),
    /// Another file came in its place: this must be reported.
    WrongDigest { actual: String },
}

impl Failure {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::NotHad(format!("{doing}: {error}"))
    }
}

/// Downloads `url`, compares its SHA-512 and unpacks the binaries into `folder`.
pub(super) async fn fetch(url: &str, sha512: &str, folder: &Path, progress: &Progress) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(Failure::io("can't make the cache folder"))?;
    let mut file = tempfile::tempfile_in(folder).map_err(Failure::io("can't write to the cache folder"))?;
    progress.line(format!("downloading {url} (about 70 MB)"));
    let actual = progress.during("downloading", download(url, &mut file)).await?;
    if actual != sha512 {
        return Err(Failure::WrongDigest { actual });
    }
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || unpack(file, &folder))
        .await
        .map_err(|error| Failure::NotHad(format!("unpacking: {error}")))?
        .map_err(Failure::io("unpacking"))
}

/// The body into `file`; the digest of what arrived.
async fn download(url: &str, file: &mut File) -> Result<String, Failure> {
    let not_had = |error: reqwest::Error| Failure::NotHad(with_causes(&error.without_url()));
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(SILENCE_LIMIT)
        .build()
        .map_err(not_had)?;
    let mut response = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(not_had)?;
    let (mut digest, mut size) = (Sha512::new(), 0_u64);
    while let Some(chunk) = response.chunk().await.map_err(not_had)? {
        size = size.saturating_add(chunk.len() as u64);
        if size > SIZE_LIMIT {
            return Err(Failure::NotHad(format!("the server sends more than {SIZE_LIMIT} bytes")));
        }
        digest.update(&chunk);
        file.write_all(&chunk).map_err(Failure::io("can't write to the cache folder"))?;
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An error and all its causes: the last one is the most specific.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The wanted binaries, wherever in the archive they are, by their file names only: no path in it is trusted.
fn unpack(mut archive: File, folder: &Path) -> io::Result<()> {
    archive.rewind()?;
    let mut missing = WANTED.to_vec();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.file_name().map(PathBuf::from);
        let Some(position) = missing.iter().position(|wanted| name.as_deref() == Some(Path::new(wanted))) else {
            continue;
        };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        use std::os::unix::fs::PermissionsExt as _;
        let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempfile_in(folder)?;
        io::copy(&mut entry, &mut file)?;
        file.persist(folder.join(missing.swap_remove(position))).map_err(|error| error.error)?;
    }
    if missing.is_empty() { Ok(()) } else { Err(io::Error::other(format!("it holds no {}", missing.join(", no ")))) }
}
