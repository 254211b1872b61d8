//! Simulated GPUs (`--fake-gpu a100:2,h100-mig:1`): a machine without a GPU can try everything but computing on one.

use std::str::FromStr;

use super::{GpuDevice, GpuProbe, GpuReading, MigBoard, known_memory_bytes};
use crate::backoff::seed_from;

/// Most simulated GPUs of one node: the reliability limits allow 256 resources per message.
const MAX_PER_NODE: u32 = 128;

/// A list of simulated GPUs as people write it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeGpus {
    /// In the order written.
    groups: Vec<Group>,
}

/// Boards of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    /// Short name.
    model: String,
    memory_bytes: u64,
    /// How they are cut, where they are.
    mig: Option<MigBoard>,
    count: u32,
}

/// Ends the model of boards that are cut.
const CUT: &str = "-mig";

/// A list of simulated GPUs that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FakeGpuError {
    /// Not of the form MODEL:COUNT.
    #[error("{0:?} is not MODEL:COUNT or MODEL@MEMORY:COUNT, as in a100:2, a100-mig:2 or mygpu@24Gi:1")]
    Form(String),
    /// The count is not a number in range.
    #[error("the count of {0:?} must be a number from 1 to {MAX_PER_NODE}")]
    Count(String),
    /// The memory is not a size.
    #[error("the memory of {0:?} must be a whole number of Gi or Mi, as in mygpu@24Gi:1")]
    Memory(String),
    /// Nobody knows how much memory such a board has.
    #[error("no memory size is known for model {0:?}: write it out, as in {0}@24Gi:1")]
    UnknownModel(String),
    /// Nobody knows how such a board is cut.
    #[error(
        "no MIG profiles are known for model {0:?}: they are for a100, a100-40gb, a30, h100, h20 and h200"
    )]
    NoProfiles(String),
    /// Together more than a node may have.
    #[error("{0} GPUs are more than the {MAX_PER_NODE} that one node may have")]
    TooMany(u32),
}

impl FromStr for FakeGpus {
    type Err = FakeGpuError;

    fn from_str(text: &str) -> Result<FakeGpus, FakeGpuError> {
        if text.trim().is_empty() {
            return Ok(FakeGpus::default());
        }
        let groups = text.split(',').map(|part| parse_group(part.trim())).collect::<Result<Vec<_>, _>>()?;
        let total = groups.iter().map(|group| group.count).sum();
        if total > MAX_PER_NODE { Err(FakeGpuError::TooMany(total)) } else { Ok(FakeGpus { groups }) }
    }
}

fn parse_group(part: &str) -> Result<Group, FakeGpuError> {
    let bad_form = || FakeGpuError::Form(part.to_owned());
    let (board, count) = part.split_once(':').unwrap_or((part, "1"));
    let (model, memory) = match board.split_once('@') {
        Some((model, memory)) => (model, Some(memory)),
        None => (board, None),
    };
    let written = model.to_ascii_lowercase();
    let uncut = written.strip_suffix(CUT);
    let model = uncut.unwrap_or(&written).to_owned();
    plimsoll_types::check_name(&model).map_err(|_| bad_form())?;
    let count: u32 = count.parse().map_err(|_| FakeGpuError::Count(part.to_owned()))?;
    if !(1..=MAX_PER_NODE).contains(&count) {
        return Err(FakeGpuError::Count(part.to_owned()));
    }
    let memory_bytes = match memory {
        Some(memory) => parse_memory(memory).ok_or_else(|| FakeGpuError::Memory(part.to_owned()))?,
        None => known_memory_bytes(&model).ok_or_else(|| FakeGpuError::UnknownModel(model.clone()))?,
    };
    let mig = match uncut {
        None => None,
        Some(_) => {
            let board = MigBoard::simulated(&model, memory_bytes);
            Some(board.ok_or_else(|| FakeGpuError::NoProfiles(model.clone()))?)
        }
    };
    Ok(Group { model, memory_bytes, mig, count })
}

fn parse_memory(text: &str) -> Option<u64> {
    let (digits, unit) = text
        .strip_suffix("Gi")
        .map(|d| (d, 1u64 << 30))
        .or_else(|| text.strip_suffix("Mi").map(|d| (d, 1 << 20)))?;
    digits.parse::<u64>().ok().filter(|count| *count > 0)?.checked_mul(unit)
}

