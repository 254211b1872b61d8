//! Requests of all kinds, for small fleets.

use plimsoll_ledger::{Affinity, Gang, GpuAsk, GpuShare, ProfileName, Qos, Request, Wait};
use plimsoll_types::{Amount, Operator, Selector, Term};
use proptest::prelude::*;

use super::GIB;
use crate::fixture::{term, topology};

/// A request of one member, for cpu alone.
pub(crate) fn plain(cpu_millis: u64) -> Request {
    Request { wait: Wait::Refuse, ..crate::fixture::plain(cpu_millis) }
}

/// A request of any kind: gangs, parts and instances, quotas, places, other work.
pub(crate) fn request() -> impl Strategy<Value = Request> {
    let gang = prop_oneof![5 => Just((1u32, 0u32)), 3 => (2u32..4, 0u32..2)];
    let places = (gang, prop::bool::weighted(0.25), prop::option::weighted(0.3, topology(level)));
    let rules = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(rule(), 1..3)];
    let app = prop::option::weighted(0.4, prop::sample::select(vec!["web", "db"]));
    let queue = prop::sample::select(vec!["", "", "", "vision", "speech", "org"]);
    let extras =
        (prop::bool::weighted(0.15), prop::option::weighted(0.2, 1u64..4), prop::bool::weighted(0.08));
    let extras = (extras, prop::option::weighted(0.3, Just(Qos::BestEffort)));
    (
        1u64..5_000,
        prop::option::weighted(0.55, ask()),
        places,
        (rules, app),
        queue,
        (prop::option::weighted(0.2, any_term()), extras),
    )
        .prop_map(
            |(cpu, gpu, ((members, more), spread, topology), (affinity, app), queue, (term, extras))| {
                let mut request = plain(cpu);
                let ((disk, licences, elsewhere), qos) = extras;
                request.qos = qos;
                let amounts = &mut request.requirements.amounts;
                amounts.set("storage/nvme", Amount(if disk { 2 * GIB } else { 0 }));
                amounts.set("license/sim", Amount(licences.unwrap_or(0)));
                request.requirements.gpu = gpu;
                request.requirements.required = Selector { terms: term.into_iter().collect() };
                request.topology = topology.unwrap_or_default();
                let group = request.topology.group();
                // Places of large gangs of instances are too many to try.
                let instances = request
                    .requirements
                    .gpu
                    .as_ref()
                    .is_some_and(|gpu| matches!(gpu.share, GpuShare::Mig(_)));
                let most = if instances { 2 } else { 4 };
                let min_members = members.min(most).div_ceil(group) * group;
                let max_members = if group > 1 { min_members } else { (members + more).min(most) };
                request.gang = Gang { min_members, max_members, spread };
                request.affinity = affinity;
                request.labels = app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect();
                request.queue = queue.into();
                if elsewhere {
                    request.pool = "other".into();
                }
                request
            },
        )
}

pub(crate) fn profile() -> impl Strategy<Value = GpuShare> {
    let names = vec!["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "3g.40gb", "4g.40gb", "7g.80gb", "9g.90gb"];
    prop::sample::select(names).prop_map(|name| GpuShare::Mig(ProfileName::new(name).expect("a name")))
}

fn ask() -> impl Strategy<Value = GpuAsk> {
    let share = prop_oneof![
        3 => Just(GpuShare::Whole),
        3 => prop::sample::select(vec![250u16, 500, 460, 999]).prop_map(GpuShare::Milli),
        2 => prop::sample::select(vec![4 * GIB, 10 * GIB, 20 * GIB]).prop_map(GpuShare::Memory),
        4 => profile(),
    ];
    (
        share,
        1u32..3,
        prop::option::weighted(0.3, prop::sample::select(vec!["a100", "t4"])),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(share, count, model, large)| GpuAsk {
            count: if share == GpuShare::Whole { count } else { 1 },
            share,
            models: model.into_iter().map(str::to_owned).collect(),
            min_device_memory_bytes: if large { 40 * GIB } else { 0 },
        })
}

fn any_term() -> impl Strategy<Value = Term> {
    prop::sample::select(vec![
        term("zone", Operator::In, &["z0"]),
        term("zone", Operator::NotIn, &["z0"]),
        term("rank", Operator::Gt, &["0"]),
        term("rack", Operator::DoesNotExist, &[]),
        term("gpu", Operator::In, &["t4"]),
        term("node", Operator::In, &["node-1", "node-2"]),
    ])
}

fn level() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["zone", "rack", "rack", "node"]).prop_map(str::to_owned)
}

fn rule() -> impl Strategy<Value = Affinity> {
    let weight = prop_oneof![4 => Just(0u32), 1 => Just(50)];
    (prop::sample::select(vec!["web", "db"]), level(), weight, any::<bool>()).prop_map(
        |(value, level, weight, anti)| Affinity {
            key: "app".into(),
            value: value.into(),
            level,
            weight,
            anti,
        },
    )
}
