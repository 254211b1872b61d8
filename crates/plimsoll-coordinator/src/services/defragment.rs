//! Fragmentation, and plans against it, as the API shows them.

use plimsoll_ledger::{Command, Ledger, Placement, Pool};
use plimsoll_proto::{convert, v1};
use plimsoll_scheduler::{Cost, Defragmentation, Fragmentation, Move, Opening, Stay, Terrain, Why};

use super::api::Api;
use super::edge::Actor;
use super::intent::Intent;
use super::names;
use super::problem::Problem;
use crate::core::ByPool;

/// Moves of a plan, where nobody says and at most.
const MOVES: (usize, usize) = (32, 256);

/// A pool's status with its fragmentation, as it was measured for all.
pub(super) fn with_fragmentation(status: v1::PoolStatus, all: &ByPool, pool: &Pool) -> v1::PoolStatus {
    let measured = all.get(&pool.name).into_iter().flatten();
    let threshold = pool.elastic.fragmentation_permille;
    let fragmentation = measured.map(|one| fragmentation_to_v1(one.clone(), threshold)).collect();
    v1::PoolStatus { fragmentation, ..status }
}

/// Thousandths of a class's free GPU from which on it is said to be fragmented when they are stranded; 0 for no such line.
fn threshold_of(ledger: &Ledger, pool: &str) -> u32 {
    ledger.pool(pool).map_or(0, |pool| pool.elastic.fragmentation_permille)
}

/// The plan for a pool, at the revision that this coordinator has applied.
pub(super) async fn plan(api: &Api, pool: &str, max_moves: u32) -> Result<Defragmentation, Problem> {
    let pool = names::object("pools", pool)?;
    api.check_in_cluster()?;
    let terrain = {
        let view = api.core.local();
        view.pool(pool).ok_or_else(|| Problem::not_found("pool", pool))?;
        Terrain::of_pool(&view, pool)
    };
    let most = if max_moves == 0 { MOVES.0 } else { (max_moves as usize).min(MOVES.1) };
    // The plan looks at each grant on each node: not with the ledger held, nor on a thread that serves others.
    let plan = tokio::task::spawn_blocking(move || terrain.plan(most)).await;
    plan.map_err(|_| Problem::internal("the plan was not finished"))
}

/// Plans, and asks the ledger about each move in its order. A move that is refused leaves the others as they are.
pub(super) async fn carry_out(
    api: &Api,
    actor: &Actor,
    mut request: v1::DefragmentRequest,
) -> Result<v1::DefragmentResponse, Problem> {
    let request_id = std::mem::take(&mut request.request_id);
    let validate_only = std::mem::take(&mut request.validate_only);
    let plan = plan(api, &request.pool, request.max_moves).await?;
    let moves = plan.moves.clone();
    let shown = {
        let _turn = api.turn().await;
        answer(&api.local(), &request.pool, plan)
    };
    let mut outcomes = Vec::with_capacity(moves.len());
    for one in moves {
        // A call that is made again plans anew: who was given notice by the first is not among those who may go.
        let of_move = blake3::hash(format!("{request_id}/{}", one.reservation).as_bytes()).to_hex();
        let key = if request_id.is_empty() { String::new() } else { of_move[..32].to_owned() };
        let command = Command::Relocate {
            reservation: one.reservation,
            placement: Placement { members: vec![one.to] },
        };
        let intent = Intent::of_command(actor, "defragment", key, validate_only, &request, command)?;
        let (revision, refusal) = match api.submit(intent).await {
            Ok(answer) => (if validate_only { 0 } else { answer.revision.0 }, String::new()),
            Err(problem) => match problem.of_one_thing() {
                Some(why) => (0, why),
                None => return Err(problem),
            },
        };
        let reservation = one.reservation.to_string();
        outcomes.push(v1::DefragmentationOutcome { reservation, revision, refusal });
    }
    Ok(v1::DefragmentResponse { plan: Some(shown), outcomes })
}

/// A plan, with the names that the ledger has now.
pub(super) fn answer(ledger: &Ledger, pool: &str, plan: Defragmentation) -> v1::PlanDefragmentationResponse {
    let threshold = threshold_of(ledger, pool.strip_prefix("pools/").unwrap_or(pool));
    let shown =
        |all: Vec<Fragmentation>| all.into_iter().map(|one| fragmentation_to_v1(one, threshold)).collect();
    v1::PlanDefragmentationResponse {
        revision: plan.revision.0,
        before: shown(plan.before),
        after: shown(plan.after),
        moves: plan.moves.into_iter().filter_map(|one| move_to_v1(ledger, one)).collect(),
        opens: plan.opens.iter().map(opening_to_v1).collect(),
        stays: plan.stays.iter().map(|one| stay_to_v1(ledger, one)).collect(),
        movable: plan.movable,
        unmovable: plan.unmovable,
        preemptions_left: (plan.preemptions_left < u64::MAX).then_some(plan.preemptions_left),
    }
}

/// `None` for one that ended and was forgotten since.
fn move_to_v1(ledger: &Ledger, one: Move) -> Option<v1::DefragmentationMove> {
    let reservation = ledger.reservation(one.reservation)?;
    let mut to = convert::allocations(&reservation.request, &[one.to], &reservation.amounts, ledger);
    Some(v1::DefragmentationMove {
        reservation: Some(convert::reservation_to_v1(reservation, ledger)),
        to: to.pop(),
        cost: Some(cost_to_v1(&one.cost)),
    })
}

fn cost_to_v1(from: &Cost) -> v1::DefragmentationCost {
    v1::DefragmentationCost {
        saving_milli: from.saving_milli,
        held_milli: from.held_milli,
        lost_ms: from.lost_ms,
        score_permille: from.score_permille,
    }
}

fn opening_to_v1(from: &Opening) -> v1::DefragmentationOpening {
    v1::DefragmentationOpening {
        gpu: Some(convert::gpu_to_v1(&from.gpu)),
        amounts: Some(convert::resources_to_v1(&from.amounts)),
        nodes_before: from.nodes_before,
        nodes_after: from.nodes_after,
    }
}

fn stay_to_v1(ledger: &Ledger, from: &Stay) -> v1::DefragmentationStay {
    let stay = |why: &str| v1::DefragmentationStay {
        reservation: from.reservation.to_string(),
        why: why.to_owned(),
        ..v1::DefragmentationStay::default()
    };
    match &from.why {
        Why::Bound(why) => stay(why),
        Why::NothingSaved => stay("nothing less would be stranded wherever it went"),
        Why::NoMoreMoves => {
            stay("no more moves: as many as were asked for, or as the pool may preempt in an hour")
        }
        Why::NotWorthIt(node, cost) => v1::DefragmentationStay {
            node: ledger.node(*node).map(|node| node.name().to_owned()).unwrap_or_default(),
            cost: Some(cost_to_v1(cost)),
            ..stay("a move would save too little for the work that it loses")
        },
    }
}

fn fragmentation_to_v1(from: Fragmentation, threshold_permille: u32) -> v1::DeviceFragmentation {
    v1::DeviceFragmentation {
        over_threshold: from.is_over(threshold_permille),
        model: from.class.model,
        memory_bytes: from.class.memory_bytes,
        devices: from.devices,
        free_milli: from.free_milli,
        stranded_milli: from.stranded_milli,
    }
}
