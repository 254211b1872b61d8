//! Overflow of the model: `docs/semantics.md` 5.23. Who belongs in memory is found by sorting everybody.

use plimsoll_ledger::{Overflow, SetAsideOne};
use plimsoll_types::ReservationId;

use super::*;

impl Model {
    /// How many of a queue wait in memory, where others are set aside.
    pub(super) fn bound(&self, queue: &str) -> Option<usize> {
        let queue = self.queues.get(queue)?;
        (queue.overflow != Overflow::Reject && queue.max_pending > 0).then_some(queue.max_pending as usize)
    }

    /// Nobody is granted at once while somebody of its queue and of its class or a higher one is aside.
    pub(super) fn goes_first(&self, new: &Res) -> Result<(), Reason> {
        let before = |r: &Res| {
            r.aside
                && !r.state.is_final()
                && r.request.queue == new.request.queue
                && r.priority >= new.priority
        };
        if self.reservations.values().any(before) { Err(Reason::Overflowed) } else { Ok(()) }
    }

    /// Everybody of a queue who waits or is aside, by class, then age.
    fn in_line(&self, queue: &str) -> Vec<u64> {
        let here = |r: &Res| r.request.queue == queue && !r.state.is_final() && (r.waits() || r.aside);
        let mut all: Vec<(i32, u64)> =
            self.reservations.iter().filter(|(_, r)| here(r)).map(|(id, r)| (-r.priority, *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    fn place_in_line(&self, queue: &str, id: u64) -> usize {
        self.in_line(queue).iter().position(|other| *other == id).expect("it is in line")
    }

    pub(super) fn set_aside(&mut self, aside: &[SetAsideOne]) -> Result<(), Reason> {
        self.judge(aside.len(), aside.iter().map(|one| one.body.len()).sum())?;
        let mut moved = false;
        for one in aside {
            let id = one.reservation.0;
            let Some(r) = self.reservations.get(&id) else { continue };
            let Some(bound) = self.bound(&r.request.queue) else { continue };
            if r.state != State::Pending || r.aside || one.body.is_empty() {
                continue;
            }
            if self.place_in_line(&r.request.queue, id) < bound {
                continue;
            }
            let r = self.reservations.get_mut(&id).expect("looked up above");
            r.aside = true;
            r.request = thin(&r.request);
            moved = true;
        }
        if moved { Ok(()) } else { Err(Reason::WrongState) }
    }

    pub(super) fn bring_back(&mut self, requests: &[(ReservationId, Request)]) -> Result<(), Reason> {
        self.judge(requests.len(), 0)?;
        let mut moved = false;
        for (id, request) in requests {
            let Some(r) = self.reservations.get(&id.0).filter(|r| r.aside && !r.state.is_final()) else {
                continue;
            };
            let queue = r.request.queue.clone();
            let is_aside = |id: &&u64| self.reservations[id].aside;
            if self.in_line(&queue).iter().find(is_aside) != Some(&id.0) {
                continue;
            }
            if self.bound(&queue).is_some_and(|bound| self.place_in_line(&queue, id.0) >= bound) {
                continue;
            }
            if thin(request) != r.request || request.requirements.amounts != r.amounts {
                return Err(Reason::InvalidArgument);
            }
            let r = self.reservations.get_mut(&id.0).expect("looked up above");
            r.aside = false;
            r.request = request.clone();
            moved = true;
        }
        if moved { Ok(()) } else { Err(Reason::WrongState) }
    }

    fn judge(&self, count: usize, bytes: usize) -> Result<(), Reason> {
        match () {
            () if self.version < 11 => Err(Reason::UnsupportedVersion),
            () if count > 256 || bytes > 8 << 20 => Err(Reason::InvalidArgument),
            () => Ok(()),
        }
    }

    pub(super) fn overflow_reasons(&self, put: &[PolicyObject]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for object in put {
            let PolicyObject::Queue(queue) = object else { continue };
            if queue.overflow == Overflow::Reject {
                continue;
            }
            if self.version < 11 {
                reasons.push(Reason::UnsupportedVersion);
            }
            if queue.max_pending == 0 {
                reasons.push(Reason::InvalidArgument);
            }
        }
        reasons
    }
}

fn thin(request: &Request) -> Request {
    let mut thin = request.clone();
    thin.labels.clear();
    thin.requirements = Default::default();
    thin.roles.clear();
    thin.topology = Default::default();
    thin.affinity.clear();
    thin.burst = Default::default();
    thin
}
