//! What can go wrong below the log and the engine.

use std::path::{Path, PathBuf};

/// An error of a log or an engine.
///
/// [`Error::Corrupt`] and [`Error::LostWrites`] mean that the directory must not be served from: its owner may have
/// promised (voted, acknowledged) something that is no longer there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation of the operating system or of RocksDB failed.
    #[error("{operation} failed at {}", .path.display())]
    Failed {
        /// What was being done, as a verb phrase such as `open log`.
        operation: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Stored bytes are not what was written.
    #[error("{} is damaged{}: {detail}", .path.display(), at(.index))]
    Corrupt {
        /// The file or directory with the damage.
        path: PathBuf,
        /// The log index of the damaged or missing entry, where one is known.
        index: Option<u64>,
        /// What was expected and what was found.
        detail: String,
    },
    /// Writes that had been reported durable are gone: the newest one found is older than the recorded floor.
    #[error("{} lost durable writes: found {found}, but {floor} was durable", .path.display())]
    LostWrites {
        /// The directory that is shorter than it should be.
        path: PathBuf,
        /// The sequence number that was recorded as durable.
        floor: u64,
        /// The newest sequence number that is still there.
        found: u64,
    },
    /// Another process, or another handle of this one, has the directory open.
    #[error("{} is already open elsewhere", .dir.display())]
    Locked {
        /// The directory that is in use.
        dir: PathBuf,
    },
}

impl Error {
    /// An [`Error::Failed`] with its cause.
    pub(crate) fn failed(
        operation: &'static str,
        path: &Path,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { operation, path: path.to_owned(), source: source.into() }
    }

    /// An [`Error::Corrupt`], at a log index where one is known.
    pub(crate) fn corrupt(path: &Path, index: Option<u64>, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), index, detail: detail.into() }
    }

    /// True where the stored bytes cannot be trusted, so that retrying is useless and serving from them unsafe.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::LostWrites { .. } => true,
            Self::Failed { .. } | Self::Locked { .. } => false,
        }
    }
}

fn at(index: &Option<u64>) -> String {
    index.map_or_else(String::new, |index| format!(" at log index {index}"))
}

/// An error with its causes in one line, for whoever gets only text: what RocksDB says is among them.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrupt_entry_is_named_by_its_index() {
        let error = Error::corrupt(Path::new("/d/log"), Some(7), "checksum differs");
        assert_eq!(error.to_string(), "/d/log is damaged at log index 7: checksum differs");
        assert!(error.is_damage());
    }

    #[test]
    fn damage_without_an_index_reads_well() {
        assert_eq!(Error::corrupt(Path::new("/d"), None, "no floor").to_string(), "/d is damaged: no floor");
    }
}
