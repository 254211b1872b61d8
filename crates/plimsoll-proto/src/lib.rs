//! Generated wire types and their conversions; no other crate knows how a message is laid out.
//!
//! [`v1`] is the client API, [`log`] the stored forms. The API's messages have proto3 JSON through serde.

pub mod codec;
pub mod convert;
pub mod digest;
pub mod fields;
pub mod limits;
pub mod reason;

/// The client API: package `plimsoll.v1`.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/plimsoll.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/plimsoll.v1.serde.rs"));
}

/// Stored forms: package `plimsoll.log.v1`. Their encoding is canonical; see `proto/plimsoll/log/v1/log.proto`.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod log {
    include!(concat!(env!("OUT_DIR"), "/plimsoll.log.v1.rs"));
}

/// The compiled .proto files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
