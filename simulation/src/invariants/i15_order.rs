//! I15, the part that revisions show: what began after an answer sees at least what that answer showed, and what was
//! written after it comes later in the log. A repeated request gets its first answer, so it is left out.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_types::Revision;

use super::{Findings, Invariant};
use crate::history::Call;
use crate::oracle::Case;
use crate::request::Effect;

/// See the module.
pub(super) struct Order;

impl Invariant for Order {
    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let mut answered: Vec<(&Call, u64)> = case
            .calls
            .iter()
            .filter(ordered)
            .filter_map(|call| Some((call, call.answer.done()?.revision)))
            .collect();
        answered.sort_by_key(|(call, _)| call.answered_ms);
        let mut begun = answered.clone();
        begun.sort_by_key(|(call, _)| call.called_ms);
        let first = first_asked(case.calls);
        let mut seen = BTreeSet::new();
        let mut earlier = answered.into_iter().peekable();
        let mut newest = 0;
        for (call, revision) in begun {
            while let Some((_, shown)) = earlier.next_if(|(other, _)| other.answered_ms < call.called_ms) {
                newest = newest.max(shown);
            }
            let is_read = call.request.effect() == Effect::Reads;
            let repeated = !is_read && !seen.insert(call.request.request_id());
            let late = if is_read { revision < newest } else { revision <= newest };
            if late && !repeated && !was_asked_before(&first, call) {
                let detail =
                    format!("{} {} began after {newest} was seen", call.request.kind(), call.request.about());
                findings.add("I15", Revision(revision), detail);
            }
        }
    }
}

/// Changes of members have no place in the ledger's order, answers about tokens do not show theirs, and what is answered from what a coordinator knows
/// promises none.
fn ordered(call: &&Call) -> bool {
    !matches!(call.request.effect(), Effect::Members | Effect::Tokens | Effect::Knows)
}

/// When each request id was first sent, in simulated milliseconds.
fn first_asked(calls: &[Call]) -> BTreeMap<&str, u64> {
    let mut first = BTreeMap::new();
    for call in calls.iter().filter(|call| !call.request.request_id().is_empty()) {
        let earliest = first.entry(call.request.request_id()).or_insert(call.called_ms);
        *earliest = call.called_ms.min(*earliest);
    }
    first
}

/// The same request id was sent earlier, with whatever answer.
fn was_asked_before(first: &BTreeMap<&str, u64>, call: &Call) -> bool {
    first.get(call.request.request_id()).is_some_and(|first_ms| *first_ms < call.called_ms)
}

#[cfg(test)]
mod tests {
    use plimsoll_client::v1;

    use super::*;
    use crate::history::{Answer, Done};
    use crate::invariants::fixture::Good;
    use crate::request::Request;

    fn read(revision: u64, called_ms: u64) -> Call {
        let request = Request::Read(v1::GetReservationRequest::default());
        let answer = Answer::Done(Done { revision, ..Done::default() });
        Call { worker: 0, request, called_ms, answered_ms: called_ms + 1, answer }
    }

    #[test]
    fn a_read_of_the_past_is_found() {
        let mut good = Good::new();
        good.calls.extend([read(5, 100), read(5, 200)]);
        assert_eq!(good.judge(), Vec::<&str>::new());
        good.calls.push(read(4, 300));
        assert_eq!(good.judge(), ["I15"]);
    }
}
