//! What a decision goes by, read off the ledger: the same on whichever coordinator leads. But for requests that found no endpoint, which are in no log.

use std::cell::LazyCell;

use plimsoll_autoscaler::{Aim, Floor, FloorSource, Metric, Reading, ReplicaReading, Signals, Target};
use plimsoll_calendar::Recurrence;
use plimsoll_ledger::{
    EndpointState, Fleet, Ledger, Node, Reservation, Scaling, ScalingPolicy, ScalingTarget,
};
use plimsoll_proto::convert;
use plimsoll_types::LedgerTime;

use super::{contention, expand, need};

/// A load that is older counts as missing, in milliseconds (gRFC A58: 3 minutes).
pub(super) const LOAD_COUNTS_MS: u64 = 180_000;
/// Windows of the calendar are made room for so long before they open, in milliseconds, beside the time that machines take to start.
const AHEAD_MS: u64 = 300_000;

/// All that a decision about a target depends on, and what people should know beside it. `turned_away` are requests of late for which a service had no
/// endpoint. O(nodes + what waits), or O(endpoints).
pub(super) fn read(
    ledger: &Ledger,
    policy: &ScalingPolicy,
    state: &Scaling,
    now: LedgerTime,
    turned_away: u64,
    notes: &mut Vec<String>,
) -> Signals {
    let fleet = ledger.fleet(policy);
    let mut signals = Signals {
        current: state.desired,
        ready: fleet.ready,
        starting: fleet.starting > 0,
        floors: schedules(policy, now),
        ..Signals::default()
    };
    let mut need = |replicas: u64, source: FloorSource| {
        if replicas > 0 {
            let (from_ms, until_ms) = (0, u64::MAX);
            signals.floors.push(Floor { replicas, from_ms, until_ms, source });
        }
    };
    match &policy.target {
        ScalingTarget::Pool(pool) => {
            let demand = LazyCell::new(|| ledger.contended(pool, now));
            if let Some((machines, resource)) = contention::machines(ledger, policy, pool, || &demand) {
                need(fleet.present + machines, FloorSource::Contention(resource));
            }
            if let Some(power) = ledger.power(pool) {
                notes.push(format!("power: {} of {} W committed", power.committed, power.budget));
                signals.power_ceiling = expand::machines_powered(policy, power)
                    .map(|more| (fleet.counted() + more).max(policy.least()));
            }
            let mut waiting = need::waiting(ledger, policy, pool, &fleet, now);
            notes.append(&mut waiting.lines);
            if waiting.machines > 0 {
                need(fleet.present + waiting.machines, FloorSource::Waiting(waiting.requests));
            }
            if policy.drain_ms == 0 {
                need(fleet.busy, FloorSource::InUse);
            }
            need(need::kept(ledger, policy, pool, now, AHEAD_MS + policy.start_within_ms), FloorSource::Kept);
            signals.in_progress = fleet.busy + waiting.requests;
            let nodes: Vec<&Node> = nodes(ledger, pool).collect();
            for target in &policy.rules.targets {
                let reading = match target.metric {
                    Metric::Contention => Reading::Whole(contention::pressure_milli(&demand)),
                    _ => of_pool(ledger, pool, &nodes, &fleet, target, now),
                };
                signals.readings.push((target.metric.clone(), reading));
            }
        }
        ScalingTarget::Service(service) => {
            let replicas: Vec<&Reservation> = ledger.endpoints(service).map(AsRef::as_ref).collect();
            signals.in_progress = replicas.iter().map(|replica| in_flight(ledger, replica)).sum();
            if turned_away > 0 {
                // One is enough to be heard of: what it then measures decides how many there are to be.
                need(1, FloorSource::TurnedAway(turned_away));
            }
            for target in &policy.rules.targets {
                let reading = of_service(ledger, &replicas, &fleet, target, now);
                signals.readings.push((target.metric.clone(), reading));
            }
        }
    }
    signals
}

/// Floors of the schedules that are open now. A rule in words that this build does not know says nothing.
fn schedules(policy: &ScalingPolicy, now: LedgerTime) -> Vec<Floor> {
    let open = |floor: &plimsoll_ledger::ScalingFloor| {
        let rule = floor.rule.parse::<Recurrence>().ok()?;
        let window = rule.occurrences(now.0, now.0.saturating_add(1), 1).into_iter().next()?;
        let source = FloorSource::Schedule(floor.name.clone());
        let (from_ms, until_ms) = (window.start_ms, window.end_ms);
        (from_ms <= now.0).then_some(Floor { replicas: floor.replicas, from_ms, until_ms, source })
    };
    policy.floors.iter().filter_map(open).collect()
}

/// Nodes of a pool that are heard of and not on their way out.
fn nodes<'a>(ledger: &'a Ledger, pool: &'a str) -> impl Iterator<Item = &'a Node> {
    let heard = move |node: &&Node| node.pool == pool && node.health.is_heard();
    ledger.nodes().map(AsRef::as_ref).filter(heard)
}

fn of_pool(
    ledger: &Ledger,
    pool: &str,
    nodes: &[&Node],
    fleet: &Fleet,
    target: &Target,
    now: LedgerTime,
) -> Reading {
    match target.metric {
        Metric::QueueDepth => Reading::Whole((ledger.pending_len(pool) as u64).saturating_mul(1_000)),
        Metric::WaitTime => {
            let waiting = ledger.pending(pool).filter_map(|id| ledger.reservation(id));
            let oldest = waiting.map(|waiting| waiting.submitted_at).min();
            Reading::Whole(oldest.map_or(0, |since| now.ms_since(since)).saturating_mul(1_000))
        }
        Metric::Cpu | Metric::Memory | Metric::Gpu => {
            let shares = nodes.iter().map(|node| ReplicaReading {
                value_milli: Some(share_milli(ledger, node, &target.metric)),
                ready: node.is_eligible(),
            });
            formed(shares, fleet, target)
        }
        Metric::Contention | Metric::Custom(_) => Reading::Failed,
    }
}

