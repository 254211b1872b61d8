//! Every change that `explain` offers is true: made on the whole ledger by its own `apply`, it lets the leader's planner grant the request.

mod fixture;

use std::collections::BTreeMap;

use fixture::bounded::{Case, HOUR_MS, busy, case, schedule_of, submit, submit_by, walk};
use fixture::{apply, fleet, plain};
use plimsoll_ledger::{
    AdminChange, Class, Command, Gang, GpuAsk, Ledger, Measure, Meter, Outcome, PolicyObject, Pool, Queue,
    Quota, QuotaPolicy, Request, Reset, Scope, SpotPolicy, State, Strategy as PoolStrategy, Verdict, Window,
};
use plimsoll_scheduler::{Explanation, Planner, SingleChange, Suggestion, explain, explain_request};
use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Resources, Revision};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn cases() -> u32 {
    std::env::var("PLIMSOLL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256)
}

fn put(ledger: &mut Ledger, object: PolicyObject) -> Outcome {
    apply(ledger, Command::ApplyPolicy { put: vec![object], delete: vec![], if_revision: Revision(0) })
}

/// Makes the change on the whole ledger, and has the leader decide. True where the request holds a place afterwards.
fn is_true(ledger: &Ledger, id: Option<ReservationId>, asked: &Request, suggestion: &Suggestion) -> bool {
    let mut ledger = ledger.clone();
    let command = match &suggestion.change {
        SingleChange::Request(request) => {
            if let Some(id) = id {
                apply(&mut ledger, Command::Cancel { reservation: id });
            }
            return holds(&submit(&mut ledger.clone(), request)) || is_packed(&mut ledger, request);
        }
        SingleChange::Policy(object) => {
            Command::ApplyPolicy { put: vec![(**object).clone()], delete: vec![], if_revision: Revision(0) }
        }
        SingleChange::Uncordon(node) => Command::SetNodeAdmin { node: *node, admin: AdminChange::Uncordon },
        SingleChange::End(reservation) => Command::Cancel { reservation: *reservation },
    };
    if matches!(apply(&mut ledger, command), Outcome::Refused(_)) {
        return false;
    }
    let Some(id) = id else { return holds(&submit(&mut ledger, asked)) };
    walk(&mut ledger);
    ledger.reservation(id).is_some_and(|reservation| reservation.state.is_occupying())
}

/// Where chance, or what was asked before, decides between places, one leader packs a gang that another does not: a planner that has looked for nobody
/// else is a leader, too, unless it has to keep places for others.
fn is_packed(ledger: &mut Ledger, request: &Request) -> bool {
    let Some(pool) = ledger.pool(&request.pool) else { return false };
    let is_drawn = matches!(pool.strategy, PoolStrategy::Random | PoolStrategy::Fragmentation);
    if !is_drawn || request.gang.max_members < 2 || pool.queueing.depth() > 0 {
        return false;
    }
    walk(ledger);
    let planner = Planner::new(ledger, 0);
    holds(&submit_by(planner, ledger, request))
}

fn holds(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reservation(reservation) if reservation.state.is_occupying())
}

/// The kind of a suggestion: the words that it begins with, and of policy the kind of object.
fn kind(suggestion: &Suggestion) -> String {
    let first = |words: usize| suggestion.description.split(' ').take(words).collect::<Vec<_>>().join(" ");
    match &suggestion.change {
        SingleChange::Request(_) => first(2),
        SingleChange::Policy(object) => match object.as_ref() {
            PolicyObject::Quota(_) => format!("{} (quota)", first(1)),
            PolicyObject::Schedule(_) => format!("{} (schedule)", first(1)),
            PolicyObject::Queue(_) => format!("{} (queue)", first(1)),
            PolicyObject::Pool(_) => format!("{} (pool)", first(1)),
            other => format!("{} ({:?})", first(1), other.name()),
        },
        SingleChange::Uncordon(_) => "uncordon".into(),
        SingleChange::End(_) => "end".into(),
    }
}

/// How often each thing stood in the way, was offered, or was set.
type Told = BTreeMap<String, usize>;

