//! The order of revisions agrees with the order in which clients saw things happen (witness check, parts 1 and 2; I15).

use std::collections::BTreeMap;

use super::{Evidence, Findings, Judge, Replay};
use crate::chaos::history::Operation;

/// See the module.
pub(super) struct RealTime;

impl Judge for RealTime {
    fn name(&self) -> &'static str {
        "real time (I15)"
    }

    fn judge(&self, evidence: &Evidence, _: &Replay, findings: &mut Findings) {
        unique(&evidence.history, findings);
        in_order(&evidence.history, findings);
    }
}

/// Writes with different keys have different revisions.
fn unique(history: &[Operation], findings: &mut Findings) {
    let mut keys: BTreeMap<u64, &str> = BTreeMap::new();
    for operation in history.iter().filter(|operation| !operation.call.is_read()) {
        let Some((revision, _)) = operation.outcome.done() else { continue };
        let key = keys.entry(revision).or_insert(&operation.request_id);
        if *key != operation.request_id {
            findings.add(format!("{key} and {} both have revision {revision}", operation.request_id));
        }
    }
}

/// What had returned before another was called has the smaller revision: a scan with a running maximum. A repeat shows the revision of the
/// first time, so only the first call with a key counts as the later one; as the earlier one every answer does.
fn in_order(history: &[Operation], findings: &mut Findings) {
    let done = |operation: &&Operation| operation.outcome.done().is_some();
    let mut by_return: Vec<&Operation> = history.iter().filter(done).collect();
    by_return.sort_by_key(|operation| operation.returned_us);
    let mut first_call: BTreeMap<&str, u64> = BTreeMap::new();
    for operation in history.iter().filter(|operation| !operation.call.is_read()) {
        first_call.entry(&operation.request_id).or_insert(operation.called_us);
    }
    let mut returned = by_return.into_iter().peekable();
    let mut newest: Option<(u64, &Operation)> = None;
    let mut by_call: Vec<&Operation> = history.iter().filter(done).collect();
    by_call.sort_by_key(|operation| operation.called_us);
    for later in by_call {
        while let Some(earlier) = returned.next_if(|earlier| earlier.returned_us < later.called_us) {
            let (revision, _) = earlier.outcome.done().expect("only those are listed");
            if newest.is_none_or(|(most, _)| revision > most) {
                newest = Some((revision, earlier));
            }
        }
        let is_repeat =
            first_call.get(later.request_id.as_str()).is_some_and(|first| *first < later.called_us);
        let Some((most, earlier)) = newest.filter(|_| !is_repeat) else { continue };
        let (revision, _) = later.outcome.done().expect("only those are listed");
        let too_early = if later.call.is_read() { revision < most } else { revision <= most };
        if too_early {
            findings.add(format!(
                "{:?} of client {} got revision {revision}, after {:?} of client {} had returned with {most}",
                later.call, later.client, earlier.call, earlier.client
            ));
        }
    }
}
