//! A second ledger, written from `docs/semantics.md` alone: no index, no sharing, every sum made anew. It is slow and
//! plain on purpose; where it and the real ledger differ, one of them or the page is wrong.

mod quota;

use std::collections::BTreeMap;

use plimsoll_ledger::{
    AdminChange, Command, DeviceGrant, EndReason, Entry, GpuShare, NodeHealth, Outcome, Placement,
    PolicyName, PolicyObject, Reason, Registration, Request, State, Verdict, Wait,
};
use plimsoll_types::{Labels, Resources};

const HOUR_MS: u64 = 3_600_000;

/// What a command came to, without the details that the state comparison covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    To(&'static str),
    Expired(u32, bool),
    Refused(Reason),
}

#[derive(Clone, Debug)]
pub(crate) struct Res {
    pub(crate) request: Request,
    pub(crate) priority: i32,
    pub(crate) state: State,
    pub(crate) resume: State,
    pub(crate) amounts: Resources,
    pub(crate) members: Vec<(u32, Vec<DeviceGrant>)>,
    pub(crate) token: u64,
    pub(crate) ttl_ms: u64,
    pub(crate) deadline: u64,
    pub(crate) hard_end: u64,
    pub(crate) ended_at: u64,
    pub(crate) end: Option<EndReason>,
}

#[derive(Clone, Debug)]
pub(crate) struct Nod {
    pub(crate) reg: Registration,
    pub(crate) epoch: u64,
    pub(crate) pool: String,
    pub(crate) allocatable: Resources,
    pub(crate) schedulable: bool,
    pub(crate) drain: u64,
    pub(crate) health: NodeHealth,
    pub(crate) since: u64,
    pub(crate) pending: Vec<(u64, Resources, Vec<DeviceGrant>)>,
}

/// A node that was removed: its name, its devices' uuids, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) name: String,
    pub(crate) uuids: Vec<String>,
    pub(crate) at: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    hash: [u8; 32],
    came: Came,
    revision: u64,
    reservation: Option<u64>,
    until: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) clock: u64,
    rearmed: u64,
    policy_changed: u64,
    next_node: u32,
    pools: BTreeMap<String, plimsoll_ledger::Pool>,
    classes: BTreeMap<String, (i32, u64)>,
    limits: BTreeMap<String, plimsoll_ledger::NodeLimits>,
    queues: BTreeMap<String, plimsoll_ledger::Queue>,
    pub(crate) nodes: BTreeMap<u32, Nod>,
    pub(crate) reservations: BTreeMap<u64, Res>,
    kept: BTreeMap<(String, String), Kept>,
    pub(crate) version: u32,
    pub(crate) removed: BTreeMap<u32, Gone>,
}

impl Model {
    pub(crate) fn new() -> Model {
        let mut model = Model { version: 1, ..Model::default() };
        let pool = plimsoll_ledger::Pool { name: "default".into(), ..Default::default() };
        model.pools.insert("default".into(), pool);
        for (name, priority) in
            [("critical", 100), ("high", 75), ("standard", 50), ("low", 25), ("batch", 10)]
        {
            model.classes.insert(name.into(), (priority, 0));
        }
        model
    }

    /// Applies one entry. Returns what it came to and the revision that the answer cites.
    pub(crate) fn step(&mut self, proposed_at: u64, entry: &Entry) -> (Came, u64) {
        self.revision += 1;
        self.clock = self.clock.max(proposed_at);
        let key = (entry.actor.clone(), entry.request_id.clone());
        if let Some(kept) = self.kept.get(&key) {
            if kept.hash == entry.request_hash {
                return (kept.came.clone(), kept.revision);
            }
            return (Came::Refused(Reason::KeyConflict), self.revision);
        }
        let mut touched = None;
        let came = match self.command(&entry.command, &mut touched) {
            Ok(came) => came,
            Err(reason) => Came::Refused(reason),
        };
        if !entry.request_id.is_empty() {
            let placed = matches!(&entry.command, Command::Submit { verdict: Verdict::Place(_), .. });
            let again =
                matches!(&came, Came::Refused(r) if *r == Reason::NotFound || *r >= Reason::NodeNotAvailable);
            if !(placed && again) {
                let until = self.clock + 24 * HOUR_MS;
                let kept = Kept {
                    hash: entry.request_hash,
                    came: came.clone(),
                    revision: self.revision,
                    reservation: touched,
                    until,
                };
                self.kept.insert(key, kept);
            }
        }
        (came, self.revision)
    }

