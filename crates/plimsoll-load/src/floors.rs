//! What the machine itself can do, measured in the same run as what is compared with it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one write, about a reservation.
const RECORD_BYTES: usize = 200;
/// The file is written beforehand, so that a sync does not have to grow it.
const FILE_BYTES: usize = 8 << 20;

/// Synced 200-byte writes a second into a preallocated file in `folder`: no log that syncs each entry is faster.
///
/// # Errors
/// Where the folder cannot be written.
pub fn fdatasync_per_s(folder: &Path, length: Duration) -> io::Result<f64> {
    use std::io::{Seek as _, SeekFrom};

    let path = folder.join("fdatasync.probe");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let record = [0x5a; RECORD_BYTES];
    let begun = Instant::now();
    let mut writes: u32 = 0;
    while begun.elapsed() < length {
        if (writes as usize + 1) * RECORD_BYTES % FILE_BYTES < RECORD_BYTES {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&record)?;
        nix::unistd::fdatasync(&file)?;
        writes += 1;
    }
    let rate = f64::from(writes) / begun.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(&path)?;
    Ok(rate)
}
