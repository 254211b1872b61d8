//! Policy that binds now and then: what an organisation begins with, limits, budgets and rates of users, and rules on what they ask.

use std::collections::BTreeMap;

use plimsoll_client::v1;
use plimsoll_client::v1::policy_object::Object;

use super::wishes::{QUEUES, quotas_of};
use crate::rng::Rng;

/// Quotas that an operator puts, changes and deletes.
pub(super) const QUOTAS: [&str; 6] = ["users", "hours", "runs", "money", "gold", "silver"];
/// The validator that an operator puts and deletes.
pub(super) const VALIDATOR: &str = "small";
/// Rates of the quotas: the first bounds submissions, from the second clients take tokens.
const RATES: [&str; 2] = ["requests", "api"];

fn object(object: Object) -> v1::PolicyObject {
    v1::PolicyObject { object: Some(object) }
}

/// What an organisation begins with: queues that lend to each other, and classes whose grants leave after a short grace.
pub(super) fn founding(rng: &mut Rng) -> Vec<v1::PolicyObject> {
    let class = |name: &str, priority, grace_ms, min_run_ms| {
        let name = name.to_owned();
        let rest = v1::Class::default();
        object(Object::Class(v1::Class { name, priority, preemptible: true, grace_ms, min_run_ms, ..rest }))
    };
    let mut objects = vec![class("batch", 10, 1_500, 0), class("low", 25, 800, 1_000)];
    objects.extend(QUEUES.map(|(name, parent)| {
        let (name, parent) = (name.to_owned(), parent.to_owned());
        let quotas = if parent.is_empty() { Vec::new() } else { quotas_of(rng) };
        object(Object::Queue(v1::Queue { name, parent, quotas, ..Default::default() }))
    }));
    objects
}

fn limit(
    scope: v1::UsageScope,
    measure: v1::UsageMeasure,
    reset: v1::UsageReset,
    limit: u64,
) -> v1::UsageLimit {
    let (scope, measure) = (scope.into(), measure.into());
    let half_life_ms = if reset == v1::UsageReset::Rolling { 5_000 } else { 0 };
    let meter = v1::UsageMeter { scope, measure, reset: reset.into(), half_life_ms };
    v1::UsageLimit { meter: Some(meter), limit }
}

/// One of the quotas. Leases are of seconds, so hours are counted in thousandths.
pub(super) fn quota(rng: &mut Rng) -> v1::PolicyObject {
    use v1::{UsageMeasure as Measure, UsageReset as Reset, UsageScope as Scope};
    let name = rng.pick(&QUOTAS).copied().unwrap_or_default();
    let queue_when_exhausted = rng.percent(50);
    let (mut queue, mut tenant, mut currency) = ("", "", "");
    let mut tier = None;
    let limits = match name {
        "users" => vec![
            limit(Scope::User, Measure::Concurrent, Reset::Live, rng.between(2, 10)),
            limit(Scope::User, Measure::Starts, Reset::Day, rng.between(20, 120)),
        ],
        "hours" => {
            queue = QUEUES[0].0;
            vec![
                limit(Scope::Together, Measure::CpuHours, Reset::Never, rng.between(10_000, 200_000)),
                limit(Scope::User, Measure::GpuHours, Reset::Rolling, rng.between(2_000, 20_000)),
            ]
        }
        "runs" => vec![
            limit(Scope::Run, Measure::Starts, Reset::Month, rng.between(5, 30)),
            limit(Scope::Run, Measure::MemoryHours, Reset::Day, rng.between(5_000, 100_000)),
        ],
        "gold" | "silver" => {
            // Who is in both is in the one of the higher rank, and of two alike in gold.
            let users: &[&str] = if name == "gold" { &["ada", "gr*"] } else { &["a*", "*"] };
            let users = users.iter().map(|user| (*user).to_owned()).collect();
            let rank = u32::try_from(rng.between(1, 3)).unwrap_or(1);
            tier = Some(v1::UsageTier { group: "plan".to_owned(), rank, users });
            vec![
                limit(Scope::User, Measure::Concurrent, Reset::Live, rng.between(2, 12)),
                limit(Scope::User, Measure::CpuHours, Reset::Day, rng.between(2_000, 50_000)),
            ]
        }
        _ => {
            (tenant, currency) = ("a*", "EUR");
            vec![limit(Scope::User, Measure::Cost, Reset::Month, rng.between(500, 20_000))]
        }
    };
    let mut rates = BTreeMap::new();
    for (name, percent) in RATES.iter().zip([15, 80]) {
        if rng.percent(percent) {
            let (tokens, burst) = (rng.between(1, 6), rng.between(2, 12));
            rates.insert((*name).to_owned(), v1::UsageRate { tokens, period_ms: 1_000, burst });
        }
    }
    object(Object::Quota(v1::UsageQuota {
        name: name.to_owned(),
        queue: queue.to_owned(),
        tenant: tenant.to_owned(),
        currency: currency.to_owned(),
        limits,
        tier,
        queue_when_exhausted,
        rates: rates.into_iter().collect(),
        ..Default::default()
    }))
}

/// A quota of this name that limits nothing.
pub(super) fn no_quota(name: &str) -> v1::PolicyObject {
    object(Object::Quota(v1::UsageQuota { name: name.to_owned(), ..Default::default() }))
}

/// A rule on what is asked, or on queues; now and then one that makes no sense.
pub(super) fn validator(rng: &mut Rng) -> v1::PolicyObject {
    let rules = [
        ("Reservation", "request.cpu <= 3 || request.class == 'high'"),
        ("Reservation", "request.gpu <= 1 && request.members < 4"),
        ("Queue", "queue.cpu <= 4"),
        ("Reservation", "request.nothing > 4Gi"),
    ];
    let (subject, expression) =
        rng.weighted(&[(4, rules[0]), (3, rules[1]), (2, rules[2]), (1, rules[3])]).unwrap_or(rules[0]);
    let rule = v1::ValidatorRule { expression: expression.to_owned(), ..Default::default() };
    object(Object::Validator(v1::Validator {
        name: VALIDATOR.to_owned(),
        subject: subject.to_owned(),
        rules: vec![rule],
        ..Default::default()
    }))
}

/// Prices of the default pool, and what they are counted in: no clusters counts in two currencies.
pub(super) fn prices(rng: &mut Rng) -> (Vec<(String, u64)>, String) {
    if rng.percent(40) {
        return Default::default();
    }
    let price = |name: &str, micros: u64| (name.to_owned(), micros);
    (vec![price("cpu", 40_000), price("gpu", 2_500_000), price("memory", 5_000)], "EUR".to_owned())
}

/// Tokens of a rate that may be there: mostly few, now and then more than there ever are.
pub(super) fn take(rng: &mut Rng) -> v1::TokenTake {
    let quota = rng.pick(&QUOTAS).copied().unwrap_or_default().to_owned();
    let rate = if rng.percent(90) { RATES[1] } else { RATES[0] }.to_owned();
    let scope = if rng.percent(70) { String::new() } else { "ada".to_owned() };
    let tokens = rng.weighted(&[(6, 1), (3, 2), (1, 13)]).unwrap_or(1);
    v1::TokenTake { quota, rate, scope, tokens }
}
