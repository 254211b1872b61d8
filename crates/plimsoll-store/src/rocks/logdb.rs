//! How a log lies in RocksDB: the column families, the keys, and reading it back.
//!
//! `log` holds entries under their big-endian index, `meta` the vote, the committed record and the purged index with its
//! marker. Every value is framed with a checksum over key and payload; an entry's payload begins with its link of the hash
//! chain (`chain.rs`).

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, DBPinnableSlice, IteratorMode, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

use super::chain::{self, Link};
use crate::log_state::check_contiguous;
use crate::wal::Loaded;
use crate::{Error, frame, rocks};

/// The column family of the entries.
pub(super) const LOG: &str = "log";
/// The column family of everything else.
pub(super) const META: &str = "meta";

const FORMAT: &[u8] = b"format";
pub(super) const VOTE: &[u8] = b"vote";
pub(super) const COMMITTED: &[u8] = b"committed";
pub(super) const PURGED: &[u8] = b"purged";
/// The link of the purged entry, after its index: what the first entry's link follows.
pub(super) const BASE: &[u8] = b"base";
/// Raised when the meaning of keys or values changes; another one is refused, not guessed at.
const FORMAT_VERSION: &[u8] = b"2";
/// Entries without links. A log of this format is written anew when it is opened.
const FORMAT_WITHOUT_LINKS: &[u8] = b"1";

