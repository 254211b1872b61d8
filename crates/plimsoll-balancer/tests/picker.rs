//! The picker as its callers see it: who is picked, in what state of the endpoints, and what feedback changes.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_balancer::{
    Endpoint, EndpointId, EndpointIndex, Flight, Health, LoadReport, NoEndpoint, Outcome, Picker, Policy,
    Request, Settings, Subset,
};
use proptest::prelude::*;

/// Slow start is over by then.
const LATER_US: u64 = 3_600_000_000;
const S: u64 = 1_000_000;
const DONE: Outcome = Outcome::Success { output_units: 1 };

fn endpoint(id: u64) -> Endpoint {
    Endpoint::new(EndpointId(id))
}

fn picker(policy: Policy, endpoints: impl IntoIterator<Item = Endpoint>) -> Picker {
    let mut picker = Picker::new(policy, Settings::default());
    picker.set_endpoints(endpoints);
    picker
}

/// Random bits, the same in every run.
fn draws() -> impl Iterator<Item = u64> {
    (1_u64..).map(|index| {
        index.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    })
}

fn pick_id(picker: &mut Picker, now_us: u64, draw: u64) -> Result<u64, NoEndpoint> {
    let picked = picker.pick(now_us, draw, &Request { key: draw, units: 1, ..Request::default() })?;
    Ok(picker.endpoint(picked).expect("what is picked is in the set").id.0)
}

/// How often each was picked out of many times, nothing being outstanding.
fn counts(picker: &mut Picker, now_us: u64, times: usize) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for draw in draws().take(times) {
        *counts.entry(pick_id(picker, now_us, draw).unwrap()).or_default() += 1;
    }
    counts
}

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<(u64, u32, u32, u8, u64)>),
    Wait(u64),
    Pick(u64),
    End(usize, bool),
    Report(u64, u32, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0_u64..12, 0_u32..4, 0_u32..3, 0_u8..4, 0_u64..200);
    prop_oneof![
        1 => prop::collection::vec(one, 0..12).prop_map(Step::Set),
        2 => (0_u64..20 * S).prop_map(Step::Wait),
        8 => any::<u64>().prop_map(Step::Pick),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(which, is_success)| Step::End(which, is_success)),
        1 => (0_u64..12, 0_u32..2_000, 0_u64..100_000).prop_map(|(id, use_permille, qps)| Step::Report(id, use_permille, qps)),
    ]
}

