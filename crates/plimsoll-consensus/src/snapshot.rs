//! Snapshots: all rows at one applied index, in one stream of bytes.
//!
//! Layout: length-prefixed head (`SnapshotMeta`), then length-prefixed key and value of each row, then a length of
//! `u32::MAX` and the BLAKE3 of everything before it. A stream without its hash is never loaded.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use plimsoll_store::WriteBatch;
use prost::Message as _;

use crate::internal as wire_types;
use crate::types::SnapshotMeta;
use crate::wire;

/// Where snapshots are kept.
#[derive(Clone, Debug)]
pub enum SnapshotDir {
    /// In memory: simulation and `--ephemeral`.
    Memory,
    /// Files of a directory; the newest two stay.
    Path(PathBuf),
}

/// One snapshot's bytes.
#[derive(Clone, Debug)]
pub struct SnapshotData(Source);

#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    File(Arc<PathBuf>),
}

const END: u32 = u32::MAX;
const CHUNK_BYTES: usize = 1 << 20;
const KEPT: usize = 2;

impl SnapshotData {
    pub(crate) fn memory(bytes: Bytes) -> SnapshotData {
        SnapshotData(Source::Memory(bytes))
    }

    /// The whole stream in chunks of at most 1 MiB.
    pub(crate) fn chunks(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Bytes>> + Send>> {
        match &self.0 {
            Source::Memory(bytes) => {
                let mut rest = bytes.clone();
                Ok(Box::new(std::iter::from_fn(move || {
                    (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(CHUNK_BYTES))))
                })))
            }
            Source::File(path) => {
                let mut file = fs::File::open(path.as_ref())?;
                Ok(Box::new(std::iter::from_fn(move || {
                    let mut chunk = vec![0; CHUNK_BYTES];
                    match file.read(&mut chunk) {
                        Ok(0) => None,
                        Ok(read) => {
                            chunk.truncate(read);
                            Some(Ok(chunk.into()))
                        }
                        Err(error) => Some(Err(error)),
                    }
                })))
            }
        }
    }

    /// Verifies the stream and returns its head and rows.
    pub(crate) fn load(&self, cluster_id: &str) -> io::Result<(SnapshotMeta, WriteBatch)> {
        let bytes: Bytes = match &self.0 {
            Source::Memory(bytes) => bytes.clone(),
            Source::File(path) => fs::read(path.as_ref())?.into(),
        };
        parse(bytes, cluster_id)
    }
}

impl SnapshotDir {
    /// Writes the rows of a consistent view.
    pub(crate) fn build(
        &self,
        cluster_id: &str,
        row_prefix: &[u8],
        meta: &SnapshotMeta,
        view: &dyn plimsoll_store::View,
    ) -> io::Result<SnapshotData> {
        let rows = view.scan(row_prefix, &[]).map(|row| row.map_err(io::Error::other));
        match self {
            SnapshotDir::Memory => {
                let mut out = Vec::new();
                write(&mut out, cluster_id, meta, rows)?;
                Ok(SnapshotData::memory(out.into()))
            }
            SnapshotDir::Path(dir) => {
                fs::create_dir_all(dir)?;
                let index = meta.last_log_id.map_or(0, |id| id.index);
                let part = dir.join(format!("snap-{index:020}.part"));
                let mut file = io::BufWriter::with_capacity(CHUNK_BYTES, fs::File::create(&part)?);
                write(&mut file, cluster_id, meta, rows)?;
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                self.keep(dir, &part, index)
            }
        }
    }

