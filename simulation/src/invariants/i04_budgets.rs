//! I4 of limits and budgets, and I8: a grant is charged on every meter that counts it, by arithmetic of this file's own; no meter is taken beyond its
//! limit by what grows it; what ends gives back what it had committed, once, and what it used stays spent.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_ledger::{
    Charge, Measure, Meter, Node, QuotaPolicy, Reservation, Reset, Scope, Usage, UsageKey, UsageOf,
    matches_pattern,
};
use plimsoll_types::LedgerTime;

use super::{Findings, Invariant, is_of_tier, members_take};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Budgets;

const HOUR_MS: u128 = 3_600_000;

impl Invariant for Budgets {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let (before, after) = (&step.before.book, &step.after.book);
        let keys: BTreeSet<&UsageKey> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let UsageOf::Meter(meter) = key.of else { continue };
            let (old, new) = (before.get(key), after.get(key));
            let same = matches!((old, new), (Some(old), Some(new)) if Arc::ptr_eq(old, new));
            let Some(quota) = step.after.quotas.get(&key.quota).filter(|_| !same) else { continue };
            let row = Row { step, key, meter, old, new };
            for (invariant, wrong) in row.overrun(quota).into_iter().chain(row.unbalanced()) {
                findings.add(invariant, step.revision, format!("{key:?}: {wrong}"));
            }
        }
        for (before, after) in step.moved() {
            let granted = after.token == step.revision && before.is_none_or(|one| one.token != after.token);
            if granted && let Some(wrong) = uncharged(step, after) {
                findings.add("I4", step.revision, format!("{} was granted and {wrong}", after.id));
            }
            if after.tab.is_some() && !after.state.is_occupying() {
                let detail = format!("{} is {} and has a tab", after.id, after.state.name());
                findings.add("I8", step.revision, detail);
            }
            let most = after.request.max_cost_micros;
            if most > 0 && after.cost_micros > most {
                let detail = format!("{} cost {} of {most}", after.id, after.cost_micros);
                findings.add("I4", step.revision, detail);
            }
        }
    }
}

/// A row of the book that changed in a step, came or went.
struct Row<'a> {
    step: &'a Step,
    key: &'a UsageKey,
    meter: Meter,
    old: Option<&'a Arc<Usage>>,
    new: Option<&'a Arc<Usage>>,
}

impl Row<'_> {
    fn at(&self, row: Option<&Arc<Usage>>) -> Option<Usage> {
        row.map(|row| row.at(self.step.after.log_time))
    }

    /// More than before, and more than there may be.
    fn overrun(&self, quota: &QuotaPolicy) -> Option<(&'static str, String)> {
        let limit = *quota.limits.get(&self.meter)?;
        let was = self.at(self.old).map_or(0, |row| row.taken());
        let taken = self.at(self.new)?.taken();
        (taken > was && taken > limit).then(|| ("I4", format!("{taken} of {limit}, before {was}")))
    }

    /// What is committed moves by what the tabs do; what ended is spent as far as it was used.
    fn unbalanced(&self) -> Vec<(&'static str, String)> {
        let now = self.step.after.log_time;
        let present = self.meter.reset.period(now);
        let (mut committed, mut used, mut goes_on) = (0, 0, false);
        for (before, after) in self.step.moved() {
            let of = |one: &Reservation| -> Option<(Charge, LedgerTime)> {
                let tab = one.tab.as_ref()?;
                let mine = |charge: &&Charge| charge.key == *self.key && charge.period == present;
                tab.charges.iter().find(mine).map(|charge| (charge.clone(), tab.until))
            };
            if let Some((charge, until)) = of(after) {
                committed += amount(&charge, until);
                goes_on = true;
            }
            if let Some((charge, until)) = before.and_then(|before| of(before)) {
                committed -= amount(&charge, until);
                let live = self.meter.reset == Reset::Live;
                used += if live { 0 } else { amount(&charge, now.min(until).max(charge.from)) };
            }
        }
        let numbers = |row: Option<Usage>| row.map_or((0, 0), |row| (row.spent, row.committed));
        let ((spent_then, then), (spent_now, now)) = (numbers(self.at(self.old)), numbers(self.at(self.new)));
        let mut wrong = Vec::new();
        if i128::from(now) - i128::from(then) != committed {
            wrong.push(("I8", format!("committed {then}, then {now}, and tabs changed by {committed}")));
        }
        let spent = i128::from(spent_now) - i128::from(spent_then);
        // What fades is rounded as it does.
        if !matches!(self.meter.reset, Reset::Rolling(_)) && !goes_on && spent != used {
            wrong.push(("I8", format!("spent {spent_then}, then {spent_now}, and {used} was used")));
        }
        wrong
    }
}

