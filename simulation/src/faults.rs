//! What goes wrong, and when: a seeded schedule that is carried out between the steps of the simulation.

use std::collections::BTreeMap;

use plimsoll_store::sim::SimFaults;
use turmoil::Sim;

use crate::board::Board;
use crate::rng::Rng;
use crate::world::{AGENT, LOAD, Member, host};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The leader loses power and comes back.
    CrashLeader,
    /// Any coordinator loses power and comes back.
    CrashOne,
    /// All coordinators lose power at once and come back.
    CrashAll,
    /// The agents' machine dies and starts again.
    CrashAgent,
    /// The leader is cut off from the other coordinators, not from clients.
    IsolateLeader,
    /// A coordinator is cut off from everybody.
    CutOne,
    /// Two coordinators are cut off from everybody, each other included: no majority.
    CutTwo,
    /// Messages of one coordinator to another are lost, in one direction.
    OneWay,
    /// Messages between two coordinators are held up and delivered late.
    Hold,
    /// The agents are cut off.
    CutAgent,
    /// The clients are cut off from the leader.
    CutClients,
    /// A disk becomes slow.
    SlowDisk,
    /// A clock jumps, forward or back.
    StepClock,
}

/// How often each happens.
const WEIGHTS: [(u64, Fault); 13] = [
    (6, Fault::CrashLeader),
    (3, Fault::CrashOne),
    (1, Fault::CrashAll),
    (1, Fault::CrashAgent),
    (4, Fault::IsolateLeader),
    (2, Fault::CutOne),
    (1, Fault::CutTwo),
    (3, Fault::OneWay),
    (2, Fault::Hold),
    (1, Fault::CutAgent),
    (2, Fault::CutClients),
    (2, Fault::SlowDisk),
    (2, Fault::StepClock),
];
/// Faults at the same time, at most.
const MOST_AT_ONCE: usize = 2;

/// What ends a fault.
#[derive(Clone, Debug)]
enum End {
    Bounce(Vec<String>),
    Repair(Vec<(String, String)>),
    RepairOneWay(String, String),
    Release(String, String),
    FastDisk(u64),
    Nothing,
}

/// The schedule, as it is carried out.
pub struct Faults {
    rng: Rng,
    next_ms: u64,
    /// When each ends, and how.
    active: Vec<(u64, End)>,
    down: Vec<String>,
    counts: BTreeMap<Fault, u64>,
}

