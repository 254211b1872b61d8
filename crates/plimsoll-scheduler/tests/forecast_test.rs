//! Plans: who would start, wait, be delayed or have to leave, by the same planner and the same ledger that decide later.

mod fixture;

use fixture::{apply, fleet, plain, put_pool, request, sizes, strategy};
use plimsoll_ledger::{
    Command, Ledger, NodeLimits, Outcome, PolicyObject, Pool, QueueOrder, Request, State,
    Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_scheduler::forecast::{Change, EffectKind, Plan, PolicyChange, Question, plan};
use plimsoll_types::{LedgerTime, ReservationId, Resources, Revision};
use proptest::prelude::*;

const HOUR_MS: u64 = 3_600_000;

fn lasting(cpu_millis: u64, hours: u64) -> Request {
    Request { max_duration_ms: hours * HOUR_MS, ttl_ms: 60_000, ..plain(cpu_millis) }
}

fn submit(ledger: &mut Ledger, request: &Request) -> ReservationId {
    let mut planner = Planner::new(ledger, 0);
    let (verdict, _) = planner.plan_batch(ledger, &[request]).remove(0);
    let verdict = match verdict {
        Verdict::Infeasible(blockers) => Verdict::Blocked(blockers),
        verdict => verdict,
    };
    match apply(ledger, Command::Submit { request: request.clone(), verdict }) {
        Outcome::Reservation(reservation) => reservation.id,
        other => panic!("{other:?}"),
    }
}

fn ask(ledger: &Ledger, change: Change) -> Plan {
    let question =
        Question { change, requester: "ada", now: LedgerTime(1_000), horizon_ms: 24 * HOUR_MS, seed: 0 };
    plan(ledger.fork().expect("a fork"), &question).expect("a plan")
}

fn ask_request(ledger: &Ledger, request: Request) -> Plan {
    ask(ledger, Change { requests: vec![request], ..Change::default() })
}

fn near(at: Option<LedgerTime>, hours: u64) -> bool {
    // A lease ends with its slack for drift.
    at.is_some_and(|at| at.0 >= hours * HOUR_MS && at.0 <= hours * HOUR_MS + 60_000)
}

#[test]
fn a_request_that_fits_starts_now_and_delays_nobody() {
    let ledger = fleet(&[(8, 0, 0)], PoolStrategy::BestFit);
    let plan = ask_request(&ledger, lasting(4_000, 1));
    assert_eq!(plan.requests[0].expected_start, Some(LedgerTime(1_000)));
    assert!(plan.requests[0].reservation.as_ref().is_some_and(|granted| granted.state.is_occupying()));
    assert!(plan.effects.is_empty() && plan.whole, "{plan:?}");
    assert_eq!(plan.revision, ledger.revision());
}

#[test]
fn a_request_that_waits_is_told_when_it_would_start() {
    let mut ledger = fleet(&[(8, 0, 0)], PoolStrategy::BestFit);
    submit(&mut ledger, &lasting(8_000, 2));
    let first = ask_request(&ledger, lasting(8_000, 1));
    assert!(near(first.requests[0].expected_start, 2), "{:?}", first.requests[0].expected_start);
    submit(&mut ledger, &lasting(8_000, 1));
    let second = ask_request(&ledger, lasting(8_000, 1));
    assert!(near(second.requests[0].expected_start, 3), "behind the one that waits already");
    let endless = ask_request(&ledger, Request { class: "low".into(), ..plain(9_000) });
    assert!(endless.requests[0].never && endless.requests[0].expected_start.is_none(), "no node has nine");
}

#[test]
fn a_higher_class_delays_who_waits_and_sends_away_who_may_be_preempted() {
    let mut ledger = fleet(&[(8, 0, 0)], PoolStrategy::BestFit);
    let batch = submit(&mut ledger, &Request { class: "batch".into(), ..lasting(8_000, 2) });
    let waits = submit(&mut ledger, &Request { class: "batch".into(), ..lasting(8_000, 1) });
    let plan = ask_request(&ledger, Request { class: "critical".into(), ..lasting(8_000, 4) });
    let of = |id| plan.effects.iter().find(|effect| effect.reservation.id == id).map(|effect| &effect.kind);
    assert!(matches!(of(batch), Some(EffectKind::Preempted(_))), "{plan:?}");
    let Some(EffectKind::Delayed { from, to }) = of(waits) else { panic!("{plan:?}") };
    assert!(near(Some(*from), 2) && to.is_some_and(|to| to > *from), "{from:?} {to:?}");
    let start = plan.requests[0].expected_start.expect("after the grace");
    assert!(start > LedgerTime(1_000) && start.0 < HOUR_MS, "{start:?}");
    let state = plan.requests[0].reservation.as_ref().map(|planned| planned.state);
    assert_eq!(state, Some(State::Planned));
}

#[test]
fn a_start_that_is_promised_to_somebody_is_kept_from_what_is_planned() {
    let mut ledger = fleet(&[(8, 0, 0)], PoolStrategy::BestFit);
    let queueing = "backfill_1".parse().expect("it is a discipline");
    put_pool(&mut ledger, Pool { name: "default".into(), queueing, ..Pool::default() });
    submit(&mut ledger, &lasting(4_000, 2));
    submit(&mut ledger, &lasting(8_000, 1));
    let short = ask_request(&ledger, lasting(4_000, 1));
    assert_eq!(short.requests[0].expected_start, Some(LedgerTime(1_000)), "it is gone by then");
    let long = ask_request(&ledger, lasting(4_000, 4));
    assert!(near(long.requests[0].expected_start, 3), "after the one that waits: {:?}", long.requests[0]);
    assert!(long.effects.is_empty(), "{:?}", long.effects);
}

#[test]
fn a_policy_says_who_starts_and_who_never_can() {
    let mut ledger = fleet(&[(8, 0, 0)], PoolStrategy::BestFit);
    let capped = NodeLimits { name: "cap".into(), max: Resources::new(4_000, 0), ..NodeLimits::default() };
    let put = |object| PolicyChange { put: vec![object], ..PolicyChange::default() };
    let waits = {
        submit(&mut ledger, &lasting(6_000, 1));
        submit(&mut ledger, &lasting(6_000, 1))
    };
    let policy = put(PolicyObject::NodeLimits(capped));
    let plan = ask(&ledger, Change { policy, ..Change::default() });
    let kinds: Vec<_> = plan.effects.iter().map(|effect| (effect.reservation.id, &effect.kind)).collect();
    assert!(matches!(kinds[..], [(id, EffectKind::NeverStarts(_))] if id == waits), "{kinds:?}");

    // The head of a strict queue holds back a small one, until the order is relaxed.
    let mut ledger = fleet(&[(8, 0, 0)], PoolStrategy::BestFit);
    let countables =
        std::collections::BTreeMap::from([("license/sim".to_owned(), plimsoll_types::Amount(40))]);
    let pool = |queue_order| Pool {
        name: "default".into(),
        queue_order,
        countables: countables.clone(),
        ..Pool::default()
    };
    put_pool(&mut ledger, pool(QueueOrder::StrictFifo));
    submit(&mut ledger, &lasting(6_000, 1));
    submit(&mut ledger, &lasting(6_000, 1));
    let small = submit(&mut ledger, &lasting(1_000, 1));
    let policy = put(PolicyObject::Pool(pool(QueueOrder::BestEffortFifo)));
    let plan = ask(&ledger, Change { policy, ..Change::default() });
    let kinds: Vec<_> = plan.effects.iter().map(|effect| (effect.reservation.id, &effect.kind)).collect();
    assert!(matches!(kinds[..], [(id, EffectKind::StartsNow { .. })] if id == small), "{kinds:?}");
    let refused =
        PolicyChange { if_revision: Revision(1), ..put(PolicyObject::Pool(pool(QueueOrder::StrictFifo))) };
    let plan = ask(&ledger, Change { policy: refused, ..Change::default() });
    assert!(plan.policy_refused.is_some() && plan.effects.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// What a plan says of the next moment is what happens when the same is really submitted.
    #[test]
    fn a_plan_grants_what_the_leader_then_grants(
        sizes in sizes(6),
        strategy in strategy(),
        work in prop::collection::vec(request(), 0..12),
        asked in request(),
    ) {
        let mut ledger = fleet(&sizes, strategy);
        for request in &work {
            submit(&mut ledger, request);
        }
        let plan = ask_request(&ledger, asked.clone());
        let (verdict, _) = Planner::new(&ledger, 0).plan_batch(&ledger, &[&asked]).remove(0);
        let real = apply(&mut ledger, Command::Submit { request: asked, verdict });
        match (&plan.requests[0].answer.outcome, &real) {
            (Outcome::Reservation(planned), Outcome::Reservation(real)) => {
                prop_assert_eq!(planned.state, real.state);
                // Which node one draws is no promise: those who wait draw, too.
                if strategy != PoolStrategy::Random {
                    prop_assert_eq!(&planned.members, &real.members);
                }
                prop_assert_eq!(planned.members.len(), real.members.len());
            }
            (planned, real) => prop_assert_eq!(planned, real),
        }
    }

    /// Nobody who would start without the change is forgotten: a plan that changes nothing has no effects.
    #[test]
    fn a_plan_of_nothing_has_no_effects(
        sizes in sizes(6),
        work in prop::collection::vec(request(), 0..12),
    ) {
        let mut ledger = fleet(&sizes, PoolStrategy::BestFit);
        for request in &work {
            let request = Request { max_duration_ms: HOUR_MS, ..request.clone() };
            submit(&mut ledger, &request);
        }
        let plan = ask(&ledger, Change::default());
        prop_assert!(plan.effects.is_empty(), "{:?}", plan.effects);
    }
}

#[test]
fn a_wait_that_ends_is_no_start() {
    let mut ledger = fleet(&[(8, 0, 0)], PoolStrategy::BestFit);
    submit(&mut ledger, &lasting(8_000, 2));
    let impatient = Request { wait: Wait::Queue { deadline_ms: HOUR_MS }, ..lasting(8_000, 1) };
    let plan = ask_request(&ledger, impatient);
    assert_eq!(plan.requests[0].expected_start, None);
}
