//! One applied command as watchers and auditors see it, and its stored form.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_ledger::{Event, EventObject, Outcome, Row, State};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};
use prost::Message;

use super::encoding;

/// One applied command: what it was, what it came to, what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place in the ledger log.
    pub revision: Revision,
    /// Its ledger time.
    pub log_time: LedgerTime,
    /// Who caused it.
    pub actor: String,
    /// The client's key, or empty.
    pub request_id: String,
    /// Canonical bytes of the command.
    pub entry: Bytes,
    /// Canonical bytes of its outcome.
    pub outcome: Bytes,
    /// Chain hash up to and including this command.
    pub chain: [u8; 32],
    /// What happened, in order; often empty or one.
    pub events: Vec<Event>,
}

/// A stored record that cannot be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record of revision {revision}: {detail}")]
pub(super) struct BadRecord {
    revision: Revision,
    detail: String,
}

/// Stored form. Only this replica reads it back, so it is not part of the canonical encodings.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint64, tag = "1")]
    log_time_ms: u64,
    #[prost(string, tag = "2")]
    actor: String,
    #[prost(string, tag = "3")]
    request_id: String,
    #[prost(bytes = "bytes", tag = "4")]
    entry: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    outcome: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    chain: Bytes,
    #[prost(message, repeated, tag = "7")]
    events: Vec<StoredEvent>,
}

/// Records that follow one another.
#[derive(Clone, PartialEq, Message)]
struct StoredBlock {
    #[prost(message, repeated, tag = "1")]
    records: Vec<Stored>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredEvent {
    #[prost(string, tag = "1")]
    rule: String,
    #[prost(uint32, tag = "2")]
    kind: u32,
    /// The state before, by its place in `State::ALL`, plus one; 0 for none.
    #[prost(uint32, tag = "3")]
    from: u32,
    /// Number of the object, or of the value.
    #[prost(uint64, tag = "4")]
    number: u64,
    #[prost(string, tag = "5")]
    name: String,
    /// Row of the object as it is afterwards; empty where the outcome shows it.
    #[prost(bytes = "bytes", tag = "6")]
    row: Bytes,
}

impl Record {
    /// About how much memory it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        256 + self.entry.len() + self.outcome.len() + self.events.len() * 512
    }

    /// `shown` is what the outcome shows: an event about the very same is not stored twice.
    fn store(&self, shown: &Outcome) -> Stored {
        Stored {
            log_time_ms: self.log_time.0,
            actor: self.actor.clone(),
            request_id: self.request_id.clone(),
            entry: self.entry.clone(),
            outcome: self.outcome.clone(),
            chain: Bytes::copy_from_slice(&self.chain),
            events: self.events.iter().map(|event| store_event(event, shown)).collect(),
        }
    }

    /// Back from the stored form.
    fn load(revision: Revision, stored: Stored) -> Result<Record, BadRecord> {
        let bad = |detail: String| BadRecord { revision, detail };
        let chain =
            stored.chain.as_ref().try_into().map_err(|_| bad("the chain hash is not 32 bytes".to_owned()))?;
        let log_time = LedgerTime(stored.log_time_ms);
        let load = |event| load_event(revision, log_time, &stored.actor, &stored.outcome, event).map_err(bad);
        let events = stored.events.into_iter().map(load).collect::<Result<_, _>>()?;
        Ok(Record {
            revision,
            log_time,
            actor: stored.actor,
            request_id: stored.request_id,
            entry: stored.entry,
            outcome: stored.outcome,
            chain,
            events,
        })
    }
}

/// Stored form of records that follow one another, each with its outcome. Neighbours are much alike, so that together
/// they take a fraction of their room.
pub(super) fn encode_block<'a>(records: impl IntoIterator<Item = (&'a Arc<Record>, &'a Outcome)>) -> Vec<u8> {
    let records = records.into_iter().map(|(record, outcome)| record.store(outcome)).collect();
    lz4_flex::compress_prepend_size(&StoredBlock { records }.encode_to_vec())
}

/// The records of a block, of which `last` is the revision of the last.
pub(super) fn decode_block(last: Revision, bytes: &[u8]) -> Result<Vec<Record>, BadRecord> {
    let bad = |detail: String| BadRecord { revision: last, detail };
    let plain = lz4_flex::decompress_size_prepended(bytes).map_err(|error| bad(error.to_string()))?;
    let block = StoredBlock::decode(Bytes::from(plain)).map_err(|error| bad(error.to_string()))?;
    let before = last.0.checked_sub(block.records.len() as u64);
    let before =
        before.ok_or_else(|| bad("the block has more records than there are revisions".to_owned()))?;
    let numbered = (before + 1..).map(Revision).zip(block.records);
    numbered.map(|(revision, stored)| Record::load(revision, stored)).collect()
}

