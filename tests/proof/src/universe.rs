//! What there is to choose from: token files, Apple IDs, settings, and the times of the world.

use jiff::{SignedDuration, Timestamp};
use vpptoken_operator::api::{Cloud, GraphApi, VppTokenTenant};
use vpptoken_operator::tenant::Timings;
use vpptoken_operator::vpptoken::world::FileFacts;

/// A token file.
pub(crate) struct File {
    pub(crate) sha256: &'static str,
    pub(crate) organization: &'static str,
    pub(crate) location: char,
    days: i64,
}

/// Three files of one location, each newer than the one before; one that has expired; one of another location of the same
/// organization; one after the organization was renamed.
pub(crate) const FILES: [File; 6] = [
    File { sha256: "a1", organization: "Contoso", location: 'A', days: 100 },
    File { sha256: "a2", organization: "Contoso", location: 'A', days: 200 },
    File { sha256: "a3", organization: "Contoso", location: 'A', days: 300 },
    File { sha256: "a0", organization: "Contoso", location: 'A', days: -1 },
    File { sha256: "b1", organization: "Contoso", location: 'B', days: 150 },
    File { sha256: "a4", organization: "Fabrikam", location: 'A', days: 250 },
];

/// One of [`FILES`].
pub(crate) type FileNumber = u8;

impl File {
    pub(crate) fn expiration(&self) -> Timestamp {
        beginning() + SignedDuration::from_hours(24 * self.days)
    }

    pub(crate) fn facts(&self) -> FileFacts {
        FileFacts {
            sha256: self.sha256.to_owned(),
            expiration: self.expiration(),
            organization_name: self.organization.to_owned(),
        }
    }
}

pub(crate) fn file(number: FileNumber) -> &'static File {
    &FILES[usize::from(number) % FILES.len()]
}

pub(crate) fn file_of(sha256: &str) -> Option<FileNumber> {
    FILES.iter().position(|file| file.sha256 == sha256).and_then(|at| u8::try_from(at).ok())
}

pub(crate) const APPLE_IDS: [&str; 2] = ["vpp@contoso.example", "other@contoso.example"];
/// A country that Graph refuses, and one that it accepts and does not keep.
pub(crate) const REFUSED: &str = "xx";
pub(crate) const NOT_KEPT: &str = "zz";
pub(crate) const COUNTRIES: [&str; 4] = ["de", "us", REFUSED, NOT_KEPT];

pub(crate) const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A request of the operator ends after so long, with or without an answer.
pub(crate) const DEADLINE: SignedDuration = SignedDuration::from_secs(30);
/// A request that was sent takes effect within this time, or never: far below the window for unknown outcomes.
pub(crate) const LONGEST_WAY: SignedDuration = SignedDuration::from_mins(3);
/// What a process does between two calls takes no longer than this; one that hangs for longer has died.
pub(crate) const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// The real one: a reconcile waits no longer than this for leave to write without a word in the status.
pub(crate) const SHORT_WAIT_FOR_LEAVE: SignedDuration = SignedDuration::from_secs(1);
/// The real one: a reconcile waits so long for leave to write.
pub(crate) const LONGEST_WAIT_FOR_LEAVE: SignedDuration = SignedDuration::from_secs(90);
pub(crate) const POLL: SignedDuration = SignedDuration::from_mins(5);
/// After a renewal Graph shows the old expiry for so long.
pub(crate) const EXPIRY_LAG: SignedDuration = SignedDuration::from_mins(40);

pub(crate) fn timings() -> Timings {
    Timings::default()
}

pub(crate) fn beginning() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 56)
}

pub(crate) fn identity() -> VppTokenTenant {
    VppTokenTenant { cloud: Cloud::Global, tenant_id: "8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11".into(), api: GraphApi::V1 }
}
