//! Token slices: tokens of one rate of the ledger, taken ahead of their use, and handed out on the spot. Used alike by coordinators, which answer proxies
//! (Envoy's rate limit service), and by clients that limit themselves.
//!
//! The ledger's rate is the only source: what it has given to all holders together never exceeds the burst and what the time brought. A holder that dies,
//! or that never hears the answer to its take, loses tokens and gives away none. So no failover can raise the sum.
//!
//! Pure: no clock, no randomness, no I/O; time is an argument, in milliseconds of any clock that only goes forward. Integers only.

mod slice;

pub use slice::{Ask, Slice, Step, VALID_MS};
