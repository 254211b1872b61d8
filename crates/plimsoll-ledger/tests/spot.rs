//! Spot capacity (`docs/semantics.md` 5.22): which work goes to nodes that may be taken back, how much of it, and what becomes of it when they are.

mod fixture;

use fixture::{Fixture, active, gang, on, queued, registration, request};
use plimsoll_ledger::{
    AdminChange, CAPACITY_TYPE, CapacityType, Command, EndReason, LATEST_VERSION, NodeHealth, OnInterruption,
    OnPreempt, Outcome, PRICE_PERMILLE, PolicyObject, Pool, PreemptionRule, Queue, Reason, Registration,
    Request, SPOT_POOL, Service, SpotPolicy, State, Verdict,
};
use plimsoll_types::{NodeId, ReservationId, Revision};

/// Nodes 0 and 1 are on demand, 2 and 3 spot, in markets of their own; half of the work may be on spot.
fn fixture() -> Fixture {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    for (index, market) in [(2, "a"), (3, "b")] {
        assert!(matches!(f.run(Command::RegisterNode(spot(index, market))), Outcome::Node(_)));
    }
    pool(&mut f, half());
    f
}

fn half() -> SpotPolicy {
    SpotPolicy { share_permille: 500, ..SpotPolicy::default() }
}

fn spot(index: u32, market: &str) -> Registration {
    let mut registration = registration(index, 1);
    for (key, value) in [(CAPACITY_TYPE, "spot"), (PRICE_PERMILLE, "350"), (SPOT_POOL, market)] {
        registration.labels.insert(key.to_owned(), value.to_owned());
    }
    registration
}

fn put(object: PolicyObject) -> Command {
    Command::ApplyPolicy { put: vec![object], delete: Vec::new(), if_revision: Revision(0) }
}

fn pool(f: &mut Fixture, spot: SpotPolicy) {
    let pool = Pool { name: "default".into(), spot: Some(spot), ..Pool::default() };
    assert_eq!(f.run(put(PolicyObject::Pool(pool))), Outcome::Done);
}

fn interrupt(f: &mut Fixture, node: u32, in_ms: u64) -> Outcome {
    let epoch = f.ledger.node(NodeId(node)).expect("it is there").epoch;
    f.run(Command::InterruptNode { node: NodeId(node), epoch, in_ms })
}

fn place(request: Request, nodes: &[u32]) -> Command {
    Command::Submit { request, verdict: Verdict::Place(on(nodes)) }
}

fn why(f: &mut Fixture, command: Command) -> (Reason, String, u64, u64) {
    let Outcome::Refused(refusal) = f.run(command) else { panic!("it was not refused") };
    let first = &refusal.blockers[0];
    (first.reason, first.subject.clone(), first.asked, first.available)
}

#[test]
fn every_node_says_how_it_is_paid_for_once_the_rules_ask() {
    let mut f = Fixture::new(1);
    assert!(f.ledger.node(NodeId(0)).unwrap().registration.labels.is_empty());
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let node = f.ledger.node(NodeId(0)).unwrap();
    assert_eq!((node.capacity_type(), node.price_permille()), (CapacityType::OnDemand, 1_000));
    assert_eq!(node.registration.labels[CAPACITY_TYPE], "on_demand");
    let mut wrong = registration(1, 1);
    wrong.labels.insert(CAPACITY_TYPE.into(), "cheap".into());
    assert_eq!(f.refused(Command::RegisterNode(wrong)), Reason::InvalidArgument);
    f.run(Command::RegisterNode(spot(1, "a")));
    let node = f.ledger.node(NodeId(1)).unwrap();
    assert_eq!(
        (node.capacity_type(), node.price_permille(), node.spot_pool()),
        (CapacityType::Spot, 350, Some("a"))
    );
}

#[test]
fn half_of_the_work_is_on_spot_nodes_and_no_more() {
    let mut f = fixture();
    let one = || active(request(500));
    assert_eq!(why(&mut f, place(one(), &[2])), (Reason::SpotShare, "pool default".into(), 1, 0));
    f.submit(one(), on(&[0]));
    f.submit(one(), on(&[2]));
    assert_eq!(why(&mut f, place(one(), &[3])), (Reason::SpotShare, "pool default".into(), 1, 0));
    // A gang of four brings room for two of its own.
    let four = || active(gang(4, 4, false));
    assert_eq!(why(&mut f, place(four(), &[2, 2, 3, 0])), (Reason::SpotShare, "pool default".into(), 3, 2));
    f.submit(four(), on(&[2, 3, 0, 1]));
    // Who was given notice is not counted any more, with all that there is of it.
    interrupt(&mut f, 3, 60_000);
    assert_eq!(why(&mut f, place(one(), &[2])), (Reason::SpotShare, "pool default".into(), 1, 0));
    f.submit(one(), on(&[1]));
    f.submit(one(), on(&[2]));
}

