//! What every log promises.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::oneshot;

use super::WalHome;
use crate::log_state::LogState;
use crate::{Error, Loaded, Op, Wal};

/// Runs every scenario, each in a home of its own.
pub(super) async fn run(home: &dyn Fn() -> WalHome) {
    a_new_log_is_empty(&home()).await;
    everything_is_there_after_reopening(&home()).await;
    truncation_makes_room_for_other_entries(&home()).await;
    purging_keeps_the_marker_and_never_goes_back(&home()).await;
    a_purge_may_run_ahead_of_the_log(&home()).await;
    callbacks_come_in_order(&home()).await;
    a_gap_is_corrupt(&home()).await;
    random_ops_agree_with_the_model(home).await;
}

/// Submits and waits until durable.
pub(crate) async fn submit(wal: &Arc<dyn Wal>, ops: Vec<Op>) -> io::Result<()> {
    let (done, result) = oneshot::channel();
    wal.submit(ops, Box::new(move |outcome| drop(done.send(outcome))));
    result.await.unwrap()
}

/// A put whose bytes tell its index and which write it was.
fn put(index: u64, version: u32) -> Op {
    Op::Put { index, bytes: format!("entry {index} version {version}").into() }
}

fn indexes(loaded: &Loaded) -> Vec<u64> {
    loaded.entries.iter().map(|(index, _)| *index).collect()
}

async fn a_new_log_is_empty(home: &WalHome) {
    assert_eq!(home().load().unwrap(), Loaded::default());
    assert_eq!(home().load().unwrap(), Loaded::default());
}

async fn everything_is_there_after_reopening(home: &WalHome) {
    let expected = Loaded {
        vote: Some("second".into()),
        committed: Some("".into()),
        purged: None,
        entries: vec![(0, "zero".into()), (1, "".into()), (2, vec![0; 100_000].into())],
    };
    {
        let wal = home();
        let entries = expected.entries.iter();
        let mut ops: Vec<Op> =
            entries.map(|(index, bytes)| Op::Put { index: *index, bytes: bytes.clone() }).collect();
        ops.push(Op::Vote { bytes: "first".into() });
        submit(&wal, ops).await.unwrap();
        submit(&wal, vec![]).await.unwrap();
        submit(&wal, vec![Op::Vote { bytes: "second".into() }, Op::Committed { bytes: "".into() }])
            .await
            .unwrap();
        assert_eq!(wal.load().unwrap(), expected);
    }
    assert_eq!(home().load().unwrap(), expected);
}

async fn truncation_makes_room_for_other_entries(home: &WalHome) {
    {
        let wal = home();
        submit(&wal, (0..10).map(|index| put(index, 1)).collect()).await.unwrap();
        submit(&wal, vec![Op::TruncateFrom { index: 4 }, put(4, 2), put(5, 2)]).await.unwrap();
        submit(&wal, vec![Op::TruncateFrom { index: 99 }, put(0, 3)]).await.unwrap();
    }
    let loaded = home().load().unwrap();
    assert_eq!(indexes(&loaded), [0, 1, 2, 3, 4, 5]);
    assert_eq!(loaded.entries[0].1, "entry 0 version 3");
    assert_eq!(loaded.entries[3].1, "entry 3 version 1");
    assert_eq!(loaded.entries[4].1, "entry 4 version 2");
    submit(&home(), vec![Op::TruncateFrom { index: 0 }]).await.unwrap();
    assert_eq!(indexes(&home().load().unwrap()), []);
}

async fn purging_keeps_the_marker_and_never_goes_back(home: &WalHome) {
    {
        let wal = home();
        submit(&wal, (0..10).map(|index| put(index, 1)).collect()).await.unwrap();
        submit(&wal, vec![Op::PurgeTo { index: 6, marker: "six".into() }]).await.unwrap();
    }
    {
        let wal = home();
        submit(&wal, vec![Op::PurgeTo { index: 3, marker: "three".into() }, put(2, 2)]).await.unwrap();
        submit(&wal, vec![Op::TruncateFrom { index: 8 }]).await.unwrap();
    }
    let loaded = home().load().unwrap();
    assert_eq!(loaded.purged, Some((6, Bytes::from("six"))));
    assert_eq!(indexes(&loaded), [7]);
}

