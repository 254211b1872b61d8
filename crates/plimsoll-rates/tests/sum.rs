//! Holders of slices against the ledger's own rate: whatever they want, whatever gets lost, the sum stays within the limit.

use plimsoll_ledger::Rate;
use plimsoll_rates::{Ask, Slice, Step, VALID_MS};
use plimsoll_types::LedgerTime;
use proptest::prelude::*;

const START_MS: u64 = 1_795_000_000_000;

/// The ledger, and who holds slices of its rate.
struct Scene {
    rate: Rate,
    arrival_ns: u64,
    now_ms: u64,
    holders: Vec<Slice>,
    /// When how many tokens were handed out.
    given: Vec<(u64, u64)>,
}

/// What becomes of an ask.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Heard,
    /// The ledger did it, and the answer was lost.
    Unheard,
    /// It never came to the ledger.
    Lost,
}

impl Scene {
    fn new(rate: Rate, holders: usize) -> Scene {
        let holders = vec![Slice::default(); holders];
        Scene { rate, arrival_ns: 0, now_ms: START_MS, holders, given: Vec::new() }
    }

    /// A holder wants tokens, and asks as often as it is told to. True where it gets them.
    fn want(&mut self, holder: usize, tokens: u64, fate: Fate) -> bool {
        for _ in 0..20 {
            match self.holders[holder].look(self.now_ms, tokens) {
                Step::Ready => {
                    self.given.push((self.now_ms, tokens));
                    let ask = self.holders[holder].spend(self.now_ms, tokens);
                    self.ask(holder, ask, fate);
                    return true;
                }
                Step::Wait(Some(ask)) => self.ask(holder, Some(ask), fate),
                Step::Wait(None) | Step::Dry { .. } => return false,
            }
        }
        panic!("{holder} asks for ever for {tokens}: {:?}", self.holders[holder]);
    }

    fn ask(&mut self, holder: usize, mut ask: Option<Ask>, fate: Fate) {
        while let Some(asked) = ask.take() {
            if fate == Fate::Lost {
                return;
            }
            let (told, arrival) = self.rate.take(self.arrival_ns, LedgerTime(self.now_ms), asked.tokens);
            self.arrival_ns = arrival;
            let slice = &mut self.holders[holder];
            match (fate, told.taken) {
                (Fate::Unheard, _) => {}
                (_, 0) => ask = slice.refused(self.now_ms, asked, told.left, told.retry_after_ms),
                _ => slice.taken(self.now_ms, asked),
            }
        }
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Heard), 1 => Just(Fate::Unheard), 1 => Just(Fate::Lost)]
}

proptest! {
    #[test]
    fn in_no_window_do_all_holders_hand_out_more_than_the_limit(
        tokens in 1..2_000u64,
        period_ms in 1..20_000u64,
        burst in 1..500u64,
        wants in prop::collection::vec((0..400u64, 0..3usize, 1..40u64, fate()), 1..200),
    ) {
        let rate = Rate { tokens, period_ms, burst };
        let mut scene = Scene::new(rate, 3);
        for (later, holder, tokens, fate) in wants {
            scene.now_ms += later;
            scene.want(holder, tokens, fate);
        }
        let given = &scene.given;
        for (first, (from, _)) in given.iter().enumerate() {
            let mut sum = 0u128;
            for (at, tokens) in &given[first..] {
                sum += u128::from(*tokens);
                let time = u128::from(at - from + VALID_MS);
                let brought = (time * u128::from(rate.tokens)).div_ceil(u128::from(rate.period_ms));
                prop_assert!(sum <= u128::from(burst) + brought, "{sum} in {} ms", at - from);
            }
        }
    }

    #[test]
    fn one_holder_alone_is_given_about_what_the_rate_brings(
        per_second in 20..5_000u64,
        factor in 2..5u64,
    ) {
        let rate = Rate { tokens: per_second, period_ms: 1_000, burst: per_second };
        let mut scene = Scene::new(rate, 1);
        // More is wanted than there is, evenly, for ten seconds.
        let wanted = per_second * factor;
        for number in 0..wanted * 10 {
            scene.now_ms = START_MS + number * 1_000 / wanted;
            scene.want(0, 1, Fate::Heard);
        }
        let given: u64 = scene.given.iter().map(|(_, tokens)| tokens).sum();
        prop_assert!(given >= per_second * 11 * 95 / 100, "{given} of {}", per_second * 11);
    }

    #[test]
    fn many_tokens_at_once_are_given_in_the_end_while_nobody_else_wants_any(
        burst in 2..300u64,
        period_ms in 1_000..60_000u64,
        share in 1..=100u64,
    ) {
        let rate = Rate { tokens: burst, period_ms, burst };
        let tokens = (burst * share).div_ceil(100);
        let mut scene = Scene::new(rate, 1);
        scene.want(0, burst, Fate::Heard);
        let mut waited_ms = 0;
        while !scene.want(0, tokens, Fate::Heard) {
            scene.now_ms += 10;
            waited_ms += 10;
            prop_assert!(waited_ms <= period_ms + 11_000, "{tokens} of {burst} in {period_ms} ms");
        }
    }
}

#[test]
fn the_ledger_is_asked_a_few_times_a_second_whatever_the_demand() {
    let rate = Rate { tokens: 100_000, period_ms: 1_000, burst: 100_000 };
    let mut scene = Scene::new(rate, 1);
    let mut asks = 0;
    for number in 0..500_000u64 {
        scene.now_ms = START_MS + number / 50;
        let ask = match scene.holders[0].look(scene.now_ms, 1) {
            Step::Ready => scene.holders[0].spend(scene.now_ms, 1),
            Step::Wait(ask) => ask,
            Step::Dry { .. } => None,
        };
        asks += u32::from(ask.is_some());
        scene.ask(0, ask, Fate::Heard);
    }
    assert!(asks <= 120, "{asks} asks in ten seconds at 50,000 a second");
}
