//! The real clients, unmodified, against the real servers: Python grpcio, Node grpc-js, Envoy, HAProxy. `.ci/clients` installs them; a test whose client is absent says so
//! and passes.
//!
//! What is measured is what arrives at the endpoints, by one clock: the time from the publishing of a catalog to the last call that reached an endpoint which that catalog
//! says is gone or draining.

mod backend;
mod control;
mod envoy;
mod grpc;
mod haproxy;
mod installed;
mod process;
mod proxy;
mod published;
