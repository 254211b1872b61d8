//! Objects to documents: the canonical form, which [`crate::parse`] reads back to equal objects.
//!
//! Keys stand in a fixed order, maps are sorted, quantities are in their canonical form. What is at its default is left
//! out, except for the choices that a reader looks for: strategy, queue order, priority, preemptible.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Class, ClassOrder, ContentionPolicy, Elastic, Elasticity, Fairness, GPU, NodeLimits, Overflow,
    PolicyObject, Pool, Preemption, Queue, QueueDiscipline, QueueOrder, Quota, Schedule, Service, Severity,
    Validator,
};
use plimsoll_proto::convert::{
    balancing_to_v1, class_order_to_v1, elasticity_to_v1, fairness_to_v1, preemption_to_v1, qos_to_v1,
    resolve_to_v1, severity_to_v1, strategy_to_v1,
};
use plimsoll_proto::v1;
use plimsoll_types::quantity::{format_cpu_millis, format_duration_ms, format_resource};
use plimsoll_types::{Operator, Resources, Selector, Term};
use serde_json::{Map, Value, json};

use crate::document::API_VERSION;
use crate::kinds::class::{NOW, QOS};
use crate::kinds::elastic::ELASTICITY;
use crate::kinds::pool::{CLASS_ORDERS, FAIRNESS, PREEMPTION, QUEUE_ORDERS, RESOLVE, SEVERITIES, STRATEGIES};
use crate::kinds::service::balancing;
use crate::label::kind_word;
use crate::variables::escaped;
use crate::write_quota::{prices, quota_parts};
use crate::write_scaling::scaling_parts;
use crate::write_spot::spot_part;

/// Documents of one file, separated by `---`.
pub fn to_yaml<'a>(objects: impl IntoIterator<Item = &'a PolicyObject>) -> String {
    let documents: Vec<String> = objects.into_iter().map(|object| yaml(&to_document(object))).collect();
    documents.join("---\n")
}

/// One object as a document; its revision is no part of it.
pub fn to_document(object: &PolicyObject) -> Value {
    let (metadata, spec) = match object {
        PolicyObject::Pool(pool) => pool_parts(pool),
        PolicyObject::Class(class) => class_parts(class),
        PolicyObject::NodeLimits(limits) => limits_parts(limits),
        PolicyObject::Queue(queue) => queue_parts(queue),
        PolicyObject::Quota(quota) => quota_parts(quota),
        PolicyObject::Validator(object) => validator_parts(object),
        PolicyObject::Schedule(schedule) => schedule_parts(schedule),
        PolicyObject::Service(service) => service_parts(service),
        PolicyObject::ScalingPolicy(policy) => scaling_parts(policy),
    };
    let kind = kind_word(&object.name());
    escaped(json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec }))
}

