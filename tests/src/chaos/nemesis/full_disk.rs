//! The disk of one member fills up, and has room again later (D1).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Failed, Nemesis, Strike, Struck, Who};
use crate::chaos::setup::Setup;
use crate::chaos::stage::Stage;
use crate::chaos::status;

/// Room on each small disk, in mebibytes.
const DISK_MIB: usize = 512;
/// How long it is full.
const LENGTH: Duration = Duration::from_secs(4);
/// Exit code of a storage that failed for good (`docs/exit-codes.md`).
const STORAGE_FAILED: i32 = 74;

/// A file system in memory with little room. It is unmounted when it is dropped.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one.
    ///
    /// # Errors
    /// Where that is not allowed here.
    pub fn mount(path: &Path) -> Result<SmallDisk, String> {
        std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let size = format!("size={DISK_MIB}m");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(path).output();
        match status {
            Ok(output) if output.status.success() => Ok(SmallDisk { path: path.to_owned() }),
            Ok(output) => Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn fill(&self) {
        let chunk = vec![0u8; 1 << 16];
        let file = std::fs::File::create(self.path.join("filler"));
        if let Ok(mut file) = file {
            while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        }
    }

    fn free(&self) {
        drop(std::fs::remove_file(self.path.join("filler")));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the member may still have files open on it.
        drop(Command::new("umount").arg("-l").arg(&self.path).output());
    }
}

struct FullDisk(Who, &'static str);

/// Of anybody, and of the leader.
pub(super) fn all() -> Vec<Box<dyn Nemesis>> {
    vec![Box::new(FullDisk(Who::Anyone, "full-disk")), Box::new(FullDisk(Who::Leader, "full-disk-leader"))]
}

/// Whether small disks are to be had here, or why not.
fn mountable() -> Option<String> {
    let folder = tempfile::tempdir().ok()?;
    SmallDisk::mount(folder.path()).err()
}

impl Nemesis for FullDisk {
    fn name(&self) -> &'static str {
        self.1
    }

    fn forbidden(&self, _setup: &Setup) -> Option<String> {
        mountable()
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let id = self.0.pick(stage).await?;
            let disk = stage.small_disks.get(&id).ok_or_else(|| format!("c{id} has no small disk"))?;
            disk.fill();
            tokio::time::sleep(LENGTH).await;
            let led_on =
                self.0 == Who::Leader && status::leader(stage.access(), &stage.addresses()).await == Some(id);
            let exit = stage.cluster.member_mut(id).wait_exit(Duration::ZERO);
            stage.small_disks[&id].free();
            match exit {
                None if led_on => Ok(Struck { target: format!("c{id}, which went on leading") }),
                None => Ok(Struck { target: format!("c{id}, which went on") }),
                Some(exit) if exit.code() == Some(STORAGE_FAILED) => {
                    stage.restart(id).await.map_err(Failed::Product)?;
                    Ok(Struck { target: format!("c{id}, which stopped with {STORAGE_FAILED}") })
                }
                Some(exit) => {
                    let words = stage.last_words(id);
                    stage.restart(id).await.map_err(Failed::Product)?;
                    Err(Failed::Product(format!("c{id} ended with {exit} on a full disk: {words}")))
                }
            }
        })
    }
}
