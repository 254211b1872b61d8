//! Canonical bytes as the core uses them: a thin layer over `plimsoll_proto`.

pub(super) use plimsoll_proto::codec::{
    Batch, SharedRequests, decode_batch, decode_outcome, decode_row, decode_row_sharing, encode_entries,
    encode_key, encode_outcome, encode_row, row_of_outcome,
};
pub(super) use plimsoll_proto::digest::{chain, state as state_digest};
