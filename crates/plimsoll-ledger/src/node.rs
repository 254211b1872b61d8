//! Nodes and devices as the ledger knows them: stored facts, and the usage derived from grants.

use std::collections::BTreeSet;

use plimsoll_types::{Amount, Labels, LedgerTime, NodeEpoch, NodeId, ReservationId, Resources, Revision};

use crate::{DeviceGrant, Interruption, MigLayout, Moved};

/// What an agent says of its node when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Unique name, normally the host name.
    pub name: String,
    /// Chosen by the agent at each start; another value is another incarnation.
    pub incarnation: u64,
    /// Pool that the node is for; empty lets the pools' selectors decide.
    pub pool: String,
    /// Labels.
    pub labels: Labels,
    /// What the machine has.
    pub capacity: Resources,
    /// Devices, in the order of their indices.
    pub devices: Vec<Device>,
    /// The agent ends a workload by itself when its lease runs out, so that a silent node is safe after that.
    pub self_fencing: bool,
    /// Reservations whose workloads still run on the node, ascending.
    pub running: Vec<ReservationId>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Vendor's unique id, such as `GPU-5f3a...`.
    pub uuid: String,
    /// Model, lower case, such as `h100`.
    pub model: String,
    /// Memory that may be granted, in bytes (driver reserve already taken off).
    pub memory_bytes: u64,
    /// Set by agent or operator: the device is not to be granted.
    pub failed: bool,
    /// How it is cut into slices: then it is granted by profile, and only so. From ledger version 5 on.
    pub mig: Option<MigLayout>,
}

/// Whether new work may be put on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodeAdmin {
    /// Yes.
    #[default]
    Schedulable,
    /// No; what runs stays.
    Cordoned {
        /// Why, in the operator's words.
        reason: String,
    },
    /// No; what runs must leave.
    Draining {
        /// Why, in the operator's words.
        reason: String,
        /// What still runs then is ended; 0 for no such end.
        deadline: LedgerTime,
    },
}

/// Whether a node is heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeHealth {
    /// Heartbeats arrive.
    #[default]
    Available,
    /// Silent; its leases are not yet safe to end.
    Suspect,
    /// Silent past the safe end of all its leases. What it held stays fenced off.
    Lost,
    /// Confirmed off: what it held is free of claims.
    Fenced,
    /// Known to be broken.
    Failed,
}

impl NodeHealth {
    /// True while something may still come of the node: its word arrives, or is only late.
    pub fn is_heard(self) -> bool {
        matches!(self, NodeHealth::Available | NodeHealth::Suspect)
    }
}

/// What a lost node may still be running: counted as used until the node's own word or a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencePending {
    /// The reservation that ended.
    pub reservation: ReservationId,
    /// Its token.
    pub token: Revision,
    /// What its member had.
    pub amounts: Resources,
    /// The devices its member had.
    pub devices: Vec<DeviceGrant>,
}

/// A node: stored facts only. Usage is derived, in `NodeUsage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its small integer.
    pub id: NodeId,
    /// What the agent said last.
    pub registration: Registration,
    /// Revision of the latest registration with a new incarnation.
    pub epoch: NodeEpoch,
    /// Pool that the node is in.
    pub pool: String,
    /// Capacity less what node limits take away.
    pub allocatable: Resources,
    /// The operator's word.
    pub admin: NodeAdmin,
    /// What is heard of it.
    pub health: NodeHealth,
    /// When health last changed.
    pub health_since: LedgerTime,
    /// What it may still be running after it was lost, ascending by reservation.
    pub fence_pending: Vec<FencePending>,
    /// That it moved to the pool that it is in; `None` for one that never did. From ledger version 9 on.
    pub moved: Option<Box<Moved>>,
    /// That its provider takes it back. From ledger version 11 on.
    pub interruption: Option<Interruption>,
    /// Revision of the latest change of a stored fact.
    pub changed: Revision,
}

/// What is taken of a node: the sum over occupying grants and fence-pending remains. Derived, never stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// Amounts taken.
    pub used: Resources,
    /// Of these, what best-effort grants have.
    pub loose: Resources,
    /// Per device, in the order of their indices.
    pub devices: Vec<DeviceUsage>,
    /// Occupying reservations with a member here.
    pub holders: BTreeSet<ReservationId>,
    /// What will be taken once those who were given notice have left; `None` where nobody was, and nothing is kept.
    pub kept: Option<Box<Kept>>,
}

/// What will be taken of a node once those who were given notice have left and those for whom they leave are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Amounts.
    pub used: Resources,
    /// Of these, what best-effort grants will have.
    pub loose: Resources,
    /// Per device, in the order of their indices.
    pub devices: Vec<DeviceUsage>,
    /// Who leaves, and for whom the place is kept.
    pub by: BTreeSet<ReservationId>,
}

