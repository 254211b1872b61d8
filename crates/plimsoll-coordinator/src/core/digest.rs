//! The whole state at one revision: its rows in canonical order, and their digest.

use plimsoll_ledger::{Row, RowKey};
use plimsoll_types::{LedgerTime, Revision};

use super::encoding;

/// Every row at one revision.
#[derive(Clone, Debug)]
pub struct StateDump {
    /// Revision of the latest command it shows.
    pub revision: Revision,
    /// Ledger time of that command.
    pub log_time: LedgerTime,
    /// Chain hash up to that command.
    pub chain: [u8; 32],
    /// Rows in canonical order; their contents are shared with the ledger.
    pub rows: Vec<(RowKey, Row)>,
    /// What those asked who are set aside, in canonical order, which is after all other rows: no part of the digest, since rows have their hashes.
    pub bodies: Vec<(RowKey, Row)>,
}

/// Digest of the state at one revision. Equal on all replicas, or one of them is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// Revision of the latest command it covers.
    pub revision: Revision,
    /// Ledger time of that command.
    pub log_time: LedgerTime,
    /// Digest of the canonical rows.
    pub digest: [u8; 32],
    /// Chain hash up to that command.
    pub chain: [u8; 32],
    /// Number of rows.
    pub rows: u64,
}

impl StateDump {
    /// Digest of the rows.
    pub fn digest(&self) -> StateDigest {
        StateDigest {
            revision: self.revision,
            log_time: self.log_time,
            digest: encoding::state_digest(self.rows.iter().map(|(key, row)| (key, row))),
            chain: self.chain,
            rows: self.rows.len() as u64,
        }
    }
}