/// Taken by a charge up to a moment.
fn amount(charge: &Charge, until: LedgerTime) -> i128 {
    i128::from(charge.flat) + by_time(charge.per_hour, until.0.saturating_sub(charge.from.0))
}

fn by_time(per_hour: u64, length_ms: u64) -> i128 {
    let product = u128::from(per_hour) * u128::from(length_ms);
    i128::try_from(product.div_ceil(HOUR_MS)).unwrap_or(i128::MAX)
}

/// What is missing or wrong on the tab of a new grant.
fn uncharged(step: &Step, granted: &Reservation) -> Option<String> {
    let request = &granted.request;
    let user = if request.tenant.is_empty() { &granted.requester } else { &request.tenant };
    let path = path(&step.after, &request.queue);
    let about = |quota: &&Arc<QuotaPolicy>| {
        (quota.queue.is_empty() || path.contains(&quota.queue.as_str()))
            && (quota.tenant.is_empty() || matches_pattern(&quota.tenant, user))
            && is_of_tier(&step.after, quota, user)
    };
    // What was asked is paid for: a window that cuts a grant, or an advance reservation that starts late, changes nothing of that.
    let length_ms = match (request.max_duration_ms, granted.state) {
        (0, plimsoll_ledger::State::Held) => request.hold_ms + granted.ttl_ms,
        (0, _) => granted.ttl_ms,
        (longest_ms, _) => longest_ms,
    };
    for quota in step.after.quotas.values().filter(about) {
        for meter in quota.limits.keys() {
            let who = match meter.scope {
                Scope::Together => String::new(),
                Scope::User => user.clone(),
                Scope::Run => match request.labels.get("run").or_else(|| request.labels.get("pipeline")) {
                    Some(run) => run.clone(),
                    None => continue,
                },
            };
            let (flat, per_hour) = price(&step.after, granted, meter.measure);
            let per_hour = at_price(&step.after, granted, meter.measure, per_hour);
            let expected = flat + by_time(multiplied(&step.after, granted, per_hour), length_ms);
            let mine = |charge: &&Charge| {
                charge.key.quota == quota.name
                    && charge.key.of == UsageOf::Meter(*meter)
                    && charge.key.who == who
            };
            let tab = granted.tab.as_ref();
            let charged = tab
                .and_then(|tab| Some((tab.charges.iter().find(mine)?, tab.until)))
                .map_or(0, |(charge, until)| amount(charge, until));
            if charged != expected {
                let meter = meter.measure.name();
                return Some(format!("charged {charged} {meter} of quota {}, not {expected}", quota.name));
            }
        }
    }
    None
}