proptest! {
    /// Whatever happens, in every policy: who is picked is in the set, does not drain, has a weight and a lease; who is not healthy is picked only where
    /// half or more of the level are not; outstanding requests are counted as a plain model counts them; and somebody is picked where somebody can be.
    #[test]
    fn who_may_not_be_picked_is_not(policy in prop::sample::select(&Policy::ALL[..]), steps in prop::collection::vec(step(), 1..120)) {
        // Ejection has tests of its own; here health is what the facts say.
        let settings = Settings { ejection: None, ..Settings::default() };
        let mut picker = Picker::new(policy, settings);
        let mut facts: BTreeMap<u64, Endpoint> = BTreeMap::new();
        let mut flights: Vec<(u64, Flight)> = Vec::new();
        let mut now_us = LATER_US;
        for step in steps {
            match step {
                Step::Set(given) => {
                    facts = given
                        .into_iter()
                        .map(|(id, weight, priority, health, lease_s)| {
                            let health = [Health::Healthy, Health::Healthy, Health::Unhealthy, Health::Draining][usize::from(health)];
                            let lease_end_us = (lease_s < 100).then_some(LATER_US + lease_s * S);
                            (id, Endpoint { weight, priority, health, lease_end_us, concurrency: 2, ..endpoint(id) })
                        })
                        .collect();
                    picker.set_endpoints(facts.values().cloned());
                    prop_assert_eq!(picker.endpoints().count(), facts.len());
                }
                Step::Wait(us) => now_us += us,
                Step::Pick(draw) => {
                    let request = Request { key: draw % 7, units: draw % 100, blocks: &[draw % 7, 9], ..Request::default() };
                    let is_member = |endpoint: &&Endpoint| {
                        endpoint.weight > 0 && endpoint.health != Health::Draining && endpoint.lease_end_us.is_none_or(|end| end > now_us)
                    };
                    match picker.pick(now_us, draw, &request) {
                        Ok(picked) => {
                            let chosen = picker.endpoint(picked).unwrap().clone();
                            prop_assert!(is_member(&&facts[&chosen.id.0]));
                            if chosen.health == Health::Unhealthy {
                                let level = || facts.values().filter(is_member).filter(|endpoint| endpoint.priority == chosen.priority);
                                let healthy = level().filter(|endpoint| endpoint.health == Health::Healthy).count();
                                prop_assert!(2 * healthy < level().count());
                            }
                            flights.push((chosen.id.0, picker.started(now_us, picked, &request)));
                        }
                        Err(NoEndpoint::Empty) => prop_assert!(facts.is_empty()),
                        Err(NoEndpoint::NoneEligible) => prop_assert!(facts.values().all(|endpoint| !is_member(&endpoint))),
                        Err(NoEndpoint::NoneHealthy) => prop_assert!(false, "there is always panic"),
                    }
                }
                Step::End(which, is_success) if !flights.is_empty() => {
                    let (_, flight) = flights.swap_remove(which % flights.len());
                    picker.finished(now_us, flight, if is_success { DONE } else { Outcome::Failure });
                }
                Step::End(..) => {}
                Step::Report(id, permille, qps) => {
                    let report = LoadReport { application_utilization_permille: permille, requests_per_s_milli: qps, ..LoadReport::default() };
                    picker.report(now_us, EndpointId(id), &report);
                }
            }
            // Those that left since count nowhere; those that stayed count each.
            let mut model: BTreeMap<EndpointIndex, u32> = BTreeMap::new();
            for (_, flight) in &flights {
                *model.entry(flight.endpoint()).or_default() += 1;
            }
            for (index, count) in model {
                let expected = if picker.endpoint(index).is_some() { count } else { 0 };
                prop_assert_eq!(picker.outstanding(index), expected);
            }
        }
    }

    /// One picker knows half of the endpoints, another all; each hears of the other's requests by reports alone.
    #[test]
    fn pickers_that_hear_of_each_other_by_reports_balance(half in 2_u64..8, each in 20_usize..40, every in 1_usize..40, seed: u64) {
        let request = Request::default();
        let mut one = picker(Policy::LeastLoaded, (0..half).map(endpoint));
        let mut other = picker(Policy::LeastLoaded, (0..2 * half).map(endpoint));
        let mut totals: BTreeMap<u64, u32> = (0..2 * half).map(|id| (id, 0)).collect();
        let give = |picker: &mut Picker, totals: &mut BTreeMap<u64, u32>, draw: u64| {
            let picked = picker.pick(LATER_US, draw, &request).unwrap();
            *totals.get_mut(&picker.endpoint(picked).unwrap().id.0).unwrap() += 1;
            let _ = picker.started(LATER_US, picked, &request);
        };
        let report = |picker: &mut Picker, totals: &BTreeMap<u64, u32>| {
            for (id, count) in totals {
                let report = LoadReport { requests_there: Some(*count), ..LoadReport::default() };
                picker.report(LATER_US, EndpointId(*id), &report);
            }
        };
        let mut draws = draws().map(|draw| draw ^ seed);
        for draw in draws.by_ref().take(half as usize * each) {
            give(&mut one, &mut totals, draw);
        }
        for (step, draw) in draws.by_ref().take(3 * half as usize * each).enumerate() {
            if step % every == 0 {
                report(&mut other, &totals);
            }
            give(&mut other, &mut totals, draw);
        }
        // By itself the other would leave a gap of `each`.
        let gap = totals.values().max().unwrap() - totals.values().min().unwrap();
        prop_assert!(gap <= 10, "{:?}", totals);
    }

    /// No numbers are too large for it.
    #[test]
    fn any_numbers_do(policy in prop::sample::select(&Policy::ALL[..]), numbers in prop::collection::vec(any::<u64>(), 12), draw: u64) {
        let mut picker = Picker::new(policy, Settings::default());
        picker.set_endpoints((0..4).map(|index| Endpoint {
            weight: numbers[index] as u32,
            ready_since_us: numbers[index + 1],
            concurrency: numbers[index + 2] as u32,
            ..endpoint(numbers[index + 3])
        }));
        for now_us in numbers {
            let request = Request { key: draw, units: now_us, blocks: &[1, 2], model: Some(1), model_load_us: now_us };
            if let Ok(picked) = picker.pick(now_us, draw, &request) {
                let mut flight = picker.started(now_us, picked, &request);
                picker.answered(draw, &mut flight);
                picker.finished(now_us.wrapping_add(draw), flight, Outcome::Success { output_units: draw });
            }
        }
    }
}

