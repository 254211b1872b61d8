//! Histories of rivals: queues with small quotas that borrow from each other, classes above each other, and claimants for whom others have to
//! leave. They reach what histories of everything seldom do: reclaim, what is guaranteed, and what keeps a victim where it is.
//!
//! `each_clause_of_the_law_is_looked_at` makes the model forget one clause after the other: every one must be missed within 4,000 histories.

mod setup;
mod taking;

use std::cell::RefCell;
use std::collections::BTreeMap;

use plimsoll_ledger::{
    Command, Entry, Gang, GpuAsk, GpuShare, LATEST_VERSION, Ledger, OnPreempt, Placement, Qos, Request,
    Requirements, Verdict, Wait,
};
use plimsoll_types::{ReservationId, Resources};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::histories::GIB;
use super::histories::fleet::registration;
use super::histories::placing::placement;
use super::model::Model;
use super::model::clause::Clause;
use super::{cases, run};
use setup::{Setup, setup};

/// Histories within which a model that forgets a clause must be told from the ledger.
const MOST_HISTORIES: u32 = 4_000;

/// Who asks for what.
#[derive(Clone, Debug)]
struct Who {
    queue: &'static str,
    class: &'static str,
    pool: &'static str,
    cpu_millis: u64,
    gpu_milli: u16,
    members: u32,
    ends: bool,
    confirmed: bool,
    /// Waits where it has to, and again once its place was taken back.
    waits: bool,
    /// Takes only what is idle.
    best_effort: bool,
}

/// One step of a history; indices are resolved against the ledger of the moment.
#[derive(Clone, Debug)]
enum Move {
    /// Somebody takes a place.
    Fill(Who, u32),
    /// Somebody waits.
    Claim(Who),
    /// Others leave for somebody who waits.
    Take {
        claimant: usize,
        node: u32,
        way: u8,
        first: usize,
        extra: i8,
    },
    Place(usize, u32),
    Unplan(usize),
    Confirm(usize),
    Release(usize),
    Resize(usize, u64),
    Expire,
    Rules(Setup),
}

/// Those who take places are mostly of low classes, those who wait for them of high ones.
fn who(waits: bool) -> impl Strategy<Value = Who> {
    let queue = prop_oneof![
        4 => Just(""), 1 => Just("org"), 4 => Just("vision"), 4 => Just("cv"), 5 => Just("speech"), 1 => Just("alien"),
    ];
    let class = match waits {
        true => prop_oneof![1 => Just("batch"), 1 => Just("low"), 4 => Just("standard"), 4 => Just("high")],
        false => prop_oneof![4 => Just("batch"), 4 => Just("low"), 4 => Just("standard"), 1 => Just("high")],
    };
    let pool = prop_oneof![9 => Just("default"), 1 => Just("gpu")];
    let gpu_milli = prop_oneof![5 => Just(0u16), 2 => Just(500), 2 => Just(1_000)];
    let members = prop_oneof![5 => Just(1u32), 1 => Just(2)];
    let flags = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.12),
    );
    (queue, class, pool, prop_oneof![3 => 1u64..3, 1 => 3u64..6], gpu_milli, members, flags).prop_map(
        |(queue, class, pool, cores, gpu_milli, members, (ends, confirmed, waits, best_effort))| {
            let cpu_millis = cores * 1_000;
            Who { queue, class, pool, cpu_millis, gpu_milli, members, ends, confirmed, waits, best_effort }
        },
    )
}

