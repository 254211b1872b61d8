//! I3: every index equals what the rows make of it.

use std::collections::BTreeSet;

use super::{Findings, Invariant};
use crate::oracle::Step;

/// See the module.
pub(super) struct Derived;

impl Invariant for Derived {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for violation in &step.after.self_check {
            findings.add(violation.invariant, step.revision, format!("by the ledger: {}", violation.detail));
        }
        let live = step.after.reservations.values().filter(|one| !one.state.is_final()).count() as u64;
        if live != step.after.live {
            findings.add("I3", step.revision, format!("{live} live, counted {}", step.after.live));
        }
        for (id, usage) in &step.after.usage {
            let here =
                step.after.occupying().filter(|one| one.members.iter().any(|member| member.node == *id));
            let holders: BTreeSet<_> = here.map(|one| one.id).collect();
            if holders != usage.holders {
                let detail = format!("node {}: held by {holders:?}, index has {:?}", id.0, usage.holders);
                findings.add("I3", step.revision, detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::Violation;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    #[test]
    fn drift_of_a_count_or_an_index_is_found() {
        let good = step(&[node(0)], &[reservation(1)]);
        assert_eq!(found(&mut Derived, &good), Vec::<&str>::new());
        let mut counted = good.clone();
        counted.after_mut().live = 2;
        assert_eq!(found(&mut Derived, &counted), ["I3"]);
        let mut forgotten = good.clone();
        forgotten.after_mut().usage.values_mut().for_each(|usage| usage.holders.clear());
        assert_eq!(found(&mut Derived, &forgotten), ["I3"]);
        let mut told = good;
        told.after_mut().self_check = vec![Violation { invariant: "I1", detail: "told".to_owned() }];
        assert_eq!(found(&mut Derived, &told), ["I1"]);
    }
}