#[test]
fn a_lease_that_ends_between_two_picks_is_the_end() {
    for policy in Policy::ALL {
        let ends = Endpoint { lease_end_us: Some(LATER_US + 10), ..endpoint(1) };
        let mut picker = picker(policy, [ends]);
        assert_eq!(pick_id(&mut picker, LATER_US + 9, 5), Ok(1));
        assert_eq!(pick_id(&mut picker, LATER_US + 10, 5), Err(NoEndpoint::NoneEligible));
    }
}

#[test]
fn feedback_for_one_that_left_does_not_count_for_the_one_with_its_number() {
    let mut picker = picker(Policy::LeastLoaded, [endpoint(1)]);
    let old = picker.pick(LATER_US, 0, &Request::default()).unwrap();
    let mut flight = picker.started(LATER_US, old, &Request::default());
    picker.set_endpoints([endpoint(2)]);
    let new = picker.pick(LATER_US, 0, &Request::default()).unwrap();
    assert_eq!((old.number(), new.number()), (0, 0));
    let second = picker.started(LATER_US, new, &Request::default());
    picker.answered(LATER_US, &mut flight);
    picker.finished(LATER_US, flight, DONE);
    assert_eq!((picker.outstanding(old), picker.outstanding(new)), (0, 1));
    picker.cancelled(second);
    assert_eq!(picker.outstanding(new), 0);
    assert!(picker.endpoint(old).is_none());
}

#[test]
fn those_that_stay_keep_what_is_known_of_them() {
    let mut picker = picker(Policy::LeastLoaded, [endpoint(1), endpoint(2)]);
    let picked = picker.pick(LATER_US, 0, &Request::default()).unwrap();
    let flight = picker.started(LATER_US, picked, &Request::default());
    picker.set_endpoints([endpoint(3), endpoint(2), endpoint(1)]);
    assert_eq!(picker.outstanding(picked), 1);
    // The busy one is the worse of any pair.
    let busy = picker.endpoint(picked).unwrap().id.0;
    assert!(!counts(&mut picker, LATER_US, 300).contains_key(&busy));
    picker.finished(LATER_US, flight, DONE);
    assert_eq!(counts(&mut picker, LATER_US, 300).len(), 3);
}

#[test]
fn requests_spill_over_to_the_next_level_as_health_is_lost() {
    for policy in Policy::ALL {
        let level = |healthy: u64| {
            let health = move |id| if id < healthy { Health::Healthy } else { Health::Unhealthy };
            (0..10).map(move |id| Endpoint { health: health(id), ..endpoint(id) })
        };
        let spare = || (100..110).map(|id| Endpoint { priority: 1, ..endpoint(id) });
        for (healthy, share) in [(10, 1.0), (8, 1.0), (5, 0.7), (0, 0.0)] {
            let mut picker = picker(policy, level(healthy).chain(spare()));
            let first: usize =
                counts(&mut picker, LATER_US, 4_000).range(..100).map(|(_, count)| count).sum();
            let is = first as f64 / 4_000.0;
            assert!((is - share).abs() < 0.03, "{policy} with {healthy} healthy: {is}");
        }
    }
}

#[test]
fn with_fewer_than_half_healthy_health_is_not_believed() {
    let mut settings = Settings::default();
    let unhealthy = |id| Endpoint { health: Health::Unhealthy, ..endpoint(id) };
    let endpoints =
        || [endpoint(0), unhealthy(1), unhealthy(2), Endpoint { health: Health::Draining, ..endpoint(3) }];
    let mut panics = picker(Policy::LeastLoaded, endpoints());
    assert_eq!(counts(&mut panics, LATER_US, 200).into_keys().collect::<Vec<_>>(), [0, 1, 2]);
    settings.levels.panic_below_permille = 0;
    let mut calm = Picker::new(Policy::LeastLoaded, settings);
    calm.set_endpoints(endpoints());
    assert_eq!(counts(&mut calm, LATER_US, 200).into_keys().collect::<Vec<_>>(), [0]);
    calm.set_endpoints([unhealthy(1)]);
    assert_eq!(pick_id(&mut calm, LATER_US, 1), Err(NoEndpoint::NoneHealthy));
}

