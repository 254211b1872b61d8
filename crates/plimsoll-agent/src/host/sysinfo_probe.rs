//! The machine as sysinfo and a few files of the kernel show it.

use std::path::{Path, PathBuf};

use plimsoll_types::Labels;
use sysinfo::{Components, Disks, Networks, System};

use super::{CgroupLimits, HostFacts, HostProbe, HostReading};
use crate::pressure::read_pressure;

/// Longest label value that the API takes, in bytes.
const MAX_LABEL_BYTES: usize = 128;

/// This machine. Each part that cannot be opened stays closed, and its readings are absent.
pub struct SysinfoProbe {
    system: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
    components: Option<Components>,
    storage: PathBuf,
    cpu_seen: bool,
}

impl SysinfoProbe {
    /// A probe of this machine; `storage` is a folder on the file system whose room is offered.
    pub fn new(storage: &Path) -> SysinfoProbe {
        let system = System::new().ok().map(|mut system| {
            system.refresh_memory();
            system.refresh_cpu_all();
            system
        });
        SysinfoProbe {
            system,
            disks: Disks::new_with_refreshed_list().ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            components: Components::new_with_refreshed_list().ok(),
            storage: std::fs::canonicalize(storage).unwrap_or_else(|_| storage.to_owned()),
            cpu_seen: false,
        }
    }

    /// Total and available bytes of the file system that holds the storage folder.
    fn storage(&self) -> Option<(u64, u64)> {
        let disks = self.disks.as_ref()?;
        disks
            .iter()
            .filter(|disk| self.storage.starts_with(disk.mount_point()))
            .max_by_key(|disk| disk.mount_point().as_os_str().len())
            .map(|disk| (disk.total_space(), disk.available_space()))
            .filter(|(total, _)| *total > 0)
    }
}

impl HostProbe for SysinfoProbe {
    fn facts(&mut self) -> HostFacts {
        let limits = CgroupLimits::of_self();
        // The affinity mask counts: a process pinned to two cores cannot offer sixty-four.
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let machine_cpu = self.system.as_ref().map_or(0, |system| system.cpus().len() as u64).max(1) * 1000;
        let machine_memory = self.system.as_ref().map_or(0, System::total_memory);
        let container_memory =
            self.system.as_ref().and_then(System::cgroup_limits).map(|limits| limits.total_memory);
        let known = |limit: Option<u64>| limit.filter(|bytes| *bytes > 0).unwrap_or(u64::MAX);
        HostFacts {
            cpu_millis: machine_cpu.min(cores * 1000).min(limits.cpu_millis.unwrap_or(u64::MAX)),
            memory_bytes: machine_memory.min(known(limits.memory_bytes)).min(known(container_memory)),
            storage_bytes: self.storage().map(|(total, _)| total),
            labels: labels(self.system.as_ref()),
        }
    }

