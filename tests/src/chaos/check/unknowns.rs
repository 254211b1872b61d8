//! Unknown outcomes are settled by the log, once; a definite error is not in it (witness check, part 4).

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Findings, Judge, Replay};
use crate::chaos::history::Outcome;

/// See the module.
pub(super) struct Unknowns;

impl Judge for Unknowns {
    fn name(&self) -> &'static str {
        "definite errors (witness 4)"
    }

    fn judge(&self, evidence: &Evidence, replay: &Replay, findings: &mut Findings) {
        let mut applied: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for record in &evidence.log {
            if record.refusal().is_none() && !replay.repeats.contains(&record.revision) {
                applied.entry(&record.command.request_id).or_default().push(record.revision);
            }
        }
        // A key that was sent more than once may have been done by another of its calls.
        let mut outcomes: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
        let writes = evidence.history.iter().filter(|operation| !operation.call.is_read());
        for operation in writes {
            let refused = matches!(operation.outcome, Outcome::Refused { .. });
            outcomes.entry(&operation.request_id).or_default().insert(refused);
        }
        for (key, outcomes) in outcomes {
            let only_refused = outcomes == BTreeSet::from([true]);
            if let Some(revisions) = applied.get(key).filter(|_| only_refused) {
                findings.add(format!("{key} was refused for good, and took effect at {revisions:?}"));
            }
        }
    }
}
