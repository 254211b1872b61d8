//! Hashes that replicas compare: the chain over the log, the digest of the state.

use bytes::Bytes;
use plimsoll_ledger::{Row, RowKey};

use crate::codec;

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// The chain before the first command.
pub const GENESIS: Hash = [0; 32];

/// The next link: BLAKE3 over the link before, the canonical bytes of the command, those of its outcome.
///
/// Nothing separates the parts: both are canonical messages with a fixed length of link before them, and the exported record
/// gives each by itself.
pub fn chain(before: &Hash, entry: &[u8], outcome: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(entry).update(outcome);
    *hasher.finalize().as_bytes()
}

/// Digest of a state, fed with its rows in canonical order: for each row, the length of the key as four bytes (most
/// significant first), the key, the length of the value in the same form, the value.
#[derive(Clone, Debug, Default)]
pub struct StateHasher {
    hasher: blake3::Hasher,
    last_key: Option<Bytes>,
    rows: u64,
}

impl StateHasher {
    /// Of no rows yet.
    pub fn new() -> StateHasher {
        StateHasher::default()
    }

    /// Adds a row by its canonical bytes. Bodies of those who are set aside are no part of the digest.
    ///
    /// # Panics
    /// Where keys do not ascend: a digest over another order would differ for equal states.
    pub fn add_bytes(&mut self, key: &Bytes, value: &[u8]) {
        // The rows of those whose they are have their hashes.
        if codec::is_body(key) {
            return;
        }
        assert!(
            self.last_key.as_ref().is_none_or(|last| last < key),
            "rows are added in canonical order, once each"
        );
        for part in [key.as_ref(), value] {
            let length = u32::try_from(part.len()).expect("no key or row is as long as 4 GiB");
            self.hasher.update(&length.to_be_bytes()).update(part);
        }
        self.last_key = Some(key.clone());
        self.rows += 1;
    }

    /// Adds a row.
    ///
    /// # Panics
    /// As for [`StateHasher::add_bytes`].
    pub fn add(&mut self, key: &RowKey, row: &Row) {
        self.add_bytes(&codec::encode_key(key), &codec::encode_row(row));
    }

    /// Rows added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The digest.
    pub fn finish(&self) -> Hash {
        *self.hasher.finalize().as_bytes()
    }
}

/// Digest of rows in canonical order.
///
/// # Panics
/// As for [`StateHasher::add_bytes`].
pub fn state<'a>(rows: impl IntoIterator<Item = (&'a RowKey, &'a Row)>) -> Hash {
    let mut hasher = StateHasher::new();
    for (key, row) in rows {
        hasher.add(key, row);
    }
    hasher.finish()
}

/// Lower-case hexadecimal digits of a hash.
pub fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::Meta;

    use super::*;

    #[test]
    fn the_chain_depends_on_every_part() {
        let base = chain(&GENESIS, b"entry", b"outcome");
        assert_eq!(base, chain(&GENESIS, b"entry", b"outcome"));
        assert_ne!(base, chain(&[1; 32], b"entry", b"outcome"));
        assert_ne!(base, chain(&GENESIS, b"entrz", b"outcome"));
        assert_ne!(base, chain(&GENESIS, b"entry", b"outcomf"));
        assert_eq!(base, *blake3::hash(&[&[0u8; 32][..], b"entryoutcome"].concat()).as_bytes());
    }

    #[test]
    fn the_state_digest_is_over_lengths_keys_and_rows() {
        let row = Row::Meta(Meta { version: 1, ..Meta::default() });
        let value = codec::encode_row(&row);
        let mut plain = vec![0, 0, 0, 1, 1, 0, 0, 0, value.len() as u8];
        plain.extend_from_slice(&value);
        assert_eq!(state([(&RowKey::Meta, &row)]), *blake3::hash(&plain).as_bytes());
    }

    #[test]
    #[should_panic(expected = "canonical order")]
    fn rows_out_of_order_are_a_fault() {
        let mut hasher = StateHasher::new();
        hasher.add_bytes(&Bytes::from_static(b"b"), b"");
        hasher.add_bytes(&Bytes::from_static(b"a"), b"");
    }
}
