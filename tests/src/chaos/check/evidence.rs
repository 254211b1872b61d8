//! What a run leaves for its judges.

use crate::chaos::history::Operation;
use crate::chaos::record::Record;

/// What one replica says.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// Its id.
    pub id: u64,
    /// Its log as it exports it at the end, oldest first. One that took over a snapshot may not have the beginning.
    pub log: Vec<Record>,
    /// Revision of its digest.
    pub revision: u64,
    /// Digest of its state there.
    pub digest: Vec<u8>,
    /// Its chain hash there.
    pub chain: Vec<u8>,
}

/// All that was collected.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What clients saw, by the time of the call.
    pub history: Vec<Operation>,
    /// The whole log from revision 1 on, as copied while the run went on and at its end.
    pub log: Vec<Record>,
    /// Records that a replica showed differently at two times, or two replicas from each other, as the auditor saw it.
    pub contradictions: Vec<String>,
    /// Each replica at the end.
    pub replicas: Vec<Replica>,
    /// Reservations that had not ended at the end, as a client lists them: number, state (what UNKNOWN will resume), token.
    pub live: Vec<(u64, i32, u64)>,
    /// Revision of that list.
    pub live_at: u64,
}
