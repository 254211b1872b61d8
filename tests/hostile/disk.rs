//! Disks that are too small, and disks that forget: the coordinator goes on as long as it can, and stops where it must.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_client::v1::ErrorReason;
use plimsoll_client::{Client, Error, v1};
use plimsoll_tests::hostile::Target;

use super::fleet;

/// Exit code of a coordinator whose storage failed for good.
const STORAGE: i32 = 74;

/// A file system in memory; unmounted when it goes.
struct Small(tempfile::TempDir);

impl Small {
    /// `None`, with a message, where mounts are forbidden.
    fn mount(mebibytes: u32, test: &str) -> Option<Small> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Small(dir));
        }
        println!("{test}: skipped, nothing can be mounted here");
        None
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Leaves so many mebibytes.
    fn fill_up_to(&self, left_mib: u64) {
        let free = plimsoll_free_mib(self.0.path());
        let filler = vec![1; usize::try_from(free.saturating_sub(left_mib) << 20).expect("a small disk")];
        std::fs::write(self.0.path().join("filler"), filler).expect("there is room");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("filler")).expect("it was there");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

fn plimsoll_free_mib(path: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-m"]).arg(path).output().expect("df runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number")
}

fn request(name: &str, label_bytes: usize) -> v1::CreateReservationRequest {
    let amounts = v1::Quantities { cpu_millis: 1, ..Default::default() };
    let labels = (0..label_bytes / 100).map(|label| (format!("l-{label}"), "v".repeat(100))).collect();
    let spec = v1::ReservationSpec {
        name: name.to_owned(),
        labels,
        requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
        ttl_ms: 3_600_000,
        auto_confirm: true,
        ..Default::default()
    };
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

async fn renew(client: &Client, lease: &v1::Reservation) {
    let name = lease.id.clone();
    let renew = v1::RenewReservationRequest { name, token: lease.token, ..Default::default() };
    client.renew_reservation(renew).await.expect("renewed");
}

async fn until(target: &Target, metric: &str, least: f64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = target.metric(metric).await;
        if found.is_some_and(|found| found >= least) {
            return;
        }
        assert!(Instant::now() < deadline, "{metric} is {found:?}, not {least}: {}", target.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_fit_is_put_off_and_made_when_there_is_room() {
    let test = "a_snapshot_that_does_not_fit_is_put_off_and_made_when_there_is_room";
    let Some(disk) = Small::mount(400, test) else { return };
    let mut target = Target::start_in("[limits]\nsnapshot_every = 300\nkeep_logs = 10\n", &disk.data()).await;
    let _nodes = fleet::register(std::slice::from_ref(&target.address), fleet::small(2)).await;
    let client = target.client().await;
    let lease = client.create_reservation(request("lease", 0)).await.expect("granted");
    let lease = lease.reservation.expect("a reservation");
    // Less than a tenth is free: a disk is short then, and full for snapshots.
    disk.fill_up_to(30);
    for _ in 0..800 {
        renew(&client, &lease).await;
    }
    until(&target, "plimsoll_snapshots_deferred_total", 1.0).await;
    assert_eq!(target.metric("plimsoll_raft_snapshot_index").await, Some(0.0), "none was made");
    assert!(target.exit().is_none(), "{}", target.log());
    disk.make_room();
    let deadline = Instant::now() + Duration::from_secs(40);
    while target.metric("plimsoll_raft_snapshot_index").await == Some(0.0) {
        assert!(Instant::now() < deadline, "no snapshot, though there is room: {}", target.log());
        renew(&client, &lease).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(target.exit().is_none(), "{}", target.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_has_a_reason_of_its_own_and_leases_are_kept() {
    let test = "a_full_disk_has_a_reason_of_its_own_and_leases_are_kept";
    let Some(disk) = Small::mount(400, test) else { return };
    let mut target = Target::start_in("", &disk.data()).await;
    let _nodes = fleet::register(std::slice::from_ref(&target.address), fleet::small(2)).await;
    let client = target.client().await;
    let lease = client.create_reservation(request("lease", 0)).await.expect("granted");
    let lease = lease.reservation.expect("a reservation");
    let once =
        v1::CreateReservationRequest { request_id: "asked-once-more-1".to_owned(), ..request("once", 0) };
    let answered = client.create_reservation(once.clone()).await.expect("granted");
    disk.fill_up_to(25);
    let deadline = Instant::now() + Duration::from_secs(20);
    // The SDK would ask again for as long as it may.
    let hasty = client.with_timeout(Duration::from_secs(1));
    let refused = loop {
        match hasty.create_reservation(request("more", 0)).await {
            Ok(_) => assert!(Instant::now() < deadline, "it takes requests on a full disk"),
            Err(Error::Refused(refused)) => break refused,
            Err(other) => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(refused.reason, ErrorReason::DiskFull, "{refused:?}");
    assert!(refused.retry_after_ms.is_some_and(|after| after > 0), "{refused:?}");
    assert!(refused.metadata.contains_key("disk_free_bytes"), "{refused:?}");
    for _ in 0..20 {
        renew(&client, &lease).await;
    }
    let again = hasty.create_reservation(once).await.expect("what was answered is answered again");
    assert_eq!(again.reservation.map(|made| made.id), answered.reservation.map(|made| made.id));
    disk.make_room();
    let deadline = Instant::now() + Duration::from_secs(20);
    while hasty.create_reservation(request("later", 0)).await.is_err() {
        assert!(Instant::now() < deadline, "it never takes requests again: {}", target.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(target.exit().is_none(), "{}", target.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_coordinator_finds_a_bit_that_turned_and_stops() {
    let mut target =
        Target::start("[limits]\nscrub_every_ms = 300\nsnapshot_every = 100\nkeep_logs = 10\n").await;
    let _nodes = fleet::register(std::slice::from_ref(&target.address), fleet::small(2)).await;
    let client = target.client().await;
    for index in 0..300 {
        client.create_reservation(request(&format!("r-{index}"), 2_000)).await.expect("granted");
    }
    until(&target, "plimsoll_scrub_passes_total", 2.0).await;
    assert!(target.exit().is_none(), "whole data are no finding: {}", target.log());
    // The log lets go of what a snapshot covers, and before that the rows go into tables.
    let table = || {
        let files = std::fs::read_dir(target.data().join("state")).expect("a folder").flatten();
        let tables =
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "sst"));
        tables.max_by_key(|path| std::fs::metadata(path).map_or(0, |data| data.len()))
    };
    let path = table().expect("a table");
    let mut bytes = std::fs::read(&path).expect("readable");
    let at = bytes.len() / 3;
    bytes[at] ^= 8;
    std::fs::write(&path, bytes).expect("written");
    let exit = target.wait_exit(Duration::from_secs(30)).await;
    let log = target.log();
    assert_eq!(exit.and_then(|exit| exit.code()), Some(STORAGE), "{log}");
    assert!(log.contains("damaged") && log.contains("plimsoll doctor"), "{log}");
}
