//! The log on RocksDB.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{BlockBasedOptions, ColumnFamilyDescriptor, DB, DBRecoveryMode, Options};

use super::committer::{Committer, Fatal};
use super::floor::Floor;
use super::logdb::{LOG, LogDb, META};
use super::recovery::InFlight;
use super::sink::RocksSink;
use super::{error, recovery};
use crate::wal::{Done, Loaded, Op, Wal};
use crate::{Error, files};

/// A log in a RocksDB database of its own: every group of waiting ops becomes one write with one sync.
///
/// Dropping it writes what still waits and closes the database.
pub struct RocksWal {
    // Declared first, because it must end before the database closes.
    committer: Committer,
    log: LogDb,
}

/// What may be chosen about a [`RocksWal`].
pub struct RocksWalOptions {
    /// Called once when the log can no longer be written; by default logs and aborts the process.
    pub fatal: Fatal,
    /// Memory for entries before they move from RocksDB's own log into its tables, in bytes. Default 16 MiB:
    /// so much at most is written again at the next start.
    pub write_buffer_bytes: usize,
}

impl Default for RocksWalOptions {
    fn default() -> Self {
        Self { fatal: Arc::new(abort), write_buffer_bytes: 16 << 20 }
    }
}

impl RocksWal {
    /// Opens the log in `dir`, or creates it.
    ///
    /// # Errors
    /// [`Error::Locked`] where it is open already; [`Error::Corrupt`] or [`Error::LostWrites`] where it is not what was
    /// written; [`Error::Failed`] where the system fails.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(dir, RocksWalOptions::default())
    }

    /// Opens the log in `dir`, or creates it, with options.
    ///
    /// # Errors
    /// As [`RocksWal::open`].
    pub fn open_with(dir: impl AsRef<Path>, options: RocksWalOptions) -> Result<Self, Error> {
        let dir = dir.as_ref();
        files::create_dir(dir).map_err(|source| Error::failed("create directory", dir, source))?;
        let floor = Floor::open(dir)?;
        recovery::prepare(dir, floor.sequence(), InFlight::OneBatch)?;
        let families = [LOG, META].map(|name| ColumnFamilyDescriptor::new(name, family_options(&options)));
        let db = DB::open_cf_descriptors(&database_options(), dir, families)
            .map_err(|source| error("open log", dir, source))?;
        failpoint!("log-opened");
        floor.check(dir, db.latest_sequence_number())?;
        let log = LogDb { db: Arc::new(db), dir: dir.to_owned() };
        log.check_format()?;
        failpoint!("log-format-checked");
        let sink = RocksSink::new(log.clone(), floor)?;
        let committer = Committer::start(sink, options.fatal)
            .map_err(|source| Error::failed("start log writer", dir, source))?;
        Ok(Self { committer, log })
    }

    /// How many synced writes there were since it was opened.
    pub fn syncs(&self) -> u64 {
        self.committer.syncs()
    }
}

impl Wal for RocksWal {
    fn submit(&self, ops: Vec<Op>, done: Done) {
        self.committer.submit(ops, done);
    }

    fn load(&self) -> Result<Loaded, Error> {
        self.log.load()
    }

    fn verify(&self, goes_on: &mut dyn FnMut(usize) -> bool) -> Result<(), Error> {
        self.log.verify(goes_on)
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn last record is what a crash leaves; anything else must not be skipped. The default mode would silently
    // drop every entry after a damaged one.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // With recycled files old records follow the new ones, and a damaged record looks like the tail.
    options.set_recycle_log_file_num(0);
    options.set_manual_wal_flush(false);
    options.set_paranoid_checks(true);
    // Both families leave memory together, so that the seldom written one does not keep old files alive.
    options.set_atomic_flush(true);
    super::quiet(&mut options);
    options
}

fn family_options(options: &RocksWalOptions) -> Options {
    let mut family = Options::default();
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_compression_type(rocksdb::DBCompressionType::Lz4);
    // Most entries are let go of before it would pay to merge their files.
    family.set_level_zero_file_num_compaction_trigger(16);
    family.set_level_zero_slowdown_writes_trigger(48);
    family.set_level_zero_stop_writes_trigger(96);
    let mut table = BlockBasedOptions::default();
    table.set_block_size(64 << 10);
    family.set_block_based_table_factory(&table);
    family
}

fn abort(problem: &str) {
    tracing::error!(problem, "the log cannot be written any more, aborting");
    std::process::abort();
}
