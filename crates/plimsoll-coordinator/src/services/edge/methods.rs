//! Every method of the client API: who answers it, and how long it may take. A method that is not here is not served.

use std::time::Duration;

/// Longest time for an ordinary call.
pub(crate) const MOST_CALL: Duration = Duration::from_secs(30);
/// Longest time for a change of membership: a new member may have to load a snapshot first.
pub(crate) const MOST_MEMBERSHIP: Duration = Duration::from_secs(600);

/// One method of the client API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// Full path, such as `/plimsoll.v1.NodeService/GetNode`. Also its label in metrics.
    pub(crate) path: &'static str,
    /// Who answers it.
    pub(crate) by: AnsweredBy,
    /// Longest time to the answer; `None` for streams.
    pub(crate) most: Option<Duration>,
}

/// Who answers a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    /// The leader alone: others pass it on.
    Leader,
    /// The coordinator that is asked.
    Anyone,
    /// The coordinator that is asked, and only another coordinator may ask.
    Peer,
}

const LEADER: AnsweredBy = AnsweredBy::Leader;
const ANYONE: AnsweredBy = AnsweredBy::Anyone;

const fn call(by: AnsweredBy, path: &'static str) -> Method {
    Method { path, by, most: Some(MOST_CALL) }
}

const fn stream(by: AnsweredBy, path: &'static str) -> Method {
    Method { path, by, most: None }
}

const fn membership(path: &'static str) -> Method {
    Method { path, by: LEADER, most: Some(MOST_MEMBERSHIP) }
}

/// All methods of the client API.
pub(crate) const METHODS: &[Method] = &[
    call(LEADER, "/plimsoll.v1.ReservationService/CreateReservation"),
    call(LEADER, "/plimsoll.v1.ReservationService/BatchCreateReservations"),
    call(LEADER, "/plimsoll.v1.ReservationService/ConfirmReservation"),
    call(LEADER, "/plimsoll.v1.ReservationService/RenewReservation"),
    call(LEADER, "/plimsoll.v1.ReservationService/BatchRenewReservations"),
    call(LEADER, "/plimsoll.v1.ReservationService/ResizeReservation"),
    call(LEADER, "/plimsoll.v1.ReservationService/ReleaseReservation"),
    call(LEADER, "/plimsoll.v1.ReservationService/BatchReleaseReservations"),
    call(LEADER, "/plimsoll.v1.ReservationService/CancelReservation"),
    call(ANYONE, "/plimsoll.v1.ReservationService/GetReservation"),
    call(ANYONE, "/plimsoll.v1.ReservationService/ListReservations"),
    call(ANYONE, "/plimsoll.v1.ReservationService/ExplainReservation"),
    stream(ANYONE, "/plimsoll.v1.ReservationService/WaitReservation"),
    stream(LEADER, "/plimsoll.v1.ReservationService/StreamReservations"),
    call(ANYONE, "/plimsoll.v1.NodeService/GetNode"),
    call(ANYONE, "/plimsoll.v1.NodeService/ListNodes"),
    call(LEADER, "/plimsoll.v1.NodeService/GetNodeSamples"),
    call(LEADER, "/plimsoll.v1.NodeService/CordonNode"),
    call(LEADER, "/plimsoll.v1.NodeService/UncordonNode"),
    call(LEADER, "/plimsoll.v1.NodeService/DrainNode"),
    call(LEADER, "/plimsoll.v1.NodeService/InterruptNode"),
    call(LEADER, "/plimsoll.v1.NodeService/FenceNode"),
    call(LEADER, "/plimsoll.v1.NodeService/FailNode"),
    call(LEADER, "/plimsoll.v1.NodeService/RemoveNode"),
    call(LEADER, "/plimsoll.v1.NodeService/SetDeviceHealth"),
    call(LEADER, "/plimsoll.v1.PolicyService/ApplyPolicy"),
    call(LEADER, "/plimsoll.v1.PolicyService/DeletePolicy"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetPool"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListPools"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetClass"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListClasses"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetNodeLimits"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListNodeLimits"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetQueue"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListQueues"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetQuota"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListQuotas"),
    call(LEADER, "/plimsoll.v1.PolicyService/TakeTokens"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetValidator"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListValidators"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetSchedule"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListSchedules"),
    call(ANYONE, "/plimsoll.v1.PolicyService/GetService"),
    call(ANYONE, "/plimsoll.v1.PolicyService/ListServices"),
    call(LEADER, "/plimsoll.v1.EndpointService/SetEndpoint"),
    call(ANYONE, "/plimsoll.v1.EndpointService/ListEndpoints"),
    stream(ANYONE, "/plimsoll.v1.EndpointService/WatchEndpoints"),
    call(ANYONE, "/plimsoll.v1.EndpointService/PickEndpoint"),
    call(ANYONE, "/plimsoll.v1.EndpointService/FinishPicks"),
    call(LEADER, "/plimsoll.v1.EndpointService/ReportLoad"),
    call(ANYONE, "/plimsoll.v1.ScalingService/GetScalingPolicy"),
    call(ANYONE, "/plimsoll.v1.ScalingService/ListScalingPolicies"),
    call(LEADER, "/plimsoll.v1.ScalingService/ScaleTarget"),
    call(LEADER, "/plimsoll.v1.ScalingService/ExplainScaling"),
    call(ANYONE, "/plimsoll.v1.ContentionService/GetContention"),
    call(ANYONE, "/plimsoll.v1.ContentionService/ListContentions"),
    call(LEADER, "/plimsoll.v1.PlanService/Plan"),
    call(ANYONE, "/plimsoll.v1.PlanService/PlanDefragmentation"),
    call(LEADER, "/plimsoll.v1.PlanService/Defragment"),
    stream(LEADER, "/plimsoll.v1.AgentService/Connect"),
    stream(ANYONE, "/plimsoll.v1.WatchService/Watch"),
    call(ANYONE, "/plimsoll.v1.WatchService/ListEvents"),
    call(ANYONE, "/plimsoll.v1.ClusterService/GetStatus"),
    call(ANYONE, "/plimsoll.v1.ClusterService/ListMembers"),
    call(ANYONE, "/plimsoll.v1.ClusterService/BootstrapCluster"),
    membership("/plimsoll.v1.ClusterService/AddMember"),
    membership("/plimsoll.v1.ClusterService/RemoveMember"),
    membership("/plimsoll.v1.ClusterService/ReplaceMember"),
    call(LEADER, "/plimsoll.v1.ClusterService/TransferLeader"),
    call(LEADER, "/plimsoll.v1.ClusterService/Upgrade"),
    stream(ANYONE, "/plimsoll.v1.AuditService/ExportLog"),
    call(ANYONE, "/plimsoll.v1.AuditService/GetStateDigest"),
    stream(ANYONE, "/plimsoll.v1.AuditService/DumpState"),
    stream(ANYONE, "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"),
    stream(ANYONE, "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"),
    call(LEADER, "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"),
    call(ANYONE, "/grpc.health.v1.Health/Check"),
    call(ANYONE, "/grpc.health.v1.Health/List"),
    stream(ANYONE, "/grpc.health.v1.Health/Watch"),
    stream(ANYONE, REFLECTION),
];

