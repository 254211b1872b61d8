//! Gangs that lose members with their nodes: claims, repairs, tokens, and what happens where nothing takes their place.

mod fixture;

use fixture::{Fixture, active, gang, gpu_request, on, on_device, registration, request, reservation};
use plimsoll_ledger::{
    Command, EndReason, Gang, GpuShare, NodeHealth, Outcome, Placement, Reason, Request, State, Verdict,
};
use plimsoll_types::{Amount, DeviceIndex, LedgerTime, NodeId};

/// A ledger of the newest version with so many nodes.
fn newest(nodes: u32) -> Fixture {
    let mut f = Fixture::new(nodes);
    f.run(Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION });
    f
}

fn repairable(min: u32, max: u32) -> Request {
    active(Request { repair_within_ms: 60_000, ..gang(min, max, true) })
}

#[test]
fn a_gang_that_asked_for_it_goes_on_without_a_node_that_failed() {
    let mut f = newest(4);
    let lease = f.submit(repairable(3, 3), on(&[0, 1, 2]));
    f.health(1, NodeHealth::Failed);
    let broken = f.get(lease.id);
    assert_eq!((broken.state, broken.members.len(), broken.missing_members()), (State::Partial, 2, 1));
    assert_eq!(broken.token, lease.token, "its holder goes on with the token that it has");
    assert_eq!(f.ledger.free(NodeId(1)).cpu_millis, Amount(7_000), "the node may still run what it had");
    assert_eq!(f.ledger.repairing("default").collect::<Vec<_>>(), [lease.id]);
    let renewed = Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 };
    assert!(matches!(f.run(renewed), Outcome::Reservation(_)));

    let whole = reservation(f.run(Command::Place { reservation: lease.id, placement: on(&[3]) }));
    assert_eq!((whole.state, whole.repair(), whole.token), (State::Active, None, lease.token));
    assert_eq!(whole.member_tokens(), [lease.token, lease.token, whole.changed]);
    assert_eq!(whole.token_on(NodeId(3)), f.ledger.revision());
    assert_eq!(f.ledger.repairing("default").count(), 0);
    f.run(Command::Release { reservation: lease.id, token: lease.token });
    assert_eq!(f.get(lease.id).member_tokens(), []);
}

#[test]
fn a_gang_that_did_not_ask_for_it_and_one_with_nothing_left_end() {
    let mut f = newest(2);
    let plain = f.submit(active(gang(1, 2, true)), on(&[0, 1]));
    let alone = f.submit(active(Request { repair_within_ms: 60_000, ..gang(1, 2, false) }), on(&[0]));
    f.health(0, NodeHealth::Fenced);
    for id in [plain.id, alone.id] {
        assert_eq!((f.get(id).state, f.get(id).end_reason), (State::Failed, Some(EndReason::NodeFenced)));
    }
}

#[test]
fn below_its_minimum_it_ends_whole_when_its_time_is_over() {
    let mut f = newest(3);
    let lease = f.submit(Request { ttl_ms: 3_600_000, ..repairable(3, 3) }, on(&[0, 1, 2]));
    f.health(0, NodeHealth::Fenced);
    let until = f.now_ms + 60_000;
    assert_eq!(f.ledger.next_due(), Some(LedgerTime(until)));
    f.now_ms = until - 1;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 0, more: false });
    f.now_ms = until;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 1, more: false });
    let ended = f.get(lease.id);
    assert_eq!((ended.state, ended.end_reason), (State::Failed, Some(EndReason::NotRepaired)));
    assert_eq!(f.ledger.free(NodeId(2)).cpu_millis, Amount(8_000), "all of it is free");
}

#[test]
fn at_its_minimum_only_its_claim_ends() {
    let mut f = newest(4);
    let lease = f.submit(Request { ttl_ms: 3_600_000, ..repairable(2, 3) }, on(&[0, 1, 2]));
    f.health(0, NodeHealth::Fenced);
    f.now_ms += 60_001;
    assert_eq!(f.run(Command::Expire { limit: 10 }), Outcome::Expired { ended: 0, more: false });
    assert_eq!(f.get(lease.id).state, State::Partial);
    let late = Command::Place { reservation: lease.id, placement: on(&[3]) };
    assert_eq!(f.refused(late), Reason::Expired);
}

#[test]
fn a_change_of_leader_gives_a_repair_its_full_time_again() {
    let mut f = newest(3);
    let lease = f.submit(Request { ttl_ms: 3_600_000, ..repairable(2, 2) }, on(&[0, 1]));
    f.health(0, NodeHealth::Fenced);
    f.now_ms += 59_000;
    f.run(Command::BecomeLeader { leader: 2 });
    f.now_ms += 59_999;
    f.run(Command::Expire { limit: 10 });
    assert_eq!(f.get(lease.id).state, State::Partial);
    f.now_ms += 1;
    f.run(Command::Expire { limit: 10 });
    assert_eq!(f.get(lease.id).end_reason, Some(EndReason::NotRepaired));
}

