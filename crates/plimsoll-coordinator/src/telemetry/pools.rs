//! What pools have, what of it is granted to those who are backed, free for such, or out of reach. The three sum to the capacity. Beside it, what
//! best effort has.

use std::collections::BTreeMap;

use plimsoll_ledger::{Ledger, Node, NodeUsage};

/// Capacity of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct PoolCapacity {
    /// Resource name to amounts.
    pub(crate) resources: BTreeMap<String, Split>,
    /// Nodes by state name.
    pub(crate) nodes: BTreeMap<&'static str, u64>,
}

/// One resource of a pool, in its smallest unit. `gpu` is in thousandths of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Split {
    /// Taken by reservations that are backed; of devices and countables, by all.
    pub(crate) granted: u64,
    /// To be had, once best effort has left it.
    pub(crate) free: u64,
    /// On nodes or devices that take no new work, and not taken.
    pub(crate) lost: u64,
    /// Taken by best effort, beside what is granted: of what is idle, or beyond what there is.
    pub(crate) best_effort: u64,
}

/// Sums up every pool. One look at each node: for pages, not for decisions.
pub(crate) fn capacities(ledger: &Ledger) -> BTreeMap<String, PoolCapacity> {
    let mut pools: BTreeMap<String, PoolCapacity> =
        ledger.pools().map(|pool| (pool.name.clone(), PoolCapacity::default())).collect();
    for node in ledger.nodes() {
        let pool = pools.entry(node.pool.clone()).or_default();
        *pool.nodes.entry(node.state_name()).or_default() += 1;
        add_amounts(pool, ledger, node);
        add_devices(pool, ledger, node);
    }
    for pool in ledger.pools().filter(|pool| !pool.countables.is_empty()) {
        let used = ledger.countables_used(&pool.name);
        let entry = pools.entry(pool.name.clone()).or_default();
        for (name, total) in &pool.countables {
            let granted = used.get(name).0;
            entry.resources.insert(
                name.clone(),
                Split { granted, free: total.0.saturating_sub(granted), ..Split::default() },
            );
        }
    }
    pools
}

fn add_amounts(pool: &mut PoolCapacity, ledger: &Ledger, node: &Node) {
    let none = NodeUsage::default();
    let usage = ledger.usage(node.id).unwrap_or(&none);
    for (name, amount) in node.allocatable.iter() {
        let granted = usage.backed(name).0;
        pool.add(name, granted, amount.0.saturating_sub(granted), node.is_eligible());
    }
    for (name, amount) in usage.loose.iter() {
        let split = pool.resources.entry(name.to_owned()).or_default();
        split.best_effort = split.best_effort.saturating_add(amount.0);
    }
}

fn add_devices(pool: &mut PoolCapacity, ledger: &Ledger, node: &Node) {
    let usage = ledger.usage(node.id);
    for (index, device) in node.registration.devices.iter().enumerate() {
        let taken =
            usage.and_then(|usage| usage.devices.get(index)).map_or(0, |usage| u64::from(usage.milli));
        pool.add("gpu", taken, 1_000u64.saturating_sub(taken), node.is_eligible() && !device.failed);
    }
}

impl PoolCapacity {
    fn add(&mut self, name: &str, granted: u64, rest: u64, reachable: bool) {
        if !self.resources.contains_key(name) {
            self.resources.insert(name.to_owned(), Split::default());
        }
        let split = self.resources.get_mut(name).expect("put there just now");
        split.granted = split.granted.saturating_add(granted);
        let side = if reachable { &mut split.free } else { &mut split.lost };
        *side = side.saturating_add(rest);
    }
}

/// The amount in the unit of its metric: cores, devices, otherwise the smallest unit itself (bytes, bits per second).
#[expect(clippy::cast_precision_loss, reason = "metrics are floats; nothing decides by them")]
pub(crate) fn in_base_unit(resource: &str, amount: u64) -> f64 {
    match resource {
        "cpu" | "gpu" => amount as f64 / 1_000.0,
        _ => amount as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_reachable_counts_as_lost() {
        let mut pool = PoolCapacity::default();
        pool.add("cpu", 1_000, 3_000, true);
        pool.add("cpu", 500, 1_500, false);
        assert_eq!(pool.resources["cpu"], Split { granted: 1_500, free: 3_000, lost: 1_500, best_effort: 0 });
        assert!((in_base_unit("cpu", 1_500) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_new_ledger_has_one_empty_pool() {
        let pools = capacities(&Ledger::new());
        assert_eq!(pools.keys().collect::<Vec<_>>(), ["default"]);
        assert!(pools["default"].resources.is_empty());
    }
}
