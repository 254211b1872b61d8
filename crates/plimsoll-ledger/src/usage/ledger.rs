//! Which meters a grant counts against, what it commits, and what of that it gives back.
//!
//! A grant commits for its declared duration, or where it has none up to the end of its lease, one renewal after the other. Whoever admits
//! (`room_for`) and whoever commits (`carry_out`) look at the same row of the same book.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::LedgerTime;

use super::priced::Priced;
use super::tab::{at_price, flat, multiplied, per_hour};
use super::{Charge, Measure, Meter, QuotaPolicy, Reset, Scope, Usage, UsageBook, UsageKey, UsageOf};
use crate::apply::usage::SINCE_VERSION;
use crate::limits::{DEFAULT_HOLD_MS, DEFAULT_TTL_MS, MAX_USAGE};
use crate::{Blocker, Ledger, Pool, Reason, Request};

/// How long a request's lease, hold and grant are, defaults filled in, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) ttl_ms: u64,
    pub(crate) hold_ms: u64,
    pub(crate) max_duration_ms: u64,
}

/// A meter of a quota as it stands, for screens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which, and for whom.
    pub key: UsageKey,
    /// Spent for good.
    pub spent: u64,
    /// Committed by live grants.
    pub committed: u64,
    /// The limit; `None` where the quota has none (any more).
    pub limit: Option<u64>,
    /// When it starts anew; `None` where it does not at a moment.
    pub resets_at: Option<LedgerTime>,
}

/// What a change does to one charge.
pub(super) struct Move {
    pub(super) old: Option<Charge>,
    /// Part of the old charge that is spent for good now.
    pub(super) spent: u64,
    pub(super) new: Charge,
}

/// What stands in the way, and whether waiting is of no use or not wanted.
pub(crate) struct Short {
    pub(crate) blocker: Blocker,
    pub(crate) at_once: bool,
}

/// Who a request counts for: its tenant, or who asked where it names none.
pub(crate) fn user_of<'a>(request: &'a Request, requester: &'a str) -> &'a str {
    if request.tenant.is_empty() { requester } else { &request.tenant }
}

fn run_of(request: &Request) -> Option<&String> {
    request.labels.get("run").or_else(|| request.labels.get("pipeline"))
}

impl Ledger {
    /// A quota (`kind: Quota`) by name.
    pub fn quota_policy(&self, name: &str) -> Option<&Arc<QuotaPolicy>> {
        self.quota_policies.get(name)
    }

    /// All quotas, by name.
    pub fn quota_policies(&self) -> impl Iterator<Item = &Arc<QuotaPolicy>> {
        self.quota_policies.values()
    }

    /// True where grants may have to be counted at all: there are quotas, or prices.
    pub fn counts_usage(&self) -> bool {
        self.meta.version >= SINCE_VERSION
            && (!self.quota_policies.is_empty() || self.pools.values().any(|pool| !pool.prices.is_empty()))
    }

    /// What is spent and committed.
    pub fn usage_book(&self) -> &UsageBook {
        &self.book
    }

    /// What has been taken of a quota as of now, by meter and name. O(rows of the quota).
    pub fn usage_of(&self, quota: &str) -> Vec<Seen> {
        let now = self.meta.clock;
        let limits = self.quota_policies.get(quota).map(|quota| &quota.limits);
        let seen = |row: &Arc<Usage>| {
            let row = row.at(now);
            let UsageOf::Meter(meter) = row.key.of else { return None };
            Some(Seen {
                spent: row.spent,
                committed: row.committed,
                limit: limits.and_then(|limits| limits.get(&meter)).copied(),
                resets_at: meter.reset.end_of(row.period),
                key: row.key,
            })
        };
        self.book.of_quota(quota).filter_map(seen).collect()
    }

    /// What keeps a request from being granted `total` now, beside `booked`: what grants on their way will take. O(quotas about it).
    pub fn usage_blockers(
        &self,
        request: &Request,
        requester: &str,
        total: Priced<'_>,
        booked: &BTreeMap<UsageKey, u64>,
    ) -> Vec<Blocker> {
        self.shortages(request, requester, total, booked).into_iter().map(|short| short.blocker).collect()
    }