/// What is taken of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUsage {
    /// Thousandths taken; never above 1000.
    pub milli: u32,
    /// Bytes taken; never above the device's memory.
    pub memory_bytes: u64,
    /// Grants on it.
    pub grants: u32,
    /// It is taken whole by one grant.
    pub exclusive: bool,
    /// Grants among them that are instances of a profile.
    pub sliced: u32,
    /// Memory slices that these take, a bit for each.
    pub memory_mask: u32,
    /// How many memory slices they take in all: as many as there are bits, since none overlap.
    pub memory_slices: u32,
    /// Compute slices that they take.
    pub compute_slices: u8,
}

impl NodeUsage {
    /// Nothing taken of a node with so many devices.
    pub(crate) fn none(devices: usize) -> NodeUsage {
        NodeUsage { devices: vec![DeviceUsage::default(); devices], ..NodeUsage::default() }
    }

    /// From here on, what will be taken later is counted apart: somebody leaves, or waits for those who do.
    pub(crate) fn keep(&mut self, who: ReservationId) {
        let kept = self.kept.get_or_insert_with(|| {
            let (used, loose) = (self.used.clone(), self.loose.clone());
            Box::new(Kept { used, loose, devices: self.devices.clone(), by: BTreeSet::new() })
        });
        kept.by.insert(who);
    }

    /// Once nobody leaves or waits any more, what is taken later is what is taken now.
    pub(crate) fn keep_no_more(&mut self, who: ReservationId) {
        if let Some(kept) = &mut self.kept {
            kept.by.remove(&who);
            if kept.by.is_empty() {
                self.kept = None;
            }
        }
    }

    /// What will be taken once those who were given notice have left.
    pub fn later(&self, name: &str) -> Amount {
        self.kept.as_ref().map_or(&self.used, |kept| &kept.used).get(name)
    }

    /// The same of a device.
    pub fn device_later(&self, index: usize) -> DeviceUsage {
        let devices = self.kept.as_ref().map_or(&self.devices, |kept| &kept.devices);
        devices.get(index).copied().unwrap_or_default()
    }

    /// What new grants have to leave alone: what is taken now, and what is kept for later.
    pub fn spoken_for(&self, name: &str) -> Amount {
        self.kept.as_ref().map_or(Amount::ZERO, |kept| kept.used.get(name)).max(self.used.get(name))
    }

    /// The same of a device.
    pub fn device_spoken_for(&self, index: usize) -> DeviceUsage {
        let now = self.devices.get(index).copied().unwrap_or_default();
        let later = self.kept.as_ref().and_then(|kept| kept.devices.get(index)).copied().unwrap_or_default();
        now.larger_of(&later)
    }
}

impl Node {
    /// The node's name.
    pub fn name(&self) -> &str {
        &self.registration.name
    }

    /// True where new work may be placed.
    pub fn is_eligible(&self) -> bool {
        self.health == NodeHealth::Available
            && self.admin == NodeAdmin::Schedulable
            && self.interruption.is_none()
    }

    /// When what still runs is ended; `None` without such a drain.
    pub fn drain_deadline(&self) -> Option<LedgerTime> {
        match &self.admin {
            NodeAdmin::Draining { deadline, .. } if deadline.0 > 0 => Some(*deadline),
            _ => None,
        }
    }

    /// One word for screens: the node's health where that is not available, else the operator's word.
    pub fn state_name(&self) -> &'static str {
        match (self.health, &self.admin) {
            (NodeHealth::Suspect, _) => "suspect",
            (NodeHealth::Lost, _) => "lost",
            (NodeHealth::Fenced, _) => "fenced",
            (NodeHealth::Failed, _) => "failed",
            (NodeHealth::Available, _) if self.interruption.is_some() => "interrupted",
            (NodeHealth::Available, NodeAdmin::Schedulable) => "available",
            (NodeHealth::Available, NodeAdmin::Cordoned { .. }) => "cordoned",
            (NodeHealth::Available, NodeAdmin::Draining { .. }) => "draining",
        }
    }

    /// Labels with those that every node has: `node` (its name) and, with devices, `gpu` (the first device's model).
    /// What the agent set under these keys wins.
    pub fn effective_labels(&self) -> Labels {
        effective_labels(&self.registration)
    }
}

/// See [`Node::effective_labels`].
pub fn effective_labels(registration: &Registration) -> Labels {
    let mut labels = registration.labels.clone();
    labels.entry("node".to_owned()).or_insert_with(|| registration.name.clone());
    if let Some(device) = registration.devices.first() {
        labels.entry("gpu".to_owned()).or_insert_with(|| device.model.clone());
    }
    labels
}
