//! What RocksDB makes of crashes and of damage: files as they would be left, opened again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::floor::FILE_NAME;
use super::{RocksEngine, RocksWal};
use crate::conformance::arbitrary_ops;
use crate::log_state::LogState;
use crate::{Engine, Error, Loaded, Op, Wal, WriteBatch};

fn put(index: u64, size: usize) -> Op {
    Op::Put { index, bytes: vec![index as u8; size].into() }
}

/// Submits and waits until durable.
fn submit(wal: &RocksWal, ops: Vec<Op>) {
    let (done, result) = mpsc::channel();
    wal.submit(ops, Box::new(move |outcome| done.send(outcome).unwrap()));
    result.recv().unwrap().unwrap();
}

/// A copy of a database as its files are right now, as a kill at this moment would leave them.
fn image(dir: &Path) -> TempDir {
    loop {
        let copy = tempfile::tempdir().unwrap();
        let names = names(dir);
        let copied = names.iter().all(|name| fs::copy(dir.join(name), copy.path().join(name)).is_ok());
        // A kill is one moment, a copy is not: start over where RocksDB cleaned up meanwhile.
        if copied && names == self::names(dir) {
            return copy;
        }
    }
}

fn names(dir: &Path) -> BTreeSet<OsString> {
    let names = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
    names.filter(|name| name != "LOCK").collect()
}

/// RocksDB's own newest log file.
fn newest_log(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

fn manifest(dir: &Path) -> PathBuf {
    dir.join(fs::read_to_string(dir.join("CURRENT")).unwrap().trim_end())
}

fn open_and_load(dir: &Path) -> Result<Loaded, Error> {
    RocksWal::open(dir)?.load()
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

/// A closed log with so many entries, each synced by itself.
fn closed_log(entries: u64, size: usize) -> (TempDir, Loaded) {
    let dir = tempfile::tempdir().unwrap();
    let wal = RocksWal::open(dir.path()).unwrap();
    submit(&wal, vec![Op::Vote { bytes: "vote".into() }]);
    (0..entries).for_each(|index| submit(&wal, vec![put(index, size)]));
    let loaded = wal.load().unwrap();
    assert_eq!(loaded.entries.len() as u64, entries);
    (dir, loaded)
}

#[test]
fn a_second_open_says_which_directory_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let wal = RocksWal::open(dir.path().join("log")).unwrap();
    let engine = RocksEngine::open(dir.path().join("rows")).unwrap();
    let locked = RocksWal::open(dir.path().join("log")).err().unwrap();
    assert!(
        matches!(&locked, Error::Locked { dir: named } if *named == dir.path().join("log")),
        "{locked:?}"
    );
    assert!(matches!(RocksEngine::open(dir.path().join("rows")), Err(Error::Locked { .. })));
    drop((wal, engine));
    RocksWal::open(dir.path().join("log")).unwrap();
    RocksEngine::open(dir.path().join("rows")).unwrap();
}

#[test]
fn concurrent_submits_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Arc::new(RocksWal::open(dir.path()).unwrap());
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let (wal, done) = (&wal, done.clone());
            scope.spawn(move || {
                for number in 0..100 {
                    let done = done.clone();
                    let op = put(thread * 100 + number, 64);
                    wal.submit(vec![op], Box::new(move |outcome| done.send(outcome).unwrap()));
                }
            });
        }
    });
    drop(done);
    assert_eq!(results.into_iter().map(Result::unwrap).count(), 1_000);
    assert_eq!(wal.load().unwrap().entries.len(), 1_000);
    assert!((1..=200).contains(&wal.syncs()), "{} syncs", wal.syncs());
}

#[test]
fn a_flipped_bit_in_the_middle_never_shortens_the_log() {
    let (dir, _) = closed_log(300, 1_000);
    let bits = fs::read(newest_log(dir.path())).unwrap().len() * 8;
    let copy = image(dir.path());
    flip(&newest_log(copy.path()), bits / 2);
    let error = open_and_load(copy.path()).unwrap_err();
    assert!(error.is_damage(), "{error:?}");
}