fn pool_parts(pool: &Pool) -> (Value, Value) {
    let mut metadata = json!({ "name": pool.name });
    if !pool.labels.is_empty() {
        metadata["labels"] = json!(pool.labels);
    }
    let mut spec = Map::new();
    insert_select(&mut spec, &pool.select);
    spec.insert("strategy".to_owned(), json!(word(&STRATEGIES, strategy_to_v1(pool.strategy))));
    if !pool.countables.is_empty() {
        spec.insert(
            "countables".to_owned(),
            amounts(pool.countables.iter().map(|(name, amount)| (name.as_str(), amount.0))),
        );
    }
    let order = match pool.queue_order {
        QueueOrder::BestEffortFifo => v1::QueueOrder::BestEffortFifo,
        QueueOrder::StrictFifo => v1::QueueOrder::StrictFifo,
    };
    spec.insert("queueOrder".to_owned(), json!(word(&QUEUE_ORDERS, order)));
    if pool.max_pending > 0 {
        spec.insert("maxPending".to_owned(), json!(pool.max_pending));
    }
    if pool.fairness != Fairness::default() {
        spec.insert("fairness".to_owned(), json!(word(&FAIRNESS, fairness_to_v1(pool.fairness))));
    }
    if pool.price_milli > 0 {
        spec.insert("price".to_owned(), number(format_cpu_millis(pool.price_milli.into())));
    }
    if pool.preemption != Preemption::default() {
        spec.insert("preemption".to_owned(), json!(word(&PREEMPTION, preemption_to_v1(pool.preemption))));
    }
    if pool.max_preemptions_per_hour > 0 {
        spec.insert("maxPreemptionsPerHour".to_owned(), json!(pool.max_preemptions_per_hour));
    }
    if !pool.prices.is_empty() {
        spec.insert("prices".to_owned(), prices(&pool.prices));
    }
    if !pool.currency.is_empty() {
        spec.insert("currency".to_owned(), json!(pool.currency));
    }
    if !pool.topology.is_empty() {
        spec.insert("topology".to_owned(), json!(pool.topology));
    }
    if pool.queueing != QueueDiscipline::default() {
        spec.insert("queueing".to_owned(), json!(pool.queueing.to_string()));
    }
    if pool.starvation_bound_ms > 0 {
        spec.insert("starvationBound".to_owned(), json!(format_duration_ms(pool.starvation_bound_ms)));
    }
    if pool.rebalance_interval_ms > 0 {
        spec.insert("rebalanceInterval".to_owned(), json!(format_duration_ms(pool.rebalance_interval_ms)));
    }
    if !pool.oversubscription.is_empty() {
        let ratios = pool.oversubscription.iter();
        let ratio = |(name, permille): (&String, &u32)| match permille % 1_000 {
            0 => (name.clone(), json!(permille / 1_000)),
            _ => (name.clone(), json!(f64::from(*permille) / 1_000.0)),
        };
        spec.insert("oversubscription".to_owned(), json!(ratios.map(ratio).collect::<BTreeMap<_, _>>()));
    }
    if let Some(policy) = &pool.contention {
        spec.insert("contention".to_owned(), contention(policy));
    }
    elastic_parts(&pool.elastic, &mut spec);
    spot_part(pool.spot.as_ref(), &mut spec);
    if pool.class_order != ClassOrder::default() {
        spec.insert("classOrder".to_owned(), json!(word(&CLASS_ORDERS, class_order_to_v1(pool.class_order))));
    }
    if let Some(weights) = &pool.priority_weights {
        let mut block = json!({
            "age": weights.age,
            "maxAge": format_duration_ms(weights.max_age_ms),
            "size": weights.size,
            "fairShare": weights.fair_share,
            "qos": weights.qos,
        });
        if !weights.resources.is_empty() {
            block["resources"] = json!(weights.resources);
        }
        spec.insert("priorityWeights".to_owned(), block);
    }
    if pool.half_life_ms > 0 {
        spec.insert("halfLife".to_owned(), json!(format_duration_ms(pool.half_life_ms)));
    }
    if pool.power_budget_watts > 0 {
        spec.insert("powerBudget".to_owned(), json!(pool.power_budget_watts));
    }
    (metadata, Value::Object(spec))
}

fn contention(policy: &ContentionPolicy) -> Value {
    let resolve: Vec<&str> = policy.resolve.iter().map(|kind| word(&RESOLVE, resolve_to_v1(*kind))).collect();
    let mut block = json!({ "resolve": resolve });
    if policy.after_ms > 0 {
        block["after"] = json!(format_duration_ms(policy.after_ms));
    }
    if policy.from != Severity::default() {
        block["from"] = json!(word(&SEVERITIES, severity_to_v1(policy.from)));
    }
    block
}

/// What a pool says of how its nodes come and go, where it says something.
fn elastic_parts(elastic: &Elastic, spec: &mut Map<String, Value>) {
    if elastic.elasticity != Elasticity::default() {
        spec.insert("elasticity".to_owned(), json!(word(&ELASTICITY, elasticity_to_v1(elastic.elasticity))));
    }
    let numbers = [
        ("minNodes", elastic.min_nodes),
        ("maxNodes", elastic.max_nodes),
        ("growthNodes", elastic.growth_nodes),
    ];
    for (key, value) in numbers.into_iter().filter(|(_, value)| *value > 0) {
        spec.insert(key.to_owned(), json!(value));
    }
    let times = [("growthPeriod", elastic.growth_ms), ("idleTimeout", elastic.idle_timeout_ms)];
    for (key, value) in times.into_iter().filter(|(_, value)| *value > 0) {
        spec.insert(key.to_owned(), json!(format_duration_ms(value)));
    }
    match elastic.fragmentation_permille {
        0 => {}
        permille if permille % 10 == 0 => {
            spec.insert("fragmentationThreshold".to_owned(), json!(format!("{}%", permille / 10)));
        }
        permille => {
            spec.insert("fragmentationThreshold".to_owned(), number(format_cpu_millis(permille.into())));
        }
    }
}

