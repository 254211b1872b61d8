//! How long to wait before the next try: exponential growth with full jitter, from a seed.
//!
//! Each agent draws from its own sequence, so that a thousand agents that lost the same coordinator do not come back in
//! the same millisecond, and a simulation that gives the seed gets the same waits in every run.

/// Waits between tries. Full jitter: each wait is uniform between the floor and a ceiling that doubles.
#[derive(Clone, Debug)]
pub struct Backoff {
    floor_ms: u64,
    cap_ms: u64,
    tries: u32,
    state: u64,
}

impl Backoff {
    /// Waits of at least `floor_ms` and at most `cap_ms` milliseconds.
    pub fn new(floor_ms: u64, cap_ms: u64, seed: u64) -> Backoff {
        Backoff { floor_ms: floor_ms.max(1), cap_ms: cap_ms.max(floor_ms).max(1), tries: 0, state: seed }
    }

    /// The next wait, in milliseconds. Never zero: a refused connect without a pause is a storm.
    pub fn next_ms(&mut self) -> u64 {
        let ceiling_ms =
            self.floor_ms.saturating_mul(1u64 << self.tries.min(32)).clamp(self.floor_ms, self.cap_ms);
        self.tries = self.tries.saturating_add(1);
        let span = ceiling_ms - self.floor_ms + 1;
        self.floor_ms + self.draw() % span
    }

    /// Called after a success: the next wait starts small again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// A uniform number below `bound` from the same sequence, for spreading starts. Zero where `bound` is zero.
    pub fn spread(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw() % bound }
    }

    fn draw(&mut self) -> u64 {
        // The splitmix64 step: a Weyl sequence and a mixer. Good enough for spreading, and needs no dependency.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A seed from a text, the same on every machine and in every run (FNV-1a).
pub fn seed_from(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_in_bounds_and_start_small_after_a_success() {
        let mut backoff = Backoff::new(100, 5_000, 7);
        assert!((100..=100).contains(&backoff.next_ms()));
        let waits: Vec<u64> = (0..50).map(|_| backoff.next_ms()).collect();
        assert!(waits.iter().all(|wait| (100..=5_000).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait > 2_500), "{waits:?}");
        backoff.reset();
        assert_eq!(backoff.next_ms(), 100);
    }

    #[test]
    fn two_seeds_differ_and_one_seed_repeats() {
        let draw = |seed| {
            let mut backoff = Backoff::new(1, 1_000_000, seed);
            (0..10).map(|_| backoff.next_ms()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(seed_from("node-1"), seed_from("node-2"));
    }
}
