//! The book: what has been spent and committed of every meter, and how far every rate is. Facts, one row each.
//!
//! Invariants: a row that says nothing (nothing spent or committed) is not kept; a row past its period counts as if it were not there, and
//! the sweep drops it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_types::LedgerTime;

use super::{Meter, Reset};
use crate::quota::decay;

/// Which meter or rate of which quota, for whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageKey {
    /// The quota.
    pub quota: String,
    /// The meter or rate.
    pub of: UsageOf,
    /// For whom: the user, the run, or for a rate what its takers name; empty for all together.
    pub who: String,
}

/// What a row of the book is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageOf {
    /// A meter.
    Meter(Meter),
    /// A rate, by name.
    Rate(String),
}

/// A row of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What it is about.
    pub key: UsageKey,
    /// The period that it counts; 0 where there are none.
    pub period: u64,
    /// What is spent for good. A rate: its theoretical arrival, in nanoseconds since the Unix epoch.
    pub spent: u64,
    /// What live grants have committed.
    pub committed: u64,
    /// Where spending fades: the moment that `spent` is as of. Otherwise 0.
    pub stamp: LedgerTime,
}

/// All rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageBook {
    rows: BTreeMap<UsageKey, Arc<Usage>>,
    /// When rows may be dropped.
    due: BTreeSet<(LedgerTime, UsageKey)>,
}

/// Rates are looked at for dropping by the minute: each take would else bring a sweep of its own.
const RATE_DUE_MS: u64 = 60_000;

impl Usage {
    /// The row as of a moment: another period starts at zero, and what fades has faded.
    pub fn at(&self, now: LedgerTime) -> Usage {
        let UsageOf::Meter(meter) = &self.key.of else { return self.clone() };
        if let Reset::Rolling(half_life_ms) = meter.reset {
            let faded = decay(self.spent.into(), now.ms_since(self.stamp), half_life_ms);
            let spent = u64::try_from(faded).unwrap_or(u64::MAX);
            return Usage { spent, stamp: now.max(self.stamp), ..self.clone() };
        }
        let period = meter.reset.period(now);
        if period > self.period {
            return Usage { period, spent: 0, committed: 0, ..self.clone() };
        }
        self.clone()
    }

    /// Spent and committed together.
    pub fn taken(&self) -> u64 {
        self.spent.saturating_add(self.committed)
    }

    /// When it says nothing any more, if that comes by itself.
    fn due(&self) -> Option<LedgerTime> {
        match &self.key.of {
            UsageOf::Meter(Meter { reset: Reset::Rolling(half_life_ms), .. }) => {
                let halves = u64::from(u64::BITS - self.spent.leading_zeros());
                let gone = self.stamp.plus_ms(half_life_ms.saturating_mul(halves + 1));
                (self.committed == 0).then_some(gone)
            }
            UsageOf::Meter(meter) => meter.reset.end_of(self.period),
            UsageOf::Rate(_) => {
                let ms = self.spent.div_ceil(1_000_000);
                Some(LedgerTime(ms.div_ceil(RATE_DUE_MS).saturating_mul(RATE_DUE_MS)))
            }
        }
    }

    fn says_nothing(&self) -> bool {
        self.spent == 0 && self.committed == 0
    }
}

impl UsageBook {
    /// A row as it stands.
    pub fn get(&self, key: &UsageKey) -> Option<&Arc<Usage>> {
        self.rows.get(key)
    }

    /// All rows, by key.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<Usage>> {
        self.rows.values()
    }

    /// Rows of a quota, by key.
    pub fn of_quota<'a>(&'a self, quota: &'a str) -> impl Iterator<Item = &'a Arc<Usage>> {
        // No key of the quota is before this one.
        let first = UsageKey {
            quota: quota.to_owned(),
            of: UsageOf::Meter(Meter::new(super::Scope::Together, super::Measure::Concurrent, Reset::Live)),
            who: String::new(),
        };
        self.rows.range(first..).take_while(move |(key, _)| key.quota == quota).map(|(_, row)| row)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is taken of a meter as of a moment.
    pub fn taken(&self, key: &UsageKey, now: LedgerTime) -> u64 {
        self.rows.get(key).map_or(0, |row| row.at(now).taken())
    }

    /// Puts a row, or drops it where it says nothing.
    pub(crate) fn put(&mut self, row: Usage) {
        self.remove(&row.key);
        if row.says_nothing() {
            return;
        }
        if let Some(due) = row.due() {
            self.due.insert((due, row.key.clone()));
        }
        self.rows.insert(row.key.clone(), Arc::new(row));
    }

    pub(crate) fn remove(&mut self, key: &UsageKey) {
        if let Some(old) = self.rows.remove(key)
            && let Some(due) = old.due()
        {
            self.due.remove(&(due, key.clone()));
        }
    }

    /// The row that may be dropped first, and when.
    pub(crate) fn first_due(&self) -> Option<&(LedgerTime, UsageKey)> {
        self.due.first()
    }
}
