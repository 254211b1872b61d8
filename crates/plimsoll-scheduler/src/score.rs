//! Strategies as scores: lower is better, compared from the first field on; the node's id is last, so that ties are
//! settled alike everywhere.

use plimsoll_ledger::{DeviceGrant, Strategy};
use plimsoll_types::{NodeId, Resources};

use crate::fit::NodeView;

/// How good a node is for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Weight of wishes that the node does not fulfil.
    wishes_missed: u64,
    /// The strategy's own measure, two levels.
    first: u64,
    second: u64,
    node: NodeId,
}

/// Order of a node before any grant, two levels, lower first. For all strategies but `Balanced` and those of the
/// fragmentation gradient the first node that fits in this order has the best score.
pub(crate) fn rank(strategy: Strategy, view: &NodeView) -> (u64, u64) {
    let cpu = view.free.cpu_millis.0;
    match strategy {
        Strategy::BestFit | Strategy::Priority | Strategy::Fragmentation | Strategy::Optimized => {
            (view.free_milli(), cpu)
        }
        Strategy::WorstFit | Strategy::Greedy => (u64::MAX - view.free_milli(), u64::MAX - cpu),
        Strategy::Balanced => {
            (fullest_permille(view, &Resources::default(), view.free_milli()), u64::MAX - cpu)
        }
        Strategy::FirstFit | Strategy::FirstFitDecreasing | Strategy::Random => (0, 0),
    }
}

pub(crate) fn score(
    strategy: Strategy,
    view: &NodeView,
    amounts: &Resources,
    devices: &[DeviceGrant],
    wishes_missed: u64,
) -> Score {
    let taken: u64 = devices.iter().map(|grant| u64::from(grant.milli)).sum();
    let gpu_left = view.free_milli().saturating_sub(taken);
    let cpu_left = view.free.cpu_millis.saturating_sub(amounts.cpu_millis).0;
    let (first, second) = match strategy {
        Strategy::BestFit | Strategy::Priority | Strategy::Fragmentation | Strategy::Optimized => {
            (gpu_left, cpu_left)
        }
        Strategy::WorstFit => (u64::MAX - gpu_left, u64::MAX - cpu_left),
        Strategy::Greedy => (u64::MAX - view.free_milli(), u64::MAX - view.free.cpu_millis.0),
        Strategy::Balanced => (fullest_permille(view, amounts, gpu_left), u64::MAX - cpu_left),
        Strategy::FirstFit | Strategy::FirstFitDecreasing | Strategy::Random => (0, 0),
    };
    Score { wishes_missed, first, second, node: view.node.id }
}

/// Use of the fullest resource of the node after the grant, in thousandths.
fn fullest_permille(view: &NodeView, amounts: &Resources, gpu_left: u64) -> u64 {
    let share = |used: u64, total: u64| {
        if total == 0 { 0 } else { (u128::from(used) * 1_000 / u128::from(total)) as u64 }
    };
    let allocatable = &view.node.allocatable;
    let used = |name: &str| {
        let total = allocatable.get(name).0;
        let left = view.free.get(name).saturating_sub(amounts.get(name)).0;
        share(total.saturating_sub(left), total)
    };
    let gpu_total = view.devices.len() as u64 * 1_000;
    used("cpu").max(used("memory")).max(share(gpu_total.saturating_sub(gpu_left), gpu_total))
}