/// Judges all that is said of a request that comes and of those who wait.
fn check(case: &Case, told: &mut Told) -> Result<(), String> {
    let (ledger, asked) = (&busy(case), &case.asked);
    let mut judge = |id, request: &Request, explanation: &Explanation| {
        for blocker in &explanation.blockers {
            *told.entry(format!("{:?}", blocker.reason)).or_default() += 1;
        }
        for suggestion in &explanation.suggestions {
            *told.entry(kind(suggestion)).or_default() += 1;
            if !is_true(ledger, id, request, suggestion) {
                return Err(format!("{id:?}: {suggestion:?} is not true of {request:?}"));
            }
        }
        Ok(())
    };
    let explanation = explain_request(ledger, asked);
    judge(None, asked, &explanation)?;
    let granted = holds(&submit(&mut ledger.clone(), asked));
    if explanation.admissible != granted {
        return Err(format!("admissible {}, granted {granted}: {explanation:?}", explanation.admissible));
    }
    for waiting in ledger.reservations().filter(|reservation| reservation.state == State::Pending) {
        if waiting.aside.is_some() {
            continue;
        }
        let explanation = explain(ledger, waiting.id).ok_or("it is there")?;
        judge(Some(waiting.id), &waiting.request, &explanation)?;
        if explanation.admissible || explanation.blockers.is_empty() {
            return Err(format!("{} waits, and nothing is said of why: {explanation:?}", waiting.id));
        }
    }
    note_rules(case, told);
    Ok(())
}

/// Counts which rules were set.
fn note_rules(case: &Case, told: &mut Told) {
    let rules = &case.rules;
    let mut note =
        |what: &str, is_set: bool| *told.entry(format!("set: {what}")).or_default() += usize::from(is_set);
    note(&format!("discipline {}", rules.discipline), true);
    note("schedule", rules.kept.as_ref().is_some_and(|kept| !kept.is_plan));
    note("advance reservation", rules.kept.as_ref().is_some_and(|kept| kept.is_plan));
    note("quota of people", rules.people.is_some());
    note("spot policy", rules.spot.is_some() || rules.spot_of_queue.is_some());
    note("overflow", rules.overflow.is_some());
    note("oversubscription", rules.oversubscription.is_some());
    note("roles", case.asked.roles.len() > 1);
    note("best effort", case.asked.is_best_effort());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_change_that_is_offered_lets_the_request_start(case in case()) {
        let judged = check(&case, &mut Told::new());
        prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
    }
}

/// What is met at least so often in [`FIXED_CASES`] cases of a fixed seed: about half of what there is.
const MET: [(&str, usize); 43] = [
    ("BehindInQueue", 228),
    ("BudgetExhausted", 18),
    ("CountableExhausted", 397),
    ("DeviceMismatch", 640),
    ("LabelMismatch", 1064),
    ("LimitExceeded", 19),
    ("NoCapacity", 2546),
    ("NodeNotAvailable", 147),
    ("Overflowed", 14),
    ("QuotaExceeded", 711),
    ("ReservedByCalendar", 61),
    ("SpotShare", 73),
    ("accept 1", 109),
    ("accept 2", 10),
    ("accept GPUs", 3),
    ("accept any", 6),
    ("accept several", 6),
    ("allow (quota)", 13),
    ("ask for", 296),
    ("ask in", 27),
    ("drop the", 39),
    ("end", 19),
    ("give (pool)", 18),
    ("keep (schedule)", 4),
    ("let (pool)", 3),
    ("raise (queue)", 13),
    ("run for", 16),
    ("set: advance reservation", 61),
    ("set: best effort", 93),
    ("set: discipline ", 66),
    ("set: discipline backfill_1", 77),
    ("set: discipline backfill_all", 68),
    ("set: discipline learned", 70),
    ("set: discipline priority", 77),
    ("set: discipline skip", 64),
    ("set: discipline strict", 77),
    ("set: overflow", 243),
    ("set: oversubscription", 144),
    ("set: quota of people", 266),
    ("set: roles", 135),
    ("set: schedule", 147),
    ("set: spot policy", 262),
    ("uncordon", 11),
];
const FIXED_CASES: usize = 1_000;

