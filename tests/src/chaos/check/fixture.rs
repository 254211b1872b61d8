//! A small honest cluster in memory, for tests of the judges: it makes histories with the log that belongs to them, ready to be doctored.

use plimsoll_proto::log::{self, log_command::Command, log_outcome::Outcome as Came};
use prost::Message;

use super::{Evidence, Finding, Replica, judge};
use crate::chaos::history::{Call, NEVER_US, Operation, Outcome, Seen};
use crate::chaos::record::Record;

/// Time that an operation takes, in microseconds.
const TOOK_US: u64 = 500;
/// Ledger time of the first entry, in milliseconds.
const BEGAN_MS: u64 = 1_000_000;
/// Length of the leases, in milliseconds.
pub const TTL_MS: u64 = 60_000;
/// Who all clients are.
const ACTOR: &str = "anonymous";

/// The cluster.
#[derive(Clone, Debug, Default)]
pub struct Honest {
    /// The history so far.
    pub history: Vec<Operation>,
    /// The log so far.
    pub log: Vec<Record>,
    /// Reservations as they are.
    pub reservations: Vec<log::Reservation>,
    now_us: u64,
    keys: u64,
}

impl Honest {
    /// With a leader.
    pub fn new() -> Honest {
        let mut honest = Honest::default();
        honest.entry(
            "system",
            "",
            Command::BecomeLeader(log::BecomeLeader { leader: 1 }),
            Came::Done(log::Done {}),
        );
        honest
    }

    /// Lets time pass, in milliseconds.
    pub fn wait(&mut self, ms: u64) {
        self.now_us += ms * 1_000;
    }

    /// Appends an entry and gives its revision.
    pub fn entry(&mut self, actor: &str, key: &str, command: Command, came: Came) -> u64 {
        let revision = self.log.len() as u64 + 1;
        let command = log::LogCommand {
            actor: actor.into(),
            request_id: key.into(),
            request_hash: vec![7; 32].into(),
            command: Some(command),
        };
        let record = Record {
            revision,
            log_time_ms: BEGAN_MS + self.now_us / 1_000,
            entry: command.encode_to_vec(),
            result: log::LogOutcome { outcome: Some(came.clone()) }.encode_to_vec(),
            chain: Vec::new(),
            command,
            outcome: came,
        };
        self.log.push(record);
        revision
    }

    /// A grant of so many thousandths of device 0 of node 0 (0: of no device); its number.
    pub fn grant(&mut self, client: u32, milli: u32) -> u64 {
        let key = self.key();
        let revision = self.log.len() as u64 + 1;
        let share = log::DeviceGrant { device: 0, milli, memory_bytes: u64::from(milli), slices: None };
        let devices = if milli > 0 { vec![share] } else { Vec::new() };
        let reservation = log::Reservation {
            id: revision,
            state: log::State::Active.into(),
            resume_state: log::State::Active.into(),
            token: revision,
            ttl_ms: TTL_MS,
            deadline_ms: BEGAN_MS + self.now_us / 1_000 + TTL_MS,
            members: vec![log::MemberPlacement { node: 0, devices, role: 0 }],
            ..Default::default()
        };
        let placement = log::Placement { members: reservation.members.clone() };
        let submit = log::Submit { request: None, verdict: Some(log::submit::Verdict::Place(placement)) };
        self.reservations.push(reservation.clone());
        self.entry(ACTOR, &key, Command::Submit(submit), Came::Reservation(reservation.clone()));
        self.done(client, key, Call::Create { ttl_ms: TTL_MS }, revision, &reservation);
        revision
    }

    /// A renewal.
    pub fn renew(&mut self, client: u32, id: u64) -> u64 {
        let key = self.key();
        let deadline_ms = BEGAN_MS + self.now_us / 1_000 + TTL_MS;
        let one = self.reservation(id);
        one.deadline_ms = deadline_ms;
        let one = one.clone();
        let command = log::Renew { reservation: id, token: one.token, ttl_ms: 0 };
        let revision = self.entry(ACTOR, &key, Command::Renew(command), Came::Reservation(one.clone()));
        self.done(client, key, Call::Renew { reservation: id, token: one.token }, revision, &one);
        revision
    }

