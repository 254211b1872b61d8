//! I29: no more of the same work is put on spot nodes than its policy lets be there, nothing is put on a node that its provider takes back, and whoever
//! is on one is told.

use std::sync::Arc;

use plimsoll_ledger::{Command, Node, Queue, Request, Reservation, SpotPolicy, State};

use super::{Findings, Invariant};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Spot;

impl Invariant for Spot {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for (before, after) in step.moved().filter(|(_, after)| stays(after)) {
            let known = before.filter(|before| stays(before)).map(|before| &before.members);
            let new = || after.members.iter().filter(|one| known.is_none_or(|known| !known.contains(one)));
            for node in new().filter_map(|member| step.before.nodes.get(&member.node)) {
                if node.interruption.is_some() && before.is_none_or(|before| before.members.is_empty()) {
                    let detail = format!("{} is put on {}, which goes", after.id, node.name());
                    findings.add("I29", step.revision, detail);
                }
            }
            if known.is_none()
                && let Some(wrong) = beyond(&step.after, after)
            {
                findings.add("I29", step.revision, format!("{}: {wrong}", after.id));
            }
        }
        if let Command::InterruptNode { node, .. } = &step.entry.command
            && step.has_effect()
            && step.after.nodes.get(node).is_some_and(|node| node.interruption.is_some())
        {
            let untold = step.after.occupying().find(|one| {
                let here = one.members.iter().any(|member| member.node == *node);
                let repaired =
                    one.request.repair_within_ms > 0 && one.members.iter().any(|member| member.node != *node);
                here && !repaired && matches!(one.state, State::Active | State::Partial | State::Held)
            });
            if let Some(one) = untold {
                findings.add(
                    "I29",
                    step.revision,
                    format!("{} is on a node that goes, and was not told", one.id),
                );
            }
        }
    }
}

/// It takes something for longer than a notice.
fn stays(one: &Reservation) -> bool {
    one.state.is_occupying() && one.resume_state != State::Preempting || one.state == State::Planned
}

fn is_spot(node: &Node) -> bool {
    node.registration.labels.get("capacity_type").is_some_and(|kind| kind == "spot")
}

/// What of its work is on spot nodes beyond what may be.
fn beyond(picture: &Picture, one: &Arc<Reservation>) -> Option<String> {
    let policy = policy(picture, &one.request)?;
    let on_spot = |one: &Reservation| {
        let nodes = one.members.iter().filter_map(|member| picture.nodes.get(&member.node));
        nodes.filter(|node| is_spot(node)).count() as u64
    };
    if on_spot(one) == 0 {
        return None;
    }
    let work = |request: &Request| match request.service.as_str() {
        "" => (request.pool.clone(), false, request.queue.clone()),
        service => (request.pool.clone(), true, service.to_owned()),
    };
    let own = work(&one.request);
    let same = picture.reservations.values().filter(|other| stays(other) && work(&other.request) == own);
    let (all, spots) =
        same.fold((0, 0), |(all, spots), other| (all + other.members.len() as u64, spots + on_spot(other)));
    let most = all.saturating_sub(policy.base.into()) * u64::from(policy.share_permille) / 1_000;
    (spots > most).then(|| format!("{spots} of {all} members are on spot nodes, {most} may be"))
}

/// The policy of its queue, or of the nearest above it that has one, or of its pool.
fn policy<'a>(picture: &'a Picture, request: &Request) -> Option<&'a SpotPolicy> {
    let way = std::iter::successors(picture.queues.get(&request.queue), |queue: &&Arc<Queue>| {
        picture.queues.get(&queue.parent)
    });
    let of_queue = way.into_iter().find_map(|queue| queue.spot.as_ref());
    of_queue.or_else(|| picture.pools.get(&request.pool)?.spot.as_ref())
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::Pool;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    /// Reservation 1 came to node 0, which is a spot node; so much may be.
    fn came(share_permille: u32) -> Step {
        let mut spot = node(0);
        spot.registration.labels.insert("capacity_type".into(), "spot".into());
        let mut new = step(&[spot], &[reservation(1)]);
        let mut after = Picture::clone(&new.after);
        let policy = Some(SpotPolicy { share_permille, ..SpotPolicy::default() });
        let pool = Pool { name: reservation(1).request.pool.clone(), spot: policy, ..Pool::default() };
        after.pools.insert(pool.name.clone(), Arc::new(pool));
        new.after = Arc::new(after);
        new.before = Arc::new(Picture::default());
        new
    }

    #[test]
    fn what_is_beyond_the_share_is_found() {
        assert_eq!(found(&mut Spot, &came(1_000)), Vec::<&str>::new());
        assert_eq!(found(&mut Spot, &came(999)), ["I29"]);
    }
}