#[test]
fn one_that_fails_is_ejected_at_the_next_sweep_and_comes_back() {
    // Not latency: that turns away from failures by itself, before there are enough of them to prove anything.
    for policy in Policy::ALL.into_iter().filter(|policy| *policy != Policy::Latency) {
        let mut picker = picker(policy, (0..10).map(endpoint));
        let mut bad_picks = [0; 3];
        for (index, draw) in draws().take(60_000).enumerate() {
            let now_us = LATER_US + index as u64 * 1_000;
            let request = Request { key: draw, units: 1, ..Request::default() };
            let picked = picker.pick(now_us, draw, &request).unwrap();
            let is_bad = picker.endpoint(picked).unwrap().id.0 == 7;
            let flight = picker.started(now_us, picked, &request);
            picker.finished(now_us + 500, flight, if is_bad { Outcome::Failure } else { DONE });
            // Before the first sweep after 10 s; during the 30 s that follow; and after that.
            let phase = if index < 10_000 { 0 } else { usize::from(index >= 50_000) + 1 };
            bad_picks[phase] += usize::from(is_bad);
        }
        assert!(bad_picks[0] >= 100, "{policy}: it was seen to fail, {bad_picks:?}");
        assert!(bad_picks[1] <= 1, "{policy}: {bad_picks:?}");
        assert!(bad_picks[2] > 0, "{policy}: it is tried again, {bad_picks:?}");
    }
}

#[test]
fn a_new_endpoint_is_given_its_share_little_by_little() {
    for policy in [Policy::RoundRobin, Policy::Weighted] {
        let new = Endpoint { ready_since_us: LATER_US, ..endpoint(9) };
        let mut picker = picker(policy, [endpoint(1), new]);
        let mut share =
            |ready_s: u64| counts(&mut picker, LATER_US + ready_s * S, 2_000)[&9] as f64 / 2_000.0;
        // A tenth of a weight, half of one, all of it.
        for (ready_s, weight) in [(0, 0.1), (15, 0.5), (30, 1.0)] {
            assert!((share(ready_s) - weight / (1.0 + weight)).abs() < 0.01, "{policy} after {ready_s} s");
        }
    }
}

#[test]
fn weights_are_kept_by_turns_and_by_load() {
    let endpoints = || [1, 2, 3].map(|id| Endpoint { weight: id as u32, ..endpoint(id) });
    let mut turns = picker(Policy::RoundRobin, endpoints());
    assert_eq!(counts(&mut turns, LATER_US, 600), BTreeMap::from([(1, 100), (2, 200), (3, 300)]));
    // Nothing ends: outstanding requests stand as the weights do.
    let mut loads = picker(Policy::LeastLoaded, endpoints());
    for draw in draws().take(600) {
        let picked = loads.pick(LATER_US, draw, &Request::default()).unwrap();
        let _never_ends = loads.started(LATER_US, picked, &Request::default());
    }
    for draw in draws().take(50) {
        let picked = loads.pick(LATER_US, draw, &Request::default()).unwrap();
        let weight = loads.endpoint(picked).unwrap().weight;
        assert!(
            loads.outstanding(picked).abs_diff(100 * weight) < 15,
            "{weight}: {}",
            loads.outstanding(picked)
        );
    }
    assert_eq!(
        turns.weights(LATER_US, 0).iter().map(|(id, weight)| id.0 as u32 * 1_000 - weight).sum::<u32>(),
        0
    );
}

#[test]
fn reported_weights_count_after_the_blackout_and_not_once_they_expired() {
    let mut picker = picker(Policy::Weighted, [endpoint(1), endpoint(2), endpoint(3)]);
    let report = |picker: &mut Picker, now_us: u64| {
        // The same requests at half and at all of its capacity; endpoint 3 says nothing.
        for (id, permille) in [(1, 500), (2, 1_000)] {
            let report = LoadReport {
                cpu_utilization_permille: permille,
                requests_per_s_milli: 100_000,
                ..LoadReport::default()
            };
            picker.report(now_us, EndpointId(id), &report);
        }
    };
    report(&mut picker, LATER_US);
    let equal = BTreeMap::from([(1, 300), (2, 300), (3, 300)]);
    assert_eq!(counts(&mut picker, LATER_US, 900), equal);
    report(&mut picker, LATER_US + 10 * S);
    // 200 : 100, and the mean of 150 for the third.
    let weighted = counts(&mut picker, LATER_US + 10 * S, 900);
    for (id, expected) in [(1, 400), (2, 200), (3, 300)] {
        assert!(weighted[&id].abs_diff(expected) <= 2, "{weighted:?}");
    }
    let expired = counts(&mut picker, LATER_US + 190 * S, 900);
    assert!(expired.values().all(|count| count.abs_diff(300) <= 2), "{expired:?}");
}

