//! The invariants of `docs/architecture.md`, recomputed from scratch: a slow second opinion on the indexes.

use std::collections::BTreeMap;

use plimsoll_types::Resources;

use crate::{AsideHow, Ledger, NodeHealth, State};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its id, as in `docs/architecture.md`.
    pub invariant: &'static str,
    /// Where and by how much.
    pub detail: String,
}

impl Ledger {
    /// Recomputes everything that can be recomputed. O(n log n); for tests, simulation and audits.
    pub fn check_invariants(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_conservation(&mut found);
        self.check_devices(&mut found);
        self.check_derived(&mut found);
        self.check_lives(&mut found);
        self.check_quota_use(&mut found);
        self.check_usage(&mut found);
        self.check_scaling(&mut found);
        self.check_contentions(&mut found);
        self.check_homes(&mut found);
        self.check_overflows(&mut found);
        found
    }

    /// I1: what is taken of a node is the sum of what occupies it, and what was there when it was taken.
    fn check_conservation(&self, found: &mut Vec<Violation>) {
        for node in self.nodes() {
            let mut sum = Resources::default();
            let mut loose = Resources::default();
            for reservation in self.holders(node.id) {
                let shares = self.shares(reservation);
                for member in reservation.members.iter().filter(|member| member.node == node.id) {
                    let on_node = shares.on_node(member);
                    let overflows = sum.add_assign(on_node).is_err()
                        || reservation.is_best_effort() && loose.add_assign(on_node).is_err();
                    if overflows {
                        violation(found, "I21", format!("sum on node {} overflows", node.name()));
                    }
                }
            }
            for pending in &node.fence_pending {
                if sum.add_assign(&pending.amounts).is_err() {
                    violation(found, "I21", format!("fence-pending sum on node {} overflows", node.name()));
                }
            }
            let used = self.usage(node.id).map(|usage| usage.used.clone()).unwrap_or_default();
            if used != sum {
                violation(found, "I1", format!("node {}: used {used:?}, sum of grants {sum:?}", node.name()));
            }
            let counted = self.usage(node.id).map(|usage| usage.loose.clone()).unwrap_or_default();
            if counted != loose {
                let detail = format!("node {}: loose {counted:?}, sum of best effort {loose:?}", node.name());
                violation(found, "I27", detail);
            }
        }
    }

    /// I65: a node that moved is lent by its home, the pool that its registration gives it, to another, both elastic.
    fn check_homes(&self, found: &mut Vec<Violation>) {
        let is_elastic = |name: &str| self.pool(name).is_some_and(|pool| pool.elastic.is_elastic());
        for node in self.nodes() {
            let home = self.pool_of(&node.registration);
            let lent = node.moved.as_ref().is_some_and(|moved| moved.home == home)
                && is_elastic(&home)
                && is_elastic(&node.pool);
            if !lent && node.moved.is_some() {
                let detail = format!("node {} of {home} is in {}: {:?}", node.name(), node.pool, node.moved);
                violation(found, "I65", detail);
            }
        }
    }

    /// I66: who is aside is pending, or ended so, with a request that has nothing of what its body has; there is a body for each in memory that is to be there,
    /// and none for anybody else.
    fn check_overflows(&self, found: &mut Vec<Violation>) {
        for r in self.reservations() {
            let Some(aside) = &r.aside else { continue };
            let stands = r.state == State::Pending || r.state.is_final();
            if !stands || *r.request != r.request.thinned() || r.request.queue.is_empty() {
                violation(
                    found,
                    "I66",
                    format!("{} is aside and {}, of {:?}", r.id, r.state.name(), r.request),
                );
            }
            let length = self.body(r.id).map(|body| body.bytes.len() as u64);
            let is_lost = aside.how == AsideHow::Compressed && length.is_none();
            if is_lost || length.is_some_and(|length| length != u64::from(aside.body_bytes)) {
                violation(found, "I66", format!("{}: a body of {length:?}, not {}", r.id, aside.body_bytes));
            }
        }
        for id in self.overflows.bodies.keys().filter(|id| !self.needs_body(**id)) {
            violation(found, "I66", format!("a body of {id}, which is not aside"));
        }
    }

