//! The coordinator: a replica of the ledger, the loops of its leader, and the services in front of it.
//!
//! [`Coordinator::serve`] runs one from a configuration; [`Coordinator::around`] puts the services around a core that
//! the caller started on its own stores, clock and network (tests and the simulation).

// The layout of a service's future takes in those of all that it awaits, which are deep.
#![recursion_limit = "256"]

mod agreement;
mod bootstrap;
pub mod clock;
pub mod config;
pub mod core;
pub mod dialer;
pub mod http;
pub mod scaling;
mod serve;
pub mod services;
pub mod telemetry;
pub mod tls;

pub use bootstrap::BootstrapError;
pub use serve::{Addresses, Coordinator, ServeError};