impl FakeGpus {
    /// One kind of board, for simulated nodes that come from a file rather than a flag.
    pub fn of(model: &str, memory_bytes: u64, count: u32) -> FakeGpus {
        let group = Group { model: model.to_owned(), memory_bytes, mig: None, count };
        FakeGpus { groups: if count == 0 { Vec::new() } else { vec![group] } }
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The devices of a node. The UUIDs depend on the node's name and the index alone, so that a node that comes back
    /// has the same devices.
    pub fn devices(&self, node: &str) -> Vec<GpuDevice> {
        let boards = self.groups.iter().flat_map(|group| (0..group.count).map(move |_| group));
        let mut devices = Vec::new();
        for (index, Group { model, memory_bytes, mig, .. }) in (0u32..).zip(boards) {
            devices.push(GpuDevice {
                uuid: format!("GPU-fake-{:016x}-{index:04x}", seed_from(node)),
                index,
                model: model.clone(),
                full_name: format!("simulated {model}"),
                memory_bytes: Some(*memory_bytes),
                driver: None,
                numa_node: None,
                pci: None,
                mig: mig.is_some(),
                mig_board: mig.clone(),
                nvlink_peers: Vec::new(),
            });
        }
        devices
    }
}

/// A probe of simulated GPUs. They exist, and measure nothing: their readings are absent.
#[derive(Clone, Debug)]
pub struct FakeGpuProbe {
    devices: Vec<GpuDevice>,
}

impl FakeGpuProbe {
    /// The simulated GPUs of a node.
    pub fn new(gpus: &FakeGpus, node: &str) -> FakeGpuProbe {
        FakeGpuProbe { devices: gpus.devices(node) }
    }
}

impl GpuProbe for FakeGpuProbe {
    fn devices(&mut self) -> Vec<GpuDevice> {
        self.devices.clone()
    }

    fn readings(&mut self) -> Vec<GpuReading> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_numbered_devices_with_stable_names() {
        let gpus: FakeGpus = "a100:2, H100:1,mygpu@24Gi:1".parse().unwrap();
        let devices = gpus.devices("node-1");
        let models: Vec<_> =
            devices.iter().map(|d| (d.index, d.model.as_str(), d.memory_bytes.unwrap() >> 30)).collect();
        assert_eq!(models, [(0, "a100", 80), (1, "a100", 80), (2, "h100", 80), (3, "mygpu", 24)]);
        assert_eq!(devices, gpus.devices("node-1"), "the same node has the same devices again");
        let others = gpus.devices("node-2");
        assert!(
            devices
                .iter()
                .all(|d| d.uuid.starts_with("GPU-fake-") && others.iter().all(|o| o.uuid != d.uuid))
        );
        assert!("".parse::<FakeGpus>().unwrap().is_empty());
        assert_eq!("t4".parse::<FakeGpus>().unwrap().devices("n").len(), 1, "a model alone is one board");
    }

    #[test]
    fn boards_that_are_cut_say_into_what() {
        let gpus: FakeGpus = "a100-mig:1,h200:1,a100-mig@40Gi:1".parse().unwrap();
        let devices = gpus.devices("n");
        let first =
            |device: &GpuDevice| device.mig_board.as_ref().map(|board| board.profiles[0].name.clone());
        let found: Vec<_> = devices.iter().map(|d| (d.model.as_str(), d.mig, first(d))).collect();
        let named = |name: &str| Some(name.to_owned());
        let expected =
            [("a100", true, named("1g.10gb")), ("h200", false, None), ("a100", true, named("1g.5gb"))];
        assert_eq!(found, expected);
    }

    #[test]
    fn bad_lists_say_what_is_wrong_and_how_to_write_it() {
        for (text, words) in [
            ("a100:x", "the count of \"a100:x\" must be a number from 1 to 128"),
            ("a100:0", "the count of \"a100:0\""),
            ("a100:-1", "the count of \"a100:-1\""),
            ("a100:129", "the count of"),
            ("a100:100,t4:100", "200 GPUs are more than the 128"),
            (":2", "is not MODEL:COUNT"),
            ("a100,,t4", "is not MODEL:COUNT"),
            ("a 100:2", "is not MODEL:COUNT"),
            ("abacus:2", "no memory size is known for model \"abacus\""),
            ("t4-mig:1", "no MIG profiles are known for model \"t4\""),
            ("-mig:1", "is not MODEL:COUNT"),
            ("a100@much:1", "the memory of \"a100@much:1\""),
            ("a100@0Gi:1", "the memory of"),
            ("a100@99999999999999Gi:1", "the memory of"),
        ] {
            let error = text.parse::<FakeGpus>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
