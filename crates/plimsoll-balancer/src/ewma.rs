//! Peak EWMA: a moving average of latencies that jumps to peaks and forgets by time (tower's `PeakEwma`, after Finagle's).
//!
//! Three things differ from those. One that was never measured is tried at once, by one request: with a default of 1 s alone it would be left alone for as long
//! as the others are quicker. The average fades by time alone only while nothing is
//! outstanding: an endpoint that is tried again after a peak is not given more before it answered. While something is outstanding, the
//! time since the last answer counts where it is longer than the average: silence is a measurement too.
//!
//! Integers only: the factor `e^(-elapsed / decay)` comes from a table of powers of two with straight lines between its entries.

/// How latencies are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencySettings {
    /// After so long an old latency counts for 1/e.
    pub decay_us: u64,
    /// What an endpoint is taken for while its first requests are outstanding.
    pub default_us: u64,
}

impl Default for LatencySettings {
    /// 10 s, and 1 s until measured: the defaults of Finagle and tower.
    fn default() -> LatencySettings {
        LatencySettings { decay_us: 10_000_000, default_us: 1_000_000 }
    }
}

/// Longer latencies count as this: 12 days.
const MAX_LATENCY_US: u64 = 1 << 40;
/// Longer time constants count as this: 71 minutes. It keeps the rounding of [`Decay`] below one part in 60,000.
const MAX_DECAY_US: u64 = 1 << 32;
/// Bits after the point of a factor.
const FACTOR_BITS: u32 = 20;
/// log2(e) with 32 bits after the point.
const LOG2_E: u64 = 0x1_7154_7653;
/// Parts of one halving in the table.
const STEPS: usize = 64;
/// `2^(-i / 64)` with 32 bits after the point.
const POWERS: [u64; STEPS + 1] = powers();

const fn powers() -> [u64; STEPS + 1] {
    /// `2^(-1 / 64)` with 64 bits after the point.
    const STEP: u128 = 0xfd3e_0c0c_f486_c174;
    let mut powers = [0; STEPS + 1];
    let mut power: u128 = 1 << 64;
    let mut index = 0;
    while index <= STEPS {
        powers[index] = ((power + (1 << 31)) >> 32) as u64;
        // 2^64 × 2^63 fits; the bit that is lost is far below what is kept.
        power = (power * (STEP >> 1)) >> 63;
        index += 1;
    }
    powers
}

/// Decay with one time constant: the division is done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decay {
    /// Halvings in a microsecond, with 48 bits after the point.
    halvings_per_us: u64,
    /// From here on nothing is left.
    end_us: u64,
}

impl Decay {
    /// After `decay_us` 1/e is left. A constant of 0 counts as 1 µs.
    pub(crate) const fn new(decay_us: u64) -> Decay {
        let decay_us = if decay_us == 0 {
            1
        } else if decay_us > MAX_DECAY_US {
            MAX_DECAY_US
        } else {
            decay_us
        };
        Decay { halvings_per_us: (LOG2_E << 16) / decay_us, end_us: decay_us * 14 }
    }

    /// What is left after so long, with 20 bits after the point.
    fn factor(&self, elapsed_us: u64) -> u64 {
        if elapsed_us >= self.end_us {
            return 0;
        }
        // Below 14 × log2(e) = 20.2 halvings by the bound above: 48 + 5 bits.
        let halvings = elapsed_us * self.halvings_per_us;
        let (whole, part) = (halvings >> 48, halvings & ((1 << 48) - 1));
        let (index, rest) = ((part >> 42) as usize, (part >> 26) & 0xffff);
        let (high, low) = (POWERS[index], POWERS[index + 1]);
        (high - (((high - low) * rest) >> 16)) >> (whole + u64::from(32 - FACTOR_BITS))
    }
}

/// The average of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeakEwma {
    latency_us: u64,
    updated_us: u64,
    /// Since when something is outstanding and nothing was answered; read only while something is outstanding.
    silent_since_us: u64,
    is_measured: bool,
}

impl PeakEwma {
    /// Not measured yet.
    pub(crate) fn new(settings: &LatencySettings) -> PeakEwma {
        PeakEwma { latency_us: settings.default_us.min(MAX_LATENCY_US), ..PeakEwma::default() }
    }

    /// A request started where nothing was outstanding.
    pub(crate) fn woke(&mut self, now_us: u64) {
        self.silent_since_us = now_us;
    }

