//! How often what a preemption can be about is really met.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    ClassOrder, Event, EventObject, Fairness, Ledger, PreemptionRule, Qos, Reason, Reservation, State,
};
use plimsoll_types::NodeId;

/// Counts by what was met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    pub(crate) fn of(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }

    fn note(&mut self, what: &'static str, is_met: bool) {
        if is_met {
            *self.0.entry(what).or_default() += 1;
        }
    }

    pub(crate) fn read(&mut self, ledger: &Ledger, event: &Event) {
        let EventObject::Reservation(one, _) = &event.object else { return };
        match event.rule {
            "preempt/notice" => self.read_victim(ledger, one),
            "preempt/plan" => self.read_claimant(ledger, one),
            "preempt/requeue" => self.note("a victim waits again", true),
            "preempt/end" => self.note("a victim ends", true),
            "preempt/unplan" => self.note("a kept place is given up", true),
            "place" => {
                self.note("a victim is granted anew", one.preempted().is_some());
                self.note("an advance reservation begins", one.is_advance());
            }
            _ => {}
        }
    }

    /// What those who wait meet, once the leader is at rest.
    pub(crate) fn look(&mut self, ledger: &Ledger) {
        let waits = |one: &&std::sync::Arc<Reservation>| one.state == State::Pending;
        for one in ledger.reservations().filter(waits) {
            let met = |reason: Reason| one.blockers.iter().any(|blocker| blocker.reason == reason);
            self.note("waits for a limit", met(Reason::LimitExceeded));
            self.note("waits for a budget", met(Reason::BudgetExhausted));
            self.note("waits for the calendar", met(Reason::ReservedByCalendar));
            self.note("waits for its share of spot nodes", met(Reason::SpotShare));
            self.note("waits for quota", met(Reason::QuotaExceeded));
            self.note("a victim keeps quiet", self.is_quiet(ledger, one));
        }
    }

    /// It was taken back, and somebody of a lower class is there.
    fn is_quiet(&self, ledger: &Ledger, one: &Reservation) -> bool {
        let lower = |other: &Reservation| {
            matches!(other.state, State::Active | State::Partial) && other.priority < one.priority
        };
        one.preempted().is_some() && ledger.reservations().any(|other| lower(other))
    }

    fn read_victim(&mut self, ledger: &Ledger, victim: &Reservation) {
        let Some(preempted) = victim.preempted() else { return };
        self.note(
            match preempted.rule {
                PreemptionRule::LowerClass => "by lower class",
                PreemptionRule::Reclaim => "by reclaim",
                PreemptionRule::BestEffort => "by best effort",
                _ => "by another rule",
            },
            true,
        );
        let request = &victim.request;
        let pool = ledger.pool(&request.pool);
        let spot = |node: NodeId| {
            let labels = ledger.node(node).map(|node| &node.registration.labels);
            labels.and_then(|labels| labels.get("capacity_type")).is_some_and(|kind| kind == "spot")
        };
        self.note("a victim of roles", !request.roles.is_empty());
        self.note("a victim of several members", victim.members.len() > 1);
        self.note("a burstable victim", request.qos == Some(Qos::Burstable));
        self.note("a victim on a spot node", victim.members.iter().any(|member| spot(member.node)));
        self.note("by fair tree", pool.is_some_and(|pool| pool.fairness == Fairness::FairTree));
        self.note("by weights of classes", pool.is_some_and(|pool| pool.class_order == ClassOrder::Weighted));
        self.note("around planned starts", pool.is_some_and(|pool| pool.queueing.depth() > 0));
        let claimant = ledger.reservation(preempted.by);
        let theirs = claimant.map_or("", |claimant| claimant.request.queue.as_str());
        let between = !theirs.is_empty() && !request.queue.is_empty() && theirs != request.queue;
        self.note("between queues", between);
        let inner = |queue: &str| queue.starts_with("lab");
        self.note("across levels of a tree", between && inner(theirs) != inner(&request.queue));
    }

    fn read_claimant(&mut self, ledger: &Ledger, claimant: &Reservation) {
        let request = &claimant.request;
        let queue = request.queue.as_str();
        self.note("for roles", !request.roles.is_empty());
        self.note("for several members", claimant.members.len() > 1);
        self.note("for a burstable one", request.qos == Some(Qos::Burstable));
        self.note("for best effort", request.qos == Some(Qos::BestEffort));
        self.note("in one zone", !request.topology.required.is_empty());
        self.note("for one with licences", !request.requirements.amounts.get("license/sim").is_zero());
        let limits = |queue: &str| ledger.queue(queue).is_some_and(|queue| has_limit(&queue.quotas));
        self.note("for a queue with a limit", limits(queue));
        self.note("for one who is counted", ledger.counts_usage());
        self.note("beside what the calendar keeps", ledger.schedules().next().is_some());
    }
}

fn has_limit(quotas: &BTreeMap<String, BTreeMap<String, plimsoll_ledger::Quota>>) -> bool {
    quotas.values().flat_map(BTreeMap::values).any(|quota| quota.limit.is_some())
}
