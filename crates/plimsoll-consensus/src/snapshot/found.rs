//! A new cluster on rows that were saved from another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;

use bytes::Bytes;
use openraft::vote::RaftVote as _;
use plimsoll_store::{Engine, Op, Wal, WriteBatch};
use prost::Message as _;

use crate::machine::{META_KEY, ROW_PREFIX};
use crate::types::{LeaderId, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::{Error, NodeInfo, wire};

/// The first member of a cluster that begins with rows.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// Name of the new cluster.
    pub cluster_id: String,
    /// Its first member and only voter.
    pub node_id: u64,
    /// Where that member is.
    pub info: NodeInfo,
}

/// Writes an empty log and an empty engine as those of a member that has applied one entry, which made it the only voter,
/// and that has these rows. Keys are without the prefix of rows. All of it is durable when this returns.
///
/// # Errors
/// [`Error::AlreadyInitialized`] where log or engine hold something; what they fail with.
pub fn found_cluster(
    new: &NewCluster,
    wal: &dyn Wal,
    engine: &dyn Engine,
    rows: impl IntoIterator<Item = (Bytes, Bytes)>,
) -> Result<(), Error> {
    let loaded = wal.load()?;
    let used = loaded.vote.is_some() || loaded.purged.is_some() || !loaded.entries.is_empty();
    if used || engine.get(META_KEY)?.is_some() {
        return Err(Error::AlreadyInitialized);
    }
    let leader = LeaderId { term: 1, node_id: new.node_id };
    let first = LogId::new(leader, 1);
    let voters = vec![BTreeSet::from([new.node_id])];
    let members = Membership::new(voters, BTreeMap::from([(new.node_id, new.info.clone())]))
        .map_err(|_| Error::Damaged("membership"))?;
    let meta = SnapshotMeta {
        last_log_id: Some(first),
        last_membership: StoredMembership::new(Some(first), members),
    };
    let mut batch = WriteBatch::new();
    for (key, value) in rows {
        batch.put([&[ROW_PREFIX], &key[..]].concat(), value);
    }
    batch.put(META_KEY, wire::snapshot_meta(&meta, &new.cluster_id).encode_to_vec());
    // The log last: without it the member has lost its log, and says so.
    engine.replace_all(batch)?;
    let vote = Vote::from_leader_id(leader, false);
    let marker = wire::encode_log_id(&first);
    let ops = vec![
        Op::Vote { bytes: wire::encode_vote(&vote) },
        Op::PurgeTo { index: first.index, marker: marker.clone() },
        Op::Committed { bytes: marker },
    ];
    let (done, outcome) = mpsc::channel();
    wal.submit(ops, Box::new(move |result| drop(done.send(result))));
    let outcome = outcome.recv().unwrap_or_else(|_| Err(std::io::Error::other("the log was closed")));
    outcome.map_err(|error| Error::Raft(error.to_string()))
}