/// The property above would hold where nothing is ever reached: each kind of rule stands in the way of somebody, and each kind of change is offered.
#[test]
fn every_rule_is_met_by_somebody() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut told = Told::new();
    for _ in 0..FIXED_CASES {
        let case = case().new_tree(&mut runner).expect("it makes cases").current();
        let judged = check(&case, &mut told);
        assert_eq!(judged, Ok(()), "{case:?}");
    }
    for (what, least) in MET {
        let times = told.get(what).copied().unwrap_or_default();
        assert!(times >= least, "{what}: {times} of {least} in {told:?}");
    }
}

/// The property above would hold of an empty list: each kind of change is really offered.
#[test]
fn each_kind_of_change_is_offered_where_it_helps() {
    let mut ledger = fleet(&[(8, 2, 0), (8, 2, 0)], PoolStrategy::BestFit);
    let quota = Quota { nominal: Amount(6_000), ..Quota::default() };
    let of_pool: BTreeMap<String, Quota> = [("cpu".to_owned(), quota)].into();
    let queue =
        Queue { name: "vision".into(), quotas: [("default".to_owned(), of_pool)].into(), ..Queue::default() };
    assert_eq!(put(&mut ledger, PolicyObject::Queue(queue)), Outcome::Done);
    let words = |ledger: &Ledger, asked: &Request| -> Vec<String> {
        explain_request(ledger, asked).suggestions.into_iter().map(|found| found.description).collect()
    };
    let queued = Request { queue: "vision".into(), ..plain(7_000) };
    let told = words(&ledger, &queued);
    assert!(told.contains(&"raise the quota of queue vision by 1 of cpu".to_owned()), "{told:?}");
    assert!(told.contains(&"ask for 6 of cpu in place of 7".to_owned()), "the most that fits: {told:?}");

    let batch = Request { class: "batch".into(), ..plain(8_000) };
    let first = submit(&mut ledger, &batch);
    assert!(holds(&first));
    let cordon = AdminChange::Cordon { reason: "x".into() };
    let free = ledger.nodes().find(|node| ledger.free(node.id).cpu_millis.0 == 8_000).expect("one").id;
    apply(&mut ledger, Command::SetNodeAdmin { node: free, admin: cordon });
    let told = words(&ledger, &plain(8_000));
    let name = ledger.node(free).expect("it is there").name().to_owned();
    assert!(told.contains(&format!("uncordon node {name}")), "{told:?}");
    let Outcome::Reservation(held) = first else { unreachable!() };
    assert!(told.contains(&format!("end {}, of class batch", held.id)), "{told:?}");

    let mut licences = plain(1_000);
    licences.requirements.amounts.set("license/sim", Amount(41));
    let uncordon = Command::SetNodeAdmin { node: free, admin: AdminChange::Uncordon };
    apply(&mut ledger, uncordon);
    let told = words(&ledger, &licences);
    assert!(told.contains(&"give pool default 1 more of license/sim".to_owned()), "{told:?}");

    let mut gpus = plain(1_000);
    gpus.requirements.gpu = Some(GpuAsk::whole(3));
    let told = words(&ledger, &gpus);
    assert!(told.contains(&"ask for 2 GPUs in place of 3".to_owned()), "{told:?}");
}

