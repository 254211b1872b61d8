//! The invariants of `docs/architecture.md` looked at with every change of a reservation: only what the change touched.
//!
//! `admit` and the commands' own checks have proved all of this before. What is found here is a fault of the ledger itself,
//! equal on every replica: it is noted for whoever runs the ledger, and changes nothing.

use std::collections::BTreeSet;

use plimsoll_types::{NodeId, Revision};

use crate::calendar::{Ask, end_of};
use crate::{Device, Ledger, Reservation, State, Violation};

/// Most violations kept until they are taken: one fault may show in every entry from then on.
const MOST_KEPT: usize = 64;

impl Ledger {
    /// Violations found since the last call, the first ones where there were very many.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// Looks at one change. Cost: O(members), and nothing but comparisons where all is well.
    pub(crate) fn guard(&mut self, old: Option<&Reservation>, new: &Reservation) {
        self.guard_life(old, new);
        self.guard_token(old, new);
        self.guard_members(new);
        if let Some(fault) = self.repair_faults(new) {
            self.note("I7", fault);
        }
        if new.endpoint.is_some() && !new.state.is_occupying() {
            self.note("I26", format!("{} is {} and still an endpoint", new.id, new.state.name()));
        }
        if new.state.is_occupying() {
            self.guard_amounts(old, new);
            self.guard_quota(old, new);
            for detail in self.over_budget(old, new) {
                self.note("I4", detail);
            }
            self.guard_calendar(old, new);
        }
    }

    /// I6: final states are final, and what was granted waits again only where it was taken back, or its queue promises that.
    fn guard_life(&mut self, old: Option<&Reservation>, new: &Reservation) {
        let Some(old) = old else { return };
        let taken_back = new.preempted.is_some() || self.is_processed_for_sure(&new.request.queue);
        let back_to_queue = old.state.is_occupying() && new.is_waiting() && !taken_back;
        if old.state.is_final() || back_to_queue {
            let detail = format!("{} went from {} to {}", new.id, old.state.name(), new.state.name());
            self.note("I6", detail);
        }
    }

    /// I5: the token is the revision of the grant, and stays until the grant is gone.
    fn guard_token(&mut self, old: Option<&Reservation>, new: &Reservation) {
        let granted_now = new.state.is_occupying() && !old.is_some_and(|old| old.state.is_occupying());
        let kept = old.filter(|_| !new.is_waiting()).map_or(Revision(0), |old| old.token);
        let expected = if granted_now { self.meta.revision } else { kept };
        if new.token != expected {
            self.note("I5", format!("{} has token {}, not {expected}", new.id, new.token));
        }
    }

    /// I7 and I8: a gang holds its minimum, or something while it is being repaired, or nothing, and what has ended holds nothing.
    fn guard_members(&mut self, new: &Reservation) {
        let (count, gang) = (new.members.len() as u64, new.request.gang);
        if !new.state.is_occupying() {
            if count > 0 && new.state != State::Planned {
                self.note("I8", format!("{} is {} and names {count} members", new.id, new.state.name()));
            }
        } else if (count < gang.min_members.into() && !new.is_below_minimum())
            || count == 0
            || count > gang.max_members.into()
            || (new.repair().is_none() && new.lacks_a_role())
        {
            self.note("I7", format!("{} holds {count} members of {gang:?}", new.id));
        }
    }

    /// I1 and I2: where this change takes more than was taken before, it is there.
    fn guard_amounts(&mut self, old: Option<&Reservation>, new: &Reservation) {
        let held = old.filter(|old| old.state.is_occupying());
        // A gang that loses members takes nothing more of the nodes of those that stay.
        let moved = held.is_none_or(|held| {
            new.members.len() > held.members.len()
                || new.members.iter().any(|member| !held.members.contains(member))
        });
        let mut found = Vec::new();
        let countables = self.pool(&new.request.pool).map(|pool| &pool.countables);
        // Of roles nothing grows but by members.
        let of_roles =
            new.request.roles.iter().filter(|_| moved).flat_map(|role| role.requirements.amounts.iter());
        let names: BTreeSet<&str> = new
            .amounts
            .iter()
            .filter(|(name, amount)| moved || held.is_none_or(|held| held.amounts.get(name) < *amount))
            .chain(of_roles)
            .map(|(name, _)| name)
            .collect();
        for name in names {
            if let Some(total) = countables.and_then(|countables| countables.get(name)) {
                let used = self.countables_used(&new.request.pool).get(name);
                if used > *total {
                    found.push(("I1", format!("pool {}: {used} {name} of {total}", new.request.pool)));
                }
                continue;
            }
            for member in &new.members {
                let backed = || self.over_backed(member.node, name).filter(|_| !new.is_best_effort());
                found.extend(self.over(member.node, name).or_else(backed));
            }
        }
        for member in new.members.iter().filter(|_| moved) {
            let Some(slot) = self.slot(member.node) else { continue };
            for grant in &member.devices {
                let index = usize::from(grant.device.0);
                let taken = slot.usage.devices.get(index).copied().unwrap_or_default();
                let device = slot.node.registration.devices.get(index);
                let compute_fits = |device: &Device| {
                    device.mig.as_ref().is_none_or(|layout| taken.compute_slices <= layout.compute_slices)
                };
                if !device.is_some_and(|device| taken.is_sound(device) && compute_fits(device)) {
                    found.push(("I2", format!("device {index} of node {}: {taken:?}", slot.node.name())));
                }
            }
        }
        for (invariant, detail) in found {
            self.note(invariant, detail);
        }
    }

