//! Every change that `explain` offers is true: made on the whole ledger by its own `apply`, it lets the leader's planner grant the request.

mod fixture;

use std::collections::BTreeMap;

use fixture::bounded::{Case, busy, case, submit, submit_by, walk};
use fixture::{apply, fleet, plain};
use plimsoll_ledger::{
    AdminChange, Command, GpuAsk, Ledger, Outcome, PolicyObject, Queue, Quota, Request, State,
    Strategy as PoolStrategy,
};
use plimsoll_scheduler::{Explanation, Planner, SingleChange, Suggestion, explain, explain_request};
use plimsoll_types::{Amount, ReservationId, Revision};
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

/// The kind of a suggestion: of changes of the request and of policy, the words that they begin with.
fn kind(suggestion: &Suggestion) -> String {
    let first = |words: usize| suggestion.description.split(' ').take(words).collect::<Vec<_>>().join(" ");
    match &suggestion.change {
        SingleChange::Request(_) => first(2),
        SingleChange::Policy(_) => first(3),
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
const MET: [(&str, usize); 39] = [
    ("BehindInQueue", 229),
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
    ("accept any", 6),
    ("accept several", 6),
    ("ask for", 296),
    ("ask in", 27),
    ("drop the", 39),
    ("end", 15),
    ("give pool default", 18),
    ("raise the quota", 13),
    ("run for", 11),
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
