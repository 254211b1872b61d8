//! Gangs in domains, and affinity to other work: the planner against an exhaustive one that tries every node for every member.

mod fixture;

use std::collections::BTreeSet;

use fixture::{GIB, apply, plain, topology};
use plimsoll_ledger::{
    Affinity, Command, Device, DeviceGrant, Gang, GpuAsk, Ledger, MemberPlacement, Outcome, Placement, Pool,
    Reason, Registration, Request, Strategy as PoolStrategy, Topology, Verdict, Wait,
};
use plimsoll_scheduler::{Planner, SingleChange, explain_request};
use plimsoll_types::{DeviceIndex, Labels, NodeId, Operator, ReservationId};
use proptest::prelude::*;

/// Cores, devices, zone, rack (none for 3).
type Place = (u64, u16, u8, u8);

fn world(nodes: &[Place], strategy: PoolStrategy) -> Ledger {
    let mut ledger = Ledger::new();
    apply(&mut ledger, Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION });
    let topology = vec!["zone".to_owned(), "rack".to_owned()];
    fixture::put_pool(&mut ledger, Pool { name: "default".into(), strategy, topology, ..Pool::default() });
    for (index, (cores, devices, zone, rack)) in nodes.iter().enumerate() {
        let mut labels = Labels::from([("zone".to_owned(), format!("z{zone}"))]);
        if *rack < 3 {
            labels.insert("rack".to_owned(), format!("r{rack}"));
        }
        let device = |n: u16| Device {
            uuid: format!("GPU-{index}-{n}"),
            model: "a100".into(),
            memory_bytes: 80 * GIB,
            failed: false,
            mig: None,
        };
        let registration = Registration {
            name: format!("node-{index}"),
            incarnation: 1,
            labels,
            capacity: plimsoll_types::Resources::new(cores * 1_000, 64 * GIB),
            devices: (0..*devices).map(device).collect(),
            ..Registration::default()
        };
        apply(&mut ledger, Command::RegisterNode(registration));
    }
    ledger
}

/// Every way to put the members on nodes, in every order, until one is admitted: exponential, for fleets of a few nodes.
fn exhaustive(ledger: &Ledger, request: &Request, members: u32) -> bool {
    let nodes: Vec<NodeId> = ledger.nodes().map(|node| node.id).collect();
    fn place(
        ledger: &Ledger,
        request: &Request,
        nodes: &[NodeId],
        chosen: &mut Vec<NodeId>,
        members: usize,
    ) -> bool {
        if chosen.len() == members {
            return ledger.admit(request, &on(ledger, request, chosen)).is_ok();
        }
        nodes.iter().any(|node| {
            chosen.push(*node);
            let found = place(ledger, request, nodes, chosen, members);
            chosen.pop();
            found
        })
    }
    place(ledger, request, &nodes, &mut Vec::new(), members as usize)
}

/// Members on these nodes, each on the first devices that are free and not taken by the members before.
fn on(ledger: &Ledger, request: &Request, nodes: &[NodeId]) -> Placement {
    let mut taken = BTreeSet::new();
    let members = nodes.iter().map(|node| {
        let usage = ledger.devices_spoken_for(*node);
        let count = request.requirements.gpu.as_ref().map_or(0, |gpu| gpu.count as usize);
        let free = (0..usage.len() as u16).filter(|index| usage[usize::from(*index)].grants == 0);
        let open: Vec<u16> = free.filter(|index| !taken.contains(&(*node, *index))).take(count).collect();
        taken.extend(open.iter().map(|index| (*node, *index)));
        let grant = |index| DeviceGrant {
            device: DeviceIndex(index),
            milli: 1_000,
            memory_bytes: 80 * GIB,
            slices: None,
        };
        MemberPlacement { node: *node, devices: open.into_iter().map(grant).collect(), role: 0 }
    });
    Placement { members: members.collect() }
}