fn queue_parts(queue: &Queue) -> (Value, Value) {
    let mut metadata = json!({ "name": queue.name });
    if !queue.labels.is_empty() {
        metadata["labels"] = json!(queue.labels);
    }
    let mut spec = Map::new();
    if !queue.parent.is_empty() {
        spec.insert("parent".to_owned(), json!(queue.parent));
    }
    if queue.weight_milli != Queue::default().weight_milli {
        spec.insert("weight".to_owned(), number(format_cpu_millis(queue.weight_milli.into())));
    }
    if !queue.quotas.is_empty() {
        let pools = queue.quotas.iter().map(|(pool, quotas)| {
            let quotas =
                quotas.iter().map(|(resource, quota)| (resource.clone(), quota_value(resource, quota)));
            (pool.clone(), json!(quotas.collect::<BTreeMap<String, Value>>()))
        });
        spec.insert("quotas".to_owned(), json!(pools.collect::<BTreeMap<String, Value>>()));
    }
    if queue.max_pending > 0 {
        spec.insert("maxPending".to_owned(), json!(queue.max_pending));
    }
    if !queue.admins.is_empty() {
        spec.insert("admins".to_owned(), json!(queue.admins));
    }
    if let Some(batch) = queue.batch {
        let block = json!({ "size": batch.size, "interval": format_duration_ms(batch.interval_ms) });
        spec.insert("batch".to_owned(), block);
    }
    if queue.overflow != Overflow::Reject {
        spec.insert("overflow".to_owned(), json!(queue.overflow.name()));
    }
    if queue.guaranteed_processing {
        spec.insert("guaranteedProcessing".to_owned(), json!(true));
    }
    spot_part(queue.spot.as_ref(), &mut spec);
    (metadata, Value::Object(spec))
}

/// The parts that say something; the nominal amount always.
fn quota_value(resource: &str, quota: &Quota) -> Value {
    let amount = |amount: u64| {
        number(if resource == GPU { format_cpu_millis(amount) } else { format_resource(resource, amount) })
    };
    let mut value = Map::new();
    if !quota.guaranteed.is_zero() {
        value.insert("guaranteed".to_owned(), amount(quota.guaranteed.0));
    }
    value.insert("nominal".to_owned(), amount(quota.nominal.0));
    if let Some(limit) = quota.limit {
        value.insert("limit".to_owned(), amount(limit.0));
    }
    Value::Object(value)
}

fn validator_parts(object: &Validator) -> (Value, Value) {
    let mut spec = Map::new();
    spec.insert("for".to_owned(), json!(object.subject));
    let mut places = Map::new();
    for (key, names) in [("pool", &object.pools), ("queue", &object.queues)] {
        if !names.is_empty() {
            places.insert(key.to_owned(), json!(names));
        }
    }
    if !places.is_empty() {
        spec.insert("match".to_owned(), Value::Object(places));
    }
    let rules = object.rules.iter().map(|rule| {
        let mut value = json!({ "expression": rule.expression });
        for (key, text) in [("message", &rule.message), ("path", &rule.path)] {
            if !text.is_empty() {
                value[key] = json!(text);
            }
        }
        value
    });
    spec.insert("rules".to_owned(), rules.collect());
    (json!({ "name": object.name }), Value::Object(spec))
}

fn schedule_parts(schedule: &Schedule) -> (Value, Value) {
    let mut metadata = json!({ "name": schedule.name });
    if !schedule.labels.is_empty() {
        metadata["labels"] = json!(schedule.labels);
    }
    let mut spec = Map::new();
    spec.insert("pool".to_owned(), json!(schedule.pool));
    spec.insert("resources".to_owned(), kept_amounts(&schedule.resources));
    spec.insert("window".to_owned(), json!(schedule.rule));
    let users = &schedule.users;
    for (key, patterns) in [
        ("pipelines", &users.pipelines),
        ("queues", &users.queues),
        ("tenants", &users.tenants),
        ("classes", &users.classes),
    ] {
        if !patterns.is_empty() {
            spec.insert(key.to_owned(), json!(patterns));
        }
    }
    if schedule.shorten {
        spec.insert("shorten".to_owned(), json!(true));
    }
    (metadata, Value::Object(spec))
}

