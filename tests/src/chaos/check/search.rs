//! A small search in the manner of Wing and Gong: is there an order of the operations of one object that agrees with their times and with what
//! the object allows? It knows no revisions, so that a log that lies consistently does not help.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::chaos::history::NEVER_US;

/// States looked at before the search gives up.
const BUDGET: usize = 200_000;

/// One operation on the object.
#[derive(Clone, Debug)]
pub(super) struct Interval<O> {
    /// It took effect after this, in microseconds.
    pub(super) called_us: u64,
    /// And before this; [`NEVER_US`] for one that may have taken effect at any later moment, or never.
    pub(super) returned_us: u64,
    /// What it was.
    pub(super) operation: O,
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is such an order.
    Explained,
    /// There is none: at most so many of the operations fit.
    Impossible(usize),
    /// Too many to look at.
    Undecided,
}

/// Where a branch of the search stands.
#[derive(Clone, Debug, Hash)]
struct Branch<S> {
    /// All sure operations before this one have their place.
    base: usize,
    /// And these after it.
    beyond: Vec<usize>,
    /// Unsure operations that have a place.
    used: Vec<usize>,
    state: S,
}

/// Looks for an order. `step` is what an operation makes of a state, or `None` where the object does not allow it then.
pub(super) fn search<S, O>(
    operations: &[Interval<O>],
    start: S,
    step: impl Fn(&S, &O) -> Option<S>,
) -> Verdict
where
    S: Clone + Hash,
    O: Clone,
{
    let is_sure = |one: &&Interval<O>| one.returned_us != NEVER_US;
    let mut sure: Vec<&Interval<O>> = operations.iter().filter(is_sure).collect();
    sure.sort_by_key(|one| one.called_us);
    let mut unsure: Vec<&Interval<O>> = operations.iter().filter(|one| !is_sure(one)).collect();
    unsure.sort_by_key(|one| one.called_us);
    let mut open = vec![Branch { base: 0, beyond: Vec::new(), used: Vec::new(), state: start }];
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    let mut furthest = 0;
    while let Some(branch) = open.pop() {
        furthest = furthest.max(branch.base + branch.beyond.len());
        if branch.base == sure.len() {
            return Verdict::Explained;
        }
        if !seen.insert(fingerprint(&branch)) {
            continue;
        }
        if seen.len() > BUDGET {
            return Verdict::Undecided;
        }
        open.extend(next(&branch, &sure, &unsure, &step));
    }
    Verdict::Impossible(furthest)
}

/// Branches one operation further, the most promising last: sure ones that had to be done first, then unsure ones.
fn next<S: Clone, O>(
    branch: &Branch<S>,
    sure: &[&Interval<O>],
    unsure: &[&Interval<O>],
    step: &impl Fn(&S, &O) -> Option<S>,
) -> Vec<Branch<S>> {
    let mut first_return = NEVER_US;
    let mut candidates = Vec::new();
    for (index, one) in sure.iter().enumerate().skip(branch.base) {
        if one.called_us > first_return {
            break;
        }
        if !branch.beyond.contains(&index) {
            first_return = first_return.min(one.returned_us);
            candidates.push(index);
        }
    }
    candidates.retain(|index| sure[*index].called_us <= first_return);
    candidates.sort_by_key(|index| std::cmp::Reverse(sure[*index].returned_us));
    let mut branches = Vec::new();
    for (index, one) in unsure.iter().enumerate().take_while(|(_, one)| one.called_us <= first_return) {
        if !branch.used.contains(&index)
            && let Some(state) = step(&branch.state, &one.operation)
        {
            let mut used = branch.used.clone();
            used.push(index);
            used.sort_unstable();
            branches.push(Branch { base: branch.base, beyond: branch.beyond.clone(), used, state });
        }
    }
    for index in candidates {
        if let Some(state) = step(&branch.state, &sure[index].operation) {
            let (mut base, mut beyond) = (branch.base, branch.beyond.clone());
            beyond.push(index);
            beyond.sort_unstable();
            while beyond.first() == Some(&base) {
                beyond.remove(0);
                base += 1;
            }
            branches.push(Branch { base, beyond, used: branch.used.clone(), state });
        }
    }
    branches
}

/// 128 bits stand for a branch: two different ones are never taken for each other.
fn fingerprint<S: Hash>(branch: &Branch<S>) -> (u64, u64) {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        branch.hash(&mut hasher);
        hasher.finish()
    };
    (half(1), half(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    enum Register {
        Write(u8),
        Read(u8),
    }

    fn run(operations: &[(u64, u64, Register)]) -> Verdict {
        let of = |(called_us, returned_us, operation): &(u64, u64, Register)| Interval {
            called_us: *called_us,
            returned_us: *returned_us,
            operation: operation.clone(),
        };
        search(&operations.iter().map(of).collect::<Vec<_>>(), 0u8, |state, operation| match operation {
            Register::Write(value) => Some(*value),
            Register::Read(value) => (state == value).then_some(*state),
        })
    }

    #[test]
    fn overlapping_operations_may_go_either_way() {
        use Register::{Read, Write};
        assert_eq!(run(&[(0, 10, Write(1)), (5, 15, Read(0)), (5, 15, Read(1))]), Verdict::Explained);
        assert_eq!(run(&[(0, 10, Write(1)), (11, 15, Read(0))]), Verdict::Impossible(1));
        assert_eq!(
            run(&[(0, 10, Write(1)), (0, 10, Write(2)), (11, 12, Read(1)), (13, 14, Read(2))]),
            Verdict::Impossible(3)
        );
    }

    #[test]
    fn an_unknown_one_may_happen_late_or_never() {
        use Register::{Read, Write};
        let unknown = (0, NEVER_US, Write(1));
        assert_eq!(run(&[unknown.clone(), (5, 6, Read(0)), (7, 8, Read(1))]), Verdict::Explained);
        assert_eq!(run(&[unknown.clone(), (5, 6, Read(0))]), Verdict::Explained);
        assert_eq!(run(&[unknown, (5, 6, Read(1)), (7, 8, Read(0))]), Verdict::Impossible(1));
    }
}
