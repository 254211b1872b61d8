//! Recorded fleets and workloads: read from CSV, and run on the real ledger and planner in simulated time.

pub(crate) mod autoscale;
pub(crate) mod balance;
mod packed;
pub(crate) mod past;
mod progress;
mod queueing;
mod replay;
mod report;
mod rows;
mod simulation;

pub(crate) use progress::Progress;
pub(crate) use replay::{Course, Pace, Replay};
pub(crate) use report::{Outcome, Report, RequestReport};
pub(crate) use rows::{NodeRow, WorkRow, node_names, read_nodes, read_workload, uniform_fleet};
pub(crate) use simulation::{Options, simulate, strategy_by_name};
