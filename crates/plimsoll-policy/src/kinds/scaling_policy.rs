//! `kind: ScalingPolicy`: how the number of replicas follows a load. Simulations read it; the ledger does not keep it yet.

use plimsoll_autoscaler::{Aim, Amount, Behavior, Metric, Policy, Predictive, RatePolicy, Select, Target};
use plimsoll_types::quantity::{QuantityError, parse_cpu_millis, parse_duration_ms};

use crate::context::{Block, Context};
use crate::document::API_VERSION;
use crate::node::{self, Node, Value};
use crate::problem::{Mark, Problem, Source};

const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
const METADATA: [&str; 2] = ["name", "labels"];
const SPEC: [&str; 7] = ["min", "max", "utilization", "tolerance", "scaleUp", "scaleDown", "predictive"];
const BEHAVIOR: [&str; 4] = ["stabilization", "cooldown", "select", "policies"];
const RATE: [&str; 3] = ["replicas", "percent", "period"];
const PREDICTIVE: [&str; 2] = ["missPrice", "fallbackUtilization"];
const SELECT: [(&str, Select); 3] =
    [("max", Select::Max), ("min", Select::Min), ("disabled", Select::Disabled)];
/// Most replicas: what a number of nodes or replicas can sensibly be.
const MOST: i64 = 1_000_000;
/// Largest utilization, in thousandths.
const MOST_PERMILLE: u64 = 10_000;

/// Reads the one scaling policy of a source. Loads are in thousandths of what one replica serves in one step; its metric is
/// `load`. What the document leaves out is as in `default`, but a direction that is there is only what it says.
///
/// # Errors
/// Everything that is wrong, in the order of the lines.
pub fn parse_scaling_policy(source: &Source, default: &Policy) -> Result<Policy, Vec<Problem>> {
    let mut context = Context::new(source);
    let documents = node::read(source, &mut context.problems);
    let mut policy = default.clone();
    match documents.as_slice() {
        [document] => read(&mut context, document, &mut policy),
        _ if !context.problems.is_empty() => {}
        _ => context.fail(
            Mark { line: 1, column: 1, width: 1 },
            format!("one ScalingPolicy is expected, there are {} documents", documents.len()),
        ),
    }
    context.problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
    if context.problems.is_empty() { Ok(policy) } else { Err(context.problems) }
}

fn read(context: &mut Context<'_>, document: &Node, policy: &mut Policy) {
    let top = context.block(document, "", &TOP);
    if !matches!(document.value, Value::Map(_)) {
        return;
    }
    for (key, wanted) in [("apiVersion", API_VERSION), ("kind", "ScalingPolicy")] {
        match top.get(key) {
            None => context.fail(document.mark, format!("{key} is missing: write {key}: {wanted}")),
            Some(node) => drop(context.word(node, key, &[(wanted, ())])),
        }
    }
    if let Some(node) = top.get("metadata") {
        context.block(node, "metadata", &METADATA);
    }
    let Some(spec) = top.get("spec") else { return };
    let spec = context.block(spec, "spec", &SPEC);
    fill(context, &spec, policy);
}

fn fill(context: &mut Context<'_>, spec: &Block<'_>, policy: &mut Policy) {
    for (key, bound) in [("min", &mut policy.min), ("max", &mut policy.max)] {
        let number = spec.get(key).and_then(|node| context.integer(node, &format!("spec.{key}"), 0, MOST));
        *bound = number.and_then(|number| u64::try_from(number).ok()).unwrap_or(*bound);
    }
    if policy.min > policy.max {
        context
            .fail(spec.mark_of("min"), format!("spec.min is {}, more than max {}", policy.min, policy.max));
    }
    if let Some(target_milli) = permille(context, spec, "utilization") {
        let metric = Metric::Custom("load".to_owned());
        policy.targets = vec![Target { metric, aim: Aim::PerReplica { target_milli: target_milli.into() } }];
    }
    policy.tolerance_permille = permille(context, spec, "tolerance").unwrap_or(policy.tolerance_permille);
    for (key, direction) in [("scaleUp", &mut policy.up), ("scaleDown", &mut policy.down)] {
        if let Some(node) = spec.get(key) {
            *direction = behavior(context, node, &format!("spec.{key}"));
        }
    }
    match spec.get("predictive") {
        None => {}
        Some(Node { value: Value::Scalar(word), .. }) if word == "false" => policy.predictive = None,
        Some(node) => policy.predictive = Some(predictive(context, node, policy.predictive)),
    }
}

/// A share of `spec`, in thousandths.
fn permille(context: &mut Context<'_>, spec: &Block<'_>, key: &str) -> Option<u32> {
    let node = spec.get(key)?;
    share(context, node, &format!("spec.{key}"))
}

fn share(context: &mut Context<'_>, node: &Node, path: &str) -> Option<u32> {
    let permille = context.quantity(node, path, parse_share)?;
    u32::try_from(permille).ok()
}

