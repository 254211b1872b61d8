//! One metric's proposal: the algorithm of the Kubernetes Horizontal Pod Autoscaler with its words.
//!
//! `desired = ceil(current × metric / target)`, no action within the tolerance. Replicas without a reading count as the
//! whole target when that shrinks and as nothing when it grows; replicas that are not ready count as nothing when it
//! grows; where such a correction turns the direction round, nothing is done. Source: Kubernetes documentation,
//! "Horizontal Pod Autoscaling", section "Algorithm details", and the order of steps of its replica calculator.

use crate::policy::Aim;
use crate::signals::{Reading, ReplicaReading};

/// What one metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Replicas.
    pub replicas: u64,
    /// Metric over target in thousandths, after corrections; for two thresholds, over the upper one.
    pub ratio_permille: u64,
    /// Missing or not-ready replicas were counted by the rules above.
    pub corrected: bool,
}

/// Why a metric gives no proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// No reading.
    #[error("there is no reading")]
    NoReading,
    /// A whole where readings by replica are needed, or the other way round.
    #[error("the reading is of another form than the target")]
    WrongForm,
    /// The target is 0.
    #[error("the target is 0")]
    ZeroTarget,
}

/// What one metric asks for. O(replicas).
///
/// # Errors
/// Where there is nothing to go by; a failed metric forbids shrinking.
pub fn propose(
    aim: Aim,
    reading: Option<&Reading>,
    current: u64,
    ready: u64,
    tolerance_permille: u32,
) -> Result<Proposal, MetricError> {
    let reading = reading.filter(|reading| **reading != Reading::Failed).ok_or(MetricError::NoReading)?;
    let tolerance = u128::from(tolerance_permille);
    match (aim, reading) {
        (Aim::Average { target_milli }, Reading::Replicas(replicas)) => {
            average(Some(target_milli).filter(|target| *target > 0), replicas, current, tolerance)
        }
        (Aim::PerReplica { target_milli }, Reading::Whole(whole)) => {
            let ratio = Ratio::of(*whole, u128::from(target_milli) * u128::from(current.max(1)))?;
            let replicas = match ratio.within(tolerance) && current > 0 {
                true => current,
                false => whole.div_ceil(target_milli),
            };
            Ok(Proposal { replicas, ratio_permille: ratio.permille(), corrected: false })
        }
        (Aim::Value { target_milli }, Reading::Whole(whole)) => {
            let ratio = Ratio::of(*whole, target_milli.into())?;
            let replicas = match current {
                0 => ratio.ceil_times(1),
                _ if ratio.within(tolerance) => current,
                _ => ratio.ceil_times(ready),
            };
            Ok(Proposal { replicas, ratio_permille: ratio.permille(), corrected: false })
        }
        (Aim::Thresholds { above_milli, below_milli, increment, decrement }, reading) => {
            thresholds((above_milli, below_milli), (increment, decrement), reading, current)
        }
        _ => Err(MetricError::WrongForm),
    }
}

/// A metric over its target, as a fraction.
#[derive(Clone, Copy)]
struct Ratio {
    value: u128,
    target: u128,
}

impl Ratio {
    fn of(value: impl Into<u128>, target: u128) -> Result<Ratio, MetricError> {
        if target == 0 { Err(MetricError::ZeroTarget) } else { Ok(Ratio { value: value.into(), target }) }
    }

    fn within(self, tolerance_permille: u128) -> bool {
        let off = self.value.abs_diff(self.target);
        off.saturating_mul(1000) <= self.target.saturating_mul(tolerance_permille)
    }

    fn ceil_times(self, count: u64) -> u64 {
        let exact = self.value.saturating_mul(count.into()).div_ceil(self.target);
        u64::try_from(exact).unwrap_or(u64::MAX)
    }

    fn permille(self) -> u64 {
        u64::try_from(self.value.saturating_mul(1000) / self.target).unwrap_or(u64::MAX)
    }

    fn direction(self) -> std::cmp::Ordering {
        self.value.cmp(&self.target)
    }
}

/// Mean over replicas against a target.
fn average(
    target_milli: Option<u64>,
    replicas: &[ReplicaReading],
    current: u64,
    tolerance: u128,
) -> Result<Proposal, MetricError> {
    let target = u128::from(target_milli.ok_or(MetricError::ZeroTarget)?);
    let seen = replicas.iter().filter(|replica| replica.ready).filter_map(|replica| replica.value_milli);
    let (count, sum) = seen.fold((0u64, 0u128), |(count, sum), value| (count + 1, sum + u128::from(value)));
    if count == 0 {
        return Err(MetricError::NoReading);
    }
    let first = Ratio::of(sum, target * u128::from(count))?;
    let unready = replicas.iter().filter(|replica| !replica.ready).count() as u64;
    let missing = replicas.len() as u64 - unready - count;
    let unready = if first.direction().is_gt() { unready } else { 0 };
    if missing == 0 && unready == 0 {
        let replicas = if first.within(tolerance) { current } else { first.ceil_times(count) };
        return Ok(Proposal { replicas, ratio_permille: first.permille(), corrected: false });
    }
    let assumed = if first.direction().is_lt() { target * u128::from(missing) } else { 0 };
    let counted = count + missing + unready;
    let ratio = Ratio::of(sum + assumed, target * u128::from(counted))?;
    let proposed = ratio.ceil_times(counted);
    let turned = ratio.direction() == first.direction().reverse() || first.direction().is_eq();
    let backwards = match ratio.direction() {
        std::cmp::Ordering::Less => proposed > current,
        std::cmp::Ordering::Greater => proposed < current,
        std::cmp::Ordering::Equal => true,
    };
    let replicas = if ratio.within(tolerance) || turned || backwards { current } else { proposed };
    Ok(Proposal { replicas, ratio_permille: ratio.permille(), corrected: true })
}

/// One step up above a threshold, one step down below another. A reading by replica counts as its mean.
fn thresholds(
    (above, below): (u64, u64),
    (increment, decrement): (u64, u64),
    reading: &Reading,
    current: u64,
) -> Result<Proposal, MetricError> {
    // Where it grows, what is missing counts as nothing; where it shrinks, as the upper threshold.
    let (low, high, corrected) = match reading {
        Reading::Failed => return Err(MetricError::NoReading),
        Reading::Whole(value) => (u128::from(*value), u128::from(*value), false),
        Reading::Replicas(replicas) => {
            let ready = replicas.iter().filter(|replica| replica.ready);
            let (count, missing, sum) =
                ready.fold((0u128, 0u128, 0u128), |(count, missing, sum), replica| {
                    match replica.value_milli {
                        Some(value) => (count + 1, missing, sum + u128::from(value)),
                        None => (count + 1, missing + 1, sum),
                    }
                });
            if count == missing {
                return Err(MetricError::NoReading);
            }
            (sum / count, (sum + missing * u128::from(above)) / count, missing > 0)
        }
    };
    let replicas = if low > u128::from(above) {
        current.saturating_add(increment)
    } else if high < u128::from(below) {
        current.saturating_sub(decrement)
    } else {
        current
    };
    let ratio = Ratio::of(low, u128::from(above.max(1)))?;
    Ok(Proposal { replicas, ratio_permille: ratio.permille(), corrected })
}
