//! Explanations of the planner as the API shows them.

use plimsoll_ledger::{Blocker, Ledger, Placement, PolicyName, Request, Reservation};
use plimsoll_proto::{convert, reason, v1};
use plimsoll_scheduler::{Explanation, KeptPlaces, PointTerm, SingleChange, Suggestion};
use plimsoll_types::Resources;

/// Why a reservation is where it is.
pub(super) fn of_reservation(
    ledger: &Ledger,
    reservation: Option<&Reservation>,
    explanation: &Explanation,
) -> v1::Explanation {
    let Some(reservation) = reservation else {
        // Forgotten since: what was found out still holds for its revision.
        return explained(ledger, &Request::default(), &Resources::default(), explanation);
    };
    v1::Explanation {
        reservation: Some(convert::reservation_to_v1(reservation, ledger)),
        ..explained(ledger, &reservation.request, &reservation.amounts, explanation)
    }
}

/// What would stand in the way of a request.
pub(super) fn of_request(ledger: &Ledger, request: &Request, explanation: &Explanation) -> v1::Explanation {
    explained(ledger, request, &request.requirements.amounts, explanation)
}

fn explained(
    ledger: &Ledger,
    request: &Request,
    amounts: &Resources,
    explanation: &Explanation,
) -> v1::Explanation {
    let place = |placement: &Placement| convert::allocations(request, &placement.members, amounts, ledger);
    let kept_out = explanation.blockers.iter().filter(|blocker| blocker.nodes > 0);
    v1::Explanation {
        reservation: None,
        spec: Some(convert::request_to_v1(request)),
        admissible: explanation.admissible,
        infeasible: explanation.infeasible,
        rank: explanation.rank,
        queue_length: explanation.queue_length,
        blockers: blockers(explanation),
        not_in_the_way: explanation.not_in_the_way.clone(),
        nodes_considered: u32::try_from(explanation.nodes_considered).unwrap_or(u32::MAX),
        nodes_fitting: u32::try_from(explanation.nodes_feasible).unwrap_or(u32::MAX),
        nodes_excluded: kept_out.map(excluded).collect(),
        suggestions: explanation
            .suggestions
            .iter()
            .map(|suggestion| suggested(ledger, request, suggestion))
            .collect(),
        expected_start_ms: 0,
        decision_revision: explanation.decision_revision.0,
        placement: explanation.placement.as_ref().map(place).unwrap_or_default(),
        contentions: contentions(ledger, request),
        points: explanation.points.as_ref().map(|(total, terms)| points(*total, terms)),
    }
}

fn points(total: i64, terms: &[PointTerm]) -> v1::QueuePoints {
    let term = |term: &PointTerm| v1::PointTerm {
        name: term.name.clone(),
        points: term.points,
        most: term.most,
        told: term.told.clone(),
    };
    v1::QueuePoints { total, terms: terms.iter().map(term).collect() }
}

/// Open contentions of what a request asks of its pool.
fn contentions(ledger: &Ledger, request: &Request) -> Vec<v1::Contention> {
    let asked = plimsoll_ledger::least(request);
    let of_it = ledger.contentions_of(&request.pool).filter(|one| asked.get(&one.resource).0 > 0);
    of_it.map(|one| convert::contention_to_v1(one)).collect()
}

/// What the ledger says stands in the way, and places that are kept for others.
fn blockers(explanation: &Explanation) -> Vec<v1::Blocker> {
    let kept = explanation.kept_places.iter().map(kept_for);
    explanation.blockers.iter().map(convert::blocker_to_v1).chain(kept).collect()
}

fn kept_for(kept: &KeptPlaces) -> v1::Blocker {
    let subject = kept.reservation.to_string();
    let message = format!("{subject}: {}", reason::describe(v1::ErrorReason::KeptForAnother));
    v1::Blocker {
        reason: v1::ErrorReason::KeptForAnother.into(),
        subject,
        message,
        asked: 1,
        available: 0,
        limit: 0,
        nodes: kept.nodes,
    }
}

/// Rules of the cluster's validators that a request breaks stand in its way whatever room there is.
pub(super) fn refused_by_rules(shown: &mut v1::Explanation, broken: Vec<convert::Violation>) {
    if broken.is_empty() {
        return;
    }
    shown.admissible = false;
    shown.placement.clear();
    shown.suggestions.clear();
    let blocker = |violation: convert::Violation| v1::Blocker {
        reason: v1::ErrorReason::ValidationFailed.into(),
        message: format!("{}: {}", violation.field, violation.description),
        subject: violation.field,
        asked: 1,
        ..v1::Blocker::default()
    };
    shown.blockers.splice(0..0, broken.into_iter().map(blocker));
}

