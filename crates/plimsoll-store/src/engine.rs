//! The ordered key-value engine: atomic batches, consistent views.

use bytes::Bytes;

use crate::Error;

/// Changes that happen together or not at all. Later ops on a key win over earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Key and new value, in order; `None` deletes.
    pub ops: Vec<(Bytes, Option<Bytes>)>,
}

impl WriteBatch {
    /// A batch that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row, or replaces it.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push((key.into(), Some(value.into())));
    }

    /// Removes a row, if it is there.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push((key.into(), None));
    }

    /// True where nothing would change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The number of ops.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of all keys and values.
    pub fn byte_size(&self) -> usize {
        self.ops.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }

    /// Forgets all ops, keeping the memory.
    pub fn clear(&mut self) {
        self.ops.clear();
    }
}

/// An ordered map from bytes to bytes.
///
/// A write is visible at once and durable after the next [`Engine::sync`]; after a crash some prefix of the writes is
/// there, never less than what was synced, and never part of a batch.
pub trait Engine: Send + Sync + 'static {
    /// Applies a batch atomically, without waiting for the disk.
    ///
    /// # Errors
    /// [`Error::Failed`] where the engine cannot write; nothing of the batch is then visible.
    fn write(&self, batch: WriteBatch) -> Result<(), Error>;

    /// Deletes every row and applies the batch, atomically and durably: a crash leaves all of the old or all of the new.
    ///
    /// # Errors
    /// [`Error::Failed`] where the engine cannot write.
    fn replace_all(&self, batch: WriteBatch) -> Result<(), Error>;

    /// The value of one key.
    ///
    /// # Errors
    /// [`Error::Failed`] or [`Error::Corrupt`] where it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// All rows as they are now. Later writes do not show in it; it may move to another thread.
    fn view(&self) -> Box<dyn View>;

    /// Makes every write so far durable.
    ///
    /// # Errors
    /// [`Error::Failed`]; what was not durable before is then in doubt, and the process should stop, not try again.
    fn sync(&self) -> Result<(), Error>;

    /// About how many bytes all rows take.
    fn approximate_bytes(&self) -> u64;
}

/// The rows of one [`View::scan`], in key order.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), Error>> + 'a>;

/// All rows at one moment.
pub trait View: Send {
    /// The value of one key.
    ///
    /// # Errors
    /// [`Error::Failed`] or [`Error::Corrupt`] where it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// The rows whose key begins with `prefix`, in key order, from the first key `>= from` on; an empty `from` means
    /// the first. An error ends the rows.
    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Rows<'a>;
}
