//! Real processes: a writer that is killed in the middle, and a second process at a directory that is in use.
//!
//! The test binary starts itself again as the child, by the name of an ignored test and an environment variable.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plimsoll_store::rocks::RocksWal;
use plimsoll_store::{Error, Op, Wal};

const DIR: &str = "PLIMSOLL_STORE_TEST_DIR";

/// What each entry holds, so that a wrong one is noticed.
fn payload(index: u64) -> Vec<u8> {
    format!("entry {index} ").into_bytes().repeat(20)
}

/// Starts this binary as a child that runs one of the ignored tests below.
fn start(child: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// `None` where a child is run by itself, and then has nothing to do.
fn dir_of_child() -> Option<OsString> {
    std::env::var_os(DIR)
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for round in 0..4 {
        let mut child = start("child_appends_until_killed", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut acknowledged = None;
        let wanted = next + 200 * (round + 1);
        for line in lines.by_ref() {
            // The harness of the child prints lines of its own.
            acknowledged = line.strip_prefix("durable ").map_or(acknowledged, |index| index.parse().ok());
            if acknowledged >= Some(wanted) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Lines already in the pipe were acknowledged too; the last may be cut off and then is not counted.
        let rest: Vec<String> = lines.collect();
        let complete = &rest[..rest.len().saturating_sub(1)];
        let last = complete.iter().rev().find_map(|line| line.strip_prefix("durable ")?.parse().ok());
        let acknowledged: u64 = last.or(acknowledged).unwrap();
        assert!(acknowledged >= wanted);

        let loaded = RocksWal::open(dir.path()).unwrap().load().unwrap();
        next = loaded.entries.len() as u64;
        assert!(next > acknowledged, "{acknowledged} was acknowledged, {next} entries are left");
        for (expected, (index, bytes)) in (0..).zip(&loaded.entries) {
            assert_eq!((*index, &bytes[..]), (expected, &payload(expected)[..]));
        }
    }
}

#[test]
#[ignore = "started as a child by what_was_acknowledged_survives_a_kill"]
fn child_appends_until_killed() {
    let Some(dir) = dir_of_child() else { return };
    let wal = RocksWal::open(dir).unwrap();
    let next = wal.load().unwrap().entries.len() as u64;
    for index in next.. {
        let op = Op::Put { index, bytes: payload(index).into() };
        wal.submit(
            vec![op],
            Box::new(move |outcome| {
                outcome.unwrap();
                println!("durable {index}");
            }),
        );
        // Slower than the disk at times, so that groups of every size are cut.
        if index % 16 == 0 {
            std::thread::sleep(Duration::from_micros(index % 700));
        }
    }
}

#[test]
fn a_directory_held_by_another_process_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start("child_holds_the_directory", dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "open"));
    let error = RocksWal::open(dir.path()).err().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(&error, Error::Locked { dir: named } if named == dir.path()), "{error:?}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    RocksWal::open(dir.path()).unwrap();
}

#[test]
#[ignore = "started as a child by a_directory_held_by_another_process_is_locked"]
fn child_holds_the_directory() {
    let Some(dir) = dir_of_child() else { return };
    let _wal = RocksWal::open(dir).unwrap();
    // A line of its own: the harness may have begun one.
    println!("\nopen");
    std::thread::sleep(Duration::from_secs(60));
}
