//! Canonical bytes as the core uses them: a thin layer over `plimsoll_proto`.

use bytes::Bytes;
use plimsoll_ledger::Entry;
use plimsoll_proto::codec;
use plimsoll_types::LedgerTime;

pub(super) use plimsoll_proto::codec::{
    Batch, decode_batch, decode_outcome, decode_row, encode_key, encode_outcome, encode_row,
};
pub(super) use plimsoll_proto::digest::{chain, state as state_digest};

/// Commands as they travel in one raft entry: the proposer's own form, and the bytes.
pub(super) fn encode_batch(proposed_at: LedgerTime, entries: Vec<Entry>) -> (Batch, Bytes) {
    let encoded: Vec<Bytes> = entries.iter().map(codec::encode_entry).collect();
    let bytes = codec::encode_batch(proposed_at, &encoded);
    (Batch { proposed_at, entries, encoded }, bytes)
}
