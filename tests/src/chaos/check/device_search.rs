//! Each device by itself, without revisions: is there an order of the grants and releases that clients saw in which it never has more than
//! one whole grant, or shares that fit?

use std::collections::{BTreeMap, BTreeSet};

use super::lease_search::{by_lease, lapse_us};
use super::search::{Interval, Verdict, search};
use super::{Evidence, Findings, Judge, Replay};
use crate::chaos::history::{Call, NEVER_US, Outcome};

const WHOLE_MILLI: u32 = 1_000;

/// See the module.
pub(super) struct DeviceSearch;

#[derive(Clone, Debug)]
enum Step {
    Take(u64, u32),
    Leave(u64),
}

type Holders = BTreeSet<(u64, u32)>;

impl Judge for DeviceSearch {
    fn name(&self) -> &'static str {
        "search by device (I2)"
    }

    fn judge(&self, evidence: &Evidence, _: &Replay, findings: &mut Findings) {
        let mut devices: BTreeMap<(String, u32), Vec<Interval<Step>>> = BTreeMap::new();
        for (id, operations) in by_lease(&evidence.history) {
            let create = operations.iter().find(|one| matches!(one.call, Call::Create { .. }));
            let Some((create, (_, seen))) = create.and_then(|one| Some((one, one.outcome.done()?))) else {
                continue;
            };
            let mut shares: BTreeMap<(String, u32), u32> = BTreeMap::new();
            for (node, device, milli) in &seen.devices {
                *shares.entry((node.clone(), *device)).or_default() += milli;
            }
            let mut leaves: Vec<(u64, u64)> = operations
                .iter()
                .filter(|one| matches!(one.call, Call::Release { .. } | Call::Cancel { .. }))
                .filter(|one| !matches!(one.outcome, Outcome::Refused { .. }))
                .map(|one| (one.called_us, one.returned_us))
                .collect();
            leaves.extend(lapse_us(&operations).map(|called_us| (called_us, NEVER_US)));
            for (device, milli) in shares {
                let steps = devices.entry(device).or_default();
                let mut add = |called_us, returned_us, operation| {
                    steps.push(Interval { called_us, returned_us, operation });
                };
                add(create.called_us, create.returned_us, Step::Take(id, milli));
                leaves
                    .iter()
                    .for_each(|(called_us, returned_us)| add(*called_us, *returned_us, Step::Leave(id)));
            }
        }
        for ((node, device), steps) in devices {
            if let Verdict::Impossible(fitting) = search(&steps, Holders::new(), allowed) {
                let all = steps.iter().filter(|one| one.returned_us != NEVER_US).count();
                findings
                    .add(format!("device {device} of {node}: no order fits, only {fitting} of {all} steps"));
            }
        }
    }
}

fn allowed(holders: &Holders, step: &Step) -> Option<Holders> {
    let mut after = holders.clone();
    match step {
        Step::Take(id, milli) => {
            let taken: u32 = holders.iter().map(|(_, milli)| milli).sum();
            (taken + milli <= WHOLE_MILLI && after.insert((*id, *milli))).then_some(after)
        }
        Step::Leave(id) => {
            after.retain(|(holder, _)| holder != id);
            (after.len() < holders.len()).then_some(after)
        }
    }
}
