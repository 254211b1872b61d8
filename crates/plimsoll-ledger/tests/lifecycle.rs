//! The life of a reservation, one rule a test.

mod fixture;

use fixture::{Fixture, GIB, active, gang, gpu_request, on, on_device, queued, request, reservation};
use plimsoll_ledger::{
    AdminChange, Command, EndReason, Entry, GpuShare, NodeHealth, Outcome, Placement, PolicyName,
    PolicyObject, Pool, Reason, Request, State, Verdict, Wait,
};
use plimsoll_types::{Amount, NodeId, Resources, Revision};

#[test]
fn a_grant_is_held_confirmed_renewed_and_released() {
    let mut f = Fixture::new(1);
    let held = f.submit(request(2_000), on(&[0]));
    assert_eq!((held.state, held.token.0), (State::Held, held.id.0));
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(6_000));
    let (id, token) = (held.id, held.token);
    let confirmed = reservation(f.run(Command::Confirm { reservation: id, token }));
    assert_eq!((confirmed.state, confirmed.deadline.0), (State::Active, f.now_ms + 10_000));
    f.now_ms += 4_000;
    let renewed = reservation(f.run(Command::Renew { reservation: id, token, ttl_ms: 0 }));
    assert_eq!(renewed.deadline.0, f.now_ms + 10_000);
    let released = reservation(f.run(Command::Release { reservation: id, token }));
    assert_eq!((released.state, released.end_reason), (State::Released, Some(EndReason::Released)));
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(8_000));
    assert_eq!(f.refused(Command::Release { reservation: id, token }), Reason::WrongState);
}

#[test]
fn a_hold_that_is_not_confirmed_expires_at_its_deadline() {
    let mut f = Fixture::new(1);
    let held = f.submit(request(2_000), on(&[0]));
    f.now_ms += 4_999;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 0, more: false });
    f.now_ms += 2;
    let late = Command::Confirm { reservation: held.id, token: held.token };
    assert_eq!(f.refused(late), Reason::Expired, "checked at use, before any sweep");
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 1, more: false });
    assert_eq!(f.get(held.id).end_reason, Some(EndReason::NotConfirmed));
}

#[test]
fn a_lease_ends_only_after_its_slack_and_a_renewal_that_won_the_race_wins() {
    let mut f = Fixture::new(1);
    let lease = f.submit(active(request(2_000)), on(&[0]));
    f.now_ms += 10_000 + 1_999;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 0, more: false });
    f.run(Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 });
    f.now_ms += 1;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 0, more: false });
    f.now_ms += 12_000;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 1, more: false });
    assert_eq!(f.get(lease.id).end_reason, Some(EndReason::NotRenewed));
}

#[test]
fn the_sweep_is_bounded_and_ends_in_the_order_of_due_times() {
    let mut f = Fixture::new(1);
    let first = f.submit(active(Request { ttl_ms: 20_000, ..request(1_000) }), on(&[0]));
    let second = f.submit(active(request(1_000)), on(&[0]));
    f.now_ms += 100_000;
    assert_eq!(f.run(Command::Expire { limit: 1 }), Outcome::Expired { ended: 1, more: true });
    assert_eq!((f.get(first.id).state, f.get(second.id).state), (State::Active, State::Expired));
    assert_eq!(f.run(Command::Expire { limit: 1 }), Outcome::Expired { ended: 1, more: false });
}

#[test]
fn a_new_leader_gives_every_lease_a_full_length() {
    let mut f = Fixture::new(1);
    let lease = f.submit(active(request(2_000)), on(&[0]));
    let held = f.submit(request(2_000), on(&[0]));
    f.now_ms += 3_600_000;
    f.run(Command::BecomeLeader { leader: 2 });
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 0, more: false });
    f.now_ms += 4_999;
    reservation(f.run(Command::Confirm { reservation: held.id, token: held.token }));
    f.now_ms += 5_001 + 2_000;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 1, more: false });
    assert_eq!(f.get(lease.id).state, State::Expired);
    assert_eq!(f.get(held.id).state, State::Active);
}

