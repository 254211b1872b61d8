//! Room on the disk for what must still be written when the disk is full.
//!
//! A log that cannot be written ends its process. So new work is to be refused before that, which the owner of the log
//! does when [`Headroom::is_short`]; and 64 MiB are set aside in a file that goes away when there is nothing else, so that
//! releases, expiry and changes of members find room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

use crate::Error;

/// The file whose room is set aside.
const FILE_NAME: &str = "PLIMSOLL-RESERVE";
/// What is set aside, in bytes.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// The room is given up when less than this is left beside it.
const LET_GO_BYTES: u64 = 16 << 20;
/// A disk is short where less than a tenth of it is left, or less than this, whichever is less.
const ENOUGH_BYTES: u64 = 1 << 30;
/// Pause between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How full a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the file system.
    pub total_bytes: u64,
    /// Bytes of it that this process may still use, without those that are, or should be, set aside.
    pub free_bytes: u64,
}

impl Space {
    /// Of the file system that a path is on. Nothing is taken off for what should be set aside.
    ///
    /// # Errors
    /// What the system fails with.
    pub fn of(path: &Path) -> io::Result<Space> {
        let found = statvfs(path)?;
        let block = found.fragment_size();
        Ok(Space { total_bytes: found.blocks() * block, free_bytes: found.blocks_available() * block })
    }

    /// What should stay free: less is short.
    pub fn enough_bytes(&self) -> u64 {
        (self.total_bytes / 10).min(ENOUGH_BYTES)
    }

    /// Nothing new should be taken in.
    fn is_short(&self, was_short: bool) -> bool {
        let enough = self.enough_bytes();
        // A little more is wanted back than was lost, or it would change all the time.
        let enough = if was_short { enough + enough / 8 } else { enough };
        self.free_bytes < enough
    }
}

/// Keeps room in a directory, and knows how full its disk is.
pub struct Headroom {
    kept: Arc<Kept>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Kept {
    directory: PathBuf,
    free_bytes: AtomicU64,
    is_short: AtomicBool,
}

impl Headroom {
    /// Sets room aside in `directory`, and looks after it until this is dropped. On a disk that has not got that room it
    /// begins without.
    ///
    /// # Errors
    /// [`Error::Failed`] where the file system cannot be asked.
    pub fn keep(directory: &Path) -> Result<Headroom, Error> {
        let kept = Kept {
            directory: directory.to_owned(),
            free_bytes: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        };
        kept.look().map_err(|source| Error::failed("look at disk", directory, source))?;
        let kept = Arc::new(kept);
        let (stop, stopped) = mpsc::channel();
        let looker = Arc::clone(&kept);
        let look = move || {
            while stopped.recv_timeout(LOOK_AGAIN) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = looker.look() {
                    tracing::warn!(%error, "how full the disk is cannot be seen");
                }
            }
        };
        let thread = std::thread::Builder::new().name("plimsoll-headroom".into()).spawn(look);
        let thread = thread.map_err(|source| Error::failed("start headroom thread", directory, source))?;
        Ok(Headroom { kept, stop: Some(stop), thread: Some(thread) })
    }

    /// The disk is so full that nothing new should be taken in: less than a tenth of it is free, or less than 1 GiB,
    /// whichever is less.
    pub fn is_short(&self) -> bool {
        self.kept.is_short.load(Ordering::Relaxed)
    }

    /// Bytes that were free at the latest look, beside those that are, or should be, set aside.
    pub fn free_bytes(&self) -> u64 {
        self.kept.free_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Headroom {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the headroom thread panicked");
        }
    }
}

