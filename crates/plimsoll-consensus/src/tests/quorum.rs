//! What counts as decided while voters change (openraft #1802): acknowledgements of `(1,1), (3,1), (3,2), (2,2)`, member and
//! entry, between the voters {1, 2, 3} and {1, 2, 4} decide entry 1 and no more. Before its fix openraft took entry 2 for
//! decided, which of {1, 2, 4} only member 2 has.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use parking_lot::Mutex;
use plimsoll_store::memory::{MemoryEngine, MemoryWal};
use plimsoll_store::{Done, Error, Loaded, Op, Wal};

use super::fixture::{Member, until};
use crate::wire;
use crate::{GroupConfig, Payload, SnapshotDir};

/// Longer than any decision takes here.
const A_WHILE: Duration = Duration::from_millis(250);

/// Nobody stands for election while a log is held back, however long the machine stalls: a vote is written too.
const ELECTION_MS: (u64, u64) = (60_000, 120_000);

/// A log that writes what it is given only when told to.
struct Gate {
    inner: MemoryWal,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    held: VecDeque<(Vec<Op>, Done)>,
}

impl Gate {
    fn new() -> Arc<Gate> {
        Arc::new(Gate { inner: MemoryWal::new(), state: Mutex::default() })
    }

    fn close(&self) {
        self.state.lock().closed = true;
    }

    fn open(&self) {
        let held = {
            let mut state = self.state.lock();
            state.closed = false;
            std::mem::take(&mut state.held)
        };
        held.into_iter().for_each(|(ops, done)| self.inner.submit(ops, done));
    }

    /// Entries that wait to be written.
    fn waiting(&self) -> BTreeSet<u64> {
        let state = self.state.lock();
        let ops = state.held.iter().flat_map(|(ops, _)| ops);
        ops.filter_map(|op| if let Op::Put { index, .. } = op { Some(*index) } else { None }).collect()
    }

    /// Writes what waits up to and including this entry.
    fn write_to(&self, last: u64) {
        loop {
            let Some((ops, done)) = ({
                let mut state = self.state.lock();
                let is_later = |(ops, _): &(Vec<Op>, Done)| {
                    ops.iter().any(|op| matches!(op, Op::Put { index, .. } if *index > last))
                };
                if state.held.front().is_some_and(|first| !is_later(first)) {
                    state.held.pop_front()
                } else {
                    None
                }
            }) else {
                return;
            };
            self.inner.submit(ops, done);
        }
    }
}

impl Wal for Gate {
    fn submit(&self, ops: Vec<Op>, done: Done) {
        let mut state = self.state.lock();
        if state.closed {
            state.held.push_back((ops, done));
        } else {
            drop(state);
            self.inner.submit(ops, done);
        }
    }

    fn load(&self) -> Result<Loaded, Error> {
        self.inner.load()
    }
}

async fn member(id: u64, gate: &Arc<Gate>) -> Member {
    let config = GroupConfig {
        node_id: id,
        cluster_id: "test".into(),
        election_ms: ELECTION_MS,
        ..GroupConfig::default()
    };
    let wal = Arc::clone(gate) as Arc<dyn Wal>;
    Member::on(config, 'a', wal, Arc::new(MemoryEngine::new()), SnapshotDir::Memory, None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_two_sets_of_voters_an_entry_needs_a_majority_of_both() {
    let gates: Vec<Arc<Gate>> = (1..=4).map(|_| Gate::new()).collect();
    let mut members = Vec::new();
    for (id, gate) in (1..).zip(&gates) {
        members.push(member(id, gate).await);
    }
    let leader = &members[0].group;
    leader.initialize().await.expect("a new group");
    until("a leader", || leader.is_leader()).await;
    for one in &members[1..3] {
        leader.add_voter(one.group.node_id(), one.info()).await.expect("a new voter");
    }
    leader.add_learner(4, members[3].info()).await.expect("it learns");
    let everybody_has_all = || {
        leader.metrics().committed == leader.metrics().last_log
            && leader.metrics().lag.values().all(|lag| *lag == 0)
    };
    until("nothing is under way", everybody_has_all).await;
    gates.iter().for_each(|gate| gate.close());

    // Entry 1: the change of voters. Whoever finishes a change that was left half done takes this one for such.
    let nobody_else_changes = leader.changing().lock().await;
    let changing = leader.clone();
    let change = tokio::spawn(async move {
        let to = ChangeMembers::ReplaceAllVoters(BTreeSet::from([1, 2, 4]));
        changing.scoped(changing.raft().change_membership(to, false)).await.map(drop)
    });
    until("the change is in the leader's log", || leader.metrics().joint).await;
    let first = leader.metrics().last_log;
    until("member 3 is about to write it", || gates[2].waiting().contains(&first)).await;
    // Entry 2: anything.
    let payload = Payload { bytes: vec![7; 8].into(), decoded: None };
    let proposed = tokio::spawn(leader.propose_pipelined(payload));
    until("it is in the leader's log", || leader.metrics().last_log == first + 1).await;

    gates[0].write_to(first);
    gates[2].write_to(first);
    until("member 3 is about to write entry 2", || gates[2].waiting().contains(&(first + 1))).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(leader.metrics().committed < first, "of 1, 2 and 4 member 1 alone has entry 1");
    gates[2].write_to(first + 1);
    until("member 2 is about to write entry 2", || gates[1].waiting().contains(&(first + 1))).await;
    gates[1].write_to(first + 1);
    until("entry 1 is decided", || leader.metrics().committed >= first).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(leader.metrics().committed, first, "of 1, 2 and 4 member 2 alone has entry 2");

    gates.iter().for_each(|gate| gate.open());
    proposed.await.expect("no panic").expect("it is decided now");
    // Its second step is refused by a leader that heard nothing of the others for long, and is then taken by the group itself.
    drop(nobody_else_changes);
    let _ = change.await.expect("no panic");
    until("one set of voters", || !leader.metrics().joint).await;
    assert_eq!(leader.metrics().voters, [1, 2, 4]);
    for member in members {
        member.stop().await;
    }
}

#[test]
fn two_sets_of_voters_stay_two_on_the_wire() {
    let nodes =
        (1..=4).map(|id| (id, crate::NodeInfo::default())).collect::<std::collections::BTreeMap<_, _>>();
    let sets = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4])];
    let both = crate::types::Membership::new(sets, nodes).expect("a membership");
    assert_eq!(wire::membership_back(wire::membership(&both)).expect("readable"), both);
}
