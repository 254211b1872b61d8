//! Quotas of users, what is counted of them, and what a grant has on its tab.

use plimsoll_ledger::{
    Charge, Measure, Meter, QuotaPolicy, Rate, Reset, Scope, Tab, Tier, Usage, UsageKey, UsageOf,
};
use plimsoll_types::{LedgerTime, Revision};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::{amount, labels, name, number};

/// Meters that make sense.
fn meter() -> impl Strategy<Value = Meter> {
    let scope = select(vec![Scope::Together, Scope::User, Scope::Run]);
    let measure = select(Measure::NAMED.map(|(_, measure)| measure).to_vec());
    let reset = prop_oneof![
        Just(Reset::Day),
        Just(Reset::Month),
        Just(Reset::Never),
        (1_000..1_000_000_000u64).prop_map(Reset::Rolling)
    ];
    (scope, measure, reset).prop_map(|(scope, measure, reset)| {
        Meter::new(scope, measure, if measure.is_live() { Reset::Live } else { reset })
    })
}

pub(super) fn quota() -> impl Strategy<Value = QuotaPolicy> {
    let rate = (1..1_000_000u64, 1..1_000_000u64, 1..1_000_000u64)
        .prop_map(|(tokens, period_ms, burst)| Rate { tokens, period_ms, burst });
    let queue = prop_oneof![Just(String::new()), name()];
    let limits = btree_map(meter(), amount(), 0..5);
    let rates = btree_map("[a-z/]{1,8}", rate, 0..3);
    let tier = ("[a-z]{0,4}", any::<u32>(), vec("[a-z*]{1,5}", 1..4));
    let tier = tier.prop_map(|(group, rank, users)| Tier { group, rank, users });
    let whom = prop_oneof![
        2 => (queue, "[a-z*]{0,5}").prop_map(|(queue, tenant)| (queue, tenant, None)),
        1 => tier.prop_map(|tier| (String::new(), String::new(), Some(tier))),
    ];
    (name(), labels(), whom, limits, (any::<bool>(), "[A-Z]{0,3}", rates)).prop_map(
        |(name, labels, (queue, tenant, tier), limits, (queue_when_exhausted, currency, rates))| {
            QuotaPolicy {
                name,
                labels,
                queue,
                tenant,
                tier,
                limits,
                queue_when_exhausted,
                currency,
                rates,
                changed: Revision(0),
            }
        },
    )
}

pub(crate) fn usage_key() -> impl Strategy<Value = UsageKey> {
    let of = prop_oneof![meter().prop_map(UsageOf::Meter), "[a\u{0}\u{1}b]{0,4}".prop_map(UsageOf::Rate)];
    ("[a\u{0}\u{1}b]{0,4}", of, "[a\u{0}b]{0,4}").prop_map(|(quota, of, who)| UsageKey { quota, of, who })
}

pub(super) fn usage() -> impl Strategy<Value = Usage> {
    (usage_key(), [(); 4].map(|()| number())).prop_map(|(key, [period, spent, committed, stamp])| Usage {
        key,
        period,
        spent,
        committed,
        stamp: LedgerTime(stamp),
    })
}

pub(super) fn tab() -> impl Strategy<Value = Tab> {
    let charges = btree_map(usage_key(), [(); 4].map(|()| number()), 0..3);
    (number(), charges).prop_map(|(until, charges)| Tab {
        until: LedgerTime(until),
        charges: charges
            .into_iter()
            .map(|(key, [period, from, per_hour, flat])| Charge {
                key,
                period,
                from: LedgerTime(from),
                per_hour,
                flat,
            })
            .collect(),
    })
}
