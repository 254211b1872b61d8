//! Life of a reservation in the model: `docs/semantics.md` 4.

use super::*;

impl Model {
    pub(super) fn submit(&mut self, request: &Request, verdict: &Verdict) -> Result<(), Reason> {
        if !self.pools.contains_key(&request.pool) {
            return Err(Reason::PoolNotFound);
        }
        let &(priority, class_ttl_ms) = self.classes.get(&request.class).ok_or(Reason::ClassNotFound)?;
        if !request.queue.is_empty() && self.version < 3 {
            return Err(Reason::UnsupportedVersion);
        }
        if request.on_preempt != plimsoll_ledger::OnPreempt::Requeue && self.version < 4 {
            return Err(Reason::UnsupportedVersion);
        }
        let of_places = !request.topology.is_unconstrained() || !request.affinity.is_empty();
        if of_places && self.version < 4 {
            return Err(Reason::UnsupportedVersion);
        }
        let by_profile = |gpu: &plimsoll_ledger::GpuAsk| matches!(gpu.share, GpuShare::Mig(_));
        if request.requirements.gpu.as_ref().is_some_and(by_profile) && self.version < 5 {
            return Err(Reason::UnsupportedVersion);
        }
        if (request.qos.is_some() || !request.burst.is_zero()) && self.version < 7 {
            return Err(Reason::UnsupportedVersion);
        }
        if request.repair_within_ms > 0 && self.version < 7 {
            return Err(Reason::UnsupportedVersion);
        }
        if request.on_interruption.is_some() && self.version < 11 {
            return Err(Reason::UnsupportedVersion);
        }
        if request.hours.is_some() && self.version < 14 {
            return Err(Reason::UnsupportedVersion);
        }
        if request.nice > 0 && self.version < 15 {
            return Err(Reason::UnsupportedVersion);
        }
        if !request.queue.is_empty() && !self.queues.contains_key(&request.queue) {
            return Err(Reason::QueueNotFound);
        }
        self.service_of(request)?;
        if request.hours.as_ref().is_some_and(|hours| !self.schedules.contains_key(&hours.schedule)) {
            return Err(Reason::NotFound);
        }
        if request.start_at_ms > 0 && self.version < 4 {
            return Err(Reason::UnsupportedVersion);
        }
        if !makes_sense(request) || !self.levels_make_sense(request) {
            return Err(Reason::InvalidArgument);
        }
        let mut request = self.with_spot(self.with_qos(request)?);
        if request.ttl_ms == 0 {
            request.ttl_ms = if class_ttl_ms > 0 { class_ttl_ms } else { 60_000 };
        }
        if request.hold_ms == 0 {
            request.hold_ms = 30_000;
        }
        let mut r = Res {
            requester: self.actor.clone(),
            endpoint: None,
            repair: None,
            tokens: Vec::new(),
            aside: false,
            bill: Vec::new(),
            paid_until: 0,
            cost: 0,
            priority,
            state: State::Pending,
            resume: State::Pending,
            amounts: request.requirements.amounts.clone(),
            members: Vec::new(),
            token: 0,
            granted_at: 0,
            preempted: None,
            ttl_ms: request.ttl_ms,
            deadline: 0,
            hard_end: 0,
            ended_at: 0,
            end: None,
            request,
        };
        self.submit_rates(&r.request)?;
        self.submit_usage(&r.request)?;
        if r.request.start_at_ms > self.clock {
            if matches!(verdict, Verdict::Infeasible(_)) {
                return Err(Reason::Infeasible);
            }
            self.plan(&mut r)?;
            self.count_submission(&r.request);
            self.reservations.insert(self.revision, r);
            return Ok(());
        }
        let placed = match verdict {
            Verdict::Infeasible(_) => return Err(Reason::Infeasible),
            Verdict::Blocked(_) => Err(Reason::NoCapacity),
            Verdict::Place(placement) => {
                let open = self.goes_first(&r).and_then(|()| self.time_has_come(&r.request, self.clock));
                let admitted = open.and_then(|()| self.admits(&r.request, &r.requester, placement, None));
                admitted.map(|cut| (placement, cut))
            }
        };
        match (placed, r.request.wait) {
            (Ok((placement, cut)), _) => self.grant(&mut r, placement, cut),
            (Err(reason), Wait::Refuse) => return Err(reason),
            (Err(_), Wait::Queue { deadline_ms }) => {
                let most = match self.pools[&r.request.pool].max_pending {
                    0 => 1_000_000,
                    most => most as usize,
                };
                if self.queue(&r.request.pool).len() >= most {
                    return Err(Reason::QueueFull);
                }
                let own = |other: &&Res| other.waits() && other.request.queue == r.request.queue;
                let most = self.queues.get(&r.request.queue).map_or(0, |queue| queue.max_pending as usize);
                let full = most > 0 && self.reservations.values().filter(own).count() >= most;
                if full && self.bound(&r.request.queue).is_none() {
                    return Err(Reason::QueueFull);
                }
                r.deadline = if deadline_ms > 0 { self.clock + deadline_ms } else { 0 };
            }
        }
        self.count_submission(&r.request);
        let lines = Model::lines_of(&r);
        self.reservations.insert(self.revision, r);
        self.note_rows(lines);
        Ok(())
    }

