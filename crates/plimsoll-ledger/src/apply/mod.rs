//! One file per family of commands. Each function is total: it either does all of its work or refuses and changes nothing.

mod administration;
mod calendar;
mod contention;
mod elastic;
mod evict;
mod expire;
mod intents;
mod interrupt;
mod lease;
mod node;
mod overflow;
mod policy;
mod preempt;
mod queueing;
mod queues;
mod relocate;
mod repair;
mod scaling;
mod service;
mod since_version;
mod submit;
pub(crate) mod usage;
pub(crate) mod validators;

pub(crate) use administration::validate_admins;
pub use scaling::ScaleDecided;
pub(crate) use submit::hard_end;
