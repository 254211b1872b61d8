//! What a stopped member's log, state and snapshots say of consensus, without starting it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use plimsoll_store::{Engine, Wal};
use prost::Message as _;

use super::{CHUNK_BYTES, files, format};
use crate::internal as wire_types;
use crate::machine::{META_KEY, ROW_PREFIX};
use crate::types::{EntryPayload, LogId, StoredMembership};
use crate::{Error, NodeInfo, wire};

/// A place in the log of consensus. Ordered as consensus orders logs: by term before index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Term of the leader who proposed the entry.
    pub term: u64,
    /// That leader.
    pub node_id: u64,
    /// Index.
    pub index: u64,
}

impl From<LogId> for LogPosition {
    fn from(id: LogId) -> LogPosition {
        LogPosition { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
    }
}

/// A member's log.
#[derive(Clone, Debug, Default)]
pub struct ExaminedLog {
    /// Term, candidate, and whether a quorum granted it; `None` where it never voted.
    pub vote: Option<(u64, u64, bool)>,
    /// The latest record of what is committed; more may be.
    pub committed: Option<LogPosition>,
    /// The latest entry that was let go of.
    pub purged: Option<LogPosition>,
    /// The first entry that is there.
    pub first: Option<LogPosition>,
    /// The last entry; where none is there, the purged one.
    pub last: Option<LogPosition>,
    /// Index and payload of each entry that has one, in order.
    pub payloads: Vec<(u64, Bytes)>,
    /// Number of entries, with those that have no payload.
    pub entries: u64,
}

impl ExaminedLog {
    /// Reads a log and checks that its entries follow one another, in index and in term.
    ///
    /// # Errors
    /// What [`Wal::load`] finds; [`Error::Damaged`] where the entries make no log.
    pub fn read(wal: &dyn Wal) -> Result<ExaminedLog, Error> {
        let loaded = wal.load()?;
        let vote = loaded.vote.map(wire::decode_vote).transpose()?.map(|vote| wire::vote(&vote));
        let position = |bytes| wire::decode_log_id(bytes).map(LogPosition::from);
        let committed = loaded.committed.map(position).transpose()?;
        let purged = loaded.purged.map(|(_, marker)| position(marker)).transpose()?;
        let mut log = ExaminedLog {
            vote: vote.map(|vote| (vote.term, vote.node_id, vote.committed)),
            committed,
            purged,
            last: purged,
            ..ExaminedLog::default()
        };
        for (index, bytes) in loaded.entries {
            let entry = wire::decode_entry(bytes)?;
            let at = LogPosition::from(entry.log_id);
            if at.index != index || log.last.is_some_and(|last| last >= at || last.index + 1 != index) {
                return Err(Error::Damaged("order of the log's entries"));
            }
            log.first.get_or_insert(at);
            log.last = Some(at);
            log.entries += 1;
            if let EntryPayload::Normal(payload) = entry.payload {
                log.payloads.push((index, payload.bytes));
            }
        }
        // An entry is only taken from a leader whose term was voted for, durably, before.
        if log
            .first
            .is_some_and(|first| log.vote.is_none_or(|(term, ..)| term < log.last.unwrap_or(first).term))
        {
            return Err(Error::Damaged(
                "vote: it is older than the log's last entry, or not there, and so the vote",
            ));
        }
        Ok(log)
    }
}

/// How far a member's stored state is, and who its members are as of there.
#[derive(Clone, Debug, Default)]
pub struct ExaminedState {
    /// Cluster that it is of.
    pub cluster_id: String,
    /// The latest entry that the rows show; `None` where the first entry was not applied yet.
    pub applied: Option<LogPosition>,
    /// Id, place and vote of each member.
    pub members: Vec<(u64, NodeInfo, bool)>,
}

impl ExaminedState {
    /// Reads how far the rows of an engine are; `None` where nothing was ever written.
    ///
    /// # Errors
    /// What the engine finds; [`Error::Damaged`] where the record makes no sense.
    pub fn read(engine: &dyn Engine) -> Result<Option<ExaminedState>, Error> {
        let Some(bytes) = engine.get(META_KEY)? else { return Ok(None) };
        let meta = wire_types::SnapshotMeta::decode(bytes).map_err(|_| Error::Damaged("applied state"))?;
        let cluster_id = meta.cluster_id.clone();
        let meta = wire::snapshot_meta_back(meta)?;
        let members = members(&meta.last_membership);
        Ok(Some(ExaminedState { cluster_id, applied: meta.last_log_id.map(LogPosition::from), members }))
    }

    /// Reads each row of the machine, with its key as the machine knows it.
    ///
    /// # Errors
    /// The first row that cannot be read.
    pub fn rows(engine: &dyn Engine, mut row: impl FnMut(Bytes, Bytes)) -> Result<(), plimsoll_store::Error> {
        for found in engine.view().scan(&[ROW_PREFIX], &[]) {
            let (key, value) = found?;
            row(key.slice(1..), value);
        }
        Ok(())
    }
}

/// One snapshot file.
#[derive(Clone, Debug)]
pub struct ExaminedSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Cluster that it is of.
    pub cluster_id: String,
    /// The latest entry that it covers.
    pub position: Option<LogPosition>,
    /// Number of rows.
    pub rows: u64,
}

impl ExaminedSnapshot {
    /// The snapshot files of a member, oldest first.
    pub fn files(dir: &Path) -> Vec<PathBuf> {
        files(dir)
    }

    /// Reads one file to its end and checks its hash.
    ///
    /// # Errors
    /// `InvalidData` where it is damaged.
    pub fn read(path: &Path) -> io::Result<ExaminedSnapshot> {
        ExaminedSnapshot::read_along(path, |_| ())
    }

    /// The same; `read` is told how many bytes each row has, and may take its time.
    ///
    /// # Errors
    /// `InvalidData` where it is damaged.
    pub fn read_along(path: &Path, mut read: impl FnMut(usize)) -> io::Result<ExaminedSnapshot> {
        let mut file = io::BufReader::with_capacity(CHUNK_BYTES, std::fs::File::open(path)?);
        let mut rows = 0;
        let (cluster_id, meta) = format::read_any(&mut file, None, |key, value| {
            rows += 1;
            read(key.len() + value.len());
        })?;
        let position = meta.last_log_id.map(LogPosition::from);
        Ok(ExaminedSnapshot { path: path.to_owned(), cluster_id, position, rows })
    }
}

fn members(stored: &StoredMembership) -> Vec<(u64, NodeInfo, bool)> {
    let voters: Vec<u64> = stored.membership().voter_ids().collect();
    stored.membership().nodes().map(|(id, info)| (*id, info.clone(), voters.contains(id))).collect()
}