#[test]
fn renewals_do_not_keep_a_silent_node_from_being_lost() {
    let mut f = newest(3);
    let lease = f.submit(repairable(2, 2), on(&[0, 1]));
    f.health(0, NodeHealth::Suspect);
    let silent_since = f.now_ms;
    for _ in 0..3 {
        f.now_ms += 3_999;
        f.run(Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 });
    }
    assert!(f.get(lease.id).deadline.0 > f.now_ms, "its lease goes on");
    f.now_ms = silent_since + 10_000 + 2_000 - 1;
    assert!(matches!(f.health(0, NodeHealth::Lost), Outcome::Refused(r) if r.reason == Reason::WrongState));
    f.now_ms += 1;
    f.health(0, NodeHealth::Lost);
    assert_eq!((f.get(lease.id).state, f.get(lease.id).members.len()), (State::Partial, 1));
    // The node is back and says that nothing of it runs: only then is its room free.
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(7_000));
    f.run(Command::RegisterNode(registration(0, 2)));
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(8_000));
    let whole = reservation(f.run(Command::Place { reservation: lease.id, placement: on(&[0]) }));
    assert_eq!(whole.state, State::Active);
}

#[test]
fn a_repair_is_judged_as_a_grant_and_takes_no_node_of_its_own_members() {
    let mut f = newest(4);
    let lease = f.submit(repairable(3, 3), on(&[0, 1, 2]));
    let place = |nodes: &[u32]| Command::Place { reservation: lease.id, placement: on(nodes) };
    assert_eq!(f.refused(place(&[3])), Reason::WrongState, "nothing is missing");
    f.health(0, NodeHealth::Fenced);
    assert_eq!(f.refused(place(&[1])), Reason::InvalidArgument, "a member of it is there");
    assert_eq!(f.refused(place(&[3, 3])), Reason::InvalidArgument, "one is missing");
    assert_eq!(f.refused(place(&[0])), Reason::NodeNotAvailable);
    let full = f.submit(active(request(7_500)), on(&[3]));
    assert_eq!(f.refused(place(&[3])), Reason::NoCapacity);
    f.run(Command::Release { reservation: full.id, token: full.token });
    f.health(1, NodeHealth::Suspect);
    assert_eq!(f.refused(place(&[3])), Reason::WrongState, "another node of it is silent");
    f.health(1, NodeHealth::Available);
    assert!(matches!(f.run(place(&[3])), Outcome::Reservation(_)));
}

#[test]
fn members_may_come_back_one_by_one_and_be_lost_again() {
    let mut f = newest(5);
    let lease = f.submit(repairable(3, 3), on(&[0, 1, 2]));
    f.health(0, NodeHealth::Fenced);
    f.health(1, NodeHealth::Fenced);
    assert_eq!(f.get(lease.id).missing_members(), 2);
    let place = |node| Command::Place { reservation: lease.id, placement: on(&[node]) };
    let first = reservation(f.run(place(3)));
    assert_eq!((first.state, first.missing_members()), (State::Partial, 1));
    f.health(3, NodeHealth::Fenced);
    let again = f.get(lease.id);
    assert_eq!((again.members.len(), again.missing_members()), (1, 2));
    assert_eq!(again.member_tokens(), [lease.token]);
    let last = reservation(f.run(place(4)));
    assert_eq!(last.member_tokens(), [lease.token, last.changed]);
}

#[test]
fn a_device_that_fails_takes_its_member_along_and_leaves_the_others() {
    let mut f = newest(3);
    let by_gpu = |repair_within_ms| {
        let asked = Request { repair_within_ms, ..gpu_request(GpuShare::Whole) };
        active(Request { gang: Gang { min_members: 2, max_members: 2, spread: false }, ..asked })
    };
    let at = |nodes: [u32; 2], device| {
        let members = nodes.map(|node| on_device(node, device, GpuShare::Whole).members.remove(0));
        Placement { members: members.to_vec() }
    };
    let lease = f.submit(by_gpu(60_000), at([0, 1], 0));
    let plain = f.submit(by_gpu(0), at([0, 1], 1));
    let fail =
        |device, failed| Command::SetDeviceHealth { node: NodeId(0), device: DeviceIndex(device), failed };
    f.run(fail(0, true));
    f.run(fail(1, true));
    assert_eq!(f.get(plain.id).members.len(), 2, "who did not ask for it keeps what it has");
    let broken = f.get(lease.id);
    assert_eq!((broken.state, broken.members.len(), broken.members[0].node), (State::Partial, 1, NodeId(1)));
    assert_eq!(f.ledger.free(NodeId(0)).cpu_millis, Amount(7_000), "its agent is there, and was told");
    let placement = on_device(2, 0, GpuShare::Whole);
    let whole = reservation(f.run(Command::Place { reservation: lease.id, placement }));
    assert_eq!((whole.state, whole.token_on(NodeId(2))), (State::Active, whole.changed));
    // The second one is reported by an agent that no longer sees the board.
    let mut without = registration(2, 1);
    without.devices.remove(0);
    f.run(Command::RegisterNode(without));
    assert_eq!(f.get(lease.id).missing_members(), 1);
}

#[test]
fn what_cannot_be_repaired_is_refused_at_once() {
    let mut f = newest(2);
    let refused =
        |f: &mut Fixture, request| f.refused(Command::Submit { request, verdict: Verdict::Place(on(&[0])) });
    let single = Request { repair_within_ms: 60_000, ..request(1_000) };
    assert_eq!(refused(&mut f, single), Reason::InvalidArgument);
    let short = Request { repair_within_ms: 999, ..gang(1, 2, false) };
    assert_eq!(refused(&mut f, short), Reason::InvalidArgument);
    let mut old = Fixture::new(2);
    old.run(Command::Upgrade { to: 6 });
    assert_eq!(refused(&mut old, repairable(1, 2)), Reason::UnsupportedVersion);
}
