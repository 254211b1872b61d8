//! Stock clients choose endpoints of our services: gRPC's `xds:///NAME` and Envoy over xDS, HAProxy by agent checks.
//!
//! | part | is | for |
//! | --- | --- | --- |
//! | [`Catalog`] | services, endpoints and policies at one revision, as plain types | whoever publishes |
//! | [`AdsServer`] | aggregated discovery (LDS, RDS, CDS, EDS), state of the world | gRPC clients, Envoy |
//! | [`LrsServer`] | load reports, as plain [`LoadReport`]s | the same; autoscaling |
//! | [`EndpointLoad`] | an endpoint's own report of its load (ORCA) | SDKs, agents, model servers |
//! | [`serve_agent_checks`] | `ready up 25%`, `drain up`, `down` | HAProxy |
//!
//! What each client is sent, and what it does with that: `docs/stock-clients.md`. The crate knows no other crate of Plimsoll.
//!
//! # Invariants
//!
//! - An endpoint that left the catalog is in no answer that is made after that; an answer is made from the newest catalog when the client has room for it.
//! - A draining endpoint, and one of weight 0, is sent as DRAINING and adds nothing to the weight of its zone.
//! - Nothing is sent twice for a NACK. No client can be sent what makes it reject all endpoints of a service: addresses that are names, doubles, gaps between levels,
//!   sums of weights beyond 32 bits.
//! - Memory for one client is bounded: one answer on its way, what it asked for, and a pointer for each resource it was sent.
//!
//! # Integration
//!
//! Publish through one `tokio::sync::watch::Sender<Arc<Catalog>>`, and add the services to the gRPC listener:
//!
//! - A new catalog for each change, with a higher revision: the ledger's would do, but that health changes too. Unchanged services keep their `Arc`, so that a change
//!   costs what changed.
//! - Only endpoints of active leases. Before a lease ends, send its endpoint as [`Health::Draining`] for at least the propagation time of `docs/stock-clients.md`; take it out
//!   in the catalog of the moment in which it ends.
//! - Any replica can serve: its catalog is as old as what it has applied. One that lost its leader should drop the sender after a while, so that its clients go elsewhere; they keep
//!   what they know until then.
//! - Set [`Peer`] as an extension of requests where connections are not tonic's own, or bounds per source do not count.
//! - [`AdsServer::status`] and [`LrsServer::status`] are for metrics and the status page; [`AdsStatus::nacks`] above 0 is a bug of ours or a client that is too old.
//! - Read the other end of the reports' channel all the time; reports that find it full are counted and lost.

mod ads;
mod agent_check;
mod catalog;
mod limits;
mod lrs;
mod orca;
mod resources;
mod snapshot;
mod streams;
mod subscription;

pub use ads::{AdsServer, AdsStatus, StreamStatus};
pub use agent_check::{AgentAnswer, AgentLimits, AgentQuestion, serve_agent_checks};
pub use catalog::{
    Catalog, CatalogError, Ejection, EjectionRule, Endpoint, Health, MOST_NAME_BYTES, Policy, Protocol,
    Reports, Service,
};
pub use limits::Limits;
pub use lrs::{LoadReport, LrsServer, LrsStatus, MetricSum, USUAL_INTERVAL};
pub use orca::{EndpointLoad, LoadError, MOST_BYTES, MOST_ENTRIES, TRAILER};
pub use resources::Kind;
pub use streams::Peer;
pub use subscription::SubscriptionStatus;

/// The part of the published xDS API that is spoken here, as generated from `proto/xds/`; for tests of other crates, and clients that speak by hand.
#[allow(missing_docs, clippy::all, rustdoc::all, unreachable_pub)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/xds.rs"));
}

/// The compiled .proto files of `proto/xds/`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
