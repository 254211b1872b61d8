//! Files and directories that are durable once they are there. All that Plimsoll writes as a whole is written here.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 1 << 20;

/// Puts a file at `path` with what `write` writes: after a crash it is there whole or not at all. Its length in bytes.
///
/// # Errors
/// What `write` or the file system fails with; nothing stays of it then.
pub fn create_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<u64> {
    let part = part_of(path);
    let put = write_synced(&part, write).and_then(|bytes| rename(&part, path).map(|()| bytes));
    if put.is_err() {
        // The first error is the one to tell.
        drop(fs::remove_file(&part));
    }
    put
}

/// Writes a file, durable when this returns; its name may not be. Its length in bytes.
///
/// # Errors
/// What `write` or the file system fails with. What was written so far may be there then.
pub fn write_synced(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    failpoint!("whole-written");
    file.sync_all()?;
    failpoint!("whole-synced");
    Ok(file.metadata()?.len())
}

/// Gives a file another name in the same directory, durably.
///
/// # Errors
/// What the file system fails with.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    failpoint!("whole-renamed");
    sync_dir(parent_of(to))?;
    failpoint!("whole-there");
    Ok(())
}

/// Creates `dir` and its parents where absent; its name survives a power cut.
///
/// # Errors
/// What the file system fails with.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    failpoint!("dir-created");
    sync_dir(parent_of(dir))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the file system fails with.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Where a file is written before it gets its name: beside it.
fn part_of(path: &Path) -> PathBuf {
    let mut part = OsString::from(path.as_os_str());
    part.push(".part");
    part.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(create_whole(&path, |out| out.write_all(b"first")).unwrap(), 5);
        let failed = create_whole(&path, |out| {
            out.write_all(b"second")?;
            Err(io::Error::other("no"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else stays");
        create_whole(&path, |out| out.write_all(b"third")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        create_dir(&dir.path().join("a/b")).unwrap();
        assert!(dir.path().join("a/b").is_dir());
    }
}
