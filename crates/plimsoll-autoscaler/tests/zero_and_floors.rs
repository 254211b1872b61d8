//! Sleep at zero, floors, cooldowns and presets.

use plimsoll_autoscaler::{
    Activation, Aim, Behavior, Floor, FloorSource, Metric, Outlook, Policy, Predictive, Reading,
    ReplicaReading, ScaleDecision, ScaleMemory, SeedPreset, Signals, Target, decide, seed_policy,
};

fn sleepy() -> Policy {
    let target = |metric| Target { metric, aim: Aim::PerReplica { target_milli: 10 } };
    Policy {
        targets: vec![target(Metric::QueueDepth), target(Metric::Cpu)],
        up: Behavior::unlimited(),
        down: Behavior::unlimited(),
        activation: Some(Activation { above_milli: vec![(Metric::Cpu, 5)], cooldown_ms: 1000 }),
        ..Policy::default()
    }
}

fn signals(current: u64, queue: u64, cpu: u64) -> Signals {
    let readings = vec![(Metric::QueueDepth, Reading::Whole(queue)), (Metric::Cpu, Reading::Whole(cpu))];
    Signals { current, ready: current, readings, ..Signals::default() }
}

#[test]
fn sleep_needs_every_signal_the_cooldown_and_nothing_in_progress() {
    let policy = sleepy();
    let mut memory = ScaleMemory::default();
    let mut at = |signals: Signals, now_ms| decide(&signals, &policy, &mut memory, now_ms).desired;
    assert_eq!(at(signals(3, 30, 0), 0), 3);
    assert_eq!(at(signals(3, 1, 0), 5000), 1, "one signal is enough to stay awake");
    assert_eq!(at(signals(1, 0, 5), 5999), 1, "quiet, but not for long enough");
    assert_eq!(at(Signals { in_progress: 1, ..signals(1, 0, 0) }, 9000), 1);
    assert_eq!(at(Signals { starting: true, ..signals(1, 0, 0) }, 12_000), 1);
    assert_eq!(at(signals(1, 0, 0), 12_999), 1);
    assert_eq!(at(signals(1, 0, 0), 13_000), 0);
    assert_eq!(at(signals(0, 0, 5), 14_000), 0, "at the threshold it sleeps on");
    assert_eq!(at(signals(0, 0, 6), 15_000), 1, "any signal wakes");
    let mut failed = signals(1, 0, 0);
    failed.readings[1].1 = Reading::Failed;
    assert_eq!(at(failed, 99_000), 1, "a signal that cannot be read does not agree");
}

#[test]
fn floors_hold_in_their_time_and_only_raise() {
    let policy = Policy { activation: None, ..sleepy() };
    let floor = |replicas, source| Floor { replicas, from_ms: 100, until_ms: 200, source };
    let floors =
        vec![floor(4, FloorSource::Schedule("night".into())), floor(6, FloorSource::Manual("ada".into()))];
    let at = |now_ms, queue| {
        let signals = Signals { floors: floors.clone(), ..signals(2, queue, 0) };
        decide(&signals, &policy, &mut ScaleMemory::default(), now_ms).desired
    };
    assert_eq!((at(99, 20), at(100, 20), at(199, 20), at(200, 20)), (2, 6, 6, 2));
    assert_eq!(at(150, 90), 9, "a floor never lowers");
}

#[test]
fn a_forecast_raises_never_lowers_and_has_a_substitute() {
    let predictive =
        Predictive { capacity_milli: 10, miss_price_permille: 100_000, fallback_utilization_permille: 500 };
    let policy = Policy { activation: None, predictive: Some(predictive), ..sleepy() };
    let with = |loads: Option<Vec<u64>>| {
        let outlook = loads.map(|loads| Outlook { steps: vec![loads], ..Outlook::default() });
        let signals = Signals { outlook, load_milli: Some(30), ..signals(3, 30, 0) };
        let decision: ScaleDecision = decide(&signals, &policy, &mut ScaleMemory::default(), 0);
        decision.desired
    };
    assert_eq!(with(Some(vec![75])), 8);
    assert_eq!(with(Some(vec![5])), 3);
    assert_eq!(with(None), 6, "30 at half of 10 each");
}

#[test]
fn the_seeds_preset_steps_between_its_thresholds_and_waits() {
    let policy = seed_policy(&SeedPreset { max_steps_per_hour: Some(3), ..SeedPreset::default() });
    let mut memory = ScaleMemory::default();
    let mut current = 1;
    let mut at = |percent: u64, now_s: u64| {
        let replica = ReplicaReading { value_milli: Some(percent * 1000), ready: true };
        let readings = vec![(Metric::Cpu, Reading::Replicas(vec![replica; current as usize]))];
        let signals = Signals { current, ready: current, readings, ..Signals::default() };
        current = decide(&signals, &policy, &mut memory, now_s * 1000).desired;
        current
    };
    assert_eq!(at(90, 0), 3);
    assert_eq!(at(90, 59), 3, "cooldown up");
    assert_eq!(at(90, 60), 5);
    assert_eq!(at(70, 130), 5, "at the threshold");
    assert_eq!(at(90, 200), 7);
    assert_eq!(at(90, 300), 7, "three steps in this hour");
    assert_eq!(at(10, 450), 7, "cooldown down counts from the last change");
    assert_eq!(at(10, 500), 6);
    assert_eq!(at(30, 900), 6, "at the threshold");
}
