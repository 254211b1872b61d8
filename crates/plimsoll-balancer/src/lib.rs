//! Endpoint choice: which endpoint of a service takes the next request. Used alike by the coordinator, by clients that pick for themselves, and
//! for weights that are sent to other balancers.
//!
//! | policy | chooses | after |
//! | --- | --- | --- |
//! | `round_robin` | in turns, by weight | earliest deadline first (gRFC A58) |
//! | `least_loaded` | the one with fewer outstanding requests of two at random | Mitzenmacher; Envoy's least request |
//! | `latency` | the one with the lower peak EWMA × (outstanding + 1) of two at random | Finagle, tower |
//! | `weighted` | in turns, by `qps / (utilization + errors / qps × penalty)` | gRFC A58, ORCA |
//! | `affinity` | the one that the key belongs to, up to a bound on its load | consistent hashing with bounded loads |
//! | `predictive` | the one that is expected to be done first | queued work, kept prompt blocks, loaded models |
//!
//! Beneath every policy: priority levels with spill-over and panic (Envoy), ejection of outliers (gRFC A50), slow start (Envoy), subsetting
//! (gRFC A68), draining, ends of leases.
//!
//! Pure: no clock, no randomness, no I/O, no threads; time and random bits are arguments. The same calls give the same picks. Integers only.
//! Nothing panics on any input.

mod blocks;
mod ejection;
mod endpoint;
mod ewma;
mod levels;
mod mix;
mod p2c;
mod picker;
mod policy;
mod predictive;
mod refresh;
mod report;
mod request;
mod ring;
mod schedule;
mod slow_start;
mod subset;

pub use blocks::BlockCache;
pub use ejection::{EjectionSettings, FailurePercentage, SuccessRate};
pub use endpoint::{Endpoint, EndpointId, EndpointIndex, Health};
pub use ewma::LatencySettings;
pub use levels::LevelSettings;
pub use picker::{NoEndpoint, Picker};
pub use policy::{Policy, Settings, UnknownPolicy};
pub use predictive::PredictiveSettings;
pub use report::{LoadReport, ReportSettings};
pub use request::{Flight, Outcome, Request};
pub use ring::AffinitySettings;
pub use slow_start::SlowStart;
pub use subset::Subset;
