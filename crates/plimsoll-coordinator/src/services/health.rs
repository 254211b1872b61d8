//! Standard health and reflection. A coordinator is serving while it knows a leader; stale reads are served always.

use std::time::Duration;

use plimsoll_consensus::GroupStatus;
use plimsoll_proto::FILE_DESCRIPTOR_SET;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::core::Core;

/// Pause between questions to the leader while nothing changes.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Longest wait for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Services that need a leader; the empty name stands for the coordinator as a whole.
const NEED_A_LEADER: [&str; 10] = [
    "",
    "plimsoll.v1.ReservationService",
    "plimsoll.v1.NodeService",
    "plimsoll.v1.PolicyService",
    "plimsoll.v1.PlanService",
    "plimsoll.v1.EndpointService",
    "plimsoll.v1.AgentService",
    "plimsoll.v1.WatchService",
    "plimsoll.v1.ClusterService",
    "plimsoll.v1.AuditService",
];
/// Name under which stale reads report their health.
const STALE_READS: &str = "plimsoll.v1.stale-reads";

/// The health that this coordinator reports.
#[derive(Clone)]
pub(super) struct Health {
    reporter: HealthReporter,
}

impl Health {
    pub(super) fn new() -> (Health, HealthServer<impl HealthApi>) {
        let (reporter, server) = tonic_health::server::health_reporter();
        (Health { reporter }, server)
    }

    /// Follows the group for as long as the core runs. That a leader is known is not enough: a leader that is gone stays
    /// known until there is another. So it is asked, a few times a minute and at each change.
    pub(super) async fn follow(&self, core: &Core) {
        self.reporter.set_service_status(STALE_READS, ServingStatus::Serving).await;
        let mut changes = core.group().watch();
        let mut told = None;
        loop {
            let serves = tokio::select! {
                biased;
                () = core.ended() => break,
                serves = serves(core) => serves,
            };
            if told != Some(serves) {
                let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
                for service in NEED_A_LEADER {
                    self.reporter.set_service_status(service, status).await;
                }
                told = Some(serves);
            }
            tokio::select! {
                biased;
                () = core.ended() => break,
                () = tokio::time::sleep(ASK_AGAIN) => {}
                () = leadership_changed(&mut changes) => {}
            }
        }
        for service in NEED_A_LEADER.into_iter().chain([STALE_READS]) {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }
}

/// True where a leader with a quorum answers.
pub(crate) async fn serves(core: &Core) -> bool {
    matches!(tokio::time::timeout(ANSWER_WITHIN, core.linearize()).await, Ok(Ok(_)))
}

/// Waits for another leader; log positions change all the time.
async fn leadership_changed(changes: &mut watch::Receiver<GroupStatus>) {
    let before = changes.borrow().leader.clone();
    if changes.wait_for(|status| status.leader != before).await.is_err() {
        // The group has stopped; the core ends next.
        std::future::pending::<()>().await;
    }
}

/// Tells clients what the API is.
pub(super) fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(plimsoll_xds::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptor sets come from the compiler")
}
