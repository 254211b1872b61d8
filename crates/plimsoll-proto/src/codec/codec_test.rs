//! Round trips of everything stored, fixed bytes that may never change, and what is refused.

use proptest::prelude::*;

use prost::Message as _;

use super::*;
use crate::codec::arbitrary;
use crate::log;
use plimsoll_ledger::{Command, RowKey};
use plimsoll_types::{ReservationId, Revision};

proptest! {
    #[test]
    fn entries_round_trip(entry in arbitrary::entry()) {
        prop_assert_eq!(decode_entry(&encode_entry(&entry)), Ok(entry));
    }

    #[test]
    fn outcomes_round_trip(outcome in arbitrary::outcome()) {
        prop_assert_eq!(decode_outcome(&encode_outcome(&outcome)), Ok(outcome));
    }

    #[test]
    fn an_outcome_gives_the_row_of_the_reservation_that_it_shows(outcome in arbitrary::outcome()) {
        let row = match &outcome {
            Outcome::Reservation(reservation) => Some(encode_row(&Row::Reservation(reservation.clone()))),
            _ => None,
        };
        prop_assert_eq!(row_of_outcome(&encode_outcome(&outcome)), row);
    }

    #[test]
    fn answers_round_trip(answer in arbitrary::answer()) {
        prop_assert_eq!(decode_answer(&encode_answer(&answer)), Ok(answer));
    }

    #[test]
    fn rows_round_trip_under_their_keys(row in arbitrary::row()) {
        let key = key_of(&row);
        prop_assert_eq!(decode_key(&encode_key(&key)), Ok(key));
        prop_assert_eq!(decode_row(&encode_row(&row)), Ok(row));
    }

    #[test]
    fn batches_round_trip_and_give_slices(entries in proptest::collection::vec(arbitrary::entry(), 0..5), at in any::<u64>()) {
        let encoded: Vec<Bytes> = entries.iter().map(encode_entry).collect();
        let batch = Batch { proposed_at: LedgerTime(at), entries: entries.clone(), encoded: encoded.clone() };
        prop_assert_eq!(encode_entries(LedgerTime(at), entries), (batch.clone(), encode_batch(LedgerTime(at), &encoded)));
        prop_assert_eq!(decode_batch(&encode_batch(LedgerTime(at), &encoded)), Ok(batch));
    }

    #[test]
    fn damage_never_panics(entry in arbitrary::entry(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let mut bytes = encode_entry(&entry).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode_entry(&bytes);
    }

    #[test]
    fn what_is_accepted_has_one_spelling(entry in arbitrary::entry(), row in arbitrary::row(), edit in edit()) {
        let bytes = edit.apply(&encode_entry(&entry));
        if let Ok(entry) = decode_entry(&bytes) {
            prop_assert_eq!(encode_entry(&entry), bytes);
        }
        let bytes = edit.apply(&encode_row(&row));
        if let Ok(row) = decode_row(&bytes) {
            prop_assert_eq!(encode_row(&row), bytes);
        }
    }

    /// The schema is the specification, and its generated forms are another reader and writer of it.
    #[test]
    fn bytes_are_those_of_the_schema(entry in arbitrary::entry(), answer in arbitrary::answer(), row in arbitrary::row()) {
        prop_assert_eq!(by_schema::<log::LogCommand>(&encode_entry(&entry)), encode_entry(&entry));
        prop_assert_eq!(by_schema::<log::LogAnswer>(&encode_answer(&answer)), encode_answer(&answer));
        prop_assert_eq!(by_schema::<log::Row>(&encode_row(&row)), encode_row(&row));
        let batch = encode_batch(LedgerTime(7), &[encode_entry(&entry)]);
        prop_assert_eq!(by_schema::<log::LogBatch>(&batch), batch);
    }
}

/// A change of a few bytes somewhere.
#[derive(Clone, Debug)]
struct Edit {
    at: prop::sample::Index,
    removed: usize,
    put: Vec<u8>,
}

fn edit() -> impl Strategy<Value = Edit> {
    let put = proptest::collection::vec(prop_oneof![Just(0), Just(0x80), any::<u8>()], 0..3);
    (any::<prop::sample::Index>(), 0..3_usize, put).prop_map(|(at, removed, put)| Edit { at, removed, put })
}

impl Edit {
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let from = self.at.index(bytes.len() + 1);
        let to = (from + self.removed).min(bytes.len());
        [&bytes[..from], &self.put, &bytes[to..]].concat()
    }
}

fn by_schema<M: prost::Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).expect("of the schema").encode_to_vec()
}

fn renew() -> Entry {
    Entry {
        actor: "ada".into(),
        request_id: "0123456789abcdef".into(),
        request_hash: [0xab; 32],
        command: Command::Renew { reservation: ReservationId(300), token: Revision(301), ttl_ms: 0 },
    }
}

/// These bytes are on disks and in hashes: this test fails where an encoding changes.
#[test]
fn known_entries_have_known_bytes() {
    let expected = [
        &b"\x0a\x03ada"[..],
        b"\x12\x100123456789abcdef",
        b"\x1a\x20",
        &[0xab; 32],
        // Field 13, a Renew of 6 bytes: 1 = 300, 2 = 301; ttl_ms is 0 and left out.
        b"\x6a\x06\x08\xac\x02\x10\xad\x02",
    ];
    assert_eq!(encode_entry(&renew()), expected.concat());
    assert_eq!(encode_key(&RowKey::Reservation(ReservationId(300))), &b"\x06\0\0\0\0\0\0\x01\x2c"[..]);
}

#[test]
fn a_command_of_a_newer_build_is_an_error() {
    let mut bytes = encode_entry(&Entry { request_hash: [0; 32], ..renew() }).to_vec();
    let at = bytes.len() - 8;
    // Field 13 becomes field 99, which this build does not know.
    bytes.splice(at..=at, [0x9a, 0x06]);
    assert_eq!(decode_entry(&bytes), Err(CodecError::NotCanonical { what: "command" }));

    let none = log::LogCommand { actor: "ada".into(), ..Default::default() };
    assert_eq!(decode_entry(&none.encode_to_vec()), Err(CodecError::UnknownKind { what: "command" }));
}

#[test]
fn a_new_field_inside_a_known_command_is_an_error() {
    let mut bytes = encode_entry(&renew()).to_vec();
    let length = bytes.len() - 7;
    bytes[length] += 2;
    bytes.extend_from_slice(&[0x78, 0x01]);
    assert_eq!(decode_entry(&bytes), Err(CodecError::NotCanonical { what: "command" }));
}

#[test]
fn maps_out_of_order_are_an_error() {
    let label = |key: &str| log::Label { key: key.into(), value: String::new() };
    let registration = log::Registration {
        labels: vec![label("b"), label("a")],
        capacity: Some(log::Resources::default()),
        ..Default::default()
    };
    let command = log::log_command::Command::RegisterNode(registration);
    let entry = log::LogCommand { command: Some(command), ..Default::default() };
    let error = CodecError::NotCanonical { what: "map of labels" };
    assert_eq!(decode_entry(&entry.encode_to_vec()), Err(error));
}

#[test]
fn values_that_this_build_does_not_know_are_errors() {
    let health = log::SetNodeHealth { node: 1, epoch: 1, health: 99 };
    let command = log::log_command::Command::SetNodeHealth(health);
    let entry = log::LogCommand { command: Some(command), ..Default::default() };
    let error = CodecError::UnknownValue { field: "node health", value: 99 };
    assert_eq!(decode_entry(&entry.encode_to_vec()), Err(error));
}
