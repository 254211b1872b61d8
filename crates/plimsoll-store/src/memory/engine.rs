//! Rows in memory, and views of them that later writes do not touch.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::Error;
use crate::engine::{Engine, Rows, View, WriteBatch};

/// Rows that are as durable as the process.
///
/// A view costs nothing to take; the first write while one lives copies the map, though not the rows.
#[derive(Default)]
pub struct MemoryEngine {
    rows: RwLock<Rowset>,
}

impl MemoryEngine {
    /// An engine without rows.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        self.rows.write().apply(batch);
        Ok(())
    }

    fn replace_all(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut replacement = Rowset::default();
        replacement.apply(batch);
        *self.rows.write() = replacement;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.rows.read().get(key))
    }

    fn view(&self) -> Box<dyn View> {
        Box::new(MapView::new(&self.rows.read()))
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    fn approximate_bytes(&self) -> u64 {
        self.rows.read().byte_size()
    }
}

/// Sorted rows that are cheap to clone: clones share them until one is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rowset {
    rows: Arc<BTreeMap<Bytes, Bytes>>,
    bytes: u64,
}

impl Rowset {
    /// Applies every op in order.
    pub(crate) fn apply(&mut self, batch: WriteBatch) {
        if batch.is_empty() {
            return;
        }
        let rows = Arc::make_mut(&mut self.rows);
        for (key, value) in batch.ops {
            let key_len = key.len();
            let old = match value {
                Some(value) => {
                    self.bytes += (key_len + value.len()) as u64;
                    rows.insert(key, value)
                }
                None => rows.remove(&key),
            };
            self.bytes -= old.map_or(0, |old| (key_len + old.len()) as u64);
        }
    }

    /// The value of one key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.rows.get(key).cloned()
    }

    /// Bytes of all keys and values.
    pub(crate) fn byte_size(&self) -> u64 {
        self.bytes
    }
}

/// A view that shares the rows it was made of.
pub(crate) struct MapView {
    rows: Arc<BTreeMap<Bytes, Bytes>>,
}

impl MapView {
    /// The rows as they are now.
    pub(crate) fn new(rowset: &Rowset) -> Self {
        Self { rows: rowset.rows.clone() }
    }
}

impl View for MapView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Rows<'a> {
        let prefix = Bytes::copy_from_slice(prefix);
        let first = prefix.as_ref().max(from).to_vec();
        let rows = self.rows.range::<[u8], _>((Bound::Included(first.as_slice()), Bound::Unbounded));
        Box::new(
            rows.take_while(move |(key, _)| key.starts_with(&prefix))
                .map(|(key, value)| Ok((key.clone(), value.clone()))),
        )
    }
}
