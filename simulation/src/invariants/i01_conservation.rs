//! I1: what is used of a node is the sum of what occupies it, and never grows past what it offers; the same for what a
//! pool counts.

use std::collections::BTreeMap;

use plimsoll_ledger::{Command, Node, Reservation};
use plimsoll_types::Resources;

use super::{Findings, Invariant, amounts_of};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Conservation;

type Sums = BTreeMap<String, u128>;

impl Invariant for Conservation {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let before = counted(&step.before);
        for ((pool, name), sum) in counted(&step.after) {
            let limit = step.after.countables.get(&pool).and_then(|all| all.get(&name)).copied().unwrap_or(0);
            // What becomes the pool's may have been taken of nodes before.
            let known = before.get(&(pool.clone(), name.clone())).copied();
            if sum > u128::from(limit) && known.is_some_and(|known| sum > known) {
                findings.add("I1", step.revision, format!("{pool}: {name} grew to {sum} of {limit}"));
            }
        }
        for (id, node) in &step.after.nodes {
            let sum = taken(&step.after, node);
            let told = step.after.usage.get(id).map(|usage| sums(&usage.used)).unwrap_or_default();
            if sum != told {
                findings.add("I1", step.revision, format!("{}: grants {sum:?}, used {told:?}", node.name()));
            }
            let pool = step.after.pools.get(&node.pool);
            let offered =
                pool.map_or_else(|| sums(&node.allocatable), |pool| sums(&pool.offers_of(&node.allocatable)));
            backed_is_there(step, node, findings);
            let before = step.before.nodes.get(id).map(|node| taken(&step.before, node)).unwrap_or_default();
            for (name, amount) in &sum {
                let limit = offered.get(name).copied().unwrap_or(0);
                let grew = *amount > limit && *amount > before.get(name).copied().unwrap_or(0);
                if grew && !returned_from_pool(step, name) {
                    let detail = format!("{}: {name} grew to {amount} of {limit}", node.name());
                    findings.add("I1", step.revision, detail);
                }
            }
        }
    }
}

/// A policy says that pools count this no longer, so what is held of it counts on nodes again. Nobody holds more for that.
fn returned_from_pool(step: &Step, name: &str) -> bool {
    matches!(step.entry.command, Command::ApplyPolicy { .. })
        && step.moved().next().is_none()
        && step
            .before
            .countables
            .iter()
            .any(|(pool, countables)| countables.contains_key(name) && !step.after.is_countable(pool, name))
}

/// I27: what is backed on a node never grows past what it has.
fn backed_is_there(step: &Step, node: &Node, findings: &mut Findings) {
    let (real, backed) = (sums(&node.allocatable), taken_by(&step.after, node, |one| !one.is_best_effort()));
    let before = step.before.nodes.get(&node.id);
    let before =
        before.map(|node| taken_by(&step.before, node, |one| !one.is_best_effort())).unwrap_or_default();
    for (name, amount) in backed {
        let limit = real.get(&name).copied().unwrap_or(0);
        let grew = amount > limit && amount > before.get(&name).copied().unwrap_or(0);
        // What was left to best effort on a silent node counts from then on: nothing new was granted.
        let granted = step.moved().any(|(_, after)| {
            after.state.is_occupying() && after.members.iter().any(|member| member.node == node.id)
        });
        if grew && granted && !returned_from_pool(step, &name) {
            let detail = format!("{}: {name} backed grew to {amount} of {limit}", node.name());
            findings.add("I27", step.revision, detail);
        }
    }
}

/// What occupies a node, what it may still be running included.
fn taken(picture: &Picture, node: &Node) -> Sums {
    taken_by(picture, node, |_| true)
}

fn taken_by(picture: &Picture, node: &Node, counts: impl Fn(&Reservation) -> bool) -> Sums {
    let mut total = Sums::new();
    for reservation in picture.occupying().filter(|reservation| counts(reservation)) {
        let pool = &reservation.request.pool;
        for member in reservation.members.iter().filter(|member| member.node == node.id) {
            let on_node = sums(amounts_of(reservation, member)).into_iter();
            for (name, amount) in on_node.filter(|(name, _)| !picture.is_countable(pool, name)) {
                *total.entry(name).or_default() += amount;
            }
        }
    }
    for (name, amount) in node.fence_pending.iter().flat_map(|pending| sums(&pending.amounts)) {
        *total.entry(name).or_default() += amount;
    }
    total
}

/// What occupies a pool's countables, by pool and name.
fn counted(picture: &Picture) -> BTreeMap<(String, String), u128> {
    let mut total: BTreeMap<_, u128> = BTreeMap::new();
    for reservation in picture.occupying() {
        let pool = &reservation.request.pool;
        for member in &reservation.members {
            let of_pool = sums(amounts_of(reservation, member)).into_iter();
            for (name, amount) in of_pool.filter(|(name, _)| picture.is_countable(pool, name)) {
                *total.entry((pool.clone(), name)).or_default() += amount;
            }
        }
    }
    total
}

fn sums(amounts: &Resources) -> Sums {
    let all = amounts.iter().map(|(name, amount)| (name.to_owned(), u128::from(amount.0)));
    all.filter(|(_, amount)| *amount > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_ledger::Request;

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
    fn more_than_a_pool_counts_is_found_and_not_looked_for_on_nodes() {
        let seats = |amount| {
            let mut one = reservation(1);
            one.amounts = one.amounts.with("seat", amount);
            one.request = Arc::new(Request { pool: "default".to_owned(), ..Request::clone(&one.request) });
            let mut step = step(&[node(0)], &[one]);
            step.after_mut().countables.insert("default".to_owned(), [("seat".to_owned(), 4)].into());
            // The pool has the seats, so the node has none of them.
            for usage in step.after_mut().usage.values_mut() {
                usage.used = Resources::new(1_000, 1);
            }
            step.before_mut().countables = step.after.countables.clone();
            let mut holder = reservation(2);
            holder.amounts = Resources::default().with("seat", 1);
            holder.request = step.after.reservations.values().next().expect("one").request.clone();
            holder.members[0].node = plimsoll_types::NodeId(7);
            step.before_mut().reservations.insert(holder.id, holder.into());
            step
        };
        assert_eq!(found(&mut Conservation, &seats(4)), Vec::<&str>::new());
        assert_eq!(found(&mut Conservation, &seats(5)), ["I1"]);
    }

    #[test]
    fn more_than_a_node_offers_is_found() {
        let mut greedy = reservation(1);
        greedy.amounts = Resources::new(9_000, 1);
        let step = step(&[node(0)], &[greedy]);
        assert_eq!(
            found(&mut Conservation, &step),
            ["I27", "I1"],
            "what is backed is not there, nor offered"
        );
    }
}
