//! Reservations that have not ended, by state, pool and class, and why those that wait do: counted along with the log,
//! because to count them for each page would be to look at each of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use plimsoll_ledger::{DEFAULT_CLASS, Event, EventObject, Ledger, Reason, Reservation, State};
use plimsoll_proto::convert;
use plimsoll_proto::reason;
use plimsoll_types::ReservationId;

/// Most pairs of pool and class that are told apart; all others are one.
const MOST_PAIRS: usize = 1_000;
/// Pool and class of those others.
const OTHERS: &str = "(other)";
/// States in which a reservation waits for or has something, shown for each pool even where nothing is in them.
const ALWAYS: [State; 3] = [State::Pending, State::Held, State::Active];
/// Reason shown for a request that nobody has looked at yet.
const NOT_YET: &str = "NOT_LOOKED_AT";

/// The counts. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Tallies {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    live: Pairs,
    /// Those that ended since this coordinator began to count.
    ended: Pairs,
    /// What stands in the way first, of each that waits.
    waiting: BTreeMap<ReservationId, (String, &'static str)>,
}

/// Counts by pool, class and state.
#[derive(Clone, Default)]
struct Pairs {
    pools: BTreeMap<String, BTreeMap<String, BTreeMap<State, u64>>>,
    /// How many pairs of pool and class there are.
    known: usize,
}

/// One row of the page: pool, class or reason, state, count.
pub(super) struct Row {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) count: u64,
}

impl Tallies {
    /// Begins anew with what is there.
    pub(super) fn begin(&self, ledger: &Ledger) {
        let mut counts = Counts::default();
        for reservation in ledger.reservations().filter(|reservation| !reservation.state.is_final()) {
            *counts.live.of(reservation).entry(reservation.state).or_default() += 1;
            counts.wait(reservation);
        }
        let mut shared = self.counts.lock();
        counts.ended = std::mem::take(&mut shared.ended);
        *shared = counts;
    }

    /// Counts what happened.
    pub(super) fn look(&self, events: &[Event]) {
        let mut counts = None;
        for event in events {
            if let EventObject::Reservation(reservation, from) = &event.object {
                counts.get_or_insert_with(|| self.counts.lock()).change(reservation, *from);
            }
        }
    }

    /// Rows of those that have not ended; for every pool at least a few.
    pub(super) fn reservations<'a>(&self, pools: impl Iterator<Item = &'a str>) -> Vec<Row> {
        let rows = self.counts.lock().live.clone();
        rows.flatten(pools, &ALWAYS)
    }

    /// Rows of those that ended since this coordinator began to count.
    pub(super) fn ended<'a>(&self, pools: impl Iterator<Item = &'a str>) -> Vec<Row> {
        let rows = self.counts.lock().ended.clone();
        rows.flatten(pools, &[State::Released])
    }

    /// Rows of requests that wait, by pool and by what stands in their way first.
    pub(super) fn unplaced<'a>(&self, pools: impl Iterator<Item = &'a str>) -> Vec<Row> {
        let mut rows: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
        for pool in pools.take(MOST_PAIRS) {
            rows.insert((pool.to_owned(), reason::name(plimsoll_proto::v1::ErrorReason::NoCapacity)), 0);
        }
        for (pool, why) in self.counts.lock().waiting.values() {
            *rows.entry((pool.clone(), why)).or_default() += 1;
        }
        let row = |((pool, why), count): ((String, &str), u64)| Row {
            labels: vec![("pool", pool), ("reason", why.to_owned())],
            count,
        };
        rows.into_iter().map(row).collect()
    }
}

impl Counts {
    fn change(&mut self, reservation: &Reservation, from: Option<State>) {
        if from.is_some_and(State::is_ungranted) {
            self.waiting.remove(&reservation.id);
        }
        self.wait(reservation);
        if from == Some(reservation.state) {
            return;
        }
        if let Some(from) = from.filter(|from| !from.is_final())
            && let Some(count) = self.live.of(reservation).get_mut(&from)
        {
            *count = count.saturating_sub(1);
        }
        let counts = if reservation.state.is_final() { &mut self.ended } else { &mut self.live };
        *counts.of(reservation).entry(reservation.state).or_default() += 1;
    }

    fn wait(&mut self, reservation: &Reservation) {
        if reservation.aside.is_some() && reservation.state == State::Pending {
            let why = reason::name(convert::reason_to_v1(Reason::Overflowed));
            self.waiting.insert(reservation.id, (reservation.request.pool.clone(), why));
        } else if reservation.is_waiting() {
            let first = reservation.blockers.first();
            let why = first.map_or(NOT_YET, |blocker| reason::name(convert::reason_to_v1(blocker.reason)));
            self.waiting.insert(reservation.id, (reservation.request.pool.clone(), why));
        }
    }
}

