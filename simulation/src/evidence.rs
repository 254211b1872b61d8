//! What a run leaves for its judges: the log as each replica exports it, the state as each dumps it, the clients' calls.

use std::collections::BTreeMap;

use bytes::Bytes;
use plimsoll_client::v1;
use plimsoll_ledger::{Entry, Outcome, Row};
use plimsoll_proto::codec;
use plimsoll_proto::digest::Hash;
use plimsoll_types::{LedgerTime, Revision};

use crate::watcher::Segment;

/// One command of the log, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// Its place.
    pub revision: Revision,
    /// Its ledger time.
    pub log_time: LedgerTime,
    /// The command.
    pub entry: Entry,
    /// Canonical bytes of the command.
    pub entry_bytes: Bytes,
    /// What it came to.
    pub outcome: Outcome,
    /// Canonical bytes of that.
    pub outcome_bytes: Bytes,
    /// Chain hash up to here.
    pub chain: Hash,
}

/// What one replica said.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its id.
    pub id: u64,
    /// Its log, oldest first; a replica that took over a snapshot may not have the beginning.
    pub log: Vec<LogRecord>,
    /// Revision of its dump.
    pub revision: Revision,
    /// Chain hash of its dump.
    pub chain: Hash,
    /// Its rows, in canonical order, as they came.
    pub rows: Vec<v1::StateRow>,
    /// Its own digest at that revision.
    pub digest: Hash,
}

/// All that was collected at the end of a run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Each replica, at the end.
    pub replicas: Vec<Replica>,
    /// What each replica exported while the run was going on: what was applied once must stay.
    pub seen: Vec<(u64, LogRecord)>,
    /// What watchers were given.
    pub watched: Vec<Segment>,
    /// Tokens that were spent out of slices of a rate.
    pub spent: u64,
    /// Numbers of intents whose machines ran both before and after all this was collected.
    pub machines: Vec<u64>,
}

/// Evidence that cannot even be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {detail}")]
pub struct Unreadable {
    what: String,
    detail: String,
}

impl LogRecord {
    /// Reads a record as a replica exports it.
    ///
    /// # Errors
    /// Where it is not canonical.
    pub fn read(record: v1::LogRecord) -> Result<LogRecord, Unreadable> {
        let what = format!("record {}", record.revision);
        let bad = |detail: String| Unreadable { what: what.clone(), detail };
        Ok(LogRecord {
            revision: Revision(record.revision),
            log_time: LedgerTime(record.log_time_ms),
            entry: codec::decode_entry(&record.entry).map_err(|error| bad(error.to_string()))?,
            outcome: codec::decode_outcome(&record.outcome).map_err(|error| bad(error.to_string()))?,
            chain: hash(&record.chain_hash).ok_or_else(|| bad("its hash is not 32 bytes".to_owned()))?,
            entry_bytes: record.entry,
            outcome_bytes: record.outcome,
        })
    }
}

impl Replica {
    /// Its rows, read back.
    ///
    /// # Errors
    /// Where one is not canonical.
    pub fn read_rows(&self) -> Result<Vec<Row>, Unreadable> {
        let read = |row: &v1::StateRow| {
            codec::decode_row(&row.value).map_err(|error| Unreadable {
                what: format!("row of replica {}", self.id),
                detail: error.to_string(),
            })
        };
        self.rows.iter().map(read).collect()
    }
}

impl Evidence {
    /// The whole log: what any replica exports or has exported, by revision.
    pub fn log(&self) -> BTreeMap<Revision, &LogRecord> {
        let mut log = BTreeMap::new();
        let seen = self.seen.iter().map(|(_, record)| record);
        for record in self.replicas.iter().flat_map(|replica| &replica.log).chain(seen) {
            log.entry(record.revision).or_insert(record);
        }
        log
    }
}

/// A hash from bytes.
pub fn hash(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok()
}
