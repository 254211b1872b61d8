//! Smooth weighted round robin: earliest deadline first (gRFC A58).
//!
//! Each endpoint is a job whose period is the inverse of its weight. The one with the earliest deadline is next, and its deadline moves on
//! by its period. Chosen over nginx's smooth weighted round robin because that looks at every endpoint on every pick; this costs the
//! logarithm. gRFC A58 draws each first deadline within the period; here it is half of the period, which is the mean of that, needs no
//! randomness and starts weights 5, 1, 1 as a a a b c a a. Equal weights are plain round robin.

use std::collections::{BTreeMap, BinaryHeap};

/// Period of a weight of 1: 44 bits, so that the largest weight of [`MAX_WEIGHT`] still has 14.
const UNIT: u64 = 1 << 44;
/// Larger weights count as this: [`Endpoint::MAX_WEIGHT`](crate::Endpoint::MAX_WEIGHT) in thousandths.
const MAX_WEIGHT: u32 = 1_000_000_000;
/// Deadlines are moved down before they reach this.
const REBASE_AT: u64 = 1 << 62;

/// Whose turn it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    jobs: BinaryHeap<Job>,
}

/// One endpoint's next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    deadline: u64,
    slot: u32,
    period: u64,
}

impl Ord for Job {
    /// The earliest deadline is the greatest, as the heap is one of maxima; the smaller number among equals.
    fn cmp(&self, other: &Job) -> std::cmp::Ordering {
        (other.deadline, other.slot).cmp(&(self.deadline, self.slot))
    }
}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Job) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Schedule {
    /// Takes up other members or weights. Those that stay keep their turns: a schedule that began anew with every change of weights would
    /// favour the first ones. Linear in the members, times the logarithm for finding those that stay.
    pub(crate) fn rebuild(&mut self, members: impl Iterator<Item = (u32, u32)>) {
        let now = self.jobs.peek().map_or(0, |job| job.deadline);
        let old: BTreeMap<u32, u64> = self.jobs.drain().map(|job| (job.slot, job.deadline)).collect();
        let job = |(slot, weight): (u32, u32)| {
            let period = UNIT / u64::from(weight.clamp(1, MAX_WEIGHT));
            let deadline = match old.get(&slot) {
                // A turn that was far away because the weight was small does not stay so.
                Some(deadline) => (*deadline).min(now.saturating_add(period)),
                None => now.saturating_add(period / 2),
            };
            Job { deadline, slot, period }
        };
        self.jobs = members.map(job).collect();
        self.rebase();
    }

    /// Who is next.
    pub(crate) fn next(&mut self) -> Option<u32> {
        let mut top = self.jobs.peek_mut()?;
        let slot = top.slot;
        top.deadline = top.deadline.saturating_add(top.period);
        let is_late = top.deadline >= REBASE_AT;
        // The heap is put in order where the guard ends.
        drop(top);
        if is_late {
            self.rebase();
        }
        Some(slot)
    }

    /// Moves all deadlines down by the earliest: order and distances stay.
    fn rebase(&mut self) {
        let earliest = self.jobs.peek().map_or(0, |job| job.deadline);
        self.jobs = self.jobs.drain().map(|job| Job { deadline: job.deadline - earliest, ..job }).collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(schedule: &mut Schedule, count: usize) -> Vec<u32> {
        (0..count).map(|_| schedule.next().unwrap()).collect()
    }

    fn of(weights: &[u32]) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.rebuild((0..).zip(weights.iter().copied()));
        schedule
    }

    #[test]
    fn weights_of_nginx_s_example_are_spread_out() {
        // Weights 5, 1, 1: each round of seven has five, one and one, and no two rounds differ.
        let mut schedule = of(&[5, 1, 1]);
        assert_eq!(turns(&mut schedule, 7), [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(turns(&mut schedule, 7), [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(turns(&mut of(&[1, 1, 1]), 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(turns(&mut of(&[2, 1]), 6), [0, 1, 0, 0, 1, 0]);
        assert_eq!(Schedule::default().next(), None);
    }

    #[test]
    fn a_change_does_not_begin_the_round_anew() {
        let mut schedule = of(&[1, 1, 1, 1]);
        assert_eq!(turns(&mut schedule, 2), [0, 1]);
        schedule.rebuild((0..4).map(|slot| (slot, 1)));
        assert_eq!(turns(&mut schedule, 4), [2, 3, 0, 1]);
        // One leaves, one joins.
        schedule.rebuild([0, 1, 3, 9].into_iter().map(|slot| (slot, 1)));
        let mut round = turns(&mut schedule, 4);
        round.sort_unstable();
        assert_eq!(round, [0, 1, 3, 9]);
    }

    proptest! {
        /// The property that the name promises: after any number of turns each has had its share, give or take one turn and the rounding.
        #[test]
        fn everybody_has_its_share_at_any_time(weights in prop::collection::vec(1_u32..100, 1..12), turns in 1_u32..500) {
            let mut schedule = of(&weights);
            let mut had = vec![0_u32; weights.len()];
            for _ in 0..turns {
                had[schedule.next().unwrap() as usize] += 1;
            }
            let sum: u32 = weights.iter().sum();
            for (had, weight) in had.iter().zip(&weights) {
                let share = f64::from(turns) * f64::from(*weight) / f64::from(sum);
                // EDF keeps each job within its period; the total may run ahead by half a turn of each.
                let slack = 1.0 + f64::from(*weight) / f64::from(sum) * weights.len() as f64 / 2.0;
                prop_assert!((f64::from(*had) - share).abs() <= slack, "{had} {share}");
            }
        }

        #[test]
        fn deadlines_never_run_over(weights in prop::collection::vec(any::<u32>(), 1..4)) {
            let mut schedule = of(&weights);
            schedule.jobs = schedule.jobs.drain().map(|job| Job { deadline: REBASE_AT - 1, ..job }).collect();
            for _ in 0..10 {
                schedule.next().unwrap();
            }
            prop_assert!(schedule.jobs.iter().all(|job| job.deadline < REBASE_AT));
        }
    }
}
