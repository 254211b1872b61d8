//! A member on a disk that is too small for what others send.

use std::path::Path;
use std::process::Command;

use super::fixture::{Member, three, until};

/// A file system of 100 MiB in memory; unmounted when it goes.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = ["-t", "tmpfs", "-o", "size=100m", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Small(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_room_for_a_snapshot_refuses_it_and_takes_it_when_there_is_room() {
    let Some(disk) = Small::mount() else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let root = tempfile::tempdir().expect("a directory");
    let members = three(root.path(), 20).await;
    for item in 0..200 {
        assert!(members[0].propose(item).await);
    }
    until("the log was purged", || members[0].group.metrics().purged > 100).await;
    // Less than a tenth stays free: the disk is short for anything that is not a must.
    std::fs::write(disk.path().join("filler"), vec![1; 94 << 20]).expect("written");
    let late = Member::start(4, &disk.path().join("4"), None, 20).await;
    let (leader, info) = (members[0].group.clone(), late.info());
    let joining = tokio::spawn(async move { leader.add_learner(4, info).await });
    until("it refuses", || late.group.snapshots_deferred() > 0).await;
    assert!(members[0].propose(200).await, "the others go on");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(late.items().is_empty() && !late.group.metrics().members.contains_key(&4));
    let left = std::fs::read_dir(disk.path().join("4/snapshots")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing of it stays");
    std::fs::remove_file(disk.path().join("filler")).expect("it was there");
    until("it has all", || late.items().len() == 201).await;
    joining.await.expect("ran").expect("it learns");
    assert!(late.group.metrics().snapshot > 0);
    late.stop().await;
    for member in members {
        member.stop().await;
    }
}
