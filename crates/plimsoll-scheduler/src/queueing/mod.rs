//! Queueing: in which order what waits is served, what may overtake, who is drained or preempted for whom, and when each
//! will start. One [`Queueing`] serves the queue of one pool, in a coordinator as in a simulation.
//!
//! Pure: it learns what happens through [`Queueing::observe`] and decides in [`Queueing::walk`]. Nothing here looks at how
//! long something will run; lengths are declared, or learned from what has ended.

mod ask;
mod backfill;
mod discipline;
mod domains;
mod drain;
mod engine;
mod entry;
mod estimate;
mod history;
mod pending;
mod preempt;
mod profile;
mod rank;
mod sketch;
#[cfg(test)]
mod tests;
mod walk;

pub use ask::{Ask, Measure};
pub use discipline::{Discipline, Settings};
pub use domains::{Domains, Spot};
pub use engine::{Decisions, Queueing};
pub use entry::{ATTAINED_LABEL, QUEUED_SINCE_LABEL, resubmission};
pub use estimate::StartEstimate;
pub use history::History;
pub use profile::{FOREVER, Profile};
pub use rank::FORBEARANCE;
pub use sketch::{Outlook, SLOWDOWN_BOUND_MS, Sketch};
