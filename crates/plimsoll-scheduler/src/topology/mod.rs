//! Where the members of a gang are beside each other, and beside other work.
//!
//! Per shape of request a tree of domains says how many members each could take; it is kept in step with every node that changed since it was
//! last asked, so that a domain is chosen in O(log domains). Requests that other work binds are rare: their trees are made when asked for.

mod blockers;
mod booked;
mod changes;
mod gate;
mod need;
mod place;
mod split;
mod tallies;
mod tree;

pub(crate) use blockers::beside;
pub(crate) use booked::BookedWork;
pub(crate) use changes::changes;
pub(crate) use gate::Gate;
use need::members_on;
pub(crate) use place::Scope;
pub(crate) use tallies::Tallies;
