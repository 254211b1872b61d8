//! The calendar: what of a pool is kept for whom, and when.
//!
//! `schedule.rs` is what is stored; `book.rs` has the tallies that decide; `index.rs` keeps them in step with nodes and grants.
//! Times come from the log alone: rules and time zones are worked out by the leader before.

mod book;
mod civil;
mod index;
mod schedule;

pub use book::{Ask, Calendar, Room};
pub use civil::{interval, moment};
pub use schedule::{Schedule, Users, Window};

pub(crate) use book::{Book, Plan, Run, Runs};
pub(crate) use index::{end_of, most_of, window_of};

/// First ledger version that knows schedules and requests with a start.
pub(crate) const SINCE_VERSION: u32 = 4;
