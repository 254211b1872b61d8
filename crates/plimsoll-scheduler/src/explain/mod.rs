//! Why a request is where it is: every blocker with its numbers, its rank, and the smallest single changes that would admit it now, each proven
//! on a fork of the state by the code that decides.

mod kept;
mod proof;
mod scene;
mod suggest;

use std::sync::Arc;

use plimsoll_ledger::{
    Blocker, ClassOrder, Ledger, Placement, PolicyObject, Pool, Reason, Request, Reservation, State, Verdict,
};
use plimsoll_types::{NodeId, ReservationId, Revision};

use crate::fit::NodeView;
use crate::fleet::kinds;
use crate::points::{PointTerm, points_of, rank_of};

pub use kept::KeptPlaces;
pub use scene::Scene;

/// Why a request is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Revision of the state that it is about.
    pub revision: Revision,
    /// It would be granted now.
    pub admissible: bool,
    /// Nothing that exists can ever hold it.
    pub infeasible: bool,
    /// Place in the queue, from 1; 0 where it is not queued.
    pub rank: u64,
    /// What its place is made of, and what these points are of; `None` where it is not queued, or its pool does not go by points.
    pub points: Option<(i64, Vec<PointTerm>)>,
    /// Requests in its queue.
    pub queue_length: u64,
    /// Everything that stands in the way.
    pub blockers: Vec<Blocker>,
    /// Places that would do, and that are kept for others until those who were given notice have left.
    pub kept_places: Vec<KeptPlaces>,
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

/// A single change that would admit a request now: it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// In words.
    pub description: String,
    /// What to change.
    pub change: SingleChange,
    /// Where the request would go then.
    pub nodes: Vec<NodeId>,
}

/// One thing to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SingleChange {
    /// The request: this one in its place, submitted once the other is cancelled.
    Request(Box<Request>),
    /// The policy: this object in place of the one of its name.
    Policy(Box<PolicyObject>),
    /// A node takes new work again.
    Uncordon(NodeId),
    /// A grant of a lower class, or of best effort, ends.
    End(ReservationId),
}

/// Explains a reservation; `None` where there is none. O(nodes + what waits).
pub fn explain(ledger: &Ledger, id: ReservationId) -> Option<Explanation> {
    Scene::of_reservation(ledger, id).map(|scene| scene.explain())
}

/// Explains what a request would meet if it were submitted now. O(nodes + what waits).
pub fn explain_request(ledger: &Ledger, request: &Request) -> Explanation {
    explain_request_of(ledger, request, "")
}

/// The same for somebody: limits and budgets go by who asks where the request names no tenant.
pub fn explain_request_of(ledger: &Ledger, request: &Request, requester: &str) -> Explanation {
    Scene::of_request(ledger, request, requester).explain()
}

impl Scene {
    /// The explanation. O(nodes + what waits), for each suggestion again.
    pub fn explain(&self) -> Explanation {
        let ledger = &self.ledger;
        let Some(id) = self.id else { return self.explain_waiting() };
        let Some(reservation) = ledger.reservation(id) else { return self.nothing() };
        let mut explanation = match reservation.state {
            State::Pending => self.explain_waiting(),
            State::Partial if ledger.may_be_repaired(reservation, ledger.clock()) => {
                self.explain_lacking(reservation).unwrap_or_else(|| self.nothing())
            }
            _ => Explanation { blockers: reservation.blockers.clone(), ..self.nothing() },
        };
        explanation.decision_revision = reservation.changed;
        if reservation.state == State::Pending {
            explanation.rank = rank_of(ledger, reservation);
            explanation.points = points_of(ledger, reservation);
        }
        explanation
    }

    fn explain_waiting(&self) -> Explanation {
        let (ledger, request) = (&self.ledger, &*self.request);
        let mut planner = self.planner(ledger);
        let verdict = planner.place_for(ledger, request, &self.requester);
        let views = || planner.fleet().pool_views(&request.pool);
        let nodes_considered = views().count() as u64;
        let nodes_feasible = fitting(ledger, request, views());
        let (mut placement, mut blockers, infeasible) = match verdict {
            Verdict::Place(placement) => (Some(placement), Vec::new(), false),
            Verdict::Infeasible(blockers) => (None, blockers, true),
            Verdict::Blocked(blockers) => (None, blockers, false),
        };
        if let Some(behind) = self.behind() {
            placement = None;
            blockers.push(behind);
        }
        if placement.is_some() && !self.is_granted() {
            placement = None;
            let subject = format!("places in pool {} that are not promised to others", request.pool);
            blockers.push(Blocker::new(Reason::NoCapacity, subject, 1, 0));
        }
        let kept_places =
            if placement.is_some() { Vec::new() } else { kept::places(ledger, &planner, request) };
        let suggestions =
            if placement.is_some() { Vec::new() } else { self.suggest(&mut planner, &blockers) };
        Explanation {
            admissible: placement.is_some(),
            infeasible,
            not_in_the_way: not_in_the_way(request, &blockers),
            blockers,
            kept_places,
            placement,
            nodes_considered,
            nodes_feasible,
            suggestions,
            ..self.nothing()
        }
    }

