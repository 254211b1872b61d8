//! Snapshots: all rows at one applied index, in memory or in files of one directory.

mod examine;
mod format;
mod found;
mod room;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_store::{WriteBatch, files as durable};

use crate::types::SnapshotMeta;

pub use examine::{ExaminedLog, ExaminedSnapshot, ExaminedState, LogPosition};
pub use format::{read_sealed, write_sealed};
pub use found::{NewCluster, found_cluster};
pub(crate) use room::{NoRoom, Room, is_full};

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
    File(Arc<Stored>),
}

/// A file; one that was received and not kept goes when nobody holds it any more.
#[derive(Debug)]
struct Stored {
    path: PathBuf,
    passing: bool,
}

impl Drop for Stored {
    fn drop(&mut self) {
        // Gone already where it was kept, which renames it.
        if self.passing {
            drop(fs::remove_file(&self.path));
        }
    }
}

const CHUNK_BYTES: usize = 1 << 20;
const KEPT: usize = 2;

impl SnapshotData {
    fn memory(bytes: Bytes) -> SnapshotData {
        SnapshotData(Source::Memory(bytes))
    }

    /// What stands in for a snapshot that could not be made.
    pub(crate) fn nothing() -> SnapshotData {
        SnapshotData::memory(Bytes::new())
    }

    fn file(path: PathBuf, passing: bool) -> SnapshotData {
        SnapshotData(Source::File(Arc::new(Stored { path, passing })))
    }

    /// Length of the whole stream.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        match &self.0 {
            Source::Memory(bytes) => Ok(bytes.len() as u64),
            Source::File(stored) => Ok(fs::metadata(&stored.path)?.len()),
        }
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
            Source::File(stored) => {
                let mut file = fs::File::open(&stored.path)?;
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
        let mut rows = WriteBatch::default();
        let meta = self.read(cluster_id, |key, value| rows.put(key, value))?;
        Ok((meta, rows))
    }

    /// Verifies the stream and returns its head.
    pub(crate) fn verify(&self, cluster_id: &str) -> io::Result<SnapshotMeta> {
        self.read(cluster_id, |_, _| ())
    }

    fn read(&self, cluster_id: &str, row: impl FnMut(Bytes, Bytes)) -> io::Result<SnapshotMeta> {
        match &self.0 {
            Source::Memory(bytes) => format::read(&mut &bytes[..], cluster_id, row),
            Source::File(stored) => {
                let file = fs::File::open(&stored.path)?;
                format::read(&mut io::BufReader::with_capacity(CHUNK_BYTES, file), cluster_id, row)
            }
        }
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
                format::write(&mut out, cluster_id, meta, rows)?;
                Ok(SnapshotData::memory(out.into()))
            }
            SnapshotDir::Path(dir) => {
                durable::create_dir(dir)?;
                let index = meta.last_log_id.map_or(0, |id| id.index);
                let part = dir.join(format!("snap-{index:020}.part"));
                let written = durable::write_synced(&part, |out| {
                    failpoint!("snapshot-begun");
                    format::write(out, cluster_id, meta, rows)?;
                    failpoint!("snapshot-written");
                    Ok(())
                });
                let kept = written.and_then(|_| {
                    failpoint!("snapshot-synced");
                    self.keep(dir, &part, index)
                });
                if kept.is_err() {
                    // On a full disk what was written so far is in the way of everything else.
                    drop(fs::remove_file(&part));
                }
                kept
            }
        }
    }

    /// Keeps a received stream. Its contents were verified by `load`.
    pub(crate) fn adopt(&self, data: SnapshotData, meta: &SnapshotMeta) -> io::Result<SnapshotData> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        match (self, &data.0) {
            (SnapshotDir::Path(dir), Source::File(stored)) if stored.path.parent() == Some(dir) => {
                self.keep(dir, &stored.path, index)
            }
            (SnapshotDir::Path(dir), Source::File(stored)) => {
                durable::create_dir(dir)?;
                let part = passing(dir);
                fs::copy(&stored.path, &part)?;
                fs::File::open(&part)?.sync_all()?;
                self.keep(dir, &part, index)
            }
            (SnapshotDir::Path(_) | SnapshotDir::Memory, _) => Ok(data),
        }
    }

    /// A file to receive into, or memory.
    pub(crate) fn receiver(&self) -> io::Result<Receiver> {
        match self {
            SnapshotDir::Memory => Ok(Receiver::Memory(Vec::new())),
            SnapshotDir::Path(dir) => {
                durable::create_dir(dir)?;
                let path = passing(dir);
                let file = fs::File::create_new(&path)?;
                failpoint!("snapshot-receiving");
                Ok(Receiver::File(SnapshotData::file(path, true), file))
            }
        }
    }

    /// The newest file that is whole, with its head.
    pub(crate) fn newest(&self, cluster_id: &str) -> Option<(SnapshotMeta, SnapshotData)> {
        let SnapshotDir::Path(dir) = self else { return None };
        files(dir).into_iter().rev().find_map(|path| {
            let shown = path.display().to_string();
            let data = SnapshotData::file(path, false);
            match data.verify(cluster_id) {
                Ok(meta) => Some((meta, data)),
                Err(error) => {
                    tracing::warn!(path = shown, %error, "a snapshot is passed over");
                    None
                }
            }
        })
    }

    /// Removes what a stopped process was writing or receiving.
    pub(crate) fn tidy(&self) {
        let SnapshotDir::Path(dir) = self else { return };
        let Ok(entries) = fs::read_dir(dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "part") {
                drop(fs::remove_file(path));
            }
        }
    }

    fn keep(&self, dir: &Path, part: &Path, index: u64) -> io::Result<SnapshotData> {
        let path = dir.join(format!("snap-{index:020}"));
        fs::rename(part, &path)?;
        failpoint!("snapshot-renamed");
        durable::sync_dir(dir)?;
        failpoint!("snapshot-kept");
        let mut old = files(dir);
        old.truncate(old.len().saturating_sub(KEPT));
        for path in old {
            fs::remove_file(path)?;
            failpoint!("snapshot-old-removed");
        }
        Ok(SnapshotData::file(path, false))
    }
}

/// Where a received stream goes. Dropped before it is finished, it leaves nothing.
pub(crate) enum Receiver {
    Memory(Vec<u8>),
    File(SnapshotData, fs::File),
}

impl Receiver {
    pub(crate) fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        match self {
            Receiver::File(_, file) => file.write_all(chunk),
            Receiver::Memory(bytes) => {
                bytes.extend_from_slice(chunk);
                Ok(())
            }
        }
    }

    pub(crate) fn finish(self) -> io::Result<SnapshotData> {
        match self {
            Receiver::File(data, file) => {
                failpoint!("snapshot-received");
                file.sync_all()?;
                failpoint!("snapshot-received-synced");
                Ok(data)
            }
            Receiver::Memory(bytes) => Ok(SnapshotData::memory(bytes.into())),
        }
    }
}

/// A name that no other stream of this process has: two leaders may send at the same time.
fn passing(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("incoming-{}.part", NEXT.fetch_add(1, Ordering::Relaxed)))
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

/// The latest snapshot of a node, shared by the state machine and its builders.
pub(crate) type Current = Arc<Mutex<Option<(SnapshotMeta, SnapshotData)>>>;
