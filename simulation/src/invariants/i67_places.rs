//! I67: the members of a new grant lie in one domain of the level that it requires, its groups each in one of theirs; it keeps together with other
//! work, and apart from it, as its own rules and those of others say that must hold.
//!
//! What holds when the grant is made: later changes of labels, levels and other work take nothing away.

use std::sync::Arc;

use plimsoll_ledger::{Affinity, Node, Reservation};
use plimsoll_types::NodeId;

use super::{Findings, Invariant};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Places;

impl Invariant for Places {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for (before, after) in step.moved() {
            let goes_on = before.is_some_and(|one| one.state.is_occupying());
            if after.token != step.revision || !after.state.is_occupying() || goes_on {
                continue;
            }
            let place = Place { picture: &step.after, granted: after };
            for wrong in [place.torn(), place.meets()].into_iter().flatten() {
                findings.add("I67", step.revision, format!("{} was granted, and {wrong}", after.id));
            }
        }
    }
}

/// Where a new grant is.
struct Place<'a> {
    picture: &'a Picture,
    granted: &'a Reservation,
}

impl Place<'_> {
    /// Its members, or those of a group, are not in one domain.
    fn torn(&self) -> Option<String> {
        let topology = &self.granted.request.topology;
        let nodes: Vec<NodeId> = self.granted.members.iter().map(|member| member.node).collect();
        if !topology.required.is_empty() && !self.together(&nodes, &topology.required) {
            return Some(format!("{nodes:?} are in no one domain of {}", topology.required));
        }
        let size = topology.slice_size as usize;
        if size == 0 {
            return None;
        }
        if !nodes.len().is_multiple_of(size) {
            return Some(format!("{} members are no whole groups of {size}", nodes.len()));
        }
        let torn = nodes.chunks(size).find(|group| !self.together(group, &topology.slice_level));
        torn.map(|group| format!("its group {group:?} is in no one domain of {}", topology.slice_level))
    }

    fn together(&self, nodes: &[NodeId], level: &str) -> bool {
        let domains: Vec<_> = nodes.iter().map(|node| self.domain(*node, level)).collect();
        domains.iter().all(|domain| domain.is_some() && *domain == domains[0])
    }

    /// The domain of a node at a level: the pool and the values of its labels down to there. A node of its own at the innermost.
    fn domain(&self, id: NodeId, level: &str) -> Option<Vec<String>> {
        let node = self.picture.nodes.get(&id)?;
        if is_node(level) {
            return Some(vec![node.pool.clone(), format!("{id:?}")]);
        }
        let levels = &self.picture.pools.get(&node.pool)?.topology;
        let depth = levels.iter().position(|known| known == level)?;
        let labels = node.effective_labels();
        let values = levels[..=depth].iter().map(|level| labels.get(level).cloned());
        std::iter::once(Some(node.pool.clone())).chain(values).collect()
    }

    /// It is with whom it must not be with, or without whom it must be with.
    fn meets(&self) -> Option<String> {
        let request = &self.granted.request;
        let others = || self.picture.occupying().filter(|one| one.id != self.granted.id);
        for member in &self.granted.members {
            for rule in request.affinity.iter().filter(|rule| rule.weight == 0) {
                let carrying = || others().filter(|one| carries(one, rule));
                let there = carrying().find(|one| self.is_near(one, member.node, &rule.level));
                if let Some(other) = there.filter(|_| rule.anti) {
                    return Some(format!(
                        "{other} is where it is apart from {}",
                        rule.value,
                        other = other.id
                    ));
                }
                // The first of those who keep together has nobody to be with.
                let first = carries(self.granted, rule)
                    && !carrying().any(|one| self.is_in_pool_of(one, member.node));
                if !rule.anti && there.is_none() && !first {
                    return Some(format!(
                        "nobody of {} is where its member on {:?} is",
                        rule.value, member.node
                    ));
                }
            }
            for other in others() {
                let keeps_away = other.request.affinity.iter().find(|rule| {
                    rule.weight == 0
                        && rule.anti
                        && carries(self.granted, rule)
                        && self.is_near(other, member.node, &rule.level)
                });
                if let Some(rule) = keeps_away {
                    return Some(format!("{} is there, which is apart from {}", other.id, rule.value));
                }
            }
        }
        None
    }

    /// A member of it is in the domain of a node.
    fn is_near(&self, other: &Reservation, node: NodeId, level: &str) -> bool {
        let Some(domain) = self.domain(node, level) else { return false };
        other.members.iter().any(|member| self.domain(member.node, level).as_ref() == Some(&domain))
    }

    /// A member of it is in the pool of a node.
    fn is_in_pool_of(&self, other: &Reservation, node: NodeId) -> bool {
        let pool = |id: NodeId| self.picture.nodes.get(&id).map(|node: &Arc<Node>| &node.pool);
        other.members.iter().any(|member| pool(member.node) == pool(node))
    }
}

