//! The cases that the Kubernetes documentation works out, and the rules of its replica calculator one by one.

use plimsoll_autoscaler::{
    Aim, Amount, Behavior, Metric, MetricError, Policy, RatePolicy, Reading, Reason, ReplicaReading,
    ScaleMemory, Select, Signals, Target, decide, propose,
};

const TOLERANCE: u32 = 100;

fn ready(value_milli: u64) -> ReplicaReading {
    ReplicaReading { value_milli: Some(value_milli), ready: true }
}

const MISSING: ReplicaReading = ReplicaReading { value_milli: None, ready: true };
const UNREADY: ReplicaReading = ReplicaReading { value_milli: None, ready: false };

/// Replicas and whether a correction was made.
fn average(target_milli: u64, replicas: &[ReplicaReading]) -> Result<(u64, bool), MetricError> {
    let current = replicas.len() as u64;
    let reading = Reading::Replicas(replicas.to_vec());
    let found = propose(Aim::Average { target_milli }, Some(&reading), current, current, TOLERANCE)?;
    Ok((found.replicas, found.corrected))
}

#[test]
fn the_documentation_s_ratio_doubles_and_halves() {
    // "if the current metric value is 200m, and the desired value is 100m, the number of replicas will be doubled,
    // since 200.0 / 100.0 == 2.0. If the current value is instead 50m, you'll halve the number of replicas".
    assert_eq!(average(100, &[ready(200), ready(200)]), Ok((4, false)));
    assert_eq!(average(100, &[ready(50), ready(50)]), Ok((1, false)));
}

#[test]
fn within_the_tolerance_nothing_happens() {
    assert_eq!(average(100, &[ready(110); 10]), Ok((10, false)), "exactly at the tolerance");
    assert_eq!(average(100, &[ready(90); 10]), Ok((10, false)));
    assert_eq!(average(100, &[ready(111); 10]), Ok((12, false)));
    assert_eq!(average(100, &[ready(89); 10]), Ok((9, false)));
}

#[test]
fn missing_readings_are_the_target_when_it_shrinks_and_nothing_when_it_grows() {
    // (10 + 10 + 100) / 300 of three: 1.2, up to 2.
    assert_eq!(average(100, &[ready(10), ready(10), MISSING]), Ok((2, true)));
    // (300 + 300 + 0) / 300 of three: 6.
    assert_eq!(average(100, &[ready(300), ready(300), MISSING]), Ok((6, true)));
    // 1.2 of two would be 3; with the third as nothing it is 0.8: the direction turns, nothing is done.
    assert_eq!(average(100, &[ready(120), ready(120), MISSING]), Ok((3, true)));
}

#[test]
fn replicas_that_are_not_ready_dampen_growth_and_do_not_count_otherwise() {
    assert_eq!(average(100, &[ready(400), UNREADY]), Ok((4, true)), "400 over two");
    assert_eq!(average(100, &[ready(180), UNREADY]), Ok((2, true)), "0.9 over two: the direction turns");
    assert_eq!(average(100, &[ready(50), ready(50), UNREADY]), Ok((1, false)), "two ready ones at a half");
    assert_eq!(average(100, &[UNREADY, UNREADY]), Err(MetricError::NoReading));
}

#[test]
fn wholes_are_shared_or_compared() {
    let propose = |aim, whole, current, ready| {
        propose(aim, Some(&Reading::Whole(whole)), current, ready, TOLERANCE).map(|found| found.replicas)
    };
    assert_eq!(propose(Aim::PerReplica { target_milli: 30 }, 200, 3, 3), Ok(7));
    assert_eq!(
        propose(Aim::PerReplica { target_milli: 30 }, 200, 7, 7),
        Ok(7),
        "200 / 210 is within the tolerance"
    );
    assert_eq!(propose(Aim::PerReplica { target_milli: 30 }, 200, 0, 0), Ok(7), "from zero");
    assert_eq!(propose(Aim::Value { target_milli: 100 }, 250, 4, 3), Ok(8), "2.5 times the ready ones");
    assert_eq!(propose(Aim::Value { target_milli: 100 }, 250, 0, 0), Ok(3));
    assert_eq!(propose(Aim::Value { target_milli: 0 }, 250, 1, 1), Err(MetricError::ZeroTarget));
    assert_eq!(propose(Aim::PerReplica { target_milli: 0 }, 250, 1, 1), Err(MetricError::ZeroTarget));
    assert_eq!(propose(Aim::Average { target_milli: 5 }, 250, 1, 1), Err(MetricError::WrongForm));
}

