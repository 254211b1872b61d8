//! When a queue's quota has room again: as those who hold it leave, by the ends that they declared, and as those who were put before take it.

use plimsoll_ledger::{Ledger, Request, State};

use super::future::Spot;
use crate::headroom::{Charge, Headroom};

/// Most ends and starts that are looked at for one request.
const MOST_EVENTS: usize = 4_096;

/// What comes back to quotas, and what is taken of them, in order of time.
#[derive(Debug, Default)]
pub(super) struct QuotaEnds {
    /// At what moment, and what happens.
    events: Vec<(u64, Change, Charge)>,
    is_read: bool,
}

/// What happens to a quota. What is given back at a moment is there for those who take it then, so those come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// One that was given notice leaves. Where places are kept for others it counts as gone already, and gives nothing back a second time.
    LeftAfterNotice,
    GivenBack,
    Taken,
}

impl QuotaEnds {
    /// The first moment at which quota is enough for the least of a request; `None` where those who hold it declare no end, or it is further ahead than is looked. The
    /// first time it reads everything that is held: O(reservations).
    pub(super) fn enough_at(
        &mut self,
        ledger: &Ledger,
        headroom: &Headroom,
        request: &Request,
    ) -> Option<u64> {
        self.read(ledger);
        let mut then = headroom.clone();
        let mut events = self.events.iter().take(MOST_EVENTS).peekable();
        while let Some((at, change, charge)) = events.next() {
            match change {
                Change::LeftAfterNotice => then.give_back_now(charge),
                Change::GivenBack => then.give_back(charge),
                Change::Taken => then.take(charge),
            }
            // All of one moment happens together.
            if events.peek().is_none_or(|(next, ..)| next > at) && then.blockers(request).is_empty() {
                return Some(*at);
            }
        }
        None
    }

    /// One that waits is put before all that come later.
    pub(super) fn plan(&mut self, request: &Request, spot: &Spot) {
        let Some(charge) = Charge::of(request, &spot.placement) else { return };
        self.put(spot.until_ms, Change::GivenBack, charge.clone());
        self.put(spot.start_ms, Change::Taken, charge);
    }

    fn read(&mut self, ledger: &Ledger) {
        if std::mem::replace(&mut self.is_read, true) {
            return;
        }
        for holder in ledger.reservations().filter(|holder| holder.state.is_occupying()) {
            if let (Some(at), Some(charge)) = (ledger.leaves_by(holder), Charge::held(holder)) {
                let is_leaving = holder.resume_state == State::Preempting;
                let change = if is_leaving { Change::LeftAfterNotice } else { Change::GivenBack };
                self.events.push((at.0, change, charge));
            }
        }
        self.events.sort_by_key(|(at, change, _)| (*at, *change));
    }

    fn put(&mut self, at: u64, change: Change, charge: Charge) {
        let place = self.events.partition_point(|(known, other, _)| (*known, *other) <= (at, change));
        self.events.insert(place, (at, change, charge));
    }
}