    /// I2: a device is taken whole by one, in parts that together fit, or in slices that do not overlap.
    fn check_devices(&self, found: &mut Vec<Violation>) {
        for node in self.nodes() {
            let Some(usage) = self.usage(node.id) else { continue };
            for (device, taken) in node.registration.devices.iter().zip(&usage.devices) {
                if !taken.is_sound(device) {
                    violation(
                        found,
                        "I2",
                        format!("device {} of node {}: {taken:?}", device.uuid, node.name()),
                    );
                }
            }
        }
    }

    /// I3: every index is what the rows make of it.
    fn check_derived(&self, found: &mut Vec<Violation>) {
        let rebuilt = match Ledger::from_rows(self.rows().map(|(_, row)| row)) {
            Ok(rebuilt) => rebuilt,
            Err(error) => return violation(found, "I3", format!("rows do not make a ledger: {error}")),
        };
        let slots = |ledger: &Ledger| ledger.slots.iter().flatten().cloned().collect::<Vec<_>>();
        let used = |ledger: &Ledger| {
            let both = ledger.countables_used.iter().chain(&ledger.countables_kept);
            both.filter(|(_, used)| !used.is_zero()).map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>()
        };
        let checks = [
            ("node usage", slots(self) == slots(&rebuilt)),
            ("pending", self.pending == rebuilt.pending && self.queued == rebuilt.queued),
            (
                "overflow",
                self.overflows.aside == rebuilt.overflows.aside
                    && self.overflows.tallies == rebuilt.overflows.tallies
                    && self.overflows.bounded == rebuilt.overflows.bounded,
            ),
            ("quota", self.quota == rebuilt.quota && self.quota_kept == rebuilt.quota_kept),
            ("preempted", self.preempted == rebuilt.preempted),
            ("batches", self.batched == rebuilt.batched),
            ("preferred hours", self.awaited == rebuilt.awaited),
            ("classes", self.held_by_class == rebuilt.held_by_class),
            ("repairing", self.repairing == rebuilt.repairing),
            ("work", self.work == rebuilt.work),
            ("spots", self.spots == rebuilt.spots),
            ("odd prices", self.odd_prices == rebuilt.odd_prices),
            ("usage", self.book == rebuilt.book && self.quota_index == rebuilt.quota_index),
            ("calendar", self.calendar == rebuilt.calendar),
            ("ended", self.ended == rebuilt.ended),
            ("counts", self.counts == rebuilt.counts),
            ("countables", used(self) == used(&rebuilt)),
            ("drains", self.drains == rebuilt.drains),
            ("remembered", self.answers == rebuilt.answers),
            ("removed nodes", self.removed == rebuilt.removed),
            ("endpoints", self.endpoints == rebuilt.endpoints && self.loads == rebuilt.loads),
            (
                "scaling",
                self.scaling_policies == rebuilt.scaling_policies
                    && self.scalings == rebuilt.scalings
                    && self.intents == rebuilt.intents,
            ),
            ("contentions", self.contentions == rebuilt.contentions),
            ("use over time", self.queue_uses == rebuilt.queue_uses),
            ("names", self.node_names == rebuilt.node_names),
        ];
        for (what, holds) in checks {
            if !holds {
                violation(found, "I3", format!("index of {what} differs from the rows"));
            }
        }
        for removed in self.removed_nodes() {
            if self.node(removed.id).is_some() {
                violation(found, "I3", format!("node {} is both there and removed", removed.name));
            }
        }
        // Deadlines may stand earlier than due (a change of leader moves all at once), never later or not at all.
        let mut earliest = BTreeMap::new();
        for &(key, id) in &self.deadlines {
            earliest.entry(id).or_insert(key);
        }
        for &(due, id) in &rebuilt.deadlines {
            if earliest.get(&id).is_none_or(|key| *key > due) {
                violation(found, "I3", format!("{id} is due at {due} but not in the index by then"));
            }
        }
    }

