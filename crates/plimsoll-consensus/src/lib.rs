//! openraft behind one `Group`: log store, state-machine adapter, network, linearizable reads, membership.
//!
//! Payloads are opaque here; the `Machine` knows what they mean. No other crate names a type of openraft. Wire and disk
//! encodings are our own protobuf (`proto/plimsoll/internal/v1`).

#[cfg(not(any(tokio_unstable, doc, doctest)))]
compile_error!(
    "build with `--cfg tokio_unstable` (see .cargo/config.toml): an environment RUSTFLAGS overrides it"
);

/// A place at which a test may let the process die; nothing outside of test builds.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(test)]
        $crate::failpoint::hit($name);
    };
}

mod acknowledged;
mod at_length;
mod error;
#[cfg(test)]
#[path = "../../plimsoll-store/src/failpoint.rs"]
mod failpoint;
mod group;
mod log_store;
mod machine;
mod network;
mod service;
mod snapshot;
mod status;
mod types;
mod wire;

#[cfg(test)]
mod tests;

#[allow(missing_docs, clippy::all, unreachable_pub)]
pub(crate) mod internal {
    tonic::include_proto!("plimsoll.internal.v1");
}

pub use at_length::at_length;
pub use error::{Error, MachineError, ProposeError, ReadError};
pub use group::{Group, GroupConfig};
pub use machine::{Machine, ROW_PREFIX};
pub use network::Dialer;
pub use service::PeerService;
pub use snapshot::{
    ExaminedLog, ExaminedSnapshot, ExaminedState, LogPosition, NewCluster, SnapshotData, SnapshotDir,
    found_cluster, read_sealed, write_sealed,
};
pub use status::{GroupStatus, Role};
pub use types::{NodeInfo, Payload, Reply};
