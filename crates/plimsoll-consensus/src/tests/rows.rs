//! Rows that do not reach the engine are not claimed by what is written later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream;
use openraft::storage::{RaftSnapshotBuilder as _, RaftStateMachine as _};
use plimsoll_store::memory::{MemoryEngine, MemoryWal};
use plimsoll_store::{Engine, Error, View, WriteBatch};
use tokio::sync::watch;

use super::fixture::Pile;
use crate::log_store::LogStore;
use crate::machine::StateMachine;
use crate::snapshot::SnapshotDir;
use crate::types::{Entry, EntryPayload, LeaderId, LogId, Payload};

/// An engine whose writes fail for a while.
#[derive(Default)]
struct Moody {
    engine: MemoryEngine,
    fails: AtomicBool,
}

impl Engine for Moody {
    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::Failed {
                operation: "write",
                path: "moody".into(),
                source: "no space".into(),
            });
        }
        self.engine.write(batch)
    }

    fn replace_all(&self, batch: WriteBatch) -> Result<(), Error> {
        self.engine.replace_all(batch)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.engine.get(key)
    }

    fn view(&self) -> Box<dyn View> {
        self.engine.view()
    }

    fn sync(&self) -> Result<(), Error> {
        self.engine.sync()
    }

    fn approximate_bytes(&self) -> u64 {
        self.engine.approximate_bytes()
    }
}

fn open(engine: &Arc<Moody>, pile: &Arc<Pile>) -> StateMachine {
    let engine: Arc<dyn Engine> = engine.clone();
    let log = LogStore::open(Arc::new(MemoryWal::new()), Arc::clone(&engine)).expect("opens");
    let applied = watch::Sender::new(0);
    StateMachine::open("test".to_owned(), engine, pile.clone(), SnapshotDir::Memory, log, applied)
        .expect("opens")
}

async fn apply(machine: &mut StateMachine, index: u64, bytes: usize) -> std::io::Result<()> {
    let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
    let payload = EntryPayload::Normal(Payload { bytes: vec![7; bytes].into(), decoded: None });
    machine.apply(stream::iter([Ok((Entry { log_id, payload }, None))])).await
}

#[tokio::test]
async fn a_failed_write_is_not_covered_up_by_a_later_one() {
    let (engine, pile) = (Arc::new(Moody::default()), Arc::new(Pile::default()));
    let mut machine = open(&engine, &pile);
    apply(&mut machine, 1, 1 << 20).await.expect("written");
    engine.fails.store(true, Ordering::Relaxed);
    assert!(apply(&mut machine, 2, 1 << 20).await.is_err());
    engine.fails.store(false, Ordering::Relaxed);
    assert!(apply(&mut machine, 3, 1 << 20).await.is_err(), "entry 2 is in no row");
    assert!(
        machine.get_snapshot_builder().await.build_snapshot().await.is_err(),
        "nor can it be in a snapshot"
    );
    drop(machine);

    let found = Arc::new(Pile::default());
    let mut machine = open(&engine, &found);
    let (applied, _) = machine.applied_state().await.expect("read");
    assert_eq!(applied.map(|id| id.index), Some(1), "the log has the rest");
    assert_eq!(found.items.lock().len(), 1);
}
