//! The core as a whole: one replica in memory on tokio's paused clock, and three over loopback.

mod agents;
mod backup;
mod cluster;
mod contention;
mod doctor;
mod harness;
mod overflow;
mod scaling;
mod scaling_services;
mod single;
mod versions;
