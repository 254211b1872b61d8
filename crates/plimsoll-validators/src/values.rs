//! Requests and policy objects as the values that rules see. What was not asked for is 0, empty or false.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_expr::Value;
use plimsoll_ledger::{
    Class, Fairness, GPU, GpuShare, NodeLimits, PolicyObject, Pool, Queue, QueueOrder, Request, Strategy,
    Wait,
};
use plimsoll_types::Resources;

/// A request: amounts are those of one member; of a gang of several roles the most that a member of any of them asks for, so that an upper bound
/// holds for each.
pub(crate) fn of_request(request: &Request) -> Value {
    let mut most = Resources::default();
    let (mut devices_milli, mut gpu_memory) = (0, 0);
    let mut models: BTreeSet<&String> = BTreeSet::new();
    for needs in request.kinds() {
        for (name, amount) in needs.amounts.iter() {
            most.set(name, amount.max(most.get(name)));
        }
        let Some(gpu) = &needs.gpu else { continue };
        devices_milli = devices_milli.max(match gpu.share {
            GpuShare::Milli(milli) => u64::from(gpu.count) * u64::from(milli),
            // How much of a device its memory or its profile is, is known once there is a device.
            GpuShare::Whole | GpuShare::Memory(_) | GpuShare::Mig(_) => u64::from(gpu.count) * 1_000,
        });
        gpu_memory = gpu_memory.max(match gpu.share {
            GpuShare::Memory(bytes) => bytes,
            GpuShare::Whole | GpuShare::Milli(_) | GpuShare::Mig(_) => gpu.min_device_memory_bytes,
        });
        models.extend(&gpu.models);
    }
    let (waits, wait_ms) = match request.wait {
        Wait::Refuse => (false, 0),
        Wait::Queue { deadline_ms } => (true, deadline_ms),
    };
    let (cpu, memory, other) = amounts(&most);
    Value::object([
        ("name", Value::text(&request.name)),
        ("pool", Value::text(&request.pool)),
        ("class", Value::text(&request.class)),
        ("queue", Value::text(&request.queue)),
        ("tenant", Value::text(&request.tenant)),
        ("labels", labels(&request.labels)),
        ("cpu", cpu),
        ("memory", memory),
        ("gpu", Value::milli(devices_milli)),
        ("gpu_memory", Value::count(gpu_memory)),
        ("gpu_models", texts(models.into_iter())),
        ("other", other),
        ("members", Value::count(request.gang.max_members.into())),
        ("min_members", Value::count(request.gang.min_members.into())),
        ("spread", Value::Bool(request.gang.spread)),
        ("ttl", Value::milli(request.ttl_ms)),
        ("hold", Value::milli(request.hold_ms)),
        ("max_duration", Value::milli(request.max_duration_ms)),
        ("waits", Value::Bool(waits)),
        ("wait", Value::milli(wait_ms)),
    ])
}

/// A policy object; nothing for kinds that no rule looks at.
pub(crate) fn of_object(object: &PolicyObject) -> Value {
    match object {
        PolicyObject::Pool(pool) => of_pool(pool),
        PolicyObject::Class(class) => of_class(class),
        PolicyObject::NodeLimits(limits) => of_limits(limits),
        PolicyObject::Queue(queue) => of_queue(queue),
        _ => Value::Object(BTreeMap::new()),
    }
}

fn of_pool(pool: &Pool) -> Value {
    let strategy = match pool.strategy {
        Strategy::Greedy => "greedy",
        Strategy::Balanced => "balanced",
        Strategy::Priority => "priority",
        Strategy::FirstFit => "first_fit",
        Strategy::BestFit => "best_fit",
        Strategy::WorstFit => "worst_fit",
        Strategy::FirstFitDecreasing => "first_fit_decreasing",
        Strategy::Random => "random",
        Strategy::Fragmentation => "fragmentation",
        Strategy::Optimized => "optimized",
    };
    let order = match pool.queue_order {
        QueueOrder::BestEffortFifo => "best_effort_fifo",
        QueueOrder::StrictFifo => "strict_fifo",
    };
    let fairness = match pool.fairness {
        Fairness::Priority => "priority",
        Fairness::Fair => "fair",
        Fairness::Quota => "quota",
        Fairness::Weighted => "weighted",
        Fairness::FairTree => "fair_tree",
    };
    let countables = pool.countables.iter().map(|(name, amount)| (name.to_string(), Value::count(amount.0)));
    Value::object([
        ("name", Value::text(&pool.name)),
        ("labels", labels(&pool.labels)),
        ("strategy", Value::text(strategy)),
        ("queue_order", Value::text(order)),
        ("fairness", Value::text(fairness)),
        ("price", Value::milli(if pool.price_milli == 0 { 1_000 } else { pool.price_milli.into() })),
        ("max_pending", Value::count(pool.max_pending.into())),
        ("countables", Value::object(countables)),
    ])
}

fn of_class(class: &Class) -> Value {
    Value::object([
        ("name", Value::text(&class.name)),
        ("priority", Value::Number(class.priority.into())),
        ("preemptible", Value::Bool(class.preemptible)),
        ("default_ttl", Value::milli(class.default_ttl_ms)),
    ])
}

fn of_limits(limits: &NodeLimits) -> Value {
    let (cpu, memory, other) = amounts(&limits.max);
    Value::object([("name", Value::text(&limits.name)), ("cpu", cpu), ("memory", memory), ("other", other)])
}

/// The amounts of a queue are its nominal ones, all pools together.
fn of_queue(queue: &Queue) -> Value {
    let sum = |resource: &str| {
        let quotas = queue.quotas.values().filter_map(|quotas| quotas.get(resource));
        quotas.fold(0u64, |sum, quota| sum.saturating_add(quota.nominal.0))
    };
    Value::object([
        ("name", Value::text(&queue.name)),
        ("labels", labels(&queue.labels)),
        ("parent", Value::text(&queue.parent)),
        ("weight", Value::milli(queue.weight_milli.into())),
        ("max_pending", Value::count(queue.max_pending.into())),
        ("pools", texts(queue.quotas.keys())),
        ("cpu", Value::milli(sum("cpu"))),
        ("memory", Value::count(sum("memory"))),
        ("gpu", Value::milli(sum(GPU))),
    ])
}

fn amounts(of: &Resources) -> (Value, Value, Value) {
    let of_name = |name: &str| of.iter().find(|(known, _)| *known == name).map_or(0, |(_, amount)| amount.0);
    let other = of.iter().filter(|(name, _)| !matches!(*name, "cpu" | "memory"));
    let other = other.map(|(name, amount)| (name.to_owned(), Value::count(amount.0)));
    (Value::milli(of_name("cpu")), Value::count(of_name("memory")), Value::object(other))
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    Value::object(labels.iter().map(|(key, value)| (key.clone(), Value::text(value))))
}

fn texts<'a>(texts: impl Iterator<Item = &'a String>) -> Value {
    Value::List(texts.map(Value::text).collect())
}
