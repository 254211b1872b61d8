//! Directories as a stop, a kill and damage leave them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use plimsoll_types::Revision;
use tempfile::TempDir;

use super::harness::{PlainDialer, register, request, reserve, serving};
use crate::clock::SystemClock;
use crate::core::doctor::{Diagnosis, DoctorError, Health, Start, examine};
use crate::core::{Core, CoreConfig, Data};

async fn start(directory: &Path) -> Core {
    let config = CoreConfig {
        bootstrap: true,
        ..CoreConfig::new(1, "lab", "127.0.0.1:1", Data::Directory(directory.to_owned()))
    };
    let core =
        Core::start(config, Arc::new(PlainDialer), Arc::new(SystemClock::new())).await.expect("starts");
    serving(&core).await;
    core
}

/// A running core with some grants.
async fn used(directory: &Path) -> Core {
    let core = start(directory).await;
    register(&core, "node-01", 64_000, 0).await;
    for _ in 0..20 {
        reserve(&core, request(1_000)).await;
    }
    core
}

/// Every file with its bytes and the time of its last change.
fn picture(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(picture(&path));
        } else {
            let changed = entry.metadata().expect("there").modified().expect("known");
            files.insert(path.clone(), (fs::read(&path).expect("readable"), changed));
        }
    }
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a directory");
    copy(from, to.path());
    to
}

fn bad(diagnosis: &Diagnosis) -> Vec<&'static str> {
    diagnosis.checks.iter().filter(|check| check.health == Health::Bad).map(|check| check.name).collect()
}

/// Flips a bit in the middle of the largest file of a kind.
fn flip(directory: &Path, extension: &str) {
    let files = fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").path());
    let files = files.filter(|path| path.extension().is_some_and(|found| found == extension));
    let path = files.max_by_key(|path| fs::metadata(path).map_or(0, |data| data.len())).expect("such a file");
    let mut bytes = fs::read(&path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stop_and_a_kill_leave_is_sound_and_not_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let core = used(at).await;
    let refused = examine(at, |_| ()).expect_err("it runs");
    assert!(matches!(refused, DoctorError::InUse(_)), "{refused}");
    let digest = core.state_digest(Revision(0)).await.expect("read");
    let killed = copied(at);
    core.shutdown().await;
    drop(core);

    for directory in [at, killed.path()] {
        let before = picture(directory);
        let diagnosis = examine(directory, |_| ()).expect("looked at");
        assert!(picture(directory) == before, "something was changed");
        assert_eq!((diagnosis.start, diagnosis.is_sound()), (Start::Normal, true), "{:#?}", diagnosis.checks);
        let facts = &diagnosis.facts;
        assert_eq!((facts.cluster.as_str(), facts.node_id, facts.incarnation.len()), ("lab", 1, 32));
        assert_eq!(facts.digest, plimsoll_proto::digest::hex(&digest.digest));
        assert_eq!(facts.chain, plimsoll_proto::digest::hex(&digest.chain));
        assert_eq!((facts.revision, facts.reservations, facts.nodes), (digest.revision, 20, 1));
        assert_eq!(facts.history.map(|(_, last)| last), Some(digest.revision));
    }
    // A kill leaves the rows behind the log.
    let facts = examine(killed.path(), |_| ()).expect("looked at").facts;
    assert!(facts.rows_revision < facts.revision, "{facts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_with_what_a_start_would_do() {
    let directory = tempfile::tempdir().expect("a directory");
    used(directory.path()).await.shutdown().await;
    type Harm = fn(&Path);
    let cases: [(&str, Harm, Start); 6] = [
        ("log", |at| flip(&at.join("log"), "log"), Start::Refuse),
        ("log floor", |at| fs::remove_file(at.join("log/PLIMSOLL-FLOOR")).expect("there"), Start::Refuse),
        ("rows", |at| flip(&at.join("state"), "sst"), Start::Refuse),
        ("identity", |at| fs::write(at.join("identity.json"), "{}").expect("written"), Start::Refuse),
        ("rows", |at| fs::remove_dir_all(at.join("state")).expect("there"), Start::Refuse),
        (
            "snapshots",
            |at| {
                fs::create_dir_all(at.join("snapshots")).expect("made");
                fs::write(at.join("snapshots/snap-7"), "half").expect("written");
            },
            Start::Impaired,
        ),
    ];
    for (name, harm, start) in cases {
        // Without the log's beginning the rows cannot be made again.
        let copy = copied(directory.path());
        harm(copy.path());
        let diagnosis = examine(copy.path(), |_| ()).expect("looked at");
        if name == "rows" && !copy.path().join("state").exists() {
            // Nothing was let go of yet: the log alone makes all of it again.
            assert!(diagnosis.is_sound(), "{:#?}", diagnosis.checks);
            assert_eq!(diagnosis.facts.reservations, 20);
            continue;
        }
        assert_eq!(
            (bad(&diagnosis).as_slice(), diagnosis.start),
            (&[name][..], start),
            "{:#?}",
            diagnosis.checks
        );
        assert!(!diagnosis.is_sound());
        assert!(diagnosis.checks.iter().all(|check| check.health != Health::Bad || !check.fix.is_empty()));
    }
}

#[test]
fn an_empty_directory_is_a_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let diagnosis = examine(directory.path(), |_| ()).expect("looked at");
    assert_eq!((diagnosis.start, diagnosis.is_sound()), (Start::Empty, true));
    assert!(matches!(examine(&directory.path().join("none"), |_| ()), Err(DoctorError::Absent(_))));
    assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
}
