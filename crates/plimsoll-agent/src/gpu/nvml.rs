//! NVIDIA GPUs through NVML, loaded when the agent runs: no driver is no GPU, not an error.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock as NvmlClock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::{Device, Nvml};

use super::mig::Told;
use super::{GpuDevice, GpuProbe, GpuProcess, GpuReading, MigBoard, short_model};
use crate::clock::{BootTime, SharedClock};

/// Pause between attempts to load the driver's library: a driver is installed or reloaded rarely.
const RETRY_MS: u64 = 60_000;

/// More NVLink links than any board has; asking for one that is not there is an error at once.
const MAX_NVLINKS: u32 = 18;

/// NVML's numbers of profiles without media engines (`NVML_GPU_INSTANCE_PROFILE_*` of nvml.h): 1, 2, 3, 4, 7, 8 and 6 slices, and 1 slice with
/// twice the memory.
const MIG_PROFILES: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 9];

/// The NVIDIA GPUs of this machine.
pub struct NvmlProbe {
    clock: SharedClock,
    library: Option<Nvml>,
    retry_at: BootTime,
    last_error: Option<String>,
}

impl NvmlProbe {
    /// A probe that loads the library on first use.
    pub fn new(clock: SharedClock) -> NvmlProbe {
        NvmlProbe { clock, library: None, retry_at: BootTime(0), last_error: None }
    }

    /// Why there is no GPU, where that is known: the library is missing, the driver is not loaded.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Runs `read` on each device; drops the library where the driver does not answer any more.
    fn each<T>(&mut self, read: impl Fn(&Nvml, u32, &Device<'_>) -> Option<T>) -> Vec<T> {
        self.load();
        let Some(library) = &self.library else { return Vec::new() };
        match library.device_count() {
            Ok(count) => (0..count)
                .filter_map(|index| {
                    // A board that fell off the bus fails here alone; the others still count.
                    let device = library.device_by_index(index).ok()?;
                    read(library, index, &device)
                })
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "the GPU driver stopped answering; its GPUs are absent until it is back");
                self.fail(error.to_string());
                Vec::new()
            }
        }
    }

    fn load(&mut self) {
        let now = self.clock.now();
        if self.library.is_some() || now < self.retry_at {
            return;
        }
        match Nvml::init() {
            Ok(library) => {
                tracing::info!(driver = library.sys_driver_version().ok(), "NVML loaded");
                self.library = Some(library);
                self.last_error = None;
            }
            Err(error) => {
                if self.last_error.is_none() {
                    tracing::debug!(%error, "no NVML: this node offers no GPU");
                }
                self.fail(error.to_string());
            }
        }
    }

    fn fail(&mut self, error: String) {
        self.library = None;
        self.last_error = Some(error);
        self.retry_at = self.clock.now().plus_ms(RETRY_MS);
    }
}

impl GpuProbe for NvmlProbe {
    fn devices(&mut self) -> Vec<GpuDevice> {
        let mut devices = self.each(describe);
        let links = self.each(|_, index, device| Some((index, linked_buses(device))));
        connect(&mut devices, &links);
        devices
    }

    fn readings(&mut self) -> Vec<GpuReading> {
        self.each(|_, _, device| measure(device))
    }
}

fn describe(library: &Nvml, index: u32, device: &Device<'_>) -> Option<GpuDevice> {
    // Without a UUID nothing could name the device in a grant, so it is not offered.
    let uuid = device.uuid().ok()?;
    let full_name = device.name().unwrap_or_else(|_| "unknown".to_owned());
    let mig = device.mig_mode().is_ok_and(|mode| mode.current == 1);
    Some(GpuDevice {
        uuid,
        index,
        model: short_model(&full_name),
        full_name,
        // What the driver keeps for itself cannot be granted.
        memory_bytes: device.memory_info().ok().map(|memory| memory.total.saturating_sub(memory.reserved)),
        driver: library.sys_driver_version().ok(),
        // The driver says "no node" with the largest number.
        numa_node: device.numa_node_id().ok().filter(|node| *node != u32::MAX),
        pci: device.pci_info().ok().map(|pci| pci.bus_id),
        mig,
        mig_board: mig.then(|| mig_board(device)).flatten(),
        nvlink_peers: Vec::new(),
    })
}

/// What a board in MIG mode may be cut into. Not run on such a board yet: where a call fails, its profile is absent, and a board without
/// any is registered as failed.
///
/// Which slices existing instances lie on cannot be asked through this library, so that all of the board is offered: instances that were not
/// made for a grant have to be removed before the agent starts.
#[cfg(target_os = "linux")]
fn mig_board(device: &Device<'_>) -> Option<MigBoard> {
    let memory = device.memory_info().ok()?;
    let one = |index: &u32| {
        let info = device.profile_info(*index).ok()?;
        let places = device.possible_placements(info.id).ok()?;
        Some(Told {
            compute_slices: info.slice_count,
            memory_bytes: info.memory_size_mb.saturating_mul(1 << 20),
            places: places.iter().map(|place| (place.start, place.size)).collect(),
        })
    };
    let told = MIG_PROFILES.iter().filter_map(one).collect();
    MigBoard::of(memory.total, memory.total.saturating_sub(memory.reserved), told)
}

