//! The node agent: what a machine offers, what it measures, and which leases are alive on it.
//!
//! Bottom up: [`host`] and [`gpu`] read the machine, [`inventory`] and [`sample`] turn that into what a coordinator is
//! told, [`lease`] and [`token_gate`] keep who may use what and until when on this machine's own [`clock`], and
//! [`fence`] ends the processes of a lease that is over. [`session`] is the book of one node, [`link`] the loop that keeps
//! many of them in touch with a coordinator (over [`grpc`]); [`agent`] and [`fleet`] put it all together for a machine and for simulated
//! nodes. [`local_api`] lets workloads ask about their token, and say their [`load`].

pub mod agent;
pub mod backoff;
pub mod cgroup;
pub mod clock;
pub mod dial;
pub mod fence;
pub mod fleet;
pub mod gpu;
pub mod grpc;
pub mod host;
pub mod interruption;
pub mod inventory;
pub mod lease;
pub mod link;
pub mod load;
pub mod local_api;
pub mod message;
pub mod meter;
pub mod pressure;
pub mod sample;
pub mod session;
pub mod token_gate;
pub mod usage;
pub mod workload_env;

pub use agent::{Agent, AgentConfig, AgentError, fresh_incarnation};
pub use fleet::{FleetConfig, FleetStatus, SimulatedFleet, SimulatedNode};
pub use grpc::GrpcDial;