    pub(super) fn grant(&mut self, r: &mut Res, placement: &Placement, cut: u64) {
        let is_advance = r.is_advance();
        r.members = placement.members.iter().map(|m| (m.node.0, m.devices.clone())).collect();
        r.token = self.revision;
        r.granted_at = self.clock;
        self.charge_grant(r);
        r.hard_end = match (is_advance, cut, r.request.max_duration_ms) {
            (true, ..) => r.hard_end,
            (_, 1.., _) => cut,
            (.., 0) => 0,
            (.., length) => self.clock + length,
        };
        if r.request.auto_confirm {
            self.activate(r);
        } else {
            r.state = State::Held;
            r.deadline = self.clock + r.request.hold_ms;
        }
        r.resume = r.state;
    }

    pub(super) fn activate(&self, r: &mut Res) {
        let full = r.members.len() as u32 == r.request.gang.max_members;
        r.resume = if full { State::Active } else { State::Partial };
        if r.state != State::Unknown {
            r.state = r.resume;
        }
        r.deadline = at_most(self.clock + r.ttl_ms, r.hard_end);
    }

    pub(super) fn place(&mut self, id: u64, placement: &Placement) -> Result<(), Reason> {
        let mut r = self.reservations.get(&id).ok_or(Reason::NotFound)?.clone();
        if r.repair.is_some() {
            return self.repair(id, placement);
        }
        let started = r.is_advance() && r.request.start_at_ms <= self.clock;
        if !r.waits() && !started {
            return Err(Reason::WrongState);
        }
        if r.deadline > 0 && self.clock > r.deadline {
            return Err(Reason::Expired);
        }
        self.time_has_come(&r.request, self.submitted[&id])?;
        let plan = started.then_some(id);
        let cut = self.without(&[id], |model| model.admits(&r.request, &r.requester, placement, plan))?;
        r.deadline = 0;
        self.grant(&mut r, placement, cut);
        let lines = Model::lines_of(&r);
        self.reservations.insert(id, r);
        self.note_rows(lines);
        Ok(())
    }

    pub(super) fn confirm(&mut self, id: u64, token: u64) -> Result<(), Reason> {
        let mut r = self.with_token(id, token, &[State::Held])?;
        if self.clock > self.lease_end(&r) {
            return Err(Reason::Expired);
        }
        self.activate(&mut r);
        self.reservations.insert(id, r);
        Ok(())
    }

    pub(super) fn renew(&mut self, id: u64, token: u64, ttl_ms: u64) -> Result<(), Reason> {
        let mut r = self.with_token(id, token, &[State::Active, State::Partial, State::Preempting])?;
        if ttl_ms != 0 && !(1_000..=366 * 24 * HOUR_MS).contains(&ttl_ms) {
            return Err(Reason::InvalidArgument);
        }
        if r.hard_end > 0 && self.clock >= r.hard_end {
            return Err(Reason::Expired);
        }
        if r.resume == State::Preempting {
            return Ok(());
        }
        let end = self.lease_end(&r);
        r.ttl_ms = if ttl_ms > 0 { ttl_ms } else { r.ttl_ms };
        r.deadline = at_most(end.max(self.clock + r.ttl_ms), r.hard_end);
        self.renew_usage(&mut r)?;
        let lines = Model::lines_of(&r);
        self.reservations.insert(id, r);
        self.note_rows(lines);
        Ok(())
    }

