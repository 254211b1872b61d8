//! A policy that has the pool grow and shrink while there is load, put again with other bounds now and then.

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

/// Puts the policy until the chaos is over, in seeds that scale.
pub async fn scale(client: Client, board: Arc<Board>, worker: usize) {
    let mut rng = Rng::of(board.seed, "scaling");
    if !rng.percent(SCALED_PERCENT) {
        return;
    }
    for number in 1_u64.. {
        tokio::time::sleep(Duration::from_millis(rng.between(500, 8_000))).await;
        if board.phase() != Phase::Chaos {
            return;
        }
        let objects = vec![v1::PolicyObject { object: Some(Object::ScalingPolicy(policy(&mut rng))) }];
        let request_id = format!("sim-{}-scaling-{number:05}", board.seed);
        let request = v1::ApplyPolicyRequest { request_id, objects, ..Default::default() };
        let client = client.with_timeout(Duration::from_millis(rng.between(500, 5_000)));
        send(&board, &client, worker, Request::Apply(request)).await;
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
