//! The only writers of stored facts. Each keeps the derived indexes in step and notes the touched row.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Resources};

use crate::ledger::Slot;
use crate::limits::{MAX_ENDED, expiry_slack_ms};
use crate::{
    Class, DeviceGrant, DeviceUsage, Ledger, Node, NodeLimits, NodeUsage, Pool, Preempted, PreemptionRule,
    Queue, QuotaPolicy, QuotaTree, Remembered, Reservation, RowPlace, State, Validator,
};

impl Ledger {
    pub(crate) fn put_pool(&mut self, pool: Arc<Pool>) {
        self.touched.row(RowPlace::Pool(pool.name.clone()));
        self.pools.insert(pool.name.clone(), pool);
    }

    pub(crate) fn put_class(&mut self, class: Arc<Class>) {
        self.touched.row(RowPlace::Class(class.name.clone()));
        self.classes.insert(class.name.clone(), class);
    }

    pub(crate) fn put_node_limits(&mut self, limits: Arc<NodeLimits>) {
        self.touched.row(RowPlace::NodeLimits(limits.name.clone()));
        self.node_limits.insert(limits.name.clone(), limits);
    }

    /// Puts a queue. The tree is re-made by [`Ledger::remake_quota`] once all are there.
    pub(crate) fn put_queue(&mut self, queue: Arc<Queue>) {
        self.touched.row(RowPlace::Queue(queue.name.clone()));
        if queue.sets_aside().is_some() {
            self.overflows.bounded.insert(queue.name.clone());
        } else {
            self.overflows.bounded.remove(&queue.name);
        }
        self.queues.insert(queue.name.clone(), queue);
    }

    pub(crate) fn put_validator(&mut self, object: Arc<Validator>) {
        self.touched.row(RowPlace::Validator(object.name.clone()));
        self.validators.insert(object.name.clone(), object);
    }

    pub(crate) fn remove_validator(&mut self, name: &str) {
        self.touched.row(RowPlace::Validator(name.to_owned()));
        self.validators.remove(name);
    }

    pub(crate) fn remove_queue(&mut self, name: &str) {
        self.touched.row(RowPlace::Queue(name.to_owned()));
        self.overflows.bounded.remove(name);
        self.queues.remove(name);
    }

    pub(crate) fn put_quota_policy(&mut self, quota: Arc<QuotaPolicy>) {
        self.touched.row(RowPlace::Quota(quota.name.clone()));
        // The old form goes first: both may stand in the same place of the index, whatever changed of it.
        if let Some(old) = self.quota_policies.insert(quota.name.clone(), Arc::clone(&quota)) {
            self.quota_index.remove(&old);
        }
        if !mutant!("stale-quota-index") {
            self.quota_index.put(&quota);
        }
    }

    pub(crate) fn remove_quota_policy(&mut self, name: &str) {
        self.touched.row(RowPlace::Quota(name.to_owned()));
        if let Some(old) = self.quota_policies.remove(name) {
            self.quota_index.remove(&old);
        }
    }

    /// The tree of queues as the policy has it now, with what is taken as before. O(queues x depth x quotas).
    pub(crate) fn remake_quota(&mut self) {
        self.quota = self.quota.with_policy(self.queues.values().map(AsRef::as_ref));
        self.quota_kept = self.quota_kept.with_policy(self.queues.values().map(AsRef::as_ref));
    }

    /// The tree of queues from nothing: what every reservation takes is counted anew.
    pub(crate) fn recount_quota(&mut self) {
        self.quota = QuotaTree::new(self.queues.values().map(AsRef::as_ref));
        self.quota_kept = self.quota.clone();
        if self.quota.is_empty() {
            return;
        }
        let taking: Vec<Arc<Reservation>> =
            self.reservations.values().filter(|r| !r.members.is_empty()).cloned().collect();
        for reservation in &taking {
            self.charge(reservation, true);
        }
    }

