//! A look at a stopped database that leaves every byte of it as it is.
//!
//! Opening a database changes it: RocksDB writes a new manifest and moves its log into tables, and a torn tail is cut off. A
//! shadow has copies of all files that opening changes and links to the tables, which nothing ever changes. So the very
//! code of a start runs on it, and says what a start would.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::floor::{self, FILE_NAME};
use crate::Error;

/// A shadow of one database. While it lives nobody else can open the original.
#[derive(Debug)]
pub struct Shadow {
    dir: PathBuf,
    original: Option<File>,
}

impl Shadow {
    /// Makes a shadow of the database in `original` in the new directory `dir`. One that is not there has an empty shadow.
    ///
    /// # Errors
    /// [`Error::Locked`] where the original is open; [`Error::Failed`] where the system fails.
    pub fn take(original: &Path, dir: &Path) -> Result<Shadow, Error> {
        fs::create_dir_all(dir).map_err(|source| Error::failed("create directory", dir, source))?;
        if !original.is_dir() {
            return Ok(Shadow { dir: dir.to_owned(), original: None });
        }
        let held = hold(original)?;
        let failed = |source| Error::failed("copy database", original, source);
        let original = fs::canonicalize(original).map_err(failed)?;
        for entry in fs::read_dir(&original).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            add(&entry, dir).map_err(|source| Error::failed("copy file", &entry.path(), source))?;
        }
        Ok(Shadow { dir: dir.to_owned(), original: held })
    }

    /// Where it is: what opens the original opens this.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The sequence number that the original's floor remembers as durable; `None` where it has no floor.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the floor is damaged.
    pub fn floor(&self) -> Result<Option<u64>, Error> {
        let Some(file) = &self.original else { return Ok(None) };
        floor::read(file, &self.dir.join(FILE_NAME)).map(|(_, sequence)| Some(sequence))
    }

    /// The log file whose torn tail was cut off when the shadow was opened: what a power cut leaves, and no damage.
    pub fn torn_tail(&self) -> Option<PathBuf> {
        let files = fs::read_dir(&self.dir).ok()?;
        files
            .flatten()
            .map(|file| file.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "damaged"))
    }
}

/// Takes the lock that an open database holds; it goes with the file.
fn hold(original: &Path) -> Result<Option<File>, Error> {
    let path = original.join(FILE_NAME);
    let floor = match File::open(&path) {
        Ok(floor) => floor,
        // What that means is for the opening of the shadow to say.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::failed("open floor", &path, source)),
    };
    match floor.try_lock() {
        Ok(()) => Ok(Some(floor)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: original.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::failed("lock floor", &path, source)),
    }
}

fn add(entry: &fs::DirEntry, dir: &Path) -> io::Result<()> {
    let (path, name) = (entry.path(), entry.file_name());
    let text = name.to_string_lossy();
    let extension = path.extension().and_then(|extension| extension.to_str());
    // RocksDB's lock and its text logs say nothing of what is stored; a tail put aside earlier is no part of it.
    let is_aside = text == "LOCK" || text.starts_with("LOG") || matches!(extension, Some("damaged" | "part"));
    if is_aside || !entry.file_type()?.is_file() {
        return Ok(());
    }
    if extension == Some("sst") {
        symlink(&path, dir.join(name))
    } else {
        fs::copy(&path, dir.join(name)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rocks::{RocksEngine, RocksWal, RocksWalOptions};
    use crate::{Engine as _, Op, Wal as _, WriteBatch};

    /// Every file with its bytes, its times and its length.
    fn picture(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
        let seen = |path: PathBuf| {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            (path.clone(), (fs::read(path).unwrap(), changed))
        };
        files.map(seen).collect()
    }

    #[test]
    fn a_shadow_shows_all_and_changes_nothing() {
        let (dir, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (log, rows) = (dir.path().join("log"), dir.path().join("rows"));
        let options = RocksWalOptions { write_buffer_bytes: 64 << 10, ..RocksWalOptions::default() };
        let wal = RocksWal::open_with(&log, options).unwrap();
        for index in 0..100_u64 {
            let (done, result) = std::sync::mpsc::channel();
            let op = Op::Put { index, bytes: vec![7; 2_000].into() };
            wal.submit(vec![op], Box::new(move |outcome| done.send(outcome).unwrap()));
            result.recv().unwrap().unwrap();
        }
        let engine = RocksEngine::open_repeatable(&rows).unwrap();
        let mut batch = WriteBatch::new();
        batch.put("key", "value");
        engine.write(batch).unwrap();
        engine.sync().unwrap();
        let locked = Shadow::take(&log, &beside.path().join("open")).unwrap_err();
        assert!(matches!(locked, Error::Locked { .. }), "{locked:?}");
        let loaded = wal.load().unwrap();
        drop((wal, engine));
        let before = (picture(&log), picture(&rows));
        assert!(before.0.keys().any(|path| path.extension().is_some_and(|extension| extension == "sst")));
        {
            let shadow = Shadow::take(&log, &beside.path().join("log")).unwrap();
            assert!(matches!(RocksWal::open(&log), Err(Error::Locked { .. })), "it is held meanwhile");
            let wal = RocksWal::open(shadow.dir()).unwrap();
            assert_eq!(wal.load().unwrap(), loaded);
            assert_eq!(shadow.torn_tail(), None);
            let shadow = Shadow::take(&rows, &beside.path().join("rows")).unwrap();
            let engine = RocksEngine::open_repeatable(shadow.dir()).unwrap();
            assert_eq!(engine.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
        }
        assert_eq!((picture(&log), picture(&rows)), before);
    }
}
