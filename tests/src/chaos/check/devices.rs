//! A device is taken whole by one grant, or in shares that fit together, at every revision (I2); a later grant of it has a larger token (I5).

use std::collections::BTreeMap;

use super::{Evidence, Findings, Judge, Replay};

const WHOLE_MILLI: u32 = 1_000;

/// See the module.
pub(super) struct Devices;

impl Judge for Devices {
    fn name(&self) -> &'static str {
        "device exclusivity (I2)"
    }

    fn judge(&self, _: &Evidence, replay: &Replay, findings: &mut Findings) {
        for (revision, (node, device), holders) in &replay.devices {
            let taken: u32 = holders.values().sum();
            if taken > WHOLE_MILLI {
                findings.add(format!("revision {revision}: device {device} of node {node} has {holders:?}"));
            }
        }
        let mut tokens: BTreeMap<u64, u64> = BTreeMap::new();
        for (id, versions) in &replay.versions {
            let mut granted = 0;
            for version in versions.iter().filter(|version| version.token > 0) {
                if granted == 0 {
                    granted = version.token;
                    if version.token != version.revision {
                        findings.add(format!(
                            "{id} was granted at {} with token {granted} (I5)",
                            version.revision
                        ));
                    }
                    if let Some(other) = tokens.insert(granted, *id) {
                        findings.add(format!("{other} and {id} share token {granted} (I5)"));
                    }
                } else if version.token != granted {
                    findings
                        .add(format!("the token of {id} changes from {granted} to {} (I5)", version.token));
                }
            }
        }
    }
}
