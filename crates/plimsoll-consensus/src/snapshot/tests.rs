//! Whole or nothing.

use std::fs;

use plimsoll_store::memory::MemoryEngine;
use plimsoll_store::{Engine as _, WriteBatch};

use super::*;

fn built(dir: &SnapshotDir, index: u64, rows: u8) -> (SnapshotMeta, SnapshotData) {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::default();
    for row in 0..rows {
        batch.put(vec![b'r', row], vec![row; 10]);
    }
    batch.put(&b"m"[..], &b"not a row"[..]);
    engine.write(batch).expect("memory takes it");
    let leader = crate::types::LeaderId { term: 3, node_id: 1 };
    let last = crate::types::LogId::new(leader, index);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: Default::default() };
    let data = dir.build("ours", b"r", &meta, engine.view().as_ref()).expect("it is built");
    (meta, data)
}

#[test]
fn what_is_built_loads_and_anything_else_does_not() {
    let (meta, data) = built(&SnapshotDir::Memory, 9, 3);
    let (head, rows) = data.load("ours").expect("it is whole");
    assert_eq!((head, rows.len()), (meta, 3));
    assert!(data.load("theirs").is_err());
    let Source::Memory(bytes) = &data.0 else { panic!("memory was asked for") };
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 4;
        assert!(SnapshotData::memory(flipped.into()).verify("ours").is_err(), "byte {at}");
        assert!(SnapshotData::memory(bytes.slice(..at)).verify("ours").is_err(), "cut at {at}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(SnapshotData::memory(longer.into()).verify("ours").is_err());
}

#[test]
fn two_files_stay_and_a_damaged_one_is_passed_over() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = SnapshotDir::Path(root.path().to_owned());
    for index in [10, 20, 30] {
        built(&dir, index, 5);
    }
    let names = files(root.path());
    assert_eq!(names.len(), 2);
    let newest =
        |dir: &SnapshotDir| dir.newest("ours").and_then(|(meta, _)| meta.last_log_id).map(|id| id.index);
    assert_eq!(newest(&dir), Some(30));
    let mut bytes = fs::read(&names[1]).expect("the newest");
    bytes.pop();
    fs::write(&names[1], bytes).expect("it is cut");
    assert_eq!(newest(&dir), Some(20));
}

#[test]
fn what_was_received_in_part_or_never_kept_leaves_no_file() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = SnapshotDir::Path(root.path().to_owned());
    let left = || fs::read_dir(root.path()).expect("the directory").count();
    let mut receiver = dir.receiver().expect("a file");
    let mut other = dir.receiver().expect("another file");
    receiver.push(b"half").expect("written");
    other.push(b"of another leader").expect("written");
    assert_eq!(left(), 2);
    drop(receiver);
    let data = other.finish().expect("all there");
    assert!(data.verify("ours").is_err());
    drop(data);
    assert_eq!(left(), 0);
    fs::write(root.path().join("snap-7.part"), b"a process died").expect("written");
    dir.tidy();
    assert_eq!(left(), 0);
}

#[test]
fn a_received_snapshot_is_kept_under_its_index() {
    let root = tempfile::tempdir().expect("a directory");
    let (meta, sent) = built(&SnapshotDir::Memory, 44, 200);
    let dir = SnapshotDir::Path(root.path().to_owned());
    let mut receiver = dir.receiver().expect("a file");
    for chunk in sent.chunks().expect("chunks") {
        receiver.push(&chunk.expect("a chunk")).expect("written");
    }
    let received = receiver.finish().expect("all there");
    let kept = dir.adopt(received, &meta).expect("kept");
    assert_eq!(kept.verify("ours").expect("whole"), meta);
    assert_eq!(fs::read_dir(root.path()).expect("the directory").count(), 1);
}
