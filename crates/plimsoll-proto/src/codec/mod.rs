//! Canonical bytes of log entries, outcomes and rows: `proto/plimsoll/log/v1/log.proto` is their specification.
//!
//! Decoding is strict. What this build does not know is an error, never skipped: a replica that ignored half of a command
//! would differ from the others.

mod decode;
mod encode;
mod key;
mod mig;
mod names;
mod scale;
mod schedule;
mod service;
mod topology;
mod usage;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod codec_test;

use bytes::Bytes;
use plimsoll_ledger::{Answer, Entry, Outcome, Row};
use plimsoll_types::LedgerTime;
use prost::Message;
use prost::encoding::WireType;

use crate::log;

pub use key::{decode_key, encode_key, key_of};

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

/// Field `LogBatch.commands`.
const COMMANDS: u32 = 2;
/// Field `LogOutcome.reservation`.
const OUTCOME_RESERVATION: u8 = 2;
/// Field `Row.reservation`.
const ROW_RESERVATION: u8 = 6;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not protobuf at all.
    #[error("{what} is malformed")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Why.
        #[source]
        source: prost::DecodeError,
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
    encode::entry(entry).encode_to_vec().into()
}

/// The command of canonical bytes.
///
/// # Errors
/// Where the bytes are damaged, not canonical, or of a newer build.
pub fn decode_entry(bytes: &Bytes) -> Result<Entry, CodecError> {
    decode::entry(canonical::<log::LogCommand>(bytes, "command")?)
}

/// Canonical bytes of a batch of encoded commands.
pub fn encode_batch(proposed_at: LedgerTime, encoded: &[Bytes]) -> Bytes {
    let batch = log::LogBatch { proposed_at_ms: proposed_at.0, commands: encoded.to_vec() };
    batch.encode_to_vec().into()
}

/// A batch of commands with its canonical bytes, as [`encode_batch`] makes them; `encoded` shares those.
pub fn encode_entries(proposed_at: LedgerTime, entries: Vec<Entry>) -> (Batch, Bytes) {
    // By hand, so that each command is written once, to where it stays.
    let head = log::LogBatch { proposed_at_ms: proposed_at.0, commands: Vec::new() };
    let mut buffer = Vec::with_capacity(16 + 512 * entries.len());
    head.encode(&mut buffer).expect("a vector grows");
    let mut places = Vec::with_capacity(entries.len());
    for entry in &entries {
        let command = encode::entry(entry);
        prost::encoding::encode_key(COMMANDS, WireType::LengthDelimited, &mut buffer);
        command.encode_length_delimited(&mut buffer).expect("a vector grows");
        places.push((buffer.len() - command.encoded_len(), buffer.len()));
    }
    let bytes = Bytes::from(buffer);
    let encoded = places.into_iter().map(|(from, to)| bytes.slice(from..to)).collect();
    (Batch { proposed_at, entries, encoded }, bytes)
}

/// The batch of canonical bytes. `encoded` shares them.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_batch(bytes: &Bytes) -> Result<Batch, CodecError> {
    let batch = canonical::<log::LogBatch>(bytes, "batch")?;
    let entries = batch.commands.iter().map(decode_entry).collect::<Result<Vec<_>, _>>()?;
    Ok(Batch { proposed_at: LedgerTime(batch.proposed_at_ms), entries, encoded: batch.commands })
}

/// Canonical bytes of what a command came to.
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    encode::outcome(outcome).encode_to_vec().into()
}

/// The outcome of canonical bytes.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_outcome(bytes: &Bytes) -> Result<Outcome, CodecError> {
    decode::outcome(canonical::<log::LogOutcome>(bytes, "outcome")?)
}

/// Canonical bytes of what a caller is told.
pub fn encode_answer(answer: &Answer) -> Bytes {
    encode::answer(answer).encode_to_vec().into()
}

/// The answer of canonical bytes.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_answer(bytes: &Bytes) -> Result<Answer, CodecError> {
    decode::answer(canonical::<log::LogAnswer>(bytes, "answer")?)
}

/// Canonical bytes of a row.
pub fn encode_row(row: &Row) -> Bytes {
    encode::row(row).encode_to_vec().into()
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

/// The row of canonical bytes. Rows are read by the million at a start, from files with checksums: of other spellings of
/// the same row, only longer ones are refused.
///
/// # Errors
/// As for [`decode_entry`].
pub fn decode_row(bytes: &Bytes) -> Result<Row, CodecError> {
    decode::row(strict::<log::Row>(bytes, "row")?)
}

/// Decodes and refuses every other spelling: what is hashed must have one.
fn canonical<M: Message + Default>(bytes: &Bytes, what: &'static str) -> Result<M, CodecError> {
    let message = strict::<M>(bytes, what)?;
    if message.encode_to_vec() == *bytes { Ok(message) } else { Err(CodecError::NotCanonical { what }) }
}

/// Decodes and refuses unknown fields and longer spellings: those would not survive into the encoding of what was decoded.
fn strict<M: Message + Default>(bytes: &Bytes, what: &'static str) -> Result<M, CodecError> {
    let message = M::decode(bytes.clone()).map_err(|source| CodecError::Malformed { what, source })?;
    if message.encoded_len() == bytes.len() { Ok(message) } else { Err(CodecError::NotCanonical { what }) }
}
