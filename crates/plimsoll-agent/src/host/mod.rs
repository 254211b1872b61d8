//! The machine below the agent: what it has, and what it does now, GPUs aside.

mod limits;
mod sysinfo_probe;

pub use limits::CgroupLimits;
pub use sysinfo_probe::SysinfoProbe;

use plimsoll_types::Labels;
use serde::{Deserialize, Serialize};

use crate::pressure::PressureReading;

/// What a machine has, GPUs aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Compute that this process may use, in thousandths of a core: the machine's, or its cgroup's where less.
    pub cpu_millis: u64,
    /// Memory that this process may use, in bytes: the machine's, or its cgroup's where less.
    pub memory_bytes: u64,
    /// Size of the file system that holds the agent's storage folder, in bytes. Absent where it cannot be read.
    pub storage_bytes: Option<u64>,
    /// Facts to select nodes by: hostname, os, kernel, arch, cpu, numa-nodes.
    pub labels: Labels,
}

/// What a machine does now, GPUs aside. Whatever cannot be read is absent, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReading {
    /// Share of all cores in use, in thousandths.
    pub cpu_permille: Option<u32>,
    /// Clock of the fastest core, in MHz.
    pub cpu_mhz: Option<u32>,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory that could be had without swapping, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Swap in use, in bytes.
    pub swap_used_bytes: Option<u64>,
    /// Runnable tasks, averaged over a minute, in thousandths.
    pub load1_milli: Option<u32>,
    /// Room on the file system of the agent's storage folder, in bytes.
    pub storage_available_bytes: Option<u64>,
    /// Bytes read from all disks since boot.
    pub disk_read_bytes: Option<u64>,
    /// Bytes written to all disks since boot.
    pub disk_written_bytes: Option<u64>,
    /// Bytes received by all interfaces but loopback since boot.
    pub network_received_bytes: Option<u64>,
    /// Bytes sent by all interfaces but loopback since boot.
    pub network_sent_bytes: Option<u64>,
    /// The hottest sensor, in thousandths of a degree Celsius.
    pub temperature_millicelsius: Option<i32>,
    /// Waiting for cpu, memory and storage.
    pub pressure: PressureReading,
}

/// Where the agent learns about its machine.
pub trait HostProbe: Send {
    /// What the machine has.
    fn facts(&mut self) -> HostFacts;

    /// What the machine does now.
    fn read(&mut self) -> HostReading;
}
