//! Gangs of several roles: what the planner proposes is admitted, all roles are in it, and what stands in the way is said role by role.

mod fixture;

use fixture::{GIB, apply, apply_at, fleet, plain, put_pool, request, sizes, strategy};
use plimsoll_ledger::{
    AdminChange, Class, Command, Gang, Ledger, MemberPlacement, NodeHealth, Outcome, Placement, PolicyObject,
    Pool, Preemption, Reason, Request, Requirements, Role, State, Strategy as PoolStrategy, Topology,
    Verdict,
};
use plimsoll_scheduler::{Planner, explain, explain_request};
use plimsoll_types::{NodeId, ReservationId, Resources, Revision};
use proptest::prelude::*;

fn role(name: &str, cpu_millis: u64, (min_members, max_members): (u32, u32)) -> Role {
    let requirements = Requirements { amounts: Resources::new(cpu_millis, GIB), ..Requirements::default() };
    Role { name: name.to_owned(), requirements, min_members, max_members }
}

fn of_roles(roles: Vec<Role>) -> Request {
    let sum = |of: fn(&Role) -> u32| roles.iter().map(of).sum();
    let (min_members, max_members) = (sum(|role| role.min_members), sum(|role| role.max_members));
    Request {
        requirements: Requirements::default(),
        gang: Gang { min_members, max_members, spread: false },
        roles,
        ..plain(0)
    }
}

fn submit(ledger: &mut Ledger, request: &Request) -> ReservationId {
    let verdict = Planner::new(ledger, 0).place(ledger, request);
    match apply(ledger, Command::Submit { request: request.clone(), verdict }) {
        Outcome::Reservation(made) => made.id,
        other => panic!("{other:?}"),
    }
}

fn roles_of(placement: &Placement) -> Vec<(u32, u16)> {
    placement.members.iter().map(|member| (member.node.0, member.role)).collect()
}

