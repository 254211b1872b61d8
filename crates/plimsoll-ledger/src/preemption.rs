//! The law of preemption: who may be made to leave for whom. One for the planner, which looks for victims, and for apply, which judges
//! them again (`docs/semantics.md` 5.2).
//!
//! Invariants: nobody leaves for an equal or lower class of its own queue; a queue is never taken below what is guaranteed to it, nor, for
//! others to borrow or to reclaim, below its own quota.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, ReservationId, Resources};

use crate::{
    Blocker, Ledger, Placement, Preemption, PreemptionRule, QuotaTree, Reason, Refusal, Request, Reservation,
    State,
};

/// Who wants the place of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant<'a> {
    /// The reservation that waits.
    pub reservation: &'a Reservation,
    /// What it will count against quotas.
    pub asked: Resources,
    /// Resources of which it is short whoever leaves already: those that victims have to have.
    pub contested: BTreeSet<String>,
}

impl Ledger {
    /// A reservation that waits, as one who wants this place.
    ///
    /// # Errors
    /// A place that cannot be charged, or that is free, or will be.
    fn claimant<'a>(
        &self,
        reservation: &'a Reservation,
        placement: &Placement,
    ) -> Result<Claimant<'a>, Refusal> {
        let request = &reservation.request;
        let asked = request
            .charge(&placement.members)
            .ok_or_else(|| Refusal::one(Reason::InvalidArgument, "amounts of all members", u64::MAX, 0))?;
        let contested = self.contested(reservation, placement);
        if contested.is_empty() {
            return Err(Refusal::one(Reason::NotPreemptible, "a place that is free, or will be", 1, 0));
        }
        Ok(Claimant { reservation, asked, contested })
    }

    /// By which rules `victims` may be made to leave one after the other for this place, in their order. Whether they are enough is not asked.
    ///
    /// # Errors
    /// Why the first who may not leave may not, or why nobody has to.
    pub fn preemption_rules(
        &self,
        waiting: &Reservation,
        placement: &Placement,
        victims: &[Arc<Reservation>],
    ) -> Result<Vec<PreemptionRule>, Refusal> {
        let claimant = self.claimant(waiting, placement)?;
        let mut quota = self.quota_kept.clone();
        let judge = |victim: &Arc<Reservation>| {
            let rule = self.preemption_rule(&mut quota, &claimant, victim)?;
            if let Some(taken) = victim.charge() {
                quota.give_back(&victim.request.queue, &victim.request.pool, &taken);
            }
            Ok(rule)
        };
        victims.iter().map(judge).collect()
    }

    /// Until when a grant may not be made to leave: its class leaves it so much time to run.
    pub fn protected_until(&self, granted: &Reservation) -> LedgerTime {
        let class = self.class(&granted.request.class);
        granted.granted_at.plus_ms(class.map_or(0, |class| class.min_run_ms))
    }

    /// By which rule `victim` may be made to leave. `quota` is what will be taken once those before it have left.
    /// O(depth of the queues x resources).
    ///
    /// # Errors
    /// Why it may not.
    pub fn preemption_rule(
        &self,
        quota: &mut QuotaTree,
        claimant: &Claimant<'_>,
        victim: &Reservation,
    ) -> Result<PreemptionRule, Refusal> {
        let (request, now) = (&claimant.reservation.request, self.clock());
        let no = |what: &str, asked: u64, available: u64| {
            Err(Refusal::one(Reason::NotPreemptible, format!("{}: {what}", victim.id), asked, available))
        };
        let lenient = mutant!("preempt-anyone");
        if victim.id == claimant.reservation.id
            || !matches!(victim.state, State::Held | State::Active | State::Partial)
        {
            return no(&format!("{} cannot leave", victim.state.name()), 1, 0);
        }
        if victim.request.pool != request.pool {
            return no(&format!("in pool {}", victim.request.pool), 1, 0);
        }
        // What is idle is nobody's: who takes it leaves for anybody who is backed, and takes from nobody who is.
        let (loose, takes_loose) = (victim.is_best_effort(), claimant.reservation.is_best_effort());
        if takes_loose && !loose {
            return no("backed, and best effort takes only what is idle", 1, 0);
        }
        let gives_way = loose && !takes_loose && !mutant!("best-effort-stays");
        if !gives_way && !quota.same_root(&request.queue, &victim.request.queue) {
            return no(&format!("of another tree of queues, {:?}", victim.request.queue), 1, 0);
        }
        let class = self.class(&victim.request.class);
        let protected_until = self.protected_until(victim);
        if now < protected_until && !lenient {
            return no("protected from preemption until then", now.0, protected_until.0);
        }
        let pool = self.pool(&request.pool);
        let allowed = pool.map_or(Preemption::Never, |pool| self.preemption_of(pool));
        if gives_way && allowed != Preemption::Never {
            return Ok(PreemptionRule::BestEffort);
        }
        let taken = victim.charge().unwrap_or_default();
        let lower = victim.priority < claimant.reservation.priority || lenient;
        let preemptible = class.is_some_and(|class| class.preemptible);
        let place = (request.pool.as_str(), &taken);
        if matches!(allowed, Preemption::Any | Preemption::LowerClass)
            && lower
            && preemptible
            && self.leaves_enough(quota, claimant, &victim.request, place)
        {
            return Ok(PreemptionRule::LowerClass);
        }
        if matches!(allowed, Preemption::Any | Preemption::Reclaim)
            && pool.is_none_or(|pool| now >= pool.reclaims_from(claimant.reservation.submitted_at))
            && quota.may_reclaim(
                (&request.queue, &claimant.asked),
                (&victim.request.queue, &taken),
                &request.pool,
                &claimant.contested,
            )
        {
            return Ok(PreemptionRule::Reclaim);
        }
        no("neither of a lower, preemptible class nor borrowed from the queue that asks", 1, 0)
    }

    /// The place kept for a planned reservation, where it is free by now: nothing of it is taken any more by those who had to leave.
    /// O(members).
    pub fn kept_place(&self, id: ReservationId) -> Option<Placement> {
        let planned = self.reservation(id).filter(|planned| planned.state == State::Planned)?;
        let placement = Placement { members: planned.members.clone() };
        // What is kept for it does not stand in its own way: only what is taken now does.
        self.admit_now(planned, &placement).is_ok().then_some(placement)
    }

    /// True while somebody who was given notice for this reservation is still there. O(preemptions of the pool that are remembered).
    pub fn is_awaited(&self, claimant: &Reservation) -> bool {
        let known = self.preempted.get(&claimant.request.pool).into_iter().flatten();
        known.filter_map(|(_, id)| self.reservation(*id)).any(|victim| {
            victim.resume_state == State::Preempting
                && victim.preempted().is_some_and(|preempted| preempted.by == claimant.id)
        })
    }

    /// Number that the pool's bound on preemptions still allows.
    pub fn preemptions_left(&self, pool: &str) -> u64 {
        let most = self.pool(pool).map_or(0, |pool| u64::from(pool.max_preemptions_per_hour));
        if most == 0 { u64::MAX } else { most.saturating_sub(self.recent_preemptions(pool)) }
    }

    /// What a place is short of even once those who were given notice have left: names of amounts, `gpu` for devices.
    pub fn contested(&self, waiting: &Reservation, placement: &Placement) -> BTreeSet<String> {
        let request = &waiting.request;
        let Err(refusal) = self.admit_later(waiting, placement) else { return BTreeSet::new() };
        let named = |blocker: Blocker| match blocker.reason {
            // A device is named by its uuid, a quota by resource and queue.
            Reason::QuotaExceeded => blocker.subject.split(" in queue ").next().map(str::to_owned),
            Reason::CountableExhausted => Some(blocker.subject),
            Reason::NoCapacity if request.requirements.amounts.get(&blocker.subject).is_zero() => {
                Some(crate::GPU.to_owned())
            }
            Reason::NoCapacity => Some(blocker.subject),
            _ => None,
        };
        refusal.blockers.into_iter().filter_map(named).collect()
    }

    /// A queue keeps what is guaranteed to it; where the other would borrow, it keeps all of its own.
    fn leaves_enough(
        &self,
        quota: &QuotaTree,
        claimant: &Claimant<'_>,
        victim: &Request,
        (pool, taken): (&str, &Resources),
    ) -> bool {
        let queue = &claimant.reservation.request.queue;
        if victim.queue.is_empty() || victim.queue == *queue {
            return true;
        }
        let borrows = quota.would_borrow(queue, pool, &claimant.asked);
        taken.iter().filter(|(name, _)| claimant.contested.contains(*name)).all(|(name, amount)| {
            let Some(cell) = quota.cell(&victim.queue, pool, name) else { return true };
            let least = if borrows { cell.subtree } else { cell.quota.guaranteed };
            cell.usage.0 >= least.0.saturating_add(amount.0)
        })
    }
}
