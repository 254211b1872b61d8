//! What is asked of a cluster, and what else happens on it.

use std::fmt;

use plimsoll_ledger::{Gang, GpuAsk, GpuShare, OnPreempt, Qos, Request, Requirements, Role, Topology, Wait};
use plimsoll_types::{Amount, Operator, Resources, Selector, Term};
use proptest::prelude::*;

use crate::fixture::bounded::HOUR_MS;
use crate::fixture::{GIB, plain, term};

/// Leases that nobody renews here outlast everything.
const LEASE_MS: u64 = 30 * 24 * HOUR_MS;
const CLASSES: [&str; 8] = ["batch", "batch", "low", "low", "standard", "standard", "high", "critical"];
const QUEUES: [&str; 11] =
    ["", "", "org", "vision", "vision", "vision", "lab-a", "lab-a", "lab-a", "lab-b", "guest"];

/// One thing that happens.
#[derive(Clone)]
pub(crate) enum Deed {
    Ask(Box<Request>),
    /// The same for later: so many milliseconds from now.
    Plan(Box<Request>, u64),
    /// Whoever was given notice stops before the grace is over.
    Leave,
    /// One who holds something gives it back.
    Release(usize),
    /// Time goes by.
    Pass(u64),
    /// A node takes no more work, or does again.
    Cordon(usize, bool),
    /// The first device of a node fails, or works again.
    Device(usize, bool),
    /// A queue is given so many thousandths of what it had first.
    Give(usize, u64),
}

impl fmt::Debug for Deed {
    /// In one line: a history has many.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Ask(request) => write!(to, "Ask({})", told(request)),
            Deed::Plan(request, ahead_ms) => write!(to, "Plan({}, in {ahead_ms} ms)", told(request)),
            Deed::Leave => to.write_str("Leave"),
            Deed::Release(index) => write!(to, "Release({index})"),
            Deed::Pass(ms) => write!(to, "Pass({ms})"),
            Deed::Cordon(node, on) => write!(to, "Cordon({node}, {on})"),
            Deed::Device(node, failed) => write!(to, "Device({node}, {failed})"),
            Deed::Give(queue, permille) => write!(to, "Give({queue}, {permille})"),
        }
    }
}

/// What matters of a request here.
fn told(request: &Request) -> String {
    let needs = |needs: &Requirements| {
        let gpu = needs.gpu.as_ref().map(|gpu| (gpu.count, gpu.share));
        let zone = needs.required.terms.iter().flat_map(|term| term.values.clone()).collect::<String>();
        (needs.amounts.cpu_millis.0, needs.amounts.get("license/sim").0, gpu, zone)
    };
    let roles: Vec<_> = request
        .roles
        .iter()
        .map(|role| (needs(&role.requirements), role.min_members, role.max_members))
        .collect();
    format!(
        "{} of {:?} for {:?}, {:?} x {:?} {roles:?}, {} ms, {:?}, {:?}, zone {:?}, at once {}",
        request.class,
        request.queue,
        request.tenant,
        (request.gang.min_members, request.gang.max_members),
        needs(&request.requirements),
        request.max_duration_ms,
        request.qos,
        request.on_preempt,
        request.topology.required,
        request.auto_confirm,
    )
}

pub(crate) fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        14 => asked().prop_map(|request| Deed::Ask(Box::new(request))),
        1 => (asked(), 1_000..3 * HOUR_MS).prop_map(|(request, ahead_ms)| Deed::Plan(Box::new(request), ahead_ms)),
        3 => Just(Deed::Leave),
        2 => any::<usize>().prop_map(Deed::Release),
        3 => prop::sample::select(vec![1_000, 45_000, HOUR_MS / 6, 2 * HOUR_MS]).prop_map(Deed::Pass),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(node, on)| Deed::Cordon(node, on)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(node, failed)| Deed::Device(node, failed)),
        1 => (0usize..6, 500u64..1_500).prop_map(|(queue, permille)| Deed::Give(queue, permille)),
    ];
    prop::collection::vec(deed, 10..50)
}

