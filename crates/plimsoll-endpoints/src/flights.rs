//! Requests on their way: by number, each for a minute at most.

use std::collections::{BTreeMap, VecDeque};

use plimsoll_balancer::Flight;

/// After so long a request whose outcome nobody told is taken for over, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Requests that are kept; past that the oldest go.
const MOST: usize = 100_000;

/// Requests on their way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_number: BTreeMap<u64, Flight>,
    /// When each began, and its number, in that order; some may be finished.
    began: VecDeque<(u64, u64)>,
    next: u64,
}

impl Flights {
    /// Keeps one; its number is never another's.
    pub(crate) fn keep(&mut self, now_us: u64, flight: Flight) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, flight);
        self.began.push_back((now_us, number));
        number
    }

    pub(crate) fn take(&mut self, number: u64) -> Option<Flight> {
        self.by_number.remove(&number)
    }

    /// Those that are taken for over.
    pub(crate) fn forget_old(&mut self, now_us: u64) -> Vec<Flight> {
        let mut over = Vec::new();
        while let Some((began_us, number)) = self.began.front().copied() {
            let is_over = began_us.saturating_add(LONGEST_US) <= now_us || self.began.len() >= MOST;
            if !is_over && self.by_number.contains_key(&number) {
                break;
            }
            self.began.pop_front();
            over.extend(self.by_number.remove(&number));
        }
        over
    }

    /// Their picker is gone; their numbers are not used again.
    pub(crate) fn forget_all(&mut self) {
        self.by_number.clear();
        self.began.clear();
    }
}
