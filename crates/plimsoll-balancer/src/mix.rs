//! One stable 64-bit mixer for everything here that wants scattered numbers: points of the ring, rendezvous scores,
//! further draws out of one.
//!
//! Its values are part of what a client sees (which endpoint a key belongs to), so they must never change between
//! builds: all who share a service must agree on them.

use std::hash::{BuildHasher, Hasher};

/// Scatters a number: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014; constants of Stafford's variant 13).
/// It is a bijection.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Scatters a pair of numbers; the order counts.
pub(crate) const fn mix_pair(first: u64, second: u64) -> u64 {
    mix(mix(first) ^ second)
}

/// A place below `count` from 32 random bits, by a multiplication in place of a division (Lemire, "Fast random integer
/// generation in an interval", 2019, without its correction: the bias is below `count` / 2^32). Zero where `count` is.
pub(crate) const fn below(bits: u32, count: u32) -> u32 {
    ((bits as u64 * count as u64) >> 32) as u32
}

/// Hashes by [`mix`]: no seed, the same in every process. Keys come from callers who are trusted with their own endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mixed;

/// The hasher of [`Mixed`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MixedHasher(u64);

impl BuildHasher for Mixed {
    type Hasher = MixedHasher;

    fn build_hasher(&self) -> MixedHasher {
        MixedHasher::default()
    }
}

impl Hasher for MixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change() {
        // The second is the first output of SplitMix64 with seed 0, as its reference prints it.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(Mixed.hash_one(0_u64), mix(0));
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn places_are_below_the_count_and_reach_both_ends() {
        assert_eq!((below(0, 10), below(u32::MAX, 10)), (0, 9));
        assert_eq!((below(u32::MAX, 0), below(u32::MAX, 1), below(u32::MAX, u32::MAX)), (0, 0, u32::MAX - 1));
    }
}