    /// Takes a latency in: a longer one replaces the average, a shorter one moves it.
    pub(crate) fn observe(&mut self, now_us: u64, latency_us: u64, decay: &Decay) {
        let latency_us = latency_us.min(MAX_LATENCY_US);
        let factor = decay.factor(now_us.saturating_sub(self.updated_us));
        self.latency_us = if !self.is_measured || latency_us >= self.latency_us {
            latency_us
        } else {
            latency_us + (((self.latency_us - latency_us) * factor) >> FACTOR_BITS)
        };
        self.updated_us = self.updated_us.max(now_us);
        self.silent_since_us = now_us;
        self.is_measured = true;
    }

    /// What the endpoint is taken for at present, with so many requests outstanding there. It falls towards nothing while there are none, so
    /// that a slow endpoint is tried again some time.
    pub(crate) fn get(&self, now_us: u64, outstanding: u32, decay: &Decay) -> u64 {
        if outstanding > 0 {
            return self.latency_us.max(now_us.saturating_sub(self.silent_since_us).min(MAX_LATENCY_US));
        }
        if !self.is_measured {
            // Tried at once, but by one request: the default is what counts while that is outstanding.
            return 0;
        }
        (self.latency_us * decay.factor(now_us.saturating_sub(self.updated_us))) >> FACTOR_BITS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_factor_is_the_exponential(decay_us in 1_u64..MAX_DECAY_US, elapsed in 0_u64..60_000_000_000) {
            let exact = (-(elapsed as f64) / decay_us as f64).exp();
            let factor = Decay::new(decay_us).factor(elapsed) as f64 / f64::from(1 << FACTOR_BITS);
            prop_assert!((exact - factor).abs() < 2e-5, "{exact} {factor}");
        }

        #[test]
        fn any_numbers_do(decay_us: u64, times in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
            let decay = Decay::new(decay_us);
            let mut average = PeakEwma::new(&LatencySettings { decay_us, default_us: decay_us });
            for (now_us, latency_us) in times {
                average.observe(now_us, latency_us, &decay);
                prop_assert!(average.get(now_us, 0, &decay) <= MAX_LATENCY_US);
            }
        }

        #[test]
        fn a_series_is_averaged_as_by_floats(latencies in prop::collection::vec((1_u64..1_000_000, 1_u64..5_000_000), 1..50)) {
            let decay = Decay::new(10_000_000);
            let mut average = PeakEwma::new(&LatencySettings::default());
            let (mut now_us, mut exact) = (0, 0.0_f64);
            for (latency_us, gap_us) in latencies {
                now_us += gap_us;
                let left = (-(gap_us as f64) / 1e7).exp();
                exact = if latency_us as f64 >= exact { latency_us as f64 } else { exact * left + latency_us as f64 * (1.0 - left) };
                average.observe(now_us, latency_us, &decay);
                let is = average.get(now_us, 0, &decay) as f64;
                prop_assert!((is - exact).abs() <= exact * 1e-3 + 60.0, "{is} {exact}");
            }
        }
    }

    #[test]
    fn a_peak_replaces_the_average_and_then_fades() {
        let decay = Decay::new(10_000_000);
        let mut average = PeakEwma::new(&LatencySettings::default());
        average.woke(7_000_000);
        assert_eq!((average.get(7_000_000, 0, &decay), average.get(7_500_000, 1, &decay)), (0, 1_000_000));
        average.observe(0, 1_000, &decay);
        assert_eq!(average.get(0, 0, &decay), 1_000);
        average.observe(0, 500_000, &decay);
        assert_eq!(average.get(0, 0, &decay), 500_000);
        // 500 ms / e after 10 s.
        assert!(
            (183_900..=183_960).contains(&average.get(10_000_000, 0, &decay)),
            "{}",
            average.get(10_000_000, 0, &decay)
        );
        assert_eq!(average.get(200_000_000, 0, &decay), 0);
    }
    #[test]
    fn an_endpoint_that_does_not_answer_looks_slower_and_slower() {
        let decay = Decay::new(10_000_000);
        let mut average = PeakEwma::new(&LatencySettings::default());
        average.observe(0, 4_000_000, &decay);
        // Idle for long: nothing is left of it, and it is tried once.
        assert_eq!(average.get(200_000_000, 0, &decay), 0);
        average.woke(200_000_000);
        assert_eq!(average.get(200_000_000, 1, &decay), 4_000_000);
        assert_eq!(average.get(209_000_000, 1, &decay), 9_000_000);
        average.observe(209_000_000, 9_000_000, &decay);
        assert_eq!(average.get(209_000_000, 3, &decay), 9_000_000);
    }
}
