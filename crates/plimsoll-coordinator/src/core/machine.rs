//! The ledger as consensus runs it: decode, apply, write rows and history, tell those who wait.
//!
//! Everything here happens on every replica in the same order. What cannot be decoded stops the replica: skipping it
//! would let it diverge.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use plimsoll_consensus::{Machine, MachineError, Payload, ROW_PREFIX, Reply};
use plimsoll_ledger::{
    Applied, Command, Entry, EventObject, Ledger, Outcome, Reservation, Row, RowError, Stamp, State,
    Violation,
};
use plimsoll_mutants::mutant;
use plimsoll_store::WriteBatch;
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};
use tokio::sync::watch;

use super::agents::AgentHub;
use super::bodies::Bodies;
use super::encoding::{self, Batch};
use super::notice::{AppliedNotice, Changes};
use super::stored::StoredRows;
use super::watch::WatchHub;
use super::{Counters, History, Record, stored};

/// The row with the chain hash.
const CHAIN_ROW: &[u8] = b"c";

/// The replicated ledger of one replica.
pub struct LedgerMachine {
    ledger: Arc<RwLock<Ledger>>,
    chain: Mutex<[u8; 32]>,
    pending: Mutex<Vec<Arc<Record>>>,
    /// Canonical bytes of outcomes that show a reservation, with that reservation, since the rows were last taken.
    shown: Mutex<HashMap<ReservationId, (Arc<Reservation>, Bytes)>>,
    bodies: Arc<Bodies>,
    history: Arc<History>,
    hub: Arc<WatchHub>,
    notice: Arc<AppliedNotice>,
    agents: AgentHub,
    /// Tells of each revision at which endpoints changed.
    endpoints: watch::Sender<Revision>,
    /// How many scaling policies there are.
    scaling: watch::Sender<usize>,
    counters: Arc<Counters>,
    /// Newest ledger version that it applies.
    newest_version: u32,
    /// Version of rows that were refused, since they are newer; 0 for none.
    refused_version: AtomicU32,
    /// It has started: what it cannot restore from now on comes from a peer.
    running: AtomicBool,
}

impl LedgerMachine {
    pub(super) fn new(
        bodies: Arc<Bodies>,
        history: Arc<History>,
        hub: Arc<WatchHub>,
        notice: Arc<AppliedNotice>,
        agents: AgentHub,
        counters: Arc<Counters>,
        newest_version: u32,
    ) -> LedgerMachine {
        LedgerMachine {
            ledger: Arc::clone(bodies.ledger()),
            chain: Mutex::new([0; 32]),
            pending: Mutex::default(),
            shown: Mutex::default(),
            bodies,
            history,
            hub,
            notice,
            agents,
            endpoints: watch::Sender::new(Revision(0)),
            scaling: watch::Sender::new(0),
            counters,
            newest_version,
            refused_version: AtomicU32::new(0),
            running: AtomicBool::new(false),
        }
    }

    /// Ledger version of rows that it refused for being newer than it knows; `None` where it refused none.
    pub(super) fn refused_version(&self) -> Option<u32> {
        Some(self.refused_version.load(Ordering::Relaxed)).filter(|version| *version > 0)
    }

