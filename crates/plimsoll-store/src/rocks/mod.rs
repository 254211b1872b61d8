//! Log and engine on RocksDB.
//!
//! Two databases, never one: the log syncs every group and refuses to open with a damaged middle; the engine syncs when
//! asked and opens with whatever prefix is whole, because the log can rebuild the rest. Next to each lies a small floor
//! file that says how far writes were durable, so that a database which comes back shorter than that is found out.

mod chain;
mod committer;
#[cfg(test)]
mod crash;
mod crc32c;
mod engine;
mod floor;
mod headroom;
mod logdb;
mod logfile;
mod recovery;
mod shadow;
mod sink;
mod snapshots;
#[cfg(test)]
mod tests;
mod view;
mod wal;

use std::path::Path;

pub use committer::Fatal;
pub use engine::RocksEngine;
pub use headroom::{Headroom, RESERVE_BYTES, Space};
pub use shadow::Shadow;
pub use wal::{RocksWal, RocksWalOptions};

use crate::Error;

/// The error of a RocksDB call, by what its owner has to do about it.
pub(crate) fn error(operation: &'static str, dir: &Path, source: rocksdb::Error) -> Error {
    match source.kind() {
        rocksdb::ErrorKind::Corruption => Error::corrupt(dir, None, format!("{operation}: {source}")),
        // RocksDB reports a held LOCK as an I/O error, in one of two wordings: this process, another process.
        rocksdb::ErrorKind::IOError
            if source.as_ref().contains("lock hold by current process")
                || source.as_ref().contains("While lock file") =>
        {
            Error::Locked { dir: dir.to_owned() }
        }
        _ => Error::failed(operation, dir, source),
    }
}

/// Keeps RocksDB's own text log small and to what matters.
fn quiet(options: &mut rocksdb::Options) {
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
}
