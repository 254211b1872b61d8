//! How a pool's queue is walked: by name, as policy files and the log write it.

use std::fmt;
use std::str::FromStr;

use crate::{Pool, QueueOrder};

/// In which order a pool's queue is walked, and what may overtake. From ledger version 4 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueDiscipline {
    /// As the pool's `queue_order` says.
    #[default]
    ByQueueOrder,
    /// Nobody of a queue starts before those ahead of it.
    Strict,
    /// What does not fit is passed over.
    Skip,
    /// The first `depth` that do not fit have a place in the future, and whoever overtakes delays none of them.
    Backfill {
        /// Places in the future at a time, 1 to [`QueueDiscipline::MOST_PLACES`]; 0 for as many as the leader plans at all.
        depth: u32,
    },
    /// Class, then age and smallness; what does not fit is passed over.
    Priority,
    /// Class, then the most expected slowdown saved per unit of work, run times learned from what has ended; what does not fit is
    /// passed over.
    Learned,
}

impl QueueDiscipline {
    /// Most places in the future at a time.
    pub const MOST_PLACES: u32 = 256;

    /// Names as users write them, with one number for all of `backfill_K`.
    pub const NAMES: [&'static str; 6] =
        ["strict", "skip", "backfill_1", "backfill_all", "priority", "learned"];

    /// Places in the future that the leader keeps.
    pub fn depth(self) -> usize {
        match self {
            QueueDiscipline::Backfill { depth: 0 } => QueueDiscipline::MOST_PLACES as usize,
            QueueDiscipline::Backfill { depth } => depth.min(QueueDiscipline::MOST_PLACES) as usize,
            _ => 0,
        }
    }
}

impl fmt::Display for QueueDiscipline {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueDiscipline::ByQueueOrder => Ok(()),
            QueueDiscipline::Strict => to.write_str("strict"),
            QueueDiscipline::Skip => to.write_str("skip"),
            QueueDiscipline::Backfill { depth: 0 } => to.write_str("backfill_all"),
            QueueDiscipline::Backfill { depth } => write!(to, "backfill_{depth}"),
            QueueDiscipline::Priority => to.write_str("priority"),
            QueueDiscipline::Learned => to.write_str("learned"),
        }
    }
}

impl FromStr for QueueDiscipline {
    type Err = ();

    /// What [`fmt::Display`] writes, and nothing else.
    fn from_str(name: &str) -> Result<QueueDiscipline, ()> {
        let discipline = match name {
            "" => QueueDiscipline::ByQueueOrder,
            "strict" => QueueDiscipline::Strict,
            "skip" => QueueDiscipline::Skip,
            "backfill_all" => QueueDiscipline::Backfill { depth: 0 },
            "priority" => QueueDiscipline::Priority,
            "learned" => QueueDiscipline::Learned,
            _ => {
                let depth = name.strip_prefix("backfill_").and_then(|depth| depth.parse().ok());
                let depth = depth.filter(|depth| (1..=QueueDiscipline::MOST_PLACES).contains(depth));
                QueueDiscipline::Backfill { depth: depth.ok_or(())? }
            }
        };
        // "backfill_+1" and "backfill_01" are other ways to write a number: one name each.
        if discipline.to_string() == name { Ok(discipline) } else { Err(()) }
    }
}

impl Pool {
    /// Bound on waiting where a pool names a discipline and no bound, in milliseconds: a day.
    pub const DEFAULT_STARVATION_BOUND_MS: u64 = 24 * 3_600_000;

    /// True where a blocked request holds back those behind it in its queue.
    pub fn is_strict(&self) -> bool {
        match self.queueing {
            QueueDiscipline::ByQueueOrder => self.queue_order == QueueOrder::StrictFifo,
            QueueDiscipline::Strict => true,
            _ => false,
        }
    }

    /// After so many milliseconds of waiting nobody overtakes a request any more; `None` where the pool's policy says nothing
    /// about queueing.
    pub fn starvation_bound(&self) -> Option<u64> {
        match (self.starvation_bound_ms, self.queueing) {
            (0, QueueDiscipline::ByQueueOrder) => None,
            (0, _) => Some(Pool::DEFAULT_STARVATION_BOUND_MS),
            (bound_ms, _) => Some(bound_ms),
        }
    }

    /// What walks its queue, as people are told it.
    pub fn discipline_name(&self) -> String {
        match (self.queueing, self.queue_order) {
            (QueueDiscipline::ByQueueOrder, QueueOrder::BestEffortFifo) => "best_effort_fifo".to_owned(),
            (QueueDiscipline::ByQueueOrder, QueueOrder::StrictFifo) => "strict_fifo".to_owned(),
            (named, _) => named.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_nothing_else_is_one() {
        for name in QueueDiscipline::NAMES.into_iter().chain(["", "backfill_2", "backfill_256"]) {
            assert_eq!(name.parse::<QueueDiscipline>().map(|read| read.to_string()), Ok(name.to_owned()));
        }
        for wrong in
            ["fcfs", "las", "Skip", "backfill", "backfill_0", "backfill_01", "backfill_257", "backfill_+1"]
        {
            assert_eq!(wrong.parse::<QueueDiscipline>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_pool_that_says_nothing_has_no_bound_and_keeps_its_order() {
        let pool = Pool::default();
        assert_eq!((pool.is_strict(), pool.starvation_bound()), (false, None));
        let skip =
            Pool { queueing: QueueDiscipline::Skip, queue_order: QueueOrder::StrictFifo, ..Pool::default() };
        assert_eq!((skip.is_strict(), skip.starvation_bound()), (false, Some(86_400_000)));
        let bound = Pool { starvation_bound_ms: 5_000, ..Pool::default() };
        assert_eq!(bound.starvation_bound(), Some(5_000));
    }
}