#[test]
fn of_several_metrics_the_largest_counts_and_a_failed_one_forbids_shrinking() {
    let target = |metric, target_milli| Target { metric, aim: Aim::PerReplica { target_milli } };
    let policy = Policy {
        max: 100,
        targets: vec![target(Metric::QueueDepth, 10), target(Metric::Cpu, 10)],
        up: Behavior::unlimited(),
        down: Behavior::unlimited(),
        ..Policy::default()
    };
    let decide = |queue: Reading, cpu: Reading| {
        let readings = vec![(Metric::QueueDepth, queue), (Metric::Cpu, cpu)];
        let signals = Signals { current: 5, ready: 5, readings, ..Signals::default() };
        decide(&signals, &policy, &mut ScaleMemory::default(), 0).desired
    };
    assert_eq!(decide(Reading::Whole(80), Reading::Whole(20)), 8);
    assert_eq!(decide(Reading::Whole(20), Reading::Whole(10)), 2);
    assert_eq!(decide(Reading::Whole(20), Reading::Failed), 5, "no fall");
    assert_eq!(decide(Reading::Whole(80), Reading::Failed), 8, "it may grow");
    assert_eq!(decide(Reading::Failed, Reading::Failed), 5);
}

/// Decisions under a behaviour, one every 15 seconds, each asking for the next of `wanted`.
fn course(up: Behavior, down: Behavior, start: u64, wanted: &[u64]) -> Vec<u64> {
    let targets = vec![Target { metric: Metric::QueueDepth, aim: Aim::PerReplica { target_milli: 1 } }];
    let policy = Policy { max: 1000, targets, tolerance_permille: 0, up, down, ..Policy::default() };
    let mut memory = ScaleMemory::default();
    let mut current = start;
    let step = |(index, wanted): (usize, &u64)| {
        let readings = vec![(Metric::QueueDepth, Reading::Whole(*wanted))];
        let signals = Signals { current, ready: current, readings, ..Signals::default() };
        current = decide(&signals, &policy, &mut memory, 1_000_000 + index as u64 * 15_000).desired;
        current
    };
    wanted.iter().enumerate().map(step).collect()
}

fn at_most(select: Select, policies: &[(Amount, u64)]) -> Behavior {
    let policies =
        policies.iter().map(|(amount, period_ms)| RatePolicy { amount: *amount, period_ms: *period_ms });
    Behavior { select, policies: policies.collect(), ..Behavior::unlimited() }
}

#[test]
fn growth_by_default_doubles_or_adds_four_every_15_seconds() {
    let grown = course(Behavior::default_up(), Behavior::default_down(), 1, &[100; 6]);
    assert_eq!(grown, [5, 10, 20, 40, 80, 100]);
}

#[test]
fn shrinking_by_default_waits_for_the_highest_of_five_minutes() {
    let mut wanted = vec![10];
    wanted.extend([2; 21]);
    let course = course(Behavior::default_up(), Behavior::default_down(), 10, &wanted);
    assert!(course[..20].iter().all(|number| *number == 10), "{course:?}");
    assert_eq!(course[20], 2, "the recommendation of 10 is 300 s old");
}

#[test]
fn the_documentation_s_scale_down_policies_shrink_by_the_larger_of_four_and_ten_percent() {
    // "The first policy allows at most 4 replicas to be scaled down in one minute. The second policy allows at most
    // 10% of the current replicas": from 80, 10 % goes first: 8, 7.2 (up to 8), ...; at 40 and below 4 at a time.
    let down = at_most(Select::Max, &[(Amount::Replicas(4), 60_000), (Amount::Percent(10), 60_000)]);
    let every_minute: Vec<u64> =
        course(Behavior::unlimited(), down, 80, &[10; 57]).into_iter().step_by(4).collect();
    assert_eq!(every_minute, [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16, 12, 10, 10]);
}

#[test]
fn the_smallest_of_the_policies_counts_with_min_and_none_with_disabled() {
    let policies = [(Amount::Replicas(4), 60_000), (Amount::Percent(10), 60_000)];
    let down = at_most(Select::Min, &policies);
    assert_eq!(course(Behavior::unlimited(), down, 80, &[10; 2]), [76, 76]);
    let closed = at_most(Select::Disabled, &policies);
    assert_eq!(course(Behavior::unlimited(), closed, 80, &[10, 90, 10]), [80, 90, 90]);
}

#[test]
fn a_short_peak_within_the_upward_window_is_not_followed() {
    let up = Behavior { stabilization_ms: 22_500, ..Behavior::unlimited() };
    assert_eq!(course(up, Behavior::unlimited(), 5, &[5, 50, 5, 50, 50]), [5, 5, 5, 5, 50]);
}

#[test]
fn a_decision_tells_its_inputs_and_rules() {
    let targets = vec![Target { metric: Metric::QueueDepth, aim: Aim::PerReplica { target_milli: 10 } }];
    let policy = Policy { targets, ..Policy::default() };
    let readings = vec![(Metric::QueueDepth, Reading::Whole(250))];
    let signals = Signals { current: 2, ready: 2, readings, power_ceiling: Some(5), ..Signals::default() };
    let decision = decide(&signals, &policy, &mut ScaleMemory::default(), 7);
    assert_eq!(
        decision.to_string(),
        "from 2 to 5\n- queue_depth is 12.500 of its target: 25\n- 6 instead of 25: rate policy\n\
         - 5 instead of 6: power left"
    );
    assert!(matches!(decision.reasons[1], Reason::RateLimited { wanted: 25, allowed: 6 }));
    assert!(decision.changes());
}
