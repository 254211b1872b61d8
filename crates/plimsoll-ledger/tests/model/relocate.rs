//! Relocations in the model: `docs/semantics.md` 5.14.

use plimsoll_ledger::{OnPreempt, Preemption};

use super::*;

impl Model {
    pub(super) fn relocate(&mut self, id: u64, placement: &Placement) -> Result<(), Reason> {
        if self.version < 8 {
            return Err(Reason::UnsupportedVersion);
        }
        let r = self.reservations.get(&id).ok_or(Reason::NotFound)?.clone();
        let pool = self.pools[&r.request.pool].clone();
        let (preemptible, grace_ms, min_run_ms) =
            self.rules.get(&r.request.class).copied().unwrap_or_default();
        let stands = matches!(r.state, State::Active | State::Partial) && r.repair.is_none();
        let returns =
            matches!(r.request.wait, Wait::Queue { .. }) && r.request.on_preempt == OnPreempt::Requeue;
        let best_effort = r.request.qos == Some(plimsoll_ledger::Qos::BestEffort);
        let allowed = if self.version < 10 { pool.preemption } else { self.preemption_now(&pool.name) };
        let let_go = match allowed {
            Preemption::Any | Preemption::LowerClass => preemptible || best_effort,
            Preemption::Reclaim => best_effort,
            Preemption::Never => false,
        };
        let since = self.clock.saturating_sub(HOUR_MS);
        let lately = self.reservations.values().filter(|one| {
            one.request.pool == pool.name
                && one.preempted.is_some_and(|known| spot::counts(known) && known.2 >= since)
        });
        let most = u64::from(pool.max_preemptions_per_hour);
        let spent = most > 0 && lately.count() as u64 >= most;
        if !stands
            || r.members.len() != 1
            || !returns
            || !let_go
            || self.clock < r.granted_at + min_run_ms
            || spent
        {
            return Err(Reason::NotPreemptible);
        }
        if placement.members.len() != 1 || placement.members[0].node.0 == r.members[0].0 {
            return Err(Reason::InvalidArgument);
        }
        let mut request = r.request.clone();
        request.requirements.amounts = r.amounts.clone();
        let members: Vec<(u32, Vec<DeviceGrant>)> =
            placement.members.iter().map(|m| (m.node.0, m.devices.clone())).collect();
        self.without(&[id], |model| {
            let fits = model.seen(true, |model| model.fits(&request, &r.requester, placement));
            let kept = model.calendar(&request, &members, None);
            least(fits.err().into_iter().chain(kept.err()).collect())
        })?;
        let grace_ms = if grace_ms == 0 { 30_000 } else { grace_ms };
        let clock = self.clock;
        let r = self.reservations.get_mut(&id).expect("looked up above");
        r.preempted = Some((id, PreemptionRule::Relocation, clock, grace_ms));
        let from = r.members[0].0;
        (r.state, r.resume) = (State::Preempting, State::Preempting);
        r.deadline = at_most(clock + grace_ms, r.hard_end);
        self.note_moved(&pool.name, id, from, placement.members[0].node.0);
        Ok(())
    }
}
