//! What the simulated disk does that a real one would do only on a bad day.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::{SimDisk, SimFaults};
use crate::conformance::{arbitrary_ops, submit};
use crate::log_state::LogState;
use crate::{Engine, Error, Loaded, Op, Wal, WriteBatch};

fn put(index: u64) -> Op {
    Op::Put { index, bytes: vec![index as u8; 40].into() }
}

fn run<F: Future>(future: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// Every log that a crash may leave: the model after each prefix of the ops.
fn prefixes(groups: &[Vec<Op>]) -> Vec<Loaded> {
    let mut model = LogState::default();
    let mut states = vec![Loaded::default()];
    for op in groups.iter().flatten() {
        model.apply(op);
        states.push(model.load(Path::new("model")).unwrap());
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_crash_leaves_a_prefix_with_all_that_was_acknowledged(
        seed: u64, groups in arbitrary_ops(), crash_after_ms in 0_u64..40,
    ) {
        let leave = || run(async {
            let disk = SimDisk::with_faults(seed, SimFaults { torn_tail_permille: 700, ..SimFaults::default() });
            let wal = disk.wal();
            let acknowledged = Arc::new(Mutex::new(0));
            for (number, ops) in groups.iter().enumerate() {
                let acknowledged = acknowledged.clone();
                wal.submit(ops.clone(), Box::new(move |outcome| {
                    outcome.unwrap();
                    *acknowledged.lock() = number + 1;
                }));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(crash_after_ms)).await;
            disk.crash();
            let acknowledged = *acknowledged.lock();
            (acknowledged, disk.wal().load().unwrap())
        });
        let (acknowledged, left) = leave();
        let durable_ops: usize = groups[..acknowledged].iter().map(Vec::len).sum();
        prop_assert!(prefixes(&groups)[durable_ops..].contains(&left), "{left:?} after {acknowledged} groups");
        prop_assert_eq!(leave(), (acknowledged, left), "the same seed leaves the same");
    }

    #[test]
    fn an_engine_keeps_whole_batches_and_all_that_was_synced(seed: u64, batches in 0_u32..60, synced in 0_u32..60) {
        let disk = SimDisk::new(seed);
        let engine = disk.engine();
        for number in 0..batches {
            let mut batch = WriteBatch::new();
            batch.put("one", number.to_be_bytes().to_vec());
            batch.put("other", number.to_be_bytes().to_vec());
            engine.write(batch).unwrap();
            if number == synced {
                engine.sync().unwrap();
            }
        }
        disk.crash();
        prop_assert!(engine.get(b"one").is_err());
        let engine = disk.engine();
        let last = engine.get(b"one").unwrap();
        prop_assert_eq!(&last, &engine.get(b"other").unwrap());
        let last = last.map(|last| u32::from_be_bytes(last.as_ref().try_into().unwrap()));
        prop_assert!(last < Some(batches));
        if synced < batches {
            prop_assert!(last >= Some(synced));
        }
    }
}

#[test]
fn waiting_ops_share_a_sync() {
    run(async {
        let disk = SimDisk::new(1);
        let wal: Arc<dyn Wal> = Arc::new(disk.wal());
        for index in 0..100 {
            wal.submit(vec![put(index)], Box::new(|outcome| outcome.unwrap()));
        }
        submit(&wal, vec![put(100)]).await.unwrap();
        assert!(disk.syncs() <= 2, "{}", disk.syncs());
    });
}

#[test]
fn a_sync_takes_its_seeded_time() {
    let times = |seed| {
        run(async {
            let disk = SimDisk::new(seed);
            let wal: Arc<dyn Wal> = Arc::new(disk.wal());
            let mut times = Vec::new();
            for index in 0..20 {
                let begin = tokio::time::Instant::now();
                submit(&wal, vec![put(index)]).await.unwrap();
                times.push(begin.elapsed());
            }
            times
        })
    };
    assert_eq!(times(1), times(1));
    assert_ne!(times(1), times(2));
    // The clock of tokio has whole milliseconds.
    let allowed = Duration::from_micros(500)..=Duration::from_millis(6);
    assert!(times(1).iter().all(|time| allowed.contains(time)), "{:?}", times(1));
}

#[test]
fn a_dead_handle_says_nothing_more() {
    run(async {
        let disk = SimDisk::new(3);
        let old = disk.wal();
        old.submit(vec![put(0)], Box::new(|_| panic!("called after the crash")));
        disk.crash();
        old.submit(vec![put(1)], Box::new(|_| panic!("called after the crash")));
        assert!(old.load().is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(disk.wal().load().unwrap().entries.len() <= 1);
        let view = disk.engine().view();
        disk.wipe();
        assert!(view.get(b"a").unwrap().is_none());
        assert_eq!(disk.wal().load().unwrap(), Loaded::default());
    });
}

#[test]
fn a_failed_sync_is_final_until_the_crash() {
    run(async {
        let disk = SimDisk::new(4);
        let wal: Arc<dyn Wal> = Arc::new(disk.wal());
        submit(&wal, vec![put(0)]).await.unwrap();
        disk.set_faults(SimFaults { fail_sync_permille: 1_000, ..SimFaults::default() });
        assert!(!disk.has_failed());
        assert!(submit(&wal, vec![put(1)]).await.is_err());
        assert!(disk.has_failed());
        assert!(disk.engine().sync().is_err());
        disk.set_faults(SimFaults::default());
        assert!(submit(&wal, vec![put(2)]).await.is_err());
        assert!(disk.engine().sync().is_err());
        disk.crash();
        assert!(!disk.has_failed());
        let left = disk.wal().load().unwrap().entries.len() as u64;
        assert!((1..=3).contains(&left), "{left}");
        submit(&(Arc::new(disk.wal()) as Arc<dyn Wal>), vec![put(left)]).await.unwrap();
        disk.engine().sync().unwrap();
    });
}

#[test]
fn a_flipped_bit_is_reported_with_its_index() {
    run(async {
        let disk = SimDisk::new(5);
        assert_eq!(disk.flip_bit(), None);
        let wal: Arc<dyn Wal> = Arc::new(disk.wal());
        submit(&wal, (0..20).map(put).collect()).await.unwrap();
        let flipped = disk.flip_bit();
        disk.crash();
        match disk.wal().load() {
            Err(Error::Corrupt { index, .. }) => assert_eq!(index, flipped),
            other => panic!("{other:?}"),
        }
        disk.mend();
        assert_eq!(disk.wal().load().unwrap().entries.len(), 20);
    });
}

#[test]
fn a_log_goes_on_after_its_runtime_is_gone() {
    let disk = SimDisk::new(6);
    run(async { disk.wal().submit(vec![put(0)], Box::new(|_| {})) });
    run(async {
        let wal: Arc<dyn Wal> = Arc::new(disk.wal());
        submit(&wal, vec![put(1)]).await.unwrap();
        assert_eq!(wal.load().unwrap().entries.len(), 2);
    });
}