#[test]
fn so_many_are_elsewhere_before_any_is_on_a_spot_node() {
    let mut f = fixture();
    pool(&mut f, SpotPolicy { base: 2, share_permille: 1_000, ..SpotPolicy::default() });
    let one = || active(request(500));
    for _ in 0..2 {
        assert_eq!(f.refused(place(one(), &[2])), Reason::SpotShare);
        f.submit(one(), on(&[0]));
    }
    for _ in 0..4 {
        f.submit(one(), on(&[2]));
    }
}

#[test]
fn work_that_is_not_suitable_stays_off_spot_nodes_and_a_request_may_say_otherwise_itself() {
    let mut f = fixture();
    let suitable_for = vec!["batch".to_owned(), "preprocessing".to_owned()];
    pool(&mut f, SpotPolicy { share_permille: 1_000, suitable_for, ..SpotPolicy::default() });
    let unsuitable = active(request(500));
    assert_eq!(f.refused(place(unsuitable.clone(), &[2])), Reason::LabelMismatch);
    let stored = f.submit(unsuitable.clone(), on(&[0]));
    assert!(!stored.request.may_use(CapacityType::Spot) && stored.request.requirements.preferred.is_empty());
    let batch = f.submit(Request { class: "batch".into(), ..unsuitable.clone() }, on(&[2]));
    let wishes: Vec<(u32, &str)> = batch
        .request
        .requirements
        .preferred
        .iter()
        .map(|wish| (wish.weight, wish.term.values[0].as_str()))
        .collect();
    assert_eq!(wishes, [(100, "spot"), (50, "reserved")], "spot first, then what is paid for anyway");
    let mut tagged = unsuitable.clone();
    tagged.labels.insert("task".into(), "preprocessing".into());
    f.submit(tagged, on(&[2]));
    let mut own = unsuitable;
    own.requirements.required.terms.push(plimsoll_types::Term {
        key: CAPACITY_TYPE.into(),
        operator: plimsoll_types::Operator::In,
        values: vec!["spot".into()],
    });
    let stored = f.submit(own.clone(), on(&[2]));
    assert_eq!(stored.request.requirements, own.requirements, "nothing is added to what it says itself");
    assert_eq!(f.refused(place(own, &[0])), Reason::LabelMismatch);
}

#[test]
fn no_node_above_the_ceiling_is_used() {
    let mut f = fixture();
    pool(&mut f, SpotPolicy { share_permille: 1_000, max_price_permille: 2_000, ..SpotPolicy::default() });
    f.submit(active(request(500)), on(&[2]));
    let mut dear = spot(2, "a");
    dear.labels.insert(PRICE_PERMILLE.into(), "2001".into());
    f.run(Command::RegisterNode(dear));
    assert_eq!(f.refused(place(active(request(500)), &[2])), Reason::LabelMismatch);
    f.submit(active(request(500)), on(&[3]));
}

#[test]
fn a_service_is_spread_over_spot_pools() {
    let mut f = fixture();
    let spot = SpotPolicy { share_permille: 1_000, max_in_one_permille: 500, ..SpotPolicy::default() };
    pool(&mut f, spot);
    let service = Service {
        name: "web".into(),
        pool: "default".into(),
        class: "standard".into(),
        ..Service::default()
    };
    f.run(put(PolicyObject::Service(service)));
    let web = || Request { service: "web".into(), ..active(request(500)) };
    assert_eq!(f.refused(place(web(), &[2])), Reason::SpotShare, "the only one would be all of it");
    f.submit(web(), on(&[0]));
    f.submit(web(), on(&[2]));
    assert_eq!(
        why(&mut f, place(web(), &[2])),
        (Reason::SpotShare, "service web in spot pool \"a\"".into(), 1, 0)
    );
    f.submit(web(), on(&[3]));
    // Others may be where they like.
    for _ in 0..3 {
        f.submit(active(request(500)), on(&[2]));
    }
}

