//! Scaling policies to documents.

use std::collections::BTreeMap;

use plimsoll_autoscaler::{Aim, Amount, Behavior, Policy, RatePolicy, Select, Target};
use plimsoll_ledger::{NodeTemplate, Provider, ProviderKind, ScalingPolicy, TemplateDevice, WorkTemplate};
use plimsoll_types::quantity::{format_bytes, format_cpu_millis, format_duration_ms, format_resource};
use serde_json::{Map, Value, json};

use crate::kinds::scaling_policy::{PER, Per, Unit, form};
use crate::write::number;

/// Metadata and spec.
pub(crate) fn scaling_parts(policy: &ScalingPolicy) -> (Value, Value) {
    let mut metadata = json!({ "name": policy.name });
    if !policy.labels.is_empty() {
        metadata["labels"] = json!(policy.labels);
    }
    let (rules, default) = (&policy.rules, Policy::default());
    let mut spec = Map::new();
    let mut put = |key: &str, value: Value| drop(spec.insert(key.to_owned(), value));
    put("target", json!(policy.target.path()));
    put("min", json!(rules.min));
    put("max", json!(rules.max));
    if !rules.targets.is_empty() {
        put("targets", rules.targets.iter().map(target).collect());
    }
    if rules.tolerance_permille != default.tolerance_permille {
        put("tolerance", share(rules.tolerance_permille));
    }
    for (key, behavior, usual) in
        [("scaleUp", &rules.up, &default.up), ("scaleDown", &rules.down, &default.down)]
    {
        if behavior != usual {
            put(key, direction(behavior));
        }
    }
    if let Some(activation) = &rules.activation {
        let mut block = Map::new();
        insert_ms(&mut block, "cooldown", activation.cooldown_ms);
        if !activation.above_milli.is_empty() {
            let above = activation.above_milli.iter().map(|(metric, milli)| {
                let unit = form(&metric.to_string()).0;
                (metric.to_string(), json!(amount(unit, *milli)))
            });
            block.insert("above".to_owned(), json!(above.collect::<BTreeMap<String, Value>>()));
        }
        put("activation", Value::Object(block));
    }
    if let Some(predictive) = &rules.predictive {
        put(
            "predictive",
            json!({
                "missPrice": format_cpu_millis(predictive.miss_price_permille),
                "fallbackUtilization": share(predictive.fallback_utilization_permille),
            }),
        );
    }
    if !policy.floors.is_empty() {
        let floors = policy.floors.iter();
        let floors =
            floors.map(|floor| json!({ "name": floor.name, "window": floor.rule, "min": floor.replicas }));
        put("schedules", floors.collect());
    }
    if let Some(provider) = &policy.provider {
        put("provider", provider_block(provider));
    }
    if policy.template != WorkTemplate::default() {
        put("template", Value::Object(template(&policy.template)));
    }
    if !policy.templates.is_empty() {
        put("templates", policy.templates.iter().map(node_template).collect());
    }
    if !policy.expander.is_empty() {
        put("expander", policy.expander.iter().map(|rule| json!(rule.name())).collect());
    }
    if policy.max_leaving != 1 {
        put("maxLeaving", json!(policy.max_leaving));
    }
    if policy.drain_ms > 0 {
        put("drain", json!(format_duration_ms(policy.drain_ms)));
    }
    put("startWithin", json!(format_duration_ms(policy.start_within_ms)));
    (metadata, Value::Object(spec))
}

fn target(target: &Target) -> Value {
    let metric = target.metric.to_string();
    let (unit, usual) = form(&metric);
    let one = |milli: u64, per: Per| {
        let mut block = json!({ "metric": metric, "target": amount(unit, milli) });
        if per != usual {
            block["per"] = json!(PER.iter().find(|(_, known)| *known == per).map(|(word, _)| *word));
        }
        block
    };
    match target.aim {
        Aim::Average { target_milli } => one(target_milli, Per::Average),
        Aim::PerReplica { target_milli } => one(target_milli, Per::Replica),
        Aim::Value { target_milli } => one(target_milli, Per::Total),
        Aim::Thresholds { above_milli, below_milli, increment, decrement } => json!({
            "metric": metric,
            "above": amount(unit, above_milli),
            "below": amount(unit, below_milli),
            "increment": increment,
            "decrement": decrement,
        }),
    }
}

/// As [`form`] says that the metric is written.
fn amount(unit: Unit, milli: u64) -> String {
    match unit {
        Unit::Share => format!("{}%", format_cpu_millis(milli)),
        Unit::Time => format_duration_ms(milli / 1_000),
        Unit::Number => format_cpu_millis(milli),
    }
}

