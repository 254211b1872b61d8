//! A plan for people: what changes, what becomes of the requests, who gains and who loses.

use plimsoll_client::v1::{
    PlanEffect, PlanEffectKind, PlanResponse, PlanVerdict, PlannedRequest, ReservationSpec,
};

use super::apply_files::Row;
use crate::blockers::{by_weight, sentence};
use crate::output::{Out, absolute, asked, places, share, short_duration};

/// The whole text.
pub(super) fn text(rows: &[Row], specs: &[ReservationSpec], answer: &PlanResponse, out: &Out) -> String {
    let mut text = format!("Plan at revision {}; nothing was changed\n", answer.revision);
    if !rows.is_empty() {
        text.push('\n');
    }
    for row in rows {
        text.push_str(&row.planned());
    }
    if let Some(failure) = &answer.policy_failure {
        text.push_str(&format!("  refused: {}\n", failure.message));
        for blocker in &failure.blockers {
            text.push_str(&format!("    {} {}\n", out.paint.bullet(), sentence(blocker)));
        }
        for violation in &failure.field_violations {
            text.push_str(&format!(
                "    {} {} {}\n",
                out.paint.bullet(),
                violation.field,
                violation.description
            ));
        }
    }
    for (spec, planned) in specs.iter().zip(&answer.requests) {
        text.push_str(&request(spec, planned, answer, out));
    }
    text.push_str(&effects(answer, out));
    if !rows.is_empty() {
        let count = |result: &str| rows.iter().filter(|row| row.result() == result).count();
        let (new, changed, same) = (count("created"), count("configured"), count("unchanged"));
        text.push_str(&format!("\nPlan: {new} to add, {changed} to change, {same} unchanged\n"));
    }
    text
}

fn request(spec: &ReservationSpec, planned: &PlannedRequest, answer: &PlanResponse, out: &Out) -> String {
    let name = if spec.name.is_empty() { String::new() } else { format!("\"{}\" ", spec.name) };
    let on = planned.reservation.as_ref().map(|made| places(&made.allocations)).unwrap_or_default();
    let start = match planned.expected_start_ms {
        0 => format!("no start in sight until {}", absolute(answer.until_ms, out.view().utc)),
        at if at <= answer.log_time_ms => "now".to_owned(),
        at => {
            let after = short_duration(at - answer.log_time_ms);
            format!("expected start in {after}, {}", absolute(at, out.view().utc))
        }
    };
    let verdict = match planned.verdict() {
        PlanVerdict::Starts => format!("would START now on {on}"),
        PlanVerdict::StartsAfterNotice => format!("would START on {on} once others have left; {start}"),
        PlanVerdict::Waits => format!("would WAIT; {start}"),
        PlanVerdict::Never => "could NEVER start: nothing that exists can hold it".to_owned(),
        PlanVerdict::Refused | PlanVerdict::Unspecified => {
            let why = planned.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
            format!("would be REFUSED: {why}")
        }
    };
    let mut text = format!("\n{name}{}\n  {verdict}\n", asked(spec));
    for blocker in &by_weight(&planned.blockers) {
        text.push_str(&format!("    {} {}\n", out.paint.bullet(), sentence(blocker)));
    }
    text
}

fn effects(answer: &PlanResponse, out: &Out) -> String {
    let until = absolute(answer.until_ms, out.view().utc);
    let cut = if answer.cut_short { ", cut short" } else { "" };
    let mut text = format!("\nEffects on others (looked ahead until {until}{cut})\n");
    for effect in &answer.effects {
        text.push_str(&format!("  {}\n", one(effect, answer, out)));
    }
    if answer.effects.is_empty() {
        text.push_str("  none\n");
    }
    if answer.effects_left_off > 0 {
        text.push_str(&format!("  and {} more: --effects shows up to 1000\n", answer.effects_left_off));
    }
    for over in &answer.quota_overruns {
        let since = if over.already { " (already)" } else { "" };
        let numbers = share(over.taken, over.most, |amount| amount.to_string());
        text.push_str(&format!(
            "  over quota  queue {} takes {numbers} of {} in pool {}{since}\n",
            over.queue, over.resource, over.pool
        ));
    }
    for moved in &answer.node_moves {
        text.push_str(&format!(
            "  node        {} moves {} → {}\n",
            moved.node, moved.from_pool, moved.to_pool
        ));
    }
    text
}

fn one(effect: &PlanEffect, answer: &PlanResponse, out: &Out) -> String {
    let reservation = effect.reservation.clone().unwrap_or_default();
    let spec = reservation.spec.clone().unwrap_or_default();
    let name = if spec.name.is_empty() { String::new() } else { format!(" \"{}\"", spec.name) };
    let queue = if spec.queue.is_empty() { String::new() } else { format!(", queue {}", spec.queue) };
    let who = format!("{}{name} ({}{queue}, {})", reservation.id, spec.class, reservation.requester);
    let at = |ms: u64| match ms {
        0 => "not in sight".to_owned(),
        ms if ms <= answer.log_time_ms => "now".to_owned(),
        ms => absolute(ms, out.view().utc),
    };
    let rule = effect.rule.replace('_', " ");
    match effect.kind() {
        PlanEffectKind::Preempted => {
            let lost = short_duration(effect.lost_ms);
            format!(
                "preempted   {who} {}, for {} by {rule}; {} of work",
                at(effect.notice_ms),
                effect.by,
                lost
            )
        }
        PlanEffectKind::Spared => {
            format!("spared      {who} stays; otherwise it leaves {}", at(effect.notice_ms))
        }
        PlanEffectKind::NeverStarts => {
            let why: Vec<String> = effect.blockers.iter().map(sentence).collect();
            format!("never       {who} could start no more: {}", why.join("; "))
        }
        PlanEffectKind::Delayed => {
            let by = match (effect.from_ms, effect.to_ms) {
                (from, to) if from > 0 && to > from => format!(" (+{})", short_duration(to - from)),
                _ => String::new(),
            };
            format!("delayed     {who} start {} → {}{by}", at(effect.from_ms), at(effect.to_ms))
        }
        PlanEffectKind::StartsNow => format!("starts now  {who} otherwise {}", at(effect.from_ms)),
        PlanEffectKind::Earlier => {
            format!("earlier     {who} start {} → {}", at(effect.from_ms), at(effect.to_ms))
        }
        PlanEffectKind::Unspecified => who,
    }
}