/// What of people, of the calendar and of spot nodes stands in the way is raised, or kept less of, by just what is short.
#[test]
fn each_bound_is_moved_by_just_what_is_short() {
    let words = |ledger: &Ledger, asked: &Request| -> Vec<String> {
        explain_request(ledger, asked).suggestions.into_iter().map(|found| found.description).collect()
    };
    let has = |ledger: &Ledger, asked: &Request, what: &str| {
        let told = words(ledger, asked);
        assert!(told.iter().any(|one| one == what), "{what}: {told:#?}");
    };
    let hour = Request { tenant: "ada".into(), max_duration_ms: HOUR_MS, ..plain(4_000) };
    let fresh = || fleet(&[(8, 0, 0), (8, 0, 0)], PoolStrategy::BestFit);

    let mut ledger = fresh();
    let limits = [
        (Meter::new(Scope::User, Measure::Concurrent, Reset::Live), 1),
        (Meter::new(Scope::Together, Measure::CpuHours, Reset::Day), 6_500_000),
    ];
    let policy = |limits: &[(Meter, u64)]| {
        PolicyObject::Quota(QuotaPolicy {
            name: "people".into(),
            limits: limits.iter().copied().collect(),
            queue_when_exhausted: true,
            ..QuotaPolicy::default()
        })
    };
    put(&mut ledger, policy(&limits[..1]));
    assert!(holds(&submit(&mut ledger, &hour)));
    has(&ledger, &hour, "allow 2 concurrent of each user in place of 1, in quota people");
    let mut ledger = fresh();
    put(&mut ledger, policy(&limits[1..]));
    assert!(holds(&submit(&mut ledger, &hour)));
    has(&ledger, &hour, "allow 8 cpu-hours in place of 6.5, in quota people");
    has(&ledger, &hour, "run for 37m at most in place of 60m");

    let mut ledger = fresh();
    let pool =
        Pool { name: "default".into(), prices: [("cpu".to_owned(), 1_500_000)].into(), ..Pool::default() };
    put(&mut ledger, PolicyObject::Pool(pool));
    let bounded = Request { max_cost_micros: 5_000_000, ..hour.clone() };
    has(&ledger, &bounded, "allow a cost of 6 in place of 5");

    let mut ledger = fresh();
    let kept = |cpu_millis| Resources::new(cpu_millis, 0);
    let critical = Class { name: "critical".into(), priority: 100, ..Class::default() };
    let guaranteed = [("default".to_owned(), kept(13_000))].into();
    put(&mut ledger, PolicyObject::Class(Class { guaranteed, ..critical }));
    has(&ledger, &hour, "keep 12 of cpu for class critical in place of 13");
    let mut ledger = fresh();
    put(&mut ledger, PolicyObject::Schedule(schedule_of(13_000)));
    let start = ledger.clock().plus_ms(HOUR_MS / 2);
    let windows = vec![Window { start, end: start.plus_ms(HOUR_MS) }];
    let changed = ledger.schedule("nightly").expect("just put").changed;
    let until = LedgerTime(u64::MAX);
    apply(&mut ledger, Command::OpenWindows { schedule: "nightly".into(), changed, windows, until });
    has(&ledger, &hour, "keep 12 of cpu for schedule nightly in place of 13");
    has(&ledger, &hour, "run for 30m at most in place of 60m");
    has(&ledger, &Request { max_duration_ms: 0, ..hour.clone() }, "run for 30m at most");
    let mut ledger = fresh();
    let later = Request { start_at_ms: start.0, ..Request { max_duration_ms: HOUR_MS, ..plain(8_000) } };
    let two = Request { gang: Gang { min_members: 2, max_members: 2, spread: false }, ..later };
    let Outcome::Reservation(plan) =
        apply(&mut ledger, Command::Submit { request: two, verdict: Verdict::Blocked(vec![]) })
    else {
        panic!("it is kept for later")
    };
    has(&ledger, &hour, &format!("end {}, which is for later", plan.id));
}

/// A share of the work is raised to the least that is enough, and a price to that of the cheapest node that is.
#[test]
fn more_is_let_on_spot_nodes_and_dearer_nodes_are_paid() {
    let mut ledger = fleet(&[(8, 0, 0), (8, 0, 0)], PoolStrategy::BestFit);
    for (id, price) in [(0, "400"), (1, "1250")] {
        let mut node = ledger.node(NodeId(id)).expect("it is there").registration.clone();
        node.labels.insert("price_permille".into(), price.into());
        let kind = if id == 0 { "spot" } else { "on_demand" };
        node.labels.insert("capacity_type".into(), kind.into());
        apply(&mut ledger, Command::RegisterNode(node));
    }
    let spot =
        SpotPolicy { share_permille: 300, base: 0, max_price_permille: 1_000, ..SpotPolicy::default() };
    let pool = Pool { name: "default".into(), spot: Some(spot), ..Pool::default() };
    assert_eq!(put(&mut ledger, PolicyObject::Pool(pool)), Outcome::Done);
    let told = explain_request(&ledger, &plain(4_000));
    let words: Vec<String> = told.suggestions.into_iter().map(|found| found.description).collect();
    for what in [
        "let 1000 thousandths of the work be on spot nodes in place of 300, in pool default",
        "pay 1250 thousandths in place of 1000 at most, in pool default",
    ] {
        assert!(words.iter().any(|one| one == what), "{what}: {words:#?}");
    }
}
