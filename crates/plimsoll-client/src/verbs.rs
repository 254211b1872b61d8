//! One method for each unary call of the API. Mutations get a request id where the caller gave none.

use plimsoll_proto::v1::agent_service_client::AgentServiceClient;
use plimsoll_proto::v1::audit_service_client::AuditServiceClient;
use plimsoll_proto::v1::cluster_service_client::ClusterServiceClient;
use plimsoll_proto::v1::contention_service_client::ContentionServiceClient;
use plimsoll_proto::v1::endpoint_service_client::EndpointServiceClient;
use plimsoll_proto::v1::node_service_client::NodeServiceClient;
use plimsoll_proto::v1::plan_service_client::PlanServiceClient;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;
use plimsoll_proto::v1::reservation_service_client::ReservationServiceClient;
use plimsoll_proto::v1::scaling_service_client::ScalingServiceClient;
use plimsoll_proto::v1::watch_service_client::WatchServiceClient;
use plimsoll_proto::v1::{self as api};
use tonic::transport::Channel;

use crate::answer::Answer;
use crate::client::{Client, Effect, MAX_ANSWER_BYTES};
use crate::error::Error;

/// Writes methods on `Client` for calls of one service: `read` may be repeated freely, `keyed` carries a request id,
/// `batch` carries one in each part.
macro_rules! verbs {
    ($service:ident: $($(#[$doc:meta])* $kind:ident $method:ident($request:ident) -> $response:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// As for every call: refused, unknown or unavailable.
                pub async fn $method(&self, request: api::$request) -> Result<api::$response, Error> {
                    verbs!(@effect $kind self request effect);
                    let send = |channel: Channel, message| async move {
                        let mut service =
                            $service::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                        service.$method(message).await
                    };
                    // The tries of a call are large: whoever awaits it need not carry them.
                    Box::pin(self.call(effect, request, send)).await
                }
            )*
        }
        $(verbs!(@answer $kind $response);)*
    };
    // Those of batches are in `answer.rs`.
    (@answer batch $response:ident) => {};
    (@answer $kind:ident $response:ident) => {
        impl Answer for api::$response {}
    };
    (@effect read $client:ident $request:ident $effect:ident) => {
        let $effect = Effect::Read;
    };
    (@effect keyed $client:ident $request:ident $effect:ident) => {
        let mut $request = $request;
        if $request.request_id.is_empty() {
            $request.request_id = $client.ids().request_id();
        }
        let $effect = Effect::Keyed($request.request_id.clone());
    };
    (@effect batch $client:ident $request:ident $effect:ident) => {
        let mut $request = $request;
        for part in &mut $request.requests {
            if part.request_id.is_empty() {
                part.request_id = $client.ids().request_id();
            }
        }
        let $effect =
            Effect::Keyed($request.requests.first().map(|part| part.request_id.clone()).unwrap_or_default());
    };
}

verbs! { ReservationServiceClient:
    /// Asks for a reservation.
    keyed create_reservation(CreateReservationRequest) -> CreateReservationResponse;
    /// Asks for many, with one answer each.
    batch batch_create_reservations(BatchCreateReservationsRequest) -> BatchCreateReservationsResponse;
    /// Makes a held grant active.
    keyed confirm_reservation(ConfirmReservationRequest) -> ConfirmReservationResponse;
    /// Buys another lease length.
    keyed renew_reservation(RenewReservationRequest) -> RenewReservationResponse;
    /// Renews many, with one answer each.
    batch batch_renew_reservations(BatchRenewReservationsRequest) -> BatchRenewReservationsResponse;
    /// Changes the amounts of a grant in place.
    keyed resize_reservation(ResizeReservationRequest) -> ResizeReservationResponse;
    /// Gives a grant back.
    keyed release_reservation(ReleaseReservationRequest) -> ReleaseReservationResponse;
    /// Releases many, with one answer each.
    batch batch_release_reservations(BatchReleaseReservationsRequest) -> BatchReleaseReservationsResponse;
    /// Ends a reservation in any state, without its token.
    keyed cancel_reservation(CancelReservationRequest) -> CancelReservationResponse;
    /// One reservation.
    read get_reservation(GetReservationRequest) -> GetReservationResponse;
    /// A page of reservations.
    read list_reservations(ListReservationsRequest) -> ListReservationsResponse;
    /// Why a reservation is where it is, or what would become of a request.
    read explain_reservation(ExplainReservationRequest) -> ExplainReservationResponse;
}