    /// Keeps a received stream. Its contents were verified by `load`.
    pub(crate) fn adopt(&self, data: SnapshotData, meta: &SnapshotMeta) -> io::Result<SnapshotData> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        match (self, &data.0) {
            (SnapshotDir::Path(dir), Source::File(path)) => self.keep(dir, path, index),
            _ => Ok(data),
        }
    }

    /// A file to receive into, or memory.
    pub(crate) fn receiver(&self) -> io::Result<Receiver> {
        match self {
            SnapshotDir::Memory => Ok(Receiver { bytes: Vec::new(), file: None }),
            SnapshotDir::Path(dir) => {
                fs::create_dir_all(dir)?;
                let path = dir.join("incoming.part");
                let file = fs::File::create(&path)?;
                Ok(Receiver { bytes: Vec::new(), file: Some((path, file)) })
            }
        }
    }

    /// The newest file that is whole, with its head.
    pub(crate) fn newest(&self, cluster_id: &str) -> Option<(SnapshotMeta, SnapshotData)> {
        let SnapshotDir::Path(dir) = self else { return None };
        files(dir).into_iter().rev().find_map(|path| {
            let data = SnapshotData(Source::File(Arc::new(path)));
            data.load(cluster_id).ok().map(|(meta, _)| (meta, data))
        })
    }

    fn keep(&self, dir: &Path, part: &Path, index: u64) -> io::Result<SnapshotData> {
        let path = dir.join(format!("snap-{index:020}"));
        fs::rename(part, &path)?;
        fs::File::open(dir)?.sync_all()?;
        let mut old = files(dir);
        old.truncate(old.len().saturating_sub(KEPT));
        for path in old {
            fs::remove_file(path)?;
        }
        Ok(SnapshotData(Source::File(Arc::new(path))))
    }
}

/// Where a received stream goes.
pub(crate) struct Receiver {
    bytes: Vec<u8>,
    file: Option<(PathBuf, fs::File)>,
}

impl Receiver {
    pub(crate) fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some((_, file)) => file.write_all(chunk),
            None => {
                self.bytes.extend_from_slice(chunk);
                Ok(())
            }
        }
    }

    pub(crate) fn finish(self) -> io::Result<SnapshotData> {
        match self.file {
            Some((path, file)) => {
                file.sync_all()?;
                Ok(SnapshotData(Source::File(Arc::new(path))))
            }
            None => Ok(SnapshotData::memory(self.bytes.into())),
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let whole = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("snap-") && !name.ends_with(".part"))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(whole).collect();
    files.sort();
    files
}

fn write(
    out: &mut dyn io::Write,
    cluster_id: &str,
    meta: &SnapshotMeta,
    rows: impl Iterator<Item = io::Result<(Bytes, Bytes)>>,
) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut put = |out: &mut dyn io::Write, bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes();
        hasher.update(&length);
        hasher.update(bytes);
        out.write_all(&length)?;
        out.write_all(bytes)
    };
    put(out, &wire::snapshot_meta(meta, cluster_id).encode_to_vec())?;
    for row in rows {
        let (key, value) = row?;
        put(out, &key)?;
        put(out, &value)?;
    }
    out.write_all(&END.to_be_bytes())?;
    out.write_all(hasher.finalize().as_bytes())
}

fn parse(mut bytes: Bytes, cluster_id: &str) -> io::Result<(SnapshotMeta, WriteBatch)> {
    let damaged =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("snapshot is damaged: {what}"));
    let mut hasher = blake3::Hasher::new();
    let mut part = || -> io::Result<Option<Bytes>> {
        if bytes.remaining() < 4 {
            return Err(damaged("it ends early"));
        }
        let length = bytes.get_u32();
        if length == END {
            let whole = bytes.remaining() == 32 && hasher.finalize().as_bytes()[..] == bytes[..];
            return if whole { Ok(None) } else { Err(damaged("its hash does not match")) };
        }
        if bytes.remaining() < length as usize {
            return Err(damaged("it ends early"));
        }
        let part = bytes.split_to(length as usize);
        hasher.update(&length.to_be_bytes());
        hasher.update(&part);
        Ok(Some(part))
    };
    let head = part()?.ok_or_else(|| damaged("it has no head"))?;
    let head = wire_types::SnapshotMeta::decode(head).map_err(|_| damaged("its head cannot be read"))?;
    if head.cluster_id != cluster_id {
        return Err(damaged(&format!("it is of cluster {:?}, not {cluster_id:?}", head.cluster_id)));
    }
    let mut rows = WriteBatch::default();
    while let Some(key) = part()? {
        let value = part()?.ok_or_else(|| damaged("a row has no value"))?;
        rows.ops.push((key, Some(value)));
    }
    let meta = wire::snapshot_meta_back(head).map_err(|error| damaged(&error.to_string()))?;
    Ok((meta, rows))
}

/// The latest snapshot of a node, shared by the state machine and its builders.
pub(crate) type Current = Arc<Mutex<Option<(SnapshotMeta, SnapshotData)>>>;
