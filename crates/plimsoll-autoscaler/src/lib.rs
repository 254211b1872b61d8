//! Pure scaling of pools (nodes) and services (replicas): [`decide`] turns signals, a policy, a memory and a moment into a
//! [`ScaleDecision`] that carries its inputs and the rules that shaped it.
//!
//! Synchronous and deterministic: no clock, no randomness, no float, no I/O. Every number is an integer with its unit at
//! the end of its name; arithmetic saturates, so that no input panics. Invariants, for any input:
//!
//! - `min ≤ desired ≤ max`, except that an idle workload may be at zero, and that `min` gives way to `max`.
//! - A forecast, a schedule and a manual floor only raise what the reactive rules ask for.
//! - A metric that cannot be read never lets the number fall.
//! - Zero needs every signal to agree.
//! - A direction waits out its cooldown after the last change, and so reverses at most once in it.

mod activation;
mod behavior;
mod decide;
mod decision;
mod expander;
mod horizontal;
mod memory;
mod outlook;
mod policy;
mod presets;
mod signals;
mod vertical;

pub use decide::decide;
pub use decision::{Reason, ScaleDecision};
pub use expander::{Choice, ChosenBy, Expander, ScaleOption, choose};
pub use horizontal::{MetricError, Proposal, propose};
pub use memory::ScaleMemory;
pub use outlook::Outlook;
pub use policy::{Activation, Aim, Amount, Behavior, Metric, Policy, Predictive, RatePolicy, Select, Target};
pub use presets::{SeedPreset, seed_policy};
pub use signals::{Floor, FloorSource, Reading, ReplicaReading, Signals};
pub use vertical::{Histogram, Recommendation, VerticalPolicy};
