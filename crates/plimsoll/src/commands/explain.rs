//! `plimsoll explain`: why a reservation is where it is, or what would stand in the way of a request.

use clap::Args;
use plimsoll_client::reason;
use plimsoll_client::v1::explain_reservation_request::Subject;
use plimsoll_client::v1::{ExplainReservationRequest, Explanation, ReservationState};

use super::explain_scaling::explain;
use super::lifecycle::look_up;
use crate::args::{Globals, ResourceArgs};
use crate::blockers::{by_weight, sentence};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{
    Out, absolute, asked, contention_line, expected_start, members, places, reservation_state,
    short_duration, too_full,
};

/// Says why.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Reservation, or what is scaled (pool/NAME, service/NAME); without it the RESOURCES below are explained, and nothing is reserved
    #[arg(value_name = "RESERVATION")]
    reservation: Option<String>,
    #[command(flatten)]
    resources: ResourceArgs,
}

impl Explain {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        if let Some(target) = self.reservation.as_deref().filter(|name| is_scaled(name)) {
            return explain(&client, target, globals).await;
        }
        let subject = match &self.reservation {
            Some(name) => Subject::Name(look_up(&client, name, globals).await?.id),
            None if self.resources.is_empty() => {
                return Err(CliError::usage("explain what?")
                    .help("name a reservation, or say what you would ask for: --gpu 2"));
            }
            None => Subject::Spec(self.resources.spec()?),
        };
        let request = ExplainReservationRequest {
            subject: Some(subject),
            consistency: globals.consistency(),
            ..ExplainReservationRequest::default()
        };
        let answer = client.explain_reservation(request).await?;
        let explanation = answer.explanation.unwrap_or_default();
        let out = globals.out();
        if out.is_human() {
            out.emit(&text(&explanation, answer.revision, &out))?;
        } else {
            let value = serde_json::to_value(&explanation)
                .map_err(|error| CliError::local("cannot write it", error))?;
            out.document(&value)?;
        }
        Ok(Exit::Done)
    }
}

/// Reservations have no such path.
fn is_scaled(name: &str) -> bool {
    name.split_once('/').is_some_and(|(kind, _)| matches!(kind, "pool" | "service"))
}

fn text(explanation: &Explanation, revision: u64, out: &Out) -> String {
    let mut text = head(explanation, revision, out);
    if !explanation.blockers.is_empty() {
        text.push_str(&format!("\nWhat stands in the way (all of it, at revision {revision})\n"));
        for (position, blocker) in by_weight(&explanation.blockers).iter().enumerate() {
            let name = reason::name(blocker.reason()).to_lowercase().replace('_', "-");
            text.push_str(&format!("  {}  {name:<20} {}\n", position + 1, sentence(blocker)));
        }
    }
    if !explanation.not_in_the_way.is_empty() {
        text.push_str(&format!("     Not in the way: {}\n", explanation.not_in_the_way.join(", ")));
    }
    if !explanation.contentions.is_empty() {
        text.push_str("\nPart of contention\n");
        for one in &explanation.contentions {
            text.push_str(&format!("  {}\n", contention_line(one)));
        }
    }
    if explanation.rank > 0 {
        text.push_str(&format!("\nPlace\n  rank {} of {}", explanation.rank, explanation.queue_length));
        text.push_str(&expected(explanation, out));
        text.push('\n');
        text.push_str(&points(explanation));
    }
    if !explanation.suggestions.is_empty() {
        text.push_str("\nSmallest changes that would start it now\n");
        for (suggestion, letter) in explanation.suggestions.iter().zip('a'..='z') {
            let node =
                if suggestion.node.is_empty() { String::new() } else { format!("   on {}", suggestion.node) };
            text.push_str(&format!("  {letter}  {}{node}\n", suggestion.description));
        }
    }
    text.push_str(&nodes(explanation));
    if !explanation.placement.is_empty() {
        text.push_str(&format!("\nIt would go to {}\n", places(&explanation.placement)));
    }
    text
}

