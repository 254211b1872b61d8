//! Overflow of bounded queues: who waits past the bound of a queue is set aside, out of the planner's sight and mostly out of memory.
//!
//! Invariants: what belongs in memory are the first `max_pending` of a queue, by class and age. Whoever is aside is pending, in no index of those who wait, and
//! shows a request without what only a plan needs; what was asked is in its body, which this ledger never looks into. There is a body for whoever is aside,
//! and for an answer that shows one, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{ReservationId, Revision};

use crate::index::place_in_queue;
use crate::ledger::Waiting;
use crate::{
    Blocker, Ledger, Outcome, Queue, Reason, Remembered, Request, Requirements, Reservation, RowPlace, State,
    Topology,
};

/// First ledger version that knows overflow.
pub(crate) const SINCE_VERSION: u32 = 11;

/// What becomes of those who come to a queue whose `max_pending` wait already. From ledger version 11 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overflow {
    /// They are refused.
    #[default]
    Reject,
    /// They are taken, and what they ask is kept in the store alone.
    SpillToDisk,
    /// They are taken, and what they ask is kept in memory, compressed.
    Compress,
}

/// Where the body is of one that is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsideHow {
    /// In the store alone.
    Spilled,
    /// In memory too, compressed.
    Compressed,
}

/// That a reservation is set aside, and where what was asked is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where its body is.
    pub how: AsideHow,
    /// BLAKE3 of the canonical form of what was asked.
    pub body_hash: [u8; 32],
    /// Length of its body, in bytes.
    pub body_bytes: u32,
}

/// What one that is aside asked, in a form that the ledger does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Whose.
    pub reservation: ReservationId,
    /// Where it is kept.
    pub how: AsideHow,
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

/// One that is to be set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAsideOne {
    /// Which.
    pub reservation: ReservationId,
    /// What it asked, as the store is to keep it.
    pub body: Arc<[u8]>,
    /// BLAKE3 of the canonical form of what it asked.
    pub body_hash: [u8; 32],
}

/// Those of a queue who are aside, and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverflowTally {
    /// How many have theirs in the store alone.
    pub spilled: u64,
    /// How many have theirs in memory.
    pub compressed: u64,
    /// Bytes of the former.
    pub spilled_bytes: u64,
    /// Bytes of the latter.
    pub compressed_bytes: u64,
}

impl Overflow {
    /// All words, in order of their declaration.
    pub const ALL: [Overflow; 3] = [Overflow::Reject, Overflow::SpillToDisk, Overflow::Compress];

    /// The word of policy files.
    pub fn name(self) -> &'static str {
        match self {
            Overflow::Reject => "reject",
            Overflow::SpillToDisk => "spill_to_disk",
            Overflow::Compress => "compress",
        }
    }
}

impl AsideHow {
    /// Lower-case name, as screens show it.
    pub fn name(self) -> &'static str {
        match self {
            AsideHow::Spilled => "spilled",
            AsideHow::Compressed => "compressed",
        }
    }
}

impl Queue {
    /// How those past its bound are set aside; `None` where it has no bound, or refuses them.
    pub fn sets_aside(&self) -> Option<AsideHow> {
        match self.overflow {
            _ if self.max_pending == 0 => None,
            Overflow::Reject => None,
            Overflow::SpillToDisk => Some(AsideHow::Spilled),
            Overflow::Compress => Some(AsideHow::Compressed),
        }
    }
}

impl Request {
    /// What stays of a request while its reservation is aside: all but what only a plan looks at.
    pub fn thinned(&self) -> Request {
        Request {
            labels: Default::default(),
            requirements: Requirements::default(),
            roles: Vec::new(),
            topology: Topology::default(),
            affinity: Vec::new(),
            burst: Default::default(),
            ..self.clone()
        }
    }
}

impl Reservation {
    /// The same with all that it asked, once that was read; `None` where that cannot be what it asked.
    pub fn with_body(&self, request: Arc<Request>) -> Option<Reservation> {
        let same = *self.request == request.thinned() && self.amounts == request.requirements.amounts;
        same.then(|| Reservation { request, ..self.clone() })
    }

    /// True for what an answer shows of one that was set aside after it: it was not aside then.
    pub fn was_shown_whole(&self) -> bool {
        self.aside.is_some() && self.changed.0 == self.id.0
    }
}

/// Who is aside, by queue, and bodies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overflows {
    /// By queue: class, then age.
    pub(crate) aside: BTreeMap<String, Waiting>,
    /// The same in numbers.
    pub(crate) tallies: BTreeMap<String, OverflowTally>,
    /// Queues that set aside who waits past their bound.
    pub(crate) bounded: BTreeSet<String>,
    /// Those in memory: all that are compressed, and of those that are spilled what no store has got yet.
    pub(crate) bodies: BTreeMap<ReservationId, Arc<Body>>,
}

