//! Inputs near a given one, for runs without an engine that is guided by coverage.

/// Interesting bytes: ends, signs, and what separates things in text and in protobuf.
const SPICE: [u8; 16] =
    [0, 1, 0x7f, 0x80, 0xff, b'"', b'\'', b'{', b'[', b':', b'-', b'\n', b' ', b'$', b'0', b'9'];

/// A stream of pseudo-random numbers (splitmix64, <https://prng.di.unimi.it/splitmix64.c>): the same for the same seed.
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.roll() % (count.max(1) as u64)).unwrap_or(0)
    }
}

/// An input near `input`: one to four changes of bytes, cuts, repetitions and pieces of `other`.
pub fn near(input: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = SPICE[dice.below(SPICE.len())],
            2 => bytes.insert(at, SPICE[dice.below(SPICE.len())]),
            3 => bytes.truncate(at),
            4 if at < bytes.len() => {
                let end = (at + 1 + dice.below(8)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let piece = bytes[at..(at + dice.below(16)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = dice.below(other.len() + 1);
                let piece = other[from..(from + dice.below(24)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}