fn store_event(event: &Event, shown: &Outcome) -> StoredEvent {
    let row = |row: Row| encoding::encode_row(&row);
    let base = StoredEvent { rule: event.rule.to_owned(), ..StoredEvent::default() };
    match &event.object {
        EventObject::Reservation(reservation, from) => StoredEvent {
            kind: 1,
            from: from.and_then(position_of).map_or(0, |position| position + 1),
            row: match shown {
                Outcome::Reservation(shown) if Arc::ptr_eq(shown, reservation) => Bytes::new(),
                _ => row(Row::Reservation(Arc::clone(reservation))),
            },
            ..base
        },
        EventObject::ReservationForgotten(id) => StoredEvent { kind: 2, number: id.0, ..base },
        EventObject::Node(node) => StoredEvent { kind: 3, row: row(Row::Node(Arc::clone(node))), ..base },
        EventObject::NodeRemoved(id, name) => {
            StoredEvent { kind: 4, number: id.0.into(), name: name.clone(), ..base }
        }
        EventObject::Pool(pool) => StoredEvent { kind: 5, row: row(Row::Pool(Arc::clone(pool))), ..base },
        EventObject::PoolDeleted(name) => StoredEvent { kind: 6, name: name.clone(), ..base },
        EventObject::Class(class) => StoredEvent { kind: 7, row: row(Row::Class(Arc::clone(class))), ..base },
        EventObject::ClassDeleted(name) => StoredEvent { kind: 8, name: name.clone(), ..base },
        EventObject::NodeLimits(limits) => {
            StoredEvent { kind: 9, row: row(Row::NodeLimits(Arc::clone(limits))), ..base }
        }
        EventObject::NodeLimitsDeleted(name) => StoredEvent { kind: 10, name: name.clone(), ..base },
        EventObject::Queue(queue) => {
            StoredEvent { kind: 13, row: row(Row::Queue(Arc::clone(queue))), ..base }
        }
        EventObject::QueueDeleted(name) => StoredEvent { kind: 14, name: name.clone(), ..base },
        EventObject::Quota(quota) => {
            StoredEvent { kind: 35, row: row(Row::Quota(Arc::clone(quota))), ..base }
        }
        EventObject::Validator(object) => {
            StoredEvent { kind: 21, row: row(Row::Validator(Arc::clone(object))), ..base }
        }
        EventObject::ValidatorDeleted(name) => StoredEvent { kind: 22, name: name.clone(), ..base },
        EventObject::QuotaDeleted(name) => StoredEvent { kind: 36, name: name.clone(), ..base },
        EventObject::Schedule(schedule) => {
            StoredEvent { kind: 15, row: row(Row::Schedule(Arc::clone(schedule))), ..base }
        }
        EventObject::ScheduleDeleted(name) => StoredEvent { kind: 16, name: name.clone(), ..base },
        EventObject::Service(service) => {
            StoredEvent { kind: 40, row: row(Row::Service(Arc::clone(service))), ..base }
        }
        EventObject::ServiceDeleted(name) => StoredEvent { kind: 41, name: name.clone(), ..base },
        EventObject::ScalingPolicy(policy) => {
            StoredEvent { kind: 42, row: row(Row::ScalingPolicy(Arc::clone(policy))), ..base }
        }
        EventObject::ScalingPolicyDeleted(name) => StoredEvent { kind: 43, name: name.clone(), ..base },
        EventObject::Scaling(scaling) => {
            StoredEvent { kind: 44, row: row(Row::Scaling(Arc::clone(scaling))), ..base }
        }
        EventObject::Intent(intent) => {
            StoredEvent { kind: 45, row: row(Row::Intent(Arc::clone(intent))), ..base }
        }
        EventObject::Contention(one) => {
            StoredEvent { kind: 60, row: row(Row::Contention(Arc::clone(one))), ..base }
        }
        EventObject::Leader(leader) => StoredEvent { kind: 11, number: *leader, ..base },
        EventObject::Version(version) => StoredEvent { kind: 12, number: (*version).into(), ..base },
    }
}

