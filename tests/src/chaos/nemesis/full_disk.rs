//! The disk of one member fills up, and has room again later (D1).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Failed, Nemesis, Strike, Struck};
use crate::chaos::stage::Stage;

/// Room on the small disk, in mebibytes.
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

/// See the module.
pub(super) struct FullDisk;

impl Nemesis for FullDisk {
    fn name(&self) -> &'static str {
        "full-disk"
    }

    fn forbidden(&self) -> Option<String> {
        let folder = tempfile::tempdir().ok()?;
        SmallDisk::mount(folder.path()).err()
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let Some((id, disk)) = stage.small_disks.iter().next() else {
                return Err(Failed::Harness("no member has a small disk".to_owned()));
            };
            let id = *id;
            if !stage.ids().contains(&id) {
                return Ok(Struck { target: "nobody: its member was replaced".to_owned() });
            }
            disk.fill();
            tokio::time::sleep(LENGTH).await;
            let exit = stage.cluster.member_mut(id).wait_exit(Duration::ZERO);
            stage.small_disks[&id].free();
            match exit {
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
