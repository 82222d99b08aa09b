//! The `.vpptoken` file: one line of base64 text that holds a small JSON document.
//! Reads bytes, does no I/O. Errors name the position and what was expected there, never the content.
//!
//! Read liberally: a byte-order mark, white space anywhere (files get wrapped and folded on their way through mails and
//! YAML), base64 with and without padding. What is sent and digested is the text without mark and white space, so a file
//! that is wrapped otherwise is the same file.

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

/// A token file has a few hundred bytes. A Secret may have a mebibyte, and its author may be hostile.
const MAX_BYTES: usize = 64 * 1024;

/// Names are copied into statuses and messages, so their length is limited.
const MAX_NAME_CHARACTERS: usize = 512;

/// How files begin that are mistaken for this one.
const OTHER_FILES: [(&str, &str); 4] = [
    ("{", "the decoded JSON"),
    ("<", "a web page or an XML file"),
    ("-----BEGIN", "a certificate or a key"),
    ("Content-Type:", "the server token of an MDM (.p7m)"),
];

/// A token file that was read: the text to upload, and what it contains.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile {
    text: SecretString,
    inner: SecretString,
    /// The organization that the file names (`orgName`).
    pub organization_name: String,
    /// When the token expires (`expDate`), to the second.
    pub expiration: Timestamp,
}

/// Why bytes are not a token file. Lines and columns count from one, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFileError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Far more than a token file.
    #[error("it has more than {MAX_BYTES} bytes; a token file has a few hundred")]
    TooLong,
    /// As some Windows editors save.
    #[error("from byte 1 on it is UTF-16, as some editors save; expected plain text (UTF-8)")]
    Utf16,
    /// Not text.
    #[error("byte {0} is not part of a text; expected one line of base64")]
    NotText(usize),
    /// A file of another known kind.
    #[error("it is {0}; expected one line of base64, as Apple hands the file out")]
    OtherFile(&'static str),
    /// Not base64.
    #[error("line {line}, column {column} is not base64; expected one line of base64, as Apple hands the file out")]
    NotBase64 {
        /// Line in the file.
        line: usize,
        /// Column in the file.
        column: usize,
    },
    /// Base64 with `-` and `_`.
    #[error("line {line}, column {column} is not base64 but of its variant for URLs (- and _ for + and /)")]
    UrlSafe {
        /// Line in the file.
        line: usize,
        /// Column in the file.
        column: usize,
    },
    /// Cut off.
    #[error("the base64 text ends after {0} characters in the middle of a group; the file seems cut off")]
    CutOff(usize),
    /// As copied from the `data` of a Secret.
    #[error(
        "it is base64 of a token file: encoded once too often. A Secret takes the file itself in \"stringData\", or base64 of \
         it in \"data\""
    )]
    EncodedTwice,
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
    /// A name that is too long.
    #[error("\"orgName\" in the decoded text has more than {MAX_NAME_CHARACTERS} characters")]
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
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When the bytes are not a token file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TokenFileError> {
        if bytes.len() > MAX_BYTES {
            return Err(TokenFileError::TooLong);
        }
        let file = text(bytes)?;
        if let Some((_, what)) = OTHER_FILES.iter().find(|(start, _)| file.trim_start().starts_with(start)) {
            return Err(TokenFileError::OtherFile(what));
        }
        let text = without_white_space(file);
        if text.expose_secret().is_empty() {
            return Err(TokenFileError::Empty);
        }
        let decoded = decode(file, text.expose_secret())?;
        let content = content(&decoded)?;
        if content.org_name.trim().is_empty() {
            return Err(TokenFileError::EmptyField("orgName"));
        }
        if content.org_name.chars().count() > MAX_NAME_CHARACTERS {
            return Err(TokenFileError::LongName);
        }
        if content.token.expose_secret().trim().is_empty() {
            return Err(TokenFileError::EmptyField("token"));
        }
        let expiration = expiry(content.exp_date.trim()).ok_or(TokenFileError::BadExpiry)?;
        Ok(Self { text, inner: content.token, organization_name: content.org_name, expiration })
    }

    /// All that must never be shown of this file: the text, and the token inside of it.
    pub(crate) fn sensitive(&self) -> Vec<SecretString> {
        vec![self.text.clone(), self.to_send(TokenEncoding::Base64), self.inner.clone()]
    }

    /// The exact string to send to Graph.
    pub(crate) fn to_send(&self, encoding: TokenEncoding) -> SecretString {
        match encoding {
            TokenEncoding::AsIs => self.text.clone(),
            TokenEncoding::Base64 => base64::engine::general_purpose::STANDARD.encode(self.text.expose_secret()).into(),
        }
    }

    /// SHA-256, in hexadecimal, of the exact string to send.
    pub(crate) fn sha256(&self, encoding: TokenEncoding) -> String {
        sha256_hex(self.to_send(encoding).expose_secret().as_bytes())
    }
}

