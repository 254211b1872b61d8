//! One request id, one effect, one answer (I10).

use std::collections::BTreeMap;

use super::{Evidence, Findings, Judge, Replay};
use crate::chaos::history::{Outcome, Seen};

/// See the module.
pub(super) struct Once;

impl Judge for Once {
    fn name(&self) -> &'static str {
        "exactly once (I10)"
    }

    fn judge(&self, evidence: &Evidence, replay: &Replay, findings: &mut Findings) {
        let mut answers: BTreeMap<&str, (u64, &Seen)> = BTreeMap::new();
        let mut done: BTreeMap<&str, u64> = BTreeMap::new();
        for operation in evidence.history.iter().filter(|operation| !operation.call.is_read()) {
            let key = operation.request_id.as_str();
            match &operation.outcome {
                Outcome::Done { revision, seen } => {
                    let first = answers.entry(key).or_insert((*revision, seen));
                    if *first != (*revision, seen) {
                        findings.add(format!("{key} was answered {first:?} and {:?}", (revision, seen)));
                    }
                    let earliest = done.entry(key).or_insert(operation.returned_us);
                    *earliest = (*earliest).min(operation.returned_us);
                }
                Outcome::Refused { reason } => {
                    // Being refused for now (no leader, overload) says nothing of an effect that an earlier call had.
                    let by_ledger = !matches!(
                        reason.as_str(),
                        "UNAVAILABLE" | "NOT_LEADER" | "RATE_LIMITED" | "DISK_FULL" | "DEADLINE"
                    );
                    if by_ledger && done.get(key).is_some_and(|returned| *returned < operation.called_us) {
                        findings.add(format!("{key} was done, and then refused as {reason}"));
                    }
                }
                Outcome::Unknown => {}
            }
        }
        let mut effects: BTreeMap<&str, u64> = BTreeMap::new();
        for record in &evidence.log {
            let key = record.command.request_id.as_str();
            let has_effect = record.refusal().is_none() && !replay.repeats.contains(&record.revision);
            if key.is_empty() || !has_effect {
                continue;
            }
            if let Some(first) = effects.insert(key, record.revision) {
                findings.add(format!("{key} took effect at {first} and at {}", record.revision));
            }
        }
    }
}
