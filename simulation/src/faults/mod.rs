//! What goes wrong, and when: a seeded schedule that is carried out between the steps of the simulation.

mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_store::sim::SimFaults;
use turmoil::Sim;

use crate::board::Board;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::world::{AGENT, LOAD, Member, host};
pub use kinds::Fault;

/// Faults at the same time, at most.
const MOST_AT_ONCE: usize = 2;
/// A coordinator whose disk failed a sync must have stopped after so long, in milliseconds.
const STOPS_WITHIN_MS: u64 = 1_000;
/// A coordinator that stopped by itself is started again after so long, in milliseconds.
const RESTART_MS: u64 = 500;

/// A coordinator's host is being taken down.
static POWER_FAILS: AtomicBool = AtomicBool::new(false);

/// Something panicked that would have ended a process.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Something panicked: a process would have ended there, and the host that is left is none that there could be.
pub fn note_panic() {
    PANICKED.store(true, Ordering::Relaxed);
}

/// Something panicked in this run.
pub fn panicked() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

/// True while a coordinator loses its power: destructors run then that in the world would not run any more.
pub fn power_fails() -> bool {
    POWER_FAILS.load(Ordering::Relaxed)
}

/// What ends a fault.
#[derive(Clone, Debug)]
enum End {
    Bounce(Vec<String>),
    Repair(Vec<(String, String)>),
    RepairOneWay(String, String),
    Release(String, String),
    RepairAnswers(Vec<u64>),
    FastDisk(u64),
    /// Syncs work again.
    GoodDisk(u64),
    /// By now it must have stopped, for a sync failed.
    HasStopped(u64),
    Nothing,
}

/// The schedule, as it is carried out.
pub struct Faults {
    rng: Rng,
    next_ms: u64,
    /// When each ends, and how.
    active: Vec<(u64, End)>,
    down: Vec<String>,
    /// Coordinators with a flipped bit in their log.
    rotten: BTreeSet<u64>,
    counts: BTreeMap<Fault, u64>,
    /// What comes instead of what is drawn, and which of it is next.
    script: Option<(&'static Scenario, usize)>,
    /// When coordinators get the newest build, in milliseconds after the chaos began; the next one last.
    installs_ms: Vec<u64>,
    chaos_since_ms: Option<u64>,
}

impl Faults {
    /// The schedule of a seed, or of a scenario with that seed.
    pub fn new(seed: u64, scenario: Option<&'static Scenario>) -> Faults {
        Faults {
            script: scenario.map(|scenario| (scenario, 0)),
            rng: Rng::of(seed, "faults"),
            next_ms: 0,
            active: Vec::new(),
            down: Vec::new(),
            rotten: BTreeSet::new(),
            counts: BTreeMap::new(),
            installs_ms: Vec::new(),
            chaos_since_ms: None,
        }
    }

    /// Coordinators are of an older build and get the newest at these moments, in milliseconds after the chaos began.
    pub fn install_at(&mut self, mut at_ms: Vec<u64>) {
        at_ms.sort_unstable_by(|one, other| other.cmp(one));
        self.installs_ms = at_ms;
    }

    /// How often each kind happened.
    pub fn counts(&self) -> &BTreeMap<Fault, u64> {
        &self.counts
    }

    /// Ends what is over, deals with coordinators that stopped, and where there is to be chaos begins what is due.
    pub fn advance(
        &mut self,
        now_ms: u64,
        chaos: bool,
        sim: &mut Sim<'_>,
        members: &[Member],
        board: &Board,
    ) {
        for (id, why) in board.take_stopped() {
            self.stopped(now_ms, id, &why, sim, members, board);
        }
        if board.take_restart_agents() {
            board.trace.add(now_ms, format_args!("agents start anew"));
            sim.crash(AGENT);
            sim.bounce(AGENT);
        }
        self.rotten.retain(|id| {
            let runs = board.runs(*id);
            if runs {
                board.found(format!("D6: c{id} started on a log with a flipped bit"));
            }
            !runs
        });
        if self.active.iter().any(|(end_ms, _)| *end_ms <= now_ms) {
            let (over, active): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.active).into_iter().partition(|(end_ms, _)| *end_ms <= now_ms);
            self.active = active;
            for (_, end) in over {
                self.end(now_ms, end, sim, members, board);
            }
        }
        if !chaos {
            return;
        }
        let since_ms = *self.chaos_since_ms.get_or_insert(now_ms);
        while self.installs_ms.pop_if(|at_ms| since_ms + *at_ms <= now_ms).is_some() {
            let lasts_ms = self.rng.between(100, 1_500);
            if let Some(end) = self.begin(now_ms, Fault::NewBuild, lasts_ms, sim, members, board) {
                *self.counts.entry(Fault::NewBuild).or_default() += 1;
                self.active.push((now_ms + lasts_ms, end));
            }
        }
        if let Some((scenario, place)) = self.script {
            let step = scenario.round[place % scenario.round.len()];
            if self.next_ms == 0 {
                self.next_ms = now_ms + step.after_ms;
            }
            if now_ms >= self.next_ms
                && let Some(end) =
                    self.begin(now_ms, step.fault, step.lasts_ms, sim, &there(members, board), board)
            {
                *self.counts.entry(step.fault).or_default() += 1;
                self.active.push((now_ms + step.lasts_ms, end));
                let next = scenario.round[(place + 1) % scenario.round.len()];
                self.next_ms = now_ms + next.after_ms;
                self.script = Some((scenario, place + 1));
            }
            return;
        }
        if self.next_ms == 0 {
            self.next_ms = now_ms + self.rng.between(200, 1_200);
        }
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + self.rng.between(300, 2_200);
        let Some((fault, lasts_ms)) = Fault::draw(&mut self.rng) else { return };
        if self.active.len() < MOST_AT_ONCE
            && let Some(end) = self.begin(now_ms, fault, lasts_ms, sim, &there(members, board), board)
        {
            *self.counts.entry(fault).or_default() += 1;
            self.active.push((now_ms + lasts_ms, end));
        }
    }

