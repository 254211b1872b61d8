//! A workload under a queue discipline: arrivals, starts, ends and preemptions in simulated time, each a command to the
//! ledger. The discipline learns of a run only what the ledger says; how long a row runs is looked at here alone, to know
//! when it ends, and told to those disciplines that reckon with declared lengths.

use std::cmp::Reverse;

use plimsoll_ledger::{
    Blocker, Command, Outcome as Came, Reason, Request, Reservation, Verdict, Wait, limits,
};
use plimsoll_scheduler::queueing::{Discipline, Queueing, Settings, resubmission};
use plimsoll_types::{LedgerTime, ReservationId};

use super::WorkRow;
use super::simulation::{World, millis};

/// What a preemption costs its victim: work that it has to do again, in milliseconds.
pub(super) const PREEMPTION_COST_MS: u64 = 30_000;
/// Most places of one walk.
const WALK: usize = 1_024;

/// How far a row is.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// Work, with what preemptions added to it.
    work_ms: u64,
    /// What of it was done before the present run.
    done_ms: u64,
    started_ms: u64,
}

/// Runs `work` on the nodes of `world`, with rows in the order of `arrivals`.
pub(super) fn run(
    world: &mut World,
    work: &[WorkRow],
    arrivals: Vec<usize>,
    discipline: Discipline,
    mut progress: impl FnMut(usize),
) {
    let queueing = Queueing::new(&world.ledger, "default", Settings::of(discipline));
    let course = |row: &WorkRow| Course { work_ms: row.run_s.map_or(0, millis), ..Course::default() };
    let courses = work.iter().map(course).collect();
    let mut queue = Queue { world, work, queueing, courses, declares: discipline.wants_declared_lengths() };
    let mut arrivals = arrivals.into_iter().peekable();
    let (mut arrived, mut look_again_ms) = (0, None);
    loop {
        let next_arrival = arrivals.peek().map(|index| millis(work[*index].submit_s));
        let next_departure = queue.world.departures.peek().map(|Reverse((at, ..))| *at);
        let Some(next_event) = [next_arrival, next_departure].into_iter().flatten().min() else { break };
        let now_ms = look_again_ms.map_or(next_event, |look: u64| look.min(next_event));
        queue.world.now_ms = now_ms;
        queue.depart();
        while let Some(index) = arrivals.next_if(|index| millis(work[*index].submit_s) == now_ms) {
            queue.arrive(index);
            arrived += 1;
        }
        progress(arrived);
        look_again_ms = queue.serve().filter(|look| *look > now_ms);
    }
}

struct Queue<'a> {
    world: &'a mut World,
    work: &'a [WorkRow],
    queueing: Queueing,
    courses: Vec<Course>,
    declares: bool,
}

impl Queue<'_> {
    /// The row's request joins the queue. Only what no node could ever hold is decided here.
    fn arrive(&mut self, index: usize) {
        let row = &self.work[index];
        let mut request =
            Request { wait: Wait::Queue { deadline_ms: 0 }, ..row.request(self.world.gpus_per_node) };
        if let (true, Some(run_s)) = (self.declares, row.run_s) {
            request.max_duration_ms = millis(run_s).clamp(1, limits::MAX_TTL_MS);
        }
        self.submit(index, request);
    }

    fn submit(&mut self, index: usize, request: Request) {
        let started = std::time::Instant::now();
        let verdict = match self.world.planner.place(&self.world.ledger, &request) {
            Verdict::Place(_) => {
                Verdict::Blocked(vec![Blocker::new(Reason::BehindInQueue, request.pool.as_str(), 1, 0)])
            }
            other => other,
        };
        match self.world.apply(Command::Submit { request, verdict }) {
            Came::Reservation(reservation) => {
                self.world.rows.insert(reservation.id, index);
                self.world.waits(index, &reservation);
                self.observe(&reservation);
            }
            Came::Refused(refusal) => self.world.refused(index, &refusal),
            Came::Done | Came::Node(_) | Came::Expired { .. } | Came::Tokens(_) => {}
        }
        self.world.took(started);
    }

    /// Walks the queue until nothing more is decided. When to look again, in simulated milliseconds.
    fn serve(&mut self) -> Option<u64> {
        loop {
            let now = self.now();
            let world = &mut *self.world;
            let decisions = self.queueing.walk(&world.ledger, &mut world.planner, now, WALK);
            if decisions.places.is_empty() && decisions.preempt.is_empty() {
                // The ledger's time is one ahead of the trace's.
                return decisions.look_again_at.map(|at| at.0.saturating_sub(1));
            }
            for (id, placement, ticket) in decisions.places {
                let came = self.world.apply(Command::Place { reservation: id, placement });
                self.world.planner.settle(&self.world.ledger, ticket);
                match came {
                    Came::Reservation(reservation) => self.started(&reservation),
                    _ => self.queueing.abandoned(id),
                }
            }
            for id in decisions.preempt {
                self.preempt(id);
            }
        }
    }

    fn started(&mut self, reservation: &Reservation) {
        self.observe(reservation);
        let Some(index) = self.world.rows.get(&reservation.id).copied() else { return };
        let first = self.world.report.requests[index].start_s;
        self.world.started(reservation);
        if let Some(first) = first {
            self.world.report.requests[index].start_s = Some(first);
        }
        let course = &mut self.courses[index];
        course.started_ms = self.world.now_ms;
        if self.work[index].run_s.is_some() {
            let left_ms = course.work_ms.saturating_sub(course.done_ms);
            let end_ms = self.world.now_ms.saturating_add(left_ms);
            self.world.leaves(index, end_ms, reservation);
        }
    }

    /// Ends what is due at this moment.
    fn depart(&mut self) {
        while let Some(held) = self.world.next_departure() {
            self.end(&held);
        }
    }

    /// The grant is released and the rest of the work queued again, with what stopping and going on costs.
    fn preempt(&mut self, id: ReservationId) {
        let Some(index) = self.world.rows.get(&id).copied() else { return };
        let Some(held) = self.world.ledger.reservation(id).cloned() else { return };
        let request = resubmission(&held, self.now());
        self.end(&held);
        let course = &mut self.courses[index];
        course.done_ms += self.world.now_ms - course.started_ms;
        course.work_ms = course.work_ms.saturating_add(PREEMPTION_COST_MS);
        self.world.report.preemptions += 1;
        let row = &mut self.world.report.requests[index];
        (row.end_s, row.nodes, row.devices) = (None, Vec::new(), Vec::new());
        self.submit(index, request);
    }

    fn end(&mut self, held: &Reservation) {
        self.world.release(held);
        self.world.rows.remove(&held.id);
        if let Some(ended) = self.world.ledger.reservation(held.id).cloned() {
            self.observe(&ended);
        }
    }

    fn observe(&mut self, reservation: &Reservation) {
        let now = self.now();
        self.queueing.observe(reservation, now);
    }

    /// The ledger's time of a command now.
    fn now(&self) -> LedgerTime {
        LedgerTime(self.world.now_ms.saturating_add(1))
    }
}
