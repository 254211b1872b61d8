//! Canonical bytes of log entries, outcomes and rows: `proto/plimsoll/log/v1/log.proto` is their specification.
//!
//! Decoding is strict. What this build does not know is an error, never skipped: a replica that ignored half of a command
//! would differ from the others.

mod command;
mod contention;
mod decode;
mod encode;
mod eviction;
mod key;
mod mig;
mod names;
mod outcome;
mod overflow;
mod queue_use;
mod request;
mod reservation;
mod row;
mod scale;
mod schedule;
mod service;
mod sharing;
mod spot;
mod topology;
mod usage;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod codec_test;

use bytes::Bytes;
use plimsoll_ledger::{Answer, Entry, Outcome, Request, Row};
use plimsoll_types::LedgerTime;
use prost::encoding::WireType;

use crate::fields::{Reader, Writer, written};

pub use key::{decode_key, encode_key, is_body, key_of};
pub use sharing::SharedRequests;

/// Commands that travel in one consensus entry, with the canonical bytes of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// When the leader proposed it.
    pub proposed_at: LedgerTime,
    /// The commands, in order.
    pub entries: Vec<Entry>,
    /// Canonical bytes of each command, in the same order: slices of the batch.
    pub encoded: Vec<Bytes>,
}

/// Field `LogBatch.proposed_at_ms`.
const PROPOSED_AT: u32 = 1;
/// Field `LogBatch.commands`.
const COMMANDS: u32 = 2;
/// Room that most commands, outcomes and rows do with.
const USUAL_BYTES: usize = 512;
/// Field `LogOutcome.reservation`.
const OUTCOME_RESERVATION: u8 = 2;
/// Field `Row.reservation`.
const ROW_RESERVATION: u8 = 6;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Cut short, or a text that is no UTF-8.
    #[error("{what} is damaged")]
    Damaged {
        /// What was being read.
        what: &'static str,
    },
    /// Another encoding than the canonical one, or a field that this build does not know.
    #[error("{what} is not canonical, or has fields that this build does not know")]
    NotCanonical {
        /// What was being read.
        what: &'static str,
    },
    /// A command, verdict, outcome or row of a kind that this build does not know.
    #[error("{what} is of a kind that this build does not know")]
    UnknownKind {
        /// What was being read.
        what: &'static str,
    },
    /// A field that is always written is not there.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A number that stands for nothing that this build knows.
    #[error("{field} has the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The number.
        value: i32,
    },
    /// A number above what the field can hold.
    #[error("{field} {value} is out of range")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The number.
        value: u64,
    },
}

/// Canonical bytes of one command.
pub fn encode_entry(entry: &Entry) -> Bytes {
    written(USUAL_BYTES, |to| command::write(to, entry)).into()
}

/// The command of canonical bytes.
///
/// # Errors
/// Where the bytes are damaged, not canonical, or of a newer build.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    command::read(Reader::new(bytes, "command"))
}

/// Canonical bytes of what a client asks: what is kept of those that are set aside.
pub fn encode_request(asked: &Request) -> Bytes {
    written(USUAL_BYTES, |to| request::write(to, asked)).into()
}

/// What was asked, of canonical bytes.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_request(bytes: &[u8]) -> Result<Request, CodecError> {
    request::read(Reader::new(bytes, "request"))
}

/// Canonical bytes of a batch of encoded commands.
pub fn encode_batch(proposed_at: LedgerTime, encoded: &[Bytes]) -> Bytes {
    let bytes = encoded.iter().map(|command| command.len() + 4).sum::<usize>() + 16;
    let write = |to: &mut Writer<'_>| {
        to.number(PROPOSED_AT, proposed_at.0);
        encoded.iter().for_each(|command| to.some_bytes(COMMANDS, command));
    };
    written(bytes, write).into()
}

/// A batch of commands with its canonical bytes, as [`encode_batch`] makes them; `encoded` shares those.
pub fn encode_entries(proposed_at: LedgerTime, entries: Vec<Entry>) -> (Batch, Bytes) {
    let mut places = Vec::with_capacity(entries.len());
    let bytes: Bytes = written(16 + USUAL_BYTES * entries.len(), |to| {
        to.number(PROPOSED_AT, proposed_at.0);
        for entry in &entries {
            places.push(to.placed_message(COMMANDS, |to| command::write(to, entry)));
        }
    })
    .into();
    let encoded = places.into_iter().map(|place| bytes.slice(place)).collect();
    (Batch { proposed_at, entries, encoded }, bytes)
}

/// The batch of canonical bytes. `encoded` shares them.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_batch(bytes: &Bytes) -> Result<Batch, CodecError> {
    let mut from = Reader::new(bytes, "batch");
    let proposed_at = LedgerTime(from.number(PROPOSED_AT)?);
    let (mut entries, mut encoded) = (Vec::new(), Vec::new());
    while let Some(command) = from.message(COMMANDS, "command")? {
        encoded.push(bytes.slice_ref(command.rest()));
        entries.push(command::read(command)?);
    }
    from.end().map(|()| Batch { proposed_at, entries, encoded })
}

/// Canonical bytes of what a command came to.
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    written(USUAL_BYTES, |to| outcome::write(to, outcome)).into()
}

/// The outcome of canonical bytes.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, CodecError> {
    outcome::read(Reader::new(bytes, "outcome"))
}

/// Canonical bytes of what a caller is told.
pub fn encode_answer(answer: &Answer) -> Bytes {
    written(USUAL_BYTES, |to| outcome::write_answer(to, answer)).into()
}

/// The answer of canonical bytes.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, CodecError> {
    outcome::read_answer(Reader::new(bytes, "answer"))
}

/// Canonical bytes of a row.
pub fn encode_row(row: &Row) -> Bytes {
    written(USUAL_BYTES, |to| row::write(to, row)).into()
}

/// The row of canonical bytes.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_row(bytes: &[u8]) -> Result<Row, CodecError> {
    decode_row_sharing(bytes, &mut SharedRequests::default())
}

/// Like [`decode_row`], for one of many rows: the same requests share memory.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_row_sharing(bytes: &[u8], requests: &mut SharedRequests) -> Result<Row, CodecError> {
    row::read(Reader::new(bytes, "row"), requests)
}

/// Canonical bytes of the row of a reservation, from those of the outcome that shows it; `None` for other outcomes.
pub fn row_of_outcome(outcome: &[u8]) -> Option<Bytes> {
    // Both are a message whose only field is the reservation, under a tag of one byte.
    let (tag, rest) = outcome.split_first()?;
    if *tag != embedded_tag(OUTCOME_RESERVATION) {
        return None;
    }
    let mut row = Vec::with_capacity(outcome.len());
    row.push(embedded_tag(ROW_RESERVATION));
    row.extend_from_slice(rest);
    Some(row.into())
}

/// First byte of an embedded message under a field number below 16.
const fn embedded_tag(field: u8) -> u8 {
    field << 3 | WireType::LengthDelimited as u8
}
