//! The judge of a run: replays the log from its first entry on a ledger of its own, and asks every invariant.
//!
//! It never takes an unknown outcome for absent: a call whose answer was lost may be in the log once or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::{
    Class, Command, Contention, Entry, Event, EventObject, Intent, Ledger, Node, NodeHealth, NodeUsage,
    Outcome, Pool, Queue, QuotaPolicy, Reservation, ScalingPolicy, Schedule, Stamp, State, Usage, UsageKey,
    Violation,
};
use plimsoll_proto::codec;
use plimsoll_proto::digest::{self, Hash};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use crate::evidence::{Evidence, LogRecord};
use crate::history::{Answer, Call};
use crate::invariants::{Findings, all};

/// How often the ledger recomputes its own indexes while the log is replayed; in between, the invariants do.
const SELF_CHECK_EVERY: u64 = 32;

/// The state at one revision, as rows: nothing in it is derived but what is named so.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Ledger time.
    pub log_time: LedgerTime,
    /// Nodes, by id.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Countables of each pool, by its name.
    pub countables: BTreeMap<String, BTreeMap<String, u64>>,
    /// Queues, by name.
    pub queues: BTreeMap<String, Arc<Queue>>,
    /// Pools, by name.
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// Open contentions, by number.
    pub contentions: BTreeMap<Revision, Arc<Contention>>,
    /// Classes, by name.
    pub classes: BTreeMap<String, Arc<Class>>,
    /// Schedules with their windows, by name.
    pub schedules: BTreeMap<String, Arc<Schedule>>,
    /// Limits, budgets and rates of users, by name.
    pub quotas: BTreeMap<String, Arc<QuotaPolicy>>,
    /// What is spent and committed of each meter, and how far each rate is.
    pub book: BTreeMap<UsageKey, Arc<Usage>>,
    /// Scaling policies, by name.
    pub scaling_policies: BTreeMap<String, Arc<ScalingPolicy>>,
    /// Machines that were asked for, or are to go.
    pub intents: BTreeMap<Revision, Arc<Intent>>,
    /// Reservations, by id, ended ones included.
    pub reservations: BTreeMap<ReservationId, Arc<Reservation>>,
    /// Of the reservations those that are planned: for a start that is ahead, or for a place that others leave.
    pub planned: Vec<Arc<Reservation>>,
    /// Derived by the ledger: what is taken of each node.
    pub usage: BTreeMap<NodeId, NodeUsage>,
    /// Derived by the ledger: reservations that have not ended.
    pub live: u64,
    /// What the ledger found wrong with itself; not looked for at every revision.
    pub self_check: Vec<Violation>,
    /// Of the reservations those that occupy something, where that was looked for already.
    pub(crate) occupying: Option<Vec<Arc<Reservation>>>,
}

/// One entry of the log with the state before and after it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place.
    pub revision: Revision,
    /// The command.
    pub entry: Entry,
    /// What it came to when replayed.
    pub outcome: Outcome,
    /// It had been applied before, under the same request id.
    pub replayed: bool,
    /// What happened.
    pub events: Vec<Event>,
    /// Ledger time as exported.
    pub log_time: LedgerTime,
    /// What it came to as exported.
    pub recorded: Outcome,
    /// Before.
    pub before: Arc<Picture>,
    /// After.
    pub after: Arc<Picture>,
    /// Reservations that differ, where that was looked for already.
    pub(crate) moved: Option<Vec<ReservationId>>,
}

/// What can be judged at the end only.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// What clients saw.
    pub calls: &'a [Call],
    /// What replicas said.
    pub evidence: &'a Evidence,
    /// Every step of the replay, without its pictures.
    pub steps: &'a BTreeMap<Revision, Brief>,
    /// The state at the end of the replay.
    pub last: &'a Picture,
    /// Digest of that state.
    pub digest: Hash,
    /// Chain hash of the replay.
    pub chain: Hash,
}

/// What is remembered of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Brief {
    /// Its idempotency key.
    pub request_id: String,
    /// What it came to.
    pub outcome: Outcome,
    /// It was a replay of an earlier one.
    pub replayed: bool,
    /// Reservations that it granted.
    pub granted: Vec<ReservationId>,
    /// Reservations that it ended, or whose grant it took back.
    pub ended: Vec<ReservationId>,
    /// What happened, in short.
    pub events: Vec<Told>,
}