fn a_move() -> impl Strategy<Value = Move> {
    let take = (
        any::<usize>(),
        0u32..3,
        0u8..4,
        any::<usize>(),
        prop_oneof![1 => Just(-1i8), 12 => Just(0), 1 => Just(1)],
    )
        .prop_map(|(claimant, node, way, first, extra)| Move::Take { claimant, node, way, first, extra });
    prop_oneof![
        12 => (who(false), 0u32..3).prop_map(|(who, node)| Move::Fill(who, node)),
        6 => who(true).prop_map(Move::Claim),
        14 => take,
        2 => (any::<usize>(), 0u32..3).prop_map(|(pick, node)| Move::Place(pick, node)),
        4 => any::<usize>().prop_map(Move::Unplan),
        2 => any::<usize>().prop_map(Move::Confirm),
        2 => any::<usize>().prop_map(Move::Release),
        1 => (any::<usize>(), 1u64..6).prop_map(|(pick, cores)| Move::Resize(pick, cores * 1_000)),
        3 => Just(Move::Expire),
        1 => setup().prop_map(Move::Rules),
    ]
}

/// A fleet that fills up, and what comes then.
fn history() -> impl Strategy<Value = (Setup, Vec<(Move, u64)>)> {
    let fill = (who(false), 0u32..3).prop_map(|(who, node)| Move::Fill(who, node));
    let fills = prop::collection::vec((fill, 0u64..500), 4..14);
    let moves = prop::collection::vec((a_move(), 0u64..1_500), 8..45);
    (setup(), fills, moves).prop_map(|(setup, mut fills, moves)| {
        fills.extend(moves);
        (setup, fills)
    })
}

impl Who {
    fn request(&self) -> Request {
        let share = if self.gpu_milli == 1_000 { GpuShare::Whole } else { GpuShare::Milli(self.gpu_milli) };
        let gpu = (self.gpu_milli > 0).then(|| GpuAsk { share, ..GpuAsk::whole(1) });
        Request {
            pool: self.pool.into(),
            class: self.class.into(),
            queue: self.queue.into(),
            requirements: Requirements {
                amounts: Resources::new(self.cpu_millis, GIB),
                gpu,
                ..Requirements::default()
            },
            gang: Gang { min_members: self.members, max_members: self.members, spread: false },
            ttl_ms: 3_600_000,
            hold_ms: 60_000,
            auto_confirm: self.confirmed,
            wait: if self.waits { Wait::Queue { deadline_ms: 0 } } else { Wait::Refuse },
            qos: self.best_effort.then_some(Qos::BestEffort),
            on_preempt: if self.ends { OnPreempt::End } else { OnPreempt::Requeue },
            ..Request::default()
        }
    }
}

/// The entry of a move, as things stand.
fn entry(ledger: &Ledger, step: &Move) -> Entry {
    let live: Vec<_> = ledger.reservations().filter(|one| !one.state.is_final()).cloned().collect();
    let waiting: Vec<_> = live.iter().filter(|one| one.is_waiting()).cloned().collect();
    let nobody = Command::Cancel { reservation: ReservationId(u64::MAX) };
    let pick = |index: usize| live.get(index % live.len().max(1));
    let waits = |index: usize| waiting.get(index % waiting.len().max(1));
    let command = match step {
        Move::Fill(who, node) => {
            let request = who.request();
            let verdict = taking::free_place(ledger, &request, *node)
                .map_or(Verdict::Blocked(Vec::new()), Verdict::Place);
            Some(Command::Submit { request, verdict })
        }
        Move::Claim(who) => {
            let mut request = who.request();
            request.wait = Wait::Queue { deadline_ms: 0 };
            Some(Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) })
        }
        Move::Take { claimant, node, way, first, extra } => {
            waits(*claimant).map(|claimant| taking::preempt(ledger, claimant, *node, (*way, *first, *extra)))
        }
        Move::Place(index, node) => waits(*index).map(|one| {
            let nodes = vec![*node; one.request.gang.min_members as usize];
            let kept = Placement { members: one.members.clone() };
            let placement = match one.members.is_empty() {
                true => placement(ledger, &one.request, &nodes, 0),
                false => kept,
            };
            Command::Place { reservation: one.id, placement }
        }),
        Move::Unplan(index) => waits(*index).map(|one| Command::Preempt {
            reservation: one.id,
            placement: Placement { members: Vec::new() },
            victims: Vec::new(),
        }),
        Move::Confirm(index) => {
            pick(*index).map(|one| Command::Confirm { reservation: one.id, token: one.token })
        }
        Move::Release(index) => {
            pick(*index).map(|one| Command::Release { reservation: one.id, token: one.token })
        }
        Move::Resize(index, cpu_millis) => pick(*index).map(|one| Command::Resize {
            reservation: one.id,
            token: one.token,
            amounts: Resources::new(*cpu_millis, GIB),
        }),
        Move::Expire => Some(Command::Expire { limit: 8 }),
        Move::Rules(setup) => Some(setup.command()),
    };
    Entry::system(command.unwrap_or(nobody))
}

