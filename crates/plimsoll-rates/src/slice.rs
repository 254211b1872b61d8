//! What one holder has of one rate.
//!
//! Invariants:
//! - Never more is handed out than was taken.
//! - Tokens are good for [`VALID_MS`] after they came. So in any time of `t` all holders together hand out at most what the ledger gives in `t + VALID_MS`
//!   (and the time that an answer of the ledger is on its way).
//! - One ask is under way at a time.

use std::collections::VecDeque;

use plimsoll_mutants::mutant;

/// How long tokens are good for, in milliseconds.
pub const VALID_MS: u64 = 1_000;
/// A slice that is gone sooner than this was too small, in milliseconds: about five asks a second for each rate and holder.
const SHORT_MS: u64 = 200;
/// Largest slice, in tokens.
const MOST_TOKENS: u64 = 1 << 20;
/// The ledger is asked again after so long where it did not answer, in milliseconds.
const LOST_MS: u64 = 2_000;
/// It is asked again after so long at the latest where it said no: the rate may have been changed. In milliseconds.
const MOST_DRY_MS: u64 = 10_000;

/// Tokens of one rate, at one holder.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Tokens, and until when they are good; oldest first.
    parts: VecDeque<(u64, u64)>,
    /// How many the next ask is for, where no more are needed at once.
    size: u64,
    /// When the latest ask was answered with tokens.
    taken_ms: Option<u64>,
    /// When the ask under way began.
    asked_ms: Option<u64>,
    /// Fewest tokens that somebody lacks who waits for that ask.
    lacking: Option<u64>,
    /// So many, or more, the ledger has for nobody until then.
    dry: (u64, u64),
}

/// A take to do at the ledger; its outcome comes back by [`Slice::taken`], [`Slice::refused`] or [`Slice::failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Tokens to take.
    pub tokens: u64,
}

/// Whether there are tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// They are here, for [`Slice::spend`].
    Ready,
    /// The ledger has to be asked first: by this ask, or by the one that is under way. Then try again.
    Wait(Option<Ask>),
    /// There are none, and there will be enough after so many milliseconds.
    Dry {
        /// From now on.
        retry_after_ms: u64,
    },
}

impl Default for Slice {
    fn default() -> Slice {
        Slice { parts: VecDeque::new(), size: 1, taken_ms: None, asked_ms: None, lacking: None, dry: (0, 0) }
    }
}

impl Slice {
    /// Whether so many tokens are here, at least one. Nothing is spent yet: who needs tokens of several rates spends all of them or none.
    pub fn look(&mut self, now_ms: u64, tokens: u64) -> Step {
        let tokens = tokens.max(1);
        self.forget_old(now_ms);
        let there = self.left();
        if there >= tokens {
            return Step::Ready;
        }
        let (dry_of, dry_until_ms) = self.dry;
        let is_scarce = now_ms < dry_until_ms;
        let lacking = tokens - there;
        if is_scarce && lacking >= dry_of {
            return Step::Dry { retry_after_ms: dry_until_ms - now_ms };
        }
        self.lacking = Some(self.lacking.map_or(lacking, |fewest| fewest.min(lacking)));
        Step::Wait(self.ask(now_ms, if is_scarce { lacking } else { self.size.max(lacking) }))
    }

    /// Spends tokens that are here. An ask is for those who come after: nobody has to wait for it.
    pub fn spend(&mut self, now_ms: u64, tokens: u64) -> Option<Ask> {
        let mut rest = if mutant!("spend-a-slice-twice") { tokens / 2 } else { tokens.max(1) };
        while rest > 0
            && let Some((part, _)) = self.parts.front_mut()
        {
            let spent = rest.min(*part);
            *part -= spent;
            rest -= spent;
            if *part == 0 {
                self.parts.pop_front();
            }
        }
        let runs_low = self.left() < self.size / 2 && now_ms >= self.dry.1;
        if runs_low { self.ask(now_ms, self.size) } else { None }
    }

    /// The ledger gave what was asked.
    pub fn taken(&mut self, now_ms: u64, ask: Ask) {
        (self.asked_ms, self.lacking) = (None, None);
        self.parts.push_back((ask.tokens, now_ms.saturating_add(VALID_MS)));
        if self.taken_ms.is_some_and(|before| now_ms.saturating_sub(before) < SHORT_MS) {
            self.size = (self.size * 2).min(MOST_TOKENS);
        }
        self.taken_ms = Some(now_ms);
    }

    /// The ledger gave none: it has so many left, and would have had enough after so many milliseconds (`u64::MAX`: never so many at once). Where less
    /// would do for somebody, that is asked for next.
    pub fn refused(&mut self, now_ms: u64, ask: Ask, left: u64, retry_after_ms: u64) -> Option<Ask> {
        self.asked_ms = None;
        let needed = self.lacking.unwrap_or(1);
        if needed < ask.tokens {
            self.size = left.clamp(needed, ask.tokens - 1);
            return self.ask(now_ms, self.size);
        }
        self.size = 1;
        self.lacking = None;
        self.dry = (ask.tokens, now_ms.saturating_add(retry_after_ms.min(MOST_DRY_MS)));
        None
    }

