//! Chaos on real processes: a cluster, clients that write down what they see, faults, and judges.
//!
//! [`run::run`] is the whole of it; `docs/chaos.md` says how to use it.

pub mod check;
pub mod collect;
pub mod history;
pub mod holder;
pub mod nemesis;
pub mod net;
pub mod record;
pub mod report;
pub mod run;
pub mod scenario;
pub mod setup;
pub mod stage;
pub mod status;
pub mod workload;
