//! A new cluster of one member from a saved ledger.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use plimsoll_consensus::{NewCluster, NodeInfo, found_cluster};
use plimsoll_ledger::{Row, TouchedRow};
use plimsoll_store::rocks::{RocksEngine, RocksWal};
use plimsoll_types::Revision;

use super::{BackupError, Verified, verify};
use crate::core::identity::{Identity, IdentityError};
use crate::core::stored;

/// Key of the row with the chain hash, as the machine writes it.
const CHAIN_ROW: &[u8] = b"c";

/// Where and as what a saved ledger goes on.
#[derive(Clone, Debug)]
pub struct Target {
    /// The data directory to make: absent or empty.
    pub directory: PathBuf,
    /// Name of the new cluster: another one than the saved cluster's.
    pub cluster: String,
    /// Id of its first member.
    pub node_id: u64,
    /// Address of that member's peer port, as others will reach it.
    pub address: String,
    /// How many revisions are left out, for those that the old cluster gave out after the file was saved. Tokens are
    /// revisions: a token of the old cluster must never be given again.
    pub skip_revisions: u64,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The file it was made of.
    pub from: Verified,
    /// Which life the new member is in.
    pub incarnation: String,
    /// Every token that the new cluster gives is larger than this.
    pub revision: Revision,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The name is that of the saved cluster.
    #[error(
        "the new cluster needs another name than {0:?}: members, agents and clients of the old one must not take it for theirs"
    )]
    SameName(String),
    /// The directory is in use.
    #[error("{0} is not empty")]
    NotEmpty(String),
    /// The revisions would run out.
    #[error("{0} revisions cannot be skipped")]
    TooFar(u64),
    /// The directory could not be written.
    #[error("cannot write {place}")]
    Failed {
        /// What was being written.
        place: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<IdentityError> for RestoreError {
    fn from(error: IdentityError) -> RestoreError {
        RestoreError::Failed { place: "the identity".to_owned(), source: Box::new(error) }
    }
}

/// Makes a data directory of a file. What was made in part when it fails is no member: without its identity and its log it
/// starts as nothing, so empty it and try again.
///
/// # Errors
/// A file that is not whole, a directory that is not empty, the name of the old cluster, a disk that fails.
pub fn restore(path: &Path, target: &Target) -> Result<Restored, RestoreError> {
    let from = verify(path)?;
    if from.head.cluster == target.cluster {
        return Err(RestoreError::SameName(from.head.cluster));
    }
    let directory = target.directory.as_path();
    let failed = |place: &Path, source: Box<dyn std::error::Error + Send + Sync>| RestoreError::Failed {
        place: place.display().to_string(),
        source,
    };
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(RestoreError::NotEmpty(directory.display().to_string()));
    }
    let before = from.ledger.revision().max(from.largest_token).0;
    let revision = before.checked_add(target.skip_revisions).filter(|revision| *revision < u64::MAX / 2);
    let revision = Revision(revision.ok_or(RestoreError::TooFar(target.skip_revisions))?);
    fs::create_dir_all(directory).map_err(|source| failed(directory, source.into()))?;
    let at = |name: &str| directory.join(name);
    let (log, state, history) = (at("log"), at("state"), at("history"));
    let engine = RocksEngine::open_repeatable(&state).map_err(|error| failed(&state, error.into()))?;
    drop(RocksEngine::open(&history).map_err(|error| failed(&history, error.into()))?);
    let wal = RocksWal::open(&log).map_err(|error| failed(&log, error.into()))?;
    // The identity first: should the rest fail, the directory belongs to the new cluster already and holds nothing.
    let identity = Identity::create(directory, &target.cluster, target.node_id)?;
    let new = NewCluster {
        cluster_id: target.cluster.clone(),
        node_id: target.node_id,
        info: NodeInfo { address: target.address.clone(), incarnation: identity.incarnation.clone() },
    };
    let chain = from.head.chain().expect("it was verified");
    let rows = from.ledger.rows().map(|(_, row)| row).chain(from.bodies.iter().cloned().map(Row::Body));
    let rows = rows.map(|row| stored_row(row, revision));
    let chain_row = (Bytes::from_static(CHAIN_ROW), Bytes::copy_from_slice(&chain));
    found_cluster(&new, &wal, &engine, rows.chain(std::iter::once(chain_row)))
        .map_err(|error| failed(directory, error.into()))?;
    Ok(Restored { incarnation: identity.incarnation, revision, from })
}

/// Key (without the prefix of rows) and value of a row as a store keeps it.
fn stored_row(row: Row, revision: Revision) -> (Bytes, Bytes) {
    let row = match row {
        Row::Meta(mut meta) => {
            meta.revision = revision;
            meta.leader = 0;
            Row::Meta(meta)
        }
        row => row,
    };
    let touched = TouchedRow { place: row.place(), row: Some(row), shows: None };
    let key = Bytes::from(stored::key(&touched.place)).slice(1..);
    (key, stored::value(&touched).expect("it has a row"))
}
