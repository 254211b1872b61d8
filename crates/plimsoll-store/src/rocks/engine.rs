//! The engine on RocksDB.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, IteratorMode, Options, WriteOptions,
};

use super::floor::Floor;
use super::recovery::InFlight;
use super::snapshots::Snapshots;
use super::view::RocksView;
use super::{error, recovery};
use crate::engine::{Engine, View, WriteBatch};
use crate::{Error, files};

/// Rows in a RocksDB database of their own, written without waiting for the disk.
///
/// The database closes, and its directory may be opened again, when the engine and all its views are gone.
pub struct RocksEngine {
    snapshots: Arc<Snapshots>,
    db: Arc<DB>,
    dir: PathBuf,
    floor: Mutex<Floor>,
    /// Ordinary writes go to memory alone until the next sync.
    in_memory: bool,
    /// Written by `replace_all`, which must know the last key there is; read by ordinary writes.
    replacing: RwLock<()>,
}

impl RocksEngine {
    /// Opens the engine in `dir`, or creates it, for values that are compressed already.
    ///
    /// # Errors
    /// [`Error::Locked`] where it is open already; [`Error::Corrupt`] or [`Error::LostWrites`] where it is not what was
    /// synced; [`Error::Failed`] where the system fails.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let mut options = database_options();
        options.set_compression_type(DBCompressionType::None);
        Self::open_with(dir.as_ref(), &options, false)
    }

    /// Like [`RocksEngine::open`], for rows that are written all the time, read as a whole and seldom, and can be made
    /// again from a log that is kept until they are synced. Writes go to no log of the database: they reach the disk at a
    /// sync, at a clean stop, or with the next 8 MiB.
    ///
    /// # Errors
    /// As for [`RocksEngine::open`].
    pub fn open_repeatable(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let mut options = database_options();
        // One writer at a time remembers where it wrote last, so that a sorted batch costs no search.
        options.set_allow_concurrent_memtable_write(false);
        // What is in memory only has to be made again after a kill.
        options.set_write_buffer_size(REPEATABLE_BYTES);
        // Every file spans all keys from the counters to the newest row, so that each compaction writes everything anew.
        // They are read only as a whole: many files cost such a read little.
        options.set_level_zero_file_num_compaction_trigger(24);
        options.set_level_zero_slowdown_writes_trigger(64);
        options.set_level_zero_stop_writes_trigger(128);
        let mut table = BlockBasedOptions::default();
        table.set_block_size(32 << 10);
        table.disable_cache();
        options.set_block_based_table_factory(&table);
        Self::open_with(dir.as_ref(), &options, true)
    }

    fn open_with(dir: &Path, options: &Options, in_memory: bool) -> Result<Self, Error> {
        KEEP_FREED_MEMORY.call_once(keep_freed_memory);
        files::create_dir(dir).map_err(|source| Error::failed("create directory", dir, source))?;
        let floor = Floor::open(dir)?;
        recovery::prepare(dir, floor.sequence(), InFlight::Many)?;
        let db = DB::open(options, dir).map_err(|source| error("open engine", dir, source))?;
        failpoint!("engine-opened");
        floor.check(dir, db.latest_sequence_number())?;
        let db = Arc::new(db);
        let snapshots = Snapshots::start(db.clone(), dir.to_owned())
            .map_err(|source| Error::failed("start snapshot thread", dir, source))?;
        Ok(Self {
            snapshots: Arc::new(snapshots),
            db,
            dir: dir.to_owned(),
            floor: Mutex::new(floor),
            in_memory,
            replacing: RwLock::new(()),
        })
    }

    fn write_to_db(&self, batch: rocksdb::WriteBatch, sync: bool) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        options.disable_wal(self.in_memory);
        self.db.write_opt(batch, &options).map_err(|source| error("write engine", &self.dir, source))
    }

    /// Records that everything up to `sequence` is durable.
    fn raise_floor(&self, sequence: u64) -> Result<(), Error> {
        let mut floor = self.floor.lock();
        floor.raise(sequence)?;
        floor.sync()
    }

    fn last_key(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.db.iterator(IteratorMode::End).next() {
            Some(Ok((key, _))) => Ok(Some(key.into_vec())),
            Some(Err(source)) => Err(error("read engine", &self.dir, source)),
            None => Ok(None),
        }
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let _shared = self.replacing.read();
        failpoint!("engine-before-write");
        self.write_to_db(to_rocks(&batch), false)?;
        failpoint!("engine-after-write");
        Ok(())
    }

    fn replace_all(&self, batch: WriteBatch) -> Result<(), Error> {
        let _alone = self.replacing.write();
        let mut replacement = rocksdb::WriteBatch::default();
        if let Some(mut past_last) = self.last_key()? {
            past_last.push(0);
            replacement.delete_range(Vec::new(), past_last);
        }
        add_ops(&mut replacement, &batch);
        failpoint!("engine-before-replace");
        if self.in_memory {
            // One batch is in one memory table, which becomes one file or none.
            self.write_to_db(replacement, false)?;
            failpoint!("engine-replaced-in-memory");
            return self.sync();
        }
        self.write_to_db(replacement, true)?;
        failpoint!("engine-replaced");
        self.raise_floor(self.db.latest_sequence_number())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.db.get_pinned(key).map_err(|source| error("read engine", &self.dir, source))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn view(&self) -> Box<dyn View> {
        Box::new(RocksView::open(self.snapshots.clone()))
    }

    fn sync(&self) -> Result<(), Error> {
        // Read before the flush: what is written during it may or may not be covered.
        let sequence = self.db.latest_sequence_number();
        failpoint!("engine-before-sync");
        let done = if self.in_memory { self.db.flush() } else { self.db.flush_wal(true) };
        done.map_err(|source| error("sync engine", &self.dir, source))?;
        failpoint!("engine-after-sync");
        self.raise_floor(sequence)?;
        failpoint!("engine-floor-raised");
        Ok(())
    }

    fn approximate_bytes(&self) -> u64 {
        let property = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        property("rocksdb.estimate-live-data-size") + property("rocksdb.cur-size-all-mem-tables")
    }
}

