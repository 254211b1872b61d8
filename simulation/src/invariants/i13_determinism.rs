//! I13: the same entries make the same state: the replay comes to the same outcomes, hashes and rows.

use super::{Findings, Invariant};
use crate::oracle::{Case, Step};

/// See the module.
pub(super) struct Determinism;

impl Invariant for Determinism {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        if step.outcome != step.recorded {
            let detail = format!("recorded {:?}, replayed {:?}", step.recorded, step.outcome);
            findings.add("I13", step.revision, detail);
        }
        if step.log_time != step.after.log_time {
            let detail = format!("recorded at {}, replayed at {}", step.log_time, step.after.log_time);
            findings.add("I13", step.revision, detail);
        }
    }

    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        for replica in &case.evidence.replicas {
            if replica.digest != case.digest {
                findings.add("I13", replica.revision, format!("c{} is not what its log makes", replica.id));
            }
            if replica.chain != case.chain {
                findings.add(
                    "I13",
                    replica.revision,
                    format!("c{}: another chain hash than its log's", replica.id),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::Outcome;

    use super::*;
    use crate::invariants::fixture::{Good, found, node, step};

    #[test]
    fn another_outcome_is_found() {
        let mut other = step(&[node(0)], &[]);
        assert_eq!(found(&mut Determinism, &other), Vec::<&str>::new());
        other.recorded = Outcome::Expired { ended: 1, more: false };
        assert_eq!(found(&mut Determinism, &other), ["I13"]);
    }

    #[test]
    fn a_state_that_the_log_does_not_make_is_found() {
        let mut good = Good::new();
        good.evidence.replicas.iter_mut().for_each(|replica| replica.digest[0] ^= 1);
        assert!(good.judge().contains(&"I13"));
    }
}
