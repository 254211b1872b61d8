//! I7: a gang holds at least its minimum, or something while it is being repaired and for no longer, or nothing.

use std::collections::BTreeSet;

use plimsoll_ledger::State;

use super::{Findings, Invariant};
use crate::oracle::Step;

/// See the module.
pub(super) struct Gangs;

impl Invariant for Gangs {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for (_, one) in step.moved() {
            let (gang, members) = (one.request.gang, one.members.len());
            let (least, most) = (gang.min_members as usize, gang.max_members as usize);
            let has_place = one.state.is_occupying() || one.state == State::Planned && !one.is_advance();
            let repaired = one.repair().is_some() && (1..least).contains(&members);
            let right = if has_place { repaired || (least..=most).contains(&members) } else { members == 0 };
            if !right {
                let detail =
                    format!("{} is {} with {members} members of {least} to {most}", one.id, one.state.name());
                findings.add("I7", step.revision, detail);
            }
            for (index, role) in one.request.roles.iter().enumerate().filter(|_| has_place) {
                let plays = one.members.iter().filter(|member| usize::from(member.role) == index).count();
                let (least, most) = (role.min_members as usize, role.max_members as usize);
                let least = if one.repair().is_some() { 0 } else { least };
                if !(least..=most).contains(&plays) {
                    let name = &role.name;
                    let detail = format!("{} has {plays} members of role {name}, {least} to {most}", one.id);
                    findings.add("I7", step.revision, detail);
                }
            }
            let nodes: BTreeSet<_> = one.members.iter().map(|member| member.node).collect();
            if gang.spread && nodes.len() < members {
                findings.add("I7", step.revision, format!("{} is to be spread, and shares a node", one.id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_ledger::{Gang, Request, Reservation};
    use plimsoll_types::LedgerTime;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    fn gang(min_members: u32, max_members: u32, spread: bool) -> Reservation {
        let mut one = reservation(1);
        let gang = Gang { min_members, max_members, spread };
        one.request = Arc::new(Request { gang, ..Request::clone(&one.request) });
        one
    }

    #[test]
    fn half_a_gang_is_found() {
        assert_eq!(found(&mut Gangs, &step(&[node(0)], &[gang(1, 3, false)])), Vec::<&str>::new());
        assert_eq!(found(&mut Gangs, &step(&[node(0)], &[gang(2, 3, false)])), ["I7"]);
    }

    #[test]
    fn half_a_gang_that_is_being_repaired_is_none() {
        let mut broken = gang(2, 3, false);
        let repair = plimsoll_ledger::Repair { since: LedgerTime(1), until: LedgerTime(2), members: 3 };
        broken.repaired = plimsoll_ledger::Repaired::of(Some(repair), Vec::new());
        assert_eq!(found(&mut Gangs, &step(&[node(0)], &[broken.clone()])), Vec::<&str>::new());
        broken.members.clear();
        assert_eq!(found(&mut Gangs, &step(&[node(0)], &[broken])), ["I7"]);
    }

    #[test]
    fn a_gang_without_one_of_its_roles_is_found() {
        let role = |name: &str| plimsoll_ledger::Role {
            name: name.to_owned(),
            min_members: 1,
            max_members: 2,
            ..Default::default()
        };
        let mut one = gang(2, 4, false);
        let roles = vec![role("leader"), role("worker")];
        one.request = Arc::new(Request { roles, ..Request::clone(&one.request) });
        one.members.push(one.members[0].clone());
        assert_eq!(found(&mut Gangs, &step(&[node(0)], &[one.clone()])), ["I7"]);
        one.members[1].role = 1;
        assert_eq!(found(&mut Gangs, &step(&[node(0)], &[one])), Vec::<&str>::new());
    }

    #[test]
    fn a_spread_gang_on_one_node_is_found() {
        let mut together = gang(1, 2, true);
        together.members.push(together.members[0].clone());
        assert_eq!(found(&mut Gangs, &step(&[node(0)], &[together])), ["I7"]);
    }
}
