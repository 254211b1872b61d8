//! Planners that are wrong on purpose, each in one way: what does not tell them from the right one is no net.

use plimsoll_ledger::{Ledger, Request, Topology, Verdict};
use plimsoll_scheduler::Planner;
use plimsoll_types::Selector;

/// A way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Gives up where the first node does not fit.
    Hasty,
    /// Does not look at quotas.
    QuotaBlind,
    /// Forgets that members have to be near each other.
    Scattering,
    /// Takes one member too few for a gang.
    OneShort,
    /// Says of everything that waits that it never can start.
    Pessimist,
    /// Counts half of the cpu that is asked.
    Overcommitting,
    /// Does not look at labels of nodes.
    LabelBlind,
    /// Puts every instance where the first one would go.
    SliceBlind,
    /// Does not look at other work.
    Unsocial,
}

impl Wrong {
    pub(crate) const ALL: [Wrong; 9] = [
        Wrong::Hasty,
        Wrong::QuotaBlind,
        Wrong::Scattering,
        Wrong::OneShort,
        Wrong::Pessimist,
        Wrong::Overcommitting,
        Wrong::LabelBlind,
        Wrong::SliceBlind,
        Wrong::Unsocial,
    ];

    /// What such a planner says.
    pub(crate) fn decide(self, ledger: &Ledger, request: &Request) -> Verdict {
        let right = |request: &Request| Planner::new(ledger, 7).place(ledger, request);
        let mut other = request.clone();
        match self {
            Wrong::Hasty => match right(request) {
                Verdict::Place(place) if place.members[0].node.0 > 0 => {
                    Verdict::Blocked(vec![blocker(request)])
                }
                verdict => verdict,
            },
            Wrong::QuotaBlind => {
                other.queue.clear();
                right(&other)
            }
            Wrong::Scattering => {
                other.topology = Topology::default();
                right(&other)
            }
            Wrong::OneShort => match right(request) {
                Verdict::Place(mut place) if request.gang.min_members > 1 => {
                    place.members.truncate(request.gang.min_members as usize - 1);
                    Verdict::Place(place)
                }
                verdict => verdict,
            },
            Wrong::Pessimist => match right(request) {
                Verdict::Blocked(blockers) => Verdict::Infeasible(blockers),
                verdict => verdict,
            },
            Wrong::Overcommitting => {
                other.requirements.amounts.cpu_millis.0 /= 2;
                right(&other)
            }
            Wrong::LabelBlind => {
                other.requirements.required = Selector::default();
                right(&other)
            }
            Wrong::SliceBlind => match right(request) {
                Verdict::Place(mut place) => {
                    let grants = place.members.iter_mut().flat_map(|member| &mut member.devices);
                    grants.filter_map(|grant| grant.slices.as_mut()).for_each(|slices| slices.start = 0);
                    Verdict::Place(place)
                }
                verdict => verdict,
            },
            Wrong::Unsocial => {
                other.affinity.clear();
                other.labels.clear();
                right(&other)
            }
        }
    }
}

fn blocker(request: &Request) -> plimsoll_ledger::Blocker {
    plimsoll_ledger::Blocker::new(plimsoll_ledger::Reason::NoCapacity, request.pool.as_str(), 1, 0)
}
