//! Requests that arrive together planned as a whole: a search over the orders in which they can be placed, within a bound on
//! its steps, never worse than placing them one after the other by `greedy`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Ledger, Placement, Request, Strategy};

use crate::Planner;
use crate::planner::{Ticket, gpu_milli_of, priority_of, size_of};

/// Places looked for in the plans of one batch, beyond the first two plans: the bound on the search. Not a time, so that the
/// same batch is planned alike everywhere.
const MOST_STEPS: usize = 4_096;

/// Places for some requests of a batch, by their number in it.
struct Plan {
    placements: BTreeMap<usize, Placement>,
    worth: Worth,
    steps: usize,
}

/// What a plan places: for each priority GPU thousandths asked by the members that it places, and requests; the highest
/// priority first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Worth(BTreeMap<Reverse<i64>, (u64, u64)>);

impl Worth {
    /// True where it places more at the highest priority at which the two differ: more of one kind, and no less of the
    /// other. Plans of which each has something over the other are not better.
    fn is_better_than(&self, other: &Worth) -> bool {
        let levels: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let of = |worth: &Worth, level| worth.0.get(level).copied().unwrap_or_default();
        let differing = levels.into_iter().map(|level| (of(self, level), of(other, level)));
        let first = differing.into_iter().find(|(mine, theirs)| mine != theirs);
        first.is_some_and(|(mine, theirs)| mine.0 >= theirs.0 && mine.1 >= theirs.1)
    }
}

impl Planner {
    /// Plans and books the requests of this batch that are in pools of the strategy `optimized`, where there are several in
    /// one. Those that it leaves out have no place beside the others. At most `2 x batch + 4096` places are looked for in a
    /// pool.
    pub(crate) fn plan_optimized<'a>(
        &mut self,
        ledger: &Ledger,
        requests: &[&Request],
        requester_of: &dyn Fn(usize) -> &'a str,
    ) -> BTreeMap<usize, (Placement, Ticket)> {
        let mut by_pool: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let now = self.agenda.now();
        // Their time comes later.
        let batched = |request: &Request| ledger.batch_of(&request.queue).is_some();
        for (index, request) in requests
            .iter()
            .enumerate()
            .filter(|(_, request)| request.start_at_ms <= now.0 && !batched(request))
        {
            by_pool.entry(&request.pool).or_default().push(index);
        }
        let mut booked = BTreeMap::new();
        for (name, indexes) in by_pool {
            let pool = ledger.pool(name);
            // In a strict queue the order is not ours to choose.
            let free_order = |pool: &&std::sync::Arc<plimsoll_ledger::Pool>| {
                pool.strategy == Strategy::Optimized && !pool.is_strict()
            };
            // Nor is it where somebody has a planned start.
            if indexes.len() < 2 || self.ahead.holds_back(name) || pool.filter(free_order).is_none() {
                continue;
            }
            for (index, placement) in self.best_plan(ledger, requests, indexes).placements {
                let (request, requester) = (requests[index], requester_of(index));
                // What is left out for its limits or budgets is refused with them, one by one.
                let Some(placement) = self.afford(ledger, request, requester, placement) else {
                    continue;
                };
                let ticket = self.book_for(ledger, request, requester, &placement);
                booked.insert(index, (placement, ticket));
            }
        }
        booked
    }

    fn best_plan(&mut self, ledger: &Ledger, requests: &[&Request], mut indexes: Vec<usize>) -> Plan {
        let priority = |index: &usize| Reverse(priority_of(ledger, requests[*index]));
        indexes.sort_by_key(|index| (priority(index), *index));
        let mut best = self.trial(ledger, requests, &indexes, Strategy::Optimized);
        let is_whole = |(index, placement): (&usize, &Placement)| {
            placement.members.len() as u64 >= u64::from(requests[*index].gang.max_members)
        };
        if best.placements.len() == indexes.len() && best.placements.iter().all(is_whole) {
            return best;
        }
        let greedy = self.trial(ledger, requests, &indexes, Strategy::Greedy);
        // Where neither is better than the other, greedy is: the promise is to be no worse than it.
        if best.worth != greedy.worth && !best.worth.is_better_than(&greedy.worth) {
            best = greedy;
        }
        let mut steps = 0;
        let mut attempt = |planner: &mut Planner, order: &[usize], best: &mut Plan| {
            let plan = planner.trial(ledger, requests, order, Strategy::Optimized);
            steps += plan.steps;
            if plan.worth.is_better_than(&best.worth) {
                *best = plan;
            }
            steps + order.len() <= MOST_STEPS
        };
        let mut by_size = indexes.clone();
        by_size.sort_by_key(|index| (priority(index), Reverse(size_of(requests[*index])), *index));
        if !attempt(self, &by_size, &mut best) {
            return best;
        }
        // What found no place goes first among its equals in priority, one after the other, and stays there if that helped.
        for order in [indexes, by_size] {
            let mut order = order;
            for index in order.clone() {
                if best.placements.contains_key(&index) {
                    continue;
                }
                let before = best.worth.clone();
                let mut moved: Vec<usize> = order.iter().copied().filter(|other| *other != index).collect();
                let at = moved.partition_point(|other| priority(other) < priority(&index));
                moved.insert(at, index);
                if !attempt(self, &moved, &mut best) {
                    return best;
                }
                if best.worth != before {
                    order = moved;
                }
            }
        }
        best
    }

    /// The plan that placing one after the other gives. Leaves no booking behind.
    fn trial(&mut self, ledger: &Ledger, requests: &[&Request], order: &[usize], strategy: Strategy) -> Plan {
        self.read_quota(ledger);
        let mut plan = Plan { placements: BTreeMap::new(), worth: Worth::default(), steps: 0 };
        let mut failed: BTreeSet<u64> = BTreeSet::new();
        let mut tickets = Vec::new();
        for index in order.iter().copied() {
            let request = requests[index];
            let shape = self.shape(ledger, request);
            if failed.contains(&shape) {
                continue;
            }
            plan.steps += 1;
            let Some(placement) = self.find_by(ledger, request, strategy) else {
                failed.insert(shape);
                continue;
            };
            tickets.push(self.book(ledger, request, &placement));
            let milli = gpu_milli_of(request).saturating_mul(placement.members.len() as u64);
            let worth = plan.worth.0.entry(Reverse(priority_of(ledger, request))).or_default();
            *worth = (worth.0.saturating_add(milli), worth.1 + 1);
            plan.placements.insert(index, placement);
        }
        self.give_back(ledger, tickets);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth(levels: &[(i64, u64, u64)]) -> Worth {
        Worth(
            levels
                .iter()
                .map(|(priority, milli, requests)| (Reverse(*priority), (*milli, *requests)))
                .collect(),
        )
    }

    #[test]
    fn the_highest_priority_that_differs_decides() {
        let plan = worth(&[(100, 2_000, 2), (50, 0, 1)]);
        assert!(plan.is_better_than(&worth(&[(100, 1_000, 2), (50, 8_000, 9)])));
        assert!(plan.is_better_than(&worth(&[(100, 2_000, 2)])));
        assert!(!plan.is_better_than(&plan.clone()));
        assert!(!worth(&[(50, 8_000, 9)]).is_better_than(&plan));
    }

    #[test]
    fn more_of_one_for_less_of_the_other_is_not_better() {
        let (few, many) = (worth(&[(50, 8_000, 1)]), worth(&[(50, 4_000, 4)]));
        assert!(!few.is_better_than(&many) && !many.is_better_than(&few));
    }
}
