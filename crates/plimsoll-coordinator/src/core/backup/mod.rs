//! The whole ledger in one file: saved from a running cluster, verified anywhere, and made into a new cluster.
//!
//! A file has a head, the canonical rows of one revision in canonical order, and the BLAKE3 of both at its end: cut short or
//! changed, it is refused as a whole. It has no log and no members; those begin anew with the cluster that is made of it.

mod restore;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use plimsoll_consensus::{read_sealed, write_sealed};
use plimsoll_ledger::{Body, Ledger, Row, StoredRow};
use plimsoll_proto::codec;
use plimsoll_proto::digest::{self, StateHasher};
use plimsoll_store::files;
use plimsoll_types::Revision;
use serde::{Deserialize, Serialize};

use super::bodies;

pub use restore::{RestoreError, Restored, Target, restore};

/// The form of the head that is written and read.
const FORMAT: u32 = 1;
const BUFFER_BYTES: usize = 1 << 20;

/// What stands before the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupHead {
    /// Form of the file, 1.
    pub format: u32,
    /// Cluster that it was taken from.
    pub cluster: String,
    /// Coordinator that it was taken from.
    pub node_id: u64,
    /// Revision that the rows show.
    pub revision: u64,
    /// Ledger time of that revision, in milliseconds since the Unix epoch.
    pub log_time_ms: u64,
    /// Chain hash up to that revision, in hexadecimal.
    pub chain_hash: String,
    /// Version of the program that wrote it.
    pub version: String,
}

impl BackupHead {
    /// A head of the present form.
    pub fn new(
        cluster: &str,
        node_id: u64,
        revision: u64,
        log_time_ms: u64,
        chain_hash: &[u8; 32],
    ) -> BackupHead {
        BackupHead {
            format: FORMAT,
            cluster: cluster.to_owned(),
            node_id,
            revision,
            log_time_ms,
            chain_hash: digest::hex(chain_hash),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn chain(&self) -> Option<[u8; 32]> {
        let bytes = (0..32).map(|at| u8::from_str_radix(self.chain_hash.get(2 * at..2 * at + 2)?, 16).ok());
        bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
    }
}

/// A file that is whole and makes a sound ledger.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its head.
    pub head: BackupHead,
    /// Digest of the rows, in hexadecimal: that of `plimsoll audit digest` at the same revision.
    pub digest: String,
    /// Number of rows.
    pub rows: u64,
    /// Reservations, ended ones that are still remembered among them.
    pub reservations: u64,
    /// Nodes.
    pub nodes: u64,
    /// The largest token that it holds.
    pub largest_token: Revision,
    ledger: Ledger,
    /// What those asked who are set aside.
    bodies: Vec<Arc<Body>>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read, or is not whole.
    #[error("{place} cannot be used")]
    File {
        /// The file.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// Its contents make no sound ledger.
    #[error("{place} holds no sound ledger: {detail}")]
    Unsound {
        /// The file.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// There is something at the place already.
    #[error("{0} is there already; nothing was written")]
    Exists(String),
}

/// Writes a file: whole and durable when this returns, or not at all. `rows` are canonical keys and values in canonical
/// order. Returns its length in bytes.
///
/// # Errors
/// Where there is a file already, a row is an error, or the file system fails.
pub fn save(
    path: &Path,
    head: &BackupHead,
    rows: impl Iterator<Item = io::Result<(Bytes, Bytes)>>,
) -> Result<u64, BackupError> {
    if path.exists() {
        return Err(BackupError::Exists(path.display().to_string()));
    }
    let failed = |source| BackupError::File { place: path.display().to_string(), source };
    let head = serde_json::to_vec(head).map_err(|error| failed(error.into()))?;
    files::create_whole(path, |out| write_sealed(out, &head, rows)).map_err(failed)
}

/// Reads a file to its end: its hash, every row, their order, and that they make a ledger whose invariants hold.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(path: &Path) -> Result<Verified, BackupError> {
    let place = || path.display().to_string();
    let failed = |source| BackupError::File { place: place(), source };
    let unsound = |detail: String| BackupError::Unsound { place: place(), detail };
    let mut from = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(failed)?);
    let mut head: Option<BackupHead> = None;
    let mut rows: Vec<Row> = Vec::new();
    let mut hasher = StateHasher::new();
    let mut wrong = None;
    let mut last = Bytes::new();
    read_sealed(
        &mut from,
        |bytes| {
            head = Some(serde_json::from_slice(&bytes)?);
            Ok(())
        },
        |key, value| match codec::decode_row(&value) {
            Ok(row) if codec::encode_key(&codec::key_of(&row)) == key && last < key => {
                hasher.add_bytes(&key, &value);
                rows.push(row);
                last = key;
            }
            Ok(_) => {
                wrong.get_or_insert_with(|| format!("row {} is at a wrong place", rows.len()));
            }
            Err(error) => {
                wrong.get_or_insert_with(|| format!("row {}: {error}", rows.len()));
            }
        },
    )
    .map_err(failed)?;
    let head = head.ok_or_else(|| unsound("it has no head".to_owned()))?;
    if head.format != FORMAT || head.chain().is_none() {
        return Err(unsound(format!("its form is {}, this program knows {FORMAT}", head.format)));
    }
    if let Some(wrong) = wrong {
        return Err(unsound(wrong));
    }
    let count = rows.len() as u64;
    let bodies: Vec<Arc<Body>> = rows.iter().filter_map(bodies::body_of).cloned().collect();
    let ledger = Ledger::from_stored(rows.into_iter().map(StoredRow::Whole));
    let ledger = ledger.map_err(|error| unsound(error.to_string()))?;
    if let Some(error) = bodies::damaged(&ledger, bodies.iter()).first() {
        return Err(unsound(error.to_string()));
    }
    if ledger.revision().0 != head.revision {
        let detail =
            format!("its rows are of revision {}, its head says {}", ledger.revision().0, head.revision);
        return Err(unsound(detail));
    }
    if let Some(violation) = ledger.check_invariants().first() {
        return Err(unsound(format!("{}: {}", violation.invariant, violation.detail)));
    }
    Ok(Verified {
        digest: digest::hex(&hasher.finish()),
        rows: count,
        reservations: ledger.reservations().count() as u64,
        nodes: ledger.nodes().count() as u64,
        largest_token: ledger.reservations().map(|found| found.token).max().unwrap_or(Revision(0)),
        head,
        ledger,
        bodies,
    })
}
