//! Gangs that lose members, in the model: `docs/semantics.md` 5.10.

use super::admission::members_of;
use super::*;

type Member = (u32, Vec<DeviceGrant>);

pub(super) fn makes_sense(request: &Request) -> bool {
    request.repair_within_ms == 0
        || (1_000..=366 * 24 * HOUR_MS).contains(&request.repair_within_ms)
            && request.gang.max_members >= 2
            && request.topology.slice_size == 0
            && request.affinity.is_empty()
}

impl Model {
    /// A node is gone, and with it a reservation or its members there.
    pub(super) fn lose(&mut self, id: u64, node: u32, reason: EndReason) {
        let gone = |member: &Member| member.0 == node;
        if goes_on_without(&self.reservations[&id], &gone) {
            self.lose_some(id, &gone);
        } else if self.nodes[&node].interruption.is_some() {
            self.interrupted_away(id);
        } else if !self.process_again(id) {
            self.finish(id, State::Failed, reason);
        }
    }

    /// Devices of a node failed.
    pub(super) fn lose_on(&mut self, node: u32, devices: &[usize]) {
        let on = |grant: &DeviceGrant| devices.contains(&usize::from(grant.device.0));
        let gone = |member: &Member| member.0 == node && member.1.iter().any(on);
        for id in self.holders(node) {
            let r = &self.reservations[&id];
            if r.members.iter().any(gone) && goes_on_without(r, &gone) {
                self.lose_some(id, &gone);
            }
        }
    }

    fn lose_some(&mut self, id: u64, gone: &dyn Fn(&Member) -> bool) {
        let old = self.reservations[&id].clone();
        let (there, rest): (Vec<usize>, Vec<usize>) =
            (0..old.members.len()).partition(|index| gone(&old.members[*index]));
        let lost: Vec<_> = there.iter().map(|index| old.members[*index].clone()).collect();
        let mut r = old.clone();
        r.members = rest.iter().map(|index| old.members[*index].clone()).collect();
        if !old.tokens.is_empty() {
            r.tokens = rest.iter().map(|index| old.tokens[*index]).collect();
        }
        let had = old.repair.map_or(0, |(.., had)| had).max(old.members.len() as u32);
        r.repair = Some((self.clock, self.clock + r.request.repair_within_ms, had));
        r.resume = State::Partial;
        let heard = r.members.iter().all(|(node, _)| self.nodes[node].health == NodeHealth::Available);
        r.state = if heard { State::Partial } else { State::Unknown };
        if heard && old.state == State::Unknown {
            r.deadline = at_most(r.deadline.max(self.clock + r.ttl_ms), r.hard_end);
        }
        // What is short in a new period leaves the bill as it was.
        let _ = self.resize_usage(&mut r);
        let lines = Model::lines_of(&r);
        self.reservations.insert(id, r);
        self.note_rows(lines);
        self.keep_fence_pending(id, &old, &lost);
    }

    pub(super) fn repair(&mut self, id: u64, placement: &Placement) -> Result<(), Reason> {
        let mut r = self.reservations[&id].clone();
        if r.state != State::Partial {
            return Err(Reason::WrongState);
        }
        let over = r.hard_end > 0 && self.clock >= r.hard_end;
        if self.clock > self.repair_end(&r) || over {
            return Err(Reason::Expired);
        }
        let (new, (.., had)) = (members_of(placement), r.repair.expect("asked by the caller"));
        let missing = had - r.members.len() as u32;
        if new.is_empty() || new.len() > missing as usize {
            return Err(Reason::InvalidArgument);
        }
        let mut asked = r.request.clone();
        asked.requirements.amounts = r.amounts.clone();
        asked.gang.min_members = 1;
        asked.gang.max_members = missing;
        let all = [r.members.clone(), new.clone()].concat();
        let mut reasons = Vec::new();
        if new.iter().any(|(node, _)| r.members.iter().any(|(own, _)| own == node)) {
            reasons.push(Reason::InvalidArgument);
        }
        for later in [false, true] {
            match self.seen(later, |model| model.fits_there(&asked, &new, &all)) {
                Ok(found) => reasons.extend(found),
                Err(reason) => reasons.push(reason),
            }
        }
        if self.calendar_stops_joining(&r, &new) {
            reasons.push(Reason::ReservedByCalendar);
        }
        least(reasons)?;
        if r.tokens.is_empty() {
            r.tokens = vec![r.token; r.members.len()];
        }
        r.tokens.extend(vec![self.revision; new.len()]);
        r.members = all;
        if r.members.len() as u32 == had {
            r.repair = None;
        }
        let full = r.members.len() as u32 == r.request.gang.max_members;
        r.state = if full { State::Active } else { State::Partial };
        r.resume = r.state;
        self.resize_usage(&mut r)?;
        let lines = Model::lines_of(&r);
        self.reservations.insert(id, r);
        self.note_rows(lines);
        Ok(())
    }

    pub(super) fn repair_end(&self, r: &Res) -> u64 {
        r.repair.map_or(0, |(_, until, _)| until).max(self.rearmed + r.request.repair_within_ms)
    }

    /// Below its minimum, and at `now` no more to be repaired.
    pub(super) fn is_unrepaired(&self, r: &Res, now: u64) -> bool {
        r.repair.is_some()
            && matches!(r.resume, State::Active | State::Partial)
            && (r.members.len() as u32) < r.request.gang.min_members
            && self.repair_end(r) <= now
    }

    /// When what a reservation has on a silent node is safe to give up.
    pub(super) fn safe_end_on(&self, r: &Res, node: u32) -> u64 {
        let end = self.safe_end(r);
        if goes_on_without(r, &|member| member.0 == node) {
            end.min(self.nodes[&node].since + r.ttl_ms + r.ttl_ms / 10 + 1_000)
        } else {
            end
        }
    }
}

pub(super) fn goes_on_without(r: &Res, gone: &dyn Fn(&Member) -> bool) -> bool {
    r.request.repair_within_ms > 0
        && matches!(r.resume, State::Active | State::Partial)
        && !r.members.iter().all(gone)
}
