//! Limits of a workload in the kernel's words: what a grant and its quality of service make of `cpu.max`, `cpu.weight` and `memory.*`.
//!
//! | quality | cpu.max | cpu.weight | memory.max | memory.high | memory.low |
//! | --- | --- | --- | --- | --- | --- |
//! | exactly | granted | by what is granted | granted | none | granted |
//! | up to a burst | burst, or none | by what is granted | burst, or none | granted + 9/10 of what is beyond it | granted |
//! | what is idle | none | the least | none | none | none |
//!
//! An amount of zero was not asked for, and is not limited. Where a burst begins to be slowed down is the formula of Kubernetes' memory
//! quality of service (KEP-2570, `memoryThrottlingFactor` 0.9).

/// Scheduling period of the processor limit, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// Smallest processor share that the kernel takes, in microseconds per period.
const MIN_CPU_QUOTA_US: u64 = 1_000;
/// From here on a processor limit limits nothing, in thousandths of a core: the kernel refuses quotas without measure.
const UNLIMITED_CPU_MILLIS: u64 = 1_000_000_000;
/// The weight of best effort: the kernel's least.
const LEAST_WEIGHT: u64 = 1;
/// The kernel's greatest weight.
const GREATEST_WEIGHT: u64 = 10_000;
/// A core weighs 100, which is the kernel's default weight.
const CPU_MILLIS_PER_WEIGHT: u64 = 10;

/// Amounts on this machine; zero is "not asked for".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkloadAmounts {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// How far a workload may go beyond what it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not at all.
    Exactly,
    /// Up to these amounts, while they are idle; zero is "as far as there is".
    UpTo(WorkloadAmounts),
    /// Nothing is its own, and it may use whatever nobody else does.
    WhatIsIdle,
}

/// Limits of a workload; `None` is no limit of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadLimits {
    /// Most processor time, in thousandths of a core.
    pub cpu_max_millis: Option<u64>,
    /// Share of processor time beside others, 1 to 10,000.
    pub cpu_weight: u64,
    /// Most memory, in bytes: past it the kernel kills.
    pub memory_max_bytes: Option<u64>,
    /// Memory from which on it is slowed down and has pages taken back, in bytes.
    pub memory_high_bytes: Option<u64>,
    /// Memory that is taken back from it only when nothing else is left, in bytes.
    pub memory_low_bytes: u64,
    /// Share of the disks' time beside others, 1 to 10,000.
    pub io_weight: Option<u64>,
}

impl WorkloadLimits {
    /// Limits of a workload with `granted` on this machine.
    pub fn new(granted: WorkloadAmounts, reach: Reach, io_weight: Option<u64>) -> WorkloadLimits {
        let asked = |amount: u64| (amount > 0).then_some(amount);
        // Best effort alone has the least weight, however little another one was granted.
        let backed_weight =
            (granted.cpu_millis / CPU_MILLIS_PER_WEIGHT).clamp(LEAST_WEIGHT + 1, GREATEST_WEIGHT);
        match reach {
            Reach::Exactly => WorkloadLimits {
                cpu_max_millis: asked(granted.cpu_millis),
                cpu_weight: backed_weight,
                memory_max_bytes: asked(granted.memory_bytes),
                memory_high_bytes: None,
                memory_low_bytes: granted.memory_bytes,
                io_weight,
            },
            Reach::UpTo(burst) => WorkloadLimits {
                cpu_max_millis: asked(burst.cpu_millis),
                cpu_weight: backed_weight,
                memory_max_bytes: asked(burst.memory_bytes),
                memory_high_bytes: asked(burst.memory_bytes)
                    .map(|burst| slowed_from(granted.memory_bytes, burst)),
                memory_low_bytes: granted.memory_bytes,
                io_weight,
            },
            Reach::WhatIsIdle => WorkloadLimits {
                cpu_max_millis: None,
                cpu_weight: LEAST_WEIGHT,
                memory_max_bytes: None,
                memory_high_bytes: None,
                memory_low_bytes: 0,
                io_weight: Some(io_weight.unwrap_or(LEAST_WEIGHT)),
            },
        }
    }

    /// Files of a cgroup with what to write to them.
    pub(super) fn files(&self) -> [(&'static str, String); 5] {
        let bytes = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        [
            ("cpu.max", cpu_max(self.cpu_max_millis)),
            ("cpu.weight", self.cpu_weight.to_string()),
            ("memory.low", self.memory_low_bytes.to_string()),
            ("memory.high", bytes(self.memory_high_bytes)),
            ("memory.max", bytes(self.memory_max_bytes)),
        ]
    }
}

fn slowed_from(granted: u64, burst: u64) -> u64 {
    let beyond = burst.saturating_sub(granted);
    granted.saturating_add(beyond / 10 * 9 + beyond % 10 * 9 / 10)
}

/// The text of `cpu.max`.
fn cpu_max(cpu_millis: Option<u64>) -> String {
    match cpu_millis.filter(|millis| *millis < UNLIMITED_CPU_MILLIS) {
        Some(millis) => {
            let quota_us = (millis * (CPU_PERIOD_US / 1000)).max(MIN_CPU_QUOTA_US);
            format!("{quota_us} {CPU_PERIOD_US}")
        }
        None => format!("max {CPU_PERIOD_US}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANTED: WorkloadAmounts = WorkloadAmounts { cpu_millis: 1_500, memory_bytes: 1 << 30 };

    fn written(reach: Reach) -> String {
        let files = WorkloadLimits::new(GRANTED, reach, None).files();
        files.map(|(name, text)| format!("{name} {text}")).join(", ")
    }

    #[test]
    fn each_quality_has_its_limits() {
        assert_eq!(
            written(Reach::Exactly),
            "cpu.max 150000 100000, cpu.weight 150, memory.low 1073741824, memory.high max, memory.max 1073741824"
        );
        let burst = WorkloadAmounts { cpu_millis: 4_000, memory_bytes: 2 << 30 };
        assert_eq!(
            written(Reach::UpTo(burst)),
            "cpu.max 400000 100000, cpu.weight 150, memory.low 1073741824, memory.high 2040109465, memory.max 2147483648"
        );
        assert_eq!(
            written(Reach::UpTo(WorkloadAmounts::default())),
            "cpu.max max 100000, cpu.weight 150, memory.low 1073741824, memory.high max, memory.max max"
        );
        assert_eq!(
            written(Reach::WhatIsIdle),
            "cpu.max max 100000, cpu.weight 1, memory.low 0, memory.high max, memory.max max"
        );
    }

    #[test]
    fn what_was_not_asked_for_is_not_limited_and_extremes_are_what_the_kernel_takes() {
        let none = WorkloadLimits::new(WorkloadAmounts::default(), Reach::Exactly, Some(500));
        assert_eq!((none.cpu_max_millis, none.memory_max_bytes), (None, None));
        assert_eq!((none.cpu_weight, none.io_weight), (2, Some(500)), "more than best effort");
        assert_eq!(cpu_max(Some(1)), "1000 100000");
        assert_eq!(cpu_max(Some(u64::MAX)), "max 100000");
        let all = WorkloadAmounts { cpu_millis: u64::MAX, memory_bytes: u64::MAX };
        assert_eq!(WorkloadLimits::new(all, Reach::Exactly, None).cpu_weight, 10_000);
        assert_eq!(slowed_from(0, u64::MAX), 16_602_069_666_338_596_453);
        assert_eq!(WorkloadLimits::new(GRANTED, Reach::WhatIsIdle, None).io_weight, Some(1));
    }
}
