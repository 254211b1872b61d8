//! GPUs of a node: what there is, what it does now, and where both are read from.
//!
//! Every field that a driver may refuse to tell is an `Option`: an unreadable sensor is absent, never zero.

mod fake;
mod mig;
mod model;
mod nvml;

pub use fake::{FakeGpuError, FakeGpuProbe, FakeGpus};
pub use mig::{MigBoard, MigKind};
pub use model::{known_memory_bytes, short_model};
pub use nvml::NvmlProbe;

use serde::{Deserialize, Serialize};

/// A GPU that a node offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDevice {
    /// The name that stays with the board, as NVML gives it (`GPU-...`).
    pub uuid: String,
    /// Position among the GPUs of the node, in the driver's order.
    pub index: u32,
    /// Short lower-case model name, such as `h100`: what requests ask for.
    pub model: String,
    /// The model name as the driver spells it.
    pub full_name: String,
    /// Memory of the board less what the driver keeps for itself, in bytes.
    pub memory_bytes: Option<u64>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// NUMA node that the board hangs on.
    pub numa_node: Option<u32>,
    /// PCI bus id, such as `00000000:3b:00.0`.
    pub pci: Option<String>,
    /// True where the board is in MIG mode.
    pub mig: bool,
    /// What it may be cut into, where it is in MIG mode and tells so.
    pub mig_board: Option<MigBoard>,
    /// Indices of the GPUs of this node that it reaches over NVLink.
    pub nvlink_peers: Vec<u32>,
}

/// What a GPU does now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuReading {
    /// Which GPU.
    pub uuid: String,
    /// Share of time in which a kernel ran, in thousandths.
    pub utilization_permille: Option<u32>,
    /// Memory in use, by anybody, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Power draw, in milliwatts.
    pub power_milliwatts: Option<u64>,
    /// Power limit in force, in milliwatts.
    pub power_limit_milliwatts: Option<u64>,
    /// Energy since the driver was loaded, in millijoules.
    pub energy_millijoules: Option<u64>,
    /// Temperature of the die, in thousandths of a degree Celsius.
    pub temperature_millicelsius: Option<i32>,
    /// Clock of the multiprocessors, in MHz.
    pub sm_clock_mhz: Option<u32>,
    /// True while heat or power slows the clocks.
    pub throttled: Option<bool>,
    /// Uncorrected memory errors since the last reset.
    pub ecc_errors: Option<u64>,
    /// Compute processes on the GPU.
    pub processes: Option<Vec<GpuProcess>>,
}

/// A process that computes on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Its memory on the GPU, in bytes.
    pub memory_bytes: Option<u64>,
}

/// Where the agent learns about GPUs.
pub trait GpuProbe: Send {
    /// The GPUs that are there now, by index. None is normal.
    fn devices(&mut self) -> Vec<GpuDevice>;

    /// What each GPU does now, by index.
    fn readings(&mut self) -> Vec<GpuReading>;
}
