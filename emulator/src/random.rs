//! Where ids, access tokens and other random texts come from: the operating system, or a seed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use uuid::Uuid;

/// A generator of random texts. Not for cryptography: nothing that an emulator gives out protects anything.
pub struct Random {
    source: Source,
}

enum Source {
    System,
    /// The state of a SplitMix64 generator.
    Seeded(u64),
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::System => "Random(system)",
            Source::Seeded(_) => "Random(seeded)",
        })
    }
}

impl Random {
    /// Uses the operating system: never the same twice.
    #[must_use]
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// Begins with a seed: the same seed gives the same texts in the same order.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { source: Source::Seeded(seed) }
    }

    /// A random GUID.
    pub(crate) fn guid(&mut self) -> String {
        self.uuid().to_string()
    }

    /// A random text of `words` times 22 characters that are safe in URLs and headers.
    pub(crate) fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| URL_SAFE_NO_PAD.encode(self.uuid().as_bytes())).collect()
    }

    fn uuid(&mut self) -> Uuid {
        match &mut self.source {
            Source::System => Uuid::new_v4(),
            Source::Seeded(state) => {
                let (high, low) = (next(state), next(state));
                let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
                uuid::Builder::from_random_bytes(bytes).into_uuid()
            }
        }
    }
}

/// One step of SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all_texts() {
        let texts = |mut random: Random| [random.guid(), random.guid(), random.text(2)];
        assert_eq!(texts(Random::seeded(7)), texts(Random::seeded(7)));
        assert_ne!(texts(Random::seeded(7)), texts(Random::seeded(8)));
        assert_ne!(texts(Random::system()), texts(Random::system()));
        let [one, other, text] = texts(Random::seeded(7));
        assert_ne!(one, other);
        assert_eq!((one.len(), one.as_bytes().get(14), text.len()), (36, Some(&b'4'), 44));
    }
}
