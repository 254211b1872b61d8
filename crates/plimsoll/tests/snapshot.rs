//! A ledger that is saved, lost with all that ran, and goes on as a new cluster.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Dev, Killed, json, run, start};
use serde_json::Value;

/// Tokens of the reservations by their ids.
fn tokens(home: &Path, address: &str) -> BTreeMap<String, String> {
    let all = json(home, &["get", "reservations", "--addr", address]);
    let text =
        |row: &Value, name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name}: {row}")).to_owned();
    all.as_array().unwrap().iter().map(|row| (text(row, "id"), text(row, "token"))).collect()
}

/// A coordinator on a folder, once it serves; with its address.
fn coordinator(home: &Path, arguments: &[&str]) -> (Killed, String) {
    let (child, address) = start(home, &[&["coordinator", "--listen", "127.0.0.1:0"], arguments].concat());
    let until = Instant::now() + Duration::from_secs(30);
    while run(home, &["-q", "cluster", "status", "--addr", &address]).0 != 0 {
        assert!(Instant::now() < until, "it never serves");
        std::thread::sleep(Duration::from_millis(50));
    }
    (child, address)
}

#[test]
fn a_saved_ledger_goes_on_after_everything_else_is_lost() {
    let mut dev = Dev::start(&[]);
    let home = dev.home.path().to_owned();
    for _ in 0..5 {
        assert_eq!(run(&home, &["reserve", "--cpu", "0.1", "--confirm", "-q"]).0, 0);
    }
    let granted = tokens(&home, &dev.address);
    assert_eq!(granted.len(), 5);
    let saved = json(&home, &["cluster", "snapshot", "save", "ledger.plim"]);
    assert_eq!(
        run(&home, &["cluster", "snapshot", "save", "ledger.plim"]).0,
        6,
        "a file is never written over"
    );
    let verified = json(&home, &["cluster", "snapshot", "verify", "ledger.plim"]);
    assert_eq!(saved["digest"], verified["digest"]);
    dev.process.0.kill().unwrap();
    dev.process.0.wait().unwrap();

    let data = home.join("data");
    let data = data.to_str().unwrap();
    let restore = ["cluster", "snapshot", "restore", "ledger.plim", "--data", data, "--cluster"];
    assert_eq!(run(&home, &[&restore[..], &[verified["cluster"].as_str().unwrap()]].concat()).0, 2);
    let made = json(&home, &[&restore[..], &["again"]].concat());
    let above: u64 = made["restored"]["revision"].as_str().unwrap().parse().unwrap();
    assert!(above >= 1_000_000_000);
    assert_eq!(json(&home, &["doctor", data])["start"], "normal");
    {
        let of_it = ["--node-id", "1", "--cluster", "again", "--data-dir", data];
        let (_running, address) = coordinator(&home, &of_it);
        assert_eq!(tokens(&home, &address), granted, "every acknowledged grant is there, with its token");
        assert_eq!(run(&home, &["doctor", data]).0, 6, "it is in use");
        let digest = json(&home, &["audit", "digest", "--addr", &address]);
        assert!(digest["revision"].as_str().unwrap().parse::<u64>().unwrap() > above);
    }

    let file = home.join("ledger.plim");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(run(&home, &["cluster", "snapshot", "verify", "ledger.plim"]).0, 74);
    assert_eq!(run(&home, &["cluster", "snapshot", "verify", "none"]).0, 5);
    assert_eq!(run(&home, &["doctor", "none"]).0, 5);
}

#[test]
fn a_damaged_folder_ends_with_its_own_code_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let data = at.join("data");
    let text = data.to_str().unwrap();
    drop(coordinator(at, &["--node-id", "3", "--cluster", "lab", "--data-dir", text, "--bootstrap"]));
    let (code, stdout, stderr) = run(at, &["doctor", text]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("A start would go on where this member stopped."), "{stdout}");
    assert!(stderr.contains("looking at log"), "{stderr}");
    std::fs::remove_file(data.join("log/PLIMSOLL-FLOOR")).unwrap();
    let (code, stdout, _) = run(at, &["doctor", text]);
    assert_eq!(code, 74);
    assert!(
        stdout.contains("A start would refuse this folder.") && stdout.contains("cluster replace 3"),
        "{stdout}"
    );
    let told: Value = serde_json::from_str(&run(at, &["doctor", text, "-o", "json"]).1).unwrap();
    assert_eq!((told["sound"].as_bool(), &told["start"]), (Some(false), &Value::from("refuse")));
}
