//! Hours in which a request would rather start (`docs/semantics.md` 5.25): while a window of a schedule is open, or once it has waited long enough.
//!
//! Invariants: nobody is granted anything before its hours or the end of its longest wait; `awaited` has each request that waits and prefers hours,
//! by schedule, at the moment at which its longest wait is over.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, ReservationId};

use crate::processing::told;
use crate::{Blocker, Ledger, PolicyObject, Reason, Refusal, Request, Reservation};

/// First ledger version that knows preferred hours, and schedules that keep nothing.
pub(crate) const SINCE_VERSION: u32 = 14;

/// Who waits for hours: per schedule, until when at the longest.
pub(crate) type Awaited = BTreeMap<String, BTreeSet<(LedgerTime, ReservationId)>>;

/// When a request would rather start, and how long it waits for that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PreferredHours {
    /// The schedule whose windows are these hours.
    pub schedule: String,
    /// So many milliseconds after its submission it starts at any time.
    pub longest_wait_ms: u64,
}

impl PreferredHours {
    /// From when on somebody who came at `submitted_at` starts at any time.
    fn over_at(&self, submitted_at: LedgerTime) -> LedgerTime {
        submitted_at.plus_ms(self.longest_wait_ms)
    }
}

impl Ledger {
    /// What keeps a request from a grant now that prefers other hours. `None` where it prefers none, they have come, its longest wait is over, or the schedule is
    /// gone. O(windows).
    pub fn hours_blocker(&self, request: &Request, submitted_at: LedgerTime) -> Option<Blocker> {
        let hours = request.hours.as_ref()?;
        let schedule = self.schedules.get(&hours.schedule)?;
        let (now, over_at) = (self.clock(), hours.over_at(submitted_at));
        if now >= over_at || schedule.open_at(now).is_some() || mutant!("start-outside-of-hours") {
            return None;
        }
        let next = schedule.next_at(now).filter(|window| window.start < over_at);
        let told = match next {
            Some(window) => {
                format!("opens {}, and its longest wait is over {}", told(window.start), told(over_at))
            }
            None => format!("opens later than its longest wait is over, {}", told(over_at)),
        };
        Some(Blocker::new(Reason::AwaitsHours, format!("schedule {}: {told}", hours.schedule), 1, 0))
    }

    /// What keeps a request of `submitted_at` from a grant now whatever room there is: its hours have not come, or its queue decides in batches, of which
    /// `booked` grants are on their way.
    pub fn time_blocker(&self, request: &Request, submitted_at: LedgerTime, booked: u64) -> Option<Blocker> {
        self.hours_blocker(request, submitted_at)
            .or_else(|| self.batch_blocker(request, submitted_at, booked))
    }

    /// True where one that waits is not to start now, whatever room there is, because it would rather wait: others do not wait behind it.
    pub fn is_out_of_hours(&self, waiting: &Reservation) -> bool {
        self.hours_blocker(&waiting.request, waiting.submitted_at).is_some()
    }

    /// True where one that waits would still rather start in certain hours.
    pub fn prefers_hours(&self, waiting: &Reservation) -> bool {
        let hours = waiting.request.hours.as_ref();
        hours.is_some_and(|hours| self.clock() < hours.over_at(waiting.submitted_at))
    }

    /// The first moment from `at` on in which one that waits may start, by its hours and the batches of its queue. O(windows).
    pub fn may_start_from(&self, waiting: &Reservation, at: LedgerTime) -> LedgerTime {
        let request = &waiting.request;
        let batch =
            self.batch_blocker(request, waiting.submitted_at, 0).and_then(|_| self.batch_of(&request.queue));
        let at = batch.map_or(at, |batch| at.max(batch.next_after(self.clock())));
        let Some(hours) = &request.hours else { return at };
        let over_at = hours.over_at(waiting.submitted_at);
        let schedule = self.schedules.get(&hours.schedule).filter(|_| at < over_at);
        let next =
            schedule.map(|schedule| schedule.next_at(at).map_or(over_at, |window| window.start.min(over_at)));
        next.map_or(at, |next| next.max(at))
    }

    /// When somebody may start who may not now: hours begin, or the longest wait is over. `None` where nobody waits for hours. O(schedules log waiting).
    pub fn next_hours_at(&self) -> Option<LedgerTime> {
        let now = self.clock();
        let after = (now.plus_ms(1), ReservationId(0));
        let comes = |(schedule, waiting): (&String, &BTreeSet<(LedgerTime, ReservationId)>)| {
            let schedule = self.schedules.get(schedule)?;
            let opens = schedule.next_at(now).map(|window| window.start).filter(|start| *start > now);
            let over = waiting.range(after..).next().map(|(over_at, _)| *over_at);
            opens.into_iter().chain(over).min()
        };
        self.awaited.iter().filter_map(comes).min()
    }

    /// True where somebody waits who prefers hours.
    pub fn awaits_hours(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Refuses a grant that its hours or the batches of its queue do not let be made now.
    pub(crate) fn admit_time(&self, request: &Request, submitted_at: LedgerTime) -> Result<(), Refusal> {
        let blocker = match mutant!("grant-past-the-batch") {
            true => self.hours_blocker(request, submitted_at),
            false => self.time_blocker(request, submitted_at, 0),
        };
        blocker.map_or(Ok(()), |found| Err(Refusal { reason: found.reason, blockers: vec![found] }))
    }

    /// Keeps who waits for hours.
    pub(crate) fn count_awaited(&mut self, reservation: &Reservation, is_there: bool) {
        let Some(hours) = reservation.request.hours.as_ref().filter(|_| reservation.is_waiting()) else {
            return;
        };
        let known = (hours.over_at(reservation.submitted_at), reservation.id);
        if is_there {
            self.awaited.entry(hours.schedule.clone()).or_default().insert(known);
        } else if let Some(waiting) = self.awaited.get_mut(&hours.schedule) {
            waiting.remove(&known);
            if waiting.is_empty() {
                self.awaited.remove(&hours.schedule);
            }
        }
    }

    /// An old ledger knows no hours.
    pub(crate) fn check_hours_version(&self, request: &Request) -> Result<(), Refusal> {
        match asks_for_hours(request) {
            true => self.require_version(SINCE_VERSION, "preferred hours"),
            false => Ok(()),
        }
    }

    /// Hours are those of a schedule that is there.
    pub(crate) fn check_hours(&self, request: &Request) -> Result<(), Refusal> {
        match &request.hours {
            Some(hours) if !self.schedules.contains_key(&hours.schedule) => {
                Err(Refusal::one(Reason::NotFound, format!("schedule {}", hours.schedule), 1, 0))
            }
            _ => Ok(()),
        }
    }
}

/// True for requests that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn asks_for_hours(request: &Request) -> bool {
    request.hours.is_some()
}

/// The same of policy: schedules that keep nothing, and only say when.
pub(crate) fn is_of_hours(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Schedule(schedule) if schedule.keeps_nothing())
}