impl Pairs {
    /// The states of a reservation's pool and class.
    fn of(&mut self, reservation: &Reservation) -> &mut BTreeMap<State, u64> {
        let request = &reservation.request;
        self.pair(&request.pool, if request.class.is_empty() { DEFAULT_CLASS } else { &request.class })
    }

    fn pair(&mut self, pool: &str, class: &str) -> &mut BTreeMap<State, u64> {
        // Called for every change of a reservation: names are copied for new pairs alone.
        let is_known = self.pools.get(pool).is_some_and(|classes| classes.contains_key(class));
        let (pool, class) =
            if is_known || self.known < MOST_PAIRS { (pool, class) } else { (OTHERS, OTHERS) };
        if !is_known {
            let classes = self.pools.entry(pool.to_owned()).or_default();
            if !classes.contains_key(class) {
                classes.insert(class.to_owned(), BTreeMap::new());
                self.known += 1;
            }
        }
        let classes = self.pools.get_mut(pool).expect("put there above");
        classes.get_mut(class).expect("put there above")
    }

    /// As rows; for each of `pools` with the default class these states even where they are empty.
    fn flatten<'a>(mut self, pools: impl Iterator<Item = &'a str>, states: &[State]) -> Vec<Row> {
        for pool in pools.take(MOST_PAIRS) {
            let shown = self.pair(pool, DEFAULT_CLASS);
            for state in states {
                shown.entry(*state).or_default();
            }
        }
        let mut rows = Vec::new();
        for (pool, classes) in self.pools {
            for (class, states) in classes {
                for (state, count) in states {
                    let state = state.name().to_owned();
                    let labels = vec![("state", state), ("pool", pool.clone()), ("class", class.clone())];
                    rows.push(Row { labels, count });
                }
            }
        }
        rows
    }
}

impl fmt::Debug for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tallies")
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Command, Entry, Request, Stamp, Verdict, Wait};
    use plimsoll_types::{LedgerTime, Revision};

    use super::*;

    fn entry(command: Command) -> Entry {
        Entry { actor: "test".to_owned(), request_id: String::new(), request_hash: [0; 32], command }
    }

    fn shown(rows: &[Row]) -> Vec<(Vec<String>, u64)> {
        let values = |row: &Row| row.labels.iter().map(|(_, value)| value.clone()).collect();
        rows.iter().filter(|row| row.count > 0).map(|row| (values(row), row.count)).collect()
    }

    #[test]
    fn past_the_bound_the_rest_is_one() {
        let mut pairs = Pairs::default();
        for index in 0..MOST_PAIRS + 50 {
            *pairs.pair(&format!("pool-{index}"), "a").entry(State::Active).or_default() += 1;
        }
        let rows = pairs.flatten(std::iter::empty(), &[]);
        let others = rows.iter().find(|row| row.labels[1].1 == OTHERS).expect("the rest");
        assert_eq!((rows.len(), others.count), (MOST_PAIRS + 1, 50));
    }

    #[test]
    fn what_is_counted_along_the_log_is_what_is_there() {
        let (mut ledger, tallies, mut revision) = (Ledger::new(), Tallies::default(), 0);
        let mut apply = |ledger: &mut Ledger, command: Command| {
            revision += 1;
            let stamp = Stamp { revision: Revision(revision), proposed_at: LedgerTime(1_000 + revision) };
            let applied = ledger.apply(stamp, &entry(command));
            tallies.look(&applied.events);
            applied.answer.revision
        };
        let request = Request {
            pool: "default".to_owned(),
            class: DEFAULT_CLASS.to_owned(),
            ttl_ms: 60_000,
            hold_ms: 30_000,
            wait: Wait::Queue { deadline_ms: 0 },
            ..Request::default()
        };
        let submit = || Command::Submit { request: request.clone(), verdict: Verdict::Blocked(Vec::new()) };
        let first = apply(&mut ledger, submit());
        apply(&mut ledger, submit());
        let waiting = shown(&tallies.reservations(["default"].into_iter()));
        assert_eq!(waiting, [(["pending", "default", DEFAULT_CLASS].map(String::from).to_vec(), 2)]);
        apply(&mut ledger, Command::Cancel { reservation: ReservationId(first.0) });
        let followed = shown(&tallies.reservations(["default"].into_iter()));
        assert_eq!(followed[0].1, 1);
        assert_eq!(shown(&tallies.unplaced(std::iter::empty()))[0].1, 1);
        assert_eq!(shown(&tallies.ended(std::iter::empty()))[0].1, 1);
        tallies.begin(&ledger);
        assert_eq!(shown(&tallies.reservations(["default"].into_iter())), followed);
        assert_eq!(shown(&tallies.unplaced(std::iter::empty()))[0].1, 1);
    }
}
