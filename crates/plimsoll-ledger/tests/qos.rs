//! Quality of service and oversubscription (`docs/semantics.md` 5.11): what is backed never exceeds what a node has, what is idle or promised
//! twice goes to best effort, and best effort leaves first.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, GIB, active, gang, gpu_request, on, on_device, queued, request, reservation};
use plimsoll_ledger::{
    Class, Command, GpuShare, LATEST_VERSION, Ledger, NodeHealth, Outcome, PolicyObject, Pool, Preemption,
    PreemptionRule, Qos, Queue, Reason, Request, State, Verdict,
};
use plimsoll_types::{Amount, NodeId, Resources, Revision};

/// One node of 8 cores, of which the pool promises so many thousandths.
fn fixture(cpu_permille: u32) -> Fixture {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.run(put(PolicyObject::Pool(pool(cpu_permille)))), Outcome::Done);
    f
}

fn pool(cpu_permille: u32) -> Pool {
    let oversubscription = BTreeMap::from([("cpu".to_owned(), cpu_permille)]);
    Pool { name: "default".into(), oversubscription, ..Pool::default() }
}

fn put(object: PolicyObject) -> Command {
    Command::ApplyPolicy { put: vec![object], delete: Vec::new(), if_revision: Revision(0) }
}

fn best_effort(cpu_millis: u64) -> Request {
    active(Request { qos: Some(Qos::BestEffort), ..request(cpu_millis) })
}

fn submit(request: Request) -> Command {
    Command::Submit { request, verdict: Verdict::Place(on(&[0])) }
}

#[test]
fn best_effort_takes_what_is_oversubscribed_and_nobody_else_does() {
    let mut f = fixture(1_500);
    f.submit(active(request(8_000)), on(&[0]));
    assert_eq!(f.refused(submit(active(request(1)))), Reason::NoCapacity, "all 8 cores are backed");
    let loose = f.submit(best_effort(4_000), on(&[0]));
    assert_eq!(f.refused(submit(best_effort(1))), Reason::NoCapacity, "12 cores are promised");
    let usage = f.ledger.usage(NodeId(0)).expect("the node");
    assert_eq!((usage.used.cpu_millis, usage.loose.cpu_millis), (Amount(12_000), Amount(4_000)));
    assert_eq!(f.ledger.open_backed(NodeId(0)).expect("it oversubscribes").cpu_millis, Amount(0));
    f.run(Command::Release { reservation: loose.id, token: loose.token });
    let usage = f.ledger.usage(NodeId(0)).expect("the node");
    assert_eq!((usage.used.cpu_millis, usage.loose.cpu_millis), (Amount(8_000), Amount(0)));
}

#[test]
fn without_oversubscription_best_effort_takes_what_is_idle() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    f.submit(active(request(5_000)), on(&[0]));
    f.submit(best_effort(3_000), on(&[0]));
    assert_eq!(f.refused(submit(best_effort(1))), Reason::NoCapacity);
    // What is idle is lent, and not given away: somebody has to leave first.
    assert_eq!(f.refused(submit(active(request(1)))), Reason::NoCapacity);
}

#[test]
fn a_refusal_counts_of_what_it_is_short() {
    let mut f = fixture(1_500);
    f.submit(active(request(6_000)), on(&[0]));
    f.submit(best_effort(5_000), on(&[0]));
    let Outcome::Refused(refusal) = f.run(submit(active(request(3_000)))) else { panic!("it fits nowhere") };
    // 12 are promised and 11 taken; of 8 that are there 6 are backed.
    let short = &refusal.blockers[0];
    assert_eq!((short.asked, short.available, short.limit), (3_000, 1_000, 8_000));
    let Outcome::Refused(refusal) = f.run(submit(best_effort(3_000))) else { panic!("it fits nowhere") };
    let short = &refusal.blockers[0];
    assert_eq!((short.asked, short.available, short.limit), (3_000, 1_000, 12_000));
}

#[test]
fn a_resize_stays_on_what_is_there() {
    let mut f = fixture(2_000);
    let backed = f.submit(active(request(7_000)), on(&[0]));
    let loose = f.submit(best_effort(1_000), on(&[0]));
    let grow = |of: &plimsoll_ledger::Reservation, cpu| Command::Resize {
        reservation: of.id,
        token: of.token,
        amounts: Resources::new(cpu, GIB),
    };
    assert_eq!(f.refused(grow(&backed, 8_001)), Reason::NoCapacity);
    assert_eq!(reservation(f.run(grow(&backed, 8_000))).amounts.cpu_millis, Amount(8_000));
    assert_eq!(reservation(f.run(grow(&loose, 8_000))).amounts.cpu_millis, Amount(8_000));
    assert_eq!(f.refused(grow(&loose, 8_001)), Reason::NoCapacity);
}

