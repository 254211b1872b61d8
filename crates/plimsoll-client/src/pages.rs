//! Lists that come in pages, as one list. The token of a page carries its revision, so all pages are one snapshot.

use plimsoll_proto::v1::{
    Class, Contention, Event, ListClassesRequest, ListContentionsRequest, ListEndpointsRequest,
    ListEventsRequest, ListNodeLimitsRequest, ListNodesRequest, ListPoolsRequest, ListQueuesRequest,
    ListQuotasRequest, ListReservationsRequest, ListScalingPoliciesRequest, ListSchedulesRequest,
    ListServicesRequest, ListValidatorsRequest, Node, NodeLimits, Pool, PoolStatus, Queue, QueueStatus,
    Reservation, ScalingPolicy, ScalingStatus, Schedule, ScheduleStatus, Service, ServiceEndpoint,
    ServiceStatus, UsageQuota, UsageQuotaStatus, Validator,
};

use crate::{Client, Error};

/// Objects asked for in one page.
const PAGE_SIZE: u32 = 1_000;

/// A whole list, as of one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed<T> {
    /// Everything that matched.
    pub items: Vec<T>,
    /// Revision that it reflects.
    pub revision: u64,
    /// For stale reads: milliseconds since the replica last heard of the leader.
    pub age_ms: u64,
}

macro_rules! pages {
    ($($(#[$doc:meta])* $name:ident = $method:ident($request:ident) -> $field:ident: $item:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// As for every call.
                pub async fn $name(&self, mut request: $request) -> Result<Listed<$item>, Error> {
                    if request.page_size == 0 {
                        request.page_size = PAGE_SIZE;
                    }
                    let mut listed = Listed { items: Vec::new(), revision: 0, age_ms: 0 };
                    loop {
                        let page = self.$method(request.clone()).await?;
                        listed.items.extend(page.$field);
                        listed.revision = page.revision;
                        listed.age_ms = page.age_ms;
                        if page.next_page_token.is_empty() {
                            return Ok(listed);
                        }
                        request.page_token = page.next_page_token;
                    }
                }
            )*
        }
    };
}

macro_rules! pages_with_status {
    ($($(#[$doc:meta])* $name:ident = $method:ident($request:ident) -> $field:ident: $item:ident, $status:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// As for every call.
                pub async fn $name(&self, mut request: $request) -> Result<Listed<($item, $status)>, Error> {
                    if request.page_size == 0 {
                        request.page_size = PAGE_SIZE;
                    }
                    let mut listed = Listed { items: Vec::new(), revision: 0, age_ms: 0 };
                    loop {
                        let page = self.$method(request.clone()).await?;
                        let statuses = page.statuses.into_iter().chain(std::iter::repeat($status::default()));
                        listed.items.extend(page.$field.into_iter().zip(statuses));
                        (listed.revision, listed.age_ms) = (page.revision, page.age_ms);
                        if page.next_page_token.is_empty() {
                            return Ok(listed);
                        }
                        request.page_token = page.next_page_token;
                    }
                }
            )*
        }
    };
}

pages_with_status! {
    /// All pools, each with what it looks like now.
    all_pools = list_pools(ListPoolsRequest) -> pools: Pool, PoolStatus;
    /// All queues, each with what it looks like now.
    all_queues = list_queues(ListQueuesRequest) -> queues: Queue, QueueStatus;
    /// All quotas of users, each with what was taken of it.
    all_quotas = list_quotas(ListQuotasRequest) -> quotas: UsageQuota, UsageQuotaStatus;
    /// All schedules, each with what it looks like now.
    all_schedules = list_schedules(ListSchedulesRequest) -> schedules: Schedule, ScheduleStatus;
    /// All services, each with what it looks like now.
    all_services = list_services(ListServicesRequest) -> services: Service, ServiceStatus;
    /// All scaling policies, each with what its target looks like now.
    all_scaling_policies = list_scaling_policies(ListScalingPoliciesRequest) -> scaling_policies: ScalingPolicy, ScalingStatus;
}

pages! {
    /// All reservations that match.
    all_reservations = list_reservations(ListReservationsRequest) -> reservations: Reservation;
    /// All nodes that match.
    all_nodes = list_nodes(ListNodesRequest) -> nodes: Node;
    /// All endpoints of a service.
    all_endpoints = list_endpoints(ListEndpointsRequest) -> endpoints: ServiceEndpoint;
    /// All contentions that match.
    all_contentions = list_contentions(ListContentionsRequest) -> contentions: Contention;
    /// All validators.
    all_validators = list_validators(ListValidatorsRequest) -> validators: Validator;
    /// All classes.
    all_classes = list_classes(ListClassesRequest) -> classes: Class;
    /// All node limits.
    all_node_limits = list_node_limits(ListNodeLimitsRequest) -> node_limits: NodeLimits;
    /// All events that match and are still kept.
    all_events = list_events(ListEventsRequest) -> events: Event;
}
