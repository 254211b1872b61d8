//! How bad a contention is: of two integers in thousandths, the worse.

use super::Contended;

/// How bad a contention is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Somebody waits for it.
    #[default]
    Low,
    /// A quarter of what the pool has is missing, or a latency target is missed.
    Medium,
    /// As much again as the pool has is missing, or somebody waits for twice its target.
    High,
    /// Three times what the pool has is missing, or somebody waits for four times its target.
    Critical,
}

impl Severity {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Severity); 4] = [
        ("low", Severity::Low),
        ("medium", Severity::Medium),
        ("high", Severity::High),
        ("critical", Severity::Critical),
    ];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

/// Which threshold counts: those to keep a severity are lower than those to reach it, so that it does not flap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// To reach a severity.
    Reach,
    /// To keep it: four fifths of the former.
    Keep,
}

/// From so many thousandths on: of the pressure, and of the longest wait against its target.
const THRESHOLDS: [(Severity, u64, u64); 3] =
    [(Severity::Critical, 3_000, 4_000), (Severity::High, 1_000, 2_000), (Severity::Medium, 250, 1_000)];

/// Demand beyond what is open, in thousandths of the capacity: at least 1 where there is any, and the far end where there is no capacity.
pub fn pressure_permille(demand: u64, open: u64, capacity: u64) -> u64 {
    let missing = demand.saturating_sub(open);
    if missing == 0 {
        return 0;
    }
    if capacity == 0 {
        return u64::MAX;
    }
    let permille = u128::from(missing) * 1_000 / u128::from(capacity);
    u64::try_from(permille).unwrap_or(u64::MAX).max(1)
}

impl Contended {
    /// Demand beyond what is open, in thousandths of the capacity.
    pub fn pressure_permille(&self) -> u64 {
        pressure_permille(self.demand, self.open, self.capacity)
    }

    /// The severity of what was measured: somebody waits, so it is at least low.
    pub fn severity(&self, rung: Rung) -> Severity {
        let at = |threshold: u64| match rung {
            Rung::Reach => threshold,
            Rung::Keep => threshold * 4 / 5,
        };
        let pressure = self.pressure_permille();
        let reached = |(_, missing, late): &&(Severity, u64, u64)| {
            pressure >= at(*missing) || self.wait_permille >= at(*late)
        };
        THRESHOLDS.iter().find(reached).map_or(Severity::Low, |(severity, ..)| *severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(demand: u64, wait_permille: u64) -> Contended {
        Contended { demand, capacity: 1_000, wait_permille, ..Contended::default() }
    }

    #[test]
    fn the_worse_of_both_counts() {
        for (demand, wait, severity) in [
            (1, 0, Severity::Low),
            (249, 999, Severity::Low),
            (250, 0, Severity::Medium),
            (1, 1_000, Severity::Medium),
            (999, 1_999, Severity::Medium),
            (1_000, 0, Severity::High),
            (1, 2_000, Severity::High),
            (3_000, 0, Severity::Critical),
            (1, 4_000, Severity::Critical),
        ] {
            assert_eq!(seen(demand, wait).severity(Rung::Reach), severity, "{demand} {wait}");
        }
    }

    #[test]
    fn less_keeps_a_severity_than_reaches_it() {
        assert_eq!(seen(200, 0).severity(Rung::Keep), Severity::Medium);
        assert_eq!(seen(200, 0).severity(Rung::Reach), Severity::Low);
        assert_eq!(seen(199, 799).severity(Rung::Keep), Severity::Low);
    }

    #[test]
    fn pressure_is_exact_at_its_ends() {
        assert_eq!(pressure_permille(5, 5, 0), 0);
        assert_eq!(pressure_permille(6, 5, 0), u64::MAX);
        assert_eq!(pressure_permille(1, 0, u64::MAX), 1);
        assert_eq!(pressure_permille(u64::MAX, 0, 1), u64::MAX);
        assert_eq!(pressure_permille(10, 2, 4), 2_000);
    }
}
