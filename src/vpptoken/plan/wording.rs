//! Words that several messages share.

use jiff::Timestamp;

use crate::api::Reason;
use crate::graph::ErrorKind;
use crate::tenant::Entry;

/// A time in whole seconds.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Tokens by their ids and expiries, not too many of them.
pub(super) fn list_of(entries: &[&Entry]) -> String {
    let shown = entries.iter().take(5).map(|entry| match entry.entity.expiration {
        Some(expiration) => format!("{} (expires {})", entry.entity.id, time(expiration)),
        None => entry.entity.id.clone(),
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if entries.len() > 5 {
        text.push_str(&format!(" and {} more", entries.len() - 5));
    }
    text
}

/// What to do about a permission that is missing.
pub(crate) fn permission_sentence(sentence: &str) -> String {
    format!(
        "{sentence} Grant the app registration the application permission DeviceManagementServiceConfig.ReadWrite.All (or \
         DeviceManagementApps.ReadWrite.All) in Microsoft Graph, with admin consent."
    )
}

/// The reason of a failure that passes by itself, or may.
pub(super) fn transient_reason(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::Throttled => Reason::Throttled,
        ErrorKind::Credentials => Reason::CredentialsRefused,
        ErrorKind::Forbidden | ErrorKind::Unauthorized => Reason::PermissionMissing,
        _ => Reason::GraphUnavailable,
    }
}

/// What Graph says, cut to a length that fits into a sentence.
pub(super) fn short(text: &str) -> String {
    text.chars().take(60).collect()
}
