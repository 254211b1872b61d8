//! Eviction thresholds: how full a node may measure before best effort of a class leaves it (`docs/semantics.md` 5.20).
//!
//! The ledger measures nothing. The leader says what it saw, in the command; here is the law that says whether it suffices, asked by the leader
//! that looks for somebody to leave and by apply.

use std::fmt;
use std::str::FromStr;

use plimsoll_mutants::mutant;
use plimsoll_types::quantity::{format_duration_ms, parse_duration_ms};
use plimsoll_types::{NodeEpoch, NodeId};

use crate::limits::{MAX_EVICT_FOR_MS, MIN_EVICT_FOR_MS};
use crate::{Class, Ledger, Preemption, Reason, Refusal, Reservation, State};

/// First ledger version that knows eviction thresholds.
pub(crate) const SINCE_VERSION: u32 = 9;

/// How long a threshold has to be crossed where nothing is said, in milliseconds.
const DEFAULT_FOR_MS: u64 = 30_000;

/// What of a node is measured, as a share of all there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gauge {
    /// Processor time in use.
    Cpu,
    /// Memory in use, of that and what could be had without swapping.
    Memory,
    /// Time in which some task waited for a processor.
    CpuPressure,
    /// Time in which some task waited for memory.
    MemoryPressure,
    /// Time in which some task waited for storage.
    IoPressure,
}

impl Gauge {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Gauge); 5] = [
        ("cpu", Gauge::Cpu),
        ("memory", Gauge::Memory),
        ("cpu_pressure", Gauge::CpuPressure),
        ("memory_pressure", Gauge::MemoryPressure),
        ("io_pressure", Gauge::IoPressure),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Gauge::NAMED.iter().find(|(_, gauge)| *gauge == self).map_or("", |(name, _)| name)
    }
}

/// When best effort of a class has to leave a node: `memory > 90% for 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictWhen {
    /// What is measured.
    pub gauge: Gauge,
    /// More than this, in thousandths of what there is: 1 to 999.
    pub above_permille: u32,
    /// For so long, in milliseconds: 1,000 to 3,600,000.
    pub for_ms: u64,
}

impl fmt::Display for EvictWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EvictWhen { gauge, above_permille, for_ms } = self;
        let percent = percent(*above_permille);
        write!(f, "{} > {percent} for {}", gauge.name(), format_duration_ms(*for_ms))
    }
}

/// A text that is no threshold: what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvictWhenError {
    /// It has another form.
    #[error("{0:?} is no threshold: write GAUGE > PERCENT for DURATION, as in memory > 90% for 30s")]
    Form(String),
    /// There is no such gauge.
    #[error("{0:?} is not measured: there are cpu, memory, cpu_pressure, memory_pressure and io_pressure")]
    Gauge(String),
    /// The share makes no sense.
    #[error("{0:?} is no share: write 0.1% to 99.9%, with one digit behind the point at most")]
    Share(String),
    /// The time makes no sense.
    #[error("{0:?} is no time for it: 1s to 1h")]
    Time(String),
}

impl FromStr for EvictWhen {
    type Err = EvictWhenError;

    fn from_str(text: &str) -> Result<EvictWhen, EvictWhenError> {
        let form = || EvictWhenError::Form(text.to_owned());
        let (gauge, rest) = text.split_once('>').ok_or_else(form)?;
        let (share, time) = match rest.trim().split_once(" for ") {
            Some((share, time)) => (share, Some(time.trim())),
            None => (rest, None),
        };
        let (gauge, share) = (gauge.trim(), share.trim());
        let known = Gauge::NAMED.iter().find(|(name, _)| *name == gauge);
        let gauge = known.ok_or_else(|| EvictWhenError::Gauge(gauge.to_owned()))?.1;
        let above_permille = permille(share).ok_or_else(|| EvictWhenError::Share(share.to_owned()))?;
        let read = |time: &str| parse_duration_ms(time).map_err(|_| EvictWhenError::Time(time.to_owned()));
        let for_ms = time.map_or(Ok(DEFAULT_FOR_MS), read)?;
        if !(MIN_EVICT_FOR_MS..=MAX_EVICT_FOR_MS).contains(&for_ms) {
            return Err(EvictWhenError::Time(time.unwrap_or_default().to_owned()));
        }
        Ok(EvictWhen { gauge, above_permille, for_ms })
    }
}

