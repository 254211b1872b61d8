//! The only writer of a log: a group of ops becomes one synced write, and then the floor rises.

use std::collections::BTreeMap;

use bytes::Bytes;
use rocksdb::WriteBatch;

use super::chain::{self, Link};
use super::committer::Sink;
use super::floor::Floor;
use super::logdb::{BASE, COMMITTED, LOG, LogDb, META, PAST_ALL, PURGED, VOTE};
use crate::wal::Op;
use crate::{Error, frame};

/// Writes groups.
pub(super) struct RocksSink {
    log: LogDb,
    floor: Floor,
    purged: Option<u64>,
    /// What the link of the entry after the purged one follows.
    base: Link,
    /// The last entry's index and link.
    last: Option<(u64, Link)>,
    /// Entries of the group at hand, which are not in the database yet.
    group: BTreeMap<u64, (Link, Bytes)>,
    framed: Vec<u8>,
    linked: Vec<u8>,
}

impl RocksSink {
    /// A writer for a database that was opened, checked and is written by nobody else.
    pub(super) fn new(log: LogDb, floor: Floor) -> Result<Self, Error> {
        let purged = log.purged()?.map(|(index, _)| index);
        let base = log.base(purged)?;
        let last = match log.last_index()? {
            Some(index) => log.entry(index)?.map(|(link, _)| (index, link)),
            None => None,
        };
        let group = BTreeMap::new();
        Ok(Self { log, floor, purged, base, last, group, framed: Vec::new(), linked: Vec::new() })
    }

    fn put(&mut self, batch: &mut WriteBatch, family: &str, key: &[u8], payload: &[u8]) {
        frame::seal_into(&mut self.framed, key, payload);
        batch.put_cf(self.log.family(family), key, &self.framed);
    }

    fn add(&mut self, batch: &mut WriteBatch, op: &Op) -> Result<(), Error> {
        match op {
            Op::Put { index, .. } if self.purged.is_some_and(|purged| *index <= purged) => {}
            Op::Put { index, bytes } => self.put_entry(batch, *index, bytes)?,
            Op::TruncateFrom { index } => self.truncate(batch, *index)?,
            Op::PurgeTo { index, .. } if self.purged.is_some_and(|purged| *index <= purged) => {}
            Op::PurgeTo { index, marker } => self.purge(batch, *index, marker)?,
            Op::Vote { bytes } => self.put(batch, META, VOTE, bytes),
            Op::Committed { bytes } => self.put(batch, META, COMMITTED, bytes),
        }
        Ok(())
    }

    fn put_entry(&mut self, batch: &mut WriteBatch, index: u64, bytes: &Bytes) -> Result<(), Error> {
        // An entry that others follow is replaced: their links change with it.
        let mut following = Vec::new();
        if let Some((last, _)) = self.last.filter(|(last, _)| *last > index) {
            for later in index + 1..=last {
                following.push((later, self.entry(later)?.map(|(_, bytes)| bytes).unwrap_or_default()));
            }
        }
        let mut before = match index.checked_sub(1) {
            Some(index) => self.link(index)?.unwrap_or(chain::START),
            None => chain::START,
        };
        for (index, bytes) in std::iter::once((index, bytes.clone())).chain(following) {
            before = chain::link(&before, index, &bytes);
            let mut linked = std::mem::take(&mut self.linked);
            linked.clear();
            linked.extend_from_slice(&before);
            linked.extend_from_slice(&bytes);
            self.put(batch, LOG, &index.to_be_bytes(), &linked);
            self.linked = linked;
            self.last = Some((index, before));
            self.group.insert(index, (before, bytes));
        }
        Ok(())
    }

    fn truncate(&mut self, batch: &mut WriteBatch, index: u64) -> Result<(), Error> {
        batch.delete_range_cf(self.log.family(LOG), &index.to_be_bytes()[..], &PAST_ALL);
        if self.last.is_some_and(|(last, _)| last >= index) {
            self.last = match index.checked_sub(1) {
                // The purged entry is not the last one of the log: it has none then.
                Some(index) if self.purged != Some(index) => self.link(index)?.map(|link| (index, link)),
                Some(_) | None => None,
            };
        }
        drop(self.group.split_off(&index));
        Ok(())
    }

    fn purge(&mut self, batch: &mut WriteBatch, index: u64, marker: &Bytes) -> Result<(), Error> {
        // Entries that this log never had came as a snapshot: the chain begins anew after them.
        self.base = match self.last {
            Some((last, _)) if last >= index => self.link(index)?.unwrap_or(chain::START),
            Some(_) | None => chain::START,
        };
        self.last = self.last.filter(|(last, _)| *last > index);
        self.purged = Some(index);
        let end = index.checked_add(1).map_or_else(|| PAST_ALL.to_vec(), |end| end.to_be_bytes().to_vec());
        batch.delete_range_cf(self.log.family(LOG), vec![0; 8], end);
        let base = [&index.to_be_bytes()[..], &self.base].concat();
        self.put(batch, META, BASE, &base);
        let value = [&index.to_be_bytes(), &marker[..]].concat();
        self.put(batch, META, PURGED, &value);
        self.group = index.checked_add(1).map_or_else(BTreeMap::new, |rest| self.group.split_off(&rest));
        Ok(())
    }

    /// The link of an entry that is there or was purged last.
    fn link(&self, index: u64) -> Result<Option<Link>, Error> {
        match self.last {
            Some((last, link)) if last == index => Ok(Some(link)),
            _ if self.purged == Some(index) => Ok(Some(self.base)),
            Some((last, _)) if index < last => Ok(self.entry(index)?.map(|(link, _)| link)),
            Some(_) | None => Ok(None),
        }
    }

    fn entry(&self, index: u64) -> Result<Option<(Link, Bytes)>, Error> {
        match self.group.get(&index) {
            Some(entry) => Ok(Some(entry.clone())),
            None => self.log.entry(index),
        }
    }
}

impl Sink for RocksSink {
    fn commit(&mut self, ops: &[Op]) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for op in ops {
            self.add(&mut batch, op)?;
        }
        self.group.clear();
        if batch.is_empty() {
            return Ok(());
        }
        failpoint!("log-before-write");
        self.log.write(batch)?;
        failpoint!("log-after-sync");
        self.floor.raise(self.log.db.latest_sequence_number())?;
        failpoint!("log-after-floor");
        Ok(())
    }

    fn close(&mut self) {
        failpoint!("log-before-close");
        if let Err(error) = self.floor.sync() {
            tracing::warn!(%error, "could not sync the floor of the log");
        }
    }
}