impl Overflows {
    /// Counts one that is aside, or that is so no more.
    pub(crate) fn count(&mut self, reservation: &Reservation, add: bool) {
        let Some(aside) = reservation.aside.as_ref().filter(|_| !reservation.state.is_final()) else {
            return;
        };
        let queue = &reservation.request.queue;
        let tally = self.tallies.entry(queue.clone()).or_default();
        let (count, bytes) = match aside.how {
            AsideHow::Spilled => (&mut tally.spilled, &mut tally.spilled_bytes),
            AsideHow::Compressed => (&mut tally.compressed, &mut tally.compressed_bytes),
        };
        let (one, length) = (1, u64::from(aside.body_bytes));
        (*count, *bytes) = match add {
            true => (*count + one, *bytes + length),
            false => (*count - one, *bytes - length),
        };
        let place = place_in_queue(reservation);
        let of_queue = self.aside.entry(queue.clone()).or_default();
        if add {
            of_queue.insert(place);
        } else {
            of_queue.remove(&place);
        }
        if of_queue.is_empty() {
            self.aside.remove(queue);
            self.tallies.remove(queue);
        }
    }
}

impl Ledger {
    /// Those of a queue who are aside: priority descending, then age.
    pub fn aside_in(&self, queue: &str) -> impl Iterator<Item = ReservationId> {
        self.overflows.aside.get(queue).into_iter().flatten().map(|(_, id)| *id)
    }

    /// Queues of which somebody is aside.
    pub fn queues_aside(&self) -> impl Iterator<Item = &str> {
        self.overflows.aside.keys().map(String::as_str)
    }

    /// Whose bodies there are to be: those who are aside or ended so, and those whom an answer shows that were set aside after it. O(reservations + answers).
    pub fn with_bodies(&self) -> BTreeSet<ReservationId> {
        let aside = self.reservations.values().filter(|one| one.aside.is_some()).map(|one| one.id);
        let shown = self.answers.sorted().into_iter().filter_map(|known| match &known.answer.outcome {
            Outcome::Reservation(shown) if shown.aside.is_some() => Some(shown.id),
            _ => None,
        });
        aside.chain(shown).collect()
    }

    /// How many of a queue are aside, and with how many bytes.
    pub fn overflow_of(&self, queue: &str) -> OverflowTally {
        self.overflows.tallies.get(queue).copied().unwrap_or_default()
    }

    /// The body of one that is aside, as far as it is in memory.
    pub fn body(&self, id: ReservationId) -> Option<&Arc<Body>> {
        self.overflows.bodies.get(&id)
    }

    /// Queues that may have somebody to set aside or to take back. O(queues that set aside + queues with somebody aside).
    pub fn queues_to_even(&self) -> Vec<&str> {
        let over = self.overflows.bounded.iter().map(String::as_str).filter(|name| {
            let bound = self.bound_of(name);
            bound.is_some_and(|bound| self.pending_of_queue(name) > bound)
        });
        let found: BTreeSet<&str> = over.chain(self.queues_aside()).collect();
        found.into_iter().collect()
    }

    /// Pending reservations of a queue that are to be set aside now, the last first: those past its bound, all counted that are in memory or aside. O(bound +
    /// those past it), and O(pools it waits for) where nobody is.
    pub fn to_set_aside(&self, queue: &str, most: usize) -> Vec<ReservationId> {
        let is_within = self.bound_of(queue).is_some_and(|bound| self.pending_of_queue(queue) <= bound);
        if is_within && !self.is_overtaken(queue) {
            return Vec::new();
        }
        let Some(cut) = self.first_beyond(queue) else { return Vec::new() };
        let is_pending = |id| self.reservations.get(id).is_some_and(|one| one.state == State::Pending);
        let beyond = self.of_queue(queue).flat_map(|waiting| waiting.range(cut..));
        let mut beyond: Vec<Place> = beyond.filter(|(_, id)| is_pending(id)).copied().collect();
        beyond.sort_unstable_by(|a, b| b.cmp(a));
        beyond.truncate(most);
        beyond.into_iter().map(|(_, id)| id).collect()
    }

    /// Those of a queue that are aside and are to wait in memory again now, the first first: those within its bound, all counted that are in memory or aside,
    /// once an eighth of the bound is free, or somebody in memory goes after them, or there are no others; and all where it sets nobody aside any more. O(bound
    /// + most), and O(pools it waits for) where nobody is.
    pub fn to_return(&self, queue: &str, most: usize) -> Vec<ReservationId> {
        if self.first_aside(queue).is_none() {
            return Vec::new();
        }
        if let Some(bound) = self.bound_of(queue) {
            let waiting = self.pending_of_queue(queue);
            let all = waiting + self.overflows.aside.get(queue).map_or(0, Waiting::len);
            if all > bound && waiting > bound - bound.div_ceil(8) && !self.is_overtaken(queue) {
                return Vec::new();
            }
        }
        let cut = self.first_beyond(queue);
        let is_within = |place: &&Place| cut.is_none_or(|cut| **place < cut);
        let aside = self.overflows.aside.get(queue).into_iter().flatten();
        aside.take_while(is_within).take(most).map(|(_, id)| *id).collect()
    }