    /// Nobody knows what came of the ask, or it was refused for another reason: what it may have taken is lost.
    pub fn failed(&mut self) {
        (self.asked_ms, self.lacking) = (None, None);
    }

    /// Tokens that are here.
    pub fn left(&self) -> u64 {
        self.parts.iter().map(|(tokens, _)| tokens).sum()
    }

    /// True where nothing would be lost by forgetting all of it.
    pub fn is_idle(&self, now_ms: u64) -> bool {
        let is_asking = self.asked_ms.is_some_and(|at| now_ms < at.saturating_add(LOST_MS));
        !is_asking && now_ms >= self.dry.1 && self.parts.iter().all(|(_, until)| *until <= now_ms)
    }

    fn ask(&mut self, now_ms: u64, tokens: u64) -> Option<Ask> {
        if self.asked_ms.is_some_and(|at| now_ms < at.saturating_add(LOST_MS)) {
            return None;
        }
        self.asked_ms = Some(now_ms);
        Some(Ask { tokens })
    }

    /// What nobody wanted in time is gone, and was too much.
    fn forget_old(&mut self, now_ms: u64) {
        let mut forgotten = 0;
        while let Some((tokens, until)) = self.parts.front()
            && *until <= now_ms
        {
            forgotten += tokens;
            self.parts.pop_front();
        }
        if forgotten > 0 {
            self.size = self.size.saturating_sub(forgotten).max(self.size / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`Slice::spend`] asks for, where there is enough.
    fn given(slice: &mut Slice, now_ms: u64, tokens: u64) -> Option<Ask> {
        assert_eq!(slice.look(now_ms, tokens), Step::Ready);
        slice.spend(now_ms, tokens)
    }

    #[test]
    fn tokens_are_taken_first_and_handed_out_then() {
        let mut slice = Slice::default();
        assert_eq!(slice.look(0, 3), Step::Wait(Some(Ask { tokens: 3 })));
        assert_eq!(slice.look(0, 1), Step::Wait(None), "one ask at a time");
        slice.taken(5, Ask { tokens: 3 });
        assert_eq!(given(&mut slice, 5, 3), None);
        assert_eq!(slice.look(6, 1), Step::Wait(Some(Ask { tokens: 1 })));
        slice.taken(9, Ask { tokens: 1 });
        assert_eq!(given(&mut slice, 9, 1), Some(Ask { tokens: 2 }), "they went fast: more next time");
    }

    #[test]
    fn what_is_not_used_in_time_is_gone() {
        let mut slice = Slice::default();
        slice.taken(1_000, Ask { tokens: 10 });
        assert_eq!(given(&mut slice, 1_000 + VALID_MS - 1, 1), None);
        assert!(matches!(slice.look(1_000 + VALID_MS, 1), Step::Wait(Some(_))));
        assert_eq!(slice.left(), 0);
    }

    #[test]
    fn a_dry_rate_is_asked_for_less_and_then_left_alone_until_there_is_enough() {
        let mut slice = Slice { size: 100, ..Slice::default() };
        assert_eq!(slice.look(0, 8), Step::Wait(Some(Ask { tokens: 100 })));
        assert_eq!(slice.look(0, 3), Step::Wait(None));
        assert_eq!(
            slice.refused(1, Ask { tokens: 100 }, 5, 6_000),
            Some(Ask { tokens: 5 }),
            "three are needed"
        );
        slice.taken(2, Ask { tokens: 5 });
        assert_eq!(slice.look(2, 8), Step::Wait(Some(Ask { tokens: 5 })));
        assert_eq!(slice.refused(3, Ask { tokens: 5 }, 0, 500), Some(Ask { tokens: 3 }), "three are lacking");
        assert_eq!(slice.refused(4, Ask { tokens: 3 }, 0, 100), None);
        assert_eq!(slice.look(54, 8), Step::Dry { retry_after_ms: 50 });
        assert_eq!(given(&mut slice, 54, 5), None, "what is here is given");
        assert_eq!(slice.look(54, 1), Step::Wait(Some(Ask { tokens: 1 })), "fewer may be there");
        slice.failed();
        assert_eq!(slice.look(104, 8), Step::Wait(Some(Ask { tokens: 8 })));
        assert_eq!(slice.refused(105, Ask { tokens: 8 }, 3, u64::MAX), None);
        assert_eq!(slice.look(106, 8), Step::Dry { retry_after_ms: MOST_DRY_MS - 1 });
    }

    #[test]
    fn an_answer_that_never_comes_does_not_stop_it() {
        let mut slice = Slice::default();
        assert!(matches!(slice.look(0, 1), Step::Wait(Some(_))));
        assert_eq!(slice.look(LOST_MS - 1, 1), Step::Wait(None));
        assert!(matches!(slice.look(LOST_MS, 1), Step::Wait(Some(_))));
        slice.failed();
        assert!(matches!(slice.look(LOST_MS, 1), Step::Wait(Some(_))));
    }
}
