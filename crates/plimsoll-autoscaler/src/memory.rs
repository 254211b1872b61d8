//! What is remembered from one decision to the next: the recommendations and changes that windows look back at.

use std::collections::VecDeque;

/// Most entries of each list: one a second for over an hour. Older ones go first.
const MOST: usize = 4096;

/// Past recommendations and changes. Bounded; what no window of the policy reaches any more is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleMemory {
    /// Before stabilization: moment and number, oldest first.
    recommendations: VecDeque<(u64, u64)>,
    /// Moment and how much was added (positive) or removed (negative), oldest first.
    changes: VecDeque<(u64, i64)>,
    /// Last change, whatever became of the lists.
    last_change_ms: Option<u64>,
    /// Last moment at which a signal was active.
    last_active_ms: Option<u64>,
}

impl ScaleMemory {
    /// Recommendations after `now − window`.
    pub(crate) fn recommendations(&self, now_ms: u64, window_ms: u64) -> impl Iterator<Item = u64> {
        self.recommendations
            .iter()
            .rev()
            .take_while(move |(at, _)| at.saturating_add(window_ms) > now_ms)
            .map(|(_, number)| *number)
    }

    /// Replicas added and removed after `now − period`.
    pub(crate) fn changed(&self, now_ms: u64, period_ms: u64) -> (u64, u64) {
        let recent = self.changes.iter().rev().take_while(|(at, _)| at.saturating_add(period_ms) > now_ms);
        recent.fold((0, 0), |(added, removed), (_, change)| match *change {
            0.. => (change.unsigned_abs().saturating_add(added), removed),
            _ => (added, change.unsigned_abs().saturating_add(removed)),
        })
    }

    /// The memory of somebody who has seen nothing yet: that the number was right until now is all that it says, so that windows hold it.
    #[must_use]
    pub fn begin(now_ms: u64, current: u64) -> ScaleMemory {
        ScaleMemory { recommendations: VecDeque::from([(now_ms, current)]), ..ScaleMemory::default() }
    }

    /// Takes over the changes that were made, as somebody else keeps them: moment and how much, oldest first.
    pub fn follow(&mut self, changes: impl IntoIterator<Item = (u64, i64)>) {
        self.changes = changes.into_iter().collect();
        self.last_change_ms = self.changes.back().map(|(at, _)| *at);
    }

    /// When the number last changed, in milliseconds.
    #[must_use]
    pub fn last_change_ms(&self) -> Option<u64> {
        self.last_change_ms
    }

    /// When a signal was last active, in milliseconds.
    #[must_use]
    pub fn last_active_ms(&self) -> Option<u64> {
        self.last_active_ms
    }

    pub(crate) fn active(&mut self, now_ms: u64) {
        self.last_active_ms = self.last_active_ms.max(Some(now_ms));
    }

    /// A recommendation before stabilization, and what became of it. `keep_ms` is the longest window of the policy.
    pub(crate) fn note(&mut self, now_ms: u64, recommendation: u64, change: i64, keep_ms: u64) {
        self.recommendations.push_back((now_ms, recommendation));
        if change != 0 {
            self.changes.push_back((now_ms, change));
            self.last_change_ms = Some(now_ms);
        }
        forget(&mut self.recommendations, now_ms, keep_ms);
        forget(&mut self.changes, now_ms, keep_ms);
    }
}

/// Drops what no window reaches, and the oldest where there are too many.
fn forget<T>(list: &mut VecDeque<(u64, T)>, now_ms: u64, keep_ms: u64) {
    while list.front().is_some_and(|(at, _)| at.saturating_add(keep_ms) <= now_ms) || list.len() > MOST {
        list.pop_front();
    }
}
