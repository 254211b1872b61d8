//! The form in which log records are stored: a checksum over key and payload, then the payload.
//!
//! The key is part of the checksum, so that a record that is intact but in the wrong place is found out too.

use bytes::Bytes;

const CHECKSUM_BYTES: usize = 4;

/// Writes the framed form of `payload` into `frame`, replacing what it held.
pub(crate) fn seal_into(frame: &mut Vec<u8>, key: &[u8], payload: &[u8]) {
    frame.clear();
    frame.reserve(CHECKSUM_BYTES + payload.len());
    frame.extend_from_slice(&checksum(key, payload).to_le_bytes());
    frame.extend_from_slice(payload);
}

/// The framed form of `payload`.
pub(crate) fn seal(key: &[u8], payload: &[u8]) -> Bytes {
    let mut frame = Vec::new();
    seal_into(&mut frame, key, payload);
    frame.into()
}

/// The payload of a frame stored under `key`, or what is wrong with it.
pub(crate) fn open<'a>(key: &[u8], frame: &'a [u8]) -> Result<&'a [u8], String> {
    let (stored, payload) = frame
        .split_first_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| format!("record of {} bytes is too short for its checksum", frame.len()))?;
    let (stored, computed) = (u32::from_le_bytes(*stored), checksum(key, payload));
    if stored == computed {
        Ok(payload)
    } else {
        Err(format!("checksum of {} bytes is {computed:08x}, stored {stored:08x}", payload.len()))
    }
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_opens_only_whole_and_under_its_own_key() {
        let frame = seal(b"k", b"payload");
        assert_eq!(open(b"k", &frame), Ok(&b"payload"[..]));
        assert!(open(b"l", &frame).is_err());
        assert!(open(b"k", &frame[..frame.len() - 1]).is_err());
        assert!(open(b"k", b"abc").is_err());
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(b"k", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_empty_payload_is_a_payload() {
        assert_eq!(open(b"k", &seal(b"k", b"")), Ok(&b""[..]));
    }
}
