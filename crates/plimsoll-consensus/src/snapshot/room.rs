//! Room on the disk for the next snapshot. A member without it goes on with a log that grows, instead of ending.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_store::rocks::Space;
use tokio::time::Instant;

use super::{SnapshotDir, files};

/// Pause after a snapshot for which there was no room.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Rows take so many times more bytes in a snapshot than in the engine, which compresses them, at a guess.
const UNPACKED: u64 = 4;

/// Whether a snapshot fits on the disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    deferred: AtomicU64,
    /// When the one that was put off is tried again; `None` where none was.
    not_before: Mutex<Option<Instant>>,
    /// When a leader's snapshot was refused, and that was said.
    told: Mutex<Option<Instant>>,
}

/// There is no room for a snapshot that another member sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a snapshot of {bytes} bytes needs {needed_bytes} free bytes on the disk here, and {free_bytes} are free"
)]
pub(crate) struct NoRoom {
    bytes: u64,
    needed_bytes: u64,
    free_bytes: u64,
}

impl Room {
    /// True where the next snapshot fits and leaves enough behind for what must be written. `stored_bytes` is what the rows
    /// take in the engine.
    pub(crate) fn is_there(&self, dir: &SnapshotDir, stored_bytes: u64) -> bool {
        if matches!(dir, SnapshotDir::Memory) {
            return true;
        }
        if self.not_before.lock().is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let Some(space) = space(dir) else { return true };
        let needed_bytes = needed(dir, stored_bytes).saturating_add(space.enough_bytes());
        if space.free_bytes >= needed_bytes {
            *self.not_before.lock() = None;
            return true;
        }
        // Said once, and not each time that it is tried again.
        if self.not_before.lock().is_none() {
            tracing::warn!(
                needed_bytes,
                free_bytes = space.free_bytes,
                "there is no room on the disk for a snapshot: the log grows until there is"
            );
        }
        self.defer();
        false
    }

    /// A snapshot that was put off should be tried again now. openraft itself would wait for as many entries as lie between
    /// two snapshots, and without new ones for ever.
    pub(crate) fn is_due(&self) -> bool {
        self.not_before.lock().is_some_and(|at| Instant::now() >= at)
    }

    /// Whether a snapshot of so many bytes that another member sends fits: `times` 2 for its file and its rows before the file
    /// is there, 1 for its rows.
    ///
    /// # Errors
    /// Where it does not. A member whose disk becomes full ends; without the snapshot it is only behind.
    pub(crate) fn takes_in(&self, dir: &SnapshotDir, bytes: u64, times: u64) -> Result<(), NoRoom> {
        let Some(space) = space(dir) else { return Ok(()) };
        let needed_bytes = bytes.saturating_mul(times).saturating_add(bytes / 4 + space.enough_bytes());
        let free_bytes = space.free_bytes;
        if free_bytes >= needed_bytes {
            *self.told.lock() = None;
            return Ok(());
        }
        let refused = NoRoom { bytes, needed_bytes, free_bytes };
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.is_none_or(|at| now.duration_since(at) >= TRY_AGAIN) {
            *told = Some(now);
            self.deferred.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("this member is behind and cannot catch up: {refused}");
        }
        Err(refused)
    }

    /// The disk was full before a snapshot was whole.
    pub(crate) fn ran_out(&self, error: &io::Error) {
        tracing::warn!(%error, "the disk was full before the snapshot was whole: the log grows until there is room");
        self.defer();
    }

    /// How many snapshots were put off.
    pub(crate) fn deferred(&self) -> u64 {
        self.deferred.load(Ordering::Relaxed)
    }

    fn defer(&self) {
        self.deferred.fetch_add(1, Ordering::Relaxed);
        *self.not_before.lock() = Some(Instant::now() + TRY_AGAIN);
    }
}

/// How full the disk of the snapshots is; `None` in memory, and where that cannot be seen.
fn space(dir: &SnapshotDir) -> Option<Space> {
    let SnapshotDir::Path(path) = dir else { return None };
    // Where the folder is yet to be made its parent is on the same disk.
    Space::of(path).or_else(|error| path.parent().map_or(Err(error), Space::of)).ok()
}

/// True for what a full disk, or a full quota, fails with.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// About how large the next snapshot is: a quarter more than the last, or what the rows may come to.
fn needed(dir: &SnapshotDir, stored_bytes: u64) -> u64 {
    let SnapshotDir::Path(path) = dir else { return 0 };
    let last = files(path).pop().and_then(|path| std::fs::metadata(path).ok()).map(|data| data.len());
    last.map_or_else(|| stored_bytes.saturating_mul(UNPACKED), |bytes| (bytes + bytes / 4).max(stored_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_put_off_for_a_while() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = SnapshotDir::Path(root.path().join("snapshots"));
        let room = Room::default();
        assert!(room.is_there(&dir, 1 << 20), "a megabyte fits");
        assert!(!room.is_there(&dir, 1 << 60), "an exabyte does not");
        assert!(!room.is_there(&dir, 1 << 20), "not asked again so soon");
        assert!(!room.is_due(), "not yet");
        tokio::time::sleep(TRY_AGAIN).await;
        assert!(room.is_due(), "whoever looks tries again");
        assert!(room.is_there(&dir, 1 << 20));
        assert!(!room.is_due(), "nothing is put off any more");
        assert_eq!(room.deferred(), 1);
        assert!(room.is_there(&SnapshotDir::Memory, 1 << 60), "memory has its own bound");
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_member_sends_is_taken_where_it_fits() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = SnapshotDir::Path(root.path().join("snapshots"));
        let room = Room::default();
        assert_eq!(room.takes_in(&dir, 1 << 20, 2), Ok(()));
        for _ in 0..20 {
            let refused = room.takes_in(&dir, 1 << 60, 2).expect_err("an exabyte does not fit");
            assert!(refused.needed_bytes > refused.free_bytes, "{refused}");
        }
        assert_eq!(room.deferred(), 1, "counted and said once in a while: the leader asks again and again");
        assert_eq!(room.takes_in(&SnapshotDir::Memory, 1 << 60, 2), Ok(()));
    }

    #[test]
    fn the_next_one_is_like_the_last() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = SnapshotDir::Path(root.path().to_owned());
        assert_eq!(needed(&dir, 100), 400);
        std::fs::write(root.path().join("snap-00000000000000000007"), vec![0; 4_000]).expect("written");
        assert_eq!(needed(&dir, 100), 5_000);
        assert_eq!(needed(&dir, 9_000), 9_000);
    }
}