/// What the nodes of a grant make of money: those that cost less, on average. Older ledgers do not look, and have nodes that say nothing of it.
fn at_price(picture: &Picture, granted: &Reservation, measure: Measure, per_hour: u64) -> u64 {
    let says = |node: &Arc<Node>| node.registration.labels.contains_key("capacity_type");
    if measure != Measure::Cost || !picture.nodes.values().all(says) || granted.members.is_empty() {
        return per_hour;
    }
    let nodes = granted.members.iter().filter_map(|member| picture.nodes.get(&member.node));
    let price = |node: &Arc<Node>| node.registration.labels.get("price_permille")?.parse::<u64>().ok();
    let sum: u64 = nodes.map(|node| price(node).unwrap_or(1_000)).sum();
    let mean = u128::from(sum.div_ceil(granted.members.len() as u64));
    u64::try_from((u128::from(per_hour) * mean).div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// What the class of a grant makes of it.
fn multiplied(picture: &Picture, granted: &Reservation, per_hour: u64) -> u64 {
    let class = picture.classes.get(&granted.request.class);
    let thousandths = class.and_then(|class| class.multiplier_milli).map_or(1_000, u128::from);
    u64::try_from((u128::from(per_hour) * thousandths).div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// A queue and all above it.
fn path<'a>(picture: &'a Picture, queue: &'a str) -> Vec<&'a str> {
    let first = picture.queues.get(queue);
    let up = std::iter::successors(first, |queue| picture.queues.get(&queue.parent));
    up.map(|queue| queue.name.as_str()).collect()
}

/// What a grant takes of a measure: at once, and in an hour in millionths.
fn price(picture: &Picture, granted: &Reservation, measure: Measure) -> (i128, u64) {
    let amounts = |name: &str| members_take(granted, name, |_| true) as u64;
    let milli: u64 =
        granted.members.iter().flat_map(|member| &member.devices).map(|grant| u64::from(grant.milli)).sum();
    let total = |name: &str| match name {
        "gpu" => amounts(name) + milli,
        _ => amounts(name),
    };
    let of = |name: &str, micros: u64| {
        let whole: u128 = match name {
            "cpu" | "gpu" => 1_000,
            "memory" => 1 << 30,
            _ => 1,
        };
        u64::try_from((u128::from(total(name)) * u128::from(micros)).div_ceil(whole)).unwrap_or(u64::MAX)
    };
    match measure {
        Measure::Concurrent | Measure::Starts => (1, 0),
        // Nobody asks for storage here.
        Measure::Storage => (0, 0),
        Measure::CpuHours => (0, of("cpu", 1_000_000)),
        Measure::GpuHours => (0, of("gpu", 1_000_000)),
        Measure::MemoryHours => (0, of("memory", 1_000_000)),
        Measure::Cost => {
            let pool = picture.pools.get(&granted.request.pool);
            let prices = pool.into_iter().flat_map(|pool| &pool.prices);
            (0, prices.map(|(name, micros)| of(name, *micros)).sum())
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Tab, Tier};
    use plimsoll_types::Revision;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    const METER: Meter = Meter { scope: Scope::Together, measure: Measure::CpuHours, reset: Reset::Never };

    fn key() -> UsageKey {
        UsageKey { quota: "hours".to_owned(), of: UsageOf::Meter(METER), who: String::new() }
    }

    fn row(spent: u64, committed: u64) -> Arc<Usage> {
        Arc::new(Usage { key: key(), period: 0, spent, committed, stamp: LedgerTime(0) })
    }

    /// A grant of one core for a minute, of which this is on its tab, and this in the book, with this limit.
    fn granted(per_hour: u64, committed: u64, limit: u64) -> Step {
        let mut one = reservation(1);
        let charge = Charge { key: key(), period: 0, from: LedgerTime(1_000), per_hour, flat: 0 };
        one.tab = Some(Arc::new(Tab { until: LedgerTime(61_000), charges: vec![charge] }));
        let mut step = step(&[node(0)], &[one]);
        let after = step.after_mut();
        let limits = [(METER, limit)].into();
        let quota = QuotaPolicy { name: "hours".to_owned(), limits, ..QuotaPolicy::default() };
        after.quotas.insert("hours".to_owned(), Arc::new(quota));
        after.book.insert(key(), row(0, committed));
        step
    }

    #[test]
    fn a_grant_that_is_charged_too_little_is_found_and_so_is_one_beyond_the_limit() {
        assert_eq!(found(&mut Budgets, &granted(1_000_000, 16_667, 16_667)), Vec::<&str>::new());
        assert_eq!(found(&mut Budgets, &granted(1_000_000, 16_667, 16_666)), ["I4"]);
        assert_eq!(found(&mut Budgets, &granted(500_000, 8_334, 16_667)), ["I4"], "half the price");
        assert_eq!(found(&mut Budgets, &granted(1_000_000, 16_666, 16_667)), ["I8"], "one is forgotten");
    }

    #[test]
    fn a_grant_that_is_charged_to_a_lower_tier_of_its_user_is_found() {
        let tiers = |rank: u32, other: u32, users: &str| {
            let mut step = granted(1_000_000, 16_667, 16_667);
            let tier = |rank, users: &str| {
                let (group, users) = ("plan".to_owned(), vec![users.to_owned()]);
                Some(Tier { group, rank, users })
            };
            let hours = QuotaPolicy { tier: tier(rank, "*"), ..(*step.after.quotas["hours"]).clone() };
            let limits = [(METER, 1)].into();
            let (name, tier) = ("limited".to_owned(), tier(other, users));
            let limited = QuotaPolicy { name, tier, limits, ..QuotaPolicy::default() };
            for quota in [hours, limited] {
                step.after_mut().quotas.insert(quota.name.clone(), Arc::new(quota));
            }
            found(&mut Budgets, &step)
        };
        assert_eq!(tiers(2, 1, "ada"), Vec::<&str>::new());
        assert_eq!(tiers(1, 2, "ada"), ["I4"], "the higher one has no charge");
        assert_eq!(tiers(1, 2, "alan"), Vec::<&str>::new(), "it names another");
        assert_eq!(tiers(1, 1, "ada"), Vec::<&str>::new(), "hours comes first by name");
    }

    #[test]
    fn what_an_end_does_not_give_back_is_found_and_so_is_what_it_does_not_leave_spent() {
        let ended = |spent: u64, committed: u64| {
            let mut step = granted(1_000_000, 16_667, 20_000);
            step.before = step.after.clone();
            step.revision = Revision(11);
            let mut over = reservation(1);
            over.state = plimsoll_ledger::State::Released;
            let after = step.after_mut();
            after.log_time = LedgerTime(37_000);
            after.reservations.insert(over.id, Arc::new(over));
            after.book.insert(key(), row(spent, committed));
            found(&mut Budgets, &step)
        };
        assert_eq!(ended(10_000, 0), Vec::<&str>::new());
        assert_eq!(ended(10_000, 1), ["I8"]);
        assert_eq!(ended(9_999, 0), ["I8"]);
    }
}