/// SHA-256 of bytes, in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes as text, without a byte-order mark.
fn text(bytes: &[u8]) -> Result<&str, TokenFileError> {
    // With the mark of UTF-16, or without: base64 has no zero bytes, and its UTF-16 has one in every character.
    if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..]) {
        return Err(TokenFileError::Utf16);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| TokenFileError::NotText(error.valid_up_to() + 1))?;
    Ok(text.trim_start_matches('\u{feff}'))
}

fn without_white_space(text: &str) -> SecretString {
    text.split_whitespace().collect::<String>().into()
}

/// Decodes a file without its white space.
fn decode(file: &str, text: &str) -> Result<Vec<u8>, TokenFileError> {
    use base64::DecodeError;
    BASE64.decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(at, b'-' | b'_') => {
            let (line, column) = position(file, at);
            TokenFileError::UrlSafe { line, column }
        }
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => {
            let (line, column) = position(file, at);
            TokenFileError::NotBase64 { line, column }
        }
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => TokenFileError::CutOff(text.chars().count()),
    })
}

/// Line and column in the file of a byte in its text without white space.
fn position(file: &str, byte: usize) -> (usize, usize) {
    let (mut line, mut column, mut left) = (1, 1, byte);
    for character in file.chars() {
        if character.is_whitespace() {
            (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
            continue;
        }
        if left < character.len_utf8() {
            break;
        }
        left -= character.len_utf8();
        column += 1;
    }
    (line, column)
}

fn content(decoded: &[u8]) -> Result<Content, TokenFileError> {
    let is_json = |bytes: &[u8]| bytes.trim_ascii_start().starts_with(b"{");
    let twice = || BASE64.decode(without_white_space(std::str::from_utf8(decoded).ok()?).expose_secret()).ok();
    if !is_json(decoded) && twice().is_some_and(|decoded| is_json(&decoded)) {
        return Err(TokenFileError::EncodedTwice);
    }
    serde_json::from_slice(decoded).map_err(|error| TokenFileError::NotJson {
        line: error.line(),
        column: error.column(),
        expected: expected(&error),
    })
}

/// The parser's message can quote the content, so only how it begins is used.
fn expected(error: &serde_json::Error) -> &'static str {
    use serde_json::error::Category;
    let says = error.to_string();
    match error.classify() {
        Category::Data if says.starts_with("duplicate field") => {
            "expected \"orgName\", \"token\" and \"expDate\" once each"
        }
        Category::Data if says.starts_with("missing field `orgName`") => "\"orgName\" is missing",
        Category::Data if says.starts_with("missing field `token`") => "\"token\" is missing",
        Category::Data if says.starts_with("missing field `expDate`") => "\"expDate\" is missing",
        Category::Data => "expected the texts \"orgName\", \"token\" and \"expDate\"",
        Category::Eof => "it ends too early",
        Category::Syntax | Category::Io => "expected {\"orgName\":…,\"token\":…,\"expDate\":…}",
    }
}