fn load_event(
    revision: Revision,
    log_time: LedgerTime,
    actor: &str,
    outcome: &Bytes,
    stored: StoredEvent,
) -> Result<Event, String> {
    let number = stored.number;
    let small = || u32::try_from(number).map_err(|_| format!("{number} is out of range"));
    let object = match stored.kind {
        1 if stored.row.is_empty() => {
            match encoding::decode_outcome(outcome).map_err(|error| error.to_string())? {
                Outcome::Reservation(reservation) => {
                    EventObject::Reservation(reservation, state_at(stored.from))
                }
                _ => return Err("an event about a reservation that the outcome does not show".to_owned()),
            }
        }
        1 | 3 | 5 | 7 | 9 | 13 | 15 | 21 | 35 | 40 | 42 | 44 | 45 | 60 => {
            let row = encoding::decode_row(&stored.row).map_err(|error| error.to_string())?;
            match row {
                Row::Reservation(reservation) => EventObject::Reservation(reservation, state_at(stored.from)),
                Row::Node(node) => EventObject::Node(node),
                Row::Pool(pool) => EventObject::Pool(pool),
                Row::Class(class) => EventObject::Class(class),
                Row::NodeLimits(limits) => EventObject::NodeLimits(limits),
                Row::Queue(queue) => EventObject::Queue(queue),
                Row::Quota(quota) => EventObject::Quota(quota),
                Row::Schedule(schedule) => EventObject::Schedule(schedule),
                Row::Validator(object) => EventObject::Validator(object),
                Row::Service(service) => EventObject::Service(service),
                Row::ScalingPolicy(policy) => EventObject::ScalingPolicy(policy),
                Row::Scaling(scaling) => EventObject::Scaling(scaling),
                Row::Intent(intent) => EventObject::Intent(intent),
                Row::Contention(one) => EventObject::Contention(one),
                Row::Meta(_)
                | Row::Idempotency(_)
                | Row::RemovedNode(_)
                | Row::Usage(_)
                | Row::Load(_)
                | Row::QueueUse(_)
                | Row::Body(_) => {
                    return Err("an event about a row of no object".to_owned());
                }
            }
        }
        2 => EventObject::ReservationForgotten(ReservationId(number)),
        4 => EventObject::NodeRemoved(NodeId(small()?), stored.name),
        6 => EventObject::PoolDeleted(stored.name),
        8 => EventObject::ClassDeleted(stored.name),
        10 => EventObject::NodeLimitsDeleted(stored.name),
        11 => EventObject::Leader(number),
        12 => EventObject::Version(small()?),
        14 => EventObject::QueueDeleted(stored.name),
        36 => EventObject::QuotaDeleted(stored.name),
        22 => EventObject::ValidatorDeleted(stored.name),
        16 => EventObject::ScheduleDeleted(stored.name),
        41 => EventObject::ServiceDeleted(stored.name),
        43 => EventObject::ScalingPolicyDeleted(stored.name),
        kind => return Err(format!("an event of unknown kind {kind}")),
    };
    Ok(Event { revision, log_time, actor: actor.to_owned(), rule: intern(&stored.rule)?, object })
}

fn position_of(state: State) -> Option<u32> {
    State::ALL.iter().position(|known| *known == state).and_then(|position| u32::try_from(position).ok())
}

fn state_at(from: u32) -> Option<State> {
    let position = usize::try_from(from).ok()?.checked_sub(1)?;
    State::ALL.get(position).copied()
}