    /// A coordinator stopped by itself. That is right where its disk failed or its log is damaged, and wrong otherwise.
    fn stopped(
        &mut self,
        now_ms: u64,
        id: u64,
        why: &str,
        sim: &mut Sim<'_>,
        members: &[Member],
        board: &Board,
    ) {
        let Some(member) = members.iter().find(|member| member.id == id) else { return };
        let rotten = self.rotten.remove(&id);
        if rotten {
            member.disk.mend();
        } else if !member.disk.has_failed() {
            board.found(format!("c{id} stopped without a reason: {why}"));
        }
        if let Some(end) = self.crash(&[id], sim, members, board) {
            self.active.push((now_ms + RESTART_MS, end));
        }
    }

    /// Ends everything, and repairs whatever may still be broken.
    pub fn heal(&mut self, now_ms: u64, sim: &mut Sim<'_>, members: &[Member], board: &Board) {
        for (_, end) in std::mem::take(&mut self.active) {
            self.end(now_ms, end, sim, members, board);
        }
        while self.installs_ms.pop().is_some() {
            if let Some(end) = self.begin(now_ms, Fault::NewBuild, 0, sim, members, board) {
                *self.counts.entry(Fault::NewBuild).or_default() += 1;
                self.end(now_ms, end, sim, members, board);
            }
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
            for other in [AGENT, LOAD] {
                sim.repair_oneway(host(member.id), other);
            }
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
            Fault::CrashInChange => {
                let leader = board.leader_in_change()?;
                (host(leader), self.crash(&[leader], sim, members, board)?)
            }
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
            Fault::CutAgent | Fault::SilenceAgent => {
                let pairs = members.iter().map(|member| (AGENT.to_owned(), host(member.id))).collect();
                (AGENT.to_owned(), cut(sim, pairs))
            }
            Fault::CutClients => (host(leader?), cut(sim, vec![(LOAD.to_owned(), host(leader?))])),
            Fault::LoseAnswers => {
                let all: Vec<u64> = members.iter().map(|member| member.id).collect();
                all.iter().for_each(|id| sim.partition_oneway(host(*id), LOAD));
                ("to clients".to_owned(), End::RepairAnswers(all))
            }
            Fault::SlowDisk | Fault::SlowLeader => {
                let id = if fault == Fault::SlowLeader { leader? } else { one };
                let slow = SimFaults { stall_permille: 300, stall_us: 150_000, ..SimFaults::default() };
                members.iter().find(|member| member.id == id)?.disk.set_faults(slow);
                (host(id), End::FastDisk(id))
            }
            Fault::FailSync => {
                if self.down.contains(&host(one)) {
                    return None;
                }
                let failing = SimFaults { fail_sync_permille: 1_000, ..SimFaults::default() };
                members.iter().find(|member| member.id == one)?.disk.set_faults(failing);
                (host(one), End::GoodDisk(one))
            }
            Fault::BitRot => {
                // The others hold what this one cannot show for a while.
                if !self.down.is_empty() {
                    return None;
                }
                let member = members.iter().find(|member| member.id == one)?;
                let end = self.crash(&[one], sim, members, board)?;
                let Some(index) = member.disk.flip_bit() else { return Some(end) };
                self.rotten.insert(one);
                (format!("{} at log index {index}", host(one)), end)
            }
            Fault::NewBuild => {
                let older: Vec<&Member> = members.iter().filter(|member| !member.is_newest()).collect();
                let member = *self.rng.pick(&older)?;
                member.install();
                (host(member.id), self.crash(&[member.id], sim, members, board)?)
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
            // The disks first: what destructors still write when the host ends must not be there.
            member.disk.crash();
            member.history.crash();
            POWER_FAILS.store(true, Ordering::Relaxed);
            sim.crash(host.as_str());
            POWER_FAILS.store(false, Ordering::Relaxed);
            self.down.push(host.clone());
            crashed.push(host);
        }
        (!crashed.is_empty()).then_some(End::Bounce(crashed))
    }

    fn end(&mut self, now_ms: u64, end: End, sim: &mut Sim<'_>, members: &[Member], board: &Board) {
        board.trace.add(now_ms, format_args!("over {end:?}"));
        match end {
            End::Bounce(hosts) => {
                for host in hosts.iter().filter(|host| self.down.contains(host)) {
                    sim.bounce(host.as_str());
                }
                self.down.retain(|down| !hosts.contains(down));
            }
            End::RepairAnswers(ids) => ids.iter().for_each(|id| sim.repair_oneway(host(*id), LOAD)),
            End::GoodDisk(id) => {
                for member in members.iter().filter(|member| member.id == id) {
                    member.disk.set_faults(SimFaults::default());
                    if member.disk.has_failed() {
                        self.active.push((now_ms + STOPS_WITHIN_MS, End::HasStopped(id)));
                    }
                }
            }
            End::HasStopped(id) => {
                let failed = members.iter().any(|member| member.id == id && member.disk.has_failed());
                if failed && !self.down.contains(&host(id)) {
                    board.found(format!("D2: c{id} goes on after a sync failed"));
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

/// Coordinators that are or were members.
fn there(members: &[Member], board: &Board) -> Vec<Member> {
    members.iter().filter(|one| board.was_member(one.id)).cloned().collect()
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
