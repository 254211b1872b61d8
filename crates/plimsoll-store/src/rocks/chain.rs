//! The hash chain over a log's entries: each entry is stored with a link that covers it and everything before it.
//!
//! A checksum says that an entry is what was once written at its place. The link says that it belongs to this log: an entry
//! of a part that was cut off and came back with its right checksum does not follow the entry before it.

/// BLAKE3 over the link before, the index (8 bytes, most significant first) and the entry.
pub(super) type Link = [u8; 32];

/// What the first entry of a log follows, and the first one after entries that this log never had (a snapshot).
pub(super) const START: Link = [0; 32];

/// The link of an entry.
pub(super) fn link(before: &Link, index: u64, bytes: &[u8]) -> Link {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&index.to_be_bytes());
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// The link that a stored entry begins with, and the entry; `None` where it is too short.
pub(super) fn split(payload: &[u8]) -> Option<(Link, &[u8])> {
    payload.split_first_chunk::<32>().map(|(link, bytes)| (*link, bytes))
}