    /// What a grant of `total` now would commit, by key.
    pub fn usage_wanted(
        &self,
        request: &Request,
        requester: &str,
        total: Priced<'_>,
    ) -> Vec<(UsageKey, u64)> {
        let now = self.meta.clock;
        let until = self.paid_until(request, now);
        let wanted = self.wanted(request, requester, total, now).into_iter();
        wanted
            .filter(|charge| !charge.is_own_cost())
            .map(|charge| (charge.key.clone(), charge.amount(until)))
            .collect()
    }

    pub(crate) fn shortages(
        &self,
        request: &Request,
        requester: &str,
        total: Priced<'_>,
        booked: &BTreeMap<UsageKey, u64>,
    ) -> Vec<Short> {
        if !self.counts_usage() || mutant!("forget-quota") {
            return Vec::new();
        }
        let now = self.meta.clock;
        let until = self.paid_until(request, now);
        let moves: Vec<Move> = self
            .wanted(request, requester, total, now)
            .into_iter()
            .map(|new| Move { old: None, spent: 0, new })
            .collect();
        self.room_for(&moves, now, until, request.max_cost_micros, booked)
    }

    /// The lengths of a request, defaults filled in.
    pub(crate) fn lengths(&self, request: &Request) -> Lengths {
        let or = |value: u64, default: u64| if value > 0 { value } else { default };
        let class = self.class(&request.class);
        let class_ttl_ms = class.map_or(0, |class| class.default_ttl_ms);
        let class_duration_ms = class.map_or(0, |class| class.default_duration_ms);
        Lengths {
            ttl_ms: or(request.ttl_ms, or(class_ttl_ms, DEFAULT_TTL_MS)),
            hold_ms: or(request.hold_ms, DEFAULT_HOLD_MS),
            max_duration_ms: or(request.max_duration_ms, class_duration_ms),
        }
    }

    /// A grant made now is paid for up to here: its declared end, or that of its first lease, taken up at the last moment.
    pub(super) fn paid_until(&self, request: &Request, now: LedgerTime) -> LedgerTime {
        let lengths = self.lengths(request);
        if lengths.max_duration_ms > 0 {
            return now.plus_ms(lengths.max_duration_ms);
        }
        let hold_ms = if request.auto_confirm { 0 } else { lengths.hold_ms };
        now.plus_ms(hold_ms).plus_ms(lengths.ttl_ms)
    }

    /// Charges of `total` from a moment on, for every meter that counts it, by ascending key.
    pub(super) fn wanted(
        &self,
        request: &Request,
        requester: &str,
        Priced { total, permille }: Priced<'_>,
        from: LedgerTime,
    ) -> Vec<Charge> {
        let now = self.meta.clock;
        let none = BTreeMap::new();
        let prices = self.pool(&request.pool).map_or(&none, |pool: &Arc<Pool>| &pool.prices);
        let factor = self.counts_milli(request);
        let user = user_of(request, requester);
        let mut charges = Vec::new();
        let mut add = |quota: &str, meter: Meter, who: &str| {
            let key = UsageKey { quota: quota.to_owned(), of: UsageOf::Meter(meter), who: who.to_owned() };
            charges.push(Charge {
                key,
                period: meter.reset.period(now),
                from,
                per_hour: multiplied(
                    at_price(meter.measure, per_hour(meter.measure, total, prices), permille),
                    factor,
                ),
                flat: flat(meter.measure, total),
            });
        };
        if !prices.is_empty() {
            add("", OWN_COST, "");
        }
        let near = self.quota_index.near(user, self.quota.path(&request.queue));
        let quotas = near.filter_map(|name| self.quota_policies.get(name));
        for quota in quotas.filter(|quota| quota.is_about_user(user)) {
            for meter in quota.limits.keys() {
                match meter.scope {
                    Scope::Together => add(&quota.name, *meter, ""),
                    Scope::User => add(&quota.name, *meter, user),
                    Scope::Run => {
                        if let Some(run) = run_of(request) {
                            add(&quota.name, *meter, run);
                        }
                    }
                }
            }
        }
        charges.sort_by(|a, b| a.key.cmp(&b.key));
        charges
    }

