//! The durable log, as the consensus layer sees it: an ordered stream of changes and one way to read it back.

use bytes::Bytes;

/// One change to the durable log, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stores an entry; an entry already at this index is replaced. Ignored at or below the purged index.
    Put {
        /// The log index, without gaps from one entry to the next.
        index: u64,
        /// The entry.
        bytes: Bytes,
    },
    /// Deletes every entry at or after `index`.
    TruncateFrom {
        /// The first index to go.
        index: u64,
    },
    /// Deletes every entry up to and including `index`. Ignored where a later index was purged already.
    PurgeTo {
        /// The last index to go.
        index: u64,
        /// Opaque bytes kept in place of the entries and returned by [`Wal::load`].
        marker: Bytes,
    },
    /// Replaces the vote.
    Vote {
        /// The vote, opaque here.
        bytes: Bytes,
    },
    /// Replaces the record of what is committed.
    Committed {
        /// The record, opaque here.
        bytes: Bytes,
    },
}

impl Op {
    /// Bytes this change carries, for bounding a group; keys and framing are counted as 32.
    pub fn byte_size(&self) -> usize {
        32 + match self {
            Self::Put { bytes, .. } | Self::Vote { bytes } | Self::Committed { bytes } => bytes.len(),
            Self::PurgeTo { marker, .. } => marker.len(),
            Self::TruncateFrom { .. } => 0,
        }
    }
}

/// Told once, when the ops it came with and everything before them are durable, or that they never will be.
pub type Done = Box<dyn FnOnce(std::io::Result<()>) + Send>;

/// Everything a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The last vote.
    pub vote: Option<Bytes>,
    /// The last record of what is committed.
    pub committed: Option<Bytes>,
    /// The last purged index with its marker.
    pub purged: Option<(u64, Bytes)>,
    /// The entries, ascending and contiguous; the first follows the purged index.
    pub entries: Vec<(u64, Bytes)>,
}

/// A durable log.
///
/// After a crash, what had been reported durable is there, and of what had not been, some prefix in submission order.
/// Where inside one `submit` that prefix ends is not promised, so its ops must be safe one by one.
pub trait Wal: Send + Sync + 'static {
    /// Queues ops; `done` fires (from any thread, in submission order) when they and everything before them are
    /// durable. Never blocks. After a failed sync every later `done` gets an error too: nothing is retried.
    fn submit(&self, ops: Vec<Op>, done: Done);

    /// Reads the whole log, verifying every entry.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] for a damaged entry or a gap; [`crate::Error::Failed`] where reading fails.
    fn load(&self) -> Result<Loaded, crate::Error>;

    /// Reads the whole log as it is now and verifies it, while others go on writing. `goes_on` is told now and then how many
    /// bytes were read since it was last told, and may take its time; where it says no, the rest is left out.
    ///
    /// # Errors
    /// As for [`Wal::load`].
    fn verify(&self, goes_on: &mut dyn FnMut(usize) -> bool) -> Result<(), crate::Error> {
        let loaded = self.load()?;
        goes_on(loaded.entries.iter().map(|(_, bytes)| bytes.len()).sum());
        Ok(())
    }
}
