//! What a ledger version changes, and that nothing changes before it is in force.

mod fixture;

use fixture::{Fixture, GIB, active, gpu_request, on, on_device, registration, request, reservation};
use plimsoll_ledger::limits::REMEMBER_MS;
use plimsoll_ledger::{
    Command, Entry, GpuShare, LATEST_VERSION, Ledger, Outcome, Reason, Registration, Row, Verdict,
};
use plimsoll_types::{DeviceIndex, NodeId};

/// A grant of a GPU on node 0 under a request id, released, and the node removed.
fn removed(version: u32) -> (Fixture, Entry) {
    let mut f = Fixture::new(2);
    if version > 1 {
        f.run(Command::Upgrade { to: version });
    }
    let command = Command::Submit {
        request: active(gpu_request(GpuShare::Whole)),
        verdict: Verdict::Place(on_device(0, 1, GpuShare::Whole)),
    };
    let submit =
        Entry { actor: "ada".to_owned(), request_id: "first".to_owned(), request_hash: [1; 32], command };
    let granted = reservation(f.apply(&submit).answer.outcome);
    f.run(Command::Release { reservation: granted.id, token: granted.token });
    f.now_ms += 1_000;
    assert_eq!(f.run(Command::RemoveNode { node: NodeId(0) }), Outcome::Done);
    (f, submit)
}

fn rows_of_removed(ledger: &Ledger) -> usize {
    ledger.rows().filter(|(_, row)| matches!(row, Row::RemovedNode(_))).count()
}

#[test]
fn in_version_1_a_removed_node_leaves_nothing() {
    let (mut f, submit) = removed(1);
    assert_eq!(rows_of_removed(&f.ledger), 0);
    let again = f.apply(&submit);
    assert!(again.replayed);
    assert_eq!(f.ledger.node_name(NodeId(0)), None);
    // An upgrade does not bring back what is gone.
    f.run(Command::Upgrade { to: 2 });
    assert_eq!(rows_of_removed(&f.ledger), 0);
}

#[test]
fn from_version_2_on_the_names_in_a_remembered_answer_stay_known() {
    let (mut f, submit) = removed(2);
    let again = f.apply(&submit);
    assert!(again.replayed);
    let shown = reservation(again.answer.outcome);
    let member = &shown.members[0];
    assert_eq!(f.ledger.node_name(member.node), Some("node-0"));
    let device = member.devices[0].device;
    assert_eq!(f.ledger.device_names(member.node, device), Some(("GPU-0-1", "a100")));
    assert_eq!(f.ledger.device_names(member.node, DeviceIndex(2)), None);
    // Another node of that name is another node.
    f.run(Command::RegisterNode(Registration { devices: Vec::new(), ..registration(0, 9) }));
    assert_eq!(f.ledger.node_by_name("node-0").map(|node| node.id), Some(NodeId(2)));
    assert_eq!(f.ledger.device_names(NodeId(0), device), Some(("GPU-0-1", "a100")));
    let rebuilt = Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("its own rows");
    assert!(rebuilt.rows().eq(f.ledger.rows()));
    assert_eq!(rebuilt.device_names(NodeId(0), device), Some(("GPU-0-1", "a100")));
}

#[test]
fn a_removed_node_is_forgotten_with_the_last_answer_that_may_name_it() {
    let (mut f, _) = removed(2);
    f.now_ms += REMEMBER_MS - 1_001;
    f.run(Command::Expire { limit: 10 });
    assert_eq!((rows_of_removed(&f.ledger), f.ledger.remembered("ada", "first").is_some()), (1, true));
    f.now_ms += 1;
    f.run(Command::Expire { limit: 10 });
    assert_eq!((rows_of_removed(&f.ledger), f.ledger.remembered("ada", "first").is_some()), (1, false));
    f.now_ms += 999;
    f.run(Command::Expire { limit: 10 });
    assert_eq!(rows_of_removed(&f.ledger), 1);
    f.now_ms += 1;
    assert_eq!(f.ledger.next_due().map(|due| due.0), Some(f.now_ms));
    f.run(Command::Expire { limit: 10 });
    assert_eq!(rows_of_removed(&f.ledger), 0);
}

#[test]
fn a_sweep_that_cannot_forget_all_answers_keeps_the_names() {
    let (mut f, submit) = removed(2);
    for number in 0..3 {
        let cancel = Command::Release {
            reservation: plimsoll_types::ReservationId(1),
            token: plimsoll_types::Revision(1),
        };
        f.apply(&Entry { request_id: format!("more-{number}"), command: cancel, ..submit.clone() });
    }
    f.now_ms += 2 * REMEMBER_MS;
    f.run(Command::Expire { limit: 1 });
    assert_eq!(rows_of_removed(&f.ledger), 1, "answers are left");
    f.run(Command::Expire { limit: 10 });
    assert_eq!(rows_of_removed(&f.ledger), 0);
}

#[test]
fn versions_only_grow_and_none_is_skipped_to_that_nobody_knows() {
    let mut f = Fixture::new(1);
    assert_eq!(f.ledger.meta().version, 1);
    assert_eq!(f.refused(Command::Upgrade { to: 1 }), Reason::WrongState);
    assert_eq!(f.refused(Command::Upgrade { to: LATEST_VERSION + 1 }), Reason::UnsupportedVersion);
    assert_eq!(f.run(Command::Upgrade { to: LATEST_VERSION }), Outcome::Done);
    assert_eq!(f.ledger.meta().version, LATEST_VERSION);
    assert_eq!(f.refused(Command::Upgrade { to: LATEST_VERSION }), Reason::WrongState);
    let held = f.submit(request(1_000), on(&[0]));
    assert_eq!(held.amounts.memory_bytes.0, GIB);
}
