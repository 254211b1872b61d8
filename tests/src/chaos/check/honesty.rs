//! The log is the same from every replica, has no gaps, and its hash chain is what `docs/encoding.md` says (I12).

use std::collections::BTreeMap;

use super::{Evidence, Findings, Judge, Replay};

/// See the module.
pub(super) struct Honesty;

impl Judge for Honesty {
    fn name(&self) -> &'static str {
        "log honesty (I12)"
    }

    fn judge(&self, evidence: &Evidence, _: &Replay, findings: &mut Findings) {
        for contradiction in &evidence.contradictions {
            findings.add(contradiction.clone());
        }
        let mut link = [0; 32];
        for (expected, record) in (1..).zip(&evidence.log) {
            if record.revision != expected {
                findings.add(format!("revision {expected} is missing: {} follows", record.revision));
                return;
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update(&link).update(&record.entry).update(&record.result);
            link = *hasher.finalize().as_bytes();
            if record.chain != link {
                findings.add(format!("revision {expected}: the chain hash is not that of entry and outcome"));
                return;
            }
        }
        let whole: BTreeMap<u64, _> = evidence.log.iter().map(|record| (record.revision, record)).collect();
        for replica in &evidence.replicas {
            for pair in replica.log.windows(2).filter(|pair| pair[0].revision + 1 != pair[1].revision) {
                findings.add(format!(
                    "c{}: nothing between {} and {}",
                    replica.id, pair[0].revision, pair[1].revision
                ));
            }
            for record in &replica.log {
                if whole.get(&record.revision).is_none_or(|other| *other != record) {
                    findings
                        .add(format!("c{}: revision {} differs from the log", replica.id, record.revision));
                }
            }
            let last = replica.log.last().map(|record| (record.revision, &record.chain));
            if last != Some((replica.revision, &replica.chain)) {
                findings
                    .add(format!("c{}: its chain hash at {} is not its log's", replica.id, replica.revision));
            }
        }
    }
}
