//! The only source of chance in a simulation: splitmix64, the same numbers on every platform and in every version.

/// A generator that only its seed decides.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator for one purpose (`stream`) of the run with this seed: what one part draws never moves another.
    pub fn of(seed: u64, stream: &str) -> Rng {
        let name = stream.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut rng = Rng { state: seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ name };
        rng.draw();
        rng
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included; `low` where they are the wrong way round.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let drawn = self.draw();
        match high.checked_sub(low) {
            Some(u64::MAX) => drawn,
            Some(span) => low + drawn % (span + 1),
            None => low,
        }
    }

    /// True in about so many of a hundred draws.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.between(0, 99) < chance
    }

    /// One of these, each as likely as its weight says; `None` where all weights are zero.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> Option<T> {
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.between(0, total.checked_sub(1)?);
        for (weight, choice) in choices {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return Some(*choice),
            }
        }
        None
    }

    /// A place in a list of this length; `None` for an empty one.
    pub fn place(&mut self, length: usize) -> Option<usize> {
        let last = u64::try_from(length.checked_sub(1)?).ok()?;
        usize::try_from(self.between(0, last)).ok()
    }

    /// One of these; `None` where there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        self.place(choices.len()).and_then(|place| choices.get(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_are_independent_and_fixed() {
        let (mut a, mut again, mut other) = (Rng::of(1, "a"), Rng::of(1, "a"), Rng::of(1, "b"));
        let first = a.draw();
        assert_eq!(first, again.draw());
        assert_ne!(first, other.draw());
    }

    #[test]
    fn choices_follow_their_weights() {
        let mut rng = Rng::of(3, "weights");
        let drawn: Vec<char> =
            (0..1_000).filter_map(|_| rng.weighted(&[(9, 'a'), (0, 'b'), (1, 'c')])).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(!drawn.contains(&'b'));
        let rare = drawn.iter().filter(|choice| **choice == 'c').count();
        assert!((50..200).contains(&rare), "{rare}");
        assert_eq!(rng.weighted::<char>(&[]), None);
    }
}
