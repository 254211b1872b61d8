//! Gangs of several roles: granted together or not at all, and counted as their members would be one by one.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, GIB, active, on, queued, registration, request, reservation};
use plimsoll_ledger::{
    Command, DeviceGrant, EndReason, GPU, Gang, GpuAsk, LATEST_VERSION, MICRO, Measure, MemberPlacement,
    Meter, NodeHealth, Outcome, Placement, PolicyObject, Pool, Queue, Quota, QuotaPolicy, Reason, Refusal,
    Request, Requirements, Reservation, Reset, Role, Scope, State, Verdict, Wait,
};
use plimsoll_types::{Amount, DeviceIndex, NodeId, Resources, Revision};
use proptest::prelude::*;

fn role(name: &str, cpu_millis: u64, gpus: u32, (min_members, max_members): (u32, u32)) -> Role {
    let amounts = Resources::new(cpu_millis, GIB);
    let gpu = (gpus > 0).then(|| GpuAsk::whole(gpus));
    let requirements = Requirements { amounts, gpu, ..Requirements::default() };
    Role { name: name.to_owned(), requirements, min_members, max_members }
}

/// One launcher of half a core, and two to four workers of two cores and a GPU.
fn training() -> Request {
    of_roles(vec![role("launcher", 500, 0, (1, 1)), role("worker", 2_000, 1, (2, 4))])
}

fn of_roles(roles: Vec<Role>) -> Request {
    let sum = |of: fn(&Role) -> u32| roles.iter().map(of).sum();
    let gang = Gang {
        min_members: sum(|role| role.min_members),
        max_members: sum(|role| role.max_members),
        spread: false,
    };
    let requirements = Requirements::default();
    active(Request { gang, roles, requirements, ..request(0) })
}

/// A member on a node, with a whole device where one is named.
fn member(role: u16, node: u32, device: Option<u16>) -> MemberPlacement {
    let grant = |index| DeviceGrant {
        device: DeviceIndex(index),
        milli: 1_000,
        memory_bytes: 80 * GIB,
        slices: None,
    };
    MemberPlacement { node: NodeId(node), devices: device.map(grant).into_iter().collect(), role }
}

fn newest(nodes: u32) -> Fixture {
    let mut f = Fixture::new(nodes);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    f
}

fn submit(request: Request, members: Vec<MemberPlacement>) -> Command {
    Command::Submit { request, verdict: Verdict::Place(Placement { members }) }
}

