//! The log, followed by a model of our own: which reservation stands where after each revision, and which devices it has.
//!
//! Written from `docs/semantics.md`. Grants come with their places in the log, so that nothing is planned here; what time, silent
//! nodes and changes of leader do is worked out anew and compared with what the log says came of it.

mod due;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_proto::log::{self, State, log_command::Command, log_outcome::Outcome};

use super::Findings;
use crate::chaos::record::Record;

/// Where a reservation stood from a revision on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// From this revision on.
    pub revision: u64,
    /// Its state; UNKNOWN stands for what it will resume.
    pub state: i32,
    /// Its token.
    pub token: u64,
}

/// A revision, a device (node and index), and who has how many thousandths of it from there on, by reservation.
pub type DeviceChange = (u64, (u32, u32), BTreeMap<u64, u32>);

/// What became of the log.
#[derive(Debug, Default)]
pub struct Replay {
    /// Versions of each reservation, oldest first.
    pub versions: BTreeMap<u64, Vec<Version>>,
    /// Places in the log at which a request had its effect or was remembered as refused: by actor and request id.
    pub effects: BTreeMap<(String, String), u64>,
    /// Records that repeat an earlier request: no effect of their own.
    pub repeats: BTreeSet<u64>,
    /// Who has what of a device, after each revision that changed it.
    pub devices: Vec<DeviceChange>,
}

/// The model's state.
#[derive(Default)]
struct Model {
    reservations: BTreeMap<u64, log::Reservation>,
    nodes: BTreeMap<u32, log::Node>,
    remembered: BTreeMap<(String, String), (Vec<u8>, Vec<u8>)>,
    rearmed_at_ms: u64,
    clock_ms: u64,
    holders: BTreeMap<(u32, u32), BTreeMap<u64, u32>>,
    /// Reservations that changed with the present record.
    touched: BTreeSet<u64>,
}

/// Follows a log from revision 1 on.
pub fn replay(log: &[Record], findings: &mut Findings) -> Replay {
    let mut model = Model::default();
    let mut replay = Replay::default();
    for record in log {
        if record.log_time_ms < model.clock_ms {
            findings.add(format!("revision {}: ledger time goes back (I14)", record.revision));
        }
        model.clock_ms = record.log_time_ms;
        if !model.is_repeat(record, &mut replay, findings) {
            model.apply(record, findings);
        }
        model.note(record.revision, &mut replay);
    }
    replay
}

impl Replay {
    /// Where a reservation stood at a revision.
    pub fn at(&self, reservation: u64, revision: u64) -> Option<Version> {
        let versions = self.versions.get(&reservation)?;
        let after = versions.partition_point(|version| version.revision <= revision);
        versions.get(after.checked_sub(1)?).copied()
    }
}

impl Model {
    fn is_repeat(&mut self, record: &Record, replay: &mut Replay, findings: &mut Findings) -> bool {
        let command = &record.command;
        if command.request_id.is_empty() {
            return false;
        }
        let key = (command.actor.clone(), command.request_id.clone());
        if let Some((hash, result)) = self.remembered.get(&key) {
            replay.repeats.insert(record.revision);
            if *hash != command.request_hash {
                if record.refusal() != Some(log::Reason::KeyConflict) {
                    findings
                        .add(format!("revision {}: a key used twice is no conflict (I10)", record.revision));
                }
            } else if *result != record.result {
                findings.add(format!("revision {}: a repeat got another answer (I10)", record.revision));
            }
            return true;
        }
        if !is_forgotten(record) {
            self.remembered.insert(key.clone(), (command.request_hash.to_vec(), record.result.clone()));
            replay.effects.insert(key, record.revision);
        }
        false
    }

    fn apply(&mut self, record: &Record, findings: &mut Findings) {
        if record.refusal().is_some() {
            return;
        }
        let Some(command) = &record.command.command else {
            findings.add(format!("revision {}: no command", record.revision));
            return;
        };
        match (command, &record.outcome) {
            (Command::BecomeLeader(_), _) => self.rearmed_at_ms = record.log_time_ms,
            (Command::Expire(expire), Outcome::Expired(expired)) => {
                let ended = self.expire(expire.limit);
                if ended != expired.ended {
                    let said = expired.ended;
                    findings
                        .add(format!("revision {}: {said} ended, {ended} were due (I6)", record.revision));
                }
            }
            (_, Outcome::Reservation(reservation)) => {
                self.touched.insert(reservation.id);
                self.reservations.insert(reservation.id, reservation.clone());
            }
            (command, Outcome::Node(node)) => self.node_changed(command, node),
            _ => {}
        }
    }

    /// Ends one, in the model.
    fn end(&mut self, id: u64, state: State) {
        if let Some(reservation) = self.reservations.get_mut(&id) {
            reservation.state = state.into();
            reservation.resume_state = state.into();
            reservation.members.clear();
            self.touched.insert(id);
        }
    }

    /// Notes what changed with a record.
    fn note(&mut self, revision: u64, replay: &mut Replay) {
        for id in std::mem::take(&mut self.touched) {
            let Some(reservation) = self.reservations.get(&id) else { continue };
            let version = Version { revision, state: standing(reservation), token: reservation.token };
            replay.versions.entry(id).or_default().push(version);
            let now = devices_of(reservation);
            let before: Vec<_> = self
                .holders
                .iter()
                .filter(|(_, held)| held.contains_key(&id))
                .map(|(device, _)| *device)
                .collect();
            for device in before.into_iter().chain(now.keys().copied()).collect::<BTreeSet<_>>() {
                let holders = self.holders.entry(device).or_default();
                let had = holders.remove(&id);
                let has = now.get(&device).copied();
                holders.extend(has.map(|milli| (id, milli)));
                if had != has {
                    replay.devices.push((revision, device, holders.clone()));
                }
            }
        }
    }
}

/// Refusals that are not remembered: the leader looks for another place under the same id (`docs/semantics.md` 3).
fn is_forgotten(record: &Record) -> bool {
    let Some(reason) = record.refusal() else { return false };
    let named_a_place = matches!(
        &record.command.command,
        Some(Command::Submit(submit)) if matches!(submit.verdict, Some(log::submit::Verdict::Place(_)))
    );
    let about_places = reason == log::Reason::NotFound || reason >= log::Reason::NodeNotAvailable;
    reason == log::Reason::KeyConflict || (named_a_place && about_places)
}

/// The state, or what UNKNOWN will resume.
fn standing(reservation: &log::Reservation) -> i32 {
    match reservation.state() {
        State::Unknown => reservation.resume_state,
        _ => reservation.state,
    }
}

fn devices_of(reservation: &log::Reservation) -> BTreeMap<(u32, u32), u32> {
    let mut devices = BTreeMap::new();
    if !matches!(reservation.state(), State::Held | State::Active | State::Partial | State::Unknown) {
        return devices;
    }
    for member in &reservation.members {
        for grant in &member.devices {
            *devices.entry((member.node, grant.device)).or_default() += grant.milli;
        }
    }
    devices
}
