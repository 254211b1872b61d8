//! Bugs on purpose, in what is judged: a run must fail with one, or its judges see nothing.

use plimsoll_ledger::RowKey;
use plimsoll_proto::codec;
use plimsoll_types::ReservationId;

use crate::evidence::Evidence;
use crate::history::{Answer, Call};

/// A bug on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// One replica forgets the last grant that a client was told of.
    LoseGrant,
    /// The first success is told to a client as a definite refusal.
    DenySuccess,
    /// One replica has another hash for one entry.
    Diverge,
    /// A watcher is not given one event.
    SkipEvent,
}

/// Breaks the evidence.
pub fn apply(sabotage: Sabotage, evidence: &mut Evidence, calls: &mut [Call]) {
    match sabotage {
        Sabotage::LoseGrant => lose_grant(evidence, calls),
        Sabotage::DenySuccess => {
            let mut done = calls.iter_mut().filter(|call| call.answer.done().is_some());
            if let Some(id) = done.next().map(|call| call.request.request_id().to_owned()) {
                let same = calls.iter_mut().filter(|call| call.request.request_id() == id);
                same.for_each(|call| call.answer = Answer::Refused("SABOTAGE".to_owned()));
            }
        }
        Sabotage::SkipEvent => {
            if let Some(segment) = evidence.watched.iter_mut().find(|one| one.events.len() > 1) {
                segment.events.remove(segment.events.len() / 2);
            }
        }
        Sabotage::Diverge => {
            if let Some(record) = evidence.replicas.last_mut().and_then(|replica| replica.log.last_mut()) {
                record.chain[0] ^= 1;
            }
        }
    }
}

/// The last replica forgets the last grant that a client was told of.
pub fn lose_grant(evidence: &mut Evidence, calls: &[Call]) {
    let token = |call: &Call| call.answer.done()?.reservation.clone().filter(|one| one.token > 0);
    let Some(last) = calls.iter().rev().find_map(token) else { return };
    let Ok(id) = last.id.parse::<ReservationId>() else { return };
    let key = codec::encode_key(&RowKey::Reservation(id));
    if let Some(replica) = evidence.replicas.last_mut() {
        replica.rows.retain(|row| row.key != key);
    }
}
