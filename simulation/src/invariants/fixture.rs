//! What the tests of the invariants share: a step that is right and can be made wrong, and a whole case likewise.

use std::sync::Arc;

use plimsoll_client::v1;
use plimsoll_ledger::{
    Command, Device, Entry, Ledger, MemberPlacement, Node, NodeAdmin, NodeHealth, NodeUsage, Outcome,
    Placement, Registration, Request as Wish, Requirements, Reservation, Stamp, State, Verdict,
};
use plimsoll_proto::{codec, digest};
use plimsoll_types::{LedgerTime, NodeEpoch, NodeId, ReservationId, Resources, Revision};

use super::{Findings, Invariant};
use crate::evidence::{Evidence, LogRecord, Replica};
use crate::history::{Answer, Call, Done};
use crate::oracle::{Picture, Step, judge};
use crate::request::Request;

/// Ids of what an invariant finds in a step.
pub(super) fn found(invariant: &mut impl Invariant, step: &Step) -> Vec<&'static str> {
    let mut findings = Findings::default();
    invariant.step(step, &mut findings);
    findings.list().iter().map(|finding| finding.invariant).collect()
}

fn registration(name: &str) -> Registration {
    let device = |index| Device {
        uuid: format!("GPU-{name}-{index}"),
        model: "a100".to_owned(),
        memory_bytes: 80 << 30,
        failed: false,
        mig: None,
    };
    Registration {
        name: name.to_owned(),
        incarnation: 1,
        capacity: Resources::new(8_000, 1 << 40),
        devices: vec![device(0), device(1)],
        self_fencing: true,
        ..Registration::default()
    }
}

/// A node with 8 cores and two devices.
pub(super) fn node(id: u32) -> Node {
    Node {
        id: NodeId(id),
        registration: registration("n"),
        epoch: NodeEpoch(1),
        pool: "default".to_owned(),
        allocatable: Resources::new(8_000, 1 << 40),
        admin: NodeAdmin::Schedulable,
        health: NodeHealth::Available,
        health_since: LedgerTime(0),
        fence_pending: Vec::new(),
        moved: None,
        interruption: None,
        changed: Revision(1),
    }
}

/// An active reservation of one core on node 0, granted at revision 10, with a lease of a minute.
pub(super) fn reservation(id: u64) -> Reservation {
    Reservation {
        id: ReservationId(id),
        request: Arc::new(Wish::default()),
        requester: "ada".to_owned(),
        priority: 50,
        state: State::Active,
        resume_state: State::Active,
        amounts: Resources::new(1_000, 1),
        members: vec![MemberPlacement { node: NodeId(0), devices: Vec::new(), role: 0 }],
        token: Revision(10),
        ttl_ms: 60_000,
        submitted_at: LedgerTime(1_000),
        granted_at: LedgerTime(1_000),
        deadline: LedgerTime(61_000),
        hard_end: LedgerTime(0),
        ended_at: LedgerTime(0),
        end_reason: None,
        changed: Revision(10),
        blockers: Vec::new(),
        preempted: None,
        tab: None,
        cost_micros: 0,
        endpoint: None,
        repaired: None,
        aside: None,
    }
}

/// The entry of revision 10, which leaves these rows; before it there were the nodes alone.
pub(super) fn step(nodes: &[Node], reservations: &[Reservation]) -> Step {
    let picture = |reservations: &[Reservation]| {
        let mut picture = Picture { log_time: LedgerTime(1_000), ..Picture::default() };
        for node in nodes {
            let mut usage = NodeUsage::default();
            for one in reservations.iter().filter(|one| one.state.is_occupying()) {
                for _ in one.members.iter().filter(|member| member.node == node.id) {
                    usage.used.add_assign(&one.amounts).unwrap_or_default();
                    usage.holders.insert(one.id);
                }
            }
            picture.usage.insert(node.id, usage);
            picture.nodes.insert(node.id, Arc::new(node.clone()));
        }
        picture.live = reservations.iter().filter(|one| !one.state.is_final()).count() as u64;
        picture.reservations = reservations.iter().map(|one| (one.id, Arc::new(one.clone()))).collect();
        Arc::new(picture)
    };
    Step {
        revision: Revision(10),
        entry: Entry::system(Command::Expire { limit: 1 }),
        outcome: Outcome::Done,
        replayed: false,
        events: Vec::new(),
        log_time: LedgerTime(1_000),
        recorded: Outcome::Done,
        before: picture(&[]),
        after: picture(reservations),
        moved: None,
    }
}

