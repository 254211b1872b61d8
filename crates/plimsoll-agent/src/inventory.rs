//! What a node offers: capacity, labels and devices, gathered from the probes or given for a simulated node.

use plimsoll_types::{Amount, Labels, Resources};
use serde::{Deserialize, Serialize};

use crate::gpu::{FakeGpus, GpuDevice, GpuProbe};
use crate::host::HostProbe;

/// Name of the resource that counts the bytes of the agent's storage folder.
pub const STORAGE: &str = "storage/local";

/// What a node offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Compute, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Storage, in bytes. Absent where it cannot be read.
    pub storage_bytes: Option<u64>,
    /// Labels to select the node by.
    pub labels: Labels,
    /// GPUs, by index.
    pub gpus: Vec<GpuDevice>,
}

impl Inventory {
    /// The inventory of the machine that the probes see. `labels` wins over what the probes say.
    pub fn gather(host: &mut dyn HostProbe, gpus: &mut dyn GpuProbe, labels: &Labels) -> Inventory {
        let facts = host.facts();
        let mut inventory = Inventory {
            cpu_millis: facts.cpu_millis,
            memory_bytes: facts.memory_bytes,
            storage_bytes: facts.storage_bytes,
            labels: facts.labels,
            gpus: gpus.devices(),
        };
        inventory.labels.extend(labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        inventory.label_gpus();
        inventory
    }

    /// A simulated node of the given size. Its GPUs get names from `node`.
    pub fn simulated(node: &str, cpu_millis: u64, memory_bytes: u64, gpus: &FakeGpus) -> Inventory {
        let mut inventory = Inventory {
            cpu_millis,
            memory_bytes,
            storage_bytes: None,
            labels: Labels::from([("simulated".to_owned(), "true".to_owned())]),
            gpus: gpus.devices(node),
        };
        inventory.label_gpus();
        inventory
    }

    /// The amounts that the node offers, with custom countables such as `license/foo`.
    pub fn capacity(&self, extra: &Resources) -> Resources {
        let mut capacity = extra.clone();
        // What is given by hand wins: an operator may offer less than there is.
        if capacity.cpu_millis.is_zero() {
            capacity.cpu_millis = Amount(self.cpu_millis);
        }
        if capacity.memory_bytes.is_zero() {
            capacity.memory_bytes = Amount(self.memory_bytes);
        }
        if let (true, Some(bytes)) = (capacity.get(STORAGE).is_zero(), self.storage_bytes) {
            capacity.set(STORAGE, Amount(bytes));
        }
        capacity
    }

    fn label_gpus(&mut self) {
        // A node with boards of one kind says so in labels; mixed nodes are selected by their devices.
        let Some(first) = self.gpus.first() else { return };
        if self.gpus.iter().all(|gpu| gpu.model == first.model) {
            let model = first.model.clone();
            self.labels.entry("gpu".to_owned()).or_insert(model);
        }
        if let Some(driver) = first.driver.clone() {
            self.labels.entry("gpu-driver".to_owned()).or_insert(driver);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::FakeGpuProbe;
    use crate::host::{HostFacts, HostReading};

    /// A machine that was written down.
    struct Recorded(HostFacts);

    impl HostProbe for Recorded {
        fn facts(&mut self) -> HostFacts {
            self.0.clone()
        }

        fn read(&mut self) -> HostReading {
            HostReading::default()
        }
    }

    fn recorded() -> Recorded {
        let labels = Labels::from([("zone".into(), "probe".into()), ("arch".into(), "x86_64".into())]);
        Recorded(HostFacts { cpu_millis: 8000, memory_bytes: 1 << 34, storage_bytes: Some(1 << 40), labels })
    }

    #[test]
    fn flags_win_over_probes_and_one_kind_of_gpu_becomes_a_label() {
        let mut gpus = FakeGpuProbe::new(&"a100:2".parse().unwrap(), "node-1");
        let labels = Labels::from([("zone".into(), "b".into())]);
        let inventory = Inventory::gather(&mut recorded(), &mut gpus, &labels);
        assert_eq!(inventory.labels["zone"], "b");
        assert_eq!(inventory.labels["arch"], "x86_64");
        assert_eq!(inventory.labels["gpu"], "a100");
        assert_eq!(inventory.gpus.len(), 2);
    }

    #[test]
    fn capacity_takes_what_is_given_by_hand_first() {
        let mut gpus = FakeGpuProbe::new(&FakeGpus::default(), "node-1");
        let inventory = Inventory::gather(&mut recorded(), &mut gpus, &Labels::new());
        let capacity = inventory.capacity(&Resources::new(4000, 0).with("license/foo", 4));
        assert_eq!(capacity, Resources::new(4000, 1 << 34).with("license/foo", 4).with(STORAGE, 1 << 40));
        assert!(!inventory.labels.contains_key("gpu"));
    }
}