/// An event, as far as a watcher's is compared with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its rule.
    pub rule: &'static str,
    /// Who caused it.
    pub actor: String,
    /// It is about a reservation.
    pub of_reservation: bool,
}

/// What the oracle says.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What is wrong.
    pub findings: Findings,
    /// Commands of the log by kind and outcome, and ends by reason.
    pub coverage: BTreeMap<String, u64>,
    /// Commands replayed.
    pub commands: u64,
    /// Pieces of watches without a break, and the events in them.
    pub segments: u64,
    /// Events that watchers were given.
    pub watched: u64,
    /// Calls whose outcome was unknown, and what the log says of them.
    pub unknown: Settled,
}

/// What the log says of calls whose outcome was unknown to their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// They took effect.
    pub applied: u64,
    /// They are in the log, refused or as a repetition.
    pub refused: u64,
    /// They are not in the log.
    pub absent: u64,
    /// They are about what is not in the ledger's log, such as members of the cluster.
    pub elsewhere: u64,
}

/// Judges a run.
pub fn judge(calls: &[Call], evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    let mut invariants = all();
    let log = evidence.log();
    let mut ledger = Ledger::new();
    let mut before = Arc::new(picture(&ledger, true));
    let mut chain = [0; 32];
    let mut steps = BTreeMap::new();
    let target = evidence.replicas.first().map_or(Revision(0), |replica| replica.revision);
    for (place, record) in (1..).zip(log.values()) {
        if record.revision.0 != place {
            verdict.findings.add("I9", Revision(place), "no replica has this entry any more".to_owned());
            break;
        }
        let step = replay(&mut ledger, record, before, record.revision == target);
        chain = digest::chain(&chain, &record.entry_bytes, &codec::encode_outcome(&step.outcome));
        for invariant in &mut invariants {
            invariant.step(&step, &mut verdict.findings);
        }
        cover(&step, &mut verdict.coverage);
        steps.insert(record.revision, brief(&step));
        before = step.after;
    }
    verdict.commands = steps.len() as u64;
    verdict.unknown = settle(calls, &steps);
    verdict.segments = evidence.watched.len() as u64;
    verdict.watched = evidence.watched.iter().map(|segment| segment.events.len() as u64).sum();
    let rows: Vec<_> = ledger.rows().collect();
    let digest = digest::state(rows.iter().map(|(key, row)| (key, row)));
    let case = Case { calls, evidence, steps: &steps, last: &before, digest, chain };
    for invariant in &mut invariants {
        invariant.end(&case, &mut verdict.findings);
    }
    verdict
}

fn replay(ledger: &mut Ledger, record: &LogRecord, before: Arc<Picture>, last: bool) -> Step {
    let stamp = Stamp { revision: record.revision, proposed_at: record.log_time };
    let applied = ledger.apply(stamp, &record.entry);
    let self_check = last || record.revision.0.is_multiple_of(SELF_CHECK_EVERY);
    let mut step = Step {
        revision: record.revision,
        entry: record.entry.clone(),
        outcome: applied.answer.outcome,
        replayed: applied.replayed,
        events: applied.events,
        log_time: record.log_time,
        recorded: record.outcome.clone(),
        before,
        after: Arc::new(picture(ledger, self_check)),
        moved: None,
    };
    // Every invariant asks for it.
    step.moved = Some(step.differing());
    step
}