    /// I4: where this change takes more of a quota than was taken before, it is there, at every queue on the way up.
    fn guard_quota(&mut self, old: Option<&Reservation>, new: &Reservation) {
        let request = &new.request;
        if request.queue.is_empty() {
            return;
        }
        let taken = |r: &Reservation| r.charge().unwrap_or_default();
        let before = old.filter(|old| old.state.is_occupying()).map(taken).unwrap_or_default();
        let after = taken(new);
        let grown = after.iter().filter(|(name, amount)| *amount > before.get(name));
        let over = |(name, _): (&str, _)| {
            let queue = self.quota.over(&request.queue, &request.pool, name)?;
            let cell = self.quota.cell(queue, &request.pool, name)?;
            Some(format!("queue {queue}: {} {name} of {}, {:?}", cell.usage, cell.subtree, cell.quota))
        };
        let found: Vec<String> = grown.filter_map(over).collect();
        for detail in found {
            self.note("I4", detail);
        }
    }

    /// I25: a new grant leaves every window and advance reservation that it runs into what it is kept.
    fn guard_calendar(&mut self, old: Option<&Reservation>, new: &Reservation) {
        let is_new = !old.is_some_and(|old| old.state.is_occupying());
        if !is_new || !self.calendar.has(&new.request.pool) {
            return;
        }
        let amounts = new.charge().unwrap_or_default();
        let ask = Ask {
            request: &new.request,
            amounts: &amounts,
            from: self.meta.clock,
            until: end_of(new),
            plan: None,
            may_cut: false,
        };
        for (at, name) in self.calendar.left_short(&ask) {
            self.note("I25", format!("{} leaves too little {name} at {at}", new.id));
        }
    }

    fn over(&self, node: NodeId, name: &str) -> Option<(&'static str, String)> {
        let slot = self.slot(node)?;
        let real = slot.node.allocatable.get(name);
        let limit = self.pool(&slot.node.pool).map_or(real, |pool| pool.offers(name, real));
        let used = slot.usage.used.get(name);
        (used > limit).then(|| ("I1", format!("node {}: {used} {name} of {limit}", slot.node.name())))
    }

    /// I27: where this change takes more of what is backed, the node has it.
    fn over_backed(&self, node: NodeId, name: &str) -> Option<(&'static str, String)> {
        let slot = self.slot(node)?;
        let (backed, real) = (slot.usage.backed(name), slot.node.allocatable.get(name));
        (backed > real)
            .then(|| ("I27", format!("node {}: {backed} {name} backed, of {real}", slot.node.name())))
    }