    fn command(&mut self, command: &Command, touched: &mut Option<u64>) -> Result<Came, Reason> {
        let id_of = |command: &Command| match command {
            Command::Place { reservation, .. }
            | Command::Confirm { reservation, .. }
            | Command::Renew { reservation, .. }
            | Command::Resize { reservation, .. }
            | Command::Release { reservation, .. }
            | Command::Cancel { reservation } => Some(reservation.0),
            _ => None,
        };
        let id = id_of(command).unwrap_or_default();
        match command {
            Command::Submit { request, verdict } => {
                self.submit(request, verdict)?;
                *touched = Some(self.revision);
            }
            Command::Place { placement, .. } => self.place(id, placement)?,
            Command::Confirm { token, .. } => self.confirm(id, token.0)?,
            Command::Renew { token, ttl_ms, .. } => self.renew(id, token.0, *ttl_ms)?,
            Command::Resize { token, amounts, .. } => self.resize(id, token.0, amounts)?,
            Command::Release { token, .. } => {
                self.with_token(id, token.0, &[State::Held, State::Active, State::Partial])?;
                self.finish(id, State::Released, EndReason::Released);
            }
            Command::Cancel { .. } => {
                let r = self.reservations.get(&id).ok_or(Reason::NotFound)?;
                if r.state.is_final() {
                    return Err(Reason::WrongState);
                }
                let to = if occupies(r.state) { State::Released } else { State::Rejected };
                self.finish(id, to, EndReason::Cancelled);
            }
            Command::Expire { limit } => return Ok(self.expire((*limit).max(1))),
            Command::RegisterNode(reg) => {
                self.register(reg)?;
                return Ok(Came::To("node"));
            }
            Command::SetNodeHealth { node, epoch, health } => {
                self.set_health(node.0, epoch.0, *health)?;
                return Ok(Came::To("node"));
            }
            Command::SetNodeAdmin { node, admin } => {
                let now = self.clock;
                let n = self.nodes.get_mut(&node.0).ok_or(Reason::NotFound)?;
                n.schedulable = matches!(admin, AdminChange::Uncordon);
                n.drain = match admin {
                    AdminChange::Drain { deadline_ms, .. } if *deadline_ms > 0 => now + deadline_ms,
                    _ => 0,
                };
                return Ok(Came::To("node"));
            }
            Command::SetDeviceHealth { node, device, failed } => {
                let n = self.nodes.get_mut(&node.0).ok_or(Reason::NotFound)?;
                let devices = &mut n.reg.devices;
                devices.get_mut(usize::from(device.0)).ok_or(Reason::NotFound)?.failed = *failed;
                return Ok(Came::To("node"));
            }
            Command::RemoveNode { node } => {
                self.nodes.get(&node.0).ok_or(Reason::NotFound)?;
                if !self.holders(node.0).is_empty() {
                    return Err(Reason::InUse);
                }
                if let Some(n) = self.nodes.remove(&node.0).filter(|_| self.version >= 2) {
                    let uuids = n.reg.devices.iter().map(|device| device.uuid.clone()).collect();
                    self.removed.insert(node.0, Gone { name: n.reg.name, uuids, at: self.clock });
                }
                return Ok(Came::To("done"));
            }
            Command::ApplyPolicy { put, delete, if_revision } => {
                self.policy(put, delete, if_revision.0)?;
                return Ok(Came::To("done"));
            }
            Command::BecomeLeader { .. } => {
                self.rearmed = self.clock;
                return Ok(Came::To("done"));
            }
            Command::Upgrade { to } => {
                if *to <= self.version {
                    return Err(Reason::WrongState);
                }
                if *to > 3 {
                    return Err(Reason::UnsupportedVersion);
                }
                self.version = *to;
                return Ok(Came::To("done"));
            }
        }
        touched.get_or_insert(id);
        Ok(Came::To("reservation"))
    }

