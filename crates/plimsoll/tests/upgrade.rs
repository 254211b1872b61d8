//! A ledger of version 1, written by an earlier build, goes on under this one and is raised to the newest version.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Killed, json, run, start};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/version-1").join(name)
}

/// What the earlier build said of its ledger.
fn said_then() -> Value {
    serde_json::from_str(&std::fs::read_to_string(recorded("digest.json")).unwrap()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// Coordinator `id` on its folder, where it was or on a port that is free.
fn member(home: &Path, id: &str, cluster: &str, listen: &str) -> (Killed, String) {
    let data = home.join(format!("data-{id}"));
    let data = data.to_str().unwrap();
    let arguments =
        ["coordinator", "--node-id", id, "--cluster", cluster, "--listen", listen, "--data-dir", data];
    start(home, &arguments)
}

/// Asks again until it succeeds.
fn until(home: &Path, arguments: &[&str]) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, stdout, stderr) = run(home, arguments);
        if code == 0 {
            return stdout;
        }
        assert!(Instant::now() < deadline, "{arguments:?}: {stderr}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ledger version in force, and the newest that each member that answers knows.
fn versions(home: &Path, address: &str) -> Vec<(u64, u64)> {
    let rows = json(home, &["cluster", "status", "--addr", address]);
    let number = |row: &Value, name: &str| row["status"][name].as_u64();
    let rows = rows.as_array().unwrap().iter();
    rows.filter_map(|row| Some((number(row, "ledgerVersion")?, number(row, "supportedVersion")?))).collect()
}

#[test]
fn a_folder_of_version_1_opens_goes_on_by_its_rules_and_is_upgraded() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    copy(&recorded("data"), &home.join("data-1"));
    assert_eq!(json(home, &["doctor", "data-1"])["start"], "normal");
    let (_running, one) = member(home, "1", "recorded", "127.0.0.1:0");
    until(home, &["-q", "cluster", "status", "--addr", &one]);

    // It has everything that the earlier build wrote, by the same hashes.
    let said = said_then();
    let log = until(home, &["audit", "log", "--addr", &one]);
    let mut records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let last = records.find(|record| record["revision"] == said["revision"]).unwrap();
    assert_eq!(last["chainHash"], said["chainHash"]);
    assert_eq!(versions(home, &one), [(1, 16)]);

    let half_a_gpu = ["reserve", "--gpu", "0.5", "--ttl", "1h", "--hold", "1h", "--addr", &one];
    let half_a_gpu = [&half_a_gpu[..], &["--request-id", "recorded-half-a-gpu", "-q"]].concat();
    let before = json(home, &half_a_gpu);
    assert_eq!(before["allocations"][0]["node"], "n1", "{before}");
    until(home, &["cluster", "upgrade", "--addr", &one]);
    assert_eq!(versions(home, &one), [(16, 16)]);
    // From here on an answer keeps the names in it.
    until(home, &["cancel", "r-0005", "r-0009", "r-0011", "--addr", &one]);
    until(home, &["node", "remove", "n1", "--addr", &one]);
    assert_eq!(json(home, &half_a_gpu), before);
}

#[test]
fn a_cluster_of_version_1_is_upgraded_once_all_members_can() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let file = recorded("recorded.plim");
    let file = file.to_str().unwrap();
    assert_eq!(json(home, &["cluster", "snapshot", "verify", file])["digest"], said_then()["digest"]);
    let advertised = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap();
    let one = advertised.to_string();
    let restore = ["cluster", "snapshot", "restore", file, "--data", "data-1", "--cluster", "again"];
    assert_eq!(run(home, &[&restore[..], &["--advertise", &one]].concat()).0, 0);

    // Two more members, of which one is down.
    let (_first, one) = member(home, "1", "again", &one);
    until(home, &["-q", "cluster", "status", "--addr", &one]);
    let (_second, two) = member(home, "2", "again", "127.0.0.1:0");
    let (third, three) = member(home, "3", "again", "127.0.0.1:0");
    for address in [&two, &three] {
        until(home, &["cluster", "join", address, "--addr", &one]);
    }
    drop(third);
    let (code, _, said) = run(home, &["cluster", "upgrade", "--addr", &one]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("member 3 at {three}: it did not answer")), "{said}");
    assert!(said.contains("UNSUPPORTED_VERSION"), "{said}");
    let (_third, _) = member(home, "3", "again", &three);
    let planned = until(home, &["cluster", "upgrade", "--dry-run", "--addr", &one, "-o", "json"]);
    let planned: Value = serde_json::from_str(&planned).unwrap();
    assert_eq!(planned.as_array().map(Vec::len), Some(3), "{planned}");
    assert_eq!(versions(home, &one), [(1, 16); 3]);
    let (code, _, said) = run(home, &["cluster", "upgrade", "--to", "1000", "--addr", &one]);
    assert_eq!(code, 1, "nobody knows it: {said}");

    until(home, &["cluster", "upgrade", "--to", "2", "--addr", &one]);
    until(home, &["cluster", "upgrade", "--to", "2", "--addr", &two]);
    let (code, _, said) = run(home, &["cluster", "upgrade", "--to", "1", "--addr", &one]);
    assert_eq!(code, 1, "versions only grow: {said}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let says = |address: &String| {
            let said = json(home, &["audit", "digest", "--addr", address]);
            (said["revision"].clone(), said["digest"].clone(), said["chainHash"].clone())
        };
        let said = [&one, &two, &three].map(says);
        if said[0] == said[1] && said[1] == said[2] {
            break;
        }
        assert!(Instant::now() < deadline, "{said:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(versions(home, &one), [(2, 16); 3]);
    until(home, &["cluster", "upgrade", "--addr", &one]);
    assert_eq!(versions(home, &one), [(16, 16); 3]);
}

#[test]
fn a_new_cluster_begins_at_the_newest_version() {
    let dev = common::Dev::start(&[]);
    let seen = versions(dev.home.path(), &dev.address);
    assert!(seen.len() == 1 && seen[0].0 == seen[0].1, "{seen:?}");
}