#[cfg(not(target_os = "linux"))]
fn mig_board(_: &Device<'_>) -> Option<MigBoard> {
    None
}

fn measure(device: &Device<'_>) -> Option<GpuReading> {
    let slowed = ThrottleReasons::HW_SLOWDOWN
        | ThrottleReasons::SW_POWER_CAP
        | ThrottleReasons::SW_THERMAL_SLOWDOWN
        | ThrottleReasons::HW_THERMAL_SLOWDOWN
        | ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN;
    Some(GpuReading {
        uuid: device.uuid().ok()?,
        utilization_permille: device.utilization_rates().ok().map(|rates| rates.gpu.saturating_mul(10)),
        memory_used_bytes: device.memory_info().ok().map(|memory| memory.used),
        power_milliwatts: device.power_usage().ok().map(u64::from),
        power_limit_milliwatts: device.enforced_power_limit().ok().map(u64::from),
        energy_millijoules: device.total_energy_consumption().ok(),
        temperature_millicelsius: device
            .temperature(TemperatureSensor::Gpu)
            .ok()
            .and_then(|celsius| i32::try_from(celsius).ok()?.checked_mul(1000)),
        sm_clock_mhz: device.clock_info(NvmlClock::SM).ok(),
        throttled: device.current_throttle_reasons().ok().map(|reasons| reasons.intersects(slowed)),
        ecc_errors: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        processes: device.running_compute_processes().ok().map(|processes| {
            let memory = |used| match used {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            let process = |p: &nvml_wrapper::struct_wrappers::device::ProcessInfo| GpuProcess {
                pid: p.pid,
                memory_bytes: memory(p.used_gpu_memory.clone()),
            };
            processes.iter().map(process).collect()
        }),
    })
}

/// PCI bus ids at the other end of the active NVLinks of a board.
fn linked_buses(device: &Device<'_>) -> Vec<String> {
    let mut buses = Vec::new();
    for link in 0..MAX_NVLINKS {
        let link = device.link_wrapper_for(link);
        match link.is_active() {
            Ok(true) => buses.extend(link.remote_pci_info().ok().map(|pci| pci.bus_id)),
            Ok(false) => {}
            Err(_) => break,
        }
    }
    buses
}

/// Turns bus ids of link ends into device indices. Links to switches end at no GPU: boards that reach the same switches
/// are peers of each other.
fn connect(devices: &mut [GpuDevice], links: &[(u32, Vec<String>)]) {
    let bus_of: Vec<(u32, Option<String>)> = devices.iter().map(|d| (d.index, d.pci.clone())).collect();
    let is_gpu = |bus: &String| bus_of.iter().any(|(_, pci)| pci.as_ref() == Some(bus));
    let links_of = |index: u32| links.iter().find(|(i, _)| *i == index).map_or(&[][..], |(_, buses)| buses);
    for device in devices {
        let mine = links_of(device.index);
        let reaches = |(other, pci): &(u32, Option<String>)| {
            let direct = pci.as_ref().is_some_and(|pci| mine.contains(pci));
            let by_switch = links_of(*other).iter().any(|bus| !is_gpu(bus) && mine.contains(bus));
            *other != device.index && (direct || by_switch)
        };
        device.nvlink_peers = bus_of.iter().filter(|entry| reaches(entry)).map(|(index, _)| *index).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::sync::Arc;

    #[test]
    fn without_a_driver_there_is_no_gpu_and_no_error() {
        if std::path::Path::new("/proc/driver/nvidia").exists() {
            return; // A machine with the driver answers with its GPUs, which is not what this test is about.
        }
        let clock = ManualClock::at_ms(1);
        let mut probe = NvmlProbe::new(Arc::new(clock.clone()));
        assert_eq!(probe.devices(), []);
        assert_eq!(probe.readings(), []);
        assert!(probe.last_error().is_some());
        let retry_at = probe.retry_at;
        probe.devices();
        assert_eq!(probe.retry_at, retry_at, "not tried again at once");
        clock.advance_ms(RETRY_MS + 1);
        probe.devices();
        assert!(probe.retry_at > retry_at, "tried again on a slow timer");
    }

    fn device(index: u32, pci: &str) -> GpuDevice {
        let mut device = super::super::FakeGpus::of("h100", 1, 1).devices("n").remove(0);
        device.index = index;
        device.pci = Some(pci.to_owned());
        device
    }

    #[test]
    fn boards_are_peers_by_direct_link_or_over_a_common_switch() {
        let mut devices = vec![device(0, "gpu0"), device(1, "gpu1"), device(2, "gpu2"), device(3, "gpu3")];
        let bus = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let links = [(0, bus(&["gpu1"])), (1, bus(&["gpu0"])), (2, bus(&["switch"])), (3, bus(&["switch"]))];
        connect(&mut devices, &links);
        let peers: Vec<_> = devices.iter().map(|d| d.nvlink_peers.clone()).collect();
        assert_eq!(peers, [vec![1], vec![0], vec![3], vec![2]]);
    }
}
