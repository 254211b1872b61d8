//! What each kind of thing shows of itself.

mod contention;
mod coordination;
mod nodes;
mod queue;
mod quota;
mod reservations;
mod scaling;
mod schedule;
mod service;
mod validator;

pub(crate) use contention::contention_line;
pub(crate) use coordination::{MemberRow, PoolRow, devices, stranded};
pub(crate) use nodes::{DeviceRow, NodeRow};
pub(crate) use queue::QueueRow;
pub(crate) use quota::{QuotaRow, UsageRow};
pub(crate) use reservations::{expected_start, members, reservation_state, too_full};
pub(crate) use scaling::{ScalingRow, intent_line};
pub(crate) use schedule::ScheduleRow;
pub(crate) use service::{EndpointRow, ServiceRow, endpoint_state};

use serde::Serialize;
use serde_json::Value;

/// The document of a message; messages of the API always have one.
fn document(message: &impl Serialize) -> Value {
    serde_json::to_value(message).unwrap_or(Value::Null)
}

/// Prefixes of the API's enumerations.
const PREFIXES: [&str; 19] = [
    "RESERVATION_STATE_",
    "NODE_STATE_",
    "END_REASON_",
    "STRATEGY_",
    "QUEUE_ORDER_",
    "DEVICE_ISOLATION_",
    "SELECTOR_OPERATOR_",
    "ERROR_REASON_",
    "MEMBER_ROLE_",
    "EVENT_KIND_",
    "OBJECT_KIND_",
    "ENDPOINT_STATE_",
    "BALANCING_",
    "INTENT_ACTION_",
    "INTENT_STATE_",
    "SCALING_SELECT_",
    "QOS_",
    "CONTENTION_SEVERITY_",
    "CONTENTION_RESOLVE_",
];

/// A value of an enumeration in lower-case words; `None` where the text is none.
pub(crate) fn enum_word(text: &str) -> Option<String> {
    PREFIXES.iter().find(|prefix| text.starts_with(**prefix)).map(|prefix| word(text, prefix))
}

/// `RESERVATION_STATE_ACTIVE` as `active`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}
