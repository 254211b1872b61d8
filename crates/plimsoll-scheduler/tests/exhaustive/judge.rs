//! A verdict of the planner against all that there is.

use plimsoll_ledger::{Ledger, Placement, Request, Verdict};

use super::scene::Scene;

/// What decides on a request: the planner, or one that is wrong on purpose.
pub(crate) type Decide<'a> = &'a mut dyn FnMut(&Ledger, &Request) -> Verdict;

/// What is wrong with a verdict, in one sentence.
pub(crate) fn judge(scene: &Scene<'_>, request: &Request, verdict: &Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Place(Placement { members }) => match scene.broken(request, members) {
            Some(rule) => Err(format!("{members:?} breaks {rule:?}")),
            None => Ok(()),
        },
        Verdict::Blocked(blockers) => match scene.any_place(request) {
            Some(place) => Err(format!("a place was missed: {place:?}, for {blockers:?}")),
            None if blockers.is_empty() => Err("nothing is said to stand in the way".to_owned()),
            None => Ok(()),
        },
        Verdict::Infeasible(blockers) => {
            let place = scene.any_place(request).or_else(|| scene.emptied().any_place(request));
            match place {
                Some(place) => Err(format!("it is no infeasible request: {place:?}, for {blockers:?}")),
                None if blockers.is_empty() => Err("nothing is said to make it infeasible".to_owned()),
                None => Ok(()),
            }
        }
    }
}
