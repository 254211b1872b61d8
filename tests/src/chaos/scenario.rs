//! Storms that take too long for every commit: many leases that end together, many requests that wait for one device.

mod expiry;
mod waiters;

pub use expiry::expiry_storm;
pub use waiters::waiters_on_one_gpu;
