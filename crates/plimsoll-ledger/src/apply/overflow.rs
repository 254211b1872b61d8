//! `SetAside` and `Return`: between a queue and its overflow, and what policy may say of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{ReservationId, Revision};

use crate::index::place_in_queue;
use crate::ledger::Context;
use crate::limits::{MAX_ASIDE, MAX_ASIDE_BYTES};
use crate::overflow::{Place, SINCE_VERSION};
use crate::{
    Aside, Blocker, Body, Ledger, Outcome, Overflow, PolicyObject, Reason, Refusal, Remembered, Request,
    Reservation, SetAsideOne, State,
};

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(super) fn is_of_overflow(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Queue(queue) if queue.overflow != Overflow::Reject)
}

impl Ledger {
    /// What is wrong with the overflow of queues that are put.
    pub(super) fn check_overflow(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(is_of_overflow) {
            self.knows(SINCE_VERSION, "overflow of queues", blockers);
        }
        for object in put {
            if let PolicyObject::Queue(queue) = object
                && queue.overflow != Overflow::Reject
                && queue.max_pending == 0
            {
                let subject = format!("overflow of queue {}, which has no max_pending", queue.name);
                blockers.push(Blocker::new(Reason::InvalidArgument, subject, 0, 1));
            }
        }
    }

    pub(crate) fn apply_set_aside(
        &mut self,
        context: &mut Context<'_>,
        aside: &[SetAsideOne],
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "overflow of queues")?;
        let bytes = aside.iter().map(|one| one.body.len()).sum();
        check_bounds(aside.len(), bytes)?;
        // It stays that one, whoever of them is in memory.
        let mut cuts: BTreeMap<String, Option<Place>> = BTreeMap::new();
        let mut moved = 0;
        for one in aside {
            let Some(old) = self.reservations.get(&one.reservation).cloned() else { continue };
            let queue = &old.request.queue;
            let Some(how) = self.queue(queue).and_then(|queue| queue.sets_aside()) else { continue };
            if old.state != State::Pending || old.aside.is_some() || one.body.is_empty() {
                continue;
            }
            let cut = *cuts.entry(queue.clone()).or_insert_with(|| self.first_beyond(queue));
            let is_beyond = cut.is_some_and(|cut| cut <= place_in_queue(&old));
            if !is_beyond && !mutant!("set-aside-the-first") {
                continue;
            }
            let body_bytes = u32::try_from(one.body.len()).unwrap_or(u32::MAX);
            let kept = Aside { how, body_hash: one.body_hash, body_bytes };
            self.put_body(Arc::new(Body { reservation: old.id, how, bytes: Arc::clone(&one.body) }));
            let thin = self.recent.share(old.request.thinned());
            self.show_in_answer(old.id, &thin, Some(kept));
            let new = Reservation { request: thin, aside: Some(Box::new(kept)), ..Reservation::clone(&old) };
            self.store(context, "overflow/aside", new, Some(old.state));
            moved += 1;
        }
        done(moved, aside.len(), "set aside")
    }

    pub(crate) fn apply_return(
        &mut self,
        context: &mut Context<'_>,
        requests: &[(ReservationId, Request)],
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "overflow of queues")?;
        check_bounds(requests.len(), 0)?;
        let mut cuts: BTreeMap<String, Option<Place>> = BTreeMap::new();
        let mut moved = 0;
        for (id, request) in requests {
            let Some(old) = self.reservations.get(id).cloned() else { continue };
            let queue = old.request.queue.clone();
            let place = place_in_queue(&old);
            if self.first_aside(&queue) != Some(place) || old.state != State::Pending {
                continue;
            }
            let cut = *cuts.entry(queue.clone()).or_insert_with(|| self.first_beyond(&queue));
            if cut.is_some_and(|cut| cut <= place) {
                continue;
            }
            let request = self.recent.share(request.clone());
            let Some(mut new) = old.with_body(Arc::clone(&request)) else {
                return Err(Refusal::one(Reason::InvalidArgument, format!("what {id} asked"), 1, 0));
            };
            new.aside = None;
            self.show_in_answer(*id, &request, None);
            self.store(context, "overflow/return", new, Some(old.state));
            self.review_body(*id);
            moved += 1;
        }
        done(moved, requests.len(), "taken back")
    }

    /// The remembered answer to a submission shows its request as the reservation does, so that it is in memory once or not at all.
    fn show_in_answer(&mut self, id: ReservationId, request: &Arc<Request>, aside: Option<Aside>) {
        let Some(known) = self.answers.at(Revision(id.0)).cloned() else { return };
        let Outcome::Reservation(shown) = &known.answer.outcome else { return };
        if shown.id != id || shown.request.thinned() != request.thinned() {
            return;
        }
        let aside = aside.map(Box::new);
        let shown = Reservation { request: Arc::clone(request), aside, ..Reservation::clone(shown) };
        let mut answer = known.answer.clone();
        answer.outcome = Outcome::Reservation(Arc::new(shown));
        self.put_remembered(Arc::new(Remembered { answer, ..Remembered::clone(&known) }));
    }
}

fn check_bounds(count: usize, bytes: usize) -> Result<(), Refusal> {
    let bounds =
        [("requests in one entry", count, MAX_ASIDE), ("bytes in one entry", bytes, MAX_ASIDE_BYTES)];
    for (what, given, most) in bounds {
        if given > most {
            return Err(Refusal::one(Reason::InvalidArgument, what, given as u64, most as u64));
        }
    }
    Ok(())
}

/// Refused where nothing was left to do: whoever proposed it saw an older state.
fn done(moved: usize, asked: usize, what: &str) -> Result<Outcome, Refusal> {
    if moved > 0 {
        return Ok(Outcome::Done);
    }
    Err(Refusal::one(Reason::WrongState, format!("requests to be {what}"), asked as u64, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_with_too_many_or_too_long_bodies_is_refused() {
        assert!(check_bounds(MAX_ASIDE, MAX_ASIDE_BYTES).is_ok());
        let refused = |count, bytes| check_bounds(count, bytes).expect_err("too much").blockers[0].asked;
        assert_eq!(refused(MAX_ASIDE + 1, 0), MAX_ASIDE as u64 + 1);
        assert_eq!(refused(1, MAX_ASIDE_BYTES + 1), MAX_ASIDE_BYTES as u64 + 1);
    }
}