#[test]
fn an_old_token_has_no_effect() {
    let mut f = Fixture::new(1);
    let lease = f.submit(active(request(2_000)), on(&[0]));
    for token in [Revision(0), Revision(lease.token.0 - 1), Revision(lease.token.0 + 1)] {
        assert_eq!(f.refused(Command::Renew { reservation: lease.id, token, ttl_ms: 0 }), Reason::Fenced);
        assert_eq!(f.refused(Command::Release { reservation: lease.id, token }), Reason::Fenced);
    }
    assert_eq!(f.get(lease.id).changed, lease.changed);
}

#[test]
fn capacity_is_never_exceeded() {
    let mut f = Fixture::new(1);
    f.submit(active(request(5_000)), on(&[0]));
    let verdict = Verdict::Place(on(&[0]));
    let Outcome::Refused(refusal) = f.run(Command::Submit { request: request(4_000), verdict }) else {
        panic!("8 cores cannot hold 9")
    };
    let blocker = &refusal.blockers[0];
    assert_eq!((refusal.reason, blocker.subject.as_str()), (Reason::NoCapacity, "cpu"));
    assert_eq!((blocker.asked, blocker.available, blocker.limit), (4_000, 3_000, 8_000));
}

#[test]
fn what_does_not_fit_is_queued_by_class_and_age_or_refused() {
    let mut f = Fixture::new(1);
    let blocked = || Verdict::Blocked(Vec::new());
    assert_eq!(f.refused(Command::Submit { request: request(1), verdict: blocked() }), Reason::NoCapacity);
    let submit = |f: &mut Fixture, class: &str| {
        let request = Request { class: class.to_owned(), ..queued(request(1_000)) };
        reservation(f.run(Command::Submit { request, verdict: blocked() })).id
    };
    let (low, old, critical, young) = (
        submit(&mut f, "low"),
        submit(&mut f, "standard"),
        submit(&mut f, "critical"),
        submit(&mut f, "standard"),
    );
    assert_eq!(f.ledger.pending("default").collect::<Vec<_>>(), [critical, old, young, low]);
    let placed = reservation(f.run(Command::Place { reservation: old, placement: on(&[0]) }));
    assert_eq!((placed.state, placed.token), (State::Held, f.ledger.revision()));
    assert_eq!(f.refused(Command::Place { reservation: old, placement: on(&[0]) }), Reason::WrongState);
    let cancelled = reservation(f.run(Command::Cancel { reservation: young }));
    assert_eq!((cancelled.state, cancelled.end_reason), (State::Rejected, Some(EndReason::Cancelled)));
}

#[test]
fn a_wait_has_an_end() {
    let mut f = Fixture::new(1);
    let request = Request { wait: Wait::Queue { deadline_ms: 7_000 }, ..request(1_000) };
    let waiting = reservation(f.run(Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) }));
    f.now_ms += 7_001;
    assert_eq!(f.refused(Command::Place { reservation: waiting.id, placement: on(&[0]) }), Reason::Expired);
    f.run(Command::Expire { limit: 1 });
    assert_eq!(f.get(waiting.id).end_reason, Some(EndReason::WaitedTooLong));
}

#[test]
fn a_gang_is_all_or_nothing() {
    let mut f = Fixture::new(3);
    let place = |nodes: &[u32]| Verdict::Place(on(nodes));
    assert_eq!(
        f.refused(Command::Submit { request: gang(2, 3, true), verdict: place(&[0]) }),
        Reason::InvalidArgument
    );
    assert_eq!(
        f.refused(Command::Submit { request: gang(2, 3, true), verdict: place(&[0, 0]) }),
        Reason::InvalidArgument
    );
    let partial = f.submit(active(gang(2, 3, true)), on(&[0, 1]));
    assert_eq!(partial.state, State::Partial);
    let full = f.submit(active(gang(2, 3, false)), on(&[0, 0, 2]));
    assert_eq!(full.state, State::Active);
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(5_000));
    f.run(Command::Release { reservation: full.id, token: full.token });
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(7_000));
}

