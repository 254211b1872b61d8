//! The store suite of openraft over our stores, and groups of three on real loopback connections.

mod cluster;
mod fixture;
mod log;
mod members;
mod quorum;
mod room;
mod rows;
mod suite;