    /// What stands in the way of members in the place of those that a gang lost. `None` where nothing can take their place: its nodes have left
    /// the domain that they have to be in.
    fn explain_lacking(&self, gang: &Reservation) -> Option<Explanation> {
        let ledger = &self.ledger;
        let lacking = ledger.lacking(gang)?;
        let mut planner = self.planner(ledger);
        let own: Vec<NodeId> = gang.members.iter().map(|member| member.node).collect();
        planner.set_aside(own.iter().copied(), true);
        let (placement, blockers) = match planner.find(ledger, &lacking) {
            Some(found) => match ledger.admit_repair(gang, &found) {
                Ok(()) => (Some(found), Vec::new()),
                Err(refusal) => (None, refusal.blockers),
            },
            None => match planner.refuse(ledger, &lacking, Vec::new()) {
                Verdict::Place(_) => (None, Vec::new()),
                Verdict::Blocked(blockers) | Verdict::Infeasible(blockers) => (None, blockers),
            },
        };
        let others = || planner.fleet().pool_views(&lacking.pool).filter(|view| !own.contains(&view.node.id));
        Some(Explanation {
            admissible: placement.is_some(),
            nodes_considered: others().count() as u64,
            nodes_feasible: fitting(ledger, &lacking, others()),
            not_in_the_way: not_in_the_way(&lacking, &blockers),
            blockers,
            placement,
            ..self.nothing()
        })
    }

    /// An earlier request of a strict queue goes first, wherever there is room, and so does one that is set aside.
    fn behind(&self) -> Option<Blocker> {
        let (ledger, request) = (&self.ledger, &self.request);
        let waiting = self.id.and_then(|id| ledger.reservation(id));
        let is_behind_overflow = waiting.is_none_or(|waiting| ledger.is_behind_overflow(waiting));
        let priority = waiting.map_or_else(
            || ledger.class(&request.class).map_or(0, |class| class.priority),
            |waiting| waiting.priority,
        );
        if let Some(aside) = ledger.order_blocker(&request.queue, priority).filter(|_| is_behind_overflow) {
            return Some(aside);
        }
        let by_age = |pool: &&Arc<Pool>| pool.is_strict() && pool.class_order == ClassOrder::Strict;
        ledger.pool(&request.pool).filter(by_age)?;
        let in_line = |other: &ReservationId| {
            let waiting = ledger.reservation(*other).filter(|waiting| waiting.request.queue == request.queue);
            waiting.is_some_and(|waiting| Some(waiting.id) == self.id || !ledger.is_out_of_hours(waiting))
        };
        let mut line = ledger.pending(&request.pool).filter(in_line);
        let ahead = match self.id {
            Some(id) => line.position(|other| other == id).unwrap_or_default(),
            None => line.count(),
        };
        let name = if request.queue.is_empty() { &request.pool } else { &request.queue };
        (ahead > 0).then(|| Blocker::new(Reason::BehindInQueue, name.as_str(), 1, ahead as u64))
    }

    fn nothing(&self) -> Explanation {
        Explanation {
            revision: self.ledger.revision(),
            admissible: false,
            infeasible: false,
            rank: 0,
            points: None,
            queue_length: self.ledger.pending_len(&self.request.pool) as u64,
            blockers: Vec::new(),
            kept_places: Vec::new(),
            not_in_the_way: Vec::new(),
            placement: None,
            decision_revision: Revision(0),
            nodes_considered: 0,
            nodes_feasible: 0,
            suggestions: Vec::new(),
        }
    }
}

/// Nodes with room for a member, of whichever role.
fn fitting<'a>(ledger: &Ledger, request: &Request, nodes: impl Iterator<Item = &'a NodeView>) -> u64 {
    let kinds = kinds(ledger, request);
    nodes.filter(|view| kinds.iter().any(|(amounts, kind)| view.fit(kind, amounts).is_ok())).count() as u64
}

fn not_in_the_way(request: &Request, blockers: &[Blocker]) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    let mut roles = request.roles.iter().map(|role| format!(" (role {})", role.name));
    for kind in request.kinds() {
        let role = roles.next().unwrap_or_default();
        subjects.extend(kind.amounts.iter().map(|(name, _)| format!("{name}{role}")));
        if kind.gpu.is_some() {
            subjects.push(format!("gpu{role}"));
        }
        if !kind.required.terms.is_empty() || !request.requirements.required.terms.is_empty() {
            subjects.push(format!("labels{role}"));
        }
    }
    let in_the_way = |reason| blockers.iter().any(|blocker| blocker.reason == reason);
    if !request.topology.is_unconstrained() && !in_the_way(Reason::TopologyMismatch) {
        subjects.push("topology".to_owned());
    }
    if !request.affinity.is_empty() && !in_the_way(Reason::AffinityConflict) {
        subjects.push("affinity".to_owned());
    }
    subjects.retain(|subject| blockers.iter().all(|blocker| blocker.subject != *subject));
    subjects
}