#[test]
fn the_word_of_a_queue_goes_before_that_of_the_pool_and_counts_by_itself() {
    let mut f = fixture();
    let none = SpotPolicy::default();
    let queue = |name: &str, parent: &str, spot| {
        put(PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), spot, ..Queue::default() }))
    };
    f.run(queue("org", "", Some(none)));
    f.run(queue("team", "org", None));
    let of = |queue: &str| Request { queue: queue.into(), ..active(request(500)) };
    f.submit(of("team"), on(&[0]));
    let no = why(&mut f, place(of("team"), &[2]));
    assert_eq!(no, (Reason::SpotShare, "queue team".into(), 1, 0), "the queue above says none");
    f.run(queue("team", "org", Some(half())));
    f.submit(of("team"), on(&[2]));
    assert_eq!(f.refused(place(of("org"), &[2])), Reason::SpotShare, "and still says it for its own");
}

#[test]
fn what_is_on_a_node_that_is_taken_back_gets_the_provider_s_time_and_waits_again() {
    let mut f = fixture();
    pool(&mut f, SpotPolicy { share_permille: 1_000, ..SpotPolicy::default() });
    let running = f.submit(queued(active(request(500))), on(&[2]));
    let held = f.submit(queued(request(500)), on(&[2]));
    let ends = f.submit(Request { on_preempt: OnPreempt::End, ..queued(active(request(500))) }, on(&[2]));
    let elsewhere = f.submit(active(request(500)), on(&[0]));
    f.now_ms += 1_000;
    interrupt(&mut f, 2, 120_000);
    assert_eq!(f.ledger.node(NodeId(2)).unwrap().state_name(), "interrupted");
    assert_eq!(f.refused(place(active(request(500)), &[2])), Reason::NodeNotAvailable);
    let noticed = f.get(running.id);
    assert_eq!((noticed.state, noticed.deadline.0), (State::Preempting, f.now_ms + 120_000));
    let told = noticed.preempted().expect("notice was given");
    assert_eq!(
        (told.rule, told.by, told.grace_ms),
        (PreemptionRule::Interruption, ReservationId(0), 120_000)
    );
    assert_eq!(f.ledger.recent_preemptions("default"), 0, "nobody chose it");
    assert_eq!(f.get(held.id).state, State::Pending, "who never confirmed has nothing to stop");
    assert_eq!(f.get(elsewhere.id).state, State::Active);
    // Said again later it changes nothing, and sooner it does.
    f.now_ms += 10_000;
    interrupt(&mut f, 2, 120_000);
    assert_eq!(f.get(running.id).deadline, noticed.deadline);
    interrupt(&mut f, 2, 30_000);
    assert_eq!(f.get(running.id).deadline.0, f.now_ms + 30_000);
    f.run(Command::Requeue { reservation: running.id, token: running.token });
    let again = f.get(running.id);
    assert_eq!((again.state, again.blockers[0].reason), (State::Pending, Reason::Preempted));
    assert_eq!(again.blockers[0].subject, "the provider took its node back");
    // The node goes with what is still on it.
    f.now_ms += 30_000;
    f.health(2, NodeHealth::Suspect);
    f.now_ms += 60_000;
    f.health(2, NodeHealth::Lost);
    let gone = f.get(ends.id);
    assert_eq!((gone.state, gone.end_reason), (State::Preempted, Some(EndReason::Preempted)));
}

#[test]
fn what_was_granted_on_a_node_that_goes_before_anybody_heard_waits_again_all_the_same() {
    let mut f = fixture();
    let on_interruption = Some(OnInterruption::CheckpointAndRetry);
    pool(&mut f, SpotPolicy { share_permille: 1_000, on_interruption, ..SpotPolicy::default() });
    let ends = Request { on_preempt: OnPreempt::End, ..queued(active(request(500))) };
    let retried = f.submit(ends, on(&[2]));
    assert_eq!(retried.request.on_interruption, on_interruption, "the policy says it, and is heard first");
    let fails = f.submit(
        Request { on_interruption: Some(OnInterruption::Fail), ..queued(active(request(500))) },
        on(&[2]),
    );
    f.health(2, NodeHealth::Suspect);
    interrupt(&mut f, 2, 5_000);
    assert_eq!(f.get(retried.id).state, State::Unknown, "a silent node hears of nothing");
    f.now_ms += 60_000;
    f.health(2, NodeHealth::Lost);
    assert_eq!(f.get(retried.id).state, State::Pending);
    assert_eq!(
        (f.get(fails.id).state, f.get(fails.id).end_reason),
        (State::Preempted, Some(EndReason::Preempted))
    );
    let remains = &f.ledger.node(NodeId(2)).unwrap().fence_pending;
    assert_eq!(remains.len(), 2, "both may still run there until it is known to be off");
    // It is another machine when it comes back.
    f.run(Command::RegisterNode(Registration { incarnation: 2, ..spot(2, "a") }));
    assert_eq!(f.ledger.node(NodeId(2)).unwrap().state_name(), "available");
}

