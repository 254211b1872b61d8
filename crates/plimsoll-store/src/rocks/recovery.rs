//! Looks at RocksDB's log files before RocksDB does.
//!
//! RocksDB by itself is not enough, in any of its recovery modes: it passes over a record whose header became zeros,
//! with the rest of its block, without a word; one flipped bit that makes a record look recycled sends it into an
//! endless loop; and a group torn by a power cut in the middle, its last page written and an earlier one not, is a
//! damaged log to it. So damage is found here. What was never reported durable is cut off, everything else refused.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::logfile;
use crate::Error;

/// How much may have been on its way to the disk when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InFlight {
    /// One batch, because each is synced before the next is written.
    OneBatch,
    /// Any number, in any order.
    Many,
}

/// Prepares the database in `dir` for opening; `floor` is the last sequence number known to be durable. The caller
/// holds the directory, and checks after opening that the floor was reached.
///
/// # Errors
/// [`Error::Corrupt`] for damage that a crash cannot have left; nothing is changed then.
pub(super) fn prepare(dir: &Path, floor: u64, in_flight: InFlight) -> Result<(), Error> {
    check_manifest(dir)?;
    let files = log_files(dir).map_err(|source| Error::failed("list log files", dir, source))?;
    let mut last_sequence = None;
    for (number, path) in files.iter().enumerate() {
        let bytes = fs::read(path).map_err(|source| Error::failed("read log file", path, source))?;
        let scan = logfile::scan(&bytes);
        last_sequence = scan.last_sequence.or(last_sequence);
        let Some(damage) = scan.damage else { continue };
        let newest = number + 1 == files.len();
        let durable = last_sequence.is_some_and(|last| last < floor);
        if !newest || durable || (in_flight == InFlight::OneBatch && scan.goes_on) {
            let detail = format!("{damage} after {} intact bytes", scan.intact_bytes);
            return Err(Error::corrupt(path, None, detail));
        }
        tracing::warn!(path = %path.display(), intact_bytes = scan.intact_bytes, damage, "cutting off a torn tail");
        cut_off(path, &bytes, scan.intact_bytes)
            .map_err(|source| Error::failed("cut off log file", path, source))?;
    }
    Ok(())
}

/// Refuses a damaged list of tables: it has the form of a log file, and its reader the same endless loop. It is synced
/// at every change, so that nothing but its last record may be cut short.
fn check_manifest(dir: &Path) -> Result<(), Error> {
    let current = match fs::read_to_string(dir.join("CURRENT")) {
        Ok(current) => current,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::failed("read name of manifest", dir, source)),
    };
    let path = dir.join(current.trim_end());
    let bytes = fs::read(&path).map_err(|source| Error::failed("read manifest", &path, source))?;
    logfile::scan(&bytes).damage.map_or(Ok(()), |damage| Err(Error::corrupt(&path, None, damage)))
}

/// RocksDB's log files, oldest first.
fn log_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.parse::<u64>().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|extension| extension == "log")
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Shortens a file, keeping what it was beside it for whoever wants to look.
fn cut_off(path: &Path, bytes: &[u8], length: usize) -> io::Result<()> {
    failpoint!("tail-before-cut");
    crate::files::create_whole(&path.with_extension("damaged"), |out| out.write_all(bytes))?;
    failpoint!("tail-put-aside");
    let file = File::options().write(true).open(path)?;
    file.set_len(length as u64)?;
    failpoint!("tail-cut");
    file.sync_all()?;
    failpoint!("tail-cut-synced");
    Ok(())
}
