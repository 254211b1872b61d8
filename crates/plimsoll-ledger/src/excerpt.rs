//! A small copy of the ledger in which one command can be tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_types::{NodeId, ReservationId};

use crate::ledger::{Slot, Waiting};
use crate::{Command, Entry, Ledger, NodeUsage};

impl Ledger {
    /// A copy that answers this one entry as the whole ledger would: policy and nodes, and of the reservations only those
    /// that the command can change. O(nodes + pending), but O(reservations) for `Expire` and `ApplyPolicy`, which look at all.
    pub fn excerpt(&self, entry: &Entry) -> Ledger {
        let (mut pending, mut queued) = (BTreeMap::new(), BTreeMap::new());
        let needed: BTreeSet<ReservationId> = match &entry.command {
            Command::Expire { .. }
            | Command::ApplyPolicy { .. }
            | Command::OpenWindows { .. }
            | Command::ObserveContention { .. }
            | Command::OpenIntent { .. }
            | Command::StepIntent { .. }
            | Command::SetAside { .. }
            | Command::Return { .. }
            // Bounds, growth, scaling and calendar of two pools.
            | Command::MoveNode { .. } => {
                return self.clone();
            }
            // Whether it may wait depends on how many do.
            Command::Submit { .. } => {
                pending = self.pending.clone();
                queued = self.queued.clone();
                BTreeSet::new()
            }
            Command::Preempt { reservation, victims, .. } => {
                std::iter::once(reservation).chain(victims).copied().collect()
            }
            Command::BecomeLeader { .. }
            | Command::Upgrade { .. }
            | Command::TakeTokens { .. }
            | Command::SetDesired(_)
            | Command::PinScale { .. } => BTreeSet::new(),
            Command::Place { reservation, .. }
            | Command::Relocate { reservation, .. }
            | Command::Confirm { reservation, .. }
            | Command::Renew { reservation, .. }
            | Command::Resize { reservation, .. }
            | Command::Release { reservation, .. }
            | Command::Requeue { reservation, .. }
            | Command::Evict { reservation, .. }
            | Command::Cancel { reservation } => BTreeSet::from([*reservation]),
            Command::SetEndpoint { reservation, announced, .. } => {
                // Who has the address now loses it.
                let service = self.reservation(*reservation).map_or("", |r| &r.request.service);
                let there = announced.iter().filter_map(|new| self.endpoint_at(service, &new.address));
                there.map(|other| other.id).chain([*reservation]).collect()
            }
            Command::ReportLoad { reports } => reports.iter().map(|report| report.reservation).collect(),
            Command::RegisterNode(registration) => {
                self.node_by_name(&registration.name).map(|node| self.held_by(node.id)).unwrap_or_default()
            }
            Command::SetNodeHealth { node, .. }
            | Command::InterruptNode { node, .. }
            | Command::SetNodeAdmin { node, .. }
            | Command::SetDeviceHealth { node, .. }
            | Command::RemoveNode { node } => self.held_by(*node),
        };
        // Whether it fits later depends on when those end that run.
        let of_plan = matches!(&entry.command, Command::Submit { request, .. } if request.start_at_ms > 0);
        if of_plan && !self.calendar.has(pool_of(&entry.command)) {
            return self.clone();
        }
        let mut excerpt = self.excerpt_of(&needed, pending, queued);
        if of_plan {
            excerpt.calendar = self.calendar.clone();
        }
        if let Some(remembered) = self.remembered(&entry.actor, &entry.request_id) {
            excerpt.answers.put(Arc::clone(remembered));
        }
        if matches!(entry.command, Command::Submit { .. }) {
            excerpt.overflows.aside = self.overflows.aside.clone();
        }
        excerpt.overflows.tallies = self.overflows.tallies.clone();
        excerpt
    }

    /// A copy in which those who wait for something of `pool` can be placed, and these reservations can be changed: policy, nodes, and of the
    /// reservations only those. O(nodes + pending), and O(grants of the pool) where the calendar keeps something of it.
    pub fn excerpt_for_pool(&self, pool: &str, reservations: &BTreeSet<ReservationId>) -> Ledger {
        let mut needed = reservations.clone();
        needed.extend(self.pending(pool));
        needed.extend(self.calendar.books.get(pool).into_iter().flat_map(|book| book.plans.keys()));
        let mut excerpt = self.excerpt_of(&needed, self.pending.clone(), self.queued.clone());
        // Books follow a node, or a grant that ends, by the list of grants.
        let runs = self.calendar.runs.get_key_value(pool).map(|(pool, runs)| (pool.clone(), runs.clone()));
        excerpt.calendar.runs = runs.into_iter().collect();
        // Who is aside goes before others of its queue, wherever there is room.
        excerpt.overflows.aside = self.overflows.aside.clone();
        excerpt
    }

    fn excerpt_of(
        &self,
        needed: &BTreeSet<ReservationId>,
        pending: BTreeMap<String, Waiting>,
        queued: BTreeMap<(String, String), Waiting>,
    ) -> Ledger {
        let slot = |slot: &Slot| {
            let usage = &slot.usage;
            let holders = needed.intersection(&usage.holders).copied().collect();
            let usage = NodeUsage { holders, ..usage.clone() };
            Slot { node: Arc::clone(&slot.node), usage }
        };
        let mut excerpt = Ledger {
            meta: self.meta,
            pools: self.pools.clone(),
            classes: self.classes.clone(),
            node_limits: self.node_limits.clone(),
            slots: self.slots.iter().map(|place| place.as_ref().map(slot)).collect(),
            node_names: self.node_names.clone(),
            queues: self.queues.clone(),
            quota_policies: self.quota_policies.clone(),
            quota_index: self.quota_index.clone(),
            book: self.book.clone(),
            pending,
            queued,
            quota: self.quota.clone(),
            quota_kept: self.quota_kept.clone(),
            schedules: self.schedules.clone(),
            services: self.services.clone(),
            scaling_policies: self.scaling_policies.clone(),
            scalings: self.scalings.clone(),
            intents: self.intents.clone(),
            contentions: self.contentions.clone(),
            calendar: self.calendar.tallies(),
            drains: self.drains.clone(),
            removed: self.removed.clone(),
            countables_used: self.countables_used.clone(),
            countables_kept: self.countables_kept.clone(),
            preempted: self.preempted.clone(),
            batched: self.batched.clone(),
            held_by_class: self.held_by_class.clone(),
            counts: self.counts.clone(),
            work: self.work.clone(),
            spots: self.spots.clone(),
            odd_prices: self.odd_prices.clone(),
            ..Ledger::default()
        };
        for id in needed {
            if let Some(reservation) = self.reservations.get(id) {
                excerpt.link_endpoint(reservation);
                excerpt.reservations.insert(*id, Arc::clone(reservation));
            }
        }
        excerpt
    }

    fn held_by(&self, node: NodeId) -> BTreeSet<ReservationId> {
        let Some(slot) = self.slot(node) else { return BTreeSet::new() };
        let kept_for = slot.usage.kept.iter().flat_map(|kept| &kept.by);
        slot.usage.holders.iter().chain(kept_for).copied().collect()
    }
}

fn pool_of(command: &Command) -> &str {
    match command {
        Command::Submit { request, .. } => &request.pool,
        _ => "",
    }
}