fn excluded(blocker: &Blocker) -> v1::ExcludedNodes {
    v1::ExcludedNodes {
        reason: convert::reason_to_v1(blocker.reason).into(),
        subject: blocker.subject.clone(),
        count: blocker.nodes,
        examples: Vec::new(),
    }
}

/// A suggestion, with the one number that it changes where it is a number of the request.
fn suggested(ledger: &Ledger, request: &Request, suggestion: &Suggestion) -> v1::Suggestion {
    let (kind, object, (field, from, to)) = match &suggestion.change {
        SingleChange::Request(changed) => {
            (v1::SuggestionKind::Request, String::new(), changed_number(request, changed))
        }
        SingleChange::Policy(object) => {
            (v1::SuggestionKind::Policy, label(&object.name()), Default::default())
        }
        SingleChange::Uncordon(node) => {
            let name = ledger.node(*node).map_or_else(|| node.0.to_string(), |node| node.name().to_owned());
            (v1::SuggestionKind::Uncordon, format!("node/{name}"), Default::default())
        }
        SingleChange::End(reservation) => {
            (v1::SuggestionKind::End, reservation.to_string(), Default::default())
        }
    };
    let node = suggestion.nodes.first().and_then(|node| ledger.node(*node));
    v1::Suggestion {
        description: suggestion.description.clone(),
        field,
        from,
        to,
        node: node.map(|node| node.name().to_owned()).unwrap_or_default(),
        kind: kind.into(),
        object,
    }
}

fn label(name: &PolicyName) -> String {
    let kind = match name {
        PolicyName::Pool(_) => "pool",
        PolicyName::Class(_) => "class",
        PolicyName::NodeLimits(_) => "nodelimits",
        PolicyName::Queue(_) => "queue",
        PolicyName::Quota(_) => "quota",
        PolicyName::Schedule(_) => "schedule",
        PolicyName::Service(_) => "service",
        PolicyName::ScalingPolicy(_) => "scalingpolicy",
        PolicyName::Validator(_) => "validator",
    };
    format!("{kind}/{}", name.name())
}

/// Path of the number in which two requests differ, and its values; empty where it is none.
fn changed_number(request: &Request, changed: &Request) -> (String, u64, u64) {
    let numbers = |request: &Request| {
        let mut numbers = Vec::new();
        // The roles' own first: the sums of the gang change with them.
        for (index, role) in request.roles.iter().enumerate() {
            numbers.push((format!("roles[{index}].min_members"), role.min_members.into()));
            numbers_of(&format!("roles[{index}].requirements"), &role.requirements, &mut numbers);
        }
        numbers_of("requirements", &request.requirements, &mut numbers);
        numbers.push(("gang.min_members".to_owned(), request.gang.min_members.into()));
        numbers.push(("max_duration_ms".to_owned(), request.max_duration_ms));
        numbers
    };
    let pairs = numbers(request).into_iter().zip(numbers(changed));
    let changed = pairs.into_iter().find(|((_, from), (_, to))| from != to);
    changed.map_or((String::new(), 0, 0), |((field, from), (_, to))| (field, from, to))
}

fn numbers_of(path: &str, needs: &plimsoll_ledger::Requirements, numbers: &mut Vec<(String, u64)>) {
    let devices = needs.gpu.as_ref().map_or(0, |gpu| u64::from(gpu.count));
    numbers.extend([
        (format!("{path}.gpu.count"), devices),
        (format!("{path}.amounts.cpu_millis"), needs.amounts.cpu_millis.0),
        (format!("{path}.amounts.memory_bytes"), needs.amounts.memory_bytes.0),
    ]);
    let others = needs.amounts.other.iter();
    numbers.extend(others.map(|(name, amount)| (format!("{path}.amounts.other.{name}"), amount.0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_names_the_number_that_it_changes() {
        let with = |cpu_millis, license| {
            let mut request = Request::default();
            request.requirements.amounts = Resources::new(cpu_millis, 0).with("license/a", license);
            request
        };
        let suggest = |request: Request| {
            let change = SingleChange::Request(Box::new(request));
            let suggestion = Suggestion { description: "less".to_owned(), change, nodes: Vec::new() };
            suggested(&Ledger::new(), &with(4_000, 2), &suggestion)
        };
        let less_cpu = suggest(with(2_000, 2));
        assert_eq!(
            (less_cpu.field.as_str(), less_cpu.from, less_cpu.to),
            ("requirements.amounts.cpu_millis", 4_000, 2_000)
        );
        let less_other = suggest(with(4_000, 1));
        assert_eq!(less_other.field, "requirements.amounts.other.license/a");
        assert_eq!(suggest(with(4_000, 2)).field, "");
    }
}