/// `92.5%` is 925.
fn permille(share: &str) -> Option<u32> {
    let number = share.strip_suffix('%')?.trim_end();
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(tenths) || tenths.len() > 1 {
        return None;
    }
    let permille = whole.parse::<u32>().ok()?.checked_mul(10)?.checked_add(tenths.parse().ok()?)?;
    (1..=999).contains(&permille).then_some(permille)
}

/// 925 is `92.5%`, 900 is `90%`.
pub fn percent(permille: u32) -> String {
    match permille % 10 {
        0 => format!("{}%", permille / 10),
        tenth => format!("{}.{tenth}%", permille / 10),
    }
}

/// What the leader saw of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Which node.
    pub node: NodeId,
    /// The incarnation that measured it; another is refused.
    pub epoch: NodeEpoch,
    /// What was measured.
    pub gauge: Gauge,
    /// The newest sample, in thousandths.
    pub measured_permille: u32,
    /// For how long every sample was above the threshold, in milliseconds.
    pub over_ms: u64,
}

/// Why a grant had to leave a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// What the leader saw.
    pub overload: Overload,
    /// What its class took for the most, in thousandths.
    pub above_permille: u32,
}

impl fmt::Display for Evicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overload { gauge, measured_permille, over_ms, .. } = self.overload;
        let (measured, above) = (percent(measured_permille), percent(self.above_permille));
        write!(f, "{} at {measured}, above {above} for {}", gauge.name(), format_duration_ms(over_ms))
    }
}

impl Class {
    /// Why best effort of this class has to leave a node that measures so; `None` where it has not.
    pub fn evicts(&self, overload: &Overload) -> Option<Evicted> {
        let when = self.evict_when?;
        let crossed = overload.gauge == when.gauge && overload.measured_permille > when.above_permille;
        (crossed && overload.over_ms >= when.for_ms)
            .then_some(Evicted { overload: *overload, above_permille: when.above_permille })
    }
}

impl Ledger {
    /// Whether a holder may be made to leave a node for what was measured there, and why.
    ///
    /// # Errors
    /// Why it may not.
    pub fn eviction(&self, holder: &Reservation, overload: &Overload) -> Result<Evicted, Refusal> {
        let no = |what: &str, asked: u64, available: u64| {
            Err(Refusal::one(Reason::NotPreemptible, format!("{}: {what}", holder.id), asked, available))
        };
        if !matches!(holder.state, State::Held | State::Active | State::Partial) {
            return no(&format!("{} cannot leave", holder.state.name()), 1, 0);
        }
        if !holder.members.iter().any(|member| member.node == overload.node) {
            return no("is not on that node", 1, 0);
        }
        if !holder.is_best_effort() && !mutant!("evict-the-backed") {
            return no("is backed, and only best effort leaves a node that is too full", 1, 0);
        }
        let class = self.class(&holder.request.class);
        let Some(evicted) = class.and_then(|class| class.evicts(overload)) else {
            let measured = u64::from(overload.measured_permille);
            let above = class.and_then(|class| class.evict_when).map_or(1_000, |when| when.above_permille);
            return no("its class stays at what was measured", measured, above.into());
        };
        let pool = &holder.request.pool;
        if self.pool(pool).is_none_or(|pool| pool.preemption == Preemption::Never) {
            return no(&format!("pool {pool} takes nothing back"), 1, 0);
        }
        let left = self.preemptions_left(pool);
        if left == 0 {
            return no(&format!("preemptions of pool {pool} in an hour"), 1, left);
        }
        let protected_until = self.protected_until(holder);
        if self.clock() < protected_until {
            return no("protected from preemption until then", self.clock().0, protected_until.0);
        }
        Ok(evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_and_written_as_people_do() {
        for (text, shown) in [
            ("memory > 90%", "memory > 90% for 30s"),
            ("cpu>95.5 % for 2m", "cpu > 95.5% for 2m"),
            ("io_pressure > 0.1% for 1s", "io_pressure > 0.1% for 1s"),
            ("memory_pressure > 20% for 1h", "memory_pressure > 20% for 1h"),
        ] {
            let read: EvictWhen = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse(), Ok(read));
        }
        for (text, part) in [
            ("", "no threshold"),
            ("memory", "no threshold"),
            ("disk > 5%", "not measured"),
            ("memory > 90", "no share"),
            ("memory > 0%", "no share"),
            ("memory > 100%", "no share"),
            ("memory > 1.25%", "no share"),
            ("memory > .5%", "no share"),
            ("memory > 99999999999%", "no share"),
            ("memory > 90% for 0s", "no time"),
            ("memory > 90% for 2h", "no time"),
            ("memory > 90% for ever", "no time"),
        ] {
            let error = text.parse::<EvictWhen>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