    fn submit(&mut self, request: &Request, verdict: &Verdict) -> Result<(), Reason> {
        if !self.pools.contains_key(&request.pool) {
            return Err(Reason::PoolNotFound);
        }
        let &(priority, class_ttl_ms) = self.classes.get(&request.class).ok_or(Reason::ClassNotFound)?;
        if !request.queue.is_empty() && self.version < 3 {
            return Err(Reason::UnsupportedVersion);
        }
        if !request.queue.is_empty() && !self.queues.contains_key(&request.queue) {
            return Err(Reason::QueueNotFound);
        }
        if !makes_sense(request) {
            return Err(Reason::InvalidArgument);
        }
        let mut request = request.clone();
        if request.ttl_ms == 0 {
            request.ttl_ms = if class_ttl_ms > 0 { class_ttl_ms } else { 60_000 };
        }
        if request.hold_ms == 0 {
            request.hold_ms = 30_000;
        }
        let mut r = Res {
            priority,
            state: State::Pending,
            resume: State::Pending,
            amounts: request.requirements.amounts.clone(),
            members: Vec::new(),
            token: 0,
            ttl_ms: request.ttl_ms,
            deadline: 0,
            hard_end: 0,
            ended_at: 0,
            end: None,
            request,
        };
        let placed = match verdict {
            Verdict::Infeasible(_) => return Err(Reason::Infeasible),
            Verdict::Blocked(_) => Err(Reason::NoCapacity),
            Verdict::Place(placement) => self.admits(&r.request, placement).map(|()| placement),
        };
        match (placed, r.request.wait) {
            (Ok(placement), _) => self.grant(&mut r, placement),
            (Err(reason), Wait::Refuse) => return Err(reason),
            (Err(_), Wait::Queue { deadline_ms }) => {
                let most = match self.pools[&r.request.pool].max_pending {
                    0 => 1_000_000,
                    most => most as usize,
                };
                if self.queue(&r.request.pool).len() >= most {
                    return Err(Reason::QueueFull);
                }
                let own =
                    |other: &&Res| other.state == State::Pending && other.request.queue == r.request.queue;
                let most = self.queues.get(&r.request.queue).map_or(0, |queue| queue.max_pending as usize);
                if most > 0 && self.reservations.values().filter(own).count() >= most {
                    return Err(Reason::QueueFull);
                }
                r.deadline = if deadline_ms > 0 { self.clock + deadline_ms } else { 0 };
            }
        }
        self.reservations.insert(self.revision, r);
        Ok(())
    }

    fn grant(&self, r: &mut Res, placement: &Placement) {
        r.members = placement.members.iter().map(|m| (m.node.0, m.devices.clone())).collect();
        r.token = self.revision;
        r.hard_end = if r.request.max_duration_ms > 0 { self.clock + r.request.max_duration_ms } else { 0 };
        if r.request.auto_confirm {
            self.activate(r);
        } else {
            r.state = State::Held;
            r.deadline = self.clock + r.request.hold_ms;
        }
        r.resume = r.state;
    }

    fn activate(&self, r: &mut Res) {
        let full = r.members.len() as u32 == r.request.gang.max_members;
        r.resume = if full { State::Active } else { State::Partial };
        if r.state != State::Unknown {
            r.state = r.resume;
        }
        r.deadline = at_most(self.clock + r.ttl_ms, r.hard_end);
    }

    fn place(&mut self, id: u64, placement: &Placement) -> Result<(), Reason> {
        let mut r = self.reservations.get(&id).ok_or(Reason::NotFound)?.clone();
        if r.state != State::Pending {
            return Err(Reason::WrongState);
        }
        if r.deadline > 0 && self.clock > r.deadline {
            return Err(Reason::Expired);
        }
        self.admits(&r.request, placement)?;
        r.deadline = 0;
        self.grant(&mut r, placement);
        self.reservations.insert(id, r);
        Ok(())
    }

    fn confirm(&mut self, id: u64, token: u64) -> Result<(), Reason> {
        let mut r = self.with_token(id, token, &[State::Held])?;
        if self.clock > self.lease_end(&r) {
            return Err(Reason::Expired);
        }
        self.activate(&mut r);
        self.reservations.insert(id, r);
        Ok(())
    }

