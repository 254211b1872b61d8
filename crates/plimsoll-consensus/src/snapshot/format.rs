//! The bytes of a snapshot: length-prefixed head (`SnapshotMeta`), then length-prefixed key and value of each row, then a
//! length of `u32::MAX` and the BLAKE3 of everything before it. A stream without its hash is never loaded.

use std::io::{self, Read, Write};

use bytes::Bytes;
use prost::Message as _;

use crate::internal as wire_types;
use crate::types::SnapshotMeta;
use crate::wire;

const END: u32 = u32::MAX;
/// No key, value or head is longer: a length beyond it is damage, not a reason to allocate.
const MOST_BYTES: u32 = 256 << 20;

/// Writes the file of a snapshot of a member.
pub(super) fn write(
    out: &mut dyn Write,
    cluster_id: &str,
    meta: &SnapshotMeta,
    rows: impl Iterator<Item = io::Result<(Bytes, Bytes)>>,
) -> io::Result<()> {
    write_sealed(out, &wire::snapshot_meta(meta, cluster_id).encode_to_vec(), rows)
}

/// Reads all of it and checks the hash. The rows that `row` was given count for nothing if this fails.
pub(super) fn read(
    from: &mut dyn Read,
    cluster_id: &str,
    row: impl FnMut(Bytes, Bytes),
) -> io::Result<SnapshotMeta> {
    let (found, meta) = read_any(from, Some(cluster_id), row)?;
    debug_assert_eq!(found, cluster_id);
    Ok(meta)
}

/// Like [`read`], of any cluster where none is wanted; with the cluster that it is of.
pub(super) fn read_any(
    from: &mut dyn Read,
    wanted: Option<&str>,
    row: impl FnMut(Bytes, Bytes),
) -> io::Result<(String, SnapshotMeta)> {
    let mut found = None;
    read_sealed(
        from,
        |head| {
            let head =
                wire_types::SnapshotMeta::decode(head).map_err(|_| damaged("its head cannot be read"))?;
            let is_ours = wanted.is_none_or(|wanted| wanted == head.cluster_id);
            found = Some(head.clone());
            let is_of = || {
                damaged(&format!("it is of cluster {:?}, not {:?}", head.cluster_id, wanted.unwrap_or("")))
            };
            if is_ours { Ok(()) } else { Err(is_of()) }
        },
        row,
    )?;
    let head = found.ok_or_else(|| damaged("it has no head"))?;
    let cluster_id = head.cluster_id.clone();
    Ok((cluster_id, wire::snapshot_meta_back(head).map_err(|error| damaged(&error.to_string()))?))
}

/// Writes a head, rows and the hash of both, in the form of all snapshot files.
///
/// # Errors
/// Where `out` fails, a row does, or one is longer than 256 MiB.
pub fn write_sealed(
    out: &mut dyn Write,
    head: &[u8],
    rows: impl Iterator<Item = io::Result<(Bytes, Bytes)>>,
) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut put = |out: &mut dyn Write, bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MOST_BYTES);
        let length =
            length.ok_or_else(|| io::Error::other("a row is too long for a snapshot"))?.to_be_bytes();
        hasher.update(&length);
        hasher.update(bytes);
        out.write_all(&length)?;
        out.write_all(bytes)
    };
    put(out, head)?;
    for row in rows {
        let (key, value) = row?;
        put(out, &key)?;
        put(out, &value)?;
    }
    out.write_all(&END.to_be_bytes())?;
    out.write_all(hasher.finalize().as_bytes())
}

/// Reads what [`write_sealed`] wrote, to its end. What `head` and `row` were given counts for nothing if this fails.
///
/// # Errors
/// `InvalidData` where it is not whole and unchanged; what `head` returns; what `from` fails with.
pub fn read_sealed(
    from: &mut dyn Read,
    head: impl FnOnce(Bytes) -> io::Result<()>,
    mut row: impl FnMut(Bytes, Bytes),
) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    head(part(from, &mut hasher)?.ok_or_else(|| damaged("it has no head"))?)?;
    while let Some(key) = part(from, &mut hasher)? {
        let value = part(from, &mut hasher)?.ok_or_else(|| damaged("a row has no value"))?;
        row(key, value);
    }
    Ok(())
}

/// One length-prefixed part; `None` for the end with the right hash.
fn part(from: &mut dyn Read, hasher: &mut blake3::Hasher) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    fill(from, &mut length)?;
    if u32::from_be_bytes(length) == END {
        let mut hash = [0; 32];
        fill(from, &mut hash)?;
        if hasher.finalize() != hash {
            return Err(damaged("its hash does not match"));
        }
        return if from.read(&mut [0])? == 0 { Ok(None) } else { Err(damaged("it goes on after its end")) };
    }
    if u32::from_be_bytes(length) > MOST_BYTES {
        return Err(damaged("a part of it is too long"));
    }
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    fill(from, &mut bytes)?;
    hasher.update(&length);
    hasher.update(&bytes);
    Ok(Some(bytes.into()))
}

fn fill(from: &mut dyn Read, bytes: &mut [u8]) -> io::Result<()> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends early"),
        _ => error,
    })
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot is damaged: {what}"))
}