#[test]
fn a_device_is_whole_or_shared_but_not_both() {
    let mut f = Fixture::new(1);
    let half = GpuShare::Milli(500);
    f.submit(active(gpu_request(half)), on_device(0, 0, half));
    let whole = Verdict::Place(on_device(0, 0, GpuShare::Whole));
    assert_eq!(
        f.refused(Command::Submit { request: gpu_request(GpuShare::Whole), verdict: whole }),
        Reason::NoCapacity
    );
    let last = f.submit(active(gpu_request(half)), on_device(0, 0, half));
    let more = Command::Submit { request: gpu_request(half), verdict: Verdict::Place(on_device(0, 0, half)) };
    assert_eq!(f.refused(more), Reason::NoCapacity);
    f.submit(active(gpu_request(GpuShare::Whole)), on_device(0, 1, GpuShare::Whole));
    f.run(Command::Release { reservation: last.id, token: last.token });
    let by_memory = GpuShare::Memory(20 * GIB);
    let taken = f.submit(active(gpu_request(by_memory)), on_device(0, 0, by_memory));
    assert_eq!(taken.members[0].devices[0].milli, 250);
    let too_large = GpuShare::Memory(21 * GIB);
    let command = Command::Submit {
        request: gpu_request(too_large),
        verdict: Verdict::Place(on_device(0, 0, too_large)),
    };
    assert_eq!(f.refused(command), Reason::NoCapacity);
}

#[test]
fn resize_takes_and_gives_back_on_the_same_nodes() {
    let mut f = Fixture::new(1);
    let lease = f.submit(active(request(2_000)), on(&[0]));
    let resize = |cpu| Command::Resize {
        reservation: lease.id,
        token: lease.token,
        amounts: Resources::new(cpu, GIB),
    };
    assert_eq!(f.refused(resize(8_001)), Reason::NoCapacity);
    reservation(f.run(resize(8_000)));
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(0));
    reservation(f.run(resize(500)));
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(7_500));
}

#[test]
fn a_repeat_gets_the_same_answer_and_another_request_under_the_key_a_conflict() {
    let mut f = Fixture::new(1);
    let entry = |cpu, hash| Entry {
        actor: "ada".to_owned(),
        request_id: "0123456789abcdef".to_owned(),
        request_hash: [hash; 32],
        command: Command::Submit { request: request(cpu), verdict: Verdict::Place(on(&[0])) },
    };
    let first = f.apply(&entry(1_000, 1));
    f.now_ms += 1_000;
    let again = f.apply(&entry(1_000, 1));
    assert_eq!((again.answer, again.replayed), (first.answer, true));
    let Outcome::Refused(refusal) = f.apply(&entry(2_000, 2)).answer.outcome else { panic!("a conflict") };
    assert_eq!(refusal.reason, Reason::KeyConflict);
    assert_eq!(f.ledger.reservations().count(), 1);
}

#[test]
fn a_refused_place_is_no_answer_yet_but_a_refused_request_is() {
    let mut f = Fixture::new(1);
    let entry = |verdict| Entry {
        actor: "ada".to_owned(),
        request_id: "0123456789abcdef".to_owned(),
        request_hash: [0; 32],
        command: Command::Submit { request: request(9_000), verdict },
    };
    assert!(matches!(f.apply(&entry(Verdict::Place(on(&[0])))).answer.outcome, Outcome::Refused(_)));
    assert!(f.ledger.remembered("ada", "0123456789abcdef").is_none());
    let refused = f.apply(&entry(Verdict::Infeasible(Vec::new())));
    let again = f.apply(&entry(Verdict::Place(Placement::default())));
    assert_eq!((again.answer, again.replayed), (refused.answer, true));
}

