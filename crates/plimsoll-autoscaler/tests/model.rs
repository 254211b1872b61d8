//! The engine against a plain model that keeps everything, and what holds for any input.

use plimsoll_autoscaler::{
    Activation, Aim, Amount, Behavior, Floor, FloorSource, Metric, Outlook, Policy, Predictive, RatePolicy,
    Reading, ReplicaReading, ScaleMemory, Select, Signals, Target, decide,
};
use proptest::prelude::*;

fn behavior() -> impl Strategy<Value = Behavior> {
    let amount = prop_oneof![(0u64..8).prop_map(Amount::Replicas), (0u64..150).prop_map(Amount::Percent)];
    let policy = (amount, 0u64..100).prop_map(|(amount, period_ms)| RatePolicy { amount, period_ms });
    let select = prop_oneof![3 => Just(Select::Max), 2 => Just(Select::Min), 1 => Just(Select::Disabled)];
    (0u64..100, select, prop::collection::vec(policy, 0..3)).prop_map(
        |(stabilization_ms, select, policies)| Behavior {
            stabilization_ms,
            cooldown_ms: 0,
            select,
            policies,
        },
    )
}

/// Every recommendation and change ever made.
#[derive(Default)]
struct Model {
    recommendations: Vec<(u64, u64)>,
    numbers: Vec<(u64, i64)>,
}

impl Model {
    /// autoscaling/v2 as its documentation tells it, in floats.
    fn step(&mut self, policy: &Policy, now: u64, current: u64, wanted: u64) -> u64 {
        self.recommendations.push((now, wanted));
        let window = |length: u64| {
            let recent = self.recommendations.iter().filter(move |(at, _)| *at == now || at + length > now);
            recent.map(|(_, number)| *number).collect::<Vec<_>>()
        };
        let lowest = *window(policy.up.stabilization_ms).iter().min().expect("at least this one");
        let highest = *window(policy.down.stabilization_ms).iter().max().expect("at least this one");
        let stable = if current < lowest { lowest } else { current };
        let stable = if stable > highest { highest } else { stable };
        let next = match stable.cmp(&current) {
            std::cmp::Ordering::Equal => current,
            std::cmp::Ordering::Greater => {
                stable.min(self.edge(&policy.up, now, current, 1).max(current as f64) as u64)
            }
            std::cmp::Ordering::Less => {
                stable.max(self.edge(&policy.down, now, current, -1).min(current as f64) as u64)
            }
        };
        let next = next.clamp(policy.min, policy.max);
        self.numbers.push((now, next as i64 - current as i64));
        next
    }

    fn edge(&self, behavior: &Behavior, now: u64, current: u64, sign: i64) -> f64 {
        let edges = behavior.policies.iter().map(|policy| {
            let recent = self.numbers.iter().filter(|(at, _)| at + policy.period_ms > now);
            let start = current as f64 - recent.map(|(_, change)| *change as f64).sum::<f64>();
            match (policy.amount, sign) {
                (Amount::Replicas(number), _) => start + sign as f64 * number as f64,
                (Amount::Percent(percent), 1) => start + (start * percent as f64 / 100.0).ceil(),
                (Amount::Percent(percent), _) => (start * (100.0 - percent as f64).max(0.0) / 100.0).floor(),
            }
        });
        // The furthest edge is the largest change.
        let furthest = |a: f64, b: f64| if (a - b) * sign as f64 > 0.0 { a } else { b };
        match behavior.select {
            Select::Disabled => current as f64,
            _ if behavior.policies.is_empty() => {
                if sign > 0 {
                    1e9
                } else {
                    0.0
                }
            }
            Select::Max => edges.reduce(furthest).expect("there are policies"),
            Select::Min => {
                edges.reduce(|a, b| if furthest(a, b) == a { b } else { a }).expect("there are policies")
            }
        }
    }
}

