//! Boards that nodes of scenarios have.

use plimsoll_ledger::Device;

use crate::fixture::GIB;
use crate::fixture::mig::cut_in_eight;

/// A board by its name; `-mig` for one that is cut, as NVML cuts boards of 80 GB.
pub(crate) fn device(board: &str) -> Option<Device> {
    let (model, gib, is_cut) = match board {
        "a100" => ("a100", 80, false),
        "a100-mig" => ("a100", 80, true),
        "h100" => ("h100", 80, false),
        "t4" => ("t4", 16, false),
        _ => return None,
    };
    Some(Device {
        model: model.to_owned(),
        memory_bytes: gib * GIB,
        mig: is_cut.then(cut_in_eight),
        ..Device::default()
    })
}
