//! Where request ids and jitter come from: random in production, seeded in a simulation.

use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A source of request ids and of jitter.
///
/// Everything random in this crate is drawn from here, so a simulation that passes [`SeededIds`] can be repeated.
pub trait IdSource: Send + Sync + 'static {
    /// An idempotency key of 16 to 64 characters that was never given out before.
    fn request_id(&self) -> String;

    /// A number from 0 to `bound` inclusive, for back-off and other spreading.
    fn jitter(&self, bound: u64) -> u64;
}

/// Random UUIDs from the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn request_id(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn jitter(&self, bound: u64) -> u64 {
        rand::rng().random_range(0..=bound)
    }
}

/// UUIDs and jitter that follow from a seed.
#[derive(Debug)]
pub struct SeededIds {
    rng: Mutex<StdRng>,
}

impl SeededIds {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> SeededIds {
        SeededIds { rng: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock().expect("drawing never panics, so the lock is never poisoned"))
    }
}

impl IdSource for SeededIds {
    fn request_id(&self) -> String {
        let bytes = self.with(|rng| rng.random::<[u8; 16]>());
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn jitter(&self, bound: u64) -> u64 {
        self.with(|rng| rng.random_range(0..=bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        let (a, b, other) = (SeededIds::new(7), SeededIds::new(7), SeededIds::new(8));
        let first = a.request_id();
        assert_eq!(first, b.request_id());
        assert_ne!(first, other.request_id());
        assert_ne!(first, a.request_id());
        assert_eq!(a.jitter(1000), {
            b.request_id();
            b.jitter(1000)
        });
        assert!((16..=64).contains(&first.len()));
    }
}
