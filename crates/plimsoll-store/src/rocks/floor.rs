//! The floor: a small checksummed file beside a database that remembers how far its writes were durable.
//!
//! No recovery mode of RocksDB can tell a tail that was torn before its sync from one that was damaged after it. The
//! floor can: it holds the sequence number of a sync that had succeeded, so a database that opens below it lost writes
//! that somebody was told about. It is written after every sync but itself synced only now and then, which keeps it
//! honest (never above what is durable) and free of a second fsync per commit: a kill loses none of it, and a power cut
//! at most the last [`SYNC_EVERY`] records. An open floor also locks its directory against a second handle, before
//! anything of the database is looked at.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Error, files};

/// Name of the file in the database's directory. RocksDB leaves files alone whose names it does not know.
pub(crate) const FILE_NAME: &str = "PLIMSOLL-FLOOR";
/// How many records may pass before the file is synced by the way.
const SYNC_EVERY: u32 = 256;

const MAGIC: u64 = u64::from_be_bytes(*b"PlmFloor");
const SLOT_BYTES: usize = 32;
const CHECKED_BYTES: usize = 20;

/// The highest sequence number known to be durable, in two slots written in turn, so that a torn write leaves one.
#[derive(Debug)]
pub(crate) struct Floor {
    file: File,
    path: PathBuf,
    sequence: u64,
    next_slot: u8,
    unsynced: u32,
}

impl Floor {
    /// Opens the floor of the database in `dir`, or starts one at 0 where there is no database yet.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the database is there and its floor is not, or has no intact slot; [`Error::Locked`]
    /// where it is open already.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE_NAME);
        if !path.exists() {
            // CURRENT is the file by which RocksDB itself decides whether a database exists.
            if dir.join("CURRENT").exists() {
                return Err(Error::corrupt(dir, None, format!("a database without its {FILE_NAME}")));
            }
            let slots = [slot(0, 0), slot(1, 0)].concat();
            files::create_whole(&path, |out| out.write_all(&slots))
                .map_err(|source| Error::failed("create floor", &path, source))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| Error::failed("open floor", &path, source))?;
        file.try_lock().map_err(|refused| match refused {
            TryLockError::WouldBlock => Error::Locked { dir: dir.to_owned() },
            TryLockError::Error(source) => Error::failed("lock floor", &path, source),
        })?;
        let (newest, sequence) = read(&file, &path)?;
        Ok(Self { file, path, sequence, next_slot: 1 - newest, unsynced: 0 })
    }

    /// The highest sequence number known to be durable.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Refuses a database in `dir` whose newest write is older than the floor.
    pub(crate) fn check(&self, dir: &Path, found: u64) -> Result<(), Error> {
        if found >= self.sequence {
            return Ok(());
        }
        Err(Error::LostWrites { path: dir.to_owned(), floor: self.sequence, found })
    }

    /// Raises the floor to `sequence`, which must be durable already. A lower one changes nothing.
    pub(crate) fn raise(&mut self, sequence: u64) -> Result<(), Error> {
        if sequence <= self.sequence {
            return Ok(());
        }
        let written = self.write(sequence);
        written.map_err(|source| Error::failed("write floor", &self.path, source))
    }

    /// Makes the floor itself durable.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if self.unsynced == 0 {
            return Ok(());
        }
        failpoint!("floor-before-sync");
        self.file.sync_data().map_err(|source| Error::failed("sync floor", &self.path, source))?;
        failpoint!("floor-after-sync");
        self.unsynced = 0;
        Ok(())
    }

    fn write(&mut self, sequence: u64) -> io::Result<()> {
        let offset = u64::from(self.next_slot) * SLOT_BYTES as u64;
        failpoint!("floor-before-write");
        self.file.write_all_at(&slot(self.next_slot, sequence), offset)?;
        self.sequence = sequence;
        self.next_slot = 1 - self.next_slot;
        failpoint!("floor-after-write");
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// The slot with the highest sequence number, and that number.
pub(super) fn read(file: &File, path: &Path) -> Result<(u8, u64), Error> {
    let mut bytes = [0; 2 * SLOT_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::corrupt(path, None, "it is too short"),
        _ => Error::failed("read floor", path, source),
    })?;
    let (first, second) = bytes.split_at(SLOT_BYTES);
    [(0, first), (1, second)]
        .into_iter()
        .filter_map(|(number, bytes)| Some((number, parse(number, bytes)?)))
        .max_by_key(|(_, sequence)| *sequence)
        .ok_or_else(|| Error::corrupt(path, None, "neither slot is intact"))
}

fn slot(number: u8, sequence: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&sequence.to_be_bytes());
    bytes[16] = number;
    let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
    bytes[CHECKED_BYTES..CHECKED_BYTES + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn parse(number: u8, bytes: &[u8]) -> Option<u64> {
    let sequence = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes == slot(number, sequence)).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_durable_sequence_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        for sequence in 1..=600 {
            Floor::open(dir.path()).unwrap().raise(sequence).unwrap();
        }
        let mut floor = Floor::open(dir.path()).unwrap();
        floor.raise(5).unwrap();
        floor.sync().unwrap();
        assert!(floor.check(dir.path(), 600).is_ok());
        assert!(matches!(
            floor.check(dir.path(), 599),
            Err(Error::LostWrites { floor: 600, found: 599, .. })
        ));
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut floor = Floor::open(dir.path()).unwrap();
        floor.raise(7).unwrap();
        floor.raise(8).unwrap();
        let newest = 1 - floor.next_slot;
        floor.file.write_all_at(&[0xff; 10], u64::from(newest) * SLOT_BYTES as u64 + 6).unwrap();
        drop(floor);
        assert_eq!(Floor::open(dir.path()).unwrap().sequence(), 7);
    }

    #[test]
    fn a_floor_that_is_gone_or_unreadable_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        drop(Floor::open(dir.path()).unwrap());
        std::fs::write(dir.path().join(FILE_NAME), [0; 2 * SLOT_BYTES]).unwrap();
        assert!(Floor::open(dir.path()).unwrap_err().is_damage());
        std::fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
        std::fs::write(dir.path().join("CURRENT"), "MANIFEST-000001\n").unwrap();
        assert!(Floor::open(dir.path()).unwrap_err().is_damage());
    }
}
