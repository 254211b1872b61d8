//! A small seeded generator (splitmix64): the same numbers on every platform and in every version of this crate.

/// A source of numbers that only the seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// A generator from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included; `low` where they are the wrong way round.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let drawn = self.next();
        match high.checked_sub(low) {
            Some(u64::MAX) => drawn,
            Some(span) => low + drawn % (span + 1),
            None => low,
        }
    }

    /// True in about so many of a thousand draws.
    pub(crate) fn permille(&mut self, chance: u32) -> bool {
        self.between(0, 999) < u64::from(chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        let mut rng = Rng::new(1);
        assert_eq!(rng.next(), 0x910a_2dec_8902_5cc1);
        assert!((0..1_000).all(|_| (3..=5).contains(&rng.between(3, 5))));
        assert_eq!(rng.between(5, 3), 5);
        assert!(!rng.permille(0));
        assert!(rng.permille(1_000));
    }
}