#[test]
fn a_record_that_looks_recycled_is_damage_and_not_an_endless_loop() {
    let (dir, _) = closed_log(30, 100);
    let log = fs::read(newest_log(dir.path())).unwrap();
    // Records follow each other with a header of 7 bytes: checksum, length, kind.
    let offset = (0..9).fold(0, |at, _| at + 7 + usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]])));
    assert_eq!(log[offset + 6], 1);
    for bit in 0..7 * 8 {
        let copy = image(dir.path());
        flip(&newest_log(copy.path()), offset * 8 + bit);
        let error = open_and_load(copy.path()).unwrap_err();
        assert!(error.is_damage(), "bit {bit}: {error:?}");
    }
}

#[test]
fn a_page_of_zeros_is_damage_unless_it_was_never_durable() {
    const PAGE: usize = 4_096;
    let (dir, durable) = closed_log(20, 5_000);
    let wal = RocksWal::open(dir.path()).unwrap();
    submit(&wal, vec![Op::Vote { bytes: "later".into() }]);
    let floor = fs::read(dir.path().join(FILE_NAME)).unwrap();
    let synced = fs::metadata(newest_log(dir.path())).unwrap().len() as usize;
    submit(&wal, (20..40).map(|index| put(index, 5_000)).collect());
    let whole = fs::read(newest_log(dir.path())).unwrap();
    for page in 0..whole.len() / PAGE {
        // The power went while the last group was being written, and this page did not make it.
        let copy = image(dir.path());
        let mut torn = whole.clone();
        let from = (page * PAGE).max(synced);
        torn[from..(page + 1) * PAGE].fill(0);
        fs::write(newest_log(copy.path()), &torn).unwrap();
        fs::write(copy.path().join(FILE_NAME), &floor).unwrap();
        assert_eq!(open_and_load(copy.path()).unwrap().entries, durable.entries, "page {page}");
        // The same page, but after the group had been reported durable.
        let copy = image(dir.path());
        fs::write(newest_log(copy.path()), torn).unwrap();
        let error = open_and_load(copy.path()).unwrap_err();
        assert!(error.is_damage(), "page {page}: {error:?}");
    }
}

#[test]
fn losing_a_synced_tail_is_not_taken_for_a_torn_one() {
    let (dir, _) = closed_log(50, 100);
    let copy = image(dir.path());
    let log = newest_log(copy.path());
    let whole = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(whole - 37).unwrap();
    let error = open_and_load(copy.path()).unwrap_err();
    assert!(matches!(error, Error::LostWrites { floor, found, .. } if found + 1 == floor), "{error:?}");
}

#[test]
fn a_log_without_its_floor_is_refused() {
    let (dir, _) = closed_log(3, 100);
    fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
    assert!(RocksWal::open(dir.path()).err().unwrap().is_damage());
}

#[test]
fn damage_inside_an_intact_database_is_named_by_its_index() {
    let (dir, _) = closed_log(10, 100);
    {
        let options = rocksdb::Options::default();
        let db = rocksdb::DB::open_cf(&options, dir.path(), ["default", "log", "meta"]).unwrap();
        let log = db.cf_handle("log").unwrap();
        let mut entry = db.get_cf(log, 6_u64.to_be_bytes()).unwrap().unwrap();
        entry[50] ^= 1;
        db.put_cf(log, 6_u64.to_be_bytes(), entry).unwrap();
    }
    let error = open_and_load(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { index: Some(6), .. }), "{error:?}");
}

/// Changes the stored log of a closed directory behind its back.
fn change(dir: &Path, change: impl FnOnce(&rocksdb::DB, &rocksdb::ColumnFamily, &rocksdb::ColumnFamily)) {
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir, ["default", "log", "meta"]).unwrap();
    change(&db, db.cf_handle("log").unwrap(), db.cf_handle("meta").unwrap());
}

