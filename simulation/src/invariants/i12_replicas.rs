//! I12: equal revision, equal state and equal hash on every replica.

use std::collections::BTreeMap;

use plimsoll_proto::digest::StateHasher;
use plimsoll_proto::v1;

use super::{Findings, Invariant};
use crate::evidence::LogRecord;
use crate::oracle::Case;

/// See the module.
pub(super) struct Replicas;

impl Invariant for Replicas {
    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let mut records = BTreeMap::new();
        let logs =
            case.evidence.replicas.iter().flat_map(|one| one.log.iter().map(|record| (one.id, record)));
        let seen = case.evidence.seen.iter().map(|(id, record)| (*id, record));
        for (id, record) in logs.chain(seen) {
            let (first, other) = records.entry(record.revision).or_insert((id, record));
            if *other != record {
                let detail = format!("c{first} has {}, c{id} has or had {}", short(other), short(record));
                findings.add("I12", record.revision, detail);
            }
        }
        for replica in &case.evidence.replicas {
            for (one, next) in replica.log.iter().zip(replica.log.iter().skip(1)) {
                if next.revision.0 != one.revision.0 + 1 {
                    let detail = format!("c{}: after {} comes {}", replica.id, one.revision, next.revision);
                    findings.add("I12", one.revision, detail);
                }
            }
            if digest(&replica.rows) != replica.digest {
                let detail = format!("c{}: its digest is not that of its rows", replica.id);
                findings.add("I12", replica.revision, detail);
            }
        }
        for (one, other) in case.evidence.replicas.iter().zip(case.evidence.replicas.iter().skip(1)) {
            let same =
                one.revision == other.revision && one.digest == other.digest && one.chain == other.chain;
            if !same {
                findings.add("I12", one.revision, format!("c{} and c{} differ", one.id, other.id));
            }
        }
    }
}

/// A record in few words.
fn short(record: &LogRecord) -> String {
    let LogRecord { entry, log_time, chain, outcome, .. } = record;
    let chain = plimsoll_proto::digest::hex(chain);
    format!("{:?} of {:?} at {log_time}, came to {outcome:?}, hash {chain}", entry.command, entry.request_id)
}

/// Digest of rows as they came.
fn digest(rows: &[v1::StateRow]) -> [u8; 32] {
    let mut hasher = StateHasher::new();
    rows.iter().for_each(|row| hasher.add_bytes(&row.key, &row.value));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::Good;

    #[test]
    fn a_replica_that_differs_is_found() {
        let mut good = Good::new();
        good.evidence.replicas[2].log[1].chain[0] ^= 1;
        assert_eq!(good.judge(), ["I12"]);
        let mut good = Good::new();
        good.evidence.replicas[1].chain[0] ^= 1;
        assert!(good.judge().contains(&"I12"));
    }
}
