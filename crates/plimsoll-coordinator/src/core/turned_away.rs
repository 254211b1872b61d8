//! Requests for which a service had no endpoint: what wakes a service of which no replica runs, and so none can say anything of its load.
//!
//! In the memory of each coordinator: it counts those that it turned away itself, and those that others told it of. Lost with a leader; clients ask again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// For how long a request that was turned away counts.
const COUNTS_FOR: Duration = Duration::from_secs(30);
/// The leader is told at most so often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Those of one coordinator, by service. There are at most as many as services were asked for that are there.
#[derive(Default)]
pub struct TurnedAway {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many in this burst, and when the last one was.
    lately: BTreeMap<String, (u64, Instant)>,
    /// Not told to the leader yet.
    untold: BTreeMap<String, u64>,
    told_at: Option<Instant>,
}

impl TurnedAway {
    /// So many more.
    pub fn note(&self, service: &str, requests: u64) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let (count, last) = state.lately.entry(service.to_owned()).or_insert((0, now));
        let is_new = now.duration_since(*last) > COUNTS_FOR;
        *count = if is_new { requests } else { count.saturating_add(requests) };
        *last = now;
    }

    /// One more, which the leader is to be told of: what it has to be told now, if it is time.
    pub fn note_here(&self, service: &str) -> Vec<(String, u64)> {
        self.note(service, 1);
        let mut state = self.state.lock();
        let untold = state.untold.entry(service.to_owned()).or_default();
        *untold = untold.saturating_add(1);
        let now = Instant::now();
        if state.told_at.is_some_and(|at| now.duration_since(at) < TELL_EVERY) {
            return Vec::new();
        }
        state.told_at = Some(now);
        std::mem::take(&mut state.untold).into_iter().collect()
    }

    /// How many of a service there were since there last was none for a while.
    pub fn lately(&self, service: &str) -> u64 {
        let state = self.state.lock();
        let known = state.lately.get(service).filter(|(_, last)| last.elapsed() <= COUNTS_FOR);
        known.map_or(0, |(count, _)| *count)
    }

    /// Services that are there no more are forgotten.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        state.lately.retain(|service, _| is_there(service));
        state.untold.retain(|service, _| is_there(service));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_count_for_a_while_and_the_leader_hears_of_all_once_a_second() {
        let book = TurnedAway::default();
        assert_eq!(book.lately("web"), 0);
        assert_eq!(book.note_here("web"), [("web".to_owned(), 1)]);
        assert_eq!(book.note_here("web"), []);
        assert_eq!(book.note_here("api"), []);
        tokio::time::advance(TELL_EVERY).await;
        assert_eq!(book.note_here("web"), [("api".to_owned(), 1), ("web".to_owned(), 2)]);
        assert_eq!((book.lately("web"), book.lately("api")), (3, 1));
        tokio::time::advance(COUNTS_FOR + Duration::from_millis(1)).await;
        assert_eq!(book.lately("web"), 0);
        book.note("web", 5);
        assert_eq!(book.lately("web"), 5, "an earlier burst is over");
        book.retain(|service| service != "web");
        assert_eq!(book.lately("web"), 0);
    }
}
