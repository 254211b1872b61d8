//! Slow start: a new endpoint is given its share little by little, while its caches fill.

/// The ramp (Envoy's slow start mode with aggression 1: a straight line from a least share).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// How long it takes to the whole share; 0 for no ramp.
    pub window_us: u64,
    /// The least share, in thousandths.
    pub min_permille: u32,
}

impl Default for SlowStart {
    /// 30 s, from a tenth (Envoy's `min_weight_percent`).
    fn default() -> SlowStart {
        SlowStart { window_us: 30_000_000, min_permille: 100 }
    }
}

impl SlowStart {
    /// The whole of a share.
    pub const WHOLE_PERMILLE: u32 = 1_000;

    /// The share of an endpoint that has been ready for so long, in thousandths: `max(least, ready / window)`; at least 1.
    #[must_use]
    pub fn share_permille(&self, ready_us: u64) -> u32 {
        if ready_us >= self.window_us {
            return Self::WHOLE_PERMILLE;
        }
        let ramp = u128::from(ready_us) * u128::from(Self::WHOLE_PERMILLE) / u128::from(self.window_us);
        let ramp = u32::try_from(ramp).unwrap_or(Self::WHOLE_PERMILLE);
        ramp.max(self.min_permille).clamp(1, Self::WHOLE_PERMILLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_in_a_straight_line_from_the_least() {
        let ramp = SlowStart { window_us: 60_000_000, min_permille: 100 };
        let share = |seconds: u64| ramp.share_permille(seconds * 1_000_000);
        assert_eq!(
            [share(0), share(6), share(15), share(30), share(60), share(600)],
            [100, 100, 250, 500, 1_000, 1_000]
        );
        assert_eq!(SlowStart { window_us: 0, min_permille: 0 }.share_permille(0), 1_000);
        assert_eq!(SlowStart { window_us: u64::MAX, min_permille: 0 }.share_permille(0), 1);
    }
}