/// `70%`, `0.7` or `1`, in thousandths; up to 1000 %.
fn parse_share(text: &str) -> Result<u64, QuantityError> {
    let (digits, scale) = match text.strip_suffix('%') {
        Some(digits) => (digits.trim_end(), 10),
        None => (text, 1000),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = || {
        if whole.is_empty() || !is_number(whole) || !is_number(part) {
            return None;
        }
        let thousandths: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
        let permille = (whole.parse::<u64>().ok()? * 1000 + thousandths) * scale / 1000;
        (1..=MOST_PERMILLE).contains(&permille).then_some(permille)
    };
    let hint = "shares are written 70% or 0.7, up to 1000%".to_owned();
    read().ok_or_else(|| QuantityError { text: text.to_owned(), expected: "a share", hint })
}

fn behavior(context: &mut Context<'_>, node: &Node, path: &str) -> Behavior {
    let block = context.block(node, path, &BEHAVIOR);
    let mut behavior = Behavior::unlimited();
    for (key, time_ms) in
        [("stabilization", &mut behavior.stabilization_ms), ("cooldown", &mut behavior.cooldown_ms)]
    {
        let read = block
            .get(key)
            .and_then(|node| context.quantity(node, &format!("{path}.{key}"), parse_duration_ms));
        *time_ms = read.unwrap_or(*time_ms);
    }
    if let Some(node) = block.get("select") {
        behavior.select = context.word(node, &format!("{path}.select"), &SELECT).unwrap_or(behavior.select);
    }
    if let Some(node) = block.get("policies") {
        let path = format!("{path}.policies");
        let list = context.list(node, &path, "[{ percent: 100, period: 15s }]");
        behavior.policies = list.iter().filter_map(|node| rate(context, node, &path)).collect();
    }
    behavior
}

fn rate(context: &mut Context<'_>, node: &Node, path: &str) -> Option<RatePolicy> {
    let block = context.block(node, path, &RATE);
    let mut number = |key: &str| {
        let number =
            block.get(key).and_then(|node| context.integer(node, &format!("{path}.{key}"), 0, MOST))?;
        u64::try_from(number).ok()
    };
    let amount = match (number("replicas"), number("percent")) {
        (Some(replicas), None) => Amount::Replicas(replicas),
        (None, Some(percent)) => Amount::Percent(percent),
        _ => {
            context.fail(block.mark, format!("{path} needs one of replicas and percent"));
            return None;
        }
    };
    let Some(period) = block.get("period") else {
        context.fail(block.mark, format!("{path} needs a period"));
        return None;
    };
    let period_ms = context.quantity(period, &format!("{path}.period"), parse_duration_ms)?;
    Some(RatePolicy { amount, period_ms })
}

fn predictive(context: &mut Context<'_>, node: &Node, default: Option<Predictive>) -> Predictive {
    let block = context.block(node, "spec.predictive", &PREDICTIVE);
    let default = default.unwrap_or(Predictive {
        capacity_milli: 1000,
        miss_price_permille: 0,
        fallback_utilization_permille: 600,
    });
    // A multiple in thousandths, written as cpu is: 6, 0.5.
    let price = block.get("missPrice");
    let price = price.and_then(|node| context.quantity(node, "spec.predictive.missPrice", parse_cpu_millis));
    let fallback = block
        .get("fallbackUtilization")
        .and_then(|node| share(context, node, "spec.predictive.fallbackUtilization"));
    Predictive {
        miss_price_permille: price.unwrap_or(default.miss_price_permille),
        fallback_utilization_permille: fallback.unwrap_or(default.fallback_utilization_permille),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, Vec<String>> {
        let source = Source { name: "s.yaml".into(), text: text.into() };
        parse_scaling_policy(&source, &Policy::default())
            .map_err(|problems| problems.iter().map(|problem| problem.message.clone()).collect())
    }

    fn spec(lines: &str) -> Result<Policy, Vec<String>> {
        parse(&format!(
            "apiVersion: plimsoll/v1\nkind: ScalingPolicy\nmetadata: {{ name: web }}\nspec:\n{lines}"
        ))
    }

    #[test]
    fn a_policy_is_read_whole() {
        let policy = spec(
            "  min: 2\n  max: 50\n  utilization: 70%\n  tolerance: 0.05\n\
             \x20 scaleUp: { stabilization: 30s, select: min, policies: [{ percent: 100, period: 15s }, { replicas: 4, period: 1m }] }\n\
             \x20 scaleDown: { cooldown: 5m }\n  predictive: { missPrice: 2.5, fallbackUtilization: 55% }\n",
        )
        .expect("it is fine");
        assert_eq!((policy.min, policy.max, policy.tolerance_permille), (2, 50, 50));
        assert_eq!(policy.targets[0].aim, Aim::PerReplica { target_milli: 700 });
        assert_eq!((policy.up.stabilization_ms, policy.up.select), (30_000, Select::Min));
        assert_eq!(policy.up.policies[1], RatePolicy { amount: Amount::Replicas(4), period_ms: 60_000 });
        assert_eq!((policy.down.cooldown_ms, policy.down.policies.len()), (300_000, 0));
        let predictive = policy.predictive.expect("it is predictive");
        assert_eq!((predictive.miss_price_permille, predictive.fallback_utilization_permille), (2500, 550));
    }

    #[test]
    fn what_is_left_out_is_as_by_default_and_prediction_can_be_switched_off() {
        assert_eq!(spec("  min: 1\n"), Ok(Policy::default()));
        assert_eq!(spec("  predictive: false\n").map(|policy| policy.predictive), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_was_meant() {
        let problems = |lines| spec(lines).expect_err("it is wrong").join("\n");
        assert!(problems("  utilisation: 70%\n").contains("did you mean \"utilization\"?"));
        assert!(problems("  utilization: 0%\n").contains("a share"));
        assert!(
            problems("  scaleUp: { policies: [{ period: 15s }] }\n").contains("one of replicas and percent")
        );
        assert!(problems("  min: 5\n  max: 2\n").contains("more than max"));
        assert!(problems("  predictive: { misPrice: 1 }\n").contains("did you mean \"missPrice\"?"));
        assert_eq!(parse("").expect_err("nothing").len(), 1);
        assert_eq!(parse("kind: Pool\napiVersion: plimsoll/v1\n").expect_err("another kind").len(), 1);
        assert_eq!(parse("- 1\n").expect_err("a list").len(), 1);
    }
}
