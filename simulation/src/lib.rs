//! Deterministic simulation of a whole cluster: real coordinators, the real SDK and real agents in one thread, on a
//! network, clocks and disks that are simulated. One seed decides everything, so every failure can be had again.
//!
//! [`world`] builds the hosts and moves time, [`faults`] breaks things on schedule, [`driver`] and [`workload`] are the
//! clients. What they saw ([`history`]) and what the replicas export ([`evidence`]) is judged by the [`oracle`] with one
//! file per invariant. `docs/simulation.md` says how to run, reproduce and extend it.

#[cfg(not(tokio_unstable))]
compile_error!(
    "build with --cfg tokio_unstable (see .cargo/config.toml): without it a seed does not decide everything"
);

pub mod board;
pub mod child;
pub mod clock;
pub mod cloud;
pub mod collect;
pub mod cpu;
pub mod driver;
pub mod evidence;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod mutants;
pub mod net;
pub mod oracle;
pub mod report;
pub mod request;
pub mod rng;
pub mod sabotage;
pub mod scenario;
pub mod trace;
pub mod upgrade;
pub mod watchdog;
pub mod watcher;
pub mod workload;
pub mod world;
