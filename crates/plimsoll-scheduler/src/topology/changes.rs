//! Smaller asks of places, one change each, to be tried.

use plimsoll_ledger::{Ledger, Request};

/// Requests that ask less of the places of members, in words and as they would be: the next outer level in place of the required one, no
/// groups, a rule about other work less.
pub(crate) fn changes(ledger: &Ledger, request: &Request) -> Vec<(String, Request)> {
    let mut changes = Vec::new();
    let mut change = |description: String, change: &dyn Fn(&mut Request)| {
        let mut changed = request.clone();
        change(&mut changed);
        changes.push((description, changed));
    };
    let asked = &request.topology;
    if !asked.required.is_empty() {
        let outer = ledger.pool(&request.pool).and_then(|pool| {
            let depth = pool.depth_of(&asked.required)?;
            pool.topology.get(depth.checked_sub(1)?).cloned()
        });
        if let Some(outer) = outer {
            let description = format!("require one {outer} in place of one {}", asked.required);
            change(description, &|request| request.topology.required.clone_from(&outer));
        }
        let description = format!("do not require one {}", asked.required);
        change(description, &|request| request.topology.required.clear());
    }
    if asked.slice_size > 0 {
        change(format!("drop the groups of {}", asked.slice_size), &|request| {
            request.topology.slice_size = 0;
            request.topology.slice_level.clear();
        });
    }
    for (index, rule) in request.affinity.iter().enumerate().filter(|(_, rule)| rule.is_required()) {
        let words = if rule.anti { "apart from" } else { "with" };
        let description = format!("do not require to be {words} {rule}");
        change(description, &|request| drop(request.affinity.remove(index)));
    }
    changes
}