impl Faults {
    /// The schedule of a seed.
    pub fn new(seed: u64) -> Faults {
        Faults {
            rng: Rng::of(seed, "faults"),
            next_ms: 0,
            active: Vec::new(),
            down: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// How often each kind happened.
    pub fn counts(&self) -> &BTreeMap<Fault, u64> {
        &self.counts
    }

    /// Ends what is over and begins what is due.
    pub fn advance(&mut self, now_ms: u64, sim: &mut Sim<'_>, members: &[Member], board: &Board) {
        if self.next_ms == 0 {
            self.next_ms = now_ms + self.rng.between(200, 1_200);
        }
        let (over, active): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.active).into_iter().partition(|(end_ms, _)| *end_ms <= now_ms);
        self.active = active;
        for (_, end) in over {
            self.end(now_ms, end, sim, members, board);
        }
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + self.rng.between(300, 2_200);
        let lasts_ms = self.rng.between(200, 3_000);
        let Some(fault) = self.rng.weighted(&WEIGHTS) else { return };
        if self.active.len() < MOST_AT_ONCE
            && let Some(end) = self.begin(now_ms, fault, lasts_ms, sim, members, board)
        {
            *self.counts.entry(fault).or_default() += 1;
            self.active.push((now_ms + lasts_ms, end));
        }
    }

    /// Ends everything, and repairs whatever may still be broken.
    pub fn heal(&mut self, now_ms: u64, sim: &mut Sim<'_>, members: &[Member], board: &Board) {
        for (_, end) in std::mem::take(&mut self.active) {
            self.end(now_ms, end, sim, members, board);
        }
        let mut hosts: Vec<String> = members.iter().map(|member| host(member.id)).collect();
        hosts.extend([AGENT.to_owned(), LOAD.to_owned()]);
        for (place, a) in hosts.iter().enumerate() {
            for b in hosts.iter().skip(place + 1) {
                sim.release(a.as_str(), b.as_str());
                sim.repair(a.as_str(), b.as_str());
            }
        }
        for member in members {
            member.disk.set_faults(SimFaults::default());
        }
    }

    fn begin(
        &mut self,
        now_ms: u64,
        fault: Fault,
        lasts_ms: u64,
        sim: &mut Sim<'_>,
        members: &[Member],
        board: &Board,
    ) -> Option<End> {
        let one = self.rng.pick(members).map(|member| member.id)?;
        let other = members.iter().map(|member| member.id).filter(|id| *id != one).collect::<Vec<_>>();
        let other = *self.rng.pick(&other)?;
        let step_ms = i64::try_from(self.rng.between(0, 1_600)).ok()? - 800;
        let leader = board.leader();
        let (about, end) = match fault {
            Fault::CrashLeader => (host(leader?), self.crash(&[leader?], sim, members, board)?),
            Fault::CrashOne => (host(one), self.crash(&[one], sim, members, board)?),
            Fault::CrashAll => {
                let all: Vec<u64> = members.iter().map(|member| member.id).collect();
                ("all".to_owned(), self.crash(&all, sim, members, board)?)
            }
            Fault::CrashAgent => {
                if self.down.iter().any(|down| down == AGENT) {
                    return None;
                }
                sim.crash(AGENT);
                self.down.push(AGENT.to_owned());
                (AGENT.to_owned(), End::Bounce(vec![AGENT.to_owned()]))
            }
            Fault::IsolateLeader => {
                let leader = leader?;
                let pairs = members.iter().filter(|member| member.id != leader);
                (host(leader), cut(sim, pairs.map(|member| (host(leader), host(member.id))).collect()))
            }
            Fault::CutOne => (host(one), cut(sim, around(&[one], members))),
            Fault::CutTwo => {
                (format!("{} {}", host(one), host(other)), cut(sim, around(&[one, other], members)))
            }
            Fault::OneWay => {
                sim.partition_oneway(host(one), host(other));
                (format!("{} to {}", host(one), host(other)), End::RepairOneWay(host(one), host(other)))
            }
            Fault::Hold => {
                sim.hold(host(one), host(other));
                (format!("{} and {}", host(one), host(other)), End::Release(host(one), host(other)))
            }
            Fault::CutAgent => {
                let pairs = members.iter().map(|member| (AGENT.to_owned(), host(member.id))).collect();
                (AGENT.to_owned(), cut(sim, pairs))
            }
            Fault::CutClients => (host(leader?), cut(sim, vec![(LOAD.to_owned(), host(leader?))])),
            Fault::SlowDisk => {
                let slow = SimFaults { stall_permille: 300, stall_us: 150_000, ..SimFaults::default() };
                members.iter().find(|member| member.id == one)?.disk.set_faults(slow);
                (host(one), End::FastDisk(one))
            }
            Fault::StepClock => {
                members.iter().find(|member| member.id == one)?.clock.step(step_ms);
                (format!("{} by {step_ms} ms", host(one)), End::Nothing)
            }
        };
        board.trace.add(now_ms, format_args!("fault {fault:?} {about} for {lasts_ms} ms"));
        Some(end)
    }

    /// Cuts the power of those that have it; `None` where none has.
    fn crash(&mut self, ids: &[u64], sim: &mut Sim<'_>, members: &[Member], board: &Board) -> Option<End> {
        let mut crashed = Vec::new();
        for member in members.iter().filter(|member| ids.contains(&member.id)) {
            let host = host(member.id);
            if self.down.contains(&host) {
                continue;
            }
            board.left(member.id);
            // The disk first: what destructors still write when the host ends must not be there. History is spared: what
            // it loses at a power cut it says, and the judges need the whole log.
            member.disk.crash();
            sim.crash(host.as_str());
            self.down.push(host.clone());
            crashed.push(host);
        }
        (!crashed.is_empty()).then_some(End::Bounce(crashed))
    }

    fn end(&mut self, now_ms: u64, end: End, sim: &mut Sim<'_>, members: &[Member], board: &Board) {
        board.trace.add(now_ms, format_args!("over {end:?}"));
        match end {
            End::Bounce(hosts) => {
                for host in hosts {
                    self.down.retain(|down| *down != host);
                    sim.bounce(host.as_str());
                }
            }
            End::Repair(pairs) => pairs.iter().for_each(|(a, b)| sim.repair(a.as_str(), b.as_str())),
            End::RepairOneWay(from, to) => sim.repair_oneway(from.as_str(), to.as_str()),
            End::Release(a, b) => sim.release(a.as_str(), b.as_str()),
            End::FastDisk(id) => {
                for member in members.iter().filter(|member| member.id == id) {
                    member.disk.set_faults(SimFaults::default());
                }
            }
            End::Nothing => {}
        }
    }
}

/// Every pair of one of these and anybody else, each once.
fn around(ids: &[u64], members: &[Member]) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (place, id) in ids.iter().enumerate() {
        let earlier = ids.get(..place).unwrap_or_default();
        let others =
            members.iter().map(|member| member.id).filter(|other| other != id && !earlier.contains(other));
        pairs.extend(others.map(|other| (host(*id), host(other))));
        pairs.extend([AGENT, LOAD].map(|other| (host(*id), other.to_owned())));
    }
    pairs
}

fn cut(sim: &Sim<'_>, pairs: Vec<(String, String)>) -> End {
    pairs.iter().for_each(|(a, b)| sim.partition(a.as_str(), b.as_str()));
    End::Repair(pairs)
}
