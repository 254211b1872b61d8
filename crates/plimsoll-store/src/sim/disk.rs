//! The simulated disk: what is on it, what is still pending, and what a crash leaves.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::rng::Rng;
use super::{SimEngine, SimWal};
use crate::Error;
use crate::engine::WriteBatch;
use crate::log_state::LogState;
use crate::memory::Rowset;
use crate::wal::{Done, Op};

/// Where errors say they come from.
pub(super) const PATH: &str = "simulated disk";

/// So many engine batches may be unsynced before the older half reaches the disk by itself, as an operating system's
/// write-back does; it bounds the memory of a simulation that seldom syncs.
const WRITE_BACK_BATCHES: usize = 4_096;

/// What goes wrong on a [`SimDisk`], and how slow it is. Times are of tokio's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimFaults {
    /// The shortest sync of the log, in microseconds. Default 500.
    pub sync_us_min: u64,
    /// The longest sync of the log, in microseconds. Default 4,500.
    pub sync_us_max: u64,
    /// How many of 1,000 syncs are stalls. Default 0.
    pub stall_permille: u32,
    /// What a stall adds to a sync, in microseconds. Default 100,000.
    pub stall_us: u64,
    /// How many of 1,000 syncs, of log or engine, fail. After a failure the handle is of no use: see
    /// [`crate::Wal::submit`]. Default 0.
    pub fail_sync_permille: u32,
    /// How many of 1,000 crashes also leave a torn record after the last whole one. Default 250.
    pub torn_tail_permille: u32,
}

impl Default for SimFaults {
    fn default() -> Self {
        Self {
            sync_us_min: 500,
            sync_us_max: 4_500,
            stall_permille: 0,
            stall_us: 100_000,
            fail_sync_permille: 0,
            torn_tail_permille: 250,
        }
    }
}

/// A simulated disk with one log and one engine on it. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Disk>>,
}

pub(super) struct Disk {
    pub(super) rng: Rng,
    pub(super) faults: SimFaults,
    /// Counts crashes; handles of another generation are dead.
    pub(super) generation: u64,
    pub(super) wal: WalDisk,
    pub(super) engine: EngineDisk,
    pub(super) syncs: u64,
}

/// The log's side.
#[derive(Default)]
pub(super) struct WalDisk {
    pub(super) durable: LogState,
    pub(super) pending: VecDeque<Job>,
    /// A task is waiting for a sync to complete.
    pub(super) syncing: bool,
    /// A sync failed; nothing is written any more until the next crash.
    pub(super) failed: bool,
    /// The log before its first bit was flipped.
    undamaged: Option<LogState>,
}

/// One `submit`.
pub(super) struct Job {
    pub(super) ops: Vec<Op>,
    /// Taken when told that it failed; the ops stay, because a crash may still turn out to have kept them.
    pub(super) done: Option<Done>,
}

/// The engine's side.
#[derive(Default)]
pub(super) struct EngineDisk {
    pub(super) durable: Rowset,
    pub(super) unsynced: VecDeque<WriteBatch>,
    pub(super) current: Rowset,
    pub(super) failed: bool,
}

impl SimDisk {
    /// An empty disk with the default delays and without failures.
    pub fn new(seed: u64) -> Self {
        Self::with_faults(seed, SimFaults::default())
    }

    /// An empty disk.
    pub fn with_faults(seed: u64, faults: SimFaults) -> Self {
        let disk = Disk {
            rng: Rng::new(seed),
            faults,
            generation: 0,
            wal: WalDisk::default(),
            engine: EngineDisk::default(),
            syncs: 0,
        };
        Self { shared: Arc::new(Mutex::new(disk)) }
    }

    /// Changes delays and failures from now on.
    pub fn set_faults(&self, faults: SimFaults) {
        self.lock().faults = faults;
    }

    /// A handle of the log, good until the next crash.
    pub fn wal(&self) -> SimWal {
        let mut disk = self.lock();
        disk.wal.durable.recover();
        SimWal::new(self.clone(), disk.generation)
    }

    /// A handle of the engine, good until the next crash.
    pub fn engine(&self) -> SimEngine {
        SimEngine::new(self.clone(), self.lock().generation)
    }

