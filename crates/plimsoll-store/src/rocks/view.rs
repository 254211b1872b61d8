//! A consistent view of a RocksDB engine that may move between threads.

use std::sync::Arc;

use bytes::Bytes;

use super::snapshots::{Asked, Page, Snapshots};
use crate::Error;
use crate::engine::{Rows, View};

/// One snapshot, by its number in the thread that holds it.
pub(super) struct RocksView {
    snapshots: Arc<Snapshots>,
    id: u64,
}

impl RocksView {
    /// A view of all rows as they are now.
    pub(super) fn open(snapshots: Arc<Snapshots>) -> Self {
        let id = snapshots.open();
        Self { snapshots, id }
    }
}

impl Drop for RocksView {
    fn drop(&mut self) {
        self.snapshots.close(self.id);
    }
}

impl View for RocksView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.snapshots.get(self.id, key)
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Rows<'a> {
        // Keys before the prefix are not in it; keys after it end the scan at once.
        let first = prefix.max(from).to_vec();
        Box::new(Scan {
            view: self,
            prefix: prefix.to_vec(),
            rows: Vec::new().into_iter(),
            next: Next::Unasked(first),
        })
    }
}

/// Rows of a scan, fetched page by page: from the second on while the one before is used.
struct Scan<'a> {
    view: &'a RocksView,
    prefix: Vec<u8>,
    rows: std::vec::IntoIter<(Bytes, Bytes)>,
    next: Next,
}

/// The page after the present one.
enum Next {
    /// The first, from this key on: many scans end in it.
    Unasked(Vec<u8>),
    /// It is being read.
    Asked(Asked<Page>),
    None,
}

impl Iterator for Scan<'_> {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.rows.next() {
            return Some(Ok(row));
        }
        let (snapshots, id) = (&self.view.snapshots, self.view.id);
        let asked = match std::mem::replace(&mut self.next, Next::None) {
            Next::Unasked(from) => snapshots.page(id, &self.prefix, from),
            Next::Asked(asked) => asked,
            Next::None => return None,
        };
        // A page that has a next one is never empty, so this is the only one to wait for.
        match snapshots.wait(&asked) {
            Ok(Page { rows, next }) => {
                if let Some(from) = next {
                    self.next = Next::Asked(snapshots.page(id, &self.prefix, from));
                }
                self.rows = rows.into_iter();
                self.rows.next().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}
