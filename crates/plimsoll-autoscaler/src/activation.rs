//! Awake or asleep: a question apart from how many, as in KEDA. Any signal wakes; sleep needs them all.

use crate::decision::Reason;
use crate::memory::ScaleMemory;
use crate::policy::{Activation, Policy};
use crate::signals::{Reading, Signals};

/// Why a workload is awake; `None` where it may be at zero. `need` is what floors and forecasts ask for.
pub(crate) fn awake(
    policy: &Policy,
    activation: &Activation,
    signals: &Signals,
    need: u64,
    memory: &mut ScaleMemory,
    now_ms: u64,
) -> Option<Reason> {
    let busy = policy.targets.iter().find(|target| {
        let above = activation.above_milli.iter().find(|(metric, _)| *metric == target.metric);
        let above = above.map_or(0, |(_, above)| *above);
        match signals.reading(&target.metric) {
            // Nobody knows: that is no agreement to sleep.
            None | Some(Reading::Failed) => signals.current > 0,
            Some(Reading::Whole(value)) => *value > above,
            Some(Reading::Replicas(replicas)) => replicas.iter().any(|replica| match replica.value_milli {
                Some(value) => value > above,
                None => replica.ready,
            }),
        }
    });
    let reason = if let Some(target) = busy {
        Some(Reason::Awake { signal: target.metric.to_string() })
    } else if signals.in_progress > 0 {
        Some(Reason::Awake { signal: "requests in progress".to_owned() })
    } else if signals.starting {
        Some(Reason::Awake { signal: "replicas are starting".to_owned() })
    } else if need > 0 {
        Some(Reason::Awake { signal: "floor or forecast".to_owned() })
    } else {
        None
    };
    if reason.is_some() {
        memory.active(now_ms);
        return reason;
    }
    if signals.current == 0 {
        return None;
    }
    // The cooldown of a workload that was never seen active begins now.
    let Some(last) = memory.last_active_ms() else {
        memory.active(now_ms);
        return Some(Reason::SleepCooldown { until_ms: now_ms.saturating_add(activation.cooldown_ms) });
    };
    let until_ms = last.saturating_add(activation.cooldown_ms);
    (until_ms > now_ms).then_some(Reason::SleepCooldown { until_ms })
}