    pub(crate) fn note(&mut self, invariant: &'static str, detail: String) {
        if self.violations.len() < MOST_KEPT {
            self.violations.push(Violation { invariant, detail });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_types::{Amount, DeviceIndex, LedgerTime, Resources};

    use super::*;
    use crate::{
        Applied, Command, DeviceGrant, Entry, GpuAsk, MemberPlacement, Outcome, Placement, Registration,
        Request, Requirements, Stamp, Verdict,
    };

    fn apply(ledger: &mut Ledger, command: Command) -> Applied {
        let revision = Revision(ledger.revision().0 + 1);
        ledger.apply(Stamp { revision, proposed_at: LedgerTime(1_000) }, &Entry::system(command))
    }

    /// A ledger with one node of 4 cores and one device, of which a lease has 3 cores and 600 thousandths.
    fn ledger() -> (Ledger, Reservation) {
        let mut ledger = Ledger::new();
        let device = Device {
            uuid: "GPU-1".to_owned(),
            model: "a100".to_owned(),
            memory_bytes: 1_000,
            ..Device::default()
        };
        let registration = Registration {
            name: "n".to_owned(),
            incarnation: 1,
            capacity: Resources::new(4_000, 0),
            devices: vec![device],
            ..Registration::default()
        };
        apply(&mut ledger, Command::RegisterNode(registration));
        let requirements = Requirements {
            amounts: Resources::new(3_000, 0),
            gpu: Some(GpuAsk::milli(600)),
            ..Requirements::default()
        };
        let request = Request {
            pool: "default".to_owned(),
            class: "standard".to_owned(),
            requirements,
            ttl_ms: 10_000,
            auto_confirm: true,
            ..Request::default()
        };
        let grant = DeviceGrant { device: DeviceIndex(0), milli: 600, memory_bytes: 600, slices: None };
        let members = vec![MemberPlacement { node: NodeId(0), devices: vec![grant], role: 0 }];
        let verdict = Verdict::Place(Placement { members });
        let applied = apply(&mut ledger, Command::Submit { request, verdict });
        let Outcome::Reservation(lease) = applied.answer.outcome else { panic!("{applied:?}") };
        assert_eq!(ledger.take_violations(), Vec::new());
        (ledger, Reservation::clone(&lease))
    }

    /// What is found when the lease becomes this.
    fn found(change: impl FnOnce(&mut Reservation)) -> Vec<&'static str> {
        let (mut ledger, mut lease) = ledger();
        change(&mut lease);
        let new = Arc::new(lease);
        let old = ledger.put_reservation(Arc::clone(&new));
        ledger.guard(old.as_deref(), &new);
        ledger.take_violations().into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_change_that_keeps_the_rules_is_quiet() {
        assert!(found(|lease| lease.ttl_ms += 1).is_empty());
        assert!(found(|lease| lease.amounts.cpu_millis = Amount(4_000)).is_empty());
    }

    #[test]
    fn each_rule_that_is_broken_is_named() {
        assert_eq!(found(|lease| lease.amounts.cpu_millis = Amount(4_001)), ["I1"]);
        assert_eq!(
            found(|lease| lease.members.push(lease.members[0].clone())),
            ["I7", "I1", "I1", "I2", "I2"]
        );
        assert_eq!(found(|lease| lease.token = Revision(7)), ["I5"]);
        assert_eq!(found(|lease| lease.state = State::Released), ["I8"]);
        let waits_again = |lease: &mut Reservation| {
            lease.state = State::Pending;
            lease.members.clear();
        };
        assert_eq!(found(waits_again), ["I6", "I5"], "and its token is not given up");
    }

    #[test]
    fn what_is_backed_past_what_is_there_is_named() {
        let (mut ledger, mut lease) = ledger();
        let mut pool = crate::Pool::clone(ledger.pool("default").expect("it is there"));
        pool.oversubscription.insert("cpu".to_owned(), 2_000);
        ledger.put_pool(Arc::new(pool));
        lease.amounts.cpu_millis = Amount(5_000);
        for (qos, found) in [(None, vec!["I27"]), (Some(crate::Qos::BestEffort), vec![])] {
            let old = ledger.reservation(lease.id).cloned();
            let mut new = lease.clone();
            new.request = Arc::new(Request { qos, ..Request::clone(&lease.request) });
            // As if it were granted anew: the change is looked at as one that takes all of this.
            ledger.put_reservation(Arc::new(new.clone()));
            let before =
                old.map(|old| Reservation { amounts: Resources::default(), ..Reservation::clone(&old) });
            ledger.guard(before.as_ref(), &new);
            let named: Vec<_> = ledger.take_violations().into_iter().map(|one| one.invariant).collect();
            assert_eq!(named, found, "{qos:?}");
        }
    }

    #[test]
    fn a_gang_that_loses_a_member_is_not_blamed_for_a_node_that_was_cut() {
        let (mut ledger, lease) = ledger();
        let mut cut = ledger.node(NodeId(0)).expect("the node").registration.clone();
        cut.capacity = Resources::new(2_000, 0);
        apply(&mut ledger, Command::RegisterNode(cut));
        let mut before = lease.clone();
        before.members.push(MemberPlacement { node: NodeId(1), devices: Vec::new(), role: 0 });
        ledger.guard(Some(&before), &lease);
        assert_eq!(ledger.take_violations(), Vec::new());
        // One that comes there is.
        ledger.guard(None, &lease);
        assert!(ledger.take_violations().iter().any(|one| one.invariant == "I1"));
    }

    #[test]
    fn an_end_is_final() {
        let (mut ledger, lease) = ledger();
        apply(&mut ledger, Command::Release { reservation: lease.id, token: lease.token });
        assert_eq!(ledger.take_violations(), Vec::new());
        let again = Arc::new(lease);
        let old = ledger.put_reservation(Arc::clone(&again));
        ledger.guard(old.as_deref(), &again);
        let found: Vec<_> = ledger.take_violations().iter().map(|violation| violation.invariant).collect();
        assert_eq!(found, ["I6", "I5"], "and a new grant would have a new token");
    }
}