fn picture(ledger: &Ledger, self_check: bool) -> Picture {
    let usage = |node: &Arc<Node>| ledger.usage(node.id).map(|usage| (node.id, usage.clone()));
    let occupying = ledger.reservations().filter(|one| one.state.is_occupying()).map(Arc::clone).collect();
    Picture {
        log_time: ledger.clock(),
        nodes: ledger.nodes().map(|node| (node.id, Arc::clone(node))).collect(),
        countables: ledger.pools().map(countables).collect(),
        contentions: ledger
            .contentions()
            .filter(|one| one.is_open())
            .map(|one| (one.id, Arc::clone(one)))
            .collect(),
        pools: ledger.pools().map(|pool| (pool.name.clone(), Arc::clone(pool))).collect(),
        classes: ledger.classes().map(|class| (class.name.clone(), Arc::clone(class))).collect(),
        schedules: ledger.schedules().map(|one| (one.name.clone(), Arc::clone(one))).collect(),
        quotas: ledger.quota_policies().map(|quota| (quota.name.clone(), Arc::clone(quota))).collect(),
        book: ledger.usage_book().rows().map(|row| (row.key.clone(), Arc::clone(row))).collect(),
        queues: ledger.queues().map(|queue| (queue.name.clone(), Arc::clone(queue))).collect(),
        scaling_policies: ledger.scaling_policies().map(|one| (one.name.clone(), Arc::clone(one))).collect(),
        intents: ledger.intents().map(|one| (one.id, Arc::clone(one))).collect(),
        reservations: ledger.reservations().map(|one| (one.id, Arc::clone(one))).collect(),
        planned: ledger.reservations().filter(|one| one.state == State::Planned).map(Arc::clone).collect(),
        usage: ledger.nodes().filter_map(usage).collect(),
        live: ledger.live(),
        self_check: if self_check { ledger.check_invariants() } else { Vec::new() },
        occupying: Some(occupying),
    }
}

fn countables(pool: &Arc<Pool>) -> (String, BTreeMap<String, u64>) {
    (pool.name.clone(), pool.countables.iter().map(|(name, amount)| (name.clone(), amount.0)).collect())
}

impl Picture {
    /// It is a countable of this pool, so it is not taken of nodes.
    pub fn is_countable(&self, pool: &str, resource: &str) -> bool {
        self.countables.get(pool).is_some_and(|countables| countables.contains_key(resource))
    }

    /// Reservations that occupy something, by id. Those that are over are many more.
    pub fn occupying(&self) -> Box<dyn Iterator<Item = &Arc<Reservation>> + '_> {
        match &self.occupying {
            Some(known) => Box::new(known.iter()),
            None => Box::new(self.reservations.values().filter(|one| one.state.is_occupying())),
        }
    }
}

impl Step {
    /// Reservations that this step moved, as they were (absent where new) and as they are.
    pub fn moved(&self) -> impl Iterator<Item = (Option<&Arc<Reservation>>, &Arc<Reservation>)> {
        let ids = self.moved.clone().unwrap_or_else(|| self.differing());
        ids.into_iter()
            .filter_map(|id| Some((self.before.reservations.get(&id), self.after.reservations.get(&id)?)))
    }

    /// Ids of the reservations that are new or not as they were. Both maps are in order, so one pass does.
    fn differing(&self) -> Vec<ReservationId> {
        let mut before = self.before.reservations.iter().peekable();
        let mut ids = Vec::new();
        for (id, after) in &self.after.reservations {
            while before.next_if(|(earlier, _)| *earlier < id).is_some() {}
            let same = before.peek().is_some_and(|(other, one)| *other == id && Arc::ptr_eq(one, after));
            if !same {
                ids.push(*id);
            }
        }
        ids
    }

    /// True where this entry takes the node of a grant away, and its queue promises that it is processed all the same: it waits again.
    pub fn interrupts(&self, before: &Reservation) -> bool {
        if self.takes_back_node_of(before) {
            return true;
        }
        let queue = self.before.queues.get(&before.request.queue);
        if queue.is_none_or(|queue| !queue.guaranteed_processing) {
            return false;
        }
        let given_up = [NodeHealth::Lost, NodeHealth::Failed, NodeHealth::Fenced];
        before.members.iter().any(|member| match &self.entry.command {
            Command::SetNodeHealth { node, health, .. } => *node == member.node && given_up.contains(health),
            Command::Expire { .. } => {
                let drained = self.before.nodes.get(&member.node).and_then(|node| node.drain_deadline());
                drained.is_some_and(|deadline| deadline <= self.after.log_time)
            }
            _ => false,
        })
    }

