//! Between the API's messages and the ledger's types, one file per object.
//!
//! From the API: everything that makes no sense is listed, each with its path and numbers, before anything is looked up.
//! To the API: names instead of small integers, defaults filled in.

mod blocker;
mod check;
mod contention;
mod elastic;
mod event;
mod mig;
mod node;
mod policy;
mod qos;
mod queue;
mod request;
mod reservation;
mod resources;
mod scaling;
mod schedule;
mod service;
mod spot;
mod topology;
mod usage;
mod validator;

pub use blocker::{blocker_to_v1, decimal, reason_from_v1, reason_to_v1};
pub use check::Violation;
pub use contention::{
    contention_name, contention_to_v1, resolve_from_v1, resolve_to_v1, severity_from_v1, severity_to_v1,
};
pub use elastic::{elasticity_from_v1, elasticity_to_v1};
pub use event::{event_to_v1, object_kind};
pub use node::{node_lease, node_name, node_state, node_to_v1, registration_from_v1, registration_to_v1};
pub use policy::{
    class_from_v1, class_order_to_v1, class_status, class_to_v1, fairness_from_v1, fairness_to_v1,
    node_limits_from_v1, node_limits_to_v1, policy_name_from_v1, policy_name_to_v1, policy_object_from_v1,
    policy_object_to_v1, policy_objects_from_v1, pool_from_v1, pool_status, pool_to_v1, preemption_from_v1,
    preemption_to_v1, strategy_from_v1, strategy_to_v1,
};
pub use qos::qos_to_v1;
pub use queue::{queue_from_v1, queue_status, queue_to_v1};
pub use request::{fill_from_service, request_from_v1, request_to_v1};
pub use reservation::{
    allocations, end_reason_to_v1, reservation_name, reservation_to_v1, state_from_v1, state_to_v1,
};
pub use resources::{
    gpu_to_v1, requirements_from_v1, requirements_to_v1, resources_from_v1, resources_to_v1,
    selector_from_v1, selector_to_v1,
};
pub use scaling::{
    OWN_METRIC, intent_to_v1, scaling_decision_to_v1, scaling_policy_from_v1, scaling_policy_to_v1,
    scaling_rules, scaling_status, scaling_target_from_v1,
};
pub use schedule::{schedule_from_v1, schedule_status, schedule_to_v1};
pub use service::{
    announcement_from_v1, balancing_from_v1, balancing_to_v1, endpoint_to_v1, load_from_v1,
    service_endpoint_to_v1, service_from_v1, service_status, service_to_v1,
};
pub use spot::on_interruption_to_v1;
pub use usage::{
    measure_from_v1, meter_from_v1, meter_to_v1, quota_from_v1, quota_status, quota_to_v1, reset_from_v1,
    scope_from_v1,
};
pub use validator::{validator_from_v1, validator_to_v1};
