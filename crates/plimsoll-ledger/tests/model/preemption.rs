//! Preemption in the model: `docs/semantics.md` 5.2, worked out from the reservations each time.

use plimsoll_ledger::{OnPreempt, Pool, Preemption};

use super::clause::Clause;
use super::qos::{gives_way, out_of_reach};
use super::quota::taken;
use super::*;

impl Model {
    fn knows(&self, clause: Clause) -> bool {
        self.forgets != Some(clause)
    }

    /// Those that take something, in the world looked at.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Res> {
        let (later, gone) = (self.later.get(), self.gone.borrow().clone());
        let counts = move |r: &Res| match later {
            true => r.state == State::Planned || occupies(r.state) && r.resume != State::Preempting,
            false => occupies(r.state),
        };
        self.reservations.iter().filter(move |(id, r)| !gone.contains(id) && counts(r)).map(|(_, r)| r)
    }

    pub(super) fn seen<T>(&self, later: bool, look: impl FnOnce(&Model) -> T) -> T {
        let before = self.later.replace(later);
        let found = look(self);
        self.later.set(before);
        found
    }

    pub(super) fn without<T>(&self, gone: &[u64], look: impl FnOnce(&Model) -> T) -> T {
        let before = self.gone.borrow().clone();
        self.gone.borrow_mut().extend(gone);
        let found = look(self);
        self.gone.replace(before);
        found
    }

    pub(super) fn preempt(&mut self, id: u64, placement: &Placement, victims: &[u64]) -> Result<(), Reason> {
        if self.version < 4 {
            return Err(Reason::UnsupportedVersion);
        }
        let r = self.reservations.get(&id).ok_or(Reason::NotFound)?.clone();
        let gives_up = placement.members.is_empty() && victims.is_empty();
        if !r.waits() || gives_up && r.state != State::Planned {
            return Err(Reason::WrongState);
        }
        if gives_up {
            self.keep_no_place(id);
            return Ok(());
        }
        if r.deadline > 0 && self.clock > r.deadline {
            return Err(Reason::Expired);
        }
        let twice = victims.iter().enumerate().any(|(at, victim)| victims[..at].contains(victim));
        if victims.is_empty() || twice {
            return Err(Reason::InvalidArgument);
        }
        let pool = self.pools[&r.request.pool].clone();
        let since = self.clock.saturating_sub(HOUR_MS);
        let lately = self.reservations.values().filter(|one| {
            one.request.pool == pool.name
                && one.preempted.is_some_and(|known| spot::counts(known) && known.2 >= since)
        });
        let most = u64::from(pool.max_preemptions_per_hour);
        let too_many = most > 0 && victims.len() as u64 > most.saturating_sub(lately.count() as u64);
        if too_many && self.knows(Clause::BudgetPerHour) {
            return Err(Reason::NotPreemptible);
        }
        if victims.iter().any(|victim| !self.reservations.contains_key(victim)) {
            return Err(Reason::NotFound);
        }
        let members: Vec<(u32, Vec<DeviceGrant>)> =
            placement.members.iter().map(|m| (m.node.0, m.devices.clone())).collect();
        let contested =
            self.without(&[id], |model| model.seen(true, |model| model.contested(&r.request, placement)));
        if contested.is_empty() && self.knows(Clause::Contested) {
            return Err(Reason::NotPreemptible);
        }
        let mut gone = vec![id];
        let mut rules = Vec::new();
        for victim in victims {
            let rule = self.without(&gone, |model| {
                model.seen(true, |model| model.rule(id, &members, *victim, &contested, &pool))
            });
            rules.push(rule.ok_or(Reason::NotPreemptible)?);
            gone.push(*victim);
        }
        let admitted = self.without(&gone, |model| {
            let fits = model.seen(true, |model| model.fits(&r.request, &r.requester, placement));
            let kept = model.calendar(&r.request, &members, None);
            least(fits.err().into_iter().chain(kept.err()).collect())
        });
        if self.knows(Clause::EnoughLeave) {
            admitted?;
        }
        let pool = self.reservations[&id].request.pool.clone();
        for (victim, rule) in victims.iter().zip(rules) {
            self.note_victim(&pool, *victim);
            let v = &self.reservations[victim];
            let grace_ms = match self.rules.get(&v.request.class).map_or(0, |rule| rule.1) {
                0 => 30_000,
                grace_ms => grace_ms,
            };
            let (clock, held) = (self.clock, v.state == State::Held);
            let v = self.reservations.get_mut(victim).expect("looked up above");
            v.preempted = Some((id, rule, clock, grace_ms));
            if held {
                self.take_back(*victim);
                continue;
            }
            (v.state, v.resume) = (State::Preempting, State::Preempting);
            v.deadline = at_most(clock + grace_ms, v.hard_end);
        }
        let r = self.reservations.get_mut(&id).expect("looked up above");
        (r.state, r.resume) = (State::Planned, State::Planned);
        r.members = members;
        Ok(())
    }

    /// Names of what the place is short of.
    fn contested(&self, request: &Request, placement: &Placement) -> Vec<String> {
        let members: Vec<(u32, Vec<DeviceGrant>)> =
            placement.members.iter().map(|m| (m.node.0, m.devices.clone())).collect();
        let mut found = Vec::new();
        let mut labels_only =
            Request { requirements: Default::default(), queue: String::new(), ..request.clone() };
        let bare = members.iter().map(|(node, _)| plimsoll_ledger::MemberPlacement {
            node: plimsoll_types::NodeId(*node),
            devices: Vec::new(),
            role: 0,
        });
        let bare = Placement { members: bare.collect() };
        labels_only.requirements.required = request.requirements.required.clone();
        let of_usage =
            [Reason::LimitExceeded, Reason::BudgetExhausted, Reason::RateExceeded, Reason::SpotShare];
        if self.fits(&labels_only, "", &bare).is_err_and(|reason| !of_usage.contains(&reason)) {
            return found;
        }
        let pool = &self.pools[&request.pool];
        for (name, amount) in request.requirements.amounts.iter() {
            let short = match pool.countables.get(name) {
                Some(total) => {
                    amount.0 * members.len() as u64 > total.0.saturating_sub(self.pool_used(&pool.name, name))
                }
                None => count_nodes(&members)
                    .iter()
                    .any(|(node, n)| amount.0 * n > self.room(request, *node, name)),
            };
            if short {
                found.push(name.to_owned());
            }
        }
        let has_gpu = request.requirements.gpu.is_some();
        if has_gpu && self.device_reasons(request, &members).contains(&Reason::NoCapacity) {
            found.push("gpu".to_owned());
        }
        let amounts = &request.requirements.amounts;
        let names: Vec<&str> = amounts.iter().map(|(name, _)| name).chain(["gpu"]).collect();
        for name in names {
            let asked = taken(amounts, &members, name);
            let left = (!request.queue.is_empty()).then(|| self.left(&request.queue, &request.pool, name));
            if left.flatten().is_some_and(|left| asked > 0 && i128::from(asked) > left.max(0)) {
                found.push(name.to_owned());
            }
        }
        found
    }

    /// By which rule `victim` may be made to leave for `id`.
    fn rule(
        &self,
        id: u64,
        members: &[(u32, Vec<DeviceGrant>)],
        victim: u64,
        contested: &[String],
        pool: &Pool,
    ) -> Option<PreemptionRule> {
        let (r, v) = (&self.reservations[&id], &self.reservations[&victim]);
        let (preemptible, _, min_run_ms) = self.rules.get(&v.request.class).copied().unwrap_or_default();
        let tree = |queue: &str| {
            if queue.is_empty() { String::new() } else { self.root(queue).to_owned() }
        };
        let stands = matches!(v.state, State::Held | State::Active | State::Partial);
        let gives_way = gives_way(&r.request, &v.request) && self.knows(Clause::BestEffortLeaves);
        if victim == id
            || !stands
            || v.request.pool != r.request.pool && self.knows(Clause::SamePool)
            || out_of_reach(&r.request, &v.request) && self.knows(Clause::BestEffortTakesNothing)
            || !gives_way && tree(&v.request.queue) != tree(&r.request.queue) && self.knows(Clause::SameTree)
            || self.clock < v.granted_at + min_run_ms && self.knows(Clause::MinRun)
        {
            return None;
        }
        let allowed = self.preemption_now(&pool.name);
        if gives_way && (allowed != Preemption::Never || !self.knows(Clause::PoolAllows)) {
            return Some(PreemptionRule::BestEffort);
        }
        let (ours, theirs) = (r.request.queue.as_str(), v.request.queue.as_str());
        let asked = |name: &str| i128::from(taken(&r.request.requirements.amounts, members, name));
        let lost = |name: &str| i128::from(taken(&v.amounts, &v.members, name));
        let managed = |queue: &str, name: &str| self.left(queue, &pool.name, name).is_some();
        let (subtree, usage) = (
            |queue: &str, name: &str| self.subtree(queue, &pool.name, name),
            |queue: &str, name: &str| self.usage(queue, &pool.name, name),
        );
        let all_asked: Vec<String> = r
            .request
            .requirements
            .amounts
            .iter()
            .map(|(name, _)| name.to_owned())
            .chain(["gpu".to_owned()])
            .collect();
        let borrows = all_asked.iter().filter(|name| asked(name) > 0).any(|name| {
            !ours.is_empty() && managed(ours, name) && usage(ours, name) + asked(name) > subtree(ours, name)
        });
        let enough = theirs.is_empty()
            || theirs == ours
            || contested.iter().filter(|name| lost(name) > 0 && managed(theirs, name)).all(|name| {
                let guaranteed = i128::from(self.quota(theirs, &pool.name, name).guaranteed.0);
                let least = match borrows && self.knows(Clause::NominalKeptFromBorrowers) {
                    true => subtree(theirs, name),
                    false if self.knows(Clause::GuaranteedKept) => guaranteed,
                    false => 0,
                };
                usage(theirs, name) - lost(name) >= least
            });
        let any = !self.knows(Clause::PoolAllows);
        let by_class = any || matches!(allowed, Preemption::Any | Preemption::LowerClass);
        let lower = v.priority < r.priority || !self.knows(Clause::LowerClass);
        if by_class && lower && (preemptible || !self.knows(Clause::Preemptible)) && enough {
            return Some(PreemptionRule::LowerClass);
        }
        let by_quota = any || matches!(allowed, Preemption::Any | Preemption::Reclaim);
        let interval_ms = pool.rebalance_interval_ms.max(1);
        if pool.rebalance_interval_ms > 0 && self.submitted[&id] / interval_ms == self.clock / interval_ms {
            return None;
        }
        if !by_quota || !self.knows(Clause::Reclaim) || ours.is_empty() || theirs.is_empty() || ours == theirs
        {
            return None;
        }
        let (up, down) = (self.way_up(ours), self.way_up(theirs));
        let own: Vec<&String> = up.iter().take_while(|queue| !down.contains(queue)).collect();
        let borrowers: Vec<&String> = down.iter().take_while(|queue| !up.contains(queue)).collect();
        let top = own.last()?;
        let names: Vec<&String> = contested
            .iter()
            .filter(|name| lost(name) > 0)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let over =
            |queue: &str, name: &str| managed(queue, name) && usage(queue, name) > subtree(queue, name);
        let borrows = |name: &&String| match self.knows(Clause::EveryQueueBorrows) {
            true => borrowers.iter().all(|queue| over(queue, name)),
            false => borrowers.iter().any(|queue| over(queue, name)),
        };
        let nothing = !names.iter().any(borrows) && self.knows(Clause::Borrowed);
        if borrowers.is_empty() || nothing {
            return None;
        }
        let within = |model: &Model, queue: &str, name: &str| {
            model.left(queue, &pool.name, name).is_none()
                || model.usage(queue, &pool.name, name) >= model.subtree(queue, &pool.name, name)
        };
        let crosses = |queue: &String, name: &str| {
            within(self, queue, name) && !self.without(&[victim], |model| within(model, queue, name))
        };
        let below = borrowers.iter().any(|queue| names.iter().any(|name| crosses(queue, name)));
        if below && self.knows(Clause::NominalKeptByReclaim) {
            return None;
        }
        // With the claimant there in place of the victim.
        let mut there = self.clone();
        let new = there.reservations.get_mut(&id).expect("looked up above");
        (new.state, new.members) = (State::Planned, members.to_vec());
        new.amounts = new.request.requirements.amounts.clone();
        there.gone.borrow_mut().retain(|one| *one != id);
        there.gone.borrow_mut().push(victim);
        let stays = contested.iter().filter(|name| asked(name) > 0).all(|name| {
            there.left(top, &pool.name, name).is_none()
                || there.usage(top, &pool.name, name) <= there.subtree(top, &pool.name, name)
        });
        (stays || !self.knows(Clause::ReclaimWithinNominal)).then_some(PreemptionRule::Reclaim)
    }

    fn way_up(&self, queue: &str) -> Vec<String> {
        let up = std::iter::successors(self.queues.get(queue), |of| self.queues.get(&of.parent));
        up.map(|of| of.name.clone()).collect()
    }

    pub(super) fn take_back(&mut self, id: u64) {
        let r = &self.reservations[&id];
        if r.preempted.is_some_and(|known| !spot::counts(known)) && r.request.on_interruption.is_some() {
            return self.take_back_interrupted(id);
        }
        let Wait::Queue { deadline_ms } = r.request.wait else {
            return self.finish(id, State::Preempted, EndReason::Preempted);
        };
        if r.request.on_preempt == OnPreempt::End && !self.is_processed_for_sure(&r.request.queue) {
            return self.finish(id, State::Preempted, EndReason::Preempted);
        }
        self.wait_again(id, deadline_ms);
    }

    pub(super) fn wait_again(&mut self, id: u64, deadline_ms: u64) {
        let deadline = if deadline_ms > 0 { self.clock + deadline_ms } else { 0 };
        let r = self.reservations.get_mut(&id).expect("looked up above");
        (r.state, r.resume) = (State::Pending, State::Pending);
        r.members.clear();
        (r.repair, r.tokens) = (None, Vec::new());
        (r.token, r.granted_at, r.hard_end, r.deadline) = (0, 0, 0, deadline);
        r.amounts = r.request.requirements.amounts.clone();
        r.ttl_ms = r.request.ttl_ms;
        let bills = std::mem::take(&mut r.bill);
        self.leave_service(id);
        self.settle(id, bills);
        // It has its place to come, and its cost with it.
        self.reservations.get_mut(&id).expect("looked up above").cost = 0;
    }

    pub(super) fn keep_no_place(&mut self, id: u64) {
        let r = self.reservations.get_mut(&id).expect("looked up by the caller");
        (r.state, r.resume) = (State::Pending, State::Pending);
        r.members.clear();
    }

    /// A node is not what it was: whoever had a place kept there waits on.
    pub(super) fn keep_no_places(&mut self, node: u32) {
        let planned = self
            .reservations
            .iter()
            .filter(|(_, r)| r.state == State::Planned && r.members.iter().any(|(on, _)| *on == node));
        let planned: Vec<u64> = planned.map(|(id, _)| *id).collect();
        planned.into_iter().for_each(|id| self.keep_no_place(id));
    }
}
