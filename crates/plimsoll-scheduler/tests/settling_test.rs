//! Preemption settles: who was taken back asks nobody else to leave before something else has changed, and where nothing else does all come to
//! rest. On random clusters with all that there is: trees of queues, classes by weight, gangs of roles, spot nodes, limits, budgets, calendar.

mod fixture;
#[allow(dead_code)] // scenarios use the rest
#[path = "scenario/leader.rs"]
mod leader;
mod settling;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use settling::asks::{Deed, deeds};
use settling::play::Play;
use settling::tally::Tally;
use settling::worlds::{World, world};

/// Histories that are counted.
const HISTORIES: usize = 1_600;

/// About half of what there is in them.
const LEAST: [(&str, usize); 31] = [
    ("a burstable victim", 40),
    ("a kept place is given up", 50),
    ("a victim ends", 50),
    ("a victim is granted anew", 180),
    ("a victim keeps quiet", 1_500),
    ("a victim of roles", 120),
    ("a victim of several members", 200),
    ("a victim on a spot node", 100),
    ("a victim waits again", 480),
    ("across levels of a tree", 90),
    ("around planned starts", 70),
    ("beside what the calendar keeps", 90),
    ("between queues", 160),
    ("by best effort", 300),
    ("by fair tree", 100),
    ("by lower class", 160),
    ("by reclaim", 11),
    ("by weights of classes", 160),
    ("for a burstable one", 120),
    ("for a queue with a limit", 120),
    ("for best effort", 7),
    ("for one who is counted", 40),
    ("for one with licences", 60),
    ("for roles", 100),
    ("for several members", 140),
    ("in one zone", 70),
    ("waits for a budget", 580),
    ("waits for a limit", 4_000),
    ("waits for its share of spot nodes", 10_500),
    ("waits for quota", 11_500),
    ("waits for the calendar", 10_000),
];

/// With every commit the same histories; as many others as `PLIMSOLL_CASES` says where it is set.
fn runner() -> TestRunner {
    let config = |cases| Config { cases, failure_persistence: None, ..Config::default() };
    let asked = std::env::var("PLIMSOLL_CASES").ok().and_then(|text| text.parse().ok());
    match asked {
        Some(cases) => TestRunner::new(config(cases)),
        None => TestRunner::new_with_rng(config(256), TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    }
}

/// The histories of a fixed seed.
fn histories() -> impl Iterator<Item = (World, Vec<Deed>)> {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    std::iter::repeat_with(move || {
        let history = (world(), deeds()).new_tree(&mut runner).expect("there are histories");
        history.current()
    })
}

#[test]
fn a_victim_causes_nothing_further_before_something_else_changes() {
    let settles = |(world, deeds): (World, Vec<Deed>)| {
        let mut play = Play::new(&world);
        for deed in &deeds {
            play.act(deed);
            prop_assert!(play.law.broken.is_empty(), "victims asked others to leave: {:?}", play.law.broken);
        }
        // From here on nothing changes but what follows from what was planned.
        let (before, waiting) = (play.law.evictions, play.leader.ledger.reservations().count());
        play.come_to_rest();
        prop_assert!(play.law.broken.is_empty(), "victims asked others to leave: {:?}", play.law.broken);
        let evictions = play.law.evictions - before;
        prop_assert!(evictions <= waiting, "{} asked {} times", waiting, evictions);
        Ok(())
    };
    if let Err(found) = runner().run(&(world(), deeds()), settles) {
        panic!("{found}");
    }
}

#[test]
fn all_that_a_preemption_can_be_about_is_met() {
    let mut met = Tally::default();
    let mut after_a_change = 0;
    for (world, deeds) in histories().take(HISTORIES) {
        let mut play = Play::new(&world);
        deeds.iter().for_each(|deed| play.act(deed));
        play.come_to_rest();
        after_a_change += play.law.after_a_change;
        met.add(&play.tally);
    }
    println!("{met:?}, victims that ask after a change: {after_a_change}");
    for (what, least) in LEAST {
        assert!(met.of(what) >= least, "{what}: {} times, {least} expected", met.of(what));
    }
    assert!(after_a_change >= 7, "victims asked after a change {after_a_change} times");
}

#[test]
fn a_leader_that_forgets_who_was_taken_back_is_caught() {
    let caught = histories().take(HISTORIES).position(|(world, deeds)| {
        let mut play = Play::new(&world);
        play.forgets = true;
        deeds.iter().for_each(|deed| play.act(deed));
        !play.law.broken.is_empty()
    });
    println!("after {caught:?} histories");
    assert!(caught.is_some(), "nobody misses the memory of those who were taken back");
}
