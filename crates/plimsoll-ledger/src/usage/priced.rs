//! What a grant takes, and what its nodes cost beside their pool's prices (`docs/semantics.md` 5.22).

use std::collections::BTreeMap;

use plimsoll_types::Resources;

use crate::{Ledger, MemberPlacement, Node};

/// What a node costs where nobody says otherwise, in thousandths of its pool's prices.
const USUAL_PERMILLE: u32 = 1_000;

/// Amounts of all members, and what their nodes cost.
#[derive(Clone, Copy, Debug)]
pub struct Priced<'a> {
    /// Amounts of all members.
    pub total: &'a Resources,
    /// What their nodes cost on average, in thousandths of the pool's prices; rounded up.
    pub permille: u32,
}

/// Nodes that cost something else than is usual: per pool and price. Derived, never stored.
pub(crate) type OddPrices = BTreeMap<String, BTreeMap<u32, u64>>;

impl Ledger {
    /// What members on their nodes take.
    pub fn priced<'a>(&self, total: &'a Resources, members: &[MemberPlacement]) -> Priced<'a> {
        if self.odd_prices.is_empty() || self.meta.version < crate::capacity::SINCE_VERSION {
            return Priced { total, permille: USUAL_PERMILLE };
        }
        let of_nodes = members.iter().filter_map(|member| self.node(member.node));
        let (sum, count) = of_nodes
            .fold((0u64, 0u64), |(sum, count), node| (sum + u64::from(node.price_permille()), count + 1));
        let permille = if count == 0 { USUAL_PERMILLE.into() } else { sum.div_ceil(count) };
        Priced { total, permille: u32::try_from(permille).unwrap_or(u32::MAX) }
    }

    /// What amounts of a pool take at least, wherever they are found: for whoever has no place yet.
    pub fn cheapest<'a>(&self, total: &'a Resources, pool: &str) -> Priced<'a> {
        let known = self.odd_prices.get(pool).filter(|_| self.meta.version >= crate::capacity::SINCE_VERSION);
        let least = known.and_then(|prices| prices.keys().next()).copied().unwrap_or(USUAL_PERMILLE);
        Priced { total, permille: least.min(USUAL_PERMILLE) }
    }

    /// Counts a node by what it costs, or takes it out.
    pub(crate) fn count_price(&mut self, node: &Node, is_there: bool) {
        let price = node.price_permille();
        if price == USUAL_PERMILLE {
            return;
        }
        let of_pool = self.odd_prices.entry(node.pool.clone()).or_default();
        let count = of_pool.entry(price).or_default();
        *count = if is_there { *count + 1 } else { *count - 1 };
        if *count == 0 {
            of_pool.remove(&price);
        }
        if of_pool.is_empty() {
            self.odd_prices.remove(&node.pool);
        }
    }
}
