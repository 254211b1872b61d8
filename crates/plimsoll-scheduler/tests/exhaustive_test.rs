//! The planner against one that tries everything (`exhaustive/`): it grants just where a place exists, every place passes, and it says *infeasible*
//! only of what an empty fleet could not hold. The nets are tested, too: rules that are forgotten show, and planners that are wrong are caught.

mod exhaustive;
mod fixture;

use exhaustive::bounds::{bounded_ledger_of, bounded_story};
use exhaustive::cases::{Setup, Step, change, ledger_of, story};
use exhaustive::judge::{Decide, judge};
use exhaustive::rules::Rule;
use exhaustive::scene::Scene;
use exhaustive::wrong::Wrong;
use fixture::apply;
use plimsoll_ledger::{Command, Ledger, Outcome, Request, Verdict};
use plimsoll_scheduler::Planner;
use plimsoll_types::NodeId;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Histories in which whatever is wrong must show.
const MOST_HISTORIES: u32 = 3_000;

fn cases() -> u32 {
    std::env::var("PLIMSOLL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_planner_grants_just_where_a_place_exists((setup, steps) in story()) {
        let mut ledger = ledger_of(&setup);
        let mut planner = Planner::new(&ledger, 7);
        for step in &steps {
            let Step::Ask(requests) = step else {
                change(&mut ledger, step);
                planner = Planner::new(&ledger, 7);
                continue;
            };
            let planned = planner.plan_batch(&ledger, &requests.iter().collect::<Vec<_>>());
            if let ([request], [(verdict, _)]) = (&requests[..], &planned[..]) {
                let judged = judge(&Scene::of(&ledger), request, verdict);
                prop_assert!(judged.is_ok(), "{} for {:?}", judged.unwrap_err(), request);
                if let Verdict::Place(place) = verdict {
                    let most = Scene::of(&ledger).most(request);
                    prop_assert_eq!(place.members.len() as u32, most, "members of {:?}", request);
                }
            }
            let mut placed: Vec<(&Request, &Verdict)> = Vec::new();
            let mut refused: Vec<&Request> = Vec::new();
            for (request, (verdict, _)) in requests.iter().zip(&planned) {
                match verdict {
                    Verdict::Place(_) => placed.push((request, verdict)),
                    _ if request.affinity.is_empty() => refused.push(request),
                    _ => {}
                }
            }
            let taken = in_some_order(&ledger, &placed);
            prop_assert!(taken.is_some(), "in no order all of these places pass: {:?}", placed);
            ledger = taken.unwrap();
            planner.settle_all(&ledger, planned.into_iter().filter_map(|(_, ticket)| ticket));
            // Whom others of the same batch left no room has none once they are there; unless it waits for them to be near.
            for request in refused {
                let place = Scene::of(&ledger).any_place(request);
                prop_assert_eq!(place, None, "a place was missed for {:?}", request);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// The same where limits, budgets, the calendar and preferred hours have a say.
    #[test]
    fn the_planner_grants_just_where_time_and_money_let_it((setup, bounds, steps) in bounded_story()) {
        let mut ledger = bounded_ledger_of(&setup, &bounds);
        for step in &steps {
            let Step::Ask(requests) = step else {
                change(&mut ledger, step);
                continue;
            };
            for request in requests {
                let mut planner = Planner::new(&ledger, 7);
                let (verdict, _) = planner.plan_batch(&ledger, &[request]).remove(0);
                let judged = judge(&Scene::of(&ledger), request, &verdict);
                prop_assert!(judged.is_ok(), "{} for {:?}", judged.unwrap_err(), request);
                if matches!(verdict, Verdict::Place(_)) {
                    grant(&mut ledger, request, verdict);
                }
            }
        }
    }
}

/// The ledger once it took all of these, in some order: who wants to be near another of the same batch comes after it, and who is content with
/// being the first of its kind comes before.
fn in_some_order(ledger: &Ledger, placed: &[(&Request, &Verdict)]) -> Option<Ledger> {
    if placed.is_empty() {
        return Some(ledger.clone());
    }
    (0..placed.len()).find_map(|first| {
        let mut rest = placed.to_vec();
        let (request, verdict) = rest.remove(first);
        judge(&Scene::of(ledger), request, verdict).ok()?;
        let mut after = ledger.clone();
        grant(&mut after, request, verdict.clone());
        in_some_order(&after, &rest)
    })
}

/// Submits what was placed; the ledger has to take it.
fn grant(ledger: &mut Ledger, request: &Request, verdict: Verdict) {
    let outcome = apply(ledger, Command::Submit { request: request.clone(), verdict });
    assert!(
        matches!(&outcome, Outcome::Reservation(made) if made.token.0 > 0),
        "{outcome:?} for {request:?}"
    );
}

/// A history in which `decide` decides and the judge forgets a rule; the first sentence of the judge.
fn history(setup: &Setup, steps: &[Step], forgotten: Option<Rule>, decide: Decide<'_>) -> Option<String> {
    let mut ledger = ledger_of(setup);
    for step in steps {
        let Step::Ask(requests) = step else {
            change(&mut ledger, step);
            continue;
        };
        for request in requests {
            let verdict = decide(&ledger, request);
            let scene = Scene { forgotten, ..Scene::of(&ledger) };
            if let Err(wrong) = judge(&scene, request, &verdict) {
                return Some(wrong);
            }
            apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
        }
    }
    None
}

/// After how many histories something shows; `None` where it does not.
fn shows_after(forgotten: Option<Rule>, decide: Decide<'_>) -> Option<u32> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (1..=MOST_HISTORIES).find(|_| {
        let case = story().new_tree(&mut runner).expect("there are cases");
        let (setup, steps) = case.current();
        history(&setup, &steps, forgotten, decide).is_some()
    })
}

#[test]
fn each_rule_is_looked_at() {
    let mut right = |ledger: &Ledger, request: &Request| Planner::new(ledger, 7).place(ledger, request);
    for rule in Rule::TELLING {
        let after = shows_after(Some(rule), &mut right);
        println!("{rule:?}: after {after:?} histories");
        assert!(after.is_some(), "nobody misses {rule:?}");
    }
}

#[test]
fn limits_calendar_and_hours_are_looked_at() {
    for rule in [Rule::Limits, Rule::Calendar, Rule::Hours] {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let after = (1..=MOST_HISTORIES).find(|_| {
            let case = bounded_story().new_tree(&mut runner).expect("there are cases");
            let (setup, bounds, steps) = case.current();
            let mut ledger = bounded_ledger_of(&setup, &bounds);
            steps.iter().any(|step| misses(&mut ledger, step, rule))
        });
        println!("{rule:?}: after {after:?} histories");
        assert!(after.is_some(), "nobody misses {rule:?}");
    }
}

/// True where a judge that forgets a rule finds something wrong with the planner.
fn misses(ledger: &mut Ledger, step: &Step, forgotten: Rule) -> bool {
    let Step::Ask(requests) = step else {
        change(ledger, step);
        return false;
    };
    requests.iter().any(|request| {
        let (verdict, _) = Planner::new(ledger, 7).plan_batch(ledger, &[request]).remove(0);
        let scene = Scene { forgotten: Some(forgotten), ..Scene::of(ledger) };
        let is_missed = judge(&scene, request, &verdict).is_err();
        apply(ledger, Command::Submit { request: request.clone(), verdict });
        is_missed
    })
}

#[test]
fn planners_that_are_wrong_are_caught() {
    for wrong in Wrong::ALL {
        let after = shows_after(None, &mut |ledger, request| wrong.decide(ledger, request));
        println!("{wrong:?}: after {after:?} histories");
        assert!(after.is_some(), "{wrong:?} passes for right");
    }
}

#[test]
fn what_the_judge_says_of_one_node_is_what_one_counts_by_hand() {
    let requests: Vec<Request> = [3_000, 2_000, 1_000].map(exhaustive::asks::plain).to_vec();
    let setup = Setup::of_cores(&[4]);
    let mut ledger = ledger_of(&setup);
    let verdict = Planner::new(&ledger, 0).place(&ledger, &requests[0]);
    grant(&mut ledger, &requests[0], verdict);
    let scene = Scene::of(&ledger);
    assert_eq!((scene.most(&requests[1]), scene.most(&requests[2])), (0, 1));
    assert_eq!(scene.emptied().most(&requests[1]), 1);
    let place = scene.any_place(&requests[2]).expect("a core is free");
    assert_eq!((place.len(), place[0].node), (1, NodeId(0)));
}
