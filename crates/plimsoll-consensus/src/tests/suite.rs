//! openraft's own conformance suite for log stores and state machines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use plimsoll_store::memory::{MemoryEngine, MemoryWal};
use plimsoll_store::rocks::{RocksEngine, RocksWal};
use plimsoll_store::sim::SimDisk;
use plimsoll_store::{Engine, Wal};
use tokio::sync::watch;

use super::fixture::Pile;
use crate::SnapshotDir;
use crate::log_store::LogStore;
use crate::machine::StateMachine;
use crate::types::{Runtime, TypeConfig};

enum Backing {
    Rocks,
    Memory,
    Sim(AtomicU64),
}

type Guard = Option<tempfile::TempDir>;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Backing {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let mut guard = None;
        let (wal, engine, snapshots): (Arc<dyn Wal>, Arc<dyn Engine>, SnapshotDir) = match self {
            Backing::Rocks => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let wal = RocksWal::open(dir.path().join("log")).expect("a new log");
                let engine = RocksEngine::open(dir.path().join("state")).expect("a new engine");
                let snapshots = SnapshotDir::Path(dir.path().join("snapshots"));
                guard = Some(dir);
                (Arc::new(wal), Arc::new(engine), snapshots)
            }
            Backing::Memory => {
                (Arc::new(MemoryWal::new()), Arc::new(MemoryEngine::new()), SnapshotDir::Memory)
            }
            Backing::Sim(seed) => {
                let disk = SimDisk::new(seed.fetch_add(1, Ordering::Relaxed));
                (Arc::new(disk.wal()), Arc::new(disk.engine()), SnapshotDir::Memory)
            }
        };
        let log = LogStore::open(wal, Arc::clone(&engine)).expect("an empty log");
        let (applied, _) = watch::channel(0);
        let machine = Arc::new(Pile::default());
        let machine = StateMachine::open("suite".into(), engine, machine, snapshots, log.clone(), applied);
        Ok((guard, log, machine.expect("an empty state")))
    }
}

async fn passes(backing: Backing) {
    Runtime::scope(1, Suite::test_all(backing)).await.expect("the suite passes");
}

#[tokio::test]
async fn openrafts_suite_passes_on_rocksdb() {
    passes(Backing::Rocks).await;
}

#[tokio::test]
async fn openrafts_suite_passes_in_memory() {
    passes(Backing::Memory).await;
}

#[tokio::test(start_paused = true)]
async fn openrafts_suite_passes_on_the_simulated_disk() {
    passes(Backing::Sim(AtomicU64::new(1))).await;
}
