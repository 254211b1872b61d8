//! What each kind of thing shows of itself.

mod coordination;
mod nodes;
mod reservations;

pub(crate) use coordination::{MemberRow, PoolRow};
pub(crate) use nodes::DeviceRow;
pub(crate) use reservations::reservation_state;

use serde::Serialize;
use serde_json::Value;

/// The document of a message; messages of the API always have one.
fn document(message: &impl Serialize) -> Value {
    serde_json::to_value(message).unwrap_or(Value::Null)
}

/// `RESERVATION_STATE_ACTIVE` as `active`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}
