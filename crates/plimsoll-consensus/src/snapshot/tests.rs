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

/// Rows that cannot be read to their end.
struct Failing;

impl plimsoll_store::View for Failing {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, plimsoll_store::Error> {
        Ok(None)
    }

    fn scan<'a>(&'a self, _prefix: &[u8], _from: &[u8]) -> plimsoll_store::engine::Rows<'a> {
        let locked = plimsoll_store::Error::Locked { dir: PathBuf::from("rows") };
        Box::new([Ok((Bytes::from_static(b"r1"), Bytes::new())), Err(locked)].into_iter())
    }
}

#[test]
fn what_cannot_be_built_leaves_no_file() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = SnapshotDir::Path(root.path().to_owned());
    let meta = SnapshotMeta { last_log_id: None, last_membership: Default::default() };
    assert!(dir.build("ours", b"r", &meta, &Failing).is_err());
    assert_eq!(fs::read_dir(root.path()).expect("the directory").count(), 0);
}

const CRASH_DIR: &str = "PLIMSOLL_SNAPSHOT_CRASH_DIR";

/// Builds two snapshots and receives a third, in the directory that the environment names.
#[test]
#[ignore = "started as a child by a_process_may_die_anywhere_in_building_or_receiving"]
fn child_builds_and_receives() {
    let Some(dir) = std::env::var_os(CRASH_DIR) else { return };
    let dir = SnapshotDir::Path(dir.into());
    for index in [20, 30] {
        println!("\nbuilding {index}");
        built(&dir, index, 40);
        println!("built {index}");
    }
    println!("building 40");
    let (meta, sent) = built(&SnapshotDir::Memory, 40, 40);
    let mut receiver = dir.receiver().expect("a file");
    for chunk in sent.chunks().expect("chunks") {
        receiver.push(&chunk.expect("a chunk")).expect("written");
    }
    let received = receiver.finish().expect("all there");
    dir.adopt(received, &meta).expect("kept");
    println!("built 40");
}

#[test]
fn a_process_may_die_anywhere_in_building_or_receiving() {
    use crate::failpoint::{LIST, VARIABLE};
    let run = |at: &Path, failpoint: &str| {
        let output = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "snapshot::tests::child_builds_and_receives", "--ignored", "--nocapture"])
            .env(CRASH_DIR, at)
            .env(VARIABLE, failpoint)
            .output()
            .expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let begun = || {
        let root = tempfile::tempdir().expect("a directory");
        built(&SnapshotDir::Path(root.path().to_owned()), 10, 40);
        root
    };
    let told = run(begun().path(), LIST);
    let mut places: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("failpoint ")).collect();
    assert!(told.contains("built 40"), "{told}");
    let all = places.clone();
    places.sort_unstable();
    places.dedup();
    assert!(places.len() >= 8, "{places:?}");
    for name in places {
        let hits = all.iter().filter(|found| **found == name).count();
        for hit in 1..=hits {
            let root = begun();
            let told = run(root.path(), &format!("{name}:{hit}"));
            let last = |word: &str| {
                let numbers = told.lines().filter_map(|line| line.strip_prefix(word)?.parse::<u64>().ok());
                numbers.max().unwrap_or(10)
            };
            assert!(!told.contains("built 40"), "nobody died at {name}:{hit}");
            let dir = SnapshotDir::Path(root.path().to_owned());
            dir.tidy();
            let (meta, data) = dir.newest("ours").expect("one is always whole");
            let newest = meta.last_log_id.map_or(0, |id| id.index);
            assert!((last("built ")..=last("building ")).contains(&newest), "{name}:{hit}: {newest}\n{told}");
            assert_eq!(data.load("ours").expect("whole").1.len(), 40);
            let left = fs::read_dir(root.path()).expect("the directory").count();
            assert!(left <= KEPT + 1, "{name}:{hit} leaves {left} files");
        }
    }
}
