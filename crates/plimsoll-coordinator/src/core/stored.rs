//! Rows of the ledger as this replica's store keeps them: short keys in ascending order, canonical values, and answers
//! that show a reservation just as its own row does without a copy of it.

use bytes::Bytes;
use plimsoll_consensus::ROW_PREFIX;
use plimsoll_ledger::{Answer, Outcome, Remembered, Row, RowKey, RowPlace, StoredRow, TouchedRow};
use plimsoll_proto::codec::CodecError;
use plimsoll_proto::fields::{Reader, written};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use super::encoding::{self, SharedRequests};

/// Rows of the ledger begin with this byte, after the prefix of all rows.
pub(super) const LEDGER_ROWS: u8 = b'l';

/// Kinds of rows; the byte after [`LEDGER_ROWS`].
const META: u8 = 0;
const POOL: u8 = 1;
const CLASS: u8 = 2;
const NODE_LIMITS: u8 = 3;
const NODE: u8 = 4;
const RESERVATION: u8 = 5;
const ANSWER: u8 = 6;
const REMOVED_NODE: u8 = 7;
const QUEUE: u8 = 8;
const QUOTA: u8 = 12;
const USAGE: u8 = 22;
const VALIDATOR: u8 = 13;
const SCHEDULE: u8 = 10;
const SERVICE: u8 = 23;
const LOAD: u8 = 24;
const SCALING_POLICY: u8 = 25;
const SCALING: u8 = 26;
const INTENT: u8 = 27;
const CONTENTION: u8 = 60;
const BODY: u8 = 100;
const QUEUE_USE: u8 = 140;

/// First byte of an answer's value.
const WHOLE: u8 = 0;
const SHORT: u8 = 1;

/// Key of a row in the store, with the prefix. What comes in numbers comes in ascending order, which costs a sorted
/// store least.
pub(super) fn key(place: &RowPlace) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&[ROW_PREFIX, LEDGER_ROWS]);
    let mut add = |kind: u8, rest: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(rest);
    };
    match place {
        RowPlace::Meta => add(META, &[]),
        RowPlace::Pool(name) => add(POOL, name.as_bytes()),
        RowPlace::Class(name) => add(CLASS, name.as_bytes()),
        RowPlace::NodeLimits(name) => add(NODE_LIMITS, name.as_bytes()),
        RowPlace::Queue(name) => add(QUEUE, name.as_bytes()),
        RowPlace::Quota(name) => add(QUOTA, name.as_bytes()),
        // The canonical key without its own byte of kind.
        RowPlace::Usage(key) => add(USAGE, &encoding::encode_key(&RowKey::Usage(key.clone()))[1..]),
        RowPlace::QueueUse(queue, pool) => {
            let key = RowKey::QueueUse(queue.clone(), pool.clone());
            add(QUEUE_USE, &encoding::encode_key(&key)[1..]);
        }
        RowPlace::Validator(name) => add(VALIDATOR, name.as_bytes()),
        RowPlace::Schedule(name) => add(SCHEDULE, name.as_bytes()),
        RowPlace::Service(name) => add(SERVICE, name.as_bytes()),
        RowPlace::Load(id) => add(LOAD, &id.0.to_be_bytes()),
        RowPlace::ScalingPolicy(name) => add(SCALING_POLICY, name.as_bytes()),
        RowPlace::Scaling(name) => add(SCALING, name.as_bytes()),
        RowPlace::Intent(id) => add(INTENT, &id.0.to_be_bytes()),
        RowPlace::Contention(id) => add(CONTENTION, &id.0.to_be_bytes()),
        RowPlace::Body(id) => add(BODY, &id.0.to_be_bytes()),
        RowPlace::Node(id) => add(NODE, &id.0.to_be_bytes()),
        RowPlace::Reservation(id) => add(RESERVATION, &id.0.to_be_bytes()),
        RowPlace::RemovedNode(id) => add(REMOVED_NODE, &id.0.to_be_bytes()),
        RowPlace::Answer(revision) => add(ANSWER, &revision.0.to_be_bytes()),
    }
    bytes
}

/// Value of a row; `None` deletes it.
pub(super) fn value(touched: &TouchedRow) -> Option<Bytes> {
    let row = touched.row.as_ref()?;
    let Row::Idempotency(remembered) = row else { return Some(encoding::encode_row(row)) };
    let mut bytes = Vec::with_capacity(128);
    match touched.shows {
        None => {
            bytes.push(WHOLE);
            bytes.extend_from_slice(&encoding::encode_row(row));
        }
        Some(reservation) => {
            bytes.push(SHORT);
            bytes.extend_from_slice(&short(remembered, reservation));
        }
    }
    Some(bytes.into())
}

/// Reads rows back, one after another.
#[derive(Default)]
pub(super) struct StoredRows {
    requests: SharedRequests,
}

