//! When those who wait will start: worked out when somebody asks, and kept for the next who asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_ledger::{Ledger, Reservation};
use plimsoll_scheduler::{PlannedStart, StartEstimate, StartEstimates};
use plimsoll_types::Revision;
use tokio::time::Instant;

/// An estimate of an earlier revision is good for so long, for a request that it knew: many wait, and all may ask after every change.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// And so much longer for each node: in large fleets the ledger has more to do than this, which takes about 2 microseconds for each.
const GOOD_FOR_PER_NODE: Duration = Duration::from_micros(200);

/// Estimates per pool, and the starts that this replica keeps free while it leads.
#[derive(Default)]
pub(super) struct Estimates {
    planned: Mutex<Vec<PlannedStart>>,
    known: Mutex<BTreeMap<String, Known>>,
}

/// Estimates of a pool, and until when those of an earlier revision are good.
struct Known {
    good_until: Instant,
    estimates: Arc<StartEstimates>,
}

impl Estimates {
    /// Says which starts are kept free now.
    pub(super) fn promise(&self, planned: Vec<PlannedStart>) {
        let mut before = self.planned.lock();
        if *before != planned {
            *before = planned;
            drop(before);
            self.known.lock().clear();
        }
    }

    /// When one that waits will start. `rank` is its place in the queue, from 1, asked for only where it is far back. O(1) where others asked lately, else
    /// O(nodes log nodes).
    pub(super) fn of(
        &self,
        ledger: &Ledger,
        reservation: &Reservation,
        rank: impl FnOnce() -> u64,
    ) -> Option<StartEstimate> {
        if !reservation.is_waiting() {
            return None;
        }
        Some(self.of_pool(ledger, reservation)?.of(reservation.id, rank))
    }

    fn of_pool(&self, ledger: &Ledger, reservation: &Reservation) -> Option<Arc<StartEstimates>> {
        let pool = ledger.pool(&reservation.request.pool)?;
        let mut known = self.known.lock();
        if let Some(Known { good_until, estimates }) = known.get(&pool.name) {
            // It is to them as it is now: what changed since was placed, or waits again.
            let knew = estimates.revision() >= reservation.changed.max(Revision(reservation.id.0));
            if estimates.revision() == ledger.revision() || (knew && Instant::now() < *good_until) {
                return Some(Arc::clone(estimates));
            }
        }
        let planned = self.planned.lock().clone();
        let estimates = Arc::new(StartEstimates::new(ledger, pool, &planned));
        let nodes = u32::try_from(ledger.nodes().count()).unwrap_or(u32::MAX);
        let good_until = Instant::now() + GOOD_FOR.max(GOOD_FOR_PER_NODE * nodes);
        known.insert(pool.name.clone(), Known { good_until, estimates: Arc::clone(&estimates) });
        Some(estimates)
    }
}
