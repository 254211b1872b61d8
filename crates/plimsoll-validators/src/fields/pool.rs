//! Pools.

use plimsoll_expr::{Unit, Value};
use plimsoll_ledger::{ClassOrder, Elasticity, Fairness, Pool, Preemption, QueueOrder, Strategy};

use super::{Field, flag, labels, list, micros, number, numbers, text, texts, word, words};

const ORDERS: [(&str, QueueOrder); 2] =
    [("best_effort_fifo", QueueOrder::BestEffortFifo), ("strict_fifo", QueueOrder::StrictFifo)];
const FAIRNESS: [(&str, Fairness); 5] = [
    ("priority", Fairness::Priority),
    ("fair", Fairness::Fair),
    ("quota", Fairness::Quota),
    ("weighted", Fairness::Weighted),
    ("fair_tree", Fairness::FairTree),
];
const PREEMPTION: [(&str, Preemption); 4] = [
    ("any", Preemption::Any),
    ("never", Preemption::Never),
    ("lower_class", Preemption::LowerClass),
    ("reclaim", Preemption::Reclaim),
];
const CLASS_ORDERS: [(&str, ClassOrder); 2] =
    [("strict", ClassOrder::Strict), ("weighted", ClassOrder::Weighted)];

pub(super) fn fields() -> Vec<Field<Pool>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        words("labels", |of| labels(&of.labels)),
        text("strategy", |of| word(&Strategy::NAMED, &of.strategy)),
        text("queue_order", |of| word(&ORDERS, &of.queue_order)),
        text("queueing", |of| Value::text(of.discipline_name())),
        text("fairness", |of| word(&FAIRNESS, &of.fairness)),
        text("class_order", |of| word(&CLASS_ORDERS, &of.class_order)),
        text("preemption", |of| word(&PREEMPTION, &of.preemption)),
        number("max_preemptions_per_hour", Unit::Plain, |of| {
            Value::count(of.max_preemptions_per_hour.into())
        }),
        number("price", Unit::Plain, |of| {
            Value::milli(if of.price_milli == 0 { 1_000 } else { of.price_milli.into() })
        }),
        numbers("prices", |of| {
            Value::object(of.prices.iter().map(|(name, price)| (name.to_string(), micros(*price))))
        }),
        text("currency", |of| Value::text(&of.currency)),
        number("max_pending", Unit::Plain, |of| Value::count(of.max_pending.into())),
        number("starvation_bound", Unit::Seconds, |of| Value::milli(of.starvation_bound().unwrap_or(0))),
        number("rebalance_interval", Unit::Seconds, |of| Value::milli(of.rebalance_interval_ms)),
        numbers("countables", |of| {
            let named = of.countables.iter();
            Value::object(named.map(|(name, amount)| (name.to_string(), Value::count(amount.0))))
        }),
        numbers("oversubscription", |of| {
            let named = of.oversubscription.iter();
            Value::object(named.map(|(name, milli)| (name.to_string(), Value::milli((*milli).into()))))
        }),
        list("topology", |of| texts(&of.topology)),
        text("elasticity", |of| word(&Elasticity::NAMED, &of.elastic.elasticity)),
        number("min_nodes", Unit::Plain, |of| Value::count(of.elastic.min_nodes.into())),
        number("max_nodes", Unit::Plain, |of| Value::count(of.elastic.max_nodes.into())),
        flag("has_spot_policy", |of| Value::Bool(of.spot.is_some())),
        number("spot_share", Unit::Ratio, |of| {
            Value::milli(of.spot.as_ref().map_or(1_000, |spot| spot.share_permille.into()))
        }),
        number("power_budget_watts", Unit::Plain, |of| Value::count(of.power_budget_watts)),
    ]
}
