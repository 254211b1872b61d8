//! What of limits, budgets and rates makes no sense, and the invariants of the book.

use std::collections::BTreeMap;

use super::{QuotaPolicy, UsageKey, UsageOf};
use crate::limits::{MAX_ITEMS, MAX_TTL_MS};
use crate::{Blocker, Ledger, Reason, Reservation, Violation};

/// Longest name or pattern of a user, currency or rate, in bytes.
const LONGEST: usize = 253;

/// Every way in which a quota makes no sense, its name aside.
pub(crate) fn validate_quota(quota: &QuotaPolicy) -> Vec<Blocker> {
    let mut bad = Vec::new();
    let mut range = |field: String, value: u64, least: u64, most: u64| {
        if value < least || value > most {
            let expected = if value < least { least } else { most };
            bad.push(Blocker {
                limit: most,
                ..Blocker::new(Reason::InvalidArgument, field, value, expected)
            });
        }
    };
    range("quota.limits".to_owned(), quota.limits.len() as u64, 0, MAX_ITEMS as u64);
    range("quota.rates".to_owned(), quota.rates.len() as u64, 0, MAX_ITEMS as u64);
    range("quota.tenant".to_owned(), quota.tenant.len() as u64, 0, LONGEST as u64);
    range("quota.currency".to_owned(), quota.currency.len() as u64, 0, 16);
    if let Some(tier) = &quota.tier {
        range("quota.tier.users".to_owned(), tier.users.len() as u64, 1, MAX_ITEMS as u64);
        for text in tier.users.iter().chain([&tier.group]) {
            range(
                format!("quota.tier {text:?}"),
                text.len() as u64,
                u64::from(text != &tier.group),
                LONGEST as u64,
            );
        }
        // Its users are whom it is about.
        range("quota.queue".to_owned(), quota.queue.len() as u64, 0, 0);
        range("quota.tenant".to_owned(), quota.tenant.len() as u64, 0, 0);
    }
    for (meter, limit) in &quota.limits {
        let field = format!("quota.limits.{}", meter.measure.name());
        range(field.clone(), *limit, 0, u64::MAX >> 1);
        range(format!("{field}.reset"), meter.makes_sense().into(), 1, 1);
        if let super::Reset::Rolling(half_life_ms) = meter.reset {
            range(format!("{field}.half_life_ms"), half_life_ms, 1_000, MAX_TTL_MS);
        }
    }
    for (name, rate) in &quota.rates {
        range(format!("quota.rates {name:?}"), name.len() as u64, 1, LONGEST as u64);
        range(format!("quota.rates.{name}.tokens"), rate.tokens, 1, MOST_TOKENS);
        range(format!("quota.rates.{name}.period_ms"), rate.period_ms, 1, MAX_TTL_MS);
        range(format!("quota.rates.{name}.burst"), rate.burst, 1, MOST_TOKENS);
    }
    bad
}

/// Most tokens of a rate: with nanoseconds of time, one take cannot count more.
const MOST_TOKENS: u64 = 1_000_000_000_000;

impl Ledger {
    /// I4 of budgets: what is committed of a meter is what live grants have on their tabs.
    pub(crate) fn check_usage(&self, found: &mut Vec<Violation>) {
        let now = self.meta.clock;
        let mut sums: BTreeMap<&UsageKey, u64> = BTreeMap::new();
        let mut note = |detail: String| found.push(Violation { invariant: "I4", detail });
        for r in self.reservations() {
            let Some(tab) = &r.tab else { continue };
            if !r.state.is_occupying() {
                note(format!("{} is {} and has a tab", r.id, r.state.name()));
            }
            for charge in tab.charges.iter().filter(|charge| !charge.is_own_cost()) {
                let current = charge.meter().is_some_and(|meter| charge.period == meter.reset.period(now));
                if current {
                    let sum = sums.entry(&charge.key).or_default();
                    *sum = sum.saturating_add(charge.amount(tab.until));
                }
            }
        }
        for row in self.book.rows() {
            let (key, committed) = (&row.key, row.at(now).committed);
            let sum = sums.remove(key).unwrap_or_default();
            if matches!(key.of, UsageOf::Meter(_)) && sum != committed {
                note(format!("{key:?}: committed {committed}, sum of tabs {sum}"));
            }
            if self.quota_policy(&key.quota).is_none() {
                note(format!("{key:?} is of a quota that is gone"));
            }
        }
        for (key, sum) in sums.into_iter().filter(|(_, sum)| *sum > 0) {
            note(format!("{key:?}: nothing committed, sum of tabs {sum}"));
        }
    }

    /// I4 of budgets, at one change: where it commits more than before, the limit holds.
    pub(crate) fn over_budget(&self, old: Option<&Reservation>, new: &Reservation) -> Vec<String> {
        let Some(tab) = &new.tab else { return Vec::new() };
        let before = old.and_then(|old| old.tab.as_ref());
        if before == Some(tab) {
            return Vec::new();
        }
        let mut over = Vec::new();
        for charge in tab.charges.iter().filter(|charge| !charge.is_own_cost()) {
            let earlier = before.and_then(|before| {
                let same = before.charges.iter().find(|one| one.key == charge.key)?;
                (same.period == charge.period).then(|| same.amount(before.until))
            });
            let Some(meter) = charge.meter() else { continue };
            let quota = self.quota_policy(&charge.key.quota);
            let limit = quota.and_then(|quota| quota.limits.get(&meter)).copied().unwrap_or(u64::MAX);
            let taken = self.book.taken(&charge.key, self.meta.clock);
            if taken > limit && charge.amount(tab.until) > earlier.unwrap_or_default() {
                over.push(format!("{:?}: {taken} of {limit}", charge.key));
            }
        }
        over
    }
}
