//! Whose data a directory holds: one small file beside the stores, written once and never changed.
//!
//! A member whose disk was wiped comes back with the same id and without its vote and its log; counted again, it could
//! help to lose what it has acknowledged. So every data directory gets a random incarnation when it is made, the group
//! remembers it with the member, and peers refuse the same id in another incarnation until an operator replaces it.

use std::fs;
use std::io;
use std::path::Path;

use plimsoll_store::files;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name of the file in a data directory.
const FILE: &str = "identity.json";
/// Name of the file that says why a replica must not run again.
const CONDEMNED: &str = "diverged";
/// The only version so far.
const VERSION: u32 = 1;

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Version of this format.
    version: u32,
    /// Name of the cluster.
    pub(super) cluster: String,
    /// Id of the member.
    pub(super) node_id: u64,
    /// Random, made with the directory.
    pub(super) incarnation: String,
}

/// A data directory that this coordinator must not use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It belongs to somebody else.
    #[error(
        "{place} is the data of node {held_node} of cluster {held_cluster:?}, and this is node {node_id} of cluster \
         {cluster:?}: start that one on it, or give this one an empty directory"
    )]
    Other {
        /// The file that says so.
        place: String,
        /// Whose it is.
        held_cluster: String,
        /// Whose it is.
        held_node: u64,
        /// Who asked.
        cluster: String,
        /// Who asked.
        node_id: u64,
    },
    /// It was used before, and its log is gone.
    #[error(
        "{place} is not there, though node {node_id} has used this directory: it has lost its log and must not vote; \
         empty the directory, start it as a node with a new id, and run `plimsoll cluster replace {node_id} ADDRESS`"
    )]
    LogLost {
        /// Where the log should be.
        place: String,
        /// Who lost it.
        node_id: u64,
    },
    /// The replica stopped itself because it differed from the others.
    #[error("{place} says that this replica must not run again: {why}")]
    Condemned {
        /// The file that says so.
        place: String,
        /// What it says.
        why: String,
    },
    /// The file makes no sense.
    #[error("{place} cannot be used: {detail}")]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The file system failed.
    #[error("cannot read or write {place}")]
    Io {
        /// The file.
        place: String,
        /// Why.
        source: io::Error,
    },
}

impl Identity {
    /// Reads the identity of a directory and checks that it is this member's; `None` for a directory without one.
    /// `log` is where the member's log is kept.
    pub(super) fn check(
        directory: &Path,
        log: &Path,
        cluster: &str,
        node_id: u64,
    ) -> Result<Option<Identity>, IdentityError> {
        let path = directory.join(FILE);
        let place = || path.display().to_string();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { place: place(), source }),
        };
        let damaged = |detail: String| IdentityError::Damaged { place: place(), detail };
        let held: Identity = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if held.version != VERSION {
            return Err(damaged(format!("it has version {}, this program knows {VERSION}", held.version)));
        }
        if held.incarnation.is_empty() {
            return Err(damaged("it has no incarnation".to_owned()));
        }
        if (held.cluster.as_str(), held.node_id) != (cluster, node_id) {
            return Err(IdentityError::Other {
                place: place(),
                held_cluster: held.cluster,
                held_node: held.node_id,
                cluster: cluster.to_owned(),
                node_id,
            });
        }
        let condemned = directory.join(CONDEMNED);
        if let Ok(why) = fs::read_to_string(&condemned) {
            let place = condemned.display().to_string();
            return Err(IdentityError::Condemned { place, why: why.trim_end().to_owned() });
        }
        if !log.exists() {
            return Err(IdentityError::LogLost { place: log.display().to_string(), node_id });
        }
        Ok(Some(held))
    }

    /// Gives a directory a new identity, on disk when this returns. The caller holds the lock of its stores.
    pub(super) fn create(directory: &Path, cluster: &str, node_id: u64) -> Result<Identity, IdentityError> {
        let identity = Identity {
            version: VERSION,
            cluster: cluster.to_owned(),
            node_id,
            incarnation: Uuid::new_v4().simple().to_string(),
        };
        let path = directory.join(FILE);
        let place = path.display().to_string();
        identity.write(&path).map_err(|source| IdentityError::Io { place, source })?;
        Ok(identity)
    }

    /// Marks a directory, on disk when this returns: the replica whose data it holds must not run again.
    pub(super) fn condemn(directory: &Path, why: &str) -> io::Result<()> {
        files::create_whole(&directory.join(CONDEMNED), |out| writeln!(out, "{why}")).map(drop)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::create_whole(path, |out| out.write_all(&text)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity_and_refuses_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let (at, log) = (directory.path(), directory.path().join("log"));
        fs::create_dir(&log).expect("a log");
        assert_eq!(Identity::check(at, &log, "lab", 2).expect("readable"), None);
        let made = Identity::create(at, "lab", 2).expect("written");
        assert_eq!(Identity::check(at, &log, "lab", 2).expect("its own"), Some(made.clone()));
        let other = Identity::check(at, &log, "lab", 3).expect_err("another node").to_string();
        assert!(other.contains("node 2 of cluster \"lab\"") && other.contains("node 3"), "{other}");
        let other = Identity::check(at, &log, "prod", 2).expect_err("another cluster").to_string();
        assert!(other.contains("\"lab\"") && other.contains("\"prod\""), "{other}");
        let wiped = tempfile::tempdir().expect("a directory");
        let again = Identity::create(wiped.path(), "lab", 2).expect("written");
        assert_ne!(again.incarnation, made.incarnation, "a wiped disk is another incarnation");
    }

    #[test]
    fn a_lost_log_and_a_damaged_file_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let (at, log) = (directory.path(), directory.path().join("log"));
        Identity::create(at, "lab", 2).expect("written");
        let lost = Identity::check(at, &log, "lab", 2).expect_err("no log").to_string();
        assert!(lost.contains("cluster replace 2"), "{lost}");
        fs::create_dir(&log).expect("a log");
        for text in ["", "{}", r#"{"version":2,"cluster":"lab","node_id":2,"incarnation":"a"}"#] {
            fs::write(at.join(FILE), text).expect("written");
            let error = Identity::check(at, &log, "lab", 2).expect_err("damaged");
            assert!(matches!(error, IdentityError::Damaged { .. }), "{text}: {error}");
        }
    }
}