proptest! {
    #[test]
    fn windows_and_policies_are_those_of_the_model(
        up in behavior(), down in behavior(), steps in prop::collection::vec((1u64..40, 1u64..60), 1..40),
    ) {
        let targets = vec![Target { metric: Metric::QueueDepth, aim: Aim::PerReplica { target_milli: 1 } }];
        let policy = Policy { min: 2, max: 50, targets, tolerance_permille: 0, up, down, ..Policy::default() };
        let (mut memory, mut model) = (ScaleMemory::default(), Model::default());
        let (mut now, mut current) = (1000, 5);
        for (pause, wanted) in steps {
            now += pause;
            let readings = vec![(Metric::QueueDepth, Reading::Whole(wanted))];
            let signals = Signals { current, ready: current, readings, ..Signals::default() };
            let decision = decide(&signals, &policy, &mut memory, now);
            prop_assert_eq!(decision.desired, model.step(&policy, now, current, wanted), "{}", decision);
            current = decision.desired;
        }
    }

    #[test]
    fn under_constant_load_it_reverses_at_most_once_in_a_cooldown(
        load in 1u64..2_000, start in 1u64..30, increment in 1u64..12, decrement in 1u64..12,
        above in 40u64..95, below in 5u64..90, up_cooldown in 1u64..50, down_cooldown in 1u64..50, pause in 1u64..20,
    ) {
        let aim = Aim::Thresholds { above_milli: above, below_milli: below, increment, decrement };
        let resting = |cooldown_ms| Behavior { cooldown_ms, ..Behavior::unlimited() };
        let policy = Policy {
            max: 30,
            targets: vec![Target { metric: Metric::Cpu, aim }],
            up: resting(up_cooldown),
            down: resting(down_cooldown),
            ..Policy::default()
        };
        let mut memory = ScaleMemory::default();
        let mut current = start;
        let mut reversals: Vec<u64> = Vec::new();
        let mut last = 0;
        for now in (0..3000).step_by(pause as usize) {
            let readings = vec![(Metric::Cpu, Reading::Whole(load / current))];
            let signals = Signals { current, ready: current, readings, ..Signals::default() };
            let desired = decide(&signals, &policy, &mut memory, now).desired;
            let direction = (desired as i64 - current as i64).signum();
            if direction != 0 && direction == -last {
                reversals.push(now);
            }
            last = if direction == 0 { last } else { direction };
            current = desired;
        }
        let cooldown = up_cooldown.min(down_cooldown);
        prop_assert!(reversals.windows(2).all(|pair| pair[1] - pair[0] >= cooldown), "{:?}", reversals);
    }

    #[test]
    fn under_constant_load_a_target_never_reverses(
        load in 0u64..100_000, start in 1u64..100, target_milli in 1u64..1000, tolerance_permille in 0u32..300,
    ) {
        let targets = vec![Target { metric: Metric::QueueDepth, aim: Aim::PerReplica { target_milli } }];
        let policy = Policy { max: 100, targets, tolerance_permille, ..Policy::default() };
        let mut memory = ScaleMemory::default();
        let mut current = start;
        let mut directions = Vec::new();
        for now in 0..200 {
            let readings = vec![(Metric::QueueDepth, Reading::Whole(load))];
            let signals = Signals { current, ready: current, readings, ..Signals::default() };
            let desired = decide(&signals, &policy, &mut memory, now * 15_000).desired;
            directions.push((desired as i64 - current as i64).signum());
            current = desired;
        }
        directions.retain(|direction| *direction != 0);
        directions.dedup();
        prop_assert!(directions.len() <= 1, "{:?}", directions);
    }

    #[test]
    fn any_input_gives_a_number_within_bounds_and_the_same_again(
        numbers in prop::collection::vec(any::<u64>(), 24), tolerance_permille in any::<u32>(),
        flags in prop::collection::vec(any::<bool>(), 6),
    ) {
        let n = |index: usize| numbers[index];
        let aims = [
            Aim::Average { target_milli: n(0) },
            Aim::PerReplica { target_milli: n(1) },
            Aim::Value { target_milli: n(2) },
            Aim::Thresholds { above_milli: n(3), below_milli: n(4), increment: n(5), decrement: n(6) },
        ];
        let metrics = [Metric::Cpu, Metric::QueueDepth, Metric::WaitTime, Metric::Contention];
        let policies = vec![
            RatePolicy { amount: Amount::Percent(n(7)), period_ms: n(8) },
            RatePolicy { amount: Amount::Replicas(n(9)), period_ms: n(10) },
        ];
        let behavior = Behavior { stabilization_ms: n(11), cooldown_ms: n(12), select: Select::Max, policies };
        let policy = Policy {
            min: n(13),
            max: n(14),
            targets: metrics.iter().cloned().zip(aims).map(|(metric, aim)| Target { metric, aim }).collect(),
            tolerance_permille,
            up: behavior.clone(),
            down: behavior,
            activation: flags[0].then(|| Activation { above_milli: vec![(Metric::Cpu, n(15))], cooldown_ms: n(16) }),
            predictive: flags[1].then(|| Predictive {
                capacity_milli: n(17), miss_price_permille: n(18), fallback_utilization_permille: tolerance_permille,
            }),
        };
        let replica = |value, ready| ReplicaReading { value_milli: Some(value), ready };
        let by_replica = Reading::Replicas(vec![replica(n(19), true), replica(n(20), flags[2])]);
        let reading = |metric: &Metric| if *metric == Metric::Cpu { by_replica.clone() } else { Reading::Whole(n(21)) };
        let floor = Floor { replicas: n(22), from_ms: 0, until_ms: n(23), source: FloorSource::Manual(String::new()) };
        let mut memory = ScaleMemory::default();
        let mut current = n(22);
        for now in [0, n(23), u64::MAX] {
            let signals = Signals {
                current,
                ready: current,
                readings: metrics.iter().map(|metric| (metric.clone(), reading(metric))).collect(),
                starting: flags[3],
                floors: vec![floor.clone()],
                power_ceiling: flags[4].then_some(n(20)),
                outlook: flags[5].then(|| Outlook { steps: vec![vec![n(0).min(n(1)), n(1).max(n(0))]], ..Outlook::default() }),
                load_milli: Some(n(2)),
                ..Signals::default()
            };
            let mut again = memory.clone();
            let decision = decide(&signals, &policy, &mut memory, now);
            let same = decide(&signals, &policy, &mut again, now);
            prop_assert_eq!(&decision, &same);
            let ceiling = policy.max.min(signals.power_ceiling.unwrap_or(u64::MAX));
            prop_assert!(decision.desired <= ceiling);
            let asleep = policy.activation.is_some() && decision.desired == 0;
            prop_assert!(asleep || decision.desired >= policy.min.max(1).min(ceiling));
            current = decision.desired;
        }
    }
}