fn placed(verdict: Verdict) -> Placement {
    match verdict {
        Verdict::Place(placement) => placement,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_fewest_of_each_role_come_first_and_then_more_of_each() {
    let ledger = fleet(&[(6, 0, 0), (4, 0, 0)], PoolStrategy::FirstFit);
    let request = of_roles(vec![role("server", 3_000, (1, 1)), role("worker", 2_000, (2, 5))]);
    let placement = placed(Planner::new(&ledger, 0).place(&ledger, &request));
    // 3 + 2 on the first, and two workers of 2 on the second: the third worker is the one more that fits.
    assert_eq!(roles_of(&placement), [(0, 0), (0, 1), (1, 1), (1, 1)]);
    // In whichever order they are named, the largest go first: two of 4 and one of 2 fit only so.
    let small_first = of_roles(vec![role("small", 2_000, (1, 1)), role("large", 4_000, (2, 2))]);
    let placement = placed(Planner::new(&ledger, 0).place(&ledger, &small_first));
    assert_eq!(roles_of(&placement), [(0, 1), (1, 1), (0, 0)]);
    assert!(ledger.admit(&request, &placement).is_ok());
}

#[test]
fn nobody_is_granted_a_gang_without_one_of_its_roles() {
    let ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
    let request = of_roles(vec![role("worker", 1_000, (2, 2)), role("server", 3_000, (1, 1))]);
    let told = explain_request(&ledger, &request);
    // Each has room by itself; beside the workers the server has none.
    assert_eq!(told.blockers.len(), 1, "{:?}", told.blockers);
    assert_eq!(told.blockers[0].subject, "gang members of all roles together");
    let words: Vec<&str> = told.suggestions.iter().map(|one| one.description.as_str()).collect();
    assert_eq!(
        words,
        [
            "accept 1 members of role worker in place of 2",
            "ask for 500m of cpu for role worker in place of 1",
            "ask for 2 of cpu for role server in place of 3"
        ]
    );
    let large = of_roles(vec![role("worker", 1_000, (2, 2)), role("server", 9_000, (1, 1))]);
    let Verdict::Infeasible(blockers) = Planner::new(&ledger, 0).place(&ledger, &large) else {
        panic!("no node has nine cores");
    };
    assert_eq!((blockers[0].subject.as_str(), blockers[0].reason), ("cpu (role server)", Reason::NoCapacity));
}

#[test]
fn all_roles_go_to_one_domain_where_one_is_required() {
    // Zones by the third number: two nodes of `a` with 4 cores, two of `b` with 6.
    let mut ledger = fleet(&[(4, 0, 0), (4, 0, 0), (6, 0, 2), (6, 0, 2)], PoolStrategy::BestFit);
    let pool = Pool { topology: vec!["zone".into()], ..Pool::clone(ledger.pool("default").expect("there")) };
    put_pool(&mut ledger, pool);
    let required = Topology { required: "zone".into(), ..Topology::default() };
    let request = Request {
        topology: required,
        ..of_roles(vec![role("server", 2_000, (1, 1)), role("worker", 4_000, (2, 2))])
    };
    let placement = placed(Planner::new(&ledger, 0).place(&ledger, &request));
    assert!(ledger.admit(&request, &placement).is_ok());
    assert!(placement.members.iter().all(|member| member.node.0 >= 2), "{placement:?}");
    // One that is only preferred goes apart where it must.
    let preferred = Topology { preferred: "zone".into(), ..Topology::default() };
    let wide = of_roles(vec![role("server", 2_000, (1, 1)), role("worker", 4_000, (4, 4))]);
    assert!(matches!(
        Planner::new(&ledger, 0).place(&ledger, &Request { topology: request.topology, ..wide.clone() }),
        Verdict::Infeasible(_)
    ));
    assert_eq!(
        placed(Planner::new(&ledger, 0).place(&ledger, &Request { topology: preferred, ..wide }))
            .members
            .len(),
        5
    );
}

#[test]
fn lower_classes_leave_for_all_roles_of_a_gang() {
    let mut ledger = fleet(&[(4, 0, 0), (4, 0, 0)], PoolStrategy::BestFit);
    let low = Class { name: "low".into(), preemptible: true, ..Class::default() };
    let high = Class { name: "high".into(), priority: 100, ..Class::default() };
    let put = [low, high].map(PolicyObject::Class).to_vec();
    apply(&mut ledger, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    let pool = Pool { preemption: Preemption::Any, ..Pool::clone(ledger.pool("default").expect("there")) };
    put_pool(&mut ledger, pool);
    for _ in 0..4 {
        submit(&mut ledger, &Request { class: "low".into(), ..plain(2_000) });
    }
    let gang = of_roles(vec![role("server", 4_000, (1, 1)), role("worker", 1_000, (2, 2))]);
    let gang = submit(&mut ledger, &Request { class: "high".into(), ..gang });
    let mut planner = Planner::new(&ledger, 0);
    assert!(planner.plan_queue(&ledger, 10).is_empty());
    let found = planner.plan_evictions(&ledger, 10);
    assert_eq!(found.iter().map(|one| one.reservation).collect::<Vec<_>>(), [gang]);
    // Both of one node for the server, and one of the other for both workers.
    assert_eq!(found[0].victims.len(), 3);
    let mut roles: Vec<u16> = found[0].placement.members.iter().map(|member| member.role).collect();
    roles.sort_unstable();
    assert_eq!(roles, [0, 1, 1]);
    let (placement, victims) = (found[0].placement.clone(), found[0].victims.clone());
    apply_at(&mut ledger, 1_000, Command::Preempt { reservation: gang, placement, victims });
    assert_eq!(ledger.reservation(gang).expect("there").state, State::Planned);
}

#[test]
fn the_place_of_a_lost_role_is_not_taken_by_more_of_another() {
    let mut ledger = fleet(&[(4, 0, 0), (2, 0, 0), (2, 0, 0), (2, 0, 0), (4, 0, 0)], PoolStrategy::FirstFit);
    let turn = |ledger: &mut Ledger, node: u32, health| {
        let epoch = ledger.node(NodeId(node)).expect("it is there").epoch;
        apply_at(ledger, 1_000, Command::SetNodeHealth { node: NodeId(node), epoch, health });
    };
    let cordon = |ledger: &mut Ledger, node: u32| {
        let admin = AdminChange::Cordon { reason: String::new() };
        apply_at(ledger, 1_000, Command::SetNodeAdmin { node: NodeId(node), admin });
    };
    let open = |node: u32| Command::SetNodeAdmin { node: NodeId(node), admin: AdminChange::Uncordon };
    cordon(&mut ledger, 3);
    cordon(&mut ledger, 4);
    let roles = vec![role("server", 3_000, (1, 1)), role("worker", 2_000, (1, 3))];
    let gang = submit(&mut ledger, &Request { repair_within_ms: 60_000, ..of_roles(roles) });
    let roles_now = |ledger: &Ledger| {
        let held = ledger.reservation(gang).expect("it is there");
        let mut roles: Vec<u16> = held.members.iter().map(|member| member.role).collect();
        roles.sort_unstable();
        (held.state, roles)
    };
    assert_eq!(roles_now(&ledger).1, [0, 1, 1]);
    turn(&mut ledger, 0, NodeHealth::Fenced);
    for (node, then) in [(3, vec![1, 1]), (4, vec![0, 1, 1])] {
        apply_at(&mut ledger, 1_000, open(node));
        for (reservation, placement, _) in Planner::new(&ledger, 0).plan_queue(&ledger, 10) {
            let came = apply_at(&mut ledger, 1_000, Command::Place { reservation, placement });
            assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
        }
        assert_eq!(roles_now(&ledger).1, then, "with node {node}");
        assert_eq!(ledger.check_invariants(), vec![]);
    }
    // Whoever proposes it, a worker is not admitted in the server's place.
    let mut other = fleet(&[(4, 0, 0), (2, 0, 0), (2, 0, 0)], PoolStrategy::FirstFit);
    cordon(&mut other, 2);
    let roles = vec![role("server", 3_000, (1, 1)), role("worker", 2_000, (1, 3))];
    let broken = submit(&mut other, &Request { repair_within_ms: 60_000, ..of_roles(roles) });
    turn(&mut other, 0, NodeHealth::Fenced);
    apply_at(&mut other, 1_000, open(2));
    let member = MemberPlacement { node: NodeId(2), devices: vec![], role: 1 };
    let placement = Placement { members: vec![member] };
    let came = apply_at(&mut other, 1_000, Command::Place { reservation: broken, placement });
    assert!(matches!(came, Outcome::Refused(_)), "{came:?}");
}

/// Roles of which each has a place on an empty fleet, and all together have none.
#[test]
fn a_gang_that_no_empty_fleet_holds_keeps_nobody_from_its_nodes() {
    let mut ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
    let pool = Pool {
        name: "default".to_owned(),
        queueing: "skip".parse().unwrap(),
        starvation_bound_ms: 5_000,
        ..Pool::default()
    };
    put_pool(&mut ledger, pool);
    let small = Request { ttl_ms: 3_600_000, ..plain(1_000) };
    let granted_after_long_waits = |ledger: &mut Ledger, gang: Request| {
        let mut planner = Planner::new(ledger, 0);
        let mut held = Vec::new();
        for request in [&small, &gang] {
            let (verdict, ticket) = planner.plan_batch(ledger, &[request]).remove(0);
            let made = apply_at(ledger, 1_000, Command::Submit { request: request.clone(), verdict });
            planner.settle_all(ledger, ticket);
            let Outcome::Reservation(made) = made else { panic!("{made:?}") };
            held.push(made);
        }
        let (reservation, token) = (held[0].id, held[0].token);
        apply_at(ledger, 100_000, Command::Confirm { reservation, token });
        let nodes: Vec<_> = ledger.nodes().map(|node| node.id).collect();
        planner.sync(ledger, nodes);
        planner.plan_queue(ledger, 10);
        let verdict = planner.plan_batch(ledger, &[&small]).remove(0).0;
        matches!(verdict, Verdict::Place(_))
    };
    let never = of_roles(vec![role("a", 3_000, (1, 1)), role("b", 3_000, (1, 1))]);
    assert!(granted_after_long_waits(&mut ledger.clone(), never), "nobody waits for it");
    let one_day = of_roles(vec![role("a", 2_000, (1, 1)), role("b", 2_000, (1, 1))]);
    assert!(!granted_after_long_waits(&mut ledger, one_day), "this one goes first once the node is empty");
}

fn any_roles() -> impl Strategy<Value = Request> {
    let kinds = prop::collection::vec((request(), 0u32..3, 0u32..3), 1..4);
    (kinds, prop::bool::weighted(0.3)).prop_map(|(kinds, spread)| {
        let role = |(index, (asked, min, more)): (usize, (Request, u32, u32))| Role {
            name: format!("role-{index}"),
            requirements: asked.requirements,
            min_members: if index == 0 { min.max(1) } else { min },
            max_members: (min + more).max(1),
        };
        let mut request = of_roles(kinds.into_iter().enumerate().map(role).collect());
        request.gang.spread = spread;
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_proposed_is_admitted_and_who_waits_is_told_why(
        sizes in sizes(10),
        strategy in strategy(),
        before in prop::collection::vec(request(), 0..6),
        gangs in prop::collection::vec(any_roles(), 1..6),
        failing in prop::collection::vec(0u32..10, 0..3),
    ) {
        let mut ledger = fleet(&sizes, strategy);
        for asked in before {
            let verdict = Planner::new(&ledger, 0).place(&ledger, &asked);
            apply(&mut ledger, Command::Submit { request: asked, verdict });
        }
        let mut planner = Planner::new(&ledger, 0);
        let asked: Vec<&Request> = gangs.iter().collect();
        let planned = planner.plan_batch(&ledger, &asked);
        prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
        let mut tickets = Vec::new();
        for (request, (verdict, ticket)) in gangs.iter().zip(planned) {
            let request = Request { repair_within_ms: if request.gang.max_members > 1 { 60_000 } else { 0 }, ..request.clone() };
            tickets.extend(ticket);
            match &verdict {
                Verdict::Place(placement) => {
                    let judged = ledger.admit(&request, placement);
                    prop_assert!(judged.is_ok(), "{judged:?} for {request:?} at {placement:?}");
                }
                Verdict::Blocked(blockers) | Verdict::Infeasible(blockers) => prop_assert!(!blockers.is_empty()),
            }
            apply_at(&mut ledger, 1_000, Command::Submit { request, verdict });
        }
        planner.settle_all(&ledger, tickets);
        prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
        // Nodes fail under them: what takes their place is admitted, too.
        for node in failing.into_iter().map(NodeId) {
            if let Some(epoch) = ledger.node(node).map(|node| node.epoch) {
                apply_at(&mut ledger, 1_000, Command::SetNodeHealth { node, epoch, health: NodeHealth::Fenced });
            }
        }
        let mut planner = Planner::new(&ledger, 0);
        for (id, placement, ticket) in planner.plan_queue(&ledger, 100) {
            let came = apply_at(&mut ledger, 1_000, Command::Place { reservation: id, placement });
            prop_assert!(matches!(came, Outcome::Reservation(_)), "{:?}", came);
            planner.settle(&ledger, ticket);
        }
        prop_assert_eq!(ledger.check_invariants(), vec![]);
        let waiting: Vec<ReservationId> =
            ledger.reservations().filter(|one| one.state == State::Pending).map(|one| one.id).collect();
        for id in waiting {
            let told = explain(&ledger, id).expect("it is there");
            prop_assert!(told.admissible || !told.blockers.is_empty(), "{told:?}");
        }
    }
}