#[test]
fn requests_of_others_count_until_their_report_expires_and_own_ones_only_once() {
    for policy in [Policy::LeastLoaded, Policy::Predictive] {
        let mut picker = picker(policy, [endpoint(1), endpoint(2)]);
        let request = Request::default();
        let says = |picker: &mut Picker, now_us: u64, id: u64, count: u32| {
            let report = LoadReport { requests_there: Some(count), ..LoadReport::default() };
            picker.report(now_us, EndpointId(id), &report);
        };
        let all = |picker: &mut Picker, now_us: u64, id: u64| {
            draws().take(20).all(|draw| pick_id(picker, now_us, draw) == Ok(id))
        };
        says(&mut picker, LATER_US, 1, 50);
        // Ten of its own do not make the second one as busy.
        let flights: Vec<Flight> = (0..10)
            .map(|draw| {
                let picked = picker.pick(LATER_US, draw, &request).unwrap();
                picker.started(LATER_US, picked, &request)
            })
            .collect();
        assert!(all(&mut picker, LATER_US, 2), "{policy}");
        // Its own ten, reported back, are no others'; also where some have ended since.
        says(&mut picker, LATER_US + S, 1, 3);
        let mut flights = flights.into_iter();
        for flight in flights.by_ref().take(8) {
            picker.cancelled(flight);
        }
        says(&mut picker, LATER_US + S, 2, 10);
        assert!(all(&mut picker, LATER_US + S, 2), "{policy}");
        // Once the report is too old, the one with nothing of its own is freer.
        assert!(all(&mut picker, LATER_US + 182 * S, 1), "{policy}");
        drop(flights);
    }
}

#[test]
fn affinity_keeps_a_key_where_it_is_up_to_the_bound() {
    let mut picker = picker(Policy::Affinity, (0..10).map(endpoint));
    let request = Request { key: 42, ..Request::default() };
    let home = picker.pick(LATER_US, 1, &request).unwrap();
    assert_eq!(picker.pick(LATER_US, 2, &request).unwrap(), home);
    let mut flights = Vec::new();
    for draw in draws().take(80) {
        let picked = picker.pick(LATER_US, draw, &request).unwrap();
        flights.push(picker.started(LATER_US, picked, &request));
    }
    // 80 of one key: nobody has more than ceil(1.25 × 80 / 10).
    let held = flights.iter().map(Flight::endpoint).collect::<BTreeSet<_>>();
    assert!(held.iter().all(|index| picker.outstanding(*index) <= 10));
    assert_eq!(picker.outstanding(home), 10);
    for flight in flights {
        picker.finished(LATER_US, flight, DONE);
    }
    assert_eq!(picker.pick(LATER_US, 3, &request).unwrap(), home);
    // While its home drains the key goes elsewhere, and comes back.
    let id = picker.endpoint(home).unwrap().id;
    let drained = |health| {
        (0..10).map(move |other| Endpoint {
            health: if other == id.0 { health } else { Health::Healthy },
            ..endpoint(other)
        })
    };
    picker.set_endpoints(drained(Health::Draining));
    assert_ne!(picker.pick(LATER_US, 4, &request).unwrap(), home);
    picker.set_endpoints(drained(Health::Healthy));
    assert_eq!(picker.pick(LATER_US, 5, &request).unwrap(), home);
}

#[test]
fn latency_goes_away_from_the_slow_one() {
    let mut picker = picker(Policy::Latency, (0..4).map(endpoint));
    let mut slow = 0;
    for (index, draw) in draws().take(2_000).enumerate() {
        let now_us = LATER_US + index as u64 * 1_000;
        let picked = picker.pick(now_us, draw, &Request::default()).unwrap();
        let is_slow = picker.endpoint(picked).unwrap().id.0 == 2;
        let flight = picker.started(now_us, picked, &Request::default());
        picker.finished(now_us + if is_slow { 500_000 } else { 5_000 }, flight, DONE);
        slow += usize::from(is_slow && index >= 100);
    }
    assert_eq!(slow, 0, "2 s are a fifth of the time constant");
}