#[test]
fn devices_and_countables_are_never_promised_twice() {
    let mut f = fixture(4_000);
    for (name, permille) in [("gpu", 2_000), ("cpu", 999), ("cpu", 100_001)] {
        let oversubscription = BTreeMap::from([(name.to_owned(), permille)]);
        let wrong = Pool { oversubscription, ..pool(1_000) };
        assert_eq!(f.refused(put(PolicyObject::Pool(wrong))), Reason::InvalidArgument, "{name} {permille}");
    }
    let mut seats = pool(1_000);
    seats.countables.insert("seat".into(), Amount(1));
    seats.oversubscription.insert("seat".into(), 2_000);
    assert_eq!(f.refused(put(PolicyObject::Pool(seats))), Reason::InvalidArgument);
    let loose = |share| active(Request { qos: Some(Qos::BestEffort), ..gpu_request(share) });
    f.submit(loose(GpuShare::Whole), on_device(0, 0, GpuShare::Whole));
    let again = Command::Submit {
        request: loose(GpuShare::Whole),
        verdict: Verdict::Place(on_device(0, 0, GpuShare::Whole)),
    };
    assert_eq!(f.refused(again), Reason::NoCapacity);
}

#[test]
fn whoever_is_backed_may_have_the_place_of_best_effort_whatever_its_class() {
    let mut f = fixture(1_000);
    let loose = f.submit(Request { class: "critical".into(), ..best_effort(6_000) }, on(&[0]));
    let claimant = reservation(f.run(Command::Submit {
        request: Request { class: "batch".into(), ..queued(active(request(8_000))) },
        verdict: Verdict::Blocked(Vec::new()),
    }));
    let place = on(&[0]);
    let preempt =
        Command::Preempt { reservation: claimant.id, placement: place.clone(), victims: vec![loose.id] };
    assert_eq!(reservation(f.run(preempt)).state, State::Planned);
    let told = f.get(loose.id);
    let given = told.preempted().expect("it was given notice");
    assert_eq!(
        (told.state, given.rule, given.by),
        (State::Preempting, PreemptionRule::BestEffort, claimant.id)
    );
    f.run(Command::Release { reservation: loose.id, token: loose.token });
    let placed = f.run(Command::Place { reservation: claimant.id, placement: place });
    assert_eq!(reservation(placed).state, State::Active);
}

#[test]
fn best_effort_asks_nobody_who_is_backed_to_leave() {
    let mut f = fixture(1_000);
    let backed = f.submit(Request { class: "batch".into(), ..active(request(8_000)) }, on(&[0]));
    let claimant = reservation(f.run(Command::Submit {
        request: queued(Request { class: "critical".into(), ..best_effort(1_000) }),
        verdict: Verdict::Blocked(Vec::new()),
    }));
    let preempt =
        Command::Preempt { reservation: claimant.id, placement: on(&[0]), victims: vec![backed.id] };
    assert_eq!(f.refused(preempt), Reason::NotPreemptible);
}

#[test]
fn best_effort_stays_where_the_pool_preempts_nobody_and_while_it_is_protected() {
    let mut f = fixture(1_000);
    let protected = Class {
        name: "batch".into(),
        priority: 10,
        min_run_ms: 5_000,
        qos: Some(Qos::BestEffort),
        ..Class::default()
    };
    f.run(put(PolicyObject::Class(protected)));
    let loose = f.submit(Request { class: "batch".into(), ..active(request(8_000)) }, on(&[0]));
    assert_eq!(loose.request.qos, Some(Qos::BestEffort), "the class says so");
    let claimant = reservation(f.run(Command::Submit {
        request: queued(active(request(1_000))),
        verdict: Verdict::Blocked(Vec::new()),
    }));
    let preempt =
        || Command::Preempt { reservation: claimant.id, placement: on(&[0]), victims: vec![loose.id] };
    assert_eq!(f.refused(preempt()), Reason::NotPreemptible, "it has only begun");
    f.now_ms += 5_000;
    f.run(put(PolicyObject::Pool(Pool { preemption: Preemption::Never, ..pool(1_000) })));
    assert_eq!(f.refused(preempt()), Reason::NotPreemptible, "the pool takes nothing back");
    f.run(put(PolicyObject::Pool(pool(1_000))));
    assert_eq!(reservation(f.run(preempt())).state, State::Planned);
}

