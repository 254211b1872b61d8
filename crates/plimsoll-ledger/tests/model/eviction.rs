//! Eviction thresholds in the model: `docs/semantics.md` 5.20.

use plimsoll_ledger::{Overload, Preemption, PreemptionRule, Qos};

use super::*;

impl Model {
    pub(super) fn eviction_reasons(&self, put: &[PolicyObject]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for object in put {
            let PolicyObject::Class(plimsoll_ledger::Class { evict_when: Some(when), qos, .. }) = object
            else {
                continue;
            };
            if self.version < 9 {
                reasons.push(Reason::UnsupportedVersion);
            }
            let sensible =
                (1..1_000).contains(&when.above_permille) && (1_000..=HOUR_MS).contains(&when.for_ms);
            if !sensible || *qos == Some(Qos::Guaranteed) {
                reasons.push(Reason::InvalidArgument);
            }
        }
        reasons
    }

    pub(super) fn evict(&mut self, id: u64, seen: &Overload) -> Result<(), Reason> {
        if self.version < 9 {
            return Err(Reason::UnsupportedVersion);
        }
        let r = self.reservations.get(&id).ok_or(Reason::NotFound)?.clone();
        let epoch = self.nodes.get(&seen.node.0).ok_or(Reason::NotFound)?.epoch;
        if epoch != seen.epoch.0 {
            return Err(Reason::Fenced);
        }
        if !matches!(r.state, State::Held | State::Active | State::Partial) {
            return Err(Reason::NotPreemptible);
        }
        let class = &r.request.class;
        let when = self.leaves.get(class);
        let (_, grace_ms, min_run_ms) = self.rules.get(class).copied().unwrap_or_default();
        let pool = &self.pools[&r.request.pool];
        let lately = self.reservations.values().filter(|one| {
            one.request.pool == pool.name
                && one
                    .preempted
                    .is_some_and(|known| spot::counts(known) && known.2 >= self.clock.saturating_sub(HOUR_MS))
        });
        let most = pool.max_preemptions_per_hour as usize;
        let may = r.members.iter().any(|(node, _)| *node == seen.node.0)
            && r.request.qos == Some(Qos::BestEffort)
            && when.is_some_and(|when| {
                when.gauge == seen.gauge
                    && seen.measured_permille > when.above_permille
                    && seen.over_ms >= when.for_ms
            })
            && pool.preemption != Preemption::Never
            && (most == 0 || lately.count() < most)
            && self.clock >= r.granted_at + min_run_ms;
        if !may {
            return Err(Reason::NotPreemptible);
        }
        let grace_ms = if grace_ms == 0 { 30_000 } else { grace_ms };
        let clock = self.clock;
        let leaving = self.reservations.get_mut(&id).expect("looked up above");
        leaving.preempted = Some((0, PreemptionRule::Threshold, clock, grace_ms));
        if r.state == State::Held {
            self.take_back(id);
            return Ok(());
        }
        (leaving.state, leaving.resume) = (State::Preempting, State::Preempting);
        leaving.deadline = at_most(clock + grace_ms, leaving.hard_end);
        Ok(())
    }
}