/// What is taken of a node by those who are backed, in thousandths of a percent; of GPUs, by all. A node without GPUs has none taken.
fn share_milli(ledger: &Ledger, node: &Node, metric: &Metric) -> u64 {
    let usage = ledger.usage(node.id);
    let (taken, offered) = match metric {
        Metric::Gpu => {
            let devices = usage.map_or(&[][..], |usage| &usage.devices);
            let taken: u64 = devices.iter().map(|device| u64::from(device.milli)).sum();
            (taken, node.registration.devices.len() as u64 * 1_000)
        }
        other => {
            let name = if *other == Metric::Cpu { "cpu" } else { "memory" };
            // Best effort takes what is idle: nothing is bought for it.
            (usage.map_or(0, |usage| usage.backed(name).0), node.allocatable.get(name).0)
        }
    };
    if offered == 0 {
        return 0;
    }
    u64::try_from(u128::from(taken) * 100_000 / u128::from(offered)).unwrap_or(u64::MAX)
}

fn of_service(
    ledger: &Ledger,
    replicas: &[&Reservation],
    fleet: &Fleet,
    target: &Target,
    now: LedgerTime,
) -> Reading {
    let stays = replicas.iter().filter(|one| ledger.endpoint_state(one) != Some(EndpointState::Draining));
    let name = match &target.metric {
        Metric::QueueDepth => {
            return whole(stays.map(|replica| load(ledger, replica, "queue_depth", now)), Reading::Whole(0));
        }
        Metric::Custom(name) => name.as_str(),
        Metric::Cpu => "cpu",
        Metric::Memory => "memory",
        Metric::Gpu => "gpu",
        Metric::WaitTime | Metric::Contention => return Reading::Failed,
    };
    let readings = stays.map(|replica| ReplicaReading {
        value_milli: load(ledger, replica, name, now),
        ready: ledger.endpoint_state(replica) == Some(EndpointState::Serving),
    });
    formed(readings, fleet, target)
}

/// What an endpoint reported lately, in thousandths of the metric's unit.
fn load(ledger: &Ledger, replica: &Reservation, metric: &str, now: LedgerTime) -> Option<u64> {
    let load = ledger.load(replica.id).filter(|load| now.ms_since(load.at) < LOAD_COUNTS_MS)?;
    let report = &load.report;
    let said = report.metrics.get(metric.strip_prefix(convert::OWN_METRIC).unwrap_or(metric)).copied();
    if report.measured_only {
        return said;
    }
    Some(match metric {
        // Thousandths of what it can do, as thousandths of a percent.
        "utilization" => u64::from(report.utilization_permille) * 100,
        "in_flight" => u64::from(report.in_flight) * 1_000,
        "queue_depth" => u64::from(report.queue_depth) * 1_000,
        "rate" => report.rate_milli,
        "latency" => report.latency_us.saturating_mul(1_000),
        _ => return said,
    })
}

fn in_flight(ledger: &Ledger, replica: &Reservation) -> u64 {
    ledger.load(replica.id).map_or(0, |load| u64::from(load.report.in_flight))
}

/// The reading in the form that the target's aim needs: by replica, those on their way included, or the whole.
fn formed(replicas: impl Iterator<Item = ReplicaReading>, fleet: &Fleet, target: &Target) -> Reading {
    match target.aim {
        Aim::Average { .. } | Aim::Thresholds { .. } => {
            let coming = (0..fleet.starting).map(|_| ReplicaReading { value_milli: None, ready: false });
            Reading::Replicas(replicas.chain(coming).collect())
        }
        Aim::PerReplica { .. } | Aim::Value { .. } => {
            whole(replicas.map(|replica| replica.value_milli), Reading::Failed)
        }
    }
}

/// The sum over replicas, of which those that say nothing count as the mean of the others: silence is no reason to shrink, nor to grow. `of_none` where there
/// are no replicas.
fn whole(values: impl Iterator<Item = Option<u64>>, of_none: Reading) -> Reading {
    let (mut all, mut known, mut sum) = (0_u128, 0_u128, 0_u128);
    for value in values {
        all += 1;
        known += u128::from(value.is_some());
        sum += u128::from(value.unwrap_or(0));
    }
    match (all, known) {
        (0, _) => of_none,
        (_, 0) => Reading::Failed,
        _ => Reading::Whole(u64::try_from((sum * all).div_ceil(known)).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_counts_as_the_mean_of_the_others() {
        let of = |values: &[Option<u64>]| whole(values.iter().copied(), Reading::Whole(0));
        assert_eq!(of(&[]), Reading::Whole(0));
        assert_eq!(of(&[Some(4), Some(2)]), Reading::Whole(6));
        assert_eq!(of(&[Some(4), None, Some(3)]), Reading::Whole(11), "half of seven more, rounded up");
        assert_eq!(of(&[None, None]), Reading::Failed, "nobody knows: nothing shrinks");
        assert_eq!(of(&[Some(u64::MAX), Some(u64::MAX)]), Reading::Whole(u64::MAX));
    }
}
