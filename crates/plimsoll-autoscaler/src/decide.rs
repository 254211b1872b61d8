//! The decision: proposals, windows, forecasts and floors, sleep, rates, bounds, in this order.

use crate::activation::awake;
use crate::behavior::{limit, stabilize};
use crate::decision::{Reason, ScaleDecision};
use crate::horizontal::propose;
use crate::memory::ScaleMemory;
use crate::policy::{Policy, Predictive};
use crate::signals::Signals;

/// How many there should be from `now_ms` on; the memory is brought up to date.
///
/// Deterministic and total. O(targets + readings + loads of the outlook + the windows' entries). `now_ms` that goes back
/// is taken as it is: windows then reach a little further.
#[must_use]
pub fn decide(signals: &Signals, policy: &Policy, memory: &mut ScaleMemory, now_ms: u64) -> ScaleDecision {
    let current = signals.current;
    let mut reasons = Vec::new();
    let recommended = recommend(signals, policy, &mut reasons);
    let stable = stabilize(policy, memory, now_ms, current, recommended, &mut reasons);
    let raised = raise(signals, policy, now_ms, &mut reasons);
    let desired = match asleep(signals, policy, raised, memory, now_ms, &mut reasons) {
        true => 0,
        false => {
            let wanted = stable.max(raised);
            let limited = limit(policy, memory, now_ms, current, wanted, &mut reasons);
            bound(signals, policy, limited, &mut reasons)
        }
    };
    let change = i64::try_from(i128::from(desired) - i128::from(current));
    let change = change.unwrap_or(if desired > current { i64::MAX } else { i64::MIN });
    memory.note(now_ms, recommended, change, longest_window_ms(policy));
    ScaleDecision { at_ms: now_ms, current, desired, reasons }
}

/// The largest proposal of the metrics; not less than now where one of them failed.
fn recommend(signals: &Signals, policy: &Policy, reasons: &mut Vec<Reason>) -> u64 {
    let mut largest = None;
    let mut failed = false;
    for target in &policy.targets {
        let reading = signals.reading(&target.metric);
        let metric = target.metric.clone();
        match propose(target.aim, reading, signals.current, signals.ready, policy.tolerance_permille) {
            Ok(proposal) => {
                largest = largest.max(Some(proposal.replicas));
                reasons.push(Reason::Metric { metric, proposal });
            }
            Err(error) => {
                failed = true;
                reasons.push(Reason::MetricFailed { metric, error });
            }
        }
    }
    match largest {
        Some(largest) if failed => largest.max(signals.current),
        Some(largest) => largest,
        // Nothing to go by: with failed metrics it stays; without any, forecasts and floors alone decide.
        None if failed => signals.current,
        None => 0,
    }
}

/// What forecasts and floors ask for at least.
fn raise(signals: &Signals, policy: &Policy, now_ms: u64, reasons: &mut Vec<Reason>) -> u64 {
    let predicted = policy.predictive.as_ref().map_or(0, |predictive| predict(signals, predictive, reasons));
    let floors = signals.floors.iter().filter(|floor| floor.from_ms <= now_ms && now_ms < floor.until_ms);
    floors.fold(predicted, |raised, floor| {
        let source = floor.source.clone();
        reasons.push(Reason::Floor { source, replicas: floor.replicas, until_ms: floor.until_ms });
        raised.max(floor.replicas)
    })
}

/// What the outlook asks for; without one, the measured load at a fixed utilization.
fn predict(signals: &Signals, predictive: &Predictive, reasons: &mut Vec<Reason>) -> u64 {
    let Predictive { capacity_milli, miss_price_permille, fallback_utilization_permille } = *predictive;
    let outlook = signals.outlook.as_ref();
    if let Some((outlook, need)) =
        outlook.and_then(|outlook| Some((outlook, outlook.need(capacity_milli, miss_price_permille)?)))
    {
        reasons.push(Reason::Forecast {
            forecaster: outlook.forecaster.clone(),
            score_permille: outlook.score_permille,
            replicas: need.replicas,
            miss_permille: need.miss_permille,
            miss_price_milli: need.price_milli,
        });
        return need.replicas;
    }
    let Some(load_milli) = signals.load_milli else { return 0 };
    let utilization = u128::from(fallback_utilization_permille.max(1));
    let served = u128::from(capacity_milli.max(1)) * utilization;
    let replicas = u64::try_from((u128::from(load_milli) * 1000).div_ceil(served)).unwrap_or(u64::MAX);
    reasons.push(Reason::NoForecast { replicas, utilization_permille: fallback_utilization_permille });
    replicas
}

/// Whether it may be at zero.
fn asleep(
    signals: &Signals,
    policy: &Policy,
    raised: u64,
    memory: &mut ScaleMemory,
    now_ms: u64,
    reasons: &mut Vec<Reason>,
) -> bool {
    let Some(activation) = &policy.activation else { return false };
    let reason = awake(policy, activation, signals, raised, memory, now_ms);
    let asleep = reason.is_none();
    reasons.push(reason.unwrap_or(Reason::Asleep));
    asleep
}

/// Between min and max, and never above what power allows. Bounds go before rates: a changed bound holds at once.
fn bound(signals: &Signals, policy: &Policy, wanted: u64, reasons: &mut Vec<Reason>) -> u64 {
    // An awake workload has one replica at least.
    let within = wanted.max(policy.min.max(1)).min(policy.max);
    if within != wanted {
        reasons.push(Reason::Bounded { wanted, allowed: within });
    }
    let powered = within.min(signals.power_ceiling.unwrap_or(u64::MAX));
    if powered != within {
        reasons.push(Reason::PowerBounded { wanted: within, allowed: powered });
    }
    powered
}

/// What the memory has to reach back to.
fn longest_window_ms(policy: &Policy) -> u64 {
    let of = |behavior: &crate::policy::Behavior| {
        let periods = behavior.policies.iter().map(|policy| policy.period_ms);
        periods.fold(behavior.stabilization_ms, u64::max)
    };
    of(&policy.up).max(of(&policy.down))
}