#[test]
fn an_entry_of_a_cut_off_part_does_not_come_back() {
    let (dir, _) = closed_log(10, 100);
    let mut old = None;
    change(dir.path(), |db, log, _| old = db.get_cf(log, 8_u64.to_be_bytes()).unwrap());
    let wal = RocksWal::open(dir.path()).unwrap();
    submit(&wal, vec![Op::TruncateFrom { index: 7 }]);
    submit(&wal, vec![put(7, 300), put(8, 300)]);
    drop(wal);
    open_and_load(dir.path()).unwrap();
    // With its own right checksum, but of the log as it was before.
    change(dir.path(), |db, log, _| db.put_cf(log, 8_u64.to_be_bytes(), old.unwrap()).unwrap());
    let error = open_and_load(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { index: Some(8), .. }), "{error:?}");
}

#[test]
fn a_log_without_a_chain_gets_one() {
    let (dir, _) = closed_log(10, 100);
    let wal = RocksWal::open(dir.path()).unwrap();
    submit(&wal, vec![Op::PurgeTo { index: 3, marker: "m".into() }]);
    let loaded = wal.load().unwrap();
    drop(wal);
    // As the format before had it: no links, and none for the purged entry.
    change(dir.path(), |db, log, meta| {
        for (index, bytes) in &loaded.entries {
            let key = index.to_be_bytes();
            db.put_cf(log, key, crate::frame::seal(&key, bytes)).unwrap();
        }
        db.put_cf(meta, "format", crate::frame::seal(b"format", b"1")).unwrap();
        db.delete_cf(meta, "base").unwrap();
    });
    assert_eq!(open_and_load(dir.path()).unwrap(), loaded);
    let wal = RocksWal::open(dir.path()).unwrap();
    submit(&wal, vec![put(10, 100), Op::PurgeTo { index: 6, marker: "n".into() }]);
    drop(wal);
    assert_eq!(open_and_load(dir.path()).unwrap().entries.len(), 4);
}

#[test]
fn entries_are_kept_when_they_leave_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = || super::RocksWalOptions { write_buffer_bytes: 64 << 10, ..Default::default() };
    let wal = RocksWal::open_with(dir.path(), options()).unwrap();
    for index in 0..400 {
        submit(&wal, vec![put(index, 4_000), Op::Committed { bytes: index.to_be_bytes().to_vec().into() }]);
        if index % 100 == 99 {
            submit(&wal, vec![Op::PurgeTo { index: index - 50, marker: "m".into() }]);
        }
    }
    let before = wal.load().unwrap();
    drop(wal);
    assert_eq!(before.entries.len(), 50);
    assert_eq!(open_and_load(dir.path()).unwrap(), before);
    let tables = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
    assert!(tables.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).count() > 0);
}

