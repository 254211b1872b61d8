//! Fragmentation-gradient descent for shared GPUs: a request goes where it costs the expected requests least of what they
//! could use.
//!
//! After Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
//! USENIX ATC 2023: the fragmentation of a node is the free GPU that a request drawn from the known mix cannot use,
//! and of all nodes that fit the one is taken whose fragmentation grows least. Three things differ:
//! - *Depth.* The paper asks whether one more request of a shape fits. Here half of the measure asks how many would: cpu
//!   that runs out before the GPUs do is seen while there is still something to be done about it ([`usable`]).
//! - *Scarcity.* A shape weighs by its requests per GPU that may serve it, not by its requests alone: those who need the few
//!   devices of one model count where these are ([`mix`]).
//! - *The mix is learned* from what arrives ([`history`]), never configured.
//!
//! All of it is the leader's own and changes no rule of the ledger: a new leader learns anew from the reservations that the
//! ledger keeps.

mod descent;
mod history;
mod mix;
mod usable;

use std::collections::BTreeMap;

use plimsoll_ledger::{Device, Ledger, Pool, Request, Strategy};

use self::descent::Memo;
use self::history::History;
use self::mix::{Inventory, Mix};

/// Reservations that a new leader looks at, from the newest on, to learn what is asked.
const MOST_LOOKED_AT: usize = 16_384;
/// Arrivals after which the mix is taken anew: a quarter of those known, within these bounds.
const REFRESH_AFTER: (u64, u64) = (16, 512);

/// True where a strategy places by the gradient.
pub(crate) fn descends(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::Fragmentation | Strategy::Optimized)
}

/// What is known about the requests and devices of each pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gradients {
    /// A device for each kind: model, memory and how it is cut. Nodes and mixes name kinds by their place here.
    kinds: Vec<Device>,
    inventories: BTreeMap<String, Inventory>,
    /// Pools whose strategy uses the gradient.
    pools: BTreeMap<String, Known>,
    memo: Memo,
    /// Mixes made so far.
    epoch: u64,
}

#[derive(Clone, Debug, Default)]
struct Known {
    history: History,
    mix: Mix,
    /// Number of the mix among all: what was remembered under another one is of no use.
    epoch: u64,
    /// Arrivals since the mix was taken.
    since: u64,
}

impl Gradients {
    /// Forgets the nodes, for a rebuild; what arrived stays known.
    pub(crate) fn forget_nodes(&mut self) {
        self.kinds.clear();
        self.inventories.clear();
    }

    /// Kinds of a node's devices.
    pub(crate) fn kinds_of(&mut self, devices: &[Device]) -> Vec<u16> {
        devices.iter().map(|device| self.kind_of(device)).collect()
    }

    /// A node came to a pool.
    pub(crate) fn enter(&mut self, pool: &str, kinds: &[u16]) {
        self.inventories.entry(pool.to_owned()).or_default().enter(kinds);
    }

    /// A node left a pool.
    pub(crate) fn leave(&mut self, pool: &str, kinds: &[u16]) {
        if let Some(inventory) = self.inventories.get_mut(pool) {
            inventory.leave(kinds);
        }
    }

    /// Follows a change of pools or nodes. A pool that is new to the gradient learns from the reservations that the ledger
    /// keeps, newest first: what runs, waits, or ended lately. O(reservations looked at), and only for such a pool.
    pub(crate) fn follow(&mut self, ledger: &Ledger) {
        let descending = |pool: &&std::sync::Arc<Pool>| descends(pool.strategy);
        let names: Vec<String> = ledger.pools().filter(descending).map(|pool| pool.name.clone()).collect();
        self.pools.retain(|name, _| names.contains(name));
        let new: Vec<String> = names.into_iter().filter(|name| !self.pools.contains_key(name)).collect();
        if !new.is_empty() {
            for name in new.iter().cloned() {
                self.pools.insert(name, Known::default());
            }
            let latest: Vec<_> = ledger.reservations().rev().take(MOST_LOOKED_AT).collect();
            for reservation in latest.into_iter().rev().filter(|one| new.contains(&one.request.pool)) {
                if let Some(known) = self.pools.get_mut(&reservation.request.pool) {
                    known.history.learn(&reservation.request);
                }
            }
        }
        let all: Vec<String> = self.pools.keys().cloned().collect();
        for name in all {
            self.refresh(&name);
        }
    }

    /// A request arrived, whatever becomes of it.
    pub(crate) fn learn(&mut self, request: &Request) {
        let Some(known) = self.pools.get_mut(&request.pool) else { return };
        if !known.history.learn(request) {
            return;
        }
        known.since += 1;
        let (least, most) = REFRESH_AFTER;
        if known.since >= (known.history.total() / 4).clamp(least, most) {
            self.refresh(&request.pool);
        }
    }

    fn refresh(&mut self, pool: &str) {
        let Some(known) = self.pools.get_mut(pool) else { return };
        known.since = 0;
        let inventory = self.inventories.get(pool).cloned().unwrap_or_default();
        known.mix = Mix::new(&known.history, &self.kinds, &inventory);
        self.epoch += 1;
        known.epoch = self.epoch;
    }

    fn kind_of(&mut self, device: &Device) -> u16 {
        let same = |kind: &Device| {
            kind.model == device.model && kind.memory_bytes == device.memory_bytes && kind.mig == device.mig
        };
        let index = self.kinds.iter().position(same).unwrap_or_else(|| {
            self.kinds.push(Device { uuid: String::new(), failed: false, ..device.clone() });
            self.kinds.len() - 1
        });
        // Past 65,535 kinds the last one stands for the rest: it only weighs, what fits is asked elsewhere.
        u16::try_from(index).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests;
