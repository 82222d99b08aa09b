//! The `.vpptoken` file: one line of base64 text that holds a small JSON document.
//! Reads bytes, does no I/O. Errors name the position and what was expected there, never the content.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::api::TokenEncoding;

/// Files come with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A name goes into statuses and sentences, so it has to have an end.
const MOST_NAME_CHARACTERS: usize = 512;

/// A token file that was read: the text to upload, and what it says of itself.
#[derive(Clone, Debug)]
pub struct TokenFile {
    text: SecretString,
    inner: SecretString,
    /// The organization that the file names (`orgName`).
    pub organization_name: String,
    /// When the token expires (`expDate`), to the second.
    pub expiration: Timestamp,
}

/// Why bytes are not a token file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Not text.
    #[error("byte {0} is not part of a text; expected one line of base64")]
    NotText(usize),
    /// Not base64.
    #[error("character {0} is not base64; expected one line of base64, as Apple hands the file out")]
    NotBase64(usize),
    /// Cut off.
    #[error("the base64 text ends after {0} characters in the middle of a group; the file seems cut off")]
    CutOff(usize),
    /// Base64, but no JSON in it.
    #[error("the decoded text is not the JSON of a token file: line {line}, column {column}: {expected}")]
    NotJson {
        /// Line in the decoded text.
        line: usize,
        /// Column in the decoded text.
        column: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// A field has nothing in it.
    #[error("the decoded text has an empty \"{0}\"")]
    EmptyField(&'static str),
    /// Apple's names are short.
    #[error("\"orgName\" in the decoded text has more than {MOST_NAME_CHARACTERS} characters")]
    LongName,
    /// The expiry is no time.
    #[error("\"expDate\" in the decoded text is not a time such as 2027-01-22T17:32:07+0000")]
    BadExpiry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    org_name: String,
    token: SecretString,
    exp_date: String,
}

impl TokenFile {
    /// Reads the file's bytes. A byte-order mark and surrounding white space are not part of it.
    ///
    /// # Errors
    /// When the bytes are not a token file.
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenFileError> {
        let text = std::str::from_utf8(bytes).map_err(|error| TokenFileError::NotText(error.valid_up_to() + 1))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(TokenFileError::Empty);
        }
        let decoded = decode(text)?;
        let content: Content = serde_json::from_slice(&decoded).map_err(|error| TokenFileError::NotJson {
            line: error.line(),
            column: error.column(),
            expected: match error.classify() {
                serde_json::error::Category::Data => "expected the texts \"orgName\", \"token\" and \"expDate\"",
                serde_json::error::Category::Eof => "it ends too early",
                _ => "expected {\"orgName\":…,\"token\":…,\"expDate\":…}",
            },
        })?;
        if content.org_name.trim().is_empty() {
            return Err(TokenFileError::EmptyField("orgName"));
        }
        if content.org_name.chars().count() > MOST_NAME_CHARACTERS {
            return Err(TokenFileError::LongName);
        }
        if content.token.expose_secret().trim().is_empty() {
            return Err(TokenFileError::EmptyField("token"));
        }
        let expiration = expiry(content.exp_date.trim()).ok_or(TokenFileError::BadExpiry)?;
        Ok(Self { text: text.into(), inner: content.token, organization_name: content.org_name, expiration })
    }

    /// All that must never be shown of this file: the text, and the token inside of it.
    pub fn sensitive(&self) -> Vec<SecretString> {
        vec![self.text.clone(), self.to_send(TokenEncoding::Base64), self.inner.clone()]
    }

    /// The exact string to send to Graph.
    pub fn to_send(&self, encoding: TokenEncoding) -> SecretString {
        match encoding {
            TokenEncoding::AsIs => self.text.clone(),
            TokenEncoding::Base64 => base64::engine::general_purpose::STANDARD.encode(self.text.expose_secret()).into(),
        }
    }

    /// SHA-256, in hexadecimal, of the exact string to send.
    pub fn sha256(&self, encoding: TokenEncoding) -> String {
        let digest = Sha256::digest(self.to_send(encoding).expose_secret().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn decode(text: &str) -> Result<Vec<u8>, TokenFileError> {
    use base64::DecodeError;
    BASE64.decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => TokenFileError::NotBase64(at + 1),
        DecodeError::InvalidLength(length) => TokenFileError::CutOff(length),
        DecodeError::InvalidPadding => TokenFileError::CutOff(text.len()),
    })
}

/// Apple writes the offset without a colon (`+0000`), which strict parsers reject.
fn expiry(text: &str) -> Option<Timestamp> {
    let time: Timestamp = text.parse().or_else(|_| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text)).ok()?;
    Timestamp::from_second(time.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPIRY: &str = "2027-01-22T17:32:07+0000";

    fn file(json: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(json)
    }

    fn valid() -> String {
        file(&format!(r#"{{"orgName":"Contoso","token":"c2VjcmV0","expDate":"{EXPIRY}"}}"#))
    }

    #[test]
    fn reads_what_real_files_contain() {
        let text = valid();
        let unpadded = text.trim_end_matches('=').to_owned();
        let with_unknown_key = file(&format!(r#"{{"expDate":"{EXPIRY}","more":[1],"token":"t","orgName":"Contoso"}}"#));
        for (what, bytes) in [
            ("as it is", text.clone()),
            ("trailing newline", format!("{text}\n")),
            ("CRLF", format!("{text}\r\n")),
            ("byte-order mark", format!("\u{feff}{text}")),
            ("surrounding space", format!("  {text} \n\n")),
            ("no padding", unpadded),
            ("unknown key", with_unknown_key),
        ] {
            let read = TokenFile::parse(bytes.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(read.organization_name, "Contoso", "{what}");
            assert_eq!(read.expiration, "2027-01-22T17:32:07Z".parse().unwrap(), "{what}");
        }
    }

    #[test]
    fn reads_every_form_of_offset() {
        for (text, utc) in [
            ("2027-01-22T17:32:07+0000", "2027-01-22T17:32:07Z"),
            ("2027-01-22T09:32:07-0800", "2027-01-22T17:32:07Z"),
            ("2027-01-22T18:32:07+01:00", "2027-01-22T17:32:07Z"),
            ("2027-01-22T17:32:07Z", "2027-01-22T17:32:07Z"),
            ("2027-01-22T17:32:07.900Z", "2027-01-22T17:32:07Z"),
        ] {
            assert_eq!(expiry(text), Some(utc.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn names_position_and_expectation_of_what_is_wrong() {
        let secret = "hunter2-hunter2";
        for (bytes, sentence) in [
            (Vec::new(), "it is empty"),
            (b" \r\n".to_vec(), "it is empty"),
            (vec![b'a', 0xff], "byte 2 is not part of a text"),
            (format!("ab%{secret}").into_bytes(), "character 3 is not base64"),
            (b"abcde".to_vec(), "cut off"),
            (file(secret).into_bytes(), "line 1, column 1"),
            (file(&format!(r#"{{"orgName":"{secret}","token":5}}"#)).into_bytes(), "expected the texts \"orgName\""),
            (file(&format!(r#"{{"orgName":"{secret}""#)).into_bytes(), "it ends too early"),
            (
                file(&format!(r#"{{"orgName":" ","token":"{secret}","expDate":"{EXPIRY}"}}"#)).into_bytes(),
                "empty \"orgName\"",
            ),
            (file(&format!(r#"{{"orgName":"a","token":"","expDate":"{secret}"}}"#)).into_bytes(), "empty \"token\""),
            (file(&format!(r#"{{"orgName":"a","token":"{secret}","expDate":"{secret}"}}"#)).into_bytes(), "not a time"),
        ] {
            let error = TokenFile::parse(&bytes).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(sentence), "{said} lacks {sentence}");
            assert!(!said.contains(secret), "{said} quotes the content");
        }
    }

    #[test]
    fn the_digest_is_of_the_string_sent() {
        let plain = TokenFile::parse(valid().as_bytes()).unwrap();
        let newline = TokenFile::parse(format!("{}\n", valid()).as_bytes()).unwrap();
        assert_eq!(plain.sha256(TokenEncoding::AsIs), newline.sha256(TokenEncoding::AsIs));
        assert_ne!(plain.sha256(TokenEncoding::AsIs), plain.sha256(TokenEncoding::Base64));
        assert_eq!(plain.sha256(TokenEncoding::AsIs).len(), 64);
    }

    #[test]
    fn debug_shows_no_token() {
        let debug = format!("{:?}", TokenFile::parse(valid().as_bytes()).unwrap());
        assert!(!debug.contains(&valid()[..12]), "{debug}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_quoted_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TokenFile::parse(&bytes);
        }

        #[test]
        fn what_was_written_is_read(org in "[A-Za-z ÄÖ日本]{1,30}[a-z]", seconds in 0i64..4_000_000_000) {
            let time = Timestamp::from_second(seconds).unwrap();
            let date = time.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string();
            let json = serde_json::json!({"orgName": org, "token": "t", "expDate": date}).to_string();
            let read = TokenFile::parse(file(&json).as_bytes()).unwrap();
            prop_assert_eq!(read.organization_name, org);
            prop_assert_eq!(read.expiration, time);
        }
    }
}