    /// I4, as far as it can be seen at rest: what a queue has taken is what its reservations take. That nothing is granted beyond a quota
    /// is looked at with each grant (`guard.rs`): a quota may be cut below what is taken.
    fn check_quota_use(&self, found: &mut Vec<Violation>) {
        let mut sums: BTreeMap<(&str, &str), Resources> = BTreeMap::new();
        for r in self.reservations().filter(|r| r.state.is_occupying() && !r.request.queue.is_empty()) {
            if self.queue(&r.request.queue).is_none() {
                violation(
                    found,
                    "I4",
                    format!("{} takes from queue {}, which is gone", r.id, r.request.queue),
                );
            }
            let sum = sums.entry((&r.request.queue, &r.request.pool)).or_default();
            let taken = r.charge();
            if taken.is_none_or(|taken| sum.add_assign(&taken).is_err()) {
                violation(found, "I21", format!("sum of queue {} overflows", r.request.queue));
            }
        }
        for (queue, pool) in self.queue_uses.keys() {
            if self.queue(queue).is_none() || self.pool(pool).is_none_or(|pool| pool.fades_in_ms().is_none())
            {
                violation(
                    found,
                    "I4",
                    format!("use over time of queue {queue} in {pool}, which counts none"),
                );
            }
        }
        for ((queue, pool), sum) in sums {
            let counts = self.pool(pool).is_some_and(|pool| pool.fades_in_ms().is_some());
            if counts && !sum.is_zero() && !self.queue_uses.contains_key(&(queue.to_owned(), pool.to_owned()))
            {
                violation(found, "I4", format!("queue {queue} takes of {pool}, and its use is not counted"));
            }
            let taken = self.quota.own_use(queue, pool).cloned().unwrap_or_default();
            if taken != sum {
                violation(
                    found,
                    "I4",
                    format!("queue {queue} in {pool}: taken {taken:?}, sum of grants {sum:?}"),
                );
            }
        }
    }

    /// I5, I6, I7, I26: tokens, states, gangs and endpoints.
    fn check_lives(&self, found: &mut Vec<Violation>) {
        for id in self.loads.keys() {
            if self.reservation(*id).is_none_or(|r| r.endpoint.is_none()) {
                violation(found, "I26", format!("{id} has a load and is no endpoint"));
            }
        }
        for r in self.reservations() {
            let id = r.id;
            let members = r.members.len() as u64;
            let gang = r.request.gang;
            if r.state.is_occupying() {
                let too_few = members < gang.min_members.into() && !r.is_below_minimum();
                if too_few || members == 0 || members > gang.max_members.into() {
                    violation(found, "I7", format!("{id} holds {members} members of {gang:?}"));
                }
                if r.token.0 == 0 || r.token > self.revision() {
                    violation(found, "I5", format!("{id} occupies with token {}", r.token));
                }
            } else if members > 0 && r.state != State::Planned {
                violation(found, "I8", format!("{id} is {} and still names members", r.state.name()));
            }
            if let Some(fault) = self.repair_faults(r) {
                violation(found, "I7", fault);
            }
            let unheard = |member: &crate::MemberPlacement| {
                self.node(member.node).is_none_or(|node| node.health != NodeHealth::Available)
            };
            if r.state.is_occupying() && (r.state == State::Unknown) != r.members.iter().any(unheard) {
                violation(
                    found,
                    "I6",
                    format!("{id} is {} which does not fit its nodes' health", r.state.name()),
                );
            }
            if r.state.is_final() != r.end_reason.is_some()
                || r.state.is_final() != (r.ended_at.0 > 0) && self.clock().0 > 0
            {
                violation(found, "I6", format!("{id} is {} with end {:?}", r.state.name(), r.end_reason));
            }
            if r.endpoint.is_some() && (!r.state.is_occupying() || r.request.service.is_empty()) {
                violation(found, "I26", format!("{id} is {} and still an endpoint", r.state.name()));
            }
            if r.state != State::Unknown && r.resume_state != r.state {
                violation(
                    found,
                    "I6",
                    format!("{id} is {} but would resume as {}", r.state.name(), r.resume_state.name()),
                );
            }
        }
    }
}

fn violation(found: &mut Vec<Violation>, invariant: &'static str, detail: String) {
    found.push(Violation { invariant, detail });
}
