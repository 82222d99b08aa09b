//! Removes from Graph's answers whatever was sent in secret, whole or in part.

use std::collections::HashSet;

use secrecy::{ExposeSecret, SecretString};

/// Pieces shorter than this are not recognised; they are also too short to be of use.
const PIECE: usize = 8;
const REDACTED: &str = "[redacted]";

/// Knows what must not be shown.
#[derive(Clone, Default)]
pub(super) struct Scrubber {
    secrets: Vec<SecretString>,
}

impl Scrubber {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a SecretString>) -> Self {
        Self { secrets: secrets.cloned().collect() }
    }

    /// The same, and one more secret.
    pub(super) fn and(&self, secret: &SecretString) -> Self {
        let mut more = self.clone();
        more.secrets.push(secret.clone());
        more
    }

    /// The text, with every piece of a secret replaced: also when the server cut the secret off.
    pub(super) fn scrub(&self, text: &str) -> String {
        let characters: Vec<char> = text.chars().collect();
        let mut hidden = vec![false; characters.len()];
        for secret in &self.secrets {
            let secret: Vec<char> = secret.expose_secret().chars().collect();
            let length = PIECE.min(secret.len());
            if length == 0 {
                continue;
            }
            let pieces: HashSet<&[char]> = secret.windows(length).collect();
            for (start, window) in characters.windows(length).enumerate() {
                if pieces.contains(window) {
                    hidden.iter_mut().skip(start).take(length).for_each(|hide| *hide = true);
                }
            }
        }
        let mut scrubbed = String::with_capacity(text.len());
        let mut before = false;
        for (character, hide) in characters.iter().zip(hidden) {
            match (hide, before) {
                (false, _) => scrubbed.push(*character),
                (true, false) => scrubbed.push_str(REDACTED),
                (true, true) => {}
            }
            before = hide;
        }
        scrubbed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_whole_and_in_part() {
        let secret: SecretString = "abcdefghijklmnopqrstuvwxyz".into();
        let scrubber = Scrubber::new([secret].iter());
        for (text, scrubbed) in [
            ("value 'abcdefghijklmnopqrstuvwxyz' is bad", "value '[redacted]' is bad"),
            ("value 'abcdefghijkl…' is bad", "value '[redacted]…' is bad"),
            ("ends with …stuvwxyz", "ends with …[redacted]"),
            ("abcdefg is short", "abcdefg is short"),
            ("", ""),
        ] {
            assert_eq!(scrubber.scrub(text), scrubbed);
        }
    }

    #[test]
    fn a_short_secret_is_hidden_too() {
        let scrubber = Scrubber::new([SecretString::from("pw1")].iter());
        assert_eq!(scrubber.scrub("'pw1' is wrong"), "'[redacted]' is wrong");
    }
}
