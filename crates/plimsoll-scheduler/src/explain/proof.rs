//! Proof of a change: it is made on a fork, by the ledger's own `apply`, and the leader's planner then places the request.

use plimsoll_ledger::{
    AdminChange, Answer, Command, Entry, Ledger, Outcome, Request, Reservation, SYSTEM_ACTOR, Stamp, Verdict,
    Wait,
};
use plimsoll_types::{NodeId, ReservationId, Revision};

use super::{Scene, SingleChange};

/// Places of one walk over the queue.
const PLACES: usize = 4_096;

impl Scene {
    /// Where the request would go with the change; `None` where it is refused, or the request waits on.
    pub(super) fn prove(&self, change: &SingleChange) -> Option<Vec<NodeId>> {
        let mut fork = self.ledger.clone();
        let granted = match change {
            SingleChange::Request(request) => {
                if let Some(id) = self.id {
                    apply(&mut fork, SYSTEM_ACTOR, Command::Cancel { reservation: id })?;
                }
                self.submit(&mut fork, request)
            }
            other => {
                for command in commands(other) {
                    apply(&mut fork, SYSTEM_ACTOR, command)?;
                }
                match self.id {
                    Some(id) => self.serve(&mut fork, id),
                    None => self.submit(&mut fork, &self.request),
                }
            }
        }?;
        granted.state.is_occupying().then(|| granted.members.iter().map(|member| member.node).collect())
    }

    /// Submits it as the leader would, and says what became of it.
    fn submit(&self, fork: &mut Ledger, request: &Request) -> Option<Reservation> {
        let mut planner = self.planner(fork);
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

    /// One walk over the queue, as the leader makes it when something came free; what became of the one asked about.
    fn serve(&self, fork: &mut Ledger, id: ReservationId) -> Option<Reservation> {
        let mut planner = self.planner(fork);
        for (reservation, placement, _) in planner.plan_queue(fork, PLACES) {
            if reservation == id {
                apply(fork, SYSTEM_ACTOR, Command::Place { reservation, placement })?;
                return fork.reservation(id).map(|granted| Reservation::clone(granted));
            }
            // Who is served before takes what he gets.
            apply(fork, SYSTEM_ACTOR, Command::Place { reservation, placement });
        }
        None
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
