//! The ledger as consensus runs it: decode, apply, write rows and history, tell those who wait.
//!
//! Everything here happens on every replica in the same order. What cannot be decoded stops the replica: skipping it
//! would let it diverge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use plimsoll_consensus::{Machine, MachineError, Payload, Reply};
use plimsoll_ledger::{Applied, Command, Entry, EventObject, Ledger, Outcome, Row, RowKey, Stamp, State};
use plimsoll_store::WriteBatch;
use plimsoll_types::{NodeId, ReservationId, Revision};

use super::agents::AgentHub;
use super::encoding::{self, Batch};
use super::notice::{AppliedNotice, Changes};
use super::watch::WatchHub;
use super::{Counters, History, Record};

/// Rows of the ledger begin with this byte.
const LEDGER_ROWS: u8 = b'l';
/// The row with the chain hash.
const CHAIN_ROW: &[u8] = b"c";

/// The replicated ledger of one replica.
pub struct LedgerMachine {
    ledger: Arc<RwLock<Ledger>>,
    chain: Mutex<[u8; 32]>,
    pending: Mutex<Vec<Arc<Record>>>,
    history: Arc<History>,
    hub: Arc<WatchHub>,
    notice: Arc<AppliedNotice>,
    agents: AgentHub,
    counters: Arc<Counters>,
}

impl LedgerMachine {
    pub(super) fn new(
        ledger: Arc<RwLock<Ledger>>,
        history: Arc<History>,
        hub: Arc<WatchHub>,
        notice: Arc<AppliedNotice>,
        agents: AgentHub,
        counters: Arc<Counters>,
    ) -> LedgerMachine {
        LedgerMachine {
            ledger,
            chain: Mutex::new([0; 32]),
            pending: Mutex::default(),
            history,
            hub,
            notice,
            agents,
            counters,
        }
    }

    /// Chain hash after the latest command applied.
    pub(super) fn chain(&self) -> [u8; 32] {
        *self.chain.lock()
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
    fn apply(&self, payload: &Payload, rows: &mut WriteBatch) -> Reply {
        let begun = tokio::time::Instant::now();
        let batch = batch_of(payload);
        let mut changes = Changes::default();
        let mut applied = Vec::with_capacity(batch.entries.len());
        let touched = {
            let mut ledger = self.ledger.write();
            for entry in &batch.entries {
                note_before(&ledger, entry, &mut changes);
                let stamp =
                    Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: batch.proposed_at };
                let one = ledger.apply(stamp, entry);
                note_after(entry, &one, &mut changes);
                applied.push((stamp.revision, ledger.clock(), one));
            }
            take_rows(&mut ledger)
        };
        for (key, row) in touched {
            let key = row_key(&key);
            match row {
                Some(row) => rows.put(key, encoding::encode_row(&row)),
                None => rows.delete(key),
            }
        }
        let mut chain = self.chain.lock();
        let mut records = Vec::with_capacity(applied.len());
        let mut reply = Reply::with_capacity(applied.len());
        for ((entry, bytes), (revision, log_time, one)) in
            batch.entries.iter().zip(&batch.encoded).zip(applied)
        {
            self.count(&one);
            let outcome = encoding::encode_outcome(&one.answer.outcome);
            *chain = encoding::chain(&chain, bytes, &outcome);
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
        rows.put(CHAIN_ROW, Bytes::copy_from_slice(&*chain));
        drop(chain);
        // Before the rows: a crash in between writes these records again, instead of losing them.
        self.history
            .append(records.iter().zip(reply.iter().map(|answer| &answer.outcome)))
            .unwrap_or_else(|error| panic!("history cannot be written: {error}"));
        self.pending.lock().extend(records);
        self.notice.add(changes);
        let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Counters::add(&self.counters.applying_ns, spent);
        reply
    }

    fn applied(&self, _last_raft_index: u64) {
        let records = std::mem::take(&mut *self.pending.lock());
        self.agents.feed(&records);
        self.hub.publish(records);
        self.notice.wake();
    }

    fn restore(
        &self,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Bytes), plimsoll_store::Error>>,
    ) -> Result<(), MachineError> {
        let mut chain = [0; 32];
        let mut decoded = Vec::new();
        for row in rows {
            let (key, value) = row.map_err(bad_rows)?;
            if key == CHAIN_ROW {
                chain = value.as_ref().try_into().map_err(bad_rows)?;
            } else if key.first() == Some(&LEDGER_ROWS) {
                decoded.push(encoding::decode_row(&value).map_err(bad_rows)?);
            } else {
                return Err(MachineError(format!("row with an unknown key {key:?}")));
            }
        }
        let ledger =
            if decoded.is_empty() { Ledger::new() } else { Ledger::from_rows(decoded).map_err(bad_rows)? };
        let revision = ledger.revision();
        *self.ledger.write() = ledger;
        *self.chain.lock() = chain;
        self.pending.lock().clear();
        self.history.restored(revision).map_err(bad_rows)?;
        self.hub.restored(revision, chain);
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
        Err(error) => panic!("a committed entry cannot be decoded, so this build must not go on: {error}"),
    }
}

/// Rows changed since the last call, with what they are now; `None` for those that are gone.
fn take_rows(ledger: &mut Ledger) -> Vec<(RowKey, Option<Row>)> {
    let touched = ledger.take_touched();
    touched
        .into_iter()
        .map(|key| {
            let row = ledger.row(&key);
            (key, row)
        })
        .collect()
}

fn row_key(key: &RowKey) -> Vec<u8> {
    let mut bytes = vec![LEDGER_ROWS];
    bytes.extend_from_slice(&encoding::encode_key(key));
    bytes
}

/// Notes the nodes that lose holders: afterwards an ended reservation no longer says where it was.
fn note_before(ledger: &Ledger, entry: &Entry, changes: &mut Changes) {
    let mut members = |id: ReservationId| {
        if let Some(reservation) = ledger.reservation(id) {
            changes.nodes.extend(reservation.members.iter().map(|member| member.node));
        }
    };
    match &entry.command {
        Command::Release { reservation, .. } | Command::Cancel { reservation } => members(*reservation),
        Command::SetNodeHealth { node, .. } | Command::RemoveNode { node } => {
            let holders: BTreeSet<NodeId> = ledger
                .holders(*node)
                .flat_map(|holder| holder.members.iter().map(|member| member.node))
                .collect();
            changes.nodes.extend(holders);
            changes.nodes.insert(*node);
        }
        Command::Submit { .. }
        | Command::Place { .. }
        | Command::Confirm { .. }
        | Command::Renew { .. }
        | Command::Resize { .. }
        | Command::Expire { .. }
        | Command::RegisterNode(_)
        | Command::SetNodeAdmin { .. }
        | Command::SetDeviceHealth { .. }
        | Command::ApplyPolicy { .. }
        | Command::BecomeLeader { .. }
        | Command::Upgrade { .. } => {}
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
            | EventObject::NodeLimitsDeleted(_) => changes.policies = true,
            EventObject::ReservationForgotten(_) | EventObject::Leader(_) | EventObject::Version(_) => {}
        }
    }
}
