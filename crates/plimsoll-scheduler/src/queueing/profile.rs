//! Availability profile of one domain: how many units are taken from when on, as breakpoints in time.
//!
//! A calendar reservation and a running lease are hard rectangles in it, a planned request is a soft one: the profile only
//! adds them up, and whoever put a rectangle in takes it out again.

use std::collections::BTreeMap;

/// Integer capacity over time. Units are thousandths of a device, or of a core; times are milliseconds.
///
/// `n` below is the number of breakpoints: at most two for each rectangle that ends after the latest [`Profile::trim`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    total: u64,
    /// Units taken from this moment until the next breakpoint; nothing before the first.
    steps: BTreeMap<u64, u64>,
}

/// The far end of time: a rectangle of unknown length reaches it.
pub const FOREVER: u64 = u64::MAX;

impl Profile {
    /// A domain of `total` units, all of them free.
    pub fn new(total: u64) -> Profile {
        Profile { total, steps: BTreeMap::new() }
    }

    /// Units that the domain has.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Number of breakpoints.
    pub fn breakpoints(&self) -> usize {
        self.steps.len()
    }

    /// Puts a rectangle in: `units` from `from` to before `until`. More than there is may be taken; then nothing is free.
    /// O(breakpoints inside + log n).
    pub fn take(&mut self, from: u64, until: u64, units: u64) {
        self.change(from, until, |used| used.saturating_add(units));
    }

    /// Takes a rectangle out, or the part of one that is left. O(breakpoints inside + log n).
    pub fn give(&mut self, from: u64, until: u64, units: u64) {
        self.change(from, until, |used| used.saturating_sub(units));
    }

    /// Units free at a moment. O(log n).
    pub fn free_at(&self, at: u64) -> u64 {
        self.total.saturating_sub(self.used_at(at))
    }

    /// Units free all the time from `from` to before `until`; those free at `from` where that is no time at all.
    /// O(breakpoints inside + log n).
    pub fn room(&self, from: u64, until: u64) -> u64 {
        let inside = self.inside(from, until).map(|(_, used)| *used);
        self.total.saturating_sub(inside.fold(self.used_at(from), u64::max))
    }

    /// The first moment, not before `from`, from which on `units` are free for `duration` ms; `None` where that never comes.
    /// O(n).
    pub fn earliest(&self, from: u64, duration: u64, units: u64) -> Option<u64> {
        let fits = |used: u64| self.total.saturating_sub(used) >= units;
        let mut start = fits(self.used_at(from)).then_some(from);
        for (at, used) in self.inside(from, FOREVER) {
            if start.is_some_and(|start| *at >= start.saturating_add(duration)) {
                return start;
            }
            start = if fits(*used) { start.or(Some(*at)) } else { None };
        }
        start
    }

    /// The first breakpoint after `at` from which on more is free than before it. O(n).
    pub fn next_rise(&self, at: u64) -> Option<u64> {
        let mut before = self.used_at(at);
        for (moment, used) in self.inside(at, FOREVER) {
            if *used < before {
                return Some(*moment);
            }
            before = *used;
        }
        None
    }

    /// Forgets what was before `now`. O(breakpoints forgotten).
    pub fn trim(&mut self, now: u64) {
        let used = self.used_at(now);
        while self.steps.first_key_value().is_some_and(|(at, _)| *at <= now) {
            self.steps.pop_first();
        }
        if used > 0 {
            self.steps.insert(now, used);
        }
    }

    fn used_at(&self, at: u64) -> u64 {
        self.steps.range(..=at).next_back().map_or(0, |(_, used)| *used)
    }

    /// Breakpoints after `from` and before `until`.
    fn inside(&self, from: u64, until: u64) -> impl Iterator<Item = (&u64, &u64)> {
        let bounds = (std::ops::Bound::Excluded(from), std::ops::Bound::Excluded(until));
        (until > from).then(|| self.steps.range(bounds)).into_iter().flatten()
    }

    fn change(&mut self, from: u64, until: u64, to: impl Fn(u64) -> u64) {
        if until <= from {
            return;
        }
        for edge in [from, until] {
            let used = self.used_at(edge);
            if edge < FOREVER {
                self.steps.entry(edge).or_insert(used);
            }
        }
        for (_, used) in self.steps.range_mut(from..until) {
            *used = to(*used);
        }
        for edge in [from, until] {
            // A breakpoint where nothing changes is none.
            let before = edge.checked_sub(1).map_or(0, |before| self.used_at(before));
            if self.steps.get(&edge) == Some(&before) {
                self.steps.remove(&edge);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Moments that the naive profile knows one by one.
    const HORIZON: u64 = 60;

    fn rectangles() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
        prop::collection::vec((0..HORIZON - 1, 1..HORIZON, 1u64..5), 0..24)
    }

    proptest! {
        #[test]
        fn it_answers_as_a_row_of_counters_does(
            rectangles in rectangles(),
            returned in prop::collection::vec(any::<bool>(), 24),
            now in 0..HORIZON,
            ask in (0..HORIZON, 0u64..20, 0u64..12),
        ) {
            let total = 10;
            let mut profile = Profile::new(total);
            let mut naive = vec![0u64; HORIZON as usize];
            for ((from, length, units), back) in rectangles.iter().zip(&returned) {
                let until = (from + length).min(HORIZON);
                profile.take(*from, until, *units);
                if *back {
                    profile.give(*from, until, *units);
                    continue;
                }
                for used in &mut naive[*from as usize..until as usize] {
                    *used += units;
                }
            }
            let free = |at: u64| total.saturating_sub(naive.get(at as usize).copied().unwrap_or(0));
            prop_assert!(profile.breakpoints() <= 2 * rectangles.len());
            profile.trim(now);
            for at in now..HORIZON {
                prop_assert_eq!(profile.free_at(at), free(at));
            }
            let (from, duration, units) = (ask.0.max(now), ask.1, ask.2);
            let room = |start: u64| (start..start + duration.max(1)).map(free).min().unwrap_or(0);
            prop_assert_eq!(profile.room(from, from + duration), room(from));
            let earliest = (from..=HORIZON).find(|start| room(*start) >= units);
            prop_assert_eq!(profile.earliest(from, duration, units), earliest);
            let rise = (from + 1..=HORIZON).find(|at| {
                let before = naive.get(*at as usize - 1).copied().unwrap_or(0);
                naive.get(*at as usize).copied().unwrap_or(0) < before
            });
            prop_assert_eq!(profile.next_rise(from), rise);
        }
    }

    #[test]
    fn what_has_no_known_end_is_taken_for_ever() {
        let mut profile = Profile::new(8);
        profile.take(5, FOREVER, 8);
        assert_eq!(profile.earliest(0, 6, 1), None);
        assert_eq!(profile.earliest(0, 5, 8), Some(0));
        profile.give(5, FOREVER, 8);
        assert_eq!(profile.breakpoints(), 0);
    }
}