/// Most bytes of rows in memory alone.
const REPEATABLE_BYTES: usize = 8 << 20;

static KEEP_FREED_MEMORY: Once = Once::new();

/// RocksDB frees the memory of a full memory table as a whole, and glibc would give it back to the system each time, to be
/// zeroed anew page by page. Having seen so large a block freed, it keeps up to twice as much (`M_MMAP_THRESHOLD` in
/// mallopt(3), which moves by itself up to 32 MiB).
fn keep_freed_memory() {
    const LARGE_BYTES: usize = 30 << 20;
    drop(rocksdb::WriteBatch::with_capacity_bytes(LARGE_BYTES));
}

fn to_rocks(batch: &WriteBatch) -> rocksdb::WriteBatch {
    // 16 bytes are the length fields of a row, and a little.
    let mut rocks = rocksdb::WriteBatch::with_capacity_bytes(batch.byte_size() + 16 * (batch.len() + 1));
    add_ops(&mut rocks, batch);
    rocks
}

fn add_ops(rocks: &mut rocksdb::WriteBatch, batch: &WriteBatch) {
    for (key, value) in &batch.ops {
        match value {
            Some(value) => rocks.put(key, value),
            None => rocks.delete(key),
        }
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    // Unsynced writes may come back with holes after a power cut; the prefix before the first hole is all we need. That
    // it is not shorter than what was synced is for the floor to say.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_recycle_log_file_num(0);
    options.set_paranoid_checks(true);
    // What is in memory only is written again at the next start.
    options.set_write_buffer_size(16 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bytes_per_sync(1 << 20);
    let mut table = BlockBasedOptions::default();
    // Rows are small: larger blocks compress better, and a filter spares reads for keys that are not there.
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_block_cache(&Cache::new_lru_cache(32 << 20));
    options.set_block_based_table_factory(&table);
    super::quiet(&mut options);
    options
}