fn is_node(level: &str) -> bool {
    level.is_empty() || level == "node"
}

fn carries(one: &Reservation, rule: &Affinity) -> bool {
    one.request.labels.get(&rule.key) == Some(&rule.value)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{MemberPlacement, Pool, Request, Topology};

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    fn in_rack(id: u32, rack: &str) -> Node {
        let mut node = node(id);
        node.registration.labels.insert("rack".to_owned(), rack.to_owned());
        node
    }

    /// Grants of revision 10 and before it, by id, on the first two nodes in one rack and a third in another.
    fn granted(grants: &[(u64, &[u32], Request)]) -> Step {
        let nodes = [in_rack(0, "a"), in_rack(1, "a"), in_rack(2, "b")];
        let on = |(id, nodes, request): &(u64, &[u32], Request)| {
            let mut one = reservation(*id);
            let member = |node: &u32| MemberPlacement { node: NodeId(*node), devices: Vec::new(), role: 0 };
            one.members = nodes.iter().map(member).collect();
            one.request = Arc::new(request.clone());
            one
        };
        let reservations: Vec<_> = grants.iter().map(on).collect();
        let mut step = step(&nodes, &reservations);
        let topology = vec!["rack".to_owned()];
        let pool = Pool { name: "default".to_owned(), topology, ..Pool::default() };
        step.after_mut().pools.insert("default".to_owned(), Arc::new(pool));
        // All but the first were there before.
        for (id, ..) in &grants[1..] {
            let id = plimsoll_types::ReservationId(*id);
            let one = Arc::clone(&step.after.reservations[&id]);
            step.before_mut().reservations.insert(id, one);
        }
        step
    }

    fn near(required: &str, slice_size: u32) -> Request {
        let slice_level = if slice_size > 0 { "rack".to_owned() } else { String::new() };
        let topology =
            Topology { required: required.to_owned(), slice_size, slice_level, ..Topology::default() };
        Request { topology, ..Request::default() }
    }

    fn of_run(run: &str) -> Request {
        Request { labels: [("run".to_owned(), run.to_owned())].into(), ..Request::default() }
    }

    fn ruled(level: &str, anti: bool) -> Request {
        let (key, value, level) = ("run".to_owned(), "one".to_owned(), level.to_owned());
        let affinity = vec![Affinity { key, value, level, weight: 0, anti }];
        Request { affinity, ..Request::default() }
    }

    fn judged(grants: &[(u64, &[u32], Request)]) -> usize {
        found(&mut Places, &granted(grants)).len()
    }

    #[test]
    fn a_gang_that_is_torn_apart_is_found_and_so_is_a_group_of_one() {
        assert_eq!(judged(&[(1, &[0, 1], near("rack", 0))]), 0);
        assert_eq!(judged(&[(1, &[0, 2], near("rack", 0))]), 1);
        assert_eq!(judged(&[(1, &[0, 1], near("node", 0))]), 1);
        assert_eq!(judged(&[(1, &[0, 1, 2, 2], near("", 2))]), 0);
        assert_eq!(judged(&[(1, &[0, 2, 1, 2], near("", 2))]), 1);
        assert_eq!(judged(&[(1, &[0, 1], near("zone", 0))]), 1, "a level that nobody has");
    }

    #[test]
    fn a_grant_beside_whom_it_is_apart_from_is_found_by_either_rule() {
        assert_eq!(judged(&[(1, &[0], ruled("node", true)), (2, &[1], of_run("one"))]), 0);
        assert_eq!(judged(&[(1, &[0], ruled("node", true)), (2, &[0], of_run("two"))]), 0);
        assert_eq!(judged(&[(1, &[0], ruled("node", true)), (2, &[0], of_run("one"))]), 1);
        assert_eq!(judged(&[(1, &[0], ruled("rack", true)), (2, &[1], of_run("one"))]), 1);
        assert_eq!(judged(&[(1, &[1], of_run("one")), (2, &[0], ruled("rack", true))]), 1, "theirs");
    }

    #[test]
    fn a_grant_without_whom_it_keeps_together_with_is_found_but_for_the_first_of_them() {
        assert_eq!(judged(&[(1, &[0], ruled("rack", false)), (2, &[1], of_run("one"))]), 0);
        assert_eq!(judged(&[(1, &[0], ruled("rack", false)), (2, &[2], of_run("one"))]), 1);
        let first = Request { labels: of_run("one").labels, ..ruled("rack", false) };
        assert_eq!(judged(&[(1, &[0], first.clone())]), 0);
        assert_eq!(judged(&[(1, &[0], first), (2, &[2], of_run("one"))]), 1);
    }
}
