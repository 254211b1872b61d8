//! Who starts and stops machines. A provider is asked for one machine at a time, under a key: asked again under the same key, by whichever
//! leader, it gives the same machine.
//!
//! Invariants: a call never outlives its time limit; stopping what is not there succeeds; nothing is decided here, and nothing is remembered
//! that another coordinator would need.

mod ask;
mod exec;
mod external_grpc;
mod process;
mod real;
mod webhook;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use plimsoll_ledger::ProviderKind;

pub use ask::{Ask, Started};
pub use process::end_all;
pub use real::{ProviderSettings, RealProviders};

/// The messages of the Cluster Autoscaler's external gRPC protocol.
pub mod externalgrpc {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    tonic::include_proto!("clusterautoscaler.cloudprovider.v1.externalgrpc");
}

/// Starts and stops machines of one kind.
pub trait Machines: Send + Sync + 'static {
    /// Starts the machine of a key, or finds the one that was started under it.
    fn start<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Started, ProviderError>>;

    /// Stops the machine of a key. Succeeds where there is none.
    fn stop<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), ProviderError>>;
}

/// Where machines of each kind come from.
pub trait Providers: Send + Sync + 'static {
    /// Those of a kind.
    ///
    /// # Errors
    /// Where this coordinator does not act by that kind.
    fn machines(&self, kind: &ProviderKind) -> Result<Arc<dyn Machines>, ProviderError>;
}

/// Why a machine was not started or stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// What went wrong, with the numbers.
    pub message: String,
    /// The same call may do later.
    pub again: bool,
    /// Nothing went wrong: what is asked is on its way, and the same call says when it is there.
    pub underway: bool,
}

impl ProviderError {
    /// It may do later.
    pub fn again(message: impl Into<String>) -> ProviderError {
        ProviderError { message: message.into(), again: true, underway: false }
    }

    /// It will not do later either.
    pub fn never(message: impl Into<String>) -> ProviderError {
        ProviderError { message: message.into(), again: false, underway: false }
    }

    /// It is on its way: ask again.
    pub fn underway(message: impl Into<String>) -> ProviderError {
        ProviderError { message: message.into(), again: true, underway: true }
    }
}
