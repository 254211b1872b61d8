//! A coordinator whose disk fills up.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Killed, command, start};

/// A file system in memory of 400 MiB; unmounted when it goes.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["-t", "tmpfs", "-o", "size=400m", "tmpfs"];
        let mounted = Command::new("mount").args(arguments).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).output());
    }
}

fn code(home: &Path, arguments: &[&str]) -> i32 {
    command(home, arguments).output().unwrap().status.code().unwrap_or(-1)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_refuses_new_work_and_keeps_what_there_is() {
    let Some(disk) = Small::mount() else {
        println!(
            "a_full_disk_refuses_new_work_and_keeps_what_there_is: skipped, nothing can be mounted here"
        );
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let (home, data) = (home.path(), disk.0.path().join("data"));
    let arguments = ["coordinator", "--listen", "127.0.0.1:0", "--bootstrap", "--data-dir"];
    let (mut coordinator, address) = start(home, &[&arguments[..], &[data.to_str().unwrap()]].concat());
    let address = address.as_str();
    let with = |arguments: &[&str]| code(home, &[arguments, &["--addr", address]].concat());
    until("it serves", || with(&["-q", "cluster", "status"]) == 0);
    let agent = command(home, &["agent", "--name", "n1", "--addr", address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _agent = Killed(agent.unwrap());
    let reserve = ["reserve", "--cpu", "0.1", "--confirm", "-q", "--now", "--timeout", "2s", "--ttl", "1m"];
    until("there is a node", || with(&reserve) == 0);
    let listed = command(home, &["get", "reservations", "-o", "name", "--addr", address]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let id = listed.lines().next().unwrap();

    // To the last byte.
    let filler = disk.0.path().join("filler");
    let fill = || {
        let to = format!("of={}", filler.display());
        let arguments = ["if=/dev/zero", &to, "bs=1M", "oflag=append", "conv=notrunc"];
        drop(Command::new("dd").args(arguments).output());
    };
    fill();
    until("what was set aside is given up", || !data.join("PLIMSOLL-RESERVE").exists());
    until("new work is refused", || with(&reserve) != 0);
    assert_eq!(with(&["renew", id]), 0);
    assert_eq!(with(&["release", id]), 0);
    assert!(coordinator.0.try_wait().unwrap().is_none(), "it runs on");
    std::fs::remove_file(&filler).unwrap();
    until("there is room again", || data.join("PLIMSOLL-RESERVE").exists() && with(&reserve) == 0);
}
