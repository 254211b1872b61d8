//! What has the fleet rearranged while there is load: in some seeds a policy by which the pool grows and shrinks, in the others one that has grants go
//! elsewhere so that larger requests fit, with a load for which that helps. Each is put again now and then, since the operator puts others.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_client::v1::policy_object::Object;
use plimsoll_client::v1::scaling_metric_target::Aim;
use plimsoll_client::v1::scaling_provider::Kind;
use plimsoll_client::{Client, v1};

use super::{NODES, send};
use crate::board::{Board, Phase};
use crate::request::Request;
use crate::rng::Rng;

/// What a machine of the cloud has.
pub const MACHINE_CPU_MILLIS: u64 = 4_000;
/// See [`MACHINE_CPU_MILLIS`].
pub const MACHINE_MEMORY_BYTES: u64 = 16 << 30;
/// So many of a hundred seeds scale.
const SCALED_PERCENT: u64 = 50;

/// So many of a hundred seeds redistribute.
const REDISTRIBUTED_PERCENT: u64 = 25;
/// Of a hundred turns of such a seed those that put the policy again.
const POLICY_PERCENT: u64 = 10;

/// Does what its seed does until the chaos is over: a quarter of them do nothing of this.
pub async fn rearrange(client: Client, board: Arc<Board>, worker: usize) {
    let mut rng = Rng::of(board.seed, "scaling");
    let nothing = 100 - SCALED_PERCENT - REDISTRIBUTED_PERCENT;
    let choices = [
        (SCALED_PERCENT, Some((true, 8_000))),
        (REDISTRIBUTED_PERCENT, Some((false, 1_200))),
        (nothing, None),
    ];
    let Some((scales, longest_ms)) = rng.weighted(&choices).flatten() else { return };
    for number in 1_u64.. {
        tokio::time::sleep(Duration::from_millis(rng.between(400, longest_ms))).await;
        if board.phase() != Phase::Chaos {
            return;
        }
        let request_id = format!("sim-{}-scaling-{number:05}", board.seed);
        let object = if scales {
            Some(Object::ScalingPolicy(policy(&mut rng)))
        } else if number == 1 || rng.percent(POLICY_PERCENT) {
            Some(Object::Pool(redistributing()))
        } else {
            None
        };
        let request = match object {
            Some(_) => {
                let objects = vec![v1::PolicyObject { object }];
                Request::Apply(v1::ApplyPolicyRequest { request_id, objects, ..Default::default() })
            }
            None => {
                let spec = Some(small_or_large(&mut rng));
                Request::Create(v1::CreateReservationRequest { request_id, spec, validate_only: false })
            }
        };
        let client = client.with_timeout(Duration::from_millis(rng.between(500, 5_000)));
        send(&board, &client, worker, request).await;
    }
}

/// A pool that spreads what it is asked for, and makes room where that is in the way.
fn redistributing() -> v1::Pool {
    let resolve = vec![v1::ContentionResolve::Redistribute.into()];
    v1::Pool {
        name: "default".to_owned(),
        strategy: v1::Strategy::WorstFit.into(),
        preemption: v1::Preemption::Any.into(),
        contention: Some(v1::ContentionPolicy { resolve, ..Default::default() }),
        ..Default::default()
    }
}

/// Three small requests for each that wants most of a node; all come back by themselves.
fn small_or_large(rng: &mut Rng) -> v1::ReservationSpec {
    let cpu_millis = if rng.percent(75) { 1_500 } else { 6_500 };
    let amounts = v1::Quantities { cpu_millis, memory_bytes: 1 << 30, ..Default::default() };
    v1::ReservationSpec {
        class: "batch".to_owned(),
        requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
        ttl_ms: rng.between(10_000, 30_000),
        auto_confirm: true,
        wait: Some(v1::WaitPolicy { queue: true, ..Default::default() }),
        on_preempt: v1::OnPreempt::Requeue.into(),
        ..Default::default()
    }
}

fn policy(rng: &mut Rng) -> v1::ScalingPolicy {
    let fixed = NODES.len() as u64;
    let behavior = |stabilization_ms| v1::ScalingBehavior { stabilization_ms, ..Default::default() };
    let provider = v1::ScalingProvider {
        kind: Some(Kind::Exec(v1::ExecProvider { command: "cloud".to_owned(), args: Vec::new() })),
        timeout_ms: 2_000,
        attempts: 4,
    };
    let resources = v1::Quantities {
        cpu_millis: MACHINE_CPU_MILLIS,
        memory_bytes: MACHINE_MEMORY_BYTES,
        ..Default::default()
    };
    let cpu = v1::ScalingMetricTarget {
        metric: "cpu".to_owned(),
        aim: Some(Aim::AverageMilli(1_000 * rng.between(20, 60))),
    };
    v1::ScalingPolicy {
        name: "sim".to_owned(),
        target: "pool/default".to_owned(),
        min: Some(1),
        max: Some(fixed + rng.between(1, 4)),
        targets: vec![cpu],
        scale_up: Some(behavior(0)),
        scale_down: Some(behavior(rng.between(1_000, 4_000))),
        provider: Some(provider),
        template: Some(v1::ScalingTemplate { resources: Some(resources), ..Default::default() }),
        max_leaving: 2,
        drain_ms: rng.weighted(&[(1, 0), (2, 2_000)]).unwrap_or(0),
        start_within_ms: 8_000,
        ..Default::default()
    }
}
