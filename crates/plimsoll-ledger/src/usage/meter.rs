//! Meters: what is counted, for whom, and when it starts anew.

use plimsoll_types::LedgerTime;

use super::calendar::{DAY_MS, date_of, day, month, month_start};

/// For whom a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// For all whom the quota is about, together.
    Together,
    /// For each user: the request's tenant, or who asked where it names none.
    User,
    /// For each run: the request's label `run`, or `pipeline` where it has none. Requests without either are not counted.
    Run,
}

/// What a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Grants that have not ended.
    Concurrent,
    /// Bytes of `storage` and `storage/...` of grants that have not ended.
    Storage,
    /// Grants made.
    Starts,
    /// Cores x hours, in millionths.
    CpuHours,
    /// Devices x hours, in millionths.
    GpuHours,
    /// GiB of memory x hours, in millionths.
    MemoryHours,
    /// Money, in millionths of the currency.
    Cost,
}

/// When a meter starts anew, by ledger time and the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reset {
    /// It counts what is there now: what ends is given back in full.
    Live,
    /// At midnight.
    Day,
    /// At midnight of the first of each month.
    Month,
    /// Never.
    Never,
    /// What was spent counts half after so many milliseconds, a quarter after twice as many, and so on.
    Rolling(u64),
}

/// What is counted, for whom, and when it starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter {
    /// For whom.
    pub scope: Scope,
    /// What.
    pub measure: Measure,
    /// When it starts anew.
    pub reset: Reset,
}

impl Measure {
    /// All of them, by the names that people read.
    pub const NAMED: [(&str, Measure); 7] = [
        ("concurrent", Measure::Concurrent),
        ("storage", Measure::Storage),
        ("starts", Measure::Starts),
        ("cpu-hours", Measure::CpuHours),
        ("gpu-hours", Measure::GpuHours),
        ("memory-hours", Measure::MemoryHours),
        ("cost", Measure::Cost),
    ];

    /// The name that people read.
    pub fn name(self) -> &'static str {
        Measure::NAMED.iter().find(|(_, measure)| *measure == self).map_or("", |(name, _)| *name)
    }

    /// True for what grows with time: in millionths.
    pub fn is_timed(self) -> bool {
        matches!(self, Measure::CpuHours | Measure::GpuHours | Measure::MemoryHours | Measure::Cost)
    }

    /// True for what counts only while a grant lives.
    pub fn is_live(self) -> bool {
        matches!(self, Measure::Concurrent | Measure::Storage)
    }
}

impl Reset {
    /// The period that a moment is in; 0 for those that have none.
    pub fn period(self, at: LedgerTime) -> u64 {
        match self {
            Reset::Day => day(at),
            Reset::Month => month(at),
            Reset::Live | Reset::Never | Reset::Rolling(_) => 0,
        }
    }

    /// First moment after a period; `None` for those that have none.
    pub fn end_of(self, period: u64) -> Option<LedgerTime> {
        match self {
            Reset::Day => Some(LedgerTime((period + 1).saturating_mul(DAY_MS))),
            Reset::Month => Some(month_start(period + 1)),
            Reset::Live | Reset::Never | Reset::Rolling(_) => None,
        }
    }

    /// How it starts anew, for people, as of a moment: `resets 2026-11-22 00:00 UTC`. Empty where it does not.
    pub fn told(self, now: LedgerTime) -> String {
        match (self, self.end_of(self.period(now))) {
            (_, Some(end)) => format!("resets {} 00:00 UTC", date_of(end)),
            (Reset::Rolling(half_life_ms), None) => format!("halves every {} s", half_life_ms / 1_000),
            _ => String::new(),
        }
    }
}

impl Meter {
    /// A meter.
    pub fn new(scope: Scope, measure: Measure, reset: Reset) -> Meter {
        Meter { scope, measure, reset }
    }

    /// False where the three do not go together: what lives now resets with nothing, and what adds up needs a word on when it does.
    pub fn makes_sense(&self) -> bool {
        let rolls = !matches!(self.reset, Reset::Rolling(0));
        rolls && self.measure.is_live() == (self.reset == Reset::Live)
    }
}