/// Those whose answers are pages, which may be large.
pub(crate) const LISTS: &[&str] = &[
    "/plimsoll.v1.ReservationService/ListReservations",
    "/plimsoll.v1.NodeService/ListNodes",
    "/plimsoll.v1.WatchService/ListEvents",
];

/// Tells what the API is, where it is offered.
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Package of the calls between coordinators.
const PEER_PREFIX: &str = "/plimsoll.internal.";
/// All of those are one method here.
const PEER: Method = stream(AnsweredBy::Peer, "/plimsoll.internal");

impl Method {
    /// Whether it is served at a port.
    pub(crate) fn is_offered(&self, reflection: bool) -> bool {
        reflection || self.path != REFLECTION
    }
}

/// The method of a path; `None` where it is not served.
pub(crate) fn find(path: &str) -> Option<Method> {
    if path.starts_with(PEER_PREFIX) {
        return Some(PEER);
    }
    // Some fifty comparisons, most of them decided by length: far below the cost of a call.
    METHODS.iter().find(|method| method.path == path).copied()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_table_is_exactly_the_api() {
        let set = prost_types::FileDescriptorSet::decode(plimsoll_proto::FILE_DESCRIPTOR_SET)
            .expect("a descriptor set");
        let mut declared = Vec::new();
        for file in set.file.iter().filter(|file| file.package() == "plimsoll.v1") {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let streams = method.client_streaming() || method.server_streaming();
                    declared.push((path, streams));
                }
            }
        }
        assert!(!declared.is_empty());
        for (path, streams) in &declared {
            let method = find(path).unwrap_or_else(|| panic!("{path} is not in the table"));
            assert_eq!(method.most.is_none(), *streams, "{path}: streams have no limit, calls do");
        }
        let known = METHODS.iter().filter(|method| method.path.starts_with("/plimsoll.")).count();
        assert_eq!(known, declared.len(), "no method twice, none that does not exist");
        assert!(LISTS.iter().all(|path| find(path).is_some_and(|method| method.by == ANYONE)));
    }

    #[test]
    fn what_is_not_in_the_table_is_not_served() {
        assert_eq!(find("/plimsoll.v1.NodeService/Nothing"), None);
        assert_eq!(find("/plimsoll.internal.v1.RaftService/Append"), Some(PEER));
    }
}