#[test]
fn an_engine_without_what_it_synced_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    let write = |key: &'static str| {
        let mut batch = WriteBatch::new();
        batch.put(key, "value");
        engine.write(batch).unwrap();
    };
    write("synced");
    engine.sync().unwrap();
    let synced = fs::metadata(newest_log(dir.path())).unwrap().len();
    write("unsynced");
    engine.sync().unwrap();
    let unsynced = fs::metadata(newest_log(dir.path())).unwrap().len();
    let cut = |floor_of: &Path, length: u64| {
        let copy = image(dir.path());
        fs::copy(floor_of.join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
        fs::File::options().write(true).open(newest_log(copy.path())).unwrap().set_len(length).unwrap();
        RocksEngine::open(copy.path()).map(|engine| engine.get(b"unsynced").unwrap().is_some())
    };
    assert!(cut(dir.path(), unsynced).unwrap());
    let error = cut(dir.path(), unsynced - 1).unwrap_err();
    assert!(matches!(error, Error::LostWrites { .. }), "{error:?}");
    assert!(synced < unsynced);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bit: either the log is refused, or (where the bit does not matter) it is all there.
    #[test]
    fn any_flipped_bit_is_found(bit in 0_usize..1 << 30, in_manifest: bool) {
        thread_local!(static LOG: (TempDir, Loaded) = closed_log(30, 100));
        LOG.with(|(dir, loaded)| {
            let copy = image(dir.path());
            let file = if in_manifest { manifest(copy.path()) } else { newest_log(copy.path()) };
            flip(&file, bit % (fs::metadata(&file).unwrap().len() as usize * 8));
            match open_and_load(copy.path()) {
                Ok(found) => assert_eq!(&found, loaded),
                Err(error) => assert!(error.is_damage(), "{error:?}"),
            }
        });
    }

    /// A power cut somewhere in the groups after `synced`: the log is cut off anywhere past what was synced then, and
    /// opens with a prefix of whole groups that has at least the synced ones.
    #[test]
    fn a_torn_tail_opens_with_a_prefix(groups in arbitrary_ops(), synced: prop::sample::Index, cut: u64) {
        let dir = tempfile::tempdir().unwrap();
        let wal = RocksWal::open(dir.path()).unwrap();
        let log = newest_log(dir.path());
        let synced = synced.index(groups.len());
        let mut model = LogState::default();
        let mut floor = fs::read(dir.path().join(FILE_NAME)).unwrap();
        let mut states = vec![(fs::metadata(&log).unwrap().len(), Loaded::default())];
        for (number, ops) in groups.iter().enumerate() {
            ops.iter().for_each(|op| model.apply(op));
            submit(&wal, ops.clone());
            let state = (fs::metadata(&log).unwrap().len(), model.load(Path::new("model")).unwrap());
            if number <= synced {
                states.clear();
                // The floor is raised before the callback, so this is the one of this group.
                floor = fs::read(dir.path().join(FILE_NAME)).unwrap();
            }
            states.push(state);
        }
        let copy = image(dir.path());
        drop(wal);
        let (least, most) = (states[0].0, states.last().unwrap().0);
        let length = least + cut % (most - least + 1);
        fs::write(copy.path().join(FILE_NAME), floor).unwrap();
        fs::File::options().write(true).open(newest_log(copy.path())).unwrap().set_len(length).unwrap();
        let expected = &states.iter().rfind(|(end, _)| *end <= length).unwrap().1;
        prop_assert_eq!(&open_and_load(copy.path()).unwrap(), expected);
        // And it goes on from there.
        let wal = RocksWal::open(copy.path()).unwrap();
        submit(&wal, vec![Op::Vote { bytes: "after".into() }]);
        drop(wal);
        prop_assert_eq!(open_and_load(copy.path()).unwrap().vote, Some("after".into()));
    }

    /// The simulated disk and RocksDB, given the same groups and crashes at the same points, hold the same. What was not
    /// acknowledged may differ, so all is before a crash.
    #[test]
    fn a_crash_leaves_the_same_on_the_simulated_disk(
        groups in arbitrary_ops(), crashes in prop::collection::vec(any::<bool>(), 30), seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut dir = tempfile::tempdir().unwrap();
        let mut wal = RocksWal::open(dir.path()).unwrap();
        let disk = crate::sim::SimDisk::new(seed);
        for (ops, crash) in groups.iter().zip(crashes.iter().cycle()) {
            submit(&wal, ops.clone());
            let sim: Arc<dyn Wal> = Arc::new(disk.wal());
            runtime.block_on(crate::conformance::submit(&sim, ops.clone())).unwrap();
            if *crash {
                let left = image(dir.path());
                drop(wal);
                dir = left;
                wal = RocksWal::open(dir.path()).unwrap();
                disk.crash();
                prop_assert_eq!(wal.load().unwrap(), disk.wal().load().unwrap());
            }
        }
        prop_assert_eq!(wal.load().unwrap(), disk.wal().load().unwrap());
    }

    /// Kills at random points between groups, each time going on from the files that were left.
    #[test]
    fn a_log_reopened_after_kills_agrees_with_the_model(
        groups in arbitrary_ops(), kills in prop::collection::vec(any::<bool>(), 30),
    ) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut wal = RocksWal::open(dir.path()).unwrap();
        let mut model = LogState::default();
        for (ops, kill) in groups.iter().zip(kills.iter().cycle()) {
            ops.iter().for_each(|op| model.apply(op));
            submit(&wal, ops.clone());
            if *kill {
                let left = image(dir.path());
                drop(wal);
                dir = left;
                wal = RocksWal::open(dir.path()).unwrap();
                prop_assert_eq!(wal.load().unwrap(), model.load(Path::new("model")).unwrap());
            }
        }
        prop_assert_eq!(wal.load().unwrap(), model.load(Path::new("model")).unwrap());
    }
}
