//! When two values count as the same, and when two tokens may be.

use jiff::Timestamp;

use crate::graph::Entity;

/// Equal for a person: case and surrounding space don't matter, and what Graph leaves out counts as equal.
pub(super) fn same(found: Option<&str>, wanted: &str) -> bool {
    found.is_none_or(|found| same_text(found, wanted))
}

/// Whether two texts are equal, apart from case and surrounding space. They are nearly always ASCII, which needs no copies.
pub(super) fn same_text(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim(), other.trim());
    one.eq_ignore_ascii_case(other)
        || !(one.is_ascii() && other.is_ascii()) && one.to_lowercase() == other.to_lowercase()
}

/// Graph's times have fractions, a file's have none.
pub(super) fn same_second(one: Option<Timestamp>, other: Timestamp) -> bool {
    one.is_some_and(|one| one.as_second() == other.as_second())
}

/// How a value that Graph shows compares with the wanted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    /// Graph shows none, so it may be equal.
    Missing,
    Different,
}

impl Comparison {
    fn of<T>(found: Option<T>, is_equal: impl FnOnce(T) -> bool) -> Self {
        found.map_or(Self::Missing, |found| if is_equal(found) { Self::Equal } else { Self::Different })
    }

    fn may_be_equal(self) -> bool {
        self != Self::Different
    }
}

/// What distinguishes tokens: the organization and the expiry are in the token file, the Apple ID is in the manifest.
/// The location is in neither.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    pub(super) organization_name: &'a str,
    pub(super) apple_id: &'a str,
    pub(super) expiration: Timestamp,
}

/// How a token in Graph compares with an identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Likeness {
    pub(super) organization_name: Comparison,
    pub(super) apple_id: Comparison,
    pub(super) expiration: Comparison,
}

impl Likeness {
    pub(super) fn of(entity: &Entity, identity: Identity<'_>) -> Self {
        let text = |found: &Option<String>, wanted| Comparison::of(found.as_deref(), |found| same(Some(found), wanted));
        Self {
            organization_name: text(&entity.organization_name, identity.organization_name),
            apple_id: text(&entity.apple_id, identity.apple_id),
            expiration: Comparison::of(entity.expiration, |found| same_second(Some(found), identity.expiration)),
        }
    }

    /// The same organization, and the same Apple ID or expiry, as far as Graph shows them: the location may be the same.
    pub(super) fn may_be_similar(self) -> bool {
        self.organization_name.may_be_equal() && (self.apple_id.may_be_equal() || self.expiration.may_be_equal())
    }

    /// Similar, and Graph shows at least one of the three: a token of which nothing is shown is not similar to any.
    pub(super) fn is_similar(self) -> bool {
        self.may_be_similar() && self.shows_equal()
    }

    /// The same organization and Apple ID, as far as Graph shows them.
    pub(super) fn is_of_apple_id(self) -> bool {
        self.organization_name.may_be_equal() && self.apple_id.may_be_equal()
    }

    /// The very same file. Its expiry has to be shown: no file is uploaded to a token that is taken over as an exact
    /// match.
    pub(super) fn is_exact(self) -> bool {
        self.is_of_apple_id() && self.expiration == Comparison::Equal
    }

    /// Nothing that Graph shows excludes that a create of this identity made it; the expiry may be shown later.
    pub(super) fn may_be_result(self) -> bool {
        self.is_of_apple_id() && self.expiration.may_be_equal() && self.shows_equal()
    }

    fn shows_equal(self) -> bool {
        [self.organization_name, self.apple_id, self.expiration].contains(&Comparison::Equal)
    }
}

#[cfg(test)]
mod tests {
    use super::same_text;

    #[test]
    fn texts_are_the_same_apart_from_case_and_surrounding_space() {
        for (one, other, is_same) in [
            ("Contoso", " CONTOSO ", true),
            ("Contoso", "Contoso 2", false),
            ("ÖRTLICH", "örtlich", true),
            ("ÖRTLICH", "ortlich", false),
            ("ΟΔΟΣ", "οδος", true),
            ("", " ", true),
        ] {
            assert_eq!((same_text(one, other), same_text(other, one)), (is_same, is_same), "{one:?} {other:?}");
        }
    }
}