fn subjects(f: &mut Fixture, command: Command) -> Vec<String> {
    match f.run(command) {
        Outcome::Refused(Refusal { blockers, .. }) => {
            blockers.into_iter().map(|blocker| blocker.subject).collect()
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn granted(f: &mut Fixture) -> std::sync::Arc<Reservation> {
    let members = vec![member(0, 0, None), member(1, 0, Some(0)), member(1, 1, Some(0))];
    reservation(f.run(submit(training(), members)))
}

#[test]
fn each_member_takes_what_its_role_asks() {
    let mut f = newest(2);
    let lease = granted(&mut f);
    assert_eq!(lease.state, State::Partial, "two workers more are wanted");
    let used = |f: &Fixture, node| f.ledger.usage(NodeId(node)).expect("there").used.cpu_millis.0;
    assert_eq!((used(&f, 0), used(&f, 1)), (2_500, 2_000));
    assert_eq!(lease.role_of(&lease.members[0]), "launcher");
    assert_eq!(lease.charge().expect("fits").get(GPU).0, 2_000);
    f.run(Command::Release { reservation: lease.id, token: lease.token });
    assert_eq!((used(&f, 0), used(&f, 1)), (0, 0));
}

#[test]
fn a_place_without_a_role_with_too_many_of_one_or_with_the_wrong_devices_is_refused() {
    let mut f = newest(2);
    let workers = vec![member(1, 0, Some(0)), member(1, 0, Some(1)), member(1, 1, Some(0))];
    assert_eq!(subjects(&mut f, submit(training(), workers)), ["placement.members of role launcher"]);
    let two = vec![member(0, 0, None), member(0, 1, None), member(1, 0, Some(0)), member(1, 1, Some(0))];
    assert_eq!(subjects(&mut f, submit(training(), two)), ["placement.members of role launcher"]);
    let unknown = vec![member(0, 0, None), member(1, 0, Some(0)), member(1, 1, Some(0)), member(2, 1, None)];
    assert_eq!(subjects(&mut f, submit(training(), unknown)), ["placement.role"]);
    // The launcher asked for no device, and a worker did.
    let swapped = vec![member(0, 0, Some(0)), member(1, 0, None), member(1, 1, Some(0))];
    assert_eq!(subjects(&mut f, submit(training(), swapped)), ["placement.devices", "placement.devices"]);
    // Who has no roles has no members of any but the first.
    let plain = active(request(1_000));
    assert_eq!(subjects(&mut f, submit(plain, vec![member(1, 0, None)])), ["placement.role"]);
    // All of a node's members count against it together.
    let heavy = of_roles(vec![role("a", 5_000, 0, (1, 1)), role("b", 3_500, 0, (1, 1))]);
    let found = subjects(&mut f, submit(heavy, vec![member(0, 0, None), member(1, 0, None)]));
    assert_eq!(found, ["cpu"]);
}

#[test]
fn a_role_has_conditions_of_its_own() {
    let mut f = newest(2);
    let mut request = training();
    request.roles[0].requirements.required.terms = vec![plimsoll_types::Term {
        key: "node".into(),
        operator: plimsoll_types::Operator::In,
        values: vec!["node-1".into()],
    }];
    let on_node = |launcher| vec![member(0, launcher, None), member(1, 0, Some(0)), member(1, 1, Some(0))];
    assert_eq!(subjects(&mut f, submit(request.clone(), on_node(0))), ["node-0"]);
    assert!(matches!(f.run(submit(request, on_node(1))), Outcome::Reservation(_)));
}

#[test]
fn what_makes_no_sense_is_refused_and_older_ledgers_know_no_roles() {
    let mut f = newest(2);
    let place = || vec![member(0, 0, None), member(1, 0, Some(0)), member(1, 1, Some(0))];
    let beside = Request {
        requirements: Requirements { amounts: Resources::new(1, 0), ..Requirements::default() },
        ..training()
    };
    assert_eq!(subjects(&mut f, submit(beside, place())), ["requirements.amounts.cpu beside roles"]);
    let mut odd = training();
    odd.gang.min_members = 1;
    assert_eq!(subjects(&mut f, submit(odd, place())), ["gang.min_members of all roles"]);
    let lease = granted(&mut f);
    let amounts = Resources::new(1_000, GIB);
    let resize = Command::Resize { reservation: lease.id, token: lease.token, amounts };
    assert_eq!(f.refused(resize), Reason::InvalidArgument);
    let mut old = Fixture::new(2);
    old.run(Command::Upgrade { to: 7 });
    assert_eq!(old.refused(submit(training(), place())), Reason::UnsupportedVersion);
    assert_eq!(submit(training(), place()).since_version(), 8);
}

#[test]
fn one_that_lost_a_role_is_repaired_with_that_role_or_ends() {
    for repaired in [true, false] {
        let mut f = newest(3);
        let mut request = training();
        (request.repair_within_ms, request.ttl_ms) = (60_000, 3_600_000);
        let members =
            vec![member(0, 0, None), member(1, 1, Some(0)), member(1, 1, Some(1)), member(1, 2, Some(0))];
        let lease = reservation(f.run(submit(request, members)));
        f.health(0, NodeHealth::Fenced);
        let broken = f.get(lease.id);
        // Three members are the fewest, and it has three: but none of them launches.
        assert_eq!((broken.members.len(), broken.is_below_minimum()), (3, true));
        let lacking = f.ledger.lacking(&broken).expect("a launcher");
        let left: Vec<(u32, u32)> =
            lacking.roles.iter().map(|role| (role.min_members, role.max_members)).collect();
        assert_eq!(
            (left, lacking.gang.max_members),
            (vec![(0, 1), (0, 0)], 1),
            "a launcher, and no other worker"
        );
        f.run(Command::RegisterNode(registration(0, 2)));
        let place =
            |member| Command::Place { reservation: lease.id, placement: Placement { members: vec![member] } };
        if repaired {
            let whole = reservation(f.run(place(member(0, 0, None))));
            assert_eq!((whole.state, whole.repair(), whole.members.len()), (State::Partial, None, 4));
        } else {
            // Of no role there are more than it asked for.
            assert_eq!(f.refused(place(member(0, 1, None))), Reason::InvalidArgument);
            f.now_ms += 60_000;
            f.run(Command::Expire { limit: 10 });
            let ended = f.get(lease.id);
            assert_eq!((ended.state, ended.end_reason), (State::Failed, Some(EndReason::NotRepaired)));
        }
    }
}

#[test]
fn one_that_waits_is_granted_as_it_is_and_preempted_whole() {
    let mut f = newest(2);
    let waiting = queued(training());
    let verdict = Verdict::Blocked(Vec::new());
    let waits = reservation(f.run(Command::Submit { request: waiting, verdict }));
    let members = vec![member(0, 1, None), member(1, 0, Some(0)), member(1, 0, Some(1))];
    let command = Command::Place { reservation: waits.id, placement: Placement { members } };
    let lease = reservation(f.run(command));
    assert_eq!((lease.state, lease.members[0].role, lease.members[2].role), (State::Partial, 0, 1));
}

/// Random roles, and where their members are: 1 to 3 roles on 3 nodes.
fn roles_and_places() -> impl Strategy<Value = (Vec<Role>, Vec<MemberPlacement>)> {
    let one = (0u64..3_000, prop::bool::weighted(0.4), 0u64..2, prop::collection::vec(0u32..3, 1..4));
    prop::collection::vec(one, 1..4).prop_map(|kinds| {
        let (mut roles, mut members) = (Vec::new(), Vec::new());
        let mut devices = BTreeMap::<u32, u16>::new();
        for (index, (cpu_millis, gpu, licences, nodes)) in kinds.into_iter().enumerate() {
            let count = nodes.len() as u32;
            let mut role = role(&format!("role-{index}"), cpu_millis, u32::from(gpu), (count, count));
            role.requirements.amounts.set("license/x", Amount(licences));
            roles.push(role);
            for node in nodes {
                let next = devices.entry(node).or_default();
                let device = gpu.then_some(*next);
                *next += u16::from(gpu);
                members.push(member(index as u16, node, device));
            }
        }
        (roles, members)
    })
}

/// Three nodes in a pool with prices and a countable, a queue with quota, and a budget.
fn world() -> Fixture {
    let mut f = newest(3);
    let pool = Pool {
        name: "default".into(),
        prices: BTreeMap::from([("cpu".to_owned(), MICRO), (GPU.to_owned(), 2 * MICRO)]),
        countables: BTreeMap::from([("license/x".to_owned(), Amount(4))]),
        currency: "USD".into(),
        ..Pool::default()
    };
    let of =
        |nominal: u64| Quota { nominal: Amount(nominal), limit: Some(Amount(nominal)), ..Quota::default() };
    let quotas = [("cpu".to_owned(), of(9_000)), (GPU.to_owned(), of(3_000))].into();
    let queue =
        Queue { name: "team".into(), quotas: [("default".to_owned(), quotas)].into(), ..Queue::default() };
    let meter = Meter::new(Scope::Together, Measure::CpuHours, Reset::Never);
    let budget = QuotaPolicy {
        name: "hours".into(),
        queue: "team".into(),
        limits: BTreeMap::from([(meter, 9 * MICRO)]),
        ..QuotaPolicy::default()
    };
    let put = vec![PolicyObject::Pool(pool), PolicyObject::Queue(queue), PolicyObject::Quota(budget)];
    assert_eq!(f.run(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) }), Outcome::Done);
    f
}

/// All that is taken, whoever takes it.
fn taken(f: &Fixture) -> String {
    let nodes: Vec<_> = f
        .ledger
        .nodes()
        .map(|node| {
            let usage = f.ledger.usage(node.id).expect("there");
            let devices: Vec<_> = usage.devices.iter().map(|one| (one.milli, one.memory_bytes)).collect();
            let pending: Vec<_> = node.fence_pending.iter().map(|one| (&one.amounts, &one.devices)).collect();
            format!("{:?} {devices:?} {pending:?}", usage.used)
        })
        .collect();
    let quota = f.ledger.quota().own_use("team", "default");
    let book: Vec<_> = f.ledger.usage_of("hours").into_iter().map(|seen| format!("{seen:?}")).collect();
    format!("{nodes:#?} {quota:?} {:?} {book:?}", f.ledger.countables_used("default"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Plain requests are judged by a model of their own (`model_test`): a gang of roles must come to the same as its members one by one.
    #[test]
    fn a_gang_takes_what_its_members_would_take_one_by_one(
        (roles, members) in roles_and_places(),
        spread in prop::bool::weighted(0.2),
        ending in 0u8..4,
    ) {
        let gang = Request {
            queue: "team".into(),
            max_duration_ms: 3_600_000,
            wait: Wait::Refuse,
            ..of_roles(roles.clone())
        };
        let gang = Request { gang: Gang { spread, ..gang.gang }, ..gang };
        let mut together = world();
        let lease = match together.run(submit(gang.clone(), members.clone())) {
            Outcome::Reservation(lease) => Some(lease),
            Outcome::Refused(_) => None,
            other => panic!("{other:?}"),
        };
        let mut apart = world();
        let mut leases = Vec::new();
        for member in &members {
            let role = &roles[usize::from(member.role)];
            let alone = Request {
                requirements: role.requirements.clone(),
                gang: Gang::default(),
                roles: Vec::new(),
                ..gang.clone()
            };
            let alone = submit(alone, vec![MemberPlacement { role: 0, ..member.clone() }]);
            if let Outcome::Reservation(one) = apart.run(alone) {
                leases.push(one);
            }
        }
        let nodes: std::collections::BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
        let one_each = !spread || nodes.len() == members.len();
        prop_assert_eq!(lease.is_some(), leases.len() == members.len() && one_each, "{:?} {:?}", lease, leases);
        let Some(lease) = lease else { return Ok(()) };
        prop_assert_eq!(taken(&together), taken(&apart));
        match ending {
            0 => {
                together.run(Command::Release { reservation: lease.id, token: lease.token });
                for one in leases {
                    apart.run(Command::Release { reservation: one.id, token: one.token });
                }
            }
            // All silent: what they had there stays with the nodes until they are heard of or fenced.
            1 => {
                for f in [&mut together, &mut apart] {
                    for node in 0..3 {
                        f.health(node, NodeHealth::Suspect);
                    }
                    f.now_ms += 3_700_000;
                    f.run(Command::Expire { limit: 100 });
                }
            }
            2 => {
                for f in [&mut together, &mut apart] {
                    for node in 0..3 {
                        f.health(node, NodeHealth::Fenced);
                    }
                }
            }
            _ => {}
        }
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        prop_assert_eq!(sorted(taken(&together)), sorted(taken(&apart)));
    }
}

#[test]
fn a_plain_gang_is_as_before() {
    let mut f = newest(2);
    let lease = f.submit(
        active(Request { gang: Gang { min_members: 2, max_members: 2, spread: true }, ..request(1_000) }),
        on(&[0, 1]),
    );
    assert_eq!(lease.amounts_of(&lease.members[0]), &Resources::new(1_000, GIB));
    assert_eq!(lease.role_of(&lease.members[0]), "");
}