fn asked() -> impl Strategy<Value = Request> {
    let whose =
        (prop::sample::select(CLASSES.to_vec()), prop::sample::select(QUEUES.to_vec()), any::<bool>());
    let kind = prop_oneof![4 => alike(), 1 => of_roles()];
    let qos = prop_oneof![
        6 => Just(None), 2 => Just(Some(Qos::BestEffort)), 2 => Just(Some(Qos::Burstable)),
    ];
    let life = (
        prop_oneof![3 => Just(0u64), 1 => 1u64..4],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.15),
    );
    (kind, whose, qos, life).prop_map(
        |(request, (class, queue, is_ada), qos, (hours, ends, is_held, in_a_zone))| {
            // Nobody may say of members of several kinds how far they may go beyond what they ask.
            let bursts = qos == Some(Qos::Burstable) && request.roles.is_empty();
            let cpu = request.requirements.amounts.cpu_millis.0;
            Request {
                class: class.into(),
                queue: queue.into(),
                tenant: if is_ada { "ada".into() } else { "bob".into() },
                max_duration_ms: hours * HOUR_MS,
                ttl_ms: if hours > 0 { HOUR_MS } else { LEASE_MS },
                hold_ms: LEASE_MS,
                auto_confirm: !is_held,
                on_preempt: if ends { OnPreempt::End } else { OnPreempt::Requeue },
                burst: if bursts { Resources::new(2 * cpu, 0) } else { Resources::default() },
                topology: Topology {
                    required: if in_a_zone { "zone".into() } else { String::new() },
                    ..Topology::default()
                },
                qos,
                wait: Wait::Queue { deadline_ms: 0 },
                ..request
            }
        },
    )
}

fn alike() -> impl Strategy<Value = Request> {
    let gpu = prop_oneof![
        5 => Just(None),
        2 => (1u32..3).prop_map(|count| Some(GpuAsk::whole(count))),
        1 => Just(Some(GpuAsk { share: GpuShare::Milli(500), ..GpuAsk::whole(1) })),
    ];
    (
        prop_oneof![3 => 1u64..4, 1 => 4u64..7],
        gpu,
        prop_oneof![3 => Just(1u32), 1 => 2u32..4],
        any::<bool>(),
        prop::bool::weighted(0.15),
        zone(),
    )
        .prop_map(|(cores, gpu, members, is_elastic, licensed, zone)| {
            let mut request = plain(cores * 1_000);
            request.requirements.amounts.set("license/sim", Amount(if licensed { 4 } else { 0 }));
            request.requirements.gpu = gpu;
            request.requirements.required = Selector { terms: zone.into_iter().collect() };
            let more = u32::from(is_elastic && members > 1);
            request.gang = Gang { min_members: members, max_members: members + more, spread: false };
            request
        })
}

/// Whoever is made to leave one zone may find others to leave in the other.
fn zone() -> impl Strategy<Value = Option<Term>> {
    let zone = prop::sample::select(vec!["a", "b"]);
    prop::option::weighted(0.3, zone.prop_map(|zone| term("zone", Operator::In, &[zone])))
}

fn of_roles() -> impl Strategy<Value = Request> {
    let kind = (1u64..4, prop::bool::weighted(0.3), 0u32..3, 0u32..2);
    prop::collection::vec(kind, 2..4).prop_map(|kinds| {
        let role = |(index, (cores, on_device, fewest, more)): (usize, (u64, bool, u32, u32))| {
            let min_members = if index == 0 { fewest.max(1) } else { fewest };
            Role {
                name: format!("role-{index}"),
                requirements: Requirements {
                    amounts: Resources::new(cores * 1_000, GIB),
                    gpu: on_device.then(|| GpuAsk::whole(1)),
                    ..Requirements::default()
                },
                min_members,
                max_members: (min_members + more).max(1),
            }
        };
        let roles: Vec<Role> = kinds.into_iter().enumerate().map(role).collect();
        let sum = |of: fn(&Role) -> u32| roles.iter().map(of).sum();
        let (min_members, max_members) = (sum(|role| role.min_members), sum(|role| role.max_members));
        Request {
            requirements: Requirements::default(),
            gang: Gang { min_members, max_members, spread: false },
            roles,
            ..plain(0)
        }
    })
}