#[test]
fn a_silent_node_keeps_what_it_may_still_run() {
    let mut f = Fixture::new(2);
    let lease = f.submit(active(request(2_000)), on(&[0]));
    f.health(0, NodeHealth::Suspect);
    assert_eq!(f.get(lease.id).state, State::Unknown);
    f.now_ms += 60_000;
    assert_eq!(
        f.run(Command::Expire { limit: 10 }),
        Outcome::Expired { ended: 0, more: false },
        "unknown is not due"
    );
    f.health(0, NodeHealth::Available);
    assert_eq!((f.get(lease.id).state, f.get(lease.id).deadline.0), (State::Active, f.now_ms + 10_000));

    f.health(0, NodeHealth::Suspect);
    assert!(
        matches!(f.health(0, NodeHealth::Lost), Outcome::Refused(r) if r.reason == Reason::WrongState),
        "too early"
    );
    f.now_ms += 12_000;
    f.health(0, NodeHealth::Lost);
    assert_eq!(
        (f.get(lease.id).state, f.get(lease.id).end_reason),
        (State::Failed, Some(EndReason::NodeLost))
    );
    assert_eq!(
        f.ledger.free(NodeId(0)).cpu_millis,
        Amount(6_000),
        "not free until the node's word or a fence"
    );
    f.run(Command::RegisterNode(fixture::registration(0, 2)));
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(8_000));
    assert!(f.ledger.node(NodeId(0)).expect("there").is_eligible());
}

#[test]
fn a_gang_is_unknown_while_any_of_its_nodes_is_silent() {
    let mut f = Fixture::new(2);
    let lease = f.submit(active(gang(2, 2, true)), on(&[0, 1]));
    f.health(0, NodeHealth::Suspect);
    f.health(1, NodeHealth::Suspect);
    f.health(0, NodeHealth::Available);
    assert_eq!(f.get(lease.id).state, State::Unknown);
    f.health(1, NodeHealth::Available);
    assert_eq!(f.get(lease.id).state, State::Active);
    f.health(0, NodeHealth::Suspect);
    let released = reservation(f.run(Command::Release { reservation: lease.id, token: lease.token }));
    assert_eq!(released.state, State::Released);
    assert_eq!(
        f.ledger.free(NodeId(0)).cpu_millis,
        Amount(7_000),
        "the silent node may still run its member"
    );
    assert_eq!(f.ledger.free(NodeId(1)).cpu_millis, Amount(8_000));
    f.health(0, NodeHealth::Fenced);
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(8_000));
}

#[test]
fn a_report_of_an_older_incarnation_is_refused() {
    let mut f = Fixture::new(1);
    let old = f.ledger.node(NodeId(0)).expect("there").epoch;
    f.run(Command::RegisterNode(fixture::registration(0, 7)));
    let command = Command::SetNodeHealth { node: NodeId(0), epoch: old, health: NodeHealth::Suspect };
    assert_eq!(f.refused(command), Reason::Fenced);
}

#[test]
fn cordon_keeps_new_work_out_and_drain_ends_the_old() {
    let mut f = Fixture::new(1);
    let lease = f.submit(active(Request { ttl_ms: 3_600_000, ..request(1_000) }), on(&[0]));
    let admin = |admin| Command::SetNodeAdmin { node: NodeId(0), admin };
    f.run(admin(AdminChange::Cordon { reason: "kernel".to_owned() }));
    let submit = || Command::Submit { request: request(1_000), verdict: Verdict::Place(on(&[0])) };
    assert_eq!(f.refused(submit()), Reason::NodeNotAvailable);
    f.run(admin(AdminChange::Drain { reason: "kernel".to_owned(), deadline_ms: 60_000 }));
    assert_eq!(f.ledger.next_due().map(|due| due.0), Some(f.now_ms + 60_000));
    f.now_ms += 60_000;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 1, more: false });
    assert_eq!(
        (f.get(lease.id).state, f.get(lease.id).end_reason),
        (State::Preempted, Some(EndReason::Drained))
    );
    f.run(admin(AdminChange::Uncordon));
    assert!(matches!(f.run(submit()), Outcome::Reservation(_)));
}