    /// Counts what a reservation takes against its queue's quota, now and once those who leave have left, or gives it back.
    pub(crate) fn charge(&mut self, reservation: &Reservation, add: bool) {
        let request = &reservation.request;
        let (now, later) = (reservation.state.is_occupying(), reservation.is_staying());
        if request.queue.is_empty() || !(now || later) {
            return;
        }
        let taken = reservation.charge().expect("admitted amounts were added up before");
        for (tree, counts) in [(&mut self.quota, now), (&mut self.quota_kept, later)] {
            match (counts, add) {
                (false, _) => {}
                (true, true) => tree.take(&request.queue, &request.pool, &taken),
                (true, false) => tree.give_back(&request.queue, &request.pool, &taken),
            }
        }
    }

    pub(crate) fn put_remembered(&mut self, remembered: Arc<Remembered>) {
        self.touched.answer(&remembered);
        self.answers.put(remembered);
    }

    /// Forgets a remembered answer.
    pub(crate) fn forget_answer(&mut self, remembered: &Remembered) {
        if let Some(forgotten) = self.answers.remove(&remembered.actor, &remembered.request_id) {
            self.touched.answer_gone(&forgotten);
            self.review_body_of(&forgotten);
        }
    }

    /// Puts a node, new or changed. What is taken of it stays, but for its fence-pending remains, which are re-counted.
    pub(crate) fn put_node(&mut self, node: Arc<Node>) {
        let id = node.id;
        self.touched.row(RowPlace::Node(id));
        let index = id.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        let devices = node.registration.devices.len();
        let old_deadline = self.slots[index].as_ref().and_then(|slot| slot.node.drain_deadline());
        if let Some(deadline) = old_deadline {
            self.drains.remove(&(deadline, id));
        }
        if let Some(deadline) = node.drain_deadline() {
            self.drains.insert((deadline, id));
        }
        let old = self.slots[index].as_ref().map(|slot| Arc::clone(&slot.node));
        let reenter = old.as_ref().and_then(|old| self.calendar_lets_go(old, &node));
        let Some(slot) = self.slots[index].as_mut() else {
            self.node_names.insert(node.name().to_owned(), id);
            self.chain_node(&node);
            self.slots[index] = Some(Slot { node: Arc::clone(&node), usage: NodeUsage::none(devices) });
            self.count_fence_pending(&node, true);
            self.calendar_takes_in(&node, &[]);
            self.count_price(&node, true);
            return;
        };
        let old = std::mem::replace(&mut slot.node, Arc::clone(&node));
        let admin_changed = old.admin != node.admin;
        slot.usage.devices.resize(devices, DeviceUsage::default());
        if let Some(kept) = &mut slot.usage.kept {
            kept.devices.resize(devices, DeviceUsage::default());
        }
        if admin_changed {
            self.note_endpoints();
        }
        if old.fence_pending != node.fence_pending {
            self.count_fence_pending(&old, false);
            self.count_fence_pending(&node, true);
        }
        if let Some(holders) = reenter {
            self.calendar_takes_in(&node, &holders);
        }
        if old.registration != node.registration || old.pool != node.pool {
            self.chain_node(&node);
            self.count_price(&old, false);
            self.count_price(&node, true);
            if old.spot_pool() != node.spot_pool() {
                self.recount_spots();
            }
        }
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        self.touched.row(RowPlace::Node(id));
        self.calendar_forgets(id);
        if let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::take) {
            self.node_names.remove(slot.node.name());
            self.drains.retain(|(_, node)| *node != id);
            self.count_price(&slot.node, false);
            self.unchain_node(id);
        }
    }

    /// Puts a reservation, new or changed, and moves its amounts, its place in the queue and its deadline. Returns what
    /// it replaces.
    pub(crate) fn put_reservation(&mut self, new: Arc<Reservation>) -> Option<Arc<Reservation>> {
        let id = new.id;
        self.touched.reservation(id);
        let old = self.reservations.insert(id, Arc::clone(&new));
        if let Some(old) = &old {
            self.touch_answer_of(old);
            let same_hold = old.state.is_occupying() == new.state.is_occupying()
                && old.is_staying() == new.is_staying()
                && old.amounts == new.amounts
                && old.members == new.members;
            if !same_hold {
                self.count_use(&new.request.queue, &new.request.pool);
                self.occupy(old, false);
                self.charge(old, false);
                self.occupy(&new, true);
                self.charge(&new, true);
            }
            self.unlink(old);
        } else {
            if new.state.is_occupying() {
                self.count_use(&new.request.queue, &new.request.pool);
            }
            self.occupy(&new, true);
            self.charge(&new, true);
        }
        self.calendar_follows(old.as_deref(), &new);
        self.follow_endpoint(old.as_deref(), &new);
        self.link(&new);
        if new.state.is_final()
            && self.ended.len() > MAX_ENDED
            && let Some((_, oldest)) = self.ended.first().copied()
        {
            self.forget(oldest);
        }
        old
    }

    /// Drops an ended reservation.
    pub(crate) fn forget(&mut self, id: ReservationId) {
        if let Some(old) = self.reservations.remove(&id) {
            self.touch_answer_of(&old);
            self.unlink(&old);
            self.touched.reservation(id);
            if old.aside.is_some() {
                self.review_body(id);
            }
        }
    }

    /// The answer that shows a reservation as it was until now no longer shows the present one.
    fn touch_answer_of(&mut self, old: &Reservation) {
        if let Some(answer) = self.answers.at(old.changed) {
            self.touched.answer(answer);
        }
    }

    fn link(&mut self, reservation: &Reservation) {
        if let Some(due) = self.link_undated(reservation) {
            self.deadlines.insert((due, reservation.id));
        }
    }

    /// Puts a reservation into all indexes but those by id and by deadline. Returns the deadline.
    pub(crate) fn link_undated(&mut self, reservation: &Reservation) -> Option<LedgerTime> {
        *self.counts.entry(reservation.state).or_default() += 1;
        if let Some(preempted) = chosen(reservation) {
            let pool = self.preempted.entry(reservation.request.pool.clone()).or_default();
            pool.insert((preempted.at, reservation.id));
        }
        self.count_in_batch(reservation, true);
        self.count_awaited(reservation, true);
        self.link_endpoint(reservation);
        if reservation.repair().is_some() {
            let pool = self.repairing.entry(reservation.request.pool.clone()).or_default();
            pool.insert(place_in_queue(reservation));
        }
        if reservation.is_waiting() {
            let place = place_in_queue(reservation);
            self.pending.entry(reservation.request.pool.clone()).or_default().insert(place);
            if let Some(queue) = queue_and_pool(reservation) {
                self.queued.entry(queue).or_default().insert(place);
            }
        }
        self.overflows.count(reservation, true);
        if reservation.state.is_final() {
            self.ended.insert((reservation.ended_at, reservation.id));
        }
        self.due_at(reservation)
    }

    fn unlink(&mut self, reservation: &Reservation) {
        if let Some(count) = self.counts.get_mut(&reservation.state) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&reservation.state);
            }
        }
        if let Some(due) = self.due_at(reservation) {
            // The key may stand where an earlier leader's clock put it: then the sweep drops it when it comes up.
            self.deadlines.remove(&(due, reservation.id));
        }
        let pool = &reservation.request.pool;
        if let Some(preempted) = chosen(reservation) {
            remove_from(&mut self.preempted, pool, &(preempted.at, reservation.id));
        }
        self.count_in_batch(reservation, false);
        self.count_awaited(reservation, false);
        self.unlink_endpoint(reservation);
        if reservation.repair().is_some() {
            remove_from(&mut self.repairing, pool, &place_in_queue(reservation));
        }
        if reservation.is_waiting() && !mutant!("stale-queue") {
            let place = place_in_queue(reservation);
            remove_from(&mut self.pending, pool, &place);
            if let Some(queue) = queue_and_pool(reservation) {
                remove_from(&mut self.queued, &queue, &place);
            }
        }
        self.overflows.count(reservation, false);
        if reservation.state.is_final() {
            self.ended.remove(&(reservation.ended_at, reservation.id));
        }
    }

    /// Adds (or takes away) what a reservation holds of its nodes and of its pool's countables: now, and once those who leave have left.
    pub(crate) fn occupy(&mut self, reservation: &Reservation, add: bool) {
        let (now, later) = (reservation.state.is_occupying(), reservation.is_staying());
        if !(now || later) {
            return;
        }
        self.count_work(reservation, add);
        self.count_on_spot(reservation, add);
        if now {
            self.count_by_class(reservation, add);
        }
        let shares = self.shares(reservation);
        for member in &reservation.members {
            let on_node = shares.on_node(member);
            let Some(slot) = self.slot_mut(member.node) else { continue };
            let usage = &mut slot.usage;
            if now != later && add {
                usage.keep(reservation.id);
            }
            let loose = reservation.is_best_effort();
            if now {
                change_usage(&mut usage.used, &mut usage.devices, on_node, &member.devices, add);
                if loose {
                    change_resources(&mut usage.loose, on_node, add);
                }
            }
            if later && let Some(kept) = &mut usage.kept {
                change_usage(&mut kept.used, &mut kept.devices, on_node, &member.devices, add);
                if loose {
                    change_resources(&mut kept.loose, on_node, add);
                }
            }
            if now != later && !add {
                usage.keep_no_more(reservation.id);
            }
            if now && add {
                usage.holders.insert(reservation.id);
            } else if now {
                usage.holders.remove(&reservation.id);
            }
        }
        let total = shares.in_pool(&reservation.members);
        if !total.is_zero() {
            let pool = &reservation.request.pool;
            for (table, counts) in [(&mut self.countables_used, now), (&mut self.countables_kept, later)] {
                if counts {
                    change_resources(table.entry(pool.clone()).or_default(), &total, add);
                }
            }
        }
    }

    /// Splits amounts into those that count against a node and those that count against the pool.
    pub(crate) fn split_countables(&self, pool: &str, amounts: &Resources) -> (Resources, Resources) {
        let mut on_node = amounts.clone();
        let mut in_pool = Resources::default();
        if amounts.other.is_empty() {
            return (on_node, in_pool);
        }
        if let Some(pool) = self.pools.get(pool) {
            for name in pool.countables.keys() {
                in_pool.set(name, amounts.get(name));
                on_node.set(name, plimsoll_types::Amount::ZERO);
            }
        }
        (on_node, in_pool)
    }

    fn count_fence_pending(&mut self, node: &Node, add: bool) {
        if let Some(slot) = self.slot_mut(node.id) {
            for pending in &node.fence_pending {
                let NodeUsage { used, devices, kept, .. } = &mut slot.usage;
                change_usage(used, devices, &pending.amounts, &pending.devices, add);
                if let Some(kept) = kept {
                    change_usage(&mut kept.used, &mut kept.devices, &pending.amounts, &pending.devices, add);
                }
            }
        }
    }

    /// Counts everything anew from the reservations: for policy changes that move a countable from nodes to a pool.
    pub(crate) fn recount_usage(&mut self) {
        self.countables_used.clear();
        self.countables_kept.clear();
        self.work.index = Default::default();
        self.forget_spots();
        self.held_by_class.values_mut().for_each(BTreeMap::clear);
        for slot in self.slots.iter_mut().flatten() {
            slot.usage = NodeUsage::none(slot.node.registration.devices.len());
        }
        let nodes: Vec<Arc<Node>> = self.nodes().cloned().collect();
        for node in &nodes {
            self.count_fence_pending(node, true);
        }
        let taking: Vec<Arc<Reservation>> =
            self.reservations.values().filter(|r| !r.members.is_empty()).cloned().collect();
        for reservation in &taking {
            self.occupy(reservation, true);
        }
    }

    /// End of the present hold or lease as the holder may count on it, the latest change of leader included.
    /// `None` where none runs.
    pub(crate) fn lease_end(&self, reservation: &Reservation) -> Option<LedgerTime> {
        let (length_ms, capped) = match reservation.resume_state {
            State::Held => (reservation.request.hold_ms, false),
            State::Active | State::Partial => (reservation.ttl_ms, true),
            // Whoever was given notice shortly before all coordinators were away has not heard of it.
            State::Preempting => (reservation.preempted().map_or(0, |preempted| preempted.grace_ms), true),
            _ => return None,
        };
        let rearmed = reservation.deadline.max(self.meta.rearmed_at.plus_ms(length_ms));
        let end = if mutant!("new-leader-expires-all") { reservation.deadline } else { rearmed };
        Some(if capped && reservation.hard_end.0 > 0 { end.min(reservation.hard_end) } else { end })
    }

    /// When a hold or lease is safe to end: its end, and for leases the slack for drift and grace. `None` where none runs.
    pub(crate) fn safe_end_of(&self, reservation: &Reservation) -> Option<LedgerTime> {
        let end = self.lease_end(reservation)?;
        let slack_ms =
            if reservation.resume_state == State::Held { 0 } else { expiry_slack_ms(reservation.ttl_ms) };
        Some(end.plus_ms(slack_ms))
    }

    /// When the sweep has something to do with this reservation. Unknown ones wait for their node's fate instead, but for gangs whose time to be
    /// repaired runs.
    pub(crate) fn due_at(&self, reservation: &Reservation) -> Option<LedgerTime> {
        let unrepaired = self.unrepaired_at(reservation).filter(|_| !mutant!("repair-for-ever"));
        self.due_whole_at(reservation).into_iter().chain(unrepaired).min()
    }

    fn due_whole_at(&self, reservation: &Reservation) -> Option<LedgerTime> {
        match reservation.state {
            State::Pending | State::Planned if reservation.deadline.0 > 0 => Some(reservation.deadline),
            State::Held | State::Active | State::Partial | State::Preempting => self.safe_end_of(reservation),
            _ => None,
        }
    }

    /// The latest safe end among the leases on a node; the time it fell silent where it holds none. `None`: no such node.
    pub fn safe_end(&self, node: NodeId) -> Option<LedgerTime> {
        let slot = self.slot(node)?;
        let ends = slot.usage.holders.iter().filter_map(|id| self.reservations.get(id));
        let since = slot.node.health_since;
        let latest = ends.filter_map(|reservation| self.safe_end_on(reservation, node, since)).max();
        Some(latest.unwrap_or(slot.node.health_since).max(slot.node.health_since))
    }

    /// Reservations per node name, for tests and screens: who holds something here.
    pub fn holders(&self, node: NodeId) -> impl Iterator<Item = &Arc<Reservation>> {
        self.slot(node)
            .into_iter()
            .flat_map(|slot| &slot.usage.holders)
            .filter_map(|id| self.reservations.get(id))
    }
}

