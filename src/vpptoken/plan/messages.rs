//! Texts that several messages share.

use jiff::Timestamp;

use super::equality::{Comparison, Likeness};
use crate::api::Reason;
use crate::graph::{ErrorKind, GraphError};
use crate::tenant::Entry;

/// A time in whole seconds.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A message names this many tokens at most.
const MAX_NAMED: usize = 20;

/// Tokens by their ids and expiries, not too many of them.
pub(super) fn list_of(entries: &[&Entry]) -> String {
    let shown = entries.iter().map(|entry| match entry.entity.expiration {
        Some(expiration) => format!("{} (expires {})", entry.entity.id, time(expiration)),
        None => entry.entity.id.clone(),
    });
    not_too_many(shown)
}

/// Tokens by their ids, each with how it differs from the wanted one. The values that differ are shown only to whoever
/// may take these tokens over.
pub(super) fn list_of_differences(entries: &[(&Entry, Likeness)], may_bind: bool) -> String {
    let shown = entries.iter().map(|(entry, likeness)| {
        let mut parts = Vec::new();
        match (likeness.apple_id, entry.entity.apple_id.as_deref().filter(|_| may_bind)) {
            (Comparison::Equal, _) => {}
            (Comparison::Missing, _) => parts.push("Apple ID missing".to_owned()),
            (Comparison::Different, Some(apple_id)) => parts.push(format!("Apple ID {}", short(apple_id))),
            (Comparison::Different, None) => parts.push("another Apple ID".to_owned()),
        }
        match (likeness.expiration, entry.entity.expiration.filter(|_| may_bind)) {
            (Comparison::Equal, _) => parts.push("expires when the file does".to_owned()),
            (Comparison::Missing, _) => parts.push("expiry missing".to_owned()),
            (Comparison::Different, Some(expiration)) => parts.push(format!("expires {}", time(expiration))),
            (Comparison::Different, None) => parts.push("another expiry".to_owned()),
        }
        if likeness.organization_name == Comparison::Missing {
            parts.push("organization missing".to_owned());
        }
        format!("{} ({})", entry.entity.id, parts.join(", "))
    });
    not_too_many(shown)
}

fn not_too_many(mut shown: impl ExactSizeIterator<Item = String>) -> String {
    let named: Vec<String> = shown.by_ref().take(MAX_NAMED).collect();
    let more = match shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}

/// What to do about a permission that is missing.
pub(super) fn permission_sentence(sentence: &str) -> String {
    format!(
        "{sentence} Grant the app registration the application permission DeviceManagementServiceConfig.ReadWrite.All (or \
         DeviceManagementApps.ReadWrite.All) in Microsoft Graph, with admin consent."
    )
}

/// The reason of a request's failure.
pub(super) fn reason_of(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::Throttled => Reason::Throttled,
        ErrorKind::Credentials => Reason::CredentialsRefused,
        ErrorKind::Forbidden | ErrorKind::Unauthorized => Reason::PermissionMissing,
        ErrorKind::NotFound => Reason::Vanished,
        ErrorKind::Refused => Reason::GraphRefused,
        ErrorKind::Unreachable | ErrorKind::OutcomeUnknown | ErrorKind::Unavailable | ErrorKind::Conflict => {
            Reason::GraphUnavailable
        }
    }
}

/// Why a tenant's tokens can't be listed, and what to do about it. Whatever Graph says of a list, it concerns no single token,
/// and may pass by itself.
pub(crate) fn list_failure(error: &GraphError) -> (Reason, String) {
    let sentence = error.summary();
    match error.kind {
        ErrorKind::Forbidden | ErrorKind::Unauthorized => (reason_of(error.kind), permission_sentence(&sentence)),
        ErrorKind::NotFound | ErrorKind::Refused => (Reason::GraphUnavailable, sentence),
        ErrorKind::Throttled
        | ErrorKind::Credentials
        | ErrorKind::Unreachable
        | ErrorKind::OutcomeUnknown
        | ErrorKind::Unavailable
        | ErrorKind::Conflict => (reason_of(error.kind), sentence),
    }
}

/// What Graph says, cut to a length that fits into a sentence.
pub(super) fn short(text: &str) -> String {
    cut(text, 60)
}

/// A text on one line, cut to a number of characters.
pub(super) fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).map(|character| if character.is_control() { ' ' } else { character }).collect()
}
