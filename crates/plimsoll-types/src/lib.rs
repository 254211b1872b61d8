//! The words that every crate shares: ids, amounts, resource vectors, quantities as people write them, ledger time.
//!
//! Nothing here does I/O, reads a clock or draws a random number. Amounts are unsigned integers in the smallest unit
//! (millicores, bytes, thousandths of a device); arithmetic on them is checked, and overflow is an error value.

mod amount;
mod id;
pub mod quantity;
mod resources;
mod selector;
mod time;

pub use amount::{Amount, AmountOverflow};
pub use id::{DeviceIndex, IdError, NodeEpoch, NodeId, ReservationId, Revision, check_name};
pub use resources::{ResourceName, Resources};
pub use selector::{Labels, Operator, Selector, Term};
pub use time::LedgerTime;
