//! What stands between a recommendation and a change: stabilization windows, cooldowns and rate policies.
//!
//! The words and the order are those of autoscaling/v2 `behavior`: first the windows, then the policies. The cooldown is
//! ours: a direction waits so long after any change, so that no load however steady can make it swing faster.

use crate::decision::Reason;
use crate::memory::ScaleMemory;
use crate::policy::{Amount, Behavior, Policy, RatePolicy, Select};

/// The recommendation that the windows leave: the present number, moved no further than all of the time agrees to.
pub(crate) fn stabilize(
    policy: &Policy,
    memory: &ScaleMemory,
    now_ms: u64,
    current: u64,
    recommended: u64,
    reasons: &mut Vec<Reason>,
) -> u64 {
    let up = memory.recommendations(now_ms, policy.up.stabilization_ms).fold(recommended, u64::min);
    let down = memory.recommendations(now_ms, policy.down.stabilization_ms).fold(recommended, u64::max);
    let stable = current.max(up).min(down);
    if stable != recommended {
        let window_ms =
            if stable < recommended { policy.up.stabilization_ms } else { policy.down.stabilization_ms };
        reasons.push(Reason::Stabilized { recommended, held_at: stable, window_ms });
    }
    stable
}

/// As far towards `wanted` as cooldown and policies of that direction let it go now.
pub(crate) fn limit(
    policy: &Policy,
    memory: &ScaleMemory,
    now_ms: u64,
    current: u64,
    wanted: u64,
    reasons: &mut Vec<Reason>,
) -> u64 {
    if wanted == current {
        return current;
    }
    let growing = wanted > current;
    let behavior = if growing { &policy.up } else { &policy.down };
    let rested_ms = memory.last_change_ms().map(|last| last.saturating_add(behavior.cooldown_ms));
    if let Some(until_ms) = rested_ms.filter(|until| *until > now_ms) {
        reasons.push(Reason::Cooldown { wanted, until_ms });
        return current;
    }
    let reached = match growing {
        true => wanted.min(furthest(behavior, memory, now_ms, current, true).max(current)),
        false => wanted.max(furthest(behavior, memory, now_ms, current, false).min(current)),
    };
    if reached != wanted {
        reasons.push(Reason::RateLimited { wanted, allowed: reached });
    }
    reached
}

/// The number that the policies of a direction allow.
fn furthest(behavior: &Behavior, memory: &ScaleMemory, now_ms: u64, current: u64, growing: bool) -> u64 {
    let allowed = behavior.policies.iter().map(|policy| allowed(policy, memory, now_ms, current, growing));
    let (lowest, highest) = (allowed.clone().min(), allowed.max());
    let unlimited = if growing { u64::MAX } else { 0 };
    match (behavior.select, growing) {
        (Select::Disabled, _) => current,
        (Select::Max, true) | (Select::Min, false) => highest.unwrap_or(unlimited),
        (Select::Max, false) | (Select::Min, true) => lowest.unwrap_or(unlimited),
    }
}

/// The number that one policy allows, counted from the beginning of its period.
fn allowed(policy: &RatePolicy, memory: &ScaleMemory, now_ms: u64, current: u64, growing: bool) -> u64 {
    let (added, removed) = memory.changed(now_ms, policy.period_ms);
    let start = current.saturating_add(removed).saturating_sub(added);
    let percent_of_start = |percent: u64| u128::from(start) * u128::from(percent);
    let narrow = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
    match (policy.amount, growing) {
        (Amount::Replicas(number), true) => start.saturating_add(number),
        (Amount::Replicas(number), false) => start.saturating_sub(number),
        // Rounded in favour of the change, as upstream does: up to the next, down to the one below.
        (Amount::Percent(percent), true) => {
            start.saturating_add(narrow(percent_of_start(percent).div_ceil(100)))
        }
        (Amount::Percent(percent), false) => narrow(percent_of_start(100u64.saturating_sub(percent)) / 100),
    }
}