/// What its place is made of, in a pool whose queue goes by points.
fn points(explanation: &Explanation) -> String {
    let Some(points) = &explanation.points else { return String::new() };
    let mut text = format!("  {} points, inside its class\n", points.total);
    for term in &points.terms {
        let most = if term.most > 0 { format!("of {}", term.most) } else { String::new() };
        text.push_str(&format!("    {:<12} {:>10} {most:<14} {}\n", term.name, term.points, term.told));
    }
    text
}

/// When it is expected to start, and what that was worked out from; or why that cannot be said.
fn expected(explanation: &Explanation, out: &Out) -> String {
    let Some(start) = explanation.reservation.as_ref().and_then(|shown| shown.start.as_ref()) else {
        return String::new();
    };
    let by = format!("{}, at revision {}", start.discipline, start.revision);
    if start.start_time_ms == 0 {
        return format!("\n  no expected start: {} ({by})", start.why_none);
    }
    let kept = if start.promised { "kept free for it" } else { "as things are" };
    let (at, soon) =
        (absolute(start.start_time_ms, out.view().utc), expected_start(Some(start), &out.view()));
    format!("\n  expected start {soon}, {at}: {kept} ({by})")
}

fn head(explanation: &Explanation, revision: u64, out: &Out) -> String {
    let spec = explanation.spec.clone().unwrap_or_default();
    let pool = if spec.pool.is_empty() { "default" } else { &spec.pool };
    let what = format!("asked: {}, pool {pool}", asked(&spec));
    let Some(reservation) = &explanation.reservation else {
        let verdict = match (explanation.infeasible, explanation.admissible) {
            (true, _) => "could NEVER be granted: nothing that exists can hold it",
            (false, true) => "would be granted now",
            (false, false) => "would have to WAIT",
        };
        return format!("This {verdict}   {what}   revision {revision}\n");
    };
    let name = if spec.name.is_empty() { String::new() } else { format!(" \"{}\"", spec.name) };
    let since = short_duration(out.view().now_ms.saturating_sub(reservation.create_time_ms));
    let state = reservation_state(reservation.state()).to_uppercase();
    let never = if explanation.infeasible { " and can never be granted" } else { "" };
    let mut text = format!(
        "{}{name} is {state}{never}, asked for {since} ago   {what}   revision {revision}\n",
        reservation.id
    );
    if !reservation.allocations.is_empty() {
        text.push_str(&format!("on {}, token {}\n", places(&reservation.allocations), reservation.token));
    }
    let evicted = reservation.preempted.as_ref().and_then(|preempted| preempted.evicted.as_ref());
    match (reservation.state(), evicted) {
        (ReservationState::Preempting, Some(evicted)) => {
            text.push_str(&format!("has to leave {}\n", too_full(evicted)));
        }
        (ReservationState::Pending | ReservationState::Preempted, Some(evicted)) => {
            text.push_str(&format!("had to leave {}\n", too_full(evicted)));
        }
        _ => {}
    }
    if let Some(repair) = &reservation.repair {
        let until = absolute(repair.until_time_ms, out.view().utc);
        text.push_str(&format!(
            "{} lost; until {until} what takes their place is offered to it before others of its class\n",
            members(repair.missing_members)
        ));
    }
    text
}

fn nodes(explanation: &Explanation) -> String {
    if explanation.nodes_considered == 0 {
        return String::new();
    }
    let mut parts = vec![format!("{} fit", explanation.nodes_fitting)];
    for excluded in &explanation.nodes_excluded {
        let why = reason::name(excluded.reason()).to_lowercase().replace('_', "-");
        let subject =
            if excluded.subject.is_empty() { String::new() } else { format!(" ({})", excluded.subject) };
        parts.push(format!("{} {why}{subject}", excluded.count));
    }
    let decision = match explanation.decision_revision {
        0 => "Looked at".to_owned(),
        revision => format!("Last decision at revision {revision}: looked at"),
    };
    format!("\n{decision} {} nodes: {}\n", explanation.nodes_considered, parts.join(", "))
}
