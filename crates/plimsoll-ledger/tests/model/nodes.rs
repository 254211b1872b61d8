//! Nodes of the model: `docs/semantics.md` 6.

use super::*;

impl Model {
    pub(super) fn register(&mut self, reg: &Registration) -> Result<(), Reason> {
        if self.version < 5 && reg.devices.iter().any(|d| d.mig.is_some()) {
            return Err(Reason::UnsupportedVersion);
        }
        let mut uuids: Vec<&String> = reg.devices.iter().map(|d| &d.uuid).collect();
        uuids.sort();
        uuids.dedup();
        if uuids.len() != reg.devices.len()
            || reg.devices.iter().any(|d| d.uuid.is_empty() || d.memory_bytes == 0 || !slices::make_sense(d))
        {
            return Err(Reason::InvalidArgument);
        }
        let filled = self.with_capacity_labels(reg)?;
        let reg = &filled;
        let known = self.nodes.iter().find(|(_, n)| n.reg.name == reg.name).map(|(id, n)| (*id, n.clone()));
        let id = known.as_ref().map_or(self.next_node, |(id, _)| *id);
        let was = known.as_ref().map(|(_, old)| (old.lent.as_ref(), old.pool.as_str()));
        let (pool, lent) =
            was.map_or_else(|| (self.pool_of(reg), None), |(lent, pool)| self.place_of(reg, lent, pool));
        let mut new = Nod {
            reg: reg.clone(),
            epoch: self.revision,
            pool,
            lent,
            allocatable: self.allocatable_of(reg),
            schedulable: true,
            drains: false,
            drain: 0,
            health: NodeHealth::Available,
            since: self.clock,
            pending: Vec::new(),
            interruption: None,
        };
        let before = known.as_ref().map(|(_, old)| old.reg.devices.clone());
        if let Some((_, old)) = known {
            new.schedulable = old.schedulable;
            new.drains = old.drains;
            new.drain = old.drain;
            new.pending =
                old.pending.into_iter().filter(|(r, ..)| reg.running.iter().any(|x| x.0 == *r)).collect();
            if old.reg.incarnation == reg.incarnation {
                new.epoch = old.epoch;
                new.interruption = old.interruption;
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
            if self.version >= 9 {
                (new.pool, new.lent) = self.place_of(&new.reg, old.lent.as_ref(), &old.pool);
                new.allocatable = self.allocatable_of(&new.reg);
            }
            let eligible = new.open();
            if !eligible || new.reg != old.reg || new.pool != old.pool {
                self.keep_no_places(id);
            }
        } else {
            self.next_node += 1;
            new.schedulable = !self.is_removed_by_intent(&reg.name);
        }
        let failed: Vec<usize> = match &before {
            Some(old) => (0..old.len()).filter(|i| !old[*i].failed && new.reg.devices[*i].failed).collect(),
            None => Vec::new(),
        };
        self.nodes.insert(id, new);
        self.resume(id);
        self.lose_on(id, &failed);
        Ok(())
    }

    pub(super) fn set_health(&mut self, id: u32, epoch: u64, health: NodeHealth) -> Result<(), Reason> {
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
        let schedulable = n.open();
        if health == Lost {
            let safe = holders.iter().map(|r| self.safe_end_on(&self.reservations[r], id)).max().unwrap_or(0);
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
        if health != Available || !schedulable {
            self.keep_no_places(id);
        }
        match health {
            Available => self.resume(id),
            Suspect => {
                for r in holders {
                    self.reservations.get_mut(&r).expect("a holder").state = State::Unknown;
                }
            }
            Lost => holders.iter().for_each(|r| self.lose(*r, id, EndReason::NodeLost)),
            Failed => holders.iter().for_each(|r| self.lose(*r, id, EndReason::NodeFailed)),
            Fenced => holders.iter().for_each(|r| self.lose(*r, id, EndReason::NodeFenced)),
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, id: u32) {
        for holder in self.holders(id) {
            let r = self.reservations[&holder].clone();
            let heard = r.members.iter().all(|(n, _)| self.nodes[n].health == NodeHealth::Available);
            if r.state == State::Unknown && heard {
                let deadline = match r.resume {
                    State::Held => r.deadline.max(self.clock + r.request.hold_ms),
                    State::Preempting => {
                        let grace_ms = r.preempted.map_or(0, |(_, _, _, grace_ms)| grace_ms);
                        at_most(r.deadline.max(self.clock + grace_ms), r.hard_end)
                    }
                    _ => at_most(r.deadline.max(self.clock + r.ttl_ms), r.hard_end),
                };
                let goes =
                    r.members.iter().filter_map(|(n, _)| self.nodes[n].interruption).map(|(_, goes)| goes);
                let goes = goes.min().filter(|_| r.resume == State::Preempting);
                let deadline = goes.map_or(deadline, |goes| deadline.min(goes.max(self.clock)));
                let r = self.reservations.get_mut(&holder).expect("a holder");
                r.state = r.resume;
                r.deadline = deadline;
            }
        }
    }

    pub(super) fn pool_of(&self, reg: &Registration) -> String {
        if !reg.pool.is_empty() {
            return reg.pool.clone();
        }
        let chosen =
            self.pools.values().find(|p| !p.select.terms.is_empty() && p.select.matches(&labels(reg)));
        chosen.map_or_else(|| "default".into(), |p| p.name.clone())
    }

    pub(super) fn allocatable_of(&self, reg: &Registration) -> Resources {
        let mut amounts = reg.capacity.clone();
        for limits in self.limits.values().filter(|l| l.select.matches(&labels(reg))) {
            for (name, most) in limits.max.iter() {
                amounts.set(name, amounts.get(name).min(most));
            }
        }
        amounts
    }
}