    /// What grants of the request's class count for, in thousandths.
    pub(super) fn counts_milli(&self, request: &Request) -> u32 {
        self.class(&request.class).map_or(1_000, |class| class.counts_milli())
    }

    /// The one rule: what a change takes more of a meter has room below its limit, beside what is spent and committed.
    pub(super) fn room_for(
        &self,
        moves: &[Move],
        old_until: LedgerTime,
        until: LedgerTime,
        most_cost: u64,
        booked: &BTreeMap<UsageKey, u64>,
    ) -> Vec<Short> {
        let now = self.meta.clock;
        let mut short = Vec::new();
        let mut new_rows = 0;
        for step in moves {
            let whole = step.new.amount(until);
            if step.new.is_own_cost() {
                if most_cost > 0 && whole > most_cost {
                    let left =
                        most_cost.saturating_sub(step.old.as_ref().map_or(0, |old| old.amount(old_until)));
                    let asked = step.asked(old_until, until);
                    let blocker = Blocker::new(Reason::LimitExceeded, "cost of this request", asked, left);
                    short.push(Short { blocker: Blocker { limit: most_cost, ..blocker }, at_once: true });
                }
                continue;
            }
            let Some(meter) = step.new.meter() else { continue };
            let asked = step.asked(old_until, until);
            let quota = self.quota_policies.get(&step.new.key.quota);
            let Some(limit) = quota.and_then(|quota| quota.limits.get(&meter)).copied() else { continue };
            let taken = self.book.taken(&step.new.key, now);
            let on_the_way = booked.get(&step.new.key).copied().unwrap_or_default();
            let available = limit.saturating_sub(taken).saturating_sub(on_the_way);
            new_rows += usize::from(self.book.get(&step.new.key).is_none());
            if asked > available {
                let reason =
                    if meter.measure.is_timed() { Reason::BudgetExhausted } else { Reason::LimitExceeded };
                let waits = quota.is_some_and(|quota| quota.queue_when_exhausted);
                let at_once = asked > limit || (reason == Reason::BudgetExhausted && !waits);
                let subject = subject(&step.new.key, meter, quota, now);
                let blocker = Blocker { limit, ..Blocker::new(reason, subject, asked, available) };
                short.push(Short { blocker, at_once });
            }
        }
        let rows = self.book.len() + new_rows;
        if new_rows > 0 && rows > MAX_USAGE {
            let (rows, most) = (rows as u64, MAX_USAGE as u64);
            short
                .push(Short { blocker: Blocker::new(Reason::TableFull, "usage", rows, most), at_once: true });
        }
        short
    }
}

/// The meter of a grant's own cost.
pub(super) const OWN_COST: Meter =
    Meter { scope: Scope::Together, measure: Measure::Cost, reset: Reset::Never };

impl Move {
    /// What it takes more than before, of the period that it is charged to.
    fn asked(&self, old_until: LedgerTime, until: LedgerTime) -> u64 {
        let new = self.new.amount(until).saturating_add(self.spent);
        match &self.old {
            Some(old) if old.period == self.new.period => new.saturating_sub(old.amount(old_until)),
            _ => new,
        }
    }
}

/// `cpu-hours of user ada in quota research, resets 2026-11-22 00:00 UTC`.
fn subject(key: &UsageKey, meter: Meter, quota: Option<&Arc<QuotaPolicy>>, now: LedgerTime) -> String {
    let currency = quota.map_or("", |quota| quota.currency.as_str());
    let unit = if meter.measure == Measure::Cost && !currency.is_empty() {
        format!(" ({currency})")
    } else {
        String::new()
    };
    let whose = match meter.scope {
        Scope::Together => String::new(),
        Scope::User => format!(" of user {}", key.who),
        Scope::Run => format!(" of run {}", key.who),
    };
    let resets = meter.reset.told(now);
    let resets = if resets.is_empty() { resets } else { format!(", {resets}") };
    format!("{}{unit}{whose} in quota {}{resets}", meter.measure.name(), key.quota)
}
