//! Replicas at one revision have one state (I12).

use super::{Evidence, Findings, Judge, Replay};

/// See the module.
pub(super) struct Digests;

impl Judge for Digests {
    fn name(&self) -> &'static str {
        "state digests (I12)"
    }

    fn judge(&self, evidence: &Evidence, _: &Replay, findings: &mut Findings) {
        for pair in evidence.replicas.windows(2) {
            let (one, other) = (&pair[0], &pair[1]);
            if one.revision != other.revision {
                findings.add(format!(
                    "c{} ends at {}, c{} at {}",
                    one.id, one.revision, other.id, other.revision
                ));
            } else if one.digest != other.digest {
                findings.add(format!("c{} and c{} differ in state at {}", one.id, other.id, one.revision));
            } else if one.chain != other.chain {
                findings.add(format!("c{} and c{} differ in chain at {}", one.id, other.id, one.revision));
            }
        }
    }
}
