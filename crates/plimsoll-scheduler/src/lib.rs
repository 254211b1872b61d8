//! Pure planning: where a request goes, in which order the queue is served, and why something waits.
//!
//! Synchronous and deterministic: no clock, no async, no float; the random strategy draws from a seed. What the planner
//! proposes, the ledger admits by its own rule, so a mistake here wastes an entry and can never oversell.

mod agenda;
mod ahead;
mod blockers;
mod class_turns;
mod defragment;
pub mod elastic;
mod explain;
mod fit;
mod fleet;
pub mod forecast;
mod fragmentation;
mod headroom;
mod lens;
mod optimized;
mod order;
mod over_time;
mod overload;
mod planner;
mod points;
mod preemption;
pub mod queueing;
mod redistribute;
mod refusals;
mod repairs;
mod roles;
mod score;
mod search;
mod serve;
mod spending;
mod spot;
mod topology;
mod turns;
mod views;

pub use ahead::{NoStart, PlannedStart, StartEstimate, StartEstimates};
pub use defragment::{
    Cost, Defragmentation, DeviceClass, Fragmentation, LEAST_SCORE_PERMILLE, Move, Opening, Stay, Terrain,
    Why,
};
pub use explain::{
    Explanation, KeptPlaces, Scene, SingleChange, Suggestion, explain, explain_request, explain_request_of,
};
pub use overload::next_to_leave;
pub use planner::{Closed, Planner, Ticket};
pub use points::{PointTerm, points_of, rank_of};
pub use preemption::Eviction;
pub use redistribute::Relocation;
