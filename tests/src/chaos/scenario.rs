//! Storms that take too long for every commit: many leases that end together, many requests that wait for one device,
//! many agents that lose the leader together.

mod expiry;
mod probe;
mod reconnect;
mod waiters;

pub use expiry::expiry_storm;
pub use reconnect::reconnecting;
pub use waiters::waiters_on_one_gpu;