    /// True where this entry gives up a node of a grant of which its provider had said that it goes.
    pub fn takes_back_node_of(&self, before: &Reservation) -> bool {
        let Command::SetNodeHealth { node, health, .. } = &self.entry.command else { return false };
        let given_up = [NodeHealth::Lost, NodeHealth::Failed, NodeHealth::Fenced];
        let was_told =
            |id: &NodeId| self.before.nodes.get(id).is_some_and(|node| node.interruption.is_some());
        given_up.contains(health)
            && was_told(node)
            && before.members.iter().any(|member| member.node == *node)
    }

    /// It changed something, by its own word.
    pub fn has_effect(&self) -> bool {
        !self.replayed && !matches!(self.outcome, Outcome::Refused(_))
    }
}

/// What the log says of what clients do not know. Asking again with the same request id may have settled it meanwhile,
/// so this counts and judges nothing; I9 and I10 judge.
fn settle(calls: &[Call], steps: &BTreeMap<Revision, Brief>) -> Settled {
    let mut effects: BTreeMap<&str, bool> = BTreeMap::new();
    for step in steps.values().filter(|step| !step.request_id.is_empty()) {
        let applied = !step.replayed && !matches!(step.outcome, Outcome::Refused(_));
        *effects.entry(&step.request_id).or_default() |= applied;
    }
    let mut settled = Settled::default();
    for call in calls.iter().filter(|call| matches!(call.answer, Answer::Unknown(_))) {
        let place = match effects.get(call.request.request_id()) {
            _ if !call.request.is_logged() => &mut settled.elsewhere,
            Some(true) => &mut settled.applied,
            Some(false) => &mut settled.refused,
            None => &mut settled.absent,
        };
        *place += 1;
    }
    settled
}

fn brief(step: &Step) -> Brief {
    let occupied = |before: Option<&Arc<Reservation>>| before.is_some_and(|one| one.state.is_occupying());
    let ended = |before: Option<&Arc<Reservation>>| before.is_some_and(|one| one.state.is_final());
    let granted = step.moved().filter(|(before, after)| after.state.is_occupying() && !occupied(*before));
    let granted = granted.map(|(_, after)| after.id).collect();
    // Who was taken back waits again, and holds nothing.
    let ends = step.moved().filter(|(before, after)| {
        after.state.is_final() && !ended(*before) || occupied(*before) && !after.state.is_occupying()
    });
    let ended = ends.map(|(_, after)| after.id).collect();
    Brief {
        request_id: step.entry.request_id.clone(),
        outcome: step.outcome.clone(),
        replayed: step.replayed,
        granted,
        ended,
        events: step.events.iter().map(told).collect(),
    }
}

fn told(event: &Event) -> Told {
    let of_reservation =
        matches!(event.object, EventObject::Reservation(..) | EventObject::ReservationForgotten(_));
    Told { rule: event.rule, actor: event.actor.clone(), of_reservation }
}

fn cover(step: &Step, coverage: &mut BTreeMap<String, u64>) {
    let command = format!("{:?}", step.entry.command);
    let name = command.split([' ', '(', '{']).next().unwrap_or_default();
    let outcome = match &step.outcome {
        _ if step.replayed => "replayed".to_owned(),
        Outcome::Refused(refusal) => format!("{:?}", refusal.reason),
        _ => "ok".to_owned(),
    };
    *coverage.entry(format!("{name} {outcome}")).or_default() += 1;
    for (before, after) in step.moved() {
        if let Some(given) =
            after.preempted().filter(|_| before.is_none_or(|before| before.preempted != after.preempted))
        {
            *coverage.entry(format!("notice {:?}", given.rule)).or_default() += 1;
        }
        if let Some(reason) = after.end_reason.filter(|_| after.changed == step.revision) {
            *coverage.entry(format!("end {reason:?}")).or_default() += 1;
        }
        if after.token == step.revision {
            let shape = if after.request.gang.max_members > 1 { "gang" } else { "single" };
            let gpu = after.request.requirements.gpu.as_ref();
            let share = gpu.map_or_else(
                || "no gpu".to_owned(),
                |ask| format!("{:?}", ask.share).split('(').next().unwrap_or_default().to_lowercase(),
            );
            *coverage.entry(format!("grant {shape} {share}")).or_default() += 1;
        }
    }
}
