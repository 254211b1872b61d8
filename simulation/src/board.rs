//! What the simulated hosts and the loop around them share.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use plimsoll_consensus::{GroupStatus, Role};
use tokio::sync::watch;

use crate::evidence::{Evidence, LogRecord};
use crate::history::History;
use crate::trace::Trace;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The cluster is being formed.
    Setup,
    /// Load and faults.
    Chaos,
    /// Faults are over: it must get well.
    Heal,
    /// All that is to be checked was collected.
    Done,
}

/// The shared state of a run.
pub struct Board {
    /// Decides everything.
    pub seed: u64,
    /// What happened.
    pub trace: Trace,
    /// What clients saw.
    pub history: History,
    inner: Mutex<Inner>,
}

struct Inner {
    phase: Phase,
    /// Status of each coordinator that runs, and what was last traced of it.
    members: BTreeMap<u64, (watch::Receiver<GroupStatus>, Option<u64>)>,
    evidence: Option<Evidence>,
    leaders: u64,
    /// What auditors copied, each thing that a replica said once.
    seen: BTreeMap<(u64, u64), Vec<LogRecord>>,
}

impl Board {
    /// At the beginning of a run.
    pub fn new(seed: u64, trace: Trace) -> Board {
        let members = BTreeMap::new();
        let inner = Inner { phase: Phase::Setup, members, evidence: None, leaders: 0, seen: BTreeMap::new() };
        Board { seed, trace, history: History::default(), inner: Mutex::new(inner) }
    }

    /// Simulated time, in milliseconds; 0 outside of a host.
    pub fn now_ms() -> u64 {
        turmoil::sim_elapsed().map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// Where the run is.
    pub fn phase(&self) -> Phase {
        self.inner.lock().phase
    }

    /// Moves on.
    pub fn enter(&self, now_ms: u64, phase: Phase) {
        self.trace.add(now_ms, format_args!("phase {phase:?}"));
        self.inner.lock().phase = phase;
    }

    /// A coordinator runs.
    pub fn joined(&self, id: u64, status: watch::Receiver<GroupStatus>) {
        self.inner.lock().members.insert(id, (status, None));
    }

    /// A coordinator is gone.
    pub fn left(&self, id: u64) {
        self.inner.lock().members.remove(&id);
    }

    /// The coordinator that leads in the latest term, by its own word.
    pub fn leader(&self) -> Option<u64> {
        let inner = self.inner.lock();
        let leads =
            |id: &u64, status: &GroupStatus| (status.role == Role::Leader).then_some((status.term, *id));
        inner
            .members
            .iter()
            .filter_map(|(id, (status, _))| leads(id, &status.borrow()))
            .max()
            .map(|(_, id)| id)
    }

    /// Traces who leads since the last look.
    pub fn note_leaders(&self, now_ms: u64) {
        let mut inner = self.inner.lock();
        let mut elected = 0;
        for (id, (status, noted)) in &mut inner.members {
            let leads = {
                let status = status.borrow();
                (status.role == Role::Leader).then_some(status.term)
            };
            if leads != *noted {
                *noted = leads;
                match leads {
                    Some(term) => {
                        elected += 1;
                        self.trace.add(now_ms, format_args!("leader c{id} term {term}"));
                    }
                    None => self.trace.add(now_ms, format_args!("leader c{id} no more")),
                }
            }
        }
        inner.leaders += elected;
    }

    /// How often somebody began to lead.
    pub fn elections(&self) -> u64 {
        self.inner.lock().leaders
    }

    /// How each coordinator that runs sees the group, for a failure's message.
    pub fn describe(&self) -> String {
        let inner = self.inner.lock();
        let one = |(id, (status, _)): (&u64, &(watch::Receiver<GroupStatus>, Option<u64>))| {
            let status = status.borrow();
            let leader = status.leader.as_ref().map_or(0, |(leader, _)| *leader);
            format!(
                "c{id}: {:?} term {} leader {leader} applied {} committed {} last {}",
                status.role, status.term, status.applied, status.committed, status.last_log
            )
        };
        inner.members.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// An auditor copied these from a replica.
    pub fn saw(&self, id: u64, records: Vec<LogRecord>) {
        let mut inner = self.inner.lock();
        for record in records {
            let known = inner.seen.entry((id, record.revision.0)).or_default();
            if !known.contains(&record) {
                known.push(record);
            }
        }
    }

    /// Hands in what was collected; the run is done.
    pub fn finish(&self, now_ms: u64, mut evidence: Evidence) {
        let seen = std::mem::take(&mut self.inner.lock().seen);
        let all =
            seen.into_iter().flat_map(|((id, _), records)| records.into_iter().map(move |one| (id, one)));
        evidence.seen = all.collect();
        self.inner.lock().evidence = Some(evidence);
        self.enter(now_ms, Phase::Done);
    }

    /// What was collected.
    pub fn take_evidence(&self) -> Option<Evidence> {
        self.inner.lock().evidence.take()
    }
}
