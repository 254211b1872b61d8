//! What pools say of how their nodes come and go.

use plimsoll_ledger::limits::{MAX_POOL_NODES, MAX_TTL_MS, MIN_TTL_MS};
use plimsoll_ledger::{Elastic, Elasticity};

use super::check::Check;
use crate::v1;

/// Whether nodes come and go; `Unspecified` is the default. `None` for a number that this build does not know.
pub fn elasticity_from_v1(from: i32) -> Option<Elasticity> {
    Some(match v1::Elasticity::try_from(from).ok()? {
        v1::Elasticity::Unspecified | v1::Elasticity::Dynamic => Elasticity::Dynamic,
        v1::Elasticity::Static => Elasticity::Static,
        v1::Elasticity::Elastic => Elasticity::Elastic,
    })
}

/// Whether nodes come and go, as a message has it.
pub fn elasticity_to_v1(from: Elasticity) -> v1::Elasticity {
    match from {
        Elasticity::Dynamic => v1::Elasticity::Dynamic,
        Elasticity::Static => v1::Elasticity::Static,
        Elasticity::Elastic => v1::Elasticity::Elastic,
    }
}

pub(super) fn elastic(check: &mut Check, from: &v1::Pool) -> Elastic {
    let elasticity = elasticity_from_v1(from.elasticity).unwrap_or_else(|| {
        check.fail("elasticity", format!("{} is not an elasticity", from.elasticity));
        Elasticity::default()
    });
    let (min, max) = (u64::from(from.min_nodes), u64::from(from.max_nodes));
    check.range("max_nodes", max, 0, MAX_POOL_NODES);
    if max > 0 && min > max {
        check.fail("min_nodes", format!("is {min}, and max_nodes is {max}"));
    }
    check.range("min_nodes", min, 0, MAX_POOL_NODES);
    check.range("growth_nodes", from.growth_nodes.into(), 0, MAX_POOL_NODES);
    check.range_or_default("growth_ms", from.growth_ms, MIN_TTL_MS, MAX_TTL_MS);
    check.range_or_default("idle_timeout_ms", from.idle_timeout_ms, MIN_TTL_MS, MAX_TTL_MS);
    check.range("fragmentation_permille", from.fragmentation_permille.into(), 0, 1_000);
    let bounds = [
        ("min_nodes", min > 0),
        ("max_nodes", max > 0),
        ("growth_nodes", from.growth_nodes > 0),
        ("growth_ms", from.growth_ms > 0),
        ("idle_timeout_ms", from.idle_timeout_ms > 0),
    ];
    for (field, _) in bounds.iter().filter(|(_, given)| *given && elasticity != Elasticity::Elastic) {
        check.fail(field, "bounds moves between pools, and there are none without elasticity elastic");
    }
    Elastic {
        elasticity,
        min_nodes: from.min_nodes,
        max_nodes: from.max_nodes,
        growth_nodes: from.growth_nodes,
        growth_ms: from.growth_ms,
        idle_timeout_ms: from.idle_timeout_ms,
        fragmentation_permille: from.fragmentation_permille,
    }
}
