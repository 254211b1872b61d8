//! What stands in the way of members beside each other and beside other work, with its arithmetic. O(nodes of the pool).

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Blocker, Domain, Ledger, Reason, Request, Surroundings};
use plimsoll_types::{NodeId, Resources};

use crate::fleet::Fleet;
use crate::topology::Gate;

/// Domains that are too small, and nodes that other work keeps the request from: as it is now, or (`empty`) with nothing on any node.
pub(crate) fn beside(
    ledger: &Ledger,
    fleet: &Fleet,
    request: &Request,
    amounts: &Resources,
    empty: bool,
) -> Vec<Blocker> {
    let mut blockers = ledger.unknown_levels(request);
    if !blockers.is_empty() {
        // Levels come and go with the pool's policy: not for ever.
        return if empty { Vec::new() } else { blockers };
    }
    let booked = Default::default();
    let gate = Gate::new(ledger, request, &booked);
    let wanted = request.gang.min_members.max(1);
    if let Some((name, members)) = fleet.best_domain(ledger, request, amounts, gate.as_ref(), empty)
        && members < wanted
    {
        blockers.push(Blocker::new(Reason::TopologyMismatch, name, wanted.into(), members.into()));
    }
    if !empty && gate.is_some_and(|gate| gate.binds()) {
        blockers.extend(kept_out(ledger, fleet, request));
    }
    blockers
}

/// What a rule keeps the request from: its blocker, and the domains and nodes that it is about.
type KeptOut = (Blocker, BTreeSet<Option<Domain>>, BTreeSet<NodeId>);

/// Rules that keep nodes out: one blocker for each rule, with the nodes that it keeps out and a domain where it does.
fn kept_out(ledger: &Ledger, fleet: &Fleet, request: &Request) -> Vec<Blocker> {
    let surroundings = Surroundings::new(vec![ledger.work()]);
    let mut found: BTreeMap<_, KeptOut> = BTreeMap::new();
    for view in fleet.pool_views(&request.pool).filter(|view| view.node.is_eligible()) {
        let Some(chain) = ledger.chain(view.node.id) else { continue };
        for conflict in surroundings.conflicts(request, chain, view.node.id) {
            let key = (conflict.kind, conflict.rule.clone());
            let entry = found
                .entry(key)
                .or_insert_with(|| (ledger.blocker_of(&conflict), BTreeSet::new(), BTreeSet::new()));
            entry.1.insert(conflict.domain);
            // The same rule may keep it out by several domains.
            entry.2.insert(view.node.id);
        }
    }
    let sum_up = |(blocker, domains, nodes): KeptOut| {
        let more = domains.len().saturating_sub(1);
        let subject = if more > 0 { format!("{} and {more} more", blocker.subject) } else { blocker.subject };
        Blocker { subject, nodes: nodes.len() as u32, ..blocker }
    };
    found.into_values().map(sum_up).collect()
}
