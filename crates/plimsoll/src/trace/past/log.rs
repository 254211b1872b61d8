//! The past from a cluster's log, as `plimsoll audit log` writes it: one JSON document a line. What really happened is found out by applying it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use plimsoll_ledger::{Command, EndReason, Entry, EventObject, Ledger, Outcome, Reservation, Stamp, State};
use plimsoll_proto::codec::decode_entry;
use plimsoll_scheduler::forecast::{Ask, Course, Fate, Recorded};
use plimsoll_types::{LedgerTime, ReservationId, Revision};
use serde_json::Value;

use super::Past;
use crate::error::CliError;

/// What is known of a reservation so far.
struct Known {
    /// Its place among the requests.
    index: usize,
    /// Its place among the events.
    event: usize,
    since: Option<LedgerTime>,
}

/// Reads a log and applies it.
pub(crate) fn read_log(path: &Path) -> Result<Past, CliError> {
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|error| CliError::local(&format!("cannot read {shown}"), error))?;
    let mut reader = Reader::default();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| CliError::local(&format!("cannot read {shown}"), error))?;
        if line.trim().is_empty() {
            continue;
        }
        reader.take(&line).map_err(|what| {
            CliError::usage(format!("{shown}:{}: {what}", index + 1))
                .help("the whole log of a cluster: plimsoll audit log > log.jsonl")
        })?;
    }
    Ok(reader.finish())
}

struct Reader {
    ledger: Ledger,
    events: Vec<(LedgerTime, Recorded)>,
    actual: Vec<Fate>,
    known: BTreeMap<ReservationId, Known>,
    left_out: u64,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            ledger: Ledger::new(),
            events: Vec::new(),
            actual: Vec::new(),
            known: BTreeMap::new(),
            left_out: 0,
        }
    }
}

impl Reader {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let record: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let number = |field: &str| -> Result<u64, String> {
            let text = record[field].as_str().ok_or_else(|| format!("{field} is missing"))?;
            text.parse().map_err(|_| format!("{field} is no number"))
        };
        let (revision, at) = (Revision(number("revision")?), LedgerTime(number("logTimeMs")?));
        let next = self.ledger.revision().0 + 1;
        if revision.0 != next {
            return Err(format!("revision {revision} where {next} is expected: the log must be whole"));
        }
        let hex = record["entry"].as_str().ok_or("entry is missing")?;
        let bytes = unhex(hex).ok_or("entry is not hexadecimal")?;
        let entry = decode_entry(&bytes).map_err(|error| format!("entry cannot be read: {error}"))?;
        let applied = self.ledger.apply(Stamp { revision, proposed_at: at }, &entry);
        self.ledger.clear_touched();
        if !applied.replayed {
            self.note_entry(&entry, at, &applied.answer.outcome);
        }
        for event in &applied.events {
            if let EventObject::Reservation(reservation, before) = &event.object {
                self.note_change(reservation, *before, at);
            }
        }
        Ok(())
    }

    /// What is taken over as it was.
    fn note_entry(&mut self, entry: &Entry, at: LedgerTime, outcome: &Outcome) {
        match &entry.command {
            Command::Submit { .. } => {
                let Outcome::Reservation(made) = outcome else {
                    self.left_out += 1;
                    return;
                };
                let index = self.actual.len();
                self.known.insert(made.id, Known { index, event: self.events.len(), since: None });
                self.actual.push(Fate { submitted: at, ..Fate::default() });
                let ask = Ask {
                    request: Arc::clone(&made.request),
                    requester: made.requester.clone(),
                    run_ms: None,
                    gives_up_at: None,
                };
                self.events.push((at, Recorded::Ask(ask)));
            }
            command @ (Command::RegisterNode(_)
            | Command::SetNodeHealth { .. }
            | Command::SetNodeAdmin { .. }
            | Command::SetDeviceHealth { .. }
            | Command::RemoveNode { .. }
            | Command::ApplyPolicy { .. })
                if !matches!(outcome, Outcome::Refused(_)) =>
            {
                self.events.push((at, Recorded::Command(Box::new(command.clone()))));
            }
            _ => {}
        }
    }

    fn note_change(&mut self, reservation: &Reservation, before: Option<State>, at: LedgerTime) {
        let Some(known) = self.known.get_mut(&reservation.id) else { return };
        let fate = &mut self.actual[known.index];
        let (was, is) = (before.is_some_and(State::is_occupying), reservation.state.is_occupying());
        if !was && is {
            fate.started.get_or_insert(at);
            known.since = Some(at);
        }
        if was
            && !is
            && let Some(since) = known.since.take()
        {
            count(fate, reservation, at.0.saturating_sub(since.0));
            let ask = ask_at(&mut self.events, known.event);
            if reservation.state.is_final()
                && let Some(ask) = ask
            {
                ask.run_ms = Some(at.0.saturating_sub(since.0));
            } else if !reservation.state.is_final() {
                fate.preempted += 1;
            }
        }
        let cancelled = reservation.end_reason == Some(EndReason::Cancelled);
        if !was
            && cancelled
            && let Some(ask) = ask_at(&mut self.events, known.event)
        {
            ask.gives_up_at = Some(at);
        }
    }

    fn finish(mut self) -> Past {
        let end = self.ledger.clock();
        for (id, known) in &self.known {
            if let (Some(since), Some(held)) = (known.since, self.ledger.reservation(*id)) {
                count(&mut self.actual[known.index], held, end.0.saturating_sub(since.0));
            }
        }
        let gpus = self.ledger.nodes().map(|node| node.registration.devices.len() as u64 * 1_000).sum();
        let cpu = self.ledger.nodes().map(|node| node.allocatable.cpu_millis.0).sum();
        Past {
            course: Course { events: self.events, end },
            actual: self.actual,
            left_out: self.left_out,
            capacity: (gpus, cpu),
        }
    }
}

/// The request at that place among the events.
fn ask_at(events: &mut [(LedgerTime, Recorded)], event: usize) -> Option<&mut Ask> {
    match events.get_mut(event) {
        Some((_, Recorded::Ask(ask))) => Some(ask),
        _ => None,
    }
}

/// What was asked was had for so long. An ended reservation no longer says on which devices, so that its request says how many.
fn count(fate: &mut Fate, reservation: &Reservation, held_ms: u64) {
    let request = &reservation.request;
    fate.held_ms += held_ms;
    for (needs, members) in request.kinds_with_most() {
        let gpus = needs.gpu.as_ref().map_or(0, |gpu| u128::from(gpu.nominal_milli()));
        // What a resize made of it, where there are no roles.
        let amounts = if request.roles.is_empty() { &reservation.amounts } else { &needs.amounts };
        let member_ms = u128::from(members) * u128::from(held_ms);
        fate.gpu_milli_ms += gpus * member_ms;
        fate.cpu_milli_ms += u128::from(amounts.cpu_millis.0) * member_ms;
    }
}

fn unhex(text: &str) -> Option<Bytes> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    (0..text.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>().map(Bytes::from)
}