    /// A release.
    pub fn release(&mut self, client: u32, id: u64) -> u64 {
        let key = self.key();
        let token = self.reservation(id).token;
        let one = self.end(id, log::State::Released);
        let command = log::Release { reservation: id, token };
        let revision = self.entry(ACTOR, &key, Command::Release(command), Came::Reservation(one.clone()));
        self.done(client, key, Call::Release { reservation: id, token }, revision, &one);
        revision
    }

    /// A sweep that ends what is due, which the caller names.
    pub fn expire(&mut self, ids: &[u64]) {
        for id in ids {
            self.end(*id, log::State::Expired);
        }
        let ended = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let came = Came::Expired(log::Expired { ended, more: false });
        self.entry("system", "", Command::Expire(log::Expire { limit: 1_000 }), came);
    }

    /// A linearizable read.
    pub fn get(&mut self, client: u32, id: u64) {
        let one = self.reservation(id).clone();
        let revision = self.log.len() as u64;
        self.done(client, String::new(), Call::Get { reservation: id }, revision, &one);
    }

    /// A call whose outcome its client never learnt. It took effect where `entry` is given.
    pub fn unknown(&mut self, client: u32, call: Call, entry: Option<(Command, Came)>) {
        let key = self.key();
        if let Some((command, came)) = entry {
            self.entry(ACTOR, &key, command, came);
        }
        self.now_us += TOOK_US;
        let called_us = self.now_us;
        let outcome = Outcome::Unknown;
        self.history.push(Operation {
            client,
            request_id: key,
            call,
            called_us,
            returned_us: NEVER_US,
            outcome,
        });
    }

    /// The evidence of an honest run, before it is doctored.
    pub fn evidence(&self) -> Evidence {
        let mut evidence =
            Evidence { history: self.history.clone(), log: self.log.clone(), ..Default::default() };
        evidence.live_at = self.log.len() as u64;
        let live = self.reservations.iter().filter(|one| one.ended_at_ms == 0);
        evidence.live = live.map(|one| (one.id, one.state, one.token)).collect();
        seal(&mut evidence);
        evidence
    }

    fn done(&mut self, client: u32, request_id: String, call: Call, revision: u64, one: &log::Reservation) {
        let called_us = self.now_us;
        self.now_us += TOOK_US;
        let outcome = Outcome::Done { revision, seen: seen(one) };
        self.history.push(Operation {
            client,
            request_id,
            call,
            called_us,
            returned_us: self.now_us,
            outcome,
        });
        self.now_us += TOOK_US;
    }

    fn end(&mut self, id: u64, state: log::State) -> log::Reservation {
        let ended_at_ms = BEGAN_MS + self.now_us / 1_000;
        let one = self.reservation(id);
        (one.state, one.resume_state, one.ended_at_ms) = (state.into(), state.into(), ended_at_ms);
        one.members.clear();
        one.clone()
    }

    fn reservation(&mut self, id: u64) -> &mut log::Reservation {
        self.reservations.iter_mut().find(|one| one.id == id).expect("the test made it")
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("key-{}", self.keys)
    }
}

/// Makes the bytes and hashes of a log fit what it says, and every replica say the same: what a liar would do.
pub fn seal(evidence: &mut Evidence) {
    let mut link = [0; 32];
    for record in &mut evidence.log {
        record.entry = record.command.encode_to_vec();
        record.result = log::LogOutcome { outcome: Some(record.outcome.clone()) }.encode_to_vec();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&link).update(&record.entry).update(&record.result);
        link = *hasher.finalize().as_bytes();
        record.chain = link.to_vec();
    }
    let of = |id| Replica {
        id,
        log: evidence.log.clone(),
        revision: evidence.log.len() as u64,
        digest: vec![9; 32],
        chain: link.to_vec(),
    };
    evidence.replicas = (1..=3).map(of).collect();
}

/// Names of the judges that find something.
pub fn judges_of(evidence: &Evidence) -> Vec<&'static str> {
    let mut names: Vec<&'static str> =
        judge(evidence).iter().map(|finding: &Finding| finding.judge).collect();
    names.dedup();
    names
}

fn seen(one: &log::Reservation) -> Seen {
    let of = |member: &log::MemberPlacement| -> Vec<(String, u32, u32)> {
        member.devices.iter().map(|grant| (format!("n{}", member.node), grant.device, grant.milli)).collect()
    };
    Seen {
        id: one.id,
        state: one.state,
        token: one.token,
        devices: one.members.iter().flat_map(of).collect(),
    }
}
