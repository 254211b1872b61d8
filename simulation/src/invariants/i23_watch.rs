//! I23: a watch gives every event once, in the order of the log, without a gap, through changes of leader; what is no
//! longer kept it says.

use plimsoll_types::Revision;

use super::{Findings, Invariant};
use crate::oracle::Case;
use crate::watcher::{Seen, Segment};

/// See the module.
pub(super) struct Watch;

impl Invariant for Watch {
    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        for segment in &case.evidence.watched {
            check(case, segment, findings);
        }
    }
}

fn check(case: &Case<'_>, segment: &Segment, findings: &mut Findings) {
    let mut given = segment.events.iter();
    // The cluster goes on while the evidence is collected: what is given after that is not judged.
    let end = case.steps.last_key_value().map_or(0, |(revision, _)| revision.0);
    for (revision, step) in case.steps.range(Revision(segment.first.max(1))..) {
        let revision = revision.0;
        if revision > segment.last {
            break;
        }
        for event in step.events.iter().filter(|event| event.of_reservation || !segment.reservations_only) {
            let wanted = Seen { revision, rule: event.rule.to_owned(), actor: event.actor.clone() };
            let got = given.next();
            if got != Some(&wanted) {
                let detail = format!("{} was given {got:?}, not {wanted:?}", segment.watcher);
                findings.add("I23", Revision(revision), detail);
                return;
            }
        }
    }
    if let Some(more) = given.next().filter(|more| more.revision <= end) {
        let detail = format!("{} was given {more:?} after {}", segment.watcher, segment.last);
        findings.add("I23", Revision(more.revision), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::Good;

    /// What a watcher of the good case is given, from the first revision on.
    fn right(good: &Good) -> Segment {
        let events = good.events().into_iter();
        let events = events.map(|(revision, rule, actor)| Seen { revision, rule, actor }).collect();
        Segment { watcher: "watcher", first: 1, last: 5, reservations_only: false, events }
    }

    #[test]
    fn a_gap_a_repetition_and_an_event_too_many_are_found() {
        let mut good = Good::new();
        let segment = right(&good);
        assert!(segment.events.len() > 2, "{segment:?}");
        good.evidence.watched = vec![segment.clone()];
        assert_eq!(good.judge(), Vec::<&str>::new());
        let spoil = |change: &dyn Fn(&mut Segment)| {
            let mut good = Good::new();
            let mut segment = segment.clone();
            change(&mut segment);
            good.evidence.watched = vec![segment];
            good.judge()
        };
        assert_eq!(spoil(&|segment| drop(segment.events.remove(1))), ["I23"]);
        assert_eq!(spoil(&|segment| segment.events.insert(1, segment.events[0].clone())), ["I23"]);
        assert_eq!(spoil(&|segment| segment.last = 2), ["I23"]);
    }
}
