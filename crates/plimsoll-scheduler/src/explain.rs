//! Why a request is where it is: every blocker with its numbers, its rank, and the smallest single changes that would admit
//! it now, each tried by the code that decides.

use plimsoll_ledger::{Blocker, GpuShare, Ledger, Placement, Request, State, Verdict};
use plimsoll_types::{ReservationId, Revision};

use crate::Planner;
use crate::fleet::split;

/// Why a request is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// It would be granted now.
    pub admissible: bool,
    /// Nothing that exists can ever hold it.
    pub infeasible: bool,
    /// Place in the queue, from 1; 0 where it is not queued.
    pub rank: u64,
    /// Requests in its queue.
    pub queue_length: u64,
    /// Everything that stands in the way.
    pub blockers: Vec<Blocker>,
    /// What was checked and is not in the way.
    pub not_in_the_way: Vec<String>,
    /// Where it would go now.
    pub placement: Option<Placement>,
    /// Revision at which the leader last decided on it; 0 where it never did.
    pub decision_revision: Revision,
    /// Nodes of the pool.
    pub nodes_considered: u64,
    /// Nodes that fit one member now.
    pub nodes_feasible: u64,
    /// Single changes that would admit it now.
    pub suggestions: Vec<Suggestion>,
}

/// A single change that would admit a request now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// In words.
    pub description: String,
    /// The changed request.
    pub request: Request,
}

/// Explains a reservation; `None` where there is none. O(nodes).
pub fn explain(ledger: &Ledger, id: ReservationId) -> Option<Explanation> {
    let reservation = ledger.reservation(id)?;
    let pending = reservation.state == State::Pending;
    let mut explanation = if pending {
        explain_request_of(ledger, &reservation.request, &reservation.requester)
    } else {
        Explanation {
            admissible: false,
            infeasible: false,
            rank: 0,
            queue_length: 0,
            blockers: reservation.blockers.clone(),
            not_in_the_way: Vec::new(),
            placement: None,
            decision_revision: Revision(0),
            nodes_considered: 0,
            nodes_feasible: 0,
            suggestions: Vec::new(),
        }
    };
    explanation.decision_revision = reservation.changed;
    if pending {
        let rank = ledger.pending(&reservation.request.pool).position(|other| other == id);
        explanation.rank = rank.map_or(0, |index| index as u64 + 1);
    }
    explanation.queue_length = ledger.pending_len(&reservation.request.pool) as u64;
    Some(explanation)
}

/// Explains what a request would meet if it were submitted now. O(nodes).
pub fn explain_request(ledger: &Ledger, request: &Request) -> Explanation {
    explain_request_of(ledger, request, "")
}

/// The same for somebody: limits and budgets go by who asks where the request names no tenant.
pub fn explain_request_of(ledger: &Ledger, request: &Request, requester: &str) -> Explanation {
    let mut planner = Planner::new(ledger, 0);
    let verdict = planner.place_for(ledger, request, requester);
    let (amounts, _) = split(ledger, request);
    let views = || planner.fleet().pool_views(&request.pool);
    let nodes_considered = views().count() as u64;
    let nodes_feasible = views().filter(|view| view.fit(request, &amounts).is_ok()).count() as u64;
    let (placement, blockers, infeasible) = match verdict {
        Verdict::Place(placement) => (Some(placement), Vec::new(), false),
        Verdict::Infeasible(blockers) => (None, blockers, true),
        Verdict::Blocked(blockers) => (None, blockers, false),
    };
    let suggestions =
        if placement.is_some() { Vec::new() } else { suggest(ledger, &mut planner, request, requester) };
    Explanation {
        admissible: placement.is_some(),
        infeasible,
        rank: 0,
        queue_length: ledger.pending_len(&request.pool) as u64,
        not_in_the_way: not_in_the_way(request, &blockers),
        blockers,
        placement,
        decision_revision: Revision(0),
        nodes_considered,
        nodes_feasible,
        suggestions,
    }
}

fn not_in_the_way(request: &Request, blockers: &[Blocker]) -> Vec<String> {
    let mut subjects: Vec<String> =
        request.requirements.amounts.iter().map(|(name, _)| name.to_owned()).collect();
    if request.requirements.gpu.is_some() {
        subjects.push("gpu".to_owned());
    }
    if !request.requirements.required.terms.is_empty() {
        subjects.push("labels".to_owned());
    }
    subjects.retain(|subject| blockers.iter().all(|blocker| blocker.subject != *subject));
    subjects
}

fn suggest(ledger: &Ledger, planner: &mut Planner, request: &Request, requester: &str) -> Vec<Suggestion> {
    let mut found = Vec::new();
    let mut attempt = |description: String, request: Request| {
        let fits = matches!(planner.place_for(ledger, &request, requester), Verdict::Place(_));
        if fits {
            found.push(Suggestion { description, request });
        }
        fits
    };
    if let Some(gpu) = &request.requirements.gpu {
        let with = |change: &dyn Fn(&mut plimsoll_ledger::GpuAsk)| {
            let mut changed = request.clone();
            if let Some(gpu) = &mut changed.requirements.gpu {
                change(gpu);
            }
            changed
        };
        for count in (1..gpu.count).rev() {
            if attempt(
                format!("ask for {count} GPUs in place of {}", gpu.count),
                with(&|gpu| gpu.count = count),
            ) {
                break;
            }
        }
        if !gpu.models.is_empty() {
            attempt("accept any GPU model".to_owned(), with(&|gpu| gpu.models.clear()));
        }
        if gpu.share == GpuShare::Whole && gpu.count == 1 {
            for milli in [750, 500, 250] {
                let share = GpuShare::Milli(milli);
                if attempt(
                    format!("take {milli} thousandths of a GPU in place of a whole one"),
                    with(&|gpu| gpu.share = share),
                ) {
                    break;
                }
            }
        }
    }
    if request.gang.min_members > 1 {
        for members in (1..request.gang.min_members).rev() {
            let mut fewer = request.clone();
            fewer.gang.min_members = members;
            let description = format!("accept {members} members in place of {}", request.gang.min_members);
            if attempt(description, fewer) {
                break;
            }
        }
    }
    if !request.requirements.required.terms.is_empty() {
        let mut anywhere = request.clone();
        anywhere.requirements.required.terms.clear();
        attempt("drop the required labels".to_owned(), anywhere);
    }
    for (name, amount) in request.requirements.amounts.iter() {
        // Halve until it fits: a size that works, not the largest one.
        let mut part = amount.0 / 2;
        while part > 0 {
            let mut smaller = request.clone();
            smaller.requirements.amounts.set(name, plimsoll_types::Amount(part));
            let description = format!(
                "ask for {} of {name} in place of {}",
                plimsoll_types::quantity::format_resource(name, part),
                plimsoll_types::quantity::format_resource(name, amount.0)
            );
            if attempt(description, smaller) {
                break;
            }
            part /= 2;
        }
    }
    found
}
