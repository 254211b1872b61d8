//! I10: one request id, one effect, one answer. An unknown outcome may be in the log once or not at all; a definite
//! refusal is not in it.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::Command;
use plimsoll_types::Revision;

use super::{Findings, Invariant};
use crate::history::{Answer, Call};
use crate::oracle::{Case, Step};

/// See the module.
#[derive(Default)]
pub(super) struct Once {
    effects: BTreeMap<String, Revision>,
    /// The names of removed nodes are kept for the answers that show them.
    keeps_names: bool,
    /// Nodes that were removed before that was so, as an answer shows them then: by their numbers.
    nameless: BTreeSet<String>,
}

impl Invariant for Once {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        match step.entry.command {
            Command::Upgrade { to } if step.has_effect() => self.keeps_names |= to >= 2,
            Command::RemoveNode { node } if step.has_effect() && !self.keeps_names => {
                self.nameless.insert(format!("#{}", node.0));
            }
            _ => {}
        }
        let id = &step.entry.request_id;
        if id.is_empty() || !step.has_effect() {
            return;
        }
        if let Some(first) = self.effects.insert(id.clone(), step.revision) {
            findings.add("I10", step.revision, format!("{id} had its effect at {first} already"));
        }
    }

    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let mut asked: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
        for call in case.calls.iter().filter(|call| call.request.is_logged()) {
            asked.entry(call.request.request_id()).or_default().push(call);
        }
        for (id, calls) in asked {
            let effect = self.effects.get(id).copied();
            let done: Vec<&Call> =
                calls.iter().copied().filter(|call| call.answer.done().is_some()).collect();
            if let Some((first, rest)) = done.split_first() {
                for other in rest {
                    let revision = Revision(other.answer.done().map_or(0, |done| done.revision));
                    if other.request != first.request {
                        findings.add("I10", revision, format!("{id} was done for two requests"));
                    } else if !same_answer(&first.answer, &other.answer, &self.nameless) {
                        let detail =
                            format!("{id} has two answers: {:?} and {:?}", first.answer, other.answer);
                        findings.add("I10", revision, detail);
                    }
                }
            }
            // Refused under every body that was ever sent with this id: then it must not be in the log.
            let refused = |call: &&Call| matches!(call.answer, Answer::Refused(_));
            if let Some(revision) = effect.filter(|_| calls.iter().all(refused)) {
                let words: Vec<String> = calls.iter().map(|call| call.answer.word()).collect();
                findings.add("I10", revision, format!("{id} took effect, and clients were told {words:?}"));
            }
        }
    }
}

/// The same answer, but for nodes that an operator removed in ledger version 1: the answer is made anew of what the ledger
/// remembers, and of such a node that is the number alone, without name and devices.
fn same_answer(one: &Answer, other: &Answer, nameless: &BTreeSet<String>) -> bool {
    let (Answer::Done(one), Answer::Done(other)) = (one, other) else { return one == other };
    let (mut one, mut other) = (one.clone(), other.clone());
    if let (Some(a), Some(b)) = (&mut one.reservation, &mut other.reservation) {
        for (a, b) in a.allocations.iter_mut().zip(&mut b.allocations) {
            if nameless.contains(&a.node) || nameless.contains(&b.node) {
                (a.node, b.node) = (String::new(), String::new());
                (a.devices, b.devices) = (Vec::new(), Vec::new());
            }
        }
    }
    one == other
}

#[cfg(test)]
mod tests {
    use plimsoll_client::v1;

    use super::*;
    use crate::history::Done;
    use crate::invariants::fixture::{Good, found, node, reservation, step};

    #[test]
    fn a_second_effect_is_found() {
        let mut twice = step(&[node(0)], &[reservation(1)]);
        twice.entry.request_id = "again".to_owned();
        let mut once = Once::default();
        assert_eq!(found(&mut once, &twice), Vec::<&str>::new());
        assert_eq!(found(&mut once, &twice), ["I10"]);
        twice.replayed = true;
        assert_eq!(found(&mut once, &twice), Vec::<&str>::new());
    }

    #[test]
    fn a_refusal_that_took_effect_is_found_and_an_unknown_is_not() {
        let mut good = Good::new();
        good.calls[0].answer = Answer::Unknown("OUTCOME_UNKNOWN".to_owned());
        assert_eq!(good.judge(), Vec::<&str>::new());
        good.calls[0].answer = Answer::Refused("NO_CAPACITY".to_owned());
        assert_eq!(good.judge(), ["I10"]);
    }

    #[test]
    fn a_node_without_its_name_is_found_unless_it_was_removed_in_version_1() {
        let shown = |node: &str| {
            let allocations = vec![v1::Allocation { node: node.to_owned(), ..Default::default() }];
            let reservation = Some(v1::Reservation { allocations, ..Default::default() });
            Answer::Done(Done { revision: 3, reservation, taken: None })
        };
        let (named, nameless) = (shown("n1"), shown("#0"));
        assert!(!same_answer(&named, &nameless, &BTreeSet::new()));
        let mut once = Once::default();
        let mut remove = step(&[node(0)], &[]);
        remove.entry.command = Command::RemoveNode { node: plimsoll_types::NodeId(0) };
        found(&mut once, &remove);
        assert!(same_answer(&named, &nameless, &once.nameless));
        let mut raise = step(&[node(0)], &[]);
        raise.entry.command = Command::Upgrade { to: 2 };
        found(&mut once, &raise);
        remove.entry.command = Command::RemoveNode { node: plimsoll_types::NodeId(1) };
        found(&mut once, &remove);
        assert!(!same_answer(&shown("n2"), &shown("#1"), &once.nameless));
    }

    #[test]
    fn another_answer_to_the_same_request_is_found() {
        let mut good = Good::new();
        let mut again = good.calls[0].clone();
        if let Answer::Done(done) = &mut again.answer
            && let Some(reservation) = &mut done.reservation
        {
            reservation.ttl_ms += 1;
        }
        good.calls.push(again);
        assert_eq!(good.judge(), ["I10"]);
    }
}