/// Thousandths as a share.
fn share(permille: u32) -> Value {
    match (permille / 10, permille % 10) {
        (whole, 0) => json!(format!("{whole}%")),
        (whole, part) => json!(format!("{whole}.{part}%")),
    }
}

fn direction(behavior: &Behavior) -> Value {
    let mut block = Map::new();
    insert_ms(&mut block, "stabilization", behavior.stabilization_ms);
    insert_ms(&mut block, "cooldown", behavior.cooldown_ms);
    let select = match behavior.select {
        Select::Max => None,
        Select::Min => Some("min"),
        Select::Disabled => Some("disabled"),
    };
    if let Some(word) = select {
        block.insert("select".to_owned(), json!(word));
    }
    let rate = |rate: &RatePolicy| {
        let period = format_duration_ms(rate.period_ms);
        match rate.amount {
            Amount::Replicas(replicas) => json!({ "replicas": replicas, "period": period }),
            Amount::Percent(percent) => json!({ "percent": percent, "period": period }),
        }
    };
    if !behavior.policies.is_empty() {
        block.insert("policies".to_owned(), behavior.policies.iter().map(rate).collect());
    }
    Value::Object(block)
}

fn provider_block(provider: &Provider) -> Value {
    let mut block = match &provider.kind {
        ProviderKind::Process => json!({ "type": "process" }),
        ProviderKind::Exec { command, args } if args.is_empty() => {
            json!({ "type": "exec", "command": command })
        }
        ProviderKind::Exec { command, args } => json!({ "type": "exec", "command": command, "args": args }),
        ProviderKind::Webhook { url } => json!({ "type": "webhook", "url": url }),
        ProviderKind::ExternalGrpc { address, group } => {
            json!({ "type": "externalgrpc", "address": address, "group": group })
        }
    };
    block["timeout"] = json!(format_duration_ms(provider.timeout_ms));
    block["attempts"] = json!(provider.attempts);
    block
}

fn node_template(from: &NodeTemplate) -> Value {
    let mut block = Map::from_iter([("name".to_owned(), json!(from.name))]);
    block.extend(template(&from.offers));
    let mut put = |key: &str, value: Value| drop(block.insert(key.to_owned(), value));
    if let Some(kind) = from.capacity_type {
        put("capacityType", json!(kind.name()));
    }
    if from.price_permille > 0 {
        put("price", number(format_cpu_millis(from.price_permille.into())));
    }
    if !from.spot_pool.is_empty() {
        put("spotPool", json!(from.spot_pool));
    }
    for (key, value) in [("watts", from.watts), ("priority", from.priority.into()), ("max", from.max)] {
        if value > 0 {
            put(key, json!(value));
        }
    }
    Value::Object(block)
}

fn template(template: &WorkTemplate) -> Map<String, Value> {
    let mut block = Map::new();
    if !template.resources.is_zero() {
        let amounts = template.resources.iter();
        let amounts = amounts.map(|(name, amount)| (name.to_owned(), json!(format_resource(name, amount.0))));
        block.insert("resources".to_owned(), json!(amounts.collect::<BTreeMap<String, Value>>()));
    }
    if !template.labels.is_empty() {
        block.insert("labels".to_owned(), json!(template.labels));
    }
    let gpus = |device: &TemplateDevice| json!({ "model": device.model, "memory": format_bytes(device.memory_bytes), "count": device.count });
    if !template.devices.is_empty() {
        block.insert("gpus".to_owned(), template.devices.iter().map(gpus).collect());
    }
    if !template.command.is_empty() {
        block.insert("command".to_owned(), json!(template.command));
    }
    block
}

fn insert_ms(block: &mut Map<String, Value>, key: &str, ms: u64) {
    if ms > 0 {
        block.insert(key.to_owned(), json!(format_duration_ms(ms)));
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_autoscaler::Metric;

    use super::*;

    #[test]
    fn metrics_are_written_in_their_own_units() {
        let line = |metric: &str, aim| target(&Target { metric: Metric::named(metric), aim }).to_string();
        assert_eq!(
            line("cpu", Aim::Average { target_milli: 70_000 }),
            "{\"metric\":\"cpu\",\"target\":\"70%\"}"
        );
        assert_eq!(
            line("wait_time", Aim::Value { target_milli: 120_000_000 }),
            "{\"metric\":\"wait_time\",\"target\":\"2m\"}"
        );
        assert_eq!(
            line("queue_depth", Aim::Value { target_milli: 50_000 }),
            "{\"metric\":\"queue_depth\",\"target\":\"50\",\"per\":\"total\"}"
        );
    }
}
