//! Disciplines at work: small fleets in simulated time, on the real ledger and planner.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use plimsoll_ledger::{
    Command, Device, Entry as LogEntry, Gang, GpuAsk, Ledger, Outcome, Registration, Request, Requirements,
    Stamp, Verdict, Wait, limits,
};
use plimsoll_types::{LedgerTime, ReservationId, Resources, Revision};
use proptest::prelude::*;

use super::{Discipline, FORBEARANCE, Queueing, Settings, StartEstimate, resubmission};
use crate::Planner;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// One job: when it comes, how long it runs, members, devices of each, whose it is.
#[derive(Clone, Debug)]
struct Job {
    submit_ms: u64,
    run_ms: u64,
    members: u32,
    devices: u32,
    tenant: &'static str,
}

/// What came of the jobs.
#[derive(Debug, Default, PartialEq)]
struct Course {
    starts_ms: Vec<Option<u64>>,
    preemptions: Vec<u32>,
    /// The first estimate of each, where it had to wait.
    promised: BTreeMap<usize, StartEstimate>,
}

fn job(submit_ms: u64, run_ms: u64, devices: u32) -> Job {
    Job { submit_ms, run_ms, members: 1, devices, tenant: "a" }
}

fn apply(ledger: &mut Ledger, now_ms: u64, command: Command) -> Outcome {
    let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(now_ms) };
    ledger.apply(stamp, &LogEntry::system(command)).answer.outcome
}

fn fleet(nodes: u32, devices: u32) -> Ledger {
    let mut ledger = Ledger::new();
    for node in 0..nodes {
        let device = |index| Device {
            uuid: format!("{node}-{index}"),
            model: "v100".into(),
            memory_bytes: 1 << 34,
            failed: false,
            mig: None,
        };
        let registration = Registration {
            name: format!("n{node}"),
            incarnation: 1,
            capacity: Resources::new(1_000, 1 << 34),
            devices: (0..devices).map(device).collect(),
            ..Registration::default()
        };
        apply(&mut ledger, 0, Command::RegisterNode(registration));
    }
    ledger
}

fn request(job: &Job, declares: bool) -> Request {
    Request {
        pool: "default".into(),
        class: "standard".into(),
        tenant: job.tenant.into(),
        requirements: Requirements { gpu: Some(GpuAsk::whole(job.devices)), ..Requirements::default() },
        gang: Gang { min_members: job.members, max_members: job.members, spread: false },
        ttl_ms: limits::MAX_TTL_MS,
        max_duration_ms: if declares { job.run_ms } else { 0 },
        auto_confirm: true,
        wait: Wait::Queue { deadline_ms: 0 },
        ..Request::default()
    }
}

