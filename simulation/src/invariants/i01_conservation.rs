//! I1: what is used of a node is the sum of what occupies it, and never grows past what it offers.

use std::collections::BTreeMap;

use plimsoll_ledger::Node;
use plimsoll_types::Resources;

use super::{Findings, Invariant};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Conservation;

type Sums = BTreeMap<String, u128>;

impl Invariant for Conservation {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for (id, node) in &step.after.nodes {
            let sum = taken(&step.after, node);
            let told = step.after.usage.get(id).map(|usage| sums(&usage.used)).unwrap_or_default();
            if sum != told {
                findings.add("I1", step.revision, format!("{}: grants {sum:?}, used {told:?}", node.name()));
            }
            let offered = sums(&node.allocatable);
            let before = step.before.nodes.get(id).map(|node| taken(&step.before, node)).unwrap_or_default();
            for (name, amount) in &sum {
                let limit = offered.get(name).copied().unwrap_or(0);
                if *amount > limit && *amount > before.get(name).copied().unwrap_or(0) {
                    let detail = format!("{}: {name} grew to {amount} of {limit}", node.name());
                    findings.add("I1", step.revision, detail);
                }
            }
        }
    }
}

/// What occupies a node, what it may still be running included.
fn taken(picture: &Picture, node: &Node) -> Sums {
    let mut total = Sums::new();
    let mut add = |amounts: &Resources| {
        for (name, amount) in sums(amounts) {
            *total.entry(name).or_default() += amount;
        }
    };
    for reservation in picture.reservations.values().filter(|one| one.state.is_occupying()) {
        reservation
            .members
            .iter()
            .filter(|member| member.node == node.id)
            .for_each(|_| add(&reservation.amounts));
    }
    node.fence_pending.iter().for_each(|pending| add(&pending.amounts));
    total
}

fn sums(amounts: &Resources) -> Sums {
    let all = amounts.iter().map(|(name, amount)| (name.to_owned(), u128::from(amount.0)));
    all.filter(|(_, amount)| *amount > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    #[test]
    fn a_grant_that_is_not_counted_is_found() {
        let mut step = step(&[node(0)], &[reservation(1)]);
        assert_eq!(found(&mut Conservation, &step), Vec::<&str>::new());
        step.after_mut().usage.clear();
        assert_eq!(found(&mut Conservation, &step), ["I1"]);
    }

    #[test]
    fn more_than_a_node_offers_is_found() {
        let mut greedy = reservation(1);
        greedy.amounts = Resources::new(9_000, 1);
        let step = step(&[node(0)], &[greedy]);
        assert_eq!(found(&mut Conservation, &step), ["I1"]);
    }
}
