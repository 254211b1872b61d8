//! What the log promises beyond openraft's suite: exact reads, and the committed index travelling with appends.

use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use plimsoll_store::memory::MemoryEngine;
use plimsoll_store::sim::SimDisk;

use crate::log_store::LogStore;
use crate::types::{Entry, EntryPayload, LeaderId, LogId, Payload, Runtime, TypeConfig};

fn id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

fn entry(index: u64, bytes: usize) -> Entry {
    let payload = match index {
        0 => EntryPayload::Blank,
        _ => EntryPayload::Normal(Payload { bytes: vec![7; bytes].into(), decoded: None }),
    };
    Entry { log_id: id(index), payload }
}

async fn append(log: &mut LogStore, range: std::ops::Range<u64>, bytes: usize) {
    let (done, wait) = TypeConfig::oneshot();
    log.append(range.map(|index| entry(index, bytes)), IOFlushed::<TypeConfig>::signal(done))
        .await
        .expect("queued");
    wait.await.expect("answered").expect("durable");
}

fn open(disk: &SimDisk) -> LogStore {
    LogStore::open(Arc::new(disk.wal()), Arc::new(MemoryEngine::new())).expect("the log opens")
}

async fn with_log<F: Future<Output = ()>>(test: impl FnOnce(SimDisk, LogStore) -> F) {
    let disk = SimDisk::new(5);
    let log = open(&disk);
    Runtime::scope(1, test(disk, log)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_or_applied_is_exactly_what_was_asked_for() {
    with_log(|_, mut log| async move {
        append(&mut log, 0..10, 8).await;
        log.purge(id(3)).await.expect("purged");
        assert_eq!(log.limited_get_log_entries(4, 10).await.expect("all there").len(), 6);
        let gone = log.limited_get_log_entries(3, 10).await.expect("let go of meanwhile");
        assert!(gone.is_empty(), "the first is gone: a snapshot has it");
        assert!(log.limited_get_log_entries(4, 11).await.is_err(), "the last never was");
        assert!(log.limited_get_log_entries(7, 7).await.expect("nothing").is_empty());
        assert_eq!(log.try_get_log_entries(0..100).await.expect("what there is").len(), 6);
        let applied = |range| {
            let mut log = log.clone();
            async move {
                let items = futures_util::StreamExt::collect::<Vec<_>>(log.entries_stream(range).await).await;
                items.into_iter().collect::<Result<Vec<_>, _>>().map(|entries| entries.len())
            }
        };
        assert_eq!(applied(4..10).await.expect("all there"), 6);
        assert!(applied(2..6).await.is_err());
        assert_eq!(applied(8..12).await.expect("the end is open"), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_bounded_and_never_empty() {
    with_log(|_, mut log| async move {
        append(&mut log, 0..8, 3 << 20).await;
        let lengths = [(0, 2), (1, 1), (7, 1)];
        for (start, length) in lengths {
            assert_eq!(
                log.limited_get_log_entries(start, 8).await.expect("entries").len(),
                length,
                "{start}"
            );
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_committed_index_is_durable_with_the_next_append() {
    with_log(|disk, mut log| async move {
        append(&mut log, 0..4, 8).await;
        log.save_committed(Some(id(2))).await.expect("noted");
        assert_eq!(log.read_committed().await.expect("read"), Some(id(2)));
        append(&mut log, 4..5, 8).await;
        log.save_committed(Some(id(4))).await.expect("noted");
        drop(log);
        disk.crash();
        let mut log = open(&disk);
        assert_eq!(log.read_committed().await.expect("read"), Some(id(2)));
        assert_eq!(log.get_log_state().await.expect("state").last_log_id, Some(id(4)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_follow_what_is_appended_truncated_and_purged() {
    with_log(|disk, mut log| async move {
        append(&mut log, 0..11, 10).await;
        assert_eq!(log.bytes(), 100);
        log.truncate_after(Some(id(8))).await.expect("truncated");
        assert_eq!(log.bytes(), 80);
        log.purge(id(4)).await.expect("purged");
        assert_eq!(log.bytes(), 40);
        drop(log);
        disk.crash();
        assert_eq!(open(&disk).bytes(), 40);
    })
    .await;
}
