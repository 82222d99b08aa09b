//! The `.vpptoken` file: makes test files, good and broken, and reads them as the emulated service does.

use crate::random::Random;
use crate::secret::Secret;
use crate::settings::TokenEncoding;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::{Value, json};

/// A test token file for one location, as Apple would make it: its inner token is random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    organization: String,
    expires: Timestamp,
    offset: Offset,
    inner: Secret,
}

impl TokenFile {
    /// A file of an organization, with a fresh random inner token.
    #[must_use]
    pub fn new(organization: impl Into<String>, expires: Timestamp) -> Self {
        Self::with_inner(organization, expires, Random::system().text(6))
    }

    /// A file of an organization, with this inner token.
    #[must_use]
    pub fn with_inner(organization: impl Into<String>, expires: Timestamp, inner: impl Into<Secret>) -> Self {
        Self { organization: organization.into(), expires, offset: Offset::UTC, inner: inner.into() }
    }

    /// The same file, with `expDate` written in this offset (such as `-0800`).
    #[must_use]
    pub fn with_offset(mut self, offset: Offset) -> Self {
        self.offset = offset;
        self
    }

    /// The organization that the file names.
    #[must_use]
    pub fn organization(&self) -> &str {
        &self.organization
    }

    /// When it expires.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The inner token: it must never be shown anywhere.
    #[must_use]
    pub fn inner(&self) -> &str {
        self.inner.expose()
    }

    /// The file's text: one line of base64, without a newline.
    #[must_use]
    pub fn text(&self) -> String {
        STANDARD.encode(self.value().to_string())
    }

    /// The file's text broken in one way.
    #[must_use]
    pub fn malformed(&self, how: Malformed) -> String {
        let mut value = self.value();
        let mut without = |name: &str| {
            if let Value::Object(object) = &mut value {
                object.remove(name);
            }
            value.to_string()
        };
        let json = match how {
            Malformed::Empty => return String::new(),
            Malformed::NotBase64 => return format!("%{}%", self.text()),
            Malformed::Truncated => {
                let text = self.text();
                // A length that is no multiple of four can't be base64 with padding.
                return text.chars().take(text.len() / 8 * 4 + 1).collect();
            }
            Malformed::PlainJson => return value.to_string(),
            Malformed::NotJson => format!("not JSON, but with the token {}", self.inner()),
            Malformed::NotAnObject => json!([self.inner()]).to_string(),
            Malformed::NoToken => without("token"),
            Malformed::NoOrganization => without("orgName"),
            Malformed::NoExpiry => without("expDate"),
            Malformed::BadExpiry => {
                value["expDate"] = json!("next year");
                value.to_string()
            }
        };
        STANDARD.encode(json)
    }

    fn value(&self) -> Value {
        let expires = self.expires.to_zoned(self.offset.to_time_zone()).strftime("%Y-%m-%dT%H:%M:%S%z").to_string();
        json!({"orgName": self.organization, "token": self.inner(), "expDate": expires})
    }
}

/// The ways in which [`TokenFile::malformed`] breaks a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Nothing at all.
    Empty,
    /// Characters that base64 does not have.
    NotBase64,
    /// Half of the text.
    Truncated,
    /// The JSON itself, without base64.
    PlainJson,
    /// Base64 of something that is no JSON.
    NotJson,
    /// Base64 of a JSON array.
    NotAnObject,
    /// No `token`.
    NoToken,
    /// No `orgName`.
    NoOrganization,
    /// No `expDate`.
    NoExpiry,
    /// An `expDate` that is no date.
    BadExpiry,
}

impl Malformed {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Empty,
        Self::NotBase64,
        Self::Truncated,
        Self::PlainJson,
        Self::NotJson,
        Self::NotAnObject,
        Self::NoToken,
        Self::NoOrganization,
        Self::NoExpiry,
        Self::BadExpiry,
    ];
}

/// What the emulated service reads in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) organization: String,
    pub(crate) expires: Timestamp,
}

/// Reads the property `token`, or returns a short reason why it can't, which quotes nothing of it.
pub(crate) fn read(sent: &str, encoding: TokenEncoding, tolerate_whitespace: bool) -> Result<Contents, &'static str> {
    let trim = |text: &str| {
        if tolerate_whitespace { text.trim_start_matches('\u{feff}').trim().to_owned() } else { text.to_owned() }
    };
    let decode = |text: &str| {
        let bytes = STANDARD.decode(text).map_err(|_| "not base64")?;
        String::from_utf8(bytes).map_err(|_| "not text")
    };
    let file = match encoding {
        TokenEncoding::AsIs => trim(sent),
        TokenEncoding::Base64 => trim(&decode(&trim(sent))?),
    };
    let value: Value = serde_json::from_str(&decode(&file)?).map_err(|_| "not JSON inside")?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("token").ok_or("no token inside")?;
    let organization = text("orgName").ok_or("no organization inside")?.to_owned();
    let expires = text("expDate").and_then(parse_date).ok_or("no expiry inside")?;
    Ok(Contents { organization, expires })
}

fn parse_date(text: &str) -> Option<Timestamp> {
    text.parse().or_else(|_| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> TokenFile {
        TokenFile::new("Contoso", "2027-01-22T17:32:07Z".parse().unwrap())
    }

    #[test]
    fn a_file_is_read_as_it_was_made() {
        let read = read(&file().text(), TokenEncoding::AsIs, false).unwrap();
        assert_eq!((read.organization.as_str(), read.expires), ("Contoso", file().expires()));
    }

    #[test]
    fn an_offset_without_a_colon_is_the_same_moment() {
        let made = file().with_offset(jiff::tz::offset(-8));
        let json = String::from_utf8(STANDARD.decode(made.text()).unwrap()).unwrap();
        assert!(json.contains("2027-01-22T09:32:07-0800"), "unexpected date");
        assert_eq!(read(&made.text(), TokenEncoding::AsIs, false).unwrap().expires, file().expires());
    }

    #[test]
    fn every_malformed_file_is_refused() {
        for how in Malformed::ALL {
            assert!(read(&file().malformed(how), TokenEncoding::AsIs, true).is_err(), "{how:?}");
        }
    }

    #[test]
    fn the_two_encodings_are_told_apart() {
        let twice = STANDARD.encode(file().text());
        assert!(read(&twice, TokenEncoding::Base64, false).is_ok());
        assert!(read(&twice, TokenEncoding::AsIs, false).is_err());
        assert!(read(&file().text(), TokenEncoding::Base64, false).is_err());
    }

    #[test]
    fn white_space_around_a_file_is_tolerated_on_demand() {
        let text = format!("\u{feff}{}\r\n", file().text());
        assert!(read(&text, TokenEncoding::AsIs, true).is_ok());
        assert!(read(&text, TokenEncoding::AsIs, false).is_err());
    }

    #[test]
    fn debug_output_does_not_show_the_inner_token() {
        let file = file();
        assert!(!format!("{file:?}").contains(file.inner()));
    }
}