#[test]
fn idle_capacity_is_lent_across_trees_of_queues_and_taken_back() {
    let mut f = fixture(1_000);
    for name in ["ours", "theirs"] {
        f.run(put(PolicyObject::Queue(Queue { name: name.into(), ..Queue::default() })));
    }
    let loose = f.submit(Request { queue: "theirs".into(), ..best_effort(8_000) }, on(&[0]));
    let claimant = reservation(f.run(Command::Submit {
        request: Request { queue: "ours".into(), ..queued(active(request(1_000))) },
        verdict: Verdict::Blocked(Vec::new()),
    }));
    let preempt = Command::Preempt { reservation: claimant.id, placement: on(&[0]), victims: vec![loose.id] };
    assert_eq!(reservation(f.run(preempt)).state, State::Planned);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut f = fixture(1_000);
    let with = |qos, burst| submit(Request { qos, burst, ..active(request(1_000)) });
    let burst = |cpu| Resources::new(cpu, 0);
    assert_eq!(f.refused(with(None, burst(2_000))), Reason::InvalidArgument, "nobody said it is burstable");
    assert_eq!(f.refused(with(Some(Qos::Burstable), burst(999))), Reason::InvalidArgument, "less than asked");
    let other = Resources::default().with("storage/ssd", 1);
    assert_eq!(f.refused(with(Some(Qos::Burstable), other)), Reason::InvalidArgument, "none is asked");
    let granted = reservation(f.run(with(Some(Qos::Burstable), burst(2_000))));
    assert_eq!(granted.amounts.cpu_millis, Amount(1_000), "what is asked is granted, and no more");
    let advisory = Request { qos: Some(Qos::Guaranteed), ..gpu_request(GpuShare::Milli(500)) };
    let refused = Command::Submit {
        request: advisory.clone(),
        verdict: Verdict::Place(on_device(0, 0, GpuShare::Milli(500))),
    };
    assert_eq!(f.refused(refused), Reason::InvalidArgument, "a share of a device is advisory");
    let burstable = Request { qos: Some(Qos::Burstable), ..advisory };
    f.submit(burstable, on_device(0, 0, GpuShare::Milli(500)));
}

#[test]
fn nothing_of_it_is_known_before_version_7() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 6 });
    let class = Class { name: "batch".into(), qos: Some(Qos::BestEffort), ..Class::default() };
    let target = Class { name: "batch".into(), latency_target_ms: Some(0), ..Class::default() };
    for command in [
        put(PolicyObject::Pool(pool(1_000))),
        put(PolicyObject::Class(class)),
        put(PolicyObject::Class(target)),
        submit(best_effort(1_000)),
        submit(Request { burst: Resources::new(1_000, 0), ..request(1_000) }),
    ] {
        assert_eq!(command.since_version(), 7, "{command:?}");
        assert_eq!(f.refused(command), Reason::UnsupportedVersion);
    }
}

#[test]
fn less_is_promised_than_is_taken_takes_nothing_back() {
    let mut f = fixture(2_000);
    f.submit(active(request(8_000)), on(&[0]));
    let loose = f.submit(best_effort(8_000), on(&[0]));
    f.run(put(PolicyObject::Pool(pool(1_000))));
    assert_eq!(f.get(loose.id).state, State::Active);
    assert_eq!(f.refused(submit(best_effort(1))), Reason::NoCapacity);
    let again = Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("its own rows");
    assert_eq!(again.usage(NodeId(0)), f.ledger.usage(NodeId(0)));
}

#[test]
fn what_may_still_run_on_a_silent_node_counts_as_backed() {
    let mut f = fixture(2_000);
    f.submit(gang(1, 1, false), on(&[0]));
    let loose = f.submit(best_effort(6_000), on(&[0]));
    f.health(0, NodeHealth::Suspect);
    f.now_ms += 60_000;
    f.health(0, NodeHealth::Lost);
    assert_eq!(f.get(loose.id).state, State::Failed);
    let usage = f.ledger.usage(NodeId(0)).expect("the node");
    assert_eq!((usage.backed("cpu"), usage.loose.cpu_millis), (Amount(7_000), Amount(0)));
}
