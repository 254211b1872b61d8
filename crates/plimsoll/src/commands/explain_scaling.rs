//! `plimsoll explain pool/NAME`: why a target of scaling has as many as it has, and what it waits for.

use plimsoll_client::Client;
use plimsoll_client::v1::{
    ElasticStatus, ExplainScalingRequest, ExplainScalingResponse, IntentState, ScalingStatus,
};

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Out, absolute, ago, intent_line, left, now_ms};

/// Says why a pool or service moved, or did not.
pub(crate) async fn explain(client: &Client, name: &str, globals: &Globals) -> Result<Exit, CliError> {
    let request = ExplainScalingRequest { name: name.to_owned() };
    let answer = client
        .explain_scaling(request)
        .await
        .map_err(|error| CliError::from(error).asked(format!("cannot explain the scaling of {name}")))?;
    let out = globals.out();
    if out.is_human() {
        out.emit(&text(&answer, &out))?;
    } else {
        let value =
            serde_json::to_value(&answer).map_err(|error| CliError::local("cannot write it", error))?;
        out.document(&value)?;
    }
    Ok(Exit::Done)
}

fn text(answer: &ExplainScalingResponse, out: &Out) -> String {
    let now = now_ms();
    let elastic = answer.elastic.as_ref().map(|elastic| elastic_text(elastic, now)).unwrap_or_default();
    if answer.scaling_policy.is_none() {
        return elastic;
    }
    let policy = answer.scaling_policy.clone().unwrap_or_default();
    let status = answer.status.clone().unwrap_or_default();
    let decision = status.decision.clone().unwrap_or_default();
    let mut text = format!(
        "{} wants {} and has {} (min {}, max {}), by scaling policy {}\n",
        policy.target,
        decision.desired,
        status.present,
        policy.min(),
        policy.max(),
        policy.name
    );
    text.push_str(&format!(
        "  ready {}, in use {}, starting {}, leaving {}\n",
        status.ready, status.busy, status.starting, status.leaving
    ));
    if status.power_budget_watts > 0 {
        text.push_str(&format!(
            "  power: {} of {} W committed\n",
            status.power_committed_watts, status.power_budget_watts
        ));
    }
    if let Some(to) = decision.pinned_to.filter(|_| decision.pinned_until_time_ms > now) {
        let until = left(decision.pinned_until_time_ms, now);
        text.push_str(&format!("  set to {to} by {}, {until} left\n", decision.pinned_by));
    }
    let when = match decision.change_time_ms {
        0 => "never changed".to_owned(),
        at => format!("changed {} ago, at {}", ago(at, now), absolute(at, out.view().utc)),
    };
    text.push_str(&format!(
        "\nLatest decision (rule {}, computed from revision {}, {when})\n",
        decision.rule, decision.computed_from
    ));
    lines(&mut text, &decision.inputs);
    if answer.latest_look_time_ms > 0 {
        let came = match answer.latest_desired == decision.desired {
            true => "nothing to change".to_owned(),
            false => format!("{} would be right", answer.latest_desired),
        };
        text.push_str(&format!("\nLatest look ({} ago): {came}\n", ago(answer.latest_look_time_ms, now)));
        lines(&mut text, &answer.latest_look);
    }
    waits(&mut text, &status, now);
    if !answer.provider_problem.is_empty() {
        text.push_str(&format!("\nProvider: {}\n", answer.provider_problem));
    }
    if !status.intents.is_empty() {
        text.push_str("\nMachines\n");
        for intent in &status.intents {
            let again = match intent.state() {
                IntentState::Acting if intent.not_before_time_ms > now => {
                    format!(" (again in {})", left(intent.not_before_time_ms, now))
                }
                _ => String::new(),
            };
            text.push_str(&format!("  {:>6}  {}{again}\n", intent.id, intent_line(intent)));
        }
    }
    if !elastic.is_empty() {
        text.push_str(&format!("\n{elastic}"));
    }
    text
}

/// How a pool's nodes come and go, and why none came or went lately.
fn elastic_text(elastic: &ElasticStatus, now: u64) -> String {
    let most =
        if elastic.max_nodes == 0 { "no max".to_owned() } else { format!("max {}", elastic.max_nodes) };
    if !elastic.moves {
        return format!(
            "pool/{} is static: its {} nodes neither come nor go by policy\n",
            elastic.pool, elastic.nodes
        );
    }
    let mut text = format!(
        "pool/{} is elastic and has {} nodes (min {}, {most}); {} may come now\n",
        elastic.pool, elastic.nodes, elastic.min_nodes, elastic.growth_left
    );
    for (what, nodes) in [("borrowed", &elastic.borrowed), ("lent", &elastic.lent)] {
        if !nodes.is_empty() {
            text.push_str(&format!("  {what}: {}\n", nodes.join(", ")));
        }
    }
    if elastic.latest_look_time_ms == 0 {
        text.push_str(
            "\nNobody waits in an elastic pool, and none of two or more is below its least: nothing moves\n",
        );
        return text;
    }
    text.push_str(&format!("\nLatest look at its nodes ({} ago)\n", ago(elastic.latest_look_time_ms, now)));
    lines(&mut text, &elastic.latest_look);
    if !elastic.refused.is_empty() {
        text.push_str(&format!("\nA move came to nothing: {}\n", elastic.refused));
    }
    text
}

fn lines(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push_str(&format!("  - {line}\n"));
    }
}

fn waits(text: &mut String, status: &ScalingStatus, now: u64) {
    let retry = status.decision.as_ref().map_or(0, |decision| decision.retry_time_ms);
    let failures = status.decision.as_ref().map_or(0, |decision| decision.failures);
    let found = [
        ("growing waits for its cooldown", status.up_after_time_ms),
        ("shrinking waits for its cooldown", status.down_after_time_ms),
        ("no new machine after one that failed", retry),
    ];
    let ahead: Vec<_> = found.into_iter().filter(|(_, until)| *until > now).collect();
    if !ahead.is_empty() {
        text.push_str("\nWaits\n");
    }
    for (what, until) in ahead {
        text.push_str(&format!("  {what}: {} left\n", left(until, now)));
    }
    for rest in status.decision.iter().flat_map(|decision| &decision.resting) {
        let until = left(rest.retry_time_ms, now);
        let waits = if rest.retry_time_ms > now { format!(", {until} left") } else { String::new() };
        text.push_str(&format!(
            "\ntemplate {}: {} machines failed one after another; passed over where another would do{waits}\n",
            rest.template, rest.failures
        ));
    }
    if failures > 0 {
        text.push_str(&format!("\n{failures} machines failed one after another\n"));
    }
}