    pub(super) fn resize(&mut self, id: u64, token: u64, new: &Resources) -> Result<(), Reason> {
        let mut r = self.with_token(id, token, &[State::Held, State::Active, State::Partial])?;
        let most = u128::from(r.request.gang.max_members);
        if new.iter().any(|(_, a)| u128::from(a.0) * most > u128::from(u64::MAX >> 1)) {
            return Err(Reason::InvalidArgument);
        }
        let pool = &self.pools[&r.request.pool];
        let mut reasons = Vec::new();
        for (name, amount) in new.iter() {
            let growth = |n: u64| (amount.0 * n).saturating_sub(r.amounts.get(name).0 * n);
            if let Some(total) = pool.countables.get(name) {
                let worst =
                    [false, true].map(|later| self.seen(later, |model| model.pool_used(&pool.name, name)));
                let free = total.0.saturating_sub(worst[0].max(worst[1]));
                if growth(r.members.len() as u64) > free {
                    reasons.push(Reason::CountableExhausted);
                }
                continue;
            }
            for (node, n) in count_nodes(&r.members) {
                let worst =
                    [false, true].map(|later| self.seen(later, |model| model.room(&r.request, node, name)));
                if growth(n) > worst[0].min(worst[1]) {
                    reasons.push(Reason::NoCapacity);
                }
            }
        }
        let place = (r.request.queue.as_str(), r.request.pool.as_str());
        let short = |later| {
            self.seen(later, |model| model.quota_short(place, (&r.amounts, &r.members), (new, &r.members)))
        };
        if short(false) || short(true) {
            reasons.push(Reason::QuotaExceeded);
        }
        if self.calendar_stops(&r, new) {
            reasons.push(Reason::ReservedByCalendar);
        }
        least(reasons)?;
        r.amounts = new.clone();
        self.resize_usage(&mut r)?;
        let lines = Model::lines_of(&r);
        self.reservations.insert(id, r);
        self.note_rows(lines);
        Ok(())
    }

    pub(super) fn with_token(&self, id: u64, token: u64, stands: &[State]) -> Result<Res, Reason> {
        let r = self.reservations.get(&id).ok_or(Reason::NotFound)?;
        match (r.state.is_final(), r.token == token && token > 0) {
            (true, _) if r.token == token => Err(Reason::WrongState),
            (true, _) | (false, false) => Err(Reason::Fenced),
            (false, true) if stands.contains(&r.resume) => Ok(r.clone()),
            (false, true) => Err(Reason::WrongState),
        }
    }

    pub(super) fn lease_end(&self, r: &Res) -> u64 {
        match r.resume {
            State::Held => r.deadline.max(self.rearmed + r.request.hold_ms),
            State::Preempting => {
                let grace_ms = r.preempted.map_or(0, |(_, _, _, grace_ms)| grace_ms);
                at_most(r.deadline.max(self.rearmed + grace_ms), r.hard_end)
            }
            _ => at_most(r.deadline.max(self.rearmed + r.ttl_ms), r.hard_end),
        }
    }

    pub(super) fn safe_end(&self, r: &Res) -> u64 {
        self.lease_end(r) + if r.resume == State::Held { 0 } else { r.ttl_ms / 10 + 1_000 }
    }

    pub(super) fn finish(&mut self, id: u64, state: State, reason: EndReason) {
        let Some(r) = self.reservations.get(&id).cloned() else { return };
        if occupies(r.state) {
            self.keep_fence_pending(id, &r, &r.members);
        }
        let now = self.clock;
        let r = self.reservations.get_mut(&id).expect("looked up above");
        r.state = state;
        r.resume = state;
        r.members.clear();
        (r.repair, r.tokens) = (None, Vec::new());
        r.deadline = 0;
        r.ended_at = now;
        r.end = Some(reason);
        let bills = std::mem::take(&mut r.bill);
        self.leave_service(id);
        self.settle(id, bills);
        let mut ended: Vec<(u64, u64)> = self
            .reservations
            .iter()
            .filter(|(_, r)| r.state.is_final())
            .map(|(id, r)| (r.ended_at, *id))
            .collect();
        if ended.len() > 100_001 {
            ended.sort_unstable();
            self.reservations.remove(&ended[0].1);
        }
    }

    /// What members had on nodes that may still run it.
    pub(super) fn keep_fence_pending(&mut self, id: u64, r: &Res, members: &[(u32, Vec<DeviceGrant>)]) {
        let names: Vec<String> = self.pools[&r.request.pool].countables.keys().cloned().collect();
        let mut amounts = r.amounts.clone();
        names.iter().for_each(|name| amounts.set(name, plimsoll_types::Amount(0)));
        for (node, devices) in members {
            let n = self.nodes.get_mut(node).expect("members are on nodes");
            if matches!(n.health, NodeHealth::Suspect | NodeHealth::Lost | NodeHealth::Failed) {
                n.pending.push((id, amounts.clone(), devices.clone()));
                n.pending.sort_by_key(|(id, ..)| *id);
            }
        }
    }

