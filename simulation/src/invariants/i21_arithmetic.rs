//! I21: arithmetic is checked: no sum leaves the range of its amounts, and what is refused changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::Outcome;

use super::{Findings, Invariant, amounts_of, members_take};
use crate::oracle::Step;

/// See the module.
pub(super) struct Arithmetic;

impl Invariant for Arithmetic {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        if matches!(step.outcome, Outcome::Refused(_)) && !step.replayed {
            let nodes = same(&step.before.nodes, &step.after.nodes);
            let reservations = same(&step.before.reservations, &step.after.reservations);
            if !nodes || !reservations || !step.events.is_empty() {
                findings.add(
                    "I21",
                    step.revision,
                    format!("{:?} was refused, and changed something", step.entry),
                );
            }
        }
        for (_, one) in step.moved().filter(|(_, one)| one.state.is_occupying()) {
            let members = one.members.len();
            let amounts = one.members.iter().flat_map(|member| amounts_of(one, member).iter());
            let names: BTreeSet<&str> = amounts.map(|(name, _)| name).collect();
            for name in names {
                let sum = members_take(one, name, |_| true);
                if sum > u128::from(u64::MAX) {
                    findings.add(
                        "I21",
                        step.revision,
                        format!("{} has {sum} of {name} for {members} members", one.id),
                    );
                }
            }
        }
    }
}

/// The very same rows.
fn same<K: Ord, V>(before: &BTreeMap<K, Arc<V>>, after: &BTreeMap<K, Arc<V>>) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((a, one), (b, other))| a == b && Arc::ptr_eq(one, other))
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Reason, Refusal};
    use plimsoll_types::Resources;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    #[test]
    fn a_refusal_that_changes_something_is_found() {
        let mut refused = step(&[node(0)], &[reservation(1)]);
        refused.outcome = Outcome::Refused(Refusal::one(Reason::NoCapacity, "cpu", 1, 0));
        assert_eq!(found(&mut Arithmetic, &refused), ["I21"]);
        refused.before = refused.after.clone();
        assert_eq!(found(&mut Arithmetic, &refused), Vec::<&str>::new());
    }

    #[test]
    fn a_sum_out_of_range_is_found() {
        let mut huge = reservation(1);
        huge.amounts = Resources::new(u64::MAX, 0);
        huge.members.push(huge.members[0].clone());
        assert_eq!(found(&mut Arithmetic, &step(&[node(0)], &[huge])), ["I21"]);
    }
}
