//! What single runs ask for, and what they may: command lines and rules.

use super::Output;
use super::sections::duration;
use super::tree::At;

/// Blocks about pipelines and their steps.
pub(super) fn read(root: &At<'_, '_>, out: &mut Output) {
    if let Some(compute) = root.at(&["resources", "compute"]) {
        asked(&compute, None);
    }
    if let Some(requirements) = root.get("resource_requirements")
        && let Some(compute) = requirements.get("compute")
    {
        asked(&compute, requirements.get("class").as_ref());
    }
    if let Some(limits) = root.at(&["pipeline", "resource_limits"]) {
        self::limits(&limits, "pipeline", "", out);
    }
    steps(root.get("steps").map(|at| at.items()).unwrap_or_default(), out);
    if let Some(affinity) = root.get("affinity") {
        placed(&affinity);
    }
}

fn steps(steps: Vec<At<'_, '_>>, out: &mut Output) {
    for step in steps {
        if let Some(resources) = step.get("resources") {
            asked(&resources, None);
        }
        if let Some(limits) = step.get("resource_limits")
            && let Some(id) = step.get("id").and_then(|at| at.text())
        {
            self::limits(&limits, "tasks", &format!("request.name != {id:?} || "), out);
        }
        for inner in step.at(&["parallel", "tasks"]).map(|at| at.items()).unwrap_or_default() {
            if let Some(resources) = inner.get("resources") {
                asked(&resources, None);
            }
        }
    }
}

/// What one run asks for is no policy: the command that asks for it.
fn asked(at: &At<'_, '_>, class: Option<&At<'_, '_>>) {
    let amount = |key: &str| {
        let value = at.get(key)?;
        value.peek().or_else(|| value.get("request").and_then(|at| at.peek())).map(str::to_owned)
    };
    let mut words = Vec::new();
    if let Some(class) = class.and_then(|at| at.peek()) {
        words.push(format!("--class {class}"));
    }
    for (key, flag) in [("cpu", "--cpu"), ("memory", "--mem"), ("gpu", "--gpu")] {
        if let Some(amount) = amount(key) {
            words.push(format!("{flag} {amount}"));
        }
    }
    if let Some(gpu) = at.get("gpu") {
        let part = |key: &str| gpu.get(key).and_then(|at| at.peek());
        match (part("type"), part("count")) {
            (Some(model), count) => words.push(format!("--gpu {model}:{}", count.unwrap_or("1"))),
            (None, Some(count)) => words.push(format!("--gpu {count}")),
            (None, None) => {}
        }
        if let Some(memory) = part("memory") {
            words.push(format!("--gpu-mem {memory}"));
        }
    }
    let limit = |key: &&str| Some(format!("{key} {}", at.at(&[key, "limit"])?.peek()?));
    let limits: Vec<String> = ["cpu", "memory"].iter().filter_map(limit).collect();
    let more = if limits.is_empty() {
        String::new()
    } else {
        format!("; limits above what is asked ({}) have no counterpart yet", limits.join(", "))
    };
    at.tell(format!("is what one run asks for: plimsoll run {} -- COMMAND{more}", words.join(" ")));
    if let Some(class) = class {
        class.tell("stands in the command of resource_requirements.compute");
    }
}

/// Limits that a rule on requests can hold.
fn limits(at: &At<'_, '_>, validator: &str, of: &str, out: &mut Output) {
    for key in ["max_execution_time", "timeout"] {
        if let Some(most) = at.get(key).and_then(|at| duration(&at)) {
            let rule = format!(
                "{of}{}",
                alternatives(of, &format!("request.max_duration > 0 && request.max_duration <= {most}"))
            );
            out.rule(
                validator,
                rule,
                format!("it must end within {most}: plimsoll run --for {most}"),
                "spec.limits.time",
            );
        }
    }
    for (keys, name, resource) in
        [(["max_memory", "memory"], "memory", "memory"), (["max_cpu", "cpu"], "cpu", "cpu")]
    {
        for key in keys {
            if let Some(most) = at.get(key).and_then(|at| at.amount(resource)) {
                let most = most.as_str().map_or_else(|| most.to_string(), str::to_owned);
                let rule = format!("{of}request.{name} * request.members <= {most}");
                out.rule(
                    validator,
                    rule,
                    format!("at most {most} of {name}"),
                    &format!("spec.resources.{name}"),
                );
            }
        }
    }
}

/// A condition with `&&`, in brackets where it stands behind another with `||`.
fn alternatives(of: &str, condition: &str) -> String {
    if of.is_empty() { condition.to_owned() } else { format!("({condition})") }
}

/// Where a run goes is said with the run.
fn placed(at: &At<'_, '_>) {
    let selector = |term: &At<'_, '_>| {
        let part = |key: &str| term.get(key).and_then(|at| at.peek());
        let values: Vec<&str> = term.get("values")?.items().iter().filter_map(At::peek).collect();
        let operator = match part("operator")? {
            "In" => "in",
            "NotIn" => "notin",
            _ => return None,
        };
        Some(format!("{} {operator} ({})", part("key")?, values.join(",")))
    };
    for term in at.at(&["node_affinity", "required"]).map(|at| at.items()).unwrap_or_default() {
        if let Some(selector) = selector(&term) {
            term.tell(format!("is said with each run: plimsoll run --require '{selector}'"));
        }
    }
    for term in at.at(&["node_affinity", "preferred"]).map(|at| at.items()).unwrap_or_default() {
        let weight = term.get("weight").and_then(|at| at.peek()).unwrap_or("1");
        if let Some(selector) = selector(&term) {
            term.tell(format!("is said with each run: plimsoll run --prefer '{weight}:{selector}'"));
        }
    }
}
