//! The order in which a pool's queue is walked: class and age, or what its discipline makes of them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plimsoll_ledger::{EndReason, Ledger, Pool, QueueDiscipline, Reservation};
use plimsoll_types::{LedgerTime, ReservationId};

use crate::Planner;
use crate::points::by_points;
use crate::queueing::{Ask, Outlook, Sketch};

/// How many that wait are put in order in a walk; those behind them follow by class and age.
pub(crate) const RANKED: usize = 4_096;
/// Weight of an observation.
const ONE: u64 = 1 << 16;
/// What stays of a past at each further run, in 2^-16: of those who ask alike, and of everybody.
const KEEP: u64 = 64_225;
const KEEP_ALL: u64 = 65_470;
/// Parts of an expectation, in 2^-16: of those who ask alike, of the same queue, of everybody.
const PARTS: [u64; 3] = [ONE * 5 / 8, ONE / 4, ONE / 8];
/// Most sequences that are remembered.
const MOST_SEQUENCES: usize = 16_384;
/// What is expected where nothing at all is known: an hour.
const UNKNOWN: Outlook = Outlook { mean_ms: 3_600_000, urgency: (1 << 40) / 3_600_000 };
/// After this time, in seconds, who waits counts double, and from then on with the square of the wait.
const AGEING_S: u128 = 54 * 3_600;

/// Run times of what has ended in a pool, by who asked and how much: learned from the rows that the ledger keeps of what has ended, an hour long, and from
/// then on from each end. It only orders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    alike: BTreeMap<(String, u64), Sketch>,
    owners: BTreeMap<String, Sketch>,
    all: Sketch,
    /// The latest end that was looked at.
    seen: (LedgerTime, ReservationId),
}

impl Planner {
    /// Those who wait for a pool, in the order of its discipline. O(n), and O(m log m) in the first [`RANKED`] where it is not class and age.
    pub(crate) fn walk_order<'l>(
        &mut self,
        ledger: &'l Ledger,
        pool: &'l Pool,
    ) -> Box<dyn Iterator<Item = ReservationId> + 'l> {
        let waiting = ledger.pending(&pool.name);
        let now_ms = self.ahead.now_ms;
        let mut first: Vec<_> = match pool.queueing {
            QueueDiscipline::Priority => {
                let ranked = by_points(ledger, pool, LedgerTime(now_ms), RANKED).unwrap_or_default();
                return Box::new(ranked.into_iter().chain(waiting.skip(RANKED)));
            }
            QueueDiscipline::Learned => {
                let past = self.ahead.pasts.entry(pool.name.clone()).or_default();
                past.learn(ledger, &pool.name);
                let mut known = BTreeMap::new();
                let ranked = ledger.pending(&pool.name).take(RANKED).filter_map(|id| ledger.reservation(id));
                ranked
                    .map(|one| {
                        let key = key_of(one);
                        let outlook = *known.entry(key).or_insert_with_key(|key| past.outlook(key));
                        (Reverse(one.priority), cost(one, outlook, now_ms), one.id)
                    })
                    .collect()
            }
            _ => return Box::new(waiting),
        };
        first.sort_unstable();
        Box::new(first.into_iter().map(|(_, _, id)| id).chain(waiting.skip(RANKED)))
    }
}

impl Past {
    /// Takes in what has ended since. O(ends since + log n).
    fn learn(&mut self, ledger: &Ledger, pool: &str) {
        for ended in ledger.ended_after(self.seen) {
            self.seen = (ended.ended_at, ended.id);
            let says_its_length =
                matches!(ended.end_reason, Some(EndReason::Released | EndReason::MaxDuration));
            if ended.request.pool != pool || ended.granted_at.0 == 0 || !says_its_length {
                continue;
            }
            let ran_ms = ended.ended_at.ms_since(ended.granted_at);
            let (owner, units) = key_of(ended);
            if self.alike.len() >= MOST_SEQUENCES {
                self.alike.clear();
                self.owners.clear();
            }
            let alike = self.alike.entry((owner.clone(), units)).or_default();
            let owners = self.owners.entry(owner).or_default();
            for (sketch, keep) in [(alike, KEEP), (owners, KEEP), (&mut self.all, KEEP_ALL)] {
                sketch.fade(keep);
                sketch.add(ran_ms, ONE);
            }
        }
    }

    fn outlook(&self, key: &(String, u64)) -> Outlook {
        let mut blend = Sketch::default();
        let pasts = [self.alike.get(key), self.owners.get(&key.0), Some(&self.all)];
        for (past, part) in pasts.into_iter().zip(PARTS) {
            if let Some(past) = past {
                blend.add_as(past, part);
            }
        }
        blend.outlook().unwrap_or(UNKNOWN)
    }
}

/// Who asks, and for how much: requests of one key are expected to run alike.
fn key_of(reservation: &Reservation) -> (String, u64) {
    let request = &reservation.request;
    let owner =
        [&request.queue, &request.tenant, &reservation.requester].into_iter().find(|name| !name.is_empty());
    (owner.cloned().unwrap_or_default(), Ask::of(request).total())
}

/// Work for each unit of slowdown that starting it saves: the least first is Smith's rule. Waiting makes cheaper, by 1 + (wait / 54 h)².
fn cost(reservation: &Reservation, outlook: Outlook, now_ms: u64) -> u64 {
    let work = u128::from(outlook.mean_ms) * u128::from(Ask::of(&reservation.request).total());
    let cost = (work << 20) / u128::from(outlook.urgency.max(1));
    let waited_s = u128::from(now_ms.saturating_sub(reservation.submitted_at.0) / 1_000).min(AGEING_S << 20);
    let aged = cost.min(1 << 64) * (AGEING_S * AGEING_S) / (AGEING_S * AGEING_S + waited_s * waited_s);
    u64::try_from(aged).unwrap_or(u64::MAX)
}
