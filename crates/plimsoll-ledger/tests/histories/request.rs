//! Requests of histories: most make sense, some do not.

use plimsoll_ledger::{
    Affinity, Gang, GpuAsk, GpuShare, OnInterruption, OnPreempt, PreferredHours, ProfileName, Qos, Request,
    Requirements, Topology, Wait,
};
use plimsoll_types::{Operator, Resources, Selector, Term};
use proptest::prelude::*;

use super::GIB;

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let share = prop_oneof![
        2 => Just(GpuShare::Whole),
        3 => prop_oneof![Just(250u16), Just(500), Just(333), Just(999)].prop_map(GpuShare::Milli),
        2 => prop_oneof![Just(10 * GIB), Just(20 * GIB + 1), Just(81 * GIB)].prop_map(GpuShare::Memory),
        4 => prop::sample::select(vec!["1g.10gb", "1g.10gb", "1g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "2g.12gb"])
            .prop_map(|name| GpuShare::Mig(ProfileName::new(name).expect("a name"))),
    ];
    let gpu = prop::option::weighted(
        0.5,
        (share, 1u32..=2).prop_map(|(share, count)| GpuAsk {
            count: if share == GpuShare::Whole { count } else { 1 },
            share,
            ..GpuAsk::whole(1)
        }),
    );
    let amounts = (prop_oneof![8 => 0u64..6_000, 1 => Just(u64::MAX), 1 => Just(u64::MAX >> 1)], 0u64..3);
    let gang = prop_oneof![4 => Just((1u32, 1u32)), 2 => (1u32..=2, 2u32..=3), 1 => Just((0, 0))];
    let pool = prop_oneof![8 => Just("default"), 3 => Just("gpu"), 1 => Just("nosuch")];
    let class =
        prop_oneof![4 => Just("standard"), 2 => Just("critical"), 2 => Just("batch"), 1 => Just("nosuch")];
    let queue = prop_oneof![
        6 => Just(""), 4 => Just("vision"), 4 => Just("speech"), 1 => Just("org"), 1 => Just("nosuch"),
    ];
    let service = prop_oneof![8 => Just(""), 4 => Just("web"), 1 => Just("nosuch")];
    let times = (prop_oneof![6 => 1_000u64..20_000, 1 => Just(0), 1 => Just(5)], 0u64..3, prop::bool::ANY);
    let wait = prop_oneof![
        Just(Wait::Refuse),
        Just(Wait::Queue { deadline_ms: 0 }),
        (1_000u64..30_000).prop_map(|deadline_ms| Wait::Queue { deadline_ms }),
    ];
    let later = prop_oneof![5 => Just(0u64), 2 => 1u64..40_000];
    let hours =
        (prop::sample::select(vec!["evening", "evening", "evening", "night", "nosuch"]), 1_000u64..30_000);
    let hours = hours.prop_map(|(schedule, longest_wait_ms)| PreferredHours {
        schedule: schedule.into(),
        // Some that make no sense.
        longest_wait_ms: if longest_wait_ms < 1_500 { 1 } else { longest_wait_ms },
    });
    let later = (later, prop::option::weighted(0.2, hours));
    let near = (prop::sample::select(vec!["", "", "", "zone", "node", "rack"]), 0u32..3);
    let repair = prop_oneof![5 => Just(0u64), 4 => 1_000u64..20_000, 1 => Just(5)];
    let places = prop_oneof![2 => Just(None), 1 => (near, rules()).prop_map(Some)];
    let app = prop::option::of(prop::sample::select(vec!["web", "db"]));
    let of_service = prop_oneof![
        10 => Just((None, 0u64)),
        5 => Just((Some(Qos::BestEffort), 0)),
        2 => Just((Some(Qos::Guaranteed), 0)),
        2 => (1u64..3).prop_map(|times| (Some(Qos::Burstable), times)),
        1 => Just((None, 2)),
    ];
    let labelled = (prop::bool::weighted(0.2), app, places, of_service);
    (gpu, amounts, gang, (pool, queue), (class, service), times, (wait, later), (labelled, repair)).prop_map(
        |(
            gpu,
            (cpu, licences),
            (min_members, max_members),
            (pool, queue),
            (class, service),
            (ttl_ms, duration, auto_confirm),
            (wait, (start_at_ms, hours)),
            ((labelled, app, places, (qos, bursts)), repair),
        )| {
            let (near, affinity) = places.unwrap_or_default();
            let slice_size = if near.1 == 1 { 0 } else { near.1 };
            let topology = Topology {
                required: near.0.into(),
                slice_size,
                slice_level: if slice_size > 0 { "node".into() } else { String::new() },
                ..Topology::default()
            };
            // Mostly where it makes sense.
            let repairable = max_members > 1 && slice_size == 0 && affinity.is_empty();
            let repair_within_ms = if repairable || repair % 16 == 1 { repair } else { 0 };
            let term = Term { key: "zone".into(), operator: Operator::In, values: vec!["a".into()] };
            Request {
                pool: pool.into(),
                class: class.into(),
                queue: queue.into(),
                service: service.into(),
                requirements: Requirements {
                    amounts: Resources::new(cpu, GIB).with("license/x", licences),
                    gpu,
                    required: Selector { terms: if labelled { vec![term] } else { vec![] } },
                    preferred: Vec::new(),
                },
                gang: Gang { min_members, max_members, spread: labelled },
                labels: app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect(),
                topology,
                affinity,
                repair_within_ms,
                ttl_ms,
                hold_ms: 5_000,
                max_duration_ms: duration * 15_000,
                auto_confirm,
                wait,
                on_interruption: [
                    None,
                    None,
                    None,
                    Some(OnInterruption::Fail),
                    Some(OnInterruption::CheckpointAndRetry),
                ][(ttl_ms % 5) as usize],
                on_preempt: if duration == 1 { OnPreempt::End } else { OnPreempt::Requeue },
                start_at_ms,
                hours,
                nice: if ttl_ms % 7 == 0 { (ttl_ms % 3) as u32 } else { 0 },
                qos,
                burst: Resources::new((cpu / 2).saturating_mul(bursts), 0),
                name: if duration == 1 { "batch_1".into() } else { "one".into() },
                ..Request::default()
            }
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Affinity>> {
    let level = prop::sample::select(vec!["zone", "node", "node"]);
    let rule = (prop::sample::select(vec!["web", "db"]), level, prop::bool::weighted(0.7), 0u32..2);
    let rule = rule.prop_map(|(value, level, anti, weight)| Affinity {
        key: "app".into(),
        value: value.into(),
        level: level.into(),
        weight: weight * 7,
        anti,
    });
    prop::collection::vec(rule, 0..2)
}