/// Runs jobs, which come in order of submission, until all have ended or `until_ms`. Estimates are asked for with `asks`.
fn run(mut ledger: Ledger, jobs: &[Job], settings: Settings, until_ms: u64, asks: bool) -> Course {
    let declares = settings.discipline.wants_declared_lengths();
    let mut planner = Planner::new(&ledger, 1);
    let mut queueing = Queueing::new(&ledger, "default", settings);
    let mut course =
        Course { starts_ms: vec![None; jobs.len()], preemptions: vec![0; jobs.len()], ..Course::default() };
    let mut rows: BTreeMap<ReservationId, usize> = BTreeMap::new();
    let mut left_ms: Vec<u64> = jobs.iter().map(|job| job.run_ms).collect();
    let mut ends: BinaryHeap<Reverse<(u64, ReservationId, Revision)>> = BinaryHeap::new();
    let (mut next, mut look_ms) = (0, None::<u64>);
    loop {
        let coming = jobs.get(next).map(|job| job.submit_ms);
        let ending = ends.peek().map(|Reverse((at, ..))| *at);
        let Some(event_ms) = [coming, ending].into_iter().flatten().min() else { break };
        let now_ms = look_ms.map_or(event_ms, |look| look.min(event_ms));
        if now_ms > until_ms {
            break;
        }
        let now = LedgerTime(now_ms);
        let give_back = |ledger: &mut Ledger, planner: &mut Planner, queueing: &mut Queueing, id, token| {
            apply(ledger, now_ms, Command::Release { reservation: id, token });
            let all: Vec<_> = ledger.nodes().map(|node| node.id).collect();
            planner.sync(ledger, all);
            queueing.observe(ledger.reservation(id).unwrap(), now);
        };
        while let Some(Reverse((_, id, token))) =
            ends.peek().copied().filter(|Reverse((at, ..))| *at <= now_ms)
        {
            ends.pop();
            if ledger.reservation(id).is_some_and(|held| held.state.is_occupying()) {
                give_back(&mut ledger, &mut planner, &mut queueing, id, token);
            }
        }
        let mut came = Vec::new();
        while let Some(job) = jobs.get(next).filter(|job| job.submit_ms == now_ms) {
            came.push((next, request(job, declares)));
            next += 1;
        }
        loop {
            for (index, request) in came.drain(..) {
                let verdict = Verdict::Blocked(Vec::new());
                match apply(&mut ledger, now_ms, Command::Submit { request, verdict }) {
                    Outcome::Reservation(reservation) => {
                        rows.insert(reservation.id, index);
                        queueing.observe(&reservation, now);
                    }
                    other => panic!("{other:?}"),
                }
            }
            let decisions = queueing.walk(&ledger, &mut planner, now, 3);
            if decisions.places.is_empty() && decisions.preempt.is_empty() {
                look_ms = decisions.look_again_at.map(|at| at.0).filter(|at| *at > now_ms);
                break;
            }
            for (id, placement, ticket) in decisions.places {
                let placed = apply(&mut ledger, now_ms, Command::Place { reservation: id, placement });
                planner.settle(&ledger, ticket);
                let Outcome::Reservation(reservation) = placed else { panic!("{placed:?}") };
                queueing.observe(&reservation, now);
                let index = rows[&id];
                course.starts_ms[index].get_or_insert(now_ms);
                ends.push(Reverse((now_ms + left_ms[index], id, reservation.token)));
            }
            for id in decisions.preempt {
                let held = ledger.reservation(id).cloned().unwrap();
                let again = resubmission(&held, now);
                give_back(&mut ledger, &mut planner, &mut queueing, id, held.token);
                let index = rows[&id];
                left_ms[index] -= now.ms_since(held.granted_at);
                course.preemptions[index] += 1;
                came.push((index, again));
            }
        }
        assert_eq!(planner.check(&ledger), Vec::<String>::new());
        if asks {
            for estimate in queueing.estimates(&ledger) {
                assert_eq!(estimate.revision, ledger.revision());
                course.promised.entry(rows[&estimate.reservation]).or_insert(estimate);
            }
        }
    }
    assert!(ledger.check_invariants().is_empty());
    course
}