    fn read(&mut self) -> HostReading {
        let mut reading =
            HostReading { pressure: read_pressure(Path::new("/proc/pressure")), ..HostReading::default() };
        if let Some(system) = &mut self.system {
            system.refresh_memory();
            system.refresh_cpu_usage();
            // The first refresh has nothing to compare with and would read as an idle machine.
            reading.cpu_permille = self.cpu_seen.then(|| permille(system.global_cpu_usage()));
            self.cpu_seen = true;
            let mhz = system.cpus().iter().map(sysinfo::Cpu::frequency).max().filter(|mhz| *mhz > 0);
            reading.cpu_mhz = mhz.and_then(|mhz| u32::try_from(mhz).ok());
            if system.total_memory() > 0 {
                reading.memory_used_bytes = Some(system.used_memory());
                reading.memory_available_bytes = Some(system.available_memory());
                reading.swap_used_bytes = Some(system.used_swap());
            }
            reading.load1_milli =
                System::load_average().ok().map(|load| (load.one.max(0.0) * 1000.0).round() as u32);
        }
        if let Some(disks) = &mut self.disks {
            disks.refresh(true);
            let usage = disks.iter().map(sysinfo::Disk::usage);
            let totals = usage.map(|u| (u.total_read_bytes, u.total_written_bytes));
            let sum = totals.reduce(|a, b| (a.0.saturating_add(b.0), a.1.saturating_add(b.1)));
            reading.disk_read_bytes = sum.map(|sum| sum.0);
            reading.disk_written_bytes = sum.map(|sum| sum.1);
        }
        reading.storage_available_bytes = self.storage().map(|(_, available)| available);
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
            let outside = networks.iter().filter(|(name, _)| name.as_os_str() != "lo").map(|(_, data)| data);
            let totals = outside.map(|data| (data.total_received(), data.total_transmitted()));
            let sum = totals.reduce(|a, b| (a.0.saturating_add(b.0), a.1.saturating_add(b.1)));
            reading.network_received_bytes = sum.map(|sum| sum.0);
            reading.network_sent_bytes = sum.map(|sum| sum.1);
        }
        if let Some(components) = &mut self.components {
            components.refresh(true);
            let degrees =
                components.iter().filter_map(sysinfo::Component::temperature).filter(|t| t.is_finite());
            reading.temperature_millicelsius = degrees.map(|celsius| (celsius * 1000.0).round() as i32).max();
        }
        reading
    }
}

fn permille(percent: f32) -> u32 {
    (percent.clamp(0.0, 100.0) * 10.0).round() as u32
}

fn labels(system: Option<&System>) -> Labels {
    let brand = system.and_then(|system| system.cpus().first()).map(|cpu| cpu.brand().trim().to_owned());
    let facts = [
        ("hostname", System::host_name().ok()),
        ("os", Some(System::distribution_id())),
        ("kernel", System::kernel_version().ok()),
        ("arch", Some(System::cpu_arch())),
        ("cpu", brand),
        ("numa-nodes", numa_nodes(Path::new("/sys/devices/system/node")).map(|count| count.to_string())),
    ];
    facts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), label_value(&value?)?))).collect()
}

/// A value that the API takes: trimmed, cut at a character boundary; `None` for nothing.
fn label_value(text: &str) -> Option<String> {
    let mut value = text.trim().to_owned();
    while value.len() > MAX_LABEL_BYTES {
        value.pop();
    }
    (!value.is_empty()).then_some(value)
}

/// Number of NUMA nodes by the folders `node0`, `node1`, ...; `None` where the kernel does not say.
fn numa_nodes(folder: &Path) -> Option<usize> {
    let names =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_node = |name: &String| {
        name.strip_prefix("node").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    Some(names.filter(is_node).count()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cpu_memory_and_a_kernel() {
        let mut probe = SysinfoProbe::new(Path::new("/"));
        let facts = probe.facts();
        assert!(facts.cpu_millis >= 10, "{facts:?}");
        assert!(facts.memory_bytes > 1 << 20, "{facts:?}");
        assert!(facts.labels.contains_key("kernel") && facts.labels.contains_key("arch"), "{facts:?}");
        let first = probe.read();
        assert_eq!(first.cpu_permille, None, "one look at a counter is no rate");
        assert!(first.memory_used_bytes.is_some_and(|bytes| bytes > 0));
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        assert!(probe.read().cpu_permille.is_some_and(|permille| permille <= 1000));
    }

    #[test]
    fn numa_nodes_are_counted_by_folder() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(numa_nodes(root.path()), None);
        for name in ["node0", "node1", "possible", "nodes", "node"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        assert_eq!(numa_nodes(root.path()), Some(2));
    }

    #[test]
    fn label_values_are_trimmed_and_cut_at_a_character() {
        assert_eq!(label_value("  "), None);
        assert_eq!(label_value(" x "), Some("x".to_owned()));
        let long = label_value(&"ü".repeat(100)).unwrap();
        assert_eq!(long.chars().count(), 64);
    }
}