/// What is kept of a pool: devices as people count them.
fn kept_amounts(kept: &Resources) -> Value {
    let amount = |resource: &str, amount: u64| {
        number(if resource == GPU { format_cpu_millis(amount) } else { format_resource(resource, amount) })
    };
    let kept = kept.iter().map(|(name, kept)| (name.to_owned(), amount(name, kept.0)));
    json!(kept.collect::<BTreeMap<String, Value>>())
}

fn service_parts(service: &Service) -> (Value, Value) {
    let mut metadata = json!({ "name": service.name });
    if !service.labels.is_empty() {
        metadata["labels"] = json!(service.labels);
    }
    let mut spec = json!({
        "pool": service.pool,
        "class": service.class,
        "balancing": word(&balancing(), balancing_to_v1(service.balancing)),
    });
    if service.load_bound_permille > 0 {
        spec["loadBound"] = json!(f64::from(service.load_bound_permille) / 1_000.0);
    }
    if service.subset_size > 0 {
        spec["subset"] = json!(service.subset_size);
    }
    if service.slow_start_ms > 0 {
        spec["slowStart"] = json!(format_duration_ms(service.slow_start_ms));
    }
    (metadata, spec)
}

fn class_parts(class: &Class) -> (Value, Value) {
    let mut spec = json!({ "priority": class.priority, "preemptible": class.preemptible });
    if class.default_ttl_ms > 0 {
        spec["defaultTtl"] = json!(format_duration_ms(class.default_ttl_ms));
    }
    for (key, ms) in [("grace", class.grace_ms), ("minRun", class.min_run_ms)] {
        if ms > 0 {
            spec[key] = json!(format_duration_ms(ms));
        }
    }
    if class.default_duration_ms > 0 {
        spec["defaultDuration"] = json!(format_duration_ms(class.default_duration_ms));
    }
    if class.qos.is_some() {
        spec["qos"] = json!(word(&QOS, qos_to_v1(class.qos)));
    }
    if let Some(when) = class.evict_when {
        spec["evictWhen"] = json!(when.to_string());
    }
    match class.latency_target_ms {
        None => {}
        Some(0) => spec["latencyTarget"] = json!(NOW),
        Some(ms) => spec["latencyTarget"] = json!(format_duration_ms(ms)),
    }
    if let Some(milli) = class.weight_milli {
        spec["weight"] = number(format_cpu_millis(milli.into()));
    }
    if let Some(milli) = class.multiplier_milli {
        spec["multiplier"] = number(format_cpu_millis(milli.into()));
    }
    if !class.guaranteed.is_empty() {
        let pools = class.guaranteed.iter().map(|(pool, kept)| (pool.clone(), kept_amounts(kept)));
        spec["guaranteed"] = json!(pools.collect::<BTreeMap<String, Value>>());
    }
    (json!({ "name": class.name }), spec)
}

fn limits_parts(limits: &NodeLimits) -> (Value, Value) {
    let mut spec = Map::new();
    insert_select(&mut spec, &limits.select);
    if !limits.max.is_zero() {
        spec.insert("max".to_owned(), amounts(limits.max.iter().map(|(name, amount)| (name, amount.0))));
    }
    (json!({ "name": limits.name }), Value::Object(spec))
}

fn insert_select(spec: &mut Map<String, Value>, select: &Selector) {
    if !select.terms.is_empty() {
        spec.insert("select".to_owned(), select.terms.iter().map(term).collect());
    }
}

fn term(term: &Term) -> Value {
    let operator = match term.operator {
        Operator::In => "In",
        Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::Gt => "Gt",
        Operator::Lt => "Lt",
    };
    let mut document = json!({ "key": term.key, "operator": operator });
    if !term.values.is_empty() {
        document["values"] = json!(term.values);
    }
    document
}

/// Amounts by name, as numbers where they have no unit.
fn amounts<'a>(amounts: impl Iterator<Item = (&'a str, u64)>) -> Value {
    let text = amounts.map(|(name, amount)| (name.to_owned(), number(format_resource(name, amount))));
    json!(text.collect::<BTreeMap<String, Value>>())
}

/// A number where the text is a whole one, else the text.
pub(crate) fn number(text: String) -> Value {
    text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

/// The word of a value; every value has one, as the tests of both tables show.
fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| *word)
}

pub(crate) fn yaml(document: &Value) -> String {
    let options = serde_saphyr::ser_options! { compact_list_indent: true };
    let mut text = serde_saphyr::to_string_with_options(document, options)
        .expect("texts, numbers, lists and maps with text keys can all be written");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
