//! Standard health and reflection. A coordinator is serving while it knows a leader; stale reads are served always.

use plimsoll_proto::FILE_DESCRIPTOR_SET;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::HealthReporter;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::core::Core;

/// Services that need a leader; the empty name stands for the coordinator as a whole.
const NEED_A_LEADER: [&str; 8] = [
    "",
    "plimsoll.v1.ReservationService",
    "plimsoll.v1.NodeService",
    "plimsoll.v1.PolicyService",
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

    /// Follows the group for as long as the core runs.
    pub(super) async fn follow(&self, core: &Core) {
        self.reporter.set_service_status(STALE_READS, ServingStatus::Serving).await;
        let mut changes = core.group().watch();
        let mut told = None;
        loop {
            let knows_leader = core.leader_address().is_some();
            if told != Some(knows_leader) {
                let status = if knows_leader { ServingStatus::Serving } else { ServingStatus::NotServing };
                for service in NEED_A_LEADER {
                    self.reporter.set_service_status(service, status).await;
                }
                told = Some(knows_leader);
            }
            if changes.changed().await.is_err() {
                break;
            }
        }
        for service in NEED_A_LEADER.into_iter().chain([STALE_READS]) {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }
}

/// Tells clients what the API is.
pub(super) fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptor sets come from the compiler")
}