    /// How many of a queue may wait in memory before others are set aside; `None` where nobody is.
    pub(crate) fn bound_of(&self, queue: &str) -> Option<usize> {
        self.queue(queue).filter(|known| known.sets_aside().is_some()).map(|known| known.max_pending as usize)
    }

    /// The first of a queue that is aside.
    pub(crate) fn first_aside(&self, queue: &str) -> Option<Place> {
        self.overflows.aside.get(queue).and_then(Waiting::first).copied()
    }

    /// Why one of this priority that comes to a queue now is not granted at once: others go before it and are set aside, and nobody looks for a place
    /// for those. O(those aside that it goes before).
    pub fn order_blocker(&self, queue: &str, priority: i32) -> Option<Blocker> {
        let own = (std::cmp::Reverse(priority), ReservationId(u64::MAX));
        let aside = self.overflows.aside.get(queue).filter(|aside| aside.first() < Some(&own))?;
        // Most are of its class or above, and a set knows its length.
        let before = (aside.len() - aside.range(own..).count()) as u64;
        let subject = format!("{before} of queue {queue} go before it and are set aside");
        Some(Blocker::new(Reason::Overflowed, subject, before, 0))
    }

    /// True where one of a queue is aside that goes before this one, which waits or comes.
    pub fn is_behind_overflow(&self, reservation: &Reservation) -> bool {
        let first = self.first_aside(&reservation.request.queue);
        first.is_some_and(|first| first < place_in_queue(reservation))
    }

    /// The first of a queue past its bound, all counted that wait in memory or are aside; `None` where there is none, or no bound. It stays that one while
    /// others are set aside or taken back.
    pub(crate) fn first_beyond(&self, queue: &str) -> Option<Place> {
        let bound = self.bound_of(queue)?;
        let aside = self.overflows.aside.get(queue);
        let mut all: Vec<Place> = self
            .of_queue(queue)
            .chain(aside)
            .flat_map(|waiting| waiting.iter().take(bound + 1))
            .copied()
            .collect();
        all.sort_unstable();
        all.get(bound).copied()
    }

    /// True where somebody of a queue waits in memory who goes after one that is aside.
    fn is_overtaken(&self, queue: &str) -> bool {
        let last = self.of_queue(queue).filter_map(Waiting::last).max().copied();
        self.first_aside(queue).is_some_and(|first| last > Some(first))
    }

    /// Who waits in memory, by pool.
    pub(crate) fn of_queue(&self, queue: &str) -> impl Iterator<Item = &Waiting> {
        let own = (queue.to_owned(), String::new())..;
        self.queued.range(own).take_while(move |((of, _), _)| of == queue).map(|(_, waiting)| waiting)
    }

    pub(crate) fn put_body(&mut self, body: Arc<Body>) {
        self.touched.row(RowPlace::Body(body.reservation));
        self.overflows.bodies.insert(body.reservation, body);
    }

    /// Lets go of a body that nobody needs any more.
    pub(crate) fn review_body(&mut self, id: ReservationId) {
        if !self.needs_body(id) || mutant!("drop-the-body") {
            self.touched.row(RowPlace::Body(id));
            self.overflows.bodies.remove(&id);
        }
    }

    /// The same once an answer is gone.
    pub(crate) fn review_body_of(&mut self, forgotten: &Remembered) {
        if let Outcome::Reservation(shown) = &forgotten.answer.outcome
            && shown.aside.is_some()
        {
            self.review_body(shown.id);
        }
    }

    /// True where a reservation is aside, or ended so, or an answer shows one that was set aside.
    pub(crate) fn needs_body(&self, id: ReservationId) -> bool {
        let known = || self.reservations.get(&id).is_some_and(|known| known.aside.is_some());
        known() || self.answer_aside(id).is_some()
    }

    /// The answer to the submission of a reservation, where it shows that as one that was set aside.
    pub(crate) fn answer_aside(&self, id: ReservationId) -> Option<&Arc<Remembered>> {
        let answer = self.answers.at(Revision(id.0))?;
        let of_it = |shown: &Reservation| shown.id == id && shown.aside.is_some();
        matches!(&answer.answer.outcome, Outcome::Reservation(shown) if of_it(shown)).then_some(answer)
    }
}

/// A place in the order of those who wait.
pub(crate) type Place = (std::cmp::Reverse<i32>, ReservationId);