impl StoredRows {
    /// The row of a key without the prefix, and its value.
    pub(super) fn read(&mut self, key: &[u8], value: &Bytes) -> Result<StoredRow, String> {
        let mut whole = |bytes: &[u8]| {
            let row = encoding::decode_row_sharing(bytes, &mut self.requests);
            row.map(StoredRow::Whole).map_err(|error| format!("row {key:?}: {error}"))
        };
        if key.get(1) != Some(&ANSWER) {
            return whole(value);
        }
        match value.first() {
            Some(&WHOLE) => whole(&value[1..]),
            Some(&SHORT) => {
                read_short(&value[1..]).map_err(|error| format!("row {key:?} is no short answer: {error}"))
            }
            _ => Err(format!("row {key:?} is an answer of an unknown form")),
        }
    }
}

/// An answer whose outcome is a reservation as its row has it.
fn short(remembered: &Remembered, reservation: ReservationId) -> Vec<u8> {
    written(128, |to| {
        to.bytes(1, &remembered.actor);
        to.bytes(2, &remembered.request_id);
        to.bytes(3, remembered.request_hash);
        to.number(4, remembered.answer.revision.0);
        to.number(5, remembered.answer.log_time.0);
        to.number(6, remembered.keep_until.0);
        to.number(7, reservation.0);
    })
}

fn read_short(bytes: &[u8]) -> Result<StoredRow, CodecError> {
    let mut from = Reader::new(bytes, "short answer");
    let actor = from.text(1)?;
    let request_id = from.text(2)?;
    let request_hash = from.bytes(3)?.try_into().map_err(|_| CodecError::Damaged { what: "request_hash" })?;
    let (revision, log_time) = (Revision(from.number(4)?), LedgerTime(from.number(5)?));
    let keep_until = LedgerTime(from.number(6)?);
    let reservation = ReservationId(from.number(7)?);
    from.end()?;
    // Put right from the reservation's own row.
    let answer = Answer { revision, log_time, outcome: Outcome::Done };
    let remembered = Remembered { actor, request_id, request_hash, answer, keep_until };
    Ok(StoredRow::Answer(remembered, reservation))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plimsoll_ledger::{Command, Entry, Ledger, Request, Stamp, Verdict, Wait};

    use super::*;

    fn apply(ledger: &mut Ledger, request_id: &str, command: Command) {
        let entry = Entry {
            actor: "ada".to_owned(),
            request_id: request_id.to_owned(),
            request_hash: [7; 32],
            command,
        };
        let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(50) };
        ledger.apply(stamp, &entry);
    }

    /// Writes what changed into a store, and builds a ledger from the store.
    fn through(store: &mut BTreeMap<Vec<u8>, Bytes>, ledger: &mut Ledger) -> Ledger {
        for touched in ledger.take_rows() {
            match value(&touched) {
                Some(value) => drop(store.insert(key(&touched.place), value)),
                None => drop(store.remove(&key(&touched.place))),
            }
        }
        let mut reader = StoredRows::default();
        let rows = store.iter().map(|(key, value)| reader.read(&key[1..], value).expect("its own form"));
        Ledger::from_stored(rows).expect("its own rows")
    }

    #[test]
    fn answers_come_back_whether_their_reservation_changed_since_or_not() {
        let mut ledger = Ledger::new();
        let mut store = BTreeMap::new();
        let request = Request {
            pool: "default".to_owned(),
            class: "standard".to_owned(),
            ttl_ms: 60_000,
            wait: Wait::Queue { deadline_ms: 0 },
            requirements: plimsoll_ledger::Requirements {
                amounts: plimsoll_types::Resources::new(1_000, 1),
                ..Default::default()
            },
            ..Request::default()
        };
        let submit = || Command::Submit { request: request.clone(), verdict: Verdict::Blocked(Vec::new()) };
        apply(&mut ledger, "first", submit());
        apply(&mut ledger, "second", submit());
        let ids: Vec<ReservationId> = ledger.reservations().map(|reservation| reservation.id).collect();
        assert_eq!(ids.len(), 2, "{:?}", ledger.remembered("ada", "first"));
        let back = through(&mut store, &mut ledger);
        assert!(back.rows().eq(ledger.rows()));
        // The answer to the first request still shows it pending; its row has to say so by itself now.
        apply(&mut ledger, "third", Command::Cancel { reservation: ids[0] });
        let back = through(&mut store, &mut ledger);
        assert!(back.rows().eq(ledger.rows()));
        assert_eq!(back.remembered("ada", "first"), ledger.remembered("ada", "first"));
    }

    #[test]
    fn damaged_rows_are_refused() {
        let place = key(&RowPlace::Answer(Revision(1)));
        for value in [&b""[..], b"\x02", b"\x01\xff", b"\x01"] {
            let read = StoredRows::default().read(&place[1..], &Bytes::from_static(value));
            assert!(read.is_err(), "{value:?}");
        }
    }
}