    /// The group runs: a state that cannot be restored ends the process from now on, since nobody waits for the error.
    pub(super) fn runs(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Refuses a state that needs a newer build, and keeps in mind which version it was.
    fn check_version(&self, restored: Result<Ledger, RowError>) -> Result<Ledger, MachineError> {
        let found = match &restored {
            Ok(ledger) => ledger.meta().version,
            Err(RowError::Version { found, .. }) => *found,
            Err(_) => 0,
        };
        if found <= self.newest_version {
            return restored.map_err(bad_rows);
        }
        self.refused_version.store(found, Ordering::Relaxed);
        let newest = self.newest_version;
        let why = format!("the state is of ledger version {found}, and this build knows up to {newest}");
        if self.running.load(Ordering::Relaxed) {
            panic!("{why}: start a build that knows version {found}");
        }
        Err(MachineError(why))
    }

    /// What those asked who are set aside.
    pub(super) fn bodies(&self) -> &Arc<Bodies> {
        &self.bodies
    }

    /// Chain hash after the latest command applied.
    pub(super) fn chain(&self) -> [u8; 32] {
        *self.chain.lock()
    }

    /// Tells of each revision at which endpoints changed.
    pub(super) fn endpoint_changes(&self) -> watch::Receiver<Revision> {
        self.endpoints.subscribe()
    }

    /// Tells how many scaling policies and elastic pools there are.
    pub(super) fn scaling_changes(&self) -> watch::Receiver<usize> {
        self.scaling.subscribe()
    }

    fn tell_of_scaling(&self) {
        let count = {
            let ledger = self.ledger.read();
            let elastic = ledger.pools().filter(|pool| pool.elastic.is_elastic()).count();
            ledger.scaling_policies().count() + elastic
        };
        self.scaling.send_if_modified(|known| std::mem::replace(known, count) != count);
    }

    fn tell_of_endpoints(&self) {
        let changed = self.ledger.read().endpoints_changed();
        self.endpoints.send_if_modified(|known| std::mem::replace(known, changed) != changed);
    }

    /// Makes this replica differ from the others from the next command on.
    #[cfg(test)]
    pub(super) fn break_chain(&self) {
        self.chain.lock()[0] ^= 1;
    }

    /// What the ledger found wrong with itself. It goes on: every replica finds the same, and a ledger that nobody serves
    /// helps nobody.
    fn report(&self, violations: &[Violation]) {
        for violation in violations {
            tracing::error!(
                invariant = violation.invariant,
                detail = violation.detail,
                "an invariant does not hold"
            );
        }
        Counters::add(&self.counters.violations, violations.len() as u64);
    }

    fn count(&self, applied: &Applied) {
        let counters = &self.counters;
        counters.applied.fetch_add(1, Ordering::Relaxed);
        if applied.replayed {
            counters.replayed.fetch_add(1, Ordering::Relaxed);
        } else if matches!(applied.answer.outcome, Outcome::Refused(_)) {
            counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        for event in &applied.events {
            if let EventObject::Reservation(reservation, from) = &event.object
                && reservation.state.is_occupying()
                && !from.is_some_and(State::is_occupying)
            {
                counters.granted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Machine for LedgerMachine {
    fn apply(&self, payload: &Payload) -> Reply {
        let begun = tokio::time::Instant::now();
        let batch = batch_of(payload);
        check_upgrades(&batch, self.newest_version);
        let mut changes = Changes::default();
        let mut applied = Vec::with_capacity(batch.entries.len());
        {
            let mut ledger = self.ledger.write();
            for entry in &batch.entries {
                note_before(&ledger, entry, &mut changes);
                let local = mutant!("local-clock").then(|| LedgerTime(plimsoll_mutants::wall_ms()));
                let proposed_at = local.unwrap_or(batch.proposed_at);
                let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at };
                let one = ledger.apply(stamp, entry);
                note_after(entry, &one, &mut changes);
                applied.push((stamp.revision, ledger.clock(), one));
            }
            self.report(&ledger.take_violations());
        }
        let (mut chain, mut shown) = (self.chain.lock(), self.shown.lock());
        let mut records = Vec::with_capacity(applied.len());
        let mut reply = Reply::with_capacity(applied.len());
        for ((entry, bytes), (revision, log_time, one)) in
            batch.entries.iter().zip(&batch.encoded).zip(applied)
        {
            self.count(&one);
            let outcome = encoding::encode_outcome(&one.answer.outcome);
            *chain = encoding::chain(&chain, bytes, &outcome);
            if let Outcome::Reservation(reservation) = &one.answer.outcome {
                shown.insert(reservation.id, (Arc::clone(reservation), outcome.clone()));
            }
            records.push(Arc::new(Record {
                revision,
                log_time,
                actor: entry.actor.clone(),
                request_id: entry.request_id.clone(),
                entry: bytes.clone(),
                outcome,
                chain: *chain,
                events: one.events,
            }));
            reply.push(one.answer);
        }
        drop((chain, shown));
        let shown: Vec<_> = records.iter().zip(reply.iter().map(|answer| &answer.outcome)).collect();
        self.history.append(&shown).unwrap_or_else(|error| panic!("history cannot be written: {error}"));
        self.pending.lock().extend(records);
        self.notice.add(changes);
        let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Counters::add(&self.counters.applying_ns, spent);
        reply
    }

    fn take_rows(&self, rows: &mut WriteBatch) {
        // Otherwise a power cut could leave rows without the records that led to them, and a hole in history. Records
        // ahead of the rows are written again with the same content.
        self.history.sync().unwrap_or_else(|error| panic!("history cannot be made durable: {error}"));
        let touched = {
            let mut ledger = self.ledger.write();
            let touched = ledger.take_rows();
            self.bodies.hand_out(&touched);
            touched
        };
        let shown = std::mem::take(&mut *self.shown.lock());
        rows.ops.reserve(touched.len() + 1);
        for row in &touched {
            let encoded = match &row.row {
                Some(Row::Reservation(reservation)) => shown
                    .get(&reservation.id)
                    .filter(|(shown, _)| Arc::ptr_eq(shown, reservation))
                    .and_then(|(_, outcome)| encoding::row_of_outcome(outcome)),
                _ => None,
            };
            rows.ops.push((stored::key(&row.place).into(), encoded.or_else(|| stored::value(row))));
        }
        rows.put([&[ROW_PREFIX], CHAIN_ROW].concat(), Bytes::copy_from_slice(&self.chain()));
    }

    fn applied(&self, _last_raft_index: u64) {
        let records = std::mem::take(&mut *self.pending.lock());
        self.agents.feed(&records);
        self.hub.publish(records);
        self.tell_of_endpoints();
        self.tell_of_scaling();
        self.notice.wake();
    }

    fn restore(
        &self,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Bytes), plimsoll_store::Error>>,
    ) -> Result<(), MachineError> {
        let mut chain = [0; 32];
        let mut failure = None;
        let mut any = false;
        let mut reader = StoredRows::default();
        // Read as the ledger takes them: a million rows at once would take as much room again.
        let stored = std::iter::from_fn(|| {
            while failure.is_none() {
                let read = rows.next()?.map_err(bad_rows).and_then(|(key, value)| {
                    let key = key.get(1..).unwrap_or_default();
                    if key == CHAIN_ROW {
                        chain = value.as_ref().try_into().map_err(bad_rows)?;
                        Ok(None)
                    } else if key.first() == Some(&stored::LEDGER_ROWS) {
                        reader.read(key, &value).map(Some).map_err(bad_rows)
                    } else {
                        Err(MachineError(format!("row with an unknown key {key:?}")))
                    }
                });
                match read {
                    Ok(Some(row)) => {
                        any = true;
                        return Some(row);
                    }
                    Ok(None) => {}
                    Err(error) => failure = Some(error),
                }
            }
            None
        });
        let ledger = Ledger::from_stored(stored);
        if let Some(error) = failure {
            return Err(error);
        }
        let ledger = if any { self.check_version(ledger)? } else { Ledger::new() };
        let revision = ledger.revision();
        {
            let mut now = self.ledger.write();
            *now = ledger;
            self.bodies.restored();
        }
        *self.chain.lock() = chain;
        self.pending.lock().clear();
        self.shown.lock().clear();
        self.history.restored(revision).map_err(bad_rows)?;
        self.hub.restored(revision, chain);
        self.tell_of_endpoints();
        self.tell_of_scaling();
        self.notice.add(Changes { all_nodes: true, policies: true, ..Changes::default() });
        self.notice.wake();
        Ok(())
    }
}

fn bad_rows(error: impl std::fmt::Display) -> MachineError {
    MachineError(error.to_string())
}

/// The proposer's own form where there is one, else the decoded bytes.
fn batch_of(payload: &Payload) -> Arc<Batch> {
    if let Some(batch) =
        payload.decoded.as_ref().and_then(|decoded| Arc::clone(decoded).downcast::<Batch>().ok())
    {
        return batch;
    }
    match encoding::decode_batch(&payload.bytes) {
        Ok(batch) => Arc::new(batch),
        Err(_) if mutant!("skip-unknown-command") => {
            Arc::new(Batch { proposed_at: LedgerTime(0), entries: Vec::new(), encoded: Vec::new() })
        }
        Err(error) => panic!("a committed entry cannot be decoded, so this build must not go on: {error}"),
    }
}

/// From an upgrade on, the rules are those of its version. Whoever does not know them stops before it applies anything by
/// others: the log has the entry, and a newer build goes on from there.
fn check_upgrades(batch: &Batch, newest_version: u32) {
    for entry in &batch.entries {
        if let Command::Upgrade { to } = entry.command
            && to > newest_version
            && !mutant!("skip-unknown-command")
        {
            panic!(
                "the ledger goes on at version {to} and this build knows up to {newest_version}, so it must not go on: start \
                 a build that knows version {to}"
            );
        }
    }
}

/// Notes the nodes that lose holders: afterwards an ended reservation no longer says where it was.
fn note_before(ledger: &Ledger, entry: &Entry, changes: &mut Changes) {
    let mut members = |id: ReservationId| {
        if let Some(reservation) = ledger.reservation(id) {
            changes.nodes.extend(reservation.members.iter().map(|member| member.node));
        }
    };
    match &entry.command {
        Command::Release { reservation, .. }
        | Command::Requeue { reservation, .. }
        | Command::Evict { reservation, .. }
        | Command::Cancel { reservation } => members(*reservation),
        Command::SetNodeHealth { node, .. }
        | Command::InterruptNode { node, .. }
        | Command::RemoveNode { node } => {
            let holders: BTreeSet<NodeId> = ledger
                .holders(*node)
                .flat_map(|holder| holder.members.iter().map(|member| member.node))
                .collect();
            changes.nodes.extend(holders);
            changes.nodes.insert(*node);
        }
        Command::Submit { .. }
        | Command::Place { .. }
        | Command::Preempt { .. }
        | Command::Relocate { .. }
        | Command::MoveNode { .. }
        | Command::Confirm { .. }
        | Command::Renew { .. }
        | Command::Resize { .. }
        | Command::Expire { .. }
        | Command::RegisterNode(_)
        | Command::SetNodeAdmin { .. }
        | Command::SetDeviceHealth { .. }
        | Command::SetEndpoint { .. }
        | Command::ReportLoad { .. }
        | Command::SetDesired(_)
        | Command::PinScale { .. }
        | Command::ObserveContention { .. }
        | Command::OpenIntent { .. }
        | Command::StepIntent { .. }
        | Command::ApplyPolicy { .. }
        | Command::BecomeLeader { .. }
        | Command::OpenWindows { .. }
        | Command::SetAside { .. }
        | Command::Return { .. }
        | Command::Upgrade { .. }
        | Command::TakeTokens { .. } => {}
    }
}

fn note_after(entry: &Entry, applied: &Applied, changes: &mut Changes) {
    if let (Command::Expire { .. }, Outcome::Expired { ended: 1.., .. }) =
        (&entry.command, &applied.answer.outcome)
    {
        // Where the ended ones were is not known here.
        changes.all_nodes = true;
    }
    for event in &applied.events {
        match &event.object {
            EventObject::Reservation(reservation, _) => {
                changes.nodes.extend(reservation.members.iter().map(|member| member.node));
            }
            EventObject::Node(node) => {
                changes.nodes.insert(node.id);
                // A new incarnation may be a new node, for which the planner rebuilds: once for many.
                changes.policies |= node.epoch.0 == event.revision.0;
            }
            EventObject::NodeRemoved(id, _) => drop(changes.nodes.insert(*id)),
            EventObject::Pool(_)
            | EventObject::PoolDeleted(_)
            | EventObject::Class(_)
            | EventObject::ClassDeleted(_)
            | EventObject::NodeLimits(_)
            | EventObject::NodeLimitsDeleted(_)
            | EventObject::Queue(_)
            | EventObject::QueueDeleted(_)
            | EventObject::Quota(_)
            | EventObject::QuotaDeleted(_)
            | EventObject::Schedule(_)
            | EventObject::ScheduleDeleted(_)
            | EventObject::Validator(_)
            | EventObject::Service(_)
            | EventObject::ServiceDeleted(_)
            | EventObject::ValidatorDeleted(_) => changes.policies = true,
            // What is done about it says who goes first, and who may have to leave.
            EventObject::Contention(_) => {
                changes.policies |= !matches!(event.rule, "contention/observed" | "contention/resolved");
            }
            EventObject::ReservationForgotten(_)
            | EventObject::ScalingPolicy(_)
            | EventObject::ScalingPolicyDeleted(_)
            | EventObject::Scaling(_)
            | EventObject::Intent(_)
            | EventObject::Leader(_)
            | EventObject::Version(_) => {}
        }
    }
}