/// How a grant was taken back, where it was for the sake of others or of its node: what a provider takes counts against no bound.
fn chosen(reservation: &Reservation) -> Option<&Preempted> {
    reservation.preempted.as_deref().filter(|known| known.rule != PreemptionRule::Interruption)
}

/// Where a reservation that names a queue waits.
fn queue_and_pool(reservation: &Reservation) -> Option<(String, String)> {
    let request = &reservation.request;
    (!request.queue.is_empty()).then(|| (request.queue.clone(), request.pool.clone()))
}

/// The order of those who wait: priority descending, then age.
pub(crate) fn place_in_queue(reservation: &Reservation) -> (Reverse<i32>, ReservationId) {
    (Reverse(reservation.priority), reservation.id)
}

/// Takes one out of its set; a set with nothing in it goes too.
fn remove_from<K: Ord, T: Ord>(sets: &mut BTreeMap<K, BTreeSet<T>>, key: &K, one: &T) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(one);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

fn change_usage(
    used: &mut Resources,
    by_device: &mut [DeviceUsage],
    amounts: &Resources,
    devices: &[DeviceGrant],
    add: bool,
) {
    change_resources(used, amounts, add);
    for grant in devices {
        let device = &mut by_device[usize::from(grant.device.0)];
        if add {
            device.add(grant);
        } else {
            device.remove(grant);
        }
    }
}

pub(crate) fn change_resources(used: &mut Resources, amounts: &Resources, add: bool) {
    if add {
        used.add_assign(amounts).expect("admitted amounts fit a capacity, which fits in 64 bits");
    } else {
        let taken = used.sub_assign(amounts);
        assert!(taken, "what is given back was taken before");
    }
}
