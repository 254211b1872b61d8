//! How often contentions opened and what was done about them, counted along with the log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use plimsoll_ledger::{Event, EventObject, Resolve, Severity};

use super::tallies::Row;

/// Most pairs of pool and resource that are told apart; all others are one.
const MOST_PAIRS: usize = 1_000;
/// Pool and resource of those others.
const OTHERS: &str = "(other)";

/// Pool and resource.
type Pair = (String, String);

/// The counts. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Episodes {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    /// Episodes by the severity that they reached: each counts under every severity on its way up.
    reached: BTreeMap<(Pair, Severity), u64>,
    /// What was done.
    done: BTreeMap<(Pair, Resolve), u64>,
    pairs: std::collections::BTreeSet<Pair>,
}

impl Episodes {
    /// Counts what happened.
    pub(super) fn look(&self, events: &[Event]) {
        for event in events {
            let EventObject::Contention(one) = &event.object else { continue };
            let mut counts = self.counts.lock();
            let pair = counts.pair(&one.pool, &one.resource);
            if matches!(event.rule, "contention/opened" | "contention/raised") {
                *counts.reached.entry((pair.clone(), one.severity)).or_default() += 1;
            }
            for resolution in one.resolutions.iter().filter(|done| done.revision == event.revision) {
                *counts.done.entry((pair.clone(), resolution.kind)).or_default() += 1;
            }
        }
    }

    /// Rows of severities that were reached.
    pub(super) fn reached(&self) -> Vec<Row> {
        let rows = self.counts.lock().reached.clone();
        rows.into_iter()
            .map(|((pair, severity), count)| row(pair, ("severity", severity.name()), count))
            .collect()
    }

    /// Rows of what was done.
    pub(super) fn done(&self) -> Vec<Row> {
        let rows = self.counts.lock().done.clone();
        rows.into_iter().map(|((pair, kind), count)| row(pair, ("kind", kind.name()), count)).collect()
    }
}

impl Counts {
    fn pair(&mut self, pool: &str, resource: &str) -> Pair {
        let pair = (pool.to_owned(), resource.to_owned());
        if self.pairs.contains(&pair) || self.pairs.len() < MOST_PAIRS {
            self.pairs.insert(pair.clone());
            return pair;
        }
        (OTHERS.to_owned(), OTHERS.to_owned())
    }
}

fn row((pool, resource): Pair, (label, value): (&'static str, &str), count: u64) -> Row {
    Row { labels: vec![("pool", pool), ("resource", resource), (label, value.to_owned())], count }
}

impl fmt::Debug for Episodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Episodes")
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Contention, Resolution};
    use plimsoll_types::{LedgerTime, Revision};

    use super::*;

    #[test]
    fn each_severity_on_the_way_up_and_each_resolution_counts_once() {
        let episodes = Episodes::default();
        let event = |revision: u64, rule: &'static str, severity: Severity| {
            let note = |revision| Resolution {
                at: LedgerTime(1),
                kind: Resolve::Wait,
                subject: String::new(),
                revision: Revision(revision),
            };
            let one = Contention {
                pool: "a".to_owned(),
                resource: "gpu".to_owned(),
                severity,
                resolutions: vec![note(3)],
                ..Contention::default()
            };
            let object = EventObject::Contention(Arc::new(one));
            Event {
                revision: Revision(revision),
                log_time: LedgerTime(1),
                actor: String::new(),
                rule,
                object,
            }
        };
        episodes.look(&[event(3, "contention/opened", Severity::Low)]);
        episodes.look(&[event(4, "contention/raised", Severity::High)]);
        episodes.look(&[
            event(5, "contention/lowered", Severity::Low),
            event(6, "contention/observed", Severity::Low),
        ]);
        let counted = |rows: Vec<Row>| {
            rows.into_iter().map(|row| (row.labels[2].1.clone(), row.count)).collect::<Vec<_>>()
        };
        assert_eq!(counted(episodes.reached()), [("low".to_owned(), 1), ("high".to_owned(), 1)]);
        assert_eq!(counted(episodes.done()), [("wait".to_owned(), 1)]);
    }
}
