//! Where a grant is: named nodes, named devices. The planner proposes it, `admit` judges it, the reservation keeps it.

use plimsoll_types::{DeviceIndex, NodeId};

use crate::MigSlices;

/// One member after the other, each on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Members in order; between the gang's minimum and maximum.
    pub members: Vec<MemberPlacement>,
}

/// Where one member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPlacement {
    /// The node that holds all of the member.
    pub node: NodeId,
    /// Devices of that node, ascending by index; empty where no GPU was asked.
    pub devices: Vec<DeviceGrant>,
    /// Which of the request's roles it plays, by index; 0 where there are none. From ledger version 8 on.
    pub role: u16,
}

/// What a member takes of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceGrant {
    /// The device.
    pub device: DeviceIndex,
    /// Thousandths of it; 1000 is the whole device.
    pub milli: u16,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// The instance that it is, on a device that is cut. From ledger version 5 on.
    pub slices: Option<MigSlices>,
}