    fn renew(&mut self, id: u64, token: u64, ttl_ms: u64) -> Result<(), Reason> {
        let mut r = self.with_token(id, token, &[State::Active, State::Partial])?;
        if ttl_ms != 0 && !(1_000..=366 * 24 * HOUR_MS).contains(&ttl_ms) {
            return Err(Reason::InvalidArgument);
        }
        if r.hard_end > 0 && self.clock >= r.hard_end {
            return Err(Reason::Expired);
        }
        let end = self.lease_end(&r);
        r.ttl_ms = if ttl_ms > 0 { ttl_ms } else { r.ttl_ms };
        r.deadline = at_most(end.max(self.clock + r.ttl_ms), r.hard_end);
        self.reservations.insert(id, r);
        Ok(())
    }

    fn resize(&mut self, id: u64, token: u64, new: &Resources) -> Result<(), Reason> {
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
                let free = total.0.saturating_sub(self.pool_used(&pool.name, name));
                if growth(r.members.len() as u64) > free {
                    reasons.push(Reason::CountableExhausted);
                }
                continue;
            }
            for (node, n) in count_nodes(&r.members) {
                if growth(n) > self.free(node, name) {
                    reasons.push(Reason::NoCapacity);
                }
            }
        }
        let place = (r.request.queue.as_str(), r.request.pool.as_str());
        if self.quota_short(place, (&r.amounts, &r.members), (new, &r.members)) {
            reasons.push(Reason::QuotaExceeded);
        }
        least(reasons)?;
        r.amounts = new.clone();
        self.reservations.insert(id, r);
        Ok(())
    }

    fn with_token(&self, id: u64, token: u64, stands: &[State]) -> Result<Res, Reason> {
        let r = self.reservations.get(&id).ok_or(Reason::NotFound)?;
        match (r.state.is_final(), r.token == token && token > 0) {
            (true, _) if r.token == token => Err(Reason::WrongState),
            (true, _) | (false, false) => Err(Reason::Fenced),
            (false, true) if stands.contains(&r.resume) => Ok(r.clone()),
            (false, true) => Err(Reason::WrongState),
        }
    }

    fn lease_end(&self, r: &Res) -> u64 {
        match r.resume {
            State::Held => r.deadline.max(self.rearmed + r.request.hold_ms),
            _ => at_most(r.deadline.max(self.rearmed + r.ttl_ms), r.hard_end),
        }
    }

    fn safe_end(&self, r: &Res) -> u64 {
        self.lease_end(r) + if r.resume == State::Held { 0 } else { r.ttl_ms / 10 + 1_000 }
    }

    fn finish(&mut self, id: u64, state: State, reason: EndReason) {
        let Some(r) = self.reservations.get(&id).cloned() else { return };
        if occupies(r.state) {
            let names: Vec<String> = self.pools[&r.request.pool].countables.keys().cloned().collect();
            let mut amounts = r.amounts.clone();
            names.iter().for_each(|name| amounts.set(name, plimsoll_types::Amount(0)));
            for (node, devices) in &r.members {
                let n = self.nodes.get_mut(node).expect("members are on nodes");
                if matches!(n.health, NodeHealth::Suspect | NodeHealth::Lost | NodeHealth::Failed) {
                    n.pending.push((id, amounts.clone(), devices.clone()));
                    n.pending.sort_by_key(|(id, ..)| *id);
                }
            }
        }
        let now = self.clock;
        let r = self.reservations.get_mut(&id).expect("looked up above");
        r.state = state;
        r.resume = state;
        r.members.clear();
        r.deadline = 0;
        r.ended_at = now;
        r.end = Some(reason);
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

    fn due(&self) -> Vec<(u64, u64)> {
        let mut due: Vec<(u64, u64)> = Vec::new();
        for (id, r) in &self.reservations {
            match r.state {
                State::Pending if r.deadline > 0 => due.push((r.deadline, *id)),
                State::Held | State::Active | State::Partial => due.push((self.safe_end(r), *id)),
                _ => {}
            }
        }
        due.retain(|(at, _)| *at <= self.clock);
        due.sort_unstable();
        due
    }

    fn drained(&self) -> Option<u64> {
        let mut due: Vec<(u64, u32)> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.drain > 0 && n.drain <= self.clock)
            .map(|(id, n)| (n.drain, *id))
            .collect();
        due.sort_unstable();
        due.iter().find_map(|(_, node)| self.holders(*node).first().copied())
    }

    fn expire(&mut self, limit: u32) -> Came {
        let mut ended = 0;
        while ended < limit {
            let Some(&(_, id)) = self.due().first() else { break };
            let r = &self.reservations[&id];
            let reason = match r.state {
                State::Pending => EndReason::WaitedTooLong,
                State::Held => EndReason::NotConfirmed,
                _ if r.hard_end > 0 && self.clock >= r.hard_end && r.deadline >= r.hard_end => {
                    EndReason::MaxDuration
                }
                _ => EndReason::NotRenewed,
            };
            self.finish(id, State::Expired, reason);
            ended += 1;
        }
        while ended < limit {
            let Some(id) = self.drained() else { break };
            self.finish(id, State::Preempted, EndReason::Drained);
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
        if over(self).is_empty() {
            let due = self.removed.iter().filter(|(_, gone)| gone.at + 24 * HOUR_MS <= self.clock);
            let mut due: Vec<(u64, u32)> = due.map(|(id, gone)| (gone.at, *id)).collect();
            due.sort_unstable();
            for (_, id) in due.into_iter().take(limit as usize) {
                self.removed.remove(&id);
            }
        }
        let more = !self.due().is_empty()
            || self.drained().is_some()
            || !forgettable(self).is_empty()
            || !over(self).is_empty()
            || self.removed.values().any(|gone| gone.at + 24 * HOUR_MS <= self.clock);
        Came::Expired(ended, more)
    }

    fn register(&mut self, reg: &Registration) -> Result<(), Reason> {
        let mut uuids: Vec<&String> = reg.devices.iter().map(|d| &d.uuid).collect();
        uuids.sort();
        uuids.dedup();
        if uuids.len() != reg.devices.len()
            || reg.devices.iter().any(|d| d.uuid.is_empty() || d.memory_bytes == 0)
        {
            return Err(Reason::InvalidArgument);
        }
        let known = self.nodes.iter().find(|(_, n)| n.reg.name == reg.name).map(|(id, n)| (*id, n.clone()));
        let id = known.as_ref().map_or(self.next_node, |(id, _)| *id);
        let mut new = Nod {
            reg: reg.clone(),
            epoch: self.revision,
            pool: self.pool_of(reg),
            allocatable: self.allocatable_of(reg),
            schedulable: true,
            drain: 0,
            health: NodeHealth::Available,
            since: self.clock,
            pending: Vec::new(),
        };
        if let Some((_, old)) = known {
            new.schedulable = old.schedulable;
            new.drain = old.drain;
            new.pending =
                old.pending.into_iter().filter(|(r, ..)| reg.running.iter().any(|x| x.0 == *r)).collect();
            if old.reg.incarnation == reg.incarnation {
                new.epoch = old.epoch;
            }
            if old.health == NodeHealth::Available {
                new.since = old.since;
            }
            let mut devices = old.reg.devices.clone();
            for device in &mut devices {
                match reg.devices.iter().find(|d| d.uuid == device.uuid) {
                    Some(reported) => *device = reported.clone(),
                    None => device.failed = true,
                }
            }
            let fresh = reg.devices.iter().filter(|d| !old.reg.devices.iter().any(|o| o.uuid == d.uuid));
            devices.extend(fresh.cloned());
            new.reg.devices = devices;
        } else {
            self.next_node += 1;
        }
        self.nodes.insert(id, new);
        self.resume(id);
        Ok(())
    }

    fn set_health(&mut self, id: u32, epoch: u64, health: NodeHealth) -> Result<(), Reason> {
        use NodeHealth::{Available, Failed, Fenced, Lost, Suspect};
        let n = self.nodes.get(&id).ok_or(Reason::NotFound)?;
        if n.epoch != epoch {
            return Err(Reason::Fenced);
        }
        let fine = matches!(
            (n.health, health),
            (Suspect, Available)
                | (Available, Suspect)
                | (Suspect, Lost)
                | (Available | Suspect | Lost, Failed | Fenced)
                | (Failed, Fenced)
        );
        if !fine {
            return Err(Reason::WrongState);
        }
        let holders = self.holders(id);
        if health == Lost {
            let safe = holders.iter().map(|r| self.safe_end(&self.reservations[r])).max().unwrap_or(0);
            if self.clock < safe.max(n.since) {
                return Err(Reason::WrongState);
            }
        }
        let now = self.clock;
        let n = self.nodes.get_mut(&id).expect("looked up above");
        n.health = health;
        n.since = now;
        if matches!(health, Available | Fenced) {
            n.pending.clear();
        }
        match health {
            Available => self.resume(id),
            Suspect => {
                for r in holders {
                    self.reservations.get_mut(&r).expect("a holder").state = State::Unknown;
                }
            }
            Lost => holders.iter().for_each(|r| self.finish(*r, State::Failed, EndReason::NodeLost)),
            Failed => holders.iter().for_each(|r| self.finish(*r, State::Failed, EndReason::NodeFailed)),
            Fenced => holders.iter().for_each(|r| self.finish(*r, State::Failed, EndReason::NodeFenced)),
        }
        Ok(())
    }

    fn resume(&mut self, id: u32) {
        for holder in self.holders(id) {
            let r = self.reservations[&holder].clone();
            let heard = r.members.iter().all(|(n, _)| self.nodes[n].health == NodeHealth::Available);
            if r.state == State::Unknown && heard {
                let deadline = match r.resume {
                    State::Held => r.deadline.max(self.clock + r.request.hold_ms),
                    _ => at_most(r.deadline.max(self.clock + r.ttl_ms), r.hard_end),
                };
                let r = self.reservations.get_mut(&holder).expect("a holder");
                r.state = r.resume;
                r.deadline = deadline;
            }
        }
    }

    fn policy(
        &mut self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        if_revision: u64,
    ) -> Result<(), Reason> {
        if if_revision > 0 && self.policy_changed > if_revision {
            return Err(Reason::RevisionMoved);
        }
        let mut reasons = self.queue_reasons(put, delete);
        for name in delete {
            let there = match name {
                PolicyName::Pool(n) => self.pools.contains_key(n),
                PolicyName::Class(n) => self.classes.contains_key(n),
                PolicyName::NodeLimits(n) => self.limits.contains_key(n),
                PolicyName::Queue(n) => self.queues.contains_key(n),
            };
            if !there {
                reasons.push(Reason::NotFound);
            }
            let in_use = match name {
                PolicyName::Pool(n) => {
                    n == "default"
                        || self.reservations.values().any(|r| !r.state.is_final() && r.request.pool == *n)
                }
                PolicyName::Class(n) => n == "standard",
                PolicyName::Queue(n) => {
                    self.reservations.values().any(|r| !r.state.is_final() && r.request.queue == *n)
                }
                PolicyName::NodeLimits(_) => false,
            };
            if in_use {
                reasons.push(Reason::InUse);
            }
        }
        least(reasons)?;
        for object in put {
            match object.clone() {
                PolicyObject::Pool(p) => {
                    self.pools.insert(p.name.clone(), p);
                }
                PolicyObject::Class(c) => {
                    self.classes.insert(c.name.clone(), (c.priority, c.default_ttl_ms));
                }
                PolicyObject::Queue(q) => {
                    self.queues.insert(q.name.clone(), q);
                }
                PolicyObject::NodeLimits(l) => {
                    self.limits.insert(l.name.clone(), l);
                }
            }
        }
        for name in delete {
            match name {
                PolicyName::Pool(n) => drop(self.pools.remove(n)),
                PolicyName::Class(n) => drop(self.classes.remove(n)),
                PolicyName::NodeLimits(n) => drop(self.limits.remove(n)),
                PolicyName::Queue(n) => drop(self.queues.remove(n)),
            }
        }
        self.policy_changed = self.revision;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let reg = self.nodes[&id].reg.clone();
            let (pool, allocatable) = (self.pool_of(&reg), self.allocatable_of(&reg));
            let n = self.nodes.get_mut(&id).expect("listed above");
            n.pool = pool;
            n.allocatable = allocatable;
        }
        Ok(())
    }

    fn admits(&self, request: &Request, placement: &Placement) -> Result<(), Reason> {
        let members: Vec<(u32, Vec<DeviceGrant>)> =
            placement.members.iter().map(|m| (m.node.0, m.devices.clone())).collect();
        let mut reasons = Vec::new();
        let count = members.len() as u32;
        if count < request.gang.min_members || count > request.gang.max_members {
            reasons.push(Reason::InvalidArgument);
        }
        let nodes = count_nodes(&members);
        if request.gang.spread && nodes.iter().any(|(id, n)| *n > 1 && self.nodes.contains_key(id)) {
            reasons.push(Reason::InvalidArgument);
        }
        for node in nodes.keys() {
            let Some(n) = self.nodes.get(node) else {
                reasons.push(Reason::NotFound);
                continue;
            };
            if n.pool != request.pool {
                reasons.push(Reason::PoolMismatch);
            }
            if n.health != NodeHealth::Available || !n.schedulable {
                reasons.push(Reason::NodeNotAvailable);
            }
            if !request.requirements.required.matches(&labels(&n.reg)) {
                reasons.push(Reason::LabelMismatch);
            }
        }
        least(reasons)?;
        let mut reasons = Vec::new();
        let pool = &self.pools[&request.pool];
        for (name, amount) in request.requirements.amounts.iter() {
            if let Some(total) = pool.countables.get(name) {
                if amount.0 * u64::from(count) > total.0.saturating_sub(self.pool_used(&pool.name, name)) {
                    reasons.push(Reason::CountableExhausted);
                }
            } else if nodes.iter().any(|(node, n)| amount.0 * n > self.free(*node, name)) {
                reasons.push(Reason::NoCapacity);
            }
        }
        let mut earlier: Vec<(u32, DeviceGrant)> = Vec::new();
        for (node, grants) in &members {
            let asked = request.requirements.gpu.as_ref().map_or(0, |gpu| gpu.count as usize);
            if grants.len() != asked || grants.windows(2).any(|w| w[0].device >= w[1].device) {
                reasons.push(Reason::InvalidArgument);
                continue;
            }
            for grant in grants {
                let gpu = request.requirements.gpu.as_ref().expect("devices were asked");
                let Some(device) = self.nodes[node].reg.devices.get(usize::from(grant.device.0)) else {
                    reasons.push(Reason::DeviceMismatch);
                    continue;
                };
                let m = device.memory_bytes;
                let (milli, memory) = match gpu.share {
                    GpuShare::Whole => (1000, m),
                    GpuShare::Milli(x) => (u64::from(x), (u128::from(m) * u128::from(x) / 1000) as u64),
                    GpuShare::Memory(b) => (((u128::from(b) * 1000).div_ceil(u128::from(m))) as u64, b),
                };
                let suits = !device.failed
                    && (gpu.models.is_empty() || gpu.models.contains(&device.model))
                    && m >= gpu.min_device_memory_bytes
                    && milli <= 1000;
                if !suits || u64::from(grant.milli) != milli || grant.memory_bytes != memory {
                    reasons.push(Reason::DeviceMismatch);
                    continue;
                }
                let mut there = self.grants_on(*node, grant.device.0);
                there.extend(
                    earlier.iter().filter(|(n, g)| n == node && g.device == grant.device).map(|(_, g)| *g),
                );
                let room = match gpu.share {
                    GpuShare::Whole => there.is_empty(),
                    _ => {
                        there.iter().map(|g| u64::from(g.milli)).sum::<u64>() + milli <= 1000
                            && there.iter().map(|g| g.memory_bytes).sum::<u64>() + memory <= m
                    }
                };
                if room {
                    earlier.push((*node, *grant));
                } else {
                    reasons.push(Reason::NoCapacity);
                }
            }
        }
        let place = (request.queue.as_str(), request.pool.as_str());
        if self.quota_short(place, (&Resources::default(), &[]), (&request.requirements.amounts, &members)) {
            reasons.push(Reason::QuotaExceeded);
        }
        least(reasons)
    }

    fn pool_of(&self, reg: &Registration) -> String {
        if !reg.pool.is_empty() {
            return reg.pool.clone();
        }
        let chosen =
            self.pools.values().find(|p| !p.select.terms.is_empty() && p.select.matches(&labels(reg)));
        chosen.map_or_else(|| "default".into(), |p| p.name.clone())
    }

    fn allocatable_of(&self, reg: &Registration) -> Resources {
        let mut amounts = reg.capacity.clone();
        for limits in self.limits.values().filter(|l| l.select.matches(&labels(reg))) {
            for (name, most) in limits.max.iter() {
                amounts.set(name, amounts.get(name).min(most));
            }
        }
        amounts
    }

    pub(crate) fn queue(&self, pool: &str) -> Vec<u64> {
        let pending =
            self.reservations.iter().filter(|(_, r)| r.state == State::Pending && r.request.pool == pool);
        let mut pending: Vec<(i32, u64)> = pending.map(|(id, r)| (-r.priority, *id)).collect();
        pending.sort_unstable();
        pending.into_iter().map(|(_, id)| id).collect()
    }

    fn holders(&self, node: u32) -> Vec<u64> {
        let on = |r: &Res| occupies(r.state) && r.members.iter().any(|(n, _)| *n == node);
        self.reservations.iter().filter(|(_, r)| on(r)).map(|(id, _)| *id).collect()
    }

    fn pool_used(&self, pool: &str, name: &str) -> u64 {
        let holding = self.reservations.values().filter(|r| occupies(r.state) && r.request.pool == pool);
        holding.map(|r| r.amounts.get(name).0 * r.members.len() as u64).sum()
    }

    pub(crate) fn used(&self, node: u32, name: &str) -> u64 {
        let mut sum: u64 = self.nodes[&node].pending.iter().map(|(_, amounts, _)| amounts.get(name).0).sum();
        for r in self.reservations.values().filter(|r| occupies(r.state)) {
            if !self.pools[&r.request.pool].countables.contains_key(name) {
                sum += r.amounts.get(name).0 * r.members.iter().filter(|(n, _)| *n == node).count() as u64;
            }
        }
        sum
    }

    fn free(&self, node: u32, name: &str) -> u64 {
        self.nodes[&node].allocatable.get(name).0.saturating_sub(self.used(node, name))
    }

    fn grants_on(&self, node: u32, device: u16) -> Vec<DeviceGrant> {
        let pending = self.nodes[&node].pending.iter().flat_map(|(_, _, grants)| grants.iter());
        let holding = self.reservations.values().filter(|r| occupies(r.state));
        let held = holding
            .flat_map(|r| r.members.iter())
            .filter(|(n, _)| *n == node)
            .flat_map(|(_, grants)| grants.iter());
        pending.chain(held).filter(|g| g.device.0 == device).copied().collect()
    }
}