#[test]
fn predictive_goes_where_the_prompt_is_kept_and_the_model_is_loaded_and_the_line_is_short() {
    let mut picker = picker(Policy::Predictive, (0..4).map(endpoint));
    let blocks: Vec<u64> = (0..20).collect();
    let long = Request { units: 20 * 512, blocks: &blocks, ..Request::default() };
    let first = picker.pick(LATER_US, 1, &long).unwrap();
    let flight = picker.started(LATER_US, first, &long);
    picker.finished(LATER_US + S, flight, DONE);
    for draw in draws().take(20) {
        assert_eq!(picker.pick(LATER_US + S, draw, &long).unwrap(), first);
    }
    // Behind three long prompts of others it is no longer the best place.
    let other = Request { units: 50_000, ..Request::default() };
    let waiting: Vec<Flight> = (0..3).map(|_| picker.started(LATER_US + S, first, &other)).collect();
    assert_ne!(picker.pick(LATER_US + S, 2, &long).unwrap(), first);
    for flight in waiting {
        picker.cancelled(flight);
    }
    assert_eq!(picker.pick(LATER_US + S, 3, &long).unwrap(), first);
    // A model that takes long to load is better waited for.
    let small = Request { units: 10, model: Some(7), model_load_us: 60 * S, ..Request::default() };
    picker.set_endpoints(
        (0..4).map(|id| Endpoint { warm_models: if id == 3 { vec![7] } else { vec![] }, ..endpoint(id) }),
    );
    let warm = picker.pick(LATER_US + S, 4, &small).unwrap();
    assert_eq!(picker.endpoint(warm).unwrap().id.0, 3);
}

#[test]
fn predictive_falls_back_to_least_loaded_while_it_is_wrong() {
    let mut picker = picker(Policy::Predictive, (0..4).map(endpoint));
    let request = Request { units: 100, ..Request::default() };
    let is_spread = |picker: &mut Picker, now_us| {
        let picked: BTreeSet<_> =
            draws().take(60).map(|draw| picker.pick(now_us, draw, &request).unwrap()).collect();
        picked.len() == 4
    };
    // Endpoint 0 is twice as quick: nothing is outstanding, so it is expected to be first every time.
    let mut now_us = LATER_US;
    let run = |picker: &mut Picker, now_us: &mut u64, latency: fn(usize) -> u64| {
        for (index, draw) in draws().take(400).enumerate() {
            let picked = picker.pick(*now_us, draw, &request).unwrap();
            let flight = picker.started(*now_us, picked, &request);
            let times = if picker.endpoint(picked).unwrap().id.0 == 0 { 1 } else { 2 };
            *now_us += latency(index) * times;
            picker.finished(*now_us, flight, DONE);
        }
    };
    run(&mut picker, &mut now_us, |_| 10_000);
    assert!(!is_spread(&mut picker, now_us));
    // One in ten takes a thousand times as long: no mean predicts that.
    run(&mut picker, &mut now_us, |index| if index % 10 == 0 { 10_000_000 } else { 10_000 });
    assert!(is_spread(&mut picker, now_us));
    run(&mut picker, &mut now_us, |_| 10_000);
    assert!(!is_spread(&mut picker, now_us));
}

#[test]
fn a_client_keeps_to_its_subset() {
    let settings = Settings { subset: Some(Subset { size: 5, client: 99 }), ..Settings::default() };
    let mut picker = Picker::new(Policy::RoundRobin, settings);
    picker.set_endpoints((0..50).map(endpoint));
    let before = counts(&mut picker, LATER_US, 50);
    assert!(before.len() == 5 && before.values().all(|count| *count == 10), "{before:?}");
    let gone = *before.keys().next().unwrap();
    picker.set_endpoints((0..50).filter(|id| *id != gone).map(endpoint));
    let after = counts(&mut picker, LATER_US, 50);
    assert_eq!((after.len(), after.keys().filter(|id| before.contains_key(id)).count()), (5, 4));
}

#[test]
fn the_same_calls_give_the_same_picks() {
    for policy in Policy::ALL {
        let run = || {
            let mut picker = picker(policy, (0..30).map(endpoint));
            let mut flights = Vec::new();
            draws()
                .take(500)
                .map(|draw| {
                    let request = Request {
                        key: draw % 10,
                        units: draw % 1_000,
                        blocks: &[draw % 10],
                        ..Request::default()
                    };
                    let picked = picker.pick(LATER_US + draw % S, draw, &request).unwrap();
                    flights.push(picker.started(LATER_US, picked, &request));
                    if flights.len() > 40 {
                        picker.finished(LATER_US + draw % S, flights.swap_remove(draw as usize % 40), DONE);
                    }
                    picked
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
