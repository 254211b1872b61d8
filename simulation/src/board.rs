//! What the simulated hosts and the loop around them share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use plimsoll_consensus::{GroupStatus, Role};
use tokio::sync::watch;

use crate::cloud::Cloud;
use crate::evidence::{Evidence, LogRecord};
use crate::history::History;
use crate::trace::Trace;
use crate::watcher::Segment;

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
    /// Where machines come from.
    pub cloud: Arc<Cloud>,
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
    /// What watchers were given.
    watched: Vec<Segment>,
    /// Tokens that were spent out of slices.
    spent: u64,
    /// Revision up to which watchers must have been given everything, once that is known.
    target: Option<u64>,
    /// Coordinators that are or were members, or are about to be.
    ever_members: BTreeSet<u64>,
    /// Coordinators that stopped by themselves and why, until the world has dealt with them.
    stopped: Vec<(u64, String)>,
    /// What was found wrong on the way.
    findings: Vec<String>,
    /// The machine of the agents is to start anew.
    restart_agents: bool,
    /// When a command comes that nobody knows, in simulated milliseconds.
    unknown_command_at_ms: Option<u64>,
}

impl Board {
    /// At the beginning of a run.
    pub fn new(seed: u64, trace: Trace) -> Board {
        let inner = Inner {
            phase: Phase::Setup,
            members: BTreeMap::new(),
            evidence: None,
            leaders: 0,
            seen: BTreeMap::new(),
            watched: Vec::new(),
            spent: 0,
            target: None,
            ever_members: BTreeSet::new(),
            stopped: Vec::new(),
            findings: Vec::new(),
            restart_agents: false,
            unknown_command_at_ms: None,
        };
        let cloud = Arc::new(Cloud::new(seed));
        Board { seed, trace, history: History::default(), cloud, inner: Mutex::new(inner) }
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

    /// A coordinator has started and not ended.
    pub fn runs(&self, id: u64) -> bool {
        self.inner.lock().members.contains_key(&id)
    }

    /// A coordinator stopped by itself.
    pub fn stopped(&self, now_ms: u64, id: u64, why: String) {
        self.trace.add(now_ms, format_args!("c{id} stopped: {why}"));
        self.inner.lock().stopped.push((id, why));
    }

    /// Coordinators that stopped by themselves since the last look.
    pub fn take_stopped(&self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.inner.lock().stopped)
    }

    /// Somebody is about to make this coordinator a member.
    pub fn joins(&self, id: u64) {
        self.inner.lock().ever_members.insert(id);
    }

    /// This coordinator is or was a member, or is about to be.
    pub fn was_member(&self, id: u64) -> bool {
        self.inner.lock().ever_members.contains(&id)
    }

    /// Something is wrong.
    pub fn found(&self, what: String) {
        self.inner.lock().findings.push(what);
    }

    /// What was found wrong on the way.
    pub fn take_findings(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().findings)
    }

    /// The machine of the agents is to start anew.
    pub fn restart_agents(&self) {
        self.inner.lock().restart_agents = true;
    }

    /// Somebody wanted the machine of the agents to start anew since the last look.
    pub fn take_restart_agents(&self) -> bool {
        std::mem::take(&mut self.inner.lock().restart_agents)
    }

    /// What a watcher was given.
    pub fn watched(&self, segment: Segment) {
        self.inner.lock().watched.push(segment);
    }

    /// Tokens were spent out of a slice.
    pub fn spent(&self, tokens: u64) {
        self.inner.lock().spent += tokens;
    }

    /// From now on watchers may stop once they were given everything up to this revision.
    pub fn let_watchers_go(&self, revision: u64) {
        self.inner.lock().target = Some(revision);
    }

    /// Watchers may stop at this revision.
    pub fn over_for_watchers(&self, revision: u64) -> bool {
        let inner = self.inner.lock();
        inner.phase == Phase::Done || inner.target.is_some_and(|target| target <= revision)
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

    /// The coordinator that leads, by its own word, while there are two sets of voters.
    pub fn leader_in_change(&self) -> Option<u64> {
        let inner = self.inner.lock();
        let changes = |status: &GroupStatus| status.role == Role::Leader && status.joint;
        inner.members.iter().find(|(_, (status, _))| changes(&status.borrow())).map(|(id, _)| *id)
    }

    /// A coordinator that leads and is to put a command into the log that nobody knows, once.
    pub fn wants_unknown_command(&self, now_ms: u64) -> bool {
        let mut inner = self.inner.lock();
        let wants = inner.unknown_command_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if wants {
            inner.unknown_command_at_ms = None;
        }
        wants
    }

    /// From then on the next leader that looks puts a command into the log that nobody knows, once.
    pub fn let_unknown_command_come(&self, at_ms: u64) {
        self.inner.lock().unknown_command_at_ms = Some(at_ms);
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
        evidence.watched = std::mem::take(&mut self.inner.lock().watched);
        evidence.spent = self.inner.lock().spent;
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