impl Kept {
    /// Looks once, and sets aside or gives up what is to be.
    fn look(&self) -> io::Result<()> {
        let path = self.directory.join(FILE_NAME);
        let held = fs::metadata(&path).map_or(0, |data| data.len());
        let found = Space::of(&self.directory)?;
        let beside = found.free_bytes;
        // Given up, the room is owed: it is for what must be written, and not for new work.
        let owed = RESERVE_BYTES.saturating_sub(held);
        let space = Space { free_bytes: beside.saturating_sub(owed), ..found };
        if held > 0 && beside < LET_GO_BYTES {
            tracing::warn!(free_bytes = beside, "the disk is full: the room that was set aside is given up");
            fs::remove_file(&path)?;
        } else if held == 0 && beside >= 2 * RESERVE_BYTES {
            set_aside(&path)?;
        }
        self.free_bytes.store(space.free_bytes, Ordering::Relaxed);
        let is_short = space.is_short(self.is_short.load(Ordering::Relaxed));
        if self.is_short.swap(is_short, Ordering::Relaxed) != is_short {
            let Space { free_bytes, total_bytes } = space;
            if is_short {
                tracing::warn!(
                    free_bytes,
                    total_bytes,
                    "the disk is nearly full: new requests are turned away"
                );
            } else {
                tracing::info!(free_bytes, total_bytes, "the disk has room again");
            }
        }
        Ok(())
    }
}

/// Makes the file with its blocks: they are the file system's word that the room is there.
fn set_aside(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    let length = i64::try_from(RESERVE_BYTES).expect("64 MiB fit");
    if let Err(error) = posix_fallocate(&file, 0, length) {
        drop(fs::remove_file(path));
        return Err(error.into());
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_disk_is_short_below_a_tenth_or_a_gibibyte() {
        let short = |total: u64, free: u64, was| {
            Space { total_bytes: total << 20, free_bytes: free << 20 }.is_short(was)
        };
        assert!(short(1_000, 99, false) && !short(1_000, 101, false));
        assert!(short(1_000, 101, true) && !short(1_000, 120, true));
        assert!(short(1_000_000, 1_023, false) && !short(1_000_000, 1_025, false));
    }

    /// A file system of 300 MiB in memory; unmounted when it goes.
    struct Small(tempfile::TempDir);

    impl Small {
        fn mount() -> Option<Small> {
            let dir = tempfile::tempdir().unwrap();
            let options = ["-t", "tmpfs", "-o", "size=300m", "tmpfs"];
            let mounted = Command::new("mount").args(options).arg(dir.path()).output();
            mounted.is_ok_and(|output| output.status.success()).then_some(Small(dir))
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            drop(Command::new("umount").arg(self.0.path()).output());
        }
    }

    #[test]
    fn room_is_set_aside_given_up_and_set_aside_again() {
        let Some(disk) = Small::mount() else {
            println!("room_is_set_aside_given_up_and_set_aside_again: skipped, nothing can be mounted here");
            return;
        };
        let at = disk.0.path();
        let kept = Kept {
            directory: at.to_owned(),
            free_bytes: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        };
        let held = || fs::metadata(at.join(FILE_NAME)).map_or(0, |data| data.len());
        let state = || {
            kept.look().unwrap();
            (held(), kept.is_short.load(Ordering::Relaxed))
        };
        assert_eq!(state(), (RESERVE_BYTES, false));
        fs::write(at.join("filler"), vec![1; 200 << 20]).unwrap();
        assert_eq!(state(), (RESERVE_BYTES, false), "36 MiB are left beside it, more than a tenth");
        fs::write(at.join("more"), vec![1; 10 << 20]).unwrap();
        assert_eq!(state(), (RESERVE_BYTES, true), "26 MiB");
        fs::write(at.join("grants"), vec![1; 15 << 20]).unwrap();
        assert_eq!(state(), (0, true), "11 MiB: it is given up");
        fs::write(at.join("releases"), vec![1; 50 << 20]).unwrap();
        assert_eq!(state(), (0, true), "and used");
        fs::remove_file(at.join("filler")).unwrap();
        assert_eq!(state(), (RESERVE_BYTES, false));
    }
}