/// How often each thing came of taking.
#[derive(Debug, Default)]
struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    /// Notes what a command that was applied last came to.
    fn note(&mut self, ledger: &Ledger, entry: &Entry) {
        let Command::Preempt { reservation, victims, .. } = &entry.command else { return };
        let plans = ledger.reservation(*reservation).is_some_and(|one| one.changed == ledger.revision());
        let given = victims.iter().filter_map(|id| ledger.reservation(*id)?.preempted());
        let given: Vec<_> = given.filter(|given| given.revision == ledger.revision()).collect();
        let words = given.iter().map(|given| given.rule.name());
        let other = if plans { "gave up" } else { "refused" };
        for word in words.chain(given.is_empty().then_some(other)) {
            *self.0.entry(word).or_default() += 1;
        }
    }
}

/// Plays a history on both.
fn play(
    (rules, moves): &(Setup, Vec<(Move, u64)>),
    mut model: Model,
    seen: Option<&RefCell<Seen>>,
) -> Result<(), TestCaseError> {
    let mut ledger = Ledger::new();
    let mut now_ms = 1_000_000_000;
    run(&mut ledger, &mut model, now_ms, &Entry::system(Command::Upgrade { to: LATEST_VERSION }))?;
    run(&mut ledger, &mut model, now_ms, &Entry::system(rules.command()))?;
    for index in [0, 1, 3] {
        let register = Command::RegisterNode(registration(index, 1, 5_000, 2));
        run(&mut ledger, &mut model, now_ms, &Entry::system(register))?;
    }
    for (step, pause_ms) in moves {
        now_ms += pause_ms;
        let entry = entry(&ledger, step);
        run(&mut ledger, &mut model, now_ms, &entry)?;
        if let Some(seen) = seen {
            seen.borrow_mut().note(&ledger, &entry);
        }
    }
    let rebuilt = Ledger::from_rows(ledger.rows().map(|(_, row)| row)).expect("its own rows");
    prop_assert!(rebuilt.rows().eq(ledger.rows()));
    Ok(())
}

#[test]
fn rivals_leave_for_each_other_as_the_page_says() {
    let seen = RefCell::new(Seen::default());
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    runner
        .run(&history(), |history| play(&history, Model::new(), Some(&seen)))
        .unwrap_or_else(|error| panic!("{error}"));
    // A generator that hardly reaches the law proves nothing. In 400 histories each comes up some five times as often.
    let seen = seen.into_inner();
    for (word, least) in
        [("lower_class", 20), ("reclaim", 4), ("best_effort", 10), ("refused", 200), ("gave up", 1)]
    {
        let count = seen.0.get(word).copied().unwrap_or(0);
        assert!(count >= least, "{word} {count} times only: {seen:?}");
    }
}

#[test]
fn each_clause_of_the_law_is_looked_at() {
    let mut slow = Vec::new();
    for clause in Clause::ALL {
        let histories = std::cell::Cell::new(0u32);
        let config = Config {
            cases: MOST_HISTORIES,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let told = runner.run(&history(), |history| {
            histories.set(histories.get() + 1);
            let mut model = Model::new();
            model.forgets = Some(clause);
            play(&history, model, None)
        });
        println!("{clause:?}: {} histories", histories.get());
        if !matches!(told, Err(TestError::Fail(..))) {
            slow.push(clause);
        }
    }
    assert_eq!(slow, Vec::new(), "not missed within {MOST_HISTORIES} histories");
}
