//! A workload on a fleet in simulated time, on the very ledger and planner that a coordinator runs, in this process.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Instant;

use plimsoll_ledger::{
    Command, Entry, LATEST_VERSION, Ledger, Outcome as Came, PolicyObject, Pool, Refusal, Reservation, Stamp,
    Strategy, Wait,
};
use plimsoll_proto::{convert, reason};
use plimsoll_scheduler::Planner;
use plimsoll_scheduler::queueing::Discipline;
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use super::{NodeRow, Outcome, Report, RequestReport, WorkRow, node_names, queueing};
use crate::error::CliError;

/// How to run a workload.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) strategy: Strategy,
    pub(crate) strategy_name: String,
    pub(crate) seed: u64,
    /// Place in file order and keep; otherwise rows arrive and leave in simulated time.
    pub(crate) no_departures: bool,
    /// Serve the queue by this discipline, in place of the pool's own order.
    pub(crate) queueing: Option<Discipline>,
    /// As the user named it.
    pub(crate) queueing_name: Option<String>,
}

/// Names of strategies as users write them.
pub(crate) fn strategy_by_name(name: &str) -> Result<Strategy, CliError> {
    let plain = name.replace('-', "_");
    let found = Strategy::NAMED.iter().find(|(word, _)| *word == plain);
    found.map(|(_, strategy)| *strategy).ok_or_else(|| {
        let words = Strategy::NAMED.map(|(word, _)| word);
        let meant = plimsoll_policy::nearest(name, &words);
        let meant = meant.map_or_else(String::new, |word| format!("did you mean {word}? "));
        CliError::usage(format!("unknown strategy {name:?}: {meant}choose one of {}", words.join(", ")))
    })
}

/// Runs `work` on `nodes`. `progress` is told how many rows have arrived. The same input gives the same fates.
pub(crate) fn simulate(
    nodes: &[NodeRow],
    work: &[WorkRow],
    options: &Options,
    mut progress: impl FnMut(usize),
) -> Result<Report, CliError> {
    let mut world = World::new(nodes, options)?;
    let started = Instant::now();
    world.report.requests = work
        .iter()
        .map(|row| RequestReport {
            name: row.name.clone(),
            submit_s: row.submit_s,
            run_s: row.run_s,
            ..RequestReport::default()
        })
        .collect();
    if options.no_departures {
        // First fit decreasing orders the whole file; every other strategy takes row after row.
        let batch = if options.strategy == Strategy::FirstFitDecreasing { work.len().max(1) } else { 1 };
        let indexes: Vec<usize> = (0..work.len()).collect();
        for chunk in indexes.chunks(batch) {
            world.arrive(work, chunk, Wait::Refuse);
            progress(chunk.last().map_or(0, |last| last + 1));
        }
    } else {
        let mut order: Vec<usize> = (0..work.len()).collect();
        order.sort_by(|a, b| work[*a].submit_s.total_cmp(&work[*b].submit_s).then(a.cmp(b)));
        if let Some(discipline) = options.queueing {
            queueing::run(&mut world, work, order, discipline, progress);
            world.report.elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            return Ok(world.report);
        }
        let mut arrivals = order.into_iter().peekable();
        let mut arrived = 0;
        loop {
            let next_arrival = arrivals.peek().map(|index| millis(work[*index].submit_s));
            let next_departure = world.departures.peek().map(|Reverse((at, ..))| *at);
            let Some(now) = [next_arrival, next_departure].into_iter().flatten().min() else { break };
            world.now_ms = now;
            world.depart();
            world.serve_queue(work);
            let mut batch = Vec::new();
            while arrivals.peek().is_some_and(|index| millis(work[*index].submit_s) == now) {
                batch.extend(arrivals.next());
            }
            world.arrive(work, &batch, Wait::Queue { deadline_ms: 0 });
            arrived += batch.len();
            progress(arrived);
        }
    }
    world.report.elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(world.report)
}

pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) planner: Planner,
    pub(super) gpus_per_node: u32,
    /// What is placed stays for ever, and time stands still.
    stays: bool,
    pub(super) now_ms: u64,
    pub(super) report: Report,
    /// Row of each reservation.
    pub(super) rows: BTreeMap<ReservationId, usize>,
    /// When, which, with which token.
    pub(super) departures: BinaryHeap<Reverse<(u64, ReservationId, Revision)>>,
}

impl World {
    fn new(nodes: &[NodeRow], options: &Options) -> Result<World, CliError> {
        let mut ledger = Ledger::new();
        // As every new cluster does.
        apply(&mut ledger, 0, Command::Upgrade { to: LATEST_VERSION });
        let pool = Pool { name: "default".to_owned(), strategy: options.strategy, ..Pool::default() };
        let put = vec![PolicyObject::Pool(pool)];
        apply(&mut ledger, 0, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) });
        for node in nodes {
            let came = apply(&mut ledger, 0, Command::RegisterNode(node.registration()));
            if let Came::Refused(refusal) = came {
                let what =
                    refusal.blockers.first().map_or_else(String::new, |blocker| blocker.subject.clone());
                return Err(CliError::usage(format!("node {:?} makes no sense: {what}", node.name)));
            }
        }
        let planner = Planner::new(&ledger, options.seed);
        let report = Report {
            strategy: options.strategy_name.clone(),
            queueing: options.queueing_name.clone(),
            seed: options.seed,
            gpu_milli: nodes.iter().map(|node| u64::from(node.gpus) * 1_000).sum(),
            node_names: node_names(nodes),
            ..Report::default()
        };
        let gpus_per_node = nodes.iter().map(|node| node.gpus).max().unwrap_or(0);
        let (rows, departures) = (BTreeMap::new(), BinaryHeap::new());
        let stays = options.no_departures;
        Ok(World { ledger, planner, gpus_per_node, stays, now_ms: 0, report, rows, departures })
    }

    fn arrive(&mut self, work: &[WorkRow], indexes: &[usize], wait: Wait) {
        let started = Instant::now();
        let requests: Vec<_> = indexes
            .iter()
            .map(|index| plimsoll_ledger::Request { wait, ..work[*index].request(self.gpus_per_node) })
            .collect();
        let asked: Vec<_> = requests.iter().collect();
        let verdicts = self.planner.plan_batch(&self.ledger, &asked);
        for ((index, request), (verdict, ticket)) in indexes.iter().zip(requests).zip(verdicts) {
            let came = self.apply(Command::Submit { request, verdict });
            if let Some(ticket) = ticket {
                self.planner.settle(&self.ledger, ticket);
            }
            match came {
                Came::Reservation(reservation) => {
                    self.rows.insert(reservation.id, *index);
                    if reservation.token.0 > 0 {
                        self.granted(work, &reservation);
                    } else {
                        self.waits(*index, &reservation);
                    }
                }
                Came::Refused(refusal) => self.refused(*index, &refusal),
                Came::Done | Came::Node(_) | Came::Expired { .. } | Came::Tokens(_) => {}
            }
        }
        if !indexes.is_empty() {
            let each = started.elapsed().as_nanos() / indexes.len() as u128;
            let each = u64::try_from(each).unwrap_or(u64::MAX);
            self.report.latencies_ns.extend(indexes.iter().map(|_| each));
        }
    }

    fn serve_queue(&mut self, work: &[WorkRow]) {
        while self.planner.wants_queue_pass() {
            let placed = self.planner.plan_queue(&self.ledger, 1_024);
            for (reservation, placement, ticket) in placed {
                let came = self.apply(Command::Place { reservation, placement });
                self.planner.settle(&self.ledger, ticket);
                if let Came::Reservation(reservation) = came {
                    self.granted(work, &reservation);
                }
            }
        }
    }

    fn depart(&mut self) {
        while let Some(held) = self.next_departure() {
            self.release(&held);
            self.rows.remove(&held.id);
        }
    }

    /// What is to leave by now and still holds its grant.
    pub(super) fn next_departure(&mut self) -> Option<Arc<Reservation>> {
        while let Some(Reverse((at, id, token))) = self.departures.peek().copied() {
            if at > self.now_ms {
                return None;
            }
            self.departures.pop();
            let held =
                self.ledger.reservation(id).filter(|held| held.state.is_occupying() && held.token == token);
            if let Some(held) = held {
                return Some(Arc::clone(held));
            }
        }
        None
    }

    /// Gives a grant back.
    pub(super) fn release(&mut self, held: &Reservation) {
        self.apply(Command::Release { reservation: held.id, token: held.token });
        self.report.allocated_milli -= milli_of(held);
        let nodes: Vec<NodeId> = held.members.iter().map(|member| member.node).collect();
        self.planner.sync(&self.ledger, nodes);
    }

    /// A row waits: for what.
    pub(super) fn waits(&mut self, index: usize, reservation: &Reservation) {
        self.report.requests[index].reasons =
            reservation.blockers.iter().map(|blocker| reason_name(blocker.reason)).collect();
    }

    /// A row will leave at a moment.
    pub(super) fn leaves(&mut self, index: usize, end_ms: u64, reservation: &Reservation) {
        self.report.requests[index].end_s = Some(end_ms as f64 / 1_000.0);
        self.departures.push(Reverse((end_ms, reservation.id, reservation.token)));
    }

    /// Deciding on one request took the time since then.
    pub(super) fn took(&mut self, started: Instant) {
        self.report.latencies_ns.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// A row has its place, for as long as it runs.
    fn granted(&mut self, work: &[WorkRow], reservation: &Reservation) {
        self.started(reservation);
        let Some(&index) = self.rows.get(&reservation.id) else { return };
        if let (Some(run_s), false) = (work[index].run_s, self.stays) {
            let end_ms = self.now_ms.saturating_add(millis(run_s));
            self.leaves(index, end_ms, reservation);
        }
    }

    /// A row has its place.
    pub(super) fn started(&mut self, reservation: &Reservation) {
        let Some(&index) = self.rows.get(&reservation.id) else { return };
        self.report.allocated_milli += milli_of(reservation);
        self.report.peak_milli = self.report.peak_milli.max(self.report.allocated_milli);
        let start_s = self.now_ms as f64 / 1_000.0;
        let row = &mut self.report.requests[index];
        row.outcome = Outcome::Granted;
        row.reasons.clear();
        row.start_s = Some(if self.stays { row.submit_s } else { start_s });
        for member in &reservation.members {
            let Some(node) = self.ledger.node(member.node) else { continue };
            row.nodes.push(node.name().to_owned());
            let uuid = |grant: &plimsoll_ledger::DeviceGrant| {
                node.registration.devices.get(usize::from(grant.device.0)).map(|device| device.uuid.clone())
            };
            row.devices.extend(member.devices.iter().filter_map(uuid));
        }
    }

    pub(super) fn refused(&mut self, index: usize, refusal: &Refusal) {
        let row = &mut self.report.requests[index];
        row.outcome = Outcome::Refused;
        row.reasons = vec![reason_name(refusal.reason)];
        for blocker in &refusal.blockers {
            let name = reason_name(blocker.reason);
            if !row.reasons.contains(&name) {
                row.reasons.push(name);
            }
        }
    }

    pub(super) fn apply(&mut self, command: Command) -> Came {
        apply(&mut self.ledger, self.now_ms, command)
    }
}

fn apply(ledger: &mut Ledger, now_ms: u64, command: Command) -> Came {
    let stamp = Stamp {
        revision: Revision(ledger.revision().0 + 1),
        proposed_at: LedgerTime(now_ms.saturating_add(1)),
    };
    let outcome = ledger.apply(stamp, &Entry::system(command)).answer.outcome;
    ledger.clear_touched();
    outcome
}

fn milli_of(reservation: &Reservation) -> u64 {
    reservation.members.iter().flat_map(|member| &member.devices).map(|grant| u64::from(grant.milli)).sum()
}

fn reason_name(ledger_reason: plimsoll_ledger::Reason) -> String {
    reason::name(convert::reason_to_v1(ledger_reason)).to_owned()
}

pub(super) fn millis(seconds: f64) -> u64 {
    // Saturates at both ends: a trace cannot begin before its own start.
    (seconds * 1_000.0).round() as u64
}