fn level() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["zone".to_owned(), "rack".to_owned(), "node".to_owned()])
}

fn rule() -> impl Strategy<Value = Affinity> {
    let weight = prop_oneof![3 => Just(0u32), 1 => Just(50)];
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

fn asked() -> impl Strategy<Value = Request> {
    let app = prop::option::of(prop::sample::select(vec!["web", "db"]));
    let gang = (1u32..4, 0u32..2, prop::bool::weighted(0.3));
    let rules = prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec(rule(), 1..3)];
    (500u64..5_000, 0u32..3, gang, topology(level), app, rules).prop_map(
        |(cpu, gpus, (members, more, spread), topology, app, affinity)| {
            let mut request = plain(cpu);
            request.requirements.gpu = (gpus > 0).then(|| GpuAsk::whole(gpus));
            let group = topology.group();
            let members = members.div_ceil(group) * group;
            let most = if group > 1 { members } else { members + more };
            request.gang = Gang { min_members: members, max_members: most, spread };
            request.topology = topology;
            request.affinity = affinity;
            request.labels = app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect();
            request
        },
    )
}

fn places() -> impl Strategy<Value = Vec<Place>> {
    prop::collection::vec((1u64..9, 0u16..4, 0u8..2, 0u8..4), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_planner_finds_a_place_just_where_one_exists(
        nodes in places(),
        requests in prop::collection::vec((asked(), any::<bool>()), 1..10),
        strategy in fixture::strategy(),
    ) {
        let mut ledger = world(&nodes, strategy);
        let mut planner = Planner::new(&ledger, 7);
        let mut live: Vec<ReservationId> = Vec::new();
        for (request, end_one) in &requests {
            let found = planner.place(&ledger, request);
            let exists = exhaustive(&ledger, request, request.gang.min_members);
            match &found {
                Verdict::Place(place) => {
                    prop_assert_eq!(ledger.admit(request, place), Ok(()), "{:?}", place);
                }
                Verdict::Blocked(blockers) => {
                    prop_assert!(!exists, "a place was missed for {request:?}: {blockers:?}");
                    prop_assert!(!blockers.is_empty(), "{request:?}");
                }
                Verdict::Infeasible(blockers) => {
                    prop_assert!(!exists && !blockers.is_empty());
                    prop_assert!(!exhaustive(&world(&nodes, strategy), &Request { affinity: vec![], ..request.clone() }, request.gang.min_members),
                        "an empty fleet takes it");
                }
            }
            let [(verdict, ticket)] = &planner.plan_batch(&ledger, &[request])[..] else { panic!("one verdict") };
            prop_assert_eq!(matches!(verdict, Verdict::Place(_)), matches!(found, Verdict::Place(_)));
            let request = Request { wait: Wait::Refuse, ..request.clone() };
            if let Outcome::Reservation(r) = apply(&mut ledger, Command::Submit { request, verdict: verdict.clone() }) {
                live.push(r.id);
            }
            if let Some(ticket) = ticket {
                planner.settle(&ledger, *ticket);
            }
            if *end_one && !live.is_empty() {
                let id = live.swap_remove(0);
                let held: Vec<NodeId> =
                    ledger.reservation(id).map(|r| r.members.iter().map(|m| m.node).collect()).unwrap_or_default();
                apply(&mut ledger, Command::Cancel { reservation: id });
                planner.sync(&ledger, held);
            }
            prop_assert_eq!(ledger.check_invariants(), vec![]);
        }
    }
}

/// Two zones of two racks of three nodes with 4 cores each.
fn racks() -> Ledger {
    let nodes: Vec<Place> = (0..12).map(|n| (4, 0, n / 6, n / 3 % 2)).collect();
    world(&nodes, PoolStrategy::BestFit)
}

fn gang(cpu_millis: u64, members: u32, topology: Topology) -> Request {
    let gang = Gang { min_members: members, max_members: members, spread: false };
    Request { gang, topology, ..plain(cpu_millis) }
}

fn required(level: &str) -> Topology {
    Topology { required: level.into(), ..Topology::default() }
}

/// What stands in the way: reason, subject, asked, available.
type Blocked = Vec<(Reason, String, u64, u64)>;

fn submit(ledger: &mut Ledger, request: &Request) -> Result<Vec<u32>, Blocked> {
    let verdict = Planner::new(ledger, 1).place(ledger, request);
    if let Verdict::Blocked(blockers) | Verdict::Infeasible(blockers) = &verdict {
        return Err(blockers.iter().map(|b| (b.reason, b.subject.clone(), b.asked, b.available)).collect());
    }
    match apply(ledger, Command::Submit { request: request.clone(), verdict }) {
        Outcome::Reservation(r) => Ok(r.members.iter().map(|member| member.node.0).collect()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_required_level_takes_the_tightest_domain_that_holds_the_gang() {
    let mut ledger = racks();
    assert_eq!(submit(&mut ledger, &gang(4_000, 1, required("node"))), Ok(vec![0]));
    // Rack z0/r0 has two nodes left: the tightest for two.
    assert_eq!(submit(&mut ledger, &gang(4_000, 2, required("rack"))), Ok(vec![1, 2]));
    assert_eq!(submit(&mut ledger, &gang(4_000, 3, required("rack"))), Ok(vec![3, 4, 5]));
    let refused = submit(&mut ledger, &gang(4_000, 4, required("rack"))).expect_err("no rack has four nodes");
    assert!(refused.contains(&(Reason::TopologyMismatch, "rack z1/r1".to_owned(), 4, 3)), "{refused:?}");
    assert_eq!(submit(&mut ledger, &gang(4_000, 4, required("zone"))).map(|nodes| nodes.len()), Ok(4));
}

#[test]
fn a_preferred_level_climbs_one_level_at_a_time() {
    let mut ledger = racks();
    let rather = |level: &str, required: &str| Topology {
        preferred: level.into(),
        required: required.into(),
        ..Topology::default()
    };
    // One of a rack of zone z0: no rack there holds four, the zone does, and it takes as few racks as can be.
    assert_eq!(submit(&mut ledger, &gang(4_000, 4, rather("rack", "zone"))).map(|n| n.len()), Ok(4));
    assert_eq!(submit(&mut ledger, &gang(4_000, 2, rather("rack", ""))).map(|n| n.len()), Ok(2));
    // Three are left in each of the racks of one zone: five need both, and nothing outside.
    let nodes = submit(&mut ledger, &gang(4_000, 5, rather("rack", "zone"))).expect("the other zone is free");
    assert_eq!(nodes.iter().map(|node| node / 6).collect::<BTreeSet<_>>().len(), 1, "{nodes:?}");
    assert!(submit(&mut ledger, &gang(4_000, 2, required("zone"))).is_err(), "one is left");
}

#[test]
fn groups_are_each_in_one_domain() {
    let mut ledger = racks();
    let groups = Topology {
        required: "zone".into(),
        slice_size: 2,
        slice_level: "rack".into(),
        ..Topology::default()
    };
    let nodes = submit(&mut ledger, &gang(4_000, 4, groups.clone())).expect("two racks hold a group each");
    assert_eq!(nodes[0] / 3, nodes[1] / 3);
    assert_eq!(nodes[2] / 3, nodes[3] / 3);
    // Each rack of the other zone holds one group, though six nodes are free there.
    let refused = submit(&mut ledger, &gang(4_000, 6, groups)).expect_err("three groups");
    assert!(
        refused
            .iter()
            .any(|(reason, _, asked, fit)| *reason == Reason::TopologyMismatch && (*asked, *fit) == (6, 4))
    );
}

#[test]
fn work_keeps_apart_from_other_work_both_ways() {
    let mut ledger = racks();
    let app = |app: &str, rules: Vec<Affinity>| Request {
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        affinity: rules,
        ..plain(1_000)
    };
    let rule = |value: &str, level: &str, anti| Affinity {
        key: "app".into(),
        value: value.into(),
        level: level.into(),
        weight: 0,
        anti,
    };
    let first = submit(&mut ledger, &app("db", vec![rule("web", "rack", true)])).expect("nobody is there");
    let web = submit(&mut ledger, &app("web", vec![])).expect("another rack");
    assert_ne!(first[0] / 3, web[0] / 3, "the holder keeps newcomers away");
    let with = submit(&mut ledger, &app("cache", vec![rule("web", "node", false)])).expect("beside web");
    assert_eq!(with, web);
    let refused = submit(&mut ledger, &app("x", vec![rule("nobody", "zone", false)])).expect_err("nobody");
    assert!(refused.iter().any(|(reason, ..)| *reason == Reason::AffinityConflict), "{refused:?}");
    let selves = app("ring", vec![rule("ring", "zone", false), rule("ring", "node", true)]);
    let ring: Vec<u32> =
        (0..3).map(|_| submit(&mut ledger, &selves).expect("the first may start")[0]).collect();
    assert_eq!(ring.iter().collect::<BTreeSet<_>>().len(), 3, "distinct nodes: {ring:?}");
    assert_eq!(ring.iter().map(|node| node / 6).collect::<BTreeSet<_>>().len(), 1, "one zone: {ring:?}");
}

#[test]
fn a_wish_about_other_work_is_kept_where_it_can_be() {
    let mut ledger = racks();
    let app = |app: &str, affinity: Vec<Affinity>| Request {
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        affinity,
        ..plain(3_000)
    };
    let wish = |value: &str, anti| Affinity {
        key: "app".into(),
        value: value.into(),
        level: "rack".into(),
        weight: 10,
        anti,
    };
    submit(&mut ledger, &app("db", vec![])).expect("free");
    assert_eq!(submit(&mut ledger, &app("web", vec![wish("db", false)])).map(|n| n[0] / 3), Ok(0));
    assert!(submit(&mut ledger, &app("batch", vec![wish("db", true)])).is_ok_and(|n| n[0] / 3 != 0));
    for _ in 0..9 {
        submit(&mut ledger, &app("batch", vec![wish("db", true)])).expect("a wish refuses nobody");
    }
}

#[test]
fn what_explain_proposes_would_be_granted() {
    let mut ledger = racks();
    let asked = gang(4_000, 4, required("rack"));
    let told = explain_request(&ledger, &asked);
    assert!(!told.admissible);
    assert!(
        told.suggestions.iter().any(|change| change.description == "require one zone in place of one rack")
    );
    let requests = told.suggestions.iter().filter_map(|one| match &one.change {
        SingleChange::Request(request) => Some(request),
        _ => None,
    });
    for request in requests {
        submit(&mut ledger.clone(), request).expect("it was tried");
    }
    submit(&mut ledger, &gang(4_000, 3, required("rack"))).expect("a rack");
}

#[test]
fn requests_of_one_batch_heed_each_other() {
    let ledger = racks();
    let apart =
        Affinity { key: "app".into(), value: "web".into(), level: "rack".into(), weight: 0, anti: true };
    let web = Request {
        labels: Labels::from([("app".to_owned(), "web".to_owned())]),
        affinity: vec![apart],
        ..plain(1_000)
    };
    let mut planner = Planner::new(&ledger, 1);
    let planned = planner.plan_batch(&ledger, &[&web; 5]);
    let racks: BTreeSet<u32> = planned
        .iter()
        .filter_map(|(verdict, _)| match verdict {
            Verdict::Place(place) => Some(place.members[0].node.0 / 3),
            _ => None,
        })
        .collect();
    assert_eq!(racks.len(), 4, "four racks, one each, and no room for the fifth");
}

#[test]
fn the_first_who_minds_heeds_what_is_on_its_way() {
    let ledger = racks();
    let web = Request { labels: Labels::from([("app".to_owned(), "web".to_owned())]), ..plain(1_000) };
    let rule =
        |anti| Affinity { key: "app".into(), value: "web".into(), level: "zone".into(), weight: 0, anti };
    let mut planner = Planner::new(&ledger, 1);
    let zone = |verdict: &Verdict| match verdict {
        Verdict::Place(place) => place.members[0].node.0 / 6,
        other => panic!("{other:?}"),
    };
    // One that minds nobody is on its way before anybody minds.
    let (first, ticket) = planner.plan_batch(&ledger, &[&web]).remove(0);
    for (anti, same) in [(true, false), (false, true)] {
        let asked = Request { affinity: vec![rule(anti)], ..plain(1_000) };
        let (second, other) = planner.plan_batch(&ledger, &[&asked]).remove(0);
        assert_eq!(zone(&first) == zone(&second), same);
        planner.settle(&ledger, other.expect("it is booked"));
    }
    // What was lost on its way is nobody's neighbour.
    planner.settle(&ledger, ticket.expect("it is booked"));
    let near = Request { affinity: vec![rule(false)], ..plain(1_000) };
    assert!(matches!(planner.place(&ledger, &near), Verdict::Blocked(_)));
}

#[test]
fn who_waits_for_other_work_is_looked_at_again_when_it_comes() {
    let mut ledger = racks();
    let label = |value: &str| Labels::from([("app".to_owned(), value.to_owned())]);
    let near =
        Affinity { key: "app".into(), value: "web".into(), level: "node".into(), weight: 0, anti: false };
    let cache = Request { labels: label("cache"), affinity: vec![near], ..plain(1_000) };
    let mut planner = Planner::new(&ledger, 1);
    planner.plan_queue(&ledger, 10);
    let mut come = |planner: &mut Planner, request: &Request| {
        let (verdict, ticket) = planner.plan_batch(&ledger, &[request]).remove(0);
        let outcome = apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
        planner.settle_all(&ledger, ticket);
        assert!(matches!(outcome, Outcome::Reservation(_)), "{outcome:?}");
        ledger.clone()
    };
    let ledger_then = come(&mut planner, &cache);
    // A leader walks the queue once it has a new entry, and finds nothing.
    assert!(planner.plan_queue(&ledger_then, 10).is_empty());
    come(&mut planner, &Request { labels: label("db"), ..plain(1_000) });
    assert!(!planner.wants_queue_pass(), "nobody waits for a db");
    let ledger = come(&mut planner, &Request { labels: label("web"), ..plain(1_000) });
    assert!(planner.wants_queue_pass(), "the cache can start");
    assert_eq!(planner.plan_queue(&ledger, 10).len(), 1);
}

#[test]
fn a_node_is_counted_once_however_many_keep_a_newcomer_away() {
    let mut ledger = racks();
    let rule = |level: &str| Affinity {
        key: "app".into(),
        value: "web".into(),
        level: level.into(),
        weight: 0,
        anti: true,
    };
    for (level, node) in [("zone", "node-0"), ("rack", "node-0"), ("node", "node-0"), ("zone", "node-6")] {
        let mut asked = Request { affinity: vec![rule(level)], ..plain(1_000) };
        asked.requirements.required.terms = vec![fixture::term("node", Operator::In, &[node])];
        submit(&mut ledger, &asked).expect("there is room");
    }
    let web = Request { labels: Labels::from([("app".to_owned(), "web".to_owned())]), ..plain(1_000) };
    let told = explain_request(&ledger, &web);
    let kept_away = told.blockers.iter().find(|blocker| blocker.reason == Reason::AffinityConflict);
    assert_eq!(kept_away.map(|blocker| blocker.nodes), Some(12), "all there are: {told:?}");
}