async fn a_purge_may_run_ahead_of_the_log(home: &WalHome) {
    {
        let wal = home();
        submit(&wal, (0..4).map(|index| put(index, 1)).collect()).await.unwrap();
        submit(&wal, vec![Op::PurgeTo { index: 500, marker: "".into() }, put(501, 1), put(502, 1)])
            .await
            .unwrap();
    }
    let loaded = home().load().unwrap();
    assert_eq!(loaded.purged, Some((500, Bytes::new())));
    assert_eq!(indexes(&loaded), [501, 502]);
}

async fn callbacks_come_in_order(home: &WalHome) {
    const SUBMITS: u64 = 500;
    let wal = home();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (all_done, wait) = oneshot::channel();
    let mut all_done = Some(all_done);
    for index in 0..SUBMITS {
        let order = order.clone();
        let last = if index + 1 == SUBMITS { all_done.take() } else { None };
        wal.submit(
            vec![put(index, 1)],
            Box::new(move |outcome| {
                outcome.unwrap();
                order.lock().push(index);
                if let Some(last) = last {
                    last.send(()).unwrap();
                }
            }),
        );
    }
    wait.await.unwrap();
    assert_eq!(*order.lock(), (0..SUBMITS).collect::<Vec<_>>());
    assert_eq!(indexes(&wal.load().unwrap()), (0..SUBMITS).collect::<Vec<_>>());
}

async fn a_gap_is_corrupt(home: &WalHome) {
    let missing = |result| match result {
        Err(Error::Corrupt { index, .. }) => index,
        other => panic!("{other:?}"),
    };
    let wal = home();
    submit(&wal, vec![put(0, 1), put(1, 1), put(3, 1)]).await.unwrap();
    assert_eq!(missing(wal.load()), Some(2));
    submit(&wal, vec![Op::PurgeTo { index: 1, marker: "".into() }]).await.unwrap();
    assert_eq!(missing(wal.load()), Some(2));
    submit(&wal, vec![put(2, 1)]).await.unwrap();
    assert_eq!(indexes(&wal.load().unwrap()), [2, 3]);
}

/// Ops as a raft log makes them: entries follow each other, truncation may cut into them, purging may pass them.
pub(crate) fn arbitrary_ops() -> impl Strategy<Value = Vec<Vec<Op>>> {
    let step = (0_u8..12, 0_u64..6, 0_usize..20);
    proptest::collection::vec(proptest::collection::vec(step, 0..6), 1..30).prop_map(|groups| {
        let mut next = 0;
        let mut purged = None;
        let mut group_ops = Vec::new();
        for group in groups {
            let ops = group.into_iter().map(|(kind, back, size)| {
                let bytes = Bytes::from(vec![(next % 251) as u8; size]);
                match kind {
                    0 => {
                        next =
                            u64::saturating_sub(next, back).max(purged.map_or(0, |purged: u64| purged + 1));
                        Op::TruncateFrom { index: next }
                    }
                    1 if next > 0 => {
                        let index = u64::saturating_sub(next + 1, back.max(1));
                        purged = purged.max(Some(index));
                        next = next.max(index + 1);
                        Op::PurgeTo { index, marker: bytes }
                    }
                    2 => Op::Vote { bytes },
                    3 => Op::Committed { bytes },
                    _ => {
                        next += 1;
                        Op::Put { index: next - 1, bytes }
                    }
                }
            });
            let ops: Vec<Op> = ops.collect();
            group_ops.push(ops);
        }
        group_ops
    })
}

/// Reopens after every few groups, and compares with the model each time.
async fn random_ops_agree_with_the_model(home: &dyn Fn() -> WalHome) {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    for _ in 0..12 {
        let groups = arbitrary_ops().new_tree(&mut runner).unwrap().current();
        let home = home();
        let mut model = LogState::default();
        for some in groups.chunks(7) {
            let wal = home();
            for ops in some {
                ops.iter().for_each(|op| model.apply(op));
                submit(&wal, ops.clone()).await.unwrap();
            }
            drop(wal);
            assert_eq!(home().load().unwrap(), model.load(Path::new("model")).unwrap(), "{groups:?}");
        }
    }
}
