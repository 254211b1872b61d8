//! Small file-system helpers: directories and files that are durable once they are there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::Error;

/// Creates `dir` and its parents where absent, durably.
pub(crate) fn create_dir(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|source| Error::failed("create directory", dir, source))?;
    failpoint!("dir-created");
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent).map_err(|source| Error::failed("sync directory", parent, source)),
        None => Ok(()),
    }
}

/// Puts a file with these bytes at `path`: after a crash it is there whole or not at all.
pub(crate) fn create_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    failpoint!("whole-written");
    file.sync_all()?;
    failpoint!("whole-synced");
    fs::rename(&part, path)?;
    failpoint!("whole-renamed");
    path.parent().map_or(Ok(()), sync_dir)?;
    failpoint!("whole-there");
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
