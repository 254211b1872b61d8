//! Bytes of the log, of outcomes and of keys: what decodes is canonical, to the byte. Rows: what decodes survives.

use bytes::Bytes;
use plimsoll_proto::codec;

use crate::choices::Choices;

/// Decodes the bytes after the first as what the first says.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let kind = choices.below(6);
    let bytes = Bytes::copy_from_slice(choices.rest());
    let again = match kind {
        0 => codec::decode_entry(&bytes).map(|entry| codec::encode_entry(&entry)).ok(),
        1 => codec::decode_batch(&bytes)
            .map(|batch| codec::encode_batch(batch.proposed_at, &batch.encoded))
            .ok(),
        2 => codec::decode_outcome(&bytes).map(|outcome| codec::encode_outcome(&outcome)).ok(),
        3 => codec::decode_answer(&bytes).map(|answer| codec::encode_answer(&answer)).ok(),
        4 => {
            if let Ok(row) = codec::decode_row(&bytes) {
                assert_eq!(codec::decode_row(&codec::encode_row(&row)), Ok(row), "a row survives");
            }
            None
        }
        _ => codec::decode_key(&bytes).map(|key| codec::encode_key(&key)).ok(),
    };
    if let Some(again) = again {
        assert_eq!(again, bytes, "what decodes is canonical");
    }
}

/// Every command and row that the ledger's own sequences make.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for input in crate::ledger::seeds() {
        let (entries, outcomes, rows) = crate::ledger::encoded(&input);
        let of =
            |kind: u8, all: Vec<Bytes>| all.into_iter().map(move |bytes| [&[kind], bytes.as_ref()].concat());
        seeds.extend(of(0, entries).chain(of(2, outcomes)).chain(of(4, rows)));
    }
    seeds
}