/// Apple writes the offset without a colon (`+0000`); every form of ISO 8601 with an offset will do.
fn expiry(text: &str) -> Option<Timestamp> {
    let time: Timestamp = text.parse().ok()?;
    Timestamp::from_second(time.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    const EXPIRY: &str = "2027-01-22T17:32:07+0000";
    /// The `>` and `?` make base64 with `+` and `/`.
    const JSON: &str = r#"{"orgName":"Contoso","token":"c2VjcmV0>>>???~~~","expDate":"2027-01-22T17:32:07+0000"}"#;

    fn file(json: &str) -> String {
        STANDARD.encode(json)
    }

    fn wrapped(text: &str, columns: usize, end: &str) -> String {
        text.as_bytes().chunks(columns).map(|line| format!("{}{end}", std::str::from_utf8(line).unwrap())).collect()
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn reads_what_real_files_contain_and_sends_the_same_for_each() {
        let text = file(JSON);
        assert!(text.contains('+') && text.contains('/') && text.ends_with('='));
        for (what, bytes) in [
            ("as it is", text.clone()),
            ("trailing newline", format!("{text}\n")),
            ("CRLF", format!("{text}\r\n")),
            ("byte-order mark", format!("\u{feff}{text}")),
            ("byte-order mark and newlines", format!("\u{feff}\r\n{text}\r\n\r\n")),
            ("surrounding space", format!("  {text} \n\n")),
            ("wrapped", wrapped(&text, 76, "\n")),
            ("wrapped on Windows", wrapped(&text, 64, "\r\n")),
            ("folded by YAML", wrapped(&text, 76, " ")),
            ("indented", wrapped(&text, 40, "\n\t  ")),
        ] {
            let read = TokenFile::parse(bytes.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(read.organization_name, "Contoso", "{what}");
            assert_eq!(read.expiration, "2027-01-22T17:32:07Z".parse().unwrap(), "{what}");
            assert_eq!(read.to_send(TokenEncoding::AsIs).expose_secret(), text, "{what}");
        }
    }

    #[test]
    fn padding_is_sent_as_it_came() {
        let unpadded = file(JSON).trim_end_matches('=').to_owned();
        let read = TokenFile::parse(unpadded.as_bytes()).unwrap();
        assert_eq!(read.to_send(TokenEncoding::AsIs).expose_secret(), unpadded);
    }

    #[test]
    fn reads_every_order_of_keys_and_keys_that_it_does_not_know() {
        for json in [
            format!(r#"{{"expDate":"{EXPIRY}","token":"t","orgName":"Contoso"}}"#),
            format!(r#"{{"more":[1,{{"token":2}}],"expDate":"{EXPIRY}","more":null,"token":"t","orgName":"Contoso"}}"#),
            format!("\r\n {{ \"orgName\" : \"Contoso\",\n\"token\":\"t\", \"expDate\":\" {EXPIRY} \" }}\n"),
            format!(r#"{{"orgName":"C\u006fntoso","token":"t","expDate":"{EXPIRY}"}}"#),
        ] {
            let read = TokenFile::parse(file(&json).as_bytes()).unwrap();
            assert_eq!(read.organization_name, "Contoso", "{json}");
            assert_eq!(read.expiration, "2027-01-22T17:32:07Z".parse().unwrap(), "{json}");
        }
    }

    #[test]
    fn reads_every_form_of_offset() {
        for (text, utc) in [
            ("2027-01-22T17:32:07+0000", Some("2027-01-22T17:32:07Z")),
            ("2027-01-22T09:32:07-0800", Some("2027-01-22T17:32:07Z")),
            ("2027-01-22T23:02:07+0530", Some("2027-01-22T17:32:07Z")),
            ("2027-01-22T18:32:07+01:00", Some("2027-01-22T17:32:07Z")),
            ("2027-01-22T17:32:07Z", Some("2027-01-22T17:32:07Z")),
            ("2027-01-22T17:32:07.900Z", Some("2027-01-22T17:32:07Z")),
            ("2027-01-22T17:32:07.999999999+0000", Some("2027-01-22T17:32:07Z")),
            ("2027-01-22T17:32:07", None),
            ("2027-01-22", None),
            ("2027-13-22T17:32:07Z", None),
            ("1800639127", None),
            ("", None),
        ] {
            assert_eq!(expiry(text), utc.map(|utc| utc.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn names_position_and_expectation_of_what_is_wrong() {
        let secret = "hunter2+hunter2";
        let json = |text: String| file(&text).into_bytes();
        let text = file(JSON);
        let plus = text.find(['+', '/']).unwrap();
        for (bytes, sentence) in [
            (Vec::new(), "it is empty".to_owned()),
            (b" \r\n".to_vec(), "it is empty".into()),
            ("\u{feff}".into(), "it is empty".into()),
            (vec![b'A'; MAX_BYTES + 1], "it has more than 65536 bytes".into()),
            (vec![b'a', 0xff], "byte 2 is not part of a text".into()),
            (utf16(&text, u16::to_le_bytes), "it is UTF-16".into()),
            (utf16(&text, u16::to_be_bytes), "it is UTF-16".into()),
            (utf16("\u{feff}a", u16::to_le_bytes), "it is UTF-16".into()),
            (utf16("\u{feff}\u{4e00}", u16::to_be_bytes), "it is UTF-16".into()),
            (vec![0, 0], "line 1, column 1 is not base64".into()),
            (JSON.into(), "it is the decoded JSON; expected one line of base64".into()),
            (format!("\u{feff}\n{JSON}").into(), "it is the decoded JSON".into()),
            (b"<!DOCTYPE html>".to_vec(), "it is a web page or an XML file".into()),
            (b"-----BEGIN CERTIFICATE-----\n".to_vec(), "it is a certificate or a key".into()),
            (b"Content-Type: application/pkcs7-mime".to_vec(), "the server token of an MDM (.p7m)".into()),
            (format!("ab%{secret}").into(), "line 1, column 3 is not base64;".into()),
            (format!("\u{feff} ab%{secret}").into(), "line 1, column 4 is not base64;".into()),
            (format!("abcd\r\nab \t%{secret}").into(), "line 2, column 5 is not base64;".into()),
            (format!("abcdäöü{secret}").into(), "line 1, column 5 is not base64;".into()),
            (format!("ab=d{secret}").into(), "line 1, column 3 is not base64;".into()),
            // The last character has bits that no byte takes.
            ("QUJDRB".into(), "line 1, column 6 is not base64;".into()),
            (
                URL_SAFE.encode(JSON).into(),
                format!("line 1, column {} is not base64 but of its variant for URLs", plus + 1),
            ),
            (
                wrapped(&URL_SAFE.encode(JSON), plus, "\n").into(),
                "line 2, column 1 is not base64 but of its variant for URLs".into(),
            ),
            (b"ab cd\ne".to_vec(), "ends after 5 characters in the middle of a group; the file seems cut off".into()),
            (file(&text).into(), "it is base64 of a token file: encoded once too often".into()),
            (file(&wrapped(&text, 76, "\n")).into(), "encoded once too often".into()),
            (json(secret.into()), "line 1, column 1: expected {\"orgName\":…".into()),
            (json("\"abc".into()), "it ends too early".into()),
            (json(STANDARD.encode("no token file")), "line 1, column 1: expected {\"orgName\":…".into()),
            (json(format!("\n\n {secret}")), "line 3, column 2: expected {\"orgName\":…".into()),
            (json(format!("{JSON}\n{secret}")), "line 2, column 1: expected {\"orgName\":…".into()),
            (json(format!(r#"["{secret}"]"#)), "expected the texts \"orgName\"".into()),
            (json(format!(r#"{{"orgName":"{secret}","token":5}}"#)), "expected the texts \"orgName\"".into()),
            (json(format!(r#"{{"orgName":"{secret}""#)), "it ends too early".into()),
            (json(format!(r#"{{"orgName":"{secret}","token":"t"}}"#)), "\"expDate\" is missing".into()),
            (json(format!(r#"{{"orgName":"{secret}","expDate":"{EXPIRY}"}}"#)), "\"token\" is missing".into()),
            (json(format!(r#"{{"token":"{secret}","expDate":"{EXPIRY}"}}"#)), "\"orgName\" is missing".into()),
            (json(format!(r#"{{"token":"{secret}","token":"t"}}"#)), "\"expDate\" once each".into()),
            (json(format!(r#"{{"orgName":" ","token":"{secret}","expDate":"{EXPIRY}"}}"#)), "empty \"orgName\"".into()),
            (json(format!(r#"{{"orgName":"a","token":" ","expDate":"{secret}"}}"#)), "empty \"token\"".into()),
            (json(format!(r#"{{"orgName":"a","token":"{secret}","expDate":"{secret}"}}"#)), "not a time".into()),
        ] {
            let error = TokenFile::parse(&bytes).unwrap_err();
            let output = format!("{error} {error:?}");
            assert!(output.contains(&sentence), "{output} lacks {sentence}");
            assert!(!output.contains("hunter2"), "{output} quotes the content");
        }
    }

    #[test]
    fn a_name_has_an_end() {
        let of = |length: usize| {
            file(&format!(r#"{{"orgName":"{}","token":"t","expDate":"{EXPIRY}"}}"#, "ä".repeat(length)))
        };
        assert!(TokenFile::parse(of(512).as_bytes()).is_ok());
        assert_eq!(TokenFile::parse(of(513).as_bytes()).unwrap_err(), TokenFileError::LongName);
    }

    #[test]
    fn the_largest_file_is_read() {
        let bare = JSON.len();
        let json = JSON.replace("c2VjcmV0", &"x".repeat(MAX_BYTES / 4 * 3 - bare + "c2VjcmV0".len()));
        let text = file(&json);
        assert_eq!(text.len(), MAX_BYTES);
        assert!(TokenFile::parse(text.as_bytes()).is_ok());
        assert_eq!(TokenFile::parse(format!("{text}\n").as_bytes()).unwrap_err(), TokenFileError::TooLong);
    }

    #[test]
    fn the_digest_is_of_the_string_sent() {
        let plain =
            TokenFile::parse(b"eyJvcmdOYW1lIjoiYSIsInRva2VuIjoidCIsImV4cERhdGUiOiIyMDI3LTAxLTIyVDE3OjMyOjA3WiJ9")
                .unwrap();
        assert_eq!(
            plain.sha256(TokenEncoding::AsIs),
            "c2ba1a78873eba485b99013acbe64e364f6dbf3f5b68b3e121e49a89bca6e15f"
        );
        assert_eq!(
            plain.sha256(TokenEncoding::Base64),
            "ecdb79fb9b8351f87cccb865ac7a1e2c4dcdc0de2f2eb2a271e51c8bba0cc66e"
        );
        let encoded = plain.to_send(TokenEncoding::Base64);
        assert_eq!(
            STANDARD.decode(encoded.expose_secret()).unwrap(),
            plain.to_send(TokenEncoding::AsIs).expose_secret().as_bytes()
        );
    }

    #[test]
    fn what_is_sensitive_is_what_is_sent_and_what_is_inside() {
        let read = TokenFile::parse(file(JSON).as_bytes()).unwrap();
        let sensitive: Vec<String> = read.sensitive().iter().map(|secret| secret.expose_secret().to_owned()).collect();
        assert_eq!(sensitive, [file(JSON), file(&file(JSON)), "c2VjcmV0>>>???~~~".to_owned()]);
    }

    #[test]
    fn debug_shows_no_token() {
        let debug = format!("{:?}", TokenFile::parse(file(JSON).as_bytes()).unwrap());
        assert!(!debug.contains("c2VjcmV0") && !debug.contains(&file(JSON)[..12]), "{debug}");
    }

    /// Whether a text quotes eight characters of the content, other than the names of the keys.
    fn quotes(output: &str, content: &str) -> bool {
        const KEYS: [&str; 4] =
            ["{\"orgName\":", ",\"token\":", ",\"expDate\":", "\"orgName\", \"token\" and \"expDate\""];
        let characters: Vec<char> = content.chars().collect();
        let mut pieces = characters.windows(8).map(|piece| piece.iter().collect::<String>());
        pieces.any(|piece| output.contains(&piece) && !KEYS.iter().any(|key| key.contains(&piece)))
    }

    /// A token file, and what people and programs make of one.
    fn damaged() -> impl Strategy<Value = (String, Vec<u8>)> {
        let json = "[A-Za-z0-9]{8,24}".prop_flat_map(|secret| {
            let expiry = "2031-05-06T01:02:03-0700";
            let texts = vec![
                format!(r#"{{"orgName":"{secret}","token":"{secret}","expDate":"{secret}"}}"#),
                format!(r#"{{"orgName":"{secret}","{secret}":"{secret}","expDate":"{expiry}"}}"#),
                format!(r#"{{"orgName":["{secret}"],"token":"{secret}","expDate":"{expiry}"}}"#),
                format!(r#"{{"orgName":"a","token":{{"{secret}":1}},"expDate":"{expiry}"}}"#),
                format!(r#"{{"orgName":"a","token":"{secret}","token":"{secret}","expDate":"{expiry}"}}"#),
                format!(r#"["{secret}","{secret}","{secret}"]"#),
                format!("\"{secret}\""),
                secret,
            ];
            select(texts)
        });
        (json, 0..6usize, any::<Index>(), any::<u8>()).prop_map(|(json, how, at, byte)| {
            let mut bytes = match how {
                0 => json.clone().into_bytes(),
                1 => file(&file(&json)).into_bytes(),
                2 => URL_SAFE.encode(&json).into_bytes(),
                _ => file(&json).into_bytes(),
            };
            let at = at.index(bytes.len());
            match how {
                3 => bytes[at] = byte,
                4 => bytes.truncate(at),
                _ => {}
            }
            (json, bytes)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_error_quotes_eight_characters_of_the_file((content, bytes) in damaged()) {
            if let Err(error) = TokenFile::parse(&bytes) {
                let output = format!("{error} {error:?}");
                prop_assert!(!quotes(&output, &content), "{} quotes {}", output, content);
                prop_assert!(!quotes(&output, &String::from_utf8_lossy(&bytes)), "{} quotes the bytes", output);
            }
        }

        #[test]
        fn no_bytes_are_quoted_or_make_it_panic(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "[A-Za-z0-9+/=\\s]{0,200}".prop_map(String::into_bytes),
                "\\PC{0,60}".prop_map(String::into_bytes),
            ]
        ) {
            let error = TokenFile::parse(&bytes).unwrap_err();
            let output = format!("{error} {error:?}");
            prop_assert!(!quotes(&output, &String::from_utf8_lossy(&bytes)), "{}", output);
        }

        #[test]
        fn the_position_is_that_of_the_character(before in "[a-zA-Z0-9\n\r\t ]{0,40}", after in "[a-z]{0,9}") {
            let text = format!("{before}%{after}");
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
            prop_assert_eq!(TokenFile::parse(text.as_bytes()).unwrap_err(), TokenFileError::NotBase64 { line, column });
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
