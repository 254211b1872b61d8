//! What a client was told is what the log says came of it; what it read is what the log made of the reservation by then (witness check,
//! part 3).

use std::collections::BTreeMap;

use super::{Evidence, Findings, Judge, Replay};
use crate::chaos::history::{Call, Operation, Seen};
use crate::chaos::record::Record;
use plimsoll_proto::log::State;

/// See the module.
pub(super) struct Results;

impl Judge for Results {
    fn name(&self) -> &'static str {
        "results (witness 3)"
    }

    fn judge(&self, evidence: &Evidence, replay: &Replay, findings: &mut Findings) {
        let log: BTreeMap<u64, &Record> =
            evidence.log.iter().map(|record| (record.revision, record)).collect();
        for operation in &evidence.history {
            let Some((revision, seen)) = operation.outcome.done() else { continue };
            let wrong = if operation.call.is_read() {
                read(operation, revision, seen, replay)
            } else {
                written(operation, seen, log.get(&revision).copied())
            };
            if let Err(wrong) = wrong {
                findings.add(format!(
                    "{:?} of client {} at {revision}: {wrong}",
                    operation.call, operation.client
                ));
            }
        }
    }
}

fn read(operation: &Operation, revision: u64, seen: &Seen, replay: &Replay) -> Result<(), String> {
    if operation.call.reservation() != Some(seen.id) {
        return Err(format!("shows reservation {}", seen.id));
    }
    match replay.at(seen.id, revision) {
        None => Err("the log has no such reservation by then".to_owned()),
        Some(version) if version.state != seen.state || version.token != seen.token => {
            Err(format!("shows {seen:?}, the log makes it {version:?}"))
        }
        Some(_) => Ok(()),
    }
}

fn written(operation: &Operation, seen: &Seen, record: Option<&Record>) -> Result<(), String> {
    let record = record.ok_or("the log ends before it (I9)")?;
    if record.command.request_id != operation.request_id {
        return Err(format!("the log has request {:?} there", record.command.request_id));
    }
    let logged = record.reservation().ok_or_else(|| format!("the log says {:?}", record.outcome))?;
    let standing = if logged.state() == State::Unknown { logged.resume_state } else { logged.state };
    if (logged.id, standing, logged.token) != (seen.id, seen.state, seen.token) {
        return Err(format!("told {seen:?}, logged {} state {standing} token {}", logged.id, logged.token));
    }
    if operation.call.reservation().is_some_and(|named| named != logged.id) {
        return Err(format!("it was reservation {} that changed", logged.id));
    }
    // Whoever has the device must know it: node names are the agents' own, so devices are compared by index and share.
    let granted: Vec<(u32, u32)> = logged
        .members
        .iter()
        .flat_map(|member| member.devices.iter().map(|grant| (grant.device, grant.milli)))
        .collect();
    let told: Vec<(u32, u32)> = seen.devices.iter().map(|(_, device, milli)| (*device, *milli)).collect();
    if matches!(operation.call, Call::Create { .. }) && granted != told {
        return Err(format!("told devices {told:?}, logged {granted:?}"));
    }
    Ok(())
}
