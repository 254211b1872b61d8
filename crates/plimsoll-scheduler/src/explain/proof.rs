//! Proof of a change: it is made on a fork, by the ledger's own `apply`, and the leader's planner then places the request.

use plimsoll_ledger::{
    AdminChange, Answer, Command, Entry, Ledger, Outcome, Request, Reservation, SYSTEM_ACTOR, Stamp, Verdict,
    Wait,
};
use plimsoll_types::{NodeId, ReservationId, Revision};

use super::scene::plans_ahead;
use super::{Scene, SingleChange};
use crate::Planner;

/// Places of one walk over the queue.
const PLACES: usize = 4_096;
/// Walks after one change: places that one of them takes may let others go on.
const MOST_WALKS: usize = 16;

impl Scene {
    /// Where the request would go with the change; `None` where it is refused, or the request waits on.
    pub(super) fn prove(&self, change: &SingleChange) -> Option<Vec<NodeId>> {
        let mut fork = self.ledger.clone();
        let granted = match change {
            SingleChange::Request(request) => {
                if let Some(id) = self.id {
                    apply(&mut fork, SYSTEM_ACTOR, Command::Cancel { reservation: id })?;
                }
                self.submit(&mut fork, request, plans_ahead(&self.ledger, &request.pool))
            }
            other => {
                for command in commands(other) {
                    apply(&mut fork, SYSTEM_ACTOR, command)?;
                }
                match self.id {
                    Some(id) => self.serve(&mut fork, id),
                    None => self.submit(&mut fork, &self.asked, true),
                }
            }
        }?;
        granted.state.is_occupying().then(|| granted.members.iter().map(|member| member.node).collect())
    }

    /// True where the request gets a place as things are: room that others have before it is none.
    pub(super) fn is_granted(&self) -> bool {
        let mut fork = self.ledger.clone();
        let granted = match self.id {
            Some(id) => self.serve(&mut fork, id),
            None => self.submit(&mut fork, &self.asked, plans_ahead(&self.ledger, &self.request.pool)),
        };
        granted.is_some_and(|granted| granted.state.is_occupying())
    }

    /// Submits it as the leader would, and says what became of it. `after_others`: those who wait take what they get before it.
    fn submit(&self, fork: &mut Ledger, request: &Request, after_others: bool) -> Option<Reservation> {
        let mut planner = if after_others { self.walk(fork, None) } else { self.planner(fork) };
        let (verdict, _) = planner.plan_batch_for(fork, &[request], &[self.requester.as_str()]).pop()?;
        if !matches!(verdict, Verdict::Place(_)) {
            return None;
        }
        // What would wait otherwise is no proof.
        let request = Request { wait: Wait::Refuse, ..request.clone() };
        let answer = apply(fork, &self.requester, Command::Submit { request, verdict })?;
        match answer.outcome {
            Outcome::Reservation(reservation) => Some(Reservation::clone(&reservation)),
            _ => None,
        }
    }

    /// What becomes of one that waits.
    fn serve(&self, fork: &mut Ledger, id: ReservationId) -> Option<Reservation> {
        self.walk(fork, Some(id));
        fork.reservation(id).map(|served| Reservation::clone(served))
    }

    /// Walks over the queue, as the leader makes them when something came free, until nobody gets a place any more, or this one has got its own.
    fn walk(&self, fork: &mut Ledger, until: Option<ReservationId>) -> Planner {
        let mut planner = self.planner(fork);
        for _ in 0..MOST_WALKS {
            let mut any = false;
            for (reservation, placement, ticket) in planner.plan_queue(fork, PLACES) {
                // Others of its queue that are set aside go before it.
                let is_behind =
                    fork.reservation(reservation).is_some_and(|waits| fork.is_behind_overflow(waits));
                if !is_behind {
                    let placed = apply(fork, SYSTEM_ACTOR, Command::Place { reservation, placement });
                    any |= placed.is_some();
                }
                planner.settle(fork, ticket);
                if !is_behind && until == Some(reservation) {
                    return planner;
                }
            }
            if !any {
                break;
            }
        }
        planner
    }
}

/// The commands that make a change of something other than the request.
fn commands(change: &SingleChange) -> Vec<Command> {
    match change {
        SingleChange::Request(_) => Vec::new(),
        SingleChange::Policy(object) => vec![Command::ApplyPolicy {
            put: vec![(**object).clone()],
            delete: Vec::new(),
            if_revision: Revision(0),
        }],
        SingleChange::Uncordon(node) => {
            vec![Command::SetNodeAdmin { node: *node, admin: AdminChange::Uncordon }]
        }
        SingleChange::End(reservation) => vec![Command::Cancel { reservation: *reservation }],
    }
}

/// `None` where it is refused.
fn apply(fork: &mut Ledger, actor: &str, command: Command) -> Option<Answer> {
    let stamp = Stamp { revision: Revision(fork.revision().0 + 1), proposed_at: fork.clock() };
    let entry = Entry { actor: actor.to_owned(), ..Entry::system(command) };
    let answer = fork.apply(stamp, &entry).answer;
    (!matches!(answer.outcome, Outcome::Refused(_))).then_some(answer)
}
