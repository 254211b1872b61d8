//! I5: a token is the revision of its grant; a later grant has a larger one; another token has no effect.

use plimsoll_ledger::{Command, Reservation};
use plimsoll_types::{NodeId, ReservationId, Revision};

use super::{Findings, Invariant};
use crate::oracle::Step;

/// See the module.
#[derive(Default)]
pub(super) struct Tokens {
    largest: Revision,
}

impl Invariant for Tokens {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let mut largest = self.largest;
        for (before, after) in step.moved() {
            for node in newcomers(before.map(AsRef::as_ref), after) {
                if after.token_on(node) != step.revision {
                    let detail = format!("{} got members with token {}", after.id, after.token_on(node));
                    findings.add("I5", step.revision, detail);
                }
            }
            let had = before.map_or(Revision(0), |one| one.token);
            if after.token == had {
                if after.state.is_occupying() && after.token.0 == 0 {
                    findings.add("I5", step.revision, format!("{} is granted without a token", after.id));
                }
                continue;
            }
            // Who was taken back has none until the next grant.
            let interrupted = || before.is_some_and(|before| step.interrupts(before));
            if after.token == Revision(0)
                && after.is_waiting()
                && (after.preempted.is_some() || interrupted())
            {
                continue;
            }
            if after.token != step.revision || after.token <= self.largest {
                let detail = format!("{} got token {} after {}", after.id, after.token, self.largest);
                findings.add("I5", step.revision, detail);
            }
            largest = largest.max(after.token);
        }
        self.largest = largest;
        if let Some((id, token)) = shown(&step.entry.command)
            && step.has_effect()
        {
            let held = step.before.reservations.get(&id).map_or(Revision(0), |one| one.token);
            if held != token {
                let detail = format!("token {token} worked on {id}, whose token is {held}");
                findings.add("I5", step.revision, detail);
            }
        }
    }
}

/// Nodes that a grant came to while it held something: by a repair.
fn newcomers(before: Option<&Reservation>, after: &Reservation) -> Vec<NodeId> {
    let Some(before) = before.filter(|one| one.state.is_occupying() && after.state.is_occupying()) else {
        return Vec::new();
    };
    let had = |node: NodeId| before.members.iter().any(|member| member.node == node);
    after.members.iter().map(|member| member.node).filter(|node| !had(*node)).collect()
}

/// The token that a command shows.
fn shown(command: &Command) -> Option<(ReservationId, Revision)> {
    match command {
        Command::Confirm { reservation, token }
        | Command::Renew { reservation, token, .. }
        | Command::Resize { reservation, token, .. }
        | Command::Release { reservation, token } => Some((*reservation, *token)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    #[test]
    fn a_token_of_another_revision_is_found() {
        let good = step(&[node(0)], &[reservation(1)]);
        assert_eq!(found(&mut Tokens::default(), &good), Vec::<&str>::new());
        let mut old = reservation(1);
        old.token = Revision(3);
        assert_eq!(found(&mut Tokens::default(), &step(&[node(0)], &[old])), ["I5"]);
        assert_eq!(found(&mut Tokens { largest: good.revision }, &good), ["I5"]);
    }

    #[test]
    fn a_newcomer_with_the_token_of_the_others_is_found() {
        let mut repaired = reservation(1);
        repaired.members.push(plimsoll_ledger::MemberPlacement {
            node: NodeId(1),
            devices: Vec::new(),
            role: 0,
        });
        let tokens = |newest| plimsoll_ledger::Repaired::of(None, vec![Revision(3), newest]);
        (repaired.token, repaired.repaired) = (Revision(3), tokens(Revision(3)));
        let mut before = reservation(1);
        before.token = Revision(3);
        let mut one = step(&[node(0), node(1)], &[repaired.clone()]);
        let reservations = [(before.id, std::sync::Arc::new(before))].into();
        one.before = std::sync::Arc::new(crate::oracle::Picture { reservations, ..Default::default() });
        assert_eq!(found(&mut Tokens::default(), &one), ["I5"]);
        repaired.repaired = tokens(one.revision);
        one.after_mut().reservations = [(repaired.id, std::sync::Arc::new(repaired))].into();
        assert_eq!(found(&mut Tokens::default(), &one), Vec::<&str>::new());
    }

    #[test]
    fn a_wrong_token_with_an_effect_is_found() {
        let mut stale = step(&[node(0)], &[reservation(1)]);
        stale.before = stale.after.clone();
        stale.entry.command = Command::Release { reservation: ReservationId(1), token: Revision(2) };
        assert_eq!(found(&mut Tokens::default(), &stale), ["I5"]);
    }
}
