//! How a log lies in RocksDB: the column families, the keys, one group as one write, and reading it back.
//!
//! `log` holds entries under their big-endian index, `meta` the vote, the committed record and the purged index with its
//! marker. Every value is framed with a checksum over key and payload.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::committer::Sink;
use super::floor::Floor;
use crate::log_state::check_contiguous;
use crate::wal::{Loaded, Op};
use crate::{Error, frame, rocks};

/// The column family of the entries.
pub(super) const LOG: &str = "log";
/// The column family of everything else.
pub(super) const META: &str = "meta";

const FORMAT: &[u8] = b"format";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
/// Raised when the meaning of keys or values changes; another one is refused, not guessed at.
const FORMAT_VERSION: &[u8] = b"1";

/// The end of a range over all keys of 8 bytes, which is exclusive.
const PAST_ALL: [u8; 9] = [0xff; 9];

/// A log's database with the directory it is in.
#[derive(Clone)]
pub(super) struct LogDb {
    pub(super) db: Arc<DB>,
    pub(super) dir: PathBuf,
}

impl LogDb {
    /// Marks a new database as ours, and refuses one of another format.
    pub(super) fn check_format(&self) -> Result<(), Error> {
        match self.meta(FORMAT)? {
            Some(version) if version == FORMAT_VERSION => Ok(()),
            Some(version) => {
                let version = String::from_utf8_lossy(&version).into_owned();
                Err(Error::corrupt(&self.dir, None, format!("log format {version} is not known here")))
            }
            None if self.db.latest_sequence_number() > 0 => {
                Err(Error::corrupt(&self.dir, None, "a log without its format"))
            }
            None => {
                let mut batch = WriteBatch::default();
                batch.put_cf(self.family(META), FORMAT, frame::seal(FORMAT, FORMAT_VERSION));
                self.write(batch)
            }
        }
    }

    /// Everything, verified.
    pub(super) fn load(&self) -> Result<Loaded, Error> {
        let purged = self.purged()?;
        let mut expected = purged.as_ref().map(|(index, _)| index.saturating_add(1));
        let first = expected.unwrap_or(0).to_be_bytes();
        let mut options = ReadOptions::default();
        options.set_readahead_size(4 << 20);
        options.fill_cache(false);
        let mode = IteratorMode::From(&first, rocksdb::Direction::Forward);
        let mut entries = Vec::new();
        for item in self.db.iterator_cf_opt(self.family(LOG), options, mode) {
            let (key, framed) = item.map_err(|source| rocks::error("read log", &self.dir, source))?;
            let index = <[u8; 8]>::try_from(&*key)
                .map(u64::from_be_bytes)
                .map_err(|_| Error::corrupt(&self.dir, expected, format!("a key of {} bytes", key.len())))?;
            check_contiguous(&self.dir, expected, index)?;
            let framed = Bytes::from(framed);
            let payload = frame::open(&key, &framed)
                .map_err(|detail| Error::corrupt(&self.dir, Some(index), detail))?;
            entries.push((index, framed.slice_ref(payload)));
            expected = index.checked_add(1);
        }
        Ok(Loaded { vote: self.meta(VOTE)?, committed: self.meta(COMMITTED)?, purged, entries })
    }

    /// The purged index and its marker.
    fn purged(&self) -> Result<Option<(u64, Bytes)>, Error> {
        let Some(mut value) = self.meta(PURGED)? else { return Ok(None) };
        if value.len() < 8 {
            return Err(Error::corrupt(&self.dir, None, "the purge record is too short"));
        }
        let marker = value.split_off(8);
        let index = <[u8; 8]>::try_from(&*value).expect("split off after 8 bytes");
        Ok(Some((u64::from_be_bytes(index), marker)))
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let framed = self.db.get_pinned_cf(self.family(META), key);
        let Some(framed) = framed.map_err(|source| rocks::error("read log", &self.dir, source))? else {
            return Ok(None);
        };
        let payload = frame::open(key, &framed).map_err(|detail| {
            Error::corrupt(&self.dir, None, format!("{} record: {detail}", String::from_utf8_lossy(key)))
        })?;
        Ok(Some(Bytes::copy_from_slice(payload)))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|source| rocks::error("write log", &self.dir, source))
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the database was opened with this column family")
    }
}

/// Writes groups: the only writer of its database.
pub(super) struct RocksSink {
    log: LogDb,
    floor: Floor,
    purged: Option<u64>,
    framed: Vec<u8>,
}

impl RocksSink {
    /// A writer for a database that was opened, checked and is written by nobody else.
    pub(super) fn new(log: LogDb, floor: Floor) -> Result<Self, Error> {
        let purged = log.purged()?.map(|(index, _)| index);
        Ok(Self { log, floor, purged, framed: Vec::new() })
    }

    fn put(&mut self, batch: &mut WriteBatch, family: &str, key: &[u8], payload: &[u8]) {
        frame::seal_into(&mut self.framed, key, payload);
        batch.put_cf(self.log.family(family), key, &self.framed);
    }

    fn add(&mut self, batch: &mut WriteBatch, op: &Op) {
        match op {
            Op::Put { index, bytes } => {
                if self.purged.is_none_or(|purged| *index > purged) {
                    self.put(batch, LOG, &index.to_be_bytes(), bytes);
                }
            }
            Op::TruncateFrom { index } => {
                batch.delete_range_cf(self.log.family(LOG), &index.to_be_bytes()[..], &PAST_ALL);
            }
            Op::PurgeTo { index, marker } => {
                if self.purged.is_some_and(|purged| *index <= purged) {
                    return;
                }
                self.purged = Some(*index);
                let end =
                    index.checked_add(1).map_or_else(|| PAST_ALL.to_vec(), |end| end.to_be_bytes().to_vec());
                batch.delete_range_cf(self.log.family(LOG), vec![0; 8], end);
                let value = [&index.to_be_bytes(), &marker[..]].concat();
                self.put(batch, META, PURGED, &value);
            }
            Op::Vote { bytes } => self.put(batch, META, VOTE, bytes),
            Op::Committed { bytes } => self.put(batch, META, COMMITTED, bytes),
        }
    }
}

impl Sink for RocksSink {
    fn commit(&mut self, ops: &[Op]) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for op in ops {
            self.add(&mut batch, op);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.log.write(batch)?;
        self.floor.raise(self.log.db.latest_sequence_number())
    }

    fn close(&mut self) {
        if let Err(error) = self.floor.sync() {
            tracing::warn!(%error, "could not sync the floor of the log");
        }
    }
}
