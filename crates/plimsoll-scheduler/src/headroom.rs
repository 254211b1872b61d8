//! What queues have left of their quotas: the ledger's tree with what the planner's own proposals in flight will take.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Blocker, Fairness, Ledger, Placement, QuotaTree, Request, Reservation, Share, Shortage,
};
use plimsoll_types::{Amount, Resources, Revision};

/// The tree as of a revision of the ledger, bookings taken. Empty, and free of cost, where the ledger has no queues.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headroom {
    tree: QuotaTree,
    /// What will be taken once those who leave have left, where that is another.
    kept: Option<QuotaTree>,
    read_at: Option<Revision>,
    /// What each pool costs beside the others, in thousandths.
    price_milli: BTreeMap<String, u32>,
}

/// What a booking takes of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    queue: String,
    pool: String,
    amounts: Resources,
}

impl Headroom {
    /// Reads the ledger's tree anew where it is another than before. O(queues x quotas + bookings) then, else O(1).
    pub(crate) fn refresh<'a>(&mut self, ledger: &Ledger, bookings: impl Iterator<Item = &'a Charge>) {
        if ledger.quota().is_empty() {
            *self = Headroom::default();
            return;
        }
        if self.read_at == Some(ledger.revision()) {
            return;
        }
        self.tree = ledger.quota().clone();
        // Where places are kept for those who wait for others to leave, both trees bind.
        self.kept = (ledger.quota() != ledger.quota_kept()).then(|| ledger.quota_kept().clone());
        self.price_milli = ledger.prices_milli();
        for charge in bookings {
            self.take(charge);
        }
        self.read_at = Some(ledger.revision());
    }

    /// The next refresh reads the ledger, whatever its revision.
    pub(crate) fn forget(&mut self) {
        self.read_at = None;
    }

    pub(crate) fn tree(&self) -> &QuotaTree {
        &self.tree
    }

    /// For those who take something for a moment and give it back.
    pub(crate) fn tree_mut(&mut self) -> &mut QuotaTree {
        &mut self.tree
    }

    /// Members that quota is enough for, at most `wanted`. Shares by memory count when their device is known.
    pub(crate) fn most_members(&self, request: &Request, wanted: u32) -> u32 {
        if request.queue.is_empty() {
            return wanted;
        }
        if !request.roles.is_empty() {
            return if self.blockers(request).is_empty() { wanted } else { 0 };
        }
        let per_member = request.least_of(1);
        let enough_for = |(resource, amount): (&str, Amount)| {
            let now = self.tree.available(&request.queue, &request.pool, resource)?;
            let later =
                self.kept.as_ref().and_then(|kept| kept.available(&request.queue, &request.pool, resource));
            let free = later.map_or(now, |later| later.min(now));
            Some(u32::try_from(free.0 / amount.0.max(1)).unwrap_or(u32::MAX))
        };
        per_member.iter().filter_map(enough_for).fold(wanted, u32::min)
    }

    /// Drops members from the end until quota is enough for the rest: for shares by memory, whose thousandths the device decides.
    pub(crate) fn trim(&self, request: &Request, placement: &mut Placement) {
        while let Some(charge) = Charge::of(request, placement)
            && !self.shortages(&charge.queue, &charge.pool, &charge.amounts).is_empty()
        {
            placement.members.pop();
        }
    }

    pub(crate) fn take(&mut self, charge: &Charge) {
        for tree in std::iter::once(&mut self.tree).chain(&mut self.kept) {
            tree.take(&charge.queue, &charge.pool, &charge.amounts);
        }
    }

    pub(crate) fn give_back(&mut self, charge: &Charge) {
        for tree in std::iter::once(&mut self.tree).chain(&mut self.kept) {
            tree.give_back(&charge.queue, &charge.pool, &charge.amounts);
        }
    }

    /// What one gives back that was given notice: of what will be taken once those who leave have left it has nothing.
    pub(crate) fn give_back_now(&mut self, charge: &Charge) {
        self.tree.give_back(&charge.queue, &charge.pool, &charge.amounts);
    }

    /// The queue whose quota is short of the least of a request that is of use; `None` where quota is enough for it.
    pub(crate) fn binding(&self, request: &Request) -> Option<String> {
        let short = self.shortages(&request.queue, &request.pool, &least(request)?);
        short.first().map(|short| short.queue.clone())
    }

    /// What is short now, or once those who leave have left.
    fn shortages(&self, queue: &str, pool: &str, asked: &Resources) -> Vec<Shortage> {
        let now = self.tree.shortages(queue, pool, asked);
        match &self.kept {
            Some(kept) if now.is_empty() => kept.shortages(queue, pool, asked),
            _ => now,
        }
    }

    /// What is short now for the least that is of use.
    pub(crate) fn blockers(&self, request: &Request) -> Vec<Blocker> {
        least(request).map_or_else(Vec::new, |asked| self.blockers_of(request, &asked))
    }

    /// What is short now of amounts that the request would take. Nothing where it names no queue.
    pub(crate) fn blockers_of(&self, request: &Request, asked: &Resources) -> Vec<Blocker> {
        self.shortages(&request.queue, &request.pool, asked).iter().map(Blocker::of_quota).collect()
    }

    /// What would be short even if nobody took anything.
    pub(crate) fn infeasible(&self, request: &Request) -> Vec<Blocker> {
        let Some(asked) = least(request) else { return Vec::new() };
        let ever = |(resource, asked): (&str, Amount)| {
            let most = self.tree.potential(&request.queue, &request.pool, resource)?;
            let blocker = || {
                let short = Shortage {
                    queue: request.queue.clone(),
                    resource: resource.to_owned(),
                    asked,
                    free: most,
                    limit: most,
                };
                Blocker::of_quota(&short)
            };
            (asked > most).then(blocker)
        };
        asked.iter().filter_map(ever).collect()
    }

    /// True where the request would take its queue beyond its own quota.
    pub(crate) fn would_borrow(&self, request: &Request) -> bool {
        least(request).is_some_and(|asked| self.tree.would_borrow(&request.queue, &request.pool, &asked))
    }

    /// The share that a queue, or one above it, would have with `next` granted, as the pool's fairness sees it. O(pools x resources x depth).
    pub(crate) fn share_with(&mut self, queue: &str, next: &Request, fairness: Fairness) -> Share {
        let taken = least(next).unwrap_or_default();
        self.tree.take(&next.queue, &next.pool, &taken);
        let share = self.tree.share(queue, &self.price_milli, fairness == Fairness::Weighted);
        self.tree.give_back(&next.queue, &next.pool, &taken);
        share
    }
}

impl Charge {
    /// What a placement takes of a quota; `None` where the request names no queue, or nothing is placed.
    pub(crate) fn of(request: &Request, placement: &Placement) -> Option<Charge> {
        if request.queue.is_empty() || placement.members.is_empty() {
            return None;
        }
        let amounts = request.charge(&placement.members)?;
        Some(Charge { queue: request.queue.clone(), pool: request.pool.clone(), amounts })
    }

    /// What a grant takes of a quota.
    pub(crate) fn held(holder: &Reservation) -> Option<Charge> {
        let request = &holder.request;
        let amounts = holder.charge().filter(|_| !request.queue.is_empty())?;
        Some(Charge { queue: request.queue.clone(), pool: request.pool.clone(), amounts })
    }
}

/// What the fewest members take; `None` where the request names no queue.
fn least(request: &Request) -> Option<Resources> {
    (!request.queue.is_empty()).then(|| plimsoll_ledger::least(request))
}
