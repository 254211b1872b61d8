//! Nodes that move between elastic pools: looked for on a copy of the ledger, proposed one by one, judged again as they are applied.

use plimsoll_ledger::Command;
use plimsoll_scheduler::elastic::{self, IdleWatch};
use plimsoll_types::LedgerTime;
use tokio::time::Instant;

use super::{Look, bounded, propose};
use crate::core::Core;

/// A look that took so long is not taken again for so many times as long: copies of a large ledger cost no more than that part of a processor.
const REST: u32 = 9;

/// What a leader has seen of elastic pools.
#[derive(Default)]
pub(super) struct Moves {
    /// Since when nodes of elastic pools have had nothing on them.
    idle: IdleWatch,
    /// No copy is made before.
    rests_until: Option<Instant>,
}

/// Name of the latest look at a pool's nodes among [`super::Looks`]: no policy has such a name.
pub(crate) fn pool_look(pool: &str) -> String {
    format!("pool/{pool}")
}

/// True for the name of a look at a pool's nodes.
pub(super) fn is_pool(name: &str) -> bool {
    name.starts_with("pool/")
}

/// One look at all elastic pools. Where nobody waits and none is short of nodes, it only notes which nodes are idle.
pub(super) async fn look(core: &Core, moves: &mut Moves) {
    let (now, wanted) = {
        let ledger = core.local();
        let now = LedgerTime(core.clock().now_ms()).max(ledger.clock());
        moves.idle.look(&ledger, now);
        (now, elastic::may_want_moves(&ledger))
    };
    if !wanted {
        core.looks().retain(|name| !is_pool(name));
        return;
    }
    let began = Instant::now();
    if moves.rests_until.is_some_and(|until| began < until) {
        return;
    }
    let Some(copy) = core.copy().await else { return };
    let found = plimsoll_consensus::at_length(|| elastic::look(copy, &moves.idle, now));
    let took = began.elapsed();
    moves.rests_until = Some(began + took + took * REST);
    let mut refused = String::new();
    for one in found.moves {
        let command = Command::MoveNode { node: one.node, from: one.from, to: one.to };
        // A refusal is news of the next look: something changed meanwhile.
        if let Err(why) = propose(core, command).await {
            refused = why;
        }
    }
    core.looks().retain(|name| !is_pool(name) || found.lines.keys().any(|pool| pool_look(pool) == name));
    for (pool, lines) in found.lines {
        let lines = lines.iter().map(|line| bounded(line)).collect();
        let look = Look { at_ms: now.0, desired: 0, lines, problem: refused.clone() };
        core.looks().put(&pool_look(&pool), look);
    }
}
