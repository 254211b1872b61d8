//! The one registry of reasons, and gRPC statuses made from and read back into it.
//!
//! From here come the gRPC code, the exit code, the retry advice and the page of each reason; nothing else decides them.

mod details;
mod registry;

pub use details::{DOMAIN, Details, PAGE};
pub use registry::{Entry, Retry, all, code, describe, entry, exit_code, from_name, name, retry};

/// A gRPC status with all details: `ErrorInfo`, and what belongs to the reason's kind (see [`Details`]).
pub fn status(details: Details) -> tonic::Status {
    details.into_status()
}
