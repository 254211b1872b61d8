//! The services end to end: real gRPC over loopback in front of a core in memory.

mod agents;
mod edge;
mod elastic;
mod evictions;
mod forwarding;
mod harness;
mod heads;
mod history;
mod listeners;
mod pages;
mod policy;
mod rate_limits;
mod removed;
mod reservations;
mod stopping;
mod streams;
mod upgrade;
mod validators;
