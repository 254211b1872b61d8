//! Reads one of RocksDB's own log files, to find where it stops being what was written.
//!
//! The file is a row of 32 KiB blocks; a record is a checksum, a length, a kind and bytes, and never crosses a block: a
//! batch that would is cut into fragments. A batch begins with its sequence number and the number of its ops.

use super::crc32c;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const BATCH_HEADER_BYTES: usize = 12;

const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// What a log file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the last intact batch of the intact beginning ends.
    pub(super) intact_bytes: usize,
    /// The sequence number of the last op up to there; `None` where there is no batch.
    pub(super) last_sequence: Option<u64>,
    /// What is wrong after that, unless the file just ends, be it inside a batch.
    pub(super) damage: Option<&'static str>,
    /// An intact batch begins somewhere after the damage.
    pub(super) goes_on: bool,
}

enum Parsed<'a> {
    Record {
        kind: u8,
        payload: &'a [u8],
        end: usize,
    },
    /// The file ends here, perhaps inside a record or in nothing but zeros.
    End,
    Damaged(&'static str),
}

/// Reads a whole file.
pub(super) fn scan(file: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut batch: Option<Vec<u8>> = None;
    let mut offset = 0;
    scan.damage = loop {
        let (kind, payload, end) = match parse(file, offset) {
            Parsed::Record { kind, payload, end } => (kind, payload, end),
            Parsed::End => return scan,
            Parsed::Damaged(what) => break Some(what),
        };
        match (kind, &mut batch) {
            (WHOLE, None) => scan.complete(payload, end),
            (FIRST, None) => batch = Some(head(payload)),
            (MIDDLE, Some(begun)) => extend_head(begun, payload),
            (LAST, Some(begun)) => {
                extend_head(begun, payload);
                scan.complete(begun, end);
                batch = None;
            }
            (WHOLE | FIRST | MIDDLE | LAST, _) => break Some("fragments do not follow each other"),
            // Such kinds belong to features that are off; those of recycled files make RocksDB read on for ever.
            _ => break Some("a record of a kind that is not written here"),
        }
        offset = end;
    };
    scan.goes_on = batch_begins_after(file, offset);
    scan
}

impl Scan {
    fn complete(&mut self, batch: &[u8], end: usize) {
        self.intact_bytes = end;
        if let Some((sequence, rest)) = batch.split_first_chunk::<8>()
            && let Some(count) = rest.first_chunk::<4>()
        {
            let next = u64::from_le_bytes(*sequence).saturating_add(u64::from(u32::from_le_bytes(*count)));
            self.last_sequence = Some(next.saturating_sub(1));
        }
    }
}

fn head(payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(BATCH_HEADER_BYTES);
    extend_head(&mut head, payload);
    head
}

/// Keeps what is needed to read the batch's own header, which may be spread over fragments.
fn extend_head(head: &mut Vec<u8>, payload: &[u8]) {
    let wanted = BATCH_HEADER_BYTES - head.len();
    head.extend_from_slice(&payload[..wanted.min(payload.len())]);
}

/// The record at an offset, or at the next block where the rest of this one is too short for any.
fn parse(file: &[u8], offset: usize) -> Parsed<'_> {
    let in_block = BLOCK_BYTES - offset % BLOCK_BYTES;
    let start = if in_block < HEADER_BYTES { offset + in_block } else { offset };
    let in_block = BLOCK_BYTES - start % BLOCK_BYTES;
    let Some(rest) = file.get(start..) else { return Parsed::End };
    let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else { return Parsed::End };
    let [c0, c1, c2, c3, low, high, kind] = *header;
    let length = usize::from(u16::from_le_bytes([low, high]));
    if kind == 0 && length == 0 {
        return match rest.iter().all(|byte| *byte == 0) {
            true => Parsed::End,
            false => Parsed::Damaged("a hole of zeros"),
        };
    }
    if HEADER_BYTES + length > in_block {
        return Parsed::Damaged("a record longer than its block");
    }
    let Some(payload) = body.get(..length) else { return Parsed::End };
    if crc32c::stored(&rest[HEADER_BYTES - 1..HEADER_BYTES + length]) != u32::from_le_bytes([c0, c1, c2, c3])
    {
        return Parsed::Damaged("a record with a wrong checksum");
    }
    Parsed::Record { kind, payload, end: start + HEADER_BYTES + length }
}

/// True where an intact record that begins a batch follows the damaged one at `damaged`: after its stated length or at
/// the start of a later block.
fn batch_begins_after(file: &[u8], damaged: usize) -> bool {
    let stated = file.get(damaged + 4..damaged + 6).map_or(0, |length| {
        let length = u16::from_le_bytes([length[0], length[1]]);
        HEADER_BYTES + usize::from(length)
    });
    let mut offset = damaged + stated.max(1);
    while offset < file.len() {
        offset = match parse(file, offset) {
            Parsed::Record { kind: WHOLE | FIRST, .. } => return true,
            Parsed::Record { end, .. } => end,
            Parsed::End | Parsed::Damaged(_) => (offset / BLOCK_BYTES + 1) * BLOCK_BYTES,
        };
    }
    false
}
