//! Requests that are the same share memory, and are decoded once: thousands of rows in a row have the same.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use plimsoll_ledger::Request;

use super::decode::Result;
use super::request;
use crate::fields::Reader;

/// Requests remembered; a power of two.
const SLOTS: usize = 1_024;

/// The latest request of each slot, with its canonical bytes: equal bytes are equal requests. O(1) in everything.
#[derive(Default)]
pub struct SharedRequests {
    slots: Vec<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    bytes: Box<[u8]>,
    request: Arc<Request>,
}

impl SharedRequests {
    /// The request of these fields.
    pub(super) fn read(&mut self, from: Reader<'_>) -> Result<Arc<Request>> {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let bytes = from.rest();
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let slot = &mut self.slots[(hasher.finish() % SLOTS as u64) as usize];
        if let Some(known) = slot.as_ref().filter(|known| *known.bytes == *bytes) {
            return Ok(Arc::clone(&known.request));
        }
        let request = Arc::new(request::read(from)?);
        *slot = Some(Known { bytes: bytes.into(), request: Arc::clone(&request) });
        Ok(request)
    }
}