    pub(super) fn due(&self) -> Vec<(u64, u64)> {
        let mut due: Vec<(u64, u64)> = Vec::new();
        for (id, r) in &self.reservations {
            match r.state {
                State::Pending | State::Planned if r.deadline > 0 => due.push((r.deadline, *id)),
                State::Held | State::Active | State::Partial | State::Preempting => {
                    due.push((self.safe_end(r), *id))
                }
                _ => {}
            }
            if self.is_unrepaired(r, u64::MAX) {
                due.push((self.repair_end(r), *id));
            }
        }
        due.retain(|(at, _)| *at <= self.clock);
        due.sort_unstable();
        due
    }

    pub(super) fn drained(&self) -> Option<u64> {
        let mut due: Vec<(u64, u32)> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.drain > 0 && n.drain <= self.clock)
            .map(|(id, n)| (n.drain, *id))
            .collect();
        due.sort_unstable();
        due.iter().find_map(|(_, node)| self.holders(*node).first().copied())
    }

    pub(super) fn expire(&mut self, limit: u32) -> Came {
        let mut ended = 0;
        self.make_room(limit);
        while ended < limit {
            let Some(&(_, id)) = self.due().first() else { break };
            let r = &self.reservations[&id];
            if self.is_unrepaired(r, self.clock) {
                self.finish(id, State::Failed, EndReason::NotRepaired);
                ended += 1;
                continue;
            }
            let reason = match r.state {
                State::Planned if r.is_advance() => EndReason::NeverStarted,
                State::Pending | State::Planned => EndReason::WaitedTooLong,
                State::Held => EndReason::NotConfirmed,
                _ if r.hard_end > 0 && self.clock >= r.hard_end && r.deadline >= r.hard_end => {
                    self.end_reason(r)
                }
                State::Preempting => {
                    self.take_back(id);
                    ended += 1;
                    continue;
                }
                _ => EndReason::NotRenewed,
            };
            self.finish(id, State::Expired, reason);
            ended += 1;
        }
        while ended < limit {
            let Some(id) = self.drained() else { break };
            if !self.process_again(id) {
                self.finish(id, State::Preempted, EndReason::Drained);
            }
            ended += 1;
        }
        let forgettable = |m: &Model| {
            let ended =
                m.reservations.iter().filter(|(_, r)| r.state.is_final() && r.ended_at + HOUR_MS <= m.clock);
            let mut ended: Vec<(u64, u64)> = ended.map(|(id, r)| (r.ended_at, *id)).collect();
            ended.sort_unstable();
            ended
        };
        for (_, id) in forgettable(self).into_iter().take(limit as usize) {
            self.reservations.remove(&id);
        }
        let over = |m: &Model| {
            let over = m.kept.iter().filter(|(_, k)| k.until <= m.clock);
            let mut over: Vec<_> = over.map(|(key, k)| (k.until, k.revision, key.clone())).collect();
            over.sort_unstable();
            over
        };
        for (_, _, key) in over(self).into_iter().take(limit as usize) {
            let live = |id: u64| self.reservations.get(&id).is_some_and(|r| !r.state.is_final());
            if self.kept[&key].reservation.is_some_and(live) {
                let until = self.clock + 24 * HOUR_MS;
                self.kept.get_mut(&key).expect("listed above").until = until;
            } else {
                self.kept.remove(&key);
            }
        }
        for key in self.rows_due().into_iter().take(limit as usize) {
            self.forget_row(&key);
        }
        for id in self.contentions_due().into_iter().take(limit as usize) {
            self.contentions.remove(&id);
        }
        if over(self).is_empty() {
            let due = self.removed.iter().filter(|(_, gone)| gone.at + 24 * HOUR_MS <= self.clock);
            let mut due: Vec<(u64, u32)> = due.map(|(id, gone)| (gone.at, *id)).collect();
            due.sort_unstable();
            for (_, id) in due.into_iter().take(limit as usize) {
                self.removed.remove(&id);
            }
        }
        let more = !self.due().is_empty()
            || self.sweeps_due()
            || self.drained().is_some()
            || !forgettable(self).is_empty()
            || !over(self).is_empty()
            || !self.rows_due().is_empty()
            || !self.contentions_due().is_empty()
            || self.removed.values().any(|gone| gone.at + 24 * HOUR_MS <= self.clock);
        Came::Expired(ended, more)
    }
}
