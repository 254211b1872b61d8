//! Requests that make sense.

use plimsoll_ledger::{
    Affinity, Gang, GpuAsk, GpuShare, OnPreempt, Preferred, PreferredHours, ProfileName, Qos, Request,
    Requirements, Role, Topology, Wait,
};
use plimsoll_types::{Operator, Resources, Selector, Term};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::spot::on_interruption;
use super::{amount, labels, name, number, resources};

fn term() -> impl Strategy<Value = Term> {
    let operator = select(vec![
        Operator::In,
        Operator::NotIn,
        Operator::Exists,
        Operator::DoesNotExist,
        Operator::Gt,
        Operator::Lt,
    ]);
    ("[a-z]{1,5}", operator, vec("[a-z0-9]{0,5}", 1..4), any::<i64>()).prop_map(
        |(key, operator, values, number)| {
            let values = match operator {
                Operator::In | Operator::NotIn => values,
                Operator::Exists | Operator::DoesNotExist => Vec::new(),
                Operator::Gt | Operator::Lt => vec![number.to_string()],
            };
            Term { key, operator, values }
        },
    )
}

pub(super) fn selector() -> impl Strategy<Value = Selector> {
    vec(term(), 0..3).prop_map(|terms| Selector { terms })
}

fn gpu() -> impl Strategy<Value = GpuAsk> {
    let share = prop_oneof![
        Just(GpuShare::Whole),
        (1..1000u16).prop_map(GpuShare::Milli),
        (1..(u64::MAX >> 1)).prop_map(GpuShare::Memory),
        profile_name().prop_map(GpuShare::Mig),
    ];
    (1..9u32, share, amount(), vec("[a-z0-9]{1,5}", 0..3)).prop_map(|(count, share, min, models)| GpuAsk {
        count: if share == GpuShare::Whole { count } else { 1 },
        share,
        min_device_memory_bytes: min,
        models,
    })
}

pub(super) fn profile_name() -> impl Strategy<Value = ProfileName> {
    "[1-7]g\\.[0-9]{1,3}gb(\\+me)?".prop_map(|text| ProfileName::new(&text).expect("it is made as one"))
}

fn requirements() -> impl Strategy<Value = Requirements> {
    let wish = (1..=100u32, term()).prop_map(|(weight, term)| Preferred { weight, term });
    (resources(), option::of(gpu()), selector(), vec(wish, 0..3))
        .prop_map(|(amounts, gpu, required, preferred)| Requirements { amounts, gpu, required, preferred })
}

fn topology() -> impl Strategy<Value = Topology> {
    let level = || prop_oneof![Just(String::new()), name()];
    let slices = prop_oneof![Just((0u32, String::new())), (1..5u32, name())];
    (level(), level(), slices).prop_map(|(required, preferred, (slice_size, slice_level))| Topology {
        required,
        preferred,
        slice_size,
        slice_level,
    })
}

fn rule() -> impl Strategy<Value = Affinity> {
    (name(), name(), name(), 0..=100u32, any::<bool>())
        .prop_map(|(key, value, level, weight, anti)| Affinity { key, value, level, weight, anti })
}

/// Any quality of service, or none.
pub(super) fn qos() -> impl Strategy<Value = Option<Qos>> {
    option::of(select(Qos::NAMED.map(|(_, qos)| qos).to_vec()))
}

/// Roles, or none; their names differ.
fn roles() -> impl Strategy<Value = Vec<Role>> {
    let role = (requirements(), 0..5u32, 1..5u32);
    let some = vec(role, 1..4).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let named = numbered.map(|(index, (requirements, min_members, more))| Role {
            name: format!("role-{index}"),
            requirements,
            // Somebody is of use.
            min_members: if index == 0 { min_members.max(1) } else { min_members },
            max_members: min_members + more,
        });
        named.collect()
    });
    prop_oneof![3 => Just(Vec::new()), 1 => some]
}

/// Requests that make sense.
pub(crate) fn valid_request() -> impl Strategy<Value = Request> {
    let gang = (1..100u32, 0..100u32, any::<bool>(), topology(), vec(rule(), 0..3)).prop_map(
        |(min_members, more, spread, topology, affinity)| {
            let group = topology.group();
            let (min_members, max_members) = (min_members * group, (min_members + more) * group);
            (Gang { min_members, max_members, spread }, topology, affinity)
        },
    );
    let wait = prop_oneof![
        Just(Wait::Refuse),
        (0..1_000_000u64).prop_map(|deadline_ms| Wait::Queue { deadline_ms })
    ];
    let length = || prop_oneof![Just(0), 1_000..1_000_000u64];
    let queue = prop_oneof![Just(String::new()), name()];
    let service = prop_oneof![Just(String::new()), name()];
    let words = ("[a-z ]{0,8}", name(), name(), "[a-z]{0,5}", labels(), (queue, service));
    let on_preempt = (select(vec![OnPreempt::Requeue, OnPreempt::End]), on_interruption());
    let start = prop_oneof![3 => Just(0), 1 => 1..2_000_000_000_000u64];
    let times = (length(), length(), 0..1_000_000u64, any::<bool>(), number(), (start, length()));
    let hours = (name(), 1_000..1_000_000u64)
        .prop_map(|(schedule, longest_wait_ms)| PreferredHours { schedule, longest_wait_ms });
    let hours = prop_oneof![3 => Just(None), 1 => hours.prop_map(Some)];
    let wait = (wait, hours, prop_oneof![3 => Just(0), 1 => 1..=1_000_000_000u32]);
    let burst = prop_oneof![2 => Just(Resources::default()), 1 => resources()];
    // Boxed: it is part of much, and a test has a small stack.
    (words, requirements(), gang, times, (wait, on_preempt, qos(), burst, roles()))
        .prop_map(|(words, mut requirements, gang, times, end)| {
            let (wait, on_preempt, qos, mut burst, roles) = end;
            let (mut gang, mut topology, affinity) = gang;
            if !roles.is_empty() {
                // What they need is said in the roles, and how many there are.
                (requirements.amounts, requirements.gpu) = Default::default();
                burst = Resources::default();
                (topology.slice_size, topology.slice_level) = Default::default();
                gang.min_members = roles.iter().map(|role| role.min_members).sum();
                gang.max_members = roles.iter().map(|role| role.max_members).sum();
            }
            let (name, pool, class, tenant, labels, (queue, service)) = words;
            let (ttl_ms, hold_ms, max_duration_ms, auto_confirm, max_cost_micros, (start_at_ms, repair)) =
                times;
            // What may not be said of a gang that is repaired.
            let repairable = gang.max_members > 1 && topology.slice_size == 0 && affinity.is_empty();
            Request {
                name,
                pool,
                class,
                queue,
                service,
                tenant,
                labels,
                requirements,
                gang,
                ttl_ms,
                hold_ms,
                max_duration_ms,
                auto_confirm,
                wait: wait.0,
                on_preempt: on_preempt.0,
                on_interruption: on_preempt.1,
                max_cost_micros,
                // Who says when it starts prefers no other time.
                start_at_ms: if max_duration_ms >= 1_000 && wait.1.is_none() { start_at_ms } else { 0 },
                hours: wait.1,
                nice: wait.2,
                topology,
                affinity,
                qos,
                burst,
                repair_within_ms: if repairable { repair } else { 0 },
                roles,
            }
        })
        .boxed()
}
