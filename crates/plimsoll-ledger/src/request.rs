//! What is wanted: the request that a client hands in, unchanged for the life of its reservation.

use plimsoll_types::{Labels, Resources, Selector, Term};

use crate::{Affinity, OnInterruption, PreferredHours, ProfileName, Qos, Role, Topology};

/// Thousandths of a device that make the whole of it.
pub const WHOLE_DEVICE_MILLI: u16 = 1000;

/// What a client asks for. Immutable once submitted; what is granted is kept in the reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Request {
    /// Name for people, not unique; may be empty.
    pub name: String,
    /// Pool to take from; never empty in the ledger (`default` where the client named none).
    pub pool: String,
    /// Priority class; never empty in the ledger (`standard` where the client named none).
    pub class: String,
    /// Queue whose quota it counts against; empty for none. From ledger version 3 on.
    pub queue: String,
    /// Service that it is a replica of; empty for none. From ledger version 5 on.
    pub service: String,
    /// Team, user or namespace that the request is for; may be empty.
    pub tenant: String,
    /// Labels of the request itself.
    pub labels: Labels,
    /// What each member needs.
    pub requirements: Requirements,
    /// How many members, all or nothing.
    pub gang: Gang,
    /// Members of several kinds; none for members that are all alike. From ledger version 8 on.
    pub roles: Vec<Role>,
    /// Length of the lease that each renewal buys, in milliseconds.
    pub ttl_ms: u64,
    /// Time to confirm a held grant, in milliseconds. Unused with `auto_confirm`.
    pub hold_ms: u64,
    /// The grant ends at the latest this long after it was made, in milliseconds; 0 for no such end.
    pub max_duration_ms: u64,
    /// The grant is active at once, with no confirm step.
    pub auto_confirm: bool,
    /// What to do where nothing fits now.
    pub wait: Wait,
    /// What becomes of it when it is preempted. From ledger version 4 on.
    pub on_preempt: OnPreempt,
    /// Most that the grant may cost, in millionths of the currency; 0 for no such bound. From ledger version 4 on.
    pub max_cost_micros: u64,
    /// It is for later: nothing is taken before this, and from here to `max_duration_ms` later its amounts are kept for it. In milliseconds since
    /// the epoch; 0 for now. From ledger version 4 on.
    pub start_at_ms: u64,
    /// How near each other its members have to be. From ledger version 4 on.
    pub topology: Topology,
    /// With or apart from which other work. From ledger version 4 on.
    pub affinity: Vec<Affinity>,
    /// What its holder may count on; `None` for what its class says, and where that says nothing for a grant that is backed. From ledger version 7
    /// on.
    pub qos: Option<Qos>,
    /// Per member, of each resource named here: so much its holder may use while it is idle. Empty for no such bound. From ledger version 7 on.
    pub burst: Resources,
    /// What becomes of it when the provider of its node takes that back; `None` for what the policy says, and where that says nothing for
    /// `on_preempt`. From ledger version 11 on.
    pub on_interruption: Option<OnInterruption>,
    /// How long a gang that lost members with their node has the first claim on what takes their place, in milliseconds; 0 where it ends
    /// with its first lost node. From ledger version 7 on.
    pub repair_within_ms: u64,
    /// When it would rather start; `None` for as soon as it can. From ledger version 14 on.
    pub hours: Option<PreferredHours>,
    /// Points that it gives up in a queue that goes by points. From ledger version 15 on.
    pub nice: u32,
}

/// What becomes of a reservation when its grant is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnPreempt {
    /// It waits again, in its old place in the queue. One that would not wait ends.
    #[default]
    Requeue,
    /// It ends.
    End,
}

/// What one member needs, on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// Compute, memory and countables.
    pub amounts: Resources,
    /// GPU devices, if any.
    pub gpu: Option<GpuAsk>,
    /// Node labels that must hold.
    pub required: Selector,
    /// Node labels that should hold, with weights.
    pub preferred: Vec<Preferred>,
}

/// A wish about node labels: a node that fulfils it scores `weight` more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Preferred {
    /// 1 to 100, as Kubernetes has it.
    pub weight: u32,
    /// The condition.
    pub term: Term,
}

/// GPU devices for one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuAsk {
    /// Number of devices; 1 for a share or an instance.
    pub count: u32,
    /// Whole devices or a share of one.
    pub share: GpuShare,
    /// Least memory of the device itself, in bytes; 0 for any.
    pub min_device_memory_bytes: u64,
    /// Allowed models, lower case; empty for any.
    pub models: Vec<String>,
}

/// How much of each device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GpuShare {
    /// The device alone.
    Whole,
    /// So many thousandths, 1 to 999, with the same part of its memory (rounded down).
    Milli(u16),
    /// So many bytes of memory, with the same part of its compute (rounded up to thousandths).
    Memory(u64),
    /// An instance of this profile, on a device that is cut into slices. From ledger version 5 on.
    Mig(ProfileName),
}

/// Members of a gang. One plain reservation is a gang of exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gang {
    /// Fewest members that are of use; nothing is held below this.
    pub min_members: u32,
    /// Most members wanted.
    pub max_members: u32,
    /// Members on distinct nodes.
    pub spread: bool,
}

/// What happens where a request cannot be placed now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Refuse it.
    #[default]
    Refuse,
    /// Queue it, for at most so many milliseconds (0: as long as it takes).
    Queue {
        /// Longest wait from submission, in milliseconds; 0 for none.
        deadline_ms: u64,
    },
}

impl Default for Gang {
    fn default() -> Gang {
        Gang { min_members: 1, max_members: 1, spread: false }
    }
}

impl GpuAsk {
    /// `count` whole devices of any model.
    pub fn whole(count: u32) -> GpuAsk {
        GpuAsk { count, share: GpuShare::Whole, min_device_memory_bytes: 0, models: Vec::new() }
    }

    /// A share of one device of any model, in thousandths.
    pub fn milli(milli: u16) -> GpuAsk {
        GpuAsk { count: 1, share: GpuShare::Milli(milli), min_device_memory_bytes: 0, models: Vec::new() }
    }

    /// Thousandths of devices, where no device is at hand to say: a share by memory, which is another on each model, counts as a half, an
    /// instance as what its name says of seven compute slices.
    pub fn nominal_milli(&self) -> u64 {
        let whole = u64::from(WHOLE_DEVICE_MILLI);
        match self.share {
            GpuShare::Whole => u64::from(self.count) * whole,
            GpuShare::Milli(milli) => milli.into(),
            GpuShare::Memory(_) => whole / 2,
            GpuShare::Mig(name) => {
                name.named_slices().map_or(whole / 2, |slices| u64::from(slices.min(7)) * whole / 7)
            }
        }
    }
}