fn settings(name: &str) -> Settings {
    Settings::of(name.parse().unwrap())
}

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let tenant = prop::sample::select(vec!["a", "b", "c"]);
    let each = (0u64..400, 1u64..300, 1u32..3, 1u32..5, tenant);
    prop::collection::vec(each, 1..40).prop_map(|mut drawn| {
        drawn.sort_by_key(|job| job.0);
        let minutes = |(submit, run, members, devices, tenant)| Job {
            submit_ms: submit * MINUTE_MS,
            run_ms: run * MINUTE_MS,
            members,
            devices,
            tenant,
        };
        drawn.into_iter().map(minutes).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_that_fits_an_empty_fleet_runs_and_the_same_way_twice(
        jobs in jobs(),
        name in prop::sample::select(Discipline::NAMES.to_vec()),
    ) {
        let course = run(fleet(3, 4), &jobs, settings(name), u64::MAX, true);
        prop_assert!(course.starts_ms.iter().all(Option::is_some), "{course:?}");
        prop_assert_eq!(&course, &run(fleet(3, 4), &jobs, settings(name), u64::MAX, true));
        for (job, preemptions) in jobs.iter().zip(&course.preemptions) {
            // Each run between two preemptions is protected for a minute.
            prop_assert!(u64::from(*preemptions) <= job.run_ms / MINUTE_MS, "{job:?}: {preemptions}");
        }
    }

    #[test]
    fn conservative_backfill_keeps_its_word(jobs in jobs()) {
        let course = run(fleet(3, 4), &jobs, settings("backfill_all"), u64::MAX, true);
        for (index, promise) in &course.promised {
            prop_assert!(promise.is_hard);
            prop_assert_eq!(promise.start_at.map(|at| at.0), course.starts_ms[*index], "job {}", index);
        }
    }

    #[test]
    fn the_first_in_an_easy_queue_never_starts_later_than_promised(jobs in jobs()) {
        let course = run(fleet(3, 4), &jobs, settings("backfill_1"), u64::MAX, false);
        // Without backfill the first that waits starts as soon as what ran before it allows: that is its promise.
        let strict = run(fleet(3, 4), &jobs, settings("fcfs"), u64::MAX, false);
        let waits = |course: &Course| {
            (0..jobs.len()).find(|index| course.starts_ms[*index] > Some(jobs[*index].submit_ms))
        };
        if let Some(first) = waits(&strict) {
            prop_assert_eq!(course.starts_ms[first], strict.starts_ms[first], "job {}", first);
        }
    }
}

#[test]
fn easy_starts_what_is_over_in_time_and_nothing_else() {
    let jobs = [
        job(0, 10 * MINUTE_MS, 3),
        job(1, 10 * MINUTE_MS, 4),
        job(2, 20 * MINUTE_MS, 1),
        job(3, 5 * MINUTE_MS, 1),
    ];
    let starts = |name| run(fleet(1, 4), &jobs, settings(name), u64::MAX, false).starts_ms;
    let at = |minutes: u64, ms: u64| Some(minutes * MINUTE_MS + ms);
    assert_eq!(starts("fcfs"), [at(0, 0), at(10, 0), at(20, 0), at(20, 0)]);
    assert_eq!(starts("skip"), [at(0, 0), at(20, 2), at(0, 2), at(10, 0)]);
    assert_eq!(starts("backfill_1"), [at(0, 0), at(10, 0), at(20, 0), at(0, 3)]);
    assert_eq!(starts("backfill_all"), [at(0, 0), at(10, 0), at(20, 0), at(0, 3)]);
}

/// A gang of two whole nodes among an endless stream of small jobs that keep every node busy.
fn wide_among_small(hours: u64) -> Vec<Job> {
    let mut jobs: Vec<Job> =
        (0..hours * 60 * 12).map(|n| job(n * 5_000, 4 * MINUTE_MS + n % 7 * 20_000, 1)).collect();
    jobs.insert(
        100,
        Job { submit_ms: jobs[99].submit_ms, run_ms: HOUR_MS, members: 2, devices: 8, tenant: "wide" },
    );
    jobs
}

#[test]
fn nobody_starves_where_patience_is_bounded_and_the_bound_is_what_saves_it() {
    let hours = 6;
    let jobs = wide_among_small(hours);
    let started_after = |settings: Settings| {
        let course = run(fleet(4, 8), &jobs, settings, hours * HOUR_MS, false);
        course.starts_ms[100].map(|start| start - jobs[100].submit_ms)
    };
    let longest_run_ms = 6 * MINUTE_MS;
    // No drains, no preemption of others: only that nobody overtakes it any more can help.
    let stubborn = Settings {
        patience_ms: HOUR_MS,
        wide_patience_percent: 100,
        drain_after_runs: u64::MAX,
        drain_percent: 0,
        ..settings("learned")
    };
    let waited_ms = started_after(stubborn).expect("it starts");
    assert!(waited_ms <= FORBEARANCE * HOUR_MS + longest_run_ms + MINUTE_MS, "{waited_ms}");
    assert!(waited_ms > HOUR_MS, "the stream does keep it out: {waited_ms}");
    assert_eq!(started_after(settings("skip")), None, "where nothing bounds the wait, it starves");
    // With drains it starts soon after its drain begins.
    let drains = Settings { patience_ms: HOUR_MS, drain_percent: 50, ..settings("learned") };
    let waited_ms = started_after(drains).expect("it starts");
    assert!(waited_ms <= HOUR_MS + 12 * MINUTE_MS, "{waited_ms}");
    let waited_ms = started_after(settings("las")).expect("it starts");
    assert!(waited_ms <= 10 * MINUTE_MS, "{waited_ms}");
}

#[test]
fn fair_serves_the_tenant_that_has_least() {
    let mut jobs: Vec<Job> = (0..16).map(|_| job(0, HOUR_MS, 1)).collect();
    jobs.extend((0..4).map(|_| Job { tenant: "b", ..job(MINUTE_MS, HOUR_MS, 1) }));
    let starts = run(fleet(1, 4), &jobs, settings("fair"), u64::MAX, false).starts_ms;
    let of_b = starts[16..].iter().filter(|start| **start == Some(HOUR_MS)).count();
    assert_eq!(of_b, 2, "two of the four that become free: {starts:?}");
    let starts = run(fleet(1, 4), &jobs, settings("skip"), u64::MAX, false).starts_ms;
    assert!(starts[16..].iter().all(|start| *start >= Some(4 * HOUR_MS)), "{starts:?}");
}

#[test]
fn age_and_size_weigh_against_each_other() {
    // The fleet is busy; then a wide one that has waited for days meets a narrow one that just came.
    let day_ms = 24 * HOUR_MS;
    let jobs = [
        job(0, 5 * day_ms, 4),
        job(1, HOUR_MS, 4),
        job(5 * day_ms - 1, HOUR_MS, 1),
        job(5 * day_ms - 1, HOUR_MS, 4),
    ];
    let starts = run(fleet(1, 4), &jobs, settings("priority"), u64::MAX, false).starts_ms;
    assert_eq!(starts[1], Some(5 * day_ms), "age has won");
    assert!(starts[2] < starts[3], "of the young, the small one goes first: {starts:?}");
}

#[test]
fn learned_lets_short_queues_pass_once_it_knows_them() {
    let mut jobs = Vec::new();
    for n in 0..40 {
        jobs.push(Job { tenant: "long", ..job(n * 10 * MINUTE_MS, 3 * HOUR_MS, 1) });
        jobs.push(Job { tenant: "short", ..job(n * 10 * MINUTE_MS, MINUTE_MS, 1) });
    }
    let waits = |name| {
        let starts = run(fleet(1, 4), &jobs, settings(name), u64::MAX, false).starts_ms;
        let short = (0..jobs.len()).filter(|index| jobs[*index].tenant == "short").skip(20);
        short.map(|index| starts[index].unwrap() - jobs[index].submit_ms).sum::<u64>() / 20
    };
    assert!(waits("learned") * 5 < waits("skip"), "{} {}", waits("learned"), waits("skip"));
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_was() {
    let mut ledger = fleet(1, 4);
    let mut planner = Planner::new(&ledger, 1);
    let mut queueing = Queueing::new(&ledger, "default", settings("skip"));
    for (index, devices) in [3, 4, 1].into_iter().enumerate() {
        let request = request(&job(0, HOUR_MS, devices), false);
        let verdict = Verdict::Blocked(Vec::new());
        apply(&mut ledger, index as u64, Command::Submit { request, verdict });
    }
    for reservation in ledger.reservations() {
        queueing.observe(reservation, ledger.clock());
    }
    let mut successor = Queueing::new(&ledger, "default", settings("skip"));
    let now = LedgerTime(10);
    let decided = queueing.walk(&ledger, &mut planner, now, 10);
    assert_eq!(decided.places.len(), 2);
    assert_eq!(successor.walk(&ledger, &mut Planner::new(&ledger, 1), now, 10), decided);
    assert_eq!(
        queueing.walk(&ledger, &mut planner, now, 10).places,
        vec![],
        "what is in flight is not proposed twice"
    );
    for (id, _, ticket) in decided.places {
        planner.settle(&ledger, ticket);
        queueing.abandoned(id);
    }
    assert_eq!(
        queueing.walk(&ledger, &mut planner, now, 10).places.len(),
        2,
        "what was lost is proposed again"
    );
}
