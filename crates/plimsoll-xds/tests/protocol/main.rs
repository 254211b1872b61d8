//! The servers over real connections, spoken to by hand.

mod ads;
mod agent_check;
mod bench;
mod lrs;