/// Rules are a small fixed set of names in the ledger's code; those read back from disk are kept once each, for ever.
fn intern(rule: &str) -> Result<&'static str, String> {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    const MOST: usize = 1_024;
    let mut known = KNOWN.lock();
    if let Some(found) = known.get(rule) {
        return Ok(found);
    }
    if known.len() >= MOST {
        return Err(format!("more than {MOST} different rules"));
    }
    let leaked: &'static str = Box::leak(rule.to_owned().into_boxed_str());
    known.insert(leaked);
    Ok(leaked)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Pool, Request, Reservation};

    use super::*;

    fn event(object: EventObject) -> Event {
        Event {
            revision: Revision(7),
            log_time: LedgerTime(9),
            actor: "ada".to_owned(),
            rule: "submit",
            object,
        }
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let reservation = Arc::new(Reservation {
            id: ReservationId(7),
            request: Arc::new(Request {
                pool: "default".to_owned(),
                class: "low".to_owned(),
                ..Request::default()
            }),
            requester: "ada".to_owned(),
            priority: 25,
            state: State::Pending,
            resume_state: State::Pending,
            amounts: plimsoll_types::Resources::new(1_000, 1 << 30),
            members: Vec::new(),
            token: Revision(0),
            ttl_ms: 60_000,
            submitted_at: LedgerTime(9),
            granted_at: LedgerTime(0),
            deadline: LedgerTime(0),
            hard_end: LedgerTime(0),
            ended_at: LedgerTime(0),
            end_reason: None,
            changed: Revision(7),
            blockers: Vec::new(),
            preempted: None,
            tab: None,
            cost_micros: 0,
            endpoint: None,
            repaired: None,
            aside: None,
        });
        let pool = Arc::new(Pool { name: "gpu".to_owned(), ..Pool::default() });
        let shown = Outcome::Reservation(Arc::clone(&reservation));
        let other = Arc::new(Reservation { id: ReservationId(6), ..Reservation::clone(&reservation) });
        let events = vec![
            event(EventObject::Reservation(other, None)),
            event(EventObject::Reservation(Arc::clone(&reservation), None)),
            event(EventObject::Reservation(reservation, Some(State::Held))),
            event(EventObject::Pool(pool)),
            event(EventObject::ReservationForgotten(ReservationId(3))),
            event(EventObject::NodeRemoved(NodeId(4), "node-04".to_owned())),
            event(EventObject::PoolDeleted("old".to_owned())),
            event(EventObject::ClassDeleted("old".to_owned())),
            event(EventObject::NodeLimitsDeleted("old".to_owned())),
            event(EventObject::Queue(Arc::new(plimsoll_ledger::Queue {
                name: "vision".to_owned(),
                ..Default::default()
            }))),
            event(EventObject::QueueDeleted("old".to_owned())),
            event(EventObject::Quota(Arc::new(plimsoll_ledger::QuotaPolicy {
                name: "research".to_owned(),
                ..Default::default()
            }))),
            event(EventObject::QuotaDeleted("old".to_owned())),
            event(EventObject::Validator(Arc::new(plimsoll_ledger::Validator {
                name: "small".to_owned(),
                ..Default::default()
            }))),
            event(EventObject::ValidatorDeleted("old".to_owned())),
            event(EventObject::Schedule(Arc::new(plimsoll_ledger::Schedule {
                name: "nightly".to_owned(),
                ..Default::default()
            }))),
            event(EventObject::ScheduleDeleted("old".to_owned())),
            event(EventObject::Service(Arc::new(plimsoll_ledger::Service {
                name: "web".to_owned(),
                ..Default::default()
            }))),
            event(EventObject::ServiceDeleted("old".to_owned())),
            event(EventObject::ScalingPolicy(Arc::default())),
            event(EventObject::ScalingPolicyDeleted("old".to_owned())),
            event(EventObject::Scaling(Arc::default())),
            event(EventObject::Contention(Arc::default())),
            event(EventObject::Intent(Arc::new(plimsoll_ledger::Intent {
                id: Revision(7),
                policy: "gpu".to_owned(),
                template: String::new(),
                action: plimsoll_ledger::IntentAction::Start { leaving: None },
                node: "gpu-i7".to_owned(),
                state: plimsoll_ledger::IntentState::Acting,
                attempts: 1,
                handle: "4711".to_owned(),
                detail: String::new(),
                not_before: LedgerTime(0),
                deadline: LedgerTime(9),
                opened_at: LedgerTime(8),
                changed: Revision(7),
            }))),
            event(EventObject::Leader(3)),
            event(EventObject::Version(2)),
        ];
        let record = Record {
            revision: Revision(7),
            log_time: LedgerTime(9),
            actor: "ada".to_owned(),
            request_id: "0123456789abcdef".to_owned(),
            entry: Bytes::from_static(b"entry"),
            outcome: encoding::encode_outcome(&shown),
            chain: [5; 32],
            events,
        };
        let before = Record { revision: Revision(6), events: Vec::new(), ..record.clone() };
        let (before, record) = (Arc::new(before), Arc::new(record));
        let block = encode_block([(&before, &shown), (&record, &shown)]);
        let back = decode_block(Revision(7), &block).expect("reads back");
        assert_eq!(back.iter().collect::<Vec<_>>(), [&*before, &*record]);
        assert!(decode_block(Revision(1), &block).is_err(), "two records cannot end at revision 1");
    }

    #[test]
    fn damaged_records_are_refused() {
        assert!(decode_block(Revision(7), b"\xff\xff").is_err());
        let block = StoredBlock { records: vec![Stored::default()] }.encode_to_vec();
        let block = lz4_flex::compress_prepend_size(&block);
        assert!(decode_block(Revision(7), &block).is_err(), "a chain hash is 32 bytes");
    }
}
