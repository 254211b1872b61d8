//! The object: one episode of contention, from when it opened until it ended.

use std::collections::BTreeSet;

use plimsoll_types::{LedgerTime, Revision};

use super::{Contended, Resolve, Severity};
use crate::limits::MAX_RESOLUTIONS;

/// Those who wait for a pool lack a resource. Its id is the revision of the entry that opened it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contention {
    /// Its number.
    pub id: Revision,
    /// Pool.
    pub pool: String,
    /// Resource: the name of an amount, `gpu` (in thousandths of devices), or a countable of the pool.
    pub resource: String,
    /// How bad it is.
    pub severity: Severity,
    /// The worst that it has been.
    pub peak: Severity,
    /// When it opened.
    pub opened_at: LedgerTime,
    /// Since when it has this severity.
    pub since: LedgerTime,
    /// When it ended; 0 while it lasts.
    pub ended_at: LedgerTime,
    /// When the numbers that follow were measured.
    pub observed_at: LedgerTime,
    /// What those who wait for it ask of it in all.
    pub demand: u64,
    /// What the pool's nodes that take work have of it.
    pub capacity: u64,
    /// What is open of that.
    pub open: u64,
    /// How many wait for it.
    pub waiting: u64,
    /// The longest that any of them has waited, in milliseconds.
    pub longest_wait_ms: u64,
    /// That, in thousandths of the latency target of its class: the worst; 0 where no class has a target.
    pub wait_permille: u64,
    /// How many wait for the pool and lack no resource, but quota, budget, the calendar or their turn.
    pub elsewhere: u64,
    /// Classes of those who wait for it, ascending; bounded.
    pub classes: Vec<String>,
    /// What is being done about it.
    pub resolving: BTreeSet<Resolve>,
    /// What was done, oldest first; bounded.
    pub resolutions: Vec<Resolution>,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// Something that was done about a contention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// When.
    pub at: LedgerTime,
    /// What.
    pub kind: Resolve,
    /// To whom or by what: a pool, a scaling policy, a reservation that has to leave.
    pub subject: String,
    /// Revision of the entry.
    pub revision: Revision,
}

impl Contention {
    /// True while it lasts.
    pub fn is_open(&self) -> bool {
        self.ended_at.0 == 0
    }

    /// Demand beyond what is open, in thousandths of the capacity.
    pub fn pressure_permille(&self) -> u64 {
        super::pressure_permille(self.demand, self.open, self.capacity)
    }

    /// Takes over what was measured; nobody waits any more where that is nothing.
    pub(super) fn measured(&mut self, now: LedgerTime, seen: Option<&Contended>, elsewhere: u64) {
        let nothing = Contended { capacity: self.capacity, ..Contended::default() };
        let seen = seen.unwrap_or(&nothing);
        self.observed_at = now;
        self.demand = seen.demand;
        self.capacity = seen.capacity;
        self.open = seen.open;
        self.waiting = seen.waiting;
        self.longest_wait_ms = seen.longest_wait_ms;
        self.wait_permille = seen.wait_permille;
        self.elsewhere = elsewhere;
        self.classes.clone_from(&seen.classes);
    }

    /// Notes what was done; past the bound the oldest note goes.
    pub(crate) fn note(&mut self, resolution: Resolution) {
        self.resolutions.push(resolution);
        if self.resolutions.len() > MAX_RESOLUTIONS {
            self.resolutions.remove(0);
        }
    }
}
