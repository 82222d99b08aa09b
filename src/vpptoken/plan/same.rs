//! When two values count as the same.

use jiff::Timestamp;

/// Equal for a person: case and surrounding space don't matter, and what Graph leaves out counts as equal.
pub(super) fn same(found: Option<&str>, wanted: &str) -> bool {
    found.is_none_or(|found| found.trim().to_lowercase() == wanted.trim().to_lowercase())
}

/// Graph's times have fractions, a file's have none.
pub(super) fn same_second(one: Option<Timestamp>, other: Timestamp) -> bool {
    one.is_some_and(|one| one.as_second() == other.as_second())
}
