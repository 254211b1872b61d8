//! What would happen if: a request submitted or a policy applied now, beside what happens otherwise. Two futures of one fork, run by the same
//! planner and the same `apply`, compared.

mod compare;
mod future;
mod rerun;

pub use compare::{Change, Effect, EffectKind, Plan, Planned, PolicyChange, Question, QueueOver, plan};
pub use future::{Future, Move, Notice};
pub use rerun::{Ask, Course, Fate, Recorded, rerun};