/// What the real ledger's outcome is in the model's words.
pub(crate) fn came(outcome: &Outcome) -> Came {
    match outcome {
        Outcome::Done => Came::To("done"),
        Outcome::Reservation(_) => Came::To("reservation"),
        Outcome::Node(_) => Came::To("node"),
        Outcome::Expired { ended, more } => Came::Expired(*ended, *more),
        Outcome::Refused(refusal) => Came::Refused(refusal.reason),
    }
}

fn makes_sense(request: &Request) -> bool {
    let length = |ms: u64| ms == 0 || (1_000..=366 * 24 * HOUR_MS).contains(&ms);
    let gang = request.gang;
    let amounts = request.requirements.amounts.iter();
    let fits = |a: u64| u128::from(a) * u128::from(gang.max_members) <= u128::from(u64::MAX >> 1);
    let gpu = request.requirements.gpu.as_ref().is_none_or(|gpu| match gpu.share {
        GpuShare::Whole => (1..=256).contains(&gpu.count),
        GpuShare::Milli(m) => gpu.count == 1 && (1..1000).contains(&m),
        GpuShare::Memory(b) => gpu.count == 1 && b > 0 && b <= u64::MAX >> 1,
    });
    length(request.ttl_ms)
        && length(request.hold_ms)
        && request.max_duration_ms <= 366 * 24 * HOUR_MS
        && (1..=1024).contains(&gang.min_members)
        && (gang.min_members..=1024).contains(&gang.max_members)
        && amounts.map(|(_, a)| a.0).all(fits)
        && gpu
}

fn labels(reg: &Registration) -> Labels {
    let mut labels = reg.labels.clone();
    labels.entry("node".into()).or_insert_with(|| reg.name.clone());
    if let Some(device) = reg.devices.first() {
        labels.entry("gpu".into()).or_insert_with(|| device.model.clone());
    }
    labels
}

fn count_nodes(members: &[(u32, Vec<DeviceGrant>)]) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    members.iter().for_each(|(node, _)| *counts.entry(*node).or_default() += 1);
    counts
}

fn occupies(state: State) -> bool {
    matches!(state, State::Held | State::Active | State::Partial | State::Unknown)
}

fn at_most(time: u64, hard_end: u64) -> u64 {
    if hard_end > 0 { time.min(hard_end) } else { time }
}

fn least(reasons: Vec<Reason>) -> Result<(), Reason> {
    reasons.into_iter().min().map_or(Ok(()), Err)
}