/// The end of a range over all keys of 8 bytes, which is exclusive.
pub(super) const PAST_ALL: [u8; 9] = [0xff; 9];

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
            Some(version) if version == FORMAT_WITHOUT_LINKS => self.add_links(),
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

    /// Everything, verified: checksums, order and the hash chain.
    pub(super) fn load(&self) -> Result<Loaded, Error> {
        let purged = self.purged()?;
        let mut entries = Vec::new();
        self.linked_entries(None, |index, bytes| {
            entries.push((index, bytes));
            true
        })?;
        Ok(Loaded { vote: self.meta(VOTE)?, committed: self.meta(COMMITTED)?, purged, entries })
    }

    /// Verifies everything as it is now, while others go on writing. Before it reads on, `goes_on` is told how many bytes were
    /// read; false ends it early.
    pub(super) fn verify(&self, goes_on: &mut dyn FnMut(usize) -> bool) -> Result<(), Error> {
        let snapshot = self.db.snapshot();
        self.meta_at(VOTE, Some(&snapshot))?;
        self.meta_at(COMMITTED, Some(&snapshot))?;
        self.linked_entries(Some(&snapshot), |_, bytes| goes_on(bytes.len()))
    }

    /// All entries with checksums, order and hash chain verified, until `read` says that it is enough.
    fn linked_entries(
        &self,
        snapshot: Option<&Snapshot<'_>>,
        mut read: impl FnMut(u64, Bytes) -> bool,
    ) -> Result<(), Error> {
        let purged = self.purged_at(snapshot)?.map(|(index, _)| index);
        let mut before = self.base_at(purged, snapshot)?;
        self.entries(purged, snapshot, |index, payload| {
            let bad = |detail: &str| Error::corrupt(&self.dir, Some(index), detail);
            let (link, bytes) = chain::split(&payload).ok_or_else(|| bad("an entry without its link"))?;
            if chain::link(&before, index, bytes) != link {
                return Err(bad("it does not follow the entry before it: the hash chain is broken"));
            }
            before = link;
            Ok(read(index, payload.slice_ref(bytes)))
        })
    }

    /// All entries with their checksums and their order verified, until `read` says that it is enough.
    fn entries(
        &self,
        purged: Option<u64>,
        snapshot: Option<&Snapshot<'_>>,
        mut read: impl FnMut(u64, Bytes) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut expected = purged.map(|index| index.saturating_add(1));
        let first = expected.unwrap_or(0).to_be_bytes();
        let mut options = ReadOptions::default();
        options.set_readahead_size(4 << 20);
        options.fill_cache(false);
        if let Some(snapshot) = snapshot {
            options.set_snapshot(snapshot);
        }
        let mode = IteratorMode::From(&first, rocksdb::Direction::Forward);
        for item in self.db.iterator_cf_opt(self.family(LOG), options, mode) {
            let (key, framed) = item.map_err(|source| rocks::error("read log", &self.dir, source))?;
            let index = self.index_of(&key, expected)?;
            check_contiguous(&self.dir, expected, index)?;
            let framed = Bytes::from(framed);
            let payload = frame::open(&key, &framed)
                .map_err(|detail| Error::corrupt(&self.dir, Some(index), detail))?;
            if !read(index, framed.slice_ref(payload))? {
                break;
            }
            expected = index.checked_add(1);
        }
        Ok(())
    }

    fn index_of(&self, key: &[u8], expected: Option<u64>) -> Result<u64, Error> {
        <[u8; 8]>::try_from(key)
            .map(u64::from_be_bytes)
            .map_err(|_| Error::corrupt(&self.dir, expected, format!("a key of {} bytes", key.len())))
    }

    /// Writes a log of the format before this one anew, in one batch.
    fn add_links(&self) -> Result<(), Error> {
        let purged = self.purged()?.map(|(index, _)| index);
        let mut batch = WriteBatch::default();
        if let Some(index) = purged {
            let value = [&index.to_be_bytes()[..], &chain::START].concat();
            batch.put_cf(self.family(META), BASE, frame::seal(BASE, &value));
        }
        let mut before = chain::START;
        self.entries(purged, None, |index, payload| {
            before = chain::link(&before, index, &payload);
            let key = index.to_be_bytes();
            let linked = [&before[..], &payload].concat();
            batch.put_cf(self.family(LOG), key, frame::seal(&key, &linked));
            Ok(true)
        })?;
        batch.put_cf(self.family(META), FORMAT, frame::seal(FORMAT, FORMAT_VERSION));
        tracing::info!(dir = %self.dir.display(), "the log gets its hash chain");
        self.write(batch)
    }

    /// What the link of the first entry after `purged` follows.
    pub(super) fn base(&self, purged: Option<u64>) -> Result<Link, Error> {
        self.base_at(purged, None)
    }

    fn base_at(&self, purged: Option<u64>, snapshot: Option<&Snapshot<'_>>) -> Result<Link, Error> {
        let Some(purged) = purged else { return Ok(chain::START) };
        let bad = |detail: &str| Error::corrupt(&self.dir, Some(purged), detail);
        let value = self
            .meta_at(BASE, snapshot)?
            .ok_or_else(|| bad("the link of the last purged entry is missing"))?;
        let (index, link) =
            value.split_first_chunk::<8>().ok_or_else(|| bad("the link of the purged entry is too short"))?;
        let link =
            Link::try_from(link).map_err(|_| bad("the link of the purged entry has a wrong length"))?;
        if u64::from_be_bytes(*index) != purged {
            return Err(bad("the link of the purged entry is that of another one"));
        }
        Ok(link)
    }

    /// The stored link and bytes of one entry, where it is there.
    pub(super) fn entry(&self, index: u64) -> Result<Option<(Link, Bytes)>, Error> {
        let key = index.to_be_bytes();
        let framed = self.db.get_pinned_cf(self.family(LOG), key);
        let framed = framed.map_err(|source| rocks::error("read log", &self.dir, source))?;
        framed.map(|framed| self.linked(index, &framed)).transpose()
    }

    fn linked(&self, index: u64, framed: &DBPinnableSlice<'_>) -> Result<(Link, Bytes), Error> {
        let payload = frame::open(&index.to_be_bytes(), framed)
            .map_err(|detail| Error::corrupt(&self.dir, Some(index), detail))?;
        let (link, bytes) = chain::split(payload)
            .ok_or_else(|| Error::corrupt(&self.dir, Some(index), "an entry without its link"))?;
        Ok((link, Bytes::copy_from_slice(bytes)))
    }

    /// The index of the last entry.
    pub(super) fn last_index(&self) -> Result<Option<u64>, Error> {
        match self.db.iterator_cf(self.family(LOG), IteratorMode::End).next() {
            Some(Ok((key, _))) => self.index_of(&key, None).map(Some),
            Some(Err(source)) => Err(rocks::error("read log", &self.dir, source)),
            None => Ok(None),
        }
    }

    /// The purged index and its marker.
    pub(super) fn purged(&self) -> Result<Option<(u64, Bytes)>, Error> {
        self.purged_at(None)
    }

    fn purged_at(&self, snapshot: Option<&Snapshot<'_>>) -> Result<Option<(u64, Bytes)>, Error> {
        let Some(mut value) = self.meta_at(PURGED, snapshot)? else { return Ok(None) };
        if value.len() < 8 {
            return Err(Error::corrupt(&self.dir, None, "the purge record is too short"));
        }
        let marker = value.split_off(8);
        let index = <[u8; 8]>::try_from(&*value).expect("split off after 8 bytes");
        Ok(Some((u64::from_be_bytes(index), marker)))
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.meta_at(key, None)
    }

    fn meta_at(&self, key: &[u8], snapshot: Option<&Snapshot<'_>>) -> Result<Option<Bytes>, Error> {
        let family = self.family(META);
        let framed = match snapshot {
            Some(snapshot) => snapshot.get_pinned_cf(family, key),
            None => self.db.get_pinned_cf(family, key),
        };
        let Some(framed) = framed.map_err(|source| rocks::error("read log", &self.dir, source))? else {
            return Ok(None);
        };
        let payload = frame::open(key, &framed).map_err(|detail| {
            Error::corrupt(&self.dir, None, format!("{} record: {detail}", String::from_utf8_lossy(key)))
        })?;
        Ok(Some(Bytes::copy_from_slice(payload)))
    }

    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|source| rocks::error("write log", &self.dir, source))
    }

    pub(super) fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the database was opened with this column family")
    }
}
