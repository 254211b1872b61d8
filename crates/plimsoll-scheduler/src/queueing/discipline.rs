//! Queue disciplines by name, with their settings.

use std::str::FromStr;

/// In which order a queue is served, and what may overtake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// First come, first served: nobody starts before the first that waits.
    Fcfs,
    /// What does not fit is passed over.
    Skip,
    /// Hybrid(k) backfill: the first `depth` that wait have a rectangle in the future, and nobody delays it. 1 is EASY
    /// (Lifka 1995), all is conservative backfill (Mu'alem and Feitelson 2001).
    Backfill {
        /// Rectangles at a time.
        depth: usize,
    },
    /// The tenant that uses least goes first; in a tenant, the first that came.
    Fair,
    /// Class, then age and size in explicit integers (Slurm's multifactor).
    Priority,
    /// Expected slowdown saved per unit of work, with run times learned from each queue's past.
    Learned,
    /// Preemptive least attained service: who has run least goes first, and may take the place of who has run longer.
    Las,
}

/// How a queue is served. All times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The order.
    pub discipline: Discipline,
    /// `Learned` and `Las`: who has waited so long goes before all who have not, oldest first.
    pub patience_ms: u64,
    /// `Learned`: what needs more than one device on a node is due after this share of the patience, in percent, since its
    /// place has to be drained first.
    pub wide_patience_percent: u64,
    /// `Learned`: most nodes that are drained for requests at a time, in percent of the pool's; at least one.
    pub drain_percent: u64,
    /// `Learned`: nodes are drained for what has waited this many times its expected run, and at least `drain_after_ms`.
    pub drain_after_runs: u64,
    /// `Learned`: see `drain_after_runs`.
    pub drain_after_ms: u64,
    /// `Learned`: on a draining node starts what is expected to take at most this part of the rest, as 1/n.
    pub drain_fill: u64,
    /// `Learned`: after this time, who waits counts double, and from then on with the square of the wait.
    pub ageing_ms: u64,
    /// Length that is reckoned with where a request declares none: it is soft, and nothing is promised around it.
    pub default_run_ms: u64,
    /// `Las`: what has run for less since it was started is left alone.
    pub protected_ms: u64,
}

impl Discipline {
    /// Names as users write them.
    pub const NAMES: [&'static str; 8] =
        ["fcfs", "skip", "backfill_1", "backfill_all", "fair", "priority", "learned", "las"];

    /// True where what runs may be taken back.
    pub fn preempts(self) -> bool {
        self == Discipline::Las
    }

    /// True where it reckons with the lengths that requests declare.
    pub fn wants_declared_lengths(self) -> bool {
        matches!(self, Discipline::Backfill { .. })
    }
}

impl FromStr for Discipline {
    type Err = ();

    /// One of [`Discipline::NAMES`], or `backfill_` and a number.
    fn from_str(name: &str) -> Result<Discipline, ()> {
        Ok(match name {
            "fcfs" => Discipline::Fcfs,
            "skip" => Discipline::Skip,
            "backfill_all" => Discipline::Backfill { depth: usize::MAX },
            "fair" => Discipline::Fair,
            "priority" => Discipline::Priority,
            "learned" => Discipline::Learned,
            "las" => Discipline::Las,
            _ => {
                let depth = name.strip_prefix("backfill_").and_then(|depth| depth.parse().ok());
                Discipline::Backfill { depth: depth.filter(|depth| *depth > 0).ok_or(())? }
            }
        })
    }
}

impl Settings {
    /// A discipline with settings that suit a cluster for batch work.
    pub fn of(discipline: Discipline) -> Settings {
        const HOUR_MS: u64 = 3_600_000;
        Settings {
            discipline,
            patience_ms: if discipline == Discipline::Las { 72 * HOUR_MS } else { 48 * HOUR_MS },
            wide_patience_percent: 77,
            drain_percent: 50,
            drain_after_runs: 8,
            drain_after_ms: HOUR_MS,
            drain_fill: 12,
            ageing_ms: 54 * HOUR_MS,
            default_run_ms: HOUR_MS,
            protected_ms: 60_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_discipline_of_its_own() {
        let all: Vec<Discipline> = Discipline::NAMES.iter().map(|name| name.parse().unwrap()).collect();
        for (index, discipline) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == discipline), Some(index));
        }
        assert_eq!("backfill_7".parse(), Ok(Discipline::Backfill { depth: 7 }));
        for wrong in ["", "FCFS", "backfill", "backfill_0", "backfill_-1", "sjf"] {
            assert_eq!(wrong.parse::<Discipline>(), Err(()), "{wrong}");
        }
    }
}