#[test]
fn a_countable_of_the_pool_is_shared_by_its_nodes() {
    let mut f = Fixture::new(2);
    let mut pool = Pool { name: "default".to_owned(), ..Pool::default() };
    pool.countables.insert("license/x".to_owned(), Amount(1));
    let mut wants = active(request(1_000));
    wants.requirements.amounts = wants.requirements.amounts.with("license/x", 1);
    let before = f.submit(wants.clone(), on(&[0]));
    f.run(Command::ApplyPolicy {
        put: vec![PolicyObject::Pool(pool)],
        delete: Vec::new(),
        if_revision: Revision(0),
    });
    assert_eq!(
        f.ledger.countables_used("default").get("license/x"),
        Amount(1),
        "what is held moves to the pool's account"
    );
    let second = Command::Submit { request: wants, verdict: Verdict::Place(on(&[1])) };
    assert_eq!(f.refused(second.clone()), Reason::CountableExhausted);
    f.run(Command::Release { reservation: before.id, token: before.token });
    reservation(f.run(second));
}

#[test]
fn policy_changes_all_or_nothing_and_only_at_the_expected_revision() {
    let mut f = Fixture::new(1);
    let gpu = || PolicyObject::Pool(Pool { name: "gpu".to_owned(), ..Pool::default() });
    let delete = vec![PolicyName::Pool("nosuch".to_owned())];
    assert_eq!(
        f.refused(Command::ApplyPolicy { put: vec![gpu()], delete, if_revision: Revision(0) }),
        Reason::NotFound
    );
    assert!(f.ledger.pool("gpu").is_none());
    f.run(Command::ApplyPolicy { put: vec![gpu()], delete: Vec::new(), if_revision: Revision(0) });
    let stale = Command::ApplyPolicy { put: vec![gpu()], delete: Vec::new(), if_revision: Revision(1) };
    assert_eq!(f.refused(stale), Reason::RevisionMoved);
}

#[test]
fn devices_keep_their_index_when_one_disappears() {
    let mut f = Fixture::new(1);
    let whole = GpuShare::Whole;
    let lease = f.submit(active(gpu_request(whole)), on_device(0, 1, whole));
    let mut registration = fixture::registration(0, 2);
    registration.devices.remove(0);
    f.run(Command::RegisterNode(registration));
    let node = f.ledger.node(NodeId(0)).expect("there");
    assert!(node.registration.devices[0].failed && !node.registration.devices[1].failed);
    assert_eq!(f.get(lease.id).members[0].devices[0].device.0, 1);
}

#[test]
fn ended_reservations_and_old_answers_are_forgotten_in_time() {
    let mut f = Fixture::new(1);
    let mut entry =
        Entry::system(Command::Submit { request: active(request(1_000)), verdict: Verdict::Place(on(&[0])) });
    entry.request_id = "0123456789abcdef".to_owned();
    let lease = reservation(f.apply(&entry).answer.outcome);
    f.run(Command::Release { reservation: lease.id, token: lease.token });
    f.now_ms += 3_600_000;
    f.run(Command::Expire { limit: 10 });
    assert!(f.ledger.reservation(lease.id).is_none());
    assert!(f.ledger.remembered("system", "0123456789abcdef").is_some());
    f.now_ms += 23 * 3_600_000;
    f.run(Command::Expire { limit: 10 });
    assert!(f.ledger.remembered("system", "0123456789abcdef").is_none());
}