verbs! { NodeServiceClient:
    /// One node.
    read get_node(GetNodeRequest) -> GetNodeResponse;
    /// A page of nodes.
    read list_nodes(ListNodesRequest) -> ListNodesResponse;
    /// What nodes measured last, as far as the leader has heard of it.
    read get_node_samples(GetNodeSamplesRequest) -> GetNodeSamplesResponse;
    /// Keeps new work off a node.
    keyed cordon_node(CordonNodeRequest) -> CordonNodeResponse;
    /// Lets new work on a node again.
    keyed uncordon_node(UncordonNodeRequest) -> UncordonNodeResponse;
    /// Keeps new work off a node and ends what still runs at a deadline.
    keyed drain_node(DrainNodeRequest) -> DrainNodeResponse;
    /// Says that the provider of a node takes it back.
    keyed interrupt_node(InterruptNodeRequest) -> InterruptNodeResponse;
    /// Says that a node is off, so that what it held is free of claims.
    keyed fence_node(FenceNodeRequest) -> FenceNodeResponse;
    /// Says that a node is broken.
    keyed fail_node(FailNodeRequest) -> FailNodeResponse;
    /// Forgets a node.
    keyed remove_node(RemoveNodeRequest) -> RemoveNodeResponse;
    /// Says whether a device may be granted.
    keyed set_device_health(SetDeviceHealthRequest) -> SetDeviceHealthResponse;
}

verbs! { PlanServiceClient:
    /// What a change would come to. Nothing is changed.
    read plan(PlanRequest) -> PlanResponse;
    /// Which grants would have to go where against fragmentation. Nothing is changed.
    read plan_defragmentation(PlanDefragmentationRequest) -> PlanDefragmentationResponse;
    /// Gives notice to those that such a plan moves.
    keyed defragment(DefragmentRequest) -> DefragmentResponse;
}

verbs! { PolicyServiceClient:
    /// Creates, replaces and deletes policy objects, all or nothing.
    keyed apply_policy(ApplyPolicyRequest) -> ApplyPolicyResponse;
    /// Deletes policy objects, all or nothing.
    keyed delete_policy(DeletePolicyRequest) -> DeletePolicyResponse;
    /// One pool.
    read get_pool(GetPoolRequest) -> GetPoolResponse;
    /// A page of pools.
    read list_pools(ListPoolsRequest) -> ListPoolsResponse;
    /// One class.
    read get_class(GetClassRequest) -> GetClassResponse;
    /// A page of classes.
    read list_classes(ListClassesRequest) -> ListClassesResponse;
    /// One set of node limits.
    read get_node_limits(GetNodeLimitsRequest) -> GetNodeLimitsResponse;
    /// A page of node limits.
    read list_node_limits(ListNodeLimitsRequest) -> ListNodeLimitsResponse;
    /// Reads one queue.
    read get_queue(GetQueueRequest) -> GetQueueResponse;
    /// Reads the queues.
    read list_queues(ListQueuesRequest) -> ListQueuesResponse;
    /// Reads one quota of users.
    read get_quota(GetQuotaRequest) -> GetQuotaResponse;
    /// Reads the quotas of users.
    read list_quotas(ListQuotasRequest) -> ListQuotasResponse;
    /// Takes tokens of rates, each answered by itself.
    keyed take_tokens(TakeTokensRequest) -> TakeTokensResponse;
    /// Reads one validator.
    read get_validator(GetValidatorRequest) -> GetValidatorResponse;
    /// Reads the validators.
    read list_validators(ListValidatorsRequest) -> ListValidatorsResponse;
    /// Reads one schedule.
    read get_schedule(GetScheduleRequest) -> GetScheduleResponse;
    /// Reads the schedules.
    read list_schedules(ListSchedulesRequest) -> ListSchedulesResponse;
    /// Reads one service.
    read get_service(GetServiceRequest) -> GetServiceResponse;
    /// Reads the services.
    read list_services(ListServicesRequest) -> ListServicesResponse;
}