impl Step {
    /// The state after it, to be made wrong.
    pub(super) fn after_mut(&mut self) -> &mut Picture {
        Arc::make_mut(&mut self.after)
    }

    /// The state before it, to be made wrong.
    pub(super) fn before_mut(&mut self) -> &mut Picture {
        Arc::make_mut(&mut self.before)
    }
}

/// A case in which everything is right: a leader, a node, a grant that a client was told of.
pub(super) struct Good {
    pub(super) calls: Vec<Call>,
    pub(super) evidence: Evidence,
    events: Vec<(u64, String, String)>,
}

impl Good {
    pub(super) fn new() -> Good {
        let requirements = Requirements { amounts: Resources::new(1_000, 1), ..Requirements::default() };
        let (pool, class) = ("default".to_owned(), "standard".to_owned());
        let wish = Wish {
            pool,
            class,
            requirements,
            ttl_ms: 60_000,
            hold_ms: 1_000,
            auto_confirm: true,
            ..Wish::default()
        };
        let members = vec![MemberPlacement { node: NodeId(0), devices: Vec::new(), role: 0 }];
        let submit = Command::Submit { request: wish, verdict: Verdict::Place(Placement { members }) };
        let entries = [
            Entry::system(Command::BecomeLeader { leader: 1 }),
            Entry::system(Command::RegisterNode(registration("n"))),
            Entry {
                actor: "ada".to_owned(),
                request_id: "one".to_owned(),
                request_hash: [1; 32],
                command: submit,
            },
            Entry::system(Command::Expire { limit: 1 }),
            Entry::system(Command::Expire { limit: 2 }),
        ];
        let (mut ledger, mut chain, mut log) = (Ledger::new(), [0; 32], Vec::new());
        let mut events = Vec::new();
        for (revision, entry) in (1..).map(Revision).zip(entries) {
            let stamp = Stamp { revision, proposed_at: LedgerTime(1_000 * revision.0) };
            let applied = ledger.apply(stamp, &entry);
            let told = applied.events.into_iter();
            events.extend(told.map(|event| (revision.0, event.rule.to_owned(), event.actor)));
            let outcome = applied.answer.outcome;
            let (entry_bytes, outcome_bytes) = (codec::encode_entry(&entry), codec::encode_outcome(&outcome));
            chain = digest::chain(&chain, &entry_bytes, &outcome_bytes);
            let log_time = ledger.clock();
            log.push(LogRecord { revision, log_time, entry, entry_bytes, outcome, outcome_bytes, chain });
        }
        let rows: Vec<_> = ledger.rows().collect();
        let state = digest::state(rows.iter().map(|(key, row)| (key, row)));
        let rows: Vec<v1::StateRow> = rows
            .iter()
            .map(|(key, row)| v1::StateRow { key: codec::encode_key(key), value: codec::encode_row(row) })
            .collect();
        let revision = ledger.revision();
        let replica =
            |id| Replica { id, log: log.clone(), revision, chain, rows: rows.clone(), digest: state };
        let evidence = Evidence { replicas: [1, 2, 3].map(replica).into(), ..Evidence::default() };
        let Outcome::Reservation(granted) = &log[2].outcome else { panic!("granted: {:?}", log[2].outcome) };
        let told = v1::Reservation {
            id: granted.id.to_string(),
            token: granted.token.0,
            allocations: vec![v1::Allocation::default()],
            ..Default::default()
        };
        let request_id = "one".to_owned();
        let request = Request::Create(v1::CreateReservationRequest { request_id, ..Default::default() });
        let answer = Answer::Done(Done { revision: 3, reservation: Some(told), taken: None });
        let calls = vec![Call { worker: 0, request, called_ms: 1, answered_ms: 2, answer }];
        Good { calls, evidence, events }
    }

    /// Revision, rule and actor of every event.
    pub(super) fn events(&self) -> Vec<(u64, String, String)> {
        self.events.clone()
    }

    /// The grant is missing from the dump of one replica.
    pub(super) fn lose_row(&mut self) {
        crate::sabotage::lose_grant(&mut self.evidence, &self.calls);
    }

    /// The log of every replica ends before the acknowledged entry.
    pub(super) fn cut_log(&mut self) {
        self.evidence.replicas.iter_mut().for_each(|replica| replica.log.truncate(2));
    }

    /// Ids of what the oracle finds.
    pub(super) fn judge(&self) -> Vec<&'static str> {
        let verdict = judge(&self.calls, &self.evidence);
        verdict.findings.list().iter().map(|finding| finding.invariant).collect()
    }
}