    /// Cuts the power: of the pending log ops and of the unsynced engine batches a seeded prefix survives each, the log
    /// possibly with a torn record after it. Every handle is dead, and no `done` of theirs is called any more.
    pub fn crash(&self) {
        let mut disk = self.lock();
        let Disk { rng, faults, wal, engine, generation, .. } = &mut *disk;
        *generation += 1;
        let jobs = std::mem::take(&mut wal.pending);
        crash_wal(wal, &jobs, rng, faults.torn_tail_permille);
        crash_engine(engine, rng);
        // Dropping a callback may run its owner's code, which may use this disk.
        drop(disk);
        drop(jobs);
    }

    /// Erases everything, as a replaced disk: the log and the engine are empty, and every handle is dead.
    pub fn wipe(&self) {
        let mut disk = self.lock();
        disk.generation += 1;
        let wal = std::mem::take(&mut disk.wal);
        disk.engine = EngineDisk::default();
        drop(disk);
        drop(wal);
    }

    /// Flips one seeded bit of one durable log entry and returns its index, or `None` where there is no entry. Loading
    /// then reports [`Error::Corrupt`], unless the entry goes before.
    pub fn flip_bit(&self) -> Option<u64> {
        let mut disk = self.lock();
        let Disk { rng, wal, .. } = &mut *disk;
        let before = wal.durable.clone();
        let flipped =
            wal.durable.flip_bit(|choices| rng.between(0, choices.saturating_sub(1) as u64) as usize)?;
        wal.undamaged.get_or_insert(before);
        Some(flipped)
    }

    /// Puts the log back as it was before [`SimDisk::flip_bit`]. What was written since is lost, so this is for a log that
    /// nobody has opened since.
    pub fn mend(&self) {
        let mut disk = self.lock();
        if let Some(undamaged) = disk.wal.undamaged.take() {
            disk.wal.durable = undamaged;
        }
    }

    /// A sync of the log or of the engine has failed since the last crash.
    pub fn has_failed(&self) -> bool {
        let disk = self.lock();
        disk.wal.failed || disk.engine.failed
    }

    /// How many syncs of the log succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The disk, where `generation` is still alive.
    pub(super) fn alive(&self, generation: u64) -> Option<MutexGuard<'_, Disk>> {
        let disk = self.lock();
        (disk.generation == generation).then_some(disk)
    }

    /// The disk, or the error of using a dead handle.
    pub(super) fn use_alive(
        &self,
        generation: u64,
        operation: &'static str,
    ) -> Result<MutexGuard<'_, Disk>, Error> {
        self.alive(generation).ok_or_else(|| failed(operation, "the machine crashed"))
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.shared.lock()
    }
}

impl EngineDisk {
    /// Adds a batch that is visible at once and durable later.
    pub(super) fn write(&mut self, batch: WriteBatch) {
        self.current.apply(batch.clone());
        self.unsynced.push_back(batch);
        if self.unsynced.len() > WRITE_BACK_BATCHES {
            self.write_back(WRITE_BACK_BATCHES / 2);
        }
    }

    /// Makes the first so many unsynced batches durable.
    pub(super) fn write_back(&mut self, batches: usize) {
        for batch in self.unsynced.drain(..batches) {
            self.durable.apply(batch);
        }
    }
}

/// An I/O error of this disk.
pub(super) fn failed(operation: &'static str, reason: &'static str) -> Error {
    Error::failed(operation, Path::new(PATH), std::io::Error::other(reason))
}

fn crash_wal(wal: &mut WalDisk, jobs: &VecDeque<Job>, rng: &mut Rng, torn_tail_permille: u32) {
    let ops: Vec<&Op> = jobs.iter().flat_map(|job| &job.ops).collect();
    let survive = rng.between(0, ops.len() as u64) as usize;
    let (kept, lost) = ops.split_at(survive);
    // A record left torn by an earlier crash is found at the first reopening; another crash before that changes nothing.
    wal.durable.recover();
    kept.iter().for_each(|op| wal.durable.apply(op));
    if let Some(Op::Put { index, bytes }) = lost.first()
        && rng.permille(torn_tail_permille)
    {
        wal.durable.apply_torn(*index, bytes);
    }
    wal.syncing = false;
    wal.failed = false;
}

fn crash_engine(engine: &mut EngineDisk, rng: &mut Rng) {
    let survive = rng.between(0, engine.unsynced.len() as u64) as usize;
    engine.write_back(survive);
    engine.unsynced.clear();
    engine.current = engine.durable.clone();
    engine.failed = false;
}
