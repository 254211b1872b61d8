//! Places for gangs that lost members: before anybody of their class or a lower one who waits (`docs/semantics.md` 5.10).

use plimsoll_ledger::{Ledger, Pool};
use plimsoll_types::{NodeId, ReservationId};

use crate::Planner;
use crate::serve::Placed;

/// Gangs of the pool that is served: class and id, in the order in which they are served.
pub(crate) type Repairs = std::collections::VecDeque<(i32, ReservationId)>;

impl Planner {
    /// Notes who is to be repaired in a pool, and serves those whose class is the highest of all who wait.
    pub(crate) fn begin_repairs(
        &mut self,
        ledger: &Ledger,
        pool: &Pool,
        limit: usize,
        placed: &mut Vec<Placed>,
    ) {
        let claims = ledger.repair_claims(&pool.name, self.agenda.now());
        self.repairs = claims.map(|gang| (gang.priority, gang.id)).collect();
        if let Some(highest) = ledger.priorities_waiting(&pool.name).next() {
            self.repair_down_to(ledger, highest, limit, placed);
        }
    }

    /// Serves those of this class and above. O(1) where nobody is to be repaired.
    pub(crate) fn repair_down_to(
        &mut self,
        ledger: &Ledger,
        priority: i32,
        limit: usize,
        placed: &mut Vec<Placed>,
    ) {
        while placed.len() < limit
            && let Some((_, id)) = self.repairs.pop_front_if(|(class, _)| *class >= priority)
        {
            self.repair(ledger, id, placed);
        }
    }

    /// As many members as fit now. What does not fit is looked for again when something comes free.
    fn repair(&mut self, ledger: &Ledger, id: ReservationId, placed: &mut Vec<Placed>) {
        let Some(gang) = ledger.reservation(id).filter(|_| !self.placing.contains(&id)) else { return };
        let Some(lacking) = ledger.lacking(gang) else { return };
        let open = |node: &NodeId| self.fleet.slot(*node).is_some_and(|slot| !slot.hidden);
        let own: Vec<NodeId> = gang.members.iter().map(|member| member.node).filter(open).collect();
        self.set_aside(own.iter().copied(), true);
        let found = self.find(ledger, &lacking);
        self.set_aside(own, false);
        // A place that apply would refuse is not proposed again and again.
        let Some(placement) = found.filter(|found| ledger.admit_repair(gang, found).is_ok()) else { return };
        let ticket = self.book_pending(ledger, id, &lacking, &placement);
        placed.push((id, placement, ticket));
    }
}
