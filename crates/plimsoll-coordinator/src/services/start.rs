//! Start estimates as the API shows them.

use std::collections::BTreeMap;

use plimsoll_ledger::{Ledger, Reservation};
use plimsoll_proto::v1;
use plimsoll_scheduler::{NoStart, StartEstimate, rank_of};
use plimsoll_types::ReservationId;

use crate::core::Core;

/// When one that waits is expected to start; `None` where it does not wait.
pub(super) fn of(core: &Core, ledger: &Ledger, reservation: &Reservation) -> Option<v1::StartEstimate> {
    let estimate = core.estimate(ledger, reservation, || rank_of(ledger, reservation))?;
    Some(told(ledger, &estimate))
}

/// The same for many: their ranks are looked up together, and only where one of them is far back. O(those that wait) then.
pub(super) fn fill(core: &Core, ledger: &Ledger, shown: &mut [(ReservationId, v1::Reservation)]) {
    let mut ranks: BTreeMap<String, BTreeMap<ReservationId, u64>> = BTreeMap::new();
    let wanted: Vec<ReservationId> = shown.iter().map(|(id, _)| *id).collect();
    for (id, shown) in shown {
        let Some(waiting) = ledger.reservation(*id) else { continue };
        let pool = &waiting.request.pool;
        let rank = || {
            let ranks = ranks.entry(pool.clone()).or_insert_with(|| {
                let ranked = ledger.pending(pool).zip(1..);
                ranked.filter(|(id, _)| wanted.contains(id)).collect()
            });
            ranks.get(id).copied().unwrap_or_default()
        };
        shown.start = core.estimate(ledger, waiting, rank).map(|estimate| told(ledger, &estimate));
    }
}

fn told(ledger: &Ledger, estimate: &StartEstimate) -> v1::StartEstimate {
    v1::StartEstimate {
        start_time_ms: estimate.start_at.map_or(0, |at| at.0),
        promised: estimate.is_hard,
        revision: estimate.revision.0,
        discipline: estimate.discipline.clone(),
        why_none: estimate.why_none.as_ref().map(|why| sentence(ledger, why)).unwrap_or_default(),
    }
}

fn sentence(ledger: &Ledger, why: &NoStart) -> String {
    match why {
        NoStart::Limited(blocker) => {
            format!("it waits for {}, and nobody knows when that is given back", blocker.subject)
        }
        NoStart::NoEnd(holder) => {
            let where_to = ledger.reservation(*holder).and_then(|held| held.members.first());
            let node = where_to.and_then(|member| ledger.node(member.node));
            let node = node.map(|node| format!(" on {}", node.name())).unwrap_or_default();
            format!("{holder}{node} is in its way and declares no end")
        }
        NoStart::NoNode => "no node that could hold it takes work".to_owned(),
        NoStart::TooFar => "it is further ahead than is looked".to_owned(),
    }
}