#[test]
fn a_node_that_was_silent_hears_of_its_notice_when_it_is_back_and_an_operator_may_take_it_back() {
    let mut f = fixture();
    pool(&mut f, SpotPolicy { share_permille: 1_000, ..SpotPolicy::default() });
    let running = f.submit(queued(active(request(500))), on(&[2]));
    f.health(2, NodeHealth::Suspect);
    interrupt(&mut f, 2, 60_000);
    let goes_at = f.now_ms + 60_000;
    f.now_ms += 5_000;
    f.health(2, NodeHealth::Available);
    assert_eq!((f.get(running.id).state, f.get(running.id).deadline.0), (State::Preempting, goes_at));
    assert_eq!(f.refused(place(active(request(500)), &[2])), Reason::NodeNotAvailable);
    f.run(Command::SetNodeAdmin { node: NodeId(2), admin: AdminChange::Uncordon });
    f.submit(active(request(500)), on(&[2]));
    assert_eq!(f.get(running.id).state, State::Preempting, "who was given notice leaves all the same");
}

#[test]
fn a_grant_costs_what_its_nodes_cost() {
    let mut f = fixture();
    let prices = [("cpu".to_owned(), 1_000_000)].into();
    let spot = Some(SpotPolicy { share_permille: 1_000, ..SpotPolicy::default() });
    f.run(put(PolicyObject::Pool(Pool { name: "default".into(), spot, prices, ..Pool::default() })));
    let cost = |f: &mut Fixture, nodes: &[u32]| {
        let members = nodes.len() as u32;
        let hour = Request { ttl_ms: 3_600_000, ..active(gang(members, members, false)) };
        let granted = f.submit(hour, on(nodes));
        f.now_ms += 3_600_000;
        f.run(Command::Release { reservation: granted.id, token: granted.token });
        f.get(granted.id).cost_micros
    };
    assert_eq!(cost(&mut f, &[0]), 1_000_000);
    assert_eq!(cost(&mut f, &[2]), 350_000, "spot");
    assert_eq!(cost(&mut f, &[0, 2]), 1_350_000, "the mean of its nodes");
    let most = Request { max_cost_micros: 400_000, ttl_ms: 3_600_000, ..active(request(1_000)) };
    assert_eq!(f.refused(place(most.clone(), &[0])), Reason::LimitExceeded);
    f.submit(most, on(&[2]));
}

#[test]
fn a_gang_leaves_as_one_unless_it_can_be_repaired() {
    let mut f = fixture();
    pool(&mut f, SpotPolicy { share_permille: 1_000, ..SpotPolicy::default() });
    let whole = f.submit(queued(active(gang(2, 2, true))), on(&[0, 2]));
    let repaired = Request { repair_within_ms: 30_000, ..active(gang(1, 2, true)) };
    let repaired = f.submit(repaired, on(&[1, 2]));
    interrupt(&mut f, 2, 5_000);
    assert_eq!(f.get(whole.id).state, State::Preempting);
    assert_eq!(f.get(repaired.id).state, State::Active, "it goes on with the others");
    f.now_ms += 5_000;
    f.health(2, NodeHealth::Failed);
    let repaired = f.get(repaired.id);
    assert_eq!((repaired.state, repaired.members.len()), (State::Partial, 1));
}

#[test]
fn older_rules_know_nothing_of_it() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 10 });
    let pool = Pool { name: "default".into(), spot: Some(half()), ..Pool::default() };
    assert_eq!(f.refused(put(PolicyObject::Pool(pool))), Reason::UnsupportedVersion);
    assert!(
        matches!(interrupt(&mut f, 0, 1_000), Outcome::Refused(refusal) if refusal.reason == Reason::UnsupportedVersion)
    );
    let asks = Request { on_interruption: Some(OnInterruption::Fail), ..request(500) };
    assert_eq!(f.refused(place(asks, &[0])), Reason::UnsupportedVersion);
}