verbs! { EndpointServiceClient:
    /// Says where a replica listens, or that it does so no more.
    keyed set_endpoint(SetEndpointRequest) -> SetEndpointResponse;
    /// Reads the endpoints of a service.
    read list_endpoints(ListEndpointsRequest) -> ListEndpointsResponse;
    /// Chooses the endpoint for a request.
    read pick_endpoint(PickEndpointRequest) -> PickEndpointResponse;
    /// Says how requests went whose endpoints were picked.
    read finish_picks(FinishPicksRequest) -> FinishPicksResponse;
    /// Says how loaded endpoints are.
    read report_load(ReportLoadRequest) -> ReportLoadResponse;
}

verbs! { ScalingServiceClient:
    /// Reads one scaling policy, by its name or its target.
    read get_scaling_policy(GetScalingPolicyRequest) -> GetScalingPolicyResponse;
    /// Reads the scaling policies.
    read list_scaling_policies(ListScalingPoliciesRequest) -> ListScalingPoliciesResponse;
    /// Says by hand how many a target has, for a time.
    keyed scale_target(ScaleTargetRequest) -> ScaleTargetResponse;
    /// Why a target did or did not move.
    read explain_scaling(ExplainScalingRequest) -> ExplainScalingResponse;
}

verbs! { ContentionServiceClient:
    /// Reads the contention of a resource of a pool, with earlier ones.
    read get_contention(GetContentionRequest) -> GetContentionResponse;
    /// Reads the contentions.
    read list_contentions(ListContentionsRequest) -> ListContentionsResponse;
}

verbs! { WatchServiceClient:
    /// A page of past events.
    read list_events(ListEventsRequest) -> ListEventsResponse;
}

verbs! { ClusterServiceClient:
    /// How the coordinator that is asked is.
    read get_status(GetStatusRequest) -> GetStatusResponse;
    /// The coordinators.
    read list_members(ListMembersRequest) -> ListMembersResponse;
    /// Makes the coordinator that is asked the first member of a new cluster.
    keyed bootstrap_cluster(BootstrapClusterRequest) -> BootstrapClusterResponse;
    /// Raises the ledger version.
    keyed upgrade(UpgradeRequest) -> UpgradeResponse;
    /// Adds a coordinator.
    keyed add_member(AddMemberRequest) -> AddMemberResponse;
    /// Removes a coordinator.
    keyed remove_member(RemoveMemberRequest) -> RemoveMemberResponse;
    /// Puts one coordinator in another's place.
    keyed replace_member(ReplaceMemberRequest) -> ReplaceMemberResponse;
    /// Hands leadership on.
    keyed transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse;
}

verbs! { AuditServiceClient:
    /// Hashes of the log and of the state of the coordinator that is asked.
    read get_state_digest(GetStateDigestRequest) -> GetStateDigestResponse;
}

impl Client {
    /// The audit service at the coordinator in use, for its streams.
    ///
    /// # Errors
    /// [`Error::Invalid`] where its address cannot be used.
    pub fn audit(&self) -> Result<AuditServiceClient<Channel>, Error> {
        let (_, channel) = self.channel()?;
        Ok(AuditServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The agent service at the coordinator in use, for whoever carries nodes.
    ///
    /// # Errors
    /// [`Error::Invalid`] where its address cannot be used.
    pub fn agent_service(&self) -> Result<(String, AgentServiceClient<Channel>), Error> {
        let (address, channel) = self.channel()?;
        Ok((address, AgentServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)))
    }
}
