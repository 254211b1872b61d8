//! What the calendar leaves: the ledger's books with what the planner's own proposals in flight will take, judged by the ledger's own rule.

use plimsoll_ledger::{Ask, Blocker, Calendar, Ledger, Placement, Request, Room, least};
use plimsoll_types::{LedgerTime, ReservationId, Resources, Revision};

/// The books as of a revision of the ledger, bookings taken. Empty, and free of cost, where nothing is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agenda {
    calendar: Calendar,
    read_at: Option<Revision>,
    /// When what is planned now will be proposed.
    now: LedgerTime,
    /// The advance reservation for which a place is looked for.
    pub(crate) plan: Option<ReservationId>,
}

/// What a booking takes of a pool with a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pool: String,
    owner: Option<String>,
    amounts: Resources,
    until: LedgerTime,
}

impl Agenda {
    /// Reads the ledger's books anew where they are others than before. O(windows + bookings) then, else O(1).
    pub(crate) fn refresh<'a>(&mut self, ledger: &Ledger, bookings: impl Iterator<Item = &'a Taken>) {
        self.now = self.now.max(ledger.clock());
        if ledger.calendar().is_empty() {
            self.calendar = Calendar::default();
            self.read_at = None;
            return;
        }
        if self.read_at == Some(ledger.revision()) {
            return;
        }
        self.calendar = ledger.calendar().tallies();
        for taken in bookings {
            self.take(taken);
        }
        self.read_at = Some(ledger.revision());
    }

    /// The next refresh reads the ledger, whatever its revision.
    pub(crate) fn forget(&mut self) {
        self.read_at = None;
    }

    /// Time goes on. True where a window or an advance reservation started or ended meanwhile.
    pub(crate) fn tick(&mut self, ledger: &Ledger, now: LedgerTime) -> bool {
        let changed = ledger.calendar().next_change(self.now).is_some_and(|at| at <= now);
        self.now = self.now.max(now);
        changed
    }

    pub(crate) fn now(&self) -> LedgerTime {
        self.now
    }

    /// A number that equals for requests of one shape that the calendar judges alike.
    pub(crate) fn kind_of(&self, request: &Request) -> (u64, u64) {
        if self.calendar.has(&request.pool) {
            (self.calendar.kind_of(request), request.max_duration_ms)
        } else {
            (0, 0)
        }
    }

    /// Members that are left room for, at most `wanted`; none where that is below the minimum.
    pub(crate) fn most_members(&self, request: &Request, wanted: u32) -> u32 {
        if !self.calendar.has(&request.pool) {
            return wanted;
        }
        let fits = |members: u32| !matches!(self.judge(request, &request.least_of(members)), Room::Short(_));
        let least = request.gang.min_members.max(1);
        if wanted < least || !fits(least) {
            return 0;
        }
        // Who fits with more members fits with fewer.
        let (mut fit, mut unfit) = (least, wanted.saturating_add(1));
        while unfit - fit > 1 {
            let middle = fit + (unfit - fit) / 2;
            if fits(middle) { fit = middle } else { unfit = middle }
        }
        fit
    }

    /// Drops members from the end until there is room for the rest: for shares by memory, whose thousandths the device decides.
    pub(crate) fn trim(&self, request: &Request, placement: &mut Placement) {
        while self.calendar.has(&request.pool)
            && !placement.members.is_empty()
            && let Some(amounts) = request.charge(&placement.members)
            && let Room::Short(_) = self.judge(request, &amounts)
        {
            placement.members.pop();
        }
    }

    /// What is short now for the least that is of use.
    pub(crate) fn blockers(&self, request: &Request) -> Vec<Blocker> {
        if !self.calendar.has(&request.pool) {
            return Vec::new();
        }
        self.blockers_of(request, &least(request))
    }

    /// What is short now of amounts that the request would take.
    pub(crate) fn blockers_of(&self, request: &Request, asked: &Resources) -> Vec<Blocker> {
        match self.judge(request, asked) {
            Room::Short(blockers) => blockers,
            Room::Free | Room::Until(_) => Vec::new(),
        }
    }

    /// True where these amounts have room once others have left. O(windows x who leaves).
    pub(crate) fn has_room_without(
        &self,
        ledger: &Ledger,
        request: &Request,
        amounts: &Resources,
        gone: &[ReservationId],
    ) -> bool {
        if !self.calendar.has(&request.pool) {
            return true;
        }
        let mut without = Agenda { calendar: self.calendar.clone(), now: self.now, ..Agenda::default() };
        for reservation in gone.iter().filter_map(|id| ledger.reservation(*id)) {
            ledger.leave_out(&mut without.calendar, reservation);
        }
        !matches!(without.judge(request, amounts), Room::Short(_))
    }

    /// What a placement takes; `None` where nothing of its pool is kept.
    pub(crate) fn taken(&self, request: &Request, placement: &Placement) -> Option<Taken> {
        if !self.calendar.has(&request.pool) || placement.members.is_empty() {
            return None;
        }
        let amounts = request.charge(&placement.members)?;
        let until = match self.judge(request, &amounts) {
            Room::Until(cut) => cut,
            Room::Free | Room::Short(_) => self.until(request),
        };
        let owner = self.calendar.owner_of(request);
        Some(Taken { pool: request.pool.clone(), owner, amounts, until })
    }

    pub(crate) fn take(&mut self, taken: &Taken) {
        self.calendar.count(&taken.pool, taken.owner.as_deref(), &taken.amounts, taken.until);
    }

    fn judge(&self, request: &Request, amounts: &Resources) -> Room {
        self.calendar.judge(&Ask {
            request,
            amounts,
            from: self.now,
            until: self.until(request),
            plan: self.plan,
            may_cut: self.plan.is_none(),
        })
    }

    /// When a grant made now ends at the latest.
    fn until(&self, request: &Request) -> LedgerTime {
        match (self.plan, request.max_duration_ms) {
            (Some(_), length_ms) => LedgerTime(request.start_at_ms).plus_ms(length_ms),
            (None, 0) => LedgerTime(u64::MAX),
            (None, length_ms) => self.now.plus_ms(length_ms),
        }
    }
}
